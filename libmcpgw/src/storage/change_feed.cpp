#include "storage/change_feed.hpp"

#include <algorithm>
#include <utility>

namespace mcpgw::detail {

std::uint64_t ChangeFeed::add(Storage::WatchCallback callback) {
  auto watcher = std::make_shared<Watcher>();
  watcher->callback = std::move(callback);
  std::lock_guard lock(mutex_);
  watcher->id = next_id_++;
  watchers_.push_back(watcher);
  return watcher->id;
}

void ChangeFeed::remove(std::uint64_t id) {
  std::shared_ptr<Watcher> watcher;  // outlives the lock: what the callback captured is freed without it
  std::unique_lock lock(mutex_);
  const auto found =
      std::find_if(watchers_.begin(), watchers_.end(), [&](const auto& w) { return w->id == id; });
  if (found == watchers_.end()) return;
  watcher = *found;
  watchers_.erase(found);
  watcher->removed = true;
  // From inside a callback the wait would be for ourselves. Any other watcher is idle then.
  if (deliverer_ != std::this_thread::get_id()) changed_.wait(lock, [&] { return !watcher->running; });
  lock.unlock();
}

std::uint64_t ChangeFeed::enqueue(std::vector<Change> changes) {
  std::lock_guard lock(mutex_);
  queue_.push_back(std::move(changes));
  return ++enqueued_;
}

void ChangeFeed::deliver(std::uint64_t ticket) {
  std::unique_lock lock(mutex_);
  const auto self = std::this_thread::get_id();
  if (deliverer_ == self) {  // a callback committed: the loop below, further up this stack, goes on to it
    nested_ = std::max(nested_, ticket);
    return;
  }
  changed_.wait(lock, [&] { return delivered_ >= ticket || deliverer_ == std::thread::id{}; });
  if (delivered_ >= ticket) return;
  deliverer_ = self;
  while (delivered_ < std::max(ticket, nested_)) deliver_front(lock);
  deliverer_ = {};
  changed_.notify_all();
}

void ChangeFeed::deliver_front(std::unique_lock<std::mutex>& lock) {
  const std::vector<Change> changes = std::move(queue_.front());
  queue_.pop_front();
  auto watchers = watchers_;
  for (auto& watcher : watchers) {
    if (!watcher->removed) {
      watcher->running = true;
      lock.unlock();
      try {
        watcher->callback(changes);
      } catch (...) {  // the commit stands, and the other watchers must still hear of it
      }
      lock.lock();
      watcher->running = false;
      changed_.notify_all();
    }
    // Perhaps the last reference: free what the callback captured without the lock.
    lock.unlock();
    watcher.reset();
    lock.lock();
  }
  ++delivered_;
  changed_.notify_all();
}

}  // namespace mcpgw::detail
