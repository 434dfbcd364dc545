// Database: the connections to one file, shared by the record store and the audit store.
//
// Threads: safe for concurrent use. Reads run beside writes (WAL). Writers of this process take turns among
// themselves first, because SQLite's waiting is a sleep.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include "mcpgw/result.hpp"
#include "mcpgw/sqlite.hpp"
#include "sqlite/connection.hpp"
#include "storage/write_turns.hpp"

namespace mcpgw::detail::sqlite {

/// A connection that this thread may use until the lease ends.
class Lease {
 public:
  Lease(std::unique_lock<std::mutex> lock, Connection& connection)
      : lock_(std::move(lock)), connection_(&connection) {}
  Connection& operator*() const { return *connection_; }
  Connection* operator->() const { return connection_; }

 private:
  std::unique_lock<std::mutex> lock_;
  Connection* connection_;
};

class Database {
 public:
  static Result<std::shared_ptr<Database>> open(const SqliteOptions& options);

  /// The turn to write. Taken before a lease of record_writer() or audit_writer() and held until that ends.
  /// False when the time limit passed.
  WriteTurns::Turn write_turn();

  Lease record_writer() { return lease(record_writer_); }
  Lease record_reader();
  Lease audit_writer() { return lease(audit_writer_); }
  Lease audit_reader() { return lease(audit_reader_); }
  Lease poller() { return lease(poller_); }
  /// Whether no other process can see it.
  bool in_memory() const { return in_memory_; }

 private:
  struct Slot {
    std::mutex mutex;
    std::unique_ptr<Connection> connection;
  };
  static Lease lease(const std::shared_ptr<Slot>& slot) {
    return {std::unique_lock(slot->mutex), *slot->connection};
  }

  // Constant after open(). In memory all of them are one: such a database belongs to its connection.
  bool in_memory_ = false;
  int busy_timeout_ms_ = 0;
  std::shared_ptr<Slot> record_writer_, audit_writer_, audit_reader_, poller_;
  std::array<std::shared_ptr<Slot>, 2> record_readers_;

  std::atomic<unsigned> next_reader_{0};
  WriteTurns write_turns_;
};

}  // namespace mcpgw::detail::sqlite
