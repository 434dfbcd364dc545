// Authenticator: who is behind a bearer token; registration, login, passwords, minting tokens.
//
// A token names a row; user, role, groups, scopes and validity are read from the Repository at each
// request, never from the token's text. Further token issuers plug in as TokenVerifier.
//
// Threads: safe from any thread. authenticate() reads memory only and may run on an event loop; the
// functions that hash passwords or write block.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/model.hpp"
#include "mcpgw/repository.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw {

/// A link of the authenticator chain. The first that recognises a token decides.
class TokenVerifier {
 public:
  virtual ~TokenVerifier() = default;
  /// nullopt: not one of mine. An error: mine, and refused. Must neither block nor throw.
  /// The user id must not be empty. When it is the id of a user in the repository, that user must be enabled;
  /// role and groups are the verifier's. The identity is valid until `token_expires_at`.
  virtual std::optional<Result<Principal>> verify(std::string_view token) = 0;
};

struct AuthenticatorOptions {
  std::shared_ptr<Repository> repository;
  std::string jwt_secret;  ///< signs; at least 32 bytes
  std::vector<std::string> previous_jwt_secrets;
  std::string issuer = "mcpgw";
  std::string audience = "mcpgw";
  std::chrono::seconds login_ttl{24 * 3600};
  std::size_t password_min = 8;  ///< 6..128
  bool registration_open = true;
  std::string setup_token;
  int login_failures_per_pair = 10;
  int login_failures_per_address = 100;
  int login_failures_per_account = 200;
  std::chrono::seconds rate_window{15 * 60};
  int registrations_per_address = 60;  ///< an hour
  /// Counts all of these for everybody who shares it, exactly; null: this object counts for itself, in memory.
  std::shared_ptr<Storage> shared_counts;
  unsigned max_parallel_hashes = 0;    ///< 0: the number of CPUs
  unsigned max_waiting_hashes = 64;
  std::vector<std::shared_ptr<TokenVerifier>> verifiers;  ///< asked after our own
};

struct MintedToken {
  ApiToken row;
  std::string token;  ///< secret: shown this once
};
struct SignedIn {
  User user;          ///< without its password hash
  std::string token;  ///< secret
};

class Authenticator {
 public:
  /// invalid_argument with field when a secret is missing or short, or another option out of range.
  static Result<std::shared_ptr<Authenticator>> create(AuthenticatorOptions options);
  ~Authenticator();
  Authenticator(const Authenticator&) = delete;
  Authenticator& operator=(const Authenticator&) = delete;

  /// unauthenticated with reason "unauthorized" (no or malformed header), "invalid_token",
  /// "token_expired" or "token_revoked". `authorization` is the header's value; empty = absent.
  Result<Principal> authenticate(std::string_view authorization) const;
  /// The same for a bare token.
  Result<Principal> authenticate_token(std::string_view token) const;
  /// Whether the identity behind `principal` is still valid and unchanged (role, groups, scopes): used to
  /// close open streams. Memory.
  bool still_valid(const Principal& principal) const;
  /// Whether its token and its user are still good, whatever became of role and groups. Memory.
  bool token_valid(const Principal& principal) const;

  /// permission_denied/"registration_closed", "setup_token_required"; invalid_argument/"weak_password" or
  /// with field "email"; conflict/"email_taken"; resource_exhausted/"rate_limited";
  /// unavailable/"overloaded".
  Result<SignedIn> register_user(std::string_view email, std::string_view password,
                                 std::string_view setup_token, std::string_view address);
  /// unauthenticated/"invalid_credentials": one answer and the same work for an unknown account, a wrong
  /// password and a disabled user. resource_exhausted/"rate_limited"; unavailable/"overloaded".
  /// `address` is the client's, without a port; of an IPv6 address the /64 counts.
  Result<SignedIn> login(std::string_view email, std::string_view password, std::string_view address);
  /// permission_denied/"invalid_credentials", else as login. In one transaction with the new password, the
  /// user's other login tokens (and with the flag API tokens) are revoked; the one that asks is kept.
  Status change_password(const Principal& principal, std::string_view old_password,
                         std::string_view new_password, bool revoke_api_tokens, std::string_view address);
  /// For admins and the CLI: a hash to store. invalid_argument/"weak_password"; unavailable/"overloaded".
  Result<std::string> hash_password(std::string_view password) const;

  /// A signed token with a stored row. invalid_argument/"reserved_name", or with field "name", "scopes",
  /// "expires_at"; not_found/"user_not_found"; conflict/"token_limit".
  Result<MintedToken> mint(std::string_view user_id, std::string name, TokenKind kind,
                           std::vector<std::string> scopes, std::optional<Time> expires_at);

  /// Puts other secrets in force for everything that comes after. invalid_argument when one is short.
  Status replace_secrets(const std::string& jwt_secret, const std::vector<std::string>& previous_jwt_secrets);

  /// Seconds to wait after a resource_exhausted or unavailable error.
  static constexpr int kRetryAfterSeconds = 60;

 private:
  class Impl;
  explicit Authenticator(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mcpgw
