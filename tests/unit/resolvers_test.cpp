#include "mcpgw/resolvers.hpp"

#include <doctest/doctest.h>

#include "repository_support.hpp"

using namespace mcpgw;
using namespace mcpgw::test;

namespace {

const std::string kUser = "11111111-1111-4111-8111-111111111111";

struct ResolverFixture {
  std::shared_ptr<Repository> repository;
  Principal who;

  ResolverFixture() {
    RepositoryOptions options;
    options.storage = make_memory_storage();
    options.keys = keys();
    repository = must(Repository::open(options));
    User user;
    user.id = kUser;
    user.email = "u@example.test";
    user.role = "dev";
    user.groups = {"g1", "g2"};
    must(repository->create_user(user));
    who.user_id = kUser;
    who.role = "dev";
    who.groups = {"g1", "g2"};
  }

  Target make(TransportType transport, Isolation isolation = Isolation::shared,
              AuthType auth = AuthType::bearer) {
    Target out;
    out.name = "t" + std::to_string(repository->targets().size());
    out.transport_type = transport;
    out.isolation_boundary = isolation;
    out.auth_type = auth;
    if (out.is_process())
      out.command = "run";
    else
      out.url = "https://t.example/mcp";
    return must(repository->create_target(out));
  }

  void set_everywhere(const Target& target, const std::string& key) {
    for (const auto& [scope, value] :
         {std::pair(Scope::user, kUser), std::pair(Scope::group, std::string("g1")),
          std::pair(Scope::group, std::string("g2")), std::pair(Scope::role, std::string("dev")),
          std::pair(Scope::everyone, std::string())})
      must(repository->set_env(target.id, {scope, value}, {{key, "from " + label({scope, value}), {}}}));
  }

  static std::string label(const ScopeRef& scope) {
    return std::string(detail::to_text(scope.scope)) +
           (scope.value.empty() || scope.scope == Scope::user ? "" : ":" + scope.value);
  }

  std::string env(const Target& target, const std::string& key) {
    auto values = must(EnvResolver(repository).resolve(who, target));
    return values.contains(key) ? values[key] : "";
  }
  std::string scopes(const Target& target) {
    std::string out;
    for (const ScopeRef& scope : applicable_scopes(*repository, who, target)) out += label(scope) + " ";
    return out;
  }
};

}  // namespace

TEST_CASE("R4, R55: the isolation boundary limits the scopes of processes, in one order") {
  ResolverFixture f;
  CHECK(f.scopes(f.make(TransportType::streamable_http)) == "user group:g1 group:g2 role:dev default ");
  CHECK(f.scopes(f.make(TransportType::stdio, Isolation::shared)) == "default ");
  CHECK(f.scopes(f.make(TransportType::stdio, Isolation::per_role)) == "role:dev default ");
  CHECK(f.scopes(f.make(TransportType::stdio, Isolation::per_user)) ==
        "user group:g1 group:g2 role:dev default ");
  const Target per_group = f.make(TransportType::stdio, Isolation::per_group);
  CHECK(f.scopes(per_group) == "group:g1 default ");
  CHECK(boundary_subject(*f.repository, f.who, per_group) == "group:g1");
  // The first of the user's groups that has something on this target.
  must(f.repository->set_target_token(per_group.id, {Scope::group, "g2"}, "x"));
  CHECK(f.scopes(per_group) == "group:g2 default ");
  CHECK(boundary_subject(*f.repository, f.who, per_group) == "group:g2");
  Target odd = per_group;
  odd.isolation_boundary = static_cast<Isolation>(77);
  CHECK(f.scopes(odd) == "user group:g1 group:g2 role:dev default ");  // R63
  CHECK(boundary_subject(*f.repository, f.who, f.make(TransportType::streamable_http)) == "user:" + kUser);
  CHECK(boundary_subject(*f.repository, f.who, f.make(TransportType::stdio)).empty());
}

TEST_CASE("R55: key by key the narrowest scope wins, the first listed group before the next") {
  ResolverFixture f;
  const Target http = f.make(TransportType::streamable_http);
  f.set_everywhere(http, "KEY");
  CHECK(f.env(http, "KEY") == "from user");
  must(f.repository->delete_env(http.id, {Scope::user, kUser}, "KEY"));
  CHECK(f.env(http, "KEY") == "from group:g1");
  must(f.repository->delete_env(http.id, {Scope::group, "g1"}, "KEY"));
  CHECK(f.env(http, "KEY") == "from group:g2");
  f.who.groups = {};
  CHECK(f.env(http, "KEY") == "from role:dev");
  f.who.role = "x";
  CHECK(f.env(http, "KEY") == "from default");
  const auto sources = EnvResolver(f.repository).sources(f.who, http);
  REQUIRE(sources.size() == 1);
  CHECK(ResolverFixture::label(sources[0].scope) == "default");
}

TEST_CASE("the credential: per scope its AUTH_TOKEN first, then its token; narrow scopes before wide ones") {
  ResolverFixture f;
  const Target http = f.make(TransportType::streamable_http);
  const TokenResolver resolver(f.repository);
  CHECK_FALSE(must(resolver.resolve(f.who, http)));
  must(f.repository->set_env(http.id, {Scope::everyone, ""}, {{"AUTH_TOKEN", "default env", {}}}));
  must(f.repository->set_target_token(http.id, {Scope::everyone, ""}, "default token"));
  CHECK(must(resolver.resolve(f.who, http))->value == "default env");
  must(f.repository->set_target_token(http.id, {Scope::role, "dev"}, "role token"));
  CHECK(must(resolver.resolve(f.who, http))->value == "role token");
  must(f.repository->set_env(http.id, {Scope::user, kUser}, {{"AUTH_TOKEN", "user env", {}}}));
  must(f.repository->set_target_token(http.id, {Scope::user, kUser}, "user token"));
  CHECK(must(resolver.resolve(f.who, http))->value == "user env");
  must(f.repository->delete_env(http.id, {Scope::user, kUser}, "AUTH_TOKEN"));
  CHECK(must(resolver.resolve(f.who, http))->value == "user token");

  const Target none = f.make(TransportType::streamable_http, Isolation::shared, AuthType::none);
  must(f.repository->set_target_token(none.id, {Scope::user, kUser}, "unused"));
  CHECK_FALSE(must(resolver.resolve(f.who, none)));
  must(f.repository->set_env(none.id, {Scope::everyone, ""}, {{"AUTH_TOKEN", "env works", {}}}));
  CHECK(must(resolver.resolve(f.who, none))->value == "env works");
}

TEST_CASE("R58: the form of the credential") {
  Target target;
  target.url = "https://t.example/mcp";
  const auto header = [&](const std::string& value, std::map<std::string, std::string> env = {}) {
    const auto access = must(http_target_access(target, env, ResolvedCredential{value, {}, false}));
    return access.headers.back().first + ": " + access.headers.back().second;
  };
  target.auth_type = AuthType::bearer;
  CHECK(header("abc") == "Authorization: Bearer abc");
  CHECK(header("Basic abc") == "Authorization: Basic abc");
  CHECK(header("abc", {{"AUTH_HEADER", "X-Key"}}) == "X-Key: abc");
  CHECK(header("abc", {{"AUTH_HEADER", "authorization"}}) == "authorization: Bearer abc");
  target.auth_type = AuthType::header;
  target.auth_header_name = "X-Api-Key";
  CHECK(header("abc") == "X-Api-Key: abc");
  target.auth_header_name = "Authorization";
  CHECK(header("abc") == "Authorization: abc");
  target.auth_type = AuthType::none;
  CHECK(header("abc") == "Authorization: Bearer abc");
}

TEST_CASE("R56, R57: environment as headers, overrides, and values that cannot be used") {
  Target target;
  target.url = "https://t.example/mcp";
  target.timeout_ms = 5000;
  auto access = must(http_target_access(
      target, {{"DB_PASS", "x"}, {"BASE_URL", "https://other.example/m"}, {"TIMEOUT", "1m30s"}}, {}));
  CHECK(access.url == "https://other.example/m");
  CHECK(access.timeout_ms == 90000);
  REQUIRE(access.headers.size() == 1);
  CHECK(access.headers[0].first == "X-Env-DB-PASS");
  for (const auto& env : std::vector<std::map<std::string, std::string>>{{{"BASE_URL", "file:///etc/passwd"}},
                                                                         {{"TIMEOUT", "soon"}},
                                                                         {{"AUTH_HEADER", "Host"}},
                                                                         {{"AUTH_HEADER", "X Y"}},
                                                                         {{"A", "x\r\nHost: evil"}},
                                                                         {{"A", "\xff"}}}) {
    const auto refused = http_target_access(target, env, {});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().reason == "credential_unavailable");
    CHECK(refused.error().message.find("evil") == std::string::npos);
  }
  CHECK_FALSE(http_target_access(target, {}, ResolvedCredential{"a\nb", {}, false}));
}
