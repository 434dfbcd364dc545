// Everything in a database file at one moment: one read transaction, which WAL keeps apart from writers.
#include <sys/stat.h>

#include <optional>
#include <utility>

#include "mcpgw/sqlite.hpp"
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
  Snapshot(std::unique_ptr<Connection> connection, Transaction transaction)
      : connection_(std::move(connection)), transaction_(std::move(transaction)) {}

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

 private:
  std::unique_ptr<Connection> connection_;
  Transaction transaction_;  // ends before the connection
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
  if (*tables != 2) return Error{ErrorCode::not_found, "not_found", "The database is empty.", "path"};
  auto transaction = Transaction::begin(**connection, Transaction::Kind::read);
  if (!transaction) return transaction.error();
  return std::unique_ptr<StorageSnapshot>(
      std::make_unique<Snapshot>(std::move(*connection), std::move(*transaction)));
}

}  // namespace mcpgw
