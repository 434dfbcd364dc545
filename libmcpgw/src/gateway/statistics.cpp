#include "gateway/statistics.hpp"

#include <algorithm>
#include <cmath>

namespace mcpgw::detail {
namespace {

/// Two buckets an octave, from 16 microseconds up: 40 of them reach beyond 15 s.
std::size_t bucket_of(std::uint64_t us, std::size_t buckets) {
  if (us < 16) return 0;
  const double octaves = std::log2(static_cast<double>(us) / 16.0);
  return std::min(static_cast<std::size_t>(octaves * 2) + 1, buckets - 1);
}

double bucket_upper_us(std::size_t bucket) { return 16.0 * std::exp2(static_cast<double>(bucket) / 2); }

}  // namespace

void Statistics::record(const std::string& target, const std::string& user_id, int status, Duration took) {
  const std::int64_t epoch =
      std::chrono::duration_cast<std::chrono::seconds>(clock_->monotonic()).count() / kSlotSeconds;
  const bool error = status >= 400;
  const auto us = static_cast<std::uint64_t>(std::max<std::int64_t>(took.count(), 0));
  const std::lock_guard lock(mutex_);
  add("", epoch, error, us);
  add("t" + target, epoch, error, us);
  if (!user_id.empty()) {
    add("u" + user_id, epoch, error, us);
    add("b" + user_id + '\n' + target, epoch, error, us);
  }
}

void Statistics::add(const std::string& key, std::int64_t epoch, bool error, std::uint64_t us) {
  auto it = series_.find(key);
  if (it == series_.end()) {
    if (series_.size() >= kMaxSeries) {
      // Room is made by what has been silent longest; a scan of all is rare and bounded.
      auto oldest = series_.begin();
      for (auto other = series_.begin(); other != series_.end(); ++other)
        if (other->second->last_epoch < oldest->second->last_epoch) oldest = other;
      series_.erase(oldest);
    }
    it = series_.emplace(key, std::make_unique<Series>()).first;
  }
  Series& series = *it->second;
  series.last_epoch = epoch;
  Slot& slot = series.slots[static_cast<std::size_t>(epoch % kSlots)];
  if (slot.epoch != epoch) slot = Slot{epoch};
  ++slot.count;
  slot.errors += error;
  slot.sum_us += us;
  ++slot.buckets[bucket_of(us, kBuckets)];
}

Statistics::Summary Statistics::total(const std::string* user_id) const {
  return summarize(user_id == nullptr ? std::string() : "u" + *user_id);
}

Statistics::Summary Statistics::target(const std::string& name, const std::string* user_id) const {
  return summarize(user_id == nullptr ? "t" + name : "b" + *user_id + '\n' + name);
}

Statistics::Summary Statistics::summarize(const std::string& key) const {
  Summary out;
  std::array<std::uint64_t, kBuckets> buckets{};
  std::uint64_t sum_us = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto it = series_.find(key);
    if (it == series_.end()) return out;
    const std::int64_t now =
        std::chrono::duration_cast<std::chrono::seconds>(clock_->monotonic()).count() / kSlotSeconds;
    for (const Slot& slot : it->second->slots) {
      if (slot.epoch < 0 || slot.epoch <= now - kSlots) continue;
      out.count += slot.count;
      out.errors += slot.errors;
      sum_us += slot.sum_us;
      for (std::size_t i = 0; i < kBuckets; ++i) buckets[i] += slot.buckets[i];
    }
  }
  if (out.count == 0) return out;
  const auto percentile = [&](double part) {
    const auto rank = static_cast<std::uint64_t>(std::ceil(part * static_cast<double>(out.count)));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      seen += buckets[i];
      if (seen >= rank) return bucket_upper_us(i) / 1000.0;
    }
    return bucket_upper_us(kBuckets - 1) / 1000.0;
  };
  out.avg_ms = static_cast<double>(sum_us) / static_cast<double>(out.count) / 1000.0;
  out.p50_ms = percentile(0.50);
  out.p95_ms = percentile(0.95);
  out.p99_ms = percentile(0.99);
  out.error_rate = static_cast<double>(out.errors) / static_cast<double>(out.count);
  out.rps = static_cast<double>(out.count) / kWindowSeconds;
  return out;
}

}  // namespace mcpgw::detail
