// Keys that are replaced while everything goes on.
#include <atomic>
#include <thread>

#include "mcpgw/authenticator.hpp"
#include "repository_support.hpp"
#include "secrets/key_ring.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace mcpgw::test;

namespace {

const std::string kOld(32, 'k'), kNew(32, 'n'), kLost(32, 'z');
const ScopeRef kDefault{Scope::everyone, {}};

/// Where the keys of a process are read from again.
struct KeyFile {
  std::mutex mutex;
  EncryptionKeys keys{kOld, {}};
  bool readable = true;
  std::atomic<int> reads{0};

  KeyRing::Source source() {
    return [this]() -> std::optional<EncryptionKeys> {
      ++reads;
      const std::lock_guard lock(mutex);
      return readable ? std::optional(keys) : std::nullopt;
    };
  }
  void rotate() {
    const std::lock_guard lock(mutex);
    keys.previous.insert(keys.previous.begin(), keys.current);
    keys.current = kNew;
  }
};

}  // namespace

TEST_CASE("a ring looks for a key that it does not know, and not again at once") {
  KeyFile file;
  const auto random = make_system_random();
  const auto ring = *KeyRing::create({kOld, {}}, random, file.source());
  const auto old_sealed = ring->seal("old", "id");
  CHECK(*ring->open(old_sealed, "id") == "old");
  CHECK(file.reads == 0);

  const auto newer = *Sealer::create({kNew, {kOld}}, random);
  const auto new_sealed = newer->seal("new", "id");
  file.rotate();
  CHECK_FALSE(ring->knows(new_sealed));
  CHECK(*ring->open(new_sealed, "id") == "new");
  CHECK(file.reads == 1);
  CHECK(*ring->open(old_sealed, "id") == "old");
  CHECK(ring->is_current(ring->seal("x", "id")));
  CHECK(ring->current_key_id() == newer->current_key_id());
  CHECK(ring->current_key_id() == std::string(Sealer::key_id_of(new_sealed)));

  const auto lost = (*Sealer::create({kLost, {}}, random))->seal("lost", "id");
  for (int i = 0; i < 3; ++i) CHECK_FALSE(ring->open(lost, "id"));
  CHECK(file.reads == 2);
  // Damaged, or under another identity: a key is not what is missing.
  CHECK_FALSE(ring->open(new_sealed, "other"));
  CHECK_FALSE(ring->open("v1", "id"));
  CHECK(*ring->open(new_sealed, "id") == "new");
}

TEST_CASE("keys that cannot be read or used leave the old ones in force") {
  KeyFile file;
  const auto ring = *KeyRing::create({kOld, {}}, make_system_random(), file.source());
  const auto sealed = ring->seal("old", "id");
  file.readable = false;
  ring->refresh();
  CHECK(*ring->open(sealed, "id") == "old");
  file.readable = true;
  file.keys.current = "short";
  ring->refresh();
  CHECK(ring->is_current(sealed));
  CHECK_FALSE(KeyRing::create({"short", {}}, nullptr, nullptr));
  const auto fixed = *KeyRing::create({kOld, {}}, nullptr, nullptr);
  fixed->refresh();
  CHECK_FALSE(fixed->open((*Sealer::create({kNew, {}}, nullptr))->seal("x", "id"), "id"));
}

TEST_CASE("R79: another process rotates the key of a repository that goes on") {
  Fixture f;
  KeyFile file;
  auto options = f.options();
  options.keys = {kOld, {}};
  options.reload_keys = file.source();
  f.repository = must(Repository::open(options));
  Target wanted;
  wanted.name = "t";
  wanted.url = "https://a.example";
  const Target target = must(f->create_target(wanted));
  must(f->set_target_token(target.id, kDefault, "token"));
  must(f->set_env(target.id, kDefault, {{"A", "a", {}}, {"B", "b", {}}}));
  auto values = must(f->sealed_values());
  CHECK(values.by_key.size() == 1);
  CHECK(values.by_key.at(values.current_key) == 3);
  CHECK(values.unreadable == 0);

  // The other process: the new key where this one reads it, the news, then the values.
  Changes changes(*f);
  file.rotate();
  auto theirs = options;
  theirs.keys = {kNew, {kOld}};
  theirs.reload_keys = nullptr;
  const auto other = must(Repository::open(theirs));
  must(other->start_key_rotation());
  REQUIRE(changes.wait([&] { return changes.count(RepositoryChange::Kind::keys) > 0; }));
  CHECK(file.reads >= 1);
  must(f->set_target_token(target.id, kDefault, "later"));  // sealed with the new key already
  values = must(other->sealed_values());
  CHECK(values.by_key.at(values.current_key) == 1);
  // What the old key sealed is still read, by both.
  CHECK(must(f->reveal_env(target.id, kDefault)).at("B") == "b");
  const auto old_record = **f.memory->get("env", must(f.memory->list("env", {}, {}, 1)).front().key);
  const auto done = must(other->run_key_rotation());
  CHECK(done.state == KeyRotation::State::done);
  CHECK(done.progress.resealed == 2);
  CHECK(done.progress.failed == 0);
  CHECK(must(f->reveal_target_token(target.id, kDefault)) == "later");
  CHECK(must(f->reveal_env(target.id, kDefault)).at("B") == "b");
  CHECK(must(f->sealed_values()).by_key.size() == 1);

  // Done: who has the old key alone can neither write nor be believed.
  REQUIRE(changes.wait([&] { return changes.count(RepositoryChange::Kind::keys) > 1; }));
  must(f.memory->put(old_record.collection, old_record.key, old_record.value));
  REQUIRE(
      changes.wait([&] { return reason(f->reveal_env(target.id, kDefault)) == "credential_unavailable"; }));
  must(f->set_env(target.id, kDefault, {{"A", "a", {}}, {"B", "b", {}}}));
  theirs.keys = {kOld, {}};
  const auto late = must(Repository::open(theirs));
  CHECK(reason(late->set_target_token(target.id, kDefault, "late")) == "credential_unavailable");
  CHECK(reason(late->start_key_rotation()) == "key_retired");

  theirs.keys = {kLost, {}};
  const auto stranger = must(Repository::open(theirs));
  values = must(stranger->sealed_values());
  CHECK(values.unreadable == 3);
  CHECK(values.by_key.count(values.current_key) == 0);
}

TEST_CASE(
    "a key that is configured first seals nothing before it is put in force, and then at once everywhere") {
  Fixture f;
  auto options = f.options();
  options.keys = {kOld, {}};
  f.repository = must(Repository::open(options));
  Target wanted;
  wanted.name = "t";
  wanted.url = "https://a.example";
  const Target target = must(f->create_target(wanted));
  // Replicas get the new key one after another; what they write meanwhile each of them can read.
  auto both = options;
  both.keys = {kNew, {kOld}};
  const auto second = must(Repository::open(both));
  must(second->set_target_token(target.id, kDefault, "by the second"));
  CHECK(must(f->sealed_values()).unreadable == 0);
  CHECK(second->key_in_force() == f->key_in_force());
  CHECK(must(second->sealed_values()).configured_key != second->key_in_force());
  const auto third = must(Repository::open(both));
  must(second->start_key_rotation());
  // No write of the third's is sealed with the old key from here on, whether it has heard of the new one or
  // not.
  for (int i = 0; i < 20; ++i)
    must(third->set_env(target.id, kDefault, {{"K" + std::to_string(i), "v", {}}}));
  const auto values = must(second->sealed_values());
  CHECK(values.by_key.at(values.configured_key) == 20);
  CHECK(third->key_in_force() == values.configured_key);
  // Who does not have it yet is told so, and reads what is still of the old one.
  CHECK(reason(f->set_target_token(target.id, kDefault, "x")) == "credential_unavailable");
  CHECK(must(f->reveal_target_token(target.id, kDefault)) == "by the second");
}

TEST_CASE("a damaged record of the keys in force stops neither reading nor what else changes") {
  Fixture f;
  Target wanted;
  wanted.name = "t";
  wanted.url = "https://a.example";
  const Target target = must(f->create_target(wanted));
  must(f->set_target_token(target.id, kDefault, "token"));
  const auto second = must(Repository::open(f.options()));
  must(f.memory->put("meta", "keys", "[]"));
  const Target other = f.target("other");
  for (int i = 0; i < 1000 && !second->target(other.id); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(second->target(other.id));
  CHECK(must(second->reveal_target_token(target.id, kDefault)) == "token");
  CHECK(reason(Repository::open(f.options())) == "storage_damaged");
}

TEST_CASE("of several processes one seals anew; when it is not heard of, another goes on where it was") {
  Fixture f;
  auto options = f.options();
  options.keys = {kNew, {kOld}};
  {
    auto before = options;
    before.keys = {kOld, {}};
    f.repository = must(Repository::open(before));
  }
  Target wanted;
  wanted.name = "t";
  wanted.url = "https://a.example";
  const Target target = must(f->create_target(wanted));
  std::vector<Repository::EnvWrite> writes;
  for (int i = 0; i < 300; ++i) writes.push_back({"K" + std::to_string(i), "v", {}});
  must(f->set_env(target.id, kDefault, writes));
  const auto first = must(Repository::open(options)), second = must(Repository::open(options));
  must(first->start_key_rotation());
  // The first says nothing for a while and does nothing: as if it had been killed. The second waits, then
  // works.
  int waited = 0;
  auto half = must(second->run_key_rotation([&](const KeyRotation& now) {
    if (now.progress.resealed == 0) ++waited;
    return now.progress.resealed < 100;
  }));
  CHECK(waited >= 5);
  CHECK(half.state == KeyRotation::State::running);
  CHECK(half.progress.resealed >= 100);
  CHECK(half.progress.resealed < 300);
  // It left in order: the first need not wait, and does the rest only.
  std::uint64_t begun = 0;
  const auto done = must(first->run_key_rotation([&](const KeyRotation& now) {
    if (begun == 0) begun = now.progress.resealed;
    return true;
  }));
  CHECK(begun >= 100);
  CHECK(done.state == KeyRotation::State::done);
  CHECK(done.progress.resealed == 300);
  CHECK(must(second->run_key_rotation()).state == KeyRotation::State::done);
  CHECK(must(second->reveal_env(target.id, kDefault)).size() == 300);

  // Several at once: no row is sealed twice.
  auto third_keys = options;
  third_keys.keys = {kLost, {kNew}};
  std::vector<std::shared_ptr<Repository>> all;
  for (int i = 0; i < 3; ++i) all.push_back(must(Repository::open(third_keys)));
  must(all[0]->start_key_rotation());
  std::vector<std::thread> threads;
  std::atomic<int> finished{0};
  for (const auto& one : all)
    threads.emplace_back([&, one] {
      const auto end = one->run_key_rotation();
      if (end && end->state == KeyRotation::State::done && end->progress.resealed == 300) ++finished;
    });
  for (auto& thread : threads) thread.join();
  CHECK(finished == 3);
}

TEST_CASE(
    "an authenticator signs with the secret that was put in force, and knows the old one as long as it is "
    "told") {
  Fixture f;
  const User alice = f.user("alice");
  AuthenticatorOptions options;
  options.repository = f.repository;
  options.jwt_secret = "the first secret, more than 32 bytes long";
  const auto auth = *Authenticator::create(options);
  const auto old = *auth->mint(alice.id, "old", TokenKind::api, {"mcp"}, std::nullopt);
  const std::string next = "the second secret, more than 32 bytes long";
  must(auth->replace_secrets(next, {options.jwt_secret}));
  const auto fresh = *auth->mint(alice.id, "new", TokenKind::api, {"mcp"}, std::nullopt);
  CHECK(fresh.token.substr(0, fresh.token.find('.')) != old.token.substr(0, old.token.find('.')));
  CHECK(reason(auth->authenticate_token(old.token)) == "ok");
  CHECK(reason(auth->authenticate_token(fresh.token)) == "ok");
  CHECK(field(auth->replace_secrets("short", {})) == "jwt.secret");
  CHECK(field(auth->replace_secrets(next, {"short"})) == "jwt.previous_secrets");
  CHECK(reason(auth->authenticate_token(old.token)) == "ok");
  must(auth->replace_secrets(next, {}));
  CHECK(reason(auth->authenticate_token(old.token)) == "invalid_token");
  CHECK(reason(auth->authenticate_token(fresh.token)) == "ok");
}

TEST_CASE("a replica that lives without the new key keeps it from being put in force, and old ones in use") {
  Fixture f;
  RepositoryOptions options = f.options();
  options.keys = {kNew, {options.keys.current}};
  const auto repository = must(Repository::open(options));
  const std::string old_key = f->key_in_force();
  const std::vector<std::string> known{must(repository->sealed_values()).configured_key, old_key};
  REQUIRE(known[0] != known[1]);

  ReplicaRecord other;
  other.id = "other";
  other.address = "http://10.0.0.7:3100";
  std::mutex mutex;
  std::jthread heart([&](const std::stop_token& stop) {
    for (; !stop.stop_requested(); std::this_thread::sleep_for(std::chrono::milliseconds(20))) {
      const std::lock_guard lock(mutex);
      ++other.beat;
      (void)f->save_replica(other);
    }
  });
  const auto says = [&](std::vector<std::string> keys) {
    const std::lock_guard lock(mutex);
    other.keys = std::move(keys);
    ++other.beat;
    must(f->save_replica(other));
  };
  says({known[1]});
  const auto refused = repository->start_key_rotation();
  CHECK(reason(refused) == "key_unknown");
  CHECK(refused.error().message.find("other at http://10.0.0.7:3100 does not have") != std::string::npos);
  CHECK(must(repository->key_rotation()).state == KeyRotation::State::none);

  // One without it that comes meanwhile: everything is sealed, and older keys stay in use until it has gone.
  says(known);
  must(repository->start_key_rotation());
  says({known[1]});
  CHECK(reason(repository->run_key_rotation()) == "key_unknown");
  CHECK(must(repository->key_rotation()).state == KeyRotation::State::running);
  heart.request_stop();
  heart.join();
  must(f->delete_replica("other"));
  CHECK(must(repository->run_key_rotation()).state == KeyRotation::State::done);
}
