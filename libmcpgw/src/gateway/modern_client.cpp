#include "gateway/modern_client.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "gateway/observer.hpp"
#include "gateway/replicas.hpp"
#include "json/raw.hpp"
#include "mcpgw/version.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr auto kIdle = std::chrono::minutes(5);
constexpr std::size_t kMaxListens = 200;
/// Bytes that wait for a stream to be opened; with more the client is dropped, as one that does not read.
constexpr std::size_t kMaxEarly = 64 * 1024;
constexpr std::size_t kMaxItems = 1000;

std::string random_text(Random& random) {
  std::string bytes(24, '\0');
  random.fill(bytes.data(), bytes.size());
  return base64url(bytes);
}

SessionRecord record_of(const GatewayCore& core, const Principal& principal,
                        const std::string& capabilities) {
  SessionRecord out;
  out.id = "modern-" + random_text(*core.random);
  out.user_id = principal.user_id;
  out.token_id = principal.token_id;
  out.protocol_version = kModernVersion;
  out.initialize_params = R"({"capabilities":)" + capabilities + "}";
  out.created_at = out.last_active_at = core.clock->now();
  return out;
}

/// The identity as storage knows it now; nullopt when it is not good any more.
std::optional<Principal> current(const GatewayCore& core, Principal principal) {
  if (!core.authenticator->token_valid(principal)) return std::nullopt;
  if (const auto user = core.repository->user(principal.user_id)) {
    if (!user->enabled) return std::nullopt;
    if (!principal.token_id.empty()) {  // ours: an issuer elsewhere says role and groups itself
      principal.role = user->role;
      principal.groups = user->groups;
    }
  }
  return principal;
}

}  // namespace

const std::string& gateway_info() {
  static const std::string text = R"({"name":"mcpgw","version":)" + raw::quote(mcpgw::version()) + "}";
  return text;
}

// --- ModernListen ------------------------------------------------------------------------------------

bool ModernListen::wants(ListKind kind) const {
  switch (kind) {
    case ListKind::tools:
      return tools;
    case ListKind::prompts:
      return prompts;
    default:
      return resources;
  }
}

std::string ModernListen::notification(std::string_view method, std::string_view params) const {
  const std::string_view about = raw::find(params, "_meta");
  const std::string with_id = raw::with_member(about.empty() ? "{}" : about, meta::kSubscription, id_);
  return sse_event(
      make_notification(method, raw::with_member(params.empty() ? "{}" : params, "_meta", with_id)));
}

void ModernListen::open(std::shared_ptr<ResponseStream> stream, std::string_view acknowledged) {
  std::string text = notification("notifications/subscriptions/acknowledged", acknowledged);
  const std::lock_guard lock(mutex_);
  stream_ = std::move(stream);
  stream_->write(std::move(text) + std::exchange(early_, {}));
  if (ended_) stream_->close();
}

void ModernListen::send(std::string_view method, std::string_view params) {
  std::string event = notification(method, params);
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  if (stream_) {
    stream_->write(std::move(event));
  } else if (early_.find(event) == std::string::npos) {  // that something has changed is said once
    early_ += event;
    if (early_.size() > kMaxEarly) ended_ = true;
  }
}

bool ModernListen::keep_alive() {
  const std::lock_guard lock(mutex_);
  return !stream_ || stream_->write(": keep-alive\n\n");
}

void ModernListen::end(bool answered) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(ended_, true)) return;
  std::string answer;
  if (answered)
    answer = sse_event(make_result(id_, R"({"resultType":"complete","_meta":{)" +
                                            raw::quote(meta::kSubscription) + ":" + id_ + "," +
                                            raw::quote(meta::kServerInfo) + ":" + gateway_info() + "}}"));
  if (!stream_) {
    early_ += answer;
    return;
  }
  if (answered) stream_->write(std::move(answer));
  stream_->close();
}

bool ModernListen::changed(ListKind kind, ListView now) {
  const std::lock_guard lock(mutex_);
  auto& seen = seen_[static_cast<std::size_t>(kind)];
  const bool out = seen && now.news_after(*seen);
  seen = std::move(now);
  return out;
}

// --- ModernClient ------------------------------------------------------------------------------------

ModernClient::ModernClient(std::shared_ptr<GatewayCore> core, const Principal& principal,
                           const std::string& capabilities)
    : Session(core, record_of(*core, principal, capabilities),
              std::make_shared<ClientStreams>(ClientTransport::streamable_http, *core->random)),
      owner_(std::move(core)) {}

std::vector<std::shared_ptr<ModernListen>> ModernClient::listens() const {
  const std::lock_guard lock(listen_mutex_);
  return listens_;
}

bool ModernClient::add(const std::shared_ptr<ModernListen>& listen) {
  const std::lock_guard lock(listen_mutex_);
  if (listens_.size() >= kMaxListens || closed()) return false;
  listens_.push_back(listen);
  return true;
}

void ModernClient::remove(const ModernListen* listen) {
  std::shared_ptr<ModernListen> found;
  {
    const std::lock_guard lock(listen_mutex_);
    for (const auto& one : listens_)
      if (one.get() == listen) found = one;
    std::erase_if(listens_, [&](const auto& one) { return one.get() == listen; });
  }
  if (!found) return;
  for (const ListenItem& item : found->items) unsubscribe(item);
}

void ModernClient::on_connection_message(const std::shared_ptr<UpstreamConnection>& connection,
                                         const ServerMessage& message) {
  const Target& target = connection->target();
  if (!message.id.empty()) {
    // It came without a call: it can only be the doing of the one that runs there.
    const auto call = message.ambiguous ? nullptr : owner_->modern->only_call(*this, target.id);
    if (call) return call->push(message, connection);
    AuditRecord row;
    row.user_id = user_id();
    owner_->observer->server_request(std::move(row), target, message, true);
    connection->upstream().respond(message.id, "error", R"({"code":-32601,"message":"Not available here"})");
    return;
  }
  std::optional<ListKind> changed;
  if (message.method == "notifications/tools/list_changed") changed = ListKind::tools;
  if (message.method == "notifications/prompts/list_changed") changed = ListKind::prompts;
  if (message.method == "notifications/resources/list_changed") changed = ListKind::resources;
  std::optional<std::string> updated;
  if (message.method == "notifications/resources/updated")
    updated = raw::string_value(raw::find(message.params, "uri"));
  if (!changed && !updated) return;  // log lines belong to requests in this era
  for (const auto& listen : listens()) {
    const auto principal = current(*owner_, listen->principal());
    if (!principal || !owner_->policy->reaches(*principal, target.id)) continue;
    if (changed) {
      if (listen->wants(*changed)) listen->send(message.method, {});
      continue;
    }
    for (const ListenItem& item : listen->items) {
      if (item.target_id != target.id || item.original != *updated) continue;
      if (!owner_->policy->evaluate(*principal, target.id, ResourceType::resource, *updated).allowed())
        continue;
      listen->send(message.method, raw::with_member(message.params, "uri", raw::quote(item.exported)));
    }
  }
}

bool ModernClient::waits_for_targets() const {
  return Session::waits_for_targets() || (!closed() && !listens().empty());
}

Task<void> ModernClient::want_level(std::shared_ptr<UpstreamConnection> connection, int severity) {
  {
    const std::lock_guard lock(listen_mutex_);
    if (severity_ < 0 || severity < severity_) severity_ = severity;
    severity = severity_;
  }
  std::string level(log_level_name(severity));
  set_log_level(level);  // for connections to come
  co_await connection->want_log_level(this, std::move(level));
}

Task<bool> ModernClient::subscribe(Principal principal, std::shared_ptr<const Target> target, ListenItem item,
                                   SteadyTime deadline) {
  auto open = co_await connection(principal, target, deadline);
  if (!open || !(*open)->upstream().facts().offers("resources", "subscribe")) co_return false;
  {
    const std::lock_guard lock(listen_mutex_);
    const auto it = subscriptions_.find(item.exported);
    if (it != subscriptions_.end()) {
      ++it->second.second;
      co_return true;
    }
    if (subscriptions_.size() >= kMaxItems) co_return false;
    subscriptions_.emplace(item.exported, std::pair(item, std::size_t{1}));
  }
  Session::subscribe(item.exported, true);  // for connections to come
  UpstreamCall call = subscription_call("resources/subscribe", item.original);
  const auto answer = co_await (*open)->request(std::move(call), this);
  if (answer && !answer->is_error) co_return true;
  unsubscribe(item);
  co_return false;
}

void ModernClient::unsubscribe(const ListenItem& item) {
  {
    const std::lock_guard lock(listen_mutex_);
    const auto it = subscriptions_.find(item.exported);
    if (it == subscriptions_.end() || --it->second.second > 0) return;
    subscriptions_.erase(it);
    Session::subscribe(item.exported, false);
    // Another name of the same resource may still be listened to.
    for (const auto& [exported, other] : subscriptions_)
      if (other.first.target_id == item.target_id && other.first.original == item.original) return;
  }
  for (const auto& open : connections()) {
    if (open->target().id != item.target_id || !open->usable()) continue;
    Loop& loop = owner_->runtime->impl().any_loop();
    loop.post([&loop, self = std::static_pointer_cast<ModernClient>(shared_from_this()), open,
               uri = item.original] {
      loop.spawn([](std::shared_ptr<ModernClient> client, std::shared_ptr<UpstreamConnection> held,
                    std::string what) -> Task<void> {
        UpstreamCall call = client->subscription_call("resources/unsubscribe", what);
        (void)co_await held->request(std::move(call), client.get());
      }(self, open, uri));
    });
  }
}

UpstreamCall ModernClient::subscription_call(const char* method, const std::string& uri) const {
  UpstreamCall out;
  out.method = method;
  out.params = R"({"uri":)" + raw::quote(uri) + "}";
  out.timeout = out.max_timeout = owner_->options.upstream.list_timeout;
  return out;
}

void ModernClient::announce() {
  for (const auto& listen : listens()) {
    const auto principal = current(*owner_, listen->principal());
    if (!principal) continue;
    for (const ListKind kind : {ListKind::tools, ListKind::prompts, ListKind::resources})
      if (listen->wants(kind) && listen->changed(kind, list_view(*principal, kind)))
        listen->send(list_changed(kind), {});
  }
}

// --- ModernClients -----------------------------------------------------------------------------------

Result<std::shared_ptr<ModernClients>> ModernClients::create(std::weak_ptr<GatewayCore> weak) {
  const auto core = weak.lock();
  if (!core) return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
  KeyRing::Source source;
  if (core->options.reload_keys)
    source = [read = core->options.reload_keys]() -> std::optional<EncryptionKeys> {
      auto keys = read();
      return keys ? std::optional(std::move(keys->encryption)) : std::nullopt;
    };
  auto states = RequestStates::create(core->options.encryption, core->clock, core->random, std::move(source));
  if (!states) return states.error();
  return std::shared_ptr<ModernClients>(
      new ModernClients(std::move(weak), std::move(*states), core->replicas->id()));
}

std::shared_ptr<ModernClient> ModernClients::get(const Principal& principal, std::string_view capabilities) {
  const auto core = core_.lock();
  if (!core) return nullptr;
  std::string set = legacy_capabilities(capabilities);
  std::shared_ptr<ModernClient> oldest, out;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return nullptr;
    const std::pair key{principal.user_id, set};
    if (const auto it = clients_.find(key); it != clients_.end()) {
      it->second->touch();
      return it->second;
    }
    std::size_t count = 0;
    auto old = clients_.end();
    for (auto it = clients_.lower_bound({principal.user_id, {}});
         it != clients_.end() && it->first.first == principal.user_id; ++it) {
      ++count;
      const auto& one = it->second;
      const bool busy =
          !one->listens().empty() || std::any_of(running_.begin(), running_.end(), [&](const auto& entry) {
            const auto call = entry.second.lock();
            return call && call->session == one;
          });
      if (!busy && (old == clients_.end() || one->last_active() < old->second->last_active())) old = it;
    }
    if (count >= kMaxSetsPerUser) {
      if (old == clients_.end()) return nullptr;
      oldest = std::move(old->second);
      clients_.erase(old);
    }
    out = std::make_shared<ModernClient>(core, principal, set);
    clients_.emplace(key, out);
  }
  if (oldest) oldest->close();
  return out;
}

std::shared_ptr<ModernClient> ModernClients::single(const Principal& principal,
                                                    std::string_view capabilities) const {
  const auto core = core_.lock();
  return core ? std::make_shared<ModernClient>(core, principal, legacy_capabilities(capabilities)) : nullptr;
}

bool ModernClients::begin(const std::shared_ptr<ModernCall>& call) {
  const std::lock_guard lock(mutex_);
  std::size_t& count = running_of_[call->principal.user_id];
  if (closed_ || count >= kMaxRunningPerUser) return false;
  ++count;
  running_.emplace(call.get(), call);
  return true;
}

void ModernClients::end(const ModernCall& call) {
  const std::lock_guard lock(mutex_);
  if (running_.erase(&call) == 0) return;
  const auto it = running_of_.find(call.principal.user_id);
  if (--it->second == 0) running_of_.erase(it);
}

std::shared_ptr<ModernCall> ModernClients::only_call(const ModernClient& client,
                                                     const std::string& target_id) const {
  std::shared_ptr<ModernCall> out;
  for (const auto& call : running()) {
    if (call->session.get() != &client || call->item().target_id != target_id) continue;
    if (out) return nullptr;
    out = call;
  }
  return out;
}

bool ModernClients::park(const std::shared_ptr<ModernCall>& call) {
  const std::lock_guard lock(mutex_);
  if (closed_) return false;
  if (parked_.contains(call->parked_id())) return true;
  const auto same_user = std::count_if(parked_.begin(), parked_.end(), [&](const auto& entry) {
    return entry.second->principal.user_id == call->principal.user_id;
  });
  if (parked_.size() >= kMaxParked || static_cast<std::size_t>(same_user) >= kMaxParkedPerUser) return false;
  parked_.emplace(call->parked_id(), call);
  return true;
}

void ModernClients::unpark(const ModernCall& call) {
  std::shared_ptr<ModernCall> held;  // not destroyed under the lock
  const std::lock_guard lock(mutex_);
  if (const auto it = parked_.find(call.parked_id()); it != parked_.end()) {
    held = std::move(it->second);
    parked_.erase(it);
  }
}

std::shared_ptr<ModernCall> ModernClients::parked(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto it = parked_.find(id);
  return it == parked_.end() ? nullptr : it->second;
}

std::size_t ModernClients::parked_count() const {
  const std::lock_guard lock(mutex_);
  return parked_.size();
}

std::vector<std::shared_ptr<ModernClient>> ModernClients::all() const {
  std::vector<std::shared_ptr<ModernClient>> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [key, client] : clients_) out.push_back(client);
  return out;
}

std::vector<std::shared_ptr<ModernCall>> ModernClients::running() const {
  std::vector<std::shared_ptr<ModernCall>> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [raw_call, weak] : running_)
    if (auto call = weak.lock()) out.push_back(std::move(call));
  return out;
}

std::size_t ModernClients::streams() const {
  std::size_t out = 0;
  for (const auto& client : all()) out += client->listens().size();
  return out;
}

std::size_t ModernClients::streams_of(const std::string& user_id) const {
  std::size_t out = 0;
  for (const auto& client : all())
    if (client->user_id() == user_id) out += client->listens().size();
  return out;
}

void ModernClients::check_identities() {
  const auto core = core_.lock();
  if (!core) return;
  for (const auto& call : running()) {
    const auto waiting = call->waiting();
    if (!core->authenticator->token_valid(waiting ? *waiting : call->principal))
      call->end("the token is no longer valid");
  }
  for (const auto& client : all()) {
    for (const auto& listen : client->listens()) {
      if (core->authenticator->still_valid(listen->principal())) continue;
      client->remove(listen.get());
      listen->close();
    }
  }
}

void ModernClients::announce() {
  for (const auto& client : all()) client->announce();
}

void ModernClients::sweep(SteadyTime /*now*/) {
  std::vector<std::shared_ptr<ModernCall>> lapsed;
  std::vector<std::shared_ptr<ModernClient>> idle;
  const auto busy = running();
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, call] : parked_)
      if (call->lapsed(states_->now())) lapsed.push_back(call);
    for (auto it = clients_.begin(); it != clients_.end();) {
      const auto& client = it->second;
      const bool used =
          !client->listens().empty() ||
          std::any_of(busy.begin(), busy.end(), [&](const auto& call) { return call->session == client; });
      if (used) client->touch();
      // Only the map holds it: nobody is about to use it.
      if (!used && client.use_count() == 1 && client->idle() > kIdle) {
        idle.push_back(client);
        it = clients_.erase(it);
      } else {
        ++it;
      }
    }
  }
  for (const auto& call : lapsed) call->end("the client did not come back with the input");
  for (const auto& client : idle) client->close();
}

void ModernClients::keep_alive() {
  for (const auto& client : all())
    for (const auto& listen : client->listens())
      if (!listen->keep_alive()) client->remove(listen.get());
}

void ModernClients::end_listens() {
  for (const auto& client : all()) {
    for (const auto& listen : client->listens()) {
      client->remove(listen.get());
      listen->finish();
    }
  }
}

void ModernClients::close_all() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  end_listens();
  for (const auto& call : running()) call->end("the gateway is closing");
  decltype(clients_) clients;
  decltype(parked_) parked;
  {
    const std::lock_guard lock(mutex_);
    clients.swap(clients_);
    parked.swap(parked_);
  }
  for (const auto& [key, client] : clients) client->close();
}

}  // namespace mcpgw::detail
