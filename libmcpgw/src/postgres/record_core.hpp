// Core: what the record store and its listening thread share. The thread may outlive the store for a moment,
// when a watcher drops the last reference to it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "mcpgw/random.hpp"
#include "mcpgw/storage.hpp"
#include "postgres/pool.hpp"
#include "postgres/record_log.hpp"
#include "storage/change_feed.hpp"
#include "storage/write_turns.hpp"

namespace mcpgw::detail::postgres {

class Core {
 public:
  explicit Core(std::shared_ptr<Pool> pool);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  Status start();
  Pool& pool() { return *pool_; }
  ChangeFeed& feed() { return feed_; }

  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations);

  /// Tells the watchers what others commit, as soon as it is announced. Runs until stop().
  void listen();
  void stop();

 private:
  std::uint64_t enqueue(RecordLog::Commits& commits);
  Result<RecordLog::Outcome> write(const std::vector<Operation>& operations, Deadline deadline,
                                   RecordLog::Commits& others);
  Result<bool> resolve(std::int64_t token, Deadline deadline);
  Status listen_once();
  Status read_others(Connection& connection);
  bool stopped() const;
  WriteTurns::Turn take_turn();

  const std::shared_ptr<Pool> pool_;
  const std::shared_ptr<Random> random_ = make_system_random();
  RecordLog log_;  // protected by the turn to write, which also orders enqueue()
  WriteTurns write_turns_;
  ChangeFeed feed_;
  int stop_event_ = -1;  // an eventfd: readable once stopped
};

}  // namespace mcpgw::detail::postgres
