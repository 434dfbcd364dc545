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
#include <vector>

#include "mcpgw/clock.hpp"
#include "observability/meters.hpp"

namespace mcpgw::detail {

/// Safe from any thread. What is recorded is added up by each thread for itself and put together when
/// somebody reads it, so that requests do not wait for one another's memory; only what is new takes more.
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
  /// Pairs of user and target that are told apart; those that have been silent longest make room.
  static constexpr std::size_t kMaxPairs = 2000;

  explicit Statistics(std::shared_ptr<Clock> clock);

  /// `target` is a configured name or "_gateway"; `status` as in the audit table.
  void record(std::string_view target, std::string_view user_id, int status, Duration took);

  /// Something that runs, counted as long as it lives. Movable.
  class InFlight {
   public:
    InFlight() = default;
    explicit InFlight(std::shared_ptr<Gauge> count) : count_(std::move(count)) { count_->add(1); }
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
      if (count_) count_->add(-1);
      count_ = nullptr;
    }

   private:
    std::shared_ptr<Gauge> count_;
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
  /// What was recorded in the time of one slot.
  struct Tally {
    std::int64_t epoch = 0;
    std::uint32_t count = 0;
    std::uint32_t errors = 0;
    std::uint64_t sum_us = 0;
    std::array<std::uint32_t, kBuckets> buckets{};
  };
  struct Series {
    std::array<Slot, kSlots> slots;
    std::atomic<std::int64_t> last_epoch{0};
    std::mutex turning;  ///< held by whoever empties a slot

    void add(const Tally& tally) noexcept;
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
    std::shared_ptr<Gauge> user_running, running;
  };
  struct User {
    std::shared_ptr<Series> series;
    std::shared_ptr<Gauge> running;
    std::size_t pairs = 0;
  };
  struct Target {
    std::shared_ptr<Series> series;
    std::size_t pairs = 0;
  };

  /// A pair as the threads of one place know it, and what they have not told yet.
  struct Known {
    Shares shares;  ///< its gauges count their holders in a place of their own
    Tally tally;
  };
  struct Place {
    PlaceLock lock;  // guards what follows; is taken before the lock of the maps
    std::uint64_t generation = 0;
    std::unordered_map<Pair, Known, Hash, Equal> pairs;
    std::unordered_map<std::string, std::shared_ptr<Gauge>, Hash, Equal> users;
    std::vector<Known*> told_later;  ///< those of `pairs` whose tally is not empty
  };

  std::int64_t epoch() const;
  Place& place_locked(std::unique_lock<PlaceLock>& lock);
  Known& known_locked(Place& place, std::string_view user_id, std::string_view target);
  void tell(Known& known);
  void tell_all_locked(Place& place);
  /// Puts together what all threads have recorded.
  void gather() const;
  Shares& made_locked(std::string_view user_id, std::string_view target);
  void make_room_locked();
  Summary summarize(const Series& series) const;

  const std::shared_ptr<Clock> clock_;
  const Duration started_;
  mutable PerThread<Place> places_;
  std::atomic<std::uint64_t> generation_{0};  ///< grows when a pair is forgotten
  Series total_;
  mutable std::shared_mutex mutex_;  // guards what follows; the series themselves are atomic
  std::unordered_map<Pair, Shares, Hash, Equal> pairs_;
  std::unordered_map<std::string, User, Hash, Equal> users_;
  std::unordered_map<std::string, Target, Hash, Equal> targets_;
};

}  // namespace mcpgw::detail
