// Targets over HTTP as a client sees them: several at once, of both transports, and what becomes of faults.
#include "../support/scripted_mcp.hpp"
#include "effects_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using namespace std::chrono_literals;

namespace {

/// A gateway whose targets are reached over the network.
struct World {
  explicit World(std::function<void(GatewayOptions&)> change = {}) : gw(network(std::move(change))) {}

  static InProcessOptions network(std::function<void(GatewayOptions&)> change) {
    InProcessOptions out = options();
    out.gateway.upstream.allow_private = true;
    out.gateway.log = [](const LogEvent&) {};
    if (change) change(out.gateway);
    return out;
  }

  std::string add(const std::string& name, const std::string& url,
                  TransportType type = TransportType::streamable_http, int timeout_ms = 20000) {
    Target target;
    target.name = name;
    target.transport_type = type;
    target.url = url;
    target.timeout_ms = timeout_ms;
    target.auth_type = AuthType::bearer;
    auto made = gw.gateway().repository()->create_target(std::move(target));
    REQUIRE(made);
    return made->id;
  }

  std::string status(const std::string& id, const char* name) {
    const HttpResponse answer = gw.as("admin").api("GET", "/api/targets/" + id);
    const auto value = detail::raw::find(detail::raw::find(answer.body, "status"), name);
    return detail::raw::string_value(value).value_or(std::string(value));
  }

  InProcessGateway gw;
};

std::string code_of(const McpReply& reply) {
  return detail::raw::string_value(detail::raw::find(detail::raw::find(reply.body, "error", "data"), "code"))
      .value_or("");
}

/// All names of a list, page by page; the number of pages in `pages`.
Strings walk(McpClient& client, const std::string& method, const char* member, int& pages) {
  Strings out;
  std::string params = "{}";
  for (pages = 0; pages < 100;) {
    const McpReply reply = client.request(method, params);
    REQUIRE(reply.ok());
    ++pages;
    const std::string result = reply.result();
    for (const std::string_view item : detail::raw::elements(detail::raw::find(result, member)))
      out.push_back(detail::raw::string_value(detail::raw::find(item, "name")).value_or(""));
    const std::string_view next = detail::raw::find(result, "nextCursor");
    if (next.empty()) return out;
    params = R"({"cursor":)" + std::string(next) + "}";
  }
  return out;
}

std::string tool(const std::string& name) {
  return R"({"name":")" + name + R"(","inputSchema":{"type":"object"}})";
}

}  // namespace

TEST_CASE("T1, R24: pages across upstreams, an empty cursor, a foreign one, and one that never ends") {
  ScriptedMcp alpha([](McpExchange& e) {
    if (e.method != "tools/list") return false;
    if (e.param("cursor").empty()) {
      e.result(R"({"tools":[)" + tool("a1") + "," + tool("a2") + R"(],"nextCursor":""})");
    } else {
      CHECK(e.param("cursor") == R"("")");
      e.result(R"({"tools":[)" + tool("a3") + "]}");
    }
    return true;
  });
  ScriptedMcp beta([](McpExchange& e) {
    if (e.method != "tools/list") return false;
    if (e.param("cursor").empty()) {
      e.result(R"({"tools":[)" + tool("b1") + R"(],"nextCursor":"k=9&x"})");
    } else {
      CHECK(e.param("cursor") == R"("k=9&x")");
      e.result(R"({"tools":[)" + tool("b2") + "]}");
    }
    return true;
  });
  std::mutex mutex;
  Strings log;
  World w([&](GatewayOptions& o) {
    o.log = [&](const LogEvent& record) {
      std::string line = record.message;
      for (const auto& [key, value] : record.fields) line += " " + key + "=" + value;
      const std::lock_guard lock(mutex);
      log.push_back(line);
    };
  });
  w.add("alpha", alpha.url());
  w.add("beta", beta.url());
  w.gw.allow("alice", "");
  McpClient& alice = w.gw.as("alice");
  int pages = 0;
  const Strings five{"alpha_a1", "alpha_a2", "alpha_a3", "beta_b1", "beta_b2"};
  CHECK(walk(alice, "tools/list", "tools", pages) == five);
  CHECK(pages <= 10);
  for (const char* cursor : {R"("not-ours")", R"("")", "7", R"("bWNwZ3cxOjE6Mg")", "{}"})
    CHECK(alice.request("tools/list", R"({"cursor":)" + std::string(cursor) + "}").error_code() == -32602);

  // The same cursor for ever.
  ScriptedMcp endless([](McpExchange& e) {
    if (e.method != "tools/list") return false;
    e.result(R"({"tools":[)" + tool("c" + std::to_string(e.param("cursor").size())) +
             R"(],"nextCursor":"again"})");
    return true;
  });
  const std::string id = w.add("endless", endless.url());
  Strings all = walk(alice, "tools/list", "tools", pages);
  CHECK(pages <= 10);
  for (const std::string& name : five) CHECK(contains(all, name));
  CHECK(contains(all, "endless_c0"));
  CHECK(endless.received("tools/list").size() <= 10);
  CHECK(becomes([&] { return w.status(id, "state") == "degraded"; }));
  CHECK(w.status(id, "last_error") == "tools/list: the list does not end");
  const std::lock_guard lock(mutex);
  CHECK(std::any_of(log.begin(), log.end(), [](const std::string& line) {
    return line.find("target=endless") != std::string::npos && line.find("does not end") != std::string::npos;
  }));
}

TEST_CASE("R24: a cursor that is always another one ends at the stated bound too") {
  std::atomic<int> asked{0};
  ScriptedMcp endless([&](McpExchange& e) {
    if (e.method != "tools/list") return false;
    const int page = ++asked;
    e.result(R"({"tools":[)" + tool("c" + std::to_string(page)) + R"(],"nextCursor":")" +
             std::to_string(page) + "\"}");
    return true;
  });
  ScriptedMcp good;
  World w([](GatewayOptions& o) { o.upstream.list_timeout = 3s; });
  const std::string id = w.add("endless", endless.url());
  w.add("good", good.url());
  w.gw.allow("alice", "");
  int pages = 0;
  CHECK(contains(walk(w.gw.as("alice"), "tools/list", "tools", pages), "good_echo"));
  CHECK(pages <= 2);
  CHECK(becomes([&] { return w.status(id, "state") == "degraded"; }));
  const int at_the_bound = asked;
  CHECK(at_the_bound <= 1000);
  CHECK(w.status(id, "last_error") == "tools/list: the list does not end");
}

TEST_CASE("R24: a page continues behind the item it ended with, whatever came or went before it") {
  auto git = std::make_shared<FakeUpstream>();
  const auto nothing = [](const FakeUpstream::Call&) { return FakeUpstream::text(""); };
  for (int i = 0; i < 2500; ++i) git->add_tool("t" + std::to_string(10000 + i), nothing);
  InProcessGateway gw(options());
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  const McpReply first = alice.request("tools/list");
  const std::string cursor(detail::raw::find(first.result(), "nextCursor"));
  REQUIRE_FALSE(cursor.empty());
  // Another's list, and another kind's.
  CHECK(alice.request("prompts/list", R"({"cursor":)" + cursor + "}").error_code() == -32602);
  // A policy takes away what was on the first page: the second one begins where it would have begun.
  Policy deny;
  deny.name = "no first ones";
  deny.effect = Effect::deny;
  deny.priority = 10;
  deny.resource_pattern = "^t100";
  deny.subjects.push_back({});
  REQUIRE(gw.gateway().repository()->create_policy(deny));
  const McpReply second = alice.request("tools/list", R"({"cursor":)" + cursor + "}");
  const std::string result = second.result();
  const auto items = detail::raw::elements(detail::raw::find(result, "tools"));
  REQUIRE(items.size() == 1000);
  CHECK(detail::raw::find(items[0], "name") == R"("t11000")");
  const std::string last(detail::raw::find(result, "nextCursor"));
  const std::string third = alice.request("tools/list", R"({"cursor":)" + last + "}").result();
  CHECK(detail::raw::elements(detail::raw::find(third, "tools")).size() == 500);
  CHECK(detail::raw::find(third, "nextCursor").empty());
}

TEST_CASE("T3, R18: an event stream that does not begin with the answer") {
  std::atomic<std::int64_t> answered_at{0};
  ScriptedMcp server([&](McpExchange& e) {
    if (e.method != "tools/call") return false;
    const std::string token(
        detail::raw::find(detail::raw::find(detail::raw::find(e.body, "params"), "_meta"), "progressToken"));
    e.stream();
    e.bytes("id: 1\r\ndata:\r\n\r\n");
    e.bytes(": a comment\n\n");
    e.bytes(
        "event: message\r\ndata: "
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":" +
        token + ",\"progress\":1,\"unknown\":1.0}}\r\n\r\n");
    e.bytes(
        "data: "
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/"
        "message\",\"params\":{\"level\":\"info\",\"data\":\"x\"}}\n\n");
    answered_at = steady_clock::now().time_since_epoch().count();
    e.bytes("data: {\"jsonrpc\":\"2.0\",\"id\":" + e.id +
            ",\r\ndata: \"result\":{\"content\":[],\"structuredContent\":{\"a\":1}}}\r\n\r\n");
    e.wait_closed();  // the stream stays open, silent, until the gateway has enough of it
    return true;
  });
  World w;
  w.add("git", server.url());
  w.gw.allow("alice", "git");
  McpClient& alice = w.gw.as("alice");
  REQUIRE(alice.list_tools() == Strings{"echo"});
  const McpReply reply = alice.request("tools/call", R"({"name":"echo","_meta":{"progressToken":"mine"}})");
  const auto took = steady_clock::now().time_since_epoch().count() - answered_at.load();
  CHECK(steady_clock::duration(took) < 2s);  // 200 ms, and a margin for a machine with much to do
  REQUIRE(reply.notifications.size() == 2);
  CHECK(
      reply.notifications[0] ==
      R"({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"mine","progress":1,"unknown":1.0}})");
  CHECK(reply.notifications[1] ==
        R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}})");
  CHECK(reply.result() == R"({"content":[],"structuredContent":{"a":1}})");
}

TEST_CASE("T5, R53: an upstream that forgets its session is initialised once, and the call sent once more") {
  std::atomic<bool> forgot{false}, always{false};
  ScriptedMcp alpha([&](McpExchange& e) {
    if (e.method != "tools/call") return false;
    if (always || (forgot && e.header("mcp-session-id") == "session-1")) return e.status(404), true;
    return false;
  });
  ScriptedMcp beta;
  World w;
  w.add("alpha", alpha.url());
  w.add("beta", beta.url());
  w.gw.allow("alice", "");
  McpClient& alice = w.gw.as("alice");
  for (int i = 0; i < 3; ++i) REQUIRE(alice.call_tool("alpha_echo").ok());
  REQUIRE(alice.call_tool("beta_echo").ok());
  const std::string session = alice.session_id();
  const std::size_t beta_before = beta.received().size();
  forgot = true;
  CHECK(alice.call_tool("alpha_echo").text() == "echo");
  CHECK(alice.session_id() == session);
  CHECK(alpha.received("initialize").size() == 2);
  CHECK(alpha.received("notifications/initialized").size() == 2);
  CHECK(alpha.received("tools/call").size() == 5);  // three, one refused, one sent once more
  CHECK(alpha.received("initialize")[1].headers.count("mcp-session-id") == 0);
  CHECK(alpha.received("tools/call")[4].header("mcp-session-id") == "session-2");
  CHECK(beta.received().size() == beta_before);
  CHECK(alice.call_tool("beta_echo").ok());

  // 404 again and again: one error, no loop.
  always = true;
  const McpReply failed = alice.call_tool("alpha_echo");
  CHECK(failed.error_code() == -32603);
  CHECK(failed.error_message().find("'alpha'") != std::string::npos);
  CHECK(alpha.received("tools/call").size() == 7);
  CHECK(alice.call_tool("beta_echo").ok());
  always = false;
  CHECK(alice.call_tool("alpha_echo").ok());
}

TEST_CASE("T5: a call whose answer had begun is not sent again") {
  std::atomic<int> calls{0};
  ScriptedMcp alpha([&](McpExchange& e) {
    if (e.http_method == "GET" && !e.header("last-event-id").empty()) return e.status(404), true;
    if (e.method != "tools/call") return false;
    ++calls;
    e.stream();
    e.event(R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}})", "p1");
    e.bytes("retry: 50\n\n");
    e.cut();
    return true;
  });
  World w;
  w.add("alpha", alpha.url());
  w.gw.allow("alice", "");
  const McpReply reply = w.gw.as("alice").call_tool("echo");
  CHECK(code_of(reply) == "upstream_closed");
  CHECK(calls == 1);
  CHECK(w.gw.as("alice").request("ping").ok());
}

TEST_CASE("T5: the same after a restart of the gateway") {
  std::atomic<bool> forgot{false};
  ScriptedMcp alpha([&](McpExchange& e) {
    return e.method == "tools/call" && forgot.exchange(false) && (e.status(404), true);
  });
  auto storage = make_memory_storage();
  const auto base = [&](GatewayOptions& o) {
    o.storage = storage;
    o.jwt_secret = "a secret of the test, longer than 32 bytes";
    o.encryption.current = "0123456789abcdefghijklmnopqrstuv";
  };
  std::string token, session;
  {
    World w(base);
    w.add("alpha", alpha.url());
    w.gw.allow("alice", "alpha");
    CHECK(w.gw.as("alice").call_tool("echo").ok());
    token = w.gw.as("alice").token();
    session = w.gw.as("alice").session_id();
  }
  // R53: the session ended with the gateway that had made it.
  CHECK(alpha.requests("DELETE").size() == 1);
  World w(base);
  McpClient& alice = w.gw.as("someone");
  alice.use_token(token);
  const auto call = [&] {
    return alice.raw(R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}})",
                     {{"Mcp-Session-Id", session}});
  };
  CHECK(call().text() == "echo");
  const std::size_t before = alpha.received("initialize").size();
  forgot = true;
  CHECK(call().text() == "echo");
  CHECK(alpha.received("initialize").size() == before + 1);
}

TEST_CASE("T9, R42: names of several targets stay what they are, whatever comes, fails or restarts") {
  const auto names_text = [](const McpExchange& e) {
    return R"({"content":[{"type":"text","text":)" + e.param("name") + "}]}";
  };
  const auto script = [&](const std::string& target) {
    return [=](McpExchange& e) {
      if (e.method != "tools/call") return false;
      e.result(R"({"content":[{"type":"text","text":")" + target + ":" + e.text_param("name") + "\"}]}");
      return true;
    };
  };
  (void)names_text;
  const std::string longest(70, 't');
  ScriptedMcp a(script("a")), ab(script("a_b")), x(script("x"));
  std::atomic<bool> y_fails{false};
  ScriptedMcp y([&](McpExchange& e) { return y_fails && (e.status(500), true); });
  a.tools = "[" + tool("b_c") + "]";
  ab.tools = "[" + tool("c") + "]";
  x.tools = "[" + tool(longest) + "," + tool("read-file") + "," + tool("read_file") + "]";
  auto storage = make_memory_storage();
  const auto base = [&](GatewayOptions& o) {
    o.storage = storage;
    o.jwt_secret = "a secret of the test, longer than 32 bytes";
    o.upstream.list_timeout = 2s;
  };
  Strings first;
  const std::map<std::size_t, std::string> leads{
      {0, "a:b_c"}, {1, "a_b:c"}, {2, "x:" + longest}, {3, "x:read-file"}, {4, "x:read_file"}};
  const auto check = [&](McpClient& client) {
    Strings mine;
    for (const std::string& name : client.list_tools())
      if (name != "y_echo") mine.push_back(name);
    if (first.empty()) first = mine;
    CHECK(mine == first);
    REQUIRE(mine.size() == 5);
    for (const auto& [at, text] : leads) CHECK(client.call_tool(mine[at]).text() == text);
  };
  std::string token;
  {
    World w(base);
    w.add("a", a.url());
    w.add("a_b", ab.url());
    w.add("x", x.url());
    w.gw.allow("alice", "");
    McpClient& alice = w.gw.as("alice");
    check(alice);
    CHECK(std::set<std::string>(first.begin(), first.end()).size() == 5);
    for (const std::string& name : first) {
      CHECK(name.size() <= 64);
      CHECK(name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
            std::string::npos);
    }
    const std::string y_id = w.add("y", y.url());
    check(alice);
    CHECK(contains(alice.list_tools(), "y_echo"));
    y_fails = true;
    REQUIRE(alice.api("GET", "/api/targets").status == 200);
    change(w.gw.as("admin"), "PUT", "/api/targets/" + y_id,
           R"({"timeout_ms":21000})");  // a new connection, which fails
    check(alice);
    CHECK_FALSE(contains(alice.list_tools(), "y_echo"));
    token = alice.token();
  }
  World w(base);
  McpClient& alice = w.gw.as("someone");
  alice.use_token(token);
  check(alice);
}

TEST_CASE("T11 (legacy part), R41: each hop has its own version, and no other's header") {
  ScriptedMcp u1([](McpExchange& e) {
    if (e.method == "initialize" && e.headers.count("mcp-protocol-version")) return e.status(400), true;
    if (e.http_method == "POST" && e.method != "initialize" &&
        e.header("mcp-protocol-version") != "2025-06-18")
      return e.status(400), true;
    return false;
  });
  u1.version = "2025-06-18";
  World w;
  w.add("u1", u1.url());
  w.gw.allow("alice", "u1");
  for (const char* version : {"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"}) {
    McpClient& alice = w.gw.as("alice");
    const McpReply opened = alice.initialize(version);
    CHECK(detail::raw::find(opened.result(), "protocolVersion") == "\"" + std::string(version) + "\"");
    CHECK(alice.list_tools() == Strings{"echo"});
    CHECK(alice.call_tool("echo").text() == "echo");
  }
  McpClient& alice = w.gw.as("alice");
  const McpReply refused =
      alice.raw(R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})",
                {{"Mcp-Session-Id", alice.session_id()}, {"MCP-Protocol-Version", "1999-01-01"}});
  CHECK(refused.http_status == 400);
  CHECK(refused.error_code() == -32022);
  CHECK(refused.body.find("2025-11-25") != std::string::npos);
  for (const McpExchange& e : u1.received()) {
    CHECK(e.headers.count("authorization") == 0);  // the client's token stays here
    CHECK(e.header("mcp-session-id") != alice.session_id());
  }
}

TEST_CASE("a target of type sse, and one that turns out to be: lists, calls, status, its test") {
  ScriptedSse old;
  World w;
  const std::string named = w.add("named", old.url(), TransportType::sse);
  w.gw.allow("alice", "named");
  McpClient& alice = w.gw.as("alice");
  CHECK(alice.list_tools() == Strings{"echo"});
  CHECK(alice.call_tool("echo").text() == "echo");
  CHECK(w.status(named, "transport") == "sse");
  CHECK(w.status(named, "protocol_version") == "2024-11-05");
  CHECK(w.status(named, "state") == "up");
  for (const McpExchange& e : old.received()) CHECK((e.http_method == "GET" || e.target != "/sse"));

  ScriptedSse found;
  const std::string id = w.add("found", found.url());
  w.gw.allow("bob", "found");
  REQUIRE(w.gw.gateway().repository()->set_target_token(id, {Scope::everyone, ""}, "canary"));
  McpClient& bob = w.gw.as("bob");
  CHECK(bob.call_tool("echo").text() == "echo");
  CHECK(w.status(id, "transport") == "sse");
  for (const McpExchange& e : found.received()) CHECK(e.header("authorization") == "Bearer canary");
  CHECK(found.received("initialize")[0].target == "/sse");
  // What was found out is remembered: the next connection does not ask again.
  const HttpResponse tested = w.gw.as("admin").api("POST", "/api/targets/" + id + "/test", "{}");
  CHECK(member(tested, "ok") == "true");
  CHECK(member(tested, "tools") == "1");
  CHECK(tested.body.find("MCP 2024-11-05 over HTTP+SSE") != std::string::npos);
  int asked = 0;
  for (const McpExchange& e : found.received("initialize")) asked += e.target == "/sse";
  CHECK(asked == 1);

  // A server of neither kind: what it answered first is what is told.
  ScriptedMcp neither([](McpExchange& e) { return e.status(404), true; });
  const std::string none = w.add("neither", neither.url());
  const HttpResponse failed = w.gw.as("admin").api("POST", "/api/targets/" + none + "/test", "{}");
  CHECK(member(failed, "ok") == "false");
  CHECK(failed.body.find("HTTP 404") != std::string::npos);
}

TEST_CASE("R13: an endpoint of another origin is refused before a credential is sent there") {
  ScriptedMcp thief;
  ScriptedSse server;
  server.endpoint = [&](int) { return thief.url("/messages"); };
  World w;
  const std::string id = w.add("crm", server.url(), TransportType::sse);
  w.gw.allow("alice", "crm");
  REQUIRE(w.gw.gateway().repository()->set_target_token(id, {Scope::everyone, ""}, "canary"));
  const McpReply reply = w.gw.as("alice").call_tool("echo");
  CHECK(code_of(reply) == "upstream_protocol_error");
  CHECK(reply.body.find(std::to_string(thief.port())) == std::string::npos);
  CHECK(thief.received().empty());
  CHECK(w.status(id, "last_error").find("not of its own origin") != std::string::npos);
}

TEST_CASE("T5 over HTTP+SSE: a session that is unknown, a stream that ends") {
  ScriptedSse old;
  std::atomic<int> forgotten{0};
  old.on_request = [&](McpExchange& e) {
    return e.method == "tools/call" && e.target == "/messages?session=" + std::to_string(forgotten) &&
           (e.status(404), true);
  };
  World w;
  const std::string id = w.add("old", old.url(), TransportType::sse);
  w.gw.allow("alice", "old");
  McpClient& alice = w.gw.as("alice");
  REQUIRE(alice.call_tool("echo").ok());
  forgotten = 1;
  CHECK(alice.call_tool("echo").text() == "echo");
  CHECK(old.received("initialize").size() == 2);
  CHECK(old.received("tools/call").size() == 3);
  // The stream ends while nobody calls: it is opened again, since a client is there to hear of changes.
  const int streams = old.streams();
  old.hang_up();
  CHECK(becomes([&] { return old.streams() > streams && w.status(id, "state") == "up"; }));
  CHECK(alice.call_tool("echo").ok());
}

TEST_CASE("R17: a target that fails is degraded, come back to while a client is there, and announced once") {
  std::atomic<bool> broken{true};
  ScriptedMcp bad(
      [&](McpExchange& e) { return broken && e.method == "initialize" && (e.status(503), true); });
  ScriptedMcp good;
  World w;
  const std::string id = w.add("bad", bad.url());
  w.add("good", good.url());
  w.gw.allow("alice", "");
  McpClient& alice = w.gw.as("alice");
  CHECK(alice.list_tools() == Strings{"good_echo"});
  CHECK(w.status(id, "state") == "degraded");
  CHECK(w.status(id, "last_error").find("HTTP 503") != std::string::npos);
  std::string events;
  {
    OpenStream stream(w.gw, alice);
    // It is tried again without a call.
    const std::size_t tried = bad.received("initialize").size();
    REQUIRE(becomes([&] { return bad.received("initialize").size() > tried + 1; }));
    broken = false;
    REQUIRE(becomes([&] { return w.status(id, "state") == "up"; }));
    REQUIRE(becomes([&] { return bad.received("tools/list").size() == 1; }));
    std::this_thread::sleep_for(1s);  // room for a second announcement, which must not come
    CHECK(alice.list_tools() == Strings{"bad_echo", "good_echo"});
    HttpRequest request;
    request.method = "DELETE";
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + alice.token()}, {"Mcp-Session-Id", alice.session_id()}};
    CHECK(w.gw.send(std::move(request)).status == 204);
    REQUIRE(stream.ends());
    events = stream.events();
  }
  std::size_t count = 0;
  for (std::size_t at = 0; (at = events.find("notifications/tools/list_changed", at)) != std::string::npos;
       ++at)
    ++count;
  CHECK(count == 1);
  // Nobody is there any more: it is left alone.
}

TEST_CASE("a target is not come back to for a user whom policy no longer lets use it, and what is open ends") {
  std::atomic<bool> broken{true};
  ScriptedMcp server([&](McpExchange& e) {
    if (broken && e.method == "initialize") return e.status(503), true;
    if (e.http_method != "GET") return false;
    e.stream();
    e.wait_closed();
    return true;
  });
  World w;
  const std::string id = w.add("one", server.url());
  const std::string of_alice = w.gw.allow("alice", "one");
  const std::string of_bob = w.gw.allow("bob", "one");
  auto& repository = *w.gw.gateway().repository();
  McpClient& alice = w.gw.as("alice");
  McpClient& bob = w.gw.as("bob");
  CHECK(alice.list_tools().empty());
  OpenStream stream(w.gw, alice);  // she waits for it
  const std::size_t tried = server.received("initialize").size();
  REQUIRE(becomes([&] { return server.received("initialize").size() > tried; }));
  REQUIRE(repository.delete_policy(of_alice));
  std::this_thread::sleep_for(1s);  // what was on its way may arrive
  const std::size_t then = server.received("initialize").size();
  std::this_thread::sleep_for(5s);  // longer than the next tries would be away
  CHECK(server.received("initialize").size() == then);
  broken = false;

  // An open connection, with its standing stream, ends with the permission too.
  REQUIRE(bob.call_tool("echo").ok());
  REQUIRE(becomes([&] { return !server.requests("GET").empty(); }));
  CHECK(w.status(id, "instances") == "1");
  REQUIRE(repository.delete_policy(of_bob));
  CHECK(becomes([&] { return server.requests("DELETE").size() == 1; }));
  CHECK(w.status(id, "instances") == "0");
  // And begins anew when it is given again.
  w.gw.allow("bob", "one");
  CHECK(bob.call_tool("echo").ok());
  HttpRequest goodbye;
  goodbye.method = "DELETE";
  goodbye.target = "/mcp";
  goodbye.headers = {{"Authorization", "Bearer " + alice.token()}, {"Mcp-Session-Id", alice.session_id()}};
  CHECK(w.gw.send(std::move(goodbye)).status == 204);
  REQUIRE(stream.ends());
}

TEST_CASE("a list that fails is asked for again, and announced when it is there") {
  std::atomic<bool> broken{true};
  ScriptedMcp bad([&](McpExchange& e) {
    return broken && e.method == "tools/list" && (e.error(-32603, "not now"), true);
  });
  ScriptedMcp good;
  World w;
  const std::string id = w.add("bad", bad.url());
  w.add("good", good.url());
  w.gw.allow("alice", "");
  McpClient& alice = w.gw.as("alice");
  CHECK(alice.list_tools() == Strings{"good_echo"});
  CHECK(becomes([&] { return w.status(id, "state") == "degraded"; }));
  broken = false;
  CHECK(becomes([&] { return w.status(id, "state") == "up"; }));
  CHECK(alice.list_tools() == Strings{"bad_echo", "good_echo"});
}

namespace {

/// A process that is no tidy one: a banner, an empty line and much on stderr come first.
constexpr const char* kDirty =
    R"sh(printf 'Welcome to this server\n\n'; head -c 262144 /dev/zero | tr '\0' x >&2; )sh"
    R"sh(answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }; )sh"
    R"sh(while read -r line; do )sh"
    R"sh(id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p'); [ -n "$id" ] || continue; )sh"
    R"sh(case "$line" in )sh"
    R"sh(*'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{}}';; )sh"
    R"sh(*tools/list*) answer '{"tools":[{"name":"smile"},{"name":"big"}]}';; )sh"
    R"sh(*'"smile"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"\360\237' "$id"; )sh"
    R"sh(sleep 0.1; printf '\230\200"}]}}\n';; )sh"
    R"sh(*'"big"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"' "$id"; )sh"
    R"sh(head -c 12000000 /dev/zero | tr '\0' x; printf '"}]}}\n';; )sh"
    R"sh(esac; done)sh";

std::string add_process(InProcessGateway& gw, const std::string& script) {
  Target target;
  target.name = "dirty";
  target.transport_type = TransportType::stdio;
  target.command = "/bin/sh";
  target.args = {"-c", script};
  auto made = gw.gateway().repository()->create_target(std::move(target));
  REQUIRE(made);
  return made->id;
}

}  // namespace

TEST_CASE("T7, R27: dirty stdio: a banner, stderr without an end, a split code point, a line of 12 MB") {
  for (const std::size_t limit : {32u * 1024 * 1024, 8u * 1024 * 1024}) {
    World w([&](GatewayOptions& o) { o.limits.upstream_bytes = limit; });
    add_process(w.gw, kDirty);
    w.gw.allow("alice", "dirty");
    McpClient& alice = w.gw.as("alice");
    CHECK(alice.list_tools() == Strings{"smile", "big"});
    CHECK(alice.call_tool("smile").text() == "\xf0\x9f\x98\x80");
    const McpReply big = alice.call_tool("big");
    if (limit > 12000000) {
      CHECK(big.text().size() == 12000000);
    } else {
      CHECK(code_of(big) == "response_too_large");
      CHECK(big.error_message() == "Target 'dirty' sent an answer over the size limit");
    }
    CHECK(alice.call_tool("smile").text() == "\xf0\x9f\x98\x80");
  }
}

TEST_CASE(
    "T7: a child that exits at start: an error at once, with its code and its masked stderr for admins") {
  World w;
  const std::string id = add_process(w.gw, "echo \"broken: $AUTH_TOKEN\" >&2; exit 3");
  REQUIRE(w.gw.gateway().repository()->set_target_token(id, {Scope::everyone, ""}, "canary-secret"));
  w.gw.allow("alice", "dirty");
  McpClient& alice = w.gw.as("alice");
  const auto started = steady_clock::now();
  const McpReply reply = alice.call_tool("smile");
  CHECK(steady_clock::now() - started < 10s);  // one second, on a machine with nothing else to do
  CHECK(code_of(reply) == "upstream_closed");
  CHECK(reply.body.find("broken") == std::string::npos);
  REQUIRE(becomes([&] { return w.status(id, "last_error").find("broken") != std::string::npos; }));
  CHECK(w.status(id, "last_error").find("code 3") != std::string::npos);
  CHECK(w.status(id, "last_error").find("canary-secret") == std::string::npos);
}

TEST_CASE("after a restart a client that only listens is connected to its targets again") {
  ScriptedMcp alpha;
  auto storage = make_memory_storage();
  const auto base = [&](GatewayOptions& o) {
    o.storage = storage;
    o.jwt_secret = "a secret of the test, longer than 32 bytes";
  };
  std::string token, session;
  {
    World w(base);
    w.add("alpha", alpha.url());
    w.gw.allow("alice", "alpha");
    REQUIRE(w.gw.as("alice").initialize().ok());
    token = w.gw.as("alice").token();
    session = w.gw.as("alice").session_id();
  }
  World w(base);
  McpClient& alice = w.gw.as("someone");
  alice.use_token(token);
  alice.use_session(session);
  OpenStream stream(w.gw, alice);
  CHECK(becomes([&] { return alpha.received("initialize").size() == 2; }));
  HttpRequest request;
  request.method = "DELETE";
  request.target = "/mcp";
  request.headers = {{"Authorization", "Bearer " + token}, {"Mcp-Session-Id", session}};
  CHECK(w.gw.send(std::move(request)).status == 204);
}

TEST_CASE("R95: a URI survives export, parsing, expansion of a template, and import, byte for byte") {
  const Strings uris{
      "file:///a/b?x=1#f",     "repo://a%2Fb/c%20d?ref=x%3Ay", "mem:", "a+b.c-d:e:f://g", "urn:x:\xc3\xa4",
      "mcpgw+other:file:///x", "test://\xf0\x9f\x98\x80/~{}"};
  std::string list;
  for (const std::string& uri : uris)
    list += (list.empty() ? "" : ",") + std::string(R"({"name":"n","uri":)") + detail::raw::quote(uri) + "}";
  ScriptedMcp git([&](McpExchange& e) {
    if (e.method == "resources/list") return e.result(R"({"resources":[)" + list + "]}"), true;
    if (e.method == "resources/templates/list")
      return e.result(R"({"resourceTemplates":[{"name":"t","uriTemplate":"repo://{owner}/{repo}{?ref}"}]})"),
             true;
    if (e.method == "resources/read")
      return e.result(R"({"contents":[{"uri":)" + e.param("uri") + R"(,"text":"x","_meta":{"k":1.0}}]})"),
             true;
    if (e.method == "completion/complete") return e.result(R"({"completion":{"values":["v"]}})"), true;
    return false;
  });
  git.capabilities = R"({"resources":{},"prompts":{},"completions":{}})";
  ScriptedMcp other;
  World w;
  w.add("git", git.url());
  w.add("other", other.url());
  w.gw.allow("alice", "");
  McpClient& alice = w.gw.as("alice");
  Strings exported;
  for (const std::string& uri : uris) exported.push_back("mcpgw+git:" + uri);
  CHECK(alice.list_resources() == exported);
  for (std::size_t i = 0; i < uris.size(); ++i) {
    // What a parser of URLs does to a scheme.
    for (const std::string& asked : {exported[i], "MCPGW+Git:" + uris[i]}) {
      const McpReply reply = alice.request("resources/read", R"({"uri":)" + detail::raw::quote(asked) + "}");
      REQUIRE(reply.ok());
      CHECK(git.received("resources/read").back().text_param("uri") == uris[i]);
      CHECK(reply.result() == R"({"contents":[{"uri":)" + detail::raw::quote(exported[i]) +
                                  R"(,"text":"x","_meta":{"k":1.0}}]})");
    }
  }
  const std::string templates = alice.request("resources/templates/list").result();
  CHECK(templates.find(R"("uriTemplate":"mcpgw+git:repo://{owner}/{repo}{?ref}")") != std::string::npos);
  // Expanded with owner "a/b c" and ref "x:y": the prefix is a literal part of the template.
  CHECK(alice.request("resources/read", R"({"uri":"mcpgw+git:repo://a%2Fb%20c/r?ref=x%3Ay"})").ok());
  CHECK(git.received("resources/read").back().text_param("uri") == "repo://a%2Fb%20c/r?ref=x%3Ay");
  // A completion names the template as it was exported; the server gets its own.
  CHECK(alice
            .request("completion/complete",
                     R"({"ref":{"type":"ref/resource","uri":"mcpgw+git:repo://{owner}/{repo}{?ref}"},)"
                     R"("argument":{"name":"owner","value":"a"},"context":{"arguments":{"repo":"r"}}})")
            .result() == R"({"completion":{"values":["v"]}})");
  CHECK(
      git.received("completion/complete")
          .back()
          .body.find(
              R"("ref":{"type":"ref/resource","uri":"repo://{owner}/{repo}{?ref}"},"argument":{"name":"owner","value":"a"},"context":{"arguments":{"repo":"r"}})") !=
      std::string::npos);
  CHECK(other.received("completion/complete").empty());
}
