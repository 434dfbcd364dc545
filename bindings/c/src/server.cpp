#include "mcpgw/server.hpp"

#include "gateway.hpp"
#include "options.hpp"

struct mcpgw_server {
  std::shared_ptr<mcpgw::HttpServer> server;
  std::string url;
};

using namespace mcpgw;
using namespace mcpgw::capi;

mcpgw_status mcpgw_server_start(mcpgw_gateway* gateway, const char* options, size_t size, mcpgw_server** out,
                                char** out_error) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    if (gateway == nullptr || out == nullptr)
      return invalid("invalid_argument", "gateway and out must not be NULL");
    app::Config config = gateway->config;
    if (auto done = apply_options(view(options, size), config); !done) return done;
    config.http.log = gateway->log;
    auto server = HttpServer::start(gateway->gateway, std::move(config.http));
    if (!server) return server.error();
    auto handle = std::make_unique<mcpgw_server>();
    handle->url = (*server)->url();
    handle->server = std::move(*server);
    *out = handle.release();
    return {};
  });
}

int mcpgw_server_port(const mcpgw_server* server) { return server == nullptr ? 0 : server->server->port(); }

const char* mcpgw_server_url(const mcpgw_server* server) {
  return server == nullptr ? "" : server->url.c_str();
}

void mcpgw_server_drain(mcpgw_server* server) {
  if (server == nullptr) return;
  (void)guard(nullptr, [&]() -> Status {
    server->server->drain();
    return {};
  });
}

void mcpgw_server_stop(mcpgw_server* server) {
  if (server == nullptr) return;
  (void)guard(nullptr, [&]() -> Status {
    server->server->stop();
    return {};
  });
}

void mcpgw_server_free(mcpgw_server* server) {
  mcpgw_server_stop(server);
  delete server;
}
