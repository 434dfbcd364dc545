// Taking over a Reflow Gateway's database: a real PostgreSQL filled with its tables.
#include <openssl/evp.h>

#include <map>

#include "base/text.hpp"
#include "contract/postgres_support.hpp"
#include "mcpgw/reflow.hpp"
#include "secrets/password.hpp"
#include "unit/repository_support.hpp"

using namespace mcpgw;
using namespace mcpgw::contract;
using detail::base64;
using Outcome = ReflowLine::Outcome;

namespace {

const std::string kKey = "0123456789abcdef-reflow-key-32-b";
constexpr const char* kAda = "00000000-0000-4000-8000-000000000001";
constexpr const char* kBob = "00000000-0000-4000-8000-000000000002";
constexpr const char* kGit = "00000000-0000-4000-8000-0000000000a1";
constexpr const char* kRun = "00000000-0000-4000-8000-0000000000a2";
constexpr const char* kHash = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";  // of "U*U"

std::string sealed(const std::string& plain, const std::string& key = kKey) {
  const std::string nonce = "twelve bytes";
  std::string out(plain.size(), '\0'), tag(16, '\0');
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  int size = 0;
  const auto bytes = [](const std::string& text) {
    return reinterpret_cast<const unsigned char*>(text.data());
  };
  REQUIRE(EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nullptr, bytes(key), bytes(nonce)) == 1);
  REQUIRE(EVP_EncryptUpdate(context, reinterpret_cast<unsigned char*>(out.data()), &size, bytes(plain),
                            static_cast<int>(plain.size())) == 1);
  REQUIRE(EVP_EncryptFinal_ex(context, nullptr, &size) == 1);
  REQUIRE(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, 16, tag.data()) == 1);
  EVP_CIPHER_CTX_free(context);
  return base64(nonce + out + tag);
}

struct Reflow {
  PostgresServer& server = PostgresServer::shared();
  std::string database = server.make_database();
  std::shared_ptr<Storage> storage = make_memory_storage();
  std::shared_ptr<AuditSink> audit = make_memory_audit_sink();
  std::map<std::string, ReflowLine> lines;  // "kind name"
  ReflowOptions options;

  Reflow() {
    options.url = server.url_of(database);
    options.encryption_key = kKey;
    sql("CREATE TABLE users(id uuid PRIMARY KEY, email text, password_hash text, role text, groups text[],"
        " created_at timestamptz, updated_at timestamptz)");
    sql("CREATE TABLE targets(id uuid PRIMARY KEY, name text, url text, command text, args text[], image "
        "text,"
        " port int, health_path text, transport_type text, statefulness text, isolation_boundary text,"
        " auth_type text, auth_header_name text, default_encrypted_token text, enabled boolean,"
        " created_at timestamptz, updated_at timestamptz)");
    for (const std::string column : {"user_id uuid", "role text", "group_name text"})
      sql("CREATE TABLE " + column.substr(0, column.find_first_of("_ ")) + "_target_tokens(" + column +
          ", target_id uuid, encrypted_token text, created_at timestamptz, updated_at timestamptz)");
    sql("CREATE TABLE target_env_configs(target_id uuid, scope_type text, scope_value text, env_key text,"
        " encrypted_value text, description text, created_at timestamptz, updated_at timestamptz)");
    sql("CREATE TABLE authorization_policies(id uuid PRIMARY KEY, name text, description text, target_id "
        "uuid,"
        " resource_type text, resource_pattern text, effect text, priority int, enabled boolean,"
        " created_at timestamptz, updated_at timestamptz)");
    sql("CREATE TABLE policy_subjects(policy_id uuid, subject_type text, subject_value text)");
    sql("CREATE TABLE request_logs(id uuid, session_id text, user_id uuid, method text, target_name text,"
        " request_body jsonb, response_status int, duration_ms int, created_at timestamptz)");

    user(kAda, "Ada@Example.COM", kHash, "admin", "{ops,dev}");
    user(kBob, "bob@example.com", "plain text", "user", "{}");
    user("00000000-0000-4000-8000-000000000003", "ada@example.com", kHash, "user", "{}");
    target(kGit, "git", "https://git.example/mcp", "", "streamable-http", "bearer", sealed("default-token"));
    target(kRun, "Run/It!", "", "npx", "stdio", "", "");
    target("00000000-0000-4000-8000-0000000000a3", "odd", "x", "", "carrier-pigeon", "none", "");
    target("00000000-0000-4000-8000-0000000000a4", "nowhere", "ftp://x", "", "sse", "none", "");
    sql(std::string("INSERT INTO user_target_tokens VALUES('") + kAda + "', '" + kGit + "', '" +
        sealed("ada-token") + "', now(), now())");
    sql(std::string("INSERT INTO user_target_tokens VALUES('00000000-0000-4000-8000-000000000003', '") +
        kGit + "', '" + sealed("lost") + "', now(), now())");
    sql(std::string("INSERT INTO role_target_tokens VALUES('admin', '") + kGit + "', '" +
        sealed("role-token") + "', now(), now())");
    sql(std::string("INSERT INTO group_target_tokens VALUES('ops', '") + kGit + "', '" +
        sealed("other", std::string(32, 'x')) + "', now(), now())");
    env(kRun, "default", "NULL", "LEVEL", "debug");
    env(kRun, "group", "'ops'", "TEAM", "ops");
    env(kRun, "default", "NULL", "NOT-A-KEY", "x");
    policy("b1", "Admin Full Access", "NULL", "all", "NULL", "allow", 1000, "role", "'admin'");
    policy("b2", "Default Allow All", "NULL", "all", "NULL", "allow", 1, "everyone", "NULL");
    policy("b3", "no pushes", std::string("'") + kGit + "'", "tool", "'push(?=x)'", "deny", 50, "everyone",
           "NULL");
    policy("b4", "bad allow", std::string("'") + kGit + "'", "tool", "'('", "allow", 40, "everyone", "NULL");
    policy("b5", "reads", std::string("'") + kGit + "'", "tool", "'^get_'", "allow", 30, "user",
           "'00000000-0000-4000-8000-000000000009'");
    sql(std::string("INSERT INTO policy_subjects VALUES('00000000-0000-4000-8000-0000000000b5', 'user', '") +
        kBob + "')");
    sql(std::string("INSERT INTO request_logs SELECT gen_random_uuid(), 's', '") + kAda +
        "', 'tools/call', 'git', '{\"method\": \"tools/call\"}', 200, 7, "
        "'2025-05-05T05:05:05.5Z'::timestamptz +"
        " n * interval '1 second' FROM generate_series(1, 1201) AS n");
  }

  void sql(const std::string& text) { server.run(database, text); }
  void user(const std::string& id, const std::string& email, const std::string& hash, const std::string& role,
            const std::string& groups) {
    sql("INSERT INTO users VALUES('" + id + "', '" + email + "', '" + hash + "', '" + role + "', '" + groups +
        "', '2024-03-04T05:06:07.891011Z', now())");
  }
  void target(const std::string& id, const std::string& name, const std::string& url,
              const std::string& command, const std::string& transport, const std::string& auth,
              const std::string& token) {
    sql("INSERT INTO targets VALUES('" + id + "', '" + name + "', '" + url + "', '" + command +
        "', '{-y,tool}', '',"
        " 0, '', '" +
        transport + "', 'stateful', 'per_user', '" + auth + "', '', NULLIF('" + token +
        "', ''), true, now(), now())");
  }
  void env(const std::string& target_id, const std::string& scope, const std::string& value,
           const std::string& key, const std::string& text) {
    sql("INSERT INTO target_env_configs VALUES('" + target_id + "', '" + scope + "', " + value + ", '" + key +
        "', '" + sealed(text) + "', 'about it', now(), now())");
  }
  void policy(const std::string& id, const std::string& name, const std::string& target_id,
              const std::string& type, const std::string& pattern, const std::string& effect, int priority,
              const std::string& subject, const std::string& value) {
    const auto uuid = "00000000-0000-4000-8000-0000000000" + id;
    sql("INSERT INTO authorization_policies VALUES('" + uuid + "', '" + name + "', 'why', " + target_id +
        ", '" + type + "', " + pattern + ", '" + effect + "', " + std::to_string(priority) +
        ", true, now(), now())");
    sql("INSERT INTO policy_subjects VALUES('" + uuid + "', '" + subject + "', " + value + ")");
  }

  Result<ReflowSummary> run() {
    lines.clear();
    RepositoryOptions into;
    into.storage = storage;
    into.keys = test::keys();
    return import_reflow(options, into, *audit,
                         [this](const ReflowLine& line) { lines[line.kind + " " + line.name] = line; });
  }
  std::shared_ptr<Repository> repository() {
    RepositoryOptions into;
    into.storage = storage;
    into.keys = test::keys();
    return must(Repository::open(into));
  }
  bool was(const std::string& name, Outcome outcome) {
    return lines.count(name) != 0 && lines[name].outcome == outcome;
  }
};

}  // namespace

TEST_CASE("reflow: users, targets, credentials, env and policies come over, each with a line") {
  Reflow reflow;
  const auto summary = must(reflow.run());
  const auto here = reflow.repository();

  const auto ada = here->user_by_email("ada@example.com");
  REQUIRE(ada);
  CHECK(ada->id == kAda);
  CHECK(ada->role == "admin");
  CHECK(ada->groups == std::vector<std::string>{"ops", "dev"});
  CHECK(detail::verify_password("U*U", ada->password_hash));
  CHECK(detail::needs_rehash(ada->password_hash));  // at the next login
  CHECK(detail::format_time(ada->created_at) == "2024-03-04T05:06:07.891011Z");
  CHECK(reflow.was("user ada@example.com", Outcome::skipped));  // the second of that name, told last
  CHECK(reflow.was("user bob@example.com", Outcome::changed));
  CHECK(here->user_by_email("bob@example.com")->password_hash.empty());
  CHECK(here->users().size() == 2);

  const auto git = here->target(kGit), run = here->target(kRun);
  REQUIRE(git);
  REQUIRE(run);
  CHECK(git->auth_type == AuthType::bearer);
  CHECK(git->isolation_boundary == Isolation::per_user);
  CHECK(git->port == 8080);
  CHECK(run->name == "Run-It-");
  CHECK(run->args == std::vector<std::string>{"-y", "tool"});
  CHECK(reflow.was("target Run/It!", Outcome::changed));
  CHECK(reflow.was("target odd", Outcome::skipped));
  CHECK(reflow.was("target nowhere", Outcome::skipped));
  CHECK(here->targets().size() == 2);

  CHECK(must(here->reveal_target_token(kGit, {Scope::everyone, ""})) == "default-token");
  CHECK(must(here->reveal_target_token(kGit, {Scope::user, kAda})) == "ada-token");
  CHECK(must(here->reveal_target_token(kGit, {Scope::role, "admin"})) == "role-token");
  CHECK_FALSE(must(here->reveal_target_token(kGit, {Scope::group, "ops"})).has_value());
  CHECK(reflow.was("token git for group ops", Outcome::skipped));
  CHECK(must(here->reveal_env(kRun, {Scope::everyone, ""})) ==
        std::map<std::string, std::string>{{"LEVEL", "debug"}});
  CHECK(must(here->reveal_env(kRun, {Scope::group, "ops"})).at("TEAM") == "ops");
  CHECK(here->env_rows(kRun).front().description == "about it");
  CHECK(reflow.was("env NOT-A-KEY of Run/It! for everyone", Outcome::skipped));

  std::map<std::string, std::shared_ptr<const Policy>> policies;
  for (const auto& policy : here->policies()) policies[policy->name] = policy;
  CHECK(here->policies().size() == 4);  // two seeds, which were there already, and two of its own
  CHECK_FALSE(policies.at("Default Allow All")->enabled);
  CHECK(policies.at("no pushes")->resource_pattern.empty());  // denies more, never less
  CHECK(reflow.was("policy no pushes", Outcome::changed));
  CHECK(reflow.was("policy bad allow", Outcome::skipped));
  CHECK(policies.at("reads")->subjects.size() == 1);
  CHECK(reflow.was("policy reads", Outcome::changed));
  CHECK(policies.at("reads")->id == "00000000-0000-4000-8000-0000000000b5");

  CHECK(must(reflow.audit->query({})).total == 0);
  CHECK(summary.skipped > 0);
  for (const auto& [name, line] : reflow.lines)
    for (const char* secret : {"default-token", "ada-token", "role-token", kHash, "debug"})
      CHECK((name + line.note).find(secret) == std::string::npos);

  // Once more: nothing is there twice.
  const auto before = test::dump(*here);
  must(reflow.run());
  CHECK(here->users().size() == 2);
  CHECK(here->policies().size() == 4);
  CHECK(reflow.was("target git", Outcome::skipped));
}

TEST_CASE("reflow: the request log comes over when asked, once") {
  Reflow reflow;
  reflow.options.logs = true;
  must(reflow.run());
  must(reflow.run());
  AuditQuery query;
  query.limit = 1;
  const auto page = must(reflow.audit->query(query));
  CHECK(page.total == 1201);
  const auto& row = page.records.front();
  CHECK(row.user_email == "ada@example.com");
  CHECK(row.target_name == "git");
  CHECK(row.response_status == 200);
  CHECK(row.duration_ms == 7);
  CHECK(row.request_body == R"({"method":"tools/call"})");
  CHECK(detail::format_time(row.created_at) == "2025-05-05T05:25:06.500000Z");
}

TEST_CASE("reflow: a policy that allows everyone everything is kept when asked") {
  Reflow reflow;
  reflow.options.keep_allow_all = true;
  must(reflow.run());
  for (const auto& policy : reflow.repository()->policies())
    CHECK((policy->name != "Default Allow All" || policy->enabled));
  CHECK(reflow.repository()->policies().size() == 4);
}

TEST_CASE("reflow: another key or another database changes nothing") {
  Reflow reflow;
  reflow.options.encryption_key = std::string(32, 'z');
  check_error(reflow.run(), ErrorCode::invalid_argument, "wrong_key");
  reflow.options.encryption_key = "short";
  check_error(reflow.run(), ErrorCode::invalid_argument, "wrong_key");
  reflow.options.encryption_key = kKey;
  reflow.options.url = reflow.server.url_of(reflow.server.make_database());
  check_error(reflow.run(), ErrorCode::not_found, "no_reflow");
  CHECK(reflow.repository()->users().empty());
  CHECK(reflow.repository()->targets().empty());
}
