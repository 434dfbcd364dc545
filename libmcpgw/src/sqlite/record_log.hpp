// RecordLog: commits and their order. Every commit has a number (seq) in the file, so that each process can
// tell which commits of others it has not told its watchers yet. See record_log.cpp.
//
// Threads: the functions that take a write turn are called with it held; it protects the member.
#pragma once

#include <cstdint>
#include <vector>

#include "mcpgw/storage.hpp"
#include "sqlite/connection.hpp"

namespace mcpgw::detail::sqlite {

class RecordLog {
 public:
  /// Commits by others are told from here on.
  Status start(Connection& connection);

  /// One commit's changes; an empty list when erasures were forgotten before they could be read.
  using Commits = std::vector<std::vector<Change>>;

  /// Adds the commits of other processes since the last call. Within a transaction.
  Status read_others(Connection& connection, Commits& commits);

  /// Checks and writes `operations` within a write transaction, after read_others(). The caller commits and
  /// then calls committed().
  struct Outcome {
    std::vector<std::uint64_t> versions;
    std::vector<Change> changes;  ///< empty: nothing was written
  };
  Result<Outcome> write(Connection& connection, const std::vector<Operation>& operations, std::int64_t now_s);
  void committed() { ++seen_; }

  /// Forgets at most a batch of the records erased before `cutoff_s`, within a write transaction. Returns how
  /// many; fewer than kPurgeBatch: done.
  static Result<std::int64_t> purge_tombstones(Connection& connection, std::int64_t cutoff_s);
  static constexpr std::int64_t kPurgeBatch = 1000;

 private:
  static Status check(Connection& connection, const Operation& operation);
  static Result<std::int64_t> put(Connection& connection, const Operation& operation, std::int64_t seq);
  static Result<bool> erase(Connection& connection, const Operation& operation, std::int64_t seq,
                            std::int64_t now_s);

  std::int64_t seen_ = 0;  // the last seq that was told to the watchers
};

}  // namespace mcpgw::detail::sqlite
