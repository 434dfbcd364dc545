// Poller: the sockets of one loop that are served all the time, watched by an epoll of their own, which Asio
// sees as one descriptor. Asio's own waits cost a system call, an allocation and several locks each; here a
// socket is registered once and told of what happens for as long as it lives.
//
// A request runs through many times the code that a core's instruction cache holds. While many events are at
// hand, their work is therefore done in steps: one step for each, then the next for each, so that most of the
// code is fetched once for all of them. Whoever has a step to end asks stepping().
#pragma once

#include <boost/asio/deferred.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "runtime/loop.hpp"

namespace mcpgw::detail {

class Moment;

/// Told of what happens on a descriptor.
class Pollable {
 public:
  /// `events` as of epoll. It may remove itself, and others.
  virtual void on_event(std::uint32_t events) = 0;

 protected:
  ~Pollable() = default;
};

/// What waits on a loop and is destroyed with it.
class Abandoned {
 public:
  virtual void abandon() noexcept = 0;

 protected:
  ~Abandoned() = default;

 private:
  friend class Poller;
  Abandoned* previous_ = nullptr;
  Abandoned* next_ = nullptr;
  bool listed_ = false;
};

/// Work that is put off: anything that can be called and moved and is no larger than this, in place.
class PutOff {
 public:
  template <class F>
  explicit PutOff(F work) noexcept : operations_(&kOperations<F>) {
    static_assert(sizeof(F) <= sizeof(place_) && alignof(F) <= alignof(void*));
    static_assert(std::is_nothrow_move_constructible_v<F>);
    ::new (place_) F(std::move(work));
  }
  PutOff(PutOff&& other) noexcept : operations_(other.operations_) {
    operations_->move(place_, other.place_);
  }
  ~PutOff() { operations_->destroy(place_); }
  PutOff& operator=(PutOff&&) = delete;

  void operator()() && { operations_->call(place_); }

 private:
  struct Operations {
    void (*call)(void* place);
    void (*move)(void* to, void* from) noexcept;
    void (*destroy)(void* place) noexcept;
  };
  template <class F>
  static F& at(void* place) noexcept {
    return *std::launder(static_cast<F*>(place));
  }
  template <class F>
  static constexpr Operations kOperations{
      [](void* place) { std::move(at<F>(place))(); },
      [](void* to, void* from) noexcept { ::new (to) F(std::move(at<F>(from))); },
      [](void* place) noexcept { at<F>(place).~F(); },
  };

  const Operations* operations_;
  alignas(void*) std::byte place_[3 * sizeof(void*)];
};

/// Threads: all on its loop; once the loop has been joined, on any one thread.
class Poller {
 public:
  /// Names a registration; 0 none. One that has been removed is never told anything again, even when an event
  /// for it had been fetched already.
  using Token = std::uint64_t;

  explicit Poller(Loop& loop);
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  /// 0 when the system refuses. `watched` must live until remove().
  Token add(int fd, std::uint32_t events, Pollable& watched);
  bool modify(Token token, int fd, std::uint32_t events);
  /// Before `fd` is closed: a child between fork and exec would keep the registration alive. A token of 0 is
  /// fine.
  void remove(Token token, int fd);

  /// Keeps what has ended until the events at hand are through.
  void bury(std::shared_ptr<void> ended) {
    if (polling_) grave_.push_back(std::move(ended));
  }

  /// The poller of the loop whose thread this is while its events are worked off in steps, else nullptr.
  static Poller* stepping() noexcept;
  /// Calls `Step` of `owner` when the events, and what was put off before, are through. Of stepping() only.
  template <auto Step, class T>
  void put_off(std::shared_ptr<T> owner) {
    put_off_.emplace_back([owner = std::move(owner)] { (owner.get()->*Step)(); });
  }
  /// What follows in the coroutine is a step of its own. Of stepping() only.
  auto next_step() {
    // Awaited as an operation, which needs no frame of its own.
    return asio::async_initiate<const asio::deferred_t, void()>(
        [this](auto rest) { put_off_.emplace_back(std::move(rest)); }, asio::deferred);
  }

  void begin_wait(Abandoned& waiting) noexcept;
  void end_wait(Abandoned& waiting) noexcept;
  /// The loop ends: all that waits is destroyed.
  void abandon_all() noexcept;

 private:
  struct Slot {
    Pollable* watched = nullptr;
    std::uint32_t generation = 1;
    std::uint32_t next_free = 0;
  };
  static constexpr std::uint32_t kNone = UINT32_MAX;

  Slot* find(Token token) noexcept;
  void wait_for_events();
  void poll();
  int take_events();
  void take_steps(Moment& moment);

  const int epoll_fd_;
  asio::posix::basic_stream_descriptor<Executor> events_;
  std::vector<Slot> slots_;
  std::uint32_t free_ = kNone;
  std::vector<std::shared_ptr<void>> grave_;
  std::vector<PutOff> put_off_;  // empty unless stepping_
  bool polling_ = false;
  bool stepping_ = false;
  Abandoned* first_ = nullptr;
};

}  // namespace mcpgw::detail
