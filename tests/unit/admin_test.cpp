#include "admin_support.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

TEST_CASE("who may call what: every route, every kind of caller") {
  Api api;
  REQUIRE(AdminApi::routes().size() > 50);
  for (const auto& route : AdminApi::routes()) {
    CAPTURE(route.method);
    CAPTURE(route.path);
    const std::string path = fill(route.path);
    const HttpResponse anonymous = api.call("", route.method, path);
    const HttpResponse narrow = api.call(api.mcp_only, route.method, path);
    // A token of its own: one of the routes is logout.
    const HttpResponse plain = api.call(api.token(api.user_id, {"mcp", "api"}), route.method, path);
    if (route.who == "public") {
      CHECK(anonymous.status != 403);
      continue;
    }
    CHECK(anonymous.status == 401);
    CHECK(anonymous.header("WWW-Authenticate"));
    CHECK(narrow.status == 403);
    CHECK(api.code(narrow) == "insufficient_scope");
    if (route.who == "admin") {
      CHECK(plain.status == 403);
      CHECK(api.code(plain) == "admin_required");
    } else {
      CHECK(plain.status != 401);
      if (plain.status == 403) CHECK(api.code(plain) == "forbidden");
    }
    for (const HttpResponse* response : {&anonymous, &narrow, &plain}) {
      CHECK(*response->header("X-Request-Id") == "req-1");
      CHECK(*response->header("Cache-Control") == "no-store");
    }
  }
}

TEST_CASE("paths, methods, bodies") {
  Api api;
  CHECK(api.call(api.admin, "GET", "/api/nothing").status == 404);
  CHECK(api.call(api.admin, "GET", "/api/users/").status == 404);
  CHECK(api.call(api.admin, "GET", "/api/users/%zz").status == 400);
  CHECK(api.code(api.call(api.admin, "GET", "/api/users/7")) == "invalid_id");
  const HttpResponse wrong = api.call(api.admin, "PATCH", "/api/users");
  CHECK(wrong.status == 405);
  CHECK(*wrong.header("Allow") == "GET, HEAD, POST, OPTIONS");
  CHECK(api.call(api.admin, "OPTIONS", "/api/users").status == 204);
  CHECK(api.call(api.admin, "HEAD", "/api/users").status == 200);
  const auto post = [&](const std::string& body, HttpHeaders headers = {}) {
    return api.call(api.admin, "POST", "/api/targets", body, headers);
  };
  CHECK(api.code(post("")) == "invalid_json");
  CHECK(api.code(post("{")) == "invalid_json");
  CHECK(api.code(post(R"({"name":"a","name":"b"})")) == "invalid_json");
  CHECK(api.code(post("[]")) == "invalid_request");
  CHECK(api.json(post("{}"))["field"] == "name");
  CHECK(api.json(post(R"({"name":7})"))["field"] == "name");
  CHECK(api.json(post(R"({"name":"a","args":"x"})"))["field"] == "args");
  CHECK(api.json(post(R"({"name":"a","port":99999,"url":"https://x.example"})"))["field"] == "port");
  CHECK(api.json(post(R"({"name":"a","port":18446744073709551615,"url":"https://x.example"})"))["field"] ==
        "port");
  CHECK(api.json(post(R"({"name":"a","transport_type":"ftp"})"))["field"] == "transport_type");
  CHECK(post("{}", {{"Content-Type", "text/plain"}}).status == 415);
  CHECK(post(std::string(2 * 1024 * 1024, ' ')).status == 413);
  CHECK(post(R"({"name":"a","url":"https://x.example","unknown":1})").status == 201);
  CHECK(api.json(post("{}"))["request_id"] == "req-1");
}

TEST_CASE("registration and login over the API; tokens of an account") {
  Api api;
  const HttpResponse made = api.call("", "POST", "/api/auth/register",
                                     R"({"email":"New@Example.test","password":"correct horse"})");
  CHECK(made.status == 201);
  CHECK(api.json(made)["user"]["role"] == "user");
  CHECK(
      api.call("", "POST", "/api/auth/register", R"({"email":"new@example.test","password":"correct horse"})")
          .status == 409);
  CHECK(api.code(api.call("", "POST", "/api/auth/register",
                          R"({"email":"x@example.test","password":"short"})")) == "weak_password");
  const HttpResponse wrong =
      api.call("", "POST", "/api/auth/login", R"({"email":"new@example.test","password":"wrong horse"})");
  CHECK(wrong.status == 401);
  CHECK(wrong.header("WWW-Authenticate"));
  const HttpResponse in =
      api.call("", "POST", "/api/auth/login", R"({"email":"new@example.test","password":"correct horse"})");
  CHECK(in.status == 200);
  const std::string token = api.json(in)["token"];
  const Json me = api.json(api.call(token, "GET", "/api/auth/me"));
  CHECK(me["email"] == "new@example.test");
  CHECK(me["groups"].is_array());
  CHECK_FALSE(me.contains("password_hash"));

  const HttpResponse api_token =
      api.call(token, "POST", "/api/auth/tokens", R"({"name":"ci","scopes":["mcp"]})");
  CHECK(api_token.status == 201);
  const std::string minted = api.json(api_token)["token"];
  CHECK(api.code(api.call(token, "POST", "/api/auth/tokens", R"({"name":"Login"})")) == "reserved_name");
  CHECK(api.code(api.call(token, "POST", "/api/auth/tokens", R"({"expires_at":"2001-01-01T00:00:00Z"})")) ==
        "invalid_request");
  CHECK(api.call(token, "GET", "/api/auth/tokens").body.find(minted) == std::string::npos);
  CHECK(api.json(api.call(token, "GET", "/api/auth/tokens")).size() == 3);
  // R47: a token without the scope cannot hand it out.
  const std::string api_only =
      api.json(api.call(token, "POST", "/api/auth/tokens", R"({"scopes":["api"]})"))["token"];
  CHECK(api.code(api.call(api_only, "POST", "/api/auth/tokens", R"({"scopes":["mcp"]})")) ==
        "insufficient_scope");
  const std::string id = api.json(api_token)["api_token"]["id"];
  CHECK(api.call(token, "DELETE", "/api/auth/tokens/" + id).status == 204);
  CHECK(api.call(token, "DELETE", "/api/auth/tokens/" + id).status == 204);
  CHECK(api.call(api.user, "DELETE", "/api/auth/tokens/" + id).status == 404);
  CHECK(api.call(token, "POST", "/api/auth/logout").status == 204);
  CHECK(api.code(api.call(token, "GET", "/api/auth/me")) == "token_revoked");
}

TEST_CASE("R45, R62: users, and an edit that meets another") {
  Api api;
  const HttpResponse made =
      api.call(api.admin, "POST", "/api/users",
               R"({"email":"c@example.test","password":"correct horse","groups":["a","a","b"]})");
  CHECK(made.status == 201);
  const Json user = api.json(made);
  CHECK(user["groups"] == Json({"a", "b"}));
  const std::string path = "/api/users/" + std::string(user["id"]);
  CHECK(*made.header("Location") == path);
  const std::string etag = *made.header("ETag");
  CHECK(api.call(api.admin, "PUT", path, R"({"role":"viewer"})", {{"If-Match", etag}}).status == 200);
  CHECK(api.call(api.admin, "PUT", path, R"({"role":"user"})", {{"If-Match", etag}}).status == 412);
  CHECK(api.json(api.call(api.admin, "GET", path))["role"] == "viewer");
  CHECK(api.json(api.call(api.admin, "PUT", path, R"({"groups":null})"))["groups"].size() == 2);
  CHECK(api.json(api.call(api.admin, "PUT", path, R"({"groups":[]})"))["groups"].empty());
  CHECK(api.code(api.call(api.admin, "PUT", "/api/users/" + api.admin_id, R"({"role":"user"})")) ==
        "last_admin");
  CHECK(api.call(api.admin, "DELETE", "/api/users/" + api.admin_id).status == 409);
  CHECK(api.call(api.admin, "DELETE", path).status == 204);
  CHECK(api.call(api.admin, "GET", path).status == 404);
  CHECK(api.json(api.call(api.admin, "POST", "/api/users/" + api.user_id + "/recycle"))["recycled"] == 3);
}

TEST_CASE("R15: what a plain user sees of targets, and that unseen is unknown") {
  Api api;
  const std::string id = api.make_target("crm", R"(,"auth_type":"bearer")");
  const std::string path = "/api/targets/" + id;
  CHECK(api.json(api.call(api.user, "GET", "/api/targets")).empty());
  CHECK(api.call(api.user, "GET", path).status == 404);
  CHECK(api.call(api.user, "GET", path + "/token").status == 404);
  api.open_to_all();
  const Json seen = api.json(api.call(api.user, "GET", path));
  CHECK(seen["url"] == "");
  for (const char* hidden : {"command", "args", "image", "port", "status", "allow_private_network", "tls"})
    CHECK_FALSE(seen.contains(hidden));
  const Json full = api.json(api.call(api.admin, "GET", path));
  CHECK(full["url"] == "https://x.example/mcp");
  CHECK(full["port"] == 8080);
  CHECK(full["status"]["state"] == "idle");
  CHECK(full["status"]["last_error"].is_null());
}

TEST_CASE("target tokens and environment: written, never read") {
  Api api;
  const std::string id = api.make_target("crm", R"(,"auth_type":"bearer")");
  const std::string path = "/api/targets/" + id;
  api.open_to_all();
  CHECK(api.json(api.call(api.user, "PUT", path + "/token", R"({"token":"canary-1"})"))["usable"] == true);
  CHECK(api.json(api.call(api.user, "GET", path + "/token"))["has_token"] == true);
  CHECK(api.call(api.admin, "PUT", path + "/tokens/group", R"({"group":"ops","token":"canary-2"})").status ==
        200);
  CHECK(api.call(api.admin, "PUT", path + "/tokens/group", R"({"group":"a","group_name":"b","token":"x"})")
            .status == 400);
  CHECK(api.call(api.admin, "PUT", path + "/tokens/role", R"({"role":"dev","token":"canary-3"})").status ==
        200);
  CHECK(api.call(api.admin, "PUT", path + "/tokens/default", R"({"token":"canary-4"})").status == 200);
  const Json config = api.json(api.call(api.admin, "GET", path + "/tokens"));
  CHECK(config["has_default"] == true);
  CHECK(config["has_default_token"] == true);
  CHECK(config["user_tokens"][0]["user_email"] == "bob@example.test");
  CHECK(config["group_tokens"][0]["group_name"] == "ops");
  CHECK(api.call(api.admin, "DELETE", path + "/tokens/default").status == 204);
  CHECK(api.call(api.admin, "DELETE", path + "/tokens/default").status == 204);
  CHECK(api.code(api.call(api.admin, "DELETE", path + "/tokens/role/no")) == "token_not_set");

  const HttpResponse row = api.call(api.admin, "POST", path + "/env/group/a%2Fb",
                                    R"({"key":"DB","value":"canary-5","description":"d"})");
  CHECK(row.status == 200);
  CHECK(api.json(row)["env_key"] == "DB");
  CHECK(api.json(row)["scope_value"] == "a/b");  // R83
  CHECK(api.json(api.call(api.admin, "GET", path + "/env")).size() == 1);
  CHECK(api.json(api.call(api.user, "GET", path + "/env")).empty());
  CHECK(api.code(api.call(api.user, "GET", path + "/env/group/a%2Fb")) == "forbidden");
  CHECK(api.call(api.admin, "PUT", path + "/env/default", R"({"configs":{"A":"canary-6","B":"canary-7"}})")
            .status == 200);
  CHECK(api.code(api.call(api.admin, "PUT", path + "/env/default", R"({"configs":{"C":"x","1bad":"y"}})")) ==
        "invalid_key");
  CHECK(api.json(api.call(api.admin, "GET", path + "/env/default")).size() == 2);
  CHECK(api.call(api.admin, "DELETE", path + "/env/default/A").status == 204);
  CHECK(api.code(api.call(api.admin, "DELETE", path + "/env/default/A")) == "env_not_found");
  CHECK(api.call(api.admin, "GET", path + "/env/planet/x").status == 404);

  // R46, R89: own rows only, and none that sends other people's credentials elsewhere.
  const std::string own = path + "/env/user/" + api.user_id;
  CHECK(api.call(api.user, "POST", own, R"({"key":"MINE","value":"canary-8"})").status == 200);
  for (const char* key : {"BASE_URL", "AUTH_HEADER"})
    CHECK(api.code(api.call(api.user, "POST", own,
                            std::string(R"({"key":")") + key + R"(","value":"https://evil.example"})")) ==
          "key_not_permitted");
  CHECK(api.code(api.call(api.user, "POST", path + "/env/user/" + api.admin_id,
                          R"({"key":"A","value":"b"})")) == "forbidden");
  CHECK(api.call(api.user, "POST", path + "/env/default", R"({"key":"A","value":"b"})").status == 403);

  // R91: nothing of it in any answer or audit row.
  std::string everything;
  for (const char* get : {"", "/tokens", "/token", "/env", "/env/resolve", "/env/default"})
    everything += api.call(api.admin, "GET", path + get).body;
  for (const AuditRecord& audit : api.live.rows) everything += audit.request_body + audit.tool;
  CHECK(everything.find("canary") == std::string::npos);
  CHECK(std::any_of(api.live.rows.begin(), api.live.rows.end(), [](const auto& audit) {
    return audit.method == "PUT /api/targets/{id}/env/default" && audit.response_status == 400;
  }));
}

TEST_CASE("R90: a new destination asks what becomes of the credentials") {
  Api api;
  const std::string path = "/api/targets/" + api.make_target("crm", R"(,"auth_type":"bearer")");
  CHECK(api.call(api.admin, "PUT", path + "/tokens/default", R"({"token":"t"})").status == 200);
  CHECK(api.call(api.admin, "PUT", path, R"({"url":"https://x.example/other"})").status == 200);
  const HttpResponse bound = api.call(api.admin, "PUT", path, R"({"url":"https://evil.example/mcp"})");
  CHECK(bound.status == 409);
  CHECK(api.code(bound) == "credentials_bound");
  CHECK(api.json(api.call(api.admin, "GET", path))["url"] == "https://x.example/other");
  const HttpResponse dropped =
      api.call(api.admin, "PUT", path, R"({"url":"https://new.example/mcp","keep_credentials":false})");
  CHECK(api.json(dropped)["credentials_dropped"] == 1);
  CHECK(api.json(api.call(api.admin, "GET", path + "/tokens"))["has_default"] == false);
}

TEST_CASE("policies: shapes, clearing, subjects, evaluate") {
  Api api;
  const std::string target = api.make_target("crm");
  const HttpResponse made =
      api.call(api.admin, "POST", "/api/policies",
               R"({"name":"p","effect":"allow","target_id":")" + target +
                   R"(","resource_pattern":"^read","subjects":[{"subject_type":"user","subject_value":")" +
                   api.user_id + R"("},{"subject_type":"role","subject_value":"dev"}]})");
  REQUIRE(made.status == 201);
  const std::string path = "/api/policies/" + std::string(api.json(made)["id"]);
  const auto evaluate = [&](const std::string& who, const std::string& name) {
    return api.json(
        api.call(who, "POST", "/api/policies/evaluate",
                 R"({"target_id":")" + target + R"(","resource_type":"tool","name":")" + name + "\"}"));
  };
  CHECK(evaluate(api.user, "read_it")["effect"] == "allow");
  CHECK(evaluate(api.user, "write")["reason"] == "no_matching_policy");
  const Json seen = api.json(api.call(api.user, "GET", path));
  CHECK(seen["subjects"].size() == 1);
  CHECK(api.json(api.call(api.admin, "PUT", path, R"({"resource_pattern":null,"target_id":""})"))
            .contains("target_id") == false);
  CHECK(api.json(api.call(api.admin, "GET", path)).contains("resource_pattern") == false);
  CHECK(api.code(api.call(api.admin, "PUT", path, R"({"resource_pattern":"("})")) == "invalid_pattern");
  CHECK(api.json(api.call(api.admin, "PUT", path, R"({"arguments":{}})"))["field"] == "arguments");
  CHECK(api.code(api.call(api.admin, "POST", path + "/subjects",
                          R"({"subject_type":"role","subject_value":"dev"})")) == "duplicate_subject");
  CHECK(api.code(
            api.call(api.admin, "POST", path + "/subjects",
                     R"({"subject_type":"user","subject_value":"11111111-1111-4111-8111-111111111111"})")) ==
        "unknown_user");
  const HttpResponse subject =
      api.call(api.admin, "POST", path + "/subjects", R"({"subject_type":"everyone"})");
  CHECK(subject.status == 201);
  CHECK(api.json(subject)["subject_value"].is_null());
  CHECK(api.call(api.admin, "DELETE", path + "/subjects/" + std::string(api.json(subject)["id"])).status ==
        204);
  CHECK(api.code(api.call(api.user, "POST", "/api/policies/evaluate",
                          R"({"user_id":")" + api.admin_id +
                              R"(","target_id":"x","resource_type":"all"})")) == "forbidden");
  CHECK(api.code(api.call(api.admin, "POST", "/api/policies/evaluate",
                          R"({"target_id":"x","resource_type":"all"})")) == "unknown_target");
  CHECK(api.json(api.call(api.user, "POST", "/api/policies/evaluate",
                          R"({"target_id":"x","resource_type":"all"})"))["reason"] == "no_matching_policy");
  CHECK(api.call(api.admin, "DELETE", path).status == 204);
}

TEST_CASE("lists come in pages with totals") {
  Api api;
  for (int i = 0; i < 5; ++i) api.make_target("t" + std::to_string(i));
  const HttpResponse page = api.call(api.admin, "GET", "/api/targets?limit=2&offset=2");
  CHECK(api.json(page).size() == 2);
  CHECK(api.json(page)[0]["name"] == "t2");
  CHECK(*page.header("X-Total-Count") == "5");
  CHECK(*page.header("Link") == "</api/targets?limit=2&offset=4>; rel=\"next\"");
  for (const char* bad : {"limit=0", "limit=1001", "limit=x", "offset=-1"})
    CHECK(api.call(api.admin, "GET", std::string("/api/targets?") + bad).status == 400);
  CHECK(api.code(api.call(api.admin, "GET", "/api/logs?cursor=abc")) == "invalid_cursor");
  CHECK(api.code(api.call(api.user, "GET", "/api/logs?user_id=" + api.admin_id)) == "forbidden");
  CHECK(api.call(api.admin, "GET", "/api/logs?since=yesterday").status == 400);
}

TEST_CASE("R62, R94: one name for one target under load; a failed write leaves nothing") {
  Api api;
  std::atomic<int> made{0}, refused{0};
  in_parallel(8, [&](int) {
    const int status =
        api.call(api.admin, "POST", "/api/targets", R"({"name":"same","url":"https://x.example"})").status;
    if (status == 201) ++made;
    if (status == 409) ++refused;
  });
  CHECK(made == 1);
  CHECK(refused == 7);
  api.storage->fail_commit(1, {ErrorCode::unavailable, "storage_unavailable", "The storage is away"});
  const HttpResponse failed =
      api.call(api.admin, "POST", "/api/targets", R"({"name":"half","url":"https://x.example"})");
  CHECK(failed.status == 503);
  CHECK(failed.header("Retry-After"));
  CHECK(api.json(api.call(api.admin, "GET", "/api/targets")).size() == 1);
  CHECK(api.call(api.admin, "POST", "/api/targets", R"({"name":"half","url":"https://x.example"})").status ==
        201);
}
