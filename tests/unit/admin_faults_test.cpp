// Storage that fails at every single step of every write of the API: nothing is half-done, and trying again
// works.
#include <functional>
#include <set>

#include "admin_support.hpp"
#include "storage/records.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

namespace {

const Error kAway{ErrorCode::unavailable, "storage_unavailable", "The storage does not answer"};

/// Everything that is stored: keys, versions, bytes.
std::string dump(Storage& storage) {
  namespace c = detail::collection;
  std::string out;
  for (const auto name : {c::kUsers, c::kTokens, c::kTargets, c::kTargetTokens, c::kEnv, c::kPolicies,
                          c::kSessions, c::kUserSessions, c::kUserEmail, c::kTargetName, c::kTargetSlug,
                          c::kUserRefs, c::kTargetRefs, c::kMeta}) {
    const auto records = storage.list(name, "", "", 0);
    REQUIRE(records);
    for (const Record& one : *records)
      out += one.collection + " " + one.key + " " + std::to_string(one.version) + " " + one.value + "\n";
  }
  return out;
}

std::uint64_t sealed_rows(const Repository& repository) {
  std::uint64_t rows = 0;
  for (const auto& target : repository.targets())
    rows += repository.env_rows(target->id).size() + repository.target_tokens(target->id).size();
  return rows;
}

/// Everything that the process holds in memory, as admins see it.
std::string seen(Api& api) {
  std::string out;
  const auto add = [&](const std::string& path) { out += api.call(api.admin, "GET", path).body + "\n"; };
  for (const char* path : {"/api/users", "/api/targets", "/api/policies"}) add(path);
  for (const auto& user : api.repository->users()) add("/api/users/" + user->id + "/tokens");
  for (const auto& target : api.repository->targets()) {
    add("/api/targets/" + target->id + "/env");
    add("/api/targets/" + target->id + "/tokens");
  }
  return out;
}

/// The same world for every route: users, tokens of both kinds, a target of each kind with values in every
/// scope, policies, sessions.
struct World : Api {
  std::string ann, ann_login, ann_token, http, process, policy, subject, ann_token_id;

  World() {
    const std::string password = "correct horse";
    ann = add_user("ann@example.test", "admin", password);
    add_user("second@example.test", "admin");
    ann_login = (*auth->mint(ann, "Login", TokenKind::login, {"mcp", "api"}, std::nullopt)).token;
    const auto minted = *auth->mint(ann, "laptop", TokenKind::api, {"mcp", "api"}, std::nullopt);
    ann_token = minted.token;
    ann_token_id = minted.row.id;
    http = make_target("crm", R"(,"auth_type":"bearer")");
    process = make_stdio("tools", R"(,"isolation_boundary":"per_user","user_env_keys":["*"])");
    open_to_all();
    for (const std::string& id : {http, process})
      for (const ScopeRef& scope : {ScopeRef{Scope::everyone, ""}, ScopeRef{Scope::role, "dev"},
                                    ScopeRef{Scope::group, "ops"}, ScopeRef{Scope::user, ann}}) {
        REQUIRE(repository->set_env(id, scope, {{"A", "one", {}}, {"B", "two", {}}}));
        REQUIRE(repository->set_target_token(id, scope, "the token"));
      }
    Policy made;
    made.name = "bound";
    made.effect = Effect::allow;
    made.target_id = http;
    Subject person, role;
    person.type = SubjectType::user;
    person.value = ann;
    role.type = SubjectType::role;
    role.value = "dev";
    made.subjects = {person, role};
    const auto stored = *repository->create_policy(made);
    policy = stored.id;
    subject = stored.subjects[0].id;
    for (int i = 0; i < 3; ++i) {
      SessionRecord session;
      session.id = "session-" + std::to_string(i);
      session.user_id = ann;
      session.protocol_version = "2025-11-25";
      session.initialize_params = "{}";
      session.created_at = session.last_active_at = clock->now();
      REQUIRE(repository->save_session(session));
    }
    // The note that a token was used is written once a minute, and the clock stands still.
    for (const std::string& who : {admin, Api::user, ann_login, ann_token}) call(who, "GET", "/api/auth/me");
    live.rows.clear();
  }
};

struct Write {
  const char* route;  ///< method and template, as in the route table
  std::string World::*who;
  std::function<std::string(const World&)> path;
  std::function<std::string(const World&)> body;
  int status;
};

std::function<std::string(const World&)> text(std::string value) {
  return [value](const World&) { return value; };
}

std::vector<Write> writes() {
  std::vector<Write> out;
  const auto add = [&](const char* route, std::string World::*who,
                       std::function<std::string(const World&)> path,
                       std::function<std::string(const World&)> body, int status) {
    out.push_back({route, who, std::move(path), std::move(body), status});
  };
  const auto under_http = [](const std::string& rest) {
    return [rest](const World& w) { return "/api/targets/" + w.http + rest; };
  };
  const auto user_path = [](const std::string& rest) {
    return [rest](const World& w) { return "/api/users/" + w.ann + rest; };
  };
  const auto policy_path = [](const std::string& rest) {
    return [rest](const World& w) { return "/api/policies/" + w.policy + rest; };
  };
  const auto none = text("");

  add("POST /api/auth/register", nullptr, text("/api/auth/register"),
      text(R"({"email":"new@example.test","password":"correct horse"})"), 201);
  add("POST /api/auth/login", nullptr, text("/api/auth/login"),
      text(R"({"email":"ann@example.test","password":"correct horse"})"), 200);
  add("POST /api/auth/tokens", &World::ann_token, text("/api/auth/tokens"), text(R"({"name":"more"})"), 201);
  add(
      "DELETE /api/auth/tokens/{id}", &World::ann_login,
      [](const World& w) { return "/api/auth/tokens/" + w.ann_token_id; }, none, 204);
  add("POST /api/auth/logout", &World::ann_login, text("/api/auth/logout"), none, 204);
  add("POST /api/auth/password", &World::ann_login, text("/api/auth/password"),
      text(R"({"old_password":"correct horse","new_password":"battery staple","revoke_api_tokens":true})"),
      204);

  add("POST /api/users", &World::admin, text("/api/users"),
      text(R"({"email":"new@example.test","password":"correct horse","role":"admin","groups":["ops"]})"),
      201);
  add("PUT /api/users/{id}", &World::admin, user_path(""),
      text(R"({"role":"user","groups":["a","b"],"password":"battery staple","revoke_api_tokens":true})"),
      200);
  add("PUT /api/users/{id}", &World::admin, user_path(""), text(R"({"enabled":false})"), 200);
  add("DELETE /api/users/{id}", &World::admin, user_path(""), none, 204);
  add(
      "DELETE /api/users/{id}/tokens/{tokenId}", &World::admin,
      [](const World& w) { return "/api/users/" + w.ann + "/tokens/" + w.ann_token_id; }, none, 204);

  add("POST /api/targets", &World::admin, text("/api/targets"),
      text(
          R"({"name":"new","url":"https://new.example/mcp","tls":{"client_key":"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n","client_cert":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"}})"),
      201);
  add("PUT /api/targets/{id}", &World::admin, under_http(""), text(R"({"name":"renamed","slug":"other"})"),
      200);
  add("PUT /api/targets/{id}", &World::admin, under_http(""),
      text(R"({"url":"https://other.example/mcp","keep_credentials":false})"), 200);
  add("DELETE /api/targets/{id}", &World::admin, under_http(""), none, 204);

  add("PUT /api/targets/{id}/token", &World::user, under_http("/token"), text(R"({"token":"mine"})"), 200);
  add("DELETE /api/targets/{id}/token", &World::ann_token, under_http("/token"), none, 204);
  add("PUT /api/targets/{id}/tokens/role", &World::admin, under_http("/tokens/role"),
      text(R"({"role":"new","token":"t"})"), 200);
  add("DELETE /api/targets/{id}/tokens/role/{role}", &World::admin, under_http("/tokens/role/dev"), none,
      204);
  add("PUT /api/targets/{id}/tokens/group", &World::admin, under_http("/tokens/group"),
      text(R"({"group_name":"ops","token":"another"})"), 200);
  add("DELETE /api/targets/{id}/tokens/group/{group}", &World::admin, under_http("/tokens/group/ops"), none,
      204);
  add("PUT /api/targets/{id}/tokens/default", &World::admin, under_http("/tokens/default"),
      text(R"({"token":"another"})"), 200);
  add("DELETE /api/targets/{id}/tokens/default", &World::admin, under_http("/tokens/default"), none, 204);

  add(
      "POST /api/policies", &World::admin, text("/api/policies"),
      [](const World& w) {
        return R"({"name":"new","effect":"deny","target_id":")" + w.http +
               R"(","subjects":[{"subject_type":"everyone"},{"subject_type":"user","subject_value":")" +
               w.ann + "\"}]}";
      },
      201);
  add("PUT /api/policies/{id}", &World::admin, policy_path(""),
      text(R"({"target_id":null,"effect":"deny","subjects":[{"subject_type":"everyone"}]})"), 200);
  add("DELETE /api/policies/{id}", &World::admin, policy_path(""), none, 204);
  add("POST /api/policies/{id}/subjects", &World::admin, policy_path("/subjects"),
      text(R"({"subject_type":"group","subject_value":"ops"})"), 201);
  add(
      "DELETE /api/policies/{id}/subjects/{subjectId}", &World::admin,
      [](const World& w) { return "/api/policies/" + w.policy + "/subjects/" + w.subject; }, none, 204);

  struct ScopePath {
    const char *route, *path;
  };
  for (const ScopePath& scope :
       {ScopePath{"default", "default"}, ScopePath{"role/{scopeValue}", "role/dev"},
        ScopePath{"group/{scopeValue}", "group/ops"}, ScopePath{"user/{scopeValue}", "user/"}}) {
    static std::vector<std::unique_ptr<std::string>> names;
    const auto name = [&](const char* method, const char* rest) {
      names.push_back(std::make_unique<std::string>(std::string(method) + " /api/targets/{id}/env/" +
                                                    scope.route + rest));
      return names.back()->c_str();
    };
    const auto path = [scope](const char* rest) {
      return [scope, rest](const World& w) {
        const std::string value = std::string(scope.path) == "user/" ? "user/" + w.ann : scope.path;
        return "/api/targets/" + w.http + "/env/" + value + rest;
      };
    };
    add(name("POST", ""), &World::ann_token, path(""), text(R"({"key":"A","value":"v","description":"d"})"),
        200);
    add(name("PUT", ""), &World::ann_token, path(""), text(R"({"configs":{"A":"1","C":"2","D":"3"}})"), 200);
    add(name("DELETE", "/{key}"), &World::ann_token, path("/A"), none, 204);
  }
  return out;
}

/// Routes that change nothing in storage by themselves: what they do is live.
bool stores_nothing(const std::string& route) {
  return route == "POST /api/policies/evaluate" || route == "POST /api/targets/{id}/test" ||
         route == "POST /api/targets/{id}/restart-instances" || route == "POST /api/sessions/recycle" ||
         route == "POST /api/users/{id}/recycle" ||
         route == "POST /api/observability/ticket";  // that is for the live state, a fake here
}

HttpResponse send(World& world, const Write& write) {
  const std::string route = write.route;
  return world.call(write.who == nullptr ? std::string() : world.*write.who, route.substr(0, route.find(' ')),
                    write.path(world), write.body(world));
}

}  // namespace

TEST_CASE("R94: every write of the API is tried here") {
  std::set<std::string> tried;
  for (const Write& write : writes()) tried.insert(write.route);
  for (const auto& route : AdminApi::routes()) {
    const std::string name = route.method + " " + route.path;
    if (route.method == "GET" || stores_nothing(name)) continue;
    CHECK_MESSAGE(tried.erase(name) == 1, name);
  }
  for (const std::string& unknown : tried) FAIL_CHECK(unknown);
}

TEST_CASE("R94: whichever step of a write fails, nothing is half-done, and trying again works") {
  for (const Write& write : writes()) {
    CAPTURE(write.route);
    CAPTURE(write.body(World()));
    World world;
    const std::string before = dump(*world.storage), shown = seen(world);
    int steps = 0;
    for (int nth = 1; nth <= 200; ++nth) {
      CAPTURE(nth);
      world.storage->fail_call(nth, kAway);
      const HttpResponse answer = send(world, write);
      if (world.storage->failure_pending()) {
        // It took fewer steps than that: this one was not disturbed.
        world.storage->heal();
        CHECK_MESSAGE(answer.status == write.status, answer.body);
        break;
      }
      ++steps;
      CHECK_MESSAGE(answer.status == 503, answer.body);
      CHECK(Api::code(answer) == "storage_unavailable");
      CHECK(answer.header("Retry-After") != nullptr);
      CHECK(answer.body.find("token\":\"ey") == std::string::npos);  // no token that has no row
      CHECK(dump(*world.storage) == before);
      CHECK(seen(world) == shown);
      CHECK(world.row().response_status == 503);
      CHECK(world.row().error_code == "storage_unavailable");
    }
    // At least one read and the commit.
    CHECK(steps >= 2);
    CHECK(dump(*world.storage) != before);
  }
}

TEST_CASE("R94: a commit whose answer is lost is told as failed, and memory follows what is stored") {
  for (const Write& write : writes()) {
    CAPTURE(write.route);
    World world;
    world.storage->fail_commit(1, kAway, true);
    const HttpResponse answer = send(world, write);
    REQUIRE_FALSE(world.storage->failure_pending());
    CHECK_MESSAGE(answer.status == 503, answer.body);
    // What another process would load from that storage now.
    RepositoryOptions options;
    options.storage = world.storage;
    options.clock = world.clock;
    options.keys.current = "0123456789abcdefghijklmnopqrstuv";
    const auto fresh = *Repository::open(options);
    const auto state = [](const Repository& r) {
      std::string out;
      for (const auto& user : r.users()) {
        out += user->id + std::to_string(user->version) + user->role + (user->enabled ? "+" : "-");
        for (const auto& token : r.tokens_of(user->id)) out += token->id + (token->revoked_at ? "x" : "o");
      }
      for (const auto& target : r.targets()) out += target->id + std::to_string(target->version);
      for (const auto& policy : r.policies()) out += policy->id + std::to_string(policy->version);
      return out + std::to_string(sealed_rows(r));
    };
    const std::string wanted = state(*fresh);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (state(*world.repository) != wanted && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(state(*world.repository) == wanted);
    // Whoever repeats it gets an answer that fits: done, done already, or gone already.
    const HttpResponse again = send(world, write);
    CHECK_MESSAGE((again.status == write.status || again.status == 409 || again.status == 404 ||
                   again.status == 401 || again.status == 403),
                  again.body);
  }
}

TEST_CASE("R45: the last enabled admin stays, whatever two requests do at once") {
  const std::vector<std::pair<std::string, std::string>> ways{{"PUT", R"({"role":"user"})"},
                                                              {"PUT", R"({"enabled":false})"},
                                                              {"PUT", R"({"role":"user","enabled":false})"},
                                                              {"DELETE", ""}};
  for (const auto& first : ways)
    for (const auto& second : ways) {
      CAPTURE(first.first + first.second);
      CAPTURE(second.first + second.second);
      Api api;
      // Of a user each, both by a third party: an admin whose token stays good whoever wins would be a third
      // admin, so the requests are the two admins' own.
      const std::string other = api.add_user("other@example.test", "admin");
      const std::string ids[] = {api.admin_id, other};
      const std::string tokens[] = {api.admin, api.token(other, {"api"})};
      HttpResponse answers[2];
      in_parallel(2, [&](int i) {
        const auto& way = i == 0 ? first : second;
        answers[i] = api.call(tokens[i], way.first, "/api/users/" + ids[1 - i], way.second);
      });
      int admins = 0, done = 0;
      for (const auto& user : api.repository->users())
        admins += user->enabled && user->role == "admin" ? 1 : 0;
      CHECK(admins == 1);
      for (const HttpResponse& answer : answers) {
        const bool fine = answer.status == 200 || answer.status == 204;
        done += fine ? 1 : 0;
        // Refused as the last one, or as somebody who meanwhile is none.
        if (!fine)
          CHECK_MESSAGE((Api::code(answer) == "last_admin" || answer.status == 401 || answer.status == 403 ||
                         answer.status == 404),
                        answer.body);
      }
      CHECK(done == 1);
    }
}

TEST_CASE("R45: the last admin cannot go by their own hand either") {
  Api api;
  const std::string path = "/api/users/" + api.admin_id;
  const std::string before = api.call(api.admin, "GET", path).body;
  for (const auto& [method, body] :
       std::vector<std::pair<std::string, std::string>>{{"PUT", R"({"role":"user"})"},
                                                        {"PUT", R"({"role":"Admin"})"},
                                                        {"PUT", R"({"enabled":false})"},
                                                        {"DELETE", ""}}) {
    const auto answer = api.call(api.admin, method, path, body);
    CHECK(answer.status == 409);
    CHECK(Api::code(answer) == "last_admin");
    CHECK(api.call(api.admin, "GET", path).body == before);
  }
  // A disabled admin does not count.
  const std::string other = api.add_user("other@example.test", "admin");
  CHECK(api.call(api.admin, "PUT", "/api/users/" + other, R"({"enabled":false})").status == 200);
  CHECK(Api::code(api.call(api.admin, "DELETE", path)) == "last_admin");
  CHECK(api.call(api.admin, "PUT", "/api/users/" + other, R"({"enabled":true})").status == 200);
  CHECK(api.call(api.admin, "DELETE", path).status == 204);
}

TEST_CASE("R94: a recycle that storage cannot be told of closes nothing and says so") {
  Api api;
  api.live.away = true;
  for (const std::string& path :
       {std::string("/api/sessions/recycle"), "/api/users/" + api.user_id + "/recycle"}) {
    const auto answer = api.call(api.admin, "POST", path);
    CHECK(answer.status == 503);
    CHECK(Api::code(answer) == "storage_unavailable");
  }
}

TEST_CASE("R91: user and password that somebody writes into a URL are refused, not told and not kept") {
  Api api;
  const std::string id = api.make_target("crm");
  for (const char* url : {"https://ann:canary@h.example/mcp", "https://canary@h.example",
                          "https://a:b@canary@h.example/x@y", "ftp://ann:canary@h.example"}) {
    CAPTURE(std::string(url));
    for (const auto& [method, path] : std::vector<std::pair<std::string, std::string>>{
             {"POST", "/api/targets"}, {"PUT", "/api/targets/" + id}}) {
      const auto answer =
          api.call(api.admin, method, path, R"({"name":"x","url":")" + std::string(url) + "\"}");
      CHECK(answer.status == 400);
      CHECK(Api::field(answer) == "url");
      CHECK(answer.body.find("canary") == std::string::npos);
      CHECK(api.row().request_body.find("canary") == std::string::npos);
      CHECK(api.row().request_body.find("h.example") != std::string::npos);
    }
  }
  // In the arguments of a process it is as permitted as it is careless.
  CHECK(api.call(api.admin, "PUT", "/api/targets/" + id,
                 R"({"args":["--db","postgres://ann:canary@db.example/x","a@b"]})")
            .status == 200);
  CHECK(api.row().request_body.find("canary") == std::string::npos);
  CHECK(api.row().request_body.find("a@b") != std::string::npos);
}
