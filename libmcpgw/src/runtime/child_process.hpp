// ChildProcess: a program whose stdin and stdout carry one message a line. Its pipes live on one loop.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mcpgw/result.hpp"
#include "runtime/loop.hpp"
#include "runtime/process_user.hpp"

namespace mcpgw::detail {

/// Soft and hard limit of a resource, RLIMIT_*.
struct ProcessLimit {
  int resource = 0;
  std::uint64_t value = 0;
};

struct SpawnOptions {
  std::string command;            ///< looked up in PATH of this process unless it contains a slash
  std::vector<std::string> args;
  std::vector<std::string> env;   ///< "KEY=value", complete: nothing is inherited
  std::string working_dir;        ///< empty: inherited
  std::optional<ProcessUser> user;    ///< unset: that of this process
  std::vector<ProcessLimit> limits;   ///< others are inherited
  std::size_t max_line = 32 * 1024 * 1024;    ///< a longer stdout line is skipped and reported
  std::size_t max_queued = 16 * 1024 * 1024;  ///< bytes waiting for a child that does not read
  std::chrono::milliseconds stdin_grace{2000};  ///< stop(): after closing stdin, before SIGTERM
  std::chrono::milliseconds term_grace{5000};   ///< after SIGTERM, before SIGKILL
};

struct ExitStatus {
  bool signalled = false;
  int code = 0;  ///< exit code or signal number
};

/// Threads: every function may be called from any thread; callbacks run on the loop, one at a time.
class ChildProcess : public std::enable_shared_from_this<ChildProcess> {
 public:
  struct Callbacks {
    std::function<void(std::string line)> on_line;   ///< without the newline; empty lines are skipped
    /// A line over max_line was dropped; its first and last bytes.
    std::function<void(std::string head, std::string tail, std::size_t bytes)> on_oversize;
    std::function<void(std::string line)> on_stderr;  ///< lines, split when very long
    /// Once, when the process has been reaped and its stdout is drained. No callback follows.
    std::function<void(ExitStatus)> on_exit;
  };

  /// Starts the program without a shell in its own process group, with only stdin, stdout and stderr open.
  /// Blocks shortly: call it on a worker. unavailable/"upstream_unreachable" when it cannot be started;
  /// the message names the command but no path.
  static Result<std::shared_ptr<ChildProcess>> spawn(Loop& loop, SpawnOptions options, Callbacks callbacks);
  virtual ~ChildProcess() = default;

  virtual int pid() const = 0;
  virtual bool running() const = 0;
  /// Queues a line (the newline is added). resource_exhausted when the child does not read, unavailable
  /// when it has gone.
  virtual Status write(std::string line) = 0;
  /// Closes stdin, waits, SIGTERM, waits, SIGKILL, all to the whole group. on_exit follows.
  virtual void stop() = 0;
  /// SIGKILL to the group at once.
  virtual void kill() = 0;
  /// The last 4 KiB of stderr.
  virtual std::string stderr_tail() const = 0;
};

}  // namespace mcpgw::detail
