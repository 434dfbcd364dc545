// Faults of a server behind HTTP+SSE: requests are POSTed, answers come on one event stream.
#include "support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

struct FaultySse {
  std::atomic<int> fault{0};
  /// What is said on the stream for a call; "": nothing.
  std::function<std::string(McpExchange&)> say;
  /// Answers the POST of a call itself.
  std::function<bool(McpExchange&)> post;
  ScriptedSse server{[this](McpExchange& e) -> std::optional<std::string> {
    if (fault == 0 || e.method != "tools/call" || !say) return std::nullopt;
    return say(e);
  }};
  FaultyWorld world;
  std::string id;

  FaultySse() {
    server.on_request = [this](McpExchange& e) {
      return fault != 0 && e.method == "tools/call" && post && post(e);
    };
    id = world.add("bad", server.url(), TransportType::sse);
    REQUIRE(world.gw.as("alice").call_tool("bad_echo").ok());
  }

  void check(const char* code, const char* why) {
    fault = 1;
    world.fails(id, "bad_echo", code, why);
    CHECK(server.received("tools/call").size() == 2);
    fault = 0;
    world.recovers("bad_echo");
  }
};

std::string half_of_an_answer(const McpExchange& e) {
  return R"({"jsonrpc":"2.0","id":)" + e.id + R"(,"result":{"con)";
}

}  // namespace

TEST_CASE("killed in a call") {
  FaultySse f;
  f.say = [&](McpExchange&) {
    f.server.hang_up();
    return std::string();
  };
  f.check("upstream_closed", "");
}

TEST_CASE("hung") {
  FaultySse f;
  f.say = [](McpExchange&) { return std::string(); };
  f.check("upstream_timeout", "");
}

TEST_CASE("hung at the POST, which is not answered") {
  FaultySse f;
  f.post = [](McpExchange& e) { return e.wait_closed(); };
  f.check("upstream_timeout", "");
}

TEST_CASE("slow: within its time limit it is waited for") {
  FaultySse f;
  f.say = [](McpExchange& e) {
    std::this_thread::sleep_for(700ms);
    return R"({"jsonrpc":"2.0","id":)" + e.id + R"(,"result":{"content":[]}})";
  };
  f.fault = 1;
  CHECK(f.world.gw.as("alice").call_tool("bad_echo").ok());
}

TEST_CASE("garbage on the stream is nobody's answer") {
  FaultySse f;
  f.say = [](McpExchange&) { return std::string("<html>It works!</html>"); };
  f.check("upstream_timeout", "");
}

TEST_CASE("half an answer, then the end of the stream") {
  FaultySse f;
  f.say = [&](McpExchange& e) {
    f.server.say(half_of_an_answer(e));
    std::this_thread::sleep_for(100ms);
    f.server.hang_up();
    return std::string();
  };
  f.check("upstream_closed", "");
}

TEST_CASE("certificate expired, and renewed") {
  make_certificates();
  ScriptedSse server;
  TlsFront front(server.port(), "expired");
  FaultyWorld world([](GatewayOptions& o) { o.upstream.ca = TlsFront::files().path() + "/ca.crt"; });
  const std::string id = world.add("bad", front.url("/sse"), TransportType::sse);
  world.fails(id, "bad_echo", "upstream_unreachable", "certificate");
  CHECK(server.received().empty());
  front.use("valid");
  world.recovers("bad_echo");
}

TEST_CASE("its name is gone from DNS, and back") {
  ScriptedSse server;
  FaultyWorld world;
  const std::string id = world.add("bad", "http://gone.invalid:9/sse", TransportType::sse);
  world.fails(id, "bad_echo", "upstream_unreachable", "upstream_unreachable");
  world.edit(id, [&](Target& target) { target.url = server.url(); });
  world.recovers("bad_echo");
}

TEST_CASE("its port is closed, and open again") {
  auto server = std::make_unique<ScriptedSse>();
  const int port = server->port();
  FaultyWorld world;
  const std::string id = world.add("bad", server->url(), TransportType::sse);
  REQUIRE(world.gw.as("alice").call_tool("bad_echo").ok());
  server.reset();
  REQUIRE(wait_until([&] { return world.status(id, "instances") == "0"; }));  // the stream's end was seen
  world.fails(id, "bad_echo", "upstream_unreachable", "");
  server = std::make_unique<ScriptedSse>(nullptr, port);
  world.recovers("bad_echo");
}

TEST_CASE("404 to its own session: a new stream, and sent once more") {
  FaultySse f;
  f.post = [&](McpExchange& e) {
    f.fault = 0;
    e.status(404);
    return true;
  };
  f.fault = 1;
  CHECK(f.world.gw.as("alice").call_tool("bad_echo").ok());
  CHECK(f.server.received("initialize").size() == 2);
}

TEST_CASE("5xx") {
  FaultySse f;
  f.post = [](McpExchange& e) {
    e.status(503);
    return true;
  };
  f.check("upstream_protocol_error", "");
}

TEST_CASE("redirect: not followed, and nothing of the call goes there") {
  ScriptedMcp elsewhere;
  FaultySse f;
  f.post = [&](McpExchange& e) {
    e.status(307, "", "Location: " + elsewhere.url() + "\r\n");
    return true;
  };
  f.check("upstream_redirect", "");
  CHECK(elsewhere.received().empty());
}

TEST_CASE("an event over the limit") {
  FaultySse f;
  f.say = [](McpExchange& e) {
    return R"({"jsonrpc":"2.0","id":)" + e.id + R"(,"result":{"content":[{"type":"text","text":")" +
           std::string(600000, 'x') + "\"}]}}";
  };
  f.check("response_too_large", "");
}
