// What must exclude each other does, between two repositories over one database, and each learns of the
// other's changes. Used by one file a backend:
//
//   struct MyPlace { RepositoryOptions options(); };  // made for a case: an empty database; each call
//   connects anew #define MCPGW_REPOSITORY_PLACE MyPlace #include "contract/repository_contract.hpp"
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
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

}  // namespace mcpgw::test
