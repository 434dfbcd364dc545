// A child process as a MessageChannel.
#include <atomic>
#include <mutex>

#include "runtime/child_process.hpp"
#include "upstream/log_limiter.hpp"
#include "upstream/upstream.hpp"

namespace mcpgw::detail {
namespace {

class StdioChannel final : public MessageChannel, public std::enable_shared_from_this<StdioChannel> {
 public:
  explicit StdioChannel(std::function<void(LogLevel, std::string)> on_log)
      : on_log_(std::move(on_log)), output_(std::make_shared<LogLimiter>(on_log_)) {}
  ~StdioChannel() override {
    if (process_) process_->stop();
  }

  Status spawn(Loop& home, const StdioChannelOptions& options) {
    SpawnOptions spawn;
    spawn.command = options.command;
    spawn.args = options.args;
    spawn.env = options.env;
    spawn.working_dir = options.working_dir;
    spawn.limits = options.limits;
    if (!options.run_as.empty()) {
      auto user = find_process_user(options.run_as);
      if (!user)
        return Error(ErrorCode::unavailable, "upstream_unreachable",
                     "The user that programs run as cannot be used: " + user.error().message);
      spawn.user = std::move(*user);
    }
    spawn.max_line = options.max_message;
    ChildProcess::Callbacks callbacks;
    const std::weak_ptr<StdioChannel> weak = weak_from_this();
    callbacks.on_line = [weak](std::string line) {
      if (auto self = weak.lock()) self->line(std::move(line));
    };
    callbacks.on_oversize = [weak](std::string head, std::string tail, std::size_t bytes) {
      if (auto self = weak.lock()) self->oversize(std::move(head), std::move(tail), bytes);
    };
    callbacks.on_stderr = [output = output_](std::string line) {
      output->log(LogLevel::debug, "stderr: " + std::move(line));
    };
    callbacks.on_exit = [weak, farewells = options.farewells,
                         on_ended = options.on_ended](ExitStatus status) {
      auto tell = [weak, farewells, on_ended, status] {
        const auto done = [farewells] {
          if (farewells) farewells->fetch_sub(1);
        };
        if (on_ended)
          on_ended(done);
        else
          done();
        if (const auto self = weak.lock()) self->exited(status);
      };
      if (const auto self = weak.lock())
        self->when_spawned(std::move(tell));
      else
        tell();
    };
    if (options.farewells) options.farewells->fetch_add(1);
    auto process = ChildProcess::spawn(home, std::move(spawn), std::move(callbacks));
    if (!process) {
      if (options.farewells) options.farewells->fetch_sub(1);
      return process.error();
    }
    process_ = std::move(*process);
    if (options.on_started) options.on_started(process_->pid());
    std::function<void()> ended;
    {
      const std::lock_guard lock(mutex_);
      spawned_ = true;
      ended = std::move(ended_early_);
    }
    if (ended) ended();
    return {};
  }

  void start(Receiver receiver) override {
    // Messages that came before are delivered first; the lock keeps later ones behind them.
    const std::lock_guard lock(mutex_);
    receiver_ = std::move(receiver);
    started_ = true;
    for (std::string& line : early_) receiver_.on_message(std::move(line));
    early_.clear();
    if (end_ && !closed_) receiver_.on_closed(*end_);
  }

  Status send(std::string message) override { return process_->write(std::move(message)); }

  void close() override {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    process_->stop();
  }

 private:
  static constexpr std::size_t kMaxEarly = 64;

  /// The end of a process that lives for a moment only is told after its start, on the thread that starts it.
  void when_spawned(std::function<void()> ended) {
    {
      const std::lock_guard lock(mutex_);
      if (!spawned_) {
        ended_early_ = std::move(ended);
        return;
      }
    }
    ended();
  }

  void line(std::string text) {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    if (started_) {
      receiver_.on_message(std::move(text));
    } else if (early_.size() < kMaxEarly) {
      early_.push_back(std::move(text));
    }
  }

  void oversize(std::string head, std::string tail, std::size_t bytes) {
    output_->log(LogLevel::warn, "a line of " + std::to_string(bytes) + " bytes was dropped: over the limit");
    const std::lock_guard lock(mutex_);
    if (started_ && !closed_ && receiver_.on_dropped) receiver_.on_dropped(std::move(head), std::move(tail));
  }

  void exited(ExitStatus status) {
    std::string text = status.signalled ? "The process was ended by signal " + std::to_string(status.code)
                                        : "The process exited with code " + std::to_string(status.code);
    output_->flush();
    if (on_log_) {
      const std::string tail = process_->stderr_tail();
      on_log_(LogLevel::warn, tail.empty() ? text : text + "; stderr: " + tail);
    }
    const std::lock_guard lock(mutex_);
    end_ = Error(ErrorCode::unavailable, "upstream_closed", std::move(text));
    if (started_ && !closed_) receiver_.on_closed(*end_);
  }

  const std::function<void(LogLevel, std::string)> on_log_;
  const std::shared_ptr<LogLimiter> output_;  // for lines that the program decides the number of
  std::shared_ptr<ChildProcess> process_;     // set once, before spawned_

  std::mutex mutex_;  // guards what follows; held while the receiver is called, which is cheap and calls
                      // nothing here
  Receiver receiver_;
  std::vector<std::string> early_;
  std::optional<Error> end_;
  std::function<void()> ended_early_;
  bool spawned_ = false;
  bool started_ = false;
  bool closed_ = false;
};

}  // namespace

Result<std::shared_ptr<MessageChannel>> open_stdio_channel(Loop& home, StdioChannelOptions options) {
  auto channel = std::make_shared<StdioChannel>(options.on_log);
  if (auto status = channel->spawn(home, options); !status) return status.error();
  return std::static_pointer_cast<MessageChannel>(channel);
}

}  // namespace mcpgw::detail
