// WriteTurns: one writer at a time, first come first served, with a time limit. A mutex would let the busier
// of two writers starve the other.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <list>
#include <mutex>
#include <utility>

namespace mcpgw::detail {

class WriteTurns {
 public:
  /// Holds the turn until it is destroyed. False when the time limit passed before.
  class Turn {
   public:
    Turn(Turn&& other) noexcept : turns_(std::exchange(other.turns_, nullptr)) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
      if (turns_) turns_->pass_on();
    }
    explicit operator bool() const { return turns_ != nullptr; }

   private:
    friend class WriteTurns;
    explicit Turn(WriteTurns* turns) : turns_(turns) {}
    WriteTurns* turns_;
  };

  Turn take(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    if (!taken_) {
      taken_ = true;
      return Turn(this);
    }
    const auto place = waiting_.emplace(waiting_.end());
    place->changed.wait_for(lock, limit, [&] { return place->granted; });
    const bool granted = place->granted;
    (granted ? granted_ : waiting_).erase(place);
    return Turn(granted ? this : nullptr);
  }

  /// How many wait now.
  std::size_t waiting() {
    std::lock_guard lock(mutex_);
    return waiting_.size();
  }

 private:
  struct Place {
    std::condition_variable changed;
    bool granted = false;
  };

  void pass_on() {
    std::lock_guard lock(mutex_);
    if (waiting_.empty()) {
      taken_ = false;
      return;
    }
    granted_.splice(granted_.end(), waiting_, waiting_.begin());
    granted_.back().granted = true;
    granted_.back().changed.notify_one();
  }

  std::mutex mutex_;  // protects the members below
  bool taken_ = false;
  std::list<Place> waiting_;  // in the order they came
  std::list<Place> granted_;  // the next holder, until it has woken up
};

}  // namespace mcpgw::detail
