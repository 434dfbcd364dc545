// Passwords: registration, login, change.
//
// Hashing takes long enough for the account to change meanwhile (a new password, disabled, deleted). Each
// function therefore looks again, at what is stored, after it has judged a password and before it gives
// anything away for it.
#include "auth/authenticator_impl.hpp"
#include "base/text.hpp"
#include "secrets/password.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr std::size_t kPasswordMax = 1024;           // code points
constexpr std::size_t kPasswordMaxBytes = 4 * 1024;  // what they may take in UTF-8
constexpr int kRounds = 5;                           // of looking again

Error invalid_credentials() {
  return {ErrorCode::unauthenticated, "invalid_credentials", "The email or the password is not right"};
}
Error wrong_old_password() {
  return {ErrorCode::permission_denied, "invalid_credentials", "The old password is not right",
          "old_password"};
}
Error rate_limited() {
  return {ErrorCode::resource_exhausted, "rate_limited", "Too many attempts: try again later"};
}
Error overloaded() {
  return {ErrorCode::unavailable, "overloaded", "Too many passwords are being checked: try again"};
}
Error registration_closed() {
  return {ErrorCode::permission_denied, "registration_closed",
          "Registration is closed: ask an administrator for an account"};
}

/// An account that was deleted during its login is answered as one that never was.
Error deleted_is_unknown(const Error& error) {
  return error.code == ErrorCode::not_found ? invalid_credentials() : error;
}

/// A user as the outside may have it.
User without_hash(User user) {
  user.password_hash.clear();
  return user;
}

}  // namespace

Status Authenticator::Impl::check_policy(std::string_view password, const char* field) const {
  const bool readable = password.size() <= kPasswordMaxBytes && is_utf8(password) &&
                        password.find('\0') == std::string_view::npos;
  const std::size_t length = readable ? utf8_length(password) : 0;
  if (length >= options.password_min && length <= kPasswordMax) return {};
  return Error(ErrorCode::invalid_argument, "weak_password",
               "The password must have " + std::to_string(options.password_min) + " to " +
                   std::to_string(kPasswordMax) + " characters",
               field);
}

Result<bool> Authenticator::Impl::verify(std::string_view password, const std::string& hash,
                                         std::string_view account, std::string_view address) {
  if (!limits.allowed(account, address, monotonic())) return rate_limited();
  bool right = false;
  // Longer than any password that was ever accepted: no, without the work, whatever the account.
  if (password.size() <= kPasswordMaxBytes) {
    const HashGate::Pass pass = gate.enter();
    if (!pass) return overloaded();
    // Those who waited may have been overtaken by failures.
    if (!limits.allowed(account, address, monotonic())) return rate_limited();
    right = verify_password(password, hash);
  }
  return right;
}

Result<bool> Authenticator::Impl::take_registration(std::string_view address) {
  const std::string from = rate_address(address);
  if (!shared) return registrations.take(from, monotonic());
  return shared->settle({{&shared_registrations, from, SharedRates::Step::What::add}});
}

Result<std::string> Authenticator::Impl::hash(std::string_view password) {
  const HashGate::Pass pass = gate.enter();
  if (!pass) return overloaded();
  std::string out = detail::hash_password(password, repository().random());
  if (out.empty()) return Error(ErrorCode::internal, "internal", "The password could not be hashed");
  return out;
}

Result<SignedIn> Authenticator::register_user(std::string_view email, std::string_view password,
                                              std::string_view setup_token, std::string_view address) {
  Impl& impl = *impl_;
  // Attempts count, not successes: so neither a setup token nor who has an account can be found by trying.
  const auto counted = impl.take_registration(address);
  if (!counted) return counted.error();
  if (!*counted) return rate_limited();
  const std::string& expected = impl.options.setup_token;
  const bool presented = !expected.empty() && equal_constant_time(setup_token, expected);
  const bool open = impl.options.registration_open;
  const bool first = !impl.repository().has_users();
  if (!open && !(first && presented)) return registration_closed();
  if (first && !expected.empty() && !presented)
    return Error(ErrorCode::permission_denied, "setup_token_required",
                 "The first registration must carry the setup token", "setup_token");
  if (auto status = impl.check_policy(password); !status) return status.error();
  User user;
  user.email = email;
  auto hash = impl.hash(password);
  if (!hash) return hash.error();
  user.password_hash = std::move(*hash);

  ApiToken row = impl.login_row("Default");
  bool was_first = false;
  auto created = impl.repository().create_user(std::move(user), true, &was_first, &row);
  if (!created) return created.error();
  // Whoever was let in as the first user must be it, and only the store knows: the second is taken back.
  if (!open && !was_first) {
    (void)impl.repository().delete_user(created->id);
    return registration_closed();
  }
  auto token = impl.sign(row);
  if (!token) return token.error();
  return SignedIn{without_hash(std::move(*created)), std::move(*token)};
}

Result<SignedIn> Authenticator::login(std::string_view email, std::string_view password,
                                      std::string_view address) {
  Impl& impl = *impl_;
  Repository& repository = impl.repository();
  const std::string account = to_lower(trim(email));
  for (int round = 0; round < kRounds; ++round) {
    const auto user = repository.user_by_email(account);
    // An unknown account has an empty hash: the same work, so the time of the answer does not tell.
    const std::string stored = user ? user->password_hash : std::string();
    const auto matches = impl.verify(password, stored, account, address);
    if (!matches) return matches.error();
    const bool right = *matches && user && user->enabled;
    const auto settled = impl.limits.settle(account, address, right, impl.monotonic());
    if (!settled) return settled.error();
    if (!*settled) return rate_limited();
    if (!right) return invalid_credentials();

    ApiToken row = impl.login_row("Login");
    row.user_id = user->id;
    User current;
    // What happened to the account since it was judged makes this fail; what happens from here on finds the
    // token among the others.
    auto made = repository.create_login(std::move(row), stored, current);
    if (!made && made.error().reason == "account_changed") continue;
    if (!made) return deleted_is_unknown(made.error());
    auto token = impl.sign(*made);
    if (!token) return token.error();
    if (needs_rehash(stored)) {
      if (auto hash = impl.hash(password)) {
        UserPatch rehash;
        rehash.password_hash = std::move(*hash);
        // Best effort, and never over somebody's newer password: the next login tries again.
        if (auto updated = repository.update_user(current.id, rehash, current.version))
          current = std::move(*updated);
      }
    }
    return SignedIn{without_hash(std::move(current)), std::move(*token)};
  }
  return overloaded();
}

Status Authenticator::change_password(const Principal& principal, std::string_view old_password,
                                      std::string_view new_password, bool revoke_api_tokens,
                                      std::string_view address) {
  Impl& impl = *impl_;
  Repository& repository = impl.repository();
  if (auto status = impl.check_policy(new_password, "new_password"); !status) return status;
  std::string judged;    // the hash that old_password was found right for
  std::string new_hash;  // computed once
  for (int round = 0; round < kRounds; ++round) {
    const auto user = repository.user(principal.user_id);
    if (!user || !user->enabled) return Error(ErrorCode::not_found, "user_not_found", "User not found");
    if (round == 0 || user->password_hash != judged) {
      judged = user->password_hash;
      const auto right = impl.verify(old_password, judged, user->email, address);
      if (!right) return right.error();
      const auto settled = impl.limits.settle(user->email, address, *right, impl.monotonic());
      if (!settled) return settled.error();
      if (!*settled) return rate_limited();
      if (!*right) return wrong_old_password();
    }
    if (new_hash.empty()) {
      auto hash = impl.hash(new_password);
      if (!hash) return hash.error();
      new_hash = std::move(*hash);
    }
    UserPatch patch;
    patch.password_hash = new_hash;
    patch.revoke_login_tokens = true;
    patch.revoke_api_tokens = revoke_api_tokens;
    patch.keep_token_id = principal.token_id;
    const auto updated = repository.update_user(user->id, patch, user->version);
    if (updated) return {};
    if (updated.error().code != ErrorCode::precondition_failed) return updated.error();
  }
  return overloaded();
}

Result<std::string> Authenticator::hash_password(std::string_view password) const {
  if (auto status = impl_->check_policy(password); !status) return status.error();
  return impl_->hash(password);
}

}  // namespace mcpgw
