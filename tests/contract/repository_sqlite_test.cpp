// Repository over a database file: what is written is there after closing, and the contract between two
// connections.
#include "contract/temp_dir.hpp"
#include "mcpgw/sqlite.hpp"
#include "unit/repository_support.hpp"

using namespace mcpgw;        // NOLINT
using namespace mcpgw::test;  // NOLINT

namespace {

RepositoryOptions options_for(const std::string& path) {
  SqliteOptions options;
  options.path = path;
  RepositoryOptions out;
  out.storage = must(open_sqlite(options)).storage;
  out.keys = keys();
  return out;
}

}  // namespace

TEST_CASE("a repository in a file is the same after it was closed") {
  const contract::TempDir dir;
  const std::string path = dir.file("gateway.db");
  std::string before;
  {
    const auto repository = must(Repository::open(options_for(path)));
    User user;
    user.email = "alice@example.com";
    user.groups = {"b", "a"};
    const User alice = must(repository->create_user(user, true));
    ApiToken token;
    token.user_id = alice.id;
    token.scopes = {"mcp"};
    must(repository->create_token(token));
    Target target;
    target.name = "t";
    target.url = "https://a.example";
    const Target made = must(repository->create_target(target));
    must(repository->set_target_token(made.id, {Scope::group, "ü/x"}, "secret"));
    must(repository->set_env(made.id, {Scope::user, alice.id}, {{"K", "v", {"about"}}}));
    must(repository->delete_env(made.id, {Scope::user, alice.id}, "K"));
    must(repository->set_env(made.id, {Scope::user, alice.id}, {{"K", "w", {"again"}}}));
    Policy policy;
    policy.name = "p";
    policy.target_id = made.id;
    policy.subjects = {Fixture::subject(SubjectType::user, alice.id)};
    must(repository->create_policy(policy));
    before = dump(*repository);
  }
  const auto repository = must(Repository::open(options_for(path)));
  CHECK(dump(*repository) == before);
  CHECK(repository->has_users());
  CHECK(repository->policies().size() == 3);  // the seeds once
  must(repository->delete_target(repository->targets().front()->id));
  CHECK(dump(repository->storage()).find("secret") == std::string::npos);
}

struct SqlitePlace {
  contract::TempDir directory;
  RepositoryOptions options() { return options_for(directory.file("gateway.db")); }
};

#define MCPGW_REPOSITORY_PLACE SqlitePlace
#include "contract/repository_contract.hpp"
