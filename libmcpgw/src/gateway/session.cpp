#include "gateway/session.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "gateway/client_call.hpp"
#include "gateway/kept_upstream.hpp"
#include "gateway/observer.hpp"
#include "json/raw.hpp"
#include "protocol/bridge.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kMaxRunning = 1000;
constexpr std::size_t kMaxAsked = 100;
constexpr std::size_t kMaxSubscriptions = 1000;

/// Ids of requests to the client begin anywhere: an answer to one that another process asked for this session
/// must not be taken for an answer to ours.
std::int64_t first_ask(Random& random) {
  std::uint32_t out = 0;
  random.fill(&out, sizeof out);
  return static_cast<std::int64_t>(out >> 2) + 1;
}

std::string identity_of(const Principal& principal) {
  std::string out = std::to_string(principal.role.size()) + ':' + principal.role;
  for (const std::string& group : principal.groups) out += ',' + std::to_string(group.size()) + ':' + group;
  return out;
}

/// Tasks that servers make of requests to clients are not carried: servers are told of none.
std::string carried_capabilities(std::string_view capabilities) {
  if (raw::type_of(capabilities.empty() ? "null" : capabilities) != raw::Type::object) return "{}";
  return raw::without_member(capabilities, "tasks");
}

}  // namespace

Session::Session(std::shared_ptr<GatewayCore> core, SessionRecord record,
                 std::shared_ptr<ClientStreams> streams)
    : core_(std::move(core)),
      streams_(std::move(streams)),
      last_active_(core_->clock->monotonic().count()),
      record_(std::move(record)),
      saved_activity_(last_active_),
      next_ask_(first_ask(*core_->random)) {
  client_.protocol_version = legacy_versions().front();
  client_.exact = is_modern_version(record_.protocol_version);
  client_.capabilities = carried_capabilities(raw::find(record_.initialize_params, "capabilities"));
  client_name_ = raw::string_value(raw::find(record_.initialize_params, "clientInfo", "name")).value_or("");
  if (client_name_.size() > 200) client_name_.clear();
  if (!outlives()) return;
  for (const auto& [target_id, text] : record_.upstream_ids)
    if (auto known = decode_kept(text)) kept_.emplace(target_id, std::move(known));
}

Session::~Session() { close(); }

bool Session::client_can(std::string_view capability) const {
  return !raw::find(client_.capabilities, capability).empty();
}

void Session::touch() { last_active_.store(core_->clock->monotonic().count(), std::memory_order_relaxed); }

Duration Session::last_active() const noexcept {
  return Duration(last_active_.load(std::memory_order_relaxed));
}

Duration Session::idle() const { return core_->clock->monotonic() - last_active(); }

std::optional<SessionRecord> Session::save_due(bool any) {
  if (over_sse()) return std::nullopt;  // it ends with its stream
  const std::int64_t active = last_active_.load(std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  const Duration every = std::chrono::duration_cast<Duration>(core_->options.session.timeout) / 8;
  const bool moved =
      active != saved_activity_ && (any || core_->clock->monotonic() - Duration(saved_activity_) >= every);
  if (!changed_ && !moved) return std::nullopt;
  changed_ = false;
  saved_activity_ = active;
  SessionRecord out = record_;
  out.last_active_at = core_->clock->now() - (core_->clock->monotonic() - Duration(active));
  return out;
}

bool Session::changed() const {
  const std::lock_guard lock(mutex_);
  return changed_ && !over_sse();
}

// --- targets -----------------------------------------------------------------------------------------

bool Session::View::prefixed(const Target& target) const {
  return many || always || target.prefix == PrefixMode::always;
}

std::shared_ptr<const Session::View> Session::view(const Principal& principal) {
  const std::uint64_t generation = core_->policy->generation();
  std::string identity = identity_of(principal);
  {
    const std::lock_guard lock(mutex_);
    if (view_ && view_generation_ == generation && view_identity_ == identity) return view_;
  }
  auto out = std::make_shared<View>();
  out->targets = core_->policy->reached_targets(principal);
  out->many = out->targets.size() > 1;
  out->always = core_->options.always_prefix;
  const std::lock_guard lock(mutex_);
  view_ = out;
  view_generation_ = generation;
  view_identity_ = std::move(identity);
  return out;
}

const Session::Bound* Session::bound_locked(const Target& target, std::uint64_t generation,
                                            const std::string& identity) const {
  const auto it = bound_.find(target.id);
  if (it == bound_.end()) return nullptr;
  const Bound& bound = it->second;
  const bool current = bound.generation == generation && bound.identity == identity &&
                       bound.binding->target->version == target.version;
  return current ? &bound : nullptr;
}

std::shared_ptr<UpstreamConnection> Session::open_connection(const Principal& principal,
                                                             const Target& target) const {
  const std::uint64_t generation = core_->repository->credential_generation();
  const std::string identity = identity_of(principal);
  const std::lock_guard lock(mutex_);
  const Bound* bound = bound_locked(target, generation, identity);
  return bound != nullptr && bound->connection && bound->connection->usable() ? bound->connection : nullptr;
}

Task<Result<std::shared_ptr<UpstreamConnection>>> Session::connection(
    const Principal& principal, const std::shared_ptr<const Target>& target, SteadyTime deadline) {
  std::shared_ptr<const Target> current = target;
  std::uint64_t generation;
  std::string identity = identity_of(principal);
  std::shared_ptr<const Binding> binding;
  std::shared_ptr<UpstreamConnection> acquired;
  std::shared_ptr<KeptUpstream> before;
  for (int attempt = 0; !acquired; ++attempt) {
    generation = core_->repository->credential_generation();
    binding = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (const Bound* bound = bound_locked(*current, generation, identity)) {
        if (bound->connection && bound->connection->usable()) co_return bound->connection;
        binding = bound->binding;
      }
    }
    if (!binding) {
      auto made = core_->pool->bind(principal, current, client_, id());
      if (!made) co_return made.error();
      binding = std::move(*made);
    }
    before = kept(target->id, binding->key);
    auto opened = co_await core_->pool->acquire(binding, deadline, shared_from_this(), before);
    if (opened) {
      acquired = std::move(*opened);
    } else if (opened.error().reason != kSuperseded) {
      co_return opened.error();
    } else if (attempt == kMaxReopened) {
      co_return Error(ErrorCode::unavailable, "upstream_closed", "The target changes all the time");
    } else {
      // Target or values were changed while it was being opened: with what they are now.
      current = core_->repository->target(target->id);
      if (!current || !current->enabled)
        co_return Error(ErrorCode::unavailable, "upstream_closed", "The target was taken out of use");
    }
  }
  std::shared_ptr<UpstreamConnection> old;
  {
    const std::lock_guard lock(mutex_);
    if (closed()) co_return Error(ErrorCode::cancelled, "cancelled", "The session was closed");
    Bound& bound = bound_[target->id];
    old = std::move(bound.connection);
    bound = {generation, std::move(identity), binding, acquired};
    kept_.erase(target->id);
  }
  if (old != acquired) {
    acquired->attach(shared_from_this());
    (void)keep(acquired);
    // Others had a connection already: what was kept is not needed.
    if (const auto now = acquired->upstream().session(); before && (!now || now->id != before->session.id))
      core_->pool->end_session(binding, *before);
    restore(acquired, principal);
    if (old) {
      old->detach(this);
      core_->pool->released(old);
    }
    if (closed()) {  // in the meantime: nobody else ends its part in it
      acquired->detach(this);
      core_->pool->released(acquired);
    }
  }
  co_return acquired;
}

Task<Result<std::shared_ptr<const Listing>>> Session::listing(const Principal& principal,
                                                              const std::shared_ptr<const Target>& target,
                                                              ListKind kind, SteadyTime deadline,
                                                              bool fresh) {
  for (int attempt = 0;; ++attempt) {
    auto open = co_await connection(principal, target, deadline);
    if (!open) co_return open.error();
    auto list = co_await (*open)->listing(kind, deadline, fresh);
    if (!list && !(*open)->usable() && attempt < kMaxReopened) continue;
    if (!list) core_->pool->note(*target, list.error().reason + ": " + list.error().message);
    co_return list;
  }
}

std::vector<std::shared_ptr<UpstreamConnection>> Session::connections() const {
  std::vector<std::shared_ptr<UpstreamConnection>> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [target_id, bound] : bound_)
    if (bound.connection) out.push_back(bound.connection);
  return out;
}

void Session::drop(const std::shared_ptr<UpstreamConnection>& connection) {
  connection->detach(this);
  const std::lock_guard lock(mutex_);
  const auto it = bound_.find(connection->target().id);
  if (it != bound_.end() && it->second.connection == connection) it->second.connection = nullptr;
}

// --- running requests --------------------------------------------------------------------------------

Session::Begun Session::begin(const std::shared_ptr<ClientCall>& call) {
  const std::lock_guard lock(mutex_);
  if (closed()) return Begun::closed;
  if (running_.contains(call->id)) return Begun::duplicate;
  if (running_.size() >= kMaxRunning) return Begun::too_many;
  running_.emplace(call->id, call);
  return Begun::yes;
}

void Session::end(const std::string& raw_id) {
  const std::lock_guard lock(mutex_);
  running_.erase(raw_id);
}

void Session::cancel(const std::string& raw_id, std::string reason) {
  std::shared_ptr<ClientCall> call;
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = running_.find(raw_id); it != running_.end()) call = it->second.lock();
  }
  if (call) call->handle->cancel(std::move(reason));
}

void Session::cancel_revoked() {
  std::vector<std::shared_ptr<ClientCall>> calls;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [raw_id, weak] : running_)
      if (auto call = weak.lock()) calls.push_back(std::move(call));
  }
  for (const auto& call : calls)
    if (!core_->authenticator->token_valid(call->principal)) call->give_up("the token is no longer valid");
}

std::size_t Session::running() const {
  const std::lock_guard lock(mutex_);
  return running_.size();
}

// --- requests to the client --------------------------------------------------------------------------

bool Session::client_offers(std::string_view method) const {
  return (method == "sampling/createMessage" && client_can("sampling")) ||
         (method == "elicitation/create" && client_can("elicitation")) ||
         (method == "roots/list" && client_can("roots"));
}

std::string Session::ask(std::weak_ptr<Upstream> upstream, std::string upstream_id, std::string method) {
  std::int64_t number;
  std::optional<Asked> oldest;
  {
    const std::lock_guard lock(mutex_);
    if (asked_.size() >= kMaxAsked) {
      oldest = std::move(asked_.begin()->second);
      asked_.erase(asked_.begin());
    }
    number = next_ask_++;
    asked_.emplace(number, Asked{std::move(upstream), std::move(upstream_id), std::move(method)});
  }
  if (oldest)
    if (const auto server = oldest->upstream.lock())
      server->respond(std::move(oldest->upstream_id), "error",
                      R"({"code":-32603,"message":"The client did not answer"})");
  return std::to_string(number);
}

void Session::answer(std::string_view raw_id, std::string_view member, std::string_view payload) {
  const auto number = raw::int_value(raw_id);
  if (!number) return;
  Asked asked;
  {
    const std::lock_guard lock(mutex_);
    const auto it = asked_.find(*number);
    if (it == asked_.end()) return;
    asked = std::move(it->second);
    asked_.erase(it);
  }
  if (const auto upstream = asked.upstream.lock())
    upstream->respond(std::move(asked.upstream_id), member,
                      map_related_task(payload, [this](const std::string& id) {
                        return core_->pool->tasks().original_of(user_id(), id);
                      }));
}

// --- the stream --------------------------------------------------------------------------------------

void Session::send(const std::string& message) {
  if (closed()) return;
  streams_->send(message);
}

void Session::keep_alive() {
  if (streams_->keep_alive()) touch();
}

// --- log level, subscriptions ------------------------------------------------------------------------

std::string Session::log_level() const {
  const std::lock_guard lock(mutex_);
  return record_.log_level;
}

void Session::set_log_level(std::string level) {
  const std::lock_guard lock(mutex_);
  changed_ = changed_ || record_.log_level != level;
  record_.log_level = std::move(level);
}

void Session::subscribe(const std::string& exported_uri, bool on) {
  const std::lock_guard lock(mutex_);
  auto& all = record_.subscriptions;
  const auto it = std::find(all.begin(), all.end(), exported_uri);
  if (on && it == all.end() && all.size() < kMaxSubscriptions) {
    all.push_back(exported_uri);
    changed_ = true;
  }
  if (!on && it != all.end()) {
    all.erase(it);
    changed_ = true;
  }
}

bool Session::subscribed(const std::string& exported_uri) const {
  const std::lock_guard lock(mutex_);
  const auto& all = record_.subscriptions;
  return std::find(all.begin(), all.end(), exported_uri) != all.end();
}

std::optional<std::string> Session::subscription(const Principal& principal, const Target& target,
                                                 const std::string& uri, const Listing* resources) {
  const bool prefixed = view(principal)->prefixed(target);
  std::string exported = prefixed ? export_uri(target.slug, uri) : uri;
  if (subscribed(exported)) return exported;
  // Made when names had another form, or under the plain name of what one target alone lists.
  if (!prefixed && subscribed(export_uri(target.slug, uri))) return export_uri(target.slug, uri);
  if (prefixed && resources != nullptr && resources->by_name.contains(uri) && subscribed(uri)) return uri;
  return std::nullopt;
}

void Session::close(bool replaced) {
  if (closed_.exchange(true)) return;
  std::map<std::string, Bound> bound;
  std::unordered_map<std::string, std::weak_ptr<ClientCall>> running;
  std::map<std::int64_t, Asked> asked;
  {
    const std::lock_guard lock(mutex_);
    bound.swap(bound_);
    running.swap(running_);
    asked.swap(asked_);
  }
  for (const auto& [raw_id, weak] : running)
    if (const auto call = weak.lock()) call->give_up("the session was closed");
  for (auto& [number, one] : asked)
    if (const auto upstream = one.upstream.lock())
      upstream->respond(std::move(one.upstream_id), "error",
                        R"({"code":-32603,"message":"The session was closed"})");
  if (!replaced) {
    streams_->close();
    streams_->clear();
  }
  for (const auto& [target_id, one] : bound) {
    if (!one.connection) continue;
    one.connection->detach(this);
    core_->pool->released(one.connection);
  }
}

// --- what servers say --------------------------------------------------------------------------------

std::optional<Principal> Session::current_principal() const {
  if (const auto user = core_->repository->user(user_id())) {
    if (!user->enabled) return std::nullopt;
    Principal out;
    out.user_id = user->id;
    out.email = user->email;
    out.role = user->role;
    out.groups = user->groups;
    return out;
  }
  auto opener = stream_principal();
  if (!opener || !core_->authenticator->still_valid(*opener)) return std::nullopt;
  return opener;
}

void Session::on_connection_message(const std::shared_ptr<UpstreamConnection>& connection,
                                    const ServerMessage& message) {
  const auto principal = current_principal();
  const Target& target = connection->target();
  const bool reached = principal && core_->policy->reaches(*principal, target.id);
  if (!message.id.empty()) {
    if (reached && message.method == "ping")
      return connection->upstream().respond(message.id, "result", "{}");
    const bool offered = reached && client_offers(message.method) && has_stream();
    const bool refused = !offered || !declares(client_.capabilities, message.method, message.params);
    AuditRecord row;
    row.session_id = id();
    row.user_id = user_id();
    if (principal) row.user_email = principal->email;
    row.client_name = client_name();
    core_->observer->server_request(std::move(row), target, message, refused);
    if (refused) return connection->upstream().respond(message.id, "error", not_declared(offered));
    connection->remember_elicitation(message.params, shared_from_this());
    const std::string asked = ask(connection->upstream_ptr(), message.id, message.method);
    send(make_request(asked, message.method,
                      core_->pool->export_related_task(*connection, user_id(), message.params)));
    return;
  }
  if (!reached) return;
  if (message.method == "notifications/progress") {  // of a task of this session, under its client's token
    send(make_notification(message.method, message.params));
    return;
  }
  if (message.method == "notifications/tasks/status") {
    const auto id = raw::string_value(raw::find(message.params, "taskId"));
    const auto known = id ? core_->pool->tasks().find(target.id, *id) : std::nullopt;
    if (known && known->task.user_id == user_id() &&
        core_->policy->evaluate(*principal, target.id, ResourceType::tool, known->task.tool).allowed())
      send(make_notification(message.method,
                             raw::with_member(message.params, "taskId", raw::quote(known->task.exported))));
    return;
  }
  if (message.method == "notifications/message") {
    const int asked = log_severity(log_level());
    const auto level = raw::string_value(raw::find(message.params, "level"));
    if (asked >= 0 && level && log_severity(*level) < asked) return;
    send(make_notification(message.method, message.params));
    return;
  }
  if (message.method == "notifications/resources/updated") {
    const auto uri = raw::string_value(raw::find(message.params, "uri"));
    if (!uri || !core_->policy->evaluate(*principal, target.id, ResourceType::resource, *uri).allowed())
      return;
    const auto listed = connection->known_listing(ListKind::resources);
    const auto exported = subscription(*principal, target, *uri, listed.get());
    if (!exported) return;
    send(make_notification(
        message.method,
        *exported == *uri ? message.params : raw::with_member(message.params, "uri", raw::quote(*exported))));
    return;
  }
  if (message.method == "notifications/elicitation/complete") {
    send(make_notification(message.method, message.params));
    return;
  }
  // Whether its lists have changed for this client is found out by looking.
  if (message.method == "notifications/tools/list_changed" ||
      message.method == "notifications/prompts/list_changed" ||
      message.method == "notifications/resources/list_changed")
    check_lists();
}

void Session::on_connection_lost(const std::shared_ptr<UpstreamConnection>& connection) { drop(connection); }

}  // namespace mcpgw::detail
