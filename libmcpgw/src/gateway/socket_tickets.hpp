// SocketTickets: what a browser puts into the URL of a WebSocket instead of its token, since it can set no
// headers there and URLs end up in logs. A ticket is good once, on any replica, for half a minute.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "auth/rate_limiter.hpp"
#include "auth/shared_rates.hpp"
#include "mcpgw/admin_api.hpp"
#include "mcpgw/clock.hpp"
#include "mcpgw/model.hpp"
#include "mcpgw/random.hpp"
#include "mcpgw/storage.hpp"

namespace mcpgw::detail {

/// Safe from any thread; both functions block.
class SocketTickets {
 public:
  SocketTickets(std::shared_ptr<Storage> storage, std::shared_ptr<Clock> clock,
                std::shared_ptr<Random> random);

  /// resource_exhausted/"rate_limited", else the errors of Storage.
  Result<SocketTicket> issue(const Principal& principal);
  /// Whose ticket it is, with the identity at its issue; nullopt when it is unknown, used or expired.
  Result<std::optional<Principal>> redeem(std::string_view text);

 private:
  /// One more for this user; false: too many.
  Result<bool> take(const std::string& user_id);
  /// Removes expired ones that nobody used.
  void purge();

  const std::shared_ptr<Storage> storage_;
  const std::shared_ptr<Clock> clock_;
  const std::shared_ptr<Random> random_;
  RateLimiter rate_;  ///< unless others share the storage
  const SharedRates::Limit shared_limit_;
  const std::unique_ptr<SharedRates> shared_;
  std::mutex mutex_;
  Duration next_purge_{};  // guarded by the mutex
};

}  // namespace mcpgw::detail
