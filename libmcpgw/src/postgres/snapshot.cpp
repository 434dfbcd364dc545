// Everything in a database at one moment: one transaction of repeatable reads.
#include <algorithm>
#include <chrono>
#include <utility>

#include "mcpgw/postgres.hpp"
#include "postgres/audit_row.hpp"
#include "postgres/pool.hpp"
#include "postgres/schema.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw {

using namespace detail::postgres;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr std::int64_t kPageRows = 200;
constexpr Statement kRecords{"snapshot_records",
                             "SELECT collection, key, value, version FROM mcpgw_record"
                             " WHERE (collection, key) > ($1, $2) AND value IS NOT NULL"
                             " ORDER BY collection, key LIMIT $3"};
constexpr Statement kRows{"snapshot_rows",
                          "SELECT " MCPGW_AUDIT_COLUMNS
                          " FROM mcpgw_audit WHERE position > $1 ORDER BY position LIMIT $2"};

class Snapshot final : public StorageSnapshot {
 public:
  Snapshot(std::unique_ptr<Connection> connection, std::chrono::milliseconds limit)
      : connection_(std::move(connection)), limit_(limit) {}

  Result<std::vector<Record>> next_records() override {
    connection_->send(
        kRecords, Parameters().add(std::string_view(collection_)).add(std::string_view(key_)).add(kPageRows));
    auto answers = connection_->run(std::chrono::steady_clock::now() + limit_);
    if (!answers) return answers.error();
    const auto& rows = answers->front();
    std::vector<Record> page;
    for (int row = 0; row < rows.rows(); ++row)
      page.push_back({rows.bytes(row, 0), rows.bytes(row, 1), rows.bytes(row, 2),
                      static_cast<std::uint64_t>(rows.integer(row, 3))});
    if (!page.empty()) {
      collection_ = page.back().collection;
      key_ = page.back().key;
    }
    return page;
  }

  Result<std::vector<AuditRecord>> next_audit_rows() override {
    connection_->send(kRows, Parameters().add(position_).add(kPageRows));
    auto answers = connection_->run(std::chrono::steady_clock::now() + limit_);
    if (!answers) return answers.error();
    const auto& rows = answers->front();
    std::vector<AuditRecord> page;
    for (int row = 0; row < rows.rows(); ++row) {
      page.push_back(read_audit_row(rows, row));
      position_ = rows.integer(row, 0);
    }
    return page;
  }

 private:
  const std::unique_ptr<Connection> connection_;
  const std::chrono::milliseconds limit_;
  std::string collection_, key_;
  std::int64_t position_ = 0;
};

}  // namespace

Result<std::unique_ptr<StorageSnapshot>> snapshot_postgres(const PostgresOptions& options) {
  auto info = connection_info(options);
  if (!info) return info.error();
  const auto limit = info->call_timeout + std::chrono::seconds(1);
  auto connection = Connection::open(*info, std::chrono::steady_clock::now() + limit);
  if (!connection) return connection.error();
  const auto deadline = std::chrono::steady_clock::now() + limit;
  if (auto ok = check_schema(**connection, deadline); !ok) return ok.error();
  // Whoever takes the pages may take his time.
  (*connection)->send_text("SELECT set_config('idle_in_transaction_session_timeout', '0', false)");
  if (auto set = (*connection)->run(deadline); !set) return set.error();
  (*connection)->send_text("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  if (auto begun = (*connection)->run(deadline); !begun) return begun.error();
  return std::unique_ptr<StorageSnapshot>(std::make_unique<Snapshot>(std::move(*connection), limit));
}

}  // namespace mcpgw
