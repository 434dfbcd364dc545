// TokenResolver and EnvResolver: which stored credential and environment a principal's call to a target
// uses. One order for both: user > group > role > default; among groups the order of the user's list.
// For process targets the isolation boundary limits the scopes (docs/credentials.md).
//
// Safe from any thread; reads memory only. A value that cannot be decrypted or is invalid for its use is
// data_loss/"credential_unavailable": the call must be refused, never sent without it. Nothing stored is
// not an error.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mcpgw/model.hpp"
#include "mcpgw/repository.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw {

/// Where a resolved value came from.
struct ResolvedSource {
  std::string key;
  ScopeRef scope;
};

struct ResolvedCredential {
  std::string value;  ///< secret
  ScopeRef scope;
  bool from_env = false;  ///< an env row AUTH_TOKEN rather than a target token
};

class TokenResolver {
 public:
  explicit TokenResolver(std::shared_ptr<Repository> repository);
  /// The credential (contract order: per scope, narrowest first: env row AUTH_TOKEN, then the target
  /// token when auth_type is bearer or header). nullopt: none is stored.
  Result<std::optional<ResolvedCredential>> resolve(const Principal& principal, const Target& target) const;

 private:
  std::shared_ptr<Repository> repository_;
};

class EnvResolver {
 public:
  explicit EnvResolver(std::shared_ptr<Repository> repository);
  /// Key -> value after isolation, narrowest scope wins key by key. AUTH_TOKEN rows are included as
  /// stored; the credential of a call is TokenResolver's answer.
  Result<std::map<std::string, std::string>> resolve(const Principal& principal, const Target& target) const;
  /// Which row each key comes from, without values, ordered by key.
  std::vector<ResolvedSource> sources(const Principal& principal, const Target& target) const;

 private:
  std::shared_ptr<Repository> repository_;
};

/// The scopes that apply to the principal on this target, narrowest first, after isolation.
std::vector<ScopeRef> applicable_scopes(const Repository& repository, const Principal& principal,
                                        const Target& target);
/// Whether the target's isolation boundary lets rows of this scope be used at all.
bool scope_usable(const Target& target, Scope scope) noexcept;
/// The principal's part of an instance key: "" (shared), "role:<r>", "group:<g>", "user:<id>".
/// HTTP targets: always the user.
std::string boundary_subject(const Repository& repository, const Principal& principal, const Target& target);

/// How an HTTP target receives credential and environment (docs/credentials.md).
struct HttpTargetAccess {
  std::string url;
  std::int64_t timeout_ms = 60000;
  std::vector<std::pair<std::string, std::string>> headers;  ///< secret values
};

/// Applies BASE_URL, TIMEOUT, AUTH_HEADER, the credential and X-Env-* to an HTTP target.
/// credential_unavailable when a value is invalid for its use.
Result<HttpTargetAccess> http_target_access(const Target& target,
                                            const std::map<std::string, std::string>& env,
                                            const std::optional<ResolvedCredential>& credential);

}  // namespace mcpgw
