// Repository: opening, loading, committing, refreshing, telling.
#include "mcpgw/repository.hpp"

#include <algorithm>

#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr std::size_t kPage = 1000;
constexpr std::string_view kCached[] = {collection::kUsers, collection::kTargets, collection::kTargetTokens,
                                        collection::kEnv,   collection::kTokens,  collection::kPolicies};

RecordState state_of(Record record) {
  return RecordState{std::move(record.collection), std::move(record.key), std::move(record.value),
                     record.version};
}

// Of the rest only what another process announces: its keys record.
bool is_watched(std::string_view name) { return is_cached(name) || name == collection::kUserSessions; }
bool is_keys_record(std::string_view name, std::string_view key) {
  return name == collection::kMeta && key == meta::kKeys;
}
bool is_fenced(const Error& error) {
  return is_version_conflict(error) &&
         error.field == std::string(collection::kMeta) + "/" + std::string(meta::kKeys);
}

bool same_change(const RepositoryChange& a, const RepositoryChange& b) {
  return a.kind == b.kind && a.erased == b.erased && a.id == b.id && a.user_id == b.user_id;
}

// Five hundred env rows of one scope are one change to listeners.
void add_change(std::vector<RepositoryChange>& changes, RepositoryChange change) {
  for (auto it = changes.rbegin(); it != changes.rend(); ++it)
    if (same_change(*it, change)) return;
  changes.push_back(std::move(change));
}

}  // namespace

// Registers the keys that a commit writes, so that the refresher leaves their announcements to this thread.
// Those that turn out to be somebody else's are handed back.
class Repository::Impl::PendingWrite {
 public:
  PendingWrite(Impl& impl, const Operations& operations) : impl_(impl) {
    std::lock_guard lock(impl_.queue_mutex_);
    for (std::size_t i = 0; i < operations.size(); ++i) {
      const Operation& operation = operations[i];
      if (operation.kind == Operation::Kind::check || !is_watched(operation.collection)) continue;
      RecordId id{operation.collection, operation.key};
      ++impl_.pending_[id].writers;
      written_.push_back(Written{std::move(id), i, std::nullopt});
    }
  }
  ~PendingWrite() {
    std::lock_guard lock(impl_.queue_mutex_);
    bool filled = false;
    for (const Written& own : written_) {
      const auto it = impl_.pending_.find(own.id);
      auto& announced = it->second.announced;
      if (own.version) {
        const auto at = std::find(announced.begin(), announced.end(), *own.version);
        if (at != announced.end()) announced.erase(at);
      }
      if (--it->second.writers > 0) continue;
      if (!announced.empty()) {
        impl_.mark_dirty(own.id, *std::max_element(announced.begin(), announced.end()));
        filled = true;
      }
      impl_.pending_.erase(it);
    }
    if (filled) impl_.queue_filled_.notify_one();
  }
  PendingWrite(const PendingWrite&) = delete;
  PendingWrite& operator=(const PendingWrite&) = delete;

  void committed(const std::vector<std::uint64_t>& versions) {
    for (Written& own : written_) own.version = versions[own.operation];
  }

 private:
  struct Written {
    RecordId id;
    std::size_t operation;
    std::optional<std::uint64_t> version;
  };
  Impl& impl_;
  std::vector<Written> written_;
};

Repository::Impl::Impl(RepositoryOptions repository_options, std::shared_ptr<KeyRing> made_sealer)
    : options(std::move(repository_options)),
      storage(options.storage),
      clock(options.clock),
      random(options.random),
      sealer(std::move(made_sealer)),
      memory(sealer, [this](std::string_view what) { problem(what); }) {}

void Repository::Impl::stop() {
  if (watching_) storage->unwatch(watch_id_);
  watching_ = false;
  {
    std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  queue_filled_.notify_all();
  if (!refresher_.joinable()) return;
  // A listener may let go of the last reference to the repository, on the refresher itself.
  if (refresher_.get_id() == std::this_thread::get_id()) {
    refresher_.detach();
  } else {
    refresher_.join();
  }
}

void Repository::Impl::problem(std::string_view what) {
  problems.fetch_add(1, std::memory_order_relaxed);
  if (options.on_problem) options.on_problem(what);
}

Status Repository::Impl::start() {
  if (auto status = check_schema(); !status) return status;
  if (auto status = read_keys(); !status) return status;  // first: what may be written here is no news
  // Watching begins before loading: what changes meanwhile is reread afterwards.
  watch_id_ = storage->watch([this](const std::vector<Change>& changes) { on_watch(changes); });
  watching_ = true;
  if (auto status = read_keys(); !status) return status;
  auto retire = keys_to_retire();
  if (auto status = load(); !status) return status;
  retire_keys(std::move(retire));
  if (options.seed)
    if (auto status = seed(); !status) return status;
  refresher_ = std::thread([self = shared_from_this()] { self->refresh_loop(); });
  return {};
}

Status Repository::Impl::check_schema() {
  return retry<void>([&]() -> Status {
    const auto record = get(collection::kMeta, meta::kSchema);
    if (!record) return record.error();
    if (*record) {
      const auto schema = record_schema((*record)->value);
      if (schema && *schema <= kRecordSchema) return {};
      return Error(ErrorCode::unsupported, "schema_too_new",
                   "The store was written by a newer version of mcpgw, or is damaged");
    }
    // encode_index gives the schema number; the id says who wrote it first.
    const auto written = storage->commit({put(collection::kMeta, meta::kSchema, encode_index("mcpgw"), 0)});
    if (!written) return written.error();
    return {};
  });
}

Status Repository::Impl::load() {
  const RepositoryMemory::Guard guard(memory);
  std::vector<RecordState> states;
  for (const auto name : kCached) {
    auto records = list(name);
    if (!records) return records.error();
    for (Record& record : *records) states.push_back(state_of(std::move(record)));
  }
  const auto first = get(collection::kMeta, meta::kFirstUser);
  if (!first) return first.error();
  if (*first) memory.set_ever_had_user();
  memory.apply(states);
  return {};
}

Status Repository::Impl::seed() {
  const auto seeded = get(collection::kMeta, meta::kSeeded);
  if (!seeded) return seeded.error();
  if (*seeded) return {};
  const Time time = now();
  const auto make = [&](std::string name, std::string description, int priority, bool enabled,
                        Subject subject) {
    Policy policy;
    policy.id = new_id();
    policy.name = std::move(name);
    policy.description = std::move(description);
    policy.priority = priority;
    policy.enabled = enabled;
    policy.created_at = policy.updated_at = time;
    subject.id = new_id();
    subject.policy_id = policy.id;
    subject.created_at = time;
    policy.subjects.push_back(std::move(subject));
    return put(collection::kPolicies, policy.id, encode_policy(policy), 0);
  };
  Subject admins;
  admins.type = SubjectType::role;
  admins.value = "admin";
  const auto written =
      commit({put(collection::kMeta, meta::kSeeded, encode_index("policies"), 0),
              make("Admin Full Access", "Admins may use everything", 1000, true, admins),
              make("Default Allow All", "Everyone may use everything: enable only where that is wanted", 1,
                   false, {})});
  // Another replica that starts at the same time may have been first.
  if (!written && is_version_conflict(written.error())) return load();
  if (!written) return written.error();
  return {};
}

Result<Repository::Impl::MaybeRecord> Repository::Impl::get(std::string_view collection,
                                                            std::string_view key) const {
  return storage->get(collection, key);
}

Result<std::vector<Record>> Repository::Impl::list(std::string_view collection,
                                                   std::string_view prefix) const {
  std::vector<Record> all;
  std::string after;
  for (;;) {
    auto page = storage->list(collection, prefix, after, kPage);
    if (!page) return page.error();
    const bool last = page->size() < kPage;
    if (!page->empty()) after = page->back().key;
    std::move(page->begin(), page->end(), std::back_inserter(all));
    if (last) return all;
  }
}

Operation Repository::Impl::put(std::string_view collection, std::string_view key, std::string value,
                                std::optional<std::uint64_t> expected) {
  return Operation{Operation::Kind::put, std::string(collection), std::string(key), std::move(value),
                   expected};
}

Operation Repository::Impl::erase(std::string_view collection, std::string_view key,
                                  std::optional<std::uint64_t> expected) {
  return Operation{Operation::Kind::erase, std::string(collection), std::string(key), {}, expected};
}

Operation Repository::Impl::check(std::string_view collection, std::string_view key, std::uint64_t expected) {
  return Operation{Operation::Kind::check, std::string(collection), std::string(key), {}, expected};
}

Result<std::vector<std::uint64_t>> Repository::Impl::commit(const Operations& operations) {
  std::vector<RepositoryChange> changes;
  Result<std::vector<std::uint64_t>> versions = std::vector<std::uint64_t>{};
  {
    const RepositoryMemory::Guard guard(memory);
    PendingWrite pending(*this, operations);
    versions = storage->commit(operations);
    if (!versions) {
      if (is_fenced(versions.error())) (void)read_keys();  // the next try knows of the new key
      return versions;
    }
    if (versions->size() != operations.size())
      return Error(ErrorCode::internal, "internal", "The storage backend broke its contract");
    std::vector<RecordState> states;
    for (std::size_t i = 0; i < operations.size(); ++i) {
      const Operation& operation = operations[i];
      if (operation.kind == Operation::Kind::check) continue;
      const bool erased = operation.kind == Operation::Kind::erase;
      if (auto change = change_of(operation.collection, operation.key, erased))
        add_change(changes, std::move(*change));
      if (!is_cached(operation.collection)) continue;
      states.push_back(RecordState{operation.collection, operation.key,
                                   erased ? std::nullopt : std::optional(operation.value), (*versions)[i]});
    }
    memory.apply(states);
    pending.committed(*versions);
  }
  tell(changes);
  return versions;
}

void Repository::Impl::on_watch(const std::vector<Change>& changes) {
  std::lock_guard lock(queue_mutex_);
  bool filled = changes.empty();  // some may have been missed
  if (changes.empty()) reload_wanted_ = true;
  for (const Change& change : changes) {
    if (!is_watched(change.collection) && !is_keys_record(change.collection, change.key)) continue;
    RecordId id{change.collection, change.key};
    if (const auto it = pending_.find(id); it != pending_.end()) {
      it->second.announced.push_back(change.version);
    } else {
      mark_dirty(std::move(id), change.version);
      filled = true;
    }
  }
  if (filled) queue_filled_.notify_one();
}

void Repository::Impl::want_reload() {
  const std::lock_guard lock(queue_mutex_);
  reload_wanted_ = true;
  queue_filled_.notify_one();
}

void Repository::Impl::refresh_loop() {
  constexpr auto retry_min = std::chrono::milliseconds(20);
  constexpr auto retry_max = std::chrono::milliseconds(1000);
  auto wait = retry_min;
  std::unique_lock lock(queue_mutex_);
  for (;;) {
    queue_filled_.wait(lock, [&] { return stopping_ || reload_wanted_ || !dirty_.empty(); });
    if (stopping_) return;
    DirtyRecords ids;
    ids.swap(dirty_);
    const bool all = std::exchange(reload_wanted_, false);
    lock.unlock();
    const bool done = refresh(ids, all);
    lock.lock();
    if (done) {
      wait = retry_min;
      continue;
    }
    for (const auto& [id, version] : ids) mark_dirty(id, version);
    reload_wanted_ = reload_wanted_ || all;
    queue_filled_.wait_for(lock, wait, [&] { return stopping_; });
    wait = std::min(wait * 2, retry_max);
  }
}

void Repository::Impl::mark_dirty(RecordId id, std::uint64_t version) {
  auto& held = dirty_[std::move(id)];
  held = std::max(held, version);
}

Result<RecordState> Repository::Impl::reread(const std::string& name, const std::string& key,
                                             std::uint64_t announced) {
  auto record = get(name, key);
  if (record) {
    if (*record) return state_of(std::move(**record));
    return RecordState{name, key, std::nullopt, 0};
  }
  if (record.error().code != ErrorCode::data_loss) return record.error();
  // The row is there but cannot be read: it is held as one that decodes to nothing.
  return RecordState{name, key, std::string(), announced};
}

// All that is known to have changed is put in force at once, so that a transaction made elsewhere is not seen
// in halves; when a part cannot be read, none is.
bool Repository::Impl::refresh(const DirtyRecords& ids, bool everything) {
  std::vector<RepositoryChange> changes;
  {
    const RepositoryMemory::Guard guard(memory);
    std::vector<RecordState> states;
    // Before any record is read: it may be sealed with a key that was announced with it.
    if (everything || ids.count({std::string(collection::kMeta), std::string(meta::kKeys)}) != 0) {
      sealer->refresh();
      if (auto status = read_keys(); !status) {
        if (status.error().code != ErrorCode::data_loss) return false;
        problem(
            "unreadable record of the keys in force");  // who is in force stays so; the rest is still read
      }
      RepositoryChange keys{};
      keys.kind = RepositoryChange::Kind::keys;
      changes.push_back(std::move(keys));
    }
    auto retire = keys_to_retire();
    if (everything && !read_everything(states)) return false;
    for (const auto& [id, version] : ids) {
      if (is_keys_record(id.first, id.second)) continue;
      auto state = reread(id.first, id.second, version);
      if (!state) return false;
      states.push_back(std::move(*state));
    }
    const auto changed = memory.apply(states);
    if (everything) retire_keys(std::move(retire));
    for (std::size_t i = 0; i < states.size(); ++i) {
      if (!changed[i] && states[i].collection != collection::kUserSessions) continue;
      if (auto change = change_of(states[i].collection, states[i].key, !states[i].text))
        add_change(changes, std::move(*change));
    }
  }
  tell(changes);
  return true;
}

bool Repository::Impl::read_everything(std::vector<RecordState>& states) {
  for (const auto name : kCached) {
    const auto held = memory.keys(name);
    auto records = list(name);
    if (!records) return false;
    std::set<std::string_view> found;
    for (const Record& record : *records) found.insert(record.key);
    for (const std::string& key : held) {
      if (found.count(key) != 0) continue;
      auto state = reread(std::string(name), key, 0);
      if (!state) return false;
      states.push_back(std::move(*state));
    }
    for (Record& record : *records) states.push_back(state_of(std::move(record)));
  }
  return true;
}

Result<std::uint64_t> Repository::Impl::refs_version(std::string_view collection, std::string_view id) const {
  const auto record = get(collection, id);
  if (!record) return record.error();
  if (*record) return (*record)->version;
  return collection == collection::kUserRefs ? user_not_found() : target_not_found();
}

void Repository::Impl::add_reference(Operations& operations, std::string_view collection, std::string_view id,
                                     std::uint64_t version) const {
  operations.push_back(put(collection, id, encode_index(id), version));
}

std::uint64_t Repository::Impl::add_listener(Listener listener) {
  auto entry = std::make_shared<ListenerEntry>();
  entry->function = std::move(listener);
  std::lock_guard lock(listeners_mutex_);
  listeners_.emplace(next_listener_, std::move(entry));
  return next_listener_++;
}

void Repository::Impl::remove_listener(std::uint64_t id) {
  std::shared_ptr<ListenerEntry> entry;
  {
    std::lock_guard lock(listeners_mutex_);
    const auto it = listeners_.find(id);
    if (it == listeners_.end()) return;
    entry = it->second;
    listeners_.erase(it);
  }
  std::unique_lock lock(entry->mutex);
  entry->removed = true;
  // A listener that removes itself is not waited for.
  entry->idle.wait(lock,
                   [&] { return entry->running.size() == entry->running.count(std::this_thread::get_id()); });
}

void Repository::Impl::tell(const std::vector<RepositoryChange>& changes) {
  if (changes.empty()) return;
  std::vector<std::shared_ptr<ListenerEntry>> entries;
  {
    std::lock_guard lock(listeners_mutex_);
    for (const auto& [id, entry] : listeners_) entries.push_back(entry);
  }
  const auto self = std::this_thread::get_id();
  for (const auto& entry : entries) {
    for (const RepositoryChange& change : changes) {
      {
        std::lock_guard lock(entry->mutex);
        if (entry->removed) break;
        entry->running.insert(self);
      }
      entry->function(change);
      {
        std::lock_guard lock(entry->mutex);
        entry->running.erase(entry->running.find(self));
      }
      entry->idle.notify_all();
    }
  }
}

Repository::Repository(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Repository::~Repository() { impl_->stop(); }

Result<std::shared_ptr<Repository>> Repository::open(RepositoryOptions options) {
  if (!options.storage)
    return Error(ErrorCode::invalid_argument, "invalid_request", "A repository needs a storage", "storage");
  if (!options.clock) options.clock = make_system_clock();
  if (!options.random) options.random = make_system_random();
  auto sealer = KeyRing::create(options.keys, options.random, options.reload_keys);
  if (!sealer) return sealer.error();
  options.keys = {};  // the sealer has them
  auto impl = std::make_shared<Impl>(std::move(options), std::move(*sealer));
  std::shared_ptr<Repository> repository(new Repository(impl));
  if (auto status = impl->start(); !status) return status.error();
  return repository;
}

Storage& Repository::storage() const { return *impl_->storage; }
Clock& Repository::clock() const { return *impl_->clock; }
Random& Repository::random() const { return *impl_->random; }
const std::shared_ptr<Clock>& Repository::clock_ptr() const { return impl_->clock; }
const std::shared_ptr<Random>& Repository::random_ptr() const { return impl_->random; }

std::uint64_t Repository::add_listener(Listener listener) { return impl_->add_listener(std::move(listener)); }
void Repository::remove_listener(std::uint64_t id) { impl_->remove_listener(id); }

std::uint64_t Repository::policy_generation() const noexcept { return impl_->memory.policy_generation(); }
std::uint64_t Repository::credential_generation() const noexcept {
  return impl_->memory.credential_generation();
}
std::uint64_t Repository::damaged_records() const noexcept { return impl_->problems.load(); }

}  // namespace mcpgw
