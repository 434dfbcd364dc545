// HashGate: a few password hashes at once and a bounded number waiting in order; more would only make
// everybody wait, and each holds 32 MiB.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

namespace mcpgw::detail {

/// Safe from any thread.
class HashGate {
 public:
  HashGate(unsigned parallel, unsigned max_waiting) : parallel_(parallel), max_waiting_(max_waiting) {}

  /// Holds a place until it is destroyed; false when there was none to be had.
  class [[nodiscard]] Pass {
   public:
    explicit Pass(HashGate* gate) : gate_(gate) {}
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() {
      if (gate_ != nullptr) gate_->leave();
    }
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    HashGate* gate_;
  };

  /// Waits for its turn; an empty pass, at once, when too many wait already.
  Pass enter();
  unsigned waiting() const;

 private:
  void leave();

  const unsigned parallel_;
  const unsigned max_waiting_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  unsigned running_ = 0;
  std::uint64_t next_ = 0;     ///< number of the next one to wait
  std::uint64_t serving_ = 0;  ///< number of the first one that waits
};

}  // namespace mcpgw::detail
