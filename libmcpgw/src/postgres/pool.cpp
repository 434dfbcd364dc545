#include "postgres/pool.hpp"

#include <algorithm>

#include "storage/record_rules.hpp"

namespace mcpgw::detail::postgres {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Between attempts to reach a server that is away. In between calls fail at once, and no thread waits.
constexpr milliseconds kFirstPause{50};
constexpr milliseconds kLongestPause{1000};

}  // namespace

Result<Pool::Lease> Pool::take(Deadline deadline) {
  std::vector<std::unique_ptr<Connection>> dead;  // closed without the lock
  {
    std::unique_lock lock(mutex_);
    if (!freed_.wait_until(lock, deadline, [&] { return in_use_ < size_; })) return storage_unavailable();
    ++in_use_;
    while (!idle_.empty()) {
      auto connection = std::move(idle_.back());
      idle_.pop_back();
      if (connection->alive()) return Lease(*this, std::move(connection));
      dead.push_back(std::move(connection));
    }
    if (steady_clock::now() < away_until_) {
      --in_use_;
      freed_.notify_one();
      return storage_unavailable();
    }
  }
  dead.clear();
  auto opened = Connection::open(info_, deadline);
  std::lock_guard lock(mutex_);
  if (opened) {
    was_open_ = true;
    pause_ = milliseconds(0);
    return Lease(*this, std::move(*opened));
  }
  --in_use_;
  freed_.notify_one();
  pause_ = std::clamp(pause_ * 2, kFirstPause, kLongestPause);
  away_until_ = steady_clock::now() + pause_;
  // At the start the reason is somebody's to mend; later a server that refuses is one that is away.
  if (was_open_) return storage_unavailable();
  return opened.error();
}

// One that is not kept is closed by the caller's end of the parameter, without the lock.
void Pool::give_back(std::unique_ptr<Connection> connection) {
  std::lock_guard lock(mutex_);
  if (connection->idle()) idle_.push_back(std::move(connection));
  --in_use_;
  freed_.notify_one();
}

void Pool::server_is_back() {
  std::lock_guard lock(mutex_);
  away_until_ = {};
  pause_ = milliseconds(0);
}

}  // namespace mcpgw::detail::postgres
