#include "gateway/instance_ledger.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/process_info.hpp"

namespace mcpgw::detail {
namespace {

/// Rows of other systems, which nobody may ever remove: a container's, an old boot's.
constexpr auto kKeepForeign = std::chrono::hours(24 * 400);  // longer than any process is allowed to live

bool is_process(std::int64_t pid, std::uint64_t started) {
  const auto info = process_info(static_cast<pid_t>(pid));
  return info && info->started == started && !info->zombie;
}

/// What is left of an instance: members of its group. The number of a group is not given away while one
/// member lives, so that a group whose leader is another process than it was, or that stands in another
/// session, is somebody else's.
std::vector<ProcessInfo> left_of(const InstanceRecord& instance) {
  const auto pid = static_cast<pid_t>(instance.pid);
  auto members = process_group(pid);
  const bool foreign = std::any_of(members.begin(), members.end(), [&](const ProcessInfo& member) {
    return member.session != instance.session || member.started < instance.pid_started ||
           (member.pid == pid && member.started != instance.pid_started);
  });
  if (foreign) members.clear();
  return members;
}

}  // namespace

InstanceLedger::InstanceLedger(std::shared_ptr<Repository> repository, Run run, Log log)
    : repository_(std::move(repository)),
      run_(std::move(run)),
      log_(std::move(log)),
      space_(process_space()) {}

int InstanceLedger::end_leftovers() {
  if (space_.empty()) return 0;
  const auto instances = repository_->instances();
  if (!instances) {
    log_(LogLevel::warn,
         "processes of an earlier gateway cannot be looked for: " + instances.error().message);
    return 0;
  }
  int ended = 0;
  const Time now = repository_->clock().now();
  for (const InstanceRecord& instance : *instances) {
    if (instance.space != space_) {
      if (now - instance.created_at > kKeepForeign) (void)repository_->delete_instance(instance.id);
      continue;
    }
    if (is_process(instance.owner_pid, instance.owner_started)) continue;
    if (!left_of(instance).empty()) {
      if (::kill(-static_cast<pid_t>(instance.pid), SIGKILL) != 0) {
        log_(LogLevel::warn, "a process that an earlier gateway left behind cannot be ended");
        continue;
      }
      ++ended;
    }
    (void)repository_->delete_instance(instance.id);
  }
  if (ended > 0)
    log_(LogLevel::info,
         "ended " + std::to_string(ended) + " process group(s) that an earlier gateway left behind");
  return ended;
}

void InstanceLedger::Entry::started(int pid) {
  if (ledger_->space_.empty()) return;
  const auto info = process_info(pid);
  const auto own = process_info(::getpid());
  if (!info || !own) return;  // it is over already
  InstanceRecord record;
  record.target_id = target_id_;
  record.space = ledger_->space_;
  record.owner_pid = own->pid;
  record.owner_started = own->started;
  record.pid = pid;
  record.pid_started = info->started;
  record.session = info->session;
  auto added = ledger_->repository_->add_instance(std::move(record));
  if (!added) {
    ledger_->log_(LogLevel::warn, "a process could not be written down: " + added.error().message);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    if (!ended_) {
      id_ = added->id;
      return;
    }
  }
  remove(added->id);  // it ended meanwhile
}

void InstanceLedger::Entry::ended(std::function<void()> done) {
  std::string id;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    id.swap(id_);
  }
  const bool posted = !id.empty() && ledger_->run_([ledger = ledger_, id, done] {
    (void)ledger->repository_->delete_instance(id);
    done();
  });
  // A row that stays is found to be over at the next start.
  if (!posted) done();
}

void InstanceLedger::Entry::remove(const std::string& id) const {
  (void)ledger_->repository_->delete_instance(id);
}

}  // namespace mcpgw::detail
