#include "gateway/connection_pool.hpp"

#include <algorithm>
#include <cstdlib>

#include "base/text.hpp"
#include "gateway/observer.hpp"
#include "json/raw.hpp"
#include "protocol/bridge.hpp"
#include "protocol/modern.hpp"
#include "upstream/modern_upstream.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// A server may take long to start (package runners download it); who waits for it has a deadline of its own.
constexpr auto kOpenTimeout = std::chrono::seconds(60);
constexpr auto kFirstBackoff = milliseconds(1000);
constexpr auto kMaxBackoff = milliseconds(60000);
constexpr auto kForgetFailure = std::chrono::minutes(10);
constexpr std::size_t kMaxWaiting = 10000;     // listeners of one failed connection
constexpr std::size_t kMaxRetriesAtOnce = 16;  // begun by one sweep

milliseconds backoff_after(int failures) {
  return std::min<milliseconds>(kFirstBackoff * (1 << std::min(failures, 6)), kMaxBackoff);
}

/// Spreads what would be tried again in the same moment: up to a fifth later, by the key's own digits.
milliseconds spread(milliseconds delay, const std::string& key) {
  const auto digits = std::strtoul(key.substr(0, 4).c_str(), nullptr, 16);
  return delay + delay * static_cast<int>(digits) / (0xffff * 5);
}

/// Far from those of a connection that begins at 1, and from those of one before that was made so.
std::int64_t random_first_id(Random& random) {
  std::uint64_t out = 0;
  random.fill(&out, sizeof out);
  return static_cast<std::int64_t>((out >> 12) | 1ULL << 40);
}

/// Whether time heals it. What is switched off stays so, and what lacks room must not take others' for
/// nobody.
bool may_pass(const Error& error) {
  return error.reason != kSuperseded && error.reason != "instance_limit" &&
         error.reason != "transport_disabled" && error.reason != "kubernetes_disabled";
}

void add(std::string& out, std::string_view part) {
  out += std::to_string(part.size());
  out += ':';
  out += part;
}

/// Whom a binding was made for, as storage knows them now; nullopt when there is no such account, or it is
/// disabled.
std::optional<Principal> principal_now(const GatewayCore& core, const Binding& binding) {
  Principal out;
  out.user_id = binding.user_id;
  if (const auto user = core.repository->user(binding.user_id)) {
    if (!user->enabled) return std::nullopt;
    out.role = user->role;
    out.groups = user->groups;
  } else if (binding.external) {
    out.role = binding.external_role;
    out.groups = binding.external_groups;
  } else {
    return std::nullopt;
  }
  return out;
}

/// A process of this replica, which lives with its connection.
bool is_child(const Target& target) { return target.transport_type == TransportType::stdio; }

/// What makes two instances the same: whom they serve, and every value that is put into them. Keyed, since it
/// is written where others than the gateway may read it.
std::string instance_key(const GatewayCore& core, std::string identity, const Binding& binding) {
  for (const auto& [key, value] : binding.env) {
    add(identity, key);
    add(identity, value);
  }
  add(identity, binding.credential);
  return to_hex(hmac_sha256("mcpgw instance" + core.options.encryption.current, identity));
}

Error superseded() { return {ErrorCode::unavailable, kSuperseded, "The target was changed in the meantime"}; }

Error disabled(const char* reason, std::string message) {
  return {ErrorCode::unsupported, reason, std::move(message)};
}

}  // namespace

std::string mask_secrets(std::string text, const Binding& binding) {
  const auto mask = [&text](const std::string& secret) {
    if (secret.size() < 4) return;
    for (std::size_t at = 0; (at = text.find(secret, at)) != std::string::npos; at += 10)
      text.replace(at, secret.size(), "[redacted]");
  };
  mask(binding.credential);
  for (const auto& [key, value] : binding.env) mask(value);
  return text;
}

ConnectionPool::ConnectionPool(std::weak_ptr<GatewayCore> core)
    : core_(std::move(core)), tasks_([this] {
        const auto held = core_.lock();
        return std::make_unique<TaskTable>(held->options.jwt_secret, held->options.previous_jwt_secrets);
      }()) {}

std::string ConnectionPool::export_related_task(const UpstreamConnection& connection,
                                                const std::string& user_id, std::string_view params) const {
  return map_related_task(params, [&](const std::string& id) -> std::optional<std::string> {
    const auto known = tasks_->find(connection.target().id, id);
    return known && known->task.user_id == user_id ? std::optional(known->task.exported) : std::nullopt;
  });
}

Result<std::shared_ptr<const Binding>> ConnectionPool::bind(const Principal& principal,
                                                            const std::shared_ptr<const Target>& target,
                                                            const ClientFacts& client,
                                                            const std::string& session_id) const {
  const auto core = core_.lock();
  if (!core) return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
  const TokenResolver tokens(core->repository);
  const EnvResolver envs(core->repository);
  auto out = std::make_shared<Binding>();
  out->target = target;
  out->user_id = principal.user_id;
  if (principal.token_id.empty() && !core->repository->user(principal.user_id)) {
    out->external = true;
    out->external_role = principal.role;
    out->external_groups = principal.groups;
  }
  out->subject = boundary_subject(*core->repository, principal, *target);
  out->client = client;
  auto env = envs.resolve(principal, *target);
  if (!env) return env.error();
  auto credential = tokens.resolve(principal, *target);
  if (!credential) return credential.error();
  out->env = std::move(*env);
  if (*credential) out->credential = (*credential)->value;
  out->timeout = milliseconds(target->timeout_ms);
  std::string identity;
  add(identity, target->id);
  add(identity, std::to_string(target->version));
  add(identity, out->subject);
  if (target->statefulness == Statefulness::stateful) {
    out->session_id = session_id;
    add(identity, session_id);
  }
  if (target->transport_type == TransportType::kubernetes) {
    out->instance_key = instance_key(*core, std::move(identity), *out);
    // A pod is shared like a process; over HTTP, each user has sessions of their own with it.
    identity = out->instance_key;
    add(identity, principal.user_id);
    if (client.exact) add(identity, "exact");
    add(identity, client.capabilities);
  } else if (target->is_process()) {
    for (const auto& [key, value] : out->env) {
      add(identity, key);
      add(identity, value);
    }
    add(identity, out->credential);
    // Each set of client capabilities has a process of its own, which is told of exactly these.
    out->client.capabilities = shared_capabilities(client.capabilities);
    add(identity, out->client.capabilities);
    if (client.exact) add(identity, "exact");
  } else {
    auto access = http_target_access(*target, out->env, *credential);
    if (!access) return access.error();
    out->access = std::move(*access);
    out->timeout = milliseconds(out->access.timeout_ms);
    add(identity, out->access.url);
    for (const auto& [name, value] : out->access.headers) {
      add(identity, name);
      add(identity, value);
    }
    // Servers of 2026-07-28 are asked in the era of the client, whose results are not made poorer then.
    if (client.exact) add(identity, "exact");
    // What a server offers may depend on what its client can do: each set of capabilities has its own
    // session.
    add(identity, client.capabilities);
  }
  out->key = to_hex(sha256(identity));
  return std::shared_ptr<const Binding>(std::move(out));
}

void ConnectionPool::wait(Slot& slot, const std::shared_ptr<ConnectionListener>& listener) {
  if (!listener) return;
  std::erase_if(slot.waiting, [&](const auto& known) {
    const auto alive = known.lock();
    return !alive || alive == listener;
  });
  if (slot.waiting.size() < kMaxWaiting) slot.waiting.push_back(listener);
}

void ConnectionPool::tell(const Waiting& waiting, const std::string& target_id) {
  for (const auto& weak : waiting)
    if (const auto listener = weak.lock()) listener->on_target_ready(target_id);
}

Task<Result<std::shared_ptr<UpstreamConnection>>> ConnectionPool::acquire(
    std::shared_ptr<const Binding> binding, SteadyTime deadline, std::shared_ptr<ConnectionListener> waiting,
    std::shared_ptr<KeptUpstream> kept) {
  const auto core = core_.lock();
  if (!core) co_return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
  bool waited = false;
  for (;;) {
    std::shared_ptr<AsyncEvent> opening;
    bool open_now = false;
    {
      const std::lock_guard lock(mutex_);
      if (closed_) co_return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
      Slot& slot = slots_[binding->key];
      if (slot.connection && slot.connection->usable()) co_return slot.connection;
      if (!slot.opening) {
        if (slot.error && (waited || slot.retry_at > steady_clock::now())) {
          if (may_pass(*slot.error)) wait(slot, waiting);
          co_return *slot.error;
        }
        slot.connection = nullptr;
        slot.binding = binding;
        slot.opening = std::make_shared<AsyncEvent>();
        if (kept) slot.kept = kept;
        kept = slot.kept;
        open_now = true;
      } else if (steady_clock::now() >= deadline) {
        wait(slot, waiting);
        co_return Error(ErrorCode::deadline_exceeded, "upstream_timeout",
                        "The server did not get ready in time");
      }
      opening = slot.opening;
    }
    // Detached: others wait for it, and the caller's deadline must not end it for them.
    if (open_now) Loop::current()->spawn(open(core, binding, opening, kept));
    (void)co_await opening->wait(deadline);
    waited = true;
  }
}

Task<void> ConnectionPool::open(std::shared_ptr<GatewayCore> core, std::shared_ptr<const Binding> binding,
                                std::shared_ptr<AsyncEvent> opened, std::shared_ptr<KeptUpstream> kept) {
  auto result = co_await connect(core, binding, steady_clock::now() + kOpenTimeout, false, std::move(kept));
  // Either the change came before this look at it, or it finds the slot and marks it.
  const bool outdated_now = outdated(*core, *binding);
  if (outdated_now) {
    // Nothing of it is news about the target as it is now.
  } else if (result) {
    report(*binding->target, binding->key, std::nullopt, {}, &(*result)->upstream().facts());
  } else if (result.error().reason != kCircuitOpen) {
    report(*binding->target, binding->key, result.error(), result.error().message, nullptr);
  }
  std::shared_ptr<UpstreamConnection> unwanted;
  std::shared_ptr<const void> held;
  Waiting waiting;
  {
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[binding->key];
    const bool orphaned = slot.opening != opened;
    if (!orphaned) slot.opening = nullptr;
    if (!orphaned && (result || outdated_now)) slot.kept = nullptr;
    if (result && (closed_ || orphaned || outdated_now)) unwanted = *result;
    if (orphaned) {
      // Retired meanwhile: who waited has been told, and the slot may have gone on.
    } else if (outdated_now) {
      slot.error = superseded();
      slot.retry_at = {};
      waiting.swap(slot.waiting);
    } else if (result) {
      if (!closed_) slot.connection = *result;
      held = std::move((*result)->instance_held_);
      slot.error = std::nullopt;
      slot.failures = 0;
      waiting.swap(slot.waiting);
      health_[binding->target->id].transport = (*result)->upstream().transport();
    } else if (result.error().reason == kCircuitOpen) {
      // It was not tried: the place itself is waited for.
      slot.error = result.error();
      slot.retry_at = steady_clock::now();
      slot.next_try = slot.retry_at + spread(kFirstBackoff, binding->key);
    } else {
      slot.error = result.error();
      const auto now = steady_clock::now();
      // What a call tried before its time says nothing new: it must not put off the next try for everybody.
      const bool counts = binding->target->is_process() || slot.failures == 0 || now >= slot.next_try;
      if (counts) ++slot.failures;
      const auto backoff = backoff_after(slot.failures - 1);
      // A child that keeps dying is not started again at once; a refused connection costs little to try.
      slot.retry_at = binding->target->is_process() && may_pass(*slot.error) ? now + backoff : now;
      slot.next_try = now + spread(backoff, binding->key);
      if (!may_pass(*slot.error)) slot.waiting.clear();
    }
  }
  if (unwanted) unwanted->close();
  opened->set();
  tell(waiting, binding->target->id);
}

Task<Result<std::shared_ptr<UpstreamConnection>>> ConnectionPool::connect(
    std::shared_ptr<GatewayCore> core, std::shared_ptr<const Binding> binding, SteadyTime deadline,
    bool forced, std::shared_ptr<KeptUpstream> kept) {
  const Target& target = *binding->target;
  Loop& home = *Loop::current();
  {
    const std::lock_guard lock(mutex_);
    health_[target.id].note.clear();  // of an attempt before
  }
  auto connection = std::make_shared<UpstreamConnection>(core, binding);
  auto& workers = core->runtime->impl().workers();
  const auto finish =
      [&connection](
          Result<std::shared_ptr<Upstream>> upstream) -> Result<std::shared_ptr<UpstreamConnection>> {
    if (!upstream) return upstream.error();
    connection->upstream_ = std::move(*upstream);
    // From now on, however long the server took to start.
    connection->touch();
    return connection;
  };

  if (core->options.connect_upstream) {
    auto ask = [core, binding]() -> Result<std::shared_ptr<MessageChannel>> {
      return core->options.connect_upstream(
          {*binding->target, binding->subject.starts_with("user:") ? binding->user_id : std::string(),
           binding->env, binding->credential});
    };
    auto channel = co_await run_blocking(workers, ask);
    if (!channel)
      co_return Error(ErrorCode::unavailable, "overloaded", "Too many connections are being opened");
    if (!*channel) co_return channel->error();
    if (**channel) {
      // What a host keeps in its own process is not asked what it speaks: the target says so.
      if (target.protocol_era == EraSetting::modern) {
        EraFinding finding;
        auto upstream = co_await open_modern_channel_upstream(home, **channel, binding->client,
                                                              connection->events(), deadline, finding);
        co_return finish(std::move(upstream));
      }
      auto upstream =
          co_await open_channel_upstream(**channel, binding->client, connection->events(), deadline);
      co_return finish(std::move(upstream));
    }
  }

  switch (target.transport_type) {
    case TransportType::streamable_http:
    case TransportType::sse: {
      const auto breaker = circuit(*core, *binding);
      auto pass = forced ? std::optional(breaker->force()) : breaker->enter(steady_clock::now());
      if (!pass) co_return CircuitBreaker::refusal();
      connection->circuit_ = breaker;
      auto upstream =
          co_await connect_http(core, binding, connection->events(),
                                std::min(deadline, steady_clock::now() + binding->timeout), std::move(kept));
      auto outcome =
          upstream ? CircuitBreaker::Outcome::worked : CircuitBreaker::outcome_of(upstream.error());
      // Who does not even greet in time hangs for everybody.
      if (!upstream && upstream.error().reason == "upstream_timeout")
        outcome = CircuitBreaker::Outcome::failed;
      if (pass->end(outcome, steady_clock::now())) circuit_closed(target.id);
      co_return finish(std::move(upstream));
    }
    case TransportType::stdio: {
      auto upstream = co_await connect_process(core, binding, connection->events(), deadline);
      co_return finish(std::move(upstream));
    }
    case TransportType::kubernetes: {
      auto upstream = co_await connect_instance(core, binding, *connection, std::move(kept));
      co_return finish(std::move(upstream));
    }
  }
  co_return disabled("transport_disabled", "The transport is not known");
}

std::shared_ptr<CircuitBreaker> ConnectionPool::circuit(const GatewayCore& core, const Binding& binding) {
  // Of a place: somebody's own BASE_URL is another one.
  const auto url = parse_url(binding.access.url);
  const std::lock_guard lock(mutex_);
  Circuit& one = circuits_[{binding.target->id, url ? url->origin() : std::string()}];
  if (!one.breaker || one.version != binding.target->version)
    one = {binding.target->version, std::make_shared<CircuitBreaker>(core.options.upstream.circuit_failures,
                                                                     core.options.upstream.circuit_pause)};
  return one.breaker;
}

void ConnectionPool::circuit_closed(const std::string& target_id) {
  const auto now = steady_clock::now();
  const std::lock_guard lock(mutex_);
  for (auto& [key, slot] : slots_)
    if (slot.error && slot.binding && slot.binding->target->id == target_id && !slot.waiting.empty())
      slot.next_try = std::min(slot.next_try, now);
}

Task<Result<std::shared_ptr<UpstreamConnection>>> ConnectionPool::open_alone(
    std::shared_ptr<const Binding> binding, SteadyTime deadline) {
  const auto core = core_.lock();
  if (!core) co_return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(alone_, [](const auto& one) { return one.expired(); });
    alone_.push_back(binding);
  }
  auto result = co_await connect(core, binding, deadline, true, nullptr);
  if (outdated(*core, *binding)) co_return result;
  if (result)
    report(*binding->target, binding->key, std::nullopt, {}, &(*result)->upstream().facts());
  else
    report(*binding->target, binding->key, result.error(), result.error().message, nullptr);
  co_return result;
}

Result<HttpUpstreamOptions> ConnectionPool::http_options(const GatewayCore& core, const Binding& binding) {
  auto client = http_client(core, *binding.target);
  if (!client) return client.error();
  const auto url = parse_url(binding.access.url);
  if (!url) return Error(ErrorCode::unavailable, "upstream_unreachable", "The target's URL cannot be used");
  HttpUpstreamOptions options;
  options.client = *client;
  options.url = *url;
  options.headers = binding.access.headers;
  options.max_message = core.options.limits.upstream_bytes;
  options.farewells = core.farewells;
  return options;
}

/// A target of Streamable HTTP may be a server of the older transport: it is found out by asking (2025-11-25,
/// basic/transports, "Backwards Compatibility"), and remembered until it is found to be wrong.
Task<Result<std::shared_ptr<Upstream>>> ConnectionPool::connect_http(std::shared_ptr<GatewayCore> core,
                                                                     std::shared_ptr<const Binding> binding,
                                                                     UpstreamEvents events,
                                                                     SteadyTime deadline,
                                                                     std::shared_ptr<KeptUpstream> kept) {
  const Target& target = *binding->target;
  Loop& home = *Loop::current();
  auto made = http_options(*core, *binding);
  if (!made) co_return made.error();
  HttpUpstreamOptions options = std::move(*made);
  if (target.transport_type == TransportType::sse)
    co_return co_await open_sse_upstream(home, std::move(options), binding->client, std::move(events),
                                         deadline);
  if (kept && !kept->gone && target.protocol_era != EraSetting::modern) {
    auto resumed = co_await resume_http_upstream(home, options, binding->client, events, kept->session,
                                                 random_first_id(*core->random), deadline);
    // Whatever else it says to a ping in this session: it is asked for a new one.
    const bool gone = !resumed && (resumed.error().reason == "session_lost" ||
                                   resumed.error().reason == "upstream_protocol_error");
    if (!gone) co_return resumed;
    if (resumed.error().reason == "session_lost") kept->gone = true;
  }
  const auto place = std::make_pair(target.version, binding->access.url);
  bool was_older, was_legacy;
  {
    const std::lock_guard lock(mutex_);
    const auto it = older_.find(target.id);
    was_older = it != older_.end() && it->second == place;
    const auto known = legacy_.find(target.id);
    was_legacy = known != legacy_.end() && known->second == place;
  }
  if (target.protocol_era == EraSetting::modern ||
      (target.protocol_era == EraSetting::automatic && !was_older && !was_legacy)) {
    EraFinding finding;
    auto modern = co_await open_modern_upstream(home, options, binding->client, events, deadline, finding);
    using Verdict = EraFinding::Verdict;
    const bool reached = modern || (modern.error().reason != "upstream_unreachable" &&
                                    modern.error().reason != "upstream_redirect" &&
                                    modern.error().reason != "address_not_allowed");
    if (modern || !reached || finding.verdict == Verdict::modern || target.protocol_era == EraSetting::modern)
      co_return modern;
    if (finding.verdict == Verdict::legacy) {
      const std::lock_guard lock(mutex_);
      legacy_[target.id] = place;
    }
  }
  if (was_older) {
    HttpRefusal refusal;
    auto older = co_await open_sse_upstream(home, options, binding->client, events, deadline, &refusal);
    if (older || refusal.status == 0) co_return older;
    const std::lock_guard lock(mutex_);
    older_.erase(target.id);
  }
  HttpRefusal refusal;
  auto upstream = co_await open_http_upstream(home, options, binding->client, events, deadline, &refusal);
  if (!upstream) {
    // It may have become another kind of server: next time it is asked again.
    const std::lock_guard lock(mutex_);
    legacy_.erase(target.id);
  }
  if (upstream || !refusal.suggests_sse() || was_older) co_return upstream;
  HttpRefusal older_refusal;
  auto older =
      co_await open_sse_upstream(home, std::move(options), binding->client, events, deadline, &older_refusal);
  // That it is no such server is no news.
  if (!older) co_return older_refusal.status == 0 ? std::move(older) : std::move(upstream);
  const std::lock_guard lock(mutex_);
  older_[target.id] = place;
  co_return older;
}

Result<std::shared_ptr<HttpClient>> ConnectionPool::http_client(const GatewayCore& core,
                                                                const Target& target) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = clients_.find(target.id);
    if (it != clients_.end() && it->second.first == target.version) return it->second.second;
  }
  HttpClientOptions options;
  options.connect_timeout = core.options.upstream.connect_timeout;
  // The Service of an instance is an address that the gateway itself has made.
  options.allow_private = core.options.upstream.allow_private || target.allow_private_network ||
                          target.transport_type == TransportType::kubernetes;
  options.allow_metadata = core.options.upstream.allow_metadata;
  options.ca_file = core.options.upstream.ca;
  options.proxy = core.options.upstream.proxy;
  options.no_proxy = core.options.upstream.no_proxy;
  options.proxy_resolves = core.options.upstream.proxy_resolves;
  if (target.transport_type == TransportType::kubernetes) options.proxy.clear();  // it is inside the cluster
  if (target.tls) {
    options.ca = target.tls->ca;
    options.verify = target.tls->verify;
    options.client_cert = target.tls->client_cert;
    options.client_key = target.tls->client_key;
  }
  auto client = HttpClient::create(core.runtime, options);
  if (!client)
    return Error(ErrorCode::unavailable, "upstream_unreachable", "The target's TLS settings cannot be used");
  const std::lock_guard lock(mutex_);
  auto& entry = clients_[target.id];
  if (entry.second && entry.first >= target.version) return entry.second;
  entry = {target.version, *client};
  return *client;
}

void ConnectionPool::retire(const std::function<bool(const Binding&)>& which, int* count,
                            std::vector<std::string>* instances) {
  const auto core = core_.lock();
  const auto drain = core ? core->options.upstream.drain : milliseconds(0);
  std::vector<std::shared_ptr<UpstreamConnection>> found;
  std::vector<std::shared_ptr<AsyncEvent>> opening;
  std::vector<std::pair<Waiting, std::string>> waiting;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = slots_.begin(); it != slots_.end();) {
      Slot& slot = it->second;
      const Binding* binding = slot.connection ? &slot.connection->binding() : slot.binding.get();
      if (binding == nullptr || !which(*binding)) {
        ++it;
        continue;
      }
      if (slot.connection) {
        if (instances && !slot.connection->instance().empty())
          instances->push_back(slot.connection->instance());
        found.push_back(slot.connection);
        retired_.push_back(slot.connection);
        slot.connection = nullptr;
      }
      if (!slot.waiting.empty())
        waiting.emplace_back(std::exchange(slot.waiting, {}), slot.binding->target->id);
      if (!slot.opening) {
        it = slots_.erase(it);
        continue;
      }
      // Nobody needs to wait for what will not be used.
      opening.push_back(std::exchange(slot.opening, nullptr));
      slot.error = superseded();
      slot.retry_at = {};
      ++it;
    }
  }
  for (const auto& event : opening) event->set();
  for (const auto& connection : found) connection->retire(steady_clock::now() + drain);
  for (const auto& [listeners, target_id] : waiting) tell(listeners, target_id);
  if (count) *count = static_cast<int>(found.size());
}

bool ConnectionPool::outdated(const GatewayCore& core, const Binding& binding) const {
  const auto target = core.repository->target(binding.target->id);
  if (!target || !target->enabled || target->version != binding.target->version) return true;
  const auto known = principal_now(core, binding);
  if (!known && binding.subject.starts_with("user:")) return true;
  Principal principal;
  principal.user_id = binding.user_id;
  if (known) {
    principal = *known;
  } else if (const auto user = core.repository->user(binding.user_id)) {
    principal.role = user->role;
    principal.groups = user->groups;
  }
  const auto now = bind(principal, target, binding.client, binding.session_id);
  // A shared instance whose first user moved on still serves the others of its subject.
  if (now && (*now)->subject != binding.subject && !binding.subject.starts_with("user:")) return false;
  return !now || (*now)->key != binding.key;
}

bool ConnectionPool::forbidden(const GatewayCore& core, const Binding& binding) {
  if (!binding.subject.starts_with("user:")) return false;  // others may share it
  const auto principal = principal_now(core, binding);
  return !principal || !core.policy->reaches(*principal, binding.target->id);
}

void ConnectionPool::on_change(const RepositoryChange& change) {
  using Kind = RepositoryChange::Kind;
  const auto core = core_.lock();
  if (!core) return;
  switch (change.kind) {
    case Kind::target:
    case Kind::target_token:
    case Kind::env:
      retire_outdated(*core, change.id);
      if (change.kind == Kind::target && change.erased) {
        const std::lock_guard lock(mutex_);
        health_.erase(change.id);
        clients_.erase(change.id);
        legacy_.erase(change.id);
        limits_.erase(change.id);
        std::erase_if(circuits_, [&](const auto& entry) { return entry.first.first == change.id; });
        older_.erase(change.id);
      }
      break;
    case Kind::user:
      retire([&](const Binding& binding) {
        return binding.user_id == change.id && (outdated(*core, binding) || forbidden(*core, binding));
      });
      break;
    case Kind::policy:
      // Its standing stream and what is tried again would go on for somebody who may not use it.
      retire([&](const Binding& binding) { return forbidden(*core, binding); });
      break;
    default:
      break;
  }
}

int ConnectionPool::restart(const std::string& target_id) {
  int count = 0;
  retire([&](const Binding& binding) { return binding.target->id == target_id; }, &count);
  return count;
}

void ConnectionPool::close_user(const std::string& user_id) {
  retire([&, subject = "user:" + user_id](const Binding& binding) {
    return binding.subject == subject || (!binding.instance_key.empty() && binding.user_id == user_id);
  });
}

void ConnectionPool::released(const std::shared_ptr<UpstreamConnection>& connection) {
  if (is_child(connection->target()) && connection->binding().session_id.empty()) return;
  if (connection->attached()) return;
  forget(connection);
  connection->retire(steady_clock::now() + std::chrono::seconds(30));
}

void ConnectionPool::forget(const std::shared_ptr<UpstreamConnection>& connection) {
  const std::lock_guard lock(mutex_);
  const auto it = slots_.find(connection->binding().key);
  if (it != slots_.end() && it->second.connection == connection) it->second.connection = nullptr;
  if (connection->in_flight() > 0) retired_.push_back(connection);
  if (const auto health = health_.find(connection->target().id); health != health_.end())
    std::erase_if(health->second.list_faults,
                  [&](const std::string& fault) { return fault.starts_with(connection->binding().key); });
}

void ConnectionPool::leave(const std::shared_ptr<UpstreamConnection>& connection) {
  forget(connection);
  connection->leave(steady_clock::now() + std::chrono::seconds(30));
}

void ConnectionPool::end_session(const std::shared_ptr<const Binding>& binding, const KeptUpstream& kept) {
  const auto core = core_.lock();
  if (!core || kept.gone || binding->access.url.empty()) return;
  auto options = http_options(*core, *binding);
  if (!options) return;
  Loop& loop = core->runtime->impl().any_loop();
  loop.post([&loop, options = std::move(*options), session = kept.session] {
    end_http_session(loop, options, session);
  });
}

void ConnectionPool::lost(const std::shared_ptr<UpstreamConnection>& connection, const Error& error,
                          const std::vector<std::shared_ptr<ConnectionListener>>& listeners) {
  forget(connection);
  const std::lock_guard lock(mutex_);
  // One that had been retired is nobody's loss: what takes its place has another key, or no target.
  if (closed_ || listeners.empty() || connection->retired_.load(std::memory_order_acquire)) return;
  Slot& slot = slots_[connection->binding().key];
  if (slot.connection || slot.opening) return;
  slot.binding = connection->binding_ptr();
  slot.error = error;
  slot.retry_at = {};
  slot.next_try = steady_clock::now() + spread(kFirstBackoff, slot.binding->key);
  for (const auto& listener : listeners) wait(slot, listener);
}

void ConnectionPool::report_list(const UpstreamConnection& connection, ListKind kind,
                                 std::optional<std::string> fault) {
  const auto core = core_.lock();
  if (!core) return;
  const Target& target = connection.target();
  const std::string id = connection.binding().key + ':' + std::string(list_member(kind));
  {
    const std::lock_guard lock(mutex_);
    Health& health = health_[target.id];
    const bool changed = fault ? health.list_faults.insert(id).second : health.list_faults.erase(id) > 0;
    if (changed) health.since = core->clock->now();
    if (fault) health.last_error = *fault;
  }
  if (fault)
    core->log(LogLevel::warn, "upstream", "a list could not be read to its end",
              {{"target", target.name}, {"list", std::string(list_method(kind))}, {"cause", *fault}});
}

void ConnectionPool::sweep(SteadyTime now) {
  const auto core = core_.lock();
  if (!core) return;
  retry_failed(*core, now);
  std::vector<std::shared_ptr<UpstreamConnection>> ended, outlived, overdue, live;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(retired_, [&](const auto& connection) {
      if (connection->in_flight() == 0) return true;
      if (!connection->overdue(now)) return false;
      overdue.push_back(connection);
      return true;
    });
    const StdioOptions& stdio = core->options.stdio;
    const bool collect = now >= next_collection_;
    if (collect) next_collection_ = now + std::min({stdio.gc_interval, stdio.idle_ttl, stdio.max_lifetime});
    for (auto it = slots_.begin(); it != slots_.end();) {
      Slot& slot = it->second;
      const bool process = slot.connection && is_child(slot.connection->target());
      const bool old = process && collect && now - slot.connection->created() > stdio.max_lifetime;
      if (slot.connection && slot.connection->in_flight() == 0) {
        const auto idle = now - slot.connection->idle_since();
        const bool unused = process ? collect && idle > stdio.idle_ttl
                                    : !slot.connection->attached() && idle > core->options.session.timeout;
        if (old || unused || !slot.connection->usable()) {
          ended.push_back(std::move(slot.connection));
          slot.connection = nullptr;
        }
      } else if (old) {
        // It may be busy whenever it is looked at: the next pause between its calls is taken.
        outlived.push_back(slot.connection);
      }
      if (slot.connection) live.push_back(slot.connection);
      const bool empty = !slot.connection && !slot.opening && slot.waiting.empty() &&
                         (!slot.error || now - slot.retry_at > kForgetFailure);
      it = empty ? slots_.erase(it) : std::next(it);
    }
  }
  for (const auto& connection : ended) connection->retire(now);
  for (const auto& connection : outlived) connection->retire_when_idle();
  for (const auto& connection : overdue) connection->close();
  for (const auto& connection : live) connection->retry_lists(now);
}

void ConnectionPool::retry_failed(GatewayCore& core, SteadyTime now) {
  const auto due = [now](const Slot& slot) {
    return slot.error && !slot.connection && !slot.opening && !slot.waiting.empty() && slot.next_try <= now;
  };
  struct Candidate {
    std::string key;
    std::string target_id;
    Waiting waiting;
  };
  std::vector<Candidate> candidates;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    for (const auto& [key, slot] : slots_)
      if (due(slot) && candidates.size() < kMaxRetriesAtOnce)
        candidates.push_back({key, slot.binding->target->id, slot.waiting});
  }
  for (const Candidate& candidate : candidates) {
    const std::string& key = candidate.key;
    const bool wanted =
        std::any_of(candidate.waiting.begin(), candidate.waiting.end(), [&](const auto& weak) {
          const auto listener = weak.lock();
          return listener && listener->waits_for(candidate.target_id);
        });
    std::shared_ptr<const Binding> binding;
    std::shared_ptr<AsyncEvent> opening;
    std::shared_ptr<KeptUpstream> kept;
    {
      const std::lock_guard lock(mutex_);
      const auto it = slots_.find(key);
      if (closed_ || it == slots_.end() || !due(it->second)) continue;
      if (!wanted) {
        it->second.waiting.clear();
        continue;
      }
      binding = it->second.binding;
      kept = it->second.kept;
      opening = it->second.opening = std::make_shared<AsyncEvent>();
    }
    const auto held = core_.lock();
    if (!held) return;
    Loop& loop = core.runtime->impl().any_loop();
    loop.post(
        [this, &loop, held, binding, opening, kept] { loop.spawn(open(held, binding, opening, kept)); });
  }
}

void ConnectionPool::close_all() {
  std::vector<std::shared_ptr<UpstreamConnection>> all;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    for (auto& [key, slot] : slots_)
      if (slot.connection) all.push_back(std::move(slot.connection));
    all.insert(all.end(), retired_.begin(), retired_.end());
    slots_.clear();
    retired_.clear();
  }
  for (const auto& connection : all) connection->close();
}

void ConnectionPool::report(const Target& target, const std::string& key, std::optional<Error> error,
                            std::string detail, const ServerFacts* facts) {
  const auto core = core_.lock();
  if (!core) return;
  bool is_news = false;  // to those who watch: it worked before, or it did not
  {
    const std::lock_guard lock(mutex_);
    Health& health = health_[target.id];
    const std::string state = error ? "down" : "up";
    if (health.state != state) {
      is_news = error || health.state == "down";
      health.state = state;
      health.since = core->clock->now();
      core->log(
          error ? LogLevel::warn : LogLevel::info, "upstream",
          error ? "the target failed" : "the target is up",
          {{"target", target.name}, {"reason", error ? error->reason : ""}, {"key", key.substr(0, 12)}});
    }
    if (facts != nullptr) health.version = facts->protocol_version;
    // A note about this failure (the certificate, the end of stderr) tells more than the error does.
    const std::string told = std::exchange(health.note, {});
    if (error && !told.empty())
      health.last_error =
          error->reason + ": " + (told.find(detail) != std::string::npos ? told : detail + ": " + told);
    else if (error && (!health.last_error || health.last_error->find(detail) == std::string::npos))
      health.last_error = error->reason + ": " + detail;  // else the same was told before, and more of it
  }
  if (is_news) core->observer->target_changed(target, error ? error->reason : "recovered", detail);
}

void ConnectionPool::note(const Target& target, std::string detail) {
  const std::lock_guard lock(mutex_);
  Health& health = health_[target.id];
  health.note = detail;
  // What says less than is told already is no news.
  if (!health.last_error || health.last_error->find(detail) == std::string::npos)
    health.last_error = std::move(detail);
}

std::shared_ptr<ConcurrencyLimit> ConnectionPool::concurrency(const std::string& target_id) {
  const std::lock_guard lock(mutex_);
  auto& limit = limits_[target_id];
  if (!limit) limit = std::make_shared<ConcurrencyLimit>();
  return limit;
}

TargetStatus ConnectionPool::status(const Target& target) const {
  TargetStatus out;
  const std::lock_guard lock(mutex_);
  if (const auto it = health_.find(target.id); it != health_.end()) {
    out.state = it->second.state;
    out.protocol_version = it->second.version;
    out.last_error = it->second.last_error;
    if (it->second.since != Time{}) out.since = it->second.since;
    if (out.protocol_version) out.era = is_modern_version(*out.protocol_version) ? "modern" : "legacy";
    out.transport = it->second.transport;
  }
  bool failing = false, waited_for = false;
  for (const auto& [key, slot] : slots_) {
    if (slot.connection && slot.connection->target().id == target.id) ++out.instances;
    if (slot.connection || !slot.error || !slot.binding || slot.binding->target->id != target.id) continue;
    failing |= slot.error->reason != kSuperseded;
    waited_for |= !slot.waiting.empty();
  }
  // Down: it fails, and nobody waits for it. Degraded: a part of it fails, or it is being tried again.
  const auto health = health_.find(target.id);
  const bool list_faults = health != health_.end() && !health->second.list_faults.empty();
  if (list_faults || (failing && (waited_for || out.instances > 0))) out.state = "degraded";
  if (!target.enabled) out.state = "disabled";
  return out;
}

std::size_t ConnectionPool::size() const {
  const std::lock_guard lock(mutex_);
  std::size_t count = 0;
  for (const auto& [key, slot] : slots_) count += slot.connection != nullptr;
  return count;
}

}  // namespace mcpgw::detail
