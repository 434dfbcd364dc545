#include "auth/rate_limiter.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw::detail {

RateLimiter::Digest RateLimiter::digest_of(std::string_view name) {
  Digest out;
  const std::string whole = sha256(name);
  std::copy_n(whole.begin(), out.size(), out.begin());
  return out;
}

void RateLimiter::drop_old(Entry& entry, Duration now) const {
  auto& events = entry.events;
  const auto fresh =
      std::find_if(events.begin(), events.end(), [&](Duration at) { return now - at < window_; });
  events.erase(events.begin(), fresh);
}

void RateLimiter::drop_silent(Duration now) {
  // A few at each event: the table shrinks without a pause and without a thread of its own.
  for (int i = 0; i < 4 && !order_.empty(); ++i) {
    const auto it = entries_.find(order_.front());
    if (now - it->second.events.back() < window_) return;
    entries_.erase(it);
    order_.pop_front();
  }
}

bool RateLimiter::allowed_locked(const Digest& digest, Duration now) {
  const auto it = entries_.find(digest);
  if (it == entries_.end()) return true;
  const auto fresh = [&](Duration at) { return now - at < window_; };
  return static_cast<std::size_t>(std::count_if(it->second.events.begin(), it->second.events.end(), fresh)) <
         limit_;
}

void RateLimiter::record_locked(const Digest& digest, Duration now) {
  drop_silent(now);
  auto it = entries_.find(digest);
  if (it == entries_.end()) {
    // A full table forgets who was silent longest: whoever is being attacked now is remembered.
    if (entries_.size() >= max_names_) {
      entries_.erase(order_.front());
      order_.pop_front();
    }
    order_.push_back(digest);
    it = entries_.emplace(digest, Entry{{}, std::prev(order_.end())}).first;
  } else {
    order_.splice(order_.end(), order_, it->second.place);
  }
  auto& events = it->second.events;
  drop_old(it->second, now);
  if (events.size() == limit_) events.erase(events.begin());
  events.push_back(now);
}

bool RateLimiter::allowed(std::string_view name, Duration now) {
  const Digest digest = digest_of(name);
  const std::lock_guard lock(mutex_);
  return allowed_locked(digest, now);
}

void RateLimiter::record(std::string_view name, Duration now) {
  const Digest digest = digest_of(name);
  const std::lock_guard lock(mutex_);
  record_locked(digest, now);
}

bool RateLimiter::take(std::string_view name, Duration now) {
  const Digest digest = digest_of(name);
  const std::lock_guard lock(mutex_);
  if (!allowed_locked(digest, now)) return false;
  record_locked(digest, now);
  return true;
}

void RateLimiter::clear(std::string_view name) {
  const Digest digest = digest_of(name);
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(digest);
  if (it == entries_.end()) return;
  order_.erase(it->second.place);
  entries_.erase(it);
}

std::size_t RateLimiter::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace mcpgw::detail
