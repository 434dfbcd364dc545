// The web UI of Reflow Gateway: what it sends is accepted as it is, what it reads is there.
#include "admin_support.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

namespace {

/// Every request of the UI, GET too, carries this.
const HttpHeaders kJson{{"Content-Type", "application/json"}};

void has_all(const Json& object, const std::vector<const char*>& members) {
  for (const char* member : members) CHECK_MESSAGE(object.contains(member), member);
}

std::string form(const std::string& name, const std::string& transport) {
  return R"({"name":")" + name + R"(","transport_type":)" + transport +
         R"(,"port":8080,"health_path":"","statefulness":"stateless","isolation_boundary":"shared",)"
         R"("auth_type":"none","auth_header_name":""})";
}

}  // namespace

TEST_CASE(
    "Reflow checklist 1, 2, 3, 8: target forms and toggles, environment rows, what is left out when empty") {
  Api api;
  int n = 0;
  for (const char* transport :
       {R"("streamable-http","url":"https://a.example/mcp","command":"","args":[],"image":"")",
        R"("sse","url":"https://a.example/sse","command":"","args":[],"image":"")",
        R"("stdio","url":"","command":"npx","args":["-y","x"],"image":"")",
        R"("kubernetes","url":"","command":"","args":[],"image":"img:1")"}) {
    const std::string body = form("ui" + std::to_string(n++), transport);
    const auto made = api.call(api.admin, "POST", "/api/targets", body, kJson);
    REQUIRE_MESSAGE(made.status == 201, made.body);
    const Json target = Api::json(made);
    has_all(target, {"id", "name", "url", "transport_type", "port", "statefulness", "isolation_boundary",
                     "auth_type", "enabled"});
    // Omitted when empty, never null; url and port are always there.
    for (const char* member : {"command", "args", "image", "health_path", "auth_header_name"})
      if (target.contains(member)) CHECK_FALSE((target[member].is_null() || target[member].empty()));
    CHECK(target["url"].is_string());
    CHECK(target["port"] == 8080);
    const std::string path = "/api/targets/" + std::string(target["id"]);
    CHECK(api.call(api.admin, "PUT", path, body, kJson).status == 200);
    CHECK(Api::json(api.call(api.admin, "PUT", path, R"({"enabled":false})", kJson))["enabled"] == false);
    CHECK(Api::json(api.call(api.admin, "PUT", path, R"({"enabled":true})", kJson))["enabled"] == true);

    for (const std::string& scope :
         {std::string("default"), std::string("role/admin"), std::string("group/ops"), "user/" + api.user_id})
      CHECK(api.call(api.admin, "POST", path + "/env/" + scope, R"({"key":"K","value":"v"})", kJson).status ==
            200);
    CHECK(api.call(api.admin, "POST", path + "/env/default", R"({"key":"D","value":"v","description":""})",
                   kJson)
              .status == 200);
    const Json rows = Api::json(api.call(api.admin, "GET", path + "/env", "", kJson));
    REQUIRE(rows.is_array());
    CHECK(rows.size() == 5);
    for (const Json& row : rows) {
      has_all(row, {"id", "scope_type", "scope_value", "env_key"});
      CHECK_FALSE(row.contains("value"));
      CHECK(row["scope_value"].is_null() == (row["scope_type"] == "default"));
      if (row.contains("description")) CHECK(row["description"].is_string());
    }
    CHECK(Api::json(api.call(api.admin, "PUT", path + "/env/default", R"({"configs":{"X":"1"}})", kJson))
              .size() == 3);
    CHECK(Api::json(api.call(api.admin, "PUT", path + "/env/default", R"({"configs":{}})", kJson)).size() ==
          3);
    for (const std::string& one : {path + "/env/default/K", path + "/env/user/" + api.user_id + "/K", path}) {
      const auto gone = api.call(api.admin, "DELETE", one, "", kJson);
      CHECK(gone.status == 204);
      CHECK(gone.body.empty());
    }
  }
  const auto restart =
      api.call(api.admin, "POST", "/api/targets/" + api.make_stdio("s") + "/restart-instances", "", kJson);
  CHECK(restart.status == 200);
  CHECK(Api::json(restart)["deleted"] == 2);
  CHECK(Api::json(restart)["message"].is_string());
}

TEST_CASE(
    "Reflow checklist 1, 2, 3, 6: the policy editor: inline subjects, no target, a toggle, subjects one by "
    "one") {
  Api api;
  const std::string target = api.make_target("crm");
  const auto made = api.call(
      api.admin, "POST", "/api/policies",
      R"({"name":"n","description":"","resource_type":"all","resource_pattern":"","effect":"deny","priority":5,)"
      R"("enabled":true,"subjects":[{"subject_type":"everyone"},{"subject_type":"role","subject_value":"viewer"}]})",
      kJson);
  REQUIRE(made.status == 201);
  const Json policy = Api::json(made);
  has_all(policy, {"id", "name", "resource_type", "effect", "priority", "enabled", "subjects"});
  for (const char* member : {"description", "target_id", "resource_pattern"})
    CHECK_FALSE(policy.contains(member));
  CHECK(policy["subjects"][0]["subject_value"].is_null());
  has_all(policy["subjects"][1], {"id", "subject_type", "subject_value"});
  const std::string path = "/api/policies/" + std::string(policy["id"]);
  CHECK(api.call(api.admin, "PUT", path, R"({"enabled":false})", kJson).status == 200);
  CHECK(Api::json(api.call(api.admin, "PUT", path, R"({"target_id":")" + target + "\"}",
                           kJson))["target_id"] == target);
  // "All targets" is sent as an absent member: unchanged.
  CHECK(Api::json(api.call(api.admin, "PUT", path, R"({"name":"n","effect":"allow"})", kJson))["target_id"] ==
        target);
  const auto subject = api.call(api.admin, "POST", path + "/subjects",
                                R"({"subject_type":"group","subject_value":"ops"})", kJson);
  CHECK(subject.status == 201);
  const auto gone =
      api.call(api.admin, "DELETE", path + "/subjects/" + std::string(Api::json(subject)["id"]), "", kJson);
  CHECK(gone.status == 204);
  CHECK(gone.body.empty());
  CHECK(Api::json(api.call(api.admin, "GET", "/api/policies", "", kJson))[0]["name"] == "Admin Full Access");
}

TEST_CASE("Reflow checklist 2, 6: login, shell, API keys and users pages, names of tokens") {
  Api api;
  const auto made = api.call("", "POST", "/api/auth/register",
                             R"({"email":"ui@example.test","password":"correct horse"})", kJson);
  CHECK(made.status == 201);
  CHECK(Api::json(made).size() == 2);
  has_all(Api::json(made)["user"], {"id", "email", "role"});
  const auto in = api.call("", "POST", "/api/auth/login",
                           R"({"email":"ui@example.test","password":"correct horse"})", kJson);
  CHECK(in.status == 200);
  const std::string token = Api::json(in)["token"];
  const Json me = Api::json(api.call(token, "GET", "/api/auth/me", "", kJson));
  has_all(me, {"id", "email", "role", "groups", "created_at"});
  CHECK(me["groups"] == Json::array());
  const auto failed =
      api.call("", "POST", "/api/auth/login", R"({"email":"ui@example.test","password":"wrong"})", kJson);
  CHECK(Api::json(failed)["error"].is_string());

  const auto key = api.call(token, "POST", "/api/auth/tokens", R"({"name":"laptop"})", kJson);
  CHECK(key.status == 201);
  CHECK(Api::json(key)["token"].is_string());
  std::vector<std::string> names;
  for (const Json& one : Api::json(api.call(token, "GET", "/api/auth/tokens", "", kJson))) {
    has_all(one, {"id", "name", "created_at", "last_used_at"});
    names.push_back(one["name"]);
  }
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"Default", "Login", "laptop"});
  const auto gone = api.call(token, "DELETE",
                             "/api/auth/tokens/" + std::string(Api::json(key)["api_token"]["id"]), "", kJson);
  CHECK(gone.status == 204);
  CHECK(gone.body.empty());

  const std::string id = me["id"];
  for (const char* role : {"user", "admin", "viewer"}) {
    const auto put = api.call(api.admin, "PUT", "/api/users/" + id,
                              std::string(R"({"role":")") + role + R"(","groups":["a","b"]})", kJson);
    CHECK(put.status == 200);
    has_all(Api::json(put), {"id", "email", "role", "groups", "created_at"});
  }
  const auto recycle = api.call(api.admin, "POST", "/api/users/" + id + "/recycle", "", kJson);
  CHECK(Api::json(recycle) == Json({{"recycled", 3}, {"user_id", id}}));
}

TEST_CASE("Reflow checklist 3, 4: a plain user loads every page of theirs; lists are never null") {
  Api api;
  api.make_target("crm");
  for (const char* path : {"/api/auth/me", "/api/targets", "/api/policies", "/api/logs?limit=20&offset=0",
                           "/api/observability/snapshot", "/api/auth/tokens"}) {
    const auto page = api.call(api.user, "GET", path, "", kJson);
    CHECK_MESSAGE(page.status == 200, path);
    CHECK_FALSE(Api::json(page).is_null());
  }
  CHECK(Api::json(api.call(api.user, "GET", "/api/targets")) == Json::array());
  CHECK(Api::json(api.call(api.user, "GET", "/api/logs?limit=20&offset=0")) == Json::array());
}

TEST_CASE("Reflow checklist 5: either name of the group, either name of the default") {
  Api api;
  const std::string path = "/api/targets/" + api.make_target("crm", R"(,"auth_type":"bearer")");
  for (const char* body : {R"({"group":"ops","token":"t"})", R"({"group_name":"ops","token":"t"})",
                           R"({"group":"ops","group_name":"ops","token":"t"})"})
    CHECK(api.call(api.admin, "PUT", path + "/tokens/group", body, kJson).status == 200);
  for (const bool expected : {false, true}) {
    const Json config = Api::json(api.call(api.admin, "GET", path + "/tokens", "", kJson));
    CHECK(config["has_default"] == expected);
    CHECK(config["has_default_token"] == expected);
    for (const char* list : {"user_tokens", "role_tokens", "group_tokens"}) CHECK(config[list].is_array());
    CHECK(api.call(api.admin, "PUT", path + "/tokens/default", R"({"token":"t"})", kJson).status == 200);
  }
}

TEST_CASE(
    "Reflow checklist 2: every DELETE of the API answers 204 without a body, every other success is JSON") {
  Api api;
  const std::string target = api.make_stdio("tools"), at = "/api/targets/" + target;
  api.open_to_all();
  const std::string policy =
      Api::json(api.call(api.admin, "POST", "/api/policies",
                         R"({"name":"p","effect":"allow","subjects":[{"subject_type":"everyone"}]})"))["id"];
  const std::string subject =
      Api::json(api.call(api.admin, "GET", "/api/policies/" + policy))["subjects"][0]["id"];
  const std::string user = api.add_user("gone@example.test", "user");
  const auto minted = *api.auth->mint(user, "t", TokenKind::api, {"api"}, std::nullopt);
  const auto own = *api.auth->mint(api.admin_id, "own", TokenKind::api, {"api"}, std::nullopt);
  for (const std::string& scope :
       {std::string("default"), std::string("role/r"), std::string("group/g"), "user/" + api.user_id})
    REQUIRE(api.call(api.admin, "POST", at + "/env/" + scope, R"({"key":"K","value":"v"})", kJson).status ==
            200);
  for (const auto& [path, body] :
       std::vector<std::pair<std::string, std::string>>{{"/token", R"({"token":"t"})"},
                                                        {"/tokens/default", R"({"token":"t"})"},
                                                        {"/tokens/role", R"({"token":"t","role":"r"})"},
                                                        {"/tokens/group", R"({"token":"t","group":"g"})"}})
    REQUIRE(api.call(api.admin, "PUT", at + path, body, kJson).status == 200);
  const std::map<std::string, std::string> paths{
      {"/api/auth/tokens/{id}", "/api/auth/tokens/" + own.row.id},
      {"/api/users/{id}/tokens/{tokenId}", "/api/users/" + user + "/tokens/" + minted.row.id},
      {"/api/users/{id}", "/api/users/" + user},
      {"/api/targets/{id}/token", at + "/token"},
      {"/api/targets/{id}/tokens/default", at + "/tokens/default"},
      {"/api/targets/{id}/tokens/role/{role}", at + "/tokens/role/r"},
      {"/api/targets/{id}/tokens/group/{group}", at + "/tokens/group/g"},
      {"/api/targets/{id}/env/default/{key}", at + "/env/default/K"},
      {"/api/targets/{id}/env/role/{scopeValue}/{key}", at + "/env/role/r/K"},
      {"/api/targets/{id}/env/group/{scopeValue}/{key}", at + "/env/group/g/K"},
      {"/api/targets/{id}/env/user/{scopeValue}/{key}", at + "/env/user/" + api.user_id + "/K"},
      {"/api/policies/{id}/subjects/{subjectId}", "/api/policies/" + policy + "/subjects/" + subject},
      {"/api/policies/{id}", "/api/policies/" + policy},
      {"/api/targets/{id}", at}};
  // The objects that hold others go last.
  std::vector<std::string> order;
  for (const auto& route : AdminApi::routes())
    if (route.method == "DELETE") order.push_back(route.path);
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::count(a.begin(), a.end(), '/') > std::count(b.begin(), b.end(), '/');
  });
  for (const std::string& route : order) {
    CAPTURE(route);
    REQUIRE(paths.contains(route));
    const auto gone = api.call(api.admin, "DELETE", paths.at(route), "", kJson);
    CHECK_MESSAGE(gone.status == 204, gone.body);
    CHECK(gone.body.empty());
    CHECK(gone.header("Content-Type") == nullptr);
  }
}
