// Targets, target tokens, environment.
#include "admin_support.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

namespace {

std::vector<std::string> names(const Json& object) {
  std::vector<std::string> out;
  for (const auto& [name, value] : object.items()) out.push_back(name);
  return out;
}

const std::string kKey = R"(-----BEGIN PRIVATE KEY-----\ncanary-key\n-----END PRIVATE KEY-----\n)";
const std::string kCert = R"(-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n)";

}  // namespace

TEST_CASE("a target has exactly the documented members, for admins and for others") {
  Api api;
  api.open_to_all();
  const std::string path = "/api/targets/" + api.make_target("A b.c_d");
  const Json bare = Api::json(api.call(api.admin, "GET", path));
  CHECK(names(bare) == std::vector<std::string>{"allow_private_network", "auth_type", "created_at", "enabled",
                                                "id", "isolation_boundary", "max_concurrency", "name", "port",
                                                "prefix", "protocol_era", "slug", "statefulness", "status",
                                                "timeout_ms", "transport_type", "updated_at", "url"});
  CHECK(bare["slug"] == "a-b-c-d");
  CHECK(bare["transport_type"] == "streamable-http");
  CHECK(bare["max_concurrency"].is_null());
  CHECK(names(bare["status"]) == std::vector<std::string>{"era", "instances", "last_error",
                                                          "protocol_version", "since", "state", "transport"});
  api.live.status.last_error = "connect refused";
  const auto full = api.call(
      api.admin, "PUT", path,
      R"({"command":"c","args":["x"],"image":"img:1","port":0,"health_path":"/h","auth_type":"header",)"
      R"("auth_header_name":"X-Key","max_concurrency":5,"forward_headers":["X-Tenant"],"user_env_keys":["*"],)"
      R"("tls":{"ca":")" +
          kCert + R"(","verify":false,"client_cert":")" + kCert + R"(","client_key":")" + kKey + R"("}})");
  REQUIRE_MESSAGE(full.status == 200, full.body);
  const Json all = Api::json(full);
  CHECK(all["port"] == 8080);
  CHECK(all["tls"]["has_client_key"] == true);
  CHECK(names(all["tls"]) == std::vector<std::string>{"ca", "client_cert", "has_client_key", "verify"});
  CHECK(full.body.find("canary-key") == std::string::npos);
  CHECK(api.row().request_body.find("canary-key") == std::string::npos);
  CHECK(all["status"]["last_error"] == "connect refused");

  const Json seen = Api::json(api.call(api.user, "GET", path));
  CHECK(names(seen) == std::vector<std::string>{"auth_type", "created_at", "enabled", "id",
                                                "isolation_boundary", "max_concurrency", "name", "prefix",
                                                "protocol_era", "slug", "statefulness", "timeout_ms",
                                                "transport_type", "updated_at", "url", "user_env_keys"});
  CHECK(seen["url"] == "");
  CHECK(Api::json(api.call(api.user, "GET", "/api/targets"))[0] == seen);

  const auto cleared = Api::json(api.call(
      api.admin, "PUT", path,
      R"({"command":"","image":"","health_path":"","auth_type":"","auth_header_name":"","max_concurrency":null,)"
      R"("tls":null,"args":[],"forward_headers":[],"user_env_keys":[],"url":null,"name":null,"port":null})"));
  CHECK(names(cleared) == names(bare));
  CHECK(cleared["url"] == "https://x.example/mcp");
  CHECK(cleared["auth_type"] == "none");
}

TEST_CASE("R1, R15: a plain user changes no target, and sees those only that policy opens") {
  Settings settings;
  settings.repository.stdio_allowed_commands = {"npx"};
  Api api(std::move(settings));
  const std::string open = api.make_target("open"), shut = api.make_target("shut");
  const std::string off = api.make_target("off", R"(,"enabled":false)");
  REQUIRE(api.call(api.admin, "POST", "/api/policies",
                   R"({"name":"p","effect":"allow","resource_type":"tool","resource_pattern":"^read",)"
                   R"("target_id":")" +
                       open + R"(","subjects":[{"subject_type":"role","subject_value":"user"}]})")
              .status == 201);
  const Json list = Api::json(api.call(api.user, "GET", "/api/targets"));
  REQUIRE(list.size() == 1);
  CHECK(list[0]["id"] == open);
  CHECK(Api::json(api.call(api.admin, "GET", "/api/targets")).size() == 3);
  for (const std::string& id : {shut, off, kNobody}) {
    const auto answer = api.call(api.user, "GET", "/api/targets/" + id);
    CHECK(answer.status == 404);
    CHECK(answer.body == api.call(api.user, "GET", "/api/targets/" + kNobody).body);
    for (const char* below : {"/token", "/env", "/env/resolve", "/env/default"})
      CHECK(Api::code(api.call(api.user, "GET", "/api/targets/" + id + below)) == "target_not_found");
  }
  const auto create = [&](const std::string& command) {
    return api.call(api.admin, "POST", "/api/targets",
                    R"({"name":"s","transport_type":"stdio","command":")" + command + "\"}");
  };
  CHECK(Api::code(create("sh")) == "command_not_allowed");
  CHECK(Api::field(create("")) == "command");
  CHECK(create("npx").status == 201);

  Settings without;
  without.repository.stdio_enabled = false;
  Api closed(std::move(without));
  CHECK(Api::code(closed.call(closed.admin, "POST", "/api/targets",
                              R"({"name":"s","transport_type":"stdio","command":"npx"})")) ==
        "transport_disabled");
}

TEST_CASE("names and slugs are unique ignoring case, derived slugs make room") {
  Api api;
  const auto create = [&](const std::string& name, const std::string& more = "") {
    return api.call(api.admin, "POST", "/api/targets",
                    R"({"name":")" + name + R"(","url":"https://x.example")" + more + "}");
  };
  const auto first = create(" My Server ");
  CHECK(first.status == 201);
  CHECK(Api::json(first)["name"] == "My Server");
  CHECK(*first.header("Location") == "/api/targets/" + std::string(Api::json(first)["id"]));
  CHECK(first.header("ETag"));
  CHECK(Api::code(create("my server")) == "name_taken");
  CHECK(Api::json(create("my.server"))["slug"] == "my-server-2");
  CHECK(Api::code(create("x", R"(,"slug":"my-server")")) == "slug_taken");
  CHECK(Api::field(create("x", R"(,"slug":"Upper")")) == "slug");
  const std::string path = "/api/targets/" + std::string(Api::json(first)["id"]);
  CHECK(Api::json(api.call(api.admin, "PUT", path, R"({"name":"renamed"})"))["slug"] == "my-server");
  CHECK(Api::json(api.call(api.admin, "PUT", path, R"({"slug":"new"})"))["slug"] == "new");
}

TEST_CASE("1.6: edits of different members at once all survive; If-Match lets one through") {
  Api api;
  const std::string path = "/api/targets/" + api.make_target("crm");
  const std::vector<std::string> edits{R"({"timeout_ms":5000})",
                                       R"({"max_concurrency":7})",
                                       R"({"prefix":"always"})",
                                       R"({"statefulness":"stateful"})",
                                       R"({"isolation_boundary":"per_user"})",
                                       R"({"allow_private_network":true})",
                                       R"({"protocol_era":"modern"})",
                                       R"({"enabled":false})"};
  std::atomic<int> good{0};
  in_parallel(8, [&](int i) {
    if (api.call(api.admin, "PUT", path, edits[static_cast<std::size_t>(i)]).status == 200) ++good;
  });
  CHECK(good == 8);
  const auto answer = api.call(api.admin, "GET", path);
  const Json target = Api::json(answer);
  for (const std::string& edit : edits) {
    const Json sent = *detail::parse_json(edit);
    for (const auto& [name, value] : sent.items()) CHECK(target[name] == value);
  }

  const HttpHeaders known{{"If-Match", *answer.header("ETag")}};
  std::atomic<int> won{0}, lost{0};
  in_parallel(8, [&](int i) {
    const int status =
        api.call(api.admin, "PUT", path, R"({"timeout_ms":)" + std::to_string(2000 + i) + "}", known).status;
    if (status == 200) ++won;
    if (status == 412) ++lost;
  });
  CHECK(won == 1);
  CHECK(lost == 7);
  for (const char* header : {"\"0\"", "W/*", "5", "", "\"a\", \"b\""})
    CHECK(api.call(api.admin, "PUT", path, "{}", {{"If-Match", header}}).status == 412);
  const std::string weak = "W/" + *api.call(api.admin, "GET", path).header("ETag");
  CHECK(api.call(api.admin, "PUT", path, "{}", {{"If-Match", weak}}).status == 412);
  CHECK(api.call(api.admin, "DELETE", path, "", {{"If-Match", "\"0\""}}).status == 412);
  CHECK(api.call(api.admin, "GET", path).status == 200);
}

TEST_CASE("R90: whatever is stored for a destination is asked about when it changes") {
  Api api;
  const std::string id = api.make_target("crm", R"(,"auth_type":"bearer")"), path = "/api/targets/" + id;
  REQUIRE(api.call(api.admin, "PUT", path + "/tokens/default", R"({"token":"t"})").status == 200);
  REQUIRE(
      api.call(api.admin, "POST", path + "/env/user/" + api.user_id, R"({"key":"K","value":"v"})").status ==
      200);
  const std::string before = api.call(api.admin, "GET", path).body;
  for (const char* body :
       {R"({"url":"https://evil.example/mcp"})", R"({"url":"http://x.example/mcp"})",
        R"({"url":"https://x.example:8443/mcp"})", R"({"transport_type":"stdio","command":"npx"})",
        R"({"url":"https://evil.example/mcp","keep_credentials":null})"}) {
    const auto answer = api.call(api.admin, "PUT", path, body);
    CHECK(answer.status == 409);
    CHECK(Api::code(answer) == "credentials_bound");
    CHECK(std::string(Api::json(answer)["error"]).find('2') != std::string::npos);  // how many
    CHECK(api.call(api.admin, "GET", path).body == before);
  }
  const auto kept =
      api.call(api.admin, "PUT", path, R"({"url":"https://new.example/mcp","keep_credentials":true})");
  CHECK(kept.status == 200);
  CHECK_FALSE(Api::json(kept).contains("credentials_dropped"));
  CHECK(Api::json(api.call(api.admin, "GET", path + "/env")).size() == 1);
  api.storage->fail_commit(1, {ErrorCode::unavailable, "storage_unavailable", "The storage is away"});
  const char* drop = R"({"url":"https://other.example/mcp","keep_credentials":false})";
  CHECK(api.call(api.admin, "PUT", path, drop).status == 503);
  CHECK(Api::json(api.call(api.admin, "GET", path + "/env")).size() == 1);
  CHECK(Api::json(api.call(api.admin, "PUT", path, drop))["credentials_dropped"] == 2);
  const Json recorded = *detail::parse_json(api.row().request_body);
  CHECK(recorded["credentials_dropped"] == 2);
  CHECK(recorded["url"] == "https://other.example/mcp");
  CHECK(Api::json(api.call(api.admin, "GET", path + "/env")).empty());
}

TEST_CASE("deleting a target takes its tokens, entries and policies along") {
  Api api;
  const std::string id = api.make_target("crm", R"(,"auth_type":"bearer")"), path = "/api/targets/" + id;
  REQUIRE(api.call(api.admin, "PUT", path + "/tokens/default", R"({"token":"t"})").status == 200);
  REQUIRE(api.call(api.admin, "POST", "/api/policies",
                   R"({"name":"p","effect":"allow","target_id":")" + id + "\"}")
              .status == 201);
  const std::size_t policies = api.repository->policies().size();
  CHECK(api.call(api.admin, "DELETE", path).status == 204);
  CHECK(api.row().target_name == "crm");
  CHECK(api.row().method == "DELETE /api/targets/{id}");
  CHECK(api.repository->policies().size() == policies - 1);
  CHECK(api.repository->target_tokens(id).empty());
  CHECK(Api::code(api.call(api.admin, "DELETE", path)) == "target_not_found");
}

TEST_CASE("restart and test") {
  Api api;
  const std::string http = "/api/targets/" + api.make_target("crm");
  const std::string cluster =
      "/api/targets/" + api.make_target("k", R"(,"transport_type":"kubernetes","image":"img:1")");
  CHECK(Api::code(api.call(api.admin, "POST", http + "/restart-instances")) == "not_restartable");
  CHECK(Api::code(api.call(api.admin, "POST", cluster + "/restart-instances")) == "kubernetes_disabled");
  const Json result = Api::json(api.call(api.admin, "POST", http + "/test", "{}"));
  CHECK(names(result) == std::vector<std::string>{"era", "ok", "prompts", "protocol_version", "resources",
                                                  "server_info", "steps", "tools"});
  CHECK(api.live.tested_as == api.admin_id);
  CHECK(api.call(api.admin, "POST", http + "/test", R"({"user_id":")" + api.user_id + "\"}").status == 200);
  CHECK(api.live.tested_as == api.user_id);
  CHECK(Api::code(api.call(api.admin, "POST", http + "/test", R"({"user_id":"x"})")) == "unknown_user");
}

TEST_CASE("target tokens: every scope, usable or not, and the form that each transport permits") {
  Api api;
  api.open_to_all();
  const std::string http = "/api/targets/" + api.make_target("crm", R"(,"auth_type":"bearer")");
  const std::string shared = "/api/targets/" + api.make_stdio("tools");
  for (const auto& [scope, body] :
       std::vector<std::pair<std::string, std::string>>{{"/token", ""},
                                                        {"/tokens/role", R"(,"role":"dev")"},
                                                        {"/tokens/group", R"(,"group_name":" ops ")"},
                                                        {"/tokens/default", ""}}) {
    const auto put = [&](const std::string& path, const std::string& token) {
      return api.call(api.admin, "PUT", path + scope, R"({"token":")" + token + "\"" + body + "}");
    };
    const auto answer = put(http, "canary");
    CHECK(answer.status == 200);
    CHECK(Api::json(answer)["usable"] == true);
    CHECK(Api::json(answer)["message"].is_string());
    CHECK(Api::json(put(shared, "canary"))["usable"] == (scope == "/tokens/default"));
    CHECK(put(shared, R"(a\tb\nc)").status == 200);
    CHECK(Api::field(put(http, R"(a\nb)")) == "token");
    CHECK(Api::field(put(http, "")) == "token");
    CHECK(put(http, std::string(16384, 't')).status == 200);
    CHECK(put(http, std::string(16385, 't')).status == 400);
  }
  CHECK(Api::field(api.call(api.admin, "PUT", http + "/tokens/role", R"({"token":"t","role":"a b"})")) ==
        "role");
  CHECK(Api::field(api.call(api.admin, "PUT", http + "/tokens/group", R"({"token":"t","group_name":","})")) ==
        "group_name");
  CHECK(Api::field(api.call(api.admin, "PUT", http + "/tokens/group", R"({"token":"t","group":","})")) ==
        "group");
  CHECK(Api::field(api.call(api.admin, "PUT", http + "/tokens/group", R"({"token":"t"})")) == "group_name");
  const Json config = Api::json(api.call(api.admin, "GET", http + "/tokens"));
  CHECK(names(config) == std::vector<std::string>{"group_tokens", "has_default", "has_default_token",
                                                  "role_tokens", "target_id", "target_name", "user_tokens"});
  CHECK(config["group_tokens"][0]["group_name"] == "ops");
  CHECK(api.call(api.admin, "DELETE", http + "/tokens/group/ops").status == 204);
  CHECK(api.call(api.admin, "DELETE", http + "/tokens/role/dev").status == 204);
  CHECK(Api::code(api.call(api.admin, "DELETE", http + "/tokens/role/dev")) == "token_not_set");
  CHECK(api.call(api.admin, "DELETE", http + "/token").status == 204);
  CHECK(Api::code(api.call(api.admin, "DELETE", http + "/token")) == "token_not_set");
  CHECK(Api::json(api.call(api.user, "GET", http + "/token")) == Json({{"has_token", false}}));
  CHECK(api.call(api.user, "PUT", http + "/token", R"({"token":"mine"})").status == 200);
  CHECK(names(Api::json(api.call(api.user, "GET", http + "/token"))) ==
        std::vector<std::string>{"created_at", "has_token", "updated_at"});
  CHECK(Api::json(api.call(api.admin, "GET", http + "/token"))["has_token"] == false);
}

TEST_CASE("environment: upsert, descriptions, merging all or nothing, order, conflicts") {
  Api api;
  const std::string id = api.make_target("crm"), path = "/api/targets/" + id;
  const auto post = [&](const std::string& scope, const std::string& body) {
    return api.call(api.admin, "POST", path + "/env/" + scope, body);
  };
  const Json row = Api::json(post("default", R"({"key":"A","value":"1","description":"line\n\ttwo"})"));
  CHECK(names(row) == std::vector<std::string>{"created_at", "description", "env_key", "id", "scope_type",
                                               "scope_value", "target_id", "updated_at", "usable"});
  CHECK(row["scope_value"].is_null());
  CHECK(Api::json(post("default", R"({"key":"A","value":"2"})"))["description"] == "line\n\ttwo");
  CHECK(Api::json(post("default", R"({"key":"A","value":"2"})"))["id"] == row["id"]);
  CHECK_FALSE(
      Api::json(post("default", R"({"key":"A","value":"2","description":null})")).contains("description"));
  CHECK(Api::code(post("default", R"({"key":"a","value":"2"})")) == "key_conflict");
  for (const char* key : {"", "1A", "A-B", "A B", "A=B", R"(A\u0000)"})
    CHECK(Api::code(post("default", std::string(R"({"key":")") + key + R"(","value":"v"})")) ==
          "invalid_key");
  for (const char* value : {"", R"(a\nb)", R"(a\rb)", R"(a\u0000b)", R"(a\u0001b)"})
    CHECK(Api::code(post("default", std::string(R"({"key":"V","value":")") + value + "\"}")) ==
          "invalid_value");
  CHECK(Api::code(post("default", R"({"key":"BASE_URL","value":"ftp://x"})")) == "invalid_value");
  CHECK(Api::code(post("default", R"({"key":"AUTH_HEADER","value":"Host"})")) == "invalid_value");
  CHECK(Api::code(post("default", R"({"key":"TIMEOUT","value":"soon"})")) == "invalid_value");
  CHECK(post("role/dev", R"({"key":"R","value":"v"})").status == 200);
  CHECK(post("group/b", R"({"key":"G","value":"v"})").status == 200);
  CHECK(post("group/%20a%2Fb%20", R"({"key":"G","value":"v"})").status == 200);
  // A group is the same with space around it, in every method.
  CHECK(Api::json(api.call(api.admin, "GET", path + "/env/group/%20a%2Fb")).size() == 1);
  CHECK(Api::json(api.call(api.admin, "PUT", path + "/env/group/%20a%2Fb", R"({"configs":{"G":"w"}})"))
            .size() == 1);
  CHECK(post("user/" + api.user_id, R"({"key":"U","value":"v"})").status == 200);
  CHECK(Api::code(post("user/" + kNobody, R"({"key":"U","value":"v"})")) == "user_not_found");
  CHECK(Api::code(post("user/bob", R"({"key":"U","value":"v"})")) == "invalid_id");
  CHECK(post("role/a%20b", R"({"key":"U","value":"v"})").status == 400);
  CHECK(post("planet/x", R"({"key":"U","value":"v"})").status == 404);
  std::vector<std::string> order;
  for (const Json& one : Api::json(api.call(api.admin, "GET", path + "/env")))
    order.push_back(std::string(one["scope_type"]) + "/" +
                    (one["scope_value"].is_null() ? "" : std::string(one["scope_value"])));
  CHECK(order ==
        std::vector<std::string>{"default/", "role/dev", "group/a/b", "group/b", "user/" + api.user_id});

  const auto put = [&](const std::string& configs) {
    return api.call(api.admin, "PUT", path + "/env/default", R"({"configs":)" + configs + "}");
  };
  const auto merged = put(R"({"B":"1","C":"2"})");
  CHECK(Api::json(merged).size() == 3);
  CHECK(Api::code(put(R"({"D":"1","E F":"2"})")) == "invalid_key");
  CHECK(Api::field(put(R"({"D":7})")) == "configs");
  CHECK(Api::field(put("[]")) == "configs");
  CHECK(Api::json(put("{}")).size() == 3);
  std::string many = "{";
  for (int i = 0; i < 501; ++i) many += (i ? ",\"K" : "\"K") + std::to_string(i) + R"(":"v")";
  CHECK(Api::field(put(many + "}")) == "configs");
  CHECK(Api::json(api.call(api.admin, "GET", path + "/env/default")).size() == 3);
  CHECK(api.call(api.admin, "DELETE", path + "/env/group/a%2Fb/G").status == 204);
  CHECK(Api::code(api.call(api.admin, "DELETE", path + "/env/group/a%2Fb/G")) == "env_not_found");
}

TEST_CASE("R46, R89: what a plain user may read and set") {
  Api api;
  api.open_to_all();
  const std::string http = "/api/targets/" + api.make_target("crm");
  const std::string stdio =
      "/api/targets/" +
      api.make_stdio("tools", R"(,"isolation_boundary":"per_user","user_env_keys":["OWN"])");
  UserPatch patch;
  patch.groups = std::vector<std::string>{"ops"};
  REQUIRE(api.repository->update_user(api.user_id, patch));
  for (const std::string& path : {http, stdio})
    for (const std::string& scope :
         {std::string("default"), std::string("role/user"), std::string("role/admin"),
          std::string("group/ops"), std::string("group/dev"), "user/" + api.user_id, "user/" + api.admin_id})
      REQUIRE(api.call(api.admin, "POST", path + "/env/" + scope, R"({"key":"WIDE","value":"v"})").status ==
              200);
  CHECK(Api::json(api.call(api.user, "GET", http + "/env")).size() == 4);
  for (const std::string& scope :
       {std::string("default"), std::string("role/user"), std::string("group/ops"), "user/" + api.user_id})
    CHECK(Api::json(api.call(api.user, "GET", http + "/env/" + scope)).size() == 1);
  for (const std::string& scope :
       {std::string("role/admin"), std::string("group/dev"), "user/" + api.admin_id, "user/" + kNobody})
    CHECK(Api::code(api.call(api.user, "GET", http + "/env/" + scope)) == "forbidden");
  const Json resolved = Api::json(api.call(api.user, "GET", http + "/env/resolve"));
  CHECK(resolved == Json::array({{{"key", "WIDE"}, {"scope_type", "user"}, {"scope_value", api.user_id}}}));

  const auto set = [&](const std::string& path, const std::string& key) {
    return api.call(api.user, "POST", path + "/env/user/" + api.user_id,
                    R"({"key":")" + key + R"(","value":"https://canary.example"})");
  };
  for (const char* key : {"BASE_URL", "AUTH_HEADER"}) CHECK(Api::code(set(http, key)) == "key_not_permitted");
  for (const char* key : {"AUTH_TOKEN", "ANY", "PATH"}) CHECK(set(http, key).status == 200);
  for (const char* key : {"AUTH_TOKEN", "WIDE", "OWN"}) CHECK(set(stdio, key).status == 200);
  for (const char* key : {"OTHER", "PATH", "path", "LD_PRELOAD", "NODE_OPTIONS", "HTTPS_PROXY", "GIT_SSH"}) {
    CHECK(Api::code(set(stdio, key)) == "key_not_permitted");
    CHECK(api.call(api.admin, "POST", stdio + "/env/default",
                   std::string(R"({"key":")") + key + R"(","value":"v"})")
              .status == 200);
  }
  // A protected key stays protected when it has a row in a wider scope, or is declared by "*".
  CHECK(Api::code(set(stdio, "LD_PRELOAD")) == "key_not_permitted");
  CHECK(api.call(api.admin, "PUT", stdio, R"({"user_env_keys":["*"]})").status == 200);
  CHECK(set(stdio, "ANYTHING").status == 200);
  CHECK(Api::code(set(stdio, "NODE_OPTIONS")) == "key_not_permitted");
  // In bulk: one that is not permitted refuses all.
  CHECK(Api::code(api.call(api.user, "PUT", stdio + "/env/user/" + api.user_id,
                           R"({"configs":{"FINE":"v","LD_AUDIT":"v"}})")) == "key_not_permitted");
  CHECK(Api::code(api.call(api.user, "DELETE", stdio + "/env/user/" + api.user_id + "/FINE")) ==
        "env_not_found");
  CHECK(api.call(api.user, "DELETE", stdio + "/env/user/" + api.user_id + "/OWN").status == 204);
  for (const char* method : {"POST", "PUT"})
    CHECK(Api::code(api.call(api.user, method, http + "/env/user/" + api.admin_id,
                             R"({"key":"A","value":"b","configs":{"A":"b"}})")) == "forbidden");
  CHECK(Api::code(api.call(api.user, "DELETE", http + "/env/user/" + api.admin_id + "/WIDE")) == "forbidden");
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
