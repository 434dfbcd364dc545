// The SQLite backend: records and audit log in one database file. Component mcpgw::sqlite.
#pragma once

#include <memory>
#include <string>

#include "mcpgw/audit.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/storage.hpp"
#include "mcpgw/transfer.hpp"

namespace mcpgw {

struct SqliteOptions {
  /// Created with mode 0600 when it does not exist. ":memory:" keeps it in memory.
  std::string path;
  /// How long a call waits for another process that holds the database, in milliseconds.
  int busy_timeout_ms = 5000;
};

/// Both faces of one database. The file is closed when the last of the two is destroyed.
struct SqliteStorage {
  std::shared_ptr<Storage> storage;
  std::shared_ptr<AuditSink> audit;
};

/// Opens or creates the database and brings its schema up to date. Fails with `unsupported` (reason
/// "schema_too_new") when the file was written by a newer mcpgw, and changes nothing then.
Result<SqliteStorage> open_sqlite(const SqliteOptions& options);

/// A consistent copy of the database at `path`, taken while others read and write it. `to` must not exist; it
/// appears whole or not at all, with mode 0600, and is checked. conflict/"already_exists"; not_found;
/// invalid_argument/"cannot_open"; unavailable; data_loss.
Status backup_sqlite(const std::string& path, const std::string& to);

/// What the database at `path` holds now. not_found; unsupported/"schema_too_new"; unavailable.
Result<std::unique_ptr<StorageSnapshot>> snapshot_sqlite(const std::string& path);

}  // namespace mcpgw
