// Repository as a whole: loading, versions, listeners, several instances, faults, threads.
#include <algorithm>
#include <atomic>
#include <thread>

#include "repository_support.hpp"
#include "storage/repository_memory.hpp"

using namespace mcpgw;        // NOLINT
using namespace mcpgw::test;  // NOLINT

namespace {

/// One of everything.
void fill(Fixture& f) {
  f.user("root", "admin");
  const User alice = f.user("alice", "user", {"g", "h"});
  f.token(alice);
  const Target target = f.target("t");
  f.process("p");
  must(f->set_target_token(target.id, kDefaultScope, "secret"));
  must(f->set_env(target.id, {Scope::group, "g/h"}, {{"K", "v", {"about"}}, {"L", "w", {}}}));
  f.policy("p", target.id, {Fixture::subject(SubjectType::user, alice.id)});
  SessionRecord session;
  session.id = "s";
  session.user_id = alice.id;
  must(f->save_session(session));
}

std::size_t run_threads(int count, const std::function<bool(int)>& work) {
  std::atomic<int> ready{0};
  std::atomic<std::size_t> succeeded{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      ++ready;
      while (ready < count) std::this_thread::yield();
      if (work(i)) ++succeeded;
    });
  for (auto& thread : threads) thread.join();
  return succeeded;
}

}  // namespace

TEST_CASE("opening needs a storage, proper keys and a schema that is known") {
  Fixture f;
  RepositoryOptions options = f.options();
  options.storage = nullptr;
  CHECK(field(Repository::open(options)) == "storage");
  options = f.options();
  options.keys.current = "short";
  CHECK_FALSE(Repository::open(options));
  f.storage->set_down(true);
  CHECK(reason(Repository::open(f.options())) == "storage_unavailable");
  f.storage->set_down(false);
  f.plant(collection::kMeta, "schema", "{\"schema\":2}");
  CHECK(reason(Repository::open(f.options())) == "schema_too_new");
  f.plant(collection::kMeta, "schema", "rubbish");
  CHECK_FALSE(Repository::open(f.options()));
}

TEST_CASE("what is loaded equals what was written") {
  Fixture f(true);
  fill(f);
  const std::string before = dump(*f);
  const auto other = must(Repository::open(f.options(true)));
  CHECK(dump(*other) == before);
  CHECK(before.find("damaged") == std::string::npos);
  CHECK(other->damaged_records() == 0);
}

TEST_CASE("members that this program does not know survive an update") {
  Fixture f;
  const User root = f.user("root", "admin");
  auto record = must(f.memory->get(collection::kUsers, root.id));
  f.plant(collection::kUsers, root.id, "{\"future\":{\"x\":1}," + record->value.substr(1));
  UserPatch patch;
  patch.groups = std::vector<std::string>{"g"};
  must(f->update_user(root.id, patch));
  record = must(f.memory->get(collection::kUsers, root.id));
  CHECK(record->value.find("\"future\":{\"x\":1}") != std::string::npos);
  CHECK(record->value.find("[\"g\"]") != std::string::npos);
}

TEST_CASE("a user or token whose row cannot be read does not exist") {
  Fixture f;
  const User alice = f.user("alice");
  const ApiToken token = f.token(alice);
  f.plant(collection::kTokens, alice.id + "/" + token.id, "{\"schema\":1,\"jti\":\"" + token.jti + "\"}");
  f.plant(collection::kUsers, alice.id, "[]");
  const auto other = must(Repository::open(f.options()));
  CHECK(other->user(alice.id) == nullptr);
  CHECK(other->user_by_email(alice.email) == nullptr);
  CHECK(other->token_by_jti(token.jti) == nullptr);
  CHECK(other->damaged_records() == 2);
  CHECK(reason(other->update_user(alice.id, UserPatch{})) == "user_not_found");
}

TEST_CASE("R63: an isolation word that storage does not know counts as per_user") {
  Fixture f;
  const Target target = f.target("t");
  std::string text = must(f.memory->get(collection::kTargets, target.id))->value;
  const auto at = text.find("\"shared\"");
  REQUIRE(at != std::string::npos);
  text.replace(at, 8, "\"global\"");
  f.plant(collection::kTargets, target.id, text);
  const auto other = must(Repository::open(f.options()));
  REQUIRE(other->target(target.id));
  CHECK(other->target(target.id)->isolation_boundary == Isolation::per_user);
}

TEST_CASE("listeners hear each change once, after memory has it") {
  Fixture f;
  const Target target = f.target("t");
  std::vector<std::string> seen;
  const auto id = f->add_listener([&](const RepositoryChange& change) {
    if (change.kind == RepositoryChange::Kind::user)
      seen.push_back(f->user(change.id) ? "user there" : "user gone");
    else
      seen.push_back(change.id == target.id && f->env_rows(target.id).size() == 3 ? "env there" : "other");
  });
  f.user("root", "admin");
  const User alice = f.user("alice");
  must(f->set_env(target.id, kDefaultScope, {{"A", "1", {}}, {"B", "1", {}}, {"C", "1", {}}}));
  must(f->delete_user(alice.id));
  CHECK(seen == std::vector<std::string>{"user there", "user there", "env there", "user gone"});
  f->remove_listener(id);
  f->remove_listener(id);
  f.user("bob");
  CHECK(seen.size() == 4);
}

TEST_CASE("a listener may remove itself") {
  Fixture f;
  std::uint64_t id = 0;
  int calls = 0;
  id = f->add_listener([&](const RepositoryChange&) {
    ++calls;
    f->remove_listener(id);
  });
  f.user("a");
  f.user("b");
  CHECK(calls == 1);
}

TEST_CASE("generations grow before a write returns") {
  Fixture f;
  const auto both = [&] { return std::pair(f->policy_generation(), f->credential_generation()); };
  auto before = both();
  const auto grown = [&](bool policy, bool credential) {
    const auto now = both();
    CHECK((now.first > before.first) == policy);
    CHECK((now.second > before.second) == credential);
    before = now;
  };
  const User alice = f.user("alice");
  grown(false, true);
  f.token(alice);
  grown(false, false);
  const Target target = f.target("t");
  grown(true, true);
  must(f->set_target_token(target.id, kDefaultScope, "x"));
  grown(false, true);
  must(f->set_env(target.id, kDefaultScope, {{"A", "1", {}}}));
  grown(false, true);
  f.policy("p");
  grown(true, false);
  must(f->delete_target(target.id));
  grown(true, true);
}

TEST_CASE("two repositories over one storage see each other's changes, each once") {
  Fixture f;
  auto options = f.options();
  const auto other = must(Repository::open(options));
  Changes changes(*other);
  Changes own(*f);
  const User root = f.user("root", "admin");
  CHECK(changes.wait([&] { return other->user(root.id) != nullptr; }));
  const User alice = f.user("alice");
  const Target target = f.target("t");
  const Policy policy = f.policy("p", target.id);
  must(f->set_target_token(target.id, {Scope::user, alice.id}, "secret"));
  const ApiToken token = f.token(alice);
  CHECK(changes.wait([&] { return other->token(token.id) != nullptr; }));
  CHECK(changes.wait([&] {
    return must(other->reveal_target_token(target.id, {Scope::user, alice.id})) == "secret";
  }));
  must(f->delete_target(target.id));
  CHECK(changes.wait([&] { return other->policy(policy.id) == nullptr; }));
  CHECK(other->target(target.id) == nullptr);
  CHECK(other->target_tokens(target.id).empty());
  UserPatch patch;
  patch.role = "admin";
  must(other->update_user(alice.id, patch));
  CHECK(other->user(alice.id)->role == "admin");
  CHECK(own.wait([&] { return f->user(alice.id)->role == "admin"; }));
  must(f->delete_user(root.id));
  CHECK(changes.wait([&] { return other->user(root.id) == nullptr; }));
  CHECK(dump(*other) == dump(*f));
  using Kind = RepositoryChange::Kind;
  // Both heard of the same number of changes of each kind; nothing twice.
  CHECK(own.count(Kind::user) == 4);
  CHECK(changes.count(Kind::user) == 4);
  CHECK(own.count(Kind::target) == 2);
  CHECK(changes.count(Kind::target) == 2);
  CHECK(own.count(Kind::policy) == 2);
  CHECK(changes.count(Kind::policy) == 2);
}

TEST_CASE("changes that arrive while storage is away are caught up with") {
  Fixture f;
  // The writer reaches storage past the one that is down for the reader.
  auto options = f.options();
  options.storage = f.memory;
  const auto writer = must(Repository::open(options));
  Changes changes(*f);
  f.storage->set_down(true);
  User wanted;
  wanted.email = "alice@example.com";
  const User alice = must(writer->create_user(wanted));
  CHECK(f->user(alice.id) == nullptr);
  f.storage->set_down(false);
  CHECK(changes.wait([&] { return f->user(alice.id) != nullptr; }));
}

namespace {

/// Announces that changes may have been missed, and hides the announcements themselves.
class LossyStorage : public Storage {
 public:
  explicit LossyStorage(std::shared_ptr<Storage> inner) : inner_(std::move(inner)) {}
  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override {
    return inner_->get(collection, key);
  }
  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override {
    return inner_->list(collection, prefix, after, limit);
  }
  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    return inner_->commit(operations);
  }
  std::uint64_t watch(WatchCallback callback) override {
    callback_ = std::move(callback);
    return 1;
  }
  void unwatch(std::uint64_t) override { callback_ = nullptr; }
  Status ping() override { return {}; }
  void reconnect() { callback_({}); }

 private:
  std::shared_ptr<Storage> inner_;
  WatchCallback callback_;
};

}  // namespace

TEST_CASE("after a loss of announcements everything is read again") {
  Fixture f;
  fill(f);
  const auto lossy = std::make_shared<LossyStorage>(f.memory);
  auto options = f.options();
  options.storage = lossy;
  const auto reader = must(Repository::open(options));
  Changes changes(*reader);
  const auto target = f->target_by_name("t");
  must(f->delete_target(target->id));
  f.user("new");
  CHECK(reader->target(target->id) != nullptr);
  lossy->reconnect();
  // Memory has them before anybody is told.
  CHECK(changes.wait([&] {
    return changes.count(RepositoryChange::Kind::target) != 0 &&
           changes.count(RepositoryChange::Kind::user) != 0;
  }));
  CHECK(dump(*reader) == dump(*f));
  CHECK(changes.count(RepositoryChange::Kind::target) == 1);
  CHECK(changes.count(RepositoryChange::Kind::user) == 1);
}

TEST_CASE("R94: a write that fails leaves nothing half-done, in storage or in memory") {
  Fixture f;
  fill(f);
  const auto alice = f->user_by_email("alice@example.com");
  const auto target = f->target_by_name("t");
  const auto policy = f->policies().front();
  const auto token = f->tokens_of(alice->id).front();
  const auto subject = policy->subjects.front();
  const std::string stored = dump(*f.memory);
  const std::string held = dump(*f);
  const Error away(ErrorCode::unavailable, "storage_unavailable", "away");
  Changes changes(*f);
  const auto fails = [&](const char* name, const std::function<std::string()>& write) {
    INFO(name);
    f.storage->fail_commit(1, away);
    CHECK(write() == "storage_unavailable");
    f.storage->set_down(true);
    CHECK(write() == "storage_unavailable");
    f.storage->set_down(false);
    CHECK(dump(*f.memory) == stored);
    CHECK(dump(*f) == held);
  };
  User user;
  user.email = "new@example.com";
  user.role = "admin";
  fails("create_user", [&] { return reason(f->create_user(user)); });
  UserPatch patch;
  patch.role = "admin";
  patch.revoke_api_tokens = true;
  fails("update_user", [&] { return reason(f->update_user(alice->id, patch)); });
  fails("delete_user", [&] { return reason(f->delete_user(alice->id)); });
  ApiToken wanted;
  wanted.user_id = alice->id;
  wanted.scopes = {"mcp"};
  fails("create_token", [&] { return reason(f->create_token(wanted)); });
  fails("revoke_token", [&] { return reason(f->revoke_token(alice->id, token->id)); });
  fails("revoke_tokens", [&] { return reason(f->revoke_tokens(alice->id, true)); });
  Target made;
  made.name = "new";
  made.url = "https://x.example";
  fails("create_target", [&] { return reason(f->create_target(made)); });
  TargetUpdate update;
  update.target = *target;
  update.target.name = "renamed";
  update.target.slug = "renamed";
  fails("update_target", [&] { return reason(f->update_target(update)); });
  fails("delete_target", [&] { return reason(f->delete_target(target->id)); });
  fails("set_target_token", [&] { return reason(f->set_target_token(target->id, kDefaultScope, "n")); });
  fails("delete_target_token", [&] { return reason(f->delete_target_token(target->id, kDefaultScope)); });
  const ScopeRef scope{Scope::group, "g/h"};
  fails("set_env", [&] { return reason(f->set_env(target->id, scope, {{"K", "n", {}}, {"M", "n", {}}})); });
  fails("delete_env", [&] { return reason(f->delete_env(target->id, scope, "K")); });
  Policy other;
  other.name = "new";
  other.target_id = target->id;
  fails("create_policy", [&] { return reason(f->create_policy(other)); });
  other.id = policy->id;
  fails("update_policy", [&] { return reason(f->update_policy(other)); });
  fails("delete_policy", [&] { return reason(f->delete_policy(policy->id)); });
  fails("add_subject",
        [&] { return reason(f->add_subject(policy->id, Fixture::subject(SubjectType::everyone))); });
  fails("remove_subject", [&] { return reason(f->remove_subject(policy->id, subject.id)); });
  fails("delete_session", [&] { return reason(f->delete_session("s")); });
  CHECK(changes.all().empty());
}

TEST_CASE("a commit that took effect although it reported a failure is put in force") {
  Fixture f;
  f.user("root", "admin");
  const User alice = f.user("alice");
  Changes changes(*f);
  f.storage->fail_commit(1, Error(ErrorCode::unavailable, "storage_unavailable", "away"), true);
  UserPatch patch;
  patch.enabled = false;
  CHECK(reason(f->update_user(alice.id, patch)) == "storage_unavailable");
  CHECK(changes.wait([&] { return !f->user(alice.id)->enabled; }));
}

TEST_CASE("memory: a version is put in force only when it is newer, and an erase is final") {
  const auto sealer = must(detail::Sealer::create(keys(), make_system_random()));
  detail::RepositoryMemory memory(sealer, nullptr);
  User user;
  user.id = "0f8fad5b-d9cb-469f-a165-70867728950e";
  user.email = "a@b";
  const auto state = [&](std::uint64_t version, const std::string& role) {
    user.role = role;
    return detail::RecordState{"users", user.id, detail::encode_user(user), version};
  };
  const detail::RecordState erased{"users", user.id, std::nullopt, 0};
  const auto role = [&] { return memory.user(user.id) ? memory.user(user.id)->role : "none"; };
  using Changed = std::vector<bool>;
  CHECK(memory.apply({state(2, "two")}) == Changed{true});
  CHECK(memory.apply({state(1, "one")}) == Changed{false});
  CHECK(memory.apply({state(2, "other two")}) == Changed{false});
  CHECK(role() == "two");
  CHECK(memory.apply({state(3, "three")}) == Changed{true});
  CHECK(role() == "three");
  CHECK(memory.user_by_email("A@B")->version == 3);
  {
    const detail::RepositoryMemory::Guard reader(memory);  // read version 4 before the erase
    CHECK(memory.apply({erased}) == Changed{true});
    CHECK(memory.apply({erased}) == Changed{false});
    CHECK(memory.tombstones() == 1);
    CHECK(memory.apply({state(4, "late")}) == Changed{false});
    CHECK(role() == "none");
    CHECK(memory.user_by_email("a@b") == nullptr);
    const detail::RepositoryMemory::Guard later(memory);
    CHECK(memory.tombstones() == 1);
  }
  CHECK(memory.tombstones() == 0);
  CHECK(memory.apply({state(5, "imported")}) == Changed{true});
  CHECK(role() == "imported");
}

TEST_CASE("of eight threads that create one thing, one wins") {
  Fixture f;
  const auto other = must(Repository::open(f.options()));
  const auto pick = [&](int i) -> Repository& { return i % 2 == 0 ? *f : *other; };
  std::atomic<int> taken{0};
  const auto note = [&](const std::string& why, const char* expected) {
    if (why == expected) ++taken;
    return why == "ok";
  };
  CHECK(run_threads(8, [&](int i) {
          Target target;
          target.name = i % 3 == 0 ? "Same" : "same";
          target.url = "https://a.example";
          return note(reason(pick(i).create_target(target)), "name_taken");
        }) == 1);
  CHECK(taken == 7);
  taken = 0;
  CHECK(run_threads(8, [&](int i) {
          User user;
          user.email = "same@example.com";
          return note(reason(pick(i).create_user(user)), "email_taken");
        }) == 1);
  CHECK(taken == 7);
  CHECK(must(f.memory->list(collection::kUsers, {}, {}, 0)).size() == 1);
  // Different names, one derived slug: all succeed with slugs of their own.
  CHECK(run_threads(8, [&](int i) {
          Target target;
          target.name = "x" + std::string(static_cast<std::size_t>(i) + 1, '.') + "y";
          target.url = "https://a.example";
          return reason(pick(i).create_target(target)) == "ok";
        }) == 8);
  CHECK(must(f.memory->list(collection::kTargetSlug, "x-y", {}, 0)).size() == 8);
}

TEST_CASE("R44: of eight first registrations one becomes admin") {
  Fixture f;
  const auto other = must(Repository::open(f.options()));
  CHECK(run_threads(8, [&](int i) {
          User user;
          user.email = "u" + std::to_string(i) + "@example.com";
          bool first = false;
          const User made = must((i % 2 == 0 ? *f : *other).create_user(user, true, &first));
          CHECK(first == (made.role == "admin"));
          return first;
        }) == 1);
}

TEST_CASE("R45: of two demotions of the last two admins one is refused") {
  for (int round = 0; round < 20; ++round) {
    Fixture f;
    const auto other = must(Repository::open(f.options()));
    const User a = f.user("a", "admin");
    const User b = f.user("b", "admin");
    CHECK(run_threads(2, [&](int i) {
            if (round % 3 == 0)
              return reason((i == 0 ? *f : *other).delete_user(i == 0 ? a.id : b.id)) == "ok";
            UserPatch patch;
            if (round % 3 == 1) patch.role = "user";
            if (round % 3 == 2) patch.enabled = false;
            const auto result = (i == 0 ? *f : *other).update_user(i == 0 ? a.id : b.id, patch);
            if (!result) CHECK(reason(result) == "last_admin");
            return reason(result) == "ok";
          }) == 1);
  }
}

TEST_CASE("the token limit holds under concurrency") {
  Fixture f;
  auto options = f.options();
  options.max_tokens_per_user = 5;
  f.repository = must(Repository::open(options));
  const auto other = must(Repository::open(options));
  const User alice = f.user("alice");
  CHECK(run_threads(8, [&](int i) {
          ApiToken token;
          token.user_id = alice.id;
          token.scopes = {"mcp"};
          return reason((i % 2 == 0 ? *f : *other).create_token(token)) == "ok";
        }) == 5);
}

TEST_CASE("what is added to a user or target while it is deleted does not outlive it") {
  for (int round = 0; round < 20; ++round) {
    Fixture f;
    const auto other = must(Repository::open(f.options()));
    f.user("root", "admin");
    const User alice = f.user("alice");
    const Target target = f.target("t");
    run_threads(6, [&](int i) {
      if (i == 0) must(f->delete_target(target.id));
      if (i == 1) must(f->delete_user(alice.id));
      if (i == 2) (void)other->set_target_token(target.id, {Scope::user, alice.id}, "x");
      if (i == 3) (void)f->set_env(target.id, kDefaultScope, {{"A", "1", {}}});
      if (i == 4) {
        Policy policy;
        policy.name = "p";
        policy.target_id = target.id;
        policy.subjects = {Fixture::subject(SubjectType::user, alice.id)};
        (void)other->create_policy(policy);
      }
      if (i == 5) {
        ApiToken token;
        token.user_id = alice.id;
        token.scopes = {"mcp"};
        (void)other->create_token(token);
      }
      return true;
    });
    const std::string left = dump(*f.memory);
    CHECK(left.find(target.id) == std::string::npos);
    CHECK(left.find(alice.id) == std::string::npos);
  }
}

TEST_CASE("a destination does not change under a credential that is being stored") {
  for (int round = 0; round < 20; ++round) {
    Fixture f;
    const auto other = must(Repository::open(f.options()));
    const Target target = f.target("t", "https://a.example");
    std::string moved;
    run_threads(2, [&](int i) {
      if (i == 0) {
        TargetUpdate update;
        update.target = target;
        update.target.url = "https://b.example";
        moved = reason(f->update_target(update));
      } else {
        must(other->set_target_token(target.id, kDefaultScope, "x"));
      }
      return true;
    });
    // Either the token came first and the move was refused, or it was stored for the new place.
    const auto stored = must(f.memory->get(collection::kTargets, target.id));
    const bool at_new = stored->value.find("b.example") != std::string::npos;
    CHECK((moved == "ok") == at_new);
    CHECK((moved == "ok" || moved == "credentials_bound"));
  }
}

TEST_CASE("readers, writers and listeners at once end in one state") {
  Fixture f;
  const auto other = must(Repository::open(f.options()));
  f.user("root", "admin");
  const User alice = f.user("alice");
  const Target target = f.target("t");
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop) {
      dump(*f);
      dump(*other);
    }
  });
  std::thread listening([&] {
    while (!stop) Changes changes(*other);
  });
  CHECK(run_threads(4, [&](int i) {
          Repository& repository = i % 2 == 0 ? *f : *other;
          for (int n = 0; n < 25; ++n) {
            UserPatch patch;
            patch.groups = std::vector<std::string>{"g" + std::to_string(i), "n" + std::to_string(n)};
            must(repository.update_user(alice.id, patch));
            must(repository.set_env(target.id, kDefaultScope,
                                    {{"K" + std::to_string(i), std::to_string(n), {}}}));
            if (n % 5 == 4) must(repository.delete_env(target.id, kDefaultScope, "K" + std::to_string(i)));
          }
          return true;
        }) == 4);
  Changes changes(*other);
  Changes own(*f);
  must(f->set_env(target.id, kDefaultScope, {{"LAST", "1", {}}}));
  must(other->set_env(target.id, kDefaultScope, {{"VERY_LAST", "1", {}}}));
  const auto fresh = must(Repository::open(f.options()));
  CHECK(changes.wait([&] { return dump(*other) == dump(*fresh); }));
  CHECK(own.wait([&] { return dump(*f) == dump(*fresh); }));
  stop = true;
  reader.join();
  listening.join();
}

TEST_CASE("the last reference may be let go of by a listener") {
  Fixture f;
  auto other = must(Repository::open(f.options()));
  std::mutex mutex;
  std::condition_variable gone;
  bool done = false;
  other->add_listener([&](const RepositoryChange&) {
    std::lock_guard lock(mutex);
    other.reset();
    done = true;
    gone.notify_all();
  });
  f.user("alice");
  std::unique_lock lock(mutex);
  CHECK(gone.wait_for(lock, std::chrono::seconds(10), [&] { return done; }));
}
