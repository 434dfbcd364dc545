#include "runtime/loop.hpp"

#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <exception>

#include "runtime/poller.hpp"
#include "runtime/reminders.hpp"

namespace mcpgw::detail {
namespace {
thread_local Loop* current_loop = nullptr;
}

Loop::Loop(std::size_t index)
    : guard_(asio::make_work_guard(io_)),
      index_(index),
      poller_(std::make_unique<Poller>(*this)),
      reminders_(std::make_unique<Reminders>(*this)) {
  thread_ = std::thread([this] {
    current_loop = this;
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    for (;;) {
      try {
        io_.run();
        return;
      } catch (const std::exception& e) {
        std::fprintf(stderr, "mcpgw: a callback on an event loop threw: %s\n", e.what());
      }
    }
  });
}

Loop::~Loop() { stop_and_join(); }

Loop* Loop::current() noexcept { return current_loop; }

void Loop::spawn(Task<void> task) {
  asio::co_spawn(io_.get_executor(), std::move(task), [](std::exception_ptr error) {
    if (!error) return;
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "mcpgw: a coroutine ended with an exception: %s\n", e.what());
    }
  });
}

WorkerPool& Loop::spawner() {
  const std::lock_guard lock(spawner_mutex_);
  if (!spawner_) spawner_ = std::make_unique<WorkerPool>(1, 1024);
  return *spawner_;
}

void Loop::stop_and_join() {
  {
    const std::lock_guard lock(spawner_mutex_);
    if (spawner_) spawner_->stop_and_join();
  }
  guard_.reset();
  io_.stop();
  if (thread_.joinable()) thread_.join();
}

void Loop::empty() {
  emptied_ = true;
  poller_->abandon_all();
  io_.shutdown();
}

WorkerPool::WorkerPool(unsigned threads, std::size_t max_queued) : max_queued_(max_queued) {
  threads_.reserve(threads);
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

WorkerPool::~WorkerPool() { stop_and_join(); }

bool WorkerPool::post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || queue_.size() >= max_queued_) return false;
    queue_.push_back(std::move(work));
  }
  ready_.notify_one();
  return true;
}

void WorkerPool::run() {
  for (;;) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;  // what was accepted is done before stopping
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    try {
      work();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "mcpgw: a blocking job threw: %s\n", e.what());
    }
  }
}

void WorkerPool::stop_and_join() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  for (auto& thread : threads_)
    if (thread.joinable()) thread.join();
}

Task<void> sleep_for(std::chrono::steady_clock::duration duration) {
  SteadyTimer timer(co_await asio::this_coro::executor, duration);
  co_await timer.async_wait(use_task);
}

}  // namespace mcpgw::detail

namespace mcpgw {

namespace {
unsigned cpus() {
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : n;
}
}  // namespace

Runtime::Impl::Impl(const RuntimeOptions& options) {
  const unsigned loops = options.loops == 0 ? cpus() : options.loops;
  for (unsigned i = 0; i < loops; ++i) loops_.push_back(std::make_unique<detail::Loop>(i));
  workers_ =
      std::make_unique<detail::WorkerPool>(options.workers == 0 ? 1 : options.workers, options.max_queued);
  hash_workers_ =
      std::make_unique<detail::WorkerPool>(options.hash_workers == 0 ? cpus() : options.hash_workers, 64);
}

Runtime::Impl::~Impl() {
  // Workers first: their results are posted to loops that must still exist.
  if (waiting_workers_) waiting_workers_->stop_and_join();
  workers_->stop_and_join();
  hash_workers_->stop_and_join();
  for (auto& loop : loops_) loop->stop_and_join();
  for (auto& loop : loops_) loop->empty();
}

detail::WorkerPool& Runtime::Impl::waiting_workers() {
  static constexpr unsigned kThreads = 4;
  static constexpr std::size_t kMaxQueued = 64;
  std::call_once(waiting_once_,
                 [this] { waiting_workers_ = std::make_unique<detail::WorkerPool>(kThreads, kMaxQueued); });
  return *waiting_workers_;
}

bool Runtime::Impl::owns(const detail::Loop* loop) const noexcept {
  for (const auto& own : loops_)
    if (own.get() == loop) return true;
  return false;
}

detail::Loop& Runtime::Impl::any_loop() noexcept {
  if (detail::Loop* here = detail::Loop::current(); here && owns(here)) return *here;
  return *loops_[next_.fetch_add(1, std::memory_order_relaxed) % loops_.size()];
}

std::shared_ptr<Runtime> Runtime::create(RuntimeOptions options) {
  return std::shared_ptr<Runtime>(new Runtime(std::make_unique<Impl>(options)));
}

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Runtime::~Runtime() = default;

void Runtime::post(std::function<void()> work) { impl_->any_loop().post(std::move(work)); }
bool Runtime::post_blocking(std::function<void()> work) { return impl_->workers().post(std::move(work)); }

}  // namespace mcpgw
