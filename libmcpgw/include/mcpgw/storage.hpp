// Storage: the narrow waist between mcpgw and a database. Records are small JSON texts in named
// collections; everything typed (users, targets, policies, ...) is built above it by Repository. A
// custom backend implements six functions (docs/storage.md).
//
// Threads: implementations are safe for concurrent use. Calls may block (they are made from worker
// threads, never from an event loop) and are bounded by the implementation's own time limit.
// Errors: `unavailable` (reason "storage_unavailable") when the backend is away, `conflict` (reason
// "version_conflict") when a condition of a transaction does not hold, `data_loss` (reason
// "storage_damaged") for damaged rows, `invalid_argument` for names and values out of bounds.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/result.hpp"

namespace mcpgw {

struct Record {
  std::string collection;  ///< UTF-8, 1 to 64 bytes
  std::string key;         ///< UTF-8, 1 to 2048 bytes
  std::string value;       ///< JSON text, at most 1 MiB
  /// Grows by at least 1 with each write. 1 at first creation; a record made again after an erase
  /// continues above its last version, so a stale expected_version never matches.
  std::uint64_t version = 0;
};

/// One step of a transaction. Conditions are checked before any write is made, against the state before the
/// transaction; the writes are then made in order. Erasing a record that does not exist changes nothing.
struct Operation {
  enum class Kind { check, put, erase };
  Kind kind = Kind::check;
  std::string collection;
  std::string key;
  std::string value;  ///< put only
  /// Unset: no condition. 0: the record must not exist. Otherwise: it must have this version.
  std::optional<std::uint64_t> expected_version;
};

/// A committed change. `version` is 0 when the record was erased.
struct Change {
  std::string collection;
  std::string key;
  std::uint64_t version = 0;
};

class Storage {
 public:
  using WatchCallback = std::function<void(const std::vector<Change>&)>;

  virtual ~Storage() = default;

  /// The record, or nullopt when there is none.
  virtual Result<std::optional<Record>> get(std::string_view collection, std::string_view key) = 0;

  /// Records whose key starts with `prefix` and is greater than `after` (empty: from the start), in
  /// ascending byte order of their keys, at most `limit` (0: no limit).
  virtual Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                           std::string_view after, std::size_t limit) = 0;

  /// All operations or none. Returns the new versions, one an operation (0 for check and erase).
  /// Fails with conflict/"version_conflict" when a condition does not hold; the error's field names
  /// the "collection/key" at fault.
  virtual Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) = 0;

  /// Calls `callback` after every commit, in commit order, from an unspecified thread, with the changes
  /// of that commit, whoever made it: one Change a record. A change made through this object is delivered
  /// before its commit() returns. An empty list means that changes may have been missed (a connection was
  /// lost): read everything again. The callback may unwatch, and must not call the storage otherwise. Returns
  /// an id for unwatch().
  virtual std::uint64_t watch(WatchCallback callback) = 0;
  /// After return the callback is not running and will not be called again. From inside the callback itself
  /// it returns at once, and that call is the last.
  virtual void unwatch(std::uint64_t id) = 0;

  /// Ok when the backend answers now. Used by /ready.
  virtual Status ping() = 0;

  /// Whether what it holds is there when this process has ended: then sessions at other servers that it
  /// knows of are left open for whoever comes next.
  virtual bool durable() const { return true; }

  /// Whether gateways in other processes work on the same records. What limits all of them together (failed
  /// logins) is then counted in the storage, at the price of a round trip each; else in memory.
  virtual bool shared() const { return false; }

  // Conveniences over commit().
  Result<std::uint64_t> put(std::string collection, std::string key, std::string value,
                            std::optional<std::uint64_t> expected_version = std::nullopt);
  Status erase(std::string collection, std::string key,
               std::optional<std::uint64_t> expected_version = std::nullopt);
};

/// For implementations: what every backend refuses before it looks at its records, namely names and values out
/// of bounds. invalid_argument/"invalid_collection", "invalid_key", "value_too_large".
Status check_operations(const std::vector<Operation>& operations);

/// Keeps everything in memory, for tests and for embedders that need no persistence.
std::shared_ptr<Storage> make_memory_storage();

}  // namespace mcpgw
