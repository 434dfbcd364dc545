// Statistics: what happened in the last five minutes, in memory that does not grow with traffic or names.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "mcpgw/clock.hpp"

namespace mcpgw::detail {

/// Safe from any thread. Recording takes a shared lock and atomic additions; only what is new takes more.
class Statistics {
  struct Series;

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
  /// Pairs of user and target that are told apart; those that have been silent longest make room.
  static constexpr std::size_t kMaxPairs = 2000;

  explicit Statistics(std::shared_ptr<Clock> clock);

  /// `target` is a configured name or "_gateway"; `status` as in the audit table.
  void record(std::string_view target, std::string_view user_id, int status, Duration took);

  /// Something that runs, counted as long as it lives. Movable.
  class InFlight {
   public:
    InFlight() = default;
    explicit InFlight(std::shared_ptr<std::atomic<std::int64_t>> count) : count_(std::move(count)) {
      count_->fetch_add(1, std::memory_order_relaxed);
    }
    InFlight(InFlight&& other) noexcept = default;
    InFlight& operator=(InFlight&& other) noexcept {
      if (this != &other) {
        end();
        count_ = std::move(other.count_);
      }
      return *this;
    }
    ~InFlight() { end(); }
    void end() noexcept {
      if (count_) count_->fetch_sub(1, std::memory_order_relaxed);
      count_ = nullptr;
    }

   private:
    std::shared_ptr<std::atomic<std::int64_t>> count_;
  };
  /// A request of the user.
  InFlight begin(std::string_view user_id);
  /// A call of the user on its way to the target.
  InFlight begin(std::string_view user_id, std::string_view target);
  std::int64_t in_flight(std::string_view user_id) const;
  std::int64_t in_flight(std::string_view user_id, std::string_view target) const;

  Summary total(const std::string* user_id = nullptr) const;
  Summary target(const std::string& name, const std::string* user_id = nullptr) const;
  Duration uptime() const { return clock_->monotonic() - started_; }
  /// Of users, targets and pairs.
  std::size_t series() const;

 private:
  static constexpr int kSlots = 30;  ///< of ten seconds each
  static constexpr int kSlotSeconds = kWindowSeconds / kSlots;
  static constexpr int kBuckets = 40;  ///< of latency, each half a power of two wide

  struct Slot {
    std::atomic<std::int64_t> epoch{-1};
    std::atomic<std::uint32_t> count{0};
    std::atomic<std::uint32_t> errors{0};
    std::atomic<std::uint64_t> sum_us{0};
    std::array<std::atomic<std::uint32_t>, kBuckets> buckets{};
  };
  struct Sample {
    std::int64_t epoch = 0;
    std::uint64_t us = 0;
    std::size_t bucket = 0;
    bool error = false;
  };
  struct Series {
    std::array<Slot, kSlots> slots;
    std::atomic<std::int64_t> last_epoch{0};
    std::mutex turning;  ///< held by whoever empties a slot

    void add(const Sample& sample) noexcept;
  };

  struct Pair {
    std::string user, target;
  };
  struct PairView {
    std::string_view user, target;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(const PairView& key) const noexcept {
      return std::hash<std::string_view>()(key.user) * 31 + std::hash<std::string_view>()(key.target);
    }
    std::size_t operator()(const Pair& key) const noexcept { return (*this)(PairView{key.user, key.target}); }
    std::size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>()(text);
    }
  };
  struct Equal {
    using is_transparent = void;
    template <class A, class B>
    bool operator()(const A& a, const B& b) const noexcept {
      if constexpr (std::is_convertible_v<const A&, std::string_view>)
        return std::string_view(a) == std::string_view(b);
      else
        return a.user == b.user && a.target == b.target;
    }
  };
  /// What one user does at one target goes to three series.
  struct Shares {
    std::shared_ptr<Series> target, user, pair;  ///< user and pair are null for nobody's
    std::shared_ptr<std::atomic<std::int64_t>> user_running, running;
  };
  struct User {
    std::shared_ptr<Series> series;
    std::shared_ptr<std::atomic<std::int64_t>> running;
    std::size_t pairs = 0;
  };
  struct Target {
    std::shared_ptr<Series> series;
    std::size_t pairs = 0;
  };

  std::int64_t epoch() const;
  Shares& made_locked(std::string_view user_id, std::string_view target);
  void make_room_locked();
  Summary summarize(const Series& series) const;

  const std::shared_ptr<Clock> clock_;
  const Duration started_;
  Series total_;
  mutable std::shared_mutex mutex_;  // guards what follows; the series themselves are atomic
  std::unordered_map<Pair, Shares, Hash, Equal> pairs_;
  std::unordered_map<std::string, User, Hash, Equal> users_;
  std::unordered_map<std::string, Target, Hash, Equal> targets_;
};

}  // namespace mcpgw::detail
