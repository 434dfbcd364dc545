// Servers that speak revision 2026-07-28 alone, over HTTP, and clients of both eras in front of them.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <mutex>

#include "../support/scripted_mcp.hpp"
#include "modern_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using Strings = std::vector<std::string>;

namespace {

constexpr const char* kAll = R"({"elicitation":{},"sampling":{},"roots":{}})";
constexpr const char* kSampled =
    R"({"role":"assistant","model":"m","content":{"type":"text","text":"Paris"}})";

/// Refuses whatever a server of that revision must refuse.
bool refused(McpExchange& e) {
  const auto fail = [&e](int status, int code, const std::string& data = {}) {
    e.status(status, R"({"jsonrpc":"2.0","id":)" + (e.id.empty() ? "null" : e.id) + R"(,"error":{"code":)" +
                         std::to_string(code) + R"(,"message":"no")" + data + "}}");
    return true;
  };
  if (e.http_method != "POST") return e.status(405), true;
  const std::string about(find(find(e.body, "params"), "_meta"));
  const auto version =
      detail::raw::string_value(find(about, "io.modelcontextprotocol/protocolVersion")).value_or("");
  if (version != "2026-07-28" || e.header("mcp-protocol-version") != version)
    return fail(400, -32022, R"(,"data":{"supported":["2026-07-28"],"requested":")" + version + "\"}");
  if (find(about, "io.modelcontextprotocol/clientCapabilities").empty()) return fail(400, -32602);
  if (e.header("mcp-method") != e.method) return fail(400, -32020);
  if (const auto member = detail::named_by(e.method); !member.empty()) {
    const auto named = detail::decode_header_value(e.header("mcp-name"));
    if (!named || *named != e.text_param(std::string(member).c_str())) return fail(400, -32020);
  }
  return false;
}

constexpr const char* kTools =
    R"([{"name":"größe","inputSchema":{"type":"object"}},{"name":"ask","inputSchema":{"type":"object"}},)"
    R"({"name":"region","inputSchema":{"properties":{"r":{"type":"string","x-mcp-header":"R"}}},"outputSchema":{"type":"array"}},)"
    R"({"name":"broken","inputSchema":{"properties":{"r":{"type":"number","x-mcp-header":"R"}}}}])";

/// A server of its own kind; `script` comes before its plain answers.
struct Modern {
  std::mutex mutex;
  std::vector<std::string> states;  // requestStates that came back
  ScriptedMcp server;
  explicit Modern(ScriptedMcp::Script script = nullptr)
      : server([this, script](McpExchange& e) {
          if (refused(e)) return true;
          if (script && script(e)) return true;
          if (e.method == "server/discover") {
            e.result(
                R"({"resultType":"complete","supportedVersions":["2026-07-28"],"ttlMs":0,"cacheScope":"public",)"
                R"("capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"prompts":{}},)"
                R"("instructions":"be brief"})");
          } else if (e.method == "tools/list") {
            e.result(R"({"resultType":"complete","ttlMs":9,"cacheScope":"public","tools":)" +
                     std::string(kTools) + "}");
          } else if (e.method == "resources/list") {
            e.result(R"({"resources":[{"uri":"x:1","name":"one"}],"ttlMs":0,"cacheScope":"public"})");
          } else if (e.method == "resources/read") {
            if (e.text_param("uri") == "x:1")
              e.result(R"({"contents":[{"uri":"x:1","text":"t"}],"ttlMs":7,"cacheScope":"public"})");
            else
              e.status(
                  400,
                  R"({"jsonrpc":"2.0","id":)" + e.id +
                      R"(,"error":{"code":-32602,"message":"Resource not found","data":{"uri":"x:2"}}})");
          } else if (e.method == "tools/call" && e.text_param("name") == "ask") {
            const std::string answers = e.param("inputResponses");
            if (answers.empty()) {
              e.result(
                  R"({"resultType":"input_required","requestState":"s\u00e9 \"1\"","inputRequests":{)"
                  R"("user_name":{"method":"elicitation/create","params":{"message":"Who?","requestedSchema":{}}},)"
                  R"("model":{"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}}})");
            } else {
              {
                const std::lock_guard lock(mutex);
                states.push_back(e.text_param("requestState"));
              }
              e.result(R"({"resultType":"complete","content":[{"type":"text","text":)" + quote(answers) +
                       "}]}");
            }
          } else if (e.method == "tools/call") {
            e.result(R"({"resultType":"complete","structuredContent":[1],"content":[{"type":"text","text":)" +
                     quote(e.text_param("name") + "/" + e.header("mcp-param-r")) + "}]}");
          } else if (e.method == "subscriptions/listen") {
            e.stream();
            e.event(
                R"({"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":)" +
                e.id + R"(},"notifications":{"toolsListChanged":true}}})");
            e.wait_closed();
          } else {
            e.status(404, R"({"jsonrpc":"2.0","id":)" + e.id + R"(,"error":{"code":-32601,"message":"no"}})");
          }
          return true;
        }) {}
  std::vector<McpExchange> calls(const std::string& method) const {
    std::vector<McpExchange> out;
    for (const McpExchange& one : server.received())
      if (one.method == method) out.push_back(one);
    return out;
  }
};

InProcessOptions near() {
  InProcessOptions out = options();
  out.gateway.upstream.allow_private = true;
  return out;
}

void add(InProcessGateway& gw, const std::string& name, const std::string& url,
         EraSetting era = EraSetting::automatic) {
  Target target;
  target.name = name;
  target.transport_type = TransportType::streamable_http;
  target.url = url;
  target.protocol_era = era;
  REQUIRE(gw.gateway().repository()->create_target(std::move(target)));
  gw.allow("alice", name);
}

}  // namespace

TEST_CASE("T11: each hop has its own version, whatever the client's") {
  Modern u2;
  ScriptedMcp u1([](McpExchange& e) {
    // Knows one version, and no header with another.
    const std::string header = e.header("mcp-protocol-version");
    if (e.method == "initialize" ? !header.empty() : header != "2025-06-18") return e.status(400, "no"), true;
    return false;
  });
  u1.version = "2025-06-18";
  InProcessGateway gw(near());
  add(gw, "u1", u1.url());
  add(gw, "u2", u2.server.url());
  McpClient& alice = gw.as("alice");
  Strings names = alice.list_tools();
  REQUIRE(names.size() == 4);
  CHECK(names[0] == "u1_echo");
  CHECK(names[1].starts_with("u2_gr"));
  CHECK(listed(modern(alice, "tools/list"), "tools", "name") == names);

  CHECK(alice.call_tool("u1_echo").ok());
  CHECK(modern_call(alice, "u1_echo").ok());
  CHECK(alice.call_tool(names[1]).text() == "größe/");
  CHECK(modern_call(alice, names[1]).text() == "größe/");
  for (const McpExchange& call : u2.calls("tools/call")) {
    CHECK(call.text_param("name") == "größe");
    CHECK(call.header("mcp-name") == "=?base64?Z3LDtsOfZQ==?=");
    CHECK(call.header("mcp-session-id").empty());
  }
  CHECK(u2.calls("initialize").empty());
  const std::string unknown = modern_params("");
  CHECK(alice.raw(detail::make_request("1", "tools/list", unknown), {{"MCP-Protocol-Version", "v9"}})
            .http_status == 400);
}

TEST_CASE("results, errors and headers between the eras") {
  Modern u;
  InProcessGateway gw(near());
  add(gw, "u", u.server.url());
  McpClient& alice = gw.as("alice");
  // The gateway repeats arguments in headers for clients that do not, and offers no tool that breaks the
  // rules.
  CHECK(alice.list_tools() == Strings{"größe", "ask", "region"});
  CHECK(alice.call_tool("region", R"({"r":"eu"})").text() == "region/eu");
  ModernOptions with_header;
  with_header.headers = {{"Mcp-Param-R", "eu"}};
  const McpReply region = modern_call(alice, "region", R"({"r":"eu"})", with_header);
  CHECK(region.text() == "region/eu");
  // A legacy client gets what its schema has room for, a modern one all of it.
  CHECK(find(region.result(), "structuredContent") == "[1]");
  const McpReply older = alice.call_tool("region", R"({"r":"eu"})");
  CHECK(find(older.result(), "structuredContent").empty());
  CHECK(find(older.result(), "resultType").empty());
  CHECK(alice.request("tools/list").body.find("outputSchema") == std::string::npos);
  CHECK(modern(alice, "tools/list").body.find("outputSchema") != std::string::npos);

  const McpReply read = modern(alice, "resources/read", R"("uri":"x:1")");
  CHECK(find(read.result(), "ttlMs") == "7");
  CHECK(find(read.result(), "cacheScope") == "\"private\"");
  CHECK(alice.request("resources/read", R"({"uri":"x:1"})").result() ==
        R"({"contents":[{"uri":"x:1","text":"t"}]})");
  CHECK(modern(alice, "resources/read", R"("uri":"x:2")").error_code() == -32602);
  CHECK(alice.request("resources/read", R"({"uri":"x:2"})").error_code() == -32002);
  CHECK(find(alice.initialize().result(), "instructions") == "\"be brief\"");
  CHECK(find(modern(alice, "server/discover").result(), "instructions") == "\"be brief\"");
  // Each client's own capabilities travel.
  CHECK(modern_call(alice, "größe", "{}", {.capabilities = R"({"roots":{}})"}).ok());
  const auto calls = u.calls("tools/call");
  CHECK(find(find(find(calls.back().body, "params"), "_meta"),
             "io.modelcontextprotocol/clientCapabilities") == R"({"roots":{}})");
}

TEST_CASE("what a server asks for in a result reaches a modern client under its names") {
  Modern u;
  InProcessGateway gw(near());
  add(gw, "u", u.server.url());
  McpClient& alice = gw.as("alice");
  const McpReply asked = modern_call(alice, "ask", "{}", {.capabilities = kAll});
  REQUIRE(find(asked.result(), "resultType") == "\"input_required\"");
  const std::string requests(find(asked.result(), "inputRequests"));
  CHECK(find(requests, "user_name", "method") == "\"elicitation/create\"");
  CHECK(find(requests, "model", "method") == "\"sampling/createMessage\"");
  CHECK(asked.body.find("s\u00e9") == std::string::npos);  // the server's state stays here
  const std::string answers =
      R"("inputResponses":{"user_name":{"action":"accept","content":{"n":1.0}},"model":)" +
      std::string(kSampled) + "}";
  const McpReply done =
      modern_call(alice, "ask", "{}", {.capabilities = kAll, .id = "2"},
                  "," + answers + R"(,"requestState":)" + std::string(find(asked.result(), "requestState")));
  REQUIRE(done.ok());
  CHECK(done.text() ==
        R"({"model":)" + std::string(kSampled) + R"(,"user_name":{"action":"accept","content":{"n":1.0}}})");
  CHECK(u.states == Strings{"s\u00e9 \"1\""});
  const auto calls = u.calls("tools/call");
  REQUIRE(calls.size() == 2);
  CHECK(calls[0].id != calls[1].id);
}

TEST_CASE("what a server asks for in a result is asked of a legacy client on its call's stream") {
  Modern u;
  InProcessGateway gw(near());
  add(gw, "u", u.server.url());
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.initialize("2025-11-25", kAll).ok());
  const HttpHeaders session{{"Mcp-Session-Id", alice.session_id()}, {"MCP-Protocol-Version", "2025-11-25"}};
  const auto call = [&](const char* id) {
    return ModernStream::post(gw.gateway(), alice.token(),
                            detail::make_request(id, "tools/call", R"({"name":"ask","arguments":{}})"),
                            session);
  };
  const auto asked = [](const std::shared_ptr<ModernStream>& stream) {
    std::vector<std::string> out;
    for (const std::string& message : stream->messages())
      if (!find(message, "method").empty() && !find(message, "id").empty()) out.push_back(message);
    return out;
  };
  auto stream = call("1");
  REQUIRE(eventually([&] { return asked(stream).size() == 2; }));
  for (const std::string& question : asked(stream)) {
    const bool sampling = find(question, "method") == "\"sampling/createMessage\"";
    const std::string id(find(question, "id"));
    CHECK(alice.raw(detail::make_result(id, sampling ? kSampled : R"({"action":"decline"})"), session)
              .http_status == 202);
  }
  CHECK(eventually([&] { return stream->closed(); }));
  CHECK(stream->text().find("decline") != std::string::npos);
  CHECK(stream->text().find("resultType") == std::string::npos);
  CHECK(u.states.size() == 1);

  // A client that gives no model: the tool has failed, and says so.
  stream = call("2");
  REQUIRE(eventually([&] { return asked(stream).size() == 2; }));
  for (const std::string& question : asked(stream))
    (void)alice.raw(detail::make_error(find(question, "id"), -1, "no model here"), session);
  CHECK(eventually([&] { return stream->closed(); }));
  CHECK(stream->text().find(R"("isError":true)") != std::string::npos);
  CHECK(stream->text().find("no model here") != std::string::npos);
  CHECK(u.states.size() == 1);
}

TEST_CASE("a client that goes away closes the stream of its call at the server") {
  std::atomic<bool> closed{false};
  Modern u([&](McpExchange& e) {
    if (e.method != "tools/call") return false;
    e.stream();
    e.event(R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}})");
    closed = e.wait_closed();
    return true;
  });
  InProcessGateway gw(near());
  add(gw, "u", u.server.url());
  const std::string params = modern_params(R"("name":"größe")");
  const auto running =
      ModernStream::post(gw.gateway(), gw.as("alice").token(), detail::make_request("1", "tools/call", params),
                       modern_headers("tools/call", params));
  CHECK(eventually([&] { return u.calls("tools/call").size() == 1; }));
  running->leave();
  CHECK(eventually([&] { return closed.load(); }));
  CHECK(u.calls("notifications/cancelled").empty());
}

TEST_CASE("changes that a server announces on its listen stream reach clients of both eras") {
  std::atomic<bool> change{false};
  Modern u([&](McpExchange& e) {
    if (e.method != "subscriptions/listen") return false;
    e.stream();
    (void)eventually([&] { return change.load(); });
    e.event(
        R"({"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":)" +
        e.id + "}}}");
    e.wait_closed();
    return true;
  });
  InProcessGateway gw(near());
  add(gw, "u", u.server.url());
  McpClient& alice = gw.as("alice");
  const std::string params = modern_params(R"("notifications":{"toolsListChanged":true})");
  const auto stream = ModernStream::post(gw.gateway(), alice.token(),
                                       detail::make_request("\"mine\"", "subscriptions/listen", params),
                                       modern_headers("subscriptions/listen", params));
  CHECK(eventually([&] { return !u.calls("subscriptions/listen").empty(); }));
  CHECK(modern(alice, "tools/list").ok());
  const std::size_t lists = u.calls("tools/list").size();
  change = true;
  CHECK(eventually([&] { return stream->messages().size() >= 2; }));
  CHECK(find(find(stream->messages().back(), "params"), "_meta") ==
        R"({"io.modelcontextprotocol/subscriptionId":"mine"})");
  // And the list that was kept is asked for again.
  CHECK(modern(alice, "tools/list").ok());
  CHECK(u.calls("tools/list").size() > lists);
}

TEST_CASE("which era a server speaks is asked once, and what it cannot speak is told") {
  std::atomic<int> probes{0};
  ScriptedMcp legacy([&](McpExchange& e) {
    if (e.method != "server/discover") return false;
    ++probes;
    e.status(400,
             R"({"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Server not initialized"}})");
    return true;
  });
  std::atomic<int> asked{0};
  ScriptedMcp future([&](McpExchange& e) {
    ++asked;
    e.status(
        400,
        R"({"jsonrpc":"2.0","id":)" + (e.id.empty() ? "null" : e.id) +
            R"(,"error":{"code":-32022,"message":"no","data":{"supported":["2031-01-01"],"requested":"x"}}})");
    return true;
  });
  InProcessGateway gw(near());
  add(gw, "legacy", legacy.url());
  McpClient& alice = gw.as("alice");
  CHECK(alice.list_tools() == Strings{"echo"});
  CHECK(modern_call(alice, "echo").ok());
  CHECK(modern_call(alice, "echo", "{}", {.capabilities = kAll}).ok());
  CHECK(probes == 1);

  InProcessGateway other(near());
  add(other, "future", future.url());
  McpClient& again = other.as("alice");
  CHECK(again.list_tools().empty());
  const McpReply failed = modern_call(again, "x");
  CHECK(failed.error_code() == -32603);
  CHECK(failed.error_message().find("future") != std::string::npos);
  const auto target = other.gateway().repository()->target_by_name("future");
  REQUIRE(target);

  // The setting decides where it is given.
  std::atomic<int> seen{0};
  ScriptedMcp plain([&](McpExchange& e) {
    seen += e.method == "server/discover";
    return false;
  });
  InProcessGateway third(near());
  add(third, "plain", plain.url(), EraSetting::legacy);
  CHECK(third.as("alice").list_tools() == Strings{"echo"});
  CHECK(seen == 0);
}

namespace {

/// Where a script writes down what happens to it.
struct Notes {
  std::string path = "/tmp/mcpgw-notes-" + std::to_string(::getpid()) + "-" + std::to_string(next()++);
  ~Notes() { std::remove(path.c_str()); }
  Notes() = default;
  Notes(const Notes&) = delete;
  Notes& operator=(const Notes&) = delete;
  int count(const std::string& word) const {
    std::ifstream in(path);
    int out = 0;
    for (std::string line; std::getline(in, line);) out += line.find(word) != std::string::npos;
    return out;
  }
  static std::atomic<int>& next() {
    static std::atomic<int> value{0};
    return value;
  }
};

/// A server in shell: `on_discover` is what it does when it is asked what it is.
Target shell(const std::string& name, const Notes& notes, const std::string& on_discover,
             EraSetting era = EraSetting::automatic) {
  Target out;
  out.name = name;
  out.transport_type = TransportType::stdio;
  out.command = "/bin/sh";
  out.protocol_era = era;
  out.args = {
      "-c",
      "notes=" + notes.path +
          R"sh(; echo started >> $notes; )sh"
          R"sh(answer() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }; )sh"
          R"sh(while read -r line; do printf '%s\n' "$line" >> $notes; )sh"
          R"sh(id=$(printf '%s' "$line" | sed -n 's/.*"id":\("[^"]*"\|[0-9]*\).*/\1/p'); [ -n "$id" ] || continue; )sh"
          R"sh(case "$line" in *server/discover*) )sh" +
          on_discover +
          R"sh(;; *'"initialize"'*) answer '"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}';; )sh"
          R"sh(*tools/list*) answer '"result":{"tools":[{"name":"pid","inputSchema":{"type":"object"}}]}';; )sh"
          R"sh(*tools/call*) answer "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"$$\"}]}";; )sh"
          R"sh(*) answer '"error":{"code":-32601,"message":"no"}';; esac; done)sh"};
  return out;
}

constexpr const char* kIsModern =
    R"sh(answer '"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}')sh";
constexpr const char* kIsOlder = R"sh(answer '"error":{"code":-32601,"message":"no"}')sh";

}  // namespace

TEST_CASE("a process is asked what it speaks, unless its target says so, and that is remembered") {
  struct Row {
    const char* what;
    const char* on_discover;
    EraSetting era;
    int starts, asked, initialized;  // after the first call, and the same again for a process in its place
    int starts_again, asked_again, initialized_again;
  };
  const Row rows[] = {
      {"of 2026-07-28", kIsModern, EraSetting::automatic, 1, 1, 0, 2, 2, 0},
      {"of before", kIsOlder, EraSetting::automatic, 1, 1, 1, 2, 1, 2},
      {"dies of the question", "exit 9", EraSetting::automatic, 2, 1, 1, 3, 1, 2},
      {"silent", ":", EraSetting::automatic, 1, 1, 1, 2, 1, 2},
      {"said to be of before", kIsModern, EraSetting::legacy, 1, 0, 1, 2, 0, 2},
      {"said to be of 2026-07-28", kIsModern, EraSetting::modern, 1, 1, 0, 2, 2, 0},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    const Notes notes;
    InProcessGateway gw(near());
    const auto made = gw.gateway().repository()->create_target(shell("sh", notes, row.on_discover, row.era));
    REQUIRE(made);
    gw.allow("alice", "sh");
    McpClient& alice = gw.as("alice");
    const std::string first = alice.call_tool("pid").text();
    CHECK_FALSE(first.empty());
    CHECK(notes.count("started") == row.starts);
    CHECK(notes.count("server/discover") == row.asked);
    CHECK(notes.count("\"initialize\"") == row.initialized);
    REQUIRE(gw.as("admin").api("POST", "/api/targets/" + made->id + "/restart-instances").status == 200);
    std::string second;
    REQUIRE(eventually([&] { return !(second = alice.call_tool("pid").text()).empty() && second != first; }));
    CHECK(notes.count("started") == row.starts_again);
    CHECK(notes.count("server/discover") == row.asked_again);
    CHECK(notes.count("\"initialize\"") == row.initialized_again);
  }
}

TEST_CASE("a process that is said to be of 2026-07-28 and is not fails with a clear error") {
  const Notes notes;
  InProcessGateway gw(near());
  REQUIRE(gw.gateway().repository()->create_target(shell("sh", notes, kIsOlder, EraSetting::modern)));
  gw.allow("alice", "sh");
  const McpReply reply = gw.as("alice").call_tool("pid");
  CHECK(reply.error_code() == -32603);
  CHECK(find(find(find(reply.body, "error"), "data"), "code") == "\"upstream_protocol_error\"");
  CHECK(notes.count("\"initialize\"") == 0);
}
