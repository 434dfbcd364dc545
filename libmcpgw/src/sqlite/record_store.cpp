#include "sqlite/record_store.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "sqlite/record_log.hpp"
#include "storage/change_feed.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::detail::sqlite {
namespace {

using std::chrono::milliseconds;

// Another process must obey a change within a tenth of a second; a look costs microseconds.
constexpr milliseconds kPollInterval{50};
constexpr std::chrono::hours kPurgeInterval{1};
constexpr std::int64_t kTombstoneSeconds = 24 * 3600;

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// What the store and its polling thread share. The thread may outlive the store for a moment, when a watcher
// drops the last reference to it.
class Core {
 public:
  explicit Core(std::shared_ptr<Database> database) : database_(std::move(database)) {}

  Status start() {
    const auto turn = database_->write_turn();
    if (!turn) return storage_unavailable();
    return log_.start(*database_->record_writer());
  }

  Database& database() { return *database_; }
  ChangeFeed& feed() { return feed_; }

  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations);

  /// Tells the watchers what other processes committed.
  Status read_others();
  /// Forgets old tombstones.
  Status purge();
  /// Runs until stop().
  void poll();
  void stop();

 private:
  void enqueue(RecordLog::Commits commits, std::uint64_t& ticket) {
    for (auto& changes : commits) ticket = feed_.enqueue(std::move(changes));
  }

  const std::shared_ptr<Database> database_;
  RecordLog log_;  // protected by the turn to write, which also orders enqueue()
  ChangeFeed feed_;

  std::mutex stop_mutex_;
  std::condition_variable stop_changed_;
  bool stopped_ = false;
};

Result<std::vector<std::uint64_t>> Core::commit(const std::vector<Operation>& operations) {
  std::uint64_t ticket = 0;
  const auto write = [&]() -> Result<std::vector<std::uint64_t>> {
    const auto turn = database_->write_turn();
    if (!turn) return storage_unavailable();
    const auto connection = database_->record_writer();
    if (connection->file_moved()) return storage_unavailable();
    auto transaction = Transaction::begin(*connection, Transaction::Kind::write);
    if (!transaction) return transaction.error();
    // Commits of others precede this one: the watchers hear of them first, whatever becomes of it.
    RecordLog::Commits others;
    if (auto ok = log_.read_others(*connection, others); !ok) return ok.error();
    enqueue(std::move(others), ticket);
    auto outcome = log_.write(*connection, operations, unix_seconds());
    if (!outcome) return outcome.error();
    if (outcome->changes.empty()) return std::move(outcome->versions);
    if (auto ok = transaction->commit(); !ok) return ok.error();
    log_.committed();
    ticket = feed_.enqueue(std::move(outcome->changes));
    return std::move(outcome->versions);
  };
  auto result = write();
  if (ticket != 0) feed_.deliver(ticket);
  return result;
}

Status Core::read_others() {
  std::uint64_t ticket = 0;
  const auto read = [&]() -> Status {
    const auto turn = database_->write_turn();
    if (!turn) return storage_unavailable();
    const auto connection = database_->poller();
    auto transaction = Transaction::begin(*connection, Transaction::Kind::read);
    if (!transaction) return transaction.error();
    RecordLog::Commits others;
    if (auto ok = log_.read_others(*connection, others); !ok) return ok;
    enqueue(std::move(others), ticket);
    return {};
  };
  auto result = read();
  if (ticket != 0) feed_.deliver(ticket);
  return result;
}

Status Core::purge() {
  const auto cutoff = unix_seconds() - kTombstoneSeconds;
  for (;;) {
    const auto turn = database_->write_turn();
    if (!turn) return storage_unavailable();
    const auto connection = database_->record_writer();
    auto oldest = connection->integer(
        "SELECT coalesce(min(erased_at), 9223372036854775807) FROM record"
        " WHERE erased_at IS NOT NULL");
    if (!oldest) return oldest.error();
    if (*oldest >= cutoff) return {};  // spares the write transaction
    auto transaction = Transaction::begin(*connection, Transaction::Kind::write);
    if (!transaction) return transaction.error();
    auto count = RecordLog::purge_tombstones(*connection, cutoff);
    if (!count) return count.error();
    if (auto ok = transaction->commit(); !ok) return ok;
    if (*count < RecordLog::kPurgeBatch) return {};
  }
}

void Core::poll() {
  std::optional<std::int64_t> told;  // the data version whose commits have been told
  auto next_purge = std::chrono::steady_clock::now() + kPurgeInterval;
  for (;;) {
    {
      std::unique_lock lock(stop_mutex_);
      if (stop_changed_.wait_for(lock, kPollInterval, [&] { return stopped_; })) return;
    }
    // Changes with every commit by another connection and costs no read of the file.
    auto version = database_->poller()->integer("PRAGMA data_version");
    if (version && (!told || *told != *version))
      if (read_others()) told = *version;  // on failure: again in the next round
    if (std::chrono::steady_clock::now() >= next_purge) {
      (void)purge();  // on failure: again in an hour
      next_purge = std::chrono::steady_clock::now() + kPurgeInterval;
    }
  }
}

void Core::stop() {
  {
    std::lock_guard lock(stop_mutex_);
    stopped_ = true;
  }
  stop_changed_.notify_all();
}

class RecordStore final : public Storage {
 public:
  RecordStore(std::shared_ptr<Core> core, bool poll) : core_(std::move(core)) {
    if (poll) poller_ = std::thread([shared = core_] { shared->poll(); });
  }

  ~RecordStore() override {
    core_->stop();
    if (!poller_.joinable()) return;
    if (poller_.get_id() == std::this_thread::get_id())
      poller_.detach();  // a watcher dropped the last reference; the thread ends after that callback
    else
      poller_.join();
  }

  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override {
    if (auto ok = check_name(collection, key); !ok) return ok.error();
    const auto connection = core_->database().record_reader();
    auto statement = connection->cached(
        "SELECT value, version FROM record WHERE collection=?1 AND key=?2 AND value IS NOT NULL");
    auto row = statement.bind_blob(collection).bind_blob(key).step();
    if (!row) return row.error();
    if (!*row) return std::optional<Record>{};
    if (statement.integer(1) < 1) return to_error(SQLITE_CORRUPT);
    return std::optional<Record>{Record{std::string(collection), std::string(key), statement.bytes(0),
                                        static_cast<std::uint64_t>(statement.integer(1))}};
  }

  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override {
    const bool from_after = !after.empty() && after >= prefix;
    const auto connection = core_->database().record_reader();
    auto statement = connection->cached(
        from_after ? "SELECT key, value, version FROM record WHERE collection=?1 AND key > ?2"
                     " AND value IS NOT NULL ORDER BY key LIMIT ?3"
                   : "SELECT key, value, version FROM record WHERE collection=?1 AND key >= ?2"
                     " AND value IS NOT NULL ORDER BY key LIMIT ?3");
    statement.bind_blob(collection).bind_blob(from_after ? after : prefix);
    statement.bind(limit == 0 || limit > kMaxLimit ? -1 : static_cast<std::int64_t>(limit));
    std::vector<Record> found;
    for (;;) {
      auto row = statement.step();
      if (!row) return row.error();
      if (!*row) return found;
      std::string key = statement.bytes(0);
      if (key.compare(0, prefix.size(), prefix) != 0) return found;  // past the last key with the prefix
      const auto version = statement.integer(2);
      if (version < 1) return to_error(SQLITE_CORRUPT);
      found.push_back(
          {std::string(collection), std::move(key), statement.bytes(1), static_cast<std::uint64_t>(version)});
    }
  }

  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    if (auto ok = check_operations(operations); !ok) return ok.error();
    return core_->commit(operations);
  }

  std::uint64_t watch(WatchCallback callback) override { return core_->feed().add(std::move(callback)); }
  void unwatch(std::uint64_t id) override { core_->feed().remove(id); }

  Status ping() override {
    const auto connection = core_->database().record_reader();
    if (connection->file_moved()) return storage_unavailable();
    auto seq = connection->integer("SELECT value FROM meta WHERE name='seq'");
    if (!seq) return seq.error();
    return {};
  }

 private:
  static constexpr std::size_t kMaxLimit = std::size_t{1} << 40;

  const std::shared_ptr<Core> core_;
  std::thread poller_;  // none when the database is in memory
};

}  // namespace

Result<std::shared_ptr<Storage>> open_record_store(std::shared_ptr<Database> database) {
  const bool poll = !database->in_memory();
  auto core = std::make_shared<Core>(std::move(database));
  if (auto ok = core->start(); !ok) return ok.error();
  (void)core->purge();  // housekeeping: the program may start without it
  try {
    return std::shared_ptr<Storage>(std::make_shared<RecordStore>(std::move(core), poll));
  } catch (const std::system_error&) {
    return Error{ErrorCode::resource_exhausted, "no_threads",
                 "The system has no thread left for the storage."};
  }
}

}  // namespace mcpgw::detail::sqlite
