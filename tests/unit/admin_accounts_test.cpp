// Registration, login, own tokens and passwords, users.
#include "admin_support.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

namespace {

std::string credentials(const std::string& email, const std::string& password, const std::string& more = "") {
  return R"({"email":")" + email + R"(","password":")" + password + "\"" + more + "}";
}

}  // namespace

TEST_CASE("R44: of simultaneous first registrations one becomes admin") {
  Settings settings;
  settings.users = false;
  Api api(std::move(settings));
  std::atomic<int> admins{0}, users{0};
  in_parallel(6, [&](int i) {
    const auto answer = api.call("", "POST", "/api/auth/register",
                                 credentials("u" + std::to_string(i) + "@example.test", "correct horse"));
    if (answer.status != 201) return;
    const auto body = detail::parse_json(answer.body);
    (body && (*body)["user"]["role"] == "admin" ? admins : users).fetch_add(1);
  });
  CHECK(admins == 1);
  CHECK(users == 5);
}

TEST_CASE("registration: closed, by setup token, duplicates, weak passwords, and what is kept of it") {
  Settings settings;
  settings.users = false;
  settings.auth.registration_open = false;
  settings.auth.setup_token = "canary-setup";
  Api api(std::move(settings));
  const auto in = [&](const std::string& more, HttpHeaders headers = {}) {
    return api.call("", "POST", "/api/auth/register", credentials("a@example.test", "canary-password", more),
                    std::move(headers));
  };
  CHECK(Api::code(in("")) == "registration_closed");
  CHECK(Api::code(in(R"(,"setup_token":"wrong")")) == "registration_closed");
  const auto made = in("", {{"X-Setup-Token", "canary-setup"}});
  REQUIRE(made.status == 201);
  CHECK(Api::json(made)["user"]["role"] == "admin");
  CHECK(Api::json(made).size() == 2);
  CHECK(api.row().method == "POST /api/auth/register");
  CHECK(api.row().kind == "auth");
  CHECK(api.row().user_email == "a@example.test");
  CHECK(api.row().client_ip == "10.0.0.1");
  CHECK(Api::code(in(R"(,"setup_token":"canary-setup")")) == "registration_closed");
  const std::string token = Api::json(made)["token"];
  const Json tokens = Api::json(api.call(token, "GET", "/api/auth/tokens"));
  REQUIRE(tokens.size() == 1);
  CHECK(tokens[0]["name"] == "Default");
  CHECK(tokens[0]["kind"] == "login");
  CHECK(tokens[0]["scopes"] == Json({"mcp", "api"}));
  for (const AuditRecord& row : api.live.rows) CHECK(row.request_body.find("canary") == std::string::npos);
}

TEST_CASE("R78: emails in lower case, passwords of any permitted length") {
  Api api;
  const auto add = [&](const std::string& email, const std::string& password) {
    return api.call("", "POST", "/api/auth/register", credentials(email, password));
  };
  const std::string longest(1024, 'p');
  CHECK(add(" Ann@Example.TEST ", longest).status == 201);
  CHECK(add("ann@example.test", longest).status == 409);
  CHECK(Api::code(add("b@example.test", longest + "p")) == "weak_password");
  CHECK(Api::code(add("b@example.test", "1234567")) == "weak_password");
  CHECK(Api::field(add("no address", "correct horse")) == "email");
  CHECK(add("c@localhost", "12345678").status == 201);
  const auto log_in = [&](const std::string& email, const std::string& password) {
    return api.call("", "POST", "/api/auth/login", credentials(email, password)).status;
  };
  CHECK(log_in("ANN@example.test", longest) == 200);
  CHECK(log_in("ann@example.test", longest.substr(1)) == 401);  // not truncated
}

TEST_CASE("R44: a failed login tells nothing, is recorded, and is limited without locking tokens out") {
  Settings settings;
  settings.auth.login_failures_per_pair = 3;
  Api api(std::move(settings));
  const std::string id = api.add_user("ann@example.test", "user", "correct horse");
  const std::string disabled = api.add_user("off@example.test", "user", "correct horse");
  CHECK(api.call(api.admin, "PUT", "/api/users/" + disabled, R"({"enabled":false})").status == 200);
  std::vector<std::string> answers;
  for (const auto& [email, password] :
       std::vector<std::pair<std::string, std::string>>{{"ann@example.test", "canary-wrong"},
                                                        {"nobody@example.test", "canary-wrong"},
                                                        {"off@example.test", "correct horse"}}) {
    const auto answer = api.call("", "POST", "/api/auth/login", credentials(email, password));
    CHECK(answer.status == 401);
    CHECK(Api::code(answer) == "invalid_credentials");
    CHECK(*answer.header("WWW-Authenticate") == R"(Bearer realm="mcpgw")");
    answers.push_back(answer.body);
    CHECK(api.row().method == "POST /api/auth/login");
    CHECK(api.row().response_status == 401);
    CHECK(api.row().error_code == "invalid_credentials");
    CHECK(api.row().user_email == email);
    CHECK(api.row().request_body.find("canary") == std::string::npos);
  }
  CHECK(answers[0] == answers[1]);
  CHECK(answers[0] == answers[2]);
  // People type a password where the address belongs: what is no address is not kept as one.
  CHECK(api.call("", "POST", "/api/auth/login", credentials("canary pass", "x")).status == 401);
  CHECK(api.row().user_email.empty());
  const auto once = [&] {
    return api.call("", "POST", "/api/auth/login", credentials("ann@example.test", "canary-wrong"));
  };
  CHECK(once().status == 401);
  CHECK(once().status == 401);
  const std::size_t rows = api.live.rows.size();
  const auto limited = once();
  CHECK(limited.status == 429);
  CHECK(Api::code(limited) == "rate_limited");
  CHECK(limited.header("Retry-After"));
  CHECK(api.live.rows.size() == rows);  // counted, not stored
  CHECK(api.call(api.token(id, {"api"}), "GET", "/api/auth/me").status == 200);
  api.clock->advance(std::chrono::minutes(16));
  CHECK(api.call("", "POST", "/api/auth/login", credentials("ann@example.test", "correct horse")).status ==
        200);
}

TEST_CASE("own password: other logins end, this one and API tokens stay unless asked") {
  Api api;
  const std::string id = api.add_user("ann@example.test", "user", "correct horse");
  const auto log_in = [&] {
    return std::string(Api::json(
        api.call("", "POST", "/api/auth/login", credentials("ann@example.test", "correct horse")))["token"]);
  };
  const std::string here = log_in(), elsewhere = log_in(), program = api.token(id, {"api"});
  const auto change = [&](const std::string& from, const std::string& to, const std::string& more = "") {
    return api.call(here, "POST", "/api/auth/password",
                    R"({"old_password":")" + from + R"(","new_password":")" + to + "\"" + more + "}");
  };
  const auto wrong = change("canary-wrong", "battery staple");
  CHECK(wrong.status == 403);
  CHECK(Api::code(wrong) == "invalid_credentials");
  CHECK(api.row().request_body.find("canary") == std::string::npos);
  CHECK(Api::code(change("correct horse", "short")) == "weak_password");
  CHECK(change("correct horse", "battery staple").status == 204);
  CHECK(api.call(here, "GET", "/api/auth/me").status == 200);
  CHECK(Api::code(api.call(elsewhere, "GET", "/api/auth/me")) == "token_revoked");
  CHECK(api.call(program, "GET", "/api/auth/me").status == 200);
  CHECK(change("battery staple", "correct horse", R"(,"revoke_api_tokens":true)").status == 204);
  CHECK(api.call(program, "GET", "/api/auth/me").status == 401);
}

TEST_CASE("API tokens: expiry, scopes, the limit, and that the token is shown once") {
  Settings settings;
  settings.repository.max_tokens_per_user = 4;
  Api api(std::move(settings));
  const auto make = [&](const std::string& body) {
    return api.call(api.user, "POST", "/api/auth/tokens", body);
  };
  const auto timed = make(R"({"name":"timed","expires_at":"2026-01-01T02:00:00+01:00"})");
  REQUIRE(timed.status == 201);
  CHECK(Api::json(timed)["api_token"]["expires_at"] == "2026-01-01T01:00:00.000000Z");
  CHECK(Api::json(timed)["api_token"]["last_used_at"].is_null());
  CHECK(Api::json(timed)["api_token"]["revoked_at"].is_null());
  CHECK(Api::json(timed)["api_token"]["created_at"] == "2026-01-01T00:00:00.000000Z");
  const std::string token = Api::json(timed)["token"];
  CHECK(api.call(token, "GET", "/api/auth/me").status == 200);
  CHECK_FALSE(Api::json(api.call(api.user, "GET", "/api/auth/tokens"))[0]["last_used_at"].is_null());
  api.clock->advance(std::chrono::hours(2));
  CHECK(Api::code(api.call(token, "GET", "/api/auth/me")) == "token_expired");
  // Neither revoked nor expired ones are listed; the body may be left out.
  CHECK(Api::json(api.call(api.user, "GET", "/api/auth/tokens")).size() == 1);
  CHECK(make("").status == 201);
  CHECK(make("{}").status == 201);
  CHECK(make(R"({"name":null,"scopes":null,"expires_at":null})").status == 201);
  const auto over = make("{}");
  CHECK(over.status == 409);
  CHECK(Api::code(over) == "token_limit");
  for (const char* name : {"Login", "Default"})
    CHECK(Api::code(make(std::string(R"({"name":")") + name + "\"}")) == "reserved_name");
  CHECK(Api::field(make(R"({"name":")" + std::string(101, 'n') + "\"}")) == "name");
  CHECK(Api::json(api.call(api.admin, "GET", "/api/users/" + api.user_id + "/tokens")).size() == 5);
  for (const AuditRecord& row : api.live.rows) CHECK(row.request_body.find(token) == std::string::npos);
}

TEST_CASE("R45: admins create, change, disable and delete users, set passwords, revoke any token") {
  Api api;
  const auto made = api.call(api.admin, "POST", "/api/users",
                             R"({"email":"C@example.test","password":"correct horse","role":"viewer",)"
                             R"("groups":[" ops ","dev","ops"]})");
  REQUIRE(made.status == 201);
  const Json user = Api::json(made);
  const std::string id = user["id"], path = "/api/users/" + id;
  CHECK(user.size() == 8);
  CHECK(user["email"] == "c@example.test");
  CHECK(user["groups"] == Json({"ops", "dev"}));  // R86
  CHECK(user["last_login_at"].is_null());
  CHECK(api.row().request_body.find("correct horse") == std::string::npos);
  CHECK(api.row().kind == "admin");
  CHECK(api.row().user_email == "root@example.test");
  CHECK(Api::code(api.call(api.admin, "POST", "/api/users",
                           credentials("c@example.test", "correct horse"))) == "email_taken");
  CHECK(Api::code(api.call(api.admin, "POST", "/api/users", credentials("d@example.test", "short"))) ==
        "weak_password");

  const auto in = api.call("", "POST", "/api/auth/login", credentials("c@example.test", "correct horse"));
  const std::string login = Api::json(in)["token"], program = api.token(id, {"api"});
  CHECK(Api::json(api.call(api.admin, "PUT", path, R"({"password":"battery staple"})"))["id"] == id);
  CHECK(api.call(login, "GET", "/api/auth/me").status == 401);
  CHECK(api.call(program, "GET", "/api/auth/me").status == 200);
  CHECK(api.call(api.admin, "PUT", path, R"({"password":"correct horse","revoke_api_tokens":true})").status ==
        200);
  CHECK(api.call(program, "GET", "/api/auth/me").status == 401);

  api.clock->advance(std::chrono::seconds(1));  // so that the next token is the newest
  // R7: role, groups and validity act on the next request.
  const std::string next = api.token(id, {"api"});
  CHECK(api.call(next, "GET", "/api/users").status == 403);
  CHECK(api.call(api.admin, "PUT", path, R"({"role":"admin"})").status == 200);
  CHECK(api.call(next, "GET", "/api/users").status == 200);
  CHECK(api.call(api.admin, "PUT", path, R"({"role":"user"})").status == 200);
  CHECK(api.call(next, "GET", "/api/users").status == 403);
  api.live.recycled.clear();
  CHECK(Api::json(api.call(api.admin, "PUT", path, R"({"enabled":false})"))["enabled"] == false);
  CHECK(api.live.recycled == std::vector<std::string>{id});
  CHECK(api.call(next, "GET", "/api/auth/me").status == 401);
  CHECK(api.call(api.admin, "PUT", path, R"({"enabled":true})").status == 200);

  const std::string token_id = Api::json(api.call(api.admin, "GET", path + "/tokens"))[0]["id"];
  CHECK(api.call(api.admin, "DELETE", path + "/tokens/" + token_id).status == 204);
  CHECK(api.call(api.admin, "DELETE", path + "/tokens/" + token_id).status == 204);
  CHECK(api.call(next, "GET", "/api/auth/me").status == 401);
  // A token belongs to its user's path only.
  CHECK(Api::code(api.call(api.admin, "DELETE", "/api/users/" + api.user_id + "/tokens/" + token_id)) ==
        "token_not_found");
  CHECK(Api::code(api.call(api.admin, "DELETE", path + "/tokens/7")) == "invalid_id");

  CHECK(Api::json(api.call(api.admin, "POST", path + "/recycle")) ==
        Json({{"recycled", 3}, {"user_id", id}}));
  CHECK(Api::json(api.call(api.user, "POST", "/api/sessions/recycle", "{}"))["user_id"] == api.user_id);
  CHECK(api.call(api.admin, "DELETE", path, "", {{"If-Match", "\"1\""}}).status == 412);
  CHECK(api.call(api.admin, "DELETE", path, "", {{"If-Match", "*"}}).status == 204);
  CHECK(Api::code(api.call(api.admin, "DELETE", path)) == "user_not_found");
}

TEST_CASE("a deleted user takes tokens, own secrets and subjects along") {
  Api api;
  const std::string target = "/api/targets/" + api.make_target("crm", R"(,"auth_type":"bearer")");
  api.open_to_all();
  CHECK(api.call(api.user, "PUT", target + "/token", R"({"token":"t"})").status == 200);
  CHECK(
      api.call(api.user, "POST", target + "/env/user/" + api.user_id, R"({"key":"K","value":"v"})").status ==
      200);
  const std::string policy = Api::json(
      api.call(api.admin, "POST", "/api/policies",
               R"({"name":"p","effect":"allow","subjects":[{"subject_type":"user","subject_value":")" +
                   api.user_id + R"("},{"subject_type":"role","subject_value":"dev"}]})"))["id"];
  CHECK(api.call(api.admin, "DELETE", "/api/users/" + api.user_id).status == 204);
  CHECK(api.call(api.user, "GET", "/api/auth/me").status == 401);
  CHECK(Api::json(api.call(api.admin, "GET", target + "/tokens"))["user_tokens"].empty());
  CHECK(Api::json(api.call(api.admin, "GET", target + "/env")).empty());
  CHECK(Api::json(api.call(api.admin, "GET", "/api/policies/" + policy))["subjects"].size() == 1);
  CHECK(api.live.recycled.back() == api.user_id);
}

TEST_CASE("R45: two admins who demote each other at once leave one") {
  Api api;
  for (int round = 0; round < 8; ++round) {
    const std::string other = api.add_user("o" + std::to_string(round) + "@example.test", "admin");
    const std::string ids[] = {api.admin_id, other};
    const std::string tokens[] = {api.admin, api.token(other, {"api"})};
    std::atomic<int> refused{0};
    in_parallel(2, [&](int i) {
      const auto answer = api.call(tokens[i], "PUT", "/api/users/" + ids[1 - i], R"({"role":"user"})");
      if (answer.status != 200) ++refused;
    });
    CHECK(refused == 1);
    int admins = 0;
    for (const auto& user : api.repository->users()) admins += user->enabled && user->role == "admin" ? 1 : 0;
    REQUIRE(admins == 1);
    UserPatch patch;
    patch.role = "admin";
    REQUIRE(api.repository->update_user(api.admin_id, patch));
    if (api.repository->user(other)->role == "admin") {
      patch.role = "user";
      REQUIRE(api.repository->update_user(other, patch));
    }
  }
}

TEST_CASE("R62: of eight simultaneous creations of one email one succeeds") {
  Api api;
  std::atomic<int> made{0}, taken{0};
  in_parallel(8, [&](int) {
    const auto answer =
        api.call(api.admin, "POST", "/api/users", credentials("same@example.test", "correct horse"));
    if (answer.status == 201) ++made;
    if (answer.status == 409) ++taken;
  });
  CHECK(made == 1);
  CHECK(taken == 7);
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
