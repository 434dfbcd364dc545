// The requests that wait for their answers on one pipe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mcpgw/result.hpp"
#include "runtime/waiter.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {

/// What every request on a pipe waits with; connections add what they need.
struct PendingRequest {
  explicit PendingRequest(Loop& loop) : waiter(std::make_shared<Waiter<Result<UpstreamAnswer>>>(loop)) {}
  const std::shared_ptr<Waiter<Result<UpstreamAnswer>>> waiter;
};

/// By the raw JSON of their ids. `Pending` is a PendingRequest. Safe from any thread.
template <class Pending>
class PendingTable {
 public:
  using Ptr = std::shared_ptr<Pending>;

  /// Not added when the pipe is gone: why it is.
  std::optional<Error> add(const std::string& id, Ptr pending) {
    const std::lock_guard lock(mutex_);
    if (!lost_) all_.emplace(id, std::move(pending));
    return lost_;
  }
  void remove(const std::string& id) {
    const std::lock_guard lock(mutex_);
    all_.erase(id);
  }
  Ptr find(std::string_view id) const {
    const std::lock_guard lock(mutex_);
    const auto it = all_.find(id);
    return it == all_.end() ? nullptr : it->second;
  }
  /// With the lock held.
  template <class Look>
  void for_each(Look&& look) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, pending] : all_) look(pending);
  }

  /// An answer was too large to be read. When it cannot be told whose it was, nobody may wait in vain: all
  /// fail.
  void drop(const std::string& head, const std::string& tail) {
    const auto number = dropped_answer_id(head, tail);
    const Error error(ErrorCode::resource_exhausted, "response_too_large",
                      "An answer exceeds the size limit");
    std::vector<Ptr> concerned;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [id, pending] : all_)
        if (!number || id == std::to_string(*number)) concerned.push_back(pending);
    }
    for (const Ptr& pending : concerned) pending->waiter->set(error);
  }

  /// The pipe is gone: none is added any more. The first reason stays.
  void refuse(const Error& reason) {
    const std::lock_guard lock(mutex_);
    if (!lost_) lost_ = reason;
  }
  /// And those that wait fail.
  void lose(const Error& reason) {
    std::map<std::string, Ptr, std::less<>> failed;
    {
      const std::lock_guard lock(mutex_);
      if (!lost_) lost_ = reason;
      failed.swap(all_);
    }
    for (const auto& [id, pending] : failed) pending->waiter->set(reason);
  }

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, Ptr, std::less<>> all_;
  std::optional<Error> lost_;
};

inline UpstreamAnswer answer_of(const Envelope& message) {
  UpstreamAnswer answer;
  answer.is_error = !message.error.empty();
  answer.payload = answer.is_error ? message.error : message.result;
  return answer;
}

}  // namespace mcpgw::detail
