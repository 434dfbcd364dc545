// For the tests of when a change takes effect: an upstream that tells what it was reached with, changes by
// the REST API alone, streams and calls that run meanwhile.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "support.hpp"

namespace mcpgw::testing {

using Strings = std::vector<std::string>;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Asks until it is so; the limit only keeps a failing test from hanging.
template <class Probe>
bool becomes(Probe probe, milliseconds limit = milliseconds(20000)) {
  const auto end = steady_clock::now() + limit;
  while (!probe()) {
    if (steady_clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

/// Tools: `who` answers with the credential of the connection, `env` with its environment, `where` with URL
/// or command.
inline std::shared_ptr<FakeUpstream> telling_upstream() {
  auto out = std::make_shared<FakeUpstream>();
  out->add_tool("who", [](const FakeUpstream::Call& call) {
    return FakeUpstream::text(call.connection.credential.empty() ? "nobody" : call.connection.credential);
  });
  out->add_tool("env", [](const FakeUpstream::Call& call) {
    std::string text;
    for (const auto& [key, value] : call.connection.env) text += key + "=" + value + ";";
    return FakeUpstream::text(text);
  });
  out->add_tool("where", [](const FakeUpstream::Call& call) {
    const Target& target = call.connection.target;
    return FakeUpstream::text(target.is_process() ? target.command : target.url);
  });
  return out;
}

/// The member of a JSON answer, as text.
inline std::string member(const HttpResponse& response, const char* name) {
  const auto value = detail::raw::find(response.body, name);
  return detail::raw::string_value(value).value_or(std::string(value));
}

/// By the REST API, which must accept it; gives the answer's id.
inline std::string change(McpClient& who, const std::string& method, const std::string& path,
                          const std::string& body = {}) {
  const HttpResponse answer = who.api(method, path, body);
  REQUIRE_MESSAGE(answer.status < 300, method, " ", path, ": ", answer.body);
  return answer.body.empty() ? std::string() : member(answer, "id");
}

/// A GET stream of one client, read by a thread of its own until it ends.
class OpenStream {
 public:
  OpenStream(InProcessGateway& gateway, McpClient& client) : gateway_(gateway) {
    const int before = streams();
    HttpRequest request;
    request.method = "GET";
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + client.token()},
                       {"Accept", "text/event-stream"},
                       {"Mcp-Session-Id", client.session_id()}};
    thread_ = std::thread([this, request]() mutable {
      response_ = gateway_.send(std::move(request));
      ended_at_ = steady_clock::now();
      ended_ = true;
    });
    REQUIRE(becomes([&] { return streams() == before + 1; }));
  }
  ~OpenStream() { thread_.join(); }
  OpenStream(const OpenStream&) = delete;
  OpenStream& operator=(const OpenStream&) = delete;

  bool ended() const { return ended_; }
  /// Whether it ends within a second of now.
  bool ends() {
    const auto from = steady_clock::now();
    return becomes([&] { return ended(); }) && ended_at_ - from <= milliseconds(1000);
  }
  /// Once it has ended.
  const std::string& events() const { return response_.body; }

 private:
  int streams() {
    const HttpResponse snapshot = gateway_.as("admin").api("GET", "/api/observability/snapshot");
    return static_cast<int>(detail::raw::int_value(detail::raw::find(snapshot.body, "streams")).value_or(-1));
  }

  InProcessGateway& gateway_;
  std::thread thread_;
  std::atomic<bool> ended_{false};
  HttpResponse response_;
  steady_clock::time_point ended_at_;
};

/// A call that runs in a thread of its own.
class RunningCall {
 public:
  RunningCall(McpClient& client, const std::string& tool, const std::string& params_more = {})
      : thread_([this, &client, tool, params_more] {
          reply_ =
              client.request("tools/call", R"({"name":")" + tool + R"(","arguments":{})" + params_more + "}");
          ended_at_ = steady_clock::now();
          ended_ = true;
        }) {}
  ~RunningCall() { thread_.join(); }
  RunningCall(const RunningCall&) = delete;
  RunningCall& operator=(const RunningCall&) = delete;

  bool ended() const { return ended_; }
  bool ends(milliseconds within = milliseconds(1000)) {
    const auto from = steady_clock::now();
    return becomes([&] { return ended(); }) && ended_at_ - from <= within;
  }
  /// Once it has ended.
  const McpReply& reply() const { return reply_; }
  std::string code() const {
    return detail::raw::string_value(
               detail::raw::find(detail::raw::find(reply_.body, "error", "data"), "code"))
        .value_or("");
  }

 private:
  std::atomic<bool> ended_{false};
  McpReply reply_;
  steady_clock::time_point ended_at_;
  std::thread thread_;
};

}  // namespace mcpgw::testing
