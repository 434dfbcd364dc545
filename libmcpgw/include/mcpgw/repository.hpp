// Repository: typed access to everything in a Storage: users, API tokens, targets, target tokens, env rows,
// policies, sessions. It validates what is written, keeps names unique, seals secrets, and keeps
// read-mostly records in memory, so that lookups during a request do no I/O.
//
// Threads: safe from any thread. Functions marked "memory" never touch storage and may be called on an
// event loop; the others may block for a storage round trip.
// A write has taken effect in memory of this process before it returns, and reaches other processes on the
// same storage through Storage::watch. Each write is one transaction.
// Errors: besides those named, `unavailable` when storage is away.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/clock.hpp"
#include "mcpgw/model.hpp"
#include "mcpgw/random.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/storage.hpp"

namespace mcpgw {

/// Keys that seal secrets at rest (AES-256-GCM): exactly 32 bytes each.
struct EncryptionKeys {
  std::string current;
  std::vector<std::string> previous;  ///< still decrypt
};

struct RepositoryOptions {
  std::shared_ptr<Storage> storage;
  EncryptionKeys keys;
  std::shared_ptr<Clock> clock;    ///< null: the system's
  std::shared_ptr<Random> random;  ///< null: the system's
  /// Writes the two seed policies when the store has never been seeded (docs/policies.md).
  bool seed = true;
  std::vector<std::string> stdio_allowed_commands;  ///< empty = any
  bool stdio_enabled = true;
  std::size_t max_tokens_per_user = 100;
  std::int64_t max_timeout_ms = 3600000;  ///< upper bound of the env key TIMEOUT
  /// Told when a stored row cannot be read or decrypted: a short text without names or values. Called from
  /// any thread, also with reads under way; must not call the repository.
  std::function<void(std::string_view what)> on_problem;
  /// Reads the keys again: called when another process has announced new ones (announce_keys), and when a
  /// stored value names a key that is not known. Nullopt: they cannot be read now, the old ones stay. Called
  /// from any thread; must not call the repository. Null: the keys never change.
  std::function<std::optional<EncryptionKeys>()> reload_keys;
};

/// What changed, told to listeners after memory has been updated.
struct RepositoryChange {
  /// keys: signing or encryption keys were replaced somewhere (announce_keys).
  enum class Kind { user, token, target, target_token, env, policy, session, keys };
  Kind kind;
  std::string id;       ///< user, token, target, policy or session id; for target_token and env the target id
  std::string user_id;  ///< token, session: its user. target_token, env: the user of a user scope, else empty
  bool erased = false;
};

/// Members that are set are written; the rest keep their value.
struct UserPatch {
  std::optional<std::string> role;
  std::optional<std::vector<std::string>> groups;
  std::optional<bool> enabled;
  std::optional<std::string> password_hash;
  std::optional<Time> last_login_at;
  // Revoked in the same transaction, so that a new password never stands beside tokens of the old one.
  bool revoke_login_tokens = false;
  bool revoke_api_tokens = false;
  std::string keep_token_id;  ///< the one token that is not revoked
};

/// For update_target and erase: what becomes of stored credentials when the destination changes.
struct TargetUpdate {
  Target target;  ///< the merged object; id selects it
  std::optional<std::uint64_t> if_version;
  std::optional<bool> keep_credentials;
};
struct TargetUpdateResult {
  Target target;
  int credentials_dropped = 0;
};

/// How many sealed values are stored under which key. Keys are named by 16 hex digits that do not tell them.
struct SealedValues {
  std::string current_key;     ///< in force; the configured one when that is not known here
  std::string configured_key;  ///< EncryptionKeys::current of this process
  std::map<std::string, std::uint64_t> by_key;
  std::uint64_t unreadable = 0;  ///< of these, the ones that no known key opens
};

/// Of KeyRotation.
struct ResealProgress {
  std::uint64_t checked = 0;   ///< sealed values looked at
  std::uint64_t resealed = 0;  ///< now sealed with the current key
  std::uint64_t failed = 0;    ///< cannot be opened with any key; left as they are
};

/// A change of the encryption key, as every process on the storage sees it.
struct KeyRotation {
  /// incomplete: everything was tried, and some values no key opens.
  enum class State { none, running, done, incomplete };
  State state = State::none;
  std::string key;          ///< the id of the key that is being, or was, put in force
  std::uint64_t total = 0;  ///< values that waited for it at the beginning
  ResealProgress progress;  ///< over all processes that have worked on it
};

class Repository {
 public:
  using Listener = std::function<void(const RepositoryChange&)>;

  /// Loads everything; fails when storage is away or holds a schema newer than this program.
  static Result<std::shared_ptr<Repository>> open(RepositoryOptions options);
  ~Repository();
  Repository(const Repository&) = delete;
  Repository& operator=(const Repository&) = delete;

  Storage& storage() const;
  Clock& clock() const;
  Random& random() const;
  const std::shared_ptr<Clock>& clock_ptr() const;
  const std::shared_ptr<Random>& random_ptr() const;

  /// Called once after each change, from the thread that made or received it; equal changes of one
  /// transaction are one call. Must not block and must not write.
  std::uint64_t add_listener(Listener listener);
  /// After return the listener is not running and will not be called again.
  void remove_listener(std::uint64_t id);

  // --- users ---------------------------------------------------------------------------------------
  /// conflict/"email_taken". The times and the version are set here, the id too unless one is given
  /// (imports). `first_becomes_admin`: when the store has never had a user, the role becomes "admin",
  /// atomically; `was_first` tells. `token`: created for the user in the same transaction, and filled in.
  Result<User> create_user(User user, bool first_becomes_admin = false, bool* was_first = nullptr,
                           ApiToken* token = nullptr);
  std::shared_ptr<const User> user(std::string_view id) const;              // memory
  std::shared_ptr<const User> user_by_email(std::string_view email) const;  // memory; any case
  std::vector<std::shared_ptr<const User>> users() const;                   // memory; by email
  bool has_users() const;                                                   // memory; ever had one
  /// Disabling a user removes their sessions with it.
  /// not_found/"user_not_found"; conflict/"last_admin"; precondition_failed.
  Result<User> update_user(std::string_view id, const UserPatch& patch,
                           std::optional<std::uint64_t> if_version = std::nullopt);
  /// Removes the user's tokens, target tokens, user env rows, sessions and policy subjects with it.
  Status delete_user(std::string_view id, std::optional<std::uint64_t> if_version = std::nullopt);

  // --- API tokens ----------------------------------------------------------------------------------
  /// conflict/"token_limit" counts unexpired, unrevoked tokens of kind api. Sets id, jti, created_at.
  /// A user keeps at most 1000 rows: beyond it the oldest dead ones, then the oldest logins, make room.
  Result<ApiToken> create_token(ApiToken token);
  /// A login: the token, and the user's last_login_at, in one transaction, if the account is enabled and its
  /// password hash is still the one that was judged. `user` gets the account as it then is.
  /// not_found/"user_not_found"; conflict/"account_changed".
  Result<ApiToken> create_login(ApiToken token, std::string_view judged_hash, User& user);
  std::shared_ptr<const ApiToken> token_by_jti(std::string_view jti) const;  // memory
  std::shared_ptr<const ApiToken> token(std::string_view id) const;          // memory
  /// All tokens kept for the user, newest first, revoked and expired ones included.
  std::vector<std::shared_ptr<const ApiToken>> tokens_of(std::string_view user_id) const;  // memory
  /// Ok again when already revoked. not_found/"token_not_found" also when it belongs to another user.
  Status revoke_token(std::string_view user_id, std::string_view token_id);
  /// Revokes all login tokens (and with the flag API tokens) of the user, except one token id.
  Status revoke_tokens(std::string_view user_id, bool include_api, std::string_view except_token_id = {});
  /// At most one attempt a minute and token; failures are ignored.
  void touch_token(std::string_view token_id);
  /// Whether touch_token would write now. Memory.
  bool token_touch_due(std::string_view token_id) const;
  /// Removes tokens that expired or were revoked before `cutoff`.
  Result<std::uint64_t> purge_tokens(Time cutoff);

  // --- targets -------------------------------------------------------------------------------------
  /// conflict/"name_taken", "slug_taken"; invalid_argument with field. An empty slug is derived. As for
  /// users, a given id is kept.
  Result<Target> create_target(Target target);
  std::shared_ptr<const Target> target(std::string_view id) const;            // memory
  std::shared_ptr<const Target> target_by_name(std::string_view name) const;  // memory; ignoring case
  std::vector<std::shared_ptr<const Target>> targets() const;                 // memory; by name
  /// conflict/"credentials_bound" when the destination changes while credentials are stored and
  /// keep_credentials is unset.
  Result<TargetUpdateResult> update_target(const TargetUpdate& update);
  /// Its target tokens, env rows and policies bound to it go with it.
  Status delete_target(std::string_view id, std::optional<std::uint64_t> if_version = std::nullopt);

  // --- target tokens (write-only secrets) ----------------------------------------------------------
  Status set_target_token(std::string_view target_id, const ScopeRef& scope, std::string_view token);
  /// not_found/"token_not_set"
  Status delete_target_token(std::string_view target_id, const ScopeRef& scope);
  std::vector<TargetToken> target_tokens(std::string_view target_id) const;                          // memory
  std::optional<TargetToken> target_token(std::string_view target_id, const ScopeRef& scope) const;  // memory
  /// The secret itself, for resolvers. nullopt: none stored. data_loss/"credential_unavailable".
  Result<std::optional<std::string>> reveal_target_token(std::string_view target_id,
                                                         const ScopeRef& scope) const;

  // --- env rows (write-only values) ----------------------------------------------------------------
  struct EnvWrite {
    std::string key;
    std::string value;
    /// Unset: keep. Set to nullopt: clear.
    std::optional<std::optional<std::string>> description;
  };
  /// All or none. invalid_argument/"invalid_key", "invalid_value"; conflict/"key_conflict".
  Result<std::vector<EnvRow>> set_env(std::string_view target_id, const ScopeRef& scope,
                                      const std::vector<EnvWrite>& writes);
  /// not_found/"env_not_found"
  Status delete_env(std::string_view target_id, const ScopeRef& scope, std::string_view key);
  /// By scope (default, role, group, user), scope value, key.
  std::vector<EnvRow> env_rows(std::string_view target_id) const;                         // memory
  std::vector<EnvRow> env_rows(std::string_view target_id, const ScopeRef& scope) const;  // memory; by key
  /// data_loss/"credential_unavailable" when one of them cannot be decrypted.
  Result<std::map<std::string, std::string>> reveal_env(std::string_view target_id,
                                                        const ScopeRef& scope) const;

  // --- policies ------------------------------------------------------------------------------------
  /// invalid_argument/"unknown_target", "unknown_user", "invalid_pattern"; conflict/"duplicate_subject".
  /// Subjects' ids are made here; a given id of the policy is kept.
  Result<Policy> create_policy(Policy policy);
  std::shared_ptr<const Policy> policy(std::string_view id) const;  // memory
  std::vector<std::shared_ptr<const Policy>> policies() const;      // memory; priority desc, name, id
  /// Replaces the stored policy with the merged object; subjects that keep type and value keep their id.
  Result<Policy> update_policy(Policy policy, std::optional<std::uint64_t> if_version = std::nullopt);
  Status delete_policy(std::string_view id, std::optional<std::uint64_t> if_version = std::nullopt);
  Result<Subject> add_subject(std::string_view policy_id, Subject subject);
  /// not_found/"policy_not_found", "subject_not_found"
  Status remove_subject(std::string_view policy_id, std::string_view subject_id);
  /// Grows with every policy or target change. Memory.
  std::uint64_t policy_generation() const noexcept;
  /// Grows with every target, target token, env or user change. Memory.
  std::uint64_t credential_generation() const noexcept;

  // --- sessions ------------------------------------------------------------------------------------
  /// Creates or replaces.
  Status save_session(const SessionRecord& session);
  /// Replaces; not_found/"session_not_found" when it is gone: what another replica ended stays ended.
  /// conflict/"session_moved" when another replica has taken it.
  Status update_session(const SessionRecord& session);
  /// Makes `to` the owner when `from` is it (empty: when there is none). The record as it is then, whoever
  /// owns it; nullopt when there is none.
  Result<std::optional<SessionRecord>> take_session(std::string_view id, std::string_view from,
                                                    std::string_view to);
  /// Ids of the sessions that others have taken from this replica; they are told once.
  Result<std::vector<std::string>> taken_sessions(std::string_view replica_id);
  Result<std::optional<SessionRecord>> load_session(std::string_view id);
  Status delete_session(std::string_view id);
  /// All of the user, in one transaction; returns their ids.
  Result<std::vector<std::string>> delete_sessions_of(std::string_view user_id);
  /// Their ids alone.
  Result<std::vector<std::string>> session_ids_of(std::string_view user_id);
  Result<std::vector<SessionRecord>> sessions_of(std::string_view user_id);
  /// Removes sessions that were last active before `cutoff`; returns their ids.
  Result<std::vector<std::string>> purge_sessions(Time cutoff);

  // --- replicas ------------------------------------------------------------------------------------
  /// Creates or replaces.
  Status save_replica(const ReplicaRecord& replica);
  /// With what is kept for it. Ok when it is gone already.
  Status delete_replica(std::string_view id);
  Result<std::vector<ReplicaRecord>> replicas();

  // --- instances (processes) -----------------------------------------------------------------------
  /// Sets id and created_at.
  Result<InstanceRecord> add_instance(InstanceRecord instance);
  /// Ok when it is gone already.
  Status delete_instance(std::string_view id);
  /// All that are stored, of every gateway. Rows that cannot be read are left out.
  Result<std::vector<InstanceRecord>> instances();

  // --- keys ----------------------------------------------------------------------------------------
  // Which key seals is a fact of the storage, so that processes which are configured one after another agree:
  // a new key first opens only (it is configured everywhere), then start_key_rotation() puts it in force for
  // all at once, and what older keys sealed is sealed anew. After that the older ones open nothing any more.

  /// Puts the configured key in force for every process on this storage. Goes on with a rotation to this key
  /// that is under way already. conflict/"key_retired" when the key was replaced before, "key_unknown" when a
  /// replica that lives does not have it. Blocks; waits up to fifteen seconds for replicas that say nothing.
  Status start_key_rotation();
  Result<KeyRotation> key_rotation();
  /// Seals anew what is left, until the rotation is over; while another process does so, waits for it, and
  /// goes on in its place when it is not heard of for five seconds. `go_on` is called several times a second
  /// and ends the call early by saying no. Not_found/"not_found" when there is no rotation; storage errors
  /// end it too, and calling it again continues.
  Result<KeyRotation> run_key_rotation(const std::function<bool(const KeyRotation&)>& go_on = {});
  /// The id of the key in force, known here or not. Memory.
  std::string key_in_force() const;
  /// Reads every sealed value once.
  Result<SealedValues> sealed_values();
  /// Tells every process on this storage to read its keys again, once the new ones are where those processes
  /// read them. Puts no other encryption key in force.
  Status announce_keys();
  /// Stored rows that could not be read or decrypted, counted each time. Memory.
  std::uint64_t damaged_records() const noexcept;

 private:
  class Impl;
  explicit Repository(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace mcpgw
