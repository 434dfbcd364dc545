// Reflow Gateway's web UI against a whole gateway: what it sends, page by page, with its headers, and every
// member that it reads, in the type that it expects.
#include "effects_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
namespace raw = mcpgw::detail::raw;
using raw::Type;

namespace {

const std::string kOrigin = "http://localhost:3001";

/// The UI's fetch wrapper: every request is JSON, GET too, and cross-origin.
struct Ui {
  InProcessGateway& gw;
  std::string token;

  HttpResponse send(const std::string& method, const std::string& path, const std::string& body = {}) {
    HttpRequest request;
    request.method = method;
    request.target = path;
    request.headers = {{"Content-Type", "application/json"}, {"Origin", kOrigin}};
    if (!token.empty()) request.headers.emplace_back("Authorization", "Bearer " + token);
    request.body = body;
    request.remote_address = "127.0.0.1";
    HttpResponse answer = gw.send(std::move(request));
    // A browser would not let it read the answer otherwise.
    REQUIRE(answer.header("Access-Control-Allow-Origin") != nullptr);
    CHECK(*answer.header("Access-Control-Allow-Origin") == kOrigin);
    if (answer.status != 204) {
      REQUIRE(answer.header("Content-Type") != nullptr);
      CHECK(answer.header("Content-Type")->find("application/json") == 0);
      if (answer.status >= 400) CHECK(raw::type_of(raw::find(answer.body, "error")) == Type::string);
    }
    return answer;
  }
  std::string get(const std::string& path) {
    const HttpResponse answer = send("GET", path);
    REQUIRE_MESSAGE(answer.status == 200, path, answer.body);
    return answer.body;
  }
  void gone(const std::string& path) {
    const HttpResponse answer = send("DELETE", path);
    CHECK_MESSAGE(answer.status == 204, path, answer.body);
    CHECK(answer.body.empty());
  }
};

/// A member with one of these types.
void has(std::string_view object, const char* name, std::initializer_list<Type> types) {
  CAPTURE(std::string(name));
  CAPTURE(std::string(object));
  const auto value = raw::find(object, name);
  REQUIRE_FALSE(value.empty());
  const Type type = raw::type_of(value);
  CHECK(std::find(types.begin(), types.end(), type) != types.end());
}
void strings(std::string_view object, std::initializer_list<const char*> names) {
  for (const char* name : names) has(object, name, {Type::string});
}
void numbers(std::string_view object, std::initializer_list<const char*> names) {
  for (const char* name : names) has(object, name, {Type::number});
}
/// Left out when empty, else a string.
void optional_strings(std::string_view object, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (!raw::find(object, name).empty()) has(object, name, {Type::string});
}
std::string text(std::string_view object, const char* name) {
  return raw::string_value(raw::find(object, name)).value_or("");
}
std::string_view only(std::string_view array) {
  const auto all = raw::elements(array);
  REQUIRE(all.size() == 1);
  return all.front();
}
/// The element whose member is that.
std::string find_by(const std::string& array, const char* name, const std::string& value) {
  for (const auto one : raw::elements(array))
    if (text(one, name) == value) return std::string(one);
  FAIL("nothing has " << name << " " << value << ": " << array);
  return {};
}

struct Scene {
  InProcessGateway gw{options()};
  Ui ui{gw, {}};
  void sign_in() {
    const HttpResponse made =
        ui.send("POST", "/api/auth/register", R"({"email":"ui@example.test","password":"correct horse"})");
    REQUIRE(made.status == 201);
    ui.token = text(made.body, "token");
  }
};

std::string target_form(const std::string& name, const std::string& members) {
  return R"({"name":")" + name + R"(",)" + members +
         R"(,"port":8080,"health_path":"","statefulness":"stateless","isolation_boundary":"shared",)"
         R"("auth_type":"none","auth_header_name":""})";
}

}  // namespace

TEST_CASE("Reflow UI: a browser on port 3001 may send its methods and headers") {
  Scene s;
  for (const char* method : {"GET", "POST", "PUT", "DELETE"}) {
    HttpRequest request;
    request.method = "OPTIONS";
    request.target = "/api/targets";
    request.headers = {{"Origin", kOrigin},
                       {"Access-Control-Request-Method", method},
                       {"Access-Control-Request-Headers", "authorization,content-type"}};
    const HttpResponse answer = s.gw.send(std::move(request));
    CHECK(answer.status == 204);
    CHECK(*answer.header("Access-Control-Allow-Origin") == kOrigin);
    CHECK(answer.header("Access-Control-Allow-Methods")->find(method) != std::string::npos);
    for (const char* name : {"Authorization", "Content-Type"})
      CHECK(answer.header("Access-Control-Allow-Headers")->find(name) != std::string::npos);
  }
}

TEST_CASE("Reflow UI: register, login, shell and settings") {
  Scene s;
  const HttpResponse made =
      s.ui.send("POST", "/api/auth/register", R"({"email":"ui@example.test","password":"correct horse"})");
  CHECK(made.status == 201);
  strings(made.body, {"token"});
  strings(raw::find(made.body, "user"), {"id", "email", "role"});
  CHECK(text(raw::find(made.body, "user"), "role") == "admin");
  const HttpResponse in =
      s.ui.send("POST", "/api/auth/login", R"({"email":"ui@example.test","password":"correct horse"})");
  CHECK(in.status == 200);
  strings(in.body, {"token"});
  strings(raw::find(in.body, "user"), {"id", "email", "role"});
  s.ui.token = text(in.body, "token");
  const std::string me = s.ui.get("/api/auth/me");
  strings(me, {"id", "email", "role", "created_at"});
  has(me, "groups", {Type::array});
  CHECK(raw::find(me, "groups") == "[]");
  // What it shows when saving fails, and what logs it out.
  CHECK(s.ui.send("POST", "/api/auth/login", R"({"email":"ui@example.test","password":"no"})").status == 401);
  CHECK(s.ui.send("POST", "/api/auth/register", R"({"email":"ui@example.test","password":"correct horse"})")
            .status == 409);
  CHECK(s.ui.send("POST", "/api/auth/register", R"({"email":"b@example.test","password":"short"})").status ==
        400);
  s.ui.token = "expired";
  CHECK(s.ui.send("GET", "/api/auth/me").status == 401);
}

TEST_CASE("Reflow UI: dashboard") {
  Scene s;
  s.sign_in();
  CHECK(text(s.ui.get("/health"), "status") == "ok");
  CHECK(s.ui.get("/api/targets") == "[]");
  s.gw.add_upstream("crm", telling_upstream());
  const std::string targets = s.ui.get("/api/targets");
  strings(only(targets), {"id", "name", "url"});
  has(only(targets), "enabled", {Type::boolean});
  const std::string policies = s.ui.get("/api/policies");
  CHECK(raw::elements(policies).size() == 2);
  for (const auto policy : raw::elements(policies)) has(policy, "enabled", {Type::boolean});
}

TEST_CASE("Reflow UI: targets, with their environment, in each transport's form") {
  Scene s;
  s.sign_in();
  int n = 0;
  for (
      const char* members :
      {R"("transport_type":"streamable-http","url":"https://a.example/mcp","command":"","args":[],"image":"")",
       R"("transport_type":"sse","url":"https://a.example/sse","command":"","args":[],"image":"")",
       R"("transport_type":"stdio","url":"","command":"npx","args":["-y","x"],"image":"")",
       R"("transport_type":"kubernetes","url":"","command":"","args":[],"image":"img:1")"}) {
    CAPTURE(std::string(members));
    const std::string body = target_form("ui" + std::to_string(n++), members);
    const HttpResponse made = s.ui.send("POST", "/api/targets", body);
    REQUIRE_MESSAGE(made.status == 201, made.body);
    const std::string id = text(made.body, "id"), path = "/api/targets/" + id;
    // The environment is posted right after the target.
    CHECK(s.ui.send("POST", path + "/env/default", R"({"key":"A","value":"1"})").status == 200);
    CHECK(s.ui.send("POST", path + "/env/role/admin", R"({"key":"B","value":"2","description":"why"})")
              .status == 200);
    CHECK(s.ui.send("POST", path + "/env/group/ops", R"({"key":"C","value":"3"})").status == 200);
    const std::string list = s.ui.get("/api/targets");
    const std::string listed = find_by(list, "id", id);
    strings(listed,
            {"id", "name", "url", "transport_type", "statefulness", "isolation_boundary", "auth_type"});
    numbers(listed, {"port"});
    has(listed, "enabled", {Type::boolean});
    optional_strings(listed, {"command", "image", "health_path", "auth_header_name"});
    if (!raw::find(listed, "args").empty()) has(listed, "args", {Type::array});
    const std::string rows = s.ui.get(path + "/env");
    CHECK(raw::elements(rows).size() == 3);
    for (const auto row : raw::elements(rows)) {
      strings(row, {"id", "scope_type", "env_key"});
      has(row, "scope_value", {Type::string, Type::null});
      optional_strings(row, {"description"});
      CHECK(raw::find(row, "value").empty());
    }
    CHECK(text(find_by(rows, "env_key", "B"), "description") == "why");
    // The whole form, the toggle.
    CHECK(s.ui.send("PUT", path, body).status == 200);
    CHECK(raw::find(s.ui.send("PUT", path, R"({"enabled":false})").body, "enabled") == "false");
    CHECK(raw::find(s.ui.send("PUT", path, R"({"enabled":true})").body, "enabled") == "true");
    for (const char* row : {"/env/default/A", "/env/role/admin/B", "/env/group/ops/C", ""})
      s.ui.gone(path + row);
  }
  const HttpResponse process = s.ui.send(
      "POST", "/api/targets",
      target_form("local", R"("transport_type":"stdio","url":"","command":"x","args":[],"image":"")"));
  const HttpResponse restarted =
      s.ui.send("POST", "/api/targets/" + text(process.body, "id") + "/restart-instances");
  CHECK(restarted.status == 200);
  numbers(restarted.body, {"deleted"});
  strings(restarted.body, {"message"});
}

TEST_CASE("Reflow UI: policies and their subjects") {
  Scene s;
  s.sign_in();
  const HttpResponse made = s.ui.send(
      "POST", "/api/policies",
      R"({"name":"ui","description":"","resource_type":"tool","resource_pattern":"","effect":"allow","priority":10,)"
      R"("enabled":true,"subjects":[{"subject_type":"everyone"},{"subject_type":"role","subject_value":"viewer"}]})");
  CHECK(made.status == 201);
  const std::string id = text(made.body, "id"), path = "/api/policies/" + id;
  const std::string policy = find_by(s.ui.get("/api/policies"), "id", id);
  strings(policy, {"id", "name", "resource_type", "effect"});
  optional_strings(policy, {"description", "target_id", "resource_pattern"});
  numbers(policy, {"priority"});
  has(policy, "enabled", {Type::boolean});
  const auto subjects = raw::elements(raw::find(policy, "subjects"));
  CHECK(subjects.size() == 2);
  for (const auto subject : subjects) {
    strings(subject, {"id", "subject_type"});
    has(subject, "subject_value", {Type::string, Type::null});
  }
  CHECK(s.ui.send("PUT", path, R"({"enabled":false})").status == 200);
  CHECK(s.ui.send("PUT", path,
                  R"({"name":"ui","description":"d","resource_type":"all","effect":"deny","priority":11})")
            .status == 200);
  const HttpResponse subject =
      s.ui.send("POST", path + "/subjects", R"({"subject_type":"group","subject_value":"ops"})");
  CHECK(subject.status == 201);
  strings(subject.body, {"id", "subject_type", "subject_value"});
  s.ui.gone(path + "/subjects/" + text(subject.body, "id"));
  s.ui.gone(path);
  find_by(s.ui.get("/api/policies"), "name", "Admin Full Access");
}

TEST_CASE("Reflow UI: API keys") {
  Scene s;
  s.sign_in();
  const HttpResponse made = s.ui.send("POST", "/api/auth/tokens", R"({"name":"laptop"})");
  CHECK(made.status == 201);
  strings(made.body, {"token"});
  const std::string list = s.ui.get("/api/auth/tokens");
  for (const auto one : raw::elements(list)) {
    strings(one, {"id", "name", "created_at"});
    has(one, "last_used_at", {Type::string, Type::null});
  }
  // These two it hides, and counts on their names.
  find_by(list, "name", "Default");
  s.ui.send("POST", "/api/auth/login", R"({"email":"ui@example.test","password":"correct horse"})");
  find_by(s.ui.get("/api/auth/tokens"), "name", "Login");
  s.ui.gone("/api/auth/tokens/" + text(find_by(list, "name", "laptop"), "id"));
}

TEST_CASE("Reflow UI: users") {
  Scene s;
  s.sign_in();
  const std::string other =
      text(raw::find(s.ui.send("POST", "/api/auth/register",
                               R"({"email":"other@example.test","password":"correct horse"})")
                         .body,
                     "user"),
           "id");
  const std::string users = s.ui.get("/api/users");
  for (const auto user : raw::elements(users)) {
    strings(user, {"id", "email", "role", "created_at"});
    has(user, "groups", {Type::array});
  }
  for (const char* role : {"user", "admin", "viewer"}) {
    const HttpResponse put = s.ui.send("PUT", "/api/users/" + other,
                                       R"({"role":")" + std::string(role) + R"(","groups":["a","b"]})");
    CHECK(put.status == 200);
    CHECK(text(put.body, "role") == role);
    CHECK(raw::find(put.body, "groups") == R"(["a","b"])");
  }
  const HttpResponse recycled = s.ui.send("POST", "/api/users/" + other + "/recycle");
  CHECK(recycled.status == 200);
  numbers(recycled.body, {"recycled"});
  CHECK(text(recycled.body, "user_id") == other);
}

TEST_CASE("Reflow UI: observability and logs, for admins and for others") {
  Scene s;
  s.sign_in();
  s.gw.add_upstream("crm", telling_upstream());
  s.gw.allow("alice", "crm");
  const auto look = [&](bool traffic) {
    for (const std::string& token : {s.ui.token, s.gw.as("alice").token()}) {
      Ui ui{s.gw, token};
      const std::string snapshot = ui.get("/api/observability/snapshot");
      numbers(snapshot,
              {"total_requests", "total_errors", "avg_latency_ms", "error_rate", "active_sessions"});
      has(snapshot, "targets", {Type::array});
      const std::string crm = find_by(std::string(raw::find(snapshot, "targets")), "name", "crm");
      numbers(crm, {"request_count", "error_count", "avg_latency_ms", "error_rate", "rps"});
      if (traffic) CHECK(raw::find(crm, "request_count") != "0");
      // It matches them to the targets by name.
      find_by(ui.get("/api/targets"), "name", "crm");
    }
  };
  look(false);
  CHECK(s.gw.as("alice").call_tool("who").ok());
  CHECK_FALSE(s.gw.as("alice").call_tool("no_such").ok());
  look(true);
  s.gw.audit_rows();
  for (const std::string& token : {s.ui.token, s.gw.as("alice").token()}) {
    Ui ui{s.gw, token};
    const std::string rows = ui.get("/api/logs?limit=20&offset=0");
    CHECK(raw::elements(rows).size() >= 2);
    for (const auto row : raw::elements(rows)) {
      strings(row, {"id", "created_at", "method"});
      optional_strings(row, {"target_name"});
      numbers(row, {"response_status", "duration_ms"});
    }
    CHECK(raw::elements(ui.get("/api/logs?limit=20&offset=1000")).empty());
  }
}

TEST_CASE("Reflow UI: a plain user loads every page but the users' page, without a refusal") {
  Scene s;
  s.sign_in();
  s.gw.add_upstream("hidden", telling_upstream());
  s.gw.add_upstream("crm", telling_upstream());
  s.gw.allow("alice", "crm");
  Ui ui{s.gw, s.gw.as("alice").token()};
  CHECK(text(ui.get("/api/auth/me"), "role") == "user");
  const std::string targets = ui.get("/api/targets");
  CHECK(text(only(targets), "name") == "crm");
  CHECK(text(only(targets), "url").empty());
  CHECK(raw::elements(ui.get("/api/policies")).size() == 1);
  CHECK(raw::elements(raw::find(ui.get("/api/observability/snapshot"), "targets")).size() == 1);
  ui.get("/api/logs?limit=20&offset=0");
  ui.get("/api/auth/tokens");
  ui.get("/api/targets/" + text(only(targets), "id") + "/env");
  CHECK(ui.send("GET", "/api/users").status == 403);
}

TEST_CASE("Reflow's MCP clients: names with two targets, session and version headers") {
  Scene s;
  s.gw.add_upstream("my-crm", telling_upstream());
  s.gw.add_upstream("git2", telling_upstream());
  s.gw.allow("alice", "");
  McpClient& alice = s.gw.as("alice");
  const Strings names = alice.list_tools();
  for (const char* name : {"my-crm_who", "git2_who"}) {
    CHECK(contains(names, name));
    CHECK(alice.call_tool(name).ok());
  }
  HttpRequest request;
  request.method = "POST";
  request.target = "/mcp";
  request.headers = {{"Authorization", "Bearer " + alice.token()},
                     {"Content-Type", "application/json"},
                     {"Accept", "application/json, text/event-stream"},
                     {"Origin", kOrigin}};
  request.body =
      R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}})";
  const HttpResponse opened = s.gw.send(request);
  REQUIRE(opened.header("Mcp-Session-Id") != nullptr);
  CHECK(opened.header("Access-Control-Expose-Headers")->find("Mcp-Session-Id") != std::string::npos);
  request.headers.emplace_back("mcp-session-id", *opened.header("Mcp-Session-Id"));
  request.headers.emplace_back("mcp-protocol-version", "2025-06-18");
  request.body = R"({"jsonrpc":"2.0","id":2,"method":"tools/list"})";
  CHECK(s.gw.send(request).status == 200);
}
