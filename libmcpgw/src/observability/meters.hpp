// Counters and histograms that many threads write and one reads now and then, and the text they are read as.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/per_thread.hpp"
#include "mcpgw/clock.hpp"

namespace mcpgw::detail {

/// Relaxed additions: cheap as long as few threads share it, which is what PerThread is for.
class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  std::uint64_t read() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// How long things took. Bounds reach from a storage lookup to a tool that works for a minute.
class Histogram {
 public:
  static constexpr std::array<double, 16> kSeconds{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                   0.25,   0.5,   1,      2.5,   5,    10,    30,   60};

  void observe(Duration took) noexcept {
    const std::int64_t us = std::max<std::int64_t>(took.count(), 0);
    std::size_t bucket = 0;
    while (bucket < kMicroseconds.size() && us > kMicroseconds[bucket]) ++bucket;
    buckets_[bucket].fetch_add(1, std::memory_order_relaxed);
    sum_us_.fetch_add(static_cast<std::uint64_t>(us), std::memory_order_relaxed);
  }

  struct Reading {
    std::array<std::uint64_t, kSeconds.size() + 1> buckets{};  ///< each for itself, the last without bound
    std::uint64_t count = 0;
    double seconds = 0;
    void add(const Reading& other);
  };
  Reading read() const;

 private:
  static constexpr std::array<std::int64_t, kSeconds.size()> kMicroseconds = [] {
    std::array<std::int64_t, kSeconds.size()> out{};
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::int64_t>(kSeconds[i] * 1e6 + 0.5);
    return out;
  }();
  std::array<std::atomic<std::uint64_t>, kSeconds.size() + 1> buckets_{};
  std::atomic<std::uint64_t> sum_us_{0};
};

/// How many there are of something that comes and goes.
class Gauge {
 public:
  void add(std::int64_t n) noexcept { parts_.mine().fetch_add(n, std::memory_order_relaxed); }
  /// Never below zero: what comes on one thread and goes on another may be seen half.
  std::int64_t read() const {
    std::int64_t out = 0;
    parts_.each([&](const auto& part) { out += part.load(std::memory_order_relaxed); });
    return std::max<std::int64_t>(out, 0);
  }

 private:
  PerThread<std::atomic<std::int64_t>> parts_;
};

/// Things by name. Beyond `max` names all further ones share the one named "other", so that memory and label
/// sets are bounded. What is found stays valid as long as it is held. Safe from any thread; what a thread has
/// found before it finds without touching what others write.
template <class T>
class Named {
 public:
  explicit Named(std::size_t max) : max_(max) {}

  /// nullptr when there is none of that name.
  std::shared_ptr<T> find(std::string_view name) const {
    Known& known = known_.mine();
    const std::lock_guard known_lock(known.lock);
    // Before it is looked for: what is forgotten meanwhile is forgotten here with the next look.
    const std::uint64_t generation = generation_.load(std::memory_order_acquire);
    if (known.generation != generation) {
      known.all.clear();
      known.generation = generation;
    }
    if (const auto it = known.all.find(name); it != known.all.end()) return it->second;
    std::shared_ptr<T> found;
    {
      const std::shared_lock lock(mutex_);
      if (const auto it = all_.find(name); it != all_.end()) found = it->second;
    }
    if (!found) return found;
    return known.all.emplace(name, held_apart(found)).first->second;
  }
  std::shared_ptr<T> get(std::string_view name) {
    if (auto found = find(name)) return found;
    const std::unique_lock lock(mutex_);
    if (all_.size() >= max_ && all_.find(name) == all_.end()) name = "other";
    auto& found = all_[std::string(name)];
    if (!found) found = std::make_shared<T>();
    return found;
  }
  std::size_t size() const {
    const std::shared_lock lock(mutex_);
    return all_.size();
  }
  /// In order of names.
  std::map<std::string, std::shared_ptr<T>> all() const {
    const std::shared_lock lock(mutex_);
    return {all_.begin(), all_.end()};
  }
  /// Forgets those that `keep` refuses.
  void keep(const std::function<bool(const std::string&)>& keep) {
    const std::unique_lock lock(mutex_);
    if (std::erase_if(all_, [&](const auto& entry) { return !keep(entry.first); }) > 0)
      generation_.fetch_add(1, std::memory_order_release);
  }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  using Map = std::unordered_map<std::string, std::shared_ptr<T>, Hash, std::equal_to<>>;
  /// What threads of one place have found: never more than there is.
  struct Known {
    PlaceLock lock;  // guards what follows
    std::uint64_t generation = 0;
    Map all;
  };

  const std::size_t max_;
  mutable PerThread<Known> known_;
  std::atomic<std::uint64_t> generation_{0};  ///< grows when something is forgotten
  mutable std::shared_mutex mutex_;           // guards what follows
  Map all_;
};

/// Writes the text format of Prometheus, or OpenMetrics 1.0. Families and labels come in the order they are
/// written.
class MetricsText {
 public:
  using Labels = std::vector<std::pair<std::string_view, std::string_view>>;
  enum class Type { counter, gauge, histogram };

  explicit MetricsText(bool openmetrics) : openmetrics_(openmetrics) {}

  /// What follows belongs to it. The name of a counter ends in "_total".
  void family(std::string_view name, Type type, std::string_view help);
  void value(const Labels& labels, std::uint64_t value);
  void value(const Labels& labels, double value);
  /// Durations in seconds; with `milliseconds` bounds and sum are told in those.
  void histogram(const Labels& labels, const Histogram::Reading& reading, bool milliseconds = false);
  std::string finish();

  std::string_view content_type() const {
    return openmetrics_ ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                        : "text/plain; version=0.0.4; charset=utf-8";
  }

 private:
  void sample(std::string_view suffix, const Labels& labels, std::string_view value,
              std::string_view bound = {});
  std::string number(double value) const;

  const bool openmetrics_;
  std::string name_;
  std::string out_;
};

/// Whether an Accept header prefers OpenMetrics.
bool prefers_openmetrics(std::string_view accept);

}  // namespace mcpgw::detail
