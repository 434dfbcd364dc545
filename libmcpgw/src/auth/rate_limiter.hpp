// RateLimiter: counts events per name in a window, in bounded memory (names come from outside).
#pragma once

#include <cstddef>
#include <deque>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

#include "mcpgw/clock.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class RateLimiter {
 public:
  RateLimiter(int limit, Duration window, std::size_t max_names = 100000)
      : limit_(limit), window_(window), max_names_(max_names) {}

  /// Whether one more event is still permitted now.
  bool allowed(const std::string& name, Duration now);
  void record(const std::string& name, Duration now);
  void clear(const std::string& name);
  std::size_t size() const;

 private:
  struct Entry {
    std::deque<Duration> events;  ///< never more than limit_
    std::list<std::string>::iterator place;
  };
  void drop_old(Entry& entry, Duration now) const;

  const int limit_;
  const Duration window_;
  const std::size_t max_names_;
  mutable std::mutex mutex_;  // guards what follows
  std::unordered_map<std::string, Entry> entries_;
  std::list<std::string> order_;  ///< least recently recorded first
};

}  // namespace mcpgw::detail
