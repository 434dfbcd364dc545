#include "auth/rate_limiter.hpp"

namespace mcpgw::detail {

void RateLimiter::drop_old(Entry& entry, Duration now) const {
  while (!entry.events.empty() && now - entry.events.front() >= window_) entry.events.pop_front();
}

bool RateLimiter::allowed(const std::string& name, Duration now) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return true;
  drop_old(it->second, now);
  return it->second.events.size() < static_cast<std::size_t>(limit_);
}

void RateLimiter::record(const std::string& name, Duration now) {
  const std::lock_guard lock(mutex_);
  auto it = entries_.find(name);
  if (it == entries_.end()) {
    // A full table forgets who was silent longest: an attacker's own flood of names, before anybody else.
    if (entries_.size() >= max_names_) {
      entries_.erase(order_.front());
      order_.pop_front();
    }
    order_.push_back(name);
    it = entries_.emplace(name, Entry{{}, std::prev(order_.end())}).first;
  } else {
    order_.splice(order_.end(), order_, it->second.place);
  }
  drop_old(it->second, now);
  it->second.events.push_back(now);
  if (it->second.events.size() > static_cast<std::size_t>(limit_)) it->second.events.pop_front();
}

void RateLimiter::clear(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return;
  order_.erase(it->second.place);
  entries_.erase(it);
}

std::size_t RateLimiter::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace mcpgw::detail
