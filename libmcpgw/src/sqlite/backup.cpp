// A copy of the database while it is in use, by SQLite's backup interface.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "mcpgw/sqlite.hpp"
#include "sqlite/connection.hpp"

namespace mcpgw {

using namespace detail::sqlite;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr int kBusyTimeoutMs = 10'000;
constexpr std::chrono::seconds kGiveUp{60};

Error cannot_write() {
  return {ErrorCode::invalid_argument, "cannot_open",
          "The copy cannot be written: its directory must exist and be writable.", "to"};
}

/// All pages in one step: one read transaction, so the copy is of one moment whatever is written meanwhile.
Status copy_pages(Connection& from, Connection& to) {
  const auto deadline = std::chrono::steady_clock::now() + kGiveUp;
  sqlite3_backup* backup = sqlite3_backup_init(to.handle(), "main", from.handle(), "main");
  if (backup == nullptr) return to_error(sqlite3_errcode(to.handle()));
  int code;
  while ((code = sqlite3_backup_step(backup, -1)) == SQLITE_BUSY || code == SQLITE_LOCKED) {
    if (std::chrono::steady_clock::now() >= deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  const int finished = sqlite3_backup_finish(backup);
  if (code != SQLITE_DONE) return to_error(code);
  if (finished != SQLITE_OK) return to_error(finished);
  return {};
}

Status copy_checked(const std::string& path, const std::string& to) {
  auto from = Connection::open(path, Connection::Access::read_only, kBusyTimeoutMs);
  if (!from) return from.error();
  auto copy = Connection::open(to, Connection::Access::read_write, kBusyTimeoutMs);
  if (!copy) return copy.error();
  if (auto status = copy_pages(**from, **copy); !status) return status;
  // One file that is complete by itself.
  if (auto status = (*copy)->execute("PRAGMA journal_mode=DELETE"); !status) return status;
  auto check = (*copy)->prepare("PRAGMA quick_check(1)");
  const auto row = check.step();
  if (!row) return row.error();
  if (!*row || check.bytes(0) != "ok")
    return Error{ErrorCode::data_loss, "storage_damaged",
                 "The database is damaged: its copy does not check."};
  return {};
}

}  // namespace

Status backup_sqlite(const std::string& path, const std::string& to) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return Error{ErrorCode::not_found, "not_found", "There is no database yet.", "path"};
  if (::lstat(to.c_str(), &info) == 0)
    return Error{ErrorCode::conflict, "already_exists", "The file is there already; it is not overwritten.",
                 "to"};
  const std::string unfinished = to + "." + std::to_string(::getpid()) + ".unfinished";
  const int fd = ::open(unfinished.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return cannot_write();
  ::close(fd);
  auto status = copy_checked(path, unfinished);
  if (status) {
    const int done = ::open(unfinished.c_str(), O_RDWR | O_CLOEXEC);
    const bool synced = done >= 0 && ::fsync(done) == 0;
    if (done >= 0) ::close(done);
    // link() and not rename(): what appeared there meanwhile is not replaced.
    if (!synced || ::link(unfinished.c_str(), to.c_str()) != 0) status = cannot_write();
  }
  ::unlink(unfinished.c_str());
  ::unlink((unfinished + "-journal").c_str());
  return status;
}

}  // namespace mcpgw
