// What the authenticator's files share.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "auth/hash_gate.hpp"
#include "auth/login_limits.hpp"
#include "auth/rate_limiter.hpp"
#include "auth/shared_rates.hpp"
#include "base/shared_apart.hpp"
#include "mcpgw/authenticator.hpp"
#include "secrets/jwt.hpp"

namespace mcpgw {

class Authenticator::Impl {
 public:
  explicit Impl(AuthenticatorOptions o);

  Repository& repository() const { return *options.repository; }
  Time now() const { return repository().clock().now(); }
  Duration monotonic() const { return repository().clock().monotonic(); }

  // --- passwords (accounts.cpp) ---
  Status check_policy(std::string_view password, const char* field = "password") const;
  /// Whether it is the password of `hash`, under the gate and the limits of login. resource_exhausted,
  /// unavailable. Empty `hash`: the same work, and no.
  Result<bool> verify(std::string_view password, const std::string& hash, std::string_view account,
                      std::string_view address);
  /// One more registration from there; false: too many. The errors of Storage.
  Result<bool> take_registration(std::string_view address);
  /// Under the gate; the policy is checked by the caller.
  Result<std::string> hash(std::string_view password);

  // --- tokens (authenticator.cpp) ---
  Result<std::string> sign(const ApiToken& row) const;
  Result<MintedToken> mint(ApiToken row);
  /// The row of a token made by login or registration.
  ApiToken login_row(const char* name) const;
  /// Of an identity that a further verifier vouches for.
  Result<Principal> accept_external(Principal principal) const;

  std::shared_ptr<const detail::JwtKeys> keys() const { return current_keys.get(); }

  const AuthenticatorOptions options;  ///< its secrets are cleared: they are in `current_keys`
  std::mutex keys_mutex;               ///< one replaces them at a time
  detail::SharedApart<const detail::JwtKeys> current_keys;
  detail::HashGate gate;
  const std::shared_ptr<detail::SharedRates> shared;  ///< null: this process counts for itself
  detail::LoginLimits limits;
  detail::RateLimiter registrations;
  const detail::SharedRates::Limit shared_registrations;
};

}  // namespace mcpgw
