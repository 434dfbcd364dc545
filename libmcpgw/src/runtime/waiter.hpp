// Waiting for something that another thread will bring: a value, with a deadline, without holding a thread.
#pragma once

#include <boost/system/error_code.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "runtime/loop.hpp"

namespace mcpgw::detail {

/// One value for one coroutine. set() may be called from any thread, first call wins; wait() is awaited once, on
/// the loop the waiter was made for.
template <class T>
class Waiter : public std::enable_shared_from_this<Waiter<T>> {
 public:
  explicit Waiter(Loop& loop) : loop_(loop), timer_(loop.io()) {}

  void set(T value) {
    {
      const std::lock_guard lock(mutex_);
      if (value_) return;
      value_ = std::move(value);
    }
    wake();
  }

  /// From any thread. Takes effect while waiting, too.
  void set_deadline(SteadyTime deadline) {
    {
      const std::lock_guard lock(mutex_);
      deadline_ = deadline;
    }
    wake();
  }

  /// nullopt when the deadline passed first.
  Task<std::optional<T>> wait(SteadyTime deadline) {
    {
      const std::lock_guard lock(mutex_);
      if (!deadline_) deadline_ = deadline;
    }
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        if (value_) co_return std::move(value_);
        if (std::chrono::steady_clock::now() >= *deadline_) co_return std::nullopt;
        timer_.expires_at(*deadline_);
      }
      boost::system::error_code ignored;
      co_await timer_.async_wait(asio::redirect_error(use_task, ignored));
    }
  }

 private:
  void wake() {
    // The timer belongs to the loop; between the check in wait() and its suspension nothing else runs there.
    loop_.dispatch([self = this->shared_from_this()] { self->timer_.cancel(); });
  }

  Loop& loop_;
  SteadyTimer timer_;
  std::mutex mutex_;
  std::optional<T> value_;
  std::optional<SteadyTime> deadline_;
};

/// Many coroutines on any loops wait until it is set, once.
class AsyncEvent {
 public:
  void set() {
    std::vector<std::shared_ptr<Waiter<bool>>> waiters;
    {
      const std::lock_guard lock(mutex_);
      set_ = true;
      waiters.swap(waiters_);
    }
    for (const auto& waiter : waiters) waiter->set(true);
  }

  /// False when the deadline passed first. Awaited on a loop.
  Task<bool> wait(SteadyTime deadline) {
    auto waiter = std::make_shared<Waiter<bool>>(*Loop::current());
    {
      const std::lock_guard lock(mutex_);
      if (set_) co_return true;
      waiters_.push_back(waiter);
    }
    co_return (co_await waiter->wait(deadline)).has_value();
  }

 private:
  std::mutex mutex_;
  bool set_ = false;
  std::vector<std::shared_ptr<Waiter<bool>>> waiters_;
};

}  // namespace mcpgw::detail
