#include "gateway/session.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "gateway/client_call.hpp"
#include "json/raw.hpp"
#include "protocol/modern.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kMaxRunning = 1000;
constexpr std::size_t kMaxAsked = 100;
constexpr std::size_t kMaxEvents = 256;
constexpr std::size_t kMaxEventBytes = 1024 * 1024;
constexpr std::size_t kMaxSubscriptions = 1000;

std::int64_t now_ticks() { return steady_clock::now().time_since_epoch().count(); }

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

Session::Session(std::shared_ptr<GatewayCore> core, SessionRecord record)
    : core_(std::move(core)),
      last_active_(now_ticks()),
      record_(std::move(record)),
      last_saved_(now_ticks()) {
  client_.protocol_version = legacy_versions().front();
  client_.exact = is_modern_version(record_.protocol_version);
  client_.capabilities = carried_capabilities(raw::find(record_.initialize_params, "capabilities"));
  client_name_ = raw::string_value(raw::find(record_.initialize_params, "clientInfo", "name")).value_or("");
  if (client_name_.size() > 200) client_name_.clear();
}

Session::~Session() { close(); }

bool Session::client_can(std::string_view capability) const {
  return !raw::find(client_.capabilities, capability).empty();
}

SessionRecord Session::record() const {
  const std::lock_guard lock(mutex_);
  SessionRecord out = record_;
  out.last_active_at = core_->clock->now();
  return out;
}

void Session::touch() { last_active_.store(now_ticks(), std::memory_order_relaxed); }

SteadyTime Session::last_active() const noexcept {
  return SteadyTime(steady_clock::duration(last_active_.load(std::memory_order_relaxed)));
}

bool Session::save_due() {
  const std::int64_t now = now_ticks();
  const std::lock_guard lock(mutex_);
  if (steady_clock::duration(now - last_saved_) < core_->options.session.timeout / 4) return false;
  last_saved_ = now;
  return true;
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

Task<Result<std::shared_ptr<UpstreamConnection>>> Session::connection(
    const Principal& principal, const std::shared_ptr<const Target>& target, SteadyTime deadline) {
  std::shared_ptr<const Target> current = target;
  std::uint64_t generation;
  std::string identity = identity_of(principal);
  std::shared_ptr<const Binding> binding;
  std::shared_ptr<UpstreamConnection> acquired;
  for (int attempt = 0; !acquired; ++attempt) {
    generation = core_->repository->credential_generation();
    binding = nullptr;
    {
      const std::lock_guard lock(mutex_);
      const auto it = bound_.find(current->id);
      if (it != bound_.end() && it->second.generation == generation && it->second.identity == identity &&
          it->second.binding->target->version == current->version) {
        if (it->second.connection && it->second.connection->usable()) co_return it->second.connection;
        binding = it->second.binding;
      }
    }
    if (!binding) {
      auto made = core_->pool->bind(principal, current, client_, id());
      if (!made) co_return made.error();
      binding = std::move(*made);
    }
    auto opened = co_await core_->pool->acquire(binding, deadline, shared_from_this());
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
  }
  if (old != acquired) {
    acquired->attach(shared_from_this());
    restore(acquired, principal);
    if (old) {
      old->detach(this);
      core_->pool->released(old);
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

bool Session::begin(const std::shared_ptr<ClientCall>& call) {
  const std::lock_guard lock(mutex_);
  if (closed() || running_.size() >= kMaxRunning) return false;
  return running_.emplace(call->id, call).second;
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

void Session::open_stream(std::shared_ptr<ResponseStream> stream, const Principal& principal,
                          std::string last_event_id) {
  std::shared_ptr<ResponseStream> old;
  {
    const std::lock_guard lock(mutex_);
    old = std::move(stream_);
    stream_ = std::move(stream);
    stream_principal_ = principal;
    std::uint64_t from = delivered_;
    if (!last_event_id.empty()) {
      const auto number = raw::int_value(last_event_id);
      if (number && *number >= 0) from = static_cast<std::uint64_t>(*number);
    }
    for (const Event& event : events_) {
      if (event.number <= from) continue;
      if (!stream_->write(event.text)) break;
      delivered_ = std::max(delivered_, event.number);
    }
  }
  if (old) old->close();
}

void Session::stream_gone(const ResponseStream* stream) {
  const std::lock_guard lock(mutex_);
  if (stream_.get() != stream) return;
  stream_ = nullptr;
  stream_principal_.reset();
}

bool Session::has_stream() const {
  const std::lock_guard lock(mutex_);
  return stream_ != nullptr;
}

std::optional<Principal> Session::stream_principal() const {
  const std::lock_guard lock(mutex_);
  return stream_principal_;
}

void Session::close_stream() {
  std::shared_ptr<ResponseStream> stream;
  {
    const std::lock_guard lock(mutex_);
    stream = std::move(stream_);
    stream_ = nullptr;
    stream_principal_.reset();
  }
  if (stream) stream->close();
}

void Session::send(std::string message) {
  const std::lock_guard lock(mutex_);
  if (!closed()) send_locked(std::move(message));
}

void Session::send_locked(std::string message) {
  const std::uint64_t number = next_event_++;
  std::string text = sse_event(message, std::to_string(number));
  if (stream_) {
    if (stream_->write(text)) {
      delivered_ = number;
      touch();
    } else {
      stream_ = nullptr;
    }
  }
  event_bytes_ += text.size();
  events_.push_back({number, std::move(text)});
  while (events_.size() > kMaxEvents || (event_bytes_ > kMaxEventBytes && events_.size() > 1)) {
    event_bytes_ -= events_.front().text.size();
    events_.pop_front();
  }
}

void Session::keep_alive() {
  const std::lock_guard lock(mutex_);
  if (!stream_) return;
  if (stream_->write(": keep-alive\n\n")) {
    touch();
  } else {
    stream_ = nullptr;
  }
}

// --- log level, subscriptions ------------------------------------------------------------------------

std::string Session::log_level() const {
  const std::lock_guard lock(mutex_);
  return record_.log_level;
}

void Session::set_log_level(std::string level) {
  const std::lock_guard lock(mutex_);
  record_.log_level = std::move(level);
}

void Session::subscribe(const std::string& exported_uri, bool on) {
  const std::lock_guard lock(mutex_);
  auto& all = record_.subscriptions;
  const auto it = std::find(all.begin(), all.end(), exported_uri);
  if (on && it == all.end() && all.size() < kMaxSubscriptions) all.push_back(exported_uri);
  if (!on && it != all.end()) all.erase(it);
}

bool Session::subscribed(const std::string& exported_uri) const {
  const std::lock_guard lock(mutex_);
  const auto& all = record_.subscriptions;
  return std::find(all.begin(), all.end(), exported_uri) != all.end();
}

void Session::close() {
  if (closed_.exchange(true)) return;
  std::map<std::string, Bound> bound;
  std::unordered_map<std::string, std::weak_ptr<ClientCall>> running;
  std::map<std::int64_t, Asked> asked;
  std::shared_ptr<ResponseStream> stream;
  {
    const std::lock_guard lock(mutex_);
    bound.swap(bound_);
    running.swap(running_);
    asked.swap(asked_);
    stream = std::move(stream_);
    events_.clear();
  }
  for (const auto& [raw_id, weak] : running)
    if (const auto call = weak.lock()) call->give_up("the session was closed");
  for (auto& [number, one] : asked)
    if (const auto upstream = one.upstream.lock())
      upstream->respond(std::move(one.upstream_id), "error",
                        R"({"code":-32603,"message":"The session was closed"})");
  if (stream) stream->close();
  for (const auto& [target_id, one] : bound) {
    if (!one.connection) continue;
    one.connection->detach(this);
    core_->pool->released(one.connection);
  }
}

// --- what servers say --------------------------------------------------------------------------------

void Session::on_connection_message(const std::shared_ptr<UpstreamConnection>& connection,
                                    const ServerMessage& message) {
  const auto user = core_->repository->user(user_id());
  if (!user || !user->enabled) return;
  Principal principal;
  principal.user_id = user->id;
  principal.role = user->role;
  principal.groups = user->groups;
  const Target& target = connection->target();
  if (!core_->policy->reaches(principal, target.id)) return;
  if (!message.id.empty()) {
    if (!client_offers(message.method) || !has_stream()) {
      connection->upstream().respond(message.id, "error",
                                     R"({"code":-32601,"message":"The client does not offer this"})");
      return;
    }
    connection->remember_elicitation(message.params, shared_from_this());
    const std::string asked = ask(connection->upstream_ptr(), message.id, message.method);
    send(make_request(asked, message.method,
                      core_->pool->export_related_task(*connection, user_id(), message.params)));
    return;
  }
  if (message.method == "notifications/progress") {  // of a task of this session, under its client's token
    send(make_notification(message.method, message.params));
    return;
  }
  if (message.method == "notifications/tasks/status") {
    const auto id = raw::string_value(raw::find(message.params, "taskId"));
    const auto known = id ? core_->pool->tasks().find(target.id, *id) : std::nullopt;
    if (known && known->task.user_id == user_id() &&
        core_->policy->evaluate(principal, target.id, ResourceType::tool, known->task.tool).allowed())
      send(make_notification(message.method, raw::with_member(message.params, "taskId",
                                                              raw::quote(known->task.exported))));
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
    if (!uri || !core_->policy->evaluate(principal, target.id, ResourceType::resource, *uri).allowed())
      return;
    const bool prefixed = view(principal)->prefixed(target);
    const std::string exported = prefixed ? export_uri(target.slug, *uri) : *uri;
    // A client may name a resource without the prefix when only one target lists it.
    const bool by_prefix = prefixed && subscribed(exported);
    if (!by_prefix && !subscribed(*uri)) return;
    send(make_notification(message.method, by_prefix
                                               ? raw::with_member(message.params, "uri", raw::quote(exported))
                                               : message.params));
    return;
  }
  if (message.method == "notifications/elicitation/complete") {
    send(make_notification(message.method, message.params));
    return;
  }
  if (message.method == "notifications/tools/list_changed" ||
      message.method == "notifications/prompts/list_changed" ||
      message.method == "notifications/resources/list_changed")
    send(make_notification(message.method, {}));
}

void Session::on_connection_lost(const std::shared_ptr<UpstreamConnection>& connection) { drop(connection); }

void Session::remember_list(ListKind kind, std::string fingerprint) {
  const std::lock_guard lock(mutex_);
  listed_[static_cast<std::size_t>(kind)] = std::move(fingerprint);
}

std::string Session::fingerprint(const Principal& principal, ListKind kind) {
  std::string text;
  const auto seen = view(principal);
  std::map<std::string, std::shared_ptr<UpstreamConnection>> open;
  for (const auto& one : connections()) open[one->target().id] = one;
  for (const auto& target : seen->targets) {
    text += target->id + (seen->prefixed(*target) ? "+" : "-") + target->slug + '\n';
    const auto it = open.find(target->id);
    const auto listing = it == open.end() ? nullptr : it->second->known_listing(kind);
    if (!listing) continue;
    for (const Item& item : listing->items)
      text +=
          core_->policy->evaluate(principal, target->id, policy_type(kind), item.name).allowed() ? '1' : '0';
  }
  return sha256(text);
}

void Session::announce_changes() {
  const auto user = core_->repository->user(user_id());
  if (!user || !user->enabled || closed()) return;
  Principal principal;
  principal.user_id = user->id;
  principal.role = user->role;
  principal.groups = user->groups;
  for (ListKind kind : {ListKind::tools, ListKind::prompts, ListKind::resources}) {
    std::string now = fingerprint(principal, kind);
    const std::lock_guard lock(mutex_);
    auto& listed = listed_[static_cast<std::size_t>(kind)];
    if (!listed || *listed == now) continue;
    listed = std::move(now);
    send_locked(
        make_notification("notifications/" + std::string(list_capability(kind)) + "/list_changed", {}));
  }
}

}  // namespace mcpgw::detail
