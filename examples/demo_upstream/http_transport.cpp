#include <openssl/rand.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>

#include "mcp_server.hpp"
#include "transports.hpp"

namespace demo {

namespace {

namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

constexpr std::size_t kMaxBody = 64 * 1024 * 1024;
constexpr std::size_t kMaxSessions = 10000;

/// Shared by all connections; everything runs on one thread.
struct Sessions {
  std::map<std::string, std::shared_ptr<Session>> by_id;
};

std::string new_session_id() {
  unsigned char bytes[16];
  if (RAND_bytes(bytes, sizeof bytes) != 1) std::abort();
  std::string out;
  for (const unsigned char byte : bytes) {
    char text[3];
    std::snprintf(text, sizeof text, "%02x", byte);
    out += text;
  }
  return out;
}

std::string header(const Request& request, const char* name) {
  const auto found = request.find(name);
  return found == request.end() ? std::string() : std::string(found->value());
}

Response response(const Request& request, http::status status, std::string body = {}) {
  Response out(status, request.version());
  out.keep_alive(request.keep_alive());
  if (!body.empty()) out.set(http::field::content_type, "application/json");
  out.body() = std::move(body);
  out.prepare_payload();
  return out;
}

Response error_response(const Request& request, http::status status, int code, const std::string& message) {
  return response(request, status, rpc_error(nullptr, code, message).dump());
}

std::string dump(const Json& message) { return message.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// A page in a browser must not reach this server: only loopback origins may (DNS rebinding).
bool origin_allowed(const std::string& origin) {
  if (origin.empty()) return true;
  for (const char* host : {"http://localhost", "http://127.0.0.1", "http://[::1]"})
    if (origin == host || origin.rfind(std::string(host) + ":", 0) == 0) return true;
  return false;
}

Caller caller_of(const Request& request) {
  Caller out;
  for (const auto& field : request) {
    std::string name(field.name_string());
    for (char& c : name)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    out.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  return out;
}

/// An answer as an event stream: progress first, the result last.
asio::awaitable<void> answer_streamed(tcp::socket& socket, const Request& request,
                                      std::shared_ptr<Session> session, Json message) {
  http::response<http::empty_body> head(http::status::ok, request.version());
  head.set(http::field::content_type, "text/event-stream");
  head.set(http::field::cache_control, "no-store");
  head.chunked(true);
  head.keep_alive(request.keep_alive());
  http::response_serializer<http::empty_body> serializer(head);
  co_await http::async_write_header(socket, serializer, asio::use_awaitable);
  const Notify send_event = [&socket](Json event) -> asio::awaitable<void> {
    const std::string text = "event: message\ndata: " + dump(event) + "\n\n";
    co_await asio::async_write(socket, http::make_chunk(asio::buffer(text)), asio::use_awaitable);
  };
  const auto reply =
      co_await handle_message(std::move(session), std::move(message), caller_of(request), send_event);
  if (reply) co_await send_event(*reply);
  co_await asio::async_write(socket, http::make_chunk_last(), asio::use_awaitable);
}

asio::awaitable<void> no_notification(Json) { co_return; }

/// The plain answer to a POST; no value when the answer has been streamed already.
asio::awaitable<std::optional<Response>> answer_post(tcp::socket& socket, const Request& request,
                                                     Sessions& sessions) {
  Json message = Json::parse(request.body(), nullptr, false);
  if (message.is_discarded())
    co_return error_response(request, http::status::bad_request, -32700, "Not JSON");
  if (!message.is_object())
    co_return error_response(request, http::status::bad_request, -32600, "One JSON-RPC message was expected");

  std::shared_ptr<Session> session;
  const bool initialize = message.value("method", Json()) == "initialize";
  if (initialize) {
    if (sessions.by_id.size() >= kMaxSessions)
      co_return error_response(request, http::status::service_unavailable, -32603, "Too many sessions");
    session = std::make_shared<Session>();
    session->id = new_session_id();
  } else {
    const auto id = header(request, "Mcp-Session-Id");
    if (id.empty())
      co_return error_response(request, http::status::bad_request, -32600, "Mcp-Session-Id is missing");
    const auto found = sessions.by_id.find(id);
    if (found == sessions.by_id.end())
      co_return error_response(request, http::status::not_found, -32001, "Session not found");
    session = found->second;
    const auto version = header(request, "MCP-Protocol-Version");
    if (!version.empty() && version != session->protocol_version)
      co_return error_response(request, http::status::bad_request, -32600,
                               "MCP-Protocol-Version is not that of the session");
  }

  if (wants_progress(message) && header(request, "Accept").find("text/event-stream") != std::string::npos) {
    co_await answer_streamed(socket, request, std::move(session), std::move(message));
    co_return std::nullopt;
  }
  const auto reply =
      co_await handle_message(session, std::move(message), caller_of(request), no_notification);
  if (!reply) co_return response(request, http::status::accepted);
  auto out = response(request, http::status::ok, dump(*reply));
  if (initialize && reply->contains("result")) {
    sessions.by_id[session->id] = session;
    out.set("Mcp-Session-Id", session->id);
  }
  co_return out;
}

asio::awaitable<std::optional<Response>> answer(tcp::socket& socket, const Request& request,
                                                Sessions& sessions) {
  if (request.target() != "/mcp")
    co_return response(request, http::status::not_found, R"({"error":"Not found"})");
  if (!origin_allowed(header(request, "Origin")))
    co_return error_response(request, http::status::forbidden, -32600, "Origin is not allowed");
  if (request.method() == http::verb::post) co_return co_await answer_post(socket, request, sessions);
  if (request.method() == http::verb::delete_) {
    const bool known = sessions.by_id.erase(header(request, "Mcp-Session-Id")) > 0;
    co_return response(request, known ? http::status::no_content : http::status::not_found);
  }
  auto out =
      response(request, http::status::method_not_allowed);  // no stream of its own: it never asks the client
  out.set(http::field::allow, "POST, DELETE");
  co_return out;
}

asio::awaitable<void> serve_connection(tcp::socket socket, std::shared_ptr<Sessions> sessions) {
  socket.set_option(tcp::no_delay(true));
  boost::beast::flat_buffer buffer;
  try {
    for (;;) {
      http::request_parser<http::string_body> parser;
      parser.body_limit(kMaxBody);
      co_await http::async_read(socket, buffer, parser, asio::use_awaitable);
      const Request request = parser.release();
      auto reply = co_await answer(socket, request, *sessions);
      if (reply) co_await http::async_write(socket, *reply, asio::use_awaitable);
      if (!request.keep_alive()) break;
    }
  } catch (const boost::system::system_error&) {
    // The client has gone, or has sent what is not HTTP: the connection ends.
  }
}

asio::awaitable<void> accept_connections(std::shared_ptr<tcp::acceptor> acceptor) {
  const auto sessions = std::make_shared<Sessions>();
  for (;;) {
    boost::system::error_code error;
    auto socket = co_await acceptor->async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) co_return;
    if (error) continue;
    asio::co_spawn(acceptor->get_executor(), serve_connection(std::move(socket), sessions), asio::detached);
  }
}

}  // namespace

int serve_http(asio::io_context& context, int port) {
  const auto acceptor = std::make_shared<tcp::acceptor>(context);
  const tcp::endpoint endpoint(asio::ip::address_v4::loopback(), static_cast<unsigned short>(port));
  acceptor->open(endpoint.protocol());
  acceptor->set_option(tcp::acceptor::reuse_address(true));
  acceptor->bind(endpoint);
  acceptor->listen(1024);
  asio::co_spawn(context, accept_connections(acceptor), asio::detached);
  return acceptor->local_endpoint().port();
}

}  // namespace demo
