#include "sqlite/audit_store.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/text.hpp"
#include "sqlite/audit_row.hpp"
#include "storage/audit_rules.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::detail::sqlite {
namespace {

constexpr std::size_t kPurgeRows = 500;  // that one transaction removes

// mcpgw_contains(text, lower): the substring test of the text filter, the same as in memory. SQLite's own
// functions end a text at a zero byte.
void contains_function(sqlite3_context* context, int, sqlite3_value** arguments) {
  const auto bytes = [](sqlite3_value* value) {
    const void* data = sqlite3_value_blob(value);
    const auto size = static_cast<std::size_t>(sqlite3_value_bytes(value));
    return data ? std::string_view(static_cast<const char*>(data), size) : std::string_view();
  };
  sqlite3_result_int(context, contains_icase(bytes(arguments[0]), bytes(arguments[1])) ? 1 : 0);
}

// The WHERE clause of a filter and its parameters. Only texts of this file become SQL.
class Where {
 public:
  explicit Where(const AuditFilter& filter) {
    // One index serves a query: that of the most selective column. "+" keeps SQLite, which has no statistics,
    // from choosing another; in the index's order rows are sorted by position already.
    equal("user_id", filter.user_id);
    equal("target_name", filter.target_name);
    unless_common("method", filter.method, "tools/call");
    if (filter.status) {
      const auto range = *parse_status(*filter.status);
      if (range.low >= 400) {
        equal("failed", std::int64_t{1}, " AND failed <> 0");
      } else {
        common("failed = 0", "failed <> 0");
      }
      if (range.low == range.high) add("response_status = ?", std::int64_t{range.low});
    }
    unless_common("decision", filter.decision, "allow");
    unless_common("kind", filter.kind, "mcp");
    if (filter.since) add("created_at >= ?", filter.since->time_since_epoch().count());
    if (filter.until) add("created_at < ?", filter.until->time_since_epoch().count());
    if (filter.text && !filter.text->empty()) {
      std::string any;
      for (const char* column : {"method", "tool", "target_name", "error_code", "user_email"}) {
        any += (any.empty() ? "(mcpgw_contains(" : " OR mcpgw_contains(") + std::string(column) + ", ?)";
        values_.emplace_back(to_lower(*filter.text));
      }
      append(any + ")");
    }
  }

  void before(std::int64_t position) { add("position < ?", position); }

  const std::string& sql() const { return sql_; }
  /// How many rows match. What nearly all rows have in common has no index: then the others are counted.
  std::string count_sql() const {
    if (conditions_ == 1 && !rest_.empty())
      return "SELECT (SELECT count(*) FROM audit) - (SELECT count(*) FROM audit WHERE " + rest_ + ")";
    return "SELECT count(*) FROM audit" + sql_;
  }
  void bind(Statement& statement) const {
    for (const auto& value : values_) {
      if (const auto* number = std::get_if<std::int64_t>(&value))
        statement.bind(*number);
      else
        statement.bind_text(std::get<std::string>(value));
    }
  }

 private:
  using Value = std::variant<std::int64_t, std::string>;

  void append(const std::string& condition) {
    sql_ += (sql_.empty() ? " WHERE " : " AND ") + condition;
    ++conditions_;
  }
  void add(const std::string& condition, Value value) {
    append(condition);
    values_.push_back(std::move(value));
  }
  void equal(const char* column, const std::optional<std::string>& value) {
    if (value) equal(column, Value(*value));
  }
  /// `indexed_part` is the condition of the column's partial index, word by word: else it is not used.
  void equal(const char* column, Value value, const char* indexed_part = "") {
    add((indexed_ ? "+" : "") + std::string(column) + " = ?" + (indexed_ ? "" : indexed_part),
        std::move(value));
    indexed_ = true;
  }
  void unless_common(const char* column, const std::optional<std::string>& value,
                     const std::string& common_one) {
    if (!value) return;
    const std::string others = std::string(column) + " <> '" + common_one + "'";
    if (*value == common_one) {
      common(std::string(column) + " = '" + common_one + "'", others);
    } else {
      equal(column, Value(*value), (" AND " + others).c_str());
    }
  }
  void common(const std::string& condition, std::string others) {
    append(condition);
    rest_ = std::move(others);
  }

  std::string sql_;
  std::vector<Value> values_;
  int conditions_ = 0;
  std::string rest_;  ///< the opposite of a condition that has no index
  bool indexed_ = false;
};

// Several rows a statement: opening the table and its indexes costs as much as a row.
constexpr std::size_t kRowsAtOnce = 16;

const std::string& insert_sql(std::size_t rows) {
  static const auto make = [](std::size_t count) {
    std::string sql =
        "INSERT INTO audit(id, kind, created_at, session_id, user_id, user_email, method, target_name, tool,"
        " decision, policy_id, policy_name, response_status, failed, error_code, duration_ms, bytes_in,"
        " bytes_out, client_ip, client_name, trace_id, request_body) VALUES";
    for (std::size_t i = 0; i < count; ++i)
      sql += std::string(i == 0 ? "" : ",") + "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
    return sql + " ON CONFLICT(id) DO NOTHING";
  };
  static const std::string one = make(1);
  static const std::string several = make(kRowsAtOnce);
  return rows == 1 ? one : several;
}

void bind_record(Statement& statement, const AuditRecord& record) {
  if (record.id.empty())
    statement.bind_null();  // any number of rows may have none
  else
    statement.bind_text(record.id);
  statement.bind_text(record.kind)
      .bind(record.created_at.time_since_epoch().count())
      .bind_text(record.session_id)
      .bind_text(record.user_id)
      .bind_text(record.user_email)
      .bind_text(record.method)
      .bind_text(record.target_name)
      .bind_text(record.tool)
      .bind_text(record.decision)
      .bind_text(record.policy_id)
      .bind_text(record.policy_name)
      .bind(record.response_status)
      .bind(record.response_status >= 400 ? 1 : 0)
      .bind_text(record.error_code)
      .bind(record.duration_ms)
      .bind(record.bytes_in)
      .bind(record.bytes_out)
      .bind_text(record.client_ip)
      .bind_text(record.client_name)
      .bind_text(record.trace_id)
      .bind_text(record.request_body);
}

class AuditStore final : public AuditSink {
 public:
  explicit AuditStore(std::shared_ptr<Database> database) : database_(std::move(database)) {}

  Status append(const std::vector<AuditRecord>& batch) override {
    if (batch.empty()) return {};
    const auto turn = database_->write_turn();
    if (!turn) return storage_unavailable();
    const auto connection = database_->audit_writer();
    if (connection->file_moved()) return storage_unavailable();
    auto transaction = Transaction::begin(*connection, Transaction::Kind::write);
    if (!transaction) return transaction.error();
    for (std::size_t i = 0; i < batch.size();) {
      const std::size_t rows = batch.size() - i >= kRowsAtOnce ? kRowsAtOnce : 1;
      auto statement = connection->cached(insert_sql(rows).c_str());
      for (const std::size_t end = i + rows; i < end; ++i) bind_record(statement, batch[i]);
      if (auto ok = statement.run(); !ok) return ok;
    }
    return transaction->commit();
  }

  Result<AuditPage> query(const AuditQuery& query) override {
    if (auto ok = check_audit_query(query); !ok) return ok.error();
    Where where(query.filter);
    const auto connection = database_->audit_reader();
    // One snapshot: the total and the page belong together.
    auto transaction = Transaction::begin(*connection, Transaction::Kind::read);
    if (!transaction) return transaction.error();
    AuditPage page;
    {
      auto count = connection->prepare(where.count_sql());
      where.bind(count);
      auto row = count.step();
      if (!row) return row.error();
      page.total = static_cast<std::uint64_t>(count.integer(0));
    }
    const std::size_t limit = std::min(query.limit, kMaxAuditPage);
    if (limit == 0) return page;
    if (query.before != 0) where.before(query.before);
    // Positions first: sorting and skipping whole rows would drag their bodies along. One more tells whether
    // there is a next page.
    auto rows = connection->prepare(
        "SELECT " MCPGW_AUDIT_COLUMNS " FROM audit WHERE position IN (SELECT position FROM audit" +
        where.sql() + " ORDER BY position DESC LIMIT ? OFFSET ?) ORDER BY position DESC");
    where.bind(rows);
    rows.bind(static_cast<std::int64_t>(limit) + 1).bind(static_cast<std::int64_t>(query.offset));
    std::int64_t last = 0;
    for (;;) {
      auto row = rows.step();
      if (!row) return row.error();
      if (!*row) return page;
      if (page.records.size() == limit) {
        page.next = last;
        return page;
      }
      last = rows.integer(0);
      page.records.push_back(read_audit_row(rows));
    }
  }

  Result<std::uint64_t> purge(Time cutoff) override {
    std::uint64_t purged = 0;
    for (;;) {  // each batch in a turn of its own, so that writers wait for one at most
      const auto turn = database_->write_turn();
      if (!turn) return storage_unavailable();
      const auto connection = database_->audit_writer();
      auto transaction = Transaction::begin(*connection, Transaction::Kind::write);
      if (!transaction) return transaction.error();
      if (auto ok = connection
                        ->cached("DELETE FROM audit WHERE position IN"
                                 " (SELECT position FROM audit WHERE created_at < ?1 LIMIT ?2)")
                        .bind(cutoff.time_since_epoch().count())
                        .bind(std::int64_t{kPurgeRows})
                        .run();
          !ok)
        return ok.error();
      const auto count = static_cast<std::uint64_t>(connection->changes());
      if (auto ok = transaction->commit(); !ok) return ok.error();
      purged += count;
      if (count < kPurgeRows) return purged;
    }
  }

 private:
  const std::shared_ptr<Database> database_;
};

}  // namespace

Result<std::shared_ptr<AuditSink>> open_audit_store(std::shared_ptr<Database> database) {
  const auto connection = database->audit_reader();
  const int code = sqlite3_create_function_v2(connection->handle(), "mcpgw_contains", 2,
                                              SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY, nullptr,
                                              contains_function, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return to_error(code);
  return std::shared_ptr<AuditSink>(std::make_shared<AuditStore>(database));
}

}  // namespace mcpgw::detail::sqlite
