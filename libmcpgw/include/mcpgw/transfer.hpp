// Moving everything that is stored from one database to another: copies, backups, restores.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mcpgw/audit.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/storage.hpp"

namespace mcpgw {

/// Everything in a database at one moment, whatever is written meanwhile (snapshot_sqlite,
/// snapshot_postgres). Used by one thread at a time. Reading it holds up no writer.
class StorageSnapshot {
 public:
  virtual ~StorageSnapshot() = default;
  /// The next records, in ascending byte order of collection and key. Empty: there are no more.
  virtual Result<std::vector<Record>> next_records() = 0;
  /// The next audit rows, first stored first. Empty: there are no more.
  virtual Result<std::vector<AuditRecord>> next_audit_rows() = 0;
};

/// How much there is, and SHA-256 digests (in hex) that are equal when everything is, versions of records
/// aside.
struct StorageContents {
  std::uint64_t records = 0;
  std::uint64_t audit_rows = 0;
  std::string records_digest;
  std::string audit_digest;
};

/// Reads a snapshot to its end.
Result<StorageContents> contents_of(StorageSnapshot& snapshot);

/// Where a copy goes to. The database must be empty, or hold a copy that was interrupted: that is begun anew.
struct CopyTarget {
  std::shared_ptr<Storage> storage;
  std::shared_ptr<AuditSink> audit;
  /// Opens a snapshot of what `storage` and `audit` hold, to check it.
  std::function<Result<std::unique_ptr<StorageSnapshot>>()> snapshot;
};

struct CopyOptions {
  bool audit = true;  ///< the audit log too
  /// Called now and then with what has been written.
  std::function<void(std::uint64_t records, std::uint64_t audit_rows)> progress;
};

/// Copies, reads back and compares. Until it is complete no gateway starts on the target. Versions of records
/// begin anew. Fails with conflict/"not_empty", data_loss/"copy_differs" (also when somebody else wrote to
/// the target meanwhile), and what the two sides fail with.
Result<StorageContents> copy_storage(StorageSnapshot& from, const CopyTarget& to,
                                     const CopyOptions& options = {});

}  // namespace mcpgw
