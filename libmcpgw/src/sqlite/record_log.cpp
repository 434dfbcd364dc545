#include "sqlite/record_log.hpp"

#include <utility>

#include "storage/record_rules.hpp"

namespace mcpgw::detail::sqlite {
namespace {

constexpr const char* kReadSeq = "SELECT value FROM meta WHERE name='seq'";
constexpr const char* kReadPurged = "SELECT value FROM meta WHERE name='purged_seq'";

}  // namespace

Status RecordLog::start(Connection& connection) {
  auto seq = connection.integer(kReadSeq);
  if (!seq) return seq.error();
  seen_ = *seq;
  return {};
}

Status RecordLog::read_others(Connection& connection, Commits& commits) {
  auto latest = connection.integer(kReadSeq);
  if (!latest) return latest.error();
  if (*latest == seen_) return {};
  auto purged = connection.integer(kReadPurged);
  if (!purged) return purged.error();

  Commits found;
  // A process that slept for longer than tombstones are kept cannot know what was erased. Nor can one whose
  // file was put back to an older state.
  if (*purged > seen_ || *latest < seen_) found.emplace_back();
  std::int64_t last = 0;
  auto rows = connection.cached(
      "SELECT collection, key, CASE WHEN value IS NULL THEN 0 ELSE version END, seq FROM record"
      " WHERE seq > ?1 ORDER BY seq, rowid");
  rows.bind(seen_);
  for (;;) {
    auto row = rows.step();
    if (!row) return row.error();
    if (!*row) break;
    if (const auto seq = rows.integer(3); seq != last) {
      found.emplace_back();
      last = seq;
    }
    found.back().push_back({rows.bytes(0), rows.bytes(1), static_cast<std::uint64_t>(rows.integer(2))});
  }
  seen_ = *latest;
  for (auto& changes : found) commits.push_back(std::move(changes));
  return {};
}

Result<RecordLog::Outcome> RecordLog::write(Connection& connection, const std::vector<Operation>& operations,
                                            std::int64_t now_s) {
  for (const auto& operation : operations)
    if (auto ok = check(connection, operation); !ok) return ok.error();

  Outcome outcome;
  outcome.versions.reserve(operations.size());
  const std::int64_t seq = seen_ + 1;
  for (const auto& operation : operations) {
    std::int64_t version = 0;
    if (operation.kind == Operation::Kind::put) {
      auto written = put(connection, operation, seq);
      if (!written) return written.error();
      version = *written;
      outcome.changes.push_back({operation.collection, operation.key, static_cast<std::uint64_t>(version)});
    } else if (operation.kind == Operation::Kind::erase) {
      auto erased = erase(connection, operation, seq, now_s);
      if (!erased) return erased.error();
      if (*erased) outcome.changes.push_back({operation.collection, operation.key, 0});
    }
    outcome.versions.push_back(static_cast<std::uint64_t>(version));
  }
  if (!outcome.changes.empty()) {
    if (auto ok = connection.cached("UPDATE meta SET value=?1 WHERE name='seq'").bind(seq).run(); !ok)
      return ok.error();
    outcome.changes = last_changes(std::move(outcome.changes));
  }
  return outcome;
}

Status RecordLog::check(Connection& connection, const Operation& operation) {
  if (!operation.expected_version) return {};
  auto statement =
      connection.cached("SELECT version FROM record WHERE collection=?1 AND key=?2 AND value IS NOT NULL");
  auto row = statement.bind_blob(operation.collection).bind_blob(operation.key).step();
  if (!row) return row.error();
  const auto version = *row ? static_cast<std::uint64_t>(statement.integer(0)) : 0;
  if (version != *operation.expected_version) return version_conflict(operation);
  return {};
}

Result<std::int64_t> RecordLog::put(Connection& connection, const Operation& operation, std::int64_t seq) {
  auto statement = connection.cached(
      "INSERT INTO record(collection, key, value, version, seq)"
      " VALUES(?1, ?2, ?3, 1 + (SELECT value FROM meta WHERE name='version_floor'), ?4)"
      " ON CONFLICT(collection, key) DO UPDATE SET"
      " value=excluded.value, version=record.version+1, seq=excluded.seq, erased_at=NULL"
      " RETURNING version");
  statement.bind_blob(operation.collection).bind_blob(operation.key).bind_text(operation.value).bind(seq);
  auto row = statement.step();
  if (!row) return row.error();
  if (!*row) return to_error(SQLITE_CORRUPT);
  return statement.integer(0);
}

Result<bool> RecordLog::erase(Connection& connection, const Operation& operation, std::int64_t seq,
                              std::int64_t now_s) {
  auto statement = connection.cached(
      "UPDATE record SET value=NULL, seq=?3, erased_at=?4"
      " WHERE collection=?1 AND key=?2 AND value IS NOT NULL");
  statement.bind_blob(operation.collection).bind_blob(operation.key).bind(seq).bind(now_s);
  if (auto ok = statement.run(); !ok) return ok.error();
  return connection.changes() > 0;
}

Result<std::int64_t> RecordLog::purge_tombstones(Connection& connection, std::int64_t cutoff_s) {
  static_assert(kPurgeBatch == 1000, "the limit stands in the statements");
  std::int64_t version = 0;
  std::int64_t seq = 0;
  std::int64_t count = 0;
  {
    auto batch = connection.cached(
        "SELECT max(version), max(seq), count(*) FROM (SELECT version, seq FROM record"
        " WHERE erased_at < ?1 ORDER BY erased_at, rowid LIMIT 1000)");
    auto row = batch.bind(cutoff_s).step();
    if (!row) return row.error();
    version = batch.integer(0);
    seq = batch.integer(1);
    count = batch.integer(2);
  }
  if (count == 0) return count;
  // New records start above the versions that are forgotten here: none of them may come again.
  if (auto ok = connection.cached("UPDATE meta SET value=max(value, ?1) WHERE name='version_floor'")
                    .bind(version)
                    .run();
      !ok)
    return ok.error();
  if (auto ok =
          connection.cached("UPDATE meta SET value=max(value, ?1) WHERE name='purged_seq'").bind(seq).run();
      !ok)
    return ok.error();
  if (auto ok = connection
                    .cached("DELETE FROM record WHERE rowid IN (SELECT rowid FROM record"
                            " WHERE erased_at < ?1 ORDER BY erased_at, rowid LIMIT 1000)")
                    .bind(cutoff_s)
                    .run();
      !ok)
    return ok.error();
  return count;
}

}  // namespace mcpgw::detail::sqlite
