// Statistics: what happened in the last five minutes, in memory that does not grow with traffic or names.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "mcpgw/clock.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class Statistics {
 public:
  struct Summary {
    std::uint64_t count = 0;
    std::uint64_t errors = 0;
    double avg_ms = 0;
    double p50_ms = 0;
    double p95_ms = 0;
    double p99_ms = 0;
    double error_rate = 0;
    double rps = 0;
  };
  static constexpr int kWindowSeconds = 300;

  explicit Statistics(std::shared_ptr<Clock> clock)
      : clock_(std::move(clock)), started_(clock_->monotonic()) {}

  /// `target` is a configured name or "_gateway"; `status` as in the audit table.
  void record(const std::string& target, const std::string& user_id, int status, Duration took);

  Summary total(const std::string* user_id = nullptr) const;
  Summary target(const std::string& name, const std::string* user_id = nullptr) const;
  Duration uptime() const { return clock_->monotonic() - started_; }

 private:
  static constexpr int kSlots = 30;  ///< of ten seconds each
  static constexpr int kSlotSeconds = kWindowSeconds / kSlots;
  static constexpr int kBuckets = 40;  ///< of latency, each half a power of two wide
  static constexpr std::size_t kMaxSeries = 4000;

  struct Slot {
    std::int64_t epoch = -1;
    std::uint32_t count = 0;
    std::uint32_t errors = 0;
    std::uint64_t sum_us = 0;
    std::array<std::uint32_t, kBuckets> buckets{};
  };
  struct Series {
    std::array<Slot, kSlots> slots;
    std::int64_t last_epoch = 0;
  };

  void add(const std::string& key, std::int64_t epoch, bool error, std::uint64_t us);
  Summary summarize(const std::string& key) const;

  const std::shared_ptr<Clock> clock_;
  const Duration started_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::unique_ptr<Series>> series_;
};

}  // namespace mcpgw::detail
