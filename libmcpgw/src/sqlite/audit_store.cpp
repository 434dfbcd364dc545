#include "sqlite/audit_store.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "sqlite/audit_row.hpp"
#include "storage/audit_rules.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::detail::sqlite {
namespace {

constexpr std::size_t kBlockRows = 500;
constexpr std::size_t kBlockBytes = 256 * 1024;
constexpr std::size_t kBlockTexts = 1024 * 1024;  // whoever reads a row of a block has all of its texts
constexpr std::int64_t kPurgeBlocks = 4;          // that one transaction looks through

Error damaged() { return to_error(SQLITE_CORRUPT); }

Status insert_block(Connection& connection, const BlockWriter& block) {
  auto insert = connection.cached(
      "INSERT INTO audit_block(first, rows, oldest, newest, first_id, data) VALUES(?,?,?,?,?,?)");
  insert.bind(block.first())
      .bind(static_cast<std::int64_t>(block.rows()))
      .bind(block.oldest())
      .bind(block.newest());
  if (block.first_id().empty())
    insert.bind_null();
  else
    insert.bind_text(block.first_id());
  insert.bind_blob(block.data());
  if (auto ok = insert.run(); !ok) return ok;
  auto key = connection.cached("INSERT INTO audit_key(what, value, first, rows) VALUES(?,?,?,?)");
  for (const auto& [found, rows] : block.keys()) {
    key.reset();
    key.bind(static_cast<int>(found.first)).bind_blob(found.second).bind(block.first()).bind(rows);
    if (auto ok = key.run(); !ok) return ok;
  }
  return {};
}

Status erase_block(Connection& connection, std::int64_t first, const BlockKeys& keys) {
  if (auto ok = connection.cached("DELETE FROM audit_block WHERE first = ?1").bind(first).run(); !ok)
    return ok;
  auto erase = connection.cached("DELETE FROM audit_key WHERE what = ?1 AND value = ?2 AND first = ?3");
  for (const auto& [found, rows] : keys) {
    erase.reset();
    erase.bind(static_cast<int>(found.first)).bind_blob(found.second).bind(first);
    if (auto ok = erase.run(); !ok) return ok;
  }
  return {};
}

Result<std::int64_t> meta_value(Connection& connection, std::string_view name) {
  auto statement = connection.cached("SELECT value FROM meta WHERE name = ?1");
  auto row = statement.bind_text(name).step();
  if (!row) return row.error();
  if (!*row) return damaged();
  return statement.integer(0);
}

Result<std::string> block_data(Connection& connection, std::int64_t first) {
  auto statement = connection.cached("SELECT data FROM audit_block WHERE first = ?1");
  auto row = statement.bind(first).step();
  if (!row) return row.error();
  if (!*row) return damaged();
  return statement.bytes(0);
}

/// What a query asks for: which blocks may hold it, and which of their rows are it.
class Search {
 public:
  explicit Search(const AuditFilter& filter)
      : filter_(filter),
        status_(filter.status ? *parse_status(*filter.status) : StatusRange{}),
        text_(to_lower(filter.text.value_or(""))) {
    key(BlockKey::user, filter.user_id);
    key(BlockKey::target, filter.target_name);
    key(BlockKey::method, filter.method);
    key(BlockKey::decision, filter.decision);
    key(BlockKey::kind, filter.kind);
    if (filter.status) {
      // "ok" and "error" say all about a row, a number does not.
      key(BlockKey::failed, status_.low >= 400 ? "1" : "");
      others_ |= *filter.status != "ok" && *filter.status != "error";
    }
    others_ |= filter.since || filter.until || !text_.empty();
  }

  bool matches(const PackedRow& row) const {
    const auto is = [&](const std::optional<std::string>& wanted, PackedRow::Text text) {
      return !wanted || *wanted == row.text[text];
    };
    const auto has = [&](PackedRow::Text text) { return contains_icase(row.text[text], text_); };
    return is(filter_.user_id, PackedRow::user_id) && is(filter_.target_name, PackedRow::target_name) &&
           is(filter_.method, PackedRow::method) && is(filter_.decision, PackedRow::decision) &&
           is(filter_.kind, PackedRow::kind) && row.response_status >= status_.low &&
           row.response_status <= status_.high &&
           (!filter_.since || row.created_at >= filter_.since->time_since_epoch().count()) &&
           (!filter_.until || row.created_at < filter_.until->time_since_epoch().count()) &&
           (text_.empty() || has(PackedRow::method) || has(PackedRow::tool) || has(PackedRow::target_name) ||
            has(PackedRow::error_code) || has(PackedRow::user_email));
  }

  /// Whether blocks() tells how many rows of each are wanted.
  bool counted() const { return !others_ && keys_.size() + common_.size() <= (keys_.empty() ? 0 : 1); }

  /// How many rows match, where that is known without reading them.
  Result<std::optional<std::uint64_t>> total(Connection& connection) const {
    if (others_ || keys_.size() + common_.size() > 1) return std::optional<std::uint64_t>();
    std::int64_t out = 0;
    if (keys_.empty()) {
      auto rows = meta_value(connection, "audit_rows");
      if (!rows) return rows.error();
      out = *rows;
    }
    if (!common_.empty() || !keys_.empty()) {
      auto sum =
          connection.prepare(std::string("SELECT coalesce(sum(rows), 0) FROM audit_key WHERE what = ?") +
                             (keys_.empty() ? "" : " AND value = ?"));
      if (keys_.empty())
        sum.bind(static_cast<int>(common_.front()));
      else
        sum.bind(static_cast<int>(keys_.front().first)).bind_blob(keys_.front().second);
      auto row = sum.step();
      if (!row) return row.error();
      out = keys_.empty() ? out - sum.integer(0) : sum.integer(0);
    }
    return std::optional(static_cast<std::uint64_t>(out));
  }

  /// The blocks that may hold it, newest first: their first position, and how many rows (see counted()).
  /// `before`: only those that begin before this position; 0: all. Only texts of this file become SQL.
  Statement blocks(Connection& connection, std::int64_t before) const {
    // The first key leads, since it is the most selective one; "+" keeps SQLite from choosing otherwise.
    std::string sql = keys_.empty() ? "SELECT first, rows FROM audit_block WHERE 1"
                                    : "SELECT first, rows FROM audit_key AS k WHERE what = ? AND value = ?";
    if (before != 0) sql += " AND first < ?";
    if (keys_.empty()) {
      if (filter_.since) sql += " AND newest >= ?";
      if (filter_.until) sql += " AND +oldest < ?";
    } else if (filter_.since || filter_.until) {
      sql += " AND EXISTS (SELECT 1 FROM audit_block AS b WHERE b.first = k.first";
      if (filter_.since) sql += " AND newest >= ?";
      if (filter_.until) sql += " AND +oldest < ?";
      sql += ")";
    }
    for (std::size_t i = 1; i < keys_.size(); ++i)
      sql +=
          " AND EXISTS (SELECT 1 FROM audit_key AS o WHERE o.what = ? AND o.value = ? AND o.first = k.first)";
    auto out = connection.prepare(sql + " ORDER BY first DESC");
    const auto bind_key = [&](const auto& one) {
      out.bind(static_cast<int>(one.first)).bind_blob(one.second);
    };
    if (!keys_.empty()) bind_key(keys_.front());
    if (before != 0) out.bind(before);
    if (filter_.since) out.bind(filter_.since->time_since_epoch().count());
    if (filter_.until) out.bind(filter_.until->time_since_epoch().count());
    for (std::size_t i = 1; i < keys_.size(); ++i) bind_key(keys_[i]);
    return out;
  }

 private:
  void key(BlockKey key, const std::optional<std::string>& value) {
    if (!value) return;
    if (block_key(key, *value))
      keys_.emplace_back(key, *value);
    else
      common_.push_back(key);
  }

  const AuditFilter& filter_;
  const StatusRange status_;
  const std::string text_;
  std::vector<std::pair<BlockKey, std::string>> keys_;
  std::vector<BlockKey> common_;  ///< asked for, but in nearly all blocks
  bool others_ = false;           ///< there are conditions that no key tells of
};

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
    auto known = stored_already(*connection, batch);
    if (!known) return known.error();
    auto next = meta_value(*connection, "audit_next");
    if (!next) return next.error();
    std::int64_t position = *next;
    for (auto record = batch.begin(); record != batch.end();) {
      BlockWriter block;
      for (; record != batch.end() && block.rows() < kBlockRows && block.data().size() < kBlockBytes &&
             block.text_bytes() < kBlockTexts;
           ++record)
        if (known->empty() || record->id.empty() || known->count(record->id) == 0)
          block.add(*record, position++);
      if (block.rows() == 0) continue;
      if (auto ok = insert_block(*connection, block); !ok) return ok;
    }
    if (auto ok =
            connection
                ->cached("UPDATE meta SET value = value + ?1 WHERE name IN ('audit_next', 'audit_rows')")
                .bind(position - *next)
                .run();
        !ok)
      return ok;
    return transaction->commit();
  }

  Result<AuditPage> query(const AuditQuery& query) override {
    if (auto ok = check_audit_query(query); !ok) return ok.error();
    const Search search(query.filter);
    const auto connection = database_->audit_reader();
    // One snapshot: the total and the page belong together.
    auto transaction = Transaction::begin(*connection, Transaction::Kind::read);
    if (!transaction) return transaction.error();
    auto total = search.total(*connection);
    if (!total) return total.error();
    AuditPage page;
    if (*total) page.total = **total;
    const std::size_t limit = std::min(query.limit, kMaxAuditPage);
    if (*total && limit == 0) return page;

    auto blocks = search.blocks(*connection, *total ? query.before : 0);
    auto skip = static_cast<std::int64_t>(query.offset);
    std::int64_t last = 0;
    for (;;) {
      auto found = blocks.step();
      if (!found) return found.error();
      if (!*found) return page;
      const std::int64_t first = blocks.integer(0), count = blocks.integer(1);
      if (search.counted() && query.before == 0 && skip >= count) {
        skip -= count;
        continue;
      }
      auto data = block_data(*connection, first);
      if (!data) return data.error();
      const auto rows = read_block(*data, first);
      if (!rows) return damaged();
      for (auto row = rows->rbegin(); row != rows->rend(); ++row) {
        if (!search.matches(*row)) continue;
        if (!*total) ++page.total;
        if (query.before != 0 && row->position >= query.before) continue;
        if (skip > 0) {
          --skip;
        } else if (page.records.size() < limit) {
          page.records.push_back(row->record());
          last = row->position;
        } else {
          page.next = last;  // 0 when the limit is 0: there is no page to continue from
          if (*total) return page;
        }
      }
    }
  }

  Result<std::uint64_t> purge(Time cutoff) override {
    std::uint64_t purged = 0;
    for (;;) {  // a few blocks in a turn of their own, so that writers wait for one at most
      const auto turn = database_->write_turn();
      if (!turn) return storage_unavailable();
      const auto connection = database_->audit_writer();
      auto transaction = Transaction::begin(*connection, Transaction::Kind::write);
      if (!transaction) return transaction.error();
      std::vector<std::int64_t> blocks;
      {
        auto old = connection->cached("SELECT first FROM audit_block WHERE oldest < ?1 LIMIT ?2");
        old.bind(cutoff.time_since_epoch().count()).bind(kPurgeBlocks);
        for (;;) {
          auto row = old.step();
          if (!row) return row.error();
          if (!*row) break;
          blocks.push_back(old.integer(0));
        }
      }
      if (blocks.empty()) return purged;
      std::int64_t removed = 0;
      for (const std::int64_t first : blocks) {
        auto gone = thin_out(*connection, first, cutoff.time_since_epoch().count());
        if (!gone) return gone.error();
        removed += *gone;
      }
      if (auto ok = connection->cached("UPDATE meta SET value = value - ?1 WHERE name = 'audit_rows'")
                        .bind(removed)
                        .run();
          !ok)
        return ok.error();
      if (auto ok = transaction->commit(); !ok) return ok.error();
      purged += static_cast<std::uint64_t>(removed);
    }
  }

 private:
  /// The ids of the batch's rows that are there, when it was stored before: then a block begins with its
  /// first.
  static Result<std::unordered_set<std::string>> stored_already(Connection& connection,
                                                                const std::vector<AuditRecord>& batch) {
    std::unordered_set<std::string> out;
    const auto named =
        std::find_if(batch.begin(), batch.end(), [](const AuditRecord& one) { return !one.id.empty(); });
    if (named == batch.end()) return out;
    std::vector<std::int64_t> blocks;
    {
      auto begins = connection.cached("SELECT min(first) FROM audit_block WHERE first_id = ?1");
      auto row = begins.bind_text(named->id).step();
      if (!row) return row.error();
      if (!*row || begins.is_null(0)) return out;
      blocks.push_back(begins.integer(0));
    }
    {
      auto later = connection.cached("SELECT first FROM audit_block WHERE first > ?1");
      later.bind(blocks.front());
      for (;;) {
        auto row = later.step();
        if (!row) return row.error();
        if (!*row) break;
        blocks.push_back(later.integer(0));
      }
    }
    for (const std::int64_t first : blocks) {
      auto data = block_data(connection, first);
      if (!data) return data.error();
      const auto rows = read_block(*data, first);
      if (!rows) return damaged();
      for (const PackedRow& row : *rows) out.emplace(row.text[PackedRow::id]);
    }
    return out;
  }

  /// Removes what is older from a block; how many rows that were.
  static Result<std::int64_t> thin_out(Connection& connection, std::int64_t first, std::int64_t cutoff) {
    auto data = block_data(connection, first);
    if (!data) return data.error();
    const auto rows = read_block(*data, first);
    if (!rows) return damaged();
    BlockWriter before, after;
    for (const PackedRow& row : *rows) {
      before.add(row);
      if (row.created_at >= cutoff) after.add(row);
    }
    if (auto ok = erase_block(connection, first, before.keys()); !ok) return ok.error();
    if (after.rows() > 0)
      if (auto ok = insert_block(connection, after); !ok) return ok.error();
    return static_cast<std::int64_t>(before.rows() - after.rows());
  }

  const std::shared_ptr<Database> database_;
};

}  // namespace

Result<std::shared_ptr<AuditSink>> open_audit_store(std::shared_ptr<Database> database) {
  return std::shared_ptr<AuditSink>(std::make_shared<AuditStore>(std::move(database)));
}

Status pack_audit_rows(Connection& connection) {
  auto rows = connection.prepare("SELECT " MCPGW_AUDIT_COLUMNS " FROM audit ORDER BY position");
  std::int64_t count = 0;
  for (bool more = true; more;) {
    std::vector<AuditRecord> records;
    std::vector<std::int64_t> positions;
    std::size_t bytes = 0;
    while (records.size() < kBlockRows && bytes < kBlockBytes) {
      auto row = rows.step();
      if (!row) return row.error();
      more = *row;
      if (!more) break;
      positions.push_back(rows.integer(0));
      records.push_back(read_audit_row(rows));
      bytes += records.back().request_body.size();
    }
    if (records.empty()) break;
    BlockWriter block;
    for (std::size_t i = 0; i < records.size(); ++i) block.add(records[i], positions[i]);
    if (auto ok = insert_block(connection, block); !ok) return ok;
    count += static_cast<std::int64_t>(records.size());
  }
  auto highest =
      connection.integer("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'audit'), 0)");
  if (!highest) return highest.error();
  if (auto ok =
          connection.cached("INSERT INTO meta(name, value) VALUES('audit_next', ?1), ('audit_rows', ?2)")
              .bind(*highest + 1)
              .bind(count)
              .run();
      !ok)
    return ok;
  { const auto ended = std::move(rows); }  // a table that is read cannot be dropped
  return connection.execute("DROP TABLE audit");
}

}  // namespace mcpgw::detail::sqlite
