#include "auth/login_limits.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstring>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

/// With the length, so that no two pairs run together into one text.
std::string pair_of(const std::string& account, const std::string& from) {
  return std::to_string(from.size()) + ':' + from + account;
}

}  // namespace

std::string rate_address(std::string_view address) {
  const std::string text(address.substr(0, address.find('%')));  // without a zone
  in6_addr six{};
  if (inet_pton(AF_INET6, text.c_str(), &six) != 1) return std::string(address);
  const auto* const raw = reinterpret_cast<const char*>(&six);
  if (IN6_IS_ADDR_V4MAPPED(&six)) {
    char four[INET_ADDRSTRLEN];
    return inet_ntop(AF_INET, raw + 12, four, sizeof four) != nullptr ? four : std::string(address);
  }
  return to_hex(std::string_view(raw, 8)) + "/64";
}

bool LoginLimits::allowed_locked(const std::string& account, const std::string& from, Duration now) {
  return pairs_.allowed(pair_of(account, from), now) && addresses_.allowed(from, now) &&
         accounts_.allowed(account, now);
}

LoginLimits::LoginLimits(int per_pair, int per_address, int per_account, Duration window,
                         std::shared_ptr<SharedRates> shared)
    : shared_(std::move(shared)),
      shared_pairs_{"login.pair", static_cast<std::size_t>(per_pair), window},
      shared_addresses_{"login.address", static_cast<std::size_t>(per_address), window},
      shared_accounts_{"login.account", static_cast<std::size_t>(per_account), window},
      pairs_(per_pair, window),
      addresses_(per_address, window),
      accounts_(per_account, window) {}

std::vector<SharedRates::Step> LoginLimits::steps(const std::string& account, const std::string& from,
                                                  std::optional<bool> right) const {
  using What = SharedRates::Step::What;
  const What rest = right && !*right ? What::add : What::look;
  const What pair = right && *right ? What::clear : rest;
  return {{&shared_pairs_, pair_of(account, from), pair},
          {&shared_addresses_, from, rest},
          {&shared_accounts_, account, rest}};
}

bool LoginLimits::allowed(std::string_view account, std::string_view address, Duration now) {
  const std::string who(account), from = rate_address(address);
  if (shared_) return shared_->may_try(steps(who, from, std::nullopt));
  const std::lock_guard lock(mutex_);
  return allowed_locked(who, from, now);
}

Result<bool> LoginLimits::settle(std::string_view account, std::string_view address, bool right,
                                 Duration now) {
  const std::string who(account), from = rate_address(address);
  if (shared_) return shared_->settle(steps(who, from, right));
  const std::lock_guard lock(mutex_);
  if (!allowed_locked(who, from, now)) return false;
  if (right) {
    pairs_.clear(pair_of(who, from));
  } else {
    pairs_.record(pair_of(who, from), now);
    addresses_.record(from, now);
    accounts_.record(who, now);
  }
  return true;
}

}  // namespace mcpgw::detail
