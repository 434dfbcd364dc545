// What the clients of one connection share: who hears its messages, one subscription for all of them, one log
// level, and whose an elicitation is.
#include <algorithm>

#include "base/moment.hpp"
#include "gateway/connection_pool.hpp"
#include "gateway/metrics.hpp"
#include "gateway/observer.hpp"
#include "json/raw.hpp"
#include "protocol/message.hpp"
#include "runtime/poller.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxElicitations = 1000;

UpstreamAnswer empty_answer() {
  UpstreamAnswer out;
  out.payload = "{}";
  return out;
}

/// Names of RFC 5424 by severity, as log_severity() counts.
constexpr const char* kLevels[] = {"debug", "info",     "notice", "warning",
                                   "error", "critical", "alert",  "emergency"};

std::string uri_params(const std::string& uri) { return R"({"uri":)" + raw::quote(uri) + "}"; }

}  // namespace

void UpstreamConnection::attach(const std::shared_ptr<ConnectionListener>& listener) {
  const std::lock_guard lock(mutex_);
  for (const auto& known : listeners_)
    if (known.lock() == listener) return;
  std::erase_if(listeners_, [](const auto& known) { return known.expired(); });
  listeners_.push_back(listener);
}

void UpstreamConnection::detach(const ConnectionListener* listener) {
  std::vector<std::string> unwanted;
  std::optional<std::string> level;
  std::vector<std::shared_ptr<ConnectionListener>> heirs;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(listeners_, [&](const auto& known) {
      const auto alive = known.lock();
      return !alive || alive.get() == listener;
    });
    if (keeper_ == listener && listener != nullptr) {
      keeper_ = nullptr;
      for (const auto& known : listeners_)
        if (auto alive = known.lock()) heirs.push_back(std::move(alive));
    }
    for (auto it = subscriptions_.begin(); it != subscriptions_.end();) {
      Subscription& one = it->second;
      const bool last = one.holders.erase(listener) > 0 && one.holders.empty() && one.active && !one.busy;
      if (last) unwanted.push_back(it->first);
      it = last ? subscriptions_.erase(it) : std::next(it);
    }
    if (levels_.erase(listener) > 0 && !levels_.empty()) level = wanted_level_locked();
  }
  if (!usable()) return;
  for (const auto& heir : heirs)
    if (heir->on_connection_left(shared_from_this())) break;
  for (const std::string& uri : unwanted)
    spawn_control(control_call("resources/unsubscribe", uri_params(uri)));
  if (level) spawn_control(control_call("logging/setLevel", R"({"level":")" + *level + "\"}"));
}

bool UpstreamConnection::attached() const {
  const std::lock_guard lock(mutex_);
  for (const auto& known : listeners_)
    if (!known.expired()) return true;
  return false;
}

bool UpstreamConnection::claim(const std::shared_ptr<ConnectionListener>& listener) {
  if (!upstream_->session() || left_.load(std::memory_order_acquire)) return false;
  const std::lock_guard lock(mutex_);
  if (keeper_ == nullptr) keeper_ = listener.get();
  return keeper_ == listener.get();
}

bool UpstreamConnection::kept_by(const ConnectionListener* listener) const {
  const std::lock_guard lock(mutex_);
  return keeper_ == listener;
}

UpstreamCall UpstreamConnection::control_call(std::string method, std::string params) const {
  UpstreamCall out;
  out.method = std::move(method);
  out.params = std::move(params);
  out.timeout = out.max_timeout = core_->options.upstream.list_timeout;
  return out;
}

void UpstreamConnection::spawn_control(UpstreamCall call) {
  Loop& loop = core_->runtime->impl().any_loop();
  loop.post([&loop, self = shared_from_this(), call = std::move(call)]() mutable {
    loop.spawn([](std::shared_ptr<UpstreamConnection> connection, UpstreamCall what) -> Task<void> {
      if (connection->usable()) (void)co_await connection->upstream_->request(std::move(what));
    }(std::move(self), std::move(call)));
  });
}

// --- subscriptions -----------------------------------------------------------------------------------

Task<Result<UpstreamAnswer>> UpstreamConnection::request(UpstreamCall call,
                                                         const ConnectionListener* listener) {
  if (Poller* poller = Poller::stepping()) co_await poller->next_step();
  const bool on = call.method == "resources/subscribe";
  std::optional<CircuitBreaker::Pass> pass;
  if (circuit_ && !(pass = circuit_->enter(steady_now()))) co_return CircuitBreaker::refusal();
  std::optional<Result<UpstreamAnswer>> answer;
  if (!on && call.method != "resources/unsubscribe") {
    answer = co_await upstream_->request(std::move(call));
  } else {
    std::string uri = raw::string_value(raw::find(call.params, "uri")).value_or("");
    if (on)
      answer = co_await subscribe(std::move(call), std::move(uri), listener);
    else
      answer = co_await unsubscribe(std::move(call), std::move(uri), listener);
  }
  if (pass && !*answer)
    judge(*pass, CircuitBreaker::outcome_of(answer->error()));
  else if (pass)
    judge(*pass, CircuitBreaker::Outcome::worked);
  co_return std::move(*answer);
}

void UpstreamConnection::judge(CircuitBreaker::Pass& pass, CircuitBreaker::Outcome outcome) {
  // What ended because we closed it says nothing of the server.
  if (outcome == CircuitBreaker::Outcome::failed && retired_.load(std::memory_order_acquire))
    outcome = CircuitBreaker::Outcome::neither;
  if (pass.end(outcome, steady_now())) core_->pool->circuit_closed(target().id);
}

Task<Result<UpstreamAnswer>> UpstreamConnection::subscribe(UpstreamCall call, std::string uri,
                                                           const ConnectionListener* listener) {
  const SteadyTime deadline = std::chrono::steady_clock::now() + call.timeout;
  std::shared_ptr<AsyncEvent> mine;
  while (!mine) {
    std::shared_ptr<AsyncEvent> busy;
    {
      const std::lock_guard lock(mutex_);
      Subscription& one = subscriptions_[uri];
      if (one.active && !one.busy) {
        one.holders.insert(listener);
        co_return empty_answer();
      }
      busy = one.busy;
      if (!busy) mine = one.busy = std::make_shared<AsyncEvent>();
    }
    if (busy && !co_await busy->wait(deadline))
      co_return Error(ErrorCode::deadline_exceeded, "upstream_timeout", "The server did not answer in time");
  }
  auto answer = co_await upstream_->request(std::move(call));
  bool unwanted = false;
  {
    const std::lock_guard lock(mutex_);
    Subscription& one = subscriptions_[uri];
    one.busy = nullptr;
    one.active = answer && !answer->is_error;
    // Who has gone meanwhile wants it no more.
    const bool here = std::any_of(listeners_.begin(), listeners_.end(),
                                  [&](const auto& known) { return known.lock().get() == listener; });
    if (one.active && here) one.holders.insert(listener);
    unwanted = one.active && one.holders.empty();
    if (one.holders.empty()) subscriptions_.erase(uri);
  }
  mine->set();
  if (unwanted) spawn_control(control_call("resources/unsubscribe", uri_params(uri)));
  co_return answer;
}

Task<Result<UpstreamAnswer>> UpstreamConnection::unsubscribe(UpstreamCall call, std::string uri,
                                                             const ConnectionListener* listener) {
  const SteadyTime deadline = std::chrono::steady_clock::now() + call.timeout;
  std::shared_ptr<AsyncEvent> mine;
  while (!mine) {
    std::shared_ptr<AsyncEvent> busy;
    {
      const std::lock_guard lock(mutex_);
      const auto it = subscriptions_.find(uri);
      if (it == subscriptions_.end()) break;  // the server knows what to say to it
      Subscription& one = it->second;
      busy = one.busy;
      if (!busy) {
        one.holders.erase(listener);
        if (!one.holders.empty()) co_return empty_answer();
        mine = one.busy = std::make_shared<AsyncEvent>();
      }
    }
    if (busy && !co_await busy->wait(deadline))
      co_return Error(ErrorCode::deadline_exceeded, "upstream_timeout", "The server did not answer in time");
  }
  auto answer = co_await upstream_->request(std::move(call));
  if (mine) {
    {
      const std::lock_guard lock(mutex_);
      subscriptions_.erase(uri);
    }
    mine->set();
  }
  co_return answer;
}

// --- log level ---------------------------------------------------------------------------------------

std::optional<std::string> UpstreamConnection::wanted_level_locked() {
  if (!upstream_->facts().offers("logging")) return std::nullopt;
  std::optional<int> lowest;
  for (const auto& [listener, severity] : levels_) lowest = std::min(lowest.value_or(severity), severity);
  if (!lowest || level_ == lowest) return std::nullopt;
  level_ = lowest;
  return kLevels[static_cast<std::size_t>(*lowest)];
}

Task<void> UpstreamConnection::want_log_level(const ConnectionListener* listener, std::string level) {
  std::optional<std::string> wanted;
  {
    const std::lock_guard lock(mutex_);
    const int severity = log_severity(level);
    if (severity >= 0)
      levels_[listener] = severity;
    else
      levels_.erase(listener);
    wanted = wanted_level_locked();
  }
  if (!wanted) co_return;
  (void)co_await upstream_->request(control_call("logging/setLevel", R"({"level":")" + *wanted + "\"}"));
}

void UpstreamConnection::restore(const std::shared_ptr<ConnectionListener>& listener, std::string level,
                                 std::vector<std::string> uris) {
  Loop& loop = core_->runtime->impl().any_loop();
  loop.post([&loop, self = shared_from_this(), listener, level = std::move(level),
             uris = std::move(uris)]() mutable {
    loop.spawn([](std::shared_ptr<UpstreamConnection> connection, std::shared_ptr<ConnectionListener> who,
                  std::string wanted, std::vector<std::string> all) -> Task<void> {
      if (!wanted.empty()) co_await connection->want_log_level(who.get(), std::move(wanted));
      for (const std::string& uri : all) {
        if (!connection->usable()) co_return;
        auto call = connection->control_call("resources/subscribe", uri_params(uri));
        (void)co_await connection->request(std::move(call), who.get());
      }
    }(std::move(self), std::move(listener), std::move(level), std::move(uris)));
  });
}

// --- messages ----------------------------------------------------------------------------------------

void UpstreamConnection::remember_elicitation(std::string_view params,
                                              const std::shared_ptr<ConnectionListener>& listener) {
  auto id = raw::string_value(raw::find(params, "elicitationId"));
  if (!id || id->empty() || id->size() > 1024) return;
  const std::lock_guard lock(mutex_);
  if (elicitations_.size() >= kMaxElicitations) elicitations_.pop_front();
  elicitations_.emplace_back(std::move(*id), listener);
}

bool UpstreamConnection::deliver_to_task(const ServerMessage& message) {
  ServerMessage out = message;
  std::shared_ptr<ConnectionListener> session;
  if (message.method == "notifications/progress") {
    const std::string token(raw::find(message.params, "progressToken"));
    const auto progress = core_->pool->tasks().progress(binding_->key, token);
    if (!progress) return true;  // of a call that has ended
    session = progress->session.lock();
    out.params = raw::with_member(message.params, "progressToken", progress->client_token);
  } else if (message.method == "notifications/tasks/status") {
    const auto id = raw::string_value(raw::find(message.params, "taskId"));
    const auto known = id ? core_->pool->tasks().find(target().id, *id) : std::nullopt;
    if (known) session = known->session.lock();
  } else {
    return false;
  }
  if (session) session->on_connection_message(shared_from_this(), out);
  return true;
}

void UpstreamConnection::deliver(const ServerMessage& message) {
  if (core_->observer->refuses(*this, message)) return;
  std::optional<ListKind> changed;
  if (message.method == "notifications/tools/list_changed") changed = ListKind::tools;
  if (message.method == "notifications/prompts/list_changed") changed = ListKind::prompts;
  if (message.method == "notifications/resources/list_changed") changed = ListKind::resources;
  if (message.id.empty() && deliver_to_task(message)) return;
  const bool completes = message.method == "notifications/elicitation/complete";
  std::vector<std::shared_ptr<ConnectionListener>> listeners;
  {
    const std::lock_guard lock(mutex_);
    const auto drop = [this](ListKind kind) {
      Cache& cache = caches_[static_cast<std::size_t>(kind)];
      cache.listing = nullptr;
      ++cache.generation;
    };
    if (changed) drop(*changed);
    if (changed == ListKind::resources) drop(ListKind::templates);
    if (completes) {
      // To the client alone that was sent there.
      const auto id = raw::string_value(raw::find(message.params, "elicitationId"));
      const auto it = std::find_if(elicitations_.begin(), elicitations_.end(),
                                   [&](const auto& one) { return id && one.first == *id; });
      if (it == elicitations_.end()) return;
      if (auto listener = it->second.lock()) listeners.push_back(std::move(listener));
      elicitations_.erase(it);
    } else {
      for (const auto& known : listeners_)
        if (auto listener = known.lock()) listeners.push_back(std::move(listener));
    }
  }
  const auto self = shared_from_this();
  if (!message.id.empty()) {
    // A request that belongs to no call: its task tells whom to ask, or that the connection has one session.
    const auto related =
        raw::string_value(raw::find(raw::find(raw::find(message.params, "_meta"), kRelatedTask), "taskId"));
    const auto task = related ? core_->pool->tasks().find(target().id, *related) : std::nullopt;
    if (const auto session = task ? task->session.lock() : nullptr)
      return session->on_connection_message(self, message);
    if (listeners.size() == 1 && !message.ambiguous) {
      listeners.front()->on_connection_message(self, message);
    } else {
      // Nobody knows whom it is for.
      core_->observer->server_request({}, target(), message, true);
      upstream_->respond(message.id, "error", R"({"code":-32601,"message":"Not available here"})");
    }
    return;
  }
  if (message.method == "notifications/message" && (message.ambiguous || listeners.size() > 1) &&
      !binding_->subject.starts_with("user:") && binding_->instance_key.empty())
    return;  // on a shared process nobody knows whose line it is
  for (const auto& listener : listeners) listener->on_connection_message(self, message);
}

void UpstreamConnection::on_lost(const Error& error) {
  std::vector<std::shared_ptr<ConnectionListener>> listeners, waiting;
  {
    const std::lock_guard lock(mutex_);
    const bool process = target().is_process();
    for (const auto& known : listeners_) {
      auto listener = known.lock();
      if (!listener) continue;
      // A process is started when it is called; who has subscribed to something of it waits for its return.
      if (!process || std::any_of(subscriptions_.begin(), subscriptions_.end(), [&](const auto& one) {
            return one.second.holders.contains(listener.get());
          }))
        waiting.push_back(listener);
      listeners.push_back(std::move(listener));
    }
  }
  // One that had been told to go is no loss.
  if (target().is_process() && !retired_.load(std::memory_order_acquire))
    core_->metrics->target(target().name)->restarts.add();
  const auto self = shared_from_this();
  core_->pool->report(target(), binding_->key, error, error.message, nullptr);
  core_->pool->lost(self, error, waiting);
  for (const auto& listener : listeners) listener->on_connection_lost(self);
}

}  // namespace mcpgw::detail
