// Everything in a database file at one moment: one read transaction, which WAL keeps apart from writers.
#include <sys/stat.h>

#include <optional>
#include <utility>

#include "mcpgw/sqlite.hpp"
#include "sqlite/audit_block.hpp"
#include "sqlite/audit_row.hpp"
#include "sqlite/connection.hpp"
#include "sqlite/schema.hpp"

namespace mcpgw {

using namespace detail::sqlite;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr int kBusyTimeoutMs = 10'000;
constexpr std::int64_t kPageRows = 200;

class Snapshot final : public StorageSnapshot {
 public:
  Snapshot(std::unique_ptr<Connection> connection, Transaction transaction, bool packed)
      : connection_(std::move(connection)), transaction_(std::move(transaction)), packed_(packed) {}

  Result<std::vector<Record>> next_records() override {
    auto rows = connection_->cached(
        "SELECT collection, key, value, version FROM record WHERE (collection, key) > (?1, ?2)"
        " AND value IS NOT NULL ORDER BY collection, key LIMIT ?3");
    rows.bind_blob(collection_).bind_blob(key_).bind(kPageRows);
    std::vector<Record> page;
    for (;;) {
      auto row = rows.step();
      if (!row) return row.error();
      if (!*row) break;
      page.push_back(
          {rows.bytes(0), rows.bytes(1), rows.bytes(2), static_cast<std::uint64_t>(rows.integer(3))});
    }
    if (!page.empty()) {
      collection_ = page.back().collection;
      key_ = page.back().key;
    }
    return page;
  }

  Result<std::vector<AuditRecord>> next_audit_rows() override {
    return packed_ ? next_block() : next_single_rows();
  }

 private:
  Result<std::vector<AuditRecord>> next_block() {
    auto block =
        connection_->cached("SELECT first, data FROM audit_block WHERE first > ?1 ORDER BY first LIMIT 1");
    auto found = block.bind(position_).step();
    if (!found) return found.error();
    std::vector<AuditRecord> page;
    if (!*found) return page;
    position_ = block.integer(0);
    const std::string data = block.bytes(1);
    const auto rows = read_block(data, position_);
    if (!rows) return to_error(SQLITE_CORRUPT);
    for (const PackedRow& row : *rows) page.push_back(row.record());
    return page;
  }

  /// Of a file that an earlier version has written, and that is only read.
  Result<std::vector<AuditRecord>> next_single_rows() {
    auto rows = connection_->cached("SELECT " MCPGW_AUDIT_COLUMNS
                                    " FROM audit WHERE position > ?1 ORDER BY position LIMIT ?2");
    rows.bind(position_).bind(kPageRows);
    std::vector<AuditRecord> page;
    for (;;) {
      auto row = rows.step();
      if (!row) return row.error();
      if (!*row) return page;
      position_ = rows.integer(0);
      page.push_back(read_audit_row(rows));
    }
  }

  std::unique_ptr<Connection> connection_;
  Transaction transaction_;  // ends before the connection
  const bool packed_;
  std::string collection_, key_;
  std::int64_t position_ = 0;
};

}  // namespace

Result<std::unique_ptr<StorageSnapshot>> snapshot_sqlite(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return Error{ErrorCode::not_found, "not_found", "There is no database yet.", "path"};
  auto connection = Connection::open(path, Connection::Access::read_only, kBusyTimeoutMs);
  if (!connection) return connection.error();
  if (auto ok = check_schema(**connection); !ok) return ok.error();
  auto tables =
      (*connection)->integer("SELECT count(*) FROM sqlite_schema WHERE name IN ('record', 'audit')");
  if (!tables) return tables.error();
  auto packed = (*connection)->integer("SELECT count(*) FROM sqlite_schema WHERE name = 'audit_block'");
  if (!packed) return packed.error();
  if (*tables + *packed != 2)
    return Error{ErrorCode::not_found, "not_found", "The database is empty.", "path"};
  auto transaction = Transaction::begin(**connection, Transaction::Kind::read);
  if (!transaction) return transaction.error();
  return std::unique_ptr<StorageSnapshot>(
      std::make_unique<Snapshot>(std::move(*connection), std::move(*transaction), *packed != 0));
}

}  // namespace mcpgw
