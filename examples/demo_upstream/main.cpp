// demo_upstream: a small MCP server for trying out and measuring a gateway.
//
//   demo_upstream --stdio
//   demo_upstream --http [--port N]      prints {"port":N}; 0, the default, is chosen by the system
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include "transports.hpp"

namespace {

int usage() {
  std::fputs("usage: demo_upstream --stdio | --http [--port N]\n", stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  bool stdio = false, http = false;
  long port = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    char* end = nullptr;
    if (argument == "--stdio") {
      stdio = true;
    } else if (argument == "--http") {
      http = true;
    } else if (argument == "--port" && i + 1 < argc) {
      port = std::strtol(argv[++i], &end, 10);
      if (*argv[i] == '\0' || *end != '\0' || port < 0 || port > 65535) return usage();
    } else {
      return usage();
    }
  }
  if (stdio == http) return usage();

  try {
    boost::asio::io_context context(1);  // one thread runs everything
    boost::asio::signal_set signals(context, SIGINT, SIGTERM);
    signals.async_wait([&context](const boost::system::error_code&, int) { context.stop(); });
    if (stdio) {
      demo::serve_stdio(context);
    } else {
      std::printf("{\"port\":%d}\n", demo::serve_http(context, static_cast<int>(port)));
      std::fflush(stdout);
    }
    context.run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "demo_upstream: %s\n", error.what());
    return 1;
  }
  return 0;
}
