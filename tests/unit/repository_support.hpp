// What the tests of Repository share: a repository over a storage that can be made to fail, and texts of all
// that is stored or held in memory, to compare before and after.
#pragma once

#include <doctest/doctest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "mcpgw/repository.hpp"
#include "mcpgw/testing.hpp"
#include "storage/model_text.hpp"
#include "storage/records.hpp"

namespace mcpgw::test {

namespace collection = detail::collection;

inline EncryptionKeys keys() { return EncryptionKeys{std::string(32, 'k'), {}}; }

template <class T>
std::string reason(const Result<T>& result) {
  return result ? "ok" : result.error().reason;
}
template <class T>
std::string field(const Result<T>& result) {
  return result ? "ok" : result.error().field;
}
/// The value of a result that must be one.
template <class T>
T must(Result<T> result) {
  if (!result) FAIL(result.error().reason << ": " << result.error().message);
  return std::move(*result);
}
inline void must(const Status& status) {
  if (!status) FAIL(status.error().reason << ": " << status.error().message);
}

/// Collects what listeners hear; waits for something without sleeping.
class Changes {
 public:
  explicit Changes(Repository& repository) : repository_(repository) {
    id_ = repository.add_listener([this](const RepositoryChange& change) {
      std::lock_guard lock(mutex_);
      all_.push_back(change);
      grown_.notify_all();
    });
  }
  ~Changes() { repository_.remove_listener(id_); }
  std::vector<RepositoryChange> all() const {
    std::lock_guard lock(mutex_);
    return all_;
  }
  std::size_t count(RepositoryChange::Kind kind) const {
    std::lock_guard lock(mutex_);
    std::size_t n = 0;
    for (const auto& change : all_) n += change.kind == kind ? 1 : 0;
    return n;
  }
  void clear() {
    std::lock_guard lock(mutex_);
    all_.clear();
  }
  /// False when it does not become true within ten seconds. `condition` is asked after each change.
  bool wait(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    for (;;) {
      const std::size_t seen = all_.size();
      lock.unlock();
      if (condition()) return true;
      lock.lock();
      if (!grown_.wait_for(lock, std::chrono::seconds(10), [&] { return all_.size() > seen; })) {
        lock.unlock();
        return condition();
      }
    }
  }

 private:
  Repository& repository_;
  std::uint64_t id_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable grown_;
  std::vector<RepositoryChange> all_;
};

struct Fixture {
  std::shared_ptr<testing::ManualClock> clock = std::make_shared<testing::ManualClock>();
  std::shared_ptr<Storage> memory = make_memory_storage();
  std::shared_ptr<testing::FailingStorage> storage = std::make_shared<testing::FailingStorage>(memory);
  std::shared_ptr<Repository> repository;

  explicit Fixture(bool seed = false) { repository = must(Repository::open(options(seed))); }

  RepositoryOptions options(bool seed = false) const {
    RepositoryOptions out;
    out.storage = storage;
    out.keys = keys();
    out.clock = clock;
    out.seed = seed;
    return out;
  }
  Repository* operator->() const { return repository.get(); }
  Repository& operator*() const { return *repository; }

  User user(const std::string& name, const std::string& role = "user", std::vector<std::string> groups = {}) {
    User made;
    made.email = name + "@example.com";
    made.role = role;
    made.groups = std::move(groups);
    made.password_hash = "hash of " + name;
    return must(repository->create_user(made));
  }
  ApiToken token(const User& user, TokenKind kind = TokenKind::api, const std::string& name = "t") {
    ApiToken made;
    made.user_id = user.id;
    made.kind = kind;
    made.name = name;
    made.scopes = {"mcp", "api"};
    return must(repository->create_token(made));
  }
  Target target(const std::string& name, const std::string& url = "https://mcp.example.com/mcp") {
    Target made;
    made.name = name;
    made.url = url;
    return must(repository->create_target(made));
  }
  Target process(const std::string& name) {
    Target made;
    made.name = name;
    made.transport_type = TransportType::stdio;
    made.command = "server";
    return must(repository->create_target(made));
  }
  Policy policy(const std::string& name, const std::string& target_id = {},
                std::vector<Subject> subjects = {}) {
    Policy made;
    made.name = name;
    made.target_id = target_id;
    made.subjects = std::move(subjects);
    return must(repository->create_policy(made));
  }
  static Subject subject(SubjectType type, const std::string& value = {}) {
    Subject made;
    made.type = type;
    made.value = value;
    return made;
  }
  /// Writes a record as it stands, past the repository's rules.
  void plant(std::string_view name, const std::string& key, const std::string& text) {
    if (auto done = memory->put(std::string(name), key, text); !done) FAIL(done.error().message);
  }
};

inline const ScopeRef kDefaultScope{Scope::everyone, ""};

/// Everything in the storage, versions included.
inline std::string dump(Storage& storage) {
  std::string out;
  for (const auto name :
       {collection::kUsers, collection::kTokens, collection::kTargets, collection::kTargetTokens,
        collection::kEnv, collection::kPolicies, collection::kSessions, collection::kUserSessions,
        collection::kUserEmail, collection::kTargetName, collection::kTargetSlug, collection::kUserRefs,
        collection::kTargetRefs, collection::kMeta}) {
    for (const Record& record : must(storage.list(name, {}, {}, 0)))
      out += record.collection + " " + record.key + " " + std::to_string(record.version) + " " +
             record.value + "\n";
  }
  return out;
}

inline std::string value_of(const Result<std::map<std::string, std::string>>& values,
                            const std::string& key) {
  if (!values) return values.error().reason;
  const auto it = values->find(key);
  return it == values->end() ? "gone" : it->second;
}

/// Everything that the repository shows from memory. Secrets by their values.
inline std::string dump(Repository& repository) {
  std::string out;
  for (const auto& user : repository.users()) {
    out += "user " + detail::encode_user(*user) + std::to_string(user->version) + "\n";
    for (const auto& token : repository.tokens_of(user->id))
      out += "token " + token->id + detail::encode_token(*token) + "\n";
  }
  for (const auto& target : repository.targets()) {
    const std::string key = target->tls ? target->tls->client_key : "";
    out += "target " + detail::encode_target(*target, key) + std::to_string(target->version) + "\n";
    for (const auto& token : repository.target_tokens(target->id)) {
      const auto value = repository.reveal_target_token(target->id, token.scope);
      out += "secret " + std::string(detail::to_text(token.scope.scope)) + token.scope.value + " " +
             (value ? value->value_or("none") : value.error().reason) + "\n";
    }
    for (const auto& row : repository.env_rows(target->id)) {
      const auto values = repository.reveal_env(target->id, row.scope);
      out += "env " + row.id + std::string(detail::to_text(row.scope.scope)) + row.scope.value + " " +
             row.key + "=" + value_of(values, row.key) + " " + row.description + "\n";
    }
  }
  for (const auto& policy : repository.policies())
    out += "policy " + policy->id + detail::encode_policy(*policy) + std::to_string(policy->version) + "\n";
  return out;
}

}  // namespace mcpgw::test
