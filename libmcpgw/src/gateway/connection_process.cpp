// Servers that are processes of the gateway's own (docs/credentials.md, "Isolation"): what they are started
// with, and which era they turn out to be of.
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>

#include "gateway/connection_pool.hpp"
#include "gateway/instance_ledger.hpp"
#include "gateway/replicas.hpp"
#include "upstream/modern_upstream.hpp"

extern char** environ;

namespace mcpgw::detail {
namespace {

std::vector<std::string> process_environment(const GatewayCore& core, const Binding& binding) {
  std::map<std::string, std::string> env;
  const auto inherit = [&](const std::string& name) {
    if (const char* value = std::getenv(name.c_str())) env[name] = value;
  };
  for (const char* name : {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER"}) inherit(name);
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (text.starts_with("LC_")) inherit(std::string(text.substr(0, text.find('='))));
  }
  for (const std::string& name : core.options.stdio.inherit_env) inherit(name);
  for (const auto& [key, value] : binding.env) env[key] = value;
  if (!binding.credential.empty()) env["AUTH_TOKEN"] = binding.credential;
  std::vector<std::string> out;
  out.reserve(env.size());
  for (const auto& [key, value] : env) out.push_back(key + "=" + value);
  return out;
}

std::vector<ProcessLimit> process_limits(const StdioLimits& limits) {
  std::vector<ProcessLimit> out;
  const auto add = [&](int resource, std::uint64_t value) {
    if (value > 0) out.push_back({resource, value});
  };
  add(RLIMIT_AS, limits.memory);
  add(RLIMIT_CPU, static_cast<std::uint64_t>(limits.cpu_time.count()));
  add(RLIMIT_NOFILE, limits.open_files);
  add(RLIMIT_NPROC, limits.processes);
  add(RLIMIT_FSIZE, limits.file_size);
  return out;
}

/// Starts one, and writes it down for whoever comes after us. Blocks.
Result<std::shared_ptr<MessageChannel>> start_recorded(Loop& home, StdioChannelOptions options,
                                                       InstanceLedger& ledger, const std::string& target_id) {
  const auto entry = ledger.entry(target_id);
  options.on_started = [entry](int pid) { entry->started(pid); };
  options.on_ended = [entry](std::function<void()> done) { entry->ended(std::move(done)); };
  return open_stdio_channel(home, std::move(options));
}

/// One user's alone, or made for what one user's clients are: sessions of a stateful target, clients that
/// want a process of their own kind.
bool is_personal(const Binding& one) {
  return one.subject.starts_with("user:") || !one.session_id.empty() || one.client.exact;
}

auto personal_to(const std::string& user_id) {
  return [&user_id](const Binding& one) { return is_personal(one) && one.user_id == user_id; };
}

Error too_many_processes() {
  return {ErrorCode::resource_exhausted, "instance_limit", "Too many processes are running"};
}

Error disabled(std::string message) {
  return {ErrorCode::unsupported, "transport_disabled", std::move(message)};
}

}  // namespace

ConnectionPool::Processes ConnectionPool::processes_locked(const std::function<bool(const Binding&)>& counts,
                                                           const Binding* besides) const {
  const auto is_one = [&](const Binding* one) {
    return one != nullptr && one != besides && one->target->transport_type == TransportType::stdio &&
           counts(*one);
  };
  Processes out;
  for (const auto& [key, slot] : slots_) {
    const auto& connection = slot.connection;
    if (!connection && !slot.opening) continue;
    if (!is_one(connection ? &connection->binding() : slot.binding.get())) continue;
    ++out.live;
    if (connection && connection->in_flight() == 0 &&
        (!out.idlest || connection->idle_since() < out.idlest->idle_since()))
      out.idlest = connection;
  }
  // What still ends its calls, and what an administrator tries out, are processes like others.
  for (const auto& draining : retired_) out.live += draining->in_flight() > 0 && is_one(&draining->binding());
  for (const auto& weak : alone_) out.live += is_one(weak.lock().get());
  return out;
}

Status ConnectionPool::reserve_process(const GatewayCore& core, const Binding& binding) {
  std::vector<std::shared_ptr<UpstreamConnection>> evicted;
  {
    const std::lock_guard lock(mutex_);
    const auto make_room = [&](std::size_t limit, const std::function<bool(const Binding&)>& counts) {
      for (;;) {
        Processes others = processes_locked(counts, &binding);
        if (others.live < limit) return true;
        if (!others.idlest) return false;
        slots_[others.idlest->binding().key].connection = nullptr;
        evicted.push_back(std::move(others.idlest));
      }
    };
    if (!make_room(core.options.stdio.max_processes, [](const Binding&) { return true; }) ||
        (is_personal(binding) && !make_room(core.options.stdio.max_per_user, personal_to(binding.user_id))))
      return too_many_processes();
  }
  for (const auto& connection : evicted) connection->retire(std::chrono::steady_clock::now());
  return {};
}

std::size_t ConnectionPool::processes_of(const std::string& user_id) const {
  const std::lock_guard lock(mutex_);
  return processes_locked(personal_to(user_id)).live;
}

bool ConnectionPool::end_idle_process(const std::string& user_id) {
  std::shared_ptr<UpstreamConnection> idlest;
  {
    const std::lock_guard lock(mutex_);
    idlest = processes_locked(personal_to(user_id)).idlest;
    if (!idlest) return false;
    slots_[idlest->binding().key].connection = nullptr;
  }
  idlest->retire(std::chrono::steady_clock::now());
  return true;
}

Task<Status> ConnectionPool::room_at_all_replicas(std::shared_ptr<GatewayCore> core, std::string user_id) {
  constexpr int kRounds = 8;  // how often an idle one may be in use after all
  for (int round = 0; round < kRounds; ++round) {
    // The one that is to be started counts already: of two that are started at once each is seen by the
    // other.
    std::size_t count = processes_of(user_id);
    const auto answers = co_await core->replicas->ask_all(std::string(question::kProcesses), user_id);
    for (const auto& one : answers) count += static_cast<std::size_t>(one.value);
    if (count <= core->options.stdio.max_per_user) co_return Status();
    bool ended = end_idle_process(user_id);
    for (std::size_t i = 0; i < answers.size() && !ended; ++i) {
      if (answers[i].value == 0) continue;
      const auto answer = co_await core->replicas->ask(answers[i].id, answers[i].address,
                                                       std::string(question::kEndIdleProcess), user_id);
      ended = answer == 1;
    }
    if (!ended) break;
  }
  co_return too_many_processes();
}

/// What a process speaks is found out by asking it, and remembered until the target changes or fails.
Task<Result<std::shared_ptr<Upstream>>> ConnectionPool::connect_process(
    std::shared_ptr<GatewayCore> core, std::shared_ptr<const Binding> binding, UpstreamEvents events,
    SteadyTime deadline) {
  const Target& target = *binding->target;
  const StdioOptions& stdio = core->options.stdio;
  if (!stdio.enabled) co_return disabled("Targets that run a process are switched off");
  if (!stdio.allowed_commands.empty() &&
      std::find(stdio.allowed_commands.begin(), stdio.allowed_commands.end(), target.command) ==
          stdio.allowed_commands.end())
    co_return disabled("The command is not among the permitted ones");
  if (core->replicas->on() && is_personal(*binding)) {
    const Status room = co_await room_at_all_replicas(core, binding->user_id);
    if (!room) co_return room.error();
  }
  if (auto room = reserve_process(*core, *binding); !room) co_return room.error();
  Loop& home = *Loop::current();
  StdioChannelOptions options;
  options.command = target.command;
  options.args = target.args;
  options.env = process_environment(*core, *binding);
  options.working_dir = stdio.working_dir;
  options.run_as = stdio.run_as;
  options.limits = process_limits(stdio.limits);
  options.max_message = core->options.limits.upstream_bytes;
  options.on_log = events.on_log;
  options.farewells = core->farewells;
  const auto start = [&home, options, core, &target] {
    return start_recorded(home, options, *core->ledger, target.id);
  };
  const auto place = std::make_pair(target.version, std::string());
  bool ask = target.protocol_era == EraSetting::automatic;
  if (ask) {
    const std::lock_guard lock(mutex_);
    const auto known = legacy_.find(target.id);
    ask = known == legacy_.end() || known->second != place;
  }
  for (;;) {
    auto channel = co_await run_blocking(core->runtime->impl().workers(), start);
    if (!channel)
      co_return Error(ErrorCode::unavailable, "overloaded", "Too many processes are being started");
    if (!*channel) co_return channel->error();
    EraFinding finding;
    if (target.protocol_era == EraSetting::modern)
      co_return co_await open_modern_channel_upstream(home, **channel, binding->client, events, deadline,
                                                      finding);
    if (ask) {
      auto upstream =
          co_await open_any_channel_upstream(home, **channel, binding->client, events, deadline, finding);
      if (finding.ended) {  // maybe of the question: it is not asked again
        ask = false;
        continue;
      }
      if (upstream && finding.verdict == EraFinding::Verdict::legacy) {
        const std::lock_guard lock(mutex_);
        legacy_[target.id] = place;
      }
      co_return upstream;
    }
    auto upstream = co_await open_channel_upstream(**channel, binding->client, events, deadline);
    const std::lock_guard lock(mutex_);
    if (upstream)
      legacy_[target.id] = place;
    else
      legacy_.erase(target.id);  // it may have become another kind of server: next time it is asked again
    co_return upstream;
  }
}

}  // namespace mcpgw::detail
