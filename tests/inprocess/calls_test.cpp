#include <atomic>
#include <thread>

#include "support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using Strings = std::vector<std::string>;

TEST_CASE("a call goes through: user, policy, upstream, audit row") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  const std::string policy = gw.allow("alice", "git");

  const McpReply reply = gw.as("alice").call_tool("echo", R"({"a":1})");
  CHECK(reply.http_status == 200);
  CHECK(reply.text() == R"(git {"a":1})");

  const auto rows = gw.audit_rows();
  const auto row =
      std::find_if(rows.begin(), rows.end(), [](const AuditRecord& r) { return r.method == "tools/call"; });
  REQUIRE(row != rows.end());
  CHECK(row->kind == "mcp");
  CHECK(row->target_name == "git");
  CHECK(row->tool == "echo");
  CHECK(row->decision == "allow");
  CHECK(row->policy_id == policy);
  CHECK(row->response_status == 200);
  CHECK(row->user_id == gw.as("alice").user_id());
  CHECK(row->session_id == gw.as("alice").session_id());
}

TEST_CASE("R10: without a policy a user sees nothing and may call nothing") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  McpClient& bob = gw.as("bob");
  const McpReply opened = bob.initialize();
  CHECK(opened.ok());
  CHECK(bob.list_tools().empty());
  CHECK(bob.request("resources/list").result() == R"({"resources":[]})");
  CHECK(bob.request("resources/templates/list").result() == R"({"resourceTemplates":[]})");
  CHECK(bob.request("prompts/list").result() == R"({"prompts":[]})");
  CHECK(bob.call_tool("echo").error_message() == "Unknown tool: echo");
  CHECK(git->received("tools/call").empty());
}

TEST_CASE("R9, R52: a policy for one tool opens that tool only, and denied looks like unknown") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  git->add_tool("delete", [](const auto&) { return FakeUpstream::text("gone"); });
  gw.add_upstream("git", git);
  gw.allow("alice", "git", "^echo$");
  McpClient& alice = gw.as("alice");
  CHECK(alice.list_tools() == Strings{"echo"});
  CHECK(alice.call_tool("echo").ok());
  const McpReply denied = alice.call_tool("delete");
  const McpReply unknown = alice.call_tool("no_such");
  CHECK(denied.http_status == unknown.http_status);
  CHECK(denied.error_code() == -32602);
  CHECK(denied.error_message() == "Unknown tool: delete");
  CHECK(unknown.error_message() == "Unknown tool: no_such");
  CHECK(git->received("tools/call").size() == 1);
  // The audit log says which it was.
  Strings codes;
  for (const AuditRecord& row : gw.audit_rows())
    if (row.method == "tools/call") codes.push_back(row.error_code + "/" + row.decision);
  CHECK(codes == Strings{"/allow", "denied/deny", "unknown_item/"});
}

TEST_CASE("R2: a policy write decides the next request of a live session") {
  InProcessGateway gw(options());
  gw.add_upstream("git", echo_upstream("git"));
  const std::string policy = gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  CHECK(alice.call_tool("echo").ok());
  CHECK(gw.gateway().repository()->delete_policy(policy));
  CHECK_FALSE(alice.call_tool("echo").ok());
  CHECK(alice.list_tools().empty());
  gw.allow("alice", "git");
  CHECK(alice.call_tool("echo").ok());
}

TEST_CASE("R42: names carry a prefix when two targets are reached, and lead back") {
  InProcessGateway gw(options());
  auto a = std::make_shared<FakeUpstream>(), ab = std::make_shared<FakeUpstream>();
  a->add_tool("b_c", [](const auto& call) { return FakeUpstream::text("a:" + call.name); });
  ab->add_tool("c", [](const auto& call) { return FakeUpstream::text("a_b:" + call.name); });
  gw.add_upstream("a", a);
  gw.allow("alice", "a");
  CHECK(gw.as("alice").list_tools() == Strings{"b_c"});
  gw.add_upstream("a_b", ab);
  gw.allow("alice", "a_b");
  const Strings names = gw.as("alice").list_tools();
  REQUIRE(names.size() == 2);
  CHECK(names[0] == "a_b_c");
  CHECK(names[1] == "a-b_c");
  CHECK(gw.as("alice").call_tool("a_b_c").text() == "a:b_c");
  CHECK(gw.as("alice").call_tool("a-b_c").text() == "a_b:c");
}

TEST_CASE("R42: long and odd names are made safe, stay distinct and stable") {
  InProcessGateway gw(options());
  auto x = std::make_shared<FakeUpstream>();
  const auto named = [](const auto& call) { return FakeUpstream::text(call.name); };
  const std::string longest(70, 't');
  const Strings originals{longest,
                          "read-file",
                          "read_file",
                          "gr\xc3\xb6\xc3\x9f"
                          "e",
                          "a.b",
                          "a/b"};
  for (const std::string& name : originals) x->add_tool(name, named);
  gw.add_upstream("x", x);
  gw.add_upstream("y", echo_upstream("y"));
  gw.allow("alice", "");
  const Strings names = gw.as("alice").list_tools();
  REQUIRE(names.size() == 7);
  std::set<std::string> distinct(names.begin(), names.end());
  CHECK(distinct.size() == names.size());
  for (std::size_t i = 0; i < originals.size(); ++i) {
    const std::string& name = names[i];
    CHECK(name.size() <= 64);
    CHECK(std::all_of(name.begin(), name.end(), [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    }));
    CHECK(gw.as("alice").call_tool(name).text() == originals[i]);
  }
}

TEST_CASE("R23, R97: arguments and results keep their bytes") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  const std::string result =
      R"({"content":[],"structuredContent":{"z":1.0,"a":-0.0,"n":9007199254740993,"e":1E+2,"u":")"
      "\xe2\x80\xa8\xf0\x9f\x98\x80"
      R"(","esc":"\u2028\/"},"unknown":[[[[{"deep":null}]]]],"_meta":{"x/y":1}})";
  git->add_tool("raw", [result](const auto&) { return result; });
  git->add_raw_tool(
      "schema",
      R"({"name":"schema","title":"T","inputSchema":{"type":"object","x":1.0},"icons":[{"src":"a"}],"zz":1})",
      [](const auto&) { return std::string("{}"); });
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  const std::string arguments = R"({"big":9007199254740993,"one":1.0,"neg":-0.0,"ls":")"
                                "\xe2\x80\xa8\xf0\x9f\x98\x80"
                                R"(","order":{"b":1,"a":2},"deep":[[[[[[[]]]]]]]})";
  const McpReply reply = alice.call_tool("raw", arguments);
  CHECK(reply.result() == result);
  const auto calls = git->received("tools/call");
  REQUIRE(calls.size() == 1);
  CHECK(std::string(detail::raw::find(calls[0], "params", "arguments")) == arguments);
  CHECK(alice.request("tools/list")
            .result()
            .find(R"("title":"T","inputSchema":{"type":"object","x":1.0},"icons":[{"src":"a"}],"zz":1)") !=
        std::string::npos);
}

TEST_CASE("R3: ids come back as they were sent and never reach the upstream") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  alice.initialize();
  for (const std::string id : {R"("7")", "7", "0", "-1", "9007199254740993", R"("a\"b")"}) {
    const McpReply reply =
        alice.raw(R"({"jsonrpc":"2.0","id":)" + id + R"(,"method":"tools/call","params":{"name":"echo"}})",
                  {{"Mcp-Session-Id", alice.session_id()}});
    CHECK(std::string(detail::raw::find(reply.body, "id")) == id);
    CHECK(reply.ok());
  }
  Strings ids;
  for (const std::string& message : git->received("tools/call"))
    ids.emplace_back(detail::raw::find(message, "id"));
  CHECK(std::set<std::string>(ids.begin(), ids.end()).size() == 6);
  CHECK_FALSE(contains(ids, "9007199254740993"));
}

TEST_CASE("R18: progress comes before the result, with the client's token") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  git->add_tool("slow", [](const FakeUpstream::Call& call) {
    for (int i = 1; i <= 3; ++i) call.progress(i, 3);
    return FakeUpstream::text("done");
  });
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  const McpReply reply = gw.as("alice").request(
      "tools/call", R"({"name":"slow","arguments":{},"_meta":{"progressToken":"mine","other":1}})");
  CHECK(reply.text() == "done");
  REQUIRE(reply.notifications.size() == 3);
  for (const std::string& note : reply.notifications)
    CHECK(std::string(detail::raw::find(note, "params", "progressToken")) == "\"mine\"");
  // Foreign members of _meta pass; the token does not.
  const std::string call = git->received("tools/call")[0];
  CHECK(call.find("mine") == std::string::npos);
  CHECK(call.find(R"("other":1)") != std::string::npos);
  // Without a token there is none.
  CHECK(gw.as("alice").call_tool("slow").notifications.empty());
}

TEST_CASE("resources: prefix only with several targets, and reversible") {
  InProcessGateway gw(options());
  auto a = std::make_shared<FakeUpstream>(), b = std::make_shared<FakeUpstream>();
  const std::string uri = "file:///a/b?x=1#y%20z";
  const auto read = [](const FakeUpstream::Call& call) {
    return R"({"contents":[{"uri":)" + detail::raw::quote(call.name) + R"(,"text":"hello"}]})";
  };
  a->add_resource(uri, read);
  b->add_resource("mem://x", read);
  gw.add_upstream("a", a);
  gw.allow("alice", "a");
  McpClient& alice = gw.as("alice");
  CHECK(alice.list_resources() == Strings{uri});
  gw.add_upstream("b", b);
  gw.allow("alice", "b");
  CHECK(alice.list_resources() == Strings{"mcpgw+a:" + uri, "mcpgw+b:mem://x"});
  for (const std::string& asked : {"mcpgw+a:" + uri, "MCPGW+a:" + uri}) {
    const McpReply reply = alice.request("resources/read", R"({"uri":)" + detail::raw::quote(asked) + "}");
    CHECK(reply.result() ==
          R"({"contents":[{"uri":)" + detail::raw::quote("mcpgw+a:" + uri) + R"(,"text":"hello"}]})");
  }
  // Without the prefix it is served while one target lists it.
  CHECK(alice.request("resources/read", R"({"uri":"mem://x"})").ok());
  const McpReply unknown = alice.request("resources/read", R"({"uri":"mem://no"})");
  CHECK(unknown.error_code() == -32002);
  CHECK(unknown.error_message() == "Resource not found");
}

TEST_CASE("prompts, completion, ping, log level") {
  InProcessGateway gw(options());
  auto a = std::make_shared<FakeUpstream>();
  a->add_prompt("greet", [](const auto&) { return std::string(R"({"messages":[]})"); });
  gw.add_upstream("a", a);
  gw.allow("alice", "a");
  McpClient& alice = gw.as("alice");
  CHECK(alice.list_prompts() == Strings{"greet"});
  CHECK(alice.request("prompts/get", R"({"name":"greet"})").result() == R"({"messages":[]})");
  CHECK(alice.request("prompts/get", R"({"name":"no"})").error_message() == "Unknown prompt: no");
  CHECK(alice
            .request("completion/complete",
                     R"({"ref":{"type":"ref/prompt","name":"greet"},"argument":{"name":"n","value":"v"}})")
            .result() == R"({"completion":{"values":["one","two"]}})");
  CHECK(alice.request("completion/complete", R"({"ref":{"type":"ref/prompt","name":"no"}})").error_code() ==
        -32602);
  CHECK(alice.request("ping").result() == "{}");
  CHECK(alice.request("logging/setLevel", R"({"level":"warning"})").result() == "{}");
  CHECK(alice.request("logging/setLevel", R"({"level":"loud"})").error_code() == -32602);
}

TEST_CASE("requests to a client that never answers do not use up its answers") {
  InProcessGateway gw(options());
  auto server = std::make_shared<FakeUpstream>();
  std::atomic<int> next{0};
  server->add_tool("asks", [&, up = server.get()](const FakeUpstream::Call&) {
    up->ask("q" + std::to_string(next++), "roots/list");
    return FakeUpstream::text("done");
  });
  gw.add_upstream("roots", server);
  gw.allow("alice", "roots");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.initialize("2025-11-25", R"({"roots":{}})").ok());
  std::string asked;
  constexpr int kCalls = 120;
  for (int i = 0; i < kCalls; ++i) {
    const McpReply reply = alice.call_tool("asks");
    REQUIRE(reply.ok());
    REQUIRE(reply.notifications.size() == 1);
    asked = reply.notifications[0];
    REQUIRE(asked.find(R"("method":"roots/list")") != std::string::npos);
  }
  const std::string id(detail::raw::find(asked, "id"));
  const std::string roots = R"({"jsonrpc":"2.0","id":)" + id + R"(,"result":{"roots":[]}})";
  CHECK(alice.raw(roots, {{"Mcp-Session-Id", alice.session_id()}}).http_status == 202);
  const auto answers_to = [&](int number) {
    const std::string wanted = R"("id":"q)" + std::to_string(number) + "\"";
    std::vector<std::string> out;
    for (const std::string& message : server->received())
      if (message.find(wanted) != std::string::npos) out.push_back(message);
    return out;
  };
  // The oldest gave way, and their server was told.
  REQUIRE(answers_to(0).size() == 1);
  CHECK(answers_to(0)[0].find("did not answer") != std::string::npos);
  CHECK(answers_to(kCalls - 2).empty());
  for (int i = 0; i < 1000 && answers_to(kCalls - 1).empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  REQUIRE(answers_to(kCalls - 1).size() == 1);
  CHECK(answers_to(kCalls - 1)[0].find(R"("roots":[])") != std::string::npos);
}

TEST_CASE("R24: a cursor that is not ours is refused") {
  InProcessGateway gw(options());
  gw.add_upstream("a", echo_upstream("a"));
  gw.allow("alice", "a");
  CHECK(gw.as("alice").request("tools/list", R"({"cursor":"not-ours"})").error_code() == -32602);
  CHECK(gw.as("alice").request("tools/list", R"({"cursor":""})").error_code() == -32602);
}

TEST_CASE("long lists come in pages, each item once") {
  InProcessGateway gw(options());
  auto a = std::make_shared<FakeUpstream>();
  for (int i = 0; i < 2500; ++i)
    a->add_tool("t" + std::to_string(i), [](const auto&) { return std::string("{}"); });
  gw.add_upstream("a", a);
  gw.allow("alice", "a");
  std::set<std::string> seen;
  std::string params = "{}";
  int requests = 0;
  for (;;) {
    const McpReply page = gw.as("alice").request("tools/list", params);
    REQUIRE(page.ok());
    REQUIRE(++requests <= 5);
    const std::string result = page.result();
    for (auto item : detail::raw::elements(detail::raw::find(result, "tools")))
      CHECK(seen.insert(std::string(item)).second);
    const auto next = detail::raw::find(result, "nextCursor");
    if (next.empty()) break;
    params = R"({"cursor":)" + std::string(next) + "}";
  }
  CHECK(seen.size() == 2500);
}

TEST_CASE("list_changed of an upstream empties the list that is kept") {
  InProcessGateway gw(options());
  auto a = echo_upstream("a");
  gw.add_upstream("a", a);
  gw.allow("alice", "a");
  CHECK(gw.as("alice").list_tools() == Strings{"echo"});
  a->add_tool("later", [](const auto&) { return std::string("{}"); });
  a->notify("notifications/tools/list_changed");
  CHECK(gw.as("alice").list_tools() == Strings{"echo", "later"});
}
