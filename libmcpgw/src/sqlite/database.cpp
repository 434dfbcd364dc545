#include "sqlite/database.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "sqlite/schema.hpp"

namespace mcpgw::detail::sqlite {
namespace {

constexpr int kMaxBusyTimeoutMs = 600'000;
constexpr std::chrono::seconds kTurnLimit{10};  // for the writers of this process, beside the wait for others

Error cannot_open() {
  return {ErrorCode::invalid_argument, "cannot_open",
          "The database file cannot be opened: its directory must exist, and both must be writable.", "path"};
}

// The entry of a new file must survive a power cut as its content does.
void sync_directory(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

// Makes the file before SQLite does, for its mode. An existing file is not even opened: closing it would drop
// the POSIX locks that other connections of this process hold on it.
Status create_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0) {
    ::close(fd);
    sync_directory(path);
    return {};
  }
  if (errno != EEXIST) return cannot_open();
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || ::access(path.c_str(), R_OK | W_OK) != 0)
    return cannot_open();
  return {};
}

// While another process makes the same change SQLite answers "busy" without waiting.
Status enable_wal(Connection& connection, int timeout_ms) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    {
      auto statement = connection.cached("PRAGMA journal_mode=WAL");
      auto row = statement.step();
      if (row && *row) {
        if (statement.bytes(0) == "wal") return {};
        return Error{ErrorCode::unsupported, "wal_unavailable",
                     "The file system of the database has no shared memory; use a local one."};
      }
      if (!row && row.error().code != ErrorCode::unavailable) return row.error();
      if (std::chrono::steady_clock::now() >= deadline) return row ? to_error(SQLITE_IOERR) : row.error();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace

Result<std::shared_ptr<Database>> Database::open(const SqliteOptions& options) {
  if (sqlite3_threadsafe() == 0)
    return Error{ErrorCode::unsupported, "sqlite_single_threaded",
                 "The SQLite library was built without threads."};
  if (options.path.empty() || options.path.find('\0') != std::string::npos)
    return Error{ErrorCode::invalid_argument, "invalid_path", "The path of the database file is missing.",
                 "path"};
  auto database = std::make_shared<Database>();
  database->in_memory_ = options.path == ":memory:";
  const int timeout = database->busy_timeout_ms_ = std::clamp(options.busy_timeout_ms, 0, kMaxBusyTimeoutMs);

  const auto connect = [&](Connection::Access access, const char* pragmas) -> Result<std::shared_ptr<Slot>> {
    auto connection = Connection::open(options.path, access, timeout);
    if (!connection) return connection.error();
    if (auto ok = (*connection)->execute(pragmas); !ok) return ok.error();
    auto slot = std::make_shared<Slot>();
    slot->connection = std::move(*connection);
    return slot;
  };

  if (!database->in_memory_) {
    if (auto ok = create_file(options.path); !ok) return ok.error();
    // Looked at through a connection that cannot write: a file we refuse stays as it is.
    auto probe = Connection::open(options.path, Connection::Access::read_only, timeout);
    if (!probe) return probe.error();
    if (auto ok = check_schema(**probe); !ok) return ok.error();
  }

  auto writer =
      connect(Connection::Access::read_write,
              "PRAGMA synchronous=FULL; PRAGMA cell_size_check=ON; PRAGMA journal_size_limit=67108864;");
  if (!writer) return writer.error();
  database->record_writer_ = *writer;
  Connection& connection = *(*writer)->connection;
  if (!database->in_memory_)
    if (auto ok = enable_wal(connection, timeout); !ok) return ok.error();
  if (auto ok = migrate(connection); !ok) return ok.error();

  if (database->in_memory_) {
    database->audit_writer_ = database->audit_reader_ = database->poller_ = *writer;
    database->record_readers_.fill(*writer);
    return database;
  }
  // A lost second of the audit log after a power cut is worth not waiting for the disk on every batch.
  auto audit =
      connect(Connection::Access::read_write,
              "PRAGMA synchronous=NORMAL; PRAGMA cell_size_check=ON; PRAGMA journal_size_limit=67108864;");
  if (!audit) return audit.error();
  database->audit_writer_ = *audit;
  for (auto* slot : {&database->audit_reader_, &database->poller_, &database->record_readers_[0],
                     &database->record_readers_[1]}) {
    auto reader = connect(Connection::Access::read_write, "PRAGMA query_only=ON; PRAGMA cell_size_check=ON;");
    if (!reader) return reader.error();
    *slot = *reader;
  }
  return database;
}

WriteTurns::Turn Database::write_turn() {
  return write_turns_.take(std::chrono::milliseconds(busy_timeout_ms_) + kTurnLimit);
}

Lease Database::record_reader() {
  for (const auto& slot : record_readers_)
    if (std::unique_lock lock(slot->mutex, std::try_to_lock); lock)
      return {std::move(lock), *slot->connection};
  return lease(record_readers_[next_reader_++ % record_readers_.size()]);
}

}  // namespace mcpgw::detail::sqlite
