// Runtime: the threads of mcpgw. A few event loops (default: one per core) that carry every connection and
// call, and a small pool for work that blocks. One Runtime may be shared by several gateways and servers.
#pragma once

#include <functional>
#include <memory>

#include "mcpgw/result.hpp"

namespace mcpgw {

struct RuntimeOptions {
  unsigned loops = 0;          ///< event loop threads; 0: one per CPU
  unsigned workers = 4;        ///< threads for storage writes, process spawning, name resolution
  unsigned hash_workers = 0;   ///< threads for password hashing; 0: one per CPU
  std::size_t max_queued = 10000;  ///< pending blocking jobs; more are refused
};

/// Threads: everything is safe from any thread. Destroying it joins all its threads: not from one of them.
class Runtime {
 public:
  static std::shared_ptr<Runtime> create(RuntimeOptions options = {});
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Runs `work` on an event loop. It must not block.
  void post(std::function<void()> work);
  /// Runs `work` on a worker. False when the queue is full or the runtime is stopping.
  bool post_blocking(std::function<void()> work);

  class Impl;
  Impl& impl() noexcept { return *impl_; }

 private:
  explicit Runtime(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mcpgw
