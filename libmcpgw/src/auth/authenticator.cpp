#include "mcpgw/authenticator.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "auth/rate_limiter.hpp"
#include "base/text.hpp"
#include "secrets/jwt.hpp"
#include "secrets/password.hpp"

namespace mcpgw {

using namespace detail;

namespace {

constexpr std::size_t kPasswordMax = 1024;
constexpr std::size_t kMinSecret = 32;
constexpr std::int64_t kLeewaySeconds = 60;
constexpr auto kHour = std::chrono::hours(1);

Error unauthenticated(const char* reason, const char* message) { return {ErrorCode::unauthenticated, reason, message}; }
Error rate_limited() {
  return {ErrorCode::resource_exhausted, "rate_limited", "Too many attempts: try again later"};
}
Error invalid_credentials() { return unauthenticated("invalid_credentials", "The email or the password is not right"); }

/// A few hashes at once, a bounded number waiting: more would only make everybody wait.
class HashGate {
 public:
  HashGate(unsigned parallel, unsigned waiting) : parallel_(parallel), max_waiting_(waiting) {}

  class Pass {
   public:
    explicit Pass(HashGate* gate) : gate_(gate) {}
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() {
      if (gate_ != nullptr) gate_->leave();
    }
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    HashGate* gate_;
  };

  /// An empty pass when too many wait already.
  Pass enter() {
    std::unique_lock lock(mutex_);
    if (running_ >= parallel_) {
      if (waiting_ >= max_waiting_) return Pass(nullptr);
      ++waiting_;
      free_.wait(lock, [this] { return running_ < parallel_; });
      --waiting_;
    }
    ++running_;
    return Pass(this);
  }

 private:
  void leave() {
    {
      const std::lock_guard lock(mutex_);
      --running_;
    }
    free_.notify_one();
  }

  const unsigned parallel_;
  const unsigned max_waiting_;
  std::mutex mutex_;
  std::condition_variable free_;
  unsigned running_ = 0;
  unsigned waiting_ = 0;
};

std::int64_t to_seconds(Time time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

unsigned cpus() { return std::max(1u, std::thread::hardware_concurrency()); }

}  // namespace

class Authenticator::Impl {
 public:
  explicit Impl(AuthenticatorOptions o)
      : options(std::move(o)),
        gate(options.max_parallel_hashes == 0 ? cpus() : options.max_parallel_hashes, options.max_waiting_hashes),
        pairs(options.login_failures_per_pair, options.rate_window),
        addresses(options.login_failures_per_address, options.rate_window),
        accounts(options.login_failures_per_account, options.rate_window),
        registrations(options.registrations_per_address, kHour) {
    secrets.push_back(options.jwt_secret);
    for (const std::string& secret : options.previous_jwt_secrets) secrets.push_back(secret);
  }

  Repository& repository() const { return *options.repository; }
  Duration monotonic() const { return repository().clock().monotonic(); }

  Status check_password(std::string_view password) const {
    const bool utf8 = is_utf8(password);
    const std::size_t length = utf8 ? utf8_length(password) : 0;
    if (!utf8 || password.find('\0') != std::string_view::npos || length < options.password_min ||
        length > kPasswordMax)
      return Error(ErrorCode::invalid_argument, "weak_password",
                   "The password must have " + std::to_string(options.password_min) + " to " +
                       std::to_string(kPasswordMax) + " characters",
                   "password");
    return {};
  }

  static std::string pair_of(const std::string& email, std::string_view address) {
    return email + '\n' + std::string(address);
  }

  Status check_rate(const std::string& email, std::string_view address) {
    const Duration now = monotonic();
    const std::string from(address);
    if (!pairs.allowed(pair_of(email, address), now) || !addresses.allowed(from, now) || !accounts.allowed(email, now))
      return rate_limited();
    return {};
  }

  void record_failure(const std::string& email, std::string_view address) {
    const Duration now = monotonic();
    pairs.record(pair_of(email, address), now);
    addresses.record(std::string(address), now);
    accounts.record(email, now);
  }

  /// Hashes under the gate. nullopt when too many wait.
  std::optional<bool> verify(std::string_view password, const std::string& hash) {
    const HashGate::Pass pass = gate.enter();
    if (!pass) return std::nullopt;
    return verify_password(password, hash);
  }

  Result<std::string> hash(std::string_view password) {
    const HashGate::Pass pass = gate.enter();
    if (!pass) return overloaded();
    std::string out = detail::hash_password(password, repository().random());
    if (out.ends_with('$')) return Error(ErrorCode::internal, "internal", "The password could not be hashed");
    return out;
  }

  static Error overloaded() {
    return {ErrorCode::unavailable, "overloaded", "Too many passwords are being checked: try again"};
  }

  Result<MintedToken> mint(std::string_view user_id, std::string name, TokenKind kind, std::vector<std::string> scopes,
                           std::optional<Time> expires_at) {
    ApiToken row;
    row.user_id = user_id;
    row.name = std::move(name);
    row.kind = kind;
    row.scopes = std::move(scopes);
    row.expires_at = expires_at;
    auto stored = repository().create_token(std::move(row));
    if (!stored) return stored.error();
    JwtClaims claims;
    claims.issuer = options.issuer;
    claims.audience = options.audience;
    claims.subject = stored->user_id;
    claims.token_id = stored->jti;
    claims.issued_at = claims.not_before = to_seconds(stored->created_at);
    if (stored->expires_at) claims.expires_at = to_seconds(*stored->expires_at);
    return MintedToken{*stored, sign_jwt(claims, options.jwt_secret)};
  }

  Result<SignedIn> sign_in(const User& user, const char* name) {
    auto token = mint(user.id, name, TokenKind::login, {"mcp", "api"}, repository().clock().now() + options.login_ttl);
    if (!token) return token.error();
    return SignedIn{user, std::move(token->token)};
  }

  const AuthenticatorOptions options;
  std::vector<std::string> secrets;
  HashGate gate;
  RateLimiter pairs, addresses, accounts, registrations;
};

Result<std::shared_ptr<Authenticator>> Authenticator::create(AuthenticatorOptions options) {
  if (!options.repository)
    return Error(ErrorCode::invalid_argument, "invalid_request", "A repository is required", "repository");
  const auto too_short = [](const std::string& secret) { return secret.size() < kMinSecret; };
  if (too_short(options.jwt_secret) ||
      std::any_of(options.previous_jwt_secrets.begin(), options.previous_jwt_secrets.end(), too_short))
    return Error(ErrorCode::invalid_argument, "invalid_request", "A JWT secret must have at least 32 bytes", "jwt.secret");
  if (options.password_min < 6 || options.password_min > 128)
    return Error(ErrorCode::invalid_argument, "invalid_request", "auth.password_min must be 6 to 128", "auth.password_min");
  return std::shared_ptr<Authenticator>(new Authenticator(std::make_unique<Impl>(std::move(options))));
}

Authenticator::Authenticator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Authenticator::~Authenticator() = default;

Result<Principal> Authenticator::authenticate(std::string_view authorization) const {
  if (authorization.empty()) return unauthenticated("unauthorized", "A bearer token is required");
  const std::string_view value = trim(authorization);
  const auto gap = value.find(' ');
  if (gap == std::string_view::npos || !iequals(value.substr(0, gap), "bearer"))
    return unauthenticated("unauthorized", "The Authorization header must be: Bearer <token>");
  const std::string_view token = trim(value.substr(gap + 1));
  if (token.empty() || token.find_first_of(" \t,") != std::string_view::npos)
    return unauthenticated("unauthorized", "The Authorization header must be: Bearer <token>");
  return authenticate_token(token);
}

Result<Principal> Authenticator::authenticate_token(std::string_view token) const {
  if (!recognises_jwt(token, impl_->secrets)) {
    for (const auto& verifier : impl_->options.verifiers)
      if (auto verdict = verifier->verify(token)) return std::move(*verdict);
    return unauthenticated("invalid_token", "The token is not valid");
  }
  const Repository& repository = impl_->repository();
  const Time now = repository.clock().now();
  auto claims = verify_jwt(token, impl_->secrets, impl_->options.issuer, impl_->options.audience, to_seconds(now),
                           kLeewaySeconds);
  if (!claims) return claims.error();
  // From here on only storage counts: the token's text names a row and nothing else.
  const auto row = repository.token_by_jti(claims->token_id);
  if (!row || row->user_id != claims->subject) return unauthenticated("invalid_token", "The token is not valid");
  if (row->revoked_at) return unauthenticated("token_revoked", "The token was revoked");
  if (row->expires_at && *row->expires_at <= now) return unauthenticated("token_expired", "The token has expired");
  const auto user = repository.user(row->user_id);
  if (!user || !user->enabled) return unauthenticated("invalid_token", "The token is not valid");
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
  const Repository& repository = impl_->repository();
  const auto user = repository.user(principal.user_id);
  if (!user || !user->enabled || user->role != principal.role || user->groups != principal.groups) return false;
  if (principal.token_id.empty()) {
    return !principal.token_expires_at || *principal.token_expires_at > repository.clock().now();
  }
  const auto row = repository.token(principal.token_id);
  return row && !row->revoked_at && row->scopes == principal.scopes &&
         (!row->expires_at || *row->expires_at > repository.clock().now());
}

Result<SignedIn> Authenticator::register_user(std::string_view email, std::string_view password,
                                              std::string_view setup_token, std::string_view address) {
  Impl& impl = *impl_;
  const Duration now = impl.monotonic();
  const std::string from(address);
  if (!impl.registrations.allowed(from, now)) return rate_limited();
  impl.registrations.record(from, now);
  const bool first = !impl.repository().has_users();
  const std::string& expected = impl.options.setup_token;
  const bool presented = !expected.empty() && equal_constant_time(setup_token, expected);
  if (!impl.options.registration_open && !(first && presented))
    return Error(ErrorCode::permission_denied, "registration_closed", "Registration is closed: ask an administrator");
  if (first && !expected.empty() && !presented)
    return Error(ErrorCode::permission_denied, "setup_token_required",
                 "The first registration must carry the setup token", "setup_token");
  if (auto status = impl.check_password(password); !status) return status.error();
  auto hash = impl.hash(password);
  if (!hash) return hash.error();
  User user;
  user.email = email;
  user.password_hash = std::move(*hash);
  bool was_first = false;
  // Whoever passed a rule that holds for the first user only must be it: the store decides, not the look above.
  auto created = impl.repository().create_user(std::move(user), true, &was_first);
  if (!created) return created.error();
  if (first && !was_first && !impl.options.registration_open) {
    (void)impl.repository().delete_user(created->id);
    return Error(ErrorCode::permission_denied, "registration_closed", "Registration is closed: ask an administrator");
  }
  return impl.sign_in(*created, "Default");
}

Result<SignedIn> Authenticator::login(std::string_view email, std::string_view password, std::string_view address) {
  Impl& impl = *impl_;
  const std::string account = to_lower(trim(email)).substr(0, 254);
  if (auto status = impl.check_rate(account, address); !status) return status.error();
  const auto user = impl.repository().user_by_email(account);
  // One hash for everybody: the time of the answer does not tell whether the account exists.
  const std::string stored = user ? user->password_hash : std::string();
  const auto right = password.size() > 4 * kPasswordMax ? std::optional<bool>(false) : impl.verify(password, stored);
  if (!right) return Impl::overloaded();
  if (!*right || !user || !user->enabled) {
    impl.record_failure(account, address);
    return invalid_credentials();
  }
  impl.pairs.clear(Impl::pair_of(account, address));
  UserPatch patch;
  patch.last_login_at = impl.repository().clock().now();
  if (needs_rehash(stored)) {
    if (auto hash = impl.hash(password)) patch.password_hash = std::move(*hash);
  }
  auto updated = impl.repository().update_user(user->id, patch);
  if (!updated) return updated.error();
  return impl.sign_in(*updated, "Login");
}

Status Authenticator::change_password(const Principal& principal, std::string_view old_password,
                                      std::string_view new_password, bool revoke_api_tokens, std::string_view address) {
  Impl& impl = *impl_;
  const auto user = impl.repository().user(principal.user_id);
  if (!user) return Error(ErrorCode::not_found, "user_not_found", "User not found");
  if (auto status = impl.check_rate(user->email, address); !status) return status;
  if (auto status = impl.check_password(new_password); !status) {
    Error error = status.error();
    error.field = "new_password";
    return error;
  }
  const auto right =
      old_password.size() > 4 * kPasswordMax ? std::optional<bool>(false) : impl.verify(old_password, user->password_hash);
  if (!right) return Impl::overloaded();
  if (!*right) {
    impl.record_failure(user->email, address);
    return Error(ErrorCode::permission_denied, "invalid_credentials", "The old password is not right", "old_password");
  }
  impl.pairs.clear(Impl::pair_of(user->email, address));
  auto hash = impl.hash(new_password);
  if (!hash) return hash.error();
  UserPatch patch;
  patch.password_hash = std::move(*hash);
  if (auto updated = impl.repository().update_user(user->id, patch); !updated) return updated.error();
  return impl.repository().revoke_tokens(user->id, revoke_api_tokens, principal.token_id);
}

Result<std::string> Authenticator::hash_password(std::string_view password) const {
  if (auto status = impl_->check_password(password); !status) return status.error();
  return impl_->hash(password);
}

Result<MintedToken> Authenticator::mint(std::string_view user_id, std::string name, TokenKind kind,
                                        std::vector<std::string> scopes, std::optional<Time> expires_at) {
  if (kind == TokenKind::api && (name == "Login" || name == "Default"))
    return Error(ErrorCode::invalid_argument, "reserved_name", "This token name is reserved: choose another", "name");
  return impl_->mint(user_id, std::move(name), kind, std::move(scopes), expires_at);
}

}  // namespace mcpgw
