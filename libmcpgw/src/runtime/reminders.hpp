// Reminders: what a loop is to do a little later unless it is called off, which is the rule. Asio's timers
// are exact, and cost a place in a heap and a completion each; these come roughly on time and cost one in a
// list.
#pragma once

#include <chrono>
#include <list>
#include <map>
#include <memory>

#include "runtime/loop.hpp"

namespace mcpgw::detail {

class Reminded {
 public:
  virtual void on_reminder() = 0;

 protected:
  ~Reminded() = default;
};

/// Threads: all on its loop.
class Reminders {
 public:
  /// Never early, and late by this at most.
  static constexpr std::chrono::milliseconds kSlack{25};

  explicit Reminders(Loop& loop);
  Reminders(const Reminders&) = delete;
  Reminders& operator=(const Reminders&) = delete;

 private:
  struct Entry;
  using List = std::list<Entry>;

 public:
  /// Names a reminder until it has come or was called off.
  using Ticket = List::iterator;

  /// Nothing happens when `whom` has ended by then.
  Ticket add(std::chrono::milliseconds delay, std::weak_ptr<Reminded> whom);
  void cancel(Ticket ticket);

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    std::weak_ptr<Reminded> whom;
    std::int64_t tick;
  };
  static constexpr std::int64_t kNever = INT64_MAX;
  static constexpr std::int64_t kFiring = -1;
  static constexpr std::size_t kKept = 4096;

  void arm(std::int64_t tick);
  void fire();

  SteadyTimer timer_;
  std::int64_t armed_ = kNever;
  std::map<std::int64_t, List> due_;  ///< by the tick of the clock at which they are
  List firing_;
  List free_;  ///< entries for new ones, up to kKept
};

}  // namespace mcpgw::detail
