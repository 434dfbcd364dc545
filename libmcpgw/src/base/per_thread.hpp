// PerThread: what many threads count, each in memory of its own. A cache line that two cores write in turns
// costs each of them more than the counting.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>

namespace mcpgw::detail {

/// Threads that are told apart. The loops of a runtime, which are started one after another, have places of
/// their own; beyond that threads share them.
inline constexpr std::size_t kThreadPlaces = 8;

inline std::size_t thread_place() noexcept {
  static std::atomic<std::size_t> next{0};
  static thread_local const std::size_t mine = next.fetch_add(1, std::memory_order_relaxed) % kThreadPlaces;
  return mine;
}

/// Guards a few instructions of threads that share a place: it is nearly always free, and costs less than a
/// mutex then.
class PlaceLock {
 public:
  void lock() noexcept {
    while (busy_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() noexcept { busy_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> busy_{false};
};

/// `found`, with a count of holders of its own: threads that hold the same thing often need not share that.
template <class T>
std::shared_ptr<T> held_apart(const std::shared_ptr<T>& found) {
  if (!found) return nullptr;
  return std::shared_ptr<T>(std::make_shared<std::shared_ptr<T>>(found), found.get());
}

/// A T for each place, made with its first use. Safe from any thread as far as T is: threads may share one,
/// and each() reads them all.
template <class T>
class PerThread {
 public:
  PerThread() = default;
  ~PerThread() {
    for (auto& part : parts_) delete part.load(std::memory_order_relaxed);
  }
  PerThread(const PerThread&) = delete;
  PerThread& operator=(const PerThread&) = delete;

  T& mine() {
    auto& place = parts_[thread_place()];
    if (Part* found = place.load(std::memory_order_acquire)) return found->value;
    auto made = std::make_unique<Part>();
    Part* expected = nullptr;
    if (place.compare_exchange_strong(expected, made.get(), std::memory_order_acq_rel))
      return made.release()->value;
    return expected->value;
  }
  template <class F>
  void each(const F& f) const {
    for (const auto& place : parts_)
      if (Part* part = place.load(std::memory_order_acquire)) f(part->value);
  }

 private:
  struct alignas(64) Part {
    T value{};
  };
  std::array<std::atomic<Part*>, kThreadPlaces> parts_{};
};

}  // namespace mcpgw::detail
