// CircuitBreaker: a place that fails again and again is not asked by everybody, who would all wait for it.
// After some failures in a row calls fail at once for a while; then one goes through, and its end decides.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

#include "mcpgw/result.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::detail {

/// Reason of a call that was not tried. Clients are told that the target cannot be reached.
inline constexpr const char* kCircuitOpen = "circuit_open";

/// Safe from any thread. As long as nothing fails it takes no lock.
class CircuitBreaker {
 public:
  /// `failures` <= 0: it never opens. `pause` is the first one; each try that fails doubles it, up to 30 s.
  CircuitBreaker(int failures, std::chrono::milliseconds pause) : failures_(failures), first_pause_(pause) {}

  enum class Outcome { worked, failed, neither };

  /// The permission to try once; its breaker outlives it. Destroyed without a word it counts as neither.
  class Pass {
   public:
    Pass() = default;  ///< of no breaker: nothing counts
    Pass(CircuitBreaker& breaker, bool probe) : breaker_(&breaker), probe_(probe) {}
    Pass(Pass&& other) noexcept : breaker_(std::exchange(other.breaker_, nullptr)), probe_(other.probe_) {}
    Pass& operator=(Pass&& other) noexcept {
      std::swap(breaker_, other.breaker_);
      std::swap(probe_, other.probe_);
      return *this;
    }
    ~Pass() { (void)end(Outcome::neither, {}); }
    /// True when this is what closed the circuit again.
    bool end(Outcome outcome, SteadyTime now) {
      CircuitBreaker* const breaker = std::exchange(breaker_, nullptr);
      return breaker != nullptr && breaker->end(probe_, outcome, now);
    }

   private:
    CircuitBreaker* breaker_ = nullptr;
    bool probe_ = false;
  };

  /// nullopt: not now. While it is open, one goes through in each pause, however long that one takes.
  std::optional<Pass> enter(SteadyTime now);
  /// Goes through whatever the state is, and its end counts: an administrator asks.
  Pass force() { return {*this, true}; }
  bool is_open() const noexcept { return open_.load(std::memory_order_acquire); }

  /// Whether the place itself failed, whoever asked: not reached, cut off, HTTP 5xx.
  static Outcome outcome_of(const Error& error);
  static Error refusal();

 private:
  bool end(bool probe, Outcome outcome, SteadyTime now);

  const int failures_;
  const std::chrono::milliseconds first_pause_;
  std::atomic<bool> open_{false};
  std::atomic<int> in_a_row_{0};
  std::mutex mutex_;  // guards changes of the above, and what follows
  std::chrono::milliseconds pause_{0};
  SteadyTime probe_at_{};
};

}  // namespace mcpgw::detail
