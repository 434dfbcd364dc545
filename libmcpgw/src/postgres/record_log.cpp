#include "postgres/record_log.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "postgres/schema.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::detail::postgres {
namespace {

constexpr Statement kBegin{"begin", "BEGIN"};
constexpr Statement kBeginSnapshot{"begin_snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"};
constexpr Statement kCommit{"commit", "COMMIT"};
constexpr Statement kRollback{"rollback", "ROLLBACK"};
constexpr Statement kState{"state", "SELECT seq, version_floor, purged_seq FROM mcpgw_state"};
constexpr Statement kLockState{"lock_state",
                               "SELECT seq, version_floor, purged_seq FROM mcpgw_state FOR UPDATE"};
// More than the limit are not told one by one.
constexpr Statement kOthers{"others",
                            "SELECT collection, key, CASE WHEN value IS NULL THEN 0 ELSE version END, seq"
                            " FROM mcpgw_record WHERE seq > $1 ORDER BY seq, collection, key LIMIT 10001"};
constexpr int kMaxOthers = 10000;
constexpr Statement kHead{"head",
                          "SELECT version, (value IS NOT NULL)::int FROM mcpgw_record"
                          " WHERE collection=$1 AND key=$2"};
constexpr Statement kWrite{"write",
                           "INSERT INTO mcpgw_record(collection, key, value, version, seq, erased_at)"
                           " VALUES($1, $2, $3, $4, $5, CASE WHEN $3::bytea IS NULL THEN now() END)"
                           " ON CONFLICT(collection, key) DO UPDATE SET value=excluded.value,"
                           " version=excluded.version, seq=excluded.seq, erased_at=excluded.erased_at"};
constexpr Statement kSetSeq{"set_seq", "UPDATE mcpgw_state SET seq=$1"};
constexpr Statement kSign{"sign", "INSERT INTO mcpgw_commit(seq, token) VALUES($1, $2)"};
constexpr Statement kSigned{"signed", "SELECT count(*) FROM mcpgw_commit WHERE seq=$1 AND token=$2"};
constexpr Statement kNotify{"notify", "SELECT pg_notify($1::text, $2::text)"};

/// A record as it stands in the middle of a transaction.
struct Head {
  bool known = false;  ///< there is a row, perhaps a tombstone
  bool alive = false;
  std::uint64_t version = 0;
  bool touched = false;
  std::string_view value;
};
using Heads = std::map<std::pair<std::string_view, std::string_view>, Head>;

/// Checks the conditions and plays the writes through. What is in `heads` afterwards is to be stored.
Result<RecordLog::Outcome> play(const std::vector<Operation>& operations, std::uint64_t floor, Heads& heads) {
  const auto head_of = [&](const Operation& operation) -> Head& {
    return heads[{operation.collection, operation.key}];
  };
  for (const auto& operation : operations) {
    if (!operation.expected_version) continue;
    const auto& head = head_of(operation);
    if ((head.alive ? head.version : 0) != *operation.expected_version) return version_conflict(operation);
  }
  RecordLog::Outcome outcome;
  outcome.versions.reserve(operations.size());
  for (const auto& operation : operations) {
    auto& head = head_of(operation);
    std::uint64_t version = 0;
    if (operation.kind == Operation::Kind::put) {
      version = (head.known ? head.version : floor) + 1;
      head = {true, true, version, true, operation.value};
      outcome.changes.push_back({operation.collection, operation.key, version});
    } else if (operation.kind == Operation::Kind::erase && head.alive) {
      head.alive = false;
      head.touched = true;
      outcome.changes.push_back({operation.collection, operation.key, 0});
    }
    outcome.versions.push_back(version);
  }
  outcome.changes = last_changes(std::move(outcome.changes));
  return outcome;
}

}  // namespace

Status RecordLog::start(Connection& connection, Deadline deadline) {
  connection.send(kState);
  auto answers = connection.run(deadline);
  if (!answers) return answers.error();
  if (answers->front().rows() != 1) return to_error("XX001");
  seen_ = answers->front().integer(0, 0);
  return {};
}

Status RecordLog::take_others(const Answer& state, const Answer& rows, Commits& commits) {
  if (state.rows() != 1) return to_error("XX001");
  const auto latest = state.integer(0, 0), purged = state.integer(0, 2);
  const std::int64_t seen = seen_;
  if (latest == seen) return {};
  Commits found;
  // Whoever was away for longer than tombstones are kept cannot know what was erased. Nor can one whose
  // database was put back to an older state.
  if (purged > seen || latest < seen || rows.rows() > kMaxOthers) {
    found.emplace_back();
  } else {
    std::int64_t last = 0;
    for (int row = 0; row < rows.rows(); ++row) {
      if (const auto seq = rows.integer(row, 3); seq != last) {
        found.emplace_back();
        last = seq;
      }
      found.back().push_back(
          {rows.bytes(row, 0), rows.bytes(row, 1), static_cast<std::uint64_t>(rows.integer(row, 2))});
    }
  }
  seen_ = latest;
  for (auto& changes : found) commits.push_back(std::move(changes));
  return {};
}

Status RecordLog::read_others(Connection& connection, Deadline deadline, Commits& commits) {
  connection.send(kBeginSnapshot);
  connection.send(kState);
  connection.send(kOthers, Parameters().add(seen_.load()));
  connection.send(kCommit);
  auto answers = connection.run(deadline);
  if (!answers) {
    if (!connection.broken()) {
      connection.send(kRollback);
      (void)connection.run(deadline);
    }
    return answers.error();
  }
  return take_others((*answers)[1], (*answers)[2], commits);
}

Result<RecordLog::Outcome> RecordLog::write(Connection& connection, Deadline deadline,
                                            const std::vector<Operation>& operations, std::int64_t token,
                                            Commits& others, bool& fate_open) {
  fate_open = false;
  const auto undo = [&](const Error& error) -> Result<Outcome> {
    if (!connection.broken()) {
      connection.send(kRollback);
      (void)connection.run(deadline);
    }
    return error;
  };
  // First round trip: the lock, then everything as it is under the lock.
  Heads heads;
  for (const auto& operation : operations) heads[{operation.collection, operation.key}];
  connection.send(kBegin);
  connection.send(kLockState);
  connection.send(kOthers, Parameters().add(seen_.load()));
  for (const auto& [name, head] : heads)
    connection.send(kHead, Parameters().add(name.first).add(name.second));
  auto read = connection.run(deadline);
  if (!read) return undo(read.error());
  if (auto ok = take_others((*read)[1], (*read)[2], others); !ok) return undo(ok.error());
  std::size_t at = 3;
  for (auto& [name, head] : heads) {
    const auto& answer = (*read)[at++];
    if (answer.rows() == 0) continue;
    if (answer.integer(0, 0) < 1) return undo(to_error("XX001"));
    head.known = true;
    head.version = static_cast<std::uint64_t>(answer.integer(0, 0));
    head.alive = answer.integer(0, 1) != 0;
  }
  auto outcome = play(operations, static_cast<std::uint64_t>((*read)[1].integer(0, 1)), heads);
  if (!outcome) return undo(outcome.error());
  if (outcome->changes.empty()) {
    (void)undo({});
    return outcome;
  }

  // Second one: the writes and the commit.
  const std::int64_t seq = seen_ + 1;
  for (const auto& [name, head] : heads) {
    if (!head.touched) continue;
    Parameters parameters;
    parameters.add(name.first).add(name.second);
    if (head.alive)
      parameters.add(head.value);
    else
      parameters.add_null();
    connection.send(kWrite, parameters.add(static_cast<std::int64_t>(head.version)).add(seq));
  }
  connection.send(kSetSeq, Parameters().add(seq));
  connection.send(kSign, Parameters().add(seq).add(token));
  connection.send(kNotify, Parameters().add(kChannel).add(std::to_string(seq)));
  connection.send(kCommit);
  auto written = connection.run(deadline);
  if (!written) {
    fate_open = connection.broken();
    if (fate_open) {
      open_seq_ = seq;
      open_ = std::move(*outcome);
    }
    return undo(written.error());
  }
  seen_ = seq;
  return outcome;
}

Result<bool> RecordLog::was_committed(Connection& connection, Deadline deadline, std::int64_t token) {
  // Whoever carries it out still holds the lock until its fate is decided.
  connection.send(kBegin);
  connection.send(kLockState);
  connection.send(kSigned, Parameters().add(open_seq_).add(token));
  connection.send(kRollback);
  auto answers = connection.run(deadline);
  if (!answers) return answers.error();
  return (*answers)[2].integer(0, 0) != 0;
}

RecordLog::Outcome RecordLog::take_open() {
  seen_ = open_seq_;
  return std::move(open_);
}

Status RecordLog::purge(Connection& connection, Deadline deadline) {
  connection.send_text(
      "SELECT count(*) FROM (SELECT FROM mcpgw_record WHERE erased_at < now() - interval '1 day' LIMIT 1) AS "
      "old");
  connection.send_text("DELETE FROM mcpgw_commit WHERE made_at < now() - interval '1 hour'");
  auto old = connection.run(deadline);
  if (!old) return old.error();
  if (old->front().integer(0, 0) == 0) return {};  // spares the lock
  connection.send(kBegin);
  connection.send(kLockState);
  // New records start above the versions that are forgotten here: none of them may come again.
  connection.send_text(
      "WITH gone AS (DELETE FROM mcpgw_record WHERE erased_at < now() - interval '1 day' RETURNING version, "
      "seq)"
      " UPDATE mcpgw_state SET version_floor = greatest(version_floor, (SELECT max(version) FROM gone)),"
      " purged_seq = greatest(purged_seq, (SELECT max(seq) FROM gone))");
  connection.send(kCommit);
  auto done = connection.run(deadline);
  if (done) return {};
  if (!connection.broken()) {
    connection.send(kRollback);
    (void)connection.run(deadline);
  }
  return done.error();
}

}  // namespace mcpgw::detail::postgres
