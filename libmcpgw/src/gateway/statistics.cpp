#include "gateway/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace mcpgw::detail {
namespace {

constexpr std::string_view kNoTarget = "_gateway";
/// Pairs that the threads of one place know; beyond that all are told and looked for anew.
constexpr std::size_t kMaxKnown = 500;

double bucket_upper_us(std::size_t bucket) { return 16.0 * std::exp2(static_cast<double>(bucket) / 2); }

/// Two buckets an octave, from 16 microseconds up: 40 of them reach beyond 15 s.
template <std::size_t N>
std::size_t bucket_of(std::uint64_t us) {
  static const auto bounds = [] {
    std::array<std::uint64_t, N> out{};
    for (std::size_t i = 0; i < N; ++i) out[i] = static_cast<std::uint64_t>(std::ceil(bucket_upper_us(i)));
    return out;
  }();
  const auto it = std::upper_bound(bounds.begin(), bounds.end(), us);
  return std::min(static_cast<std::size_t>(it - bounds.begin()), N - 1);
}

}  // namespace

Statistics::Statistics(std::shared_ptr<Clock> clock)
    : clock_(std::move(clock)), started_(clock_->monotonic()) {}

std::int64_t Statistics::epoch() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_->monotonic()).count() / kSlotSeconds;
}

void Statistics::Series::add(const Tally& tally) noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  Slot& slot = slots[static_cast<std::size_t>(tally.epoch % kSlots)];
  if (slot.epoch.load(std::memory_order_acquire) != tally.epoch) {
    const std::lock_guard lock(turning);
    const std::int64_t there = slot.epoch.load(relaxed);
    if (there > tally.epoch) return;  // told so late that it is out of the window
    if (there != tally.epoch) {
      slot.count.store(0, relaxed);
      slot.errors.store(0, relaxed);
      slot.sum_us.store(0, relaxed);
      for (auto& bucket : slot.buckets) bucket.store(0, relaxed);
      slot.epoch.store(tally.epoch, std::memory_order_release);
    }
  }
  slot.count.fetch_add(tally.count, relaxed);
  if (tally.errors != 0) slot.errors.fetch_add(tally.errors, relaxed);
  slot.sum_us.fetch_add(tally.sum_us, relaxed);
  for (std::size_t i = 0; i < tally.buckets.size(); ++i)
    if (tally.buckets[i] != 0) slot.buckets[i].fetch_add(tally.buckets[i], relaxed);
}

Statistics::Place& Statistics::place_locked(std::unique_lock<PlaceLock>& lock) {
  Place& place = places_.mine();
  lock = std::unique_lock(place.lock);
  const std::uint64_t generation = generation_.load(std::memory_order_acquire);
  if (place.generation != generation || place.pairs.size() > kMaxKnown || place.users.size() > kMaxKnown) {
    tell_all_locked(place);
    place.pairs.clear();
    place.users.clear();
    place.generation = generation;
  }
  return place;
}

Statistics::Known& Statistics::known_locked(Place& place, std::string_view user_id, std::string_view target) {
  if (const auto it = place.pairs.find(PairView{user_id, target}); it != place.pairs.end()) return it->second;
  Known known;
  {
    std::shared_lock lock(mutex_);
    if (const auto it = pairs_.find(PairView{user_id, target}); it != pairs_.end()) known.shares = it->second;
  }
  if (!known.shares.target) {
    const std::unique_lock lock(mutex_);
    known.shares = made_locked(user_id, target);
  }
  known.shares.running = held_apart(known.shares.running);
  return place.pairs.emplace(Pair{std::string(user_id), std::string(target)}, std::move(known)).first->second;
}

void Statistics::tell(Known& known) {
  if (known.tally.count == 0) return;
  total_.add(known.tally);
  known.shares.target->add(known.tally);
  if (known.shares.user) {
    known.shares.user->add(known.tally);
    known.shares.pair->add(known.tally);
  }
  known.tally = {};
}

void Statistics::tell_all_locked(Place& place) {
  for (Known* known : place.told_later) tell(*known);
  place.told_later.clear();
}

void Statistics::gather() const {
  places_.each([this](Place& place) {
    const std::lock_guard lock(place.lock);
    const_cast<Statistics*>(this)->tell_all_locked(place);
  });
}

void Statistics::record(std::string_view target, std::string_view user_id, int status, Duration took) {
  const std::int64_t now = epoch();
  const auto us = static_cast<std::uint64_t>(std::max<std::int64_t>(took.count(), 0));
  const std::size_t bucket = bucket_of<kBuckets>(us);
  std::unique_lock<PlaceLock> lock;
  Place& place = place_locked(lock);
  Known& known = known_locked(place, user_id, target);
  Tally& tally = known.tally;
  if (tally.count == 0) {
    place.told_later.push_back(&known);
  } else if (tally.epoch != now) {
    tell(known);
  }
  if (tally.count == 0) {
    tally.epoch = now;
    // Who has been silent longest makes room.
    for (const auto& series : {known.shares.target.get(), known.shares.user.get(), known.shares.pair.get()})
      if (series != nullptr) series->last_epoch.store(now, std::memory_order_relaxed);
  }
  ++tally.count;
  tally.errors += status >= 400 ? 1 : 0;
  tally.sum_us += us;
  ++tally.buckets[bucket];
}

Statistics::Shares& Statistics::made_locked(std::string_view user_id, std::string_view target) {
  if (const auto it = pairs_.find(PairView{user_id, target}); it != pairs_.end()) return it->second;
  if (pairs_.size() >= kMaxPairs) make_room_locked();
  Shares shares;
  Target& of_target = targets_[std::string(target)];
  if (!of_target.series) of_target.series = std::make_shared<Series>();
  ++of_target.pairs;
  shares.target = of_target.series;
  if (!user_id.empty()) {
    User& of_user = users_[std::string(user_id)];
    if (!of_user.series) {
      of_user.series = std::make_shared<Series>();
      of_user.running = std::make_shared<Gauge>();
    }
    ++of_user.pairs;
    shares.user = of_user.series;
    shares.user_running = of_user.running;
    shares.pair = std::make_shared<Series>();
  }
  shares.running = std::make_shared<Gauge>();
  return pairs_.emplace(Pair{std::string(user_id), std::string(target)}, std::move(shares)).first->second;
}

void Statistics::make_room_locked() {
  // A scan of all is rare and bounded: it makes room for many.
  std::vector<std::pair<std::int64_t, const Pair*>> idle;
  for (const auto& [key, shares] : pairs_) {
    const bool runs = shares.running->read() > 0 || (shares.user_running && shares.user_running->read() > 0);
    const Series& own = shares.pair ? *shares.pair : *shares.target;
    // What runs is kept as long as anything else can go.
    idle.emplace_back(runs ? INT64_MAX : own.last_epoch.load(std::memory_order_relaxed), &key);
  }
  const std::size_t count = std::min(idle.size(), kMaxPairs / 8);
  std::nth_element(idle.begin(), idle.begin() + static_cast<std::ptrdiff_t>(count - 1), idle.end());
  for (std::size_t i = 0; i < count; ++i) {
    const Pair key = *idle[i].second;
    pairs_.erase(key);
    if (const auto it = targets_.find(key.target); it != targets_.end() && --it->second.pairs == 0)
      targets_.erase(it);
    if (const auto it = users_.find(key.user); it != users_.end() && --it->second.pairs == 0)
      users_.erase(it);
  }
  generation_.fetch_add(1, std::memory_order_release);
}

Statistics::InFlight Statistics::begin(std::string_view user_id) {
  std::unique_lock<PlaceLock> place_lock;
  Place& place = place_locked(place_lock);
  if (const auto it = place.users.find(user_id); it != place.users.end()) return InFlight(it->second);
  std::shared_ptr<Gauge> found;
  {
    const std::shared_lock lock(mutex_);
    if (const auto it = users_.find(user_id); it != users_.end()) found = it->second.running;
  }
  if (!found) {
    const std::unique_lock lock(mutex_);
    const Shares& shares = made_locked(user_id, kNoTarget);
    found = shares.user_running ? shares.user_running : shares.running;
  }
  return InFlight(place.users.emplace(user_id, held_apart(found)).first->second);
}

Statistics::InFlight Statistics::begin(std::string_view user_id, std::string_view target) {
  std::unique_lock<PlaceLock> lock;
  Place& place = place_locked(lock);
  return InFlight(known_locked(place, user_id, target).shares.running);
}

std::int64_t Statistics::in_flight(std::string_view user_id) const {
  const std::shared_lock lock(mutex_);
  const auto it = users_.find(user_id);
  return it == users_.end() ? 0 : it->second.running->read();
}

std::int64_t Statistics::in_flight(std::string_view user_id, std::string_view target) const {
  const std::shared_lock lock(mutex_);
  const auto it = pairs_.find(PairView{user_id, target});
  return it == pairs_.end() ? 0 : it->second.running->read();
}

std::size_t Statistics::series() const {
  const std::shared_lock lock(mutex_);
  return pairs_.size() + users_.size() + targets_.size();
}

Statistics::Summary Statistics::total(const std::string* user_id) const {
  gather();
  if (user_id == nullptr) return summarize(total_);
  std::shared_ptr<const Series> found;
  {
    const std::shared_lock lock(mutex_);
    if (const auto it = users_.find(*user_id); it != users_.end()) found = it->second.series;
  }
  return found ? summarize(*found) : Summary();
}

Statistics::Summary Statistics::target(const std::string& name, const std::string* user_id) const {
  gather();
  std::shared_ptr<const Series> found;
  {
    const std::shared_lock lock(mutex_);
    if (user_id == nullptr) {
      if (const auto it = targets_.find(name); it != targets_.end()) found = it->second.series;
    } else if (const auto it = pairs_.find(PairView{*user_id, name}); it != pairs_.end()) {
      found = it->second.pair;
    }
  }
  return found ? summarize(*found) : Summary();
}

Statistics::Summary Statistics::summarize(const Series& series) const {
  constexpr auto relaxed = std::memory_order_relaxed;
  Summary out;
  std::array<std::uint64_t, kBuckets> buckets{};
  std::uint64_t sum_us = 0, seen_in_buckets = 0;
  const std::int64_t now = epoch();
  for (const Slot& slot : series.slots) {
    const std::int64_t at = slot.epoch.load(std::memory_order_acquire);
    if (at < 0 || at <= now - kSlots) continue;
    out.count += slot.count.load(relaxed);
    out.errors += slot.errors.load(relaxed);
    sum_us += slot.sum_us.load(relaxed);
    for (std::size_t i = 0; i < kBuckets; ++i) buckets[i] += slot.buckets[i].load(relaxed);
  }
  if (out.count == 0) return out;
  for (const std::uint64_t count : buckets) seen_in_buckets += count;
  const auto percentile = [&](double part) {
    const auto rank = static_cast<std::uint64_t>(std::ceil(part * static_cast<double>(seen_in_buckets)));
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
