// ActivityHub: the open dashboards, and what is told to them as it happens. An event is made once and handed
// to all whom it concerns by one coroutine, so that whoever reports it never waits for them.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "mcpgw/http.hpp"
#include "mcpgw/model.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::detail {

/// Safe from any thread. Runs on one loop; what waits there only points to it.
class ActivityHub : public std::enable_shared_from_this<ActivityHub> {
 public:
  /// Something that happened. Texts are JSON.
  struct Event {
    const char* type = "";  ///< "activity", "session", "error"
    std::string data;       ///< for administrators
    std::string for_users;  ///< for others; empty: the same
    std::string user_id;    ///< whom it concerns; empty: everybody who reaches `target_id`
    std::string target_id;
  };
  using Reaches = std::function<bool(const Principal&, const std::string& target_id)>;

  ActivityHub(Loop& loop, Reaches reaches) : loop_(loop), reaches_(std::move(reaches)) {}

  /// Whether anybody looks: an event need not be made otherwise.
  bool watched() const noexcept { return watching_.load(std::memory_order_relaxed) > 0; }

  /// A place for a dashboard that is about to open; 0 when the hub is closed or this user has `max` already.
  std::uint64_t reserve(const Principal& principal, std::size_t max);
  /// Its socket, and the first text that goes there: before everything that happens from now on.
  void attach(std::uint64_t id, std::shared_ptr<WebSocket> socket, std::string first);
  void remove(std::uint64_t id);

  void publish(Event event);
  /// Sends each dashboard what `text` says for it, asked once for all administrators and once for each other
  /// identity. Blocks as long as `text` does.
  void broadcast(const std::function<std::string(const Principal&)>& text);

  /// Closes, with 1008, those whose identity `valid` refuses.
  void check(const std::function<bool(const Principal&)>& valid);
  /// Closes all with 1001; nobody gets a place any more.
  void close_all();

  std::size_t count() const noexcept { return watching_.load(std::memory_order_relaxed); }
  std::size_t count_of(const std::string& user_id) const;
  /// Events that found the queue full.
  std::uint64_t dropped() const noexcept { return dropped_.load(std::memory_order_relaxed); }

 private:
  struct Dashboard {
    std::shared_ptr<const Principal> principal;
    std::shared_ptr<WebSocket> socket;  ///< null until attached
    std::uint64_t since = 0;            ///< number of the first event it gets
  };
  struct Queued {
    std::uint64_t number = 0;
    std::uint64_t only = 0;  ///< the one dashboard that gets it; 0: all whom it concerns
    Event event;
  };

  void push_locked(Queued queued);
  bool concerns(const Event& event, const Principal& principal) const;
  Task<void> pump();
  static Task<void> run_pump(std::shared_ptr<ActivityHub> self);
  std::vector<std::pair<std::uint64_t, Dashboard>> attached() const;

  Loop& loop_;
  const Reaches reaches_;
  std::atomic<std::size_t> watching_{0};
  std::atomic<std::uint64_t> dropped_{0};

  mutable std::mutex mutex_;  // guards what follows
  std::map<std::uint64_t, Dashboard> dashboards_;
  std::deque<Queued> queue_;
  std::uint64_t next_id_ = 1;
  std::uint64_t next_event_ = 1;
  bool pumping_ = false;
  bool closed_ = false;
};

}  // namespace mcpgw::detail
