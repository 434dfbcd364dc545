// Repository over a database file: what is written is there after closing, and what must exclude each other
// does, also between two connections.
#include <algorithm>
#include <atomic>
#include <thread>

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

TEST_CASE("two connections to one file: one name, one first admin, one last admin") {
  const contract::TempDir dir;
  const std::string path = dir.file("gateway.db");
  const std::vector<std::shared_ptr<Repository>> repositories{must(Repository::open(options_for(path))),
                                                              must(Repository::open(options_for(path)))};
  // doctest's assertions are not for threads that race, so results are collected.
  const auto race = [&](const std::function<std::string(Repository&, int)>& work) {
    std::vector<std::string> results(6);
    std::vector<std::thread> threads;
    std::atomic<int> ready{0};
    for (int i = 0; i < 6; ++i)
      threads.emplace_back([&, i] {
        ++ready;
        while (ready < 6) std::this_thread::yield();
        results[static_cast<std::size_t>(i)] = work(*repositories[static_cast<std::size_t>(i % 2)], i);
      });
    for (auto& thread : threads) thread.join();
    return results;
  };
  const auto count = [](const std::vector<std::string>& results, const std::string& wanted) {
    return std::count(results.begin(), results.end(), wanted);
  };
  auto results = race([](Repository& repository, int i) -> std::string {
    User user;
    user.email = "u" + std::to_string(i) + "@example.com";
    const auto made = repository.create_user(user, true);
    return made ? made->role : made.error().reason;
  });
  CHECK(count(results, "admin") == 1);
  CHECK(count(results, "user") == 5);
  results = race([](Repository& repository, int) {
    Target target;
    target.name = "same";
    target.url = "https://a.example";
    return reason(repository.create_target(target));
  });
  CHECK(count(results, "ok") == 1);
  CHECK(count(results, "name_taken") == 5);

  const auto fresh = must(Repository::open(options_for(path)));
  CHECK(fresh->policies().size() == 2);
  std::vector<std::string> ids;
  for (const auto& user : fresh->users()) {
    ids.push_back(user->id);
    UserPatch patch;
    patch.role = "admin";
    must(fresh->update_user(user->id, patch));
  }
  REQUIRE(ids.size() == 6);
  results = race([&](Repository& repository, int i) {
    UserPatch patch;
    patch.enabled = false;
    return reason(repository.update_user(ids[static_cast<std::size_t>(i)], patch));
  });
  CHECK(count(results, "ok") == 5);
  CHECK(count(results, "last_admin") == 1);
}
