// Records: how each object of the model is written as JSON text, and under which collection and key.
//
// Keys of cached records are never used again after an erase (they end in a fresh UUID), so of two versions
// of a record the greater is the later one, and an erase is final. Members this program does not know survive
// an update. Decoding never throws: nullopt is a row that cannot be read, or that a newer schema wrote.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "mcpgw/model.hpp"
#include "mcpgw/storage.hpp"
#include "secrets/sealer.hpp"

namespace mcpgw::detail {

inline constexpr int kRecordSchema = 1;

namespace collection {
inline constexpr std::string_view kUsers = "users";                 // <user id>
inline constexpr std::string_view kTokens = "tokens";               // <user id>/<token id>
inline constexpr std::string_view kTargets = "targets";             // <target id>
inline constexpr std::string_view kTargetTokens = "target_tokens";  // CredentialKey
inline constexpr std::string_view kEnv = "env";                     // CredentialKey
inline constexpr std::string_view kPolicies = "policies";           // <policy id>
inline constexpr std::string_view kSessions = "sessions";           // <session id>
inline constexpr std::string_view kUserSessions = "user_sessions";  // <user id>/<session id>: index
inline constexpr std::string_view kReplicas = "replicas";           // <replica id>
/// <replica id>/<session id>: that session was taken from that replica by another.
inline constexpr std::string_view kReplicaMoves = "replica_moves";
inline constexpr std::string_view kInstances = "instances";         // <instance id>
inline constexpr std::string_view kUserEmail = "user_email";        // <email>: index
inline constexpr std::string_view kTargetName = "target_name";      // <lower-case name>: index
inline constexpr std::string_view kTargetSlug = "target_slug";      // <slug>: index
/// One record a user or target, written by whoever adds something that refers to it. A cascade that read this
/// version has seen everything that refers.
inline constexpr std::string_view kUserRefs = "user_refs";
inline constexpr std::string_view kTargetRefs = "target_refs";
inline constexpr std::string_view kMeta = "meta";
}  // namespace collection

namespace meta {
inline constexpr std::string_view kSchema = "schema";
inline constexpr std::string_view kSeeded = "seeded";
inline constexpr std::string_view kFirstUser = "first_user";
inline constexpr std::string_view kAdmins = "admins";  ///< ids of the enabled admins
inline constexpr std::string_view kKeys = "keys";      ///< which key is in force; written anew when keys were replaced
inline constexpr std::string_view kReseal = "reseal";  ///< how far sealing with it has come
}  // namespace meta

// `previous`: the stored text that is replaced (empty at creation); its unknown members are kept.
std::string encode_user(const User& user, std::string_view previous = {});
std::optional<User> decode_user(std::string_view key, std::string_view text, std::uint64_t version);

std::string encode_token(const ApiToken& token, std::string_view previous = {});
std::optional<ApiToken> decode_token(std::string_view key, std::string_view text);

/// `sealed_client_key` stands for target.tls->client_key, which is not written.
std::string encode_target(const Target& target, std::string_view sealed_client_key,
                          std::string_view previous = {});
struct DecodedTarget {
  Target target;  ///< tls->client_key is empty
  std::string sealed_client_key;
};
/// An unknown isolation word is per_user, an unknown statefulness stateful: the strictest of each.
std::optional<DecodedTarget> decode_target(std::string_view key, std::string_view text,
                                           std::uint64_t version);

std::string encode_policy(const Policy& policy, std::string_view previous = {});
/// Never fails: what cannot be read becomes a damaged policy, as wide as the unread members could make it.
Policy decode_policy(std::string_view key, std::string_view text, std::uint64_t version);

/// Identity of a target token (`env_key` empty) or env row. It stands in the record's key, so that a damaged
/// value is still known to exist where it belongs.
struct CredentialKey {
  std::string target_id;
  ScopeRef scope;
  std::string env_key;
  std::string id;
};
std::string credential_prefix(std::string_view target_id);
std::string credential_prefix(std::string_view target_id, const ScopeRef& scope);
std::string encode_credential_key(const CredentialKey& key);
std::optional<CredentialKey> decode_credential_key(std::string_view collection, std::string_view text);

struct StoredCredential {
  CredentialKey key;
  std::string description;
  std::string sealed;  ///< empty: the row is damaged
  Time created_at{};
  Time updated_at{};
};
std::string encode_credential(const StoredCredential& row, std::string_view previous = {});
/// Only the key must be readable.
std::optional<StoredCredential> decode_credential(std::string_view collection, std::string_view key,
                                                  std::string_view text);
/// The associated data under which the value is sealed.
std::string credential_identity(std::string_view collection, const CredentialKey& key);
std::string client_key_identity(std::string_view target_id);
std::string session_identity(std::string_view session_id);

std::string encode_session(const SessionRecord& session, const Sealer& sealer,
                           std::string_view previous = {});
/// upstream_ids that do not open are left out: the session goes on, its upstreams are initialised anew.
std::optional<SessionRecord> decode_session(std::string_view key, std::string_view text,
                                            const Sealer& sealer);

std::string encode_replica(const ReplicaRecord& replica);
std::optional<ReplicaRecord> decode_replica(std::string_view key, std::string_view text);

std::string encode_instance(const InstanceRecord& instance);
std::optional<InstanceRecord> decode_instance(std::string_view key, std::string_view text);

/// {"schema":1,"id":"..."}: what index records hold.
std::string encode_index(std::string_view id);
std::optional<std::string> decode_index(std::string_view text);
/// {"schema":1,"ids":[...]}
std::string encode_ids(const std::vector<std::string>& ids);
std::optional<std::vector<std::string>> decode_ids(std::string_view text);
/// The schema number of a record; nullopt when there is none.
std::optional<std::int64_t> record_schema(std::string_view text);

}  // namespace mcpgw::detail
