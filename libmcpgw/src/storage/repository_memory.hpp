// RepositoryMemory: the records of a Repository as objects in memory, by whatever they are looked up.
//
// A version of a record is put in force only when it is newer than what is held, and an erase is final, so it
// does not matter in which order loads, own writes and changes from elsewhere arrive.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/shared_apart.hpp"
#include "mcpgw/model.hpp"
#include "mcpgw/repository.hpp"
#include "secrets/sealer.hpp"
#include "storage/records.hpp"

namespace mcpgw::detail {

/// A record as it is now in storage. No text: it is erased.
struct RecordState {
  std::string collection;
  std::string key;
  std::optional<std::string> text;
  std::uint64_t version = 0;
};

/// Whether records of this collection are kept in memory.
bool is_cached(std::string_view collection) noexcept;
/// What listeners hear about a change of this record; nullopt when it is nothing they know.
std::optional<RepositoryChange> change_of(std::string_view collection, std::string_view key, bool erased);

/// Safe from any thread. Lookups take a shared lock for the time of the lookup only.
class RepositoryMemory {
 public:
  using ProblemSink = std::function<void(std::string_view what)>;
  RepositoryMemory(std::shared_ptr<Sealer> sealer, ProblemSink problem);

  /// Held from before records are read or written until they have been applied: as long, erased records are
  /// remembered, lest a text read before the erase bring them back.
  class Guard {
   public:
    explicit Guard(RepositoryMemory& memory);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    RepositoryMemory& memory_;
    std::uint64_t epoch_;
  };

  /// All of them at once for readers. Says for each whether it changed what is in force.
  std::vector<bool> apply(const std::vector<RecordState>& records);
  /// Keys held of a cached collection.
  std::vector<std::string> keys(std::string_view collection) const;

  std::shared_ptr<const User> user(std::string_view id) const;
  std::shared_ptr<const User> user_by_email(std::string_view email) const;
  std::vector<std::shared_ptr<const User>> users() const;
  bool ever_had_user() const noexcept { return ever_had_user_.load(std::memory_order_acquire); }
  void set_ever_had_user() noexcept { ever_had_user_.store(true, std::memory_order_release); }

  std::shared_ptr<const ApiToken> token(std::string_view id) const;
  std::shared_ptr<const ApiToken> token_by_jti(std::string_view jti) const;
  std::vector<std::shared_ptr<const ApiToken>> tokens_of(std::string_view user_id) const;
  std::vector<std::shared_ptr<const ApiToken>> all_tokens() const;

  std::shared_ptr<const Target> target(std::string_view id) const;
  std::shared_ptr<const Target> target_by_name(std::string_view name) const;
  std::vector<std::shared_ptr<const Target>> targets() const;

  std::shared_ptr<const Policy> policy(std::string_view id) const;
  std::vector<std::shared_ptr<const Policy>> policies() const;

  /// Rows of kTargetTokens or kEnv whose key starts with `prefix`.
  std::vector<std::shared_ptr<const StoredCredential>> credentials(std::string_view collection,
                                                                   std::string_view prefix) const;

  std::uint64_t policy_generation() const noexcept {
    return policy_generation_.load(std::memory_order_acquire);
  }
  std::uint64_t credential_generation() const noexcept {
    return credential_generation_.load(std::memory_order_acquire);
  }
  /// Remembered erases: for tests of their bound.
  std::size_t tombstones() const;

 private:
  // A null value is a row that cannot be read: it does not exist, but keeps older versions out.
  template <class T>
  struct Entry {
    std::uint64_t version = 0;
    std::shared_ptr<const T> value;
  };
  template <class T>
  using Rows = std::map<std::string, Entry<T>, std::less<>>;
  using CredentialRows = Rows<StoredCredential>;
  using Text2 = std::pair<std::string, std::string>;
  using PolicyOrder = std::tuple<int, std::string, std::string>;

  // Decoded before the lock is taken.
  struct Decoded {
    std::shared_ptr<const User> user;
    std::shared_ptr<const ApiToken> token;
    std::shared_ptr<const Target> target;
    std::shared_ptr<const Policy> policy;
    std::shared_ptr<const StoredCredential> credential;
  };
  Decoded decode(const RecordState& record) const;
  template <class T>
  std::shared_ptr<const T> readable(std::optional<T> value, const RecordState& record) const;
  std::shared_ptr<const Target> decode_target_record(const RecordState& record) const;

  // All below: under the unique lock.
  bool apply_one(const RecordState& record, Decoded decoded);
  template <class T, class Index>
  bool replace(Rows<T>& rows, const RecordState& record, std::shared_ptr<const T> value, Index&& index);
  void index_user(const std::shared_ptr<const User>& value, bool add);
  void index_token(const std::shared_ptr<const ApiToken>& value, bool add);
  void index_target(const std::shared_ptr<const Target>& value, bool add);
  void index_policy(const std::shared_ptr<const Policy>& value, bool add);
  void prune_tombstones();
  const CredentialRows* credential_rows(std::string_view collection) const;

  const std::shared_ptr<Sealer> sealer_;
  const ProblemSink problem_;

  mutable ReadMostlyMutex mutex_;
  Rows<User> users_;
  Rows<ApiToken> tokens_;
  Rows<Target> targets_;
  Rows<Policy> policies_;
  CredentialRows target_tokens_;
  CredentialRows env_;
  std::map<Text2, std::shared_ptr<const User>> users_by_email_;
  std::map<Text2, std::shared_ptr<const Target>> targets_by_name_;
  std::map<PolicyOrder, std::shared_ptr<const Policy>> policies_by_order_;
  std::map<std::string, std::shared_ptr<const ApiToken>, std::less<>> tokens_by_id_;
  std::map<std::string, std::shared_ptr<const ApiToken>, std::less<>> tokens_by_jti_;

  std::uint64_t epoch_ = 0;
  std::multiset<std::uint64_t> active_;  // epochs at which the living guards began
  std::set<Text2> erased_;
  std::deque<std::pair<std::uint64_t, Text2>> erased_order_;

  std::atomic<bool> ever_had_user_{false};
  std::atomic<std::uint64_t> policy_generation_{1};
  std::atomic<std::uint64_t> credential_generation_{1};
};

}  // namespace mcpgw::detail
