// Keys that are replaced while everything goes on.
#include <atomic>

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
  must(other->announce_keys());
  REQUIRE(changes.wait([&] { return changes.count(RepositoryChange::Kind::keys) > 0; }));
  CHECK(file.reads >= 1);
  must(f->set_target_token(target.id, kDefault, "later"));  // sealed with the new key already
  values = must(other->sealed_values());
  CHECK(values.by_key.at(values.current_key) == 1);
  const auto progress = must(other->reseal());
  CHECK(progress.resealed == 2);
  CHECK(progress.failed == 0);
  CHECK(must(f->reveal_target_token(target.id, kDefault)) == "later");
  CHECK(must(f->reveal_env(target.id, kDefault)).at("B") == "b");
  CHECK(must(f->sealed_values()).by_key.size() == 1);

  theirs.keys = {kLost, {}};
  const auto stranger = must(Repository::open(theirs));
  values = must(stranger->sealed_values());
  CHECK(values.unreadable == 3);
  CHECK(values.by_key.count(values.current_key) == 0);
}

TEST_CASE("a repository that missed the news finds the key when it needs it") {
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
  file.rotate();
  auto theirs = options;
  theirs.keys = {kNew, {kOld}};
  theirs.reload_keys = nullptr;
  Changes changes(*f);
  CHECK(must(must(Repository::open(theirs))->reseal()).resealed == 1);
  REQUIRE(changes.wait([&] { return changes.count(RepositoryChange::Kind::target_token) > 0; }));
  CHECK(must(f->reveal_target_token(target.id, kDefault)) == "token");
  CHECK(file.reads == 1);
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
