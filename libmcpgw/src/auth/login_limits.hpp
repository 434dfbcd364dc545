// LoginLimits: failed passwords, counted per account and address, per address, and per account.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "auth/rate_limiter.hpp"
#include "auth/shared_rates.hpp"
#include "mcpgw/clock.hpp"

namespace mcpgw::detail {

/// What an address counts as: an IPv4 address itself (also when written as an IPv6 one), of an IPv6 address
/// the /64, because whoever has one address has all of its network. Other texts count as they are.
std::string rate_address(std::string_view address);

/// Safe from any thread.
class LoginLimits {
 public:
  /// `shared`: counts for all processes; null: in memory of this one.
  LoginLimits(int per_pair, int per_address, int per_account, Duration window,
              std::shared_ptr<SharedRates> shared = nullptr);

  /// Whether an attempt may be made, as far as this process knows. Memory.
  bool allowed(std::string_view account, std::string_view address, Duration now);
  /// Call with the outcome before it is told. False: others reached the limit while this password was being
  /// checked, so the outcome must not be told; guesses made in parallel, or at other processes that count
  /// together, gain nothing. An error: it cannot be counted, and must not be told either. Blocks when counts
  /// are shared.
  Result<bool> settle(std::string_view account, std::string_view address, bool right, Duration now);

 private:
  bool allowed_locked(const std::string& account, const std::string& from, Duration now);
  std::vector<SharedRates::Step> steps(const std::string& account, const std::string& from,
                                       std::optional<bool> right) const;

  const std::shared_ptr<SharedRates> shared_;
  const SharedRates::Limit shared_pairs_, shared_addresses_, shared_accounts_;

  std::mutex mutex_;  // makes look and count one step over all three
  RateLimiter pairs_, addresses_, accounts_;
};

}  // namespace mcpgw::detail
