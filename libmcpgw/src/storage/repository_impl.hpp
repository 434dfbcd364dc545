// The inside of Repository: writing and refreshing. Private to repository*.cpp.
//
// Two paths bring a change into memory. An own write is applied by the thread that made it, before it
// returns. A change from elsewhere is announced by Storage::watch, whose callback may not read storage: it
// leaves the key to the refresher thread, which rereads it. Keys that an own write has under way are left to
// that write, so that no change is told twice.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "mcpgw/repository.hpp"
#include "secrets/key_ring.hpp"
#include "storage/records.hpp"
#include "storage/repository_memory.hpp"
#include "storage/validate.hpp"

namespace mcpgw {

class Repository::Impl : public std::enable_shared_from_this<Repository::Impl> {
 public:
  Impl(RepositoryOptions repository_options, std::shared_ptr<detail::KeyRing> sealer);
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  /// Watches, loads, seeds, and starts the refresher.
  Status start();
  /// After return no callback of the storage is running, and no listener is called by the refresher.
  void stop();

  // --- reading storage ---
  using MaybeRecord = std::optional<Record>;
  Result<MaybeRecord> get(std::string_view collection, std::string_view key) const;
  /// All records with that prefix, read in pages.
  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix = {}) const;

  // --- writing storage ---
  using Operations = std::vector<Operation>;
  /// Commits, updates memory, tells listeners. Versions as Storage::commit gives them.
  Result<std::vector<std::uint64_t>> commit(const Operations& operations);
  /// Calls `attempt` again as long as it fails because someone else wrote in between; gives up in the end.
  template <class T, class Attempt>
  Result<T> retry(Attempt&& attempt);

  static Operation put(std::string_view collection, std::string_view key, std::string value,
                       std::optional<std::uint64_t> expected = std::nullopt);
  static Operation erase(std::string_view collection, std::string_view key,
                         std::optional<std::uint64_t> expected = std::nullopt);
  static Operation check(std::string_view collection, std::string_view key, std::uint64_t expected);

  /// The version of the record that stands for all references to a user or target; not_found when the object
  /// does not exist.
  Result<std::uint64_t> refs_version(std::string_view collection, std::string_view id) const;
  /// Writes that record: a cascade that has not seen what this transaction adds will fail and look again.
  void add_reference(Operations& operations, std::string_view collection, std::string_view id,
                     std::uint64_t version) const;
  /// Keeps the list of enabled admins in step. conflict/"last_admin" when the last one would go.
  Status change_admins(Operations& operations, std::string_view user_id, bool is_admin) const;

  // --- parts of transactions, one topic each ---
  /// repository_users.cpp: takes the user out of all policies' subjects.
  Status remove_from_policies(Operations& operations, const std::string& user_id) const;
  /// repository_tokens.cpp
  Status revoke_operations(Operations& operations, std::string_view user_id, bool login, bool api,
                           std::string_view except_token_id) const;
  /// Checks it, and sets id, jti and times.
  Status prepare_token(ApiToken& token) const;
  /// What creating a token takes: room for it, and the reference to its user. user_not_found, "token_limit".
  Status token_operations(Operations& operations, const ApiToken& token) const;
  /// repository_targets.cpp
  /// key_fence(), for targets that have a client key.
  Status fence_client_key(Operations& operations, const Target& target);
  std::string seal_client_key(const Target& target, const std::string& stored) const;
  Result<std::string> free_slug(const std::string& name) const;
  Status move_index(Operations& operations, std::string_view collection, const std::string& from,
                    const std::string& to, std::string_view id, const Error& taken) const;
  Result<int> move_destination(Operations& operations, Target& target, const detail::DecodedTarget& stored,
                               std::optional<bool> keep) const;
  /// repository_credentials.cpp: reads the target, checks the scope, and adds what every write of a
  /// credential must state, so that it excludes cascades and other creations.
  struct CredentialPlace {
    Target target;
    std::uint64_t target_refs = 0;
    std::vector<Record> rows;  ///< of the scope
  };
  Result<CredentialPlace> credential_place(Operations& operations, std::string_view collection,
                                           std::string_view target_id, const ScopeRef& scope) const;
  Result<std::string> open_credential(std::string_view collection, const detail::StoredCredential& row);
  /// repository_sessions.cpp
  Status write_session(const SessionRecord& session, std::optional<std::uint64_t> expected,
                       std::string_view previous = {}, Operations operations = {});
  /// Removes the user's sessions; returns their ids.
  Result<std::vector<std::string>> erase_sessions(Operations& operations, const std::string& user_id) const;
  /// key_rotation.cpp: the condition of every transaction that holds something sealed, asked for before
  /// it is sealed: that the key in force has not changed meanwhile. So nothing sealed with an old key comes
  /// in once a new one is in force, from whichever process. unavailable/"credential_unavailable" when the key
  /// in force is not one of ours.
  Result<Operation> key_fence();
  /// Reads which key is in force; says so itself when nobody has yet. Keys that open nothing any more do so
  /// until memory has been read anew: what it holds may still be sealed with them.
  Status read_keys();
  std::vector<std::string> keys_to_retire();
  /// Memory was read after keys_to_retire() told these.
  void retire_keys(std::vector<std::string> ids);
  /// Seals anew what the key in force did not seal; ends early when `go_on` says no.
  Result<ResealProgress> reseal_pass(const std::function<bool(const ResealProgress&)>& go_on);
  Status announce_keys();
  /// key_rotation.cpp: ok when every replica that lives has the key; waits until that is known of each, and
  /// ends early, with ok, when `go_on` says no. conflict/"key_unknown".
  Status replicas_have(const std::string& key, const std::function<bool()>& go_on);
  bool was_gone(const std::string& replica, std::int64_t beat);
  /// Ids of the keys that are configured here, read anew when keys were announced since the last time.
  std::vector<std::string> known_keys();
  /// key_rotation.cpp: the part of run_key_rotation() that seals, with the record of it as it was read.
  Result<KeyRotation> work_on_rotation(const std::string& text, std::uint64_t version,
                                       const std::function<bool(const KeyRotation&)>& go_on);
  /// repository_policies.cpp: checks what the policy refers to, and adds the references.
  Status refer(Operations& operations, const Policy& policy, const Policy* previous) const;

  // --- listeners ---
  std::uint64_t add_listener(Listener listener);
  void remove_listener(std::uint64_t id);

  void problem(std::string_view what);

  std::string new_id() const { return make_uuid(*random); }
  Time now() const { return clock->now(); }

  RepositoryOptions options;
  std::shared_ptr<Storage> storage;
  std::shared_ptr<Clock> clock;
  std::shared_ptr<Random> random;
  std::shared_ptr<detail::KeyRing> sealer;
  detail::RepositoryMemory memory;
  std::atomic<std::uint64_t> problems{0};
  /// Of the record that says which key is in force. The sealer knows of the key before this is set.
  std::atomic<std::uint64_t> keys_version{0};
  const std::string owner = make_uuid(*random);  ///< names this process where it takes up work
  std::mutex keys_mutex;                         ///< one thread at a time puts keys in force
  std::vector<std::string> retired_;    ///< open nothing any more; guarded by keys_mutex, as is the next
  std::vector<std::string> to_retire_;  ///< when memory has been read anew
  /// Beats of replicas that were waited for in vain: the same beat is not waited for again. By keys_mutex.
  std::map<std::string, std::int64_t> gone_;
  std::atomic<std::uint64_t> known_as_of_{0};  ///< version of meta/keys

  // Tokens whose use was written (or tried) lately, by monotonic time.
  std::mutex touch_mutex;
  std::map<std::string, Duration, std::less<>> touched;

 private:
  using RecordId = std::pair<std::string, std::string>;  // collection, key
  class PendingWrite;
  struct ListenerEntry {
    std::mutex mutex;
    std::condition_variable idle;
    Listener function;
    std::multiset<std::thread::id> running;
    bool removed = false;
  };
  // Changes announced for keys that own writes have under way.
  struct Pending {
    int writers = 0;
    std::vector<std::uint64_t> announced;
  };

  Status check_schema();
  Status load();
  Status seed();
  void on_watch(const std::vector<Change>& changes);
  void want_reload();
  void refresh_loop();
  using DirtyRecords = std::map<RecordId, std::uint64_t>;  // the version that was announced
  void mark_dirty(RecordId id, std::uint64_t version);     // under queue_mutex_
  bool refresh(const DirtyRecords& ids, bool everything);
  bool read_everything(std::vector<detail::RecordState>& states);
  Result<detail::RecordState> reread(const std::string& name, const std::string& key,
                                     std::uint64_t announced);
  void tell(const std::vector<RepositoryChange>& changes);

  std::uint64_t watch_id_ = 0;
  bool watching_ = false;

  std::mutex queue_mutex_;  // never held while storage, memory or a listener is called
  std::condition_variable queue_filled_;
  DirtyRecords dirty_;
  std::map<RecordId, Pending> pending_;
  bool reload_wanted_ = false;
  bool stopping_ = false;
  std::thread refresher_;

  std::mutex listeners_mutex_;
  std::map<std::uint64_t, std::shared_ptr<ListenerEntry>> listeners_;
  std::uint64_t next_listener_ = 1;
};

namespace detail {

inline bool is_version_conflict(const Error& error) {
  return error.code == ErrorCode::conflict && error.reason == "version_conflict";
}
inline Error not_found(std::string_view what, std::string message) {
  return Error(ErrorCode::not_found, std::string(what) + "_not_found", std::move(message));
}
inline Error user_not_found() { return not_found("user", "User not found"); }
inline Error target_not_found() { return not_found("target", "Target not found"); }
inline Error policy_not_found() { return not_found("policy", "Policy not found"); }
inline Error precondition_failed() {
  return Error(ErrorCode::precondition_failed, "precondition_failed",
               "The object was changed in the meantime: read it again and repeat the change");
}

}  // namespace detail

template <class T, class Attempt>
Result<T> Repository::Impl::retry(Attempt&& attempt) {
  constexpr int attempts = 100;
  for (int i = 0; i < attempts; ++i) {
    Result<T> result = attempt();
    if (result || !detail::is_version_conflict(result.error())) return result;
    // Somebody else succeeded each time, so this ends; a crowd is given room.
    if (i >= 4) std::this_thread::sleep_for(std::chrono::milliseconds(i < 20 ? 1 : 5));
  }
  return Error(ErrorCode::unavailable, "overloaded", "Too many concurrent changes of one object: try again");
}

}  // namespace mcpgw
