#include "secrets/jwt.hpp"

#include "base/text.hpp"
#include "json/json.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxToken = 4096;

Error invalid() { return {ErrorCode::unauthenticated, "invalid_token", "The token is not valid"}; }

struct Parts {
  std::string_view header;
  std::string_view payload;
  std::string_view signature;
  std::string_view signed_text;
};

std::optional<Parts> split_token(std::string_view token) {
  if (token.size() > kMaxToken) return std::nullopt;
  const auto first = token.find('.');
  const auto second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos) return std::nullopt;
  return Parts{token.substr(0, first), token.substr(first + 1, second - first - 1), token.substr(second + 1),
               token.substr(0, second)};
}

/// The secret that the header names; nullptr when it names none of ours, or is not exactly the form we make.
const std::string* secret_of(const Parts& parts, const std::vector<std::string>& secrets) {
  const auto text = from_base64url(parts.header);
  const auto header = text ? parse_json(*text, 4) : std::nullopt;
  if (!header || !header->is_object()) return nullptr;
  const auto alg = header->find("alg"), typ = header->find("typ"), kid = header->find("kid");
  if (alg == header->end() || *alg != "HS256" || header->contains("crit")) return nullptr;
  if (typ != header->end() && *typ != "JWT") return nullptr;
  if (kid == header->end() || !kid->is_string()) return nullptr;
  for (const std::string& secret : secrets)
    if (jwt_key_id(secret) == kid->get_ref<const std::string&>()) return &secret;
  return nullptr;
}

std::optional<std::int64_t> seconds(const Json& claims, const char* name) {
  const auto it = claims.find(name);
  if (it == claims.end() || !it->is_number_integer()) return std::nullopt;
  return it->get<std::int64_t>();
}

std::string text(const Json& claims, const char* name) {
  const auto it = claims.find(name);
  return it != claims.end() && it->is_string() ? it->get<std::string>() : std::string();
}

}  // namespace

std::string jwt_key_id(std::string_view secret) {
  return to_hex(sha256("mcpgw-jwt-kid" + std::string(1, '\0') + std::string(secret))).substr(0, 16);
}

std::string sign_jwt(const JwtClaims& claims, std::string_view secret) {
  const Json header{{"alg", "HS256"}, {"typ", "JWT"}, {"kid", jwt_key_id(secret)}};
  Json payload{{"iss", claims.issuer},    {"aud", claims.audience},    {"sub", claims.subject},
               {"jti", claims.token_id},  {"iat", claims.issued_at},   {"nbf", claims.not_before}};
  if (claims.expires_at) payload["exp"] = *claims.expires_at;
  const std::string signed_text = base64url(dump_json(header)) + "." + base64url(dump_json(payload));
  return signed_text + "." + base64url(hmac_sha256(secret, signed_text));
}

bool recognises_jwt(std::string_view token, const std::vector<std::string>& secrets) {
  const auto parts = split_token(token);
  return parts && secret_of(*parts, secrets) != nullptr;
}

Result<JwtClaims> verify_jwt(std::string_view token, const std::vector<std::string>& secrets, std::string_view issuer,
                             std::string_view audience, std::int64_t now, std::int64_t leeway) {
  const auto parts = split_token(token);
  if (!parts) return invalid();
  const std::string* secret = secret_of(*parts, secrets);
  const auto signature = from_base64url(parts->signature);
  if (secret == nullptr || !signature) return invalid();
  if (!equal_constant_time(*signature, hmac_sha256(*secret, parts->signed_text))) return invalid();
  const auto payload_text = from_base64url(parts->payload);
  const auto payload = payload_text ? parse_json(*payload_text, 4) : std::nullopt;
  if (!payload || !payload->is_object()) return invalid();
  JwtClaims out;
  out.issuer = text(*payload, "iss");
  out.audience = text(*payload, "aud");
  out.subject = text(*payload, "sub");
  out.token_id = text(*payload, "jti");
  const auto issued = seconds(*payload, "iat"), not_before = seconds(*payload, "nbf"), expires = seconds(*payload, "exp");
  if (out.issuer != issuer || out.audience != audience || out.subject.empty() || out.token_id.empty() || !issued ||
      !not_before || (payload->contains("exp") && !expires))
    return invalid();
  out.issued_at = *issued;
  out.not_before = *not_before;
  out.expires_at = expires;
  if (*not_before > now + leeway) return invalid();
  if (expires && *expires <= now - leeway)
    return Error(ErrorCode::unauthenticated, "token_expired", "The token has expired");
  return out;
}

}  // namespace mcpgw::detail
