#include <thread>

#include "support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using Strings = std::vector<std::string>;

TEST_CASE("two gateways in one process, ended in any order") {
  for (const bool first_goes_first : {true, false}) {
    auto a = std::make_unique<InProcessGateway>(options());
    auto b = std::make_unique<InProcessGateway>(options());
    a->add_upstream("x", echo_upstream("ax"));
    b->add_upstream("x", echo_upstream("bx"));
    a->allow("alice", "x");
    b->allow("alice", "x");
    CHECK(a->as("alice").call_tool("echo").text() == "ax {}");
    CHECK(b->as("alice").call_tool("echo").text() == "bx {}");
    // A token of one is nothing to the other.
    HttpRequest request;
    request.method = "GET";
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + a->as("alice").token()}};
    CHECK(b->send(std::move(request)).status == 401);
    if (first_goes_first)
      a.reset();
    else
      b.reset();
    if (a) CHECK(a->as("alice").call_tool("echo").ok());
    if (b) CHECK(b->as("alice").call_tool("echo").ok());
  }
}

TEST_CASE("one runtime shared by two gateways") {
  auto runtime = Runtime::create({.loops = 1, .workers = 2});
  InProcessOptions first = options(), second = options();
  first.gateway.runtime = runtime;
  second.gateway.runtime = runtime;
  auto a = std::make_unique<InProcessGateway>(std::move(first));
  InProcessGateway b(std::move(second));
  a->add_upstream("x", echo_upstream("ax"));
  a->allow("alice", "x");
  b.add_upstream("x", echo_upstream("bx"));
  b.allow("alice", "x");
  CHECK(a->as("alice").call_tool("echo").text() == "ax {}");
  a.reset();
  CHECK(b.as("alice").call_tool("echo").text() == "bx {}");
}

TEST_CASE("a storage that outlives the process needs a key that does") {
  class Durable final : public FailingStorage {
   public:
    Durable() : FailingStorage(make_memory_storage()) {}
    bool durable() const override { return true; }
  };
  GatewayOptions options;
  options.storage = std::make_shared<Durable>();
  const auto refused = Gateway::create(options);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::invalid_argument);
  CHECK(refused.error().field == "encryption");
  CHECK(options.storage->list("meta", "", "", 0)->empty());  // nothing was written
  options.encryption.current = "0123456789abcdefghijklmnopqrstuv";
  CHECK(Gateway::create(options));
  options.encryption.current.clear();
  options.storage = make_memory_storage();
  CHECK(Gateway::create(options));
}

TEST_CASE("R30: a session goes on after a restart, with full lists") {
  auto storage = make_memory_storage();
  auto git = echo_upstream("git");
  GatewayOptions base;
  base.storage = storage;
  base.jwt_secret = "a secret of the test, longer than 32 bytes";
  base.encryption.current = "0123456789abcdefghijklmnopqrstuv";
  std::string token, session;
  {
    InProcessOptions opts = options();
    opts.gateway = base;
    InProcessGateway gw(std::move(opts));
    gw.add_upstream("git", git);
    gw.allow("alice", "git");
    CHECK(gw.as("alice").call_tool("echo").ok());
    token = gw.as("alice").token();
    session = gw.as("alice").session_id();
  }
  InProcessOptions opts = options();
  opts.gateway = base;
  opts.gateway.connect_upstream = [git](const UpstreamParameters& parameters) {
    return git->connect(parameters);
  };
  InProcessGateway gw(std::move(opts));
  const auto post = [&](const std::string& body) {
    HttpRequest request;
    request.method = "POST";
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + token}, {"Mcp-Session-Id", session}};
    request.body = body;
    return gw.send(std::move(request));
  };
  const HttpResponse list = post(R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})");
  CHECK(list.status == 200);
  CHECK(list.body.find("\"echo\"") != std::string::npos);
  CHECK(post(R"({"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{}}})")
            .body.find("git {}") != std::string::npos);
}

TEST_CASE("R40: closing lets running calls finish and refuses new ones") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  std::atomic<bool> running{false}, release{false};
  git->add_tool("slow", [&](const auto&) {
    running = true;
    while (!release) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return FakeUpstream::text("finished");
  });
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpReply reply;
  std::thread caller([&] { reply = gw.as("alice").call_tool("slow"); });
  while (!running) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::thread closer([&] { gw.gateway().close(std::chrono::milliseconds(10000)); });
  HttpRequest probe;
  probe.method = "GET";
  probe.target = "/ready";
  while (gw.send(probe).status != 503) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(gw.as("bob").initialize().http_status == 503);
  probe.target = "/health";
  CHECK(gw.send(probe).status == 200);
  release = true;
  caller.join();
  closer.join();
  CHECK(reply.text() == "finished");
  // Audit rows are written before close() returns.
  AuditQuery query;
  query.filter.method = "tools/call";
  const auto page = gw.gateway().audit_sink()->query(query);
  REQUIRE(page);
  CHECK(page->records.size() == 1);
}

TEST_CASE("recycle ends a user's sessions and says how many") {
  InProcessGateway gw(options());
  McpClient& alice = gw.as("alice");
  alice.initialize();
  const std::string first = alice.session_id();
  alice.initialize();
  const HttpResponse reply = alice.api("POST", "/api/sessions/recycle");
  CHECK(reply.status == 200);
  CHECK(reply.body.find("\"recycled\":2") != std::string::npos);
  const std::string ping = R"({"jsonrpc":"2.0","id":1,"method":"ping"})";
  CHECK(alice.raw(ping, {{"Mcp-Session-Id", first}}).http_status == 404);
  CHECK(alice.raw(ping, {{"Mcp-Session-Id", alice.session_id()}}).http_status == 404);
}

TEST_CASE("the same through REST: target, policy, call, log") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("placeholder", git);
  McpClient& admin = gw.as("admin");
  McpClient& alice = gw.as("alice");
  CHECK(alice.api("POST", "/api/targets", R"({"name":"x"})").status == 403);
  const HttpResponse targets = admin.api("GET", "/api/targets");
  CHECK(targets.status == 200);
  const auto id =
      detail::raw::string_value(detail::raw::find(detail::raw::elements(targets.body).front(), "id"));
  REQUIRE(id);
  const HttpResponse policy = admin.api("POST", "/api/policies",
                                        R"({"name":"p","effect":"allow","target_id":")" + *id +
                                            R"(","subjects":[{"subject_type":"everyone"}]})");
  CHECK(policy.status == 201);
  CHECK(alice.call_tool("echo").ok());
  gw.audit_rows();
  const HttpResponse logs = alice.api("GET", "/api/logs?method=tools/call");
  CHECK(logs.status == 200);
  CHECK(detail::raw::elements(logs.body).size() == 1);
  const HttpResponse snapshot = alice.api("GET", "/api/observability/snapshot");
  CHECK(snapshot.status == 200);
  CHECK(snapshot.body.find("\"active_sessions\":1") != std::string::npos);
}

TEST_CASE("R28: no collection ends a process that works on a call; progress starts the time limit anew") {
  InProcessOptions opts = options();
  opts.gateway.stdio.idle_ttl = std::chrono::seconds(1);
  opts.gateway.stdio.max_lifetime = std::chrono::seconds(1);
  opts.gateway.stdio.gc_interval = std::chrono::seconds(1);
  InProcessGateway gw(std::move(opts));
  auto git = echo_upstream("git");
  git->add_tool("long", [](const FakeUpstream::Call& call) {
    // Five seconds in all, of which none is silent for as long as the limit: collections pass many times.
    for (int i = 1; i <= 10; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      call.progress(i, 10);
    }
    return FakeUpstream::text("done");
  });
  git->add_tool("silent", [](const FakeUpstream::Call&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(4500));
    return FakeUpstream::text("too late");
  });
  Target target;
  target.name = "git";
  target.transport_type = TransportType::stdio;
  target.command = "x";
  target.timeout_ms = 3000;
  gw.add_upstream(target, git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.initialize().ok());
  const McpReply reply =
      alice.request("tools/call", R"({"name":"long","arguments":{},"_meta":{"progressToken":"p"}})");
  CHECK(reply.text() == "done");
  CHECK(reply.notifications.size() == 10);
  // Without a word from the server the same limit ends a shorter call.
  const McpReply silent = alice.request("tools/call", R"({"name":"silent","arguments":{}})");
  CHECK_FALSE(silent.ok());
  CHECK(silent.body.find("upstream_timeout") != std::string::npos);
  // Once idle it is collected: a new one answers.
  const std::size_t before = git->received("initialize").size();
  bool replaced = false;
  for (int i = 0; i < 100 && !replaced; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    REQUIRE(alice.call_tool("echo").ok());
    replaced = git->received("initialize").size() > before;
  }
  CHECK(replaced);
}
