// What must exclude each other does, between two repositories over one database, and each learns of the
// other's changes. Used by one file a backend:
//
//   struct MyPlace { RepositoryOptions options(); };  // made for a case: an empty database; each call
//   connects anew #define MCPGW_REPOSITORY_PLACE MyPlace #include "contract/repository_contract.hpp"
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include "unit/repository_support.hpp"

namespace mcpgw::test {

TEST_CASE_TEMPLATE("two connections to one database: one name, one first admin, one last admin", P,
                   MCPGW_REPOSITORY_PLACE) {
  P place;
  const std::vector<std::shared_ptr<Repository>> repositories{must(Repository::open(place.options())),
                                                              must(Repository::open(place.options()))};
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

  const auto fresh = must(Repository::open(place.options()));
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

TEST_CASE_TEMPLATE("two connections to one database: what one writes the other has in force within moments",
                   P, MCPGW_REPOSITORY_PLACE) {
  P place;
  const auto first = must(Repository::open(place.options())),
             second = must(Repository::open(place.options()));
  std::vector<std::int64_t> took;
  const auto sees = [&](const std::function<bool()>& condition) {
    const auto begun = std::chrono::steady_clock::now();
    while (!condition()) {
      if (std::chrono::steady_clock::now() - begun > std::chrono::seconds(20)) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    took.push_back(
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begun)
            .count());
    return true;
  };
  for (int round = 0; round < 5; ++round) {
    const auto name = std::to_string(round);
    User user;
    user.email = "u" + name + "@example.com";
    const auto made = must(first->create_user(user));
    REQUIRE(sees([&] { return second->user(made.id) != nullptr; }));
    UserPatch patch;
    patch.role = "admin";
    must(first->update_user(made.id, patch));
    REQUIRE(sees([&] { return second->user(made.id)->role == "admin"; }));
    ApiToken token;
    token.user_id = made.id;
    token.scopes = {"mcp"};
    const auto minted = must(second->create_token(token));
    REQUIRE(sees([&] { return first->token_by_jti(minted.jti) != nullptr; }));
    must(first->revoke_token(made.id, minted.id));
    REQUIRE(sees([&] { return second->token_by_jti(minted.jti)->revoked_at.has_value(); }));
    Target target;
    target.name = "t" + name;
    target.url = "https://a.example";
    const auto there = must(first->create_target(target));
    REQUIRE(sees([&] { return second->target(there.id) != nullptr; }));
    const auto before = second->credential_generation();
    must(first->set_target_token(there.id, {Scope::everyone, ""}, "secret"));
    REQUIRE(sees([&] { return second->credential_generation() != before; }));
    CHECK(must(second->reveal_target_token(there.id, {Scope::everyone, ""})) == "secret");
    const auto policies = second->policy_generation();
    Policy policy;
    policy.name = "p";
    policy.target_id = there.id;
    must(first->create_policy(policy));
    REQUIRE(sees([&] { return second->policy_generation() != policies; }));
  }
  std::sort(took.begin(), took.end());
  CHECK(took[took.size() / 2] < 100);
}

TEST_CASE_TEMPLATE("R79: a rotation whose process is killed with -9 is finished by others, once", P,
                   MCPGW_REPOSITORY_PLACE) {
  P place;
  const std::string old_key(32, 'o'), new_key(32, 'n');
  constexpr int kValues = 300;
  const auto with = [&](EncryptionKeys keys) {
    auto options = place.options();
    options.keys = std::move(keys);
    return must(Repository::open(std::move(options)));
  };
  Target target;
  {
    const auto before = with({old_key, {}});
    target.name = "t";
    target.url = "https://a.example";
    target = must(before->create_target(target));
    std::vector<Repository::EnvWrite> writes;
    for (int i = 0; i < kValues; ++i) writes.push_back({"K" + std::to_string(i), "value", {}});
    must(before->set_env(target.id, {Scope::everyone, {}}, writes));
  }
  const auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // a process of its own; it never returns
    auto options = place.options();
    options.keys = {new_key, {old_key}};
    const auto repository = Repository::open(std::move(options));
    if (repository && (*repository)->start_key_rotation())
      (void)(*repository)->run_key_rotation([](const KeyRotation& now) {
        if (now.progress.resealed >= kValues / 3) ::raise(SIGKILL);
        return true;
      });
    ::_exit(1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));

  // Two replicas that have the new key, and one that was forgotten.
  const std::vector<std::shared_ptr<Repository>> both{with({new_key, {old_key}}), with({new_key, {old_key}})};
  const auto forgotten = with({old_key, {}});
  const auto halfway = must(both[0]->sealed_values());
  CHECK(halfway.by_key.size() == 2);
  CHECK(halfway.unreadable == 0);
  CHECK(must(both[0]->key_rotation()).state == KeyRotation::State::running);
  // What is written meanwhile is sealed with the new key, by everybody who has it.
  must(both[1]->set_target_token(target.id, {Scope::everyone, {}}, "token"));
  CHECK(reason(forgotten->set_target_token(target.id, {Scope::everyone, {}}, "token")) ==
        "credential_unavailable");
  CHECK(must(both[0]->reveal_env(target.id, {Scope::everyone, {}})).size() == kValues);

  std::vector<std::thread> threads;
  std::atomic<int> finished{0};
  std::atomic<std::uint64_t> most{0};
  for (const auto& one : both)
    threads.emplace_back([&, one] {
      const auto end = one->run_key_rotation();
      if (!end || end->state != KeyRotation::State::done) return;
      ++finished;
      most = end->progress.resealed;
    });
  for (auto& thread : threads) thread.join();
  CHECK(finished == 2);
  // The killed one may have sealed a few rows that it did not come to count; none was sealed twice.
  CHECK(most <= kValues);
  CHECK(most >= kValues / 3);
  const auto after = must(both[0]->sealed_values());
  CHECK(after.by_key.size() == 1);
  CHECK(after.by_key.at(after.configured_key) == kValues + 1);
  CHECK(after.unreadable == 0);
  // Done: the old key is no key any more, also to those who are configured with it.
  CHECK(reason(forgotten->start_key_rotation()) == "key_retired");
  const auto late = with({old_key, {new_key}});
  CHECK(late->key_in_force() == after.configured_key);
  must(late->set_target_token(target.id, {Scope::everyone, {}}, "later"));
  CHECK(must(both[0]->sealed_values()).by_key.size() == 1);
}

}  // namespace mcpgw::test
