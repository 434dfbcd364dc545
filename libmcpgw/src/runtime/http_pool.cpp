#include "runtime/http_pool.hpp"

#include <algorithm>

#include "base/moment.hpp"

namespace mcpgw::detail {

namespace {
// A peer that closed a moment ago is noticed when the loop gets to it. One that has been idle for longer than
// a loop takes is asked for directly.
constexpr std::chrono::milliseconds kAskAfter{20};
}  // namespace

std::shared_ptr<Connection> HttpPool::take(const Url& url) {
  for (std::size_t i = idle_.size(); i-- > 0;) {
    const Origin& origin = idle_[i]->origin();
    if (origin.port != url.port || origin.tls != url.tls() || origin.host != url.host) continue;
    const std::shared_ptr<Connection> connection = std::move(idle_[i]);
    idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
    connection->leave_idle();
    if (connection->is_open() && !connection->readable() &&
        (steady_now() - connection->idle_since() < kAskAfter || connection->quiet()))
      return connection;
    connection->shutdown();
  }
  return nullptr;
}

void HttpPool::give_back(std::shared_ptr<Connection> connection) {
  if (closed_ || max_idle_ == 0 || idle_timeout_.count() <= 0 || !connection->is_open()) {
    connection->shutdown();
    return;
  }
  if (idle_.size() >= max_idle_) {
    const std::shared_ptr<Connection> oldest = std::move(idle_.front());
    idle_.erase(idle_.begin());
    oldest->shutdown();
  }
  connection->enter_idle(this, steady_now() + idle_timeout_);
  idle_.push_back(std::move(connection));
}

void HttpPool::close_idle() {
  const auto idle = std::move(idle_);
  idle_.clear();
  for (const auto& connection : idle) connection->shutdown();
}

void HttpPool::idle_ended(Connection& connection) {
  const auto it =
      std::find_if(idle_.begin(), idle_.end(), [&](const auto& each) { return each.get() == &connection; });
  if (it == idle_.end()) return;
  const std::shared_ptr<Connection> ended = std::move(*it);
  idle_.erase(it);
  ended->shutdown();
}

}  // namespace mcpgw::detail
