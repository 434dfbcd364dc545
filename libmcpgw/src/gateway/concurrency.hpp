// ConcurrencyLimit: at most so many calls of a target at once; the rest wait, in turn among users, so that
// one user's many calls do not push back another's one.
#pragma once

#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/waiter.hpp"

namespace mcpgw::detail {

/// Safe from any thread. Made with std::make_shared: slots keep it alive.
class ConcurrencyLimit : public std::enable_shared_from_this<ConcurrencyLimit> {
 public:
  /// Held while a call runs; an empty one holds nothing.
  class Slot {
   public:
    Slot() = default;
    explicit Slot(std::shared_ptr<ConcurrencyLimit> limit) : limit_(std::move(limit)) {}
    Slot(Slot&& other) noexcept : limit_(std::move(other.limit_)) {}
    Slot& operator=(Slot&& other) noexcept {
      std::swap(limit_, other.limit_);
      return *this;
    }
    ~Slot() {
      if (limit_) limit_->release();
    }
    explicit operator bool() const { return limit_ != nullptr; }

   private:
    std::shared_ptr<ConcurrencyLimit> limit_;
  };

  /// Waits for its turn; an empty slot when the deadline passed first. Awaited on a loop.
  Task<Slot> enter(std::string user_id, std::size_t max, SteadyTime deadline);

  std::size_t running() const;

 private:
  using Turn = std::shared_ptr<Waiter<bool>>;
  void release();
  /// The next in turn gets the place that became free. True when there was one who still waits.
  bool hand_over();

  mutable std::mutex mutex_;  // guards what follows
  std::size_t running_ = 0;
  std::list<std::string> users_;  ///< who has waiting calls, next in turn first
  std::map<std::string, std::deque<Turn>> waiting_;
};

}  // namespace mcpgw::detail
