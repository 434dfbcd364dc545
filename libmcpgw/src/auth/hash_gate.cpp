#include "auth/hash_gate.hpp"

namespace mcpgw::detail {

HashGate::Pass HashGate::enter() {
  std::unique_lock lock(mutex_);
  if (running_ >= parallel_ || next_ != serving_) {
    if (next_ - serving_ >= max_waiting_) return Pass(nullptr);
    const std::uint64_t mine = next_++;
    changed_.wait(lock, [&] { return running_ < parallel_ && serving_ == mine; });
    ++serving_;
    // The next one may have been woken before it was its turn.
    changed_.notify_all();
  }
  ++running_;
  return Pass(this);
}

unsigned HashGate::waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<unsigned>(next_ - serving_);
}

void HashGate::leave() {
  {
    const std::lock_guard lock(mutex_);
    --running_;
  }
  changed_.notify_all();
}

}  // namespace mcpgw::detail
