#include "postgres/audit_store.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "postgres/schema.hpp"
#include "storage/audit_rules.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::detail::postgres {
namespace {

constexpr std::int64_t kPurgeRows = 500;  // that one transaction removes

// PostgreSQL's texts hold no zero byte: it is written as the noncharacter U+FFFF and "0", that one itself as
// U+FFFF and "1". The noncharacter begins every escape and nothing else, so substrings are found as they are.
constexpr std::string_view kEscape = "\xef\xbf\xbf";
constexpr std::string_view kZero("\0", 1);
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

std::string to_stored(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\0') {
      out.append(kEscape).append("0");
    } else if (text.compare(i, kEscape.size(), kEscape) == 0) {
      out.append(kEscape).append("1");
      i += kEscape.size() - 1;
    } else {
      out += text[i];
    }
  }
  if (is_utf8(out)) return out;
  // A text against the rules must not keep the whole batch out for ever.
  std::string mended;
  for (std::size_t i = 0; i < out.size();) {
    std::size_t size = 1;
    while (size <= 4 && i + size <= out.size() && !is_utf8(std::string_view(out).substr(i, size))) ++size;
    if (size <= 4 && i + size <= out.size()) {
      mended.append(out, i, size);
      i += size;
    } else {
      mended += kReplacement;
      ++i;
    }
  }
  return mended;
}

std::string from_stored(std::string text) {
  for (auto at = text.find(kEscape); at != std::string::npos; at = text.find(kEscape, at)) {
    const bool zero = text.compare(at + kEscape.size(), 1, "0") == 0;
    const auto plain = zero ? kZero : kEscape;
    text.replace(at, kEscape.size() + 1, plain);
    at += plain.size();
  }
  return text;
}

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

AuditRecord read_record(const Answer& rows, int row) {
  AuditRecord record;
  int column = 0;
  const auto text = [&](std::string& member) { member = from_stored(rows.bytes(row, ++column)); };
  const auto number = [&](auto& member) {
    member = static_cast<std::remove_reference_t<decltype(member)>>(rows.integer(row, ++column));
  };
  text(record.id);
  text(record.kind);
  std::int64_t created_at = 0;
  number(created_at);
  record.created_at = Time(Duration(created_at));
  for (auto* member :
       {&record.session_id, &record.user_id, &record.user_email, &record.method, &record.target_name,
        &record.tool, &record.decision, &record.policy_id, &record.policy_name})
    text(*member);
  number(record.response_status);
  text(record.error_code);
  number(record.duration_ms);
  number(record.bytes_in);
  number(record.bytes_out);
  for (auto* member : {&record.client_ip, &record.client_name, &record.trace_id, &record.request_body})
    text(*member);
  return record;
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
      connection.send_text(
          "SELECT position, id, kind, created_at, session_id, user_id, user_email, method, target_name, tool,"
          " decision, policy_id, policy_name, response_status, error_code, duration_ms, bytes_in, bytes_out,"
          " client_ip, client_name, trace_id, request_body FROM mcpgw_audit WHERE position IN (SELECT "
          "position"
          " FROM mcpgw_audit" +
              where.sql() + " ORDER BY position DESC LIMIT " + page_limit + " OFFSET " + offset +
              ") ORDER BY position DESC",
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
      page.records.push_back(read_record(rows, row));
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
