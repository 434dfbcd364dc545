// ChangeFeed: the watch() half of a Storage. A backend enqueues the changes of each commit in commit order
// and then delivers; every watcher sees every commit once, in that order, one at a time.
//
// Threads: safe for concurrent use. No lock is held while a callback runs, so a callback may read the
// storage, watch and unwatch; should it commit against the rules, its changes follow after the current ones.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "mcpgw/storage.hpp"

namespace mcpgw::detail {

class ChangeFeed {
 public:
  std::uint64_t add(Storage::WatchCallback callback);
  /// After return the callback is not running (unless this is called from inside it) and is not called again.
  void remove(std::uint64_t id);

  /// Takes a place in the order. The caller holds whatever lock orders its commits. Returns a ticket.
  std::uint64_t enqueue(std::vector<Change> changes);
  /// Returns when everything up to `ticket` has been delivered, by this thread or by another.
  void deliver(std::uint64_t ticket);

 private:
  struct Watcher {
    std::uint64_t id = 0;
    Storage::WatchCallback callback;
    bool removed = false;
    bool running = false;
  };
  void deliver_front(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;  // protects everything below
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Watcher>> watchers_;
  std::uint64_t next_id_ = 1;
  std::deque<std::vector<Change>> queue_;
  std::uint64_t enqueued_ = 0;
  std::uint64_t delivered_ = 0;
  std::uint64_t nested_ = 0;     // highest ticket that a callback left to the delivering thread
  std::thread::id deliverer_{};  // none when nobody delivers
};

}  // namespace mcpgw::detail
