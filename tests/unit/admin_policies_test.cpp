// Policies, subjects, and the question what they decide.
#include "admin_support.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

namespace {

std::string subject(const std::string& type, const std::string& value = "") {
  return R"({"subject_type":")" + type + "\"" +
         (value.empty() ? "" : R"(,"subject_value":")" + value + "\"") + "}";
}

}  // namespace

TEST_CASE("R62: policies are checked alike on creation and change; null and empty clear; subjects replace") {
  Api api;
  const std::string target = api.make_target("crm");
  const auto made = api.call(
      api.admin, "POST", "/api/policies",
      R"({"name":"p","description":"d\nd","effect":"deny","target_id":")" + target +
          R"(","resource_type":"tool","resource_pattern":"^a","priority":-5,"enabled":false,"subjects":[)" +
          subject("role", "dev") + "," + subject("everyone", "ignored") + "]}");
  REQUIRE_MESSAGE(made.status == 201, made.body);
  const Json policy = Api::json(made);
  CHECK(policy.size() == 12);
  CHECK(policy["subjects"][1]["subject_value"].is_null());
  CHECK(policy["subjects"][0]["policy_id"] == policy["id"]);
  CHECK(policy["subjects"][0].size() == 5);
  const std::string path = "/api/policies/" + std::string(policy["id"]);
  CHECK(*made.header("Location") == path);
  CHECK(*made.header("ETag") == *api.call(api.admin, "GET", path).header("ETag"));
  CHECK(Api::json(api.call(api.admin, "GET", path)) == policy);

  const std::string stored = api.call(api.admin, "GET", path).body;
  struct Case {
    std::string body;
    int status;
    const char* code;
  };
  for (const Case& one :
       std::vector<Case>{{R"("target_id":"nope")", 400, "unknown_target"},
                         {R"("target_id":")" + kNobody + "\"", 400, "unknown_target"},
                         {R"("resource_pattern":"(")", 400, "invalid_pattern"},
                         {R"x("resource_pattern":"(?=a)")x", 400, "invalid_pattern"},
                         {R"("resource_pattern":")" + std::string(1025, 'a') + "\"", 400, "invalid_request"},
                         {R"("name":")" + std::string(256, 'n') + "\"", 400, "invalid_request"},
                         {R"("description":")" + std::string(2001, 'd') + "\"", 400, "invalid_request"},
                         {R"("subjects":[)" + subject("user", kNobody) + "]", 400, "unknown_user"},
                         {R"("subjects":[)" + subject("user", "bob") + "]", 400, "unknown_user"},
                         {R"("subjects":[)" + subject("role", "a b") + "]", 400, "invalid_request"},
                         {R"("subjects":[)" + subject("group", "a,b") + "]", 400, "invalid_request"},
                         {R"("subjects":[)" + subject("role", "x") + "," + subject("role", "x") + "]", 409,
                          "duplicate_subject"},
                         {R"("arguments":{"path":"^/tmp"})", 400, "invalid_request"}}) {
    CAPTURE(one.body.substr(0, 80));
    const auto put = api.call(api.admin, "PUT", path, "{" + one.body + "}");
    CHECK(put.status == one.status);
    CHECK(Api::code(put) == one.code);
    const bool named = one.body.starts_with(R"("name")");
    const auto post =
        api.call(api.admin, "POST", "/api/policies",
                 std::string(named ? "{" : R"({"name":"q",)") + R"("effect":"allow",)" + one.body + "}");
    CHECK(post.status == one.status);
    CHECK(Api::code(post) == one.code);
    CHECK(api.call(api.admin, "GET", path).body == stored);
  }
  const auto change = [&](const std::string& body) {
    return Api::json(api.call(api.admin, "PUT", path, body));
  };
  CHECK(change(R"({"description":null,"name":null,"subjects":null,"priority":null})")["description"] ==
        "d\nd");
  CHECK(change(R"({"enabled":true})")["subjects"].size() == 2);
  const Json kept = change(R"({"subjects":[)" + subject("role", "dev") + "]}");
  CHECK(kept["subjects"].size() == 1);
  CHECK(kept["subjects"][0]["id"] == policy["subjects"][0]["id"]);
  CHECK_FALSE(change(R"({"description":""})").contains("description"));
  CHECK_FALSE(change(R"({"target_id":null})").contains("target_id"));
  CHECK_FALSE(change(R"({"resource_pattern":""})").contains("resource_pattern"));
  CHECK_FALSE(change(R"({"subjects":[]})").contains("subjects"));
  CHECK(api.call(api.admin, "PUT", path, "{}", {{"If-Match", *made.header("ETag")}}).status == 412);
  CHECK(api.call(api.admin, "DELETE", path, "", {{"If-Match", *made.header("ETag")}}).status == 412);
  CHECK(api.call(api.admin, "DELETE", path).status == 204);
  CHECK(Api::code(api.call(api.admin, "GET", path)) == "policy_not_found");
}

TEST_CASE("subjects are added and removed one by one, under their own policy only") {
  Api api;
  const auto make = [&](const char* name) {
    return "/api/policies/" + std::string(Api::json(api.call(
                                  api.admin, "POST", "/api/policies",
                                  std::string(R"({"name":")") + name + R"(","effect":"allow"})"))["id"]);
  };
  const std::string one = make("one"), two = make("two");
  const auto added = api.call(api.admin, "POST", one + "/subjects", subject("group", " ops "));
  CHECK(added.status == 201);
  CHECK(Api::json(added)["subject_value"] == "ops");
  CHECK(Api::code(api.call(api.admin, "POST", one + "/subjects", subject("group", "ops"))) ==
        "duplicate_subject");
  CHECK(Api::field(api.call(api.admin, "POST", one + "/subjects", subject("group"))) == "subject_value");
  const std::string id = Api::json(added)["id"];
  CHECK(Api::code(api.call(api.admin, "DELETE", two + "/subjects/" + id)) == "subject_not_found");
  CHECK(Api::code(api.call(api.admin, "DELETE", one + "/subjects/7")) == "invalid_id");
  CHECK(api.call(api.admin, "DELETE", one + "/subjects/" + id).status == 204);
  CHECK(Api::code(api.call(api.admin, "DELETE", one + "/subjects/" + id)) == "subject_not_found");
}

TEST_CASE("R62: one subject added by eight at once is there once; members edited at once all survive") {
  Api api;
  const std::string path =
      "/api/policies/" + std::string(Api::json(api.call(api.admin, "POST", "/api/policies",
                                                        R"({"name":"p","effect":"allow"})"))["id"]);
  std::atomic<int> made{0}, refused{0};
  in_parallel(8, [&](int) {
    const int status = api.call(api.admin, "POST", path + "/subjects", subject("everyone")).status;
    if (status == 201) ++made;
    if (status == 409) ++refused;
  });
  CHECK(made == 1);
  CHECK(refused == 7);
  const std::vector<std::string> edits{R"({"priority":7})",           R"({"description":"x"})",
                                       R"({"effect":"deny"})",        R"({"resource_pattern":"^a"})",
                                       R"({"resource_type":"tool"})", R"({"name":"renamed"})"};
  in_parallel(6, [&](int i) { api.call(api.admin, "PUT", path, edits[static_cast<std::size_t>(i)]); });
  const Json policy = Api::json(api.call(api.admin, "GET", path));
  for (const std::string& edit : edits) {
    const Json sent = *detail::parse_json(edit);
    for (const auto& [name, value] : sent.items()) CHECK(policy[name] == value);
  }
  CHECK(policy["subjects"].size() == 1);
}

TEST_CASE("R15: a plain user sees the enabled policies that match, reduced to what matches") {
  Api api;
  const auto make = [&](const std::string& name, const std::string& subjects, const std::string& more = "") {
    return std::string(Api::json(api.call(
        api.admin, "POST", "/api/policies",
        R"({"name":")" + name + R"(","effect":"allow","subjects":[)" + subjects + "]" + more + "}"))["id"]);
  };
  const std::string mine = make("mine", subject("user", api.user_id) + "," + subject("user", api.admin_id) +
                                            "," + subject("group", "secret-group"));
  const std::string all = make("all", subject("everyone"), R"(,"priority":9)");
  const std::string off = make("off", subject("everyone"), R"(,"enabled":false)");
  const std::string others = make("others", subject("role", "admin"));
  const std::string nobody = make("nobody", "");
  const auto answer = api.call(api.user, "GET", "/api/policies");
  const Json list = Api::json(answer);
  REQUIRE(list.size() == 2);
  CHECK(*answer.header("X-Total-Count") == "2");
  CHECK(list[0]["id"] == all);
  CHECK(list[1]["id"] == mine);
  CHECK(list[1]["subjects"].size() == 1);
  CHECK(answer.body.find(api.admin_id) == std::string::npos);
  CHECK(answer.body.find("secret-group") == std::string::npos);
  CHECK(Api::json(api.call(api.user, "GET", "/api/policies/" + mine)) == list[1]);
  for (const std::string& id : {off, others, nobody, kNobody}) {
    const auto unseen = api.call(api.user, "GET", "/api/policies/" + id);
    CHECK(unseen.status == 404);
    CHECK(unseen.body == api.call(api.user, "GET", "/api/policies/" + kNobody).body);
  }
  const Json full = Api::json(api.call(api.admin, "GET", "/api/policies"));
  CHECK(full.size() == 7);  // and the two seeds
  CHECK(full[0]["name"] == "Admin Full Access");
}

TEST_CASE("R92: evaluate tells what is decided, and to plain users nothing beyond their own") {
  Api api;
  const std::string open = api.make_target("open"), shut = api.make_target("shut"),
                    off = api.make_target("off", R"(,"enabled":false)");
  const auto make = [&](const std::string& body) {
    return std::string(Api::json(api.call(api.admin, "POST", "/api/policies", body))["id"]);
  };
  const std::string allow =
      make(R"({"name":"allow","effect":"allow","resource_pattern":"^read","target_id":")" + open +
           R"(","subjects":[)" + subject("user", api.user_id) + "]}");
  const std::string deny = make(R"({"name":"deny","effect":"deny","priority":5,"resource_type":"tool",)"
                                R"("resource_pattern":"secret","subjects":[)" +
                                subject("everyone") + "]}");
  make(R"({"name":"hidden","effect":"allow","subjects":[)" + subject("role", "hidden-role") + "]}");
  const auto ask = [&](const std::string& who, const std::string& target, const std::string& more) {
    return api.call(who, "POST", "/api/policies/evaluate", R"({"target_id":")" + target + "\"," + more + "}");
  };
  const std::string about = R"("user_id":")" + api.user_id + "\",";
  const auto tool = [](const char* name) {
    return std::string(R"("resource_type":"tool","name":")") + name + "\"";
  };
  struct Case {
    std::string name;
    const char* effect;
    const char* reason;
    std::string policy;
  };
  for (const Case& one : std::vector<Case>{{"read_it", "allow", "matched_allow", allow},
                                           {"read_secret", "deny", "matched_deny", deny},
                                           {"write", "deny", "no_matching_policy", ""}}) {
    const Json own = Api::json(ask(api.user, open, tool(one.name.c_str())));
    const Json told = Api::json(ask(api.admin, open, about + tool(one.name.c_str())));
    for (const Json* answer : {&own, &told}) {
      CHECK(answer->size() == 5);
      CHECK((*answer)["effect"] == one.effect);
      CHECK((*answer)["reason"] == one.reason);
      CHECK((*answer)["policy_id"] == (one.policy.empty() ? Json(nullptr) : Json(one.policy)));
    }
    CHECK(own["considered"].size() == 2);
    CHECK(told["considered"].size() > 2);
    CHECK(own.dump().find("hidden") == std::string::npos);
    CHECK(own["considered"][0].size() == 6);
  }
  CHECK(Api::json(ask(api.user, open, R"("resource_type":"all")"))["effect"] == "allow");
  CHECK(Api::json(ask(api.admin, off, R"("resource_type":"all")"))["reason"] == "target_disabled");
  // What a plain user does not reach is like what does not exist.
  const std::string unknown = ask(api.user, kNobody, tool("x")).body;
  for (const std::string& id : {shut, off, std::string("x")})
    CHECK(ask(api.user, id, tool("x")).body == unknown);
  CHECK(Api::code(ask(api.admin, kNobody, tool("x"))) == "unknown_target");
  CHECK(Api::code(ask(api.admin, open, R"("user_id":"x",)" + tool("x"))) == "unknown_user");
  CHECK(Api::code(ask(api.user, open, R"("user_id":")" + api.admin_id + "\"," + tool("x"))) == "forbidden");
  CHECK(Api::code(ask(api.user, open, R"("user_id":")" + kNobody + "\"," + tool("x"))) == "forbidden");
  CHECK(ask(api.user, open, about + tool("read_it")).status == 200);
  CHECK(Api::field(ask(api.user, open, R"("resource_type":"tool")")) == "name");
  CHECK(Api::field(ask(api.user, open, R"("name":"x")")) == "resource_type");
  for (const AuditRecord& row : api.live.rows) CHECK(row.method != "POST /api/policies/evaluate");
}
