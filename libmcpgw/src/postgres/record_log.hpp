// RecordLog: commits and their order. Every commit locks the one row of mcpgw_state and takes the next number
// (seq), so all replicas agree on the order, and each can tell which commits it has not told its watchers
// yet.
//
// Threads: called with the turn to write held, which protects the member; seen() from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "mcpgw/storage.hpp"
#include "postgres/connection.hpp"

namespace mcpgw::detail::postgres {

class RecordLog {
 public:
  /// Commits by others are told from here on.
  Status start(Connection& connection, Deadline deadline);
  std::int64_t seen() const { return seen_; }

  /// One commit's changes; an empty list when some cannot be known any more.
  using Commits = std::vector<std::vector<Change>>;

  /// Adds the commits that have not been told.
  Status read_others(Connection& connection, Deadline deadline, Commits& commits);

  struct Outcome {
    std::vector<std::uint64_t> versions;
    std::vector<Change> changes;  ///< empty: nothing was written
  };
  /// Carries out a whole transaction. Commits of others that precede it are added to `others` whatever
  /// becomes of it. When the connection broke, `fate_open` says whether it may have been committed all the
  /// same.
  Result<Outcome> write(Connection& connection, Deadline deadline, const std::vector<Operation>& operations,
                        std::int64_t token, Commits& others, bool& fate_open);
  /// After that: whether the commit with `token` was made. Waits for one that is still under way.
  Result<bool> was_committed(Connection& connection, Deadline deadline, std::int64_t token);
  /// The transaction whose fate was open was made: this is its outcome.
  Outcome take_open();

  /// Forgets tombstones that are older than a day, and who made commits of more than an hour ago.
  Status purge(Connection& connection, Deadline deadline);

 private:
  Status take_others(const Answer& state, const Answer& rows, Commits& commits);

  std::atomic<std::int64_t> seen_{0};  // the last seq that was told to the watchers
  // The transaction whose fate is open.
  std::int64_t open_seq_ = 0;
  Outcome open_;
};

}  // namespace mcpgw::detail::postgres
