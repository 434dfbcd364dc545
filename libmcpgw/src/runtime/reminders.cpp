#include "runtime/reminders.hpp"

#include "base/moment.hpp"

namespace mcpgw::detail {

Reminders::Reminders(Loop& loop) : timer_(loop.executor()) {}

Reminders::Ticket Reminders::add(std::chrono::milliseconds delay, std::weak_ptr<Reminded> whom) {
  const auto due = steady_now() + delay;
  const std::int64_t tick = due.time_since_epoch() / kSlack + 1;
  List& list = due_.try_emplace(due_.end(), tick)->second;  // mostly the latest
  if (free_.empty()) {
    list.push_back({std::move(whom), tick});
  } else {
    free_.front() = {std::move(whom), tick};
    list.splice(list.end(), free_, free_.begin());
  }
  if (tick < armed_) arm(tick);
  return std::prev(list.end());
}

void Reminders::cancel(Ticket ticket) {
  ticket->whom.reset();
  if (ticket->tick == kFiring) {
    firing_.erase(ticket);
    return;
  }
  const auto it = due_.find(ticket->tick);
  if (free_.size() < kKept)
    free_.splice(free_.begin(), it->second, ticket);
  else
    it->second.erase(ticket);
  if (it->second.empty()) due_.erase(it);
}

void Reminders::arm(std::int64_t tick) {
  armed_ = tick;
  timer_.expires_at(Clock::time_point(kSlack * tick));
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) fire();
  });
}

void Reminders::fire() {
  armed_ = kNever;
  const std::int64_t now = Clock::now().time_since_epoch() / kSlack;
  while (!due_.empty() && due_.begin()->first <= now) {
    List& list = due_.begin()->second;
    for (Entry& entry : list) entry.tick = kFiring;
    firing_.splice(firing_.end(), list);
    due_.erase(due_.begin());
  }
  if (!due_.empty()) arm(due_.begin()->first);
  // Each may add and call off others.
  while (!firing_.empty()) {
    const auto whom = firing_.front().whom.lock();
    firing_.pop_front();
    if (whom) whom->on_reminder();
  }
}

}  // namespace mcpgw::detail
