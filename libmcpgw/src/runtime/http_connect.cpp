#include "runtime/http_connect.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "runtime/address_check.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kMaxAddresses = 16;

std::string error_text(int error) { return std::generic_category().message(error); }

Error unreachable() {
  return {ErrorCode::unavailable, "upstream_unreachable", "The server cannot be reached"};
}

struct Resolution {
  bool done = false;
  int error = 0;  // EAI_*
  std::vector<SocketAddress> addresses;
};

Resolution resolve_blocking(const std::string& host, int port) {
  Resolution out;
  out.done = true;
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  out.error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (out.error != 0) return out;
  for (const addrinfo* at = found; at != nullptr && out.addresses.size() < kMaxAddresses; at = at->ai_next) {
    if (at->ai_addrlen > sizeof(sockaddr_storage)) continue;
    SocketAddress address;
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.length = at->ai_addrlen;
    out.addresses.push_back(address);
  }
  ::freeaddrinfo(found);
  if (out.addresses.empty()) out.error = EAI_NONAME;
  return out;
}

/// Why the connection stopped; nullopt when it did not, or when only its own connect timeout has passed.
std::optional<Error> stopped(const Connection& connection, SteadyTime deadline) {
  if (connection.stop() == Connection::Stop::cancelled) return cancelled_error();
  if (connection.stop() == Connection::Stop::timeout && steady_clock::now() >= deadline)
    return timeout_error();
  return std::nullopt;
}

/// The answer of the resolver, or an unfinished one when the connection stops first.
Task<Resolution> resolve(std::shared_ptr<Connection> connection, WorkerPool& pool) {
  // Shared with the worker: getaddrinfo cannot be stopped, and may end after nobody waits any more.
  auto result = std::make_shared<Resolution>();
  const bool taken = pool.post([result, connection, host = connection->origin().host,
                                port = connection->origin().port, use = connection->use()]() mutable {
    Resolution found = resolve_blocking(host, port);
    Loop& loop = connection->loop();
    loop.post([result, connection = std::move(connection), found = std::move(found), use]() mutable {
      *result = std::move(found);
      if (connection->use() == use) connection->wake();
    });
  });
  if (!taken) {
    result->done = true;
    result->error = EAI_AGAIN;
  }
  while (!result->done && connection->stop() == Connection::Stop::none) co_await connection->wait();
  co_return std::move(*result);
}

/// 0, errno, or ETIMEDOUT when the attempt's time is up.
Task<int> connect_one(Connection& connection, const SocketAddress& address) {
  int result = connection.open(address.get(), address.length);
  if (result != 0) co_return result;
  for (;;) {
    connection.arm_write();
    co_await connection.wait();
    if (connection.stop() != Connection::Stop::none) co_return ETIMEDOUT;
    result = connection.connect_result();
    if (result != EINPROGRESS) co_return result;
  }
}

/// Empty, or why it failed.
Task<std::string> handshake(Connection& connection, const ConnectContext& context) {
  const Origin& origin = connection.origin();
  auto session = TlsSession::create(context.tls, connection.native_handle(), origin.host,
                                    origin.host + ":" + std::to_string(origin.port), context.sessions);
  if (!session) co_return "cannot be set up for this name";
  connection.set_tls(std::move(session));
  for (;;) {
    const int step = connection.step_handshake();
    if (step == 1) co_return std::string();
    if (step != Connection::kAgain) {
      if (connection.io_error() != 0 && connection.io_error() != EPROTO)
        co_return error_text(connection.io_error());
      co_return connection.tls()->failure();
    }
    if (connection.tls()->wants_write()) connection.arm_write();
    connection.arm_read();
    co_await connection.wait();
    if (connection.stop() != Connection::Stop::none) co_return "timed out";
  }
}

}  // namespace

Error timeout_error() {
  return {ErrorCode::deadline_exceeded, "upstream_timeout", "The server did not answer in time"};
}

Error cancelled_error() { return {ErrorCode::cancelled, "cancelled", "The request was cancelled"}; }

std::string SocketAddress::text() const {
  char buffer[INET6_ADDRSTRLEN] = "?";
  if (storage.ss_family == AF_INET)
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(storage).sin_addr, buffer, sizeof buffer);
  else if (storage.ss_family == AF_INET6)
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr, buffer, sizeof buffer);
  return buffer;
}

std::optional<SocketAddress> literal_address(const std::string& host, int port) {
  SocketAddress out;
  auto& in4 = reinterpret_cast<sockaddr_in&>(out.storage);
  if (inet_pton(AF_INET, host.c_str(), &in4.sin_addr) == 1) {
    in4.sin_family = AF_INET;
    in4.sin_port = htons(static_cast<std::uint16_t>(port));
    out.length = sizeof(sockaddr_in);
    return out;
  }
  auto& in6 = reinterpret_cast<sockaddr_in6&>(out.storage);
  if (inet_pton(AF_INET6, host.c_str(), &in6.sin6_addr) == 1) {
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(static_cast<std::uint16_t>(port));
    out.length = sizeof(sockaddr_in6);
    return out;
  }
  return std::nullopt;
}

Task<Status> connect(std::shared_ptr<Connection> connection, ConnectContext context, SteadyTime deadline,
                     std::string* detail) {
  const Origin& origin = connection->origin();
  const SteadyTime until = std::min(deadline, steady_clock::now() + context.options.connect_timeout);
  std::string failure;
  const auto fail = [&](Error error) {
    if (detail != nullptr) {
      *detail = origin.host + ":" + std::to_string(origin.port) + ": " +
                (failure.empty() ? error.message : failure);
    }
    return error;
  };

  connection->set_deadline(until);
  Resolution resolved;
  if (auto literal = literal_address(origin.host, origin.port)) {
    resolved.addresses.push_back(*literal);
  } else {
    resolved = co_await resolve(connection, context.resolvers);
    if (auto error = stopped(*connection, deadline)) co_return fail(std::move(*error));
    if (!resolved.done) {
      failure = "the name was not resolved in time";
      co_return fail(unreachable());
    }
    if (resolved.error != 0) {
      failure = std::string("the name cannot be resolved: ") + gai_strerror(resolved.error);
      co_return fail(unreachable());
    }
  }

  bool refused = false;
  bool tried = false;
  for (std::size_t i = 0; i < resolved.addresses.size(); ++i) {
    const SocketAddress& address = resolved.addresses[i];
    if (!address_allowed(address.get(), context.options.allow_private, context.options.allow_metadata)) {
      refused = true;
      if (!tried) failure = "the address " + address.text() + " is not allowed";
      continue;
    }
    tried = true;
    const SteadyTime now = steady_clock::now();
    if (now >= until) break;
    // A share of what is left for each address, so that one that swallows packets does not hide the next.
    const auto left = static_cast<int>(resolved.addresses.size() - i);
    connection->set_deadline(left == 1 ? until : now + (until - now) / left);
    const int result = co_await connect_one(*connection, address);
    std::string why;
    if (result != 0) {
      why = error_text(result);
    } else if (origin.tls) {
      why = co_await handshake(*connection, context);
      if (!why.empty()) why = "TLS: " + why;
    }
    if (result == 0 && why.empty()) co_return Status();
    failure = address.text() + ": " + why;
    connection->close_socket();
    if (auto error = stopped(*connection, deadline)) co_return fail(std::move(*error));
    connection->clear_timeout();
  }
  if (refused && !tried)
    co_return fail(
        Error(ErrorCode::unavailable, "address_not_allowed", "The server's address is not allowed"));
  co_return fail(unreachable());
}

}  // namespace mcpgw::detail
