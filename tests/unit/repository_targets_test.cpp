// Targets, target tokens and env rows.
#include "base/text.hpp"
#include "repository_support.hpp"
#include "storage/validate.hpp"

using namespace mcpgw;        // NOLINT
using namespace mcpgw::test;  // NOLINT

namespace {

const std::string kCert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const std::string kKey = "-----BEGIN PRIVATE KEY-----\nsecret-key-text\n-----END PRIVATE KEY-----\n";

Target with_key(Target target) {
  target.tls.emplace();
  target.tls->client_cert = kCert;
  target.tls->client_key = kKey;
  return target;
}

TargetUpdate edit(const Target& target) {
  TargetUpdate update;
  update.target = target;
  return update;
}

}  // namespace

TEST_CASE("a target's name is unique ignoring case, its slug derived") {
  Fixture f;
  const Target first = f.target("  My Server ");
  CHECK(first.name == "My Server");
  CHECK(first.slug == "my-server");
  CHECK(first.port == 8080);
  Target again;
  again.name = "MY server";
  again.url = "https://other.example";
  CHECK(reason(f->create_target(again)) == "name_taken");
  again.name = "my.server";
  CHECK(must(f->create_target(again)).slug == "my-server-2");
  again.name = "my_server";
  CHECK(must(f->create_target(again)).slug == "my-server-3");
  again.name = "fresh";
  again.slug = "my-server";
  const auto taken = f->create_target(again);
  CHECK(reason(taken) == "slug_taken");
  CHECK(field(taken) == "slug");
  CHECK(f->target_by_name("my SERVER")->id == first.id);
  CHECK(f->target(first.id)->url == "https://mcp.example.com/mcp");
  CHECK(f->targets().size() == 3);
  CHECK(f->targets().front()->name == "My Server");
}

TEST_CASE("a rename leaves the slug and frees the old name") {
  Fixture f;
  Target target = f.target("one");
  target.name = "two";
  const auto renamed = must(f->update_target(edit(target)));
  CHECK(renamed.target.slug == "one");
  CHECK(f->target_by_name("one") == nullptr);
  CHECK(f->target_by_name("two")->id == target.id);
  CHECK(f.target("one").slug == "one-2");
  target = renamed.target;
  target.name = "TWO";  // its own name in another case
  CHECK(must(f->update_target(edit(target))).target.name == "TWO");
  target.name = "One";
  CHECK(reason(f->update_target(edit(target))) == "name_taken");
  target.name = "TWO";
  target.slug = "one-2";
  CHECK(reason(f->update_target(edit(target))) == "slug_taken");
  target.slug = "new";
  must(f->update_target(edit(target)));
  Target reuse;
  reuse.name = "three";
  reuse.slug = "one";
  reuse.url = "http://h";
  must(f->create_target(reuse));
}

TEST_CASE("updates of targets honour versions and keep what they must") {
  Fixture f;
  Target target = f.target("t");
  const Time created = target.created_at;
  f.clock->advance(std::chrono::seconds(1));
  TargetUpdate update = edit(target);
  update.target.enabled = false;
  update.if_version = target.version + 7;
  CHECK(reason(f->update_target(update)) == "precondition_failed");
  CHECK(f->target(target.id)->enabled);
  update.if_version = target.version;
  update.target.created_at = {};
  const auto result = must(f->update_target(update));
  CHECK_FALSE(f->target(target.id)->enabled);
  CHECK(result.target.created_at == created);
  CHECK(result.target.updated_at == f.clock->now());
  CHECK(result.target.version == f->target(target.id)->version);
  update = edit(target);
  update.target.id = "0f8fad5b-d9cb-469f-a165-70867728950e";
  CHECK(reason(f->update_target(update)) == "target_not_found");
  update = edit(target);
  update.target.url = "ftp://x";
  CHECK(field(f->update_target(update)) == "url");
}

TEST_CASE("stdio targets obey the configuration") {
  Fixture f;
  Target target;
  target.name = "t";
  target.transport_type = TransportType::stdio;
  target.command = "server";
  auto options = f.options();
  options.stdio_enabled = false;
  auto repository = must(Repository::open(options));
  CHECK(reason(repository->create_target(target)) == "transport_disabled");
  options.stdio_enabled = true;
  options.stdio_allowed_commands = {"other"};
  repository = must(Repository::open(options));
  CHECK(reason(repository->create_target(target)) == "command_not_allowed");
  target.command = "other";
  Target made = must(repository->create_target(target));
  made.command = "server";  // R1: an edit is judged like a creation
  CHECK(reason(repository->update_target(edit(made))) == "command_not_allowed");
}

TEST_CASE("R90: a change of destination asks what becomes of credentials") {
  Fixture f;
  const User alice = f.user("alice");
  Target target = f.target("t", "https://a.example/mcp");

  SUBCASE("nothing stored, nothing asked") {
    target.url = "https://b.example/mcp";
    CHECK(must(f->update_target(edit(target))).credentials_dropped == 0);
  }
  SUBCASE("rows are stored") {
    must(f->set_target_token(target.id, kDefaultScope, "secret"));
    must(f->set_target_token(target.id, {Scope::user, alice.id}, "own"));
    must(f->set_env(target.id, {Scope::role, "user"}, {{"K", "v", {}}}));
    SUBCASE("another path is the same destination") {
      target.url = "https://A.example:443/other?x=1";
      const auto result = must(f->update_target(edit(target)));
      CHECK(result.credentials_dropped == 0);
      CHECK(f->target_tokens(target.id).size() == 2);
    }
    SUBCASE("sse and streamable HTTP are the same kind") {
      target.transport_type = TransportType::sse;
      must(f->update_target(edit(target)));
    }
    SUBCASE("another host, port, scheme or kind is refused without an answer") {
      const std::string before = dump(*f.memory);
      for (const char* url :
           {"https://b.example/mcp", "https://a.example:8443/mcp", "http://a.example/mcp"}) {
        target.url = url;
        const auto result = f->update_target(edit(target));
        CHECK(reason(result) == "credentials_bound");
        CHECK(result.error().message.find('3') != std::string::npos);
      }
      target.url = "https://a.example/mcp";
      target.transport_type = TransportType::stdio;
      target.command = "server";
      CHECK(reason(f->update_target(edit(target))) == "credentials_bound");
      CHECK(dump(*f.memory) == before);
    }
    SUBCASE("kept when told so") {
      TargetUpdate update = edit(target);
      update.target.url = "https://b.example";
      update.keep_credentials = true;
      CHECK(must(f->update_target(update)).credentials_dropped == 0);
      CHECK(must(f->reveal_target_token(target.id, kDefaultScope)) == "secret");
    }
    SUBCASE("dropped when told so, in the same transaction") {
      TargetUpdate update = edit(target);
      update.target.url = "https://b.example";
      update.keep_credentials = false;
      const std::string before = dump(*f.memory);
      const std::string in_memory = dump(*f);
      f.storage->fail_commit(1, Error(ErrorCode::unavailable, "storage_unavailable", "away"));
      CHECK(reason(f->update_target(update)) == "storage_unavailable");
      CHECK(dump(*f.memory) == before);
      CHECK(dump(*f) == in_memory);
      CHECK(must(f->update_target(update)).credentials_dropped == 3);
      CHECK(f->target_tokens(target.id).empty());
      CHECK(f->env_rows(target.id).empty());
      CHECK(must(f->reveal_target_token(target.id, kDefaultScope)) == std::nullopt);
    }
  }
  SUBCASE("a client key is a credential") {
    target = must(f->update_target(edit(with_key(target)))).target;
    TargetUpdate update = edit(target);
    update.target.url = "https://b.example";
    CHECK(reason(f->update_target(update)) == "credentials_bound");
    SUBCASE("dropped") {
      update.keep_credentials = false;
      const auto result = must(f->update_target(update));
      CHECK(result.credentials_dropped == 1);
      REQUIRE(f->target(target.id)->tls);
      CHECK(f->target(target.id)->tls->client_key.empty());
      CHECK(f->target(target.id)->tls->client_cert.empty());
      // What is left can be edited.
      TargetUpdate next = edit(result.target);
      next.target.enabled = false;
      must(f->update_target(next));
    }
    SUBCASE("replaced by the edit itself") {
      const std::string other = "-----BEGIN PRIVATE KEY-----\nother\n-----END PRIVATE KEY-----\n";
      update.keep_credentials = false;
      update.target.tls->client_key = other;
      CHECK(must(f->update_target(update)).credentials_dropped == 1);
      CHECK(f->target(target.id)->tls->client_key == other);
    }
  }
  SUBCASE("kubernetes: the image without tag and digest") {
    Target pod;
    pod.name = "pod";
    pod.transport_type = TransportType::kubernetes;
    pod.image = "registry.example:5000/team/server:1.0";
    pod = must(f->create_target(pod));
    must(f->set_target_token(pod.id, kDefaultScope, "secret"));
    pod.image = "registry.example:5000/team/server:2.0";
    must(f->update_target(edit(pod)));
    pod.image = "registry.example:5000/team/server@sha256:" + std::string(64, 'a');
    must(f->update_target(edit(pod)));
    pod.image = "registry.example:5000/team/other:2.0";
    CHECK(reason(f->update_target(edit(pod))) == "credentials_bound");
  }
}

TEST_CASE("keys that only a process tells apart do not move to an HTTP target") {
  Fixture f;
  Target target = f.process("t");
  must(f->set_env(target.id, kDefaultScope, {{"key", "1", {}}, {"KEY", "2", {}}}));
  TargetUpdate update = edit(target);
  update.target.transport_type = TransportType::streamable_http;
  update.target.url = "https://a.example";
  update.keep_credentials = true;
  CHECK(reason(f->update_target(update)) == "key_conflict");
  must(f->delete_env(target.id, kDefaultScope, "key"));
  must(f->update_target(update));
}

TEST_CASE("a client key is sealed in storage and readable in memory") {
  Fixture f;
  Target wanted;
  wanted.name = "t";
  wanted.url = "https://a.example";
  const Target target = must(f->create_target(with_key(wanted)));
  CHECK(target.tls->client_key == kKey);
  CHECK(f->target(target.id)->tls->client_key == kKey);
  CHECK(dump(*f.memory).find("secret-key-text") == std::string::npos);

  // With another encryption key it cannot be opened: the target is there, its key is no key.
  auto options = f.options();
  options.keys.current = std::string(32, 'x');
  int problems = 0;
  options.on_problem = [&](std::string_view) { ++problems; };
  auto other = must(Repository::open(options));
  REQUIRE(other->target(target.id));
  CHECK(other->target(target.id)->tls->client_key == detail::kUnreadableClientKey);
  CHECK(problems == 2);  // the value, and that the key in force is not known here
  CHECK(other->damaged_records() == 1);
  // An edit does not destroy what could be opened again with the right key.
  TargetUpdate update = edit(*other->target(target.id));
  update.target.enabled = false;
  must(other->update_target(update));
  // What it would seal now nobody else could open.
  TargetUpdate with_another = edit(with_key(*other->target(target.id)));
  CHECK(reason(other->update_target(with_another)) == "credential_unavailable");
  CHECK(reason(other->set_target_token(target.id, kDefaultScope, "token")) == "credential_unavailable");
  other.reset();
  f.repository = must(Repository::open(f.options()));
  CHECK(f->target(target.id)->tls->client_key == kKey);
  CHECK_FALSE(f->target(target.id)->enabled);
}

TEST_CASE("deleting a target removes all that belongs to it, and nothing else") {
  Fixture f;
  const User alice = f.user("alice");
  const Target gone = f.target("gone");
  const Target kept = f.target("kept");
  for (const Target& target : {gone, kept}) {
    must(f->set_target_token(target.id, kDefaultScope, "secret"));
    must(f->set_target_token(target.id, {Scope::user, alice.id}, "secret"));
    must(f->set_env(target.id, {Scope::group, "a/b"}, {{"K", "v", {}}, {"L", "w", {}}}));
  }
  const Policy bound = f.policy("bound", gone.id);
  const Policy other = f.policy("other", kept.id);
  const Policy all = f.policy("all");
  CHECK(reason(f->delete_target(gone.id, gone.version + 1)) == "precondition_failed");
  const std::uint64_t generation = f->policy_generation();
  must(f->delete_target(gone.id, gone.version));
  CHECK(f->policy_generation() > generation);
  CHECK(f->target(gone.id) == nullptr);
  CHECK(f->target_by_name("gone") == nullptr);
  CHECK(f->target_tokens(gone.id).empty());
  CHECK(f->env_rows(gone.id).empty());
  CHECK(f->policy(bound.id) == nullptr);
  CHECK(f->policy(other.id) != nullptr);
  CHECK(f->policy(all.id) != nullptr);
  CHECK(f->target_tokens(kept.id).size() == 2);
  CHECK(f->env_rows(kept.id).size() == 2);
  CHECK(dump(*f.memory).find(gone.id) == std::string::npos);
  CHECK(reason(f->delete_target(gone.id)) == "target_not_found");
  CHECK(reason(f->set_target_token(gone.id, kDefaultScope, "x")) == "target_not_found");
  CHECK(reason(f->set_env(gone.id, kDefaultScope, {{"K", "v", {}}})) == "target_not_found");
}

TEST_CASE("target tokens are stored per scope and replaced by the next") {
  Fixture f;
  const User alice = f.user("alice");
  const Target target = f.target("t");
  const std::vector<ScopeRef> scopes{kDefaultScope,
                                     {Scope::role, "user"},
                                     {Scope::group, "a/b c"},
                                     {Scope::group, "a"},
                                     {Scope::user, alice.id}};
  for (const ScopeRef& scope : scopes)
    must(f->set_target_token(target.id, scope,
                             "token " + scope.value + "/" + std::to_string(int(scope.scope))));
  for (const ScopeRef& scope : scopes)
    CHECK(must(f->reveal_target_token(target.id, scope)) ==
          "token " + scope.value + "/" + std::to_string(int(scope.scope)));
  const auto list = f->target_tokens(target.id);
  REQUIRE(list.size() == 5);
  CHECK(list[0].scope.scope == Scope::everyone);
  CHECK(list[1].scope.scope == Scope::role);
  CHECK(list[2].scope.value == "a");
  CHECK(list[3].scope.value == "a/b c");
  CHECK(list[4].scope.scope == Scope::user);
  CHECK(must(f->reveal_target_token(target.id, {Scope::role, "other"})) == std::nullopt);

  f.clock->advance(std::chrono::seconds(1));
  must(f->set_target_token(target.id, kDefaultScope, "new"));
  CHECK(must(f->reveal_target_token(target.id, kDefaultScope)) == "new");
  const auto row = f->target_token(target.id, kDefaultScope);
  REQUIRE(row);
  CHECK(row->updated_at == f.clock->now());
  CHECK(row->created_at < row->updated_at);
  CHECK(f->target_tokens(target.id).size() == 5);

  must(f->delete_target_token(target.id, kDefaultScope));
  CHECK_FALSE(f->target_token(target.id, kDefaultScope));
  CHECK(reason(f->delete_target_token(target.id, kDefaultScope)) == "token_not_set");
  CHECK(reason(f->delete_target_token("x", kDefaultScope)) == "target_not_found");
  must(f->set_target_token(target.id, kDefaultScope, "again"));
  CHECK(must(f->reveal_target_token(target.id, kDefaultScope)) == "again");

  CHECK(field(f->set_target_token(target.id, kDefaultScope, "")) == "token");
  CHECK(field(f->set_target_token(target.id, kDefaultScope, "a\nb")) == "token");
  CHECK(field(f->set_target_token(target.id, {Scope::role, "a b"}, "x")) == "role");
  CHECK(field(f->set_target_token(target.id, {Scope::group, "a,b"}, "x")) == "group");
  CHECK(reason(f->set_target_token(target.id, {Scope::user, "0f8fad5b-d9cb-469f-a165-70867728950e"}, "x")) ==
        "user_not_found");
  CHECK(dump(*f.memory).find("again") == std::string::npos);
}

TEST_CASE("env rows: upsert, order, descriptions") {
  Fixture f;
  const User alice = f.user("alice");
  const Target target = f.process("t");
  const auto rows = must(f->set_env(target.id, kDefaultScope, {{"B", "1", {"about b"}}, {"A", "2", {}}}));
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].key == "A");
  CHECK(rows[1].description == "about b");
  f.clock->advance(std::chrono::seconds(1));
  const auto again = must(f->set_env(target.id, kDefaultScope, {{"B", "3", {}}}));
  REQUIRE(again.size() == 2);
  CHECK(again[1].id == rows[1].id);
  CHECK(again[1].description == "about b");  // absent keeps
  CHECK(again[1].created_at == rows[1].created_at);
  CHECK(again[1].updated_at == f.clock->now());
  CHECK(must(f->set_env(target.id, kDefaultScope, {{"B", "3", {std::optional<std::string>()}}}))[1]
            .description == "");  // null clears
  CHECK(must(f->reveal_env(target.id, kDefaultScope)) ==
        std::map<std::string, std::string>{{"A", "2"}, {"B", "3"}});
  must(f->set_env(target.id, {Scope::user, alice.id}, {{"A", "u", {}}}));
  must(f->set_env(target.id, {Scope::group, "g"}, {{"A", "g", {}}}));
  must(f->set_env(target.id, {Scope::role, "r"}, {{"A", "r", {}}}));
  std::string order;
  for (const EnvRow& row : f->env_rows(target.id)) order += detail::to_text(row.scope.scope)[0] + row.key;
  CHECK(order == "dAdBrAgAuA");
  CHECK(must(f->set_env(target.id, kDefaultScope, {})).size() == 2);
  must(f->delete_env(target.id, kDefaultScope, "A"));
  CHECK(reason(f->delete_env(target.id, kDefaultScope, "A")) == "env_not_found");
  CHECK(reason(f->delete_env("x", kDefaultScope, "A")) == "target_not_found");
  CHECK(f->env_rows(target.id, kDefaultScope).size() == 1);
  CHECK(f->env_rows(target.id, {Scope::role, "r"}).size() == 1);
}

TEST_CASE("R57: env writes are checked and all or nothing") {
  Fixture f;
  const Target http = f.target("h");
  const Target process = f.process("p");
  const auto write = [&](const Target& target, std::vector<Repository::EnvWrite> writes) {
    return f->set_env(target.id, kDefaultScope, writes);
  };
  CHECK(reason(write(http, {{"OK", "v", {}}, {"1BAD", "v", {}}})) == "invalid_key");
  CHECK(reason(write(http, {{"OK", "v", {}}, {"B", "a\r\nb", {}}})) == "invalid_value");
  CHECK(reason(write(http, {{"OK", "", {}}})) == "invalid_value");
  CHECK(reason(write(http, {{"TIMEOUT", "2h", {}}})) == "invalid_value");
  CHECK(reason(write(http, {{"BASE_URL", "x", {}}})) == "invalid_value");
  CHECK(reason(write(http, {{"AUTH_HEADER", "Cookie", {}}})) == "invalid_value");
  CHECK(reason(write(http, {{"key", "v", {}}, {"KEY", "v", {}}})) == "key_conflict");
  CHECK(f->env_rows(http.id).empty());
  must(write(http, {{"key", "v", {}}}));
  const auto conflict = write(http, {{"KEY", "v", {}}});
  CHECK(reason(conflict) == "key_conflict");
  CHECK(conflict.error().code == ErrorCode::conflict);
  must(write(http, {{"key", "w", {}}}));
  CHECK(field(write(http, {{"key", "v", {std::string(2001, 'x')}}})) == "description");
  must(write(process, {{"key", "a\nb", {}}, {"KEY", "v", {}}, {"TIMEOUT", "thirty", {}}}));
  std::vector<Repository::EnvWrite> many(501, {"K", "v", {}});
  CHECK(reason(write(http, many)) == "invalid_request");
}

TEST_CASE("R79: a sealed value moved to another place does not open") {
  Fixture f;
  const Target a = f.target("a");
  const Target b = f.target("b");
  must(f->set_target_token(a.id, kDefaultScope, "secret-a"));
  must(f->set_target_token(b.id, kDefaultScope, "secret-b"));
  must(f->set_env(a.id, kDefaultScope, {{"AUTH_TOKEN", "x", {}}, {"OTHER", "y", {}}}));
  const auto tokens = must(f.memory->list(collection::kTargetTokens, {}, {}, 0));
  const auto env = must(f.memory->list(collection::kEnv, {}, {}, 0));
  REQUIRE(tokens.size() == 2);
  REQUIRE(env.size() == 2);
  f.plant(collection::kTargetTokens, tokens[0].key, tokens[1].value);
  f.plant(collection::kEnv, env[0].key, env[1].value);
  const auto other = must(Repository::open(f.options()));
  const auto key = detail::decode_credential_key(collection::kTargetTokens, tokens[0].key);
  REQUIRE(key);
  const auto moved = other->reveal_target_token(key->target_id, kDefaultScope);
  CHECK(reason(moved) == "credential_unavailable");
  CHECK(moved.error().code == ErrorCode::data_loss);
  CHECK(reason(other->reveal_env(a.id, kDefaultScope)) == "credential_unavailable");
  CHECK(other->damaged_records() == 2);
}

TEST_CASE("a damaged credential is there and refuses, until it is written anew") {
  Fixture f;
  const Target target = f.target("t");
  must(f->set_target_token(target.id, kDefaultScope, "secret"));
  const auto rows = must(f.memory->list(collection::kTargetTokens, {}, {}, 0));
  f.plant(collection::kTargetTokens, rows[0].key, "{]");
  f.repository = must(Repository::open(f.options()));
  CHECK(f->target_token(target.id, kDefaultScope));
  CHECK(reason(f->reveal_target_token(target.id, kDefaultScope)) == "credential_unavailable");
  must(f->set_target_token(target.id, kDefaultScope, "new"));
  CHECK(must(f->reveal_target_token(target.id, kDefaultScope)) == "new");
}

TEST_CASE("the largest permitted target fits into a record") {
  Fixture f;
  Target target = with_key({});
  target.name = std::string(100, 'n');
  target.url = "https://a.example/" + std::string(1900, 'u');
  target.command = std::string(500, 'c');
  target.args.assign(100, std::string(4000, 'a'));
  target.forward_headers.clear();
  for (int i = 0; i < 100; ++i)
    target.forward_headers.push_back("X-" + std::to_string(i) + std::string(90, 'h'));
  for (int i = 0; i < 500; ++i)
    target.user_env_keys.push_back("K" + std::to_string(i) + std::string(120, 'k'));
  const auto fill_up = [](const std::string& pem, std::size_t size) {
    const auto at = pem.find("-----END");
    std::string text = pem.substr(0, at);
    while (text.size() + 70 + pem.size() < size) text += std::string(64, 'A') + "\n";
    return text + pem.substr(at);
  };
  target.tls->ca = fill_up(kCert, 256 * 1024);
  target.tls->client_cert = fill_up(kCert, 64 * 1024);
  target.tls->client_key = fill_up(kKey, 64 * 1024);
  const Target made = must(f->create_target(target));
  CHECK(f->target(made.id)->tls->client_key == target.tls->client_key);
  target.args.assign(100, std::string(4000, 'a'));
  target.args.front() = std::string(4000, 'a').replace(0, 1, "\xc3\xa9");
  target.name = "other";
  CHECK(field(f->create_target(target)) == "args");
}
