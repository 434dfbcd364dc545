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
/// A server that is being started anew refuses connections for a moment, and has got nothing of the request.
constexpr int kTries = 2;
constexpr auto kAfterRefused = std::chrono::milliseconds(200);

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
Task<Resolution> resolve(std::shared_ptr<Connection> connection, WorkerPool& pool, const std::string& name,
                         int port) {
  // Shared with the worker: getaddrinfo cannot be stopped, and may end after nobody waits any more.
  auto result = std::make_shared<Resolution>();
  const bool taken = pool.post([result, connection, host = name, port, use = connection->use()]() mutable {
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
    connection.want_write();
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
    if (connection.tls()->wants_write()) connection.want_write();
    co_await connection.wait();
    if (connection.stop() != Connection::Stop::none) co_return "timed out";
  }
}

/// One connect(): what it may take, and why it failed.
struct Attempt {
  const std::shared_ptr<Connection>& connection;
  const ConnectContext& context;
  const SteadyTime deadline;  // the request's
  const SteadyTime until;     // of connecting
  std::string failure;
  bool refused = false;  // by every address that was tried
};

/// The addresses of a name, or of a literal itself.
Task<Result<std::vector<SocketAddress>>> find_addresses(Attempt& attempt, const std::string& host, int port) {
  if (auto literal = literal_address(host, port)) co_return std::vector<SocketAddress>{*literal};
  Resolution resolved = co_await resolve(attempt.connection, attempt.context.resolvers, host, port);
  if (auto error = stopped(*attempt.connection, attempt.deadline)) co_return std::move(*error);
  if (!resolved.done) {
    attempt.failure = "the name was not resolved in time";
    co_return unreachable();
  }
  if (resolved.error != 0) {
    attempt.failure = std::string("the name cannot be resolved: ") + gai_strerror(resolved.error);
    co_return unreachable();
  }
  co_return std::move(resolved.addresses);
}

/// Those that may be connected to; address_not_allowed when there is none.
Result<std::vector<SocketAddress>> permitted(Attempt& attempt, const std::vector<SocketAddress>& all,
                                             bool allow_private) {
  std::vector<SocketAddress> out;
  for (const SocketAddress& address : all) {
    if (address_allowed(address.get(), allow_private, attempt.context.options.allow_metadata))
      out.push_back(address);
    else if (out.empty())
      attempt.failure = "the address " + address.text() + " is not allowed";
  }
  if (out.empty())
    return Error(ErrorCode::unavailable, "address_not_allowed", "The server's address is not allowed");
  return out;
}

/// Asks the proxy at the other end for a way to `destination`. Empty, or why there is none.
Task<std::string> open_tunnel(Connection& connection, const Proxy& proxy, const std::string& destination) {
  constexpr std::size_t kMaxAnswer = 16 * 1024;
  std::string request = "CONNECT " + destination + " HTTP/1.1\r\nHost: " + destination + "\r\n";
  if (!proxy.authorization().empty()) request += "Proxy-Authorization: " + proxy.authorization() + "\r\n";
  request += "\r\n";
  std::string_view left = request;
  std::string answer;
  for (;;) {
    if (connection.stop() != Connection::Stop::none) co_return "the proxy did not answer in time";
    if (!left.empty()) {
      const ssize_t n = connection.write(left, {});
      if (n >= 0) {
        left.remove_prefix(static_cast<std::size_t>(n));
        continue;
      }
      if (n != Connection::kAgain) co_return "the proxy closed the connection";
      connection.want_write();
    } else if (connection.readable()) {
      char buffer[1024];
      const ssize_t n = connection.read(buffer, sizeof buffer);
      if (n == 0 || n == -1) co_return "the proxy closed the connection";
      if (n > 0) {
        answer.append(buffer, static_cast<std::size_t>(n));
        const auto end = answer.find("\r\n\r\n");
        // Behind the proxy the client speaks first: what comes along with the answer is nobody's.
        if (end != std::string::npos && end + 4 != answer.size()) co_return "the proxy's answer is malformed";
        if (end != std::string::npos) break;
        if (answer.size() > kMaxAnswer) co_return "the proxy's answer is too large";
        continue;
      }
    }
    co_await connection.wait();
  }
  if (answer.size() < 12 || answer.compare(0, 7, "HTTP/1.") != 0 || answer[8] != ' ')
    co_return "the proxy's answer is malformed";
  const std::string status = answer.substr(9, 3);
  if (status[0] != '2' || status.find_first_not_of("0123456789") != std::string::npos)
    co_return "the proxy answered " +
        (status.find_first_not_of("0123456789") == std::string::npos ? status : std::string("with nonsense"));
  co_return std::string();
}

/// Connects to one of the addresses, and through it to `destination` when that is not empty.
Task<Status> connect_to(Attempt& attempt, const std::vector<SocketAddress>& addresses,
                        const std::string& destination) {
  Connection& connection = *attempt.connection;
  attempt.refused = true;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    const SocketAddress& address = addresses[i];
    const SteadyTime now = steady_clock::now();
    if (now >= attempt.until) break;
    // A share of what is left for each address, so that one that swallows packets does not hide the next.
    const auto left = static_cast<int>(addresses.size() - i);
    connection.set_deadline(left == 1 ? attempt.until : now + (attempt.until - now) / left);
    const int result = co_await connect_one(connection, address);
    attempt.refused &= result == ECONNREFUSED;
    std::string why;
    if (result != 0) why = error_text(result);
    if (why.empty() && !destination.empty())
      why = co_await open_tunnel(connection, *attempt.context.proxy, destination);
    if (why.empty() && connection.origin().tls) {
      why = co_await handshake(connection, attempt.context);
      if (!why.empty()) why = "TLS: " + why;
    }
    if (why.empty()) co_return Status();
    attempt.failure = (destination.empty() ? address.text() : "proxy " + address.text()) + ": " + why;
    connection.close_socket();
    if (auto error = stopped(connection, attempt.deadline)) co_return std::move(*error);
    connection.clear_timeout();
  }
  co_return unreachable();
}

Task<Status> connect_directly(Attempt& attempt) {
  const Origin& origin = attempt.connection->origin();
  auto found = co_await find_addresses(attempt, origin.host, origin.port);
  if (!found) co_return found.error();
  auto addresses = permitted(attempt, *found, attempt.context.options.allow_private);
  if (!addresses) co_return addresses.error();
  const std::string directly;
  co_return co_await connect_to(attempt, *addresses, directly);
}

Task<Status> connect_through(Attempt& attempt) {
  constexpr std::size_t kMaxDestinations = 3;  // each is a connection of its own to the proxy
  const Origin& origin = attempt.connection->origin();
  const HttpClientOptions& options = attempt.context.options;
  const auto authority = [&](const std::string& host) {
    return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" +
           std::to_string(origin.port);
  };
  std::vector<std::string> destinations;
  if (options.proxy_resolves && !literal_address(origin.host, origin.port)) {
    destinations.push_back(authority(origin.host));
  } else {
    auto found = co_await find_addresses(attempt, origin.host, origin.port);
    if (!found) co_return found.error();
    const auto addresses = permitted(attempt, *found, options.allow_private);
    if (!addresses) co_return addresses.error();
    for (const SocketAddress& address : *addresses)
      if (destinations.size() < kMaxDestinations) destinations.push_back(authority(address.text()));
  }
  const Proxy& proxy = *attempt.context.proxy;
  auto found = co_await find_addresses(attempt, proxy.host(), proxy.port());
  if (!found) {
    attempt.failure = "proxy: " + attempt.failure;
    co_return found.error();
  }
  // Whoever configured it chose its address.
  const auto addresses = permitted(attempt, *found, true);
  if (!addresses) co_return addresses.error();
  Status done = unreachable();
  for (const std::string& destination : destinations) {
    done = co_await connect_to(attempt, *addresses, destination);
    if (done || done.error().reason != "upstream_unreachable") break;
  }
  co_return done;
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
  Attempt attempt{connection, context, deadline, until, {}};
  connection->set_deadline(until);
  const bool proxied = context.proxy != nullptr && context.proxy->serves(origin.host, origin.port);
  Status done;
  for (int tries = 1;; ++tries) {
    if (proxied)
      done = co_await connect_through(attempt);
    else
      done = co_await connect_directly(attempt);
    const SteadyTime again = steady_clock::now() + kAfterRefused;
    if (done || !attempt.refused || tries == kTries || again >= until) break;
    connection->set_deadline(again);
    while (connection->stop() == Connection::Stop::none) co_await connection->wait();
    if (connection->stop() != Connection::Stop::timeout) break;
    connection->clear_timeout();
    connection->set_deadline(until);
    attempt.refused = false;
  }
  if (connection->stop() == Connection::Stop::cancelled) done = cancelled_error();
  if (!done && detail != nullptr) {
    *detail = origin.host + ":" + std::to_string(origin.port) + ": " +
              (attempt.failure.empty() ? done.error().message : attempt.failure);
  }
  co_return done;
}

}  // namespace mcpgw::detail
