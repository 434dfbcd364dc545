#include "json/raw.hpp"
#include "upstream/upstream.hpp"

namespace mcpgw::detail {

bool ServerFacts::offers(std::string_view capability) const {
  return !raw::find(capabilities, capability).empty();
}

bool ServerFacts::offers(std::string_view capability, std::string_view flag) const {
  return raw::find(capabilities, capability, flag) == "true";
}

bool ServerFacts::runs_tasks() const {
  const std::string_view requests = raw::find(raw::find(capabilities, "tasks"), "requests");
  return protocol_version == "2025-11-25" && !raw::find(requests, "tools", "call").empty();
}

void CallHandle::cancel(std::string reason) {
  std::function<void(std::string)> action;
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return;
    cancelled_ = true;
    reason_ = reason;
    action.swap(action_);
  }
  if (action) action(std::move(reason));
}

bool CallHandle::cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

void CallHandle::on_cancel(std::function<void(std::string)> action) {
  std::string reason;
  {
    const std::lock_guard lock(mutex_);
    if (!cancelled_ || !action) {
      action_ = std::move(action);
      return;
    }
    reason = reason_;
  }
  action(std::move(reason));
}

}  // namespace mcpgw::detail
