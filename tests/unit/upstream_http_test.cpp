// Streamable HTTP upstreams (MCP 2025-11-25) against servers that the test scripts.
#include <doctest/doctest.h>

#include "support/upstream_support.hpp"

namespace {
std::chrono::milliseconds between(const McpExchange& a, const McpExchange& b) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(b.at - a.at);
}
}  // namespace

TEST_CASE("R41: no version header on initialize, the negotiated one after it; the session on everything") {
  ScriptedMcp server;
  server.version = "2025-06-18";
  Fixture f;
  auto upstream = f.open_http(server.url(), {{"Authorization", "Bearer x"}});
  REQUIRE(upstream);
  CHECK((*upstream)->transport() == "streamable-http");
  CHECK(f.call(*upstream, "tools/call", R"({"name":"echo"})"));
  REQUIRE(wait_until([&] { return server.requests("GET").size() == 1; }));
  (*upstream)->close();
  // R53: the session is closed.
  REQUIRE(wait_until([&] { return server.requests("DELETE").size() == 1; }));
  for (const McpExchange& one : server.received()) {
    CHECK(one.header("authorization") == "Bearer x");
    if (one.method == "initialize") {
      CHECK(one.headers.count("mcp-protocol-version") == 0);
      CHECK(one.headers.count("mcp-session-id") == 0);
      CHECK(one.param("protocolVersion") == "\"2025-11-25\"");
    } else {
      CHECK(one.header("mcp-protocol-version") == "2025-06-18");
      CHECK(one.header("mcp-session-id") == "session-1");
    }
  }
}

TEST_CASE("a call's stream that ends early is taken up after the server's retry, where it marked a place") {
  std::atomic<int> gets{0};
  std::string id;  // written before the stream ends that the GET follows
  ScriptedMcp server([&](McpExchange& e) {
    if (e.method == "tools/call") {
      id = e.id;
      e.stream();
      e.bytes("id: place-1\nretry: 500\ndata:\n\n");
      e.end_stream();
      return true;
    }
    if (e.http_method != "GET" || e.header("last-event-id").empty()) return false;
    e.stream();
    if (++gets == 1) {
      e.event(R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}})",
              "place-2");
      e.cut();  // without an end, this time
      return true;
    }
    e.event(R"({"jsonrpc":"2.0","id":)" + id + R"(,"result":{"done":true}})", "place-3");
    e.end_stream();
    return true;
  });
  Fixture f;
  auto upstream = f.open_http(server.url());
  REQUIRE(upstream);
  auto observer = std::make_shared<Recorder>();
  const auto answer = f.start(*upstream, "tools/call", R"({"name":"echo"})", 20s, observer).get();
  REQUIRE(answer);
  CHECK(answer->payload == R"({"done":true})");
  const auto calls = server.received("tools/call");
  REQUIRE(calls.size() == 1);  // it is never sent again
  std::vector<McpExchange> resumed;
  for (McpExchange& one : server.requests("GET"))
    if (!one.header("last-event-id").empty()) resumed.push_back(one);
  REQUIRE(resumed.size() == 2);
  CHECK(resumed[0].header("last-event-id") == "place-1");
  CHECK(resumed[1].header("last-event-id") == "place-2");
  CHECK(between(calls[0], resumed[0]) >= 450ms);
  CHECK(between(calls[0], resumed[0]) < 5s);
  CHECK(between(resumed[0], resumed[1]) >= 450ms);
  REQUIRE(observer->all().size() == 1);
  CHECK(observer->all()[0].method == "notifications/message");
  (*upstream)->close();
}

TEST_CASE("a stream without a place is not taken up, and a call that was begun is not sent again") {
  ScriptedMcp server([&](McpExchange& e) {
    if (e.method != "tools/call") return false;
    e.stream();
    e.event(R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}})");
    e.cut();
    return true;
  });
  Fixture f;
  auto upstream = f.open_http(server.url());
  REQUIRE(upstream);
  const auto answer = f.call(*upstream, "tools/call", R"({"name":"echo"})");
  REQUIRE_FALSE(answer);
  CHECK(answer.error().reason == "upstream_closed");
  CHECK(server.received("tools/call").size() == 1);
  CHECK((*upstream)->alive());
  (*upstream)->close();
}

TEST_CASE("taking a stream up again is bounded by the call's time limit") {
  ScriptedMcp server([&](McpExchange& e) {
    if (e.method != "tools/call" && (e.http_method != "GET" || e.header("last-event-id").empty()))
      return false;
    e.stream();
    e.bytes("id: p\nretry: 0\ndata:\n\n");
    e.end_stream();
    return true;
  });
  Fixture f;
  auto upstream = f.open_http(server.url());
  REQUIRE(upstream);
  const auto started = std::chrono::steady_clock::now();
  const auto answer = f.call(*upstream, "tools/call", R"({"name":"echo"})", 1s);
  REQUIRE_FALSE(answer);
  CHECK(std::chrono::steady_clock::now() - started < 10s);
  CHECK(server.requests("GET").size() < 40);  // "retry: 0" is no tight loop
  (*upstream)->close();
}

TEST_CASE("a cancelled call does not wait for its stream to be taken up, and tells the server") {
  ScriptedMcp server([&](McpExchange& e) {
    if (e.method != "tools/call") return false;
    e.stream();
    e.bytes("id: p\nretry: 15000\ndata:\n\n");
    e.end_stream();
    return true;
  });
  Fixture f;
  auto upstream = f.open_http(server.url());
  REQUIRE(upstream);
  auto handle = std::make_shared<CallHandle>();
  auto waiting = f.start(*upstream, "tools/call", R"({"name":"echo"})", 20s, nullptr, handle);
  REQUIRE(wait_until([&] { return server.received("tools/call").size() == 1; }));
  const auto started = std::chrono::steady_clock::now();
  handle->cancel("enough");
  const auto answer = waiting.get();
  CHECK(std::chrono::steady_clock::now() - started < 5s);
  REQUIRE_FALSE(answer);
  CHECK(answer.error().reason == "cancelled");
  REQUIRE(wait_until([&] { return server.received("notifications/cancelled").size() == 1; }));
  CHECK(server.received("notifications/cancelled")[0].text_param("reason") == "enough");
  (*upstream)->close();
}

TEST_CASE("the standing stream: messages arrive, a ping is answered, it is reopened where it broke") {
  std::atomic<int> gets{0};
  ScriptedMcp server([&](McpExchange& e) {
    if (e.http_method != "GET") return false;
    const int number = ++gets;
    if (number == 2) return e.status(503), true;  // a fault that passes
    e.stream();
    if (number == 1) {
      e.bytes("retry: 60\n\n");
      e.event(R"({"jsonrpc":"2.0","id":7,"method":"ping"})", "a1");
      e.event(R"({"jsonrpc":"2.0","method":"notifications/tools/list_changed"})", "a2");
      e.cut();
      return true;
    }
    e.event(R"({"jsonrpc":"2.0","id":1,"method":"roots/list"})", "a3");
    return e.wait_closed(), true;
  });
  Fixture f;
  auto upstream = f.open_http(server.url());
  REQUIRE(upstream);
  REQUIRE(wait_until([&] { return f.messages().size() == 2; }));
  CHECK(f.messages()[0].method == "notifications/tools/list_changed");
  CHECK(f.messages()[1].method == "roots/list");
  const auto all = server.requests("GET");
  REQUIRE(all.size() == 3);
  CHECK(all[0].headers.count("last-event-id") == 0);
  CHECK(all[1].header("last-event-id") == "a2");
  CHECK(all[2].header("last-event-id") == "a2");
  CHECK(wait_until([&] {
    for (const McpExchange& one : server.requests("POST"))
      if (one.body == R"({"jsonrpc":"2.0","id":7,"result":{}})") return true;
    return false;
  }));
  (*upstream)->close();
  CHECK(f.lost.load() == 0);
}

TEST_CASE("a server that offers no standing stream is asked once") {
  for (const int status : {405, 404, 400, 501}) {
    ScriptedMcp server([&](McpExchange& e) {
      if (e.method == "initialize")
        return e.result(R"({"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{}})"), true;
      return e.http_method == "GET" && (e.status(status), true);
    });
    Fixture f;
    auto upstream = f.open_http(server.url());
    REQUIRE(upstream);
    REQUIRE(wait_until([&] { return server.requests("GET").size() == 1; }));
    CHECK(f.call(*upstream, "ping", {}));
    CHECK((*upstream)->alive());
    CHECK(server.requests("GET").size() == 1);
    (*upstream)->close();
  }
}

TEST_CASE("R53: a session that is unknown on the standing stream ends the connection") {
  std::atomic<bool> forgot{false};
  ScriptedMcp server([&](McpExchange& e) {
    if (e.http_method != "GET") return false;
    if (forgot) return e.status(404), true;
    forgot = true;
    e.stream();
    e.bytes("retry: 50\n\n");
    e.cut();
    return true;
  });
  Fixture f;
  auto upstream = f.open_http(server.url());
  REQUIRE(upstream);
  CHECK(wait_until([&] { return f.lost.load() == 1; }));
  CHECK_FALSE((*upstream)->alive());
}

TEST_CASE("an answer on another stream of the session is its call's answer still") {
  std::string id;
  std::mutex mutex;
  std::atomic<bool> called{false};
  ScriptedMcp server([&](McpExchange& e) {
    if (e.method == "tools/call") {
      e.stream();
      {
        const std::lock_guard lock(mutex);
        id = e.id;
      }
      called = true;
      return e.wait_closed(), true;
    }
    if (e.http_method != "GET") return false;
    e.stream();
    wait_until([&] { return called.load(); });
    const std::lock_guard lock(mutex);
    e.event(R"({"jsonrpc":"2.0","id":999,"result":{}})");
    e.event(R"({"jsonrpc":"2.0","id":)" + id + R"(,"result":{"late":1}})");
    return e.wait_closed(), true;
  });
  Fixture f;
  auto upstream = f.open_http(server.url());
  REQUIRE(upstream);
  const auto answer = f.call(*upstream, "tools/call", R"({"name":"echo"})");
  REQUIRE(answer);
  CHECK(answer->payload == R"({"late":1})");
  (*upstream)->close();
}

TEST_CASE(
    "R19: a request whose id equals a running call's is a request; a ping on a call's stream is answered") {
  ScriptedMcp server([&](McpExchange& e) {
    if (e.method != "tools/call") return false;
    e.stream();
    e.event(R"({"jsonrpc":"2.0","id":)" + e.id +
            R"(,"method":"sampling/createMessage","params":{},"result":{}})");
    e.event(R"({"jsonrpc":"2.0","id":)" + e.id + R"(,"method":"ping"})");
    e.stream_result(R"({"real":1})");
    e.end_stream();
    return true;
  });
  Fixture f;
  auto upstream = f.open_http(server.url());
  REQUIRE(upstream);
  auto observer = std::make_shared<Recorder>();
  const auto answer = f.start(*upstream, "tools/call", R"({"name":"echo"})", 20s, observer).get();
  REQUIRE(answer);
  CHECK(answer->payload == R"({"real":1})");
  REQUIRE(observer->all().size() == 1);
  CHECK(observer->all()[0].method == "sampling/createMessage");
  const std::string pong =
      R"({"jsonrpc":"2.0","id":)" + server.received("tools/call")[0].id + R"(,"result":{}})";
  CHECK(wait_until([&] {
    for (const McpExchange& one : server.requests("POST"))
      if (one.body == pong) return true;
    return false;
  }));
  (*upstream)->close();
}

TEST_CASE("what a server answers instead of initialising is told, so that the older transport can be tried") {
  for (const int status : {400, 404, 405, 401, 500}) {
    ScriptedMcp server([&](McpExchange& e) { return e.method == "initialize" && (e.status(status), true); });
    Fixture f;
    auto upstream = f.open_http(server.url());
    REQUIRE_FALSE(upstream);
    CHECK(f.refusal.status == status);
    CHECK(f.refusal.suggests_sse() == (status == 400 || status == 404 || status == 405));
  }
}
