#include "gateway/circuit.hpp"

#include <algorithm>

namespace mcpgw::detail {
namespace {

constexpr std::chrono::milliseconds kLongestPause{30000};

}  // namespace

std::optional<CircuitBreaker::Pass> CircuitBreaker::enter(SteadyTime now) {
  if (!is_open()) return Pass(*this, false);
  const std::lock_guard lock(mutex_);
  if (!is_open()) return Pass(*this, false);
  if (now < probe_at_) return std::nullopt;
  probe_at_ = now + pause_;
  return Pass(*this, true);
}

bool CircuitBreaker::end(bool probe, Outcome outcome, SteadyTime now) {
  if (failures_ <= 0) return false;
  if (outcome == Outcome::worked && !is_open() && in_a_row_.load(std::memory_order_acquire) == 0)
    return false;
  const std::lock_guard lock(mutex_);
  switch (outcome) {
    case Outcome::neither:
      if (probe) probe_at_ = {};  // the next one shows it
      return false;
    case Outcome::worked:
      // Whoever got through shows that it works, also one that began before the circuit opened.
      in_a_row_.store(0, std::memory_order_release);
      return open_.exchange(false, std::memory_order_acq_rel);
    case Outcome::failed:
      break;
  }
  if (is_open()) {
    if (!probe) return false;  // begun before it opened: no news
    pause_ = std::max(first_pause_, std::min(pause_ * 2, kLongestPause));
  } else {
    if (in_a_row_.fetch_add(1, std::memory_order_acq_rel) + 1 < failures_) return false;
    pause_ = first_pause_;
    open_.store(true, std::memory_order_release);
  }
  probe_at_ = now + pause_;
  return false;
}

CircuitBreaker::Outcome CircuitBreaker::outcome_of(const Error& error) {
  if (error.reason == "upstream_unreachable" || error.reason == "upstream_closed") return Outcome::failed;
  // An answer that says that the server itself does not work (HTTP 5xx).
  if (error.reason == "upstream_protocol_error" && error.code == ErrorCode::unavailable)
    return Outcome::failed;
  // That a call takes long or is ended says nothing of the place: one user's slow tool must not close it for
  // others. Opening a connection is judged by who opens it.
  if (error.reason == "upstream_timeout" || error.reason == "cancelled" || error.reason == "session_lost" ||
      error.reason == "address_not_allowed")
    return Outcome::neither;
  return Outcome::worked;  // it answered, if not well
}

Error CircuitBreaker::refusal() {
  return {ErrorCode::unavailable, kCircuitOpen,
          "The server failed several times in a row and is left alone for a moment"};
}

}  // namespace mcpgw::detail
