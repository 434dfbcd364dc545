// RateLimiter: counts events per name in a window, in bounded memory (names come from outside).
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <list>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mcpgw/clock.hpp"

namespace mcpgw::detail {

/// Safe from any thread. Names are kept as digests: of one size, and nothing to read in memory.
class RateLimiter {
 public:
  /// At most `limit` (>= 1) events per name within `window`.
  RateLimiter(int limit, Duration window, std::size_t max_names = 50000)
      : limit_(static_cast<std::size_t>(limit)), window_(window), max_names_(max_names) {}

  /// Whether one more event is still permitted now.
  bool allowed(std::string_view name, Duration now);
  void record(std::string_view name, Duration now);
  /// Both in one step: false, and nothing recorded, when the limit is reached.
  bool take(std::string_view name, Duration now);
  void clear(std::string_view name);
  std::size_t size() const;

 private:
  using Digest = std::array<char, 16>;
  struct DigestHash {
    std::size_t operator()(const Digest& digest) const {
      std::size_t out = 0;
      std::memcpy(&out, digest.data(), sizeof out);
      return out;
    }
  };
  struct Entry {
    std::vector<Duration> events;  ///< oldest first, never more than limit_
    std::list<Digest>::iterator place;
  };
  static Digest digest_of(std::string_view name);
  bool allowed_locked(const Digest& digest, Duration now);
  void record_locked(const Digest& digest, Duration now);
  void drop_old(Entry& entry, Duration now) const;
  void drop_silent(Duration now);

  const std::size_t limit_;
  const Duration window_;
  const std::size_t max_names_;
  mutable std::mutex mutex_;  // guards what follows
  std::unordered_map<Digest, Entry, DigestHash> entries_;
  std::list<Digest> order_;  ///< least recently recorded first
};

}  // namespace mcpgw::detail
