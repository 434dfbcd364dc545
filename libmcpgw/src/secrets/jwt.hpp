// JSON Web Tokens with HS256 only (RFC 7519, RFC 7515).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/result.hpp"

namespace mcpgw::detail {

struct JwtClaims {
  std::string issuer;
  std::string audience;
  std::string subject;
  std::string token_id;
  std::int64_t issued_at = 0;  ///< seconds since the epoch, as all times here
  std::int64_t not_before = 0;
  std::optional<std::int64_t> expires_at;
};

/// What a token must say besides being signed.
struct JwtExpectation {
  std::string_view issuer;
  std::string_view audience;
  std::int64_t now = 0;
  std::int64_t leeway = 0;  ///< seconds that clocks may differ
};

/// Key id of a secret: the first 16 hex digits of the SHA-256 of "mcpgw-jwt-kid" NUL secret.
std::string jwt_key_id(std::string_view secret);

/// The secrets that sign and verify, prepared once. Immutable but for its memory of what it has verified;
/// safe from any thread.
class JwtKeys {
 public:
  /// `current` signs; all verify.
  JwtKeys(const std::string& current, const std::vector<std::string>& previous);
  ~JwtKeys();
  JwtKeys(const JwtKeys&) = delete;
  JwtKeys& operator=(const JwtKeys&) = delete;

  /// internal when the crypto library refuses.
  Result<std::string> sign(const JwtClaims& claims) const;
  using Verdict = Result<std::shared_ptr<const JwtClaims>>;
  /// nullopt: not a token of these keys, by form and key id. Else checks alg, typ, crit, signature (constant
  /// time), iss, aud, nbf and exp: unauthenticated/"invalid_token" or "token_expired".
  std::optional<Verdict> verify(std::string_view token, const JwtExpectation& expectation) const;

 private:
  class Key;
  class Proven;
  const Key* find(std::string_view key_id) const;

  std::vector<std::unique_ptr<Key>> keys_;  ///< the signing one first
  const std::unique_ptr<Proven> proven_;
};

}  // namespace mcpgw::detail
