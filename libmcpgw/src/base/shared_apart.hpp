// What all threads read with every request, without one cache line that all of them write: an object and its
// holders' count, a lock. Each thread has a place of its own (per_thread.hpp).
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "base/per_thread.hpp"

namespace mcpgw::detail {

/// The same object for all, which threads hold by counts of their own. Immutable.
template <class T>
class HeldApart {
 public:
  explicit HeldApart(const std::shared_ptr<T>& value) {
    for (auto& place : places_) place = held_apart(value);
  }
  /// Valid as long as this.
  const std::shared_ptr<T>& here() const noexcept { return places_[thread_place()]; }

 private:
  std::array<std::shared_ptr<T>, kThreadPlaces> places_;
};

/// The same, and it may be replaced: after set() everybody gets the new one. Safe from any thread; of several
/// set() at once the caller sees to the order.
template <class T>
class SharedApart {
 public:
  SharedApart() = default;
  explicit SharedApart(const std::shared_ptr<T>& value) { set(value); }

  std::shared_ptr<T> get() const {
    const Place& place = places_[thread_place()];
    const std::lock_guard lock(place.mutex);
    return place.value;
  }
  void set(const std::shared_ptr<T>& value) {
    for (Place& place : places_) {
      auto held = held_apart(value);
      const std::lock_guard lock(place.mutex);
      place.value.swap(held);
    }
  }

 private:
  struct alignas(64) Place {
    mutable std::mutex mutex;
    std::shared_ptr<T> value;
  };
  std::array<Place, kThreadPlaces> places_;
};

/// A lock that is nearly always taken to read, for std::shared_lock and std::unique_lock. Who reads gives it
/// back on the thread that took it; who writes waits for the readers of every place.
class ReadMostlyMutex {
 public:
  void lock() {
    for (Place& place : places_) place.mutex.lock();
  }
  void unlock() {
    for (auto place = places_.rbegin(); place != places_.rend(); ++place) place->mutex.unlock();
  }
  void lock_shared() { places_[thread_place()].mutex.lock_shared(); }
  void unlock_shared() { places_[thread_place()].mutex.unlock_shared(); }

 private:
  struct alignas(64) Place {
    std::shared_mutex mutex;
  };
  std::array<Place, kThreadPlaces> places_;
};

}  // namespace mcpgw::detail
