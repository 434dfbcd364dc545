// JSON Web Tokens with HS256 only (RFC 7519, RFC 7515).
#pragma once

#include <cstdint>
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
  std::int64_t issued_at = 0;   ///< seconds since the epoch, as all times here
  std::int64_t not_before = 0;
  std::optional<std::int64_t> expires_at;
};

/// Key id of a secret: the first 16 hex digits of the SHA-256 of "mcpgw-jwt-kid" NUL secret.
std::string jwt_key_id(std::string_view secret);
std::string sign_jwt(const JwtClaims& claims, std::string_view secret);

/// Whether the text has the form of a JWT whose header names one of these secrets' key ids.
bool recognises_jwt(std::string_view token, const std::vector<std::string>& secrets);
/// Checks form, alg, kid, signature (constant time), iss, aud, nbf and exp with `leeway` seconds.
/// unauthenticated/"invalid_token" or "token_expired".
Result<JwtClaims> verify_jwt(std::string_view token, const std::vector<std::string>& secrets,
                             std::string_view issuer, std::string_view audience, std::int64_t now,
                             std::int64_t leeway);

}  // namespace mcpgw::detail
