// Several gateways in one process over one storage, which reach one another by sockets.
#pragma once

#include "mcpgw/server.hpp"
#include "modern_support.hpp"
#include "stream_support.hpp"

namespace mcpgw::testing {

/// Counts what other replicas ask.
class CountedDoor final : public RequestHandler {
 public:
  explicit CountedDoor(std::shared_ptr<RequestHandler> inner) : inner_(std::move(inner)) {}
  void handle_async(HttpRequest request, std::shared_ptr<Responder> responder) override {
    ++asked;
    inner_->handle_async(std::move(request), std::move(responder));
  }
  std::atomic<int> asked{0};

 private:
  const std::shared_ptr<RequestHandler> inner_;
};

/// A gateway that the others reach, with a server of its own behind the one target; its tool `slow` waits at
/// the gate.
struct Node {
  Node(const std::string& name, const std::shared_ptr<Storage>& storage,
       const std::function<void(GatewayOptions&)>& change = {})
      : git(echo_upstream(name)) {
    git->add_tool("slow", gate.handler());
    InProcessOptions options;
    options.gateway.storage = storage;
    options.gateway.jwt_secret = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    options.gateway.encryption.current = "0123456789abcdeffedcba9876543210";
    options.gateway.session.resume_grace = std::chrono::seconds(30);
    if (change) change(options.gateway);
    options.gateway.connect_upstream = [fake = git](const UpstreamParameters& parameters) {
      return fake->connect(parameters);
    };
    gw = std::make_unique<InProcessGateway>(std::move(options));
    counted = std::make_shared<CountedDoor>(gw->gateway().replica_handler());
    auto started = HttpServer::start(counted, gw->gateway().runtime(), {});
    REQUIRE(started);
    door = *started;
    REQUIRE(gw->gateway().join_replicas(door->url()));
  }
  ~Node() {
    gate.open();
    git->heal();
    gw.reset();
    door->stop();
  }
  HttpResponse send(HttpRequest request) { return gw->send(std::move(request)); }

  Gate gate;
  std::shared_ptr<FakeUpstream> git;
  std::unique_ptr<InProcessGateway> gw;
  std::shared_ptr<CountedDoor> counted;
  std::shared_ptr<HttpServer> door;
};

}  // namespace mcpgw::testing
