// HTTP+SSE upstreams (MCP 2024-11-05) against servers that the test scripts.
#include <doctest/doctest.h>

#include "support/upstream_support.hpp"

TEST_CASE("HTTP+SSE: answers come on the stream by their id, whatever order they come in") {
  std::mutex mutex;
  std::string held;
  ScriptedSse server([&](McpExchange& post) -> std::optional<std::string> {
    if (post.method != "tools/call") return std::nullopt;
    const std::string answer =
        R"({"jsonrpc":"2.0","id":)" + post.id + R"(,"result":{"for":)" + post.param("name") + "}}";
    const std::lock_guard lock(mutex);
    if (held.empty()) {
      held = answer;  // the first call's waits until the second call has its own
      return "";
    }
    server.say(answer);
    return held;
  });
  Fixture f;
  auto upstream = f.open_sse(server.url(), {{"Authorization", "Bearer canary"}});
  REQUIRE(upstream);
  CHECK((*upstream)->facts().protocol_version == "2024-11-05");
  CHECK((*upstream)->transport() == "sse");
  auto first = f.start(*upstream, "tools/call", R"({"name":"one"})");
  REQUIRE(wait_until([&] { return server.received("tools/call").size() == 1; }));
  auto second = f.start(*upstream, "tools/call", R"({"name":"two"})");
  CHECK(second.get()->payload == R"({"for":"two"})");
  CHECK(first.get()->payload == R"({"for":"one"})");

  // The credential goes with the GET and with every POST, and all POSTs go to the endpoint.
  const auto all = server.received();
  REQUIRE(all.size() >= 5);
  CHECK(all[0].http_method == "GET");
  for (const McpExchange& one : all) {
    CHECK(one.header("authorization") == "Bearer canary");
    if (one.http_method == "POST") CHECK(one.target == "/messages?session=1");
  }
  CHECK(all[1].method == "initialize");
  CHECK(all[2].method == "notifications/initialized");
  (*upstream)->close();
}

TEST_CASE("R13: an endpoint of another origin is refused, and nothing is sent there") {
  ScriptedMcp other;
  for (const std::string& endpoint :
       {other.url("/messages"), std::string("//127.0.0.1:") + std::to_string(other.port()) + "/m",
        std::string("https://127.0.0.1/m"), std::string("http://user@127.0.0.1/m"), std::string("ftp://x/y"),
        std::string(5000, 'a'), std::string("/a b")}) {
    CAPTURE(endpoint);
    ScriptedSse server;
    server.endpoint = [&](int) { return endpoint; };
    Fixture f;
    auto upstream = f.open_sse(server.url(), {{"Authorization", "Bearer canary"}});
    REQUIRE_FALSE(upstream);
    CHECK(upstream.error().reason == "upstream_protocol_error");
    CHECK(upstream.error().message.find("endpoint") != std::string::npos);
    CHECK(server.received().size() == 1);
  }
  CHECK(other.received().empty());
}

TEST_CASE("HTTP+SSE: an endpoint may be relative, absolute, or lie beside the stream") {
  ScriptedSse server;
  for (const auto& [endpoint, target] :
       std::vector<std::pair<std::string, std::string>>{{"/messages/x?a=1&b=%2F", "/messages/x?a=1&b=%2F"},
                                                        {"../messages?y", "/messages?y"},
                                                        {server.url("/messages"), "/messages"}}) {
    CAPTURE(endpoint);
    server.endpoint = [endpoint = endpoint](int) { return endpoint; };
    Fixture f;
    auto upstream = f.open_sse(server.url("/deep/sse"), {});
    REQUIRE(upstream);
    CHECK(server.received().back().target == target);
    (*upstream)->close();
  }
}

TEST_CASE("HTTP+SSE: what is no such server gives a clear error in time") {
  struct Case {
    const char* reason;
    std::function<bool(McpExchange&)> script;
  };
  const std::vector<Case> cases{
      {"upstream_protocol_error", [](McpExchange& e) { return e.status(404), true; }},
      {"upstream_protocol_error", [](McpExchange& e) { return e.status(401), true; }},
      {"upstream_redirect", [](McpExchange& e) { return e.status(302, "", "Location: /x\r\n"), true; }},
      {"upstream_protocol_error", [](McpExchange& e) { return e.status(200, "{}"), true; }},
      {"upstream_protocol_error", [](McpExchange& e) { return e.stream(), e.end_stream(), true; }},
      {"upstream_closed", [](McpExchange& e) { return e.stream(), e.cut(), true; }},
      // Silence, and talk that names no endpoint.
      {"upstream_timeout", [](McpExchange& e) { return e.stream(), e.wait_closed(), true; }},
      {"upstream_timeout", [](McpExchange& e) {
         e.stream();
         e.event(R"({"jsonrpc":"2.0","method":"ping","id":1})");
         return e.wait_closed(), true;
       }}};
  for (const Case& one : cases) {
    ScriptedSse server;
    server.on_request = one.script;
    Fixture f;
    auto upstream = f.open_sse(server.url(), {}, 500ms);
    REQUIRE_FALSE(upstream);
    CHECK(upstream.error().reason == one.reason);
  }
}

TEST_CASE(
    "HTTP+SSE: a message that is refused fails its call; a session that is unknown fails the connection") {
  std::atomic<int> status{202};
  ScriptedSse server;
  server.on_request = [&](McpExchange& e) {
    if (e.method != "tools/call" || status == 202) return false;
    return e.status(status), true;
  };
  Fixture f;
  auto upstream = f.open_sse(server.url(), {});
  REQUIRE(upstream);
  status = 500;
  const auto failed = f.call(*upstream, "tools/call", R"({"name":"echo"})");
  REQUIRE_FALSE(failed);
  CHECK(failed.error().reason == "upstream_protocol_error");
  CHECK((*upstream)->alive());
  status = 202;
  CHECK(f.call(*upstream, "tools/call", R"({"name":"echo"})"));
  CHECK(f.lost.load() == 0);
  status = 404;
  const auto unknown = f.call(*upstream, "tools/call", R"({"name":"echo"})");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().reason == "session_lost");
  CHECK_FALSE((*upstream)->alive());
  CHECK(wait_until([&] { return f.lost.load() == 1; }));
}

TEST_CASE("HTTP+SSE: the end of the stream ends what waits, at once") {
  ScriptedSse server([](McpExchange& post) -> std::optional<std::string> {
    if (post.method == "tools/call") return "";
    return std::nullopt;
  });
  Fixture f;
  auto upstream = f.open_sse(server.url(), {});
  REQUIRE(upstream);
  auto waiting = f.start(*upstream, "tools/call", R"({"name":"echo"})");
  REQUIRE(wait_until([&] { return server.received("tools/call").size() == 1; }));
  server.hang_up();
  const auto answer = waiting.get();
  REQUIRE_FALSE(answer);
  CHECK(answer.error().reason == "upstream_closed");
  CHECK(wait_until([&] { return f.lost.load() == 1; }));
  CHECK_FALSE((*upstream)->alive());
}

TEST_CASE("HTTP+SSE: an event over the bound ends the connection with its reason") {
  ScriptedSse server([](McpExchange& post) -> std::optional<std::string> {
    if (post.method != "tools/call") return std::nullopt;
    return R"({"jsonrpc":"2.0","id":)" + post.id + R"(,"result":")" + std::string(200000, 'x') + "\"}";
  });
  Fixture f;
  f.max_message = 100000;
  auto upstream = f.open_sse(server.url(), {});
  REQUIRE(upstream);
  const auto answer = f.call(*upstream, "tools/call", R"({"name":"echo"})");
  REQUIRE_FALSE(answer);
  CHECK(answer.error().reason == "response_too_large");
}

TEST_CASE("HTTP+SSE: time limit, cancellation, requests and notifications of the server, a ping") {
  ScriptedSse server([&](McpExchange& post) -> std::optional<std::string> {
    if (post.method == "tools/call") return "";
    return std::nullopt;
  });
  Fixture f;
  auto upstream = f.open_sse(server.url(), {});
  REQUIRE(upstream);
  const auto late = f.call(*upstream, "tools/call", R"({"name":"echo"})", 200ms);
  REQUIRE_FALSE(late);
  CHECK(late.error().reason == "upstream_timeout");
  REQUIRE(wait_until([&] { return server.received("notifications/cancelled").size() == 1; }));
  CHECK(server.received("notifications/cancelled")[0].param("requestId") ==
        server.received("tools/call")[0].id);

  server.say(R"({"jsonrpc":"2.0","id":1,"method":"ping"})");
  REQUIRE(wait_until([&] {
    const auto all = server.received();
    return all.back().body == R"({"jsonrpc":"2.0","id":1,"result":{}})";
  }));
  server.say(R"({"jsonrpc":"2.0","method":"notifications/tools/list_changed"})");
  server.say(R"({"jsonrpc":"2.0","id":"s-1","method":"roots/list"})");
  REQUIRE(wait_until([&] { return f.messages().size() == 2; }));
  CHECK(f.messages()[0].method == "notifications/tools/list_changed");
  CHECK(f.messages()[1].method == "roots/list");
  CHECK(f.messages()[1].id == "\"s-1\"");
  (*upstream)->close();
  CHECK(f.lost.load() == 0);
}
