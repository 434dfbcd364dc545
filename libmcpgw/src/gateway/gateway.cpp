// Gateway: puts the parts together, keeps them going, and takes them down in order.
#include "mcpgw/gateway.hpp"

#include <condition_variable>

#include "base/id_random.hpp"
#include "base/shared_apart.hpp"
#include "gateway/front.hpp"
#include "gateway/instance_ledger.hpp"
#include "gateway/instances.hpp"
#include "gateway/key_rotation_worker.hpp"
#include "gateway/live_state.hpp"
#include "gateway/metrics.hpp"
#include "gateway/modern_client.hpp"
#include "gateway/observer.hpp"
#include "gateway/replicas.hpp"
#include "gateway/session.hpp"
#include "gateway/socket_tickets.hpp"
#include "gateway/statistics.hpp"
#include "mcpgw/admin_api.hpp"
#include "observability/activity_hub.hpp"
#include "observability/audit_export.hpp"
#include "observability/tracer.hpp"
#include "runtime/process_user.hpp"
#include "runtime/proxy.hpp"

namespace mcpgw {

using namespace detail;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

/// Streams and calls of a token that expires end within a second.
constexpr auto kSweepEvery = std::chrono::milliseconds(500);
constexpr auto kRefreshEvery = std::chrono::seconds(2);
constexpr auto kKeepAliveEvery = std::chrono::seconds(14);
/// Longer than a child takes to be killed.
constexpr auto kFarewell = std::chrono::seconds(8);
constexpr auto kLastSpans = std::chrono::seconds(3);
constexpr auto kPurgeEvery = std::chrono::hours(1);
constexpr auto kKeepEndedTokens = std::chrono::hours(24 * 30);

/// Dashboards of identities that are no longer what they were are closed.
void check_dashboards(const GatewayCore& core) {
  core.dashboards->check(
      [&](const Principal& principal) { return core.authenticator->still_valid(principal); });
}

/// Twice a second: ends what is idle or overdue. Lives as long as the core is wanted.
Task<void> housekeeping(std::weak_ptr<GatewayCore> weak, std::shared_ptr<std::atomic<bool>> stop) {
  auto last_keep_alive = steady_clock::now();
  auto last_purge = steady_clock::time_point::min();
  while (!stop->load()) {
    co_await sleep_for(kSweepEvery);
    const auto core = weak.lock();
    if (!core || stop->load()) co_return;
    const auto now = steady_clock::now();
    core->sessions->sweep(now);
    core->sessions->check_identities();
    check_dashboards(*core);
    core->modern->sweep(now);
    core->modern->check_identities();
    core->pool->sweep(now);
    if (now - last_keep_alive >= kKeepAliveEvery) {
      last_keep_alive = now;
      core->sessions->keep_alive();
      core->modern->keep_alive();
    }
    if (last_purge == steady_clock::time_point::min() || now - last_purge >= kPurgeEvery) {
      last_purge = now;
      (void)core->runtime->post_blocking([core] {
        (void)core->repository->purge_tokens(core->clock->now() - kKeepEndedTokens);
        // What storage knows of a session's activity lags behind.
        (void)core->repository->purge_sessions(core->clock->now() - 2 * core->options.session.timeout);
      });
    }
  }
}

/// Tells open dashboards the figures of the moment. Lives as long as the core is wanted.
Task<void> refresh_dashboards(std::weak_ptr<GatewayCore> weak, std::shared_ptr<std::atomic<bool>> stop) {
  while (!stop->load()) {
    co_await sleep_for(kRefreshEvery);
    auto core = weak.lock();
    if (!core || stop->load()) co_return;
    if (!core->dashboards->watched()) continue;
    WorkerPool& workers = core->runtime->impl().workers();
    core.reset();
    auto work = [weak] {
      if (const auto alive = weak.lock())
        alive->dashboards->broadcast(
            [&](const Principal& principal) { return snapshot_json(*alive, principal); });
      return true;
    };
    // When no worker is free, this moment's figures are left out.
    (void)co_await run_blocking(workers, work);
  }
}

/// Looks whether the storage answers, several times within its grace. Lives as long as the core is wanted.
Task<void> watch_storage(std::weak_ptr<GatewayCore> weak, std::shared_ptr<std::atomic<bool>> stop) {
  milliseconds pause(0);
  while (!stop->load()) {
    co_await sleep_for(pause);
    auto core = weak.lock();
    if (!core || stop->load()) co_return;
    pause = std::clamp<milliseconds>(core->options.storage_grace / 10, milliseconds(50), milliseconds(2000));
    WorkerPool& workers = core->runtime->impl().workers();
    auto work = [repository = core->repository] { return repository->storage().ping().has_value(); };
    core.reset();
    const auto answers = co_await run_blocking(workers, work);
    core = weak.lock();
    if (!core || stop->load()) co_return;
    // When no worker is free, nothing is known.
    if (!answers || !core->storage_health.report(*answers)) continue;
    if (*answers)
      core->log(LogLevel::info, "storage", "the storage answers again");
    else
      core->log(LogLevel::error, "storage",
                "the storage does not answer: calls of known users go on for storage.grace, writes fail",
                {{"grace_ms", std::to_string(core->options.storage_grace.count())}});
  }
}

/// Keys were replaced elsewhere; the repository has its own again already.
void reload_secrets(GatewayCore& core) {
  core.key_rotation->notify();
  if (!core.options.reload_keys) {
    core.modern->refresh_keys(core.repository->key_in_force());
    core.replicas->refresh_keys(core.repository->key_in_force());
    return;
  }
  const auto keys = core.options.reload_keys();
  if (!keys) return core.log(LogLevel::warn, "gateway", "new keys were announced, but cannot be read");
  core.modern->refresh_keys(core.repository->key_in_force());
  core.replicas->refresh_keys(core.repository->key_in_force());
  if (auto status = core.authenticator->replace_secrets(keys->jwt_secret, keys->previous_jwt_secrets);
      !status)
    return core.log(LogLevel::error, "gateway", "new keys cannot be used: " + status.error().message);
  core.log(LogLevel::info, "gateway", "keys read again");
}

/// Collects an answer for the blocking face.
class BlockingResponder final : public Responder {
 public:
  void send(HttpResponse response) override {
    const std::lock_guard lock(state_->mutex);
    state_->response = std::move(response);
    state_->done = true;
    state_->ready.notify_all();
  }
  std::shared_ptr<ResponseStream> start(HttpResponse head) override {
    const std::lock_guard lock(state_->mutex);
    state_->response = std::move(head);
    return std::make_shared<Stream>(state_);
  }
  void on_disconnect(std::function<void()> callback) override {
    const std::lock_guard lock(state_->mutex);
    state_->on_disconnect = std::move(callback);
  }

  HttpResponse wait(milliseconds deadline) {
    std::function<void()> gone;
    HttpResponse out;
    {
      std::unique_lock lock(state_->mutex);
      const bool done = state_->ready.wait_for(lock, deadline, [&] { return state_->done; });
      if (done) return std::move(state_->response);
      gone = std::move(state_->on_disconnect);
      state_->done = true;
      const bool streaming = !state_->response.headers.empty();
      out = streaming ? std::move(state_->response)
                      : http_error(504, "timeout", "The request was not answered in time", "");
    }
    if (gone) gone();
    return out;
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable ready;
    HttpResponse response;
    bool done = false;
    std::function<void()> on_disconnect;
  };
  class Stream final : public ResponseStream {
   public:
    explicit Stream(std::shared_ptr<State> state) : state_(std::move(state)) {}
    ~Stream() override { close(); }
    bool write(std::string data) override {
      const std::lock_guard lock(state_->mutex);
      if (state_->done) return false;
      state_->response.body += data;
      return true;
    }
    void close() override {
      const std::lock_guard lock(state_->mutex);
      state_->done = true;
      state_->ready.notify_all();
    }

   private:
    const std::shared_ptr<State> state_;
  };

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace

class Gateway::Impl {
 public:
  std::shared_ptr<Runtime> runtime;  // first: destroyed last
  std::shared_ptr<GatewayCore> core;
  std::unique_ptr<GatewayLiveState> live;
  std::shared_ptr<Front> front;
  std::optional<HeldApart<Front>> fronts;  ///< the same, for what each request holds
  std::uint64_t listener = 0;
  std::shared_ptr<std::atomic<bool>> stop = std::make_shared<std::atomic<bool>>(false);
  std::mutex close_mutex;
  bool closed = false;
};

Result<std::shared_ptr<Gateway>> Gateway::create(GatewayOptions options) {
  if (!options.storage)
    return Error(ErrorCode::invalid_argument, "invalid_request", "GatewayOptions::storage is required",
                 "storage");
  // What a key that is made up has sealed nobody could open when this process has ended.
  if (options.encryption.current.empty() && options.storage->durable())
    return Error(ErrorCode::invalid_argument, "invalid_request",
                 "GatewayOptions::encryption.current is required: the storage outlives the process",
                 "encryption");
  if (!options.upstream.proxy.empty()) {
    if (auto proxy = Proxy::parse(options.upstream.proxy, options.upstream.no_proxy); !proxy)
      return proxy.error();
  }
  if (!options.stdio.run_as.empty()) {
    if (auto user = find_process_user(options.stdio.run_as); !user)
      return Error(ErrorCode::invalid_argument, "invalid_request", "stdio.run_as: " + user.error().message,
                   "run_as");
  }
  if (!options.clock) options.clock = make_system_clock();
  if (!options.random) options.random = make_system_random();
  const std::shared_ptr<Runtime> runtime = options.runtime ? std::move(options.runtime) : Runtime::create();
  options.runtime = nullptr;
  if (!options.audit_sink) options.audit_sink = make_memory_audit_sink();
  const auto metrics = std::make_shared<Metrics>(options.metrics_max_tools);
  options.storage = metered(std::move(options.storage), metrics);
  if (!options.audit.export_to.empty()) {
    auto exported = exporting(std::move(options.audit_sink), options.audit);
    if (!exported) return exported.error();
    options.audit_sink = *exported;
  }
  options.audit_sink = metered(std::move(options.audit_sink), metrics);
  const auto invent = [&](std::string& secret) {
    if (!secret.empty()) return;
    secret.resize(32);
    options.random->fill(secret.data(), secret.size());
  };
  invent(options.jwt_secret);
  invent(options.encryption.current);

  auto core = std::make_shared<GatewayCore>(std::move(options), runtime);
  core->clock = core->options.clock;
  core->random = core->options.random;
  core->ids = std::make_shared<IdRandom>(core->random);
  core->audit_sink = core->options.audit_sink;
  core->metrics = metrics;

  RepositoryOptions repository;
  repository.storage = core->options.storage;
  repository.keys = core->options.encryption;
  repository.clock = core->clock;
  repository.random = core->random;
  repository.stdio_enabled = core->options.stdio.enabled;
  repository.stdio_allowed_commands = core->options.stdio.allowed_commands;
  repository.max_tokens_per_user = core->options.max_tokens_per_user;
  repository.max_timeout_ms = core->options.upstream.max_timeout.count();
  if (core->options.reload_keys)
    repository.reload_keys = [read = core->options.reload_keys]() -> std::optional<EncryptionKeys> {
      auto keys = read();
      return keys ? std::optional(std::move(keys->encryption)) : std::nullopt;
    };
  auto opened = Repository::open(std::move(repository));
  if (!opened) return opened.error();
  core->repository = *opened;
  core->policy = PolicyEngine::create(core->repository);

  AuthenticatorOptions auth;
  auth.repository = core->repository;
  auth.jwt_secret = core->options.jwt_secret;
  auth.previous_jwt_secrets = core->options.previous_jwt_secrets;
  auth.issuer = core->options.jwt_issuer;
  auth.audience = core->options.jwt_audience;
  auth.login_ttl = core->options.login_ttl;
  auth.password_min = core->options.password_min;
  auth.registration_open = core->options.registration_open;
  auth.setup_token = core->options.setup_token;
  auth.login_failures_per_pair = core->options.login_failures_per_pair;
  auth.login_failures_per_address = core->options.login_failures_per_address;
  auth.login_failures_per_account = core->options.login_failures_per_account;
  auth.rate_window = core->options.rate_window;
  auth.registrations_per_address = core->options.registrations_per_address;
  auth.verifiers = core->options.token_verifiers;
  if (core->options.storage->shared()) auth.shared_counts = core->options.storage;
  auto authenticator = Authenticator::create(std::move(auth));
  if (!authenticator) return authenticator.error();
  core->authenticator = *authenticator;

  core->audit = std::make_unique<AuditWriter>(core->audit_sink, core->options.audit, core->clock, core->ids,
                                              core->options.log);
  core->statistics = std::make_shared<Statistics>(core->clock);
  core->dashboards = std::make_shared<ActivityHub>(
      core->runtime->impl().any_loop(),
      [policy = core->policy](const Principal& principal, const std::string& target_id) {
        return policy->reaches(principal, target_id);
      });
  core->tickets = std::make_shared<SocketTickets>(core->options.storage, core->clock, core->random);
  core->observer = std::make_shared<Observer>(*core);
  if (core->options.telemetry.enabled) {
    auto tracer = Tracer::create(core->runtime, core->options.telemetry, core->ids, core->options.log);
    if (!tracer) return tracer.error();
    core->tracer = *tracer;
  }
  core->ledger = std::make_shared<InstanceLedger>(
      core->repository,
      [pool = core->runtime](std::function<void()> work) { return pool->post_blocking(std::move(work)); },
      [log = core->options.log](LogLevel level, std::string message) {
        if (log) log({level, "gateway", std::move(message), {}});
      });
  if (core->options.stdio.enabled) core->ledger->end_leftovers();
  core->pool = std::make_shared<ConnectionPool>(core);
  if (auto status = open_instances(core); !status) return status.error();
  auto replicas = Replicas::create(core);
  if (!replicas) return replicas.error();
  core->replicas = *replicas;
  core->sessions = std::make_shared<SessionRegistry>(core);
  auto modern = ModernClients::create(core);
  if (!modern) return modern.error();
  core->modern = *modern;
  core->modern->refresh_keys(core->repository->key_in_force());
  core->replicas->refresh_keys(core->repository->key_in_force());
  core->key_rotation = std::make_shared<KeyRotationWorker>(
      core->repository, [log = core->options.log](LogLevel level, std::string message, auto fields) {
        if (log) log({level, "storage", std::move(message), std::move(fields)});
      });

  auto impl = std::make_unique<Impl>();
  impl->runtime = runtime;
  impl->core = core;
  impl->live = std::make_unique<GatewayLiveState>(core);
  AdminApiOptions admin;
  admin.repository = core->repository;
  admin.authenticator = core->authenticator;
  admin.policy_engine = core->policy;
  admin.audit_sink = core->audit_sink;
  admin.live = impl->live.get();
  admin.kubernetes_enabled = core->options.kubernetes.enabled;
  admin.body_max = core->options.limits.api_body;
  admin.list_max = core->options.limits.list_max;
  admin.audit_bodies = core->options.audit.body != AuditBody::none;
  admin.audit_body_max = core->options.audit.body_max;
  admin.on_internal_error = [weak = std::weak_ptr(core)](const std::string& request_id,
                                                         const std::string& trace_id,
                                                         const std::string& cause) {
    if (const auto alive = weak.lock())
      alive->log(LogLevel::error, "gateway", "a request failed inside", {{"cause", cause}},
                 {request_id, trace_id});
  };
  impl->front = std::make_shared<Front>(core, std::make_unique<AdminApi>(std::move(admin)));
  impl->fronts.emplace(impl->front);
  impl->listener =
      core->repository->add_listener([weak = std::weak_ptr(core)](const RepositoryChange& change) {
        const auto alive = weak.lock();
        if (!alive) return;
        alive->pool->on_change(change);
        using Kind = RepositoryChange::Kind;
        if (change.kind == Kind::keys) reload_secrets(*alive);
        if (change.kind == Kind::user || change.kind == Kind::token) {
          alive->sessions->check_identities();
          check_dashboards(*alive);
        }
        if (change.kind == Kind::session && change.erased)
          alive->sessions->ended_elsewhere(change.id, change.user_id);
        if (change.kind == Kind::policy || change.kind == Kind::target || change.kind == Kind::user)
          alive->sessions->schedule_announcements();
      });
  Loop& loop = core->runtime->impl().any_loop();
  loop.post([&loop, weak = std::weak_ptr(core), stop = impl->stop] {
    loop.spawn(housekeeping(weak, stop));
    loop.spawn(refresh_dashboards(weak, stop));
    loop.spawn(watch_storage(weak, stop));
  });
  return std::shared_ptr<Gateway>(new Gateway(std::move(impl)));
}

Gateway::Gateway(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Gateway::~Gateway() { close(milliseconds(0)); }

void Gateway::handle_async(HttpRequest request, std::shared_ptr<Responder> responder) {
  impl_->front->handle(impl_->fronts->here(), std::move(request), std::move(responder));
}

HttpResponse Gateway::handle(HttpRequest request, milliseconds deadline) {
  auto responder = std::make_shared<BlockingResponder>();
  handle_async(std::move(request), responder);
  return responder->wait(deadline);
}

void Gateway::set_listen_address(int port, bool loopback_only) {
  impl_->core->listen_port = port;
  impl_->core->loopback_only = loopback_only;
}

std::shared_ptr<RequestHandler> Gateway::replica_handler() {
  return make_replica_handler(impl_->core, [weak = std::weak_ptr(impl_->front)](
                                               HttpRequest request, std::shared_ptr<Responder> responder) {
    if (const auto front = weak.lock()) front->handle_forwarded(std::move(request), std::move(responder));
  });
}

Status Gateway::join_replicas(const std::string& address) { return impl_->core->replicas->join(address); }

void Gateway::close(milliseconds grace) {
  const std::lock_guard lock(impl_->close_mutex);
  if (impl_->closed) return;
  impl_->closed = true;
  GatewayCore& core = *impl_->core;
  core.draining.store(true, std::memory_order_release);
  core.replicas->leave();
  core.modern->end_listens();
  const auto deadline = steady_clock::now() + grace;
  while (core.in_flight.load() > 0 && steady_clock::now() < deadline)
    std::this_thread::sleep_for(milliseconds(10));
  impl_->stop->store(true);
  core.repository->remove_listener(impl_->listener);
  core.replicas->stop();
  core.key_rotation->stop();
  core.dashboards->close_all();
  core.sessions->close_all();
  core.modern->close_all();
  core.pool->close_all();
  if (core.instances) core.instances->stop();
  // What was cancelled just now still writes its audit rows, children end, upstreams are told.
  const auto settle = steady_clock::now() + kFarewell;
  while ((core.in_flight.load() > 0 || core.farewells->load() > 0) && steady_clock::now() < settle)
    std::this_thread::sleep_for(milliseconds(5));
  core.audit->stop();
  if (core.tracer) core.tracer->stop(kLastSpans);
}

const std::shared_ptr<Repository>& Gateway::repository() const noexcept { return impl_->core->repository; }
const std::shared_ptr<PolicyEngine>& Gateway::policy_engine() const noexcept { return impl_->core->policy; }
const std::shared_ptr<Authenticator>& Gateway::authenticator() const noexcept {
  return impl_->core->authenticator;
}
const std::shared_ptr<AuditSink>& Gateway::audit_sink() const noexcept { return impl_->core->audit_sink; }
const std::shared_ptr<Runtime>& Gateway::runtime() const noexcept { return impl_->runtime; }

}  // namespace mcpgw
