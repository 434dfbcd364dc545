// A repository in memory, a clock to turn and an authenticator over them.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <string>

#include "mcpgw/authenticator.hpp"
#include "mcpgw/testing.hpp"
#include "secrets/jwt.hpp"

namespace mcpgw::testing {

inline const std::string kJwtSecret = "a secret of the test, longer than 32 bytes";
inline constexpr const char* kPassword = "correct horse";

/// Calls back before a commit takes place, once: what happens in the middle of something else.
class InterruptedStorage : public Storage {
 public:
  explicit InterruptedStorage(std::shared_ptr<Storage> inner) : inner_(std::move(inner)) {}
  /// `nth`: 1 = before the next commit.
  void before_commit(int nth, std::function<void()> action) {
    countdown_ = nth;
    action_ = std::move(action);
  }
  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override {
    return inner_->get(collection, key);
  }
  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override {
    return inner_->list(collection, prefix, after, limit);
  }
  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    if (countdown_ > 0 && --countdown_ == 0) std::exchange(action_, {})();
    return inner_->commit(operations);
  }
  std::uint64_t watch(WatchCallback callback) override { return inner_->watch(std::move(callback)); }
  void unwatch(std::uint64_t id) override { inner_->unwatch(id); }
  Status ping() override { return inner_->ping(); }

 private:
  const std::shared_ptr<Storage> inner_;
  int countdown_ = 0;
  std::function<void()> action_;
};

struct AuthFixture {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  std::shared_ptr<Storage> memory = make_memory_storage();
  std::shared_ptr<InterruptedStorage> storage = std::make_shared<InterruptedStorage>(memory);
  std::shared_ptr<Repository> repository;
  AuthenticatorOptions options;
  std::shared_ptr<Authenticator> auth;

  explicit AuthFixture(const std::function<void(AuthenticatorOptions&)>& change = {},
                       std::shared_ptr<Random> random = nullptr) {
    repository = open_repository(std::move(random));
    options.repository = repository;
    options.jwt_secret = kJwtSecret;
    if (change) change(options);
    auto made = Authenticator::create(options);
    REQUIRE(made);
    auth = *made;
  }

  std::shared_ptr<Repository> open_repository(std::shared_ptr<Random> random = nullptr) const {
    RepositoryOptions stored;
    stored.storage = storage;
    stored.keys.current = "0123456789abcdefghijklmnopqrstuv";
    stored.clock = clock;
    stored.random = std::move(random);
    auto opened = Repository::open(std::move(stored));
    REQUIRE(opened);
    return *opened;
  }

  Result<SignedIn> register_as(const char* email) {
    return auth->register_user(email, kPassword, "", "10.0.0.1");
  }
  /// Stores a hash of the password for the user, as an administrator does.
  void set_password(const std::string& user_id, const char* password) const {
    const auto hash = auth->hash_password(password);
    REQUIRE(hash);
    UserPatch patch;
    patch.password_hash = *hash;
    patch.revoke_login_tokens = true;
    REQUIRE(repository->update_user(user_id, patch));
  }
  void set_enabled(const std::string& user_id, bool enabled) const {
    UserPatch patch;
    patch.enabled = enabled;
    REQUIRE(repository->update_user(user_id, patch));
  }
  std::size_t live_tokens(const std::string& user_id) const {
    std::size_t out = 0;
    for (const auto& row : repository->tokens_of(user_id))
      if (!row->revoked_at) ++out;
    return out;
  }
};

template <class T>
std::string reason(const Result<T>& result) {
  return result.has_value() ? "ok" : result.error().reason;
}

}  // namespace mcpgw::testing
