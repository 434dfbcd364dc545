#include "runtime/child_process.hpp"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "runtime/child_start.hpp"
#include "runtime/line_splitter.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using Descriptor = asio::posix::basic_stream_descriptor<Executor>;

constexpr std::size_t kReadSize = 64 * 1024;
constexpr int kReadsInARow = 8;  // then others on the loop have their turn
constexpr std::size_t kStderrLine = 8 * 1024;
constexpr std::size_t kStderrTail = 4 * 1024;
constexpr milliseconds kDrainAfterExit{500};  // for pipes that somebody outside the group holds open
constexpr milliseconds kPollExit{100};        // where there are no pidfds
constexpr std::size_t kMaxWriteParts = 64;

char* read_buffer() {
  static thread_local const std::unique_ptr<char[]> buffer(new char[kReadSize]);
  return buffer.get();
}

Error gone() { return {ErrorCode::unavailable, "upstream_closed", "The process has ended"}; }

/// One process. Pending operations of its loop keep it alive until it is reaped and its output is read; a
/// loop that goes away destroys them, and with the last of them the process.
class Child : public std::enable_shared_from_this<Child> {
 public:
  Child(Loop& loop, SpawnOptions options, ChildProcess::Callbacks callbacks, StartedProcess started)
      : loop_(loop),
        options_(std::move(options)),
        callbacks_(std::move(callbacks)),
        pid_(started.pid),
        input_(loop.executor(), started.input.release()),
        output_{Descriptor(loop.executor(), started.output.release())},
        errors_{Descriptor(loop.executor(), started.errors.release())},
        exit_(loop.executor()),
        stop_timer_(loop.executor()),
        exit_timer_(loop.executor()),
        lines_(options_.max_line) {}

  ~Child() {
    if (!running_) return;
    ::kill(-pid_, SIGKILL);
    for (int i = 0; i < 500 && ::waitpid(pid_, nullptr, WNOHANG) == 0; ++i) ::usleep(1000);
  }

  // Any thread.
  int pid() const { return pid_; }
  bool running() const { return running_; }
  Status write(std::string line);
  std::string stderr_tail() const {
    const std::lock_guard lock(mutex_);
    return tail_;
  }

  // On the loop.
  void start();
  void stop();
  void kill_group(int signal);

 private:
  struct Source {
    Descriptor descriptor;
    bool ended = false;
  };

  void flush();
  void close_input();
  void watch(Source& source, void (Child::*take)(std::string_view));
  void drain(Source& source, void (Child::*take)(std::string_view));
  void take_output(std::string_view bytes);
  void take_errors(std::string_view bytes);
  void stderr_line(std::string_view line);
  void watch_exit();
  void check_exit();
  void finish_when_drained();
  void finish();

  Loop& loop_;
  const SpawnOptions options_;
  ChildProcess::Callbacks callbacks_;
  const pid_t pid_;
  std::atomic<bool> running_{true};

  Descriptor input_;
  Source output_;
  Source errors_;
  Descriptor exit_;  // a pidfd
  SteadyTimer stop_timer_;
  SteadyTimer exit_timer_;
  LineSplitter lines_;
  std::string stderr_line_;
  ExitStatus status_;
  bool stopping_ = false;
  bool finished_ = false;
  bool write_armed_ = false;

  mutable std::mutex mutex_;  // guards what follows
  std::deque<std::string> queue_;
  std::size_t queued_ = 0;
  std::size_t first_offset_ = 0;  // bytes of the first line that are written
  bool flush_posted_ = false;
  bool input_closed_ = false;
  std::string tail_;
};

// --- stdin -----------------------------------------------------------------------------------------------

Status Child::write(std::string line) {
  // A newline inside would make two messages of one. JSON allows a space wherever it allows a newline.
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::replace(line.begin(), line.end(), '\r', ' ');
  line += '\n';
  {
    const std::lock_guard lock(mutex_);
    if (!running_ || input_closed_) return gone();
    if (line.size() > options_.max_queued || queued_ > options_.max_queued - line.size())
      return Error(ErrorCode::resource_exhausted, "upstream_busy", "The process does not read its input");
    queued_ += line.size();
    queue_.push_back(std::move(line));
    if (flush_posted_) return {};
    flush_posted_ = true;
  }
  loop_.dispatch([self = shared_from_this()] { self->flush(); });
  return {};
}

void Child::flush() {
  for (;;) {
    iovec parts[kMaxWriteParts];
    int count = 0;
    {
      const std::lock_guard lock(mutex_);
      if (input_closed_ || queue_.empty()) {
        flush_posted_ = false;
        break;
      }
      for (const std::string& line : queue_) {
        if (count == static_cast<int>(kMaxWriteParts)) break;
        const std::size_t skip = count == 0 ? first_offset_ : 0;
        parts[count++] = {const_cast<char*>(line.data()) + skip, line.size() - skip};
      }
    }
    // Only the loop takes lines out, so that these stay where they are without the lock.
    ssize_t n = ::writev(input_.native_handle(), parts, count);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      if (write_armed_) return;
      write_armed_ = true;
      input_.async_wait(Descriptor::wait_write,
                        [self = shared_from_this()](const boost::system::error_code& error) {
                          self->write_armed_ = false;
                          if (!error) self->flush();
                        });
      return;
    }
    if (n < 0) {
      close_input();
      return;
    }
    const std::lock_guard lock(mutex_);
    queued_ -= static_cast<std::size_t>(n);
    for (std::size_t left = static_cast<std::size_t>(n); left > 0;) {
      const std::size_t of_first = queue_.front().size() - first_offset_;
      if (left < of_first) {
        first_offset_ += left;
        break;
      }
      left -= of_first;
      first_offset_ = 0;
      queue_.pop_front();
    }
  }
  if (stopping_) close_input();
}

void Child::close_input() {
  {
    const std::lock_guard lock(mutex_);
    input_closed_ = true;
    queue_.clear();
    queued_ = 0;
    first_offset_ = 0;
  }
  boost::system::error_code ignored;
  input_.close(ignored);
}

// --- stdout and stderr -----------------------------------------------------------------------------------

void Child::watch(Source& source, void (Child::*take)(std::string_view)) {
  source.descriptor.async_wait(Descriptor::wait_read, [self = shared_from_this(), &source,
                                                       take](const boost::system::error_code& error) {
    if (error || self->finished_) return;
    self->drain(source, take);
    if (!self->running_) self->finish_when_drained();
  });
}

void Child::drain(Source& source, void (Child::*take)(std::string_view)) {
  for (int i = 0; i < kReadsInARow; ++i) {
    const ssize_t n = ::read(source.descriptor.native_handle(), read_buffer(), kReadSize);
    if (n > 0) {
      (this->*take)(std::string_view(read_buffer(), static_cast<std::size_t>(n)));
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    source.ended = true;
    (this->*take)({});
    boost::system::error_code ignored;
    source.descriptor.close(ignored);
    return;
  }
  watch(source, take);
}

void Child::take_output(std::string_view bytes) {
  const auto line = [this](std::string text) {
    if (callbacks_.on_line) callbacks_.on_line(std::move(text));
  };
  const auto oversize = [this](std::string head, std::string tail, std::size_t size) {
    if (callbacks_.on_oversize) callbacks_.on_oversize(std::move(head), std::move(tail), size);
  };
  // A line that the end cut off is no message.
  if (!bytes.empty()) lines_.feed(bytes, line, oversize);
}

void Child::take_errors(std::string_view bytes) {
  if (bytes.empty()) {
    stderr_line(stderr_line_);
    stderr_line_.clear();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    tail_.append(bytes.substr(bytes.size() - std::min(bytes.size(), kStderrTail)));
    if (tail_.size() > kStderrTail) tail_.erase(0, tail_.size() - kStderrTail);
  }
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::size_t room = kStderrLine - stderr_line_.size();
    const std::size_t n = std::min({end, bytes.size(), room});
    stderr_line_.append(bytes.substr(0, n));
    bytes.remove_prefix(n);
    const bool at_end = end == n;
    if (at_end) bytes.remove_prefix(1);
    if (at_end || stderr_line_.size() == kStderrLine) {
      stderr_line(stderr_line_);
      stderr_line_.clear();
    }
  }
}

void Child::stderr_line(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (!line.empty() && callbacks_.on_stderr) callbacks_.on_stderr(std::string(line));
}

// --- start and end ---------------------------------------------------------------------------------------

void Child::start() {
  watch(output_, &Child::take_output);
  watch(errors_, &Child::take_errors);
#ifdef SYS_pidfd_open
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  boost::system::error_code error;
  if (fd >= 0) exit_.assign(fd, error);
  if (fd >= 0 && error) ::close(fd);
#endif
  watch_exit();
}

void Child::watch_exit() {
  const auto then = [self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->check_exit();
  };
  if (exit_.is_open()) {
    exit_.async_wait(Descriptor::wait_read, then);
  } else {
    exit_timer_.expires_after(kPollExit);
    exit_timer_.async_wait(then);
  }
}

void Child::check_exit() {
  siginfo_t info{};
  const int found = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
  if (found == 0 && info.si_pid == 0) {
    watch_exit();
    return;
  }
  // Before it is reaped: until then no other process group can have this number.
  ::kill(-pid_, SIGKILL);
  if (found == 0) {
    siginfo_t again{};
    ::waitid(P_PID, static_cast<id_t>(pid_), &again, WEXITED | WNOHANG);
    status_.signalled = info.si_code != CLD_EXITED;
    status_.code = info.si_status;
  } else {
    status_.code = -1;  // the host reaps children itself, so nobody can know
  }
  running_ = false;
  stop_timer_.cancel();
  boost::system::error_code ignored;
  exit_.close(ignored);
  close_input();

  exit_timer_.expires_after(kDrainAfterExit);
  exit_timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->finish();
  });
  finish_when_drained();
}

void Child::finish_when_drained() {
  if (output_.ended && errors_.ended) finish();
}

void Child::finish() {
  if (finished_) return;
  finished_ = true;
  boost::system::error_code ignored;
  output_.descriptor.close(ignored);
  errors_.descriptor.close(ignored);
  exit_timer_.cancel();
  const ChildProcess::Callbacks callbacks = std::move(callbacks_);
  callbacks_ = {};
  if (callbacks.on_exit) callbacks.on_exit(status_);
}

void Child::kill_group(int signal) {
  if (running_) ::kill(-pid_, signal);  // not reaped yet, so the number is still its own
}

void Child::stop() {
  if (stopping_ || !running_) return;
  stopping_ = true;
  flush();  // closes stdin when the queue is empty
  stop_timer_.expires_after(options_.stdin_grace);
  stop_timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (error || !self->running_) return;
    self->close_input();
    self->kill_group(SIGTERM);
    self->stop_timer_.expires_after(self->options_.term_grace);
    self->stop_timer_.async_wait([self](const boost::system::error_code& again) {
      if (!again) self->kill_group(SIGKILL);
    });
  });
}

/// What the owner holds: without it the process stops.
class Handle final : public ChildProcess {
 public:
  Handle(Loop& loop, std::shared_ptr<Child> child) : loop_(loop), child_(std::move(child)) {}
  ~Handle() override { Handle::stop(); }

  int pid() const override { return child_->pid(); }
  bool running() const override { return child_->running(); }
  Status write(std::string line) override { return child_->write(std::move(line)); }
  void stop() override {
    if (child_->running()) loop_.post([child = child_] { child->stop(); });
  }
  void kill() override {
    if (child_->running()) loop_.post([child = child_] { child->kill_group(SIGKILL); });
  }
  std::string stderr_tail() const override { return child_->stderr_tail(); }

 private:
  Loop& loop_;
  const std::shared_ptr<Child> child_;
};

}  // namespace

Result<std::shared_ptr<ChildProcess>> ChildProcess::spawn(Loop& loop, SpawnOptions options,
                                                          Callbacks callbacks) {
  // The child dies with the thread that starts it, so that thread must be one that lives as long as the loop.
  struct Start {
    std::mutex mutex;
    std::condition_variable done;
    std::optional<Result<StartedProcess>> result;
  } start;
  const bool taken = loop.spawner().post([&] {
    auto result = start_process(options);
    const std::lock_guard lock(start.mutex);
    start.result = std::move(result);
    start.done.notify_one();
  });
  if (!taken) return Error(ErrorCode::unavailable, "upstream_unreachable", "The gateway is stopping");
  std::unique_lock lock(start.mutex);
  start.done.wait(lock, [&] { return start.result.has_value(); });
  Result<StartedProcess> started = std::move(*start.result);
  lock.unlock();
  if (!started) return started.error();
  auto child = std::make_shared<Child>(loop, std::move(options), std::move(callbacks), std::move(*started));
  loop.post([child] { child->start(); });
  return std::shared_ptr<ChildProcess>(std::make_shared<Handle>(loop, std::move(child)));
}

}  // namespace mcpgw::detail
