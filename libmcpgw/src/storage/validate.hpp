// The rules for members of stored objects. Each function names the member at fault in Error::field, as the
// REST API calls it. Functions that take a reference also bring the value into its stored form (trimmed,
// lower case).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/clock.hpp"
#include "mcpgw/model.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw::detail {

/// What the configuration permits for targets.
struct TargetRules {
  bool stdio_enabled = true;
  std::vector<std::string> stdio_allowed_commands;  ///< empty = any
};

inline constexpr std::size_t kMaxEnvWrites = 500;
inline constexpr std::size_t kMaxSubjects = 1000;

/// Stands for a stored TLS client key that cannot be opened: no TLS library takes it for a key, so such a
/// target is refused rather than used without its key.
inline constexpr std::string_view kUnreadableClientKey = "(stored client key cannot be decrypted)";

// Users and tokens.
Status validate_email(std::string& email);  ///< trims and lower-cases
Status validate_role(std::string_view role, std::string_view field = "role");
Status validate_group(std::string& group, std::string_view field);  ///< trims
Status validate_groups(std::vector<std::string>& groups);           ///< trims; drops repetitions
Status validate_user(User& user);
Status validate_token(ApiToken& token, Time now);  ///< drops repeated scopes

// Targets.
/// Brings defaults in place (port 0 = 8080) and checks everything but uniqueness. An empty slug passes: the
/// caller derives it.
Status validate_target(Target& target, const TargetRules& rules);
/// The slug for a name: without regard to which slugs are taken.
std::string derive_slug(std::string_view name);
/// The slug with "-<number>" appended, within the length that slugs may have.
std::string numbered_slug(std::string_view slug, unsigned number);
/// Where a target's credentials go: text that is equal exactly when the destination is.
std::string target_destination(const Target& target);

struct UrlParts {
  std::string scheme;  ///< "http" or "https"
  std::string host;    ///< lower case; IPv6 with brackets
  int port = 0;        ///< explicit, or the scheme's default
};
/// An absolute http(s) URL as targets may have it; nullopt for anything else.
std::optional<UrlParts> parse_target_url(std::string_view text);
bool is_image_reference(std::string_view text);
/// The image without tag and digest.
std::string image_repository(std::string_view image);

/// An HTTP field name (RFC 9110 token) of at most 100 characters.
bool is_header_name(std::string_view name) noexcept;
/// Headers that no target setting may name, since the gateway or the connection owns them. `forwarded`: as an
/// entry of forward_headers, where credentials are forbidden too. Ignores case.
bool is_forbidden_header(std::string_view name, bool forwarded = false) noexcept;

// Policies.
/// Everything but whether targets and users exist. Clears the value of `everyone`.
/// invalid_argument/"invalid_pattern"; conflict/"duplicate_subject".
Status validate_policy(Policy& policy);
Status validate_subject(Subject& subject);
Status validate_pattern(std::string_view pattern);

// Credentials and environment.
Status validate_scope(ScopeRef& scope);  ///< form only; trims groups
Status validate_target_token(std::string_view token, bool process_target);
bool is_env_key(std::string_view key) noexcept;
/// Keys that decide what code a process runs. Ignores case.
bool is_protected_env_key(std::string_view key) noexcept;
/// invalid_argument/"invalid_key" or "invalid_value". `max_timeout_ms` bounds TIMEOUT.
Status validate_env(std::string_view key, std::string_view value, bool process_target,
                    std::int64_t max_timeout_ms);
/// Text for people: at most `max` characters, no control characters but tab and newline.
Status validate_description(std::string_view text, std::size_t max = 2000);

/// Go's duration syntax ("1h30m", "1.5s", "250ms"); nullopt when malformed or too large. Below a microsecond
/// is cut off.
std::optional<Duration> parse_go_duration(std::string_view text);

}  // namespace mcpgw::detail
