// AuditWriter: between the request path and the AuditSink. Rows are queued in memory and written in batches
// by one thread; a full queue slows requests down instead of losing rows.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "mcpgw/audit.hpp"
#include "mcpgw/gateway.hpp"
#include "observability/row_queue.hpp"
#include "runtime/waiter.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class AuditWriter {
 public:
  AuditWriter(std::shared_ptr<AuditSink> sink, AuditOptions options, std::shared_ptr<Clock> clock,
              std::shared_ptr<Random> random, LogSink log);
  ~AuditWriter();

  /// Waits while the queue is full, in sync mode also while rows cannot be stored. False when that lasted
  /// until the deadline: refuse the request.
  Task<bool> admit(SteadyTime deadline);
  /// Whether admit() would let a request pass at once.
  bool admits() const noexcept { return admits_.load(std::memory_order_relaxed); }
  /// Queues a row; its time, when unset, is set here, its id when it is stored. Never blocks. `bounded`:
  /// bound_row() has been there.
  void add(AuditRecord&& record, bool bounded = false);
  /// Queues a row; in sync mode returns when it, and all that were queued before it, are stored. False when
  /// that failed: it is tried again all the same.
  Task<bool> write(AuditRecord record);
  /// The same for what has been queued already.
  Task<bool> settled();
  /// write() for threads that may block.
  bool store(AuditRecord record);
  /// Blocks until everything queued so far has been written or failed; false on time-out.
  bool flush(std::chrono::milliseconds timeout);
  /// Writes what is queued and ends the thread.
  void stop();

  bool sync() const noexcept { return options_.sync; }
  std::size_t depth() const;
  std::uint64_t written() const;
  /// Whether the last batch could not be stored.
  bool failing() const;

 private:
  void run();
  void prepare(AuditRecord& record, bool bounded) const;
  /// To be called after every change of what it looks at.
  bool admits_locked();
  void enqueue_locked(const AuditRecord& record);
  /// Takes up to a batch of rows out of the backlog and gives them their ids.
  void unpack(std::vector<AuditRecord>& batch);

  const std::shared_ptr<AuditSink> sink_;
  const AuditOptions options_;
  const std::shared_ptr<Clock> clock_;
  const std::shared_ptr<Random> random_;
  const LogSink log_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable ready_;
  std::condition_variable flushed_;
  RowQueue queue_;
  std::size_t taken_ = 0;  ///< rows that left the queue and are not stored yet
  std::uint64_t queued_ = 0;
  std::uint64_t done_ = 0;
  std::uint64_t failures_ = 0;  ///< batches that could not be stored
  std::vector<std::pair<std::uint64_t, std::shared_ptr<Waiter<bool>>>> sync_waiters_;
  std::vector<std::shared_ptr<Waiter<bool>>> space_waiters_;
  bool failing_ = false;
  bool stopping_ = false;
  RowQueue backlog_;                ///< of the thread that writes: what it has taken from the queue
  std::atomic<bool> admits_{true};  ///< what admits_locked() said last
  std::thread thread_;
};

}  // namespace mcpgw::detail
