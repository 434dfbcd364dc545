// Sessions: how long they live, where they are known, what they bring along, and how many there may be.
#include "stream_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

const std::string kPing = R"({"jsonrpc":"2.0","id":1,"method":"ping"})";

/// What several gateways on one storage have in common.
struct Shared {
  Shared() {
    options.storage = make_memory_storage();
    options.jwt_secret = "a secret of the test, longer than 32 bytes";
    options.encryption.current = "0123456789abcdefghijklmnopqrstuv";
  }
  std::unique_ptr<InProcessGateway> gateway(std::shared_ptr<FakeUpstream> upstream = nullptr) {
    InProcessOptions opts = testing::options();
    opts.gateway = options;
    if (upstream)
      opts.gateway.connect_upstream = [upstream](const UpstreamParameters& parameters) {
        return upstream->connect(parameters);
      };
    return std::make_unique<InProcessGateway>(std::move(opts));
  }
  GatewayOptions options;
};

HttpResponse end(InProcessGateway& gw, const McpClient& client) {
  HttpRequest request = get_request(client);
  request.method = "DELETE";
  return gw.send(std::move(request));
}

HttpResponse post(InProcessGateway& gw, const McpClient& client, const std::string& id,
                  const std::string& method, const std::string& params = "{}") {
  return gw.send(post_request(client, rpc_request(id, method, params)));
}

}  // namespace

TEST_CASE(
    "R30: another process takes a session over: lists, log level and subscriptions, towards new "
    "connections") {
  Shared shared;
  auto docs = std::make_shared<FakeUpstream>();
  docs->add_tool("find", [](const auto&) { return FakeUpstream::text("found"); });
  docs->add_resource("file:///a", [](const auto&) { return R"({"contents":[]})"; });
  docs->add_resource("file:///b", [](const auto&) { return R"({"contents":[]})"; });
  auto first = shared.gateway(docs);
  first->add_upstream(http_target("docs"), docs);
  first->allow("alice", "docs");
  McpClient alice = first->as("alice");
  REQUIRE(alice.initialize("2025-06-18").ok());
  CHECK(alice.request("logging/setLevel", R"({"level":"warning"})").ok());
  CHECK(alice.request("resources/subscribe", R"({"uri":"file:///a"})").ok());
  CHECK(alice.request("resources/subscribe", R"({"uri":"file:///b"})").ok());
  CHECK(alice.request("resources/unsubscribe", R"({"uri":"file:///b"})").ok());
  CHECK(docs->received("resources/subscribe").size() == 2);

  // As after kill -9: the first has said nothing more to its storage, and the second knows that alone.
  auto second = shared.gateway(docs);
  LiveRequest stream(*second, get_request(alice));
  REQUIRE(stream.status() == 200);
  REQUIRE(becomes([&] { return docs->received("resources/subscribe").size() == 3; }));
  const std::string again = docs->received("resources/subscribe").back();
  CHECK(raw::string_value(raw::find(again, "params", "uri")) == "file:///a");
  CHECK(docs->received("logging/setLevel").size() == 2);
  CHECK(docs->received("logging/setLevel").back().find("warning") != std::string::npos);
  docs->notify("notifications/resources/updated", R"({"uri":"file:///a"})");
  CHECK(stream.sees("notifications/resources/updated"));
  docs->notify("notifications/message", R"({"level":"info","data":"too low"})");
  docs->notify("notifications/message", R"({"level":"error","data":"high enough"})");
  CHECK(stream.sees("high enough"));
  CHECK(stream.count("too low") == 0);

  const HttpResponse list = post(*second, alice, "2", "tools/list");
  CHECK(list.status == 200);
  CHECK(list.body.find("\"find\"") != std::string::npos);
  CHECK(post(*second, alice, "3", "tools/call", R"({"name":"find","arguments":{}})").body.find("found") !=
        std::string::npos);
  // Both serve it, as replicas do.
  CHECK(post(*first, alice, "4", "tools/call", R"({"name":"find","arguments":{}})").body.find("found") !=
        std::string::npos);
  // Ended by one, it is ended for the other.
  CHECK(end(*second, alice).status == 204);
  CHECK(becomes([&] { return post(*first, alice, "5", "ping").status == 404; }));
  CHECK(post(*second, alice, "6", "ping").status == 404);
  CHECK(second->as("alice2").raw(kPing, {{"Mcp-Session-Id", alice.session_id()}}).http_status == 404);
}

TEST_CASE(
    "R31: a session lives as long as it is used, in memory and in storage, and ends with 204 however old") {
  Shared shared;
  auto clock = std::make_shared<ManualClock>();
  shared.options.clock = clock;
  shared.options.session.timeout = std::chrono::minutes(30);
  auto gw = shared.gateway();
  McpClient alice = gw->as("alice");
  McpClient idle = alice;
  REQUIRE(alice.initialize().ok());
  REQUIRE(idle.initialize().ok());
  const auto stored_at = [&](const McpClient& client) {
    const auto record = gw->gateway().repository()->load_session(client.session_id());
    REQUIRE(record);
    REQUIRE(*record);
    return (*record)->last_active_at;
  };
  for (int i = 0; i < 10; ++i) {
    clock->advance(std::chrono::minutes(20));
    REQUIRE(alice.raw(kPing, {{"Mcp-Session-Id", alice.session_id()}}).ok());
    // Storage follows, so that another process would go on with it.
    CHECK(becomes([&] { return clock->now() - stored_at(alice) < std::chrono::minutes(4); }));
  }
  // An open stream is activity, too.
  {
    LiveRequest stream(*gw, get_request(alice));
    REQUIRE(stream.status() == 200);
    for (int i = 0; i < 3; ++i) {
      clock->advance(std::chrono::minutes(29));
      CHECK(becomes([&] { return clock->now() - stored_at(alice) < std::chrono::minutes(4); }));
    }
    CHECK_FALSE(stream.ended());
  }
  CHECK(idle.raw(kPing, {{"Mcp-Session-Id", idle.session_id()}}).http_status == 404);
  CHECK(end(*gw, idle).status == 404);
  // Used a moment ago, and then left alone for less than its time, by this process and by the next.
  REQUIRE(alice.raw(kPing, {{"Mcp-Session-Id", alice.session_id()}}).ok());
  clock->advance(std::chrono::minutes(29));
  gw.reset();
  auto next = shared.gateway();
  CHECK(end(*next, alice).status == 204);
  CHECK(end(*next, alice).status == 404);
}

TEST_CASE("R31: what was left alone for longer than its time is over for the next process, too") {
  Shared shared;
  auto clock = std::make_shared<ManualClock>();
  shared.options.clock = clock;
  McpClient alice;
  {
    auto gw = shared.gateway();
    alice = gw->as("alice");
    REQUIRE(alice.initialize().ok());
  }
  clock->advance(std::chrono::minutes(31));
  auto next = shared.gateway();
  CHECK(post(*next, alice, "1", "tools/list").status == 404);
  CHECK(end(*next, alice).status == 404);
}

TEST_CASE("R34: two thousand sessions that nobody ends leave no more behind than a user may have") {
  Shared shared;
  shared.options.session.max_per_user = 100;
  auto git = echo_upstream("git");
  auto gw = shared.gateway(git);
  gw->add_upstream(http_target("git"), git);
  gw->allow("alice", "git");
  McpClient& alice = gw->as("alice");
  std::string first;
  for (int i = 0; i < 2000; ++i) {
    REQUIRE(alice.initialize().ok());
    if (i == 0) first = alice.session_id();
  }
  CHECK(member(gw->as("admin").api("GET", "/api/observability/snapshot"), "active_sessions") == "100");
  CHECK(becomes([&] {
    const auto stored = gw->gateway().repository()->sessions_of(alice.user_id());
    return stored && stored->size() == 100;
  }));
  CHECK(alice.raw(kPing, {{"Mcp-Session-Id", first}}).http_status == 404);
  CHECK(alice.raw(kPing, {{"Mcp-Session-Id", alice.session_id()}}).ok());
  // They share the user's one connection.
  CHECK(git->connections() == 1);
}

TEST_CASE(
    "R34: sessions made at once are bounded, who listens is kept, and a refused initialize leaves none") {
  InProcessOptions opts = options();
  opts.gateway.session.max_per_user = 4;
  InProcessGateway gw(std::move(opts));
  McpClient& alice = gw.as("alice");
  const auto active = [&] {
    return member(gw.as("admin").api("GET", "/api/observability/snapshot"), "active_sessions");
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      McpClient mine = alice;
      for (int i = 0; i < 5; ++i) (void)mine.initialize();
    });
  for (auto& thread : threads) thread.join();
  CHECK(active() == "4");
  REQUIRE(alice.initialize().ok());
  McpClient listening = alice;
  LiveRequest stream(gw, get_request(listening));
  REQUIRE(stream.status() == 200);
  for (int i = 0; i < 6; ++i) CHECK(alice.initialize().ok());
  CHECK(active() == "4");
  CHECK_FALSE(stream.ended());
  CHECK(listening.raw(kPing, {{"Mcp-Session-Id", listening.session_id()}}).ok());
  for (const char* params :
       {R"({})", R"({"protocolVersion":7})", R"({"protocolVersion":"2025-11-25","capabilities":[]})"})
    CHECK(alice.raw(rpc_request("1", "initialize", params)).error_code() == -32602);
  CHECK(active() == "4");
}

TEST_CASE("R34: when all are busy, one more is 429") {
  InProcessOptions opts = options();
  opts.gateway.session.max_per_user = 1;
  InProcessGateway gw(std::move(opts));
  auto git = std::make_shared<FakeUpstream>();
  Gate gate;
  git->add_tool("slow", gate.handler());
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  alice.initialize();
  LiveRequest call(gw, post_request(alice, rpc_request("1", "tools/call", R"({"name":"slow"})")));
  REQUIRE(gate.entered());
  McpClient more = alice;
  const McpReply refused = more.initialize();
  CHECK(refused.http_status == 429);
  gate.open();
  REQUIRE(call.ends());
  CHECK(more.initialize().ok());
}

TEST_CASE("R50: batches of 2025-03-26") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  Gate gate;
  git->add_tool("slow", gate.handler());
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.initialize("2025-03-26", R"({"sampling":{}})").ok());
  const auto send = [&](const std::string& body,
                        const std::string& accept = "application/json, text/event-stream") {
    return gw.send(post_request(alice, body, {{"Accept", accept}}));
  };
  SUBCASE("mixed: every request is answered once, whatever else is in it") {
    const HttpResponse reply = send(
        R"([{"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","id":"7","method":"ping"},)"
        R"({"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"n":9007199254740993}}},)"
        R"({"jsonrpc":"2.0","id":99,"result":{}},{"jsonrpc":"2.0","id":8,"method":"initialize"},{"id":9},5,)"
        R"({"jsonrpc":"2.0","id":10,"method":"no/such"},{"jsonrpc":"2.0","id":7,"method":"ping"}])",
        "application/json");
    CHECK(reply.status == 200);
    CHECK(*reply.header("Content-Type") == "application/json");
    std::multiset<std::string> ids;
    int errors = 0;
    for (std::string_view one : raw::elements(reply.body)) {
      ids.insert(std::string(raw::find(one, "id")));
      errors += !raw::find(one, "error").empty();
    }
    CHECK(ids == std::multiset<std::string>{"\"7\"", "7", "7", "8", "9", "null", "10"});
    CHECK(errors == 5);
    CHECK(reply.body.find("9007199254740993") != std::string::npos);
  }
  SUBCASE("at once, as a stream when it takes long") {
    LiveRequest call(
        gw,
        post_request(
            alice,
            R"([{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow","_meta":{"progressToken":"p"}}},)"
            R"({"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow"}},)"
            R"({"jsonrpc":"2.0","id":3,"method":"ping"}])"));
    REQUIRE(gate.entered(2));
    REQUIRE(call.sees("progress"));
    CHECK(call.header("Content-Type") == "text/event-stream");
    REQUIRE(call.sees("\"id\":3"));
    gate.open();
    REQUIRE(call.ends());
    CHECK(call.count("\"id\":1,") == 1);
    CHECK(call.count("\"id\":2,") == 1);
    CHECK(call.count("\"id\":3,") == 1);
  }
  SUBCASE("the client goes: all of it ends") {
    LiveRequest call(
        gw, post_request(alice,
                         R"([{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}},)"
                         R"({"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow"}}])",
                         {{"Accept", "application/json"}}));
    REQUIRE(gate.entered(2));
    call.cut();
    CHECK(becomes([&] { return git->received("notifications/cancelled").size() == 2; }));
  }
  SUBCASE("what is no batch") {
    CHECK(send("[]").status == 400);
    CHECK(send("[]").body.find("-32600") != std::string::npos);
    std::string many = "[";
    for (int i = 0; i <= 100; ++i) many += (i == 0 ? "" : ",") + rpc_request(std::to_string(i), "ping");
    const HttpResponse refused = send(many + "]");
    CHECK(refused.status == 400);
    CHECK(refused.body.find("100") != std::string::npos);
    CHECK(send(R"([{"jsonrpc":"2.0","method":"notifications/x"},{"jsonrpc":"2.0","id":5,"result":{}}])")
              .status == 202);
    CHECK(send(R"([{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}])").body.find("-32700") !=
          std::string::npos);
    for (const char* version : {"2024-11-05", "2025-06-18", "2025-11-25"}) {
      alice.initialize(version);
      CHECK(send("[" + kPing + "]").status == 400);
    }
  }
}

TEST_CASE("R41: each client's revision is its own; a version that is not spoken is told by status and code") {
  InProcessGateway gw(options());
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  for (const char* version : {"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"}) {
    CAPTURE(version);
    const McpReply hello = alice.initialize(version);
    CHECK(raw::string_value(raw::find(hello.result(), "protocolVersion")) == version);
    // Without the header, with it, and with that of another revision that is spoken here.
    for (const HttpHeaders& headers : {HttpHeaders{}, HttpHeaders{{"MCP-Protocol-Version", version}},
                                       HttpHeaders{{"MCP-Protocol-Version", "2025-06-18"}}}) {
      HttpRequest request = post_request(alice, rpc_request("1", "tools/list"));
      for (const auto& header : headers) request.headers.push_back(header);
      const HttpResponse reply = gw.send(std::move(request));
      CHECK(reply.status == 200);
      // R25
      CHECK(raw::type_of(raw::find(raw::find(reply.body, "result"), "tools")) == raw::Type::array);
    }
    for (const char* unknown : {"1999-01-01", "v999", "2025-11-26"}) {
      HttpRequest request = post_request(alice, kPing, {{"MCP-Protocol-Version", unknown}});
      const HttpResponse reply = gw.send(std::move(request));
      CHECK(reply.status == 400);
      CHECK(reply.body.find("-32022") != std::string::npos);
      CHECK(reply.body.find(unknown) != std::string::npos);
    }
  }
  CHECK(raw::string_value(raw::find(alice.initialize("2030-01-01").result(), "protocolVersion")) ==
        "2025-11-25");
  // GET and DELETE: no era but this one has them.
  for (const char* method : {"GET", "DELETE"}) {
    HttpRequest request = get_request(alice, {{"MCP-Protocol-Version", "2026-07-28"}});
    request.method = method;
    const HttpResponse modern = gw.send(request);
    CHECK(modern.status == 405);
    CHECK(*modern.header("Allow") == "POST");
    request.headers.back().second = "v999";
    const HttpResponse unknown = gw.send(request);
    CHECK(unknown.status == 400);
    CHECK(unknown.body.find("-32022") != std::string::npos);
  }
}

TEST_CASE("R25: every list is an array, with and without targets") {
  InProcessGateway gw(options());
  McpClient& alice = gw.as("alice");
  const auto check = [&] {
    for (const auto& [method, name] :
         std::vector<std::pair<std::string, std::string>>{{"tools/list", "tools"},
                                                          {"resources/list", "resources"},
                                                          {"resources/templates/list", "resourceTemplates"},
                                                          {"prompts/list", "prompts"}}) {
      CAPTURE(method);
      const McpReply reply = alice.request(method);
      REQUIRE(reply.ok());
      CHECK(raw::type_of(raw::find(reply.result(), name)) == raw::Type::array);
    }
  };
  check();
  auto bare = std::make_shared<FakeUpstream>();
  gw.add_upstream("bare", bare);
  gw.allow("alice", "bare");
  check();
  auto hung = std::make_shared<FakeUpstream>();
  hung->close_on("tools/list");
  gw.add_upstream("hung", hung);
  gw.allow("alice", "hung");
  check();
}

TEST_CASE("R87: Accept is read leniently: one form is enough, the more specific word decides") {
  InProcessGateway gw(options());
  McpClient& alice = gw.as("alice");
  alice.initialize();
  struct Case {
    const char* accept;
    int status;
    const char* type;
  };
  for (const Case& one :
       std::initializer_list<Case>{{"", 200, "application/json"},
                                   {"*/*", 200, "application/json"},
                                   {"application/json", 200, "application/json"},
                                   {"application/*", 200, "application/json"},
                                   {"text/event-stream", 200, "text/event-stream"},
                                   {"text/*", 200, "text/event-stream"},
                                   {"TEXT/Event-Stream; q=0.5", 200, "text/event-stream"},
                                   {"application/json;q=0, */*", 200, "text/event-stream"},
                                   {"*/*, application/json;q=0", 200, "text/event-stream"},
                                   {"*/*;q=0, application/json", 200, "application/json"},
                                   {"text/html, application/xhtml+xml", 406, "application/json"},
                                   {"*/*;q=0", 406, "application/json"},
                                   {"application/jsonp", 406, "application/json"}}) {
    CAPTURE(one.accept);
    HttpRequest request = post_request(alice, kPing, {{"Accept", one.accept}});
    const HttpResponse reply = gw.send(std::move(request));
    CHECK(reply.status == one.status);
    CHECK(*reply.header("Content-Type") == one.type);
  }
  HttpRequest absent = post_request(alice, kPing);
  std::erase_if(absent.headers, [](const auto& header) { return header.first == "Accept"; });
  CHECK(gw.send(std::move(absent)).status == 200);
}

TEST_CASE("R19: a server's request whose id equals one of ours is a request, and completes no call") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  Gate gate;
  git->add_tool("slow", gate.handler());
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.initialize("2025-11-25", R"({"sampling":{}})").ok());
  LiveRequest call(gw, post_request(alice, rpc_request("1", "tools/call",
                                                       R"({"name":"slow","_meta":{"progressToken":1}})")));
  REQUIRE(call.sees("progress"));
  const std::string ours(raw::find(git->received("tools/call").back(), "id"));
  git->deliver(R"({"jsonrpc":"2.0","id":)" + ours +
               R"(,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}})");
  REQUIRE(call.sees("sampling/createMessage"));
  CHECK(call.count("\"result\"") == 0);
  std::string asked;
  for (const auto& event : call.events())
    if (event.data.find("sampling/createMessage") != std::string::npos) asked = raw::find(event.data, "id");
  CHECK(gw.send(post_request(
                    alice, R"({"jsonrpc":"2.0","id":)" + asked + R"(,"result":{"answer":"of the client"}})"))
            .status == 202);
  REQUIRE(becomes([&] {
    for (const std::string& message : git->received())
      if (raw::find(message, "id") == ours && message.find("of the client") != std::string::npos) return true;
    return false;
  }));
  gate.open();
  REQUIRE(call.sees("done"));
}
