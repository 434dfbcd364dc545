// The overload that needs a Gateway: in a file of its own, so that the server links without one.
#include "mcpgw/gateway.hpp"
#include "mcpgw/server.hpp"
#include "server/server_impl.hpp"

namespace mcpgw {

Result<std::shared_ptr<HttpServer>> HttpServer::start(std::shared_ptr<Gateway> gateway,
                                                      HttpServerOptions options) {
  if (gateway == nullptr)
    return Error(ErrorCode::invalid_argument, "invalid_option", "A gateway is needed", "gateway");
  const auto address = detail::server::listen_address(options.host);
  std::shared_ptr<Runtime> runtime = gateway->runtime();
  auto server = start(std::shared_ptr<RequestHandler>(gateway), std::move(runtime), std::move(options));
  if (server)
    gateway->set_listen_address((*server)->port(), address && detail::server::is_loopback(*address));
  return server;
}

}  // namespace mcpgw
