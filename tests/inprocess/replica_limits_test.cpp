// Limits that several gateways over one storage keep together.
#include "gateway/replica_places.hpp"
#include "replica_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

constexpr const char* kHello =
    R"({"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}})";
constexpr const char* kSlow = R"({"name":"slow","arguments":{}})";
constexpr const char* kEcho = R"({"name":"echo","arguments":{}})";

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Three {
  explicit Three(const std::function<void(GatewayOptions&)>& change = {},
                 const std::function<void(Target&)>& shape = {}) {
    for (const char* name : {"first", "second", "third"})
      nodes.push_back(std::make_unique<Node>(name, storage, change));
    Target target;
    target.name = "git";
    target.transport_type = TransportType::stdio;
    target.command = "in-process";
    if (shape) shape(target);
    REQUIRE(nodes[0]->gw->gateway().repository()->create_target(std::move(target)));
    for (const char* name : {"ann", "bob"}) {
      nodes[0]->gw->allow(name, "git");
      users.push_back(nodes[0]->gw->as(name));
    }
    for (const auto& node : nodes)
      REQUIRE(becomes([&] {
        const Gateway& gateway = node->gw->gateway();
        const auto ann = gateway.authenticator()->authenticate_token(users[0].token());
        const auto bob = gateway.authenticator()->authenticate_token(users[1].token());
        return ann && bob && gateway.policy_engine()->reached_targets(*ann).size() == 1 &&
               gateway.policy_engine()->reached_targets(*bob).size() == 1;
      }));
  }

  /// A session that is open at this node; its status when there is none.
  int open(std::size_t node, McpClient& client) {
    client.use_session("");
    const HttpResponse made = nodes[node]->send(post_request(client, rpc_request("1", "initialize", kHello)));
    if (const std::string* id = made.header("Mcp-Session-Id")) client.use_session(*id);
    return made.status;
  }
  McpClient opened(std::size_t node, std::size_t user = 0) {
    McpClient client = users[user];
    REQUIRE(open(node, client) == 200);
    return client;
  }
  int ping(std::size_t node, const McpClient& client) {
    return nodes[node]->send(post_request(client, rpc_request("9", "ping"))).status;
  }
  std::string echo(std::size_t node, const McpClient& client) {
    return nodes[node]->send(post_request(client, rpc_request("7", "tools/call", kEcho))).body;
  }
  /// From now on a call waits no longer than a second for its turn.
  void hurry() {
    const auto repository = [&](const auto& node) { return node->gw->gateway().repository(); };
    TargetUpdate update{*repository(nodes[0] ? nodes[0] : nodes[2])->target_by_name("git"), {}, {}};
    update.target.timeout_ms = 1000;
    REQUIRE(repository(nodes[0] ? nodes[0] : nodes[2])->update_target(update));
    for (const auto& node : nodes)
      REQUIRE(becomes([&] { return !node || repository(node)->target_by_name("git")->timeout_ms == 1000; }));
  }
  std::unique_ptr<LiveRequest> slow(std::size_t node, const McpClient& client, const std::string& id = "5") {
    return std::make_unique<LiveRequest>(*nodes[node]->gw,
                                         post_request(client, rpc_request(id, "tools/call", kSlow)));
  }

  std::shared_ptr<Storage> storage = make_memory_storage();
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<McpClient> users;
};

}  // namespace

TEST_CASE("who keeps a target's places: the same for everybody, and few change when one goes") {
  using detail::ReplicaPlaces;
  const auto all = ReplicaPlaces::keepers("target", {"a", "b", "c"});
  CHECK(all.size() == 3);
  CHECK(ReplicaPlaces::keepers("target", {"c", "a", "b"}) == all);
  int kept = 0, changed = 0;
  for (int i = 0; i < 300; ++i) {
    const std::string target = "target" + std::to_string(i);
    const auto before = ReplicaPlaces::keepers(target, {"a", "b", "c"});
    const auto after = ReplicaPlaces::keepers(target, {"a", "b"});
    kept += before.front() == "c";
    changed += before.front() != "c" && before.front() != after.front();
  }
  CHECK(changed == 0);
  CHECK(kept > 50);
  CHECK(kept < 150);
}

TEST_CASE(
    "calls of a target at once: as many at all replicas as at one, and a place that is free is had at once") {
  Three three({}, [](Target& target) {
    target.max_concurrency = 2;
    target.timeout_ms = 60000;
  });
  std::vector<McpClient> clients;
  for (std::size_t i = 0; i < 3; ++i) clients.push_back(three.opened(i));
  auto first = three.slow(0, clients[0]);
  auto second = three.slow(1, clients[1]);
  REQUIRE(three.nodes[0]->gate.entered());
  REQUIRE(three.nodes[1]->gate.entered());
  three.hurry();
  for (std::size_t i = 0; i < 3; ++i) CHECK(has(three.echo(i, clients[i]), "target_busy"));
  // A client that has gone may come back for the answer; one that cancels gives its place back.
  CHECK(
      three.nodes[2]
          ->send(post_request(
              clients[0], R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}})"))
          .status == 202);
  CHECK(first->ends());
  CHECK(has(three.echo(2, clients[2]), "third {}"));
  CHECK(has(three.echo(0, clients[0]), "first {}"));
  three.nodes[1]->gate.open();
  CHECK(second->ends());
  for (std::size_t i = 0; i < 3; ++i) CHECK_FALSE(has(three.echo(i, clients[i]), "target_busy"));
}

TEST_CASE("calls that wait get their turn in turn among users, wherever they wait") {
  Three three({}, [](Target& target) {
    target.max_concurrency = 1;
    target.timeout_ms = 60000;
  });
  McpClient ann = three.opened(0), bob = three.opened(2, 1);
  auto running = three.slow(0, ann, "5");
  REQUIRE(three.nodes[0]->gate.entered());
  // Two more of the same user, and one of another at another replica, which comes last and is not served
  // last.
  std::vector<std::unique_ptr<LiveRequest>> waiting;
  for (const char* id : {"6", "7", "8", "9"}) waiting.push_back(three.slow(0, ann, id));
  auto other = three.slow(2, bob, "1");
  three.nodes[0]->gate.open();
  CHECK(running->ends());
  CHECK(three.nodes[2]->gate.entered());
  three.nodes[2]->gate.open();
  CHECK(other->ends());
  for (auto& one : waiting) CHECK(one->ends());
}

TEST_CASE("a place comes back when its replica ends, and a keeper that cannot be reached holds nobody up") {
  Three three({}, [](Target& target) {
    target.max_concurrency = 1;
    target.timeout_ms = 60000;
  });
  std::vector<McpClient> clients;
  for (std::size_t i = 0; i < 3; ++i) clients.push_back(three.opened(i));
  SUBCASE("the holder ends") {
    auto running = three.slow(0, clients[0]);
    REQUIRE(three.nodes[0]->gate.entered());
    three.hurry();
    CHECK(has(three.echo(1, clients[1]), "target_busy"));
    three.nodes[0].reset();
    CHECK(has(three.echo(1, clients[1]), "second {}"));
    CHECK(has(three.echo(2, clients[2]), "third {}"));
  }
  SUBCASE("one after another cannot be reached, whoever of them keeps the places") {
    three.nodes[0]->door->stop();
    CHECK(has(three.echo(1, clients[1]), "second {}"));
    CHECK(has(three.echo(2, clients[2]), "third {}"));
    three.nodes[1]->door->stop();
    CHECK(has(three.echo(2, clients[2]), "third {}"));
    // Still one at a time.
    auto running = three.slow(2, clients[2]);
    REQUIRE(three.nodes[2]->gate.entered());
    three.hurry();
    CHECK(has(three.echo(2, clients[2]), "target_busy"));
  }
}

TEST_CASE("sessions of a user: at all replicas together, and the one used least recently gives way") {
  Three three([](GatewayOptions& options) { options.session.max_per_user = 3; });
  std::vector<McpClient> clients;
  for (std::size_t i = 0; i < 3; ++i) clients.push_back(three.opened(i));
  CHECK(three.ping(1, clients[0]) == 200);  // so the one at the second is the oldest
  SUBCASE("an idle one gives way, wherever it is") {
    McpClient fourth = three.opened(2);
    CHECK(becomes([&] { return three.ping(0, clients[1]) == 404; }));
    CHECK(three.ping(0, clients[0]) == 200);
    CHECK(three.ping(0, clients[2]) == 200);
    CHECK(three.ping(0, fourth) == 200);
    // Of another user nothing is taken.
    McpClient bob = three.opened(0, 1);
    CHECK(three.ping(1, bob) == 200);
    CHECK(three.ping(1, fourth) == 200);
  }
  SUBCASE("busy ones do not") {
    std::vector<std::unique_ptr<LiveRequest>> calls;
    for (std::size_t i = 0; i < 3; ++i) {
      calls.push_back(three.slow(i, clients[i]));
      REQUIRE(three.nodes[i]->gate.entered());
    }
    McpClient fourth = three.users[0];
    for (std::size_t i = 0; i < 3; ++i) CHECK(three.open(i, fourth) == 429);
    three.nodes[1]->gate.open();
    CHECK(calls[1]->ends());
    CHECK(becomes([&] { return three.open(0, fourth) == 200; }));
    CHECK(becomes([&] { return three.ping(2, clients[1]) == 404; }));
  }
  SUBCASE("those of a replica that is gone do as well") {
    three.nodes[0].reset();
    for (std::size_t i : {1, 2}) CHECK(three.ping(i, clients[i]) == 200);
    McpClient fourth = three.opened(2);
    CHECK(three.ping(1, clients[1]) == 200);
    CHECK(three.ping(2, clients[2]) == 200);
    CHECK(becomes([&] { return three.ping(1, clients[0]) == 404; }));
  }
}

TEST_CASE("streams of a user: at all replicas together") {
  Three three([](GatewayOptions& options) { options.session.max_streams_per_user = 2; });
  std::vector<McpClient> clients;
  for (std::size_t i = 0; i < 3; ++i) clients.push_back(three.opened(i));
  const auto listen = [&](std::size_t node) {
    return std::make_unique<LiveRequest>(*three.nodes[node]->gw, get_request(clients[node]));
  };
  auto first = listen(0);
  CHECK(first->status() == 200);
  auto second = listen(1);
  CHECK(second->status() == 200);
  CHECK(listen(2)->status() == 429);
  // A stream in place of the session's own is no further one.
  auto again = listen(1);
  CHECK(again->status() == 200);
  // Of HTTP+SSE, and of the era without sessions.
  HttpRequest older = get_request(clients[2]);
  std::erase_if(older.headers, [](const auto& header) { return header.first == "Mcp-Session-Id"; });
  older.target = "/sse";
  CHECK(LiveRequest(*three.nodes[2]->gw, older).status() == 429);
  const std::string params = modern_params(R"("notifications":{"toolsListChanged":true})");
  HttpRequest modern = post_request(three.users[0], detail::make_request("1", "subscriptions/listen", params),
                                    modern_headers("subscriptions/listen", params));
  CHECK(LiveRequest(*three.nodes[2]->gw, modern).status() == 429);
  first->cut();
  CHECK(becomes([&] { return listen(2)->status() == 200; }));
}
