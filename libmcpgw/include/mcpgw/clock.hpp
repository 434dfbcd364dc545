// Clock: where mcpgw gets the time from. Inject another one in tests (testing.hpp: ManualClock).
#pragma once

#include <chrono>
#include <memory>

namespace mcpgw {

/// Wall-clock time with microseconds: the precision in which times are stored and shown.
using Time = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;
using Duration = std::chrono::microseconds;

/// Implementations are safe for concurrent use.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Wall-clock time: token expiry, created_at, audit rows.
  virtual Time now() const = 0;
  /// Monotonic time since an arbitrary start: durations, rate windows. Never goes back.
  virtual Duration monotonic() const = 0;
};

/// The system's clocks. Cheap; may be shared. On a loop's thread they are read once for the work of an event,
/// some tens of microseconds.
std::shared_ptr<Clock> make_system_clock();

}  // namespace mcpgw
