// How test clients reach the gateway: by a call, or over a real socket. The same cases run over both.
#pragma once

#include <memory>

#include "mcpgw/gateway.hpp"

namespace mcpgw::testing {

class Transport {
 public:
  virtual ~Transport() = default;
  virtual HttpResponse send(HttpRequest request) = 0;
  /// Where the server listens; 0: there is none.
  virtual int port() const { return 0; }
};

std::unique_ptr<Transport> make_direct_transport(std::shared_ptr<Gateway> gateway);
/// Throws when this build has no server.
std::unique_ptr<Transport> make_socket_transport(std::shared_ptr<Gateway> gateway);

}  // namespace mcpgw::testing
