#include <doctest/doctest.h>

#include <atomic>
#include <random>
#include <regex>
#include <thread>

#include "mcpgw/policy_engine.hpp"
#include "repository_support.hpp"

using namespace mcpgw;
using namespace mcpgw::test;

namespace {

struct PolicyFixture {
  std::shared_ptr<Storage> storage = make_memory_storage();
  std::shared_ptr<Repository> repository;
  std::shared_ptr<PolicyEngine> engine;

  PolicyFixture() {
    RepositoryOptions options;
    options.storage = storage;
    options.keys = keys();
    options.seed = false;
    repository = must(Repository::open(options));
    engine = PolicyEngine::create(repository);
  }

  std::string target(const std::string& name) {
    Target out;
    out.name = name;
    out.url = "https://" + name + ".example/mcp";
    return must(repository->create_target(out)).id;
  }

  std::string policy(Effect effect, const std::string& pattern = "", int priority = 0,
                     const std::string& target_id = "", ResourceType type = ResourceType::all,
                     SubjectType subject = SubjectType::everyone, const std::string& value = "") {
    Policy out;
    out.name = "p";
    out.effect = effect;
    out.resource_pattern = pattern;
    out.priority = priority;
    out.target_id = target_id;
    out.resource_type = type;
    Subject one;
    one.type = subject;
    one.value = value;
    out.subjects.push_back(one);
    return must(repository->create_policy(out)).id;
  }

  bool allows(const std::string& target_id, const std::string& name, ResourceType type = ResourceType::tool,
              const Principal& who = {}) {
    return engine->evaluate(who, target_id, type, name).allowed();
  }
};

}  // namespace

TEST_CASE("R10: what no policy allows is denied") {
  PolicyFixture f;
  const auto t = f.target("t");
  const Decision none = f.engine->evaluate({}, t, ResourceType::tool, "x");
  CHECK_FALSE(none.allowed());
  CHECK(none.reason == DecisionReason::no_matching_policy);
  CHECK(f.engine->evaluate({}, "no such target", ResourceType::tool, "x").reason ==
        DecisionReason::unknown_target);
  CHECK_FALSE(f.engine->reaches({}, t));
  CHECK(f.engine->reached_targets({}).empty());
}

TEST_CASE("R8: priority decides, at equal priority deny, and a pattern denies what it finds") {
  PolicyFixture f;
  const auto t = f.target("t");
  f.policy(Effect::allow, "", 0);
  CHECK(f.allows(t, "delete_all"));
  const auto deny = f.policy(Effect::deny, "delete", 0);
  CHECK_FALSE(f.allows(t, "delete_all"));
  CHECK_FALSE(f.allows(t, "undelete"));
  CHECK(f.allows(t, "Delete_all"));
  CHECK(f.allows(t, "read"));
  CHECK(f.engine->evaluate({}, t, ResourceType::tool, "undelete").policy_id == deny);
  f.policy(Effect::allow, "^undelete$", 1);
  CHECK(f.allows(t, "undelete"));
  CHECK_FALSE(f.allows(t, "undelete_all"));
  f.policy(Effect::deny, "", 2);
  CHECK_FALSE(f.allows(t, "read"));
}

TEST_CASE("types, targets and subjects") {
  PolicyFixture f;
  const auto a = f.target("a"), b = f.target("b");
  Principal who;
  who.user_id = "u1";
  who.role = "dev";
  who.groups = {"g1", "g2"};
  f.policy(Effect::allow, "", 0, a, ResourceType::prompt);
  CHECK(f.allows(a, "x", ResourceType::prompt, who));
  CHECK_FALSE(f.allows(a, "x", ResourceType::tool, who));
  CHECK_FALSE(f.allows(b, "x", ResourceType::prompt, who));
  CHECK(f.engine->reaches(who, a));
  CHECK_FALSE(f.engine->reaches(who, b));
  f.policy(Effect::allow, "one", 0, b, ResourceType::tool, SubjectType::role, "dev");
  f.policy(Effect::allow, "two", 0, b, ResourceType::tool, SubjectType::group, "g2");
  f.policy(Effect::allow, "three", 0, b, ResourceType::tool, SubjectType::group, "g3");
  CHECK(f.allows(b, "one", ResourceType::tool, who));
  CHECK(f.allows(b, "two", ResourceType::tool, who));
  CHECK_FALSE(f.allows(b, "three", ResourceType::tool, who));
  CHECK_FALSE(f.allows(b, "one"));
  // Nobody without a role or an id matches a subject by accident.
  CHECK_FALSE(f.engine->reaches({}, b));
}

TEST_CASE("R9: reach: an allow of one tool opens a target, a deny with a pattern never closes one") {
  PolicyFixture f;
  const auto t = f.target("t");
  const auto deny = f.policy(Effect::deny, "x", 10);
  CHECK_FALSE(f.engine->reaches({}, t));
  f.policy(Effect::allow, "^one$", 0);
  CHECK(f.engine->reaches({}, t));
  f.policy(Effect::deny, "", 5, t, ResourceType::tool);
  CHECK(f.engine->reaches({}, t));  // resources and prompts are still allowed by pattern
  f.policy(Effect::deny, "", 5, t);
  CHECK_FALSE(f.engine->reaches({}, t));
  must(f.repository->delete_policy(deny));
  CHECK_FALSE(f.engine->reaches({}, t));
}

TEST_CASE("R8: an unreadable policy denies what it might concern, whatever else allows") {
  PolicyFixture f;
  const auto t = f.target("t");
  f.policy(Effect::allow, "", 1000);
  CHECK(f.allows(t, "x"));
  REQUIRE(f.storage->put("policies", "11111111-1111-4111-8111-111111111111", "{\"broken\":true}"));
  // A write from elsewhere is read a moment later.
  for (int i = 0; i < 2000 && f.allows(t, "x"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const Decision decision = f.engine->evaluate({}, t, ResourceType::tool, "x");
  CHECK_FALSE(decision.allowed());
  CHECK(decision.reason == DecisionReason::unevaluable_policy);
  CHECK_FALSE(f.engine->reaches({}, t));
  CHECK(f.engine->explain({}, t, ResourceType::tool, "x").decision.reason ==
        DecisionReason::unevaluable_policy);
}

TEST_CASE("R2: a write decides the next question; a disabled target is out of reach") {
  PolicyFixture f;
  const auto t = f.target("t");
  const auto generation = f.engine->generation();
  const auto id = f.policy(Effect::allow);
  CHECK(f.engine->generation() > generation);
  CHECK(f.allows(t, "x"));
  Policy policy = *f.repository->policy(id);
  policy.enabled = false;
  must(f.repository->update_policy(policy));
  CHECK_FALSE(f.allows(t, "x"));
  policy.enabled = true;
  must(f.repository->update_policy(policy));
  TargetUpdate update;
  update.target = *f.repository->target(t);
  update.target.enabled = false;
  must(f.repository->update_target(update));
  CHECK(f.engine->evaluate({}, t, ResourceType::tool, "x").reason == DecisionReason::target_disabled);
  CHECK_FALSE(f.engine->reaches({}, t));
}

TEST_CASE("patterns are RE2: checked when written, linear when used") {
  CHECK(PolicyEngine::check_pattern("^a|b$"));
  for (const char* bad : {"(", "[a", "a{2000}", "(?=x)", "\\1", "*"}) {
    const Status status = PolicyEngine::check_pattern(bad);
    REQUIRE_FALSE(status);
    CHECK(status.error().reason == "invalid_pattern");
  }
  PolicyFixture f;
  const auto t = f.target("t");
  f.policy(Effect::allow, "^(a+)+$");
  const auto started = std::chrono::steady_clock::now();
  CHECK_FALSE(f.allows(t, std::string(50000, 'a') + "b"));
  CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(2));
  CHECK(f.allows(t, std::string(50000, 'a')));
}

TEST_CASE("visible policies: enabled, with a matching subject, and only that subject") {
  PolicyFixture f;
  Policy policy;
  policy.name = "mixed";
  policy.effect = Effect::allow;
  for (const char* group : {"mine", "theirs"}) {
    Subject subject;
    subject.type = SubjectType::group;
    subject.value = group;
    policy.subjects.push_back(subject);
  }
  must(f.repository->create_policy(policy));
  f.policy(Effect::deny, "", 0, "", ResourceType::all, SubjectType::role, "other");
  Principal who;
  who.groups = {"mine"};
  const auto visible = f.engine->visible_policies(who);
  REQUIRE(visible.size() == 1);
  REQUIRE(visible[0].subjects.size() == 1);
  CHECK(visible[0].subjects[0].value == "mine");
}

TEST_CASE("R92: explain and evaluate agree with a plain reading of the rules, for random policies") {
  std::mt19937 random(20260101);
  const auto pick = [&](auto list) { return list[random() % list.size()]; };
  const std::vector<std::string> names{"read", "read_all", "write", "delete", ""};
  const std::vector<std::string> patterns{"", "", "read", "^read$", "e", "^x", "(write|delete)"};
  for (int round = 0; round < 60; ++round) {
    PolicyFixture f;
    const std::vector<std::string> targets{f.target("a"), f.target("b")};
    const int count = static_cast<int>(random() % 7);
    for (int i = 0; i < count; ++i)
      f.policy(random() % 2 ? Effect::allow : Effect::deny, pick(patterns), static_cast<int>(random() % 3),
               random() % 2 ? "" : pick(targets),
               pick(std::vector<ResourceType>{ResourceType::all, ResourceType::tool, ResourceType::resource}),
               random() % 2 ? SubjectType::everyone : SubjectType::group,
               pick(std::vector<std::string>{"g1", "g2"}));
    Principal who;
    who.groups = {"g1"};
    for (const std::string& target : targets) {
      bool reachable = false;
      for (ResourceType type : {ResourceType::tool, ResourceType::resource, ResourceType::prompt}) {
        // The rules, word by word, without anything compiled ahead.
        auto all = f.repository->policies();
        std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
          if (a->priority != b->priority) return a->priority > b->priority;
          if (a->effect != b->effect) return a->effect == Effect::deny;
          return a->created_at != b->created_at ? a->created_at < b->created_at : a->id < b->id;
        });
        const auto applies = [&](const Policy& p) {
          if (!p.target_id.empty() && p.target_id != target) return false;
          if (p.resource_type != ResourceType::all && p.resource_type != type) return false;
          return std::any_of(p.subjects.begin(), p.subjects.end(), [](const Subject& s) {
            return s.type == SubjectType::everyone || s.value == "g1";
          });
        };
        for (const auto& p : all) {
          if (!applies(*p)) continue;
          if (p->effect == Effect::allow) reachable = true;
          if (p->effect == Effect::allow || p->resource_pattern.empty()) break;
        }
        for (const std::string& name : names) {
          bool expected = false;
          for (const auto& p : all) {
            if (!applies(*p) ||
                (!p->resource_pattern.empty() && !std::regex_search(name, std::regex(p->resource_pattern))))
              continue;
            expected = p->effect == Effect::allow;
            break;
          }
          const Decision decision = f.engine->evaluate(who, target, type, name);
          CHECK(decision.allowed() == expected);
          const Explanation why = f.engine->explain(who, target, type, name);
          CHECK(why.decision.effect == decision.effect);
          CHECK(why.decision.policy_id == decision.policy_id);
          const auto first = std::find_if(why.considered.begin(), why.considered.end(),
                                          [](const auto& c) { return c.matched; });
          CHECK((first == why.considered.end() ? "" : first->policy_id) == decision.policy_id);
        }
      }
      CHECK(f.engine->reaches(who, target) == reachable);
      CHECK(f.engine->explain(who, target, ResourceType::all, "").decision.allowed() == reachable);
    }
  }
}

TEST_CASE("R49: questions while policies change") {
  PolicyFixture f;
  const auto t = f.target("t");
  f.policy(Effect::allow, "^keep$", 10);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i)
    readers.emplace_back([&] {
      while (!stop) {
        if (!f.allows(t, "keep")) ++wrong;
        f.engine->reached_targets({});
      }
    });
  for (int i = 0; i < 60; ++i) must(f.repository->delete_policy(f.policy(Effect::deny, "other", i % 5)));
  stop = true;
  for (auto& reader : readers) reader.join();
  CHECK(wrong == 0);
}
