#include "gateway/instances.hpp"

#include <condition_variable>
#include <set>

#include "gateway/connection_pool.hpp"
#include "kubernetes/kube_instances.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

/// A Service routes to a pod a moment after the pod is ready.
constexpr auto kRoutePatience = seconds(10);
constexpr auto kRouteRetry = std::chrono::milliseconds(250);
/// An instance is acquired within its own limit, and has then to say hello.
constexpr auto kHello = seconds(60);
constexpr auto kRestartPatience = seconds(50);

}  // namespace

Status open_instances(const std::shared_ptr<GatewayCore>& core) {
  if (!core->options.kubernetes.enabled) return {};
  const std::weak_ptr<GatewayCore> weak = core;
  KubeInstances::Parts parts;
  parts.runtime = core->runtime;
  parts.options = core->options.kubernetes;
  parts.drain = core->options.upstream.drain;
  parts.clock = core->clock;
  parts.random = core->random;
  parts.farewells = core->farewells;
  parts.log = core->options.log;
  parts.target_version = [weak](const std::string& id) -> std::optional<std::uint64_t> {
    const auto alive = weak.lock();
    const auto target = alive ? alive->repository->target(id) : nullptr;
    if (!target || !target->enabled) return std::nullopt;
    return target->version;
  };
  parts.events.uses = [weak]() -> std::vector<InstanceUse> {
    const auto alive = weak.lock();
    return alive ? alive->pool->instance_uses() : std::vector<InstanceUse>();
  };
  parts.events.on_retired = [weak](const std::string& name, bool cut) {
    if (const auto alive = weak.lock()) alive->pool->retire_instance(name, cut);
  };
  auto instances = KubeInstances::create(std::move(parts));
  if (!instances) return instances.error();
  core->instances = *instances;
  return {};
}

std::optional<Result<int>> restart_kubernetes_instances(const std::shared_ptr<GatewayCore>& core,
                                                        const std::string& target_id) {
  const auto target = core->repository->target(target_id);
  if (!core->instances || !target || target->transport_type != TransportType::kubernetes) return std::nullopt;
  struct Outcome {
    std::mutex mutex;
    std::condition_variable ready;
    std::optional<Result<int>> result;
  };
  auto outcome = std::make_shared<Outcome>();
  Loop& loop = core->runtime->impl().any_loop();
  loop.post([&loop, instances = core->instances, target_id, outcome] {
    loop.spawn([](auto provider, auto id, auto out) -> Task<void> {
      auto result = co_await provider->restart(id);
      const std::lock_guard lock(out->mutex);
      out->result = std::move(result);
      out->ready.notify_all();
    }(instances, target_id, outcome));
  });
  std::unique_lock lock(outcome->mutex);
  if (!outcome->ready.wait_for(lock, kRestartPatience, [&] { return outcome->result.has_value(); }))
    return Result<int>(
        Error(ErrorCode::deadline_exceeded, "timeout", "The Kubernetes API did not answer in time"));
  return outcome->result;
}

// --- the pool's part
// ----------------------------------------------------------------------------------------

Task<Result<std::shared_ptr<Upstream>>> ConnectionPool::connect_instance(
    std::shared_ptr<GatewayCore> core, std::shared_ptr<const Binding> binding, UpstreamConnection& connection,
    std::shared_ptr<KeptUpstream> kept) {
  if (!core->instances)
    co_return Error(ErrorCode::unsupported, "kubernetes_disabled", "Kubernetes targets are switched off");
  WantedInstance wanted;
  wanted.key = binding->instance_key;
  wanted.target = binding->target;
  if (binding->subject.starts_with("user:")) wanted.user_id = binding->user_id;
  wanted.env = binding->env;
  if (!binding->credential.empty()) wanted.env["AUTH_TOKEN"] = binding->credential;
  const SteadyTime limit = steady_clock::now() + core->options.kubernetes.start_timeout + kHello;
  auto running = co_await core->instances->acquire(std::move(wanted), limit);
  if (!running) co_return running.error();
  connection.instance_ = running->name;
  connection.instance_held_ = running->held;
  // An HTTP target at the Service's address. It carries no credential: the pod has it in its environment.
  auto at = std::make_shared<Binding>(*binding);
  at->access = HttpTargetAccess();
  at->access.url = running->url;
  const std::shared_ptr<const Binding> shared = at;
  const SteadyTime give_up = steady_clock::now() + kRoutePatience;
  for (;;) {
    auto upstream =
        co_await connect_http(core, shared, connection.events(), steady_clock::now() + kHello, kept);
    const bool routed = upstream || (upstream.error().reason != "upstream_unreachable" &&
                                     upstream.error().reason != "upstream_closed");
    if (routed || steady_clock::now() >= give_up) co_return upstream;
    co_await sleep_for(kRouteRetry);
  }
}

std::vector<InstanceUse> ConnectionPool::instance_uses() const {
  std::vector<InstanceUse> out;
  const auto add = [&out](const std::shared_ptr<UpstreamConnection>& connection) {
    if (connection && !connection->instance().empty())
      out.push_back({connection->instance(), connection->in_flight(), connection->idle_since()});
  };
  const std::lock_guard lock(mutex_);
  for (const auto& [key, slot] : slots_) add(slot.connection);
  for (const auto& connection : retired_) add(connection);
  return out;
}

void ConnectionPool::retire_instance(const std::string& name, bool cut) {
  const auto core = core_.lock();
  const SteadyTime end =
      cut ? steady_clock::now() + (core ? core->options.upstream.drain : std::chrono::milliseconds(0))
          : SteadyTime::max();
  std::vector<std::shared_ptr<UpstreamConnection>> found;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [key, slot] : slots_) {
      if (!slot.connection || slot.connection->instance() != name) continue;
      found.push_back(std::move(slot.connection));
      slot.connection = nullptr;
    }
    retired_.insert(retired_.end(), found.begin(), found.end());
    // Retired before, to end when they end; now there is less time.
    if (cut)
      for (const auto& connection : retired_)
        if (connection->instance() == name) found.push_back(connection);
  }
  for (const auto& connection : found) connection->retire(end);
}

void ConnectionPool::retire_outdated(const GatewayCore& core, const std::string& target_id) {
  std::vector<std::string> instances;
  retire([&](const Binding& binding) { return binding.target->id == target_id && outdated(core, binding); },
         nullptr, &instances);
  if (!core.instances) return;
  for (const std::string& name : std::set<std::string>(instances.begin(), instances.end()))
    core.instances->retire(name);
}

}  // namespace mcpgw::detail
