// Several gateways over one storage: whatever belongs to a session is answered by the one that has it open,
// wherever its client's requests arrive, and by another when that one is gone.
#include "replica_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

constexpr const char* kForm =
    R"({"message":"Who?","requestedSchema":{"type":"object","properties":{"name":{"type":"string"}}}})";

constexpr const char* kHello =
    R"({"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}})";

/// Counts what is asked of a storage that several share.
class Counted final : public Storage {
 public:
  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override {
    ++calls;
    return inner_->get(collection, key);
  }
  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override {
    ++calls;
    return inner_->list(collection, prefix, after, limit);
  }
  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    ++calls;
    return inner_->commit(operations);
  }
  std::uint64_t watch(WatchCallback callback) override { return inner_->watch(std::move(callback)); }
  void unwatch(std::uint64_t id) override { inner_->unwatch(id); }
  Status ping() override { return inner_->ping(); }
  std::atomic<int> calls{0};

 private:
  const std::shared_ptr<Storage> inner_ = make_memory_storage();
};

struct Cluster {
  explicit Cluster(std::chrono::milliseconds lease = std::chrono::seconds(15)) {
    for (const char* name : {"first", "second", "third"}) {
      nodes.push_back(
          std::make_unique<Node>(name, storage, [&](GatewayOptions& o) { o.replicas.lease = lease; }));
      add_asking_tool(*nodes.back()->git, "ask", {{"elicitation/create", kForm}});
    }
    Target target;
    target.name = "git";
    target.transport_type = TransportType::stdio;
    target.command = "in-process";
    REQUIRE(first().gw->gateway().repository()->create_target(std::move(target)));
    first().gw->allow("ann", "git");
    // What was written at one is known to all.
    for (const auto& node : nodes)
      REQUIRE(becomes([&] {
        const Gateway& gateway = node->gw->gateway();
        const auto principal = gateway.authenticator()->authenticate_token(ann().token());
        return principal && gateway.policy_engine()->reached_targets(*principal).size() == 1;
      }));
  }
  Node& first() { return *nodes[0]; }
  Node& second() { return *nodes[1]; }
  Node& third() { return *nodes[2]; }
  McpClient& ann() { return nodes[0] ? nodes[0]->gw->as("ann") : *lost; }
  /// A POST of the client's session at some node, whose answer ends.
  HttpResponse post(Node& node, const std::string& body) { return node.send(post_request(ann(), body)); }
  std::string call(Node& node, const std::string& id = "77") {
    return post(node, rpc_request(id, "tools/call", R"({"name":"echo","arguments":{}})")).body;
  }

  std::shared_ptr<Counted> storage = std::make_shared<Counted>();
  std::vector<std::unique_ptr<Node>> nodes;
  std::unique_ptr<McpClient> lost;
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a session is answered by the replica that has it open, without a word to the storage") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize().ok());
  CHECK(has(cluster.call(cluster.first()), "first {}"));
  CHECK(has(cluster.call(cluster.second()), "first {}"));
  CHECK(has(cluster.call(cluster.third()), "first {}"));
  const int before = cluster.storage->calls;
  for (int i = 0; i < 20; ++i) {
    CHECK(has(cluster.call(cluster.second()), "first {}"));
    CHECK(has(cluster.call(cluster.third()), "first {}"));
  }
  // At most the storage is asked whether it is there.
  CHECK(cluster.storage->calls - before < 20);
  CHECK(cluster.second().git->received("initialize").empty());
  CHECK(cluster.third().git->received("initialize").empty());

  // A client of another user is told nothing, and a session that nobody has is unknown everywhere.
  McpClient& bob = cluster.first().gw->as("bob");
  REQUIRE(becomes([&] {
    return cluster.second().gw->gateway().authenticator()->authenticate_token(bob.token()).has_value();
  }));
  McpClient thief = bob;
  thief.use_session(cluster.ann().session_id());
  CHECK(cluster.second().send(post_request(thief, rpc_request("1", "tools/list"))).status == 404);
  McpClient stranger = cluster.ann();
  stranger.use_session(cluster.ann().session_id() + "x");
  CHECK(cluster.second().send(post_request(stranger, rpc_request("1", "tools/list"))).status == 404);

  // It ends wherever its client ends it.
  HttpRequest end = get_request(cluster.ann());
  end.method = "DELETE";
  CHECK(cluster.third().send(end).status == 204);
  CHECK(cluster.post(cluster.first(), rpc_request("1", "ping")).status == 404);
  CHECK(cluster.post(cluster.second(), rpc_request("1", "ping")).status == 404);
}

TEST_CASE("calls are cancelled through any replica, and end when their client leaves it") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize("2025-06-18").ok());
  {
    LiveRequest call(*cluster.second().gw,
                     post_request(cluster.ann(), rpc_request("5", "tools/call",
                                                             R"({"name":"slow","arguments":{},)"
                                                             R"("_meta":{"progressToken":"p"}})")));
    REQUIRE(call.sees("notifications/progress"));
    CHECK(cluster
              .post(cluster.third(),
                    R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}})")
              .status == 202);
    CHECK(becomes([&] { return !cluster.first().git->received("notifications/cancelled").empty(); }));
    CHECK(call.ends());
  }
  cluster.ann().initialize("2025-03-26");
  LiveRequest call(
      *cluster.second().gw,
      post_request(cluster.ann(), rpc_request("6", "tools/call", R"({"name":"slow","arguments":{}})"),
                   {{"Accept", "application/json"}}));
  REQUIRE(cluster.first().gate.entered(2));
  call.cut();
  CHECK(becomes([&] { return cluster.first().git->received("notifications/cancelled").size() == 2; }));
}

TEST_CASE("a server's question reaches the client, and its answer the server, over three replicas") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize("2025-06-18", R"({"elicitation":{}})").ok());
  LiveRequest call(
      *cluster.second().gw,
      post_request(cluster.ann(), rpc_request("5", "tools/call", R"({"name":"ask","arguments":{}})")));
  std::string id;
  REQUIRE(call.sees([&](const auto& event) {
    id = raw::find(event.data, "id");
    return has(event.data, "elicitation/create");
  }));
  const std::string answer = R"({"action":"accept","content":{"name":"octocat"}})";
  CHECK(cluster.post(cluster.third(), R"({"jsonrpc":"2.0","id":)" + id + R"(,"result":)" + answer + "}")
            .status == 202);
  CHECK(call.sees("octocat"));
  CHECK(call.ends());
}

TEST_CASE(
    "what a server says reaches the client's stream once, wherever it is open, and is resumed anywhere") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize("2025-11-25").ok());
  REQUIRE(has(cluster.call(cluster.first()), "first"));
  const auto say = [&](const std::string& text) {
    cluster.first().git->notify("notifications/message", R"({"level":"error","data":")" + text + "\"}");
  };
  std::string last;
  {
    LiveRequest stream(*cluster.third().gw, get_request(cluster.ann()));
    CHECK(stream.status() == 200);
    REQUIRE(becomes([&] { return !stream.last_id().empty(); }));
    say("one");
    REQUIRE(stream.sees("one"));
    cluster.first().git->add_tool("fresh", [](const auto&) { return FakeUpstream::text(""); });
    cluster.first().git->notify("notifications/tools/list_changed");
    REQUIRE(stream.sees("notifications/tools/list_changed"));
    CHECK(stream.count("one") == 1);
    last = stream.last_id();
  }
  say("two");
  say("three");
  LiveRequest stream(*cluster.second().gw, get_request(cluster.ann(), {{"Last-Event-ID", last}}));
  REQUIRE(stream.sees("two"));
  REQUIRE(stream.sees("three"));
  say("four");
  REQUIRE(stream.sees("four"));
  CHECK(stream.count("one") == 0);
  for (const char* text : {"two", "three", "four"}) CHECK(stream.count(text) == 1);
  // Nobody else has heard of it.
  LiveRequest again(*cluster.third().gw, get_request(cluster.ann(), {{"Last-Event-ID", stream.last_id()}}));
  CHECK(stream.ends());
  say("five");
  CHECK(again.sees("five"));
  CHECK(again.count("four") == 0);
}

TEST_CASE("a POST whose connection broke goes on where its client comes back") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize("2025-11-25").ok());
  std::string last;
  {
    LiveRequest call(*cluster.second().gw,
                     post_request(cluster.ann(), rpc_request("5", "tools/call",
                                                             R"({"name":"slow","arguments":{},)"
                                                             R"("_meta":{"progressToken":"p"}})")));
    REQUIRE(call.sees("notifications/progress"));
    last = call.last_id();
  }
  LiveRequest rest(*cluster.third().gw, get_request(cluster.ann(), {{"Last-Event-ID", last}}));
  CHECK(rest.status() == 200);
  cluster.first().gate.open();
  CHECK(rest.sees("done"));
  CHECK(rest.ends());
  CHECK(cluster.first().git->received("tools/call").size() == 1);
}

TEST_CASE("a session goes on elsewhere when its replica has ended, or cannot be reached") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize().ok());
  REQUIRE(has(cluster.call(cluster.third()), "first"));
  SUBCASE("it cannot be reached any more") {
    LiveRequest stream(*cluster.first().gw, get_request(cluster.ann()));
    CHECK(stream.status() == 200);
    cluster.first().door->stop();
    CHECK(has(cluster.call(cluster.second()), "second {}"));
    CHECK(has(cluster.call(cluster.third()), "second {}"));
    // The one that had it lets it go.
    CHECK(stream.ends());
    CHECK(has(cluster.call(cluster.first()), "second {}"));
  }
  SUBCASE("it ends in good order") {
    cluster.lost = std::make_unique<McpClient>(cluster.ann());
    cluster.nodes[0].reset();
    CHECK(has(cluster.call(cluster.third()), "third {}"));
    CHECK(has(cluster.call(cluster.second()), "third {}"));
  }
  CHECK(cluster.second().git->received("tools/call").size() +
            cluster.third().git->received("tools/call").size() >=
        2);
}

TEST_CASE("a call on a replica that is cut off is not made twice, and its client is told") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize("2025-06-18").ok());
  LiveRequest call(
      *cluster.second().gw,
      post_request(cluster.ann(), rpc_request("5", "tools/call", R"({"name":"slow","arguments":{}})")));
  REQUIRE(cluster.first().gate.entered());
  cluster.first().door->stop();
  CHECK(call.ends());
  CHECK(has(call.text(), "replica_lost"));
  CHECK(has(call.text(), R"("id":5)"));
  CHECK(cluster.second().git->received("tools/call").empty());
}

TEST_CASE("messages of a client of HTTP+SSE find the replica that holds its stream") {
  Cluster cluster;
  HttpRequest open = get_request(cluster.ann());
  open.target = "/sse";
  LiveRequest stream(*cluster.second().gw, open);
  REQUIRE(stream.sees([](const auto& event) { return event.event == "endpoint"; }));
  HttpRequest message = post_request(
      cluster.ann(), rpc_request("1", "initialize",
                                 R"({"protocolVersion":"2024-11-05",)"
                                 R"("capabilities":{},"clientInfo":{"name":"old","version":"1"}})"));
  message.target = stream.events().front().data;
  REQUIRE(becomes([&] { return cluster.third().send(message).status == 202; }));
  CHECK(stream.sees("serverInfo"));
  message.body = rpc_request("2", "tools/call", R"({"name":"echo","arguments":{}})");
  CHECK(becomes([&] { return cluster.first().send(message).status == 202; }));
  CHECK(stream.sees("second {}"));
}

TEST_CASE("the answer to a question of a modern call finds the replica where the call waits") {
  Cluster cluster;
  const ModernOptions options{.capabilities = R"({"elicitation":{}})"};
  const McpReply asked = modern_call(cluster.ann(), "ask", "{}", options);
  const std::string state = std::string(find(asked.result(), "requestState"));
  REQUIRE_FALSE(state.empty());
  const std::string requests(find(asked.result(), "inputRequests"));
  const std::string key(detail::raw::members(requests).front().key);
  const std::string params =
      modern_params(R"("name":"ask","arguments":{},"inputResponses":{)" + quote(key) +
                        R"(:{"action":"accept","content":{"name":"octocat"}}},"requestState":)" + state,
                    options);
  HttpRequest again = post_request(cluster.ann(), detail::make_request("2", "tools/call", params),
                                   modern_headers("tools/call", params));
  std::erase_if(again.headers, [](const auto& header) { return header.first == "Mcp-Session-Id"; });
  SUBCASE("which lives") {
    const HttpResponse done = cluster.second().send(again);
    CHECK(done.status == 200);
    CHECK(has(done.body, "octocat"));
    CHECK(cluster.first().git->received("tools/call").size() == 1);
    CHECK(cluster.second().git->received("tools/call").empty());
  }
  SUBCASE("or is told that there is none any more") {
    cluster.first().door->stop();
    const HttpResponse done = cluster.second().send(again);
    CHECK(done.status == 400);
    CHECK(has(done.body, "The replica where this call waited has gone: begin it anew"));
  }
}

TEST_CASE("what an administrator restarts or recycles at one replica is so at all") {
  Cluster cluster;
  HttpRequest hello = post_request(cluster.ann(), rpc_request("1", "initialize", kHello));
  hello.headers.erase(std::remove_if(hello.headers.begin(), hello.headers.end(),
                                     [](const auto& header) { return header.first == "Mcp-Session-Id"; }),
                      hello.headers.end());
  const HttpResponse made = cluster.second().send(hello);
  REQUIRE(made.status == 200);
  cluster.ann().use_session(*made.header("Mcp-Session-Id"));
  REQUIRE(has(cluster.call(cluster.third()), "second {}"));
  REQUIRE(cluster.second().git->received("initialize").size() == 1);
  McpClient& admin = cluster.first().gw->as("admin");
  const std::string target = cluster.first().gw->gateway().repository()->target_by_name("git")->id;
  const HttpResponse restarted = admin.api("POST", "/api/targets/" + target + "/restart-instances", "{}");
  CHECK(restarted.status == 200);
  CHECK(has(restarted.body, R"("deleted":1)"));
  CHECK(has(cluster.call(cluster.first()), "second {}"));
  CHECK(cluster.second().git->received("initialize").size() == 2);

  LiveRequest stream(*cluster.third().gw, get_request(cluster.ann()));
  CHECK(stream.status() == 200);
  const HttpResponse recycled = admin.api("POST", "/api/users/" + cluster.ann().user_id() + "/recycle", "{}");
  CHECK(recycled.status == 200);
  CHECK(has(recycled.body, R"("recycled":1)"));
  CHECK(stream.ends());
  CHECK(becomes([&] { return cluster.post(cluster.third(), rpc_request("1", "ping")).status == 404; }));
}

TEST_CASE("nobody but a replica is answered where replicas meet, and nothing twice") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize().ok());
  const auto handler = cluster.first().gw->gateway().replica_handler();
  struct Answer : Responder {
    void send(HttpResponse response) override { status = response.status; }
    std::shared_ptr<ResponseStream> start(HttpResponse head) override {
      status = head.status;
      return nullptr;
    }
    void on_disconnect(std::function<void()>) override {}
    std::atomic<int> status{0};
  };
  const auto ask = [&](const std::string& path, const std::string& body) {
    HttpRequest request;
    request.method = "POST";
    request.target = path;
    request.body = body;
    const auto answer = std::make_shared<Answer>();
    handler->handle_async(std::move(request), answer);
    REQUIRE(becomes([&] { return answer->status != 0; }));
    return answer->status.load();
  };
  CHECK(ask("/mcp", post_request(cluster.ann(), rpc_request("1", "ping")).body) == 404);
  CHECK(ask("/forward", "") == 403);
  CHECK(ask("/forward", "v1.0123456789abcdef.AAAA") == 403);
}

TEST_CASE("what was handed over once is not handed on, whoever storage says has it") {
  Cluster cluster;
  REQUIRE(cluster.ann().initialize().ok());
  const std::string session = cluster.ann().session_id();
  CHECK(has(cluster.call(cluster.second()), "first {}"));
  // Storage names one that has never opened it; the second still believes in the first.
  const auto repository = cluster.first().gw->gateway().repository();
  const auto replicas = repository->replicas();
  REQUIRE(replicas);
  std::string first, third;
  for (const ReplicaRecord& one : *replicas) {
    if (one.address == cluster.first().door->url()) first = one.id;
    if (one.address == cluster.third().door->url()) third = one.id;
  }
  const auto moved = repository->take_session(session, first, third);
  REQUIRE(moved);
  REQUIRE((*moved)->owner == third);
  int before[3] = {};
  std::string answer;
  REQUIRE(becomes([&] {  // the first lets go of it when it has been told
    for (int i = 0; i < 3; ++i) before[i] = cluster.nodes[i]->counted->asked;
    answer = cluster.call(cluster.second());
    return !has(answer, "first {}");
  }));
  // Each of the two has said once that it does not have it, and asked nobody else.
  CHECK(has(answer, "second {}"));
  CHECK(cluster.first().counted->asked - before[0] <= 1);
  CHECK(cluster.second().counted->asked - before[1] == 0);
  CHECK(cluster.third().counted->asked - before[2] == 1);
}
