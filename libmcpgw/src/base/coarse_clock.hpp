// Time for deadlines and ages of seconds, at a tenth of what steady_clock's takes.
#pragma once

#include <time.h>

#include <chrono>

namespace mcpgw::detail {

/// What steady_clock said at the system's last tick: some milliseconds ago, never ahead of it.
inline std::chrono::steady_clock::time_point coarse_now() noexcept {
#ifdef CLOCK_MONOTONIC_COARSE
  timespec now{};
  if (::clock_gettime(CLOCK_MONOTONIC_COARSE, &now) == 0)
    return std::chrono::steady_clock::time_point(std::chrono::seconds(now.tv_sec) +
                                                 std::chrono::nanoseconds(now.tv_nsec));
#endif
  return std::chrono::steady_clock::now();
}

}  // namespace mcpgw::detail
