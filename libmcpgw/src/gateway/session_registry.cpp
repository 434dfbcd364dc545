#include <algorithm>
#include <set>

#include "base/text.hpp"
#include "gateway/modern_client.hpp"
#include "gateway/observer.hpp"
#include "gateway/replicas.hpp"
#include "gateway/session.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// Longer than a queued removal may wait for its worker.
constexpr auto kRememberEnded = std::chrono::minutes(5);
constexpr auto kAnnounceDelay = std::chrono::milliseconds(100);
/// How long close_all() goes on saving.
constexpr auto kLastSaves = std::chrono::seconds(2);

std::string make_session_id(Random& random) {
  std::string bytes(24, '\0');
  random.fill(bytes.data(), bytes.size());
  return base64url(bytes);
}

SessionRecord new_record(const GatewayCore& core, const Principal& principal) {
  SessionRecord out;
  out.id = make_session_id(*core.random) + core.replicas->id_suffix();
  out.owner = core.replicas->owner();
  out.user_id = principal.user_id;
  out.token_id = principal.token_id;
  out.created_at = out.last_active_at = core.clock->now();
  return out;
}

void audit_session(const GatewayCore& core, const std::string& id, const std::string& user_id,
                   const std::string& client_name, const char* event) {
  AuditRecord row;
  row.kind = "session";
  row.method = event;
  row.session_id = id;
  row.user_id = user_id;
  if (const auto user = core.repository->user(user_id)) row.user_email = user->email;
  row.client_name = client_name;
  row.response_status = 200;
  core.audit->add(std::move(row));
  core.observer->session(id, user_id, event);
}

void audit_session(const GatewayCore& core, const Session& session, const char* event) {
  audit_session(core, session.id(), session.user_id(), session.client_name(), event);
}

/// Storage calls block: they are made on a worker, and nobody waits for these.
void forget_later(const std::shared_ptr<GatewayCore>& core, const std::string& id) {
  auto forget = [core, id] {
    // What another replica has taken is not this one's to end.
    const auto record = core->repository->load_session(id);
    const std::string owner = core->replicas->owner();
    if (owner.empty() || !record || !*record || (*record)->owner.empty() || (*record)->owner == owner)
      (void)core->repository->delete_session(id);
  };
  if (!core->runtime->post_blocking(std::move(forget)))
    core->log(LogLevel::warn, "gateway", "a stored session could not be removed now: it will expire");
}

}  // namespace

std::shared_ptr<Session> SessionTable::find(const std::string& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : it->second;
}

const SessionTable::Sessions& SessionTable::of(const std::string& user_id) const {
  static const Sessions none;
  const auto it = by_user_.find(user_id);
  return it == by_user_.end() ? none : it->second;
}

bool SessionTable::insert(const std::shared_ptr<Session>& session) {
  if (!by_id_.emplace(session->id(), session).second) return false;
  by_user_[session->user_id()].emplace(session->id(), session);
  return true;
}

void SessionTable::replace(const std::shared_ptr<Session>& session) {
  by_id_[session->id()] = session;
  by_user_[session->user_id()][session->id()] = session;
}

std::shared_ptr<Session> SessionTable::remove(const std::string& id) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return nullptr;
  auto out = std::move(it->second);
  by_id_.erase(it);
  if (const auto of_user = by_user_.find(out->user_id()); of_user != by_user_.end()) {
    of_user->second.erase(id);
    if (of_user->second.empty()) by_user_.erase(of_user);
  }
  return out;
}

SessionTable::Sessions SessionTable::remove_all() {
  by_user_.clear();
  return std::exchange(by_id_, {});
}

Task<Result<std::shared_ptr<Session>>> SessionRegistry::create(const Principal& principal,
                                                               std::string version,
                                                               std::string initialize_params) {
  const auto core = core_.lock();
  if (!core) co_return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
  if (auto room = reserve(*core, principal.user_id); !room) co_return room.error();
  SessionRecord record = new_record(*core, principal);
  record.protocol_version = std::move(version);
  record.initialize_params = std::move(initialize_params);
  auto streams = std::make_shared<ClientStreams>(ClientTransport::streamable_http, *core->random);
  auto session = std::make_shared<Session>(core, record, std::move(streams));

  // Stored before it is announced, so that a restart right after this still knows it.
  auto save = [core, record] { return core->repository->save_session(record); };
  auto stored = co_await run_blocking(core->runtime->impl().workers(), save);
  if (stored && *stored && core->replicas->on()) {
    if (Status room = co_await room_at_all_replicas(core, principal.user_id); !room) {
      forget_later(core, record.id);
      stored = std::move(room);
    }
  }
  {
    const std::lock_guard lock(mutex_);
    unreserve_locked(principal.user_id);
    if (stored && *stored) sessions_.insert(session);
  }
  if (!stored || !*stored)
    co_return stored ? stored->error()
                     : Error(ErrorCode::unavailable, "overloaded", "The gateway is overloaded");
  audit_session(*core, *session, "created");
  co_return session;
}

Result<std::shared_ptr<Session>> SessionRegistry::create_over_sse(const Principal& principal) {
  const auto core = core_.lock();
  if (!core) return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
  if (auto room = reserve(*core, principal.user_id); !room) return room.error();
  SessionRecord record = new_record(*core, principal);
  record.protocol_version = legacy_versions().back();
  auto streams = std::make_shared<ClientStreams>(ClientTransport::http_sse, *core->random);
  auto session = std::make_shared<Session>(core, std::move(record), std::move(streams));
  {
    const std::lock_guard lock(mutex_);
    unreserve_locked(principal.user_id);
    sessions_.insert(session);
  }
  audit_session(*core, *session, "created");
  return session;
}

std::shared_ptr<Session> SessionRegistry::initialize_over_sse(const std::shared_ptr<Session>& session,
                                                              std::string version,
                                                              std::string initialize_params) {
  const auto core = core_.lock();
  if (!core) return nullptr;
  SessionRecord record;
  record.id = session->id();
  record.user_id = session->user_id();
  record.protocol_version = std::move(version);
  record.initialize_params = std::move(initialize_params);
  record.created_at = core->clock->now();
  auto fresh = std::make_shared<Session>(core, std::move(record), session->streams());
  {
    const std::lock_guard lock(mutex_);
    if (sessions_.find(session->id()) != session) return nullptr;
    sessions_.replace(fresh);
  }
  session->close(true);
  return fresh;
}

Status SessionRegistry::reserve(const GatewayCore& core, const std::string& user_id) {
  const std::size_t limit = core.options.session.max_per_user;
  for (;;) {
    // The one that was used least recently goes; who listens is busier than who does not.
    std::shared_ptr<Session> oldest;
    {
      const std::lock_guard lock(mutex_);
      const auto& sessions = sessions_.of(user_id);
      if (sessions.size() + making_.count(user_id) < limit) {
        making_.insert(user_id);
        return {};
      }
      const auto idler = [](const Session& a, const Session& b) {
        const bool listens = a.has_stream();
        return listens != b.has_stream() ? !listens : a.last_active() < b.last_active();
      };
      for (const auto& [id, other] : sessions)
        if (other->running() == 0 && (!oldest || idler(*other, *oldest))) oldest = other;
      if (!oldest)
        return Error(ErrorCode::resource_exhausted, "rate_limited", "Too many sessions are open and busy");
    }
    end(oldest, "expired");
  }
}

void SessionRegistry::unreserve_locked(const std::string& user_id) {
  if (const auto it = making_.find(user_id); it != making_.end()) making_.erase(it);
}

bool SessionRegistry::expired(const GatewayCore& core, const Session& session) const {
  // One that this replica may have lost while it slept is not its to end.
  return !core.replicas->stale() && !session.has_stream() && session.running() == 0 &&
         session.idle() > core.options.session.timeout;
}

Task<Result<std::shared_ptr<Session>>> SessionRegistry::find(const Principal& principal,
                                                             const std::string& id,
                                                             ClientTransport transport) {
  const auto core = core_.lock();
  if (!core || id.empty() || id.size() > 64) co_return std::shared_ptr<Session>();
  std::shared_ptr<Session> held;
  {
    const std::lock_guard lock(mutex_);
    if (ended_.contains(id)) co_return std::shared_ptr<Session>();
    held = sessions_.find(id);
  }
  if (held) {
    if (held->user_id() != principal.user_id || held->streams()->transport() != transport || held->closed())
      co_return std::shared_ptr<Session>();
    if (!expired(*core, *held)) co_return held;
    end(held, "expired");
    co_return std::shared_ptr<Session>();
  }
  if (transport == ClientTransport::http_sse) co_return std::shared_ptr<Session>();  // never stored
  auto load = [core, id] { return core->repository->load_session(id); };
  auto loaded = co_await run_blocking(core->runtime->impl().workers(), load);
  if (!loaded) co_return Error(ErrorCode::unavailable, "overloaded", "The gateway is overloaded");
  if (!*loaded) co_return loaded->error();
  if (!**loaded || (**loaded)->user_id != principal.user_id ||
      core->clock->now() - (**loaded)->last_active_at > core->options.session.timeout)
    co_return std::shared_ptr<Session>();
  if (core->replicas->on() && !(**loaded)->owner.empty() && (**loaded)->owner != core->replicas->id())
    co_return Error(ErrorCode::unavailable, "session_moved",
                    "Another replica has taken the session just now");
  auto streams = std::make_shared<ClientStreams>(ClientTransport::streamable_http, *core->random);
  auto session = std::make_shared<Session>(core, ***loaded, std::move(streams));
  const std::lock_guard lock(mutex_);
  if (ended_.contains(id)) co_return std::shared_ptr<Session>();
  co_return sessions_.insert(session) ? session : sessions_.find(id);
}

void SessionRegistry::end(const std::shared_ptr<Session>& session, const char* event) {
  const auto core = core_.lock();
  if (!core) return;
  {
    const std::lock_guard lock(mutex_);
    if (!sessions_.remove(session->id())) return;
    ended_[session->id()] = steady_clock::now();
  }
  session->end_kept();
  session->close();
  audit_session(*core, *session, event);
  if (!session->over_sse()) forget_later(core, session->id());
}

void SessionRegistry::end_over_sse(const std::string& id) {
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(mutex_);
    session = sessions_.find(id);
  }
  if (session && session->over_sse()) end(session, "deleted");
}

Task<void> SessionRegistry::save_changes(std::shared_ptr<Session> session) {
  const auto core = core_.lock();
  if (!core) co_return;
  auto record = session->save_due();
  if (!record) co_return;
  auto save = [core, saved = std::move(*record)] { return core->repository->update_session(saved); };
  const auto stored = co_await run_blocking(core->runtime->impl().workers(), save);
  if (!stored || !*stored)
    core->log(LogLevel::warn, "gateway", "a session's change could not be stored: a restart forgets it");
}

Result<int> SessionRegistry::recycle(const std::string& user_id) {
  const auto core = core_.lock();
  if (!core) return 0;
  {
    const std::lock_guard lock(mutex_);
    recycling_.insert(user_id);
  }
  // Storage first: what it still knew would come back to life after a restart, or on another replica.
  auto stored = core->repository->delete_sessions_of(user_id);
  std::vector<std::shared_ptr<Session>> live;
  {
    const std::lock_guard lock(mutex_);
    recycling_.erase(recycling_.find(user_id));
    if (!stored) return stored.error();
    for (const auto& [id, session] : sessions_.of(user_id)) live.push_back(session);
    // One that is being loaded just now must not outlive this.
    for (const std::string& id : *stored) ended_[id] = steady_clock::now();
  }
  std::set<std::string> ended(stored->begin(), stored->end());
  for (const auto& session : live) {
    end(session, "recycled");
    ended.erase(session->id());
  }
  for (const std::string& id : ended) audit_session(*core, id, user_id, {}, "recycled");
  return static_cast<int>(live.size() + ended.size());
}

bool SessionRegistry::holds(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  return sessions_.find(id) != nullptr;
}

bool SessionRegistry::just_ended(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  return ended_.contains(id);
}

void SessionRegistry::moved(const std::string& id) {
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(mutex_);
    session = sessions_.remove(id);
  }
  if (!session) return;
  session->leave();
  session->streams()->close();
}

void SessionRegistry::ended_elsewhere(const std::string& id, const std::string& user_id) {
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(mutex_);
    if (recycling_.contains(user_id)) return;  // whoever does it ends them
    ended_[id] = steady_clock::now();
    session = sessions_.remove(id);
  }
  if (!session) return;
  session->end_kept();
  session->close();
}

std::vector<std::shared_ptr<Session>> SessionRegistry::all() const {
  std::vector<std::shared_ptr<Session>> out;
  const std::lock_guard lock(mutex_);
  out.reserve(sessions_.all().size());
  for (const auto& [id, session] : sessions_.all()) out.push_back(session);
  return out;
}

std::size_t SessionRegistry::count(const std::string* user_id) const {
  const std::lock_guard lock(mutex_);
  return (user_id == nullptr ? sessions_.all() : sessions_.of(*user_id)).size();
}

std::size_t SessionRegistry::streams() const {
  std::size_t out = 0;
  for (const auto& session : all()) out += session->streams()->count();
  return out;
}

std::size_t SessionRegistry::streams_of(const std::string& user_id) const {
  std::size_t out = 0;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, session] : sessions_.of(user_id)) out += session->streams()->count();
  return out;
}

void SessionRegistry::check_identities() {
  const auto core = core_.lock();
  if (!core) return;
  for (const auto& session : all()) {
    const auto user = core->repository->user(session->user_id());
    if (!user || !user->enabled) {
      end(session, "expired");
      continue;
    }
    session->cancel_revoked();
    const auto principal = session->stream_principal();
    if (principal && !core->authenticator->still_valid(*principal)) {
      if (session->over_sse())
        end(session, "deleted");
      else
        session->streams()->close();
    }
    session->streams()->check_resumed(*core->authenticator);
  }
}

void SessionRegistry::schedule_announcements() {
  const auto core = core_.lock();
  if (!core) return;
  {
    const std::lock_guard lock(mutex_);
    if (announcing_) return;
    announcing_ = true;
  }
  // A short delay gathers what belongs together: one announcement for an edit of several rows.
  Loop& loop = core->runtime->impl().any_loop();
  loop.post([weak = core_, &loop] {
    loop.spawn([](std::weak_ptr<GatewayCore> held) -> Task<void> {
      co_await sleep_for(kAnnounceDelay);
      const auto alive = held.lock();
      if (!alive || !alive->sessions) co_return;
      {
        const std::lock_guard lock(alive->sessions->mutex_);
        alive->sessions->announcing_ = false;
      }
      for (const auto& session : alive->sessions->all()) session->check_lists(std::chrono::milliseconds(0));
      alive->modern->announce();
    }(weak));
  });
}

void SessionRegistry::sweep(SteadyTime now) {
  const auto core = core_.lock();
  if (!core) return;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(ended_, [&](const auto& entry) { return now - entry.second > kRememberEnded; });
  }
  const SessionOptions& options = core->options.session;
  const bool clear = now >= next_cleanup_;
  if (clear) next_cleanup_ = now + std::min(options.cleanup_interval, options.timeout);
  for (const auto& session : all()) {
    if (session->has_stream() || session->running() > 0) session->touch();
    session->streams()->sweep(now);
    if (expired(*core, *session)) {
      if (clear) end(session, "expired");  // until then find() knows that it is over
    } else if (auto record = session->save_due()) {
      (void)core->runtime->post_blocking(
          [core, saved = std::move(*record)] { (void)core->repository->update_session(saved); });
    }
  }
}

void SessionRegistry::keep_alive() {
  for (const auto& session : all()) session->keep_alive();
}

void SessionRegistry::close_all() {
  SessionTable::Sessions sessions;
  {
    const std::lock_guard lock(mutex_);
    sessions = sessions_.remove_all();
  }
  // What storage knows of their last activity lags behind.
  const auto core = core_.lock();
  const auto until = steady_clock::now() + kLastSaves;
  for (const auto& [id, session] : sessions) {
    if (core && steady_clock::now() < until)
      if (const auto record = session->save_due(true)) (void)core->repository->update_session(*record);
    if (core && core->options.storage->durable()) session->leave();
    session->close();
  }
}

}  // namespace mcpgw::detail
