// Replicas: who owns which session, and how this gateway shows that it lives.
#include "gateway/replicas.hpp"

#include <map>

#include "base/text.hpp"
#include "gateway/modern_client.hpp"
#include "gateway/session.hpp"
#include "json/raw.hpp"
#include "runtime/url.hpp"
#include "storage/records.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// Owners that are remembered; beyond it, all are looked up again.
constexpr std::size_t kMaxOwners = 100000;
/// How often a session may change hands while one request looks for it.
constexpr int kMaxHops = 4;
/// How long a request waits until this replica knows again what is its own, and how often it looks.
constexpr auto kAwake = std::chrono::seconds(10);
constexpr auto kLookAgain = std::chrono::milliseconds(10);

std::string random_id(Random& random) {
  std::string bytes(12, '\0');
  random.fill(bytes.data(), bytes.size());
  return base64url(bytes);
}

}  // namespace

NamedSession named_session(const HttpRequest& request) {
  if (request.method == "POST")
    if (auto id = query_value(request.query(), "session_id")) return {std::move(*id), true};
  const std::string* id = request.header("Mcp-Session-Id");
  return {id == nullptr ? std::string() : *id, false};
}

Result<std::shared_ptr<Replicas>> Replicas::create(const std::shared_ptr<GatewayCore>& core) {
  KeyRing::Source source;
  if (core->options.reload_keys)
    source = [read = core->options.reload_keys]() -> std::optional<EncryptionKeys> {
      auto keys = read();
      return keys ? std::optional(std::move(keys->encryption)) : std::nullopt;
    };
  auto ring = KeyRing::create(core->options.encryption, core->random, std::move(source));
  if (!ring) return ring.error();
  return std::shared_ptr<Replicas>(new Replicas(core, std::move(*ring), random_id(*core->random)));
}

Replicas::Replicas(const std::shared_ptr<GatewayCore>& core, std::shared_ptr<KeyRing> ring, std::string id)
    : core_(core),
      id_(std::move(id)),
      lease_(core->options.replicas.lease),
      seal_(std::move(ring), core->clock),
      peers_(std::make_shared<ReplicaPeers>(core->options.replicas.lease)),
      counts_(std::make_shared<ReplicaCounts>(core)),
      places_(std::make_shared<ReplicaPlaces>(core)) {}

Replicas::~Replicas() { stop(); }

Status Replicas::join(const std::string& address) {
  const auto core = core_.lock();
  if (!core || on()) return Error(ErrorCode::internal, "internal", "A gateway joins once");
  const auto url = parse_url(address);
  if (!url || url->target != "/")
    return Error(ErrorCode::invalid_argument, "invalid_request",
                 "The address of a replica is an http or https URL without a path", "address");
  HttpClientOptions options;
  options.connect_timeout = kConnect;
  options.allow_private = true;  // it leads where the replicas' own records say
  options.ca_file = core->options.upstream.ca;
  auto http = HttpClient::create(core->runtime, std::move(options));
  if (!http) return http.error();
  http_ = std::move(*http);
  {
    const std::lock_guard lock(mutex_);
    record_.id = id_;
    record_.address = url->origin();
    record_.started_at = core->clock->now();
  }
  watch_ = core->options.storage->watch([weak = weak_from_this()](const std::vector<Change>& changes) {
    if (const auto self = weak.lock()) self->on_storage_change(changes);
  });
  beaten_ = steady_clock::now().time_since_epoch().count();
  if (auto status = core->repository->save_replica(record_); !status) return status;
  auto known = core->repository->replicas();
  if (!known) return known.error();
  (void)peers_->update(*known, steady_clock::now());
  on_.store(true, std::memory_order_release);
  Loop& loop = core->runtime->impl().any_loop();
  loop.post([&loop, weak = weak_from_this()] { loop.spawn(heartbeat(weak)); });
  core->log(LogLevel::info, "replicas", "answers for the other replicas",
            {{"replica", id_}, {"address", record_.address}});
  return {};
}

void Replicas::leave() {
  if (!on() || left_.exchange(true)) return;
  if (const auto core = core_.lock())
    if (!core->repository->delete_replica(id_))
      core->log(LogLevel::warn, "replicas",
                "the others could not be told: they notice when the lease has run out");
}

void Replicas::stop() {
  std::set<std::shared_ptr<CancelSource>> running;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
    running.swap(running_);
  }
  left_ = true;
  places_->stop();
  if (watch_ != 0)
    if (const auto core = core_.lock()) core->options.storage->unwatch(watch_);
  for (const auto& one : running) one->cancel();
}

// --- signs of life -----------------------------------------------------------------------------------

Task<void> Replicas::heartbeat(std::weak_ptr<Replicas> weak) {
  for (;;) {
    WorkerPool* workers = nullptr;
    std::chrono::milliseconds pause;
    {
      const auto self = weak.lock();
      const auto core = self ? self->core_.lock() : nullptr;
      if (!core || self->left_) co_return;
      pause = core->options.replicas.lease / 3;
      workers = &core->runtime->impl().workers();
    }
    co_await sleep_for(pause);
    if (weak.expired()) co_return;
    auto work = [weak] {
      const auto self = weak.lock();
      return self && self->beat();
    };
    (void)co_await run_blocking(*workers, work);
  }
}

bool Replicas::stale() const {
  if (!on() || left_ || away_.load(std::memory_order_relaxed)) return false;
  return since_beat() > lease_;
}

steady_clock::duration Replicas::since_beat() const {
  return steady_clock::now().time_since_epoch() -
         steady_clock::duration(beaten_.load(std::memory_order_relaxed));
}

Task<bool> Replicas::awake() {
  const auto core = core_.lock();
  if (!core) co_return false;
  // One asks for all who wait, and they wait without a worker.
  const auto until = steady_clock::now() + kAwake;
  while (stale()) {
    if (steady_clock::now() > until) co_return false;
    if (catching_up_.exchange(true)) {
      co_await sleep_for(kLookAgain);
      continue;
    }
    auto work = [self = shared_from_this()] {
      const bool fresh = !self->stale() || self->beat();
      self->catching_up_ = false;
      return fresh;
    };
    const auto fresh = co_await run_blocking(core->runtime->impl().workers(), work);
    if (!fresh) catching_up_ = false;  // it was not taken
    co_return fresh.value_or(false);
  }
  co_return true;
}

bool Replicas::beat() {
  const auto core = core_.lock();
  if (!core || left_) return true;
  const std::lock_guard turn(beating_);
  const auto began = steady_clock::now().time_since_epoch().count();
  const bool slept = stale();
  // Then the others may have removed this one's record, and with it the reason to tell it what they took.
  const bool forgotten = since_beat() > lease_ * (ReplicaPeers::kRemoveAfter / 2);
  ReplicaRecord record;
  bool missed;
  {
    const std::lock_guard lock(mutex_);
    ++record_.beat;
    record = record_;
    missed = std::exchange(missed_, false) || slept || forgotten;
  }
  const Status saved = core->repository->save_replica(record);
  const auto stored =
      saved ? core->repository->replicas() : Result<std::vector<ReplicaRecord>>(saved.error());
  if (!stored) {
    // The others may have thought that this one is gone.
    const std::lock_guard lock(mutex_);
    missed_ = true;
    // Who was awake when storage went away goes on with what it has: nobody else can take it.
    if (!slept) away_ = true;
    return !slept;
  }
  if (left_) (void)core->repository->delete_replica(id_);  // it said goodbye meanwhile
  for (const std::string& dead : peers_->update(*stored, steady_clock::now()))
    if (dead != id_) (void)core->repository->delete_replica(dead);
  std::set<std::string> living;
  for (const auto& [other, address] : others()) living.insert(other);
  places_->take_back(living);
  if (missed && !let_go(forgotten)) return false;
  beaten_ = began;
  away_ = false;
  return true;
}

bool Replicas::let_go(bool all) {
  const auto core = core_.lock();
  if (!core) return true;
  // Whoever reads what was taken is the last to read it: nobody goes on before it is let go.
  const std::lock_guard turn(letting_go_);
  const auto taken = core->repository->taken_sessions(id_);
  bool complete = taken.has_value();
  std::map<std::string, bool> doubtful;  // whether somebody has said that it took it
  if (all)
    for (const auto& session : core->sessions->all())
      if (!session->over_sse()) doubtful.emplace(session->id(), false);
  if (taken)
    for (const std::string& id : *taken) doubtful[id] = true;
  for (const auto& [id, told] : doubtful) {
    const auto record = core->repository->load_session(id);
    if (!record && !told) complete = false;
    bool keep = !told;  // when storage cannot say
    if (record) keep = *record && ((*record)->owner == id_ || ((*record)->owner.empty() && !told));
    if (!keep) core->sessions->moved(id);
  }
  if (complete) return true;
  const std::lock_guard lock(mutex_);
  missed_ = true;
  return false;
}

void Replicas::on_storage_change(const std::vector<Change>& changes) {
  const auto core = core_.lock();
  if (!core) return;
  bool taken = changes.empty(), news = changes.empty(), keys = false;
  if (changes.empty()) {
    const std::lock_guard lock(mutex_);
    owners_.clear();
  }
  for (const Change& change : changes) {
    if (change.collection == collection::kReplicas) {
      if (change.version == 0) peers_->remove(change.key);
      news = news || (change.version != 0 && !peers_->knows(change.key));
    }
    keys = keys || (change.collection == collection::kMeta && change.key == meta::kKeys);
    if (change.collection == collection::kSessions && change.version == 0) remember(change.key, {});
    if (change.collection != collection::kReplicaMoves || change.version == 0) continue;
    const auto slash = change.key.find('/');
    if (slash == std::string::npos) continue;
    remember(change.key.substr(slash + 1), {});
    taken = taken || std::string_view(change.key).substr(0, slash) == id_;
  }
  if (!taken && !news && !keys) return;
  // Storage may not be asked from here.
  const bool posted = core->runtime->post_blocking([weak = weak_from_this(), taken, news, keys] {
    const auto self = weak.lock();
    if (self && keys && self->on()) self->beat();  // which says which keys are here
    if (self && news) self->look();
    if (self && taken) (void)self->let_go(false);
  });
  if (posted || !taken) return;
  const std::lock_guard lock(mutex_);
  missed_ = true;
}

void Replicas::look() {
  const auto core = core_.lock();
  if (!core) return;
  if (const auto stored = core->repository->replicas()) (void)peers_->update(*stored, steady_clock::now());
}

// --- owners ------------------------------------------------------------------------------------------

std::string Replicas::remembered(const std::string& session_id) const {
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = owners_.find(session_id); it != owners_.end()) return it->second;
  }
  // Who made it, and in most cases has it still.
  const auto dot = session_id.rfind('.');
  std::string maker = dot == std::string::npos ? std::string() : session_id.substr(dot + 1);
  return maker != id_ && peers_->knows(maker) ? maker : std::string();
}

void Replicas::remember(const std::string& session_id, const std::string& owner) {
  const std::lock_guard lock(mutex_);
  if (owners_.size() >= kMaxOwners) owners_.clear();
  owners_[session_id] = owner;
}

Task<std::optional<std::string>> Replicas::find_owner(std::string session_id, std::string user_id,
                                                      std::string gone) {
  const auto core = core_.lock();
  if (!core) co_return std::nullopt;
  auto work = [core, self = shared_from_this(), session_id, user_id, gone]() -> std::optional<std::string> {
    Repository& repository = *core->repository;
    auto record = repository.load_session(session_id);
    for (int hop = 0; hop < kMaxHops; ++hop) {
      if (!record || !*record || (*record)->user_id != user_id) return std::nullopt;
      const std::string owner = (*record)->owner;
      if (owner == self->id_) return owner;
      if (!owner.empty() && !self->peers_->knows(owner)) self->look();  // it may have come a moment ago
      if (!owner.empty() && owner != gone && self->peers_->address(owner)) return owner;
      record = repository.take_session(session_id, owner, self->id_);
      if (record && *record && (*record)->owner == self->id_)
        core->log(LogLevel::info, "replicas", "a session goes on here: its replica is gone",
                  {{"replica", owner}});
    }
    return std::nullopt;
  };
  auto found = co_await run_blocking(core->runtime->impl().workers(), work);
  co_return found ? std::move(*found) : std::nullopt;
}

// --- requests ----------------------------------------------------------------------------------------

Task<bool> Replicas::forwarded(const HttpRequest& request, const std::shared_ptr<Responder>& responder,
                               const RequestMeta& meta) {
  const auto core = core_.lock();
  if (!core || request.path().starts_with("/sse")) co_return false;
  NamedSession session = named_session(request);
  if (stale()) {
    auto asked = awake();
    if (!co_await std::move(asked)) {
      responder->send(http_error(503, "storage_unavailable",
                                 "This replica was asleep, and cannot ask now whose the session is",
                                 meta.request_id));
      co_return true;
    }
  }
  if (session.id.empty()) co_return co_await parked_forwarded(request, responder, meta);
  if (session.id.size() > 64 || core->sessions->holds(session.id) || core->sessions->just_ended(session.id))
    co_return false;
  co_return co_await session_forwarded(std::move(session.id), session.over_sse, request, responder, meta);
}

Task<bool> Replicas::session_forwarded(std::string session_id, bool over_sse, const HttpRequest& request,
                                       const std::shared_ptr<Responder>& responder, const RequestMeta& meta) {
  std::string owner = remembered(session_id), gone;
  for (int hop = 0; hop < kMaxHops; ++hop) {
    if (owner.empty()) {
      if (over_sse) co_return false;  // it is in no storage, and ends with its replica
      auto found = co_await find_owner(session_id, meta.principal.user_id, gone);
      if (!found || *found == id_) co_return false;
      owner = std::move(*found);
    }
    // A connection may break by itself: the owner that lives is asked again.
    for (int attempt = 0; attempt < 2; ++attempt) {
      const auto address = peers_->address(owner);
      if (!address) break;
      const Outcome outcome = co_await send(owner, *address, request, responder);
      if (outcome == Outcome::answered) {
        remember(session_id, owner);
        co_return true;
      }
      if (outcome == Outcome::absent) break;
    }
    remember(session_id, {});
    gone = std::exchange(owner, {});
  }
  co_return false;
}

Task<bool> Replicas::parked_forwarded(const HttpRequest& request, const std::shared_ptr<Responder>& responder,
                                      const RequestMeta& meta) {
  const auto core = core_.lock();
  if (!core || request.method != "POST" || request.body.find("\"requestState\"") == std::string::npos ||
      raw::check(request.body, core->options.limits.json_depth) != raw::Fault::none)
    co_return false;
  const auto sealed = raw::string_value(raw::find(request.body, "params", "requestState"));
  if (!sealed) co_return false;
  const auto state = core->modern->states().open(*sealed);
  if (!state || state->parked.empty() || state->replica == id_ || state->user_id != meta.principal.user_id)
    co_return false;
  const auto address = peers_->address(state->replica);
  if (!address) co_return false;
  const Outcome outcome = co_await send(state->replica, *address, request, responder);
  co_return outcome == Outcome::answered;
}

}  // namespace mcpgw::detail
