// The things mcpgw knows: plain structs without behaviour. Rules for their members (lengths, patterns,
// uniqueness) are enforced where they are written: Repository.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mcpgw/clock.hpp"

namespace mcpgw {

struct User {
  std::string id;
  std::string email;          ///< trimmed, lower case
  std::string password_hash;  ///< PHC-style text; empty = cannot log in with a password
  std::string role = "user";  ///< "admin" is the only role with built-in meaning
  std::vector<std::string> groups;  ///< in order of precedence
  bool enabled = true;
  Time created_at{};
  Time updated_at{};
  std::optional<Time> last_login_at;
  std::uint64_t version = 0;  ///< of the stored record; the ETag
};

enum class TokenKind { login, api };

struct ApiToken {
  std::string id;
  std::string user_id;
  std::string jti;
  std::string name;
  TokenKind kind = TokenKind::api;
  std::vector<std::string> scopes;  ///< non-empty subset of "mcp", "api"
  std::optional<Time> expires_at;
  std::optional<Time> last_used_at;
  Time created_at{};
  std::optional<Time> revoked_at;
};

enum class TransportType { streamable_http, sse, stdio, kubernetes };
enum class Statefulness { stateless, stateful };
enum class Isolation { shared, per_role, per_group, per_user };
enum class AuthType { none, bearer, header };
enum class PrefixMode { automatic, always };
enum class EraSetting { automatic, legacy, modern };

/// TLS towards an HTTP target. All texts are PEM.
struct TargetTls {
  std::string ca;
  bool verify = true;
  std::string client_cert;
  std::string client_key;  ///< secret: sealed at rest, never shown
};

/// A configured upstream MCP server.
struct Target {
  std::string id;
  std::string name;
  std::string slug;
  TransportType transport_type = TransportType::streamable_http;
  std::string url;
  std::string command;
  std::vector<std::string> args;
  std::string image;
  int port = 8080;
  std::string health_path;
  Statefulness statefulness = Statefulness::stateless;
  Isolation isolation_boundary = Isolation::shared;
  AuthType auth_type = AuthType::none;
  std::string auth_header_name;
  bool enabled = true;
  PrefixMode prefix = PrefixMode::automatic;
  std::int64_t timeout_ms = 60000;
  std::optional<int> max_concurrency;
  EraSetting protocol_era = EraSetting::automatic;
  bool allow_private_network = false;
  std::vector<std::string> forward_headers;
  std::vector<std::string> user_env_keys;
  std::optional<TargetTls> tls;
  Time created_at{};
  Time updated_at{};
  std::uint64_t version = 0;

  bool is_process() const {
    return transport_type == TransportType::stdio || transport_type == TransportType::kubernetes;
  }
};

enum class ResourceType { all, tool, resource, prompt };
enum class Effect { allow, deny };
enum class SubjectType { user, role, group, everyone };

struct Subject {
  std::string id;
  std::string policy_id;
  SubjectType type = SubjectType::everyone;
  std::string value;  ///< user id, role or group; empty for everyone
  Time created_at{};
};

struct Policy {
  std::string id;
  std::string name;
  std::string description;
  std::string target_id;  ///< empty = all targets
  ResourceType resource_type = ResourceType::all;
  std::string resource_pattern;  ///< RE2, searched; empty = every name
  Effect effect = Effect::allow;
  int priority = 0;
  bool enabled = true;
  std::vector<Subject> subjects;
  Time created_at{};
  Time updated_at{};
  std::uint64_t version = 0;
  bool damaged = false;  ///< the stored row could not be read whole: it denies what it might concern
};

/// The scopes of credentials and env rows, narrowest first: the order in which they win.
enum class Scope { user, group, role, everyone };

/// Whose value it is. `value` is a user id, group or role; empty for Scope::everyone ("default").
struct ScopeRef {
  Scope scope = Scope::everyone;
  std::string value;
};

/// A stored upstream token, without the token.
struct TargetToken {
  std::string target_id;
  ScopeRef scope;
  Time created_at{};
  Time updated_at{};
};

/// A stored environment entry, without its value.
struct EnvRow {
  std::string id;
  std::string target_id;
  ScopeRef scope;
  std::string key;
  std::string description;
  Time created_at{};
  Time updated_at{};
};

/// Who makes a request, as storage knows them now. Copied into each request; never cached across.
struct Principal {
  std::string user_id;
  std::string email;
  std::string role;
  std::vector<std::string> groups;
  std::string token_id;             ///< row of the token that was presented; empty for external identities
  std::vector<std::string> scopes;  ///< of that token
  std::optional<Time> token_expires_at;

  bool is_admin() const { return role == "admin"; }
  bool has_scope(const std::string& scope) const {
    for (const auto& s : scopes)
      if (s == scope) return true;
    return false;
  }
};

/// A running process of a target, as it is stored so that what a killed gateway leaves behind is found again.
/// Process numbers are reused: each stands with the moment it began, in clock ticks since the system started.
struct InstanceRecord {
  std::string id;
  std::string target_id;
  std::string space;  ///< this run of this system; only there do the numbers mean anything
  std::int64_t owner_pid = 0;
  std::uint64_t owner_started = 0;
  std::int64_t pid = 0;  ///< also its process group
  std::uint64_t pid_started = 0;
  std::int64_t session = 0;
  Time created_at{};
};

/// A legacy-era client session as it is stored, so that a restart or another replica continues it.
struct SessionRecord {
  std::string id;
  std::string user_id;
  std::string token_id;
  std::string protocol_version;
  std::string initialize_params;  ///< JSON text of the client's `initialize` params
  std::string log_level;
  std::vector<std::string> subscriptions;  ///< exported URIs
  /// By target id, what it takes to go on with the session that the target has made for it. Sealed at rest.
  std::map<std::string, std::string> upstream_ids;
  std::string owner;  ///< the replica that has it open; empty: none that others could reach
  Time created_at{};
  Time last_active_at{};
};

/// A running gateway, as others over the same storage know it.
struct ReplicaRecord {
  std::string id;
  std::string address;    ///< URL at which the others reach it
  std::int64_t beat = 0;  ///< grows with each sign of life
  /// Ids of the encryption keys that it has, as of SealedValues; empty: it does not say.
  std::vector<std::string> keys;
  Time started_at{};
};

}  // namespace mcpgw
