#include "secrets/jwt.hpp"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <limits>
#include <mutex>
#include <unordered_map>

#include "base/text.hpp"
#include "json/json.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxToken = 4096;  // ours have about 400 bytes
constexpr std::size_t kMacBytes = 32;
constexpr std::size_t kMaxDepth = 4;

struct MacDeleter {
  void operator()(EVP_MAC* mac) const { EVP_MAC_free(mac); }
  void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
};
using MacContext = std::unique_ptr<EVP_MAC_CTX, MacDeleter>;

const unsigned char* bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

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
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos)
    return std::nullopt;
  return Parts{token.substr(0, first), token.substr(first + 1, second - first - 1), token.substr(second + 1),
               token.substr(0, second)};
}

/// One strictly encoded JSON object.
std::optional<Json> decode_object(std::string_view part) {
  const auto text = from_base64url(part);
  auto value = text ? parse_json(*text, kMaxDepth) : std::nullopt;
  if (!value || !value->is_object()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> seconds_member(const Json& claims, const char* name) {
  const auto it = claims.find(name);
  if (it == claims.end() || !it->is_number_integer()) return std::nullopt;
  if (it->is_number_unsigned() && it->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
    return std::nullopt;
  return it->get<std::int64_t>();
}

/// Empty when it is absent or no string.
std::string text_member(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

bool header_permitted(const Json& header) {
  const auto typ = header.find("typ");
  return text_member(header, "alg") == "HS256" && (typ == header.end() || *typ == "JWT") &&
         !header.contains("crit");
}

Result<JwtClaims> read_claims(std::string_view payload_part) {
  const auto payload = decode_object(payload_part);
  if (!payload) return invalid();
  JwtClaims out;
  out.issuer = text_member(*payload, "iss");
  out.audience = text_member(*payload, "aud");
  out.subject = text_member(*payload, "sub");
  out.token_id = text_member(*payload, "jti");
  const auto issued_at = seconds_member(*payload, "iat");
  const auto not_before = seconds_member(*payload, "nbf");
  out.expires_at = seconds_member(*payload, "exp");
  if (out.subject.empty() || out.token_id.empty() || !issued_at || !not_before) return invalid();
  if (payload->contains("exp") && !out.expires_at) return invalid();
  out.issued_at = *issued_at;
  out.not_before = *not_before;
  return out;
}

JwtKeys::Verdict check_claims(std::shared_ptr<const JwtClaims> claims, const JwtExpectation& expected) {
  if (claims->issuer != expected.issuer || claims->audience != expected.audience) return invalid();
  if (claims->not_before > expected.now + expected.leeway) return invalid();
  if (claims->expires_at && *claims->expires_at <= expected.now - expected.leeway)
    return Error(ErrorCode::unauthenticated, "token_expired", "The token has expired");
  return claims;
}

}  // namespace

/// Claims of tokens whose signature was found good: the same token comes with every request, and its
/// signature cannot turn bad. What changes with time is checked each time. Only who holds a good token can
/// fill it.
///
/// Tokens are known by their digest, and those that a thread has seen last, which are few, word for word: a
/// digest would cost as much as all else that is asked of a token.
class JwtKeys::Proven {
 public:
  using Claims = std::shared_ptr<const JwtClaims>;

  /// Null when this thread has not seen it lately.
  Claims recent(std::string_view token) const {
    const Recent& place = recent_of(token);
    return place.owner == number_ && place.token == token ? place.claims : nullptr;
  }

  /// Null when it is not known.
  Claims find(std::string_view token, const std::string& digest) {
    Claims claims;
    {
      Part& part = part_of(digest);
      const std::lock_guard lock(part.mutex);
      if (const auto it = part.claims.find(digest); it != part.claims.end()) claims = it->second;
    }
    if (claims) recent_of(token).take(number_, token, claims);
    return claims;
  }

  void add(const std::string& digest, Claims claims) {
    Part& part = part_of(digest);
    const std::lock_guard lock(part.mutex);
    if (part.claims.size() >= kMaxPerPart) part.claims.erase(part.claims.begin());
    part.claims.emplace(digest, std::move(claims));
  }

 private:
  static constexpr std::size_t kParts = 16;
  static constexpr std::size_t kMaxPerPart = 512;
  struct Part {
    std::mutex mutex;
    std::unordered_map<std::string, Claims> claims;
  };

  struct Recent {
    ~Recent() { wipe(); }
    void take(std::uint64_t of, std::string_view text, const Claims& proven) {
      wipe();
      token = text;
      owner = of;
      claims = proven;
    }
    void wipe() {
      OPENSSL_cleanse(token.data(), token.size());
      owner = 0;
    }

    std::uint64_t owner = 0;  ///< number_; 0: empty
    std::string token;
    Claims claims;
  };
  static constexpr std::size_t kRecent = 64;
  static Recent& recent_of(std::string_view token) {
    static thread_local const auto places = std::make_unique<std::array<Recent, kRecent>>();
    return (*places)[std::hash<std::string_view>()(
                         token.substr(token.size() - std::min<std::size_t>(8, token.size()))) %
                     kRecent];
  }
  static std::uint64_t next_number() {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
  }
  Part& part_of(const std::string& digest) {
    return parts_[static_cast<unsigned char>(digest.front()) % kParts];
  }
  const std::uint64_t number_ = next_number();
  std::array<Part, kParts> parts_;
};

/// A secret with what is computed from it once: its id, its header and its keyed hash state.
class JwtKeys::Key {
 public:
  explicit Key(std::string_view secret)
      : id(jwt_key_id(secret)),
        header(base64url(dump_json(Json{{"alg", "HS256"}, {"typ", "JWT"}, {"kid", id}}))) {
    const std::unique_ptr<EVP_MAC, MacDeleter> algorithm(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
    MacContext context(algorithm ? EVP_MAC_CTX_new(algorithm.get()) : nullptr);
    char digest[] = "SHA256";
    const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                     OSSL_PARAM_construct_end()};
    if (context && EVP_MAC_init(context.get(), bytes(secret), secret.size(), parameters) == 1)
      keyed_ = std::move(context);
  }

  /// nullopt when the crypto library refuses, so that a failure is never taken for a signature.
  std::optional<std::string> mac(std::string_view text) const {
    const MacContext context(keyed_ ? EVP_MAC_CTX_dup(keyed_.get()) : nullptr);
    std::string out(kMacBytes, '\0');
    std::size_t size = 0;
    if (!context || EVP_MAC_update(context.get(), bytes(text), text.size()) != 1 ||
        EVP_MAC_final(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size, out.size()) != 1 ||
        size != kMacBytes)
      return std::nullopt;
    return out;
  }

  const std::string id;
  const std::string header;  ///< as it stands in a token of ours

 private:
  MacContext keyed_;  ///< only ever copied from
};

std::string jwt_key_id(std::string_view secret) {
  return to_hex(sha256("mcpgw-jwt-kid" + std::string(1, '\0') + std::string(secret))).substr(0, 16);
}

JwtKeys::JwtKeys(const std::string& current, const std::vector<std::string>& previous)
    : proven_(std::make_unique<Proven>()) {
  keys_.push_back(std::make_unique<Key>(current));
  for (const std::string& secret : previous) keys_.push_back(std::make_unique<Key>(secret));
}

JwtKeys::~JwtKeys() = default;

const JwtKeys::Key* JwtKeys::find(std::string_view key_id) const {
  for (const auto& key : keys_)
    if (key->id == key_id) return key.get();
  return nullptr;
}

Result<std::string> JwtKeys::sign(const JwtClaims& claims) const {
  Json payload{{"iss", claims.issuer},   {"aud", claims.audience},  {"sub", claims.subject},
               {"jti", claims.token_id}, {"iat", claims.issued_at}, {"nbf", claims.not_before}};
  if (claims.expires_at) payload["exp"] = *claims.expires_at;
  const Key& key = *keys_.front();
  const std::string signed_text = key.header + "." + base64url(dump_json(payload));
  const auto mac = key.mac(signed_text);
  if (!mac) return Error(ErrorCode::internal, "internal", "The token could not be signed");
  return signed_text + "." + base64url(*mac);
}

std::optional<JwtKeys::Verdict> JwtKeys::verify(std::string_view token,
                                                const JwtExpectation& expectation) const {
  if (auto known = proven_->recent(token)) return check_claims(std::move(known), expectation);
  const auto parts = split_token(token);
  if (!parts) return std::nullopt;
  const std::string digest = sha256(token);
  if (auto known = proven_->find(token, digest)) return check_claims(std::move(known), expectation);
  const Key* key = nullptr;
  for (const auto& candidate : keys_)
    if (parts->header == candidate->header) key = candidate.get();
  if (key == nullptr) {
    // Not the header that we write: it may still be an equivalent one.
    const auto header = decode_object(parts->header);
    key = header ? find(text_member(*header, "kid")) : nullptr;
    if (key == nullptr) return std::nullopt;
    if (!header_permitted(*header)) return Verdict(invalid());
  }
  const auto signature = from_base64url(parts->signature);
  const auto mac = key->mac(parts->signed_text);
  if (!signature || !mac || !equal_constant_time(*signature, *mac)) return Verdict(invalid());
  auto claims = read_claims(parts->payload);
  if (!claims) return Verdict(claims.error());
  auto proven = std::make_shared<const JwtClaims>(std::move(*claims));
  proven_->add(digest, proven);
  return check_claims(std::move(proven), expectation);
}

}  // namespace mcpgw::detail
