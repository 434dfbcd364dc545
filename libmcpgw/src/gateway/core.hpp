// GatewayCore: what the parts of a gateway share. One per Gateway, kept alive by everything that still runs.
#pragma once

#include <atomic>
#include <memory>

#include "gateway/storage_health.hpp"
#include "mcpgw/gateway.hpp"
#include "observability/audit_writer.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::detail {

class ActivityHub;
class ConnectionPool;
class InstanceProvider;
class InstanceLedger;
class KeyRotationWorker;
class Metrics;
class ModernClients;
class Observer;
class Replicas;
class SessionRegistry;
class SocketTickets;
class Statistics;
class Tracer;

#ifdef MCPGW_BENCH_UNOBSERVED
inline constexpr bool kObserved = false;  ///< tests/bench measures what observing costs
#else
inline constexpr bool kObserved = true;
#endif

/// Which request a log line belongs to. Handed on from coroutine to coroutine: a thread serves many at a
/// time.
struct RequestIds {
  std::string request_id;  ///< empty: of none
  std::string trace_id;    ///< empty: there is no trace
};

struct GatewayCore {
  /// `shared` is only pointed to: what runs on its loops must not keep them from ending. The Gateway owns it.
  GatewayCore(GatewayOptions o, const std::shared_ptr<Runtime>& shared)
      : options(std::move(o)), runtime(std::shared_ptr<void>(), shared.get()) {}

  // Set once by Gateway::create, in this order.
  const GatewayOptions options;
  const std::shared_ptr<Runtime> runtime;
  std::shared_ptr<Clock> clock;
  std::shared_ptr<Random> random;
  std::shared_ptr<Random> ids;  ///< for what must be unique but is no secret
  std::shared_ptr<Repository> repository;
  std::shared_ptr<PolicyEngine> policy;
  std::shared_ptr<Authenticator> authenticator;
  std::shared_ptr<AuditSink> audit_sink;
  std::unique_ptr<AuditWriter> audit;
  std::shared_ptr<Statistics> statistics;
  std::shared_ptr<Metrics> metrics;
  std::shared_ptr<Tracer> tracer;  ///< null: nothing is recorded
  std::shared_ptr<ActivityHub> dashboards;
  std::shared_ptr<SocketTickets> tickets;
  std::shared_ptr<Observer> observer;
  std::shared_ptr<InstanceLedger> ledger;
  std::shared_ptr<InstanceProvider> instances;  ///< null: there are no Kubernetes targets
  std::shared_ptr<ConnectionPool> pool;
  std::shared_ptr<Replicas> replicas;
  std::shared_ptr<SessionRegistry> sessions;
  std::shared_ptr<ModernClients> modern;
  std::shared_ptr<KeyRotationWorker> key_rotation;

  std::atomic<bool> draining{false};
  /// Child processes that have not ended and goodbyes to upstreams that are on their way: close() waits for
  /// them.
  const std::shared_ptr<std::atomic<int>> farewells = std::make_shared<std::atomic<int>>(0);
  std::atomic<std::size_t> in_flight{0};
  StorageHealth storage_health;
  std::atomic<int> listen_port{0};
  std::atomic<bool> loopback_only{false};

  /// Whether a line would be kept: ask before a costly one is made.
  bool logs(LogLevel level, std::string_view module) const {
    return options.log && (!options.log_keeps || options.log_keeps(level, module));
  }
  void log(LogLevel level, std::string module, std::string message,
           std::vector<std::pair<std::string, std::string>> fields = {}) const {
    if (options.log) options.log({level, std::move(module), std::move(message), std::move(fields)});
  }
  /// A line that belongs to a request.
  void log(LogLevel level, std::string module, std::string message,
           std::vector<std::pair<std::string, std::string>> fields, const RequestIds& request) const {
    if (!options.log) return;
    if (!request.request_id.empty()) fields.emplace_back("request_id", request.request_id);
    if (!request.trace_id.empty()) fields.emplace_back("trace_id", request.trace_id);
    options.log({level, std::move(module), std::move(message), std::move(fields)});
  }
};

}  // namespace mcpgw::detail
