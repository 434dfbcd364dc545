// The overload that needs a Gateway: in a file of its own, so that the server links without one.
#include "mcpgw/gateway.hpp"
#include "mcpgw/server.hpp"

namespace mcpgw {

Result<std::shared_ptr<HttpServer>> HttpServer::start(std::shared_ptr<Gateway> gateway,
                                                      HttpServerOptions options) {
  if (gateway == nullptr)
    return Error(ErrorCode::invalid_argument, "invalid_option", "A gateway is needed", "gateway");
  std::shared_ptr<Runtime> runtime = gateway->runtime();
  auto server = start(std::shared_ptr<RequestHandler>(gateway), std::move(runtime), std::move(options));
  if (server) {
    // A socket file is reached by proxies, under any name: no loopback address in the sense of the Host
    // check.
    const int port = (*server)->port();
    gateway->set_listen_address(port, port != 0 && (*server)->loopback_only());
  }
  return server;
}

}  // namespace mcpgw
