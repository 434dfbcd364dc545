#include "auth/shared_rates.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "json/json.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

constexpr const char* kCollection = "rates";
constexpr int kSchema = 1;
/// So many different moments of a name are told apart in a window: what a name takes has a bound, whatever
/// the limit is.
constexpr std::int64_t kMoments = 64;
/// How often somebody else may be faster. Of those who try at once one always succeeds.
constexpr int kRounds = 32;
constexpr std::uint64_t kFarFuture = 1ULL << 60;
constexpr std::size_t kMaxFull = 50000;
constexpr std::size_t kSlotDigits = 3, kDigestBytes = 12;

std::int64_t to_ms(Duration duration) { return duration_cast<milliseconds>(duration).count(); }

/// Whether an event counts. One from the future is a clock that goes wrong elsewhere: it counts as long as
/// one of this moment would.
bool fresh(std::int64_t at, std::int64_t now, std::int64_t window) {
  return now - at < window && at - now < window;
}

std::size_t sum(const std::vector<std::pair<std::int64_t, std::size_t>>& events) {
  std::size_t out = 0;
  for (const auto& [at, count] : events) out += count;
  return out;
}

}  // namespace

std::int64_t SharedRates::now() const {
  return duration_cast<milliseconds>(clock_->now().time_since_epoch()).count();
}

SharedRates::Place SharedRates::place_of(const Step& step) const {
  std::string key;
  {
    const std::lock_guard lock(mutex_);
    key = key_;
  }
  const std::string digest = hmac_sha256(key, step.limit->id + '\n' + step.name);
  const std::string slot = to_hex(std::string_view(digest).substr(kDigestBytes, 2)).substr(0, kSlotDigits);
  return {step.limit->id + '/' + slot, base64url(std::string_view(digest).substr(0, kDigestBytes))};
}

SharedRates::Names SharedRates::decode(std::string_view text, const Limit& limit, std::int64_t now) {
  // What cannot be read is begun anew: a record that kept its names out for ever would be the greater harm.
  Names out;
  const auto json = parse_json(text, 6);
  if (!json || !json->is_object()) return out;
  const auto names = json->find("names");
  if (names == json->end() || !names->is_object()) return out;
  for (const auto& [name, events] : names->items()) {
    if (!events.is_array()) continue;
    Events kept;
    for (const Json& event : events) {
      if (!event.is_array() || event.size() != 2 || !event[0].is_number_unsigned() ||
          !event[1].is_number_unsigned())
        continue;
      const auto at = static_cast<std::int64_t>(std::min(event[0].get<std::uint64_t>(), kFarFuture));
      const auto count = event[1].get<std::size_t>();
      if (fresh(at, now, to_ms(limit.window)) && kept.size() < 4 * kMoments)
        kept.emplace_back(at, std::min(count, limit.max));
    }
    if (kept.empty()) continue;
    std::sort(kept.begin(), kept.end());
    out.emplace(name, std::move(kept));
  }
  return out;
}

std::string SharedRates::encode(const Names& names) {
  Json all = Json::object();
  for (const auto& [name, events] : names) {
    Json& list = all[name] = Json::array();
    for (const auto& [at, count] : events) list.push_back(Json::array({at, count}));
  }
  return dump_json(Json{{"schema", kSchema}, {"names", std::move(all)}});
}

void SharedRates::add(Names& names, const std::string& digest, const Limit& limit, std::int64_t now) {
  if (!names.contains(digest) && names.size() >= kNamesPerRecord)
    names.erase(std::min_element(names.begin(), names.end(), [](const auto& a, const auto& b) {
      return a.second.back().first < b.second.back().first;
    }));
  // Rounded up: an event leaves the window late rather than early.
  const std::int64_t step = std::max<std::int64_t>(to_ms(limit.window) / kMoments, 1);
  const std::int64_t moment = (now + step - 1) / step * step;
  Events& events = names[digest];
  const auto at =
      std::find_if(events.begin(), events.end(), [&](const auto& one) { return one.first == moment; });
  if (at != events.end())
    ++at->second;
  else
    events.insert(std::upper_bound(events.begin(), events.end(), std::pair(moment, std::size_t{1})),
                  {moment, 1});
}

bool SharedRates::may_try(const std::vector<Step>& steps) const {
  const Duration moment = clock_->monotonic();
  for (const Step& step : steps) {
    const Place place = place_of(step);
    const std::lock_guard lock(mutex_);
    const auto it = full_.find(place.record + place.digest);
    if (it != full_.end() && moment < it->second) return false;
  }
  return true;
}

void SharedRates::remember_full(const Place& place, Duration rest) {
  const Duration moment = clock_->monotonic();
  const std::lock_guard lock(mutex_);
  // Only spares the storage a question.
  if (full_.size() >= kMaxFull) std::erase_if(full_, [&](const auto& one) { return one.second <= moment; });
  if (full_.size() >= kMaxFull) full_.clear();
  full_[place.record + place.digest] = moment + rest;
}

Result<bool> SharedRates::settle(const std::vector<Step>& steps) {
  if (!may_try(steps)) return false;
  for (int round = 0; round < kRounds; ++round) {
    const std::int64_t moment = now();
    std::vector<Operation> writes;
    bool full = false;
    for (const Step& step : steps) {
      const Limit& limit = *step.limit;
      const Place place = place_of(step);
      const auto stored = storage_->get(kCollection, place.record);
      if (!stored) return stored.error();
      Names names = *stored ? decode((*stored)->value, limit, moment) : Names();
      const auto it = names.find(place.digest);
      if (it != names.end() && sum(it->second) >= limit.max) {
        // Until so many are left that one more fits in.
        std::size_t left = sum(it->second);
        std::int64_t until = moment;
        for (const auto& [at, count] : it->second) {
          left -= count;
          until = at + to_ms(limit.window);
          if (left < limit.max) break;
        }
        remember_full(place, std::min<Duration>(milliseconds(until - moment), limit.window));
        full = true;
        continue;
      }
      if (step.what == Step::What::look || (step.what == Step::What::clear && it == names.end())) continue;
      if (step.what == Step::What::add)
        add(names, place.digest, limit, moment);
      else
        names.erase(it);
      writes.push_back(
          {Operation::Kind::put, kCollection, place.record, encode(names), *stored ? (*stored)->version : 0});
    }
    if (full) return false;
    if (writes.empty()) return true;
    const auto written = storage_->commit(writes);
    if (written) return true;
    if (written.error().code != ErrorCode::conflict) return written.error();
  }
  return Error(ErrorCode::unavailable, "overloaded", "Too many attempts at once: try again");
}

void SharedRates::replace_key(std::string key) {
  const std::lock_guard lock(mutex_);
  if (key_ == key) return;
  key_ = std::move(key);
  full_.clear();
}

}  // namespace mcpgw::detail
