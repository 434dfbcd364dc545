// A Gateway behind another HTTP server than the bundled one, here GNU libmicrohttpd:
//
//   $ other_http_server 3000
//   http://127.0.0.1:3000
//
// Everything is in memory. Users, targets and policies are made over /api, as with the mcpgw program.
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "mcpgw/gateway.hpp"
#include "microhttpd_server.hpp"

int main(int argc, char** argv) {
  sigset_t signals;  // blocked before there are threads, so that main alone takes them
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  mcpgw::GatewayOptions options;
  options.storage = mcpgw::make_memory_storage();
  options.upstream.allow_private = true;
  auto gateway = mcpgw::Gateway::create(std::move(options));
  if (!gateway) {
    std::fprintf(stderr, "%s: %s\n", gateway.error().reason.c_str(), gateway.error().message.c_str());
    return 1;
  }
  auto server = MicrohttpdServer::start(*gateway, argc > 1 ? std::atoi(argv[1]) : 0);
  if (!server) {
    std::fprintf(stderr, "the port cannot be listened on\n");
    return 1;
  }
  // Browsers on this machine may call it.
  (*gateway)->set_listen_address(server->port(), true);
  std::printf("http://127.0.0.1:%d\n", server->port());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  (*gateway)->close();
  return 0;
}
