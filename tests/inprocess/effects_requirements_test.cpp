// Identity, sessions and storage as a whole gateway shows them: requirements that no single part can meet
// alone.
#include "effects_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
namespace raw = mcpgw::detail::raw;

namespace {

const char* kPing = R"({"jsonrpc":"2.0","id":1,"method":"ping"})";

HttpResponse get(InProcessGateway& gw, const std::string& path) {
  HttpRequest request;
  request.method = "GET";
  request.target = path;
  return gw.send(std::move(request));
}

std::size_t count(const FakeUpstream& upstream, const char* method) {
  return upstream.received(method).size();
}

}  // namespace

TEST_CASE(
    "R11: completion, subscriptions and reads are judged as the item they are about, and go nowhere else") {
  InProcessGateway gw(options());
  auto docs = std::make_shared<FakeUpstream>(), other = std::make_shared<FakeUpstream>();
  const auto answer = [](const auto&) { return std::string(R"({"messages":[],"contents":[]})"); };
  for (const auto& upstream : {docs, other}) {
    upstream->add_prompt("open", answer);
    upstream->add_prompt("secret", answer);
    upstream->add_resource("file:///open/1", answer);
    upstream->add_resource("file:///secret/1", answer);
  }
  gw.add_upstream("docs", docs);
  gw.add_upstream("other", other);
  gw.allow("alice", "docs", "open");
  gw.allow("alice", "other", "^nothing$");
  McpClient& alice = gw.as("alice");
  const auto complete = [&](const std::string& ref) {
    return alice.request("completion/complete",
                         R"({"ref":)" + ref + R"(,"argument":{"name":"n","value":"v"}})");
  };
  CHECK(complete(R"({"type":"ref/prompt","name":"docs_open"})").ok());
  CHECK(complete(R"({"type":"ref/resource","uri":"mcpgw+docs:file:///open/1"})").ok());
  CHECK(count(*docs, "completion/complete") == 2);
  for (const char* ref :
       {R"({"type":"ref/prompt","name":"docs_secret"})", R"({"type":"ref/prompt","name":"other_open"})",
        R"({"type":"ref/resource","uri":"mcpgw+docs:file:///secret/1"})",
        R"({"type":"ref/resource","uri":"mcpgw+other:file:///open/1"})"}) {
    CAPTURE(std::string(ref));
    CHECK_FALSE(complete(ref).ok());
  }
  CHECK(count(*docs, "completion/complete") == 2);
  CHECK(count(*other, "completion/complete") == 0);
  for (const char* method : {"resources/read", "resources/subscribe", "resources/unsubscribe"}) {
    CAPTURE(std::string(method));
    CHECK(alice.request(method, R"({"uri":"mcpgw+docs:file:///open/1"})").ok());
    for (const char* uri : {"mcpgw+docs:file:///secret/1", "mcpgw+other:file:///open/1", "mcpgw+none:x"}) {
      const McpReply refused = alice.request(method, R"({"uri":")" + std::string(uri) + "\"}");
      CHECK(refused.error_code() == -32002);
      CHECK(refused.error_message() == "Resource not found");
    }
    CHECK(count(*docs, method) == 1);
    CHECK(count(*other, method) == 0);
  }
  for (const char* method :
       {"tools/execute", "resources/write", "x", "initialize2", "notifications/unknown"}) {
    CAPTURE(std::string(method));
    CHECK(alice.request(method, R"({"name":"open","uri":"file:///open/1"})").error_code() == -32601);
    CHECK(count(*docs, method) + count(*other, method) == 0);
  }
}

TEST_CASE("R32: two tokens of one user do not disturb each other's sessions; a recycled one is 404") {
  InProcessGateway gw(options());
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  const std::string first_token = alice.token();
  REQUIRE(alice.call_tool("echo").ok());
  const std::string first = alice.session_id();
  const auto other =
      gw.gateway().authenticator()->mint(alice.user_id(), "other", TokenKind::api, {"mcp"}, std::nullopt);
  alice.use_token(other->token);
  REQUIRE(alice.initialize().ok());
  const std::string second = alice.session_id();
  CHECK(second != first);
  // Ended by one token, the other's goes on; a session is the user's, whichever token made it.
  HttpRequest end;
  end.method = "DELETE";
  end.target = "/mcp";
  end.headers = {{"Authorization", "Bearer " + other->token}, {"Mcp-Session-Id", second}};
  CHECK(gw.send(end).status == 204);
  CHECK(gw.send(end).status == 404);
  alice.use_token(first_token);
  CHECK(alice.raw(kPing, {{"Mcp-Session-Id", first}}).ok());
  CHECK(alice.raw(kPing, {{"Mcp-Session-Id", second}}).http_status == 404);
  alice.use_token(other->token);
  CHECK(alice.raw(kPing, {{"Mcp-Session-Id", first}}).ok());
  change(gw.as("admin"), "POST", "/api/users/" + alice.user_id() + "/recycle");
  const McpReply gone = alice.raw(kPing, {{"Mcp-Session-Id", first}});
  CHECK(gone.http_status == 404);
  CHECK(gone.error_message() == "Session not found");
  // A notification gets no body of JSON-RPC, there either.
  const McpReply note =
      alice.raw(R"({"jsonrpc":"2.0","method":"notifications/initialized"})", {{"Mcp-Session-Id", first}});
  CHECK(note.http_status == 404);
  CHECK(raw::find(note.body, "id").empty());
}

TEST_CASE("R48: initialize on a live session takes its place, for the identity as it is now") {
  InProcessGateway gw(options());
  auto crm = telling_upstream();
  const std::string target = gw.add_upstream(http_target("crm"), crm);
  gw.allow("alice", "crm");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.call_tool("who").ok());
  const std::string old = alice.session_id();
  CHECK(crm->connections() == 1);
  change(gw.as("admin"), "PUT", "/api/targets/" + target + "/tokens/role",
         R"({"role":"viewer","token":"of-viewers"})");
  change(gw.as("admin"), "PUT", "/api/users/" + alice.user_id(), R"({"role":"viewer"})");
  const McpReply opened = alice.raw(
      R"({"jsonrpc":"2.0","id":9,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}})",
      {{"Mcp-Session-Id", old}});
  REQUIRE(opened.ok());
  CHECK(opened.session_id != old);
  CHECK(alice.raw(kPing, {{"Mcp-Session-Id", old}}).http_status == 404);
  alice.use_session(opened.session_id);
  CHECK(alice.call_tool("who").text() == "of-viewers");
  const HttpResponse snapshot = gw.as("admin").api("GET", "/api/observability/snapshot");
  CHECK(member(snapshot, "active_sessions") == "1");
  // One that is refused leaves nothing, and takes nothing away.
  const McpReply refused = alice.raw(R"({"jsonrpc":"2.0","id":10,"method":"initialize","params":{}})",
                                     {{"Mcp-Session-Id", opened.session_id}});
  CHECK(refused.error_code() == -32602);
  CHECK(alice.raw(kPing, {{"Mcp-Session-Id", opened.session_id}}).ok());
}

TEST_CASE("R54: closing one session disturbs no other on the same target") {
  for (const bool process : {false, true}) {
    CAPTURE(process);
    InProcessGateway gw(options());
    auto crm = telling_upstream();
    if (process)
      gw.add_upstream("crm", crm);
    else
      gw.add_upstream(http_target("crm"), crm);
    for (const char* name : {"alice", "bob"}) {
      gw.allow(name, "crm");
      REQUIRE(gw.as(name).call_tool("who").ok());
    }
    const int before = crm->connections();
    CHECK(before == (process ? 1 : 2));
    HttpRequest end;
    end.method = "DELETE";
    end.target = "/mcp";
    end.headers = {{"Authorization", "Bearer " + gw.as("alice").token()},
                   {"Mcp-Session-Id", gw.as("alice").session_id()}};
    CHECK(gw.send(std::move(end)).status == 204);
    for (int i = 0; i < 5; ++i) CHECK(gw.as("bob").call_tool("who").ok());
    CHECK(crm->connections() == before);
  }
}

TEST_CASE(
    "R70, R71: with the storage away calls of known users go on, /ready says so, and it recovers by itself") {
  InProcessOptions opts = options();
  auto storage = std::make_shared<FailingStorage>(make_memory_storage());
  opts.gateway.storage = storage;
  InProcessGateway gw(std::move(opts));
  auto git = echo_upstream("git");
  gw.add_upstream(http_target("git"), git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  McpClient& admin = gw.as("admin");
  REQUIRE(alice.call_tool("echo").ok());
  const HttpResponse ready = get(gw, "/ready");
  CHECK(ready.status == 200);
  CHECK(raw::find(raw::find(ready.body, "checks"), "storage") == "\"ok\"");
  storage->set_down(true);
  // No round trip to it before the answer: there would be none.
  for (int i = 0; i < 5; ++i) CHECK(alice.call_tool("echo").ok());
  CHECK(alice.list_tools() == Strings{"echo"});
  CHECK(admin.api("GET", "/api/targets").status == 200);
  const HttpResponse write = admin.api("POST", "/api/policies", R"({"name":"x","effect":"allow"})");
  CHECK(write.status == 503);
  CHECK(member(write, "code") == "storage_unavailable");
  CHECK(write.header("Retry-After") != nullptr);
  CHECK(alice.initialize().http_status == 503);
  const HttpResponse away = get(gw, "/ready");
  CHECK(away.status == 503);
  CHECK(member(away, "status") == "not_ready");
  CHECK(raw::find(raw::find(away.body, "checks"), "storage") != "\"ok\"");
  CHECK(get(gw, "/health").status == 200);
  storage->set_down(false);
  CHECK(get(gw, "/ready").status == 200);
  CHECK(admin.api("POST", "/api/policies", R"({"name":"x","effect":"allow"})").status == 201);
  CHECK(alice.initialize().ok());
  CHECK(alice.call_tool("echo").ok());
}

TEST_CASE("R80: replicas that start together on a new store make its seeds once") {
  for (int round = 0; round < 10; ++round) {
    GatewayOptions base;
    base.storage = make_memory_storage();
    base.jwt_secret = "a secret of the test, longer than 32 bytes";
    base.encryption.current = "0123456789abcdefghijklmnopqrstuv";
    std::vector<std::shared_ptr<Gateway>> replicas(3);
    std::atomic<int> waiting{0};
    std::vector<std::thread> starts;
    for (auto& replica : replicas)
      starts.emplace_back([&replica, &waiting, base] {
        ++waiting;
        while (waiting < 3) std::this_thread::yield();
        if (auto made = Gateway::create(base)) replica = *made;
      });
    for (auto& start : starts) start.join();
    for (const auto& replica : replicas) {
      REQUIRE(replica);
      const auto policies = replica->repository()->policies();
      REQUIRE(policies.size() == 2);
      CHECK(policies[0]->name == "Admin Full Access");
      CHECK(policies[0]->enabled);
      CHECK(policies[1]->name == "Default Allow All");
      CHECK_FALSE(policies[1]->enabled);
      CHECK(policies[0]->id == replicas[0]->repository()->policies()[0]->id);
    }
    for (const auto& replica : replicas) replica->close(milliseconds(0));
  }
}

TEST_CASE("R83, R84: groups of any name have values, processes and paths of their own") {
  InProcessGateway gw(options());
  auto tool = telling_upstream();
  Target target;
  target.name = "tool";
  target.transport_type = TransportType::stdio;
  target.command = "x";
  target.isolation_boundary = Isolation::per_group;
  const std::string path = "/api/targets/" + gw.add_upstream(std::move(target), tool);
  McpClient& admin = gw.as("admin");
  // Names that a careless join of parts could take for one another.
  const std::vector<std::pair<std::string, std::string>> groups{{"a/b", "a%2Fb"},         {"a", "a"},
                                                                {"a:1", "a%3A1"},         {"1:a", "1%3Aa"},
                                                                {"group:a", "group%3Aa"}, {"a b", "a%20b"}};
  int n = 0;
  for (const auto& [group, encoded] : groups) {
    const std::string name = "user" + std::to_string(n++);
    gw.allow(name, "tool");
    change(admin, "PUT", "/api/users/" + gw.as(name).user_id(), R"({"groups":[)" + raw::quote(group) + "]}");
    CHECK(gw.as(name).call_tool("env").text() == "");
    CHECK(tool->connections() == n);  // the same values, yet a process of its own
  }
  n = 0;
  for (const auto& [group, encoded] : groups) {
    const std::string value = "of " + group, name = "user" + std::to_string(n++);
    change(admin, "POST", path + "/env/group/" + encoded, R"({"key":"K","value":)" + raw::quote(value) + "}");
    CHECK(gw.as(name).call_tool("env").text() == "K=" + value + ";");
  }
  const HttpResponse rows = admin.api("GET", path + "/env");
  CHECK(raw::elements(rows.body).size() == groups.size());
  for (const auto& [group, encoded] : groups) {
    CHECK(raw::elements(admin.api("GET", path + "/env/group/" + encoded).body).size() == 1);
    change(admin, "DELETE", path + "/env/group/" + encoded + "/K");
    change(admin, "PUT", path + "/tokens/group",
           R"({"group_name":)" + raw::quote(group) + R"(,"token":"t"})");
    change(admin, "DELETE", path + "/tokens/group/" + encoded);
  }
  CHECK(admin.api("GET", path + "/env").body == "[]");
  // A key with a slash is none.
  CHECK(admin.api("DELETE", path + "/env/default/a%2Fb").status == 404);
}

TEST_CASE("tests of targets that take long leave the threads alone that others need") {
  InProcessOptions opts = options();
  opts.gateway.runtime = Runtime::create({.loops = 1, .workers = 1});
  InProcessGateway gw(std::move(opts));
  auto slow = std::make_shared<FakeUpstream>(), fast = echo_upstream("fast");
  slow->hang("initialize");
  std::vector<std::string> ids;
  for (int i = 0; i < 6; ++i) ids.push_back(gw.add_upstream(http_target("slow" + std::to_string(i)), slow));
  gw.add_upstream(http_target("fast"), fast);
  gw.allow("alice", "fast");
  McpClient& admin = gw.as("admin");
  std::vector<std::thread> tests;
  for (const std::string& id : ids)
    tests.emplace_back([&admin, id] {
      admin.api("PUT", "/api/targets/" + id, R"({"timeout_ms":1000})");
      admin.api("POST", "/api/targets/" + id + "/test", "{}");
    });
  REQUIRE(becomes([&] { return slow->connections() > 0; }));
  const auto from = steady_clock::now();
  CHECK(gw.as("alice").call_tool("echo").ok());
  CHECK(admin.api("GET", "/api/targets").status == 200);
  CHECK(steady_clock::now() - from < std::chrono::seconds(5));
  // Taken out of use, the tests have nothing to wait for.
  slow->heal();
  for (const std::string& id : ids)
    CHECK(admin.api("PUT", "/api/targets/" + id, R"({"enabled":false})").status == 200);
  for (auto& test : tests) test.join();
}
