// Clients of revision 2026-07-28 on servers of the legacy era: discovery, lists, calls, errors and their
// statuses.
#include <atomic>

#include "modern_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using Strings = std::vector<std::string>;

namespace {

constexpr const char* kInfo = "io.modelcontextprotocol/serverInfo";

Target process_target(const std::string& name) {
  Target out;
  out.name = name;
  out.transport_type = TransportType::stdio;
  out.command = "in-process";
  return out;
}

}  // namespace

TEST_CASE("server/discover says what is there, to whom") {
  InProcessGateway gw(options());
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  const McpReply reply = modern(gw.as("alice"), "server/discover", {}, {.id = "\"d-1\""});
  CHECK(reply.http_status == 200);
  CHECK(reply.session_id.empty());
  CHECK(find(reply.body, "id") == "\"d-1\"");
  const std::string result = reply.result();
  CHECK(detail::raw::elements(find(result, "supportedVersions")).front() == "\"2026-07-28\"");
  CHECK(find(result, "resultType") == "\"complete\"");
  CHECK(find(result, "cacheScope") == "\"private\"");
  CHECK(find(result, "ttlMs") == "0");
  CHECK(find(find(result, "capabilities"), "tools", "listChanged") == "true");
  CHECK(find(find(result, "capabilities"), "resources", "subscribe") == "true");
  CHECK(find(find(result, "_meta"), kInfo, "name") == "\"mcpgw\"");
  CHECK(find(result, "protocolVersion").empty());
  CHECK(find(result, "serverInfo").empty());

  const McpReply nothing = modern(gw.as("bob"), "server/discover");
  CHECK(nothing.ok());
  CHECK_FALSE(find(nothing.result(), "instructions").empty());
}

TEST_CASE("a call goes through without a session, with its id, and leaves a row") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  const std::string policy = gw.allow("alice", "git");
  for (const std::string id : {"7", "\"7\"", "0", "-1", "9007199254740993"}) {
    const McpReply reply = modern_call(
        gw.as("alice"), "echo", R"({"a":1.0})",
        {.more_meta =
             R"(,"io.modelcontextprotocol/clientInfo":{"name":"it","version":"1"},"com.example/k":[1.0])",
         .id = id});
    CHECK(reply.http_status == 200);
    CHECK(find(reply.body, "id") == id);
    CHECK(reply.text() == R"(git {"a":1.0})");
    CHECK(find(reply.result(), "resultType") == "\"complete\"");
    CHECK(find(reply.result(), "ttlMs").empty());
    CHECK(reply.session_id.empty());
  }
  // The server sees a legacy client: nothing of the other era, and what is foreign to both as it was.
  const std::string sent = git->received("tools/call").front();
  CHECK(find(sent, "params", "_meta") == R"({"com.example/k":[1.0]})");
  CHECK(find(sent, "params", "arguments") == R"({"a":1.0})");
  CHECK(git->received("initialize").size() == 1);
  CHECK(git->connections() == 1);

  const auto rows = gw.audit_rows();
  const auto row =
      std::find_if(rows.begin(), rows.end(), [](const AuditRecord& r) { return r.method == "tools/call"; });
  REQUIRE(row != rows.end());
  CHECK(row->target_name == "git");
  CHECK(row->tool == "echo");
  CHECK(row->decision == "allow");
  CHECK(row->policy_id == policy);
  CHECK(row->response_status == 200);
  CHECK(row->client_name == "it");
  CHECK(row->session_id.empty());
  CHECK(std::count_if(rows.begin(), rows.end(),
                      [](const AuditRecord& r) { return r.method == "tools/call"; }) == 5);
}

TEST_CASE("lists are those of the other era, with what this one adds") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  git->add_resource("file:///a",
                    [](const auto&) { return R"({"contents":[{"uri":"file:///a","text":"x"}]})"; });
  git->add_prompt("p", [](const auto&) { return R"({"messages":[]})"; });
  auto jira = echo_upstream("jira");
  gw.add_upstream("git", git);
  gw.add_upstream("jira", jira);
  gw.allow("alice", "git");
  gw.allow("alice", "jira");
  McpClient& alice = gw.as("alice");
  const McpReply tools = modern(alice, "tools/list");
  CHECK(listed(tools, "tools", "name") == Strings{"git_echo", "jira_echo"});
  CHECK(listed(modern(alice, "resources/list"), "resources", "uri") == Strings{"mcpgw+git:file:///a"});
  CHECK(listed(modern(alice, "prompts/list"), "prompts", "name") == Strings{"git_p"});
  for (const char* method : {"tools/list", "resources/list", "resources/templates/list", "prompts/list"}) {
    const McpReply reply = modern(alice, method);
    CAPTURE(method);
    CHECK(find(reply.result(), "resultType") == "\"complete\"");
    CHECK(find(reply.result(), "ttlMs") == "0");
    CHECK(find(reply.result(), "cacheScope") == "\"private\"");
    CHECK_FALSE(find(find(reply.result(), "_meta"), kInfo).empty());
  }
  const McpReply read = modern(alice, "resources/read", R"("uri":"mcpgw+git:file:///a")");
  CHECK(read.ok());
  CHECK(listed(read, "contents", "uri") == Strings{"mcpgw+git:file:///a"});
  CHECK(find(read.result(), "ttlMs") == "0");
  CHECK(modern(alice, "prompts/get", R"("name":"git_p")").ok());
  const McpReply completed =
      modern(alice, "completion/complete",
             R"("ref":{"type":"ref/prompt","name":"git_p"},"argument":{"name":"a","value":""})");
  CHECK(completed.ok());
  CHECK(find(completed.result(), "resultType") == "\"complete\"");
}

TEST_CASE("errors have the codes and statuses of this era") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  git->add_tool("odd", [](const auto&) -> std::string { throw FakeUpstream::FakeError{7, "odd"}; });
  git->add_tool("fails", [](const auto&) { return R"({"content":[],"isError":true})"; });
  git->add_tool("posing", [](const auto&) -> std::string {
    throw FakeUpstream::FakeError{-32021, "posing"};
  });
  gw.add_upstream("git", git);
  gw.allow("alice", "git", "^(echo|odd|fails|posing|file:.*)$");
  McpClient& alice = gw.as("alice");

  const McpReply unknown = modern_call(alice, "no_such");
  CHECK(unknown.http_status == 400);
  CHECK(unknown.error_code() == -32602);
  CHECK(unknown.error_message() == "Unknown tool: no_such");
  git->add_tool("denied", [](const auto&) { return FakeUpstream::text("?"); });
  const McpReply denied = modern_call(alice, "denied");
  CHECK(denied.http_status == 400);
  CHECK(denied.error_message() == "Unknown tool: denied");

  const McpReply resource = modern(alice, "resources/read", R"("uri":"file:///none")");
  CHECK(resource.http_status == 400);
  CHECK(resource.error_code() == -32602);
  CHECK(find(find(resource.body, "error"), "data", "uri") == "\"file:///none\"");

  CHECK(modern_call(alice, "odd").error_code() == 7);
  CHECK(modern_call(alice, "odd").http_status == 200);
  CHECK(modern_call(alice, "posing").error_code() == -32603);
  CHECK(find(modern_call(alice, "fails").result(), "isError") == "true");

  for (const char* method : {"initialize", "ping", "logging/setLevel", "resources/subscribe",
                             "resources/unsubscribe", "tasks/get", "no/such"}) {
    CAPTURE(method);
    const McpReply reply = modern(alice, method);
    CHECK(reply.http_status == 404);
    CHECK(reply.error_code() == -32601);
  }
  CHECK(git->received("resources/subscribe").empty());
  CHECK(git->received("logging/setLevel").empty());

  CHECK(modern(alice, "tools/list", R"("cursor":"not-ours")").http_status == 400);
  CHECK(modern_call(alice, "echo", "[]").http_status == 400);
  git->close_on("tools/call");
  const McpReply closed = modern_call(alice, "echo");
  CHECK(closed.http_status == 200);
  CHECK(closed.error_code() == -32603);
  CHECK(find(find(closed.body, "error"), "data", "target") == "\"git\"");
}

TEST_CASE("requests that are not well formed never reach a server") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  const std::string call = modern_params(R"("name":"echo","arguments":{})");
  const std::string body = detail::make_request("5", "tools/call", call);
  const auto send = [&](const HttpHeaders& headers) { return alice.raw(body, headers); };
  struct Row {
    const char* what;
    HttpHeaders headers;
    int code;
  };
  const Row rows[] = {
      {"no headers", {}, -32020},
      {"no name", {{"MCP-Protocol-Version", "2026-07-28"}, {"Mcp-Method", "tools/call"}}, -32020},
      {"another name",
       {{"MCP-Protocol-Version", "2026-07-28"}, {"Mcp-Method", "tools/call"}, {"Mcp-Name", "delete"}},
       -32020},
      {"a legacy version", {{"MCP-Protocol-Version", "2025-11-25"}}, -32020},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    const McpReply reply = send(row.headers);
    CHECK(reply.http_status == 400);
    CHECK(reply.error_code() == row.code);
    CHECK(find(reply.body, "id") == "5");
  }
  const McpReply bare =
      alice.raw(detail::make_request("6", "server/discover", "{}"),
                {{"MCP-Protocol-Version", "2026-07-28"}, {"Mcp-Method", "server/discover"}});
  CHECK(bare.http_status == 400);
  CHECK(bare.error_code() == -32602);

  std::string future = body;
  future.replace(future.find("2026-07-28"), 10, "2031-01-01");
  const McpReply version = alice.raw(
      future, {{"MCP-Protocol-Version", "2031-01-01"}, {"Mcp-Method", "tools/call"}, {"Mcp-Name", "echo"}});
  CHECK(version.http_status == 400);
  CHECK(version.error_code() == -32022);
  CHECK(find(find(version.body, "error"), "data", "requested") == "\"2031-01-01\"");
  // What is supported is one list, wherever it is asked for.
  CHECK(find(find(version.body, "error"), "data", "supported") ==
        find(modern(alice, "server/discover").result(), "supportedVersions"));

  const HttpHeaders modern_only{{"MCP-Protocol-Version", "2026-07-28"}};
  CHECK(alice.raw(R"({"jsonrpc":"2.0","id":1,"result":{}})", modern_only).http_status == 400);
  CHECK(alice.raw("[]", modern_only).http_status == 400);
  CHECK(alice.raw(detail::make_notification("notifications/cancelled", R"({"requestId":1})"), modern_only)
            .http_status == 202);
  CHECK(git->received("tools/call").empty());
  const auto rows_written = gw.audit_rows();
  CHECK(std::all_of(rows_written.begin(), rows_written.end(), [](const AuditRecord& r) {
    return r.kind != "mcp" || r.response_status == 400 || r.method == "server/discover";
  }));
}

TEST_CASE("a session id is ignored, GET and DELETE are not there") {
  InProcessGateway gw(options());
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  ModernOptions with_session;
  with_session.headers = {{"Mcp-Session-Id", "no-such-session"}};
  const McpReply reply = modern_call(alice, "echo", "{}", with_session);
  CHECK(reply.ok());
  CHECK(reply.session_id.empty());
  for (const char* method : {"GET", "DELETE"}) {
    HttpRequest request;
    request.method = method;
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + alice.token()},
                       {"Accept", "text/event-stream"},
                       {"MCP-Protocol-Version", "2026-07-28"}};
    const HttpResponse response = gw.send(std::move(request));
    CHECK(response.status == 405);
    CHECK(response.header("Allow") != nullptr);
  }
}

TEST_CASE("progress and log lines come on the stream of their request, and only when they are asked for") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  git->add_tool("talk", [&](const FakeUpstream::Call& call) {
    call.progress(1, 2);
    git->notify("notifications/message", R"({"level":"debug","data":"d"})");
    git->notify("notifications/message", R"({"level":"warning","data":"w"})");
    call.progress(2, 2);
    return FakeUpstream::text("said");
  });
  Target target = http_target("git");
  gw.add_upstream(target, git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");

  const McpReply silent = modern_call(alice, "talk");
  CHECK(silent.text() == "said");
  CHECK(silent.notifications.empty());
  CHECK(git->received("logging/setLevel").empty());

  const McpReply loud =
      modern_call(alice, "talk", "{}",
                  {.more_meta = R"(,"progressToken":"t-1","io.modelcontextprotocol/logLevel":"info")"});
  CHECK(loud.text() == "said");
  REQUIRE(loud.notifications.size() == 3);
  CHECK(find(loud.notifications[0], "params", "progressToken") == "\"t-1\"");
  CHECK(find(loud.notifications[1], "params", "level") == "\"warning\"");
  CHECK(find(loud.notifications[2], "params", "progress").starts_with("2"));
  REQUIRE(git->received("logging/setLevel").size() == 1);
  CHECK(find(git->received("logging/setLevel").front(), "params", "level") == "\"info\"");

  // The upstream's token is the gateway's own.
  const std::string sent = git->received("tools/call").back();
  CHECK(find(find(sent, "params"), "_meta", "progressToken") != "\"t-1\"");
}

TEST_CASE("headers that repeat arguments are compared with them") {
  InProcessGateway gw(options());
  auto db = std::make_shared<FakeUpstream>();
  const auto echo = [](const FakeUpstream::Call& call) { return FakeUpstream::text(call.arguments); };
  db->add_raw_tool(
      "query",
      R"({"name":"query","inputSchema":{"properties":{"region":{"type":"string","x-mcp-header":"Region"}}}})",
      echo);
  db->add_raw_tool(
      "broken",
      R"({"name":"broken","inputSchema":{"properties":{"x":{"type":"number","x-mcp-header":"X"}}}})", echo);
  db->add_raw_tool(
      "hidden",
      R"({"name":"hidden","inputSchema":{"properties":{"region":{"type":"string","x-mcp-header":"Region"}}}})",
      echo);
  gw.add_upstream("db", db);
  gw.allow("alice", "db", "^(query|broken)$");
  McpClient& alice = gw.as("alice");
  // A tool that breaks the rules is left out for clients that would have to follow it.
  CHECK(listed(modern(alice, "tools/list"), "tools", "name") == Strings{"query"});
  CHECK(alice.list_tools() == Strings{"query", "broken"});

  const std::string arguments = R"({"region":"Köln"})";
  ModernOptions right, wrong;
  right.headers = {{"Mcp-Param-Region", "=?base64?S8O2bG4=?="}};
  wrong.headers = {{"Mcp-Param-Region", "Bonn"}};
  CHECK(modern_call(alice, "query", arguments, right).text() == arguments);
  for (const McpReply& reply :
       {modern_call(alice, "query", arguments, wrong), modern_call(alice, "query", arguments)}) {
    CHECK(reply.http_status == 400);
    CHECK(reply.error_code() == -32020);
  }
  CHECK(modern_call(alice, "query", "{}").ok());
  CHECK(modern_call(alice, "broken", R"({"x":1})").error_message() == "Unknown tool: broken");
  // Nothing tells a tool that is denied from one that is not there.
  CHECK(modern_call(alice, "hidden", arguments).error_message() == "Unknown tool: hidden");
  CHECK(db->received("tools/call").size() == 2);
}

TEST_CASE("what a server offers depends on the client's capabilities: each set has a connection of its own") {
  for (const Target& target : {http_target("git"), process_target("git")}) {
    InProcessGateway gw(options());
    auto git = echo_upstream("git");
    gw.add_upstream(target, git);
    gw.allow("alice", "git");
    McpClient& alice = gw.as("alice");
    CHECK(modern_call(alice, "echo").ok());
    CHECK(modern_call(alice, "echo", "{}", {.capabilities = R"({"sampling":{},"roots":{}})"}).ok());
    CHECK(modern_call(alice, "echo", "{}", {.capabilities = R"({"roots":{},"sampling":{}})"}).ok());
    CHECK(modern_call(alice, "echo").ok());
    const Strings opened = git->received("initialize");
    REQUIRE(opened.size() == 2);
    CHECK(find(opened[0], "params", "capabilities") == "{}");
    CHECK(find(opened[1], "params", "capabilities") == R"({"roots":{},"sampling":{}})");
    CHECK(modern_call(gw.as("bob"), "echo").error_code() == -32602);
    gw.allow("bob", "git");
    CHECK(modern_call(gw.as("bob"), "echo").ok());
    // HTTP sessions are a user's own, a process is shared by those who are let.
    CHECK(git->received("initialize").size() == (target.is_process() ? 2 : 3));
  }
}

TEST_CASE("sets of capabilities are bounded per user: the one that was idle longest makes room") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream(http_target("git"), git);
  gw.allow("alice", "git");
  for (int i = 0; i < 20; ++i)
    CHECK(modern_call(gw.as("alice"), "echo", "{}",
                      {.capabilities = R"({"experimental":{"n":{"i":)" + std::to_string(i) + "}}}"})
              .ok());
  CHECK(git->received("initialize").size() == 20);
  CHECK(
      modern_call(gw.as("alice"), "echo", "{}", {.capabilities = R"({"experimental":{"n":{"i":19}}})"}).ok());
  CHECK(git->received("initialize").size() == 20);
  CHECK(
      modern_call(gw.as("alice"), "echo", "{}", {.capabilities = R"({"experimental":{"n":{"i":0}}})"}).ok());
  CHECK(git->received("initialize").size() == 21);
}

TEST_CASE("a stateful target is connected to for each call") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  Target target = process_target("git");
  target.statefulness = Statefulness::stateful;
  gw.add_upstream(target, git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  CHECK(modern_call(alice, "echo").ok());
  const int first = git->connections();
  CHECK(modern_call(alice, "echo").ok());
  CHECK(git->connections() == first + 1);
}

TEST_CASE("policies decide the next request, and a token that is revoked ends the running one") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  std::atomic<bool> release{false};
  git->add_tool("slow", [&](const auto&) {
    (void)eventually([&] { return release.load(); });
    return FakeUpstream::text("late");
  });
  gw.add_upstream("git", git);
  const std::string policy = gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  CHECK(modern_call(alice, "echo").ok());

  const std::string params = modern_params(R"("name":"slow")");
  const auto running =
      ModernStream::post(gw.gateway(), alice.token(), detail::make_request("1", "tools/call", params),
                       modern_headers("tools/call", params));
  CHECK(eventually([&] { return git->received("tools/call").size() == 2; }));
  CHECK(gw.gateway().repository()->revoke_tokens(alice.user_id(), true));
  CHECK(eventually([&] { return running->closed(); }));
  CHECK(find(running->text(), "error", "message") == "\"The call was ended by the gateway\"");
  release = true;
  CHECK(gw.gateway().repository()->delete_policy(policy));
  gw.allow("bob", "git", "^nothing$");
  CHECK(modern_call(gw.as("bob"), "echo").error_code() == -32602);
}

TEST_CASE("a client that goes away has cancelled") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  git->add_tool("slow", [](const auto&) { return FakeUpstream::text("never"); });
  git->hang("tools/call");
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  const std::string params = modern_params(R"("name":"slow")");
  const auto running =
      ModernStream::post(gw.gateway(), gw.as("alice").token(), detail::make_request("1", "tools/call", params),
                       modern_headers("tools/call", params));
  CHECK(eventually([&] { return git->received("tools/call").size() == 1; }));
  running->leave();
  CHECK(eventually([&] { return git->received("notifications/cancelled").size() == 1; }));
  const std::string told = git->received("notifications/cancelled").front();
  CHECK(find(told, "params", "requestId") == find(git->received("tools/call").front(), "id"));
  CHECK(eventually([&] {
    const auto rows = gw.audit_rows();
    return std::any_of(rows.begin(), rows.end(),
                       [](const AuditRecord& r) { return r.error_code == "cancelled"; });
  }));
}
