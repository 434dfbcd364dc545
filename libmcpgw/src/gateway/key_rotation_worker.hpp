// KeyRotationWorker: takes part in sealing anew what an old key sealed. One thread, asleep unless a key is
// being replaced; of the gateways on one storage one works and the others watch, ready to take over.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "mcpgw/gateway.hpp"
#include "mcpgw/repository.hpp"

namespace mcpgw::detail {

class KeyRotationWorker {
 public:
  using Log = std::function<void(LogLevel, std::string, std::vector<std::pair<std::string, std::string>>)>;

  /// Looks at once whether there is something to do. `log` is called from the worker's thread.
  KeyRotationWorker(std::shared_ptr<Repository> repository, Log log);
  ~KeyRotationWorker() { stop(); }
  KeyRotationWorker(const KeyRotationWorker&) = delete;
  KeyRotationWorker& operator=(const KeyRotationWorker&) = delete;

  /// Keys were replaced somewhere. Returns at once.
  void notify();
  /// Leaves what is left to others. Waits for a row that is being written.
  void stop();

  // Of the present rotation, or the last one.
  bool running() const { return running_.load(std::memory_order_relaxed); }
  std::uint64_t left() const { return left_.load(std::memory_order_relaxed); }
  std::uint64_t unreadable() const { return unreadable_.load(std::memory_order_relaxed); }

 private:
  void run();
  void report(const KeyRotation& rotation);

  const std::shared_ptr<Repository> repository_;
  const Log log_;
  std::atomic<bool> running_{false};
  std::atomic<std::uint64_t> left_{0}, unreadable_{0};
  std::mutex mutex_;  // protects the members below
  std::condition_variable changed_;
  bool wanted_ = true;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace mcpgw::detail
