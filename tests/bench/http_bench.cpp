// A server with a trivial handler, to be measured from outside (http_bench.sh).
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "mcpgw/server.hpp"

namespace {

class Fixed final : public mcpgw::RequestHandler {
 public:
  void handle_async(mcpgw::HttpRequest, std::shared_ptr<mcpgw::Responder> responder) override {
    mcpgw::HttpResponse response;
    response.headers.emplace_back("Content-Type", "application/json");
    response.body = R"({"status":"ok","version":"1.0.0","uptime_seconds":12345,"sessions":17})";
    responder->send(std::move(response));
  }
};

}  // namespace

/// http_bench <loops>: prints its port and runs until SIGTERM.
int main(int argc, char** argv) {
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGTERM);
  sigaddset(&wanted, SIGINT);
  pthread_sigmask(SIG_BLOCK, &wanted, nullptr);
  mcpgw::RuntimeOptions options;
  options.loops = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 1;
  auto server = mcpgw::HttpServer::start(std::make_shared<Fixed>(), mcpgw::Runtime::create(options));
  if (!server) {
    std::fprintf(stderr, "%s\n", server.error().message.c_str());
    return 1;
  }
  std::printf("%d\n", (*server)->port());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&wanted, &signal);
  (*server)->stop();
  return 0;
}
