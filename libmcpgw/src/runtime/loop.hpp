// Event loops and worker pools behind Runtime, and the coroutine type that runs on them.
//
// Code on a loop never blocks. A coroutine (Task) stays on the loop it was spawned on; blocking work goes
// through run_blocking() and comes back to that loop.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "mcpgw/runtime.hpp"

namespace mcpgw::detail {

namespace asio = boost::asio;

// A concrete executor everywhere: any_io_executor costs an allocation and two virtual calls per operation.
using Executor = asio::io_context::executor_type;
template <class T>
using Task = asio::awaitable<T, Executor>;
using UseTask = asio::use_awaitable_t<Executor>;
constexpr UseTask use_task{};
using SteadyTimer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                               asio::wait_traits<std::chrono::steady_clock>, Executor>;
using TcpSocket = asio::basic_stream_socket<asio::ip::tcp, Executor>;
using TcpAcceptor = asio::basic_socket_acceptor<asio::ip::tcp, Executor>;
using SteadyTime = std::chrono::steady_clock::time_point;

class Poller;
class Reminders;
class WorkerPool;

/// One thread that runs an io_context. SIGPIPE is blocked in it: a pipe whose reader has gone is an error of
/// the write and nothing else.
class Loop {
 public:
  explicit Loop(std::size_t index);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  asio::io_context& io() noexcept { return io_; }
  Executor executor() noexcept { return io_.get_executor(); }
  std::size_t index() const noexcept { return index_; }
  bool here() const noexcept { return current() == this; }
  /// The loop whose thread this is; nullptr elsewhere.
  static Loop* current() noexcept;

  /// Dropped when the loop has been emptied.
  template <class F>
  void post(F&& work) {
    if (!emptied_) asio::post(io_, std::forward<F>(work));
  }
  /// At once when already on this loop, else post().
  template <class F>
  void dispatch(F&& work) {
    if (here()) {
      std::forward<F>(work)();
    } else {
      post(std::forward<F>(work));
    }
  }
  Poller& poller() noexcept { return *poller_; }
  Reminders& reminders() noexcept { return *reminders_; }
  /// Starts a coroutine on this loop. Exceptions that leave it are logged to stderr and end nothing else.
  void spawn(Task<void> task);

  /// One thread that starts child processes, made when first needed. The kernel ends a child together with
  /// the thread that started it (PR_SET_PDEATHSIG), so that has to be one that lives as long as the loop.
  WorkerPool& spawner();

  void stop_and_join();
  /// Destroys all that waits on this loop, after which it takes nothing more. A coroutine of one loop may
  /// hold timers and sockets of another: when several loops end, all are joined, then all emptied, then
  /// destroyed.
  void empty();

 private:
  struct Context : asio::io_context {
    using asio::io_context::io_context;
    using asio::io_context::shutdown;
  };

  Context io_{1};
  asio::executor_work_guard<Executor> guard_;
  std::size_t index_;
  std::unique_ptr<Poller> poller_;
  std::unique_ptr<Reminders> reminders_;
  std::mutex spawner_mutex_;
  std::unique_ptr<WorkerPool> spawner_;  // guarded by the mutex
  bool emptied_ = false;                 // written when no thread but one is left
  std::thread thread_;
};

/// A fixed number of threads with one bounded queue.
class WorkerPool {
 public:
  WorkerPool(unsigned threads, std::size_t max_queued);
  ~WorkerPool();
  /// False when full or stopping; the work is then destroyed unrun.
  bool post(std::function<void()> work);
  void stop_and_join();

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> queue_;
  std::size_t max_queued_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mcpgw::detail

namespace mcpgw {

class Runtime::Impl {
 public:
  explicit Impl(const RuntimeOptions& options);
  ~Impl();

  std::size_t loop_count() const noexcept { return loops_.size(); }
  detail::Loop& loop(std::size_t index) noexcept { return *loops_[index]; }
  /// The current thread's loop when it belongs to this runtime, else the next one round robin.
  detail::Loop& any_loop() noexcept;
  bool owns(const detail::Loop* loop) const noexcept;
  detail::WorkerPool& workers() noexcept { return *workers_; }
  detail::WorkerPool& hash_workers() noexcept { return *hash_workers_; }
  /// For work that waits for what workers() do: it must not take their threads. Started with its first use.
  detail::WorkerPool& waiting_workers();

 private:
  std::vector<std::unique_ptr<detail::Loop>> loops_;
  std::unique_ptr<detail::WorkerPool> workers_;
  std::unique_ptr<detail::WorkerPool> hash_workers_;
  std::once_flag waiting_once_;
  std::unique_ptr<detail::WorkerPool> waiting_workers_;
  std::atomic<std::size_t> next_{0};
};

}  // namespace mcpgw

namespace mcpgw::detail {

/// Runs `work` on `pool` and resumes on the current loop with its result; nullopt when the pool refuses it.
/// `work` must not throw; it is moved from. It is a reference to a named variable because g++ 12 destroys a
/// closure twice that is made inside a co_await expression.
template <class F>
Task<std::optional<std::invoke_result_t<F>>> run_blocking(WorkerPool& pool, F& work) {
  using R = std::invoke_result_t<F>;
  const Executor executor = co_await asio::this_coro::executor;
  auto job = std::make_shared<F>(std::move(work));
  auto initiate = [&pool, &executor, &job](auto handler) {
    auto shared = std::make_shared<decltype(handler)>(std::move(handler));
    auto guard = std::make_shared<asio::executor_work_guard<Executor>>(executor);
    const bool taken = pool.post([shared, guard, executor, job] {
      auto result = std::make_shared<std::optional<R>>((*job)());
      asio::post(executor, [shared, guard, result] { std::move (*shared)(std::move(*result)); });
    });
    if (!taken) asio::post(executor, [shared, guard] { std::move (*shared)(std::optional<R>{}); });
  };
  co_return co_await asio::async_initiate<const UseTask, void(std::optional<R>)>(initiate, use_task);
}

/// Suspends for `duration`.
Task<void> sleep_for(std::chrono::steady_clock::duration duration);

}  // namespace mcpgw::detail
