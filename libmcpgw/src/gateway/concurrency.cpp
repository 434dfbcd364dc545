#include "gateway/concurrency.hpp"

#include <algorithm>

namespace mcpgw::detail {

Task<ConcurrencyLimit::Slot> ConcurrencyLimit::enter(std::string user_id, std::size_t max,
                                                     SteadyTime deadline) {
  Turn turn;
  {
    const std::lock_guard lock(mutex_);
    if (running_ < max && users_.empty()) {
      ++running_;
      co_return Slot(shared_from_this());
    }
    turn = std::make_shared<Waiter<bool>>(*Loop::current());
    auto& mine = waiting_[user_id];
    if (mine.empty()) users_.push_back(user_id);
    mine.push_back(turn);
  }
  if (co_await turn->wait(deadline)) co_return Slot(shared_from_this());
  const std::lock_guard lock(mutex_);
  const auto mine = waiting_.find(user_id);
  if (mine != waiting_.end()) {
    const auto at = std::find(mine->second.begin(), mine->second.end(), turn);
    if (at != mine->second.end()) {
      mine->second.erase(at);
      if (mine->second.empty()) {
        waiting_.erase(mine);
        users_.remove(user_id);
      }
      co_return Slot();
    }
  }
  // The place was handed over in the same moment: it is taken, since nobody else would give it back.
  co_return Slot(shared_from_this());
}

void ConcurrencyLimit::release() {
  const std::lock_guard lock(mutex_);
  if (!hand_over()) --running_;
}

bool ConcurrencyLimit::hand_over() {
  if (users_.empty()) return false;
  const std::string user_id = std::move(users_.front());
  users_.pop_front();
  const auto mine = waiting_.find(user_id);
  const Turn turn = std::move(mine->second.front());
  mine->second.pop_front();
  if (mine->second.empty())
    waiting_.erase(mine);
  else
    users_.push_back(user_id);
  turn->set(true);
  return true;
}

std::size_t ConcurrencyLimit::running() const {
  const std::lock_guard lock(mutex_);
  return running_;
}

}  // namespace mcpgw::detail
