// Tokens: who is behind one, and making one. Passwords: accounts.cpp.
#include "mcpgw/authenticator.hpp"

#include <algorithm>
#include <thread>

#include "auth/authenticator_impl.hpp"
#include "base/scan.hpp"
#include "base/text.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr std::size_t kMinSecret = 32;
constexpr std::int64_t kLeewaySeconds = 60;
constexpr std::chrono::hours kRegistrationWindow{1};
constexpr std::chrono::seconds kMaxTtl{10LL * 366 * 24 * 3600};

Error unauthenticated(const char* reason, const char* message) {
  return {ErrorCode::unauthenticated, reason, message};
}
Error invalid_token() { return unauthenticated("invalid_token", "The token is not valid"); }
Error token_expired() { return unauthenticated("token_expired", "The token has expired"); }

Error bad_option(const char* field, const char* message) {
  return {ErrorCode::invalid_argument, "invalid_request", message, field};
}

std::int64_t to_seconds(Time time) {
  return std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
}

/// What names are digested with where failures are counted for several processes: they have the secret in
/// common, and storage does not have it.
std::string rates_key(const std::string& jwt_secret) { return hmac_sha256(jwt_secret, "mcpgw/rates"); }

unsigned cpus() { return std::max(1u, std::thread::hardware_concurrency()); }

bool is_token_text(std::string_view text) {
  const char* const end = text.data() + text.size();
  return !text.empty() && scan::past_token(text.data(), end) == end;
}

Status check_secrets(const std::string& current, const std::vector<std::string>& previous) {
  const auto too_short = [](const std::string& secret) { return secret.size() < kMinSecret; };
  if (too_short(current)) return bad_option("jwt.secret", "A JWT secret must have at least 32 bytes");
  if (std::any_of(previous.begin(), previous.end(), too_short))
    return bad_option("jwt.previous_secrets", "A JWT secret must have at least 32 bytes");
  return {};
}

Status check(const AuthenticatorOptions& o) {
  if (!o.repository) return bad_option("repository", "A repository is required");
  if (auto status = check_secrets(o.jwt_secret, o.previous_jwt_secrets); !status) return status;
  if (o.issuer.empty() || o.audience.empty())
    return bad_option(o.issuer.empty() ? "jwt.issuer" : "jwt.audience", "It must not be empty");
  if (o.login_ttl < std::chrono::seconds(1) || o.login_ttl > kMaxTtl)
    return bad_option("auth.login_ttl", "auth.login_ttl must be from one second to ten years");
  if (o.password_min < 6 || o.password_min > 128)
    return bad_option("auth.password_min", "auth.password_min must be 6 to 128");
  if (o.login_failures_per_pair < 1 || o.login_failures_per_address < 1 || o.login_failures_per_account < 1 ||
      o.registrations_per_address < 1 || o.rate_window < std::chrono::seconds(1))
    return bad_option("auth.rate", "Limits and windows of auth.rate must be at least 1");
  if (std::count(o.verifiers.begin(), o.verifiers.end(), nullptr) != 0)
    return bad_option("verifiers", "A token verifier is null");
  return {};
}

AuthenticatorOptions without_secrets(AuthenticatorOptions options) {
  options.jwt_secret.clear();
  options.previous_jwt_secrets.clear();
  return options;
}

}  // namespace

Authenticator::Impl::Impl(AuthenticatorOptions o)
    : options(without_secrets(o)),
      current_keys(std::make_shared<const JwtKeys>(o.jwt_secret, o.previous_jwt_secrets)),
      gate(o.max_parallel_hashes == 0 ? cpus() : o.max_parallel_hashes, o.max_waiting_hashes),
      shared(o.shared_counts
                 ? std::make_shared<SharedRates>(o.shared_counts,
                                                 std::shared_ptr<Clock>(o.repository, &o.repository->clock()),
                                                 rates_key(o.jwt_secret))
                 : nullptr),
      limits(o.login_failures_per_pair, o.login_failures_per_address, o.login_failures_per_account,
             o.rate_window, shared),
      registrations(o.registrations_per_address, kRegistrationWindow),
      shared_registrations{"register.address", static_cast<std::size_t>(o.registrations_per_address),
                           kRegistrationWindow} {}

Result<std::string> Authenticator::Impl::sign(const ApiToken& row) const {
  JwtClaims claims;
  claims.issuer = options.issuer;
  claims.audience = options.audience;
  claims.subject = row.user_id;
  claims.token_id = row.jti;
  claims.issued_at = claims.not_before = to_seconds(row.created_at);
  if (row.expires_at) claims.expires_at = to_seconds(*row.expires_at);
  return keys()->sign(claims);
}

Result<MintedToken> Authenticator::Impl::mint(ApiToken row) {
  auto stored = repository().create_token(std::move(row));
  if (!stored) return stored.error();
  auto token = sign(*stored);
  if (!token) return token.error();
  return MintedToken{std::move(*stored), std::move(*token)};
}

ApiToken Authenticator::Impl::login_row(const char* name) const {
  ApiToken row;
  row.name = name;
  row.kind = TokenKind::login;
  row.scopes = {"mcp", "api"};
  row.expires_at = now() + options.login_ttl;
  return row;
}

Result<Principal> Authenticator::Impl::accept_external(Principal principal) const {
  if (principal.user_id.empty()) return invalid_token();
  if (principal.token_expires_at && *principal.token_expires_at <= now()) return token_expired();
  // A user of ours that an administrator has disabled stays out by this door too.
  const auto user = repository().user(principal.user_id);
  if (user && !user->enabled) return invalid_token();
  principal.token_id.clear();  // names a row, and there is none
  return principal;
}

Result<std::shared_ptr<Authenticator>> Authenticator::create(AuthenticatorOptions options) {
  if (auto status = check(options); !status) return status.error();
  return std::shared_ptr<Authenticator>(new Authenticator(std::make_unique<Impl>(std::move(options))));
}

Authenticator::Authenticator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Authenticator::~Authenticator() = default;

Result<Principal> Authenticator::authenticate(std::string_view authorization) const {
  const std::string_view value = trim(authorization);
  if (value.empty()) return unauthenticated("unauthorized", "A bearer token is required");
  const auto gap = value.find(' ');
  const std::string_view token = gap == std::string_view::npos ? "" : trim(value.substr(gap + 1));
  if (!iequals(value.substr(0, gap), "bearer") || !is_token_text(token))
    return unauthenticated("unauthorized", "The Authorization header must be: Bearer <token>");
  return authenticate_token(token);
}

Result<Principal> Authenticator::authenticate_token(std::string_view token) const {
  const Repository& repository = impl_->repository();
  const Time now = impl_->now();
  const auto claims = impl_->keys()->verify(
      token, {impl_->options.issuer, impl_->options.audience, to_seconds(now), kLeewaySeconds});
  if (!claims) {
    for (const auto& verifier : impl_->options.verifiers)
      if (auto verdict = verifier->verify(token))
        return *verdict ? impl_->accept_external(std::move(**verdict)) : std::move(*verdict);
    return invalid_token();
  }
  if (!*claims) return claims->error();
  const JwtClaims& named = ***claims;
  // From here on only storage counts: the token's text names a row and nothing else.
  const auto row = repository.token_by_jti(named.token_id);
  if (!row || row->user_id != named.subject) return invalid_token();
  if (row->revoked_at) return unauthenticated("token_revoked", "The token was revoked");
  if (row->expires_at && *row->expires_at <= now) return token_expired();
  const auto user = repository.user(row->user_id);
  if (!user || !user->enabled) return invalid_token();
  Principal out;
  out.user_id = user->id;
  out.email = user->email;
  out.role = user->role;
  out.groups = user->groups;
  out.token_id = row->id;
  out.scopes = row->scopes;
  out.token_expires_at = row->expires_at;
  return out;
}

bool Authenticator::still_valid(const Principal& principal) const {
  if (!token_valid(principal)) return false;
  if (principal.token_id.empty()) return true;
  const auto user = impl_->repository().user(principal.user_id);
  return user && user->role == principal.role && user->groups == principal.groups;
}

bool Authenticator::token_valid(const Principal& principal) const {
  const Repository& repository = impl_->repository();
  const Time now = impl_->now();
  const auto user = repository.user(principal.user_id);
  if (principal.token_id.empty()) {
    // Nobody here knows an external identity better than its verifier did; but a disabled user of ours ends
    // it.
    return !impl_->options.verifiers.empty() && (!user || user->enabled) &&
           (!principal.token_expires_at || *principal.token_expires_at > now);
  }
  if (!user || !user->enabled) return false;
  const auto row = repository.token(principal.token_id);
  return row && row->user_id == principal.user_id && !row->revoked_at && row->scopes == principal.scopes &&
         (!row->expires_at || *row->expires_at > now);
}

Result<MintedToken> Authenticator::mint(std::string_view user_id, std::string name, TokenKind kind,
                                        std::vector<std::string> scopes, std::optional<Time> expires_at) {
  ApiToken row;
  row.user_id = user_id;
  row.name = std::move(name);
  row.kind = kind;
  row.scopes = std::move(scopes);
  row.expires_at = expires_at;
  return impl_->mint(std::move(row));  // the rules of its members are the repository's
}

Status Authenticator::replace_secrets(const std::string& jwt_secret,
                                      const std::vector<std::string>& previous_jwt_secrets) {
  if (auto status = check_secrets(jwt_secret, previous_jwt_secrets); !status) return status;
  const auto keys = std::make_shared<const JwtKeys>(jwt_secret, previous_jwt_secrets);
  const std::lock_guard lock(impl_->keys_mutex);
  impl_->current_keys.set(keys);
  if (impl_->shared) impl_->shared->replace_key(rates_key(jwt_secret));
  return {};
}

}  // namespace mcpgw
