#include "gateway/live_state.hpp"

#include <cmath>
#include <condition_variable>
#include <cstdio>

#include "base/text.hpp"
#include "gateway/instances.hpp"
#include "gateway/metrics.hpp"
#include "gateway/modern_client.hpp"
#include "gateway/replicas.hpp"
#include "gateway/session.hpp"
#include "gateway/socket_tickets.hpp"
#include "gateway/statistics.hpp"
#include "json/raw.hpp"
#include "mcpgw/version.hpp"
#include "protocol/modern.hpp"
#include "upstream/instances.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// A number that JSON has, with enough digits for a dashboard.
std::string number(double value) {
  if (!std::isfinite(value)) return "0";
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string summary_members(const Statistics::Summary& summary) {
  return R"("avg_latency_ms":)" + number(summary.avg_ms) + R"(,"error_rate":)" + number(summary.error_rate) +
         R"(,"p50_latency_ms":)" + number(summary.p50_ms) + R"(,"p95_latency_ms":)" + number(summary.p95_ms) +
         R"(,"p99_latency_ms":)" + number(summary.p99_ms);
}

std::string target_json(const std::string& id_json, const std::string& name, const std::string& state,
                        const Statistics::Summary& summary, std::int64_t in_flight) {
  return R"({"id":)" + id_json + R"(,"name":)" + raw::quote(name) + R"(,"state":)" + raw::quote(state) +
         R"(,"request_count":)" + std::to_string(summary.count) + R"(,"error_count":)" +
         std::to_string(summary.errors) + "," + summary_members(summary) + R"(,"rps":)" +
         number(summary.rps) + R"(,"in_flight":)" + std::to_string(in_flight) + "}";
}

Task<void> run_test(std::shared_ptr<GatewayCore> core, Principal principal,
                    std::shared_ptr<const Target> target, std::shared_ptr<TargetTest> out) {
  const SteadyTime deadline = steady_clock::now() + std::chrono::seconds(30);
  auto step_started = steady_clock::now();
  const auto step = [&](const char* name, bool ok, std::string detail) {
    const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - step_started).count();
    out->steps.push_back({name, ok, took, std::move(detail)});
    step_started = steady_clock::now();
  };
  ClientFacts client;
  auto binding = core->pool->bind(principal, target, client, "test");
  if (!binding) {
    step("credential", false, binding.error().message);
    co_return;
  }
  step("credential", true,
       (*binding)->credential.empty() ? "none is stored: the call goes without" : "found");
  // One of its own: what is open already, or failed a moment ago, says nothing of now.
  auto connection = co_await core->pool->open_alone(*binding, deadline);
  if (!connection) {
    const TargetStatus status = core->pool->status(*target);
    step("initialize", false, status.last_error.value_or(connection.error().message));
    co_return;
  }
  const ServerFacts& facts = (*connection)->upstream().facts();
  out->era = is_modern_version(facts.protocol_version) ? "modern" : "legacy";
  out->protocol_version = facts.protocol_version;
  out->server_info = facts.server_info;
  const std::string_view transport = (*connection)->upstream().transport();
  step("initialize", true,
       "MCP " + facts.protocol_version +
           (transport == "streamable-http" ? " over Streamable HTTP"
            : transport == "sse"           ? " over HTTP+SSE"
                                           : ""));
  out->ok = true;
  const std::pair<ListKind, int TargetTest::*> lists[] = {{ListKind::tools, &TargetTest::tools},
                                                          {ListKind::resources, &TargetTest::resources},
                                                          {ListKind::prompts, &TargetTest::prompts}};
  for (const auto& [kind, member] : lists) {
    const std::string name(list_method(kind));
    if (!facts.offers(list_capability(kind))) {
      step(name.c_str(), true, "not offered");
      continue;
    }
    auto listing = co_await (*connection)->listing(kind, deadline, true);
    if (!listing) {
      out->ok = false;
      step(name.c_str(), false, listing.error().message);
      continue;
    }
    (*out).*member = static_cast<int>((*listing)->items.size());
    step(name.c_str(), true, std::to_string((*listing)->items.size()) + " found");
  }
  (*connection)->retire(steady_clock::now());
}

}  // namespace

Result<int> GatewayLiveState::recycle(const std::string& user_id) {
  const auto core = core_.lock();
  if (!core) return 0;
  const auto count = core->sessions->recycle(user_id);
  if (!count) return count;
  core->pool->close_user(user_id);
  (void)core->replicas->order_all("close-user", user_id);
  return count;
}

Result<int> GatewayLiveState::restart_instances(const std::string& target_id) {
  const auto core = core_.lock();
  if (!core) return 0;
  auto pods = restart_kubernetes_instances(core, target_id);
  if (pods && !*pods) return *pods;
  const int count =
      pods ? **pods
           : core->pool->restart(target_id) + core->replicas->order_all("restart-instances", target_id);
  if (const auto target = core->repository->target(target_id); target && count > 0)
    core->metrics->target(target->name)->restarts.add(static_cast<std::uint64_t>(count));
  return count;
}

TargetStatus GatewayLiveState::target_status(const std::string& target_id) {
  const auto core = core_.lock();
  const auto target = core ? core->repository->target(target_id) : nullptr;
  if (!target) return {};
  TargetStatus out = core->pool->status(*target);
  if (core->instances && target->transport_type == TransportType::kubernetes)
    out.instances = core->instances->count(target_id);
  return out;
}

Result<TargetTest> GatewayLiveState::test_target(const Principal& principal, const std::string& target_id) {
  const auto core = core_.lock();
  const auto target = core ? core->repository->target(target_id) : nullptr;
  if (!target) return Error(ErrorCode::not_found, "target_not_found", "Target not found");
  auto out = std::make_shared<TargetTest>();
  struct Done {
    std::mutex mutex;
    std::condition_variable ready;
    bool done = false;
  };
  auto done = std::make_shared<Done>();
  Loop& loop = core->runtime->impl().any_loop();
  loop.post([&loop, core, principal, target, out, done] {
    loop.spawn([](auto c, auto p, auto t, auto result, auto finished) -> Task<void> {
      co_await run_test(std::move(c), std::move(p), std::move(t), std::move(result));
      const std::lock_guard lock(finished->mutex);
      finished->done = true;
      finished->ready.notify_all();
    }(core, principal, target, out, done));
  });
  std::unique_lock lock(done->mutex);
  if (!done->ready.wait_for(lock, std::chrono::seconds(55), [&] { return done->done; }))
    return Error(ErrorCode::deadline_exceeded, "timeout", "The target was not tested in time");
  return *out;
}

std::string snapshot_json(const GatewayCore& core, const Principal& principal) {
  const std::string* only = principal.is_admin() ? nullptr : &principal.user_id;
  const Statistics& statistics = *core.statistics;
  const auto total = statistics.total(only);
  std::string targets;
  const auto append = [&](std::string json) {
    if (!targets.empty()) targets += ',';
    targets += json;
  };
  for (const auto& target : core.repository->targets()) {
    if (!target->enabled) continue;
    if (only != nullptr && !core.policy->reaches(principal, target->id)) continue;
    append(target_json(
        raw::quote(target->id), target->name, core.pool->status(*target).state,
        statistics.target(target->name, only),
        only == nullptr ? core.metrics->in_flight(target->name) : statistics.in_flight(*only, target->name)));
  }
  if (const auto own = statistics.target("_gateway", only); own.count > 0)
    append(target_json("null", "_gateway", "up", own, 0));
  const auto uptime = std::chrono::duration_cast<std::chrono::seconds>(statistics.uptime()).count();
  return R"({"timestamp":)" + raw::quote(format_time(core.clock->now())) + R"(,"total_requests":)" +
         std::to_string(total.count) + R"(,"total_errors":)" + std::to_string(total.errors) + "," +
         summary_members(total) + R"(,"in_flight":)" +
         std::to_string(only == nullptr ? static_cast<std::int64_t>(core.in_flight.load())
                                        : statistics.in_flight(*only)) +
         R"(,"active_sessions":)" + std::to_string(core.sessions->count(only)) + R"(,"streams":)" +
         std::to_string(only == nullptr ? core.sessions->streams() + core.modern->streams()
                                        : core.sessions->streams_of(*only) + core.modern->streams_of(*only)) +
         R"(,"uptime_s":)" + std::to_string(uptime) + R"(,"version":)" + raw::quote(version()) +
         R"(,"targets":[)" + targets + "]}";
}

std::string GatewayLiveState::snapshot(const Principal& principal) {
  const auto core = core_.lock();
  return core ? snapshot_json(*core, principal) : std::string("{}");
}

Result<SocketTicket> GatewayLiveState::socket_ticket(const Principal& principal) {
  const auto core = core_.lock();
  if (!core) return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
  return core->tickets->issue(principal);
}

bool GatewayLiveState::can_audit() {
  const auto core = core_.lock();
  return core && core->audit->admits();
}

bool GatewayLiveState::audit(AuditRecord record) {
  const auto core = core_.lock();
  return core && core->audit->store(std::move(record));
}

}  // namespace mcpgw::detail
