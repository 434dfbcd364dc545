// Pool: the connections to one database, shared by the record store and the audit store.
//
// Threads: safe for concurrent use.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "mcpgw/postgres.hpp"
#include "postgres/connection.hpp"

namespace mcpgw::detail::postgres {

/// The options, checked and brought within bounds.
Result<ConnectionInfo> connection_info(const PostgresOptions& options);

class Pool {
 public:
  Pool(ConnectionInfo info, std::size_t size) : info_(std::move(info)), size_(size) {}

  /// A connection of this thread's until the lease ends.
  class Lease {
   public:
    Lease(Lease&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)), connection_(std::move(other.connection_)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      if (pool_) pool_->give_back(std::move(connection_));
    }
    Connection& operator*() const { return *connection_; }
    Connection* operator->() const { return connection_.get(); }

   private:
    friend class Pool;
    Lease(Pool& pool, std::unique_ptr<Connection> connection)
        : pool_(&pool), connection_(std::move(connection)) {}
    Pool* pool_;
    std::unique_ptr<Connection> connection_;
  };

  /// Waits for a free one. While the server is known to be away, fails at once.
  Result<Lease> take(Deadline deadline);

  /// The server answers again: the next call need not wait for the pause after a failure to end.
  void server_is_back();
  const ConnectionInfo& info() const { return info_; }
  /// A little beyond the server's own limit, so that its answer says what became of the call.
  Deadline call_deadline() const {
    return std::chrono::steady_clock::now() + info_.call_timeout + std::chrono::seconds(1);
  }

 private:
  void give_back(std::unique_ptr<Connection> connection);

  const ConnectionInfo info_;
  const std::size_t size_;

  std::mutex mutex_;  // protects the members below
  std::condition_variable freed_;
  std::vector<std::unique_ptr<Connection>> idle_;  // the last used at the end
  std::size_t in_use_ = 0;
  bool was_open_ = false;  ///< a connection was made
  Deadline away_until_{};
  std::chrono::milliseconds pause_{0};
};

/// Calls `work(connection)`, and once more on a new connection when the first breaks: for what may be
/// repeated.
template <class T, class Work>
Result<T> with_connection(Pool& pool, Deadline deadline, Work&& work) {
  for (int attempt = 0;; ++attempt) {
    auto lease = pool.take(deadline);
    if (!lease) return lease.error();
    Result<T> result = work(**lease);
    if (result || !(*lease)->broken() || attempt == 1) return result;
  }
}

}  // namespace mcpgw::detail::postgres
