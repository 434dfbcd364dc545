#include "postgres/audit_store.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "postgres/audit_row.hpp"
#include "postgres/schema.hpp"
#include "storage/audit_rules.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::detail::postgres {
namespace {

constexpr std::int64_t kPurgeRows = 500;  // that one transaction removes

// The WHERE clause of a filter and its parameters. Only texts of this file become SQL.
class Where {
 public:
  explicit Where(const AuditFilter& filter) {
    equal("user_id", filter.user_id);
    equal("target_name", filter.target_name);
    equal("method", filter.method);
    if (filter.status) {
      const auto range = *parse_status(*filter.status);
      if (range.low >= 400) append("response_status >= 400");  // as the index says it
      if (range.low == range.high)
        append("response_status = " + number(range.low));
      else if (range.high < 400)
        append("response_status < 400");
    }
    equal("decision", filter.decision);
    equal("kind", filter.kind);
    if (filter.since) append("created_at >= " + number(filter.since->time_since_epoch().count()));
    if (filter.until) append("created_at < " + number(filter.until->time_since_epoch().count()));
    if (filter.text && !filter.text->empty()) {
      const auto text = add(to_stored(to_lower(*filter.text)));
      std::string any;
      for (const char* column : {"method", "tool", "target_name", "error_code", "user_email"})
        any += (any.empty() ? "(strpos(lower(" : " OR strpos(lower(") + std::string(column) + "), " + text +
               ") > 0";
      append(any + ")");
    }
  }

  void before(std::int64_t position) { append("position < " + number(position)); }
  /// A parameter, as it stands in the SQL.
  std::string number(std::int64_t value) {
    parameters_.add(value);
    return "$" + std::to_string(++count_) + "::bigint";
  }

  const std::string& sql() const { return sql_; }
  const Parameters& parameters() const { return parameters_; }

 private:
  std::string add(const std::string& text) {
    parameters_.add(std::string_view(text));
    return "$" + std::to_string(++count_) + "::text COLLATE \"C\"";
  }
  void append(const std::string& condition) { sql_ += (sql_.empty() ? " WHERE " : " AND ") + condition; }
  void equal(const char* column, const std::optional<std::string>& value) {
    if (value) append(std::string(column) + " = " + add(to_stored(*value)));
  }

  std::string sql_;
  Parameters parameters_;
  int count_ = 0;
};

constexpr Statement kBegin{"begin", "BEGIN"};
constexpr Statement kBeginSnapshot{"begin_snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"};
constexpr Statement kCommit{"commit", "COMMIT"};
constexpr Statement kRollback{"rollback", "ROLLBACK"};
// One append at a time, so that positions appear in their order: a cursor passes over none.
constexpr Statement kLock{"audit_lock", "SELECT pg_advisory_xact_lock($1)"};
constexpr Statement kInsert{
    "audit_insert",
    "INSERT INTO mcpgw_audit(id, kind, created_at, session_id, user_id, user_email, method, target_name, "
    "tool,"
    " decision, policy_id, policy_name, response_status, error_code, duration_ms, bytes_in, bytes_out,"
    " client_ip, client_name, trace_id, request_body)"
    " VALUES($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21)"
    " ON CONFLICT(id) DO NOTHING"};
constexpr Statement kPurge{"audit_purge",
                           "DELETE FROM mcpgw_audit WHERE position IN"
                           " (SELECT position FROM mcpgw_audit WHERE created_at < $1 LIMIT $2)"};

Parameters parameters_of(const AuditRecord& record) {
  Parameters out;
  const auto text = [&](const std::string& member) { out.add(std::string_view(to_stored(member))); };
  if (record.id.empty())
    out.add_null();  // any number of rows may have none
  else
    text(record.id);
  text(record.kind);
  out.add(std::int64_t{record.created_at.time_since_epoch().count()});
  for (const auto* member :
       {&record.session_id, &record.user_id, &record.user_email, &record.method, &record.target_name,
        &record.tool, &record.decision, &record.policy_id, &record.policy_name})
    text(*member);
  out.add(std::int64_t{record.response_status});
  text(record.error_code);
  out.add(record.duration_ms).add(record.bytes_in).add(record.bytes_out);
  for (const auto* member : {&record.client_ip, &record.client_name, &record.trace_id, &record.request_body})
    text(*member);
  return out;
}

class AuditStore final : public AuditSink {
 public:
  explicit AuditStore(std::shared_ptr<Pool> pool) : pool_(std::move(pool)) {}

  Status append(const std::vector<AuditRecord>& batch) override {
    if (batch.empty()) return {};
    auto done = transact(kBegin, [&](Connection& connection) {
      connection.send(kLock, Parameters().add(kAuditLock));
      for (const auto& record : batch) connection.send(kInsert, parameters_of(record));
    });
    if (!done) return done.error();
    return {};
  }

  Result<AuditPage> query(const AuditQuery& query) override {
    if (auto ok = check_audit_query(query); !ok) return ok.error();
    const Where matches(query.filter);
    const std::size_t limit = std::min(query.limit, kMaxAuditPage);
    // One snapshot: the total and the page belong together.
    auto answers = transact(kBeginSnapshot, [&](Connection& connection) {
      connection.send_text("SELECT count(*) FROM mcpgw_audit" + matches.sql(), matches.parameters());
      if (limit == 0) return;
      Where where(query.filter);
      if (query.before != 0) where.before(query.before);
      // Positions first: sorting and skipping whole rows would drag their bodies along. One more tells
      // whether there is a next page.
      const auto page_limit = where.number(static_cast<std::int64_t>(limit) + 1);
      const auto offset = where.number(static_cast<std::int64_t>(query.offset));
      connection.send_text("SELECT " MCPGW_AUDIT_COLUMNS
                           " FROM mcpgw_audit WHERE position IN (SELECT position FROM mcpgw_audit" +
                               where.sql() + " ORDER BY position DESC LIMIT " + page_limit + " OFFSET " +
                               offset + ") ORDER BY position DESC",
                           where.parameters());
    });
    if (!answers) return answers.error();
    AuditPage page;
    page.total = static_cast<std::uint64_t>((*answers)[1].integer(0, 0));
    if (limit == 0) return page;
    const auto& rows = (*answers)[2];
    for (int row = 0; row < rows.rows(); ++row) {
      if (page.records.size() == limit) {
        page.next = rows.integer(row - 1, 0);
        break;
      }
      page.records.push_back(read_audit_row(rows, row));
    }
    return page;
  }

  Result<std::uint64_t> purge(Time cutoff) override {
    std::uint64_t purged = 0;
    for (;;) {
      auto done = transact(kBegin, [&](Connection& connection) {
        connection.send(kPurge,
                        Parameters().add(std::int64_t{cutoff.time_since_epoch().count()}).add(kPurgeRows));
      });
      if (!done) return done.error();
      const auto count = (*done)[1].affected();
      purged += count;
      if (count < static_cast<std::uint64_t>(kPurgeRows)) return purged;
    }
  }

 private:
  /// One round trip: begin, what `fill` sends, commit. Everything here may be repeated.
  template <class Fill>
  Result<std::vector<Answer>> transact(const Statement& begin, Fill&& fill) {
    using Answers = std::vector<Answer>;
    const auto deadline = pool_->call_deadline();
    return with_connection<Answers>(*pool_, deadline, [&](Connection& connection) -> Result<Answers> {
      connection.send(begin);
      fill(connection);
      connection.send(kCommit);
      auto answers = connection.run(deadline);
      if (!answers && !connection.broken() && !connection.idle()) {
        connection.send(kRollback);
        (void)connection.run(deadline);
      }
      return answers;
    });
  }

  const std::shared_ptr<Pool> pool_;
};

}  // namespace

std::shared_ptr<AuditSink> make_audit_store(std::shared_ptr<Pool> pool) {
  return std::make_shared<AuditStore>(std::move(pool));
}

}  // namespace mcpgw::detail::postgres
