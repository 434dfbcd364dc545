#include "gateway/replica_counts.hpp"

#include "gateway/connection_pool.hpp"
#include "gateway/modern_client.hpp"
#include "gateway/replicas.hpp"
#include "gateway/session.hpp"
#include "observability/activity_hub.hpp"

namespace mcpgw::detail {

std::optional<std::int64_t> answer_question(GatewayCore& core, std::string_view what,
                                            const std::string& argument) {
  if (what == question::kStreams)
    return static_cast<std::int64_t>(core.replicas->counts().streams_here(argument));
  if (what == question::kProcesses) return static_cast<std::int64_t>(core.pool->processes_of(argument));
  if (what == question::kIdleSession || what == question::kEndIdleSession)
    if (core.replicas->stale()) return 0;  // they may be somebody else's now
  if (what == question::kIdleSession) return core.sessions->idlest(argument);
  if (what == question::kEndIdleSession) return core.sessions->end_idlest(argument) ? 1 : 0;
  if (what == question::kEndIdleProcess) return core.pool->end_idle_process(argument) ? 1 : 0;
  return std::nullopt;
}

ReplicaCounts::Hold::Hold(std::shared_ptr<ReplicaCounts> counts, std::string user_id)
    : counts_(std::move(counts)), user_id_(std::move(user_id)) {
  const std::lock_guard lock(counts_->mutex_);
  ++counts_->opening_[user_id_];
}

ReplicaCounts::Hold::~Hold() {
  if (!counts_) return;
  const std::lock_guard lock(counts_->mutex_);
  counts_->forget_locked(user_id_);
}

void ReplicaCounts::forget_locked(const std::string& user_id) {
  const auto it = opening_.find(user_id);
  if (--it->second == 0) opening_.erase(it);
}

std::size_t ReplicaCounts::streams_here(const std::string& user_id) const {
  const auto core = core_.lock();
  if (!core) return 0;
  const std::lock_guard lock(mutex_);
  const std::size_t open = core->sessions->streams_of(user_id) + core->modern->streams_of(user_id) +
                           core->dashboards->count_of(user_id);
  const auto it = opening_.find(user_id);
  return open + (it == opening_.end() ? 0 : it->second);
}

Task<bool> ReplicaCounts::stream_fits(std::string user_id, Hold& hold) {
  const auto core = core_.lock();
  if (!core) co_return false;
  const std::size_t max = core->options.session.max_streams_per_user;
  hold = Hold(shared_from_this(), user_id);
  std::size_t count = streams_here(user_id);
  if (count <= max && core->replicas->on()) {
    const auto answers = co_await core->replicas->ask_all(std::string(question::kStreams), user_id);
    for (const auto& one : answers) count += static_cast<std::size_t>(one.value);
  }
  if (count <= max) co_return true;
  hold = Hold();
  co_return false;
}

bool ReplicaCounts::stream_fits_blocking(const std::string& user_id, Hold& hold) {
  const auto core = core_.lock();
  if (!core) return false;
  const std::size_t max = core->options.session.max_streams_per_user;
  hold = Hold(shared_from_this(), user_id);
  std::size_t count = streams_here(user_id);
  if (count <= max && core->replicas->on())
    count += static_cast<std::size_t>(
        core->replicas->order_all(std::string(question::kStreams), user_id, Replicas::kAnswered));
  if (count <= max) return true;
  hold = Hold();
  return false;
}

}  // namespace mcpgw::detail
