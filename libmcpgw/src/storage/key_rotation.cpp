// Repository: which key is in force, and the change from one to another.
//
// Two records say it. meta/keys names the key that seals and those that open nothing any more; every write of
// something sealed has its version as a condition. meta/reseal is the work that such a change leaves: how far
// it has come, and who is at it. Whoever works writes it again several times a second; another process takes
// over when it has not changed for a while by its own clock, so no two clocks are ever compared. Two that
// work at once (one was stopped in between) do no harm: each row is written under its version, and the first
// of them that finds the record changed leaves.
#include <algorithm>
#include <map>
#include <thread>

#include "json/json.hpp"
#include "storage/record_reader.hpp"
#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kBeat{250};
constexpr milliseconds kSilent{5000};
/// Replicas that show no sign of life for so long after they were told something do not live.
constexpr milliseconds kGone{15000};
/// And so long a sign of life may be older than what they were told.
constexpr milliseconds kKeysRead{3000};
constexpr std::uint64_t kBeatRows = 100;
constexpr int kMaxPasses = 10;
constexpr std::size_t kMostRetired = 1000;  // the oldest are forgotten first
constexpr std::size_t kDepth = 8;

struct KeysRecord {
  std::string key;
  std::vector<std::string> retired;
  std::uint64_t version = 0;  ///< 0: there is none
  std::string text;
};

std::optional<Json> object_of(std::string_view text) {
  auto json = parse_json(text, kDepth);
  if (!json || !json->is_object()) return std::nullopt;
  return json;
}

Error damaged() {
  return {ErrorCode::data_loss, "storage_damaged", "The stored data is damaged; restore a backup."};
}

/// An absent list is an empty one.
bool read_ids(const Json& json, const char* name, std::vector<std::string>& into) {
  const auto list = json.find(name);
  if (list == json.end()) return true;
  if (!list->is_array()) return false;
  for (const auto& id : *list) {
    if (!id.is_string()) return false;
    into.push_back(id.get<std::string>());
  }
  return true;
}

void add_id(std::vector<std::string>& ids, const std::string& id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

Result<KeysRecord> decode_keys(const std::optional<Record>& record) {
  KeysRecord out;
  if (!record) return out;
  const auto json = object_of(record->value);
  if (!json) return damaged();
  RecordReader reader(*json);
  out.key = reader.text("id");
  if (!reader.ok() || out.key.empty()) return damaged();
  if (!read_ids(*json, "retired", out.retired)) return damaged();
  out.version = record->version;
  out.text = record->value;
  return out;
}

/// Members that a newer program has put there stay.
std::string encode(Json members, std::string_view previous) {
  if (auto old = object_of(previous)) {
    old->update(members);
    return dump_json(*old);
  }
  return dump_json(members);
}

std::string encode_keys(const KeysRecord& keys) {
  return encode(Json{{"schema", 1}, {"id", keys.key}, {"retired", keys.retired}}, keys.text);
}

constexpr const char* kStates[] = {"none", "running", "done", "incomplete"};

struct ResealRecord {
  KeyRotation rotation;
  std::string owner;             ///< who works on it; empty: nobody
  std::vector<std::string> old;  ///< keys that open nothing any more when it is done
  std::uint64_t version = 0;     ///< 0: there is none
  std::string text;
};

Result<ResealRecord> decode_reseal(const std::optional<Record>& record) {
  ResealRecord out;
  if (!record) return out;
  const auto json = object_of(record->value);
  if (!json) return damaged();
  RecordReader reader(*json);
  const auto count = [&reader](const char* name) {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(reader.integer(name, 0), 0));
  };
  const auto state = reader.text("state");
  out.rotation.key = reader.text("key");
  out.owner = reader.text("owner");
  out.rotation.total = count("total");
  out.rotation.progress = {count("checked"), count("resealed"), count("failed")};
  const auto* const found = std::find(std::begin(kStates), std::end(kStates), state);
  if (!reader.ok() || found == std::end(kStates) || !read_ids(*json, "old", out.old)) return damaged();
  out.rotation.state = static_cast<KeyRotation::State>(found - std::begin(kStates));
  out.version = record->version;
  out.text = record->value;
  return out;
}

std::string encode_reseal(const ResealRecord& reseal) {
  const auto& rotation = reseal.rotation;
  return encode(Json{{"schema", 1},
                     {"state", kStates[static_cast<std::size_t>(rotation.state)]},
                     {"key", rotation.key},
                     {"owner", reseal.owner},
                     {"old", reseal.old},
                     {"total", rotation.total},
                     {"checked", rotation.progress.checked},
                     {"resealed", rotation.progress.resealed},
                     {"failed", rotation.progress.failed}},
                reseal.text);
}

}  // namespace

Status Repository::Impl::read_keys() {
  std::unique_lock lock(keys_mutex);
  for (;;) {
    const auto record = get(collection::kMeta, meta::kKeys);
    if (!record) return record.error();
    auto keys = decode_keys(*record);
    if (!keys) return keys.error();
    if (keys->version != 0) {
      if (keys->version <= keys_version.load()) return {};
      sealer->put_in_force(keys->key, retired_);
      to_retire_ = std::move(keys->retired);
      if (!sealer->has_key_in_force()) sealer->refresh();
      if (!sealer->has_key_in_force() && options.on_problem)
        options.on_problem("the encryption key in force is not configured here");
      keys_version.store(keys->version);
      const bool more = to_retire_ != retired_;
      lock.unlock();
      if (more) want_reload();
      return {};
    }
    // Nobody has said yet which key seals: the first to open the storage does.
    keys->key = sealer->configured_key_id();
    const auto written = storage->commit({put(collection::kMeta, meta::kKeys, encode_keys(*keys), 0)});
    if (!written && !is_version_conflict(written.error())) return written.error();
  }
}

std::vector<std::string> Repository::Impl::keys_to_retire() {
  const std::lock_guard lock(keys_mutex);
  return to_retire_;
}

void Repository::Impl::retire_keys(std::vector<std::string> ids) {
  const std::lock_guard lock(keys_mutex);
  if (ids == retired_) return;
  retired_ = std::move(ids);
  sealer->put_in_force(sealer->key_in_force(), retired_);
}

Result<Operation> Repository::Impl::key_fence() {
  // First the version: should the key change after this, the transaction fails and is tried again.
  const auto version = keys_version.load();
  if (!sealer->has_key_in_force()) {
    sealer->refresh();
    if (!sealer->has_key_in_force())
      return Error(ErrorCode::unavailable, "credential_unavailable",
                   "The encryption key in force is not configured here: set it in encryption.key or "
                   "encryption.previous_keys");
  }
  return check(collection::kMeta, meta::kKeys, version);
}

Status Repository::announce_keys() { return impl_->announce_keys(); }

Status Repository::Impl::announce_keys() {
  return retry<void>([&]() -> Status {
    const auto record = get(collection::kMeta, meta::kKeys);
    if (!record) return record.error();
    const auto keys = decode_keys(*record);
    if (!keys) return keys.error();
    // Any new version is the news. It is told to this process too, by the storage.
    const auto written = commit({put(collection::kMeta, meta::kKeys, encode_keys(*keys), keys->version)});
    if (!written) return written.error();
    return read_keys();
  });
}

std::string Repository::key_in_force() const { return impl_->sealer->key_in_force(); }

// A replica that lives shows it when it is told to read its keys, at once: its count of beats grows. Clocks
// are not compared.
Status Repository::Impl::replicas_have(const std::string& key, const std::function<bool()>& go_on) {
  struct Seen {
    std::int64_t beat;
    std::optional<steady_clock::time_point> lives;  ///< since when that is known
  };
  std::map<std::string, Seen> seen;
  const auto begun = steady_clock::now();
  for (bool told = false;; std::this_thread::sleep_for(kBeat)) {
    const auto records = list(collection::kReplicas);
    if (!records) return records.error();
    const auto now = steady_clock::now();
    std::map<std::string, std::int64_t> waited_for;
    bool some_live = false;
    for (const Record& record : *records) {
      const auto replica = decode_replica(record.key, record.value);
      if (!replica || std::find(replica->keys.begin(), replica->keys.end(), key) != replica->keys.end())
        continue;
      if (was_gone(replica->id, replica->beat)) continue;
      waited_for.emplace(replica->id, replica->beat);
      Seen& one = seen.try_emplace(replica->id, Seen{replica->beat, {}}).first->second;
      if (one.beat != replica->beat && !one.lives) one.lives = now;
      if (!one.lives) continue;
      some_live = true;
      if (!replica->keys.empty() && now - *one.lives < kKeysRead) continue;
      return Error(
          ErrorCode::conflict, "key_unknown",
          "The replica " + replica->id + " at " + replica->address +
              (replica->keys.empty() ? " does not say which encryption keys it has: it is of an older version"
                                     : " does not have the new encryption key: configure it there, too"),
          "encryption.key");
    }
    if (waited_for.empty()) return {};
    if (now - begun > kGone && !some_live) {
      const std::lock_guard lock(keys_mutex);
      gone_ = std::move(waited_for);
      return {};
    }
    if (!std::exchange(told, true))
      if (auto status = announce_keys(); !status) return status;
    if (!go_on()) return {};
  }
}

std::vector<std::string> Repository::Impl::known_keys() {
  (void)read_keys();
  const auto version = keys_version.load();
  if (known_as_of_.exchange(version) != version) sealer->refresh();
  return sealer->key_ids();
}

bool Repository::Impl::was_gone(const std::string& replica, std::int64_t beat) {
  const std::lock_guard lock(keys_mutex);
  const auto it = gone_.find(replica);
  return it != gone_.end() && it->second == beat;
}

Result<KeyRotation> Repository::key_rotation() {
  const auto record = impl_->get(collection::kMeta, meta::kReseal);
  if (!record) return record.error();
  const auto reseal = decode_reseal(*record);
  if (!reseal) return reseal.error();
  return reseal->rotation;
}

Status Repository::start_key_rotation() {
  impl_->sealer->refresh();
  const auto wanted = impl_->sealer->configured_key_id();
  if (auto status = impl_->replicas_have(wanted, [] { return true; }); !status) return status;
  const auto before = sealed_values();
  if (!before) return before.error();
  std::uint64_t total = 0;
  for (const auto& [key, count] : before->by_key) total += key == wanted ? 0 : count;
  return impl_->retry<void>([&]() -> Status {
    const auto keys_record = impl_->get(collection::kMeta, meta::kKeys);
    if (!keys_record) return keys_record.error();
    auto keys = decode_keys(*keys_record);
    if (!keys) return keys.error();
    if (std::find(keys->retired.begin(), keys->retired.end(), wanted) != keys->retired.end())
      return Error(ErrorCode::conflict, "key_retired",
                   "The configured encryption key was replaced before, and is not put in force again: make a "
                   "new one",
                   "encryption.key");
    const auto reseal_record = impl_->get(collection::kMeta, meta::kReseal);
    if (!reseal_record) return reseal_record.error();
    auto reseal = decode_reseal(*reseal_record);
    if (!reseal) return reseal.error();
    if (keys->key == wanted && reseal->rotation.state == KeyRotation::State::running) return {};
    if (reseal->rotation.state == KeyRotation::State::done) reseal->old.clear();
    add_id(reseal->old, keys->key);
    for (const auto& [key, count] : before->by_key) add_id(reseal->old, key);
    std::erase(reseal->old, wanted);
    keys->key = wanted;
    reseal->rotation = KeyRotation{KeyRotation::State::running, wanted, total, {}};
    reseal->owner = impl_->owner;  // the others wait to see whether this process does it
    const auto written =
        impl_->commit({Impl::put(collection::kMeta, meta::kReseal, encode_reseal(*reseal), reseal->version),
                       Impl::put(collection::kMeta, meta::kKeys, encode_keys(*keys), keys->version)});
    if (!written) return written.error();
    return impl_->read_keys();
  });
}

Result<KeyRotation> Repository::run_key_rotation(const std::function<bool(const KeyRotation&)>& go_on) {
  std::uint64_t seen = 0;
  auto seen_at = steady_clock::now();
  const auto wanted = [&](const KeyRotation& rotation) { return !go_on || go_on(rotation); };
  for (;;) {
    const auto record = impl_->get(collection::kMeta, meta::kReseal);
    if (!record) return record.error();
    auto reseal = decode_reseal(*record);
    if (!reseal) return reseal.error();
    if (reseal->version == 0) return Error(ErrorCode::not_found, "not_found", "No key is being replaced");
    if (reseal->rotation.state != KeyRotation::State::running || !wanted(reseal->rotation))
      return reseal->rotation;
    const auto now = steady_clock::now();
    if (reseal->version != seen) {
      seen = reseal->version;
      seen_at = now;
    }
    // A process that has not been given the new key yet leaves this to others.
    const bool able = impl_->sealer->key_in_force() == reseal->rotation.key && impl_->key_fence();
    const bool ours = reseal->owner.empty() || reseal->owner == impl_->owner;
    if (!able || (!ours && now - seen_at < kSilent)) {
      std::this_thread::sleep_for(kBeat);
      continue;
    }
    auto worked = impl_->work_on_rotation(reseal->text, reseal->version, wanted);
    if (worked || !is_version_conflict(worked.error())) return worked;
    // Another process has it now.
  }
}

// Ends with version_conflict when the record was written by somebody else.
Result<KeyRotation> Repository::Impl::work_on_rotation(const std::string& text, std::uint64_t version,
                                                       const std::function<bool(const KeyRotation&)>& go_on) {
  auto reseal =
      decode_reseal(Record{std::string(collection::kMeta), std::string(meta::kReseal), text, version});
  if (!reseal) return reseal.error();
  reseal->owner = owner;
  // The storage is asked itself: what is written here is no news to anybody's memory.
  const auto beat = [&](Operations more) -> Status {
    more.insert(more.begin(), put(collection::kMeta, meta::kReseal, encode_reseal(*reseal), reseal->version));
    const auto versions = commit(more);
    if (!versions) return versions.error();
    reseal->version = versions->front();
    return {};
  };
  if (auto status = beat({}); !status) return status.error();
  const auto before = reseal->rotation.progress.resealed;
  std::uint64_t passes_resealed = 0, beaten_rows = 0;
  auto beaten = steady_clock::now();
  for (int pass = 0; pass < kMaxPasses; ++pass) {
    Status lost;
    bool ended = false;
    const auto done = reseal_pass([&](const ResealProgress& now) {
      reseal->rotation.progress = {now.checked, before + passes_resealed + now.resealed, now.failed};
      const auto rows = passes_resealed + now.resealed;
      if (steady_clock::now() - beaten < kBeat && rows < beaten_rows + kBeatRows) return true;
      beaten_rows = rows;
      lost = beat({});
      beaten = steady_clock::now();
      ended = !go_on(reseal->rotation);
      return static_cast<bool>(lost) && !ended;
    });
    if (!lost) return lost.error();
    if (!done) return done.error();
    if (ended) {
      reseal->owner.clear();  // whoever looks next goes on at once
      (void)beat({});
      return reseal->rotation;
    }
    passes_resealed += done->resealed;
    reseal->rotation.progress = {done->checked, before + passes_resealed, done->failed};
    // Programs from before there was a fence may have written meanwhile: until nothing is found.
    if (done->resealed == 0) break;
  }
  // One that was started meanwhile with the old keys alone could open nothing any more.
  Status lost;
  bool ended = false;
  const auto parked = replicas_have(reseal->rotation.key, [&] {
    if (lost = beat({}); !lost) return false;
    ended = !go_on(reseal->rotation);
    return !ended;
  });
  if (!lost) return lost.error();
  if (!parked || ended) {
    reseal->owner.clear();
    (void)beat({});
    if (!parked) return parked.error();
    return reseal->rotation;
  }
  const auto keys_record = get(collection::kMeta, meta::kKeys);
  if (!keys_record) return keys_record.error();
  auto keys = decode_keys(*keys_record);
  if (!keys) return keys.error();
  // Another key was put in force meanwhile: there is a rotation to that one to go on with.
  if (keys->key != reseal->rotation.key)
    return Error(ErrorCode::conflict, "version_conflict", "Another key was put in force");
  const bool complete = reseal->rotation.progress.failed == 0;
  const auto known = sealer->key_ids();
  // A key that is missing here may still turn up.
  for (const auto& id : reseal->old)
    if (complete || std::find(known.begin(), known.end(), id) != known.end()) add_id(keys->retired, id);
  if (keys->retired.size() > kMostRetired)
    keys->retired.erase(keys->retired.begin(), keys->retired.end() - kMostRetired);
  reseal->owner.clear();
  reseal->rotation.state = complete ? KeyRotation::State::done : KeyRotation::State::incomplete;
  auto status = beat({put(collection::kMeta, meta::kKeys, encode_keys(*keys), keys->version)});
  if (!status) return status.error();
  if (status = read_keys(); !status) return status.error();
  (void)go_on(reseal->rotation);
  return reseal->rotation;
}

}  // namespace mcpgw
