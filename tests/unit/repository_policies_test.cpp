// Policies, seeds, damaged rows, sessions, and sealing anew.
#include <algorithm>

#include "repository_support.hpp"

using namespace mcpgw;        // NOLINT
using namespace mcpgw::test;  // NOLINT

namespace {
const std::string kNobody = "0f8fad5b-d9cb-469f-a165-70867728950e";
}

TEST_CASE("seeds are made once, and are ordinary policies") {
  Fixture f(true);
  const auto policies = f->policies();
  REQUIRE(policies.size() == 2);
  CHECK(policies[0]->name == "Admin Full Access");
  CHECK(policies[0]->enabled);
  CHECK(policies[0]->priority == 1000);
  CHECK(policies[0]->effect == Effect::allow);
  REQUIRE(policies[0]->subjects.size() == 1);
  CHECK(policies[0]->subjects[0].type == SubjectType::role);
  CHECK(policies[0]->subjects[0].value == "admin");
  CHECK(policies[1]->name == "Default Allow All");
  CHECK_FALSE(policies[1]->enabled);
  CHECK(policies[1]->priority == 1);
  CHECK(policies[1]->subjects[0].type == SubjectType::everyone);
  must(f->delete_policy(policies[0]->id));
  must(f->delete_policy(policies[1]->id));
  const auto other = must(Repository::open(f.options(true)));
  CHECK(other->policies().empty());
}

TEST_CASE("a policy keeps what it is given, and its order") {
  Fixture f;
  const User alice = f.user("alice");
  const Target target = f.target("t");
  Policy wanted;
  wanted.name = "b";
  wanted.description = "line\nline";
  wanted.target_id = target.id;
  wanted.resource_type = ResourceType::tool;
  wanted.resource_pattern = "^git_";
  wanted.effect = Effect::deny;
  wanted.priority = -5;
  wanted.subjects = {Fixture::subject(SubjectType::user, alice.id),
                     Fixture::subject(SubjectType::group, " g "),
                     Fixture::subject(SubjectType::everyone, "ignored")};
  const Policy made = must(f->create_policy(wanted));
  CHECK(made.subjects[1].value == "g");
  CHECK(made.subjects[2].value.empty());
  for (const Subject& subject : made.subjects) {
    CHECK(subject.policy_id == made.id);
    CHECK(subject.created_at == f.clock->now());
  }
  const auto held = f->policy(made.id);
  REQUIRE(held);
  CHECK(held->resource_pattern == "^git_");
  CHECK(held->effect == Effect::deny);
  CHECK(held->priority == -5);
  CHECK(held->target_id == target.id);
  CHECK(held->version == made.version);

  f.policy("z");
  f.policy("a");
  wanted.name = "first";
  wanted.priority = 7;
  must(f->create_policy(wanted));
  std::string order;
  for (const auto& policy : f->policies()) order += policy->name + " ";
  CHECK(order == "first a z b ");
}

TEST_CASE("R62: what a policy may not be, at creation and at update alike") {
  Fixture f;
  const Policy stored = f.policy("p");
  const auto refused = [&](const std::function<void(Policy&)>& change, const std::string& why,
                           const std::string& member) {
    Policy policy;
    policy.name = "x";
    change(policy);
    const std::string before = dump(*f.memory);
    const auto created = f->create_policy(policy);
    CHECK(reason(created) == why);
    CHECK(field(created) == member);
    policy.id = stored.id;
    const auto updated = f->update_policy(policy);
    CHECK(reason(updated) == why);
    CHECK(field(updated) == member);
    CHECK(dump(*f.memory) == before);
  };
  refused([](Policy& p) { p.name = ""; }, "invalid_request", "name");
  refused([](Policy& p) { p.name = std::string(256, 'x'); }, "invalid_request", "name");
  refused([](Policy& p) { p.description = std::string(2001, 'x'); }, "invalid_request", "description");
  refused([](Policy& p) { p.priority = 1000001; }, "invalid_request", "priority");
  refused([](Policy& p) { p.resource_pattern = "a("; }, "invalid_pattern", "resource_pattern");  // R8
  refused([](Policy& p) { p.resource_pattern = std::string(1025, 'x'); }, "invalid_request",
          "resource_pattern");
  refused([](Policy& p) { p.target_id = kNobody; }, "unknown_target", "target_id");
  refused([](Policy& p) { p.target_id = "x/y"; }, "unknown_target", "target_id");
  refused([](Policy& p) { p.subjects = {Fixture::subject(SubjectType::user, kNobody)}; }, "unknown_user",
          "subjects");
  refused([](Policy& p) { p.subjects = {Fixture::subject(SubjectType::user, "alice")}; }, "unknown_user",
          "subjects");
  refused([](Policy& p) { p.subjects = {Fixture::subject(SubjectType::role, "a b")}; }, "invalid_request",
          "subjects");
  refused(
      [](Policy& p) {
        p.subjects = {Fixture::subject(SubjectType::group, "g"), Fixture::subject(SubjectType::group, " g")};
      },
      "duplicate_subject", "subjects");
  refused(
      [](Policy& p) {
        p.subjects = {Fixture::subject(SubjectType::everyone), Fixture::subject(SubjectType::everyone, "x")};
      },
      "duplicate_subject", "subjects");
}

TEST_CASE("an update replaces the policy; subjects that stay keep their id") {
  Fixture f;
  const Policy made =
      f.policy("p", {}, {Fixture::subject(SubjectType::role, "a"), Fixture::subject(SubjectType::role, "b")});
  f.clock->advance(std::chrono::seconds(1));
  Policy wanted = made;
  wanted.name = "q";
  wanted.subjects = {Fixture::subject(SubjectType::role, "c"), Fixture::subject(SubjectType::role, "b")};
  CHECK(reason(f->update_policy(wanted, made.version + 1)) == "precondition_failed");
  const Policy changed = must(f->update_policy(wanted, made.version));
  CHECK(changed.subjects[1].id == made.subjects[1].id);
  CHECK(changed.subjects[1].created_at == made.created_at);
  CHECK(changed.subjects[0].id != made.subjects[0].id);
  CHECK(changed.created_at == made.created_at);
  CHECK(changed.updated_at == f.clock->now());
  CHECK(f->policy(made.id)->name == "q");
  wanted.id = kNobody;
  CHECK(reason(f->update_policy(wanted)) == "policy_not_found");
}

TEST_CASE("subjects are added and removed one by one") {
  Fixture f;
  const User alice = f.user("alice");
  const Policy policy = f.policy("p");
  const Policy other = f.policy("other", {}, {Fixture::subject(SubjectType::everyone)});
  const Subject added = must(f->add_subject(policy.id, Fixture::subject(SubjectType::user, alice.id)));
  CHECK(added.policy_id == policy.id);
  CHECK(f->policy(policy.id)->subjects.size() == 1);
  CHECK(reason(f->add_subject(policy.id, Fixture::subject(SubjectType::user, alice.id))) ==
        "duplicate_subject");
  CHECK(reason(f->add_subject(policy.id, Fixture::subject(SubjectType::user, kNobody))) == "unknown_user");
  CHECK(reason(f->add_subject(kNobody, Fixture::subject(SubjectType::everyone))) == "policy_not_found");
  CHECK(reason(f->remove_subject(kNobody, added.id)) == "policy_not_found");
  CHECK(reason(f->remove_subject(policy.id, other.subjects[0].id)) == "subject_not_found");
  must(f->remove_subject(policy.id, added.id));
  CHECK(f->policy(policy.id)->subjects.empty());
  CHECK(reason(f->remove_subject(policy.id, added.id)) == "subject_not_found");
  CHECK(reason(f->delete_policy(policy.id, 1)) == "precondition_failed");
  must(f->delete_policy(policy.id));
  CHECK(f->policy(policy.id) == nullptr);
  CHECK(reason(f->delete_policy(policy.id)) == "policy_not_found");
}

TEST_CASE("R8: a damaged policy is there, marked, and as wide as it might be") {
  Fixture f;
  const Target target = f.target("t");
  const Policy policy = f.policy("p", target.id, {Fixture::subject(SubjectType::role, "x")});
  const auto planted = [&](const std::string& text) {
    f.plant(collection::kPolicies, policy.id, text);
    f.repository = must(Repository::open(f.options()));
    REQUIRE(f->policies().size() == 1);
    return *f->policy(policy.id);
  };
  SUBCASE("not JSON") {
    const Policy damaged = planted("}{");
    CHECK(damaged.damaged);
    CHECK(damaged.target_id.empty());
    CHECK(damaged.enabled);
    CHECK(damaged.effect == Effect::deny);
    CHECK(damaged.resource_type == ResourceType::all);
    REQUIRE(damaged.subjects.size() == 1);
    CHECK(damaged.subjects[0].type == SubjectType::everyone);
    CHECK(f->damaged_records() == 1);
  }
  SUBCASE("of a newer schema: its members may mean something else") {
    const Policy damaged = planted("{\"schema\":2,\"target_id\":\"" + target.id + "\",\"enabled\":false}");
    CHECK(damaged.damaged);
    CHECK(damaged.target_id.empty());
    CHECK(damaged.enabled);
  }
  SUBCASE("one member unknown: the others narrow it") {
    std::string text = must(f.memory->get(collection::kPolicies, policy.id))->value;
    const auto at = text.find("\"allow\"");
    REQUIRE(at != std::string::npos);
    text.replace(at, 7, "\"maybe\"");
    const Policy damaged = planted(text);
    CHECK(damaged.damaged);
    CHECK(damaged.target_id == target.id);
    CHECK(damaged.name == "p");
    REQUIRE(damaged.subjects.size() == 1);
    CHECK(damaged.subjects[0].value == "x");
    CHECK(reason(f->add_subject(policy.id, Fixture::subject(SubjectType::everyone))) == "policy_damaged");
    // A whole write repairs it.
    Policy whole;
    whole.id = policy.id;
    whole.name = "repaired";
    must(f->update_policy(whole));
    CHECK_FALSE(f->policy(policy.id)->damaged);
  }
  SUBCASE("it can be deleted") {
    planted("1");
    must(f->delete_policy(policy.id));
    CHECK(f->policies().empty());
  }
}

TEST_CASE("sessions come back as they were saved, upstream ids sealed") {
  Fixture f;
  const User alice = f.user("alice");
  SessionRecord session;
  session.id = "abc";
  session.user_id = alice.id;
  session.token_id = "token";
  session.protocol_version = "2025-11-25";
  session.initialize_params = R"({"a":9007199254740993})";
  session.log_level = "info";
  session.subscriptions = {"mcpgw+t:file:///x"};
  session.upstream_ids = {{"t:1", "upstream-session-secret"}};
  session.created_at = session.last_active_at = f.clock->now();
  CHECK(must(f->load_session("abc")) == std::nullopt);
  CHECK(reason(f->update_session(session)) == "session_not_found");
  must(f->save_session(session));
  CHECK(dump(*f.memory).find("upstream-session-secret") == std::string::npos);
  const auto loaded = must(f->load_session("abc"));
  REQUIRE(loaded);
  CHECK(loaded->user_id == alice.id);
  CHECK(loaded->initialize_params == session.initialize_params);
  CHECK(loaded->subscriptions == session.subscriptions);
  CHECK(loaded->upstream_ids == session.upstream_ids);
  CHECK(loaded->last_active_at == session.last_active_at);
  CHECK(must(f->sessions_of(alice.id)).size() == 1);
  session.log_level = "debug";
  must(f->update_session(session));
  CHECK(must(f->load_session("abc"))->log_level == "debug");
  must(f->delete_session("abc"));
  must(f->delete_session("abc"));
  CHECK(must(f->sessions_of(alice.id)).empty());
  CHECK(reason(f->update_session(session)) == "session_not_found");  // what has ended stays ended
  session.initialize_params = std::string(800 * 1024, 'x');
  CHECK(reason(f->save_session(session)) == "session_too_large");
  session.id = "";
  CHECK(field(f->save_session(session)) == "id");
}

TEST_CASE("a session whose upstream ids do not open goes on without them") {
  Fixture f;
  const User alice = f.user("alice");
  SessionRecord session;
  session.user_id = alice.id;
  session.id = "a";
  session.upstream_ids = {{"x", "1"}};
  must(f->save_session(session));
  const auto record = must(f.memory->get(collection::kSessions, "a"));
  f.plant(collection::kSessions, "b", record->value);
  const auto moved = must(f->load_session("b"));
  REQUIRE(moved);
  CHECK(moved->upstream_ids.empty());
  f.plant(collection::kSessions, "c", "[]");
  CHECK(must(f->load_session("c")) == std::nullopt);
}

TEST_CASE("R75: sessions that were last active before the cutoff are purged") {
  Fixture f;
  const User alice = f.user("alice");
  for (const char* id : {"a", "b", "c"}) {
    SessionRecord session;
    session.user_id = alice.id;
    session.id = id;
    session.last_active_at = f.clock->now();
    must(f->save_session(session));
    f.clock->advance(std::chrono::minutes(1));
  }
  Changes changes(*f);
  CHECK(must(f->purge_sessions(f.clock->now() - std::chrono::seconds(90))) ==
        std::vector<std::string>{"a", "b"});
  CHECK(must(f->sessions_of(alice.id)).size() == 1);
  CHECK(changes.count(RepositoryChange::Kind::session) == 2);
  CHECK(changes.all()[0].user_id == alice.id);
  CHECK(changes.all()[0].id == "a");
  CHECK(changes.all()[0].erased);
}

TEST_CASE("R79: keys are rotated online") {
  Fixture f;
  const User alice = f.user("alice");
  Target wanted;
  wanted.name = "t";
  wanted.url = "https://a.example";
  wanted.tls.emplace();
  wanted.tls->client_cert = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n";
  wanted.tls->client_key = "-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----\n";
  const Target target = must(f->create_target(wanted));
  must(f->set_target_token(target.id, kDefaultScope, "token"));
  must(f->set_env(target.id, kDefaultScope, {{"A", "a", {}}, {"B", "b", {}}}));
  SessionRecord session;
  session.id = "s";
  session.user_id = alice.id;
  session.upstream_ids = {{"t", "u"}};
  must(f->save_session(session));

  auto options = f.options();
  options.keys = EncryptionKeys{std::string(32, 'n'), {std::string(32, 'k')}};
  f.repository = must(Repository::open(options));
  must(f->start_key_rotation());
  f.storage->fail_commit(4, Error(ErrorCode::unavailable, "storage_unavailable", "away"));
  CHECK(reason(f->run_key_rotation()) == "storage_unavailable");
  const auto rotation = must(f->run_key_rotation());  // continues
  CHECK(rotation.state == KeyRotation::State::done);
  CHECK(rotation.total == 5);
  CHECK(rotation.progress.checked == 5);
  CHECK(rotation.progress.failed == 0);
  const auto values = must(f->sealed_values());
  CHECK(values.by_key.size() == 1);
  CHECK(values.by_key.at(values.configured_key) == 5);

  options.keys.previous.clear();  // the old key is no longer needed
  f.repository = must(Repository::open(options));
  CHECK(must(f->reveal_target_token(target.id, kDefaultScope)) == "token");
  CHECK(must(f->reveal_env(target.id, kDefaultScope)).at("B") == "b");
  CHECK(f->target(target.id)->tls->client_key == wanted.tls->client_key);
  CHECK(must(f->load_session("s"))->upstream_ids.at("t") == "u");
  CHECK(f->damaged_records() == 0);

  options.keys.current = std::string(32, 'z');
  f.repository = must(Repository::open(options));
  CHECK(must(f->sealed_values()).unreadable == 5);
  must(f->start_key_rotation());
  const auto lost = must(f->run_key_rotation());
  CHECK(lost.state == KeyRotation::State::incomplete);
  CHECK(lost.progress.failed == 5);
  // The key turns up: it was not taken out of use.
  options.keys.previous = {std::string(32, 'n')};
  f.repository = must(Repository::open(options));
  must(f->start_key_rotation());
  CHECK(must(f->run_key_rotation()).state == KeyRotation::State::done);
  CHECK(must(f->reveal_env(target.id, kDefaultScope)).at("A") == "a");
}
