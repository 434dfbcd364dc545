// From an origin to an open connection: name resolution, address check, connect, TLS.
#pragma once

#include <sys/socket.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/connection.hpp"
#include "runtime/http_client.hpp"
#include "runtime/proxy.hpp"

namespace mcpgw::detail {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr& get() const noexcept { return reinterpret_cast<const sockaddr&>(storage); }
  std::string text() const;  ///< without the port
};

/// An address for an IP literal; nullopt for a name.
std::optional<SocketAddress> literal_address(const std::string& host, int port);

struct ConnectContext {
  const HttpClientOptions& options;
  const TlsContext& tls;
  std::shared_ptr<TlsSessionCache> sessions;
  WorkerPool& resolvers;
  const Proxy* proxy = nullptr;  ///< null: none
};

/// Errors: unavailable/"upstream_unreachable", unavailable/"address_not_allowed", deadline_exceeded,
/// cancelled. `deadline` is the request's; the connect timeout applies besides. `detail` gets what the log
/// should say.
Task<Status> connect(std::shared_ptr<Connection> connection, ConnectContext context, SteadyTime deadline,
                     std::string* detail);

Error timeout_error();
Error cancelled_error();

}  // namespace mcpgw::detail
