// StorageHealth: since when the storage has been away. Identities, policies and targets are in memory, so calls go on
// without it; but what is revoked meanwhile elsewhere is not heard of, so they do not go on for ever.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>

namespace mcpgw::detail {

/// Safe from any thread.
class StorageHealth {
 public:
  using Clock = std::chrono::steady_clock;

  /// What a look at the storage found. True: that is news.
  bool report(bool answers, Clock::time_point now = Clock::now()) {
    const Clock::rep fresh = answers ? 0 : std::max<Clock::rep>(now.time_since_epoch().count(), 1);
    if (answers) return away_since_.exchange(0) != 0;
    Clock::rep answering = 0;
    return away_since_.compare_exchange_strong(answering, fresh);
  }

  /// Whether it has been away for `grace` or longer.
  bool lost(Clock::duration grace, Clock::time_point now = Clock::now()) const {
    const auto since = away_since_.load(std::memory_order_relaxed);
    return since != 0 && now - Clock::time_point(Clock::duration(since)) >= grace;
  }

 private:
  std::atomic<Clock::rep> away_since_{0};  // 0: it answers
};

}  // namespace mcpgw::detail
