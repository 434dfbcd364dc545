// What holds for every route: who may, the order of the checks, paths, methods, headers, errors.
#include "admin_support.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

namespace {

/// A body that is right in form for any route that takes one.
const std::string kAnyBody =
    R"({"email":"a@b.example","password":"correct horse","old_password":"x","new_password":"correct horse",)"
    R"("name":"n","url":"https://x.example/mcp","effect":"allow","token":"t","role":"r","group":"g",)"
    R"("subject_type":"everyone","key":"K","value":"v","configs":{"K":"v"},"resource_type":"all",)"
    R"("target_id":"11111111-1111-4111-8111-111111111111"})";

bool is_write(const std::string& method) { return method != "GET"; }

}  // namespace

TEST_CASE("R7, R15, R47: every route for everyone who is not meant, with a body that is right") {
  Api api;
  api.open_to_all();
  const std::string id = api.make_stdio("tools");
  const std::map<std::string, std::string> existing{{"id", id}};
  for (const auto& route : AdminApi::routes()) {
    CAPTURE(route.method);
    CAPTURE(route.path);
    // The same refusal whether the object exists or not.
    for (const auto& values : {std::map<std::string, std::string>(), existing}) {
      const std::string path = fill(route.path, values);
      const std::string body = is_write(route.method) ? kAnyBody : "";
      if (route.who == "public") continue;
      const auto none = api.call("", route.method, path, body);
      CHECK(none.status == 401);
      CHECK(Api::code(none) == "unauthorized");
      CHECK(*none.header("WWW-Authenticate") == R"(Bearer realm="mcpgw")");
      const auto wrong = api.call("nonsense", route.method, path, body);
      CHECK(wrong.status == 401);
      CHECK(Api::code(wrong) == "invalid_token");
      CHECK(*wrong.header("WWW-Authenticate") == R"(Bearer realm="mcpgw", error="invalid_token")");
      const auto narrow = api.call(api.mcp_only, route.method, path, body);
      CHECK(narrow.status == 403);
      CHECK(Api::code(narrow) == "insufficient_scope");
      CHECK(*narrow.header("WWW-Authenticate") ==
            R"(Bearer realm="mcpgw", error="insufficient_scope", scope="api")");
      if (route.who != "admin") continue;
      const auto plain = api.call(api.user, route.method, path, body);
      CHECK(plain.status == 403);
      CHECK(Api::code(plain) == "admin_required");
    }
  }
  // Nothing of all that has changed anything.
  CHECK(Api::json(api.call(api.admin, "GET", "/api/targets")).size() == 1);
  CHECK(Api::json(api.call(api.admin, "GET", "/api/users")).size() == 2);
  CHECK(Api::json(api.call(api.admin, "GET", "/api/targets/" + id + "/env")).empty());
}

TEST_CASE("admins find nothing at ids of nobody, with the code of the object") {
  Api api;
  const std::map<std::string, std::string> codes{
      {"users", "user_not_found"}, {"targets", "target_not_found"}, {"policies", "policy_not_found"}};
  for (const auto& route : AdminApi::routes()) {
    if (route.path.find("{id}") == std::string::npos) continue;
    CAPTURE(route.method);
    CAPTURE(route.path);
    const auto answer =
        api.call(api.admin, route.method, fill(route.path), is_write(route.method) ? kAnyBody : "");
    CHECK(answer.status == 404);
    const std::string group = route.path.substr(5, route.path.find('/', 5) - 5);
    CHECK(Api::code(answer) == (group == "auth" ? "token_not_found" : codes.at(group)));
    // R94, 1.2: an id that is none, and a value that is no text, after the rights and before existence.
    std::string bad = route.path;
    bad.replace(bad.find("{id}"), 4, "7");
    CHECK(Api::code(api.call(api.admin, route.method, fill(bad), is_write(route.method) ? kAnyBody : "")) ==
          "invalid_id");
    for (const char* text : {"%zz", "%", "%ff", "%00", "%ed%a0%80"}) {
      std::string malformed = route.path;
      malformed.replace(malformed.find("{id}"), 4, text);
      CHECK(Api::code(api.call(api.admin, route.method, fill(malformed))) == "invalid_path");
      CHECK(api.call("", route.method, fill(malformed)).status == 401);
    }
  }
}

TEST_CASE("the order of the checks: the first that fails is told") {
  Api api;
  const std::string id = api.make_target("crm");
  const std::string path = "/api/targets/" + id;
  const std::string huge(2 * 1024 * 1024, 'x');
  const HttpHeaders text{{"Content-Type", "text/plain"}};
  // 404 and 405 before 401.
  CHECK(api.call("", "GET", "/api/nothing").status == 404);
  CHECK(api.call("", "PATCH", path).status == 405);
  // 401 before 413, 403 before 413, 413 before 415, 415 before 400, 400 before 404.
  CHECK(api.call("", "PUT", path, huge).status == 401);
  CHECK(api.call(api.mcp_only, "PUT", path, huge).status == 403);
  CHECK(api.call(api.user, "PUT", path, huge).status == 403);
  CHECK(api.call(api.admin, "PUT", path, huge, text).status == 413);
  CHECK(api.call(api.admin, "PUT", path, "{", text).status == 415);
  CHECK(api.call(api.admin, "PUT", "/api/targets/%zz", "{", text).status == 415);
  CHECK(api.call(api.admin, "PUT", "/api/targets/" + kNobody, "{").status == 400);
  CHECK(Api::field(api.call(api.admin, "PUT", "/api/targets/" + kNobody, R"({"prefix":"x"})")) == "prefix");
  CHECK(Api::field(api.call(api.admin, "PUT", "/api/policies/" + kNobody, R"({"effect":"x"})")) == "effect");
  // 404 before 412, 412 before 409.
  const HttpHeaders stale{{"If-Match", "\"99999\""}};
  CHECK(api.call(api.admin, "PUT", "/api/targets/" + kNobody, "{}", stale).status == 404);
  api.make_target("other");
  CHECK(api.call(api.admin, "PUT", path, R"({"name":"other"})", stale).status == 412);
  CHECK(api.call(api.admin, "PUT", path, R"({"name":"other"})").status == 409);
}

TEST_CASE("paths: split first, decoded afterwards") {
  Api api;
  for (const char* path :
       {"", "?x=1", "api/users", "/api", "/api/", "/api/users/", "//api/users", "/api//users", "/api%2Fusers",
        "/API/users", "/api/users/%20/", "/api/targets//env", "/api/%zz"}) {
    CAPTURE(path);
    CHECK(Api::code(api.call(api.admin, "GET", path)) == "not_found");
  }
  CHECK(api.call(api.admin, "GET", "/api/%75sers").status == 200);
  CHECK(api.call(api.admin, "GET", "/api/users?token=x&whatever").status == 200);
  // R16: a token in the query is none.
  CHECK(api.call("", "GET", "/api/auth/me?token=" + api.admin).status == 401);
  CHECK(AdminApi::route_template("/api/targets/7/env/group/a%2Fb/K") ==
        "/api/targets/{id}/env/group/{scopeValue}/{key}");
  CHECK(AdminApi::route_template("/api/targets/7/env/default") == "/api/targets/{id}/env/default");
  CHECK(AdminApi::route_template("/api/nothing").empty());
}

TEST_CASE("every path names its methods, answers OPTIONS, and HEAD where it answers GET") {
  Api api;
  std::map<std::string, std::vector<std::string>> methods;
  for (const auto& route : AdminApi::routes()) methods[route.path].push_back(route.method);
  for (const auto& [path, offered] : methods) {
    CAPTURE(path);
    const auto options = api.call("", "OPTIONS", fill(path));
    CHECK(options.status == 204);
    CHECK(options.body.empty());
    const std::string allow = *options.header("Allow");
    for (const char* method : {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "get"}) {
      CAPTURE(method);
      const std::string row = std::string(method) == "HEAD" ? "GET" : method;
      const bool known = std::find(offered.begin(), offered.end(), row) != offered.end();
      CHECK(((" " + allow + ",").find(std::string(" ") + method + ",") != std::string::npos) == known);
      const auto answer = api.call("", method, fill(path), "{}");
      CHECK((answer.status == 405) == !known);
      if (!known) {
        CHECK(*answer.header("Allow") == allow);
        CHECK(Api::code(answer) == "method_not_allowed");
      }
    }
  }
}

TEST_CASE("R76: every answer says what it is and is not stored; every error is JSON with a code") {
  Api api;
  for (const auto& route : AdminApi::routes()) {
    for (const std::string& who : {std::string(), api.user, api.admin}) {
      CAPTURE(route.method);
      CAPTURE(route.path);
      const auto answer = api.call(who, route.method, fill(route.path), "{}");
      CHECK(*answer.header("X-Request-Id") == "req-1");
      CHECK(*answer.header("Cache-Control") == "no-store");
      CHECK(*answer.header("X-Content-Type-Options") == "nosniff");
      if (answer.status == 204) {
        CHECK(answer.body.empty());
        continue;
      }
      CHECK(*answer.header("Content-Type") == "application/json");
      const Json body = Api::json(answer);
      if (answer.status < 400) continue;
      CHECK(answer.status < 500);
      CHECK(body["request_id"] == "req-1");
      CHECK_FALSE(std::string(body["error"]).empty());
      CHECK(std::string(body["code"]).find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos);
      CHECK((answer.status == 401) ==
            (answer.header("WWW-Authenticate") != nullptr &&
             answer.header("WWW-Authenticate")->find("scope") == std::string::npos));
    }
    // One of the routes was logout, another made and revoked tokens.
    api.admin = api.token(api.admin_id, {"mcp", "api"});
    api.user = api.token(api.user_id, {"mcp", "api"});
  }
}

TEST_CASE("bodies: what is no JSON object in UTF-8 is told, and changes nothing") {
  Api api;
  const auto post = [&](const std::string& body, HttpHeaders headers = {}) {
    return api.call(api.admin, "POST", "/api/targets", body, std::move(headers));
  };
  std::string deep = R"({"name":)";
  for (int i = 0; i < 40; ++i) deep += '[';
  for (int i = 0; i < 40; ++i) deep += ']';
  for (const std::string& bad :
       {std::string("{"), std::string("{} {}"), std::string("{}x"), std::string(R"({"name":"a","name":"b"})"),
        std::string(R"({"name":"a","n\u0061me":"b"})"), std::string("{\"name\":\"\xff\"}"),
        std::string("nul"), std::string("{'a':1}"), std::string("{\"a\":1,}"), deep + "}",
        std::string("\xef\xbb\xbf{}"), std::string(100000, '[')}) {
    CAPTURE(bad.substr(0, 60));
    const auto answer = post(bad);
    CHECK(answer.status == 400);
    CHECK(Api::code(answer) == "invalid_json");
  }
  for (const char* bad : {"[]", "null", "7", "\"x\"", "true"})
    CHECK(Api::code(post(bad)) == "invalid_request");
  for (const char* type : {"text/plain", "application/jsonx", "*/*", "+json", "application", "",
                           "application/x-www-form-urlencoded", "/+json"})
    CHECK_MESSAGE(post("{}", {{"Content-Type", type}}).status == 415, type);
  int n = 0;
  for (const char* type : {"application/json", "Application/JSON; charset=utf-8", "application/problem+json"})
    CHECK(post(R"({"url":"https://x.example","name":"t)" + std::to_string(n++) + "\"}",
               {{"Content-Type", type}})
              .status == 201);
  // A body that fills the limit exactly is read.
  std::string full = R"({"name":"full","url":"https://x.example","unknown":")";
  full += std::string(1024 * 1024 - full.size() - 2, 'x') + "\"}";
  CHECK(post(full).status == 201);
  CHECK(post(full + " ").status == 413);
  CHECK(Api::json(api.call(api.admin, "GET", "/api/targets")).size() == 4);
}

TEST_CASE("members: a wrong type, range, word or character is told by name, on every route that has them") {
  Api api;
  const std::string target = "/api/targets/" + api.make_target("crm");
  const std::string policy =
      "/api/policies/" + std::string(Api::json(api.call(api.admin, "POST", "/api/policies",
                                                        R"({"name":"p","effect":"allow"})"))["id"]);
  struct Case {
    const char* method;
    std::string path;
    const char* field;
    std::vector<const char*> bad;
  };
  const std::vector<const char*> no_text{"7", "true", "[]", "{}", R"("a\u0007b")", R"("a\u0000b")"};
  const std::vector<const char*> no_flag{"0", "\"true\"", "[]", "{}"};
  const std::vector<Case> cases{
      {"PUT", target, "name", no_text},
      {"PUT", target, "slug", no_text},
      {"PUT", target, "url", {"7", "\"ftp://x\"", "\"https://\"", "\"https://u:p@x.example\"", "\"\""}},
      {"PUT", target, "command", no_text},
      {"PUT", target, "args", {"\"x\"", "[7]", "[null]", "{}", R"(["a\u0000"])"}},
      {"PUT", target, "image", {"7", "\"UPPER\"", "\"a b\""}},
      {"PUT", target, "port", {"-1", "65536", "\"80\"", "1.5", "1e3", "18446744073709551615", "1e400"}},
      {"PUT", target, "health_path", {"7", "\"x\""}},
      {"PUT", target, "statefulness", {"7", "\"x\"", "\"\"", "\"Stateful\""}},
      {"PUT", target, "isolation_boundary", {"\"per_planet\"", "[]"}},
      {"PUT", target, "auth_type", {"\"basic\"", "7"}},
      {"PUT", target, "auth_header_name", {"\"Host\"", "\"a b\"", "7"}},
      {"PUT", target, "enabled", no_flag},
      {"PUT", target, "prefix", {"\"never\""}},
      {"PUT", target, "timeout_ms", {"999", "3600001", "\"1\""}},
      {"PUT", target, "max_concurrency", {"0", "10001", "-1", "\"1\""}},
      {"PUT", target, "protocol_era", {"\"future\""}},
      {"PUT", target, "allow_private_network", no_flag},
      {"PUT",
       target,
       "forward_headers",
       {"\"X\"", "[\"Cookie\"]", "[\"Authorization\"]", "[\"a b\"]", "[7]"}},
      {"PUT", target, "user_env_keys", {"[\"1\"]", "[7]", "\"*\""}},
      {"PUT",
       target,
       "tls",
       {"7", "[]", R"({"verify":"no"})", R"({"ca":7})", R"({"ca":"x"})", R"({"client_key":"x"})"}},
      {"PUT", target, "keep_credentials", no_flag},
      {"PUT", policy, "name", {"\"\"", "7"}},
      {"PUT", policy, "description", {"7", R"("a\u0007")"}},
      {"PUT", policy, "resource_type", {"\"tools\"", "7"}},
      {"PUT", policy, "effect", {"\"maybe\"", "7"}},
      {"PUT", policy, "priority", {"1000001", "-1000001", "1.0", "18446744073709551615"}},
      {"PUT", policy, "enabled", no_flag},
      {"PUT",
       policy,
       "subjects",
       {"{}", "[7]", "[{}]", R"([{"subject_type":"planet"}])", R"([{"subject_type":"role"}])",
        R"([{"subject_type":"role","subject_value":7}])"}},
      {"PUT", policy, "arguments", {"{}", "null", "7"}},
      {"POST", policy + "/subjects", "subject_type", {"null", "7", "\"planet\""}},
      {"POST", "/api/auth/tokens", "name", no_text},
      {"POST", "/api/auth/tokens", "scopes", {"[]", "[\"all\"]", "\"mcp\"", "[7]"}},
      {"POST", "/api/auth/tokens", "expires_at", {"7", "\"tomorrow\"", "\"2020-01-01T00:00:00Z\"", "\"\""}},
      {"PUT", "/api/users/" + api.user_id, "role", {"\"a b\"", "\"\"", "7", "\"-x\""}},
      {"PUT",
       "/api/users/" + api.user_id,
       "groups",
       {"\"a\"", "[7]", "[\"\"]", "[\"a,b\"]", R"(["a\u0001"])"}},
      {"PUT", "/api/users/" + api.user_id, "enabled", no_flag},
      {"PUT", "/api/users/" + api.user_id, "password", {"7", R"("correct\u0007horse")"}},
      {"PUT", "/api/users/" + api.user_id, "revoke_api_tokens", no_flag},
      {"PUT", target + "/token", "token", {"7", "\"\"", R"("a\r\nb")", R"("a\u0000")"}},
  };
  for (const Case& one : cases)
    for (const char* bad : one.bad) {
      CAPTURE(one.path);
      CAPTURE(one.field);
      CAPTURE(bad);
      const auto before = api.call(api.admin, "GET", target).body + api.call(api.admin, "GET", policy).body +
                          api.call(api.admin, "GET", "/api/users").body;
      const auto answer =
          api.call(api.admin, one.method, one.path, std::string("{\"") + one.field + "\":" + bad + "}");
      CHECK_MESSAGE(answer.status == 400, answer.body);
      CHECK(Api::field(answer) == one.field);
      CHECK(before == api.call(api.admin, "GET", target).body + api.call(api.admin, "GET", policy).body +
                          api.call(api.admin, "GET", "/api/users").body);
    }
}

TEST_CASE("which requests hash a password is known before they are handled") {
  CHECK(AdminApi::work("POST", "/api/auth/login") == AdminApi::Work::hashes_password);
  CHECK(AdminApi::work("POST", "/api/auth/%6cogin") == AdminApi::Work::hashes_password);
  CHECK(AdminApi::work("POST", "/api/auth/register") == AdminApi::Work::hashes_password);
  CHECK(AdminApi::work("POST", "/api/auth/password") == AdminApi::Work::hashes_password);
  CHECK(AdminApi::work("POST", "/api/users") == AdminApi::Work::hashes_password);
  CHECK(AdminApi::work("PUT", "/api/users/7") == AdminApi::Work::hashes_password);
  CHECK(AdminApi::work("GET", "/api/users/7") == AdminApi::Work::ordinary);
  CHECK(AdminApi::work("POST", "/api/targets") == AdminApi::Work::ordinary);
  CHECK(AdminApi::work("POST", "") == AdminApi::Work::ordinary);
  CHECK(AdminApi::work("POST", "/api/targets/7/test") == AdminApi::Work::waits_for_upstream);
}

TEST_CASE("our own faults: a 500 that tells nothing, a cause for the log, a row for the audit") {
  Api api;
  const std::string path = "/api/targets/" + api.make_stdio("tools");
  api.live.broken = true;
  const auto answer = api.call(api.admin, "POST", path + "/test");
  CHECK(answer.status == 500);
  CHECK(Api::code(answer) == "internal");
  CHECK(answer.body.find("canary") == std::string::npos);
  REQUIRE(api.causes.size() == 1);
  CHECK(api.causes[0].starts_with("req-1 "));
  CHECK(api.row().response_status == 500);
  CHECK(api.row().error_code == "internal");
  // What an upstream or a cluster says is not for clients.
  const auto restart = api.call(api.admin, "POST", path + "/restart-instances");
  CHECK(restart.status == 502);
  CHECK(Api::code(restart) == "upstream_error");
  CHECK(restart.body.find("10.1.2.3") == std::string::npos);
}

TEST_CASE("R94: with the storage away every write answers 503 and changes nothing") {
  Api api;
  api.open_to_all();
  const std::string id = api.make_stdio("tools", R"(,"user_env_keys":["*"])");
  const std::string policy = Api::json(api.call(api.admin, "GET", "/api/policies"))[0]["id"];
  const auto state = [&] {
    return api.call(api.admin, "GET", "/api/targets").body +
           api.call(api.admin, "GET", "/api/policies").body + api.call(api.admin, "GET", "/api/users").body +
           api.call(api.admin, "GET", "/api/targets/" + id + "/env").body +
           api.call(api.admin, "GET", "/api/targets/" + id + "/tokens").body;
  };
  const std::string before = state();
  int writes = 0;
  for (const auto& route : AdminApi::routes()) {
    // Tickets are stored by the live state, whose place a fake without storage takes here.
    if (!is_write(route.method) || route.path == "/api/observability/ticket") continue;
    CAPTURE(route.method);
    CAPTURE(route.path);
    const bool of_policy = route.path.starts_with("/api/policies");
    const bool of_user = route.path.starts_with("/api/users");
    const std::string path = fill(route.path, {{"id", of_policy ? policy
                                                      : of_user ? api.user_id
                                                                : id},
                                               {"scopeValue", api.user_id}});
    api.storage->set_down(true);
    const auto answer = api.call(api.admin, route.method, path, kAnyBody);
    api.storage->set_down(false);
    if (answer.status == 503) {
      ++writes;
      CHECK(Api::code(answer) == "storage_unavailable");
      CHECK(answer.header("Retry-After"));
    } else {
      // Refused before the storage is asked, or nothing to store.
      CHECK(answer.status != 201);
      CHECK(answer.status != 204);
      CHECK_MESSAGE(answer.status < 500, answer.body);
    }
    CHECK(state() == before);
  }
  CHECK(writes > 20);
}
