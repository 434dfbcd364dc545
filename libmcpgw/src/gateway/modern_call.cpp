#include "gateway/modern_call.hpp"

#include <algorithm>

#include "gateway/modern_client.hpp"
#include "gateway/observer.hpp"
#include "json/raw.hpp"
#include "protocol/tool_headers.hpp"

namespace mcpgw::detail {
namespace {

/// An answer that takes longer becomes a stream, so that proxies and clients see that it is alive. Errors
/// whose status matters come sooner.
constexpr auto kSilence = std::chrono::milliseconds(5000);
constexpr auto kKeepAlive = std::chrono::milliseconds(14000);
/// Servers that ask several things at once send them within a millisecond.
constexpr auto kGather = std::chrono::milliseconds(75);

std::string error_object(int code, std::string_view message, std::string_view data) {
  return R"({"code":)" + std::to_string(code) + R"(,"message":)" + raw::quote(message) + R"(,"data":)" +
         std::string(data) + "}";
}

ModernOutcome invalid_state(std::string_view why) {
  return {true, error_object(rpc::kInvalidParams, why, R"({"code":"invalid_params"})"), 400,
          "invalid_params"};
}

}  // namespace

// --- ModernReply -------------------------------------------------------------------------------------

ModernReply::ModernReply(Loop& loop, std::shared_ptr<Responder> responder, Accepts accepts)
    : loop_(loop), responder_(std::move(responder)), accepts_(accepts) {}

void ModernReply::watch() {
  const std::lock_guard lock(mutex_);
  if (accepts_.sse && !done_ && !reminder_) reminder_ = loop_.reminders().add(kSilence, weak_from_this());
}

void ModernReply::on_reminder() {
  const std::lock_guard lock(mutex_);
  reminder_.reset();
  if (done_ || !(stream_ ? stream_->write(": keep-alive\n\n") : start_locked())) return;
  reminder_ = loop_.reminders().add(kKeepAlive, weak_from_this());
}

bool ModernReply::start_locked() {
  HttpResponse head;
  head.headers.emplace_back("Content-Type", "text/event-stream");
  head.headers.emplace_back("X-Accel-Buffering", "no");
  stream_ = responder_->start(std::move(head));
  return stream_ != nullptr;
}

bool ModernReply::emit(const std::string& message) {
  const std::lock_guard lock(mutex_);
  if (done_ || !accepts_.sse) return false;
  if (!stream_ && !start_locked()) return false;
  return stream_->write(sse_event(message));
}

void ModernReply::finish(int status, const std::string& message) {
  // The connection may serve other requests afterwards: its end is no longer this one's.
  responder_->on_disconnect(nullptr);
  {
    const std::lock_guard lock(mutex_);
    if (done_) return;
    done_ = true;
    // Elsewhere it is left to come and find nothing to do.
    if (reminder_ && loop_.here()) loop_.reminders().cancel(*reminder_);
    reminder_.reset();
    // An error keeps its status even for a client that prefers streams.
    if (stream_ || (!accepts_.json && status == 200)) {
      if (!stream_) start_locked();
      if (stream_) {
        stream_->write(sse_event(message));
        stream_->close();
      }
    } else {
      HttpResponse response;
      response.status = status;
      response.headers.emplace_back("Content-Type", "application/json");
      response.body = message;
      responder_->send(std::move(response));
    }
  }
}

// --- ModernCall --------------------------------------------------------------------------------------

ModernCall::ModernCall(std::shared_ptr<GatewayCore> c, std::shared_ptr<Session> s, Principal p,
                       std::string method_name, std::string upstream_params, bool may_ask, Deliver deliver)
    : ClientCall(std::move(c), std::move(s), std::move(p)),
      home_(*Loop::current()),
      upstream_params_(std::move(upstream_params)),
      may_ask_(may_ask),
      deliver_(std::move(deliver)),
      parked_id_(make_uuid(*core->random)) {
  id = "0";  // each round has its own
  method = std::move(method_name);
  params = upstream_params_;
}

void ModernCall::begin(std::shared_ptr<ModernRound> round, std::int64_t number) {
  progress_token = round->progress_token;  // whether progress is asked for upstream
  audit = round->row;
  base_ = round->row;
  const std::lock_guard lock(mutex_);
  capabilities_ = round->capabilities;
  number_ = number;
  round_ = std::move(round);
}

ModernOutcome ModernCall::translated(const std::string& message) const {
  ModernOutcome out;
  out.status = audit.response_status;
  out.error_code = audit.error_code;
  if (const std::string_view result = raw::find(message, "result"); !result.empty()) {
    out.payload = modern_result(
        method, method == "tools/list" ? without_invalid_tools(result) : std::string(result), gateway_info());
  } else {
    out.is_error = true;
    const std::string_view error = raw::find(message, "error");
    const bool unknown = raw::int_value(raw::find(error, "code")) == rpc::kResourceNotFound &&
                         raw::find(raw::find(error, "data"), "uri").empty();
    const auto uri = raw::string_value(raw::find(upstream_params_, "uri"));
    // A server of this era says what it lacks to the client itself: it was told that client's capabilities.
    const bool relayed = connection && is_modern_version(connection->upstream().facts().protocol_version) &&
                         raw::int_value(raw::find(error, "code")) == rpc::kMissingCapability &&
                         !raw::find(raw::find(error, "data"), "requiredCapabilities").empty();
    out.payload = relayed ? std::string(error)
                          : modern_error(error, unknown && uri ? std::string_view(*uri) : std::string_view());
  }
  if (handle->cancelled() && out.error_code != "upstream_timeout") {
    out.status = 499;
    out.error_code = "cancelled";
  }
  return out;
}

void ModernCall::describe(AuditRecord& row) const {
  row.target_name = audit.target_name;
  row.tool = audit.tool;
  row.decision = audit.decision;
  row.policy_id = audit.policy_id;
  row.policy_name = audit.policy_name;
}

void ModernCall::complete(const std::string& message) {
  ModernOutcome outcome = translated(message);
  if (outcome.is_error && !handle->cancelled())
    if (auto question = ask_to_visit(raw::find(message, "error"))) outcome = std::move(*question);
  std::shared_ptr<ModernRound> round;
  std::vector<Push> unanswered;
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
    unanswered.swap(pushes_);
    // A server that copes without the input has a result; one that does not has failed for want of it.
    const bool failed = outcome.is_error || raw::find(outcome.payload, "isError") == "true";
    if (failed && !missing_.empty() && !handle->cancelled())
      outcome = {true,
                 error_object(rpc::kMissingCapability, "The client lacks a capability that the server needs",
                              R"({"code":"missing_capability","requiredCapabilities":)" + missing_ + "}"),
                 400, "missing_capability"};
    round = std::move(round_);
    round_ = nullptr;
    if (!round) outcome_ = std::move(outcome);
  }
  // Without a round the outcome waits for the next one.
  if (round || handle->cancelled()) core->modern->unpark(*this);
  if (round) describe(round->row);
  if (round) deliver_(std::move(round), std::move(outcome), connection);
}

std::optional<ModernOutcome> ModernCall::resume(const std::shared_ptr<ModernRound>& round,
                                                std::int64_t number, std::string_view responses) {
  struct Answer {
    Push push;
    std::string payload;
  };
  std::vector<Answer> answers;
  std::optional<ModernOutcome> now;
  std::shared_ptr<UpstreamConnection> from;
  std::string progress;
  {
    const std::lock_guard lock(mutex_);
    if (number != number_ || round_ || handle->cancelled())
      return invalid_state("The request state has been used, or is no longer valid");
    // All or nothing: what is malformed may be sent again.
    for (const Push& push : pushes_) {
      const std::string_view response = raw::find(responses, push.request.key);
      if (response.empty()) continue;
      if (!is_input_response(push.request.method, response))
        return invalid_state("params.inputResponses[\"" + push.request.key +
                             "\"] is no answer to what was asked");
      answers.push_back({push, std::string(response)});
    }
    capabilities_ = round->capabilities;
    std::erase_if(pushes_, [&](const Push& push) {
      return std::any_of(answers.begin(), answers.end(),
                         [&](const Answer& answer) { return answer.push.request.key == push.request.key; });
    });
    if (done_) {
      now = std::move(outcome_);
      outcome_ = std::nullopt;
      ++number_;
    } else if (!pushes_.empty()) {
      from = pushes_.front().from;
      now = ask_locked();
    } else {
      round_ = round;
      expires_ = 0;
      release_limit_locked();
    }
    if (!round->progress_token.empty()) progress.swap(late_progress_);
  }
  if (!progress.empty())
    round->reply->emit(make_notification("notifications/progress",
                                         raw::with_member(progress, "progressToken", round->progress_token)));
  for (Answer& answer : answers)
    answer.push.from->upstream().respond(answer.push.upstream_id, "result", std::move(answer.payload));
  if (now && !from) core->modern->unpark(*this);
  if (now) deliver_(round, std::move(*now), from);
  return std::nullopt;
}

ModernOutcome ModernCall::ask_locked() {
  ++number_;
  expires_ = core->modern->states().now() + kWait.count();
  RequestState state = state_of(pushes_.front().from->target().id);
  state.parked = parked_id_;
  state.replica = core->modern->replica();
  state.round = number_;
  state.expires = expires_;
  std::vector<InputRequest> requests;
  for (const Push& push : pushes_) requests.push_back(push.request);
  return {false, input_required(requests, core->modern->states().seal(state), gateway_info()), 200, {}};
}

RequestState ModernCall::state_of(std::string target_id) const {
  RequestState out;
  out.user_id = principal.user_id;
  out.target_id = std::move(target_id);
  out.method = method;
  out.digest = request_digest(method, upstream_params_);
  return out;
}

std::optional<ModernOutcome> ModernCall::ask_to_visit(std::string_view error) const {
  const auto visits = url_elicitations(error);
  if (!visits || !may_ask_ || !connection) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (number_ >= kMaxRounds) return std::nullopt;
  const InputRequest& first = visits->front();
  if (!declares(capabilities_, first.method, first.params))
    return ModernOutcome{
        true,
        error_object(rpc::kMissingCapability, "The client lacks a capability that the server needs",
                     R"({"code":"missing_capability","requiredCapabilities":)" +
                         required_capabilities(first.method, first.params) + "}"),
        400, "missing_capability"};
  // Nothing waits: the server has ended the call, and wants it again.
  RequestState state = state_of(connection->target().id);
  state.round = number_ + 1;
  state.expires = core->modern->states().now() + kWait.count();
  return ModernOutcome{
      false, input_required(*visits, core->modern->states().seal(state), gateway_info()), 200, {}};
}

// --- the time limit ----------------------------------------------------------------------------------

std::chrono::milliseconds ModernCall::begin_limit(std::chrono::milliseconds timeout,
                                                  std::chrono::milliseconds in_all) {
  std::int64_t watched;
  {
    const std::lock_guard lock(mutex_);
    limit_ = Limit();
    watched = limit_.watched = ++tries_;
    limit_.timeout = timeout;
    limit_.at = std::chrono::steady_clock::now() + timeout;
  }
  watch_limit(watched);
  return in_all;
}

bool ModernCall::end_limit() {
  if (const auto timer = std::exchange(limit_timer_, nullptr)) timer->cancel();
  const std::lock_guard lock(mutex_);
  limit_.watched = 0;
  return limit_.reached;
}

void ModernCall::hold_limit_locked() {
  if (std::exchange(limit_.held, true)) return;
  limit_.left = std::max(limit_.at - std::chrono::steady_clock::now(), SteadyTime::duration::zero());
}

void ModernCall::release_limit_locked() {
  if (!std::exchange(limit_.held, false) || limit_.watched == 0) return;
  limit_.at = std::chrono::steady_clock::now() + limit_.left;
  home_.post([weak = weak_from_this(), watched = limit_.watched] {
    if (const auto alive = weak.lock()) std::static_pointer_cast<ModernCall>(alive)->watch_limit(watched);
  });
}

void ModernCall::watch_limit(std::int64_t watched) {
  auto timer = std::make_shared<SteadyTimer>(home_.io());
  {
    const std::lock_guard lock(mutex_);
    if (limit_.watched != watched || limit_.held || limit_.reached) return;
    if (std::chrono::steady_clock::now() < limit_.at) {
      timer->expires_at(limit_.at);
    } else {
      limit_.reached = true;
      timer = nullptr;
    }
  }
  if (limit_timer_) limit_timer_->cancel();
  limit_timer_ = timer;
  if (!timer) return handle->cancel("the time limit was reached");
  timer->async_wait([weak = weak_from_this(), timer, watched](const boost::system::error_code& failed) {
    const auto alive = weak.lock();
    if (!failed && alive) std::static_pointer_cast<ModernCall>(alive)->watch_limit(watched);
  });
}

void ModernCall::park() {
  std::shared_ptr<ModernRound> round;
  std::optional<ModernOutcome> outcome;
  std::shared_ptr<UpstreamConnection> from;
  std::vector<Push> refused;
  bool over = false;
  const bool room = core->modern->park(std::static_pointer_cast<ModernCall>(shared_from_this()));
  {
    const std::lock_guard lock(mutex_);
    gathering_ = false;
    over = done_ || !round_ || pushes_.empty() || handle->cancelled();
    if (over) {
      // Nothing to ask any more.
    } else if (!room || number_ >= kMaxRounds) {
      refused.swap(pushes_);
    } else {
      from = pushes_.front().from;
      outcome = ask_locked();
      hold_limit_locked();
      round = std::move(round_);
      round_ = nullptr;
    }
  }
  if (over && room) core->modern->unpark(*this);
  for (const Push& push : refused) refuse(push, "The gateway cannot ask the client now");
  if (round) describe(round->row);
  if (round) deliver_(std::move(round), std::move(*outcome), from);
}

void ModernCall::refuse(const Push& push, const char* why) const {
  push.from->upstream().respond(push.upstream_id, "error",
                                R"({"code":-32603,"message":)" + raw::quote(why) + "}");
}

void ModernCall::gone(const ModernRound* round) {
  {
    const std::lock_guard lock(mutex_);
    if (round_.get() != round) return;
  }
  handle->cancel("the client disconnected");
}

void ModernCall::end(std::string reason) {
  std::shared_ptr<ModernRound> round;
  std::vector<Push> pushes;
  {
    const std::lock_guard lock(mutex_);
    round = std::move(round_);
    round_ = nullptr;
    pushes.swap(pushes_);
    outcome_ = std::nullopt;
    if (round) {
      round->row.target_name = item_.target_name;
      round->row.tool = item_.name.substr(0, 2000);
    }
  }
  core->modern->unpark(*this);
  // Cancelled first: a server that is told that there is no answer may be done before it hears of it.
  handle->cancel(std::move(reason));
  for (const Push& push : pushes) refuse(push, "The client did not answer");
  if (round)
    deliver_(
        std::move(round),
        {true,
         error_object(rpc::kInternalError, "The call was ended by the gateway", R"({"code":"cancelled"})"),
         499, "cancelled"},
        nullptr);
}

bool ModernCall::lapsed(std::int64_t now) const {
  const std::lock_guard lock(mutex_);
  return !round_ && expires_ != 0 && now >= expires_;
}

CallItem ModernCall::item() const {
  const std::lock_guard lock(mutex_);
  return item_;
}

void ModernCall::set_item(CallItem item) {
  const std::lock_guard lock(mutex_);
  item_ = std::move(item);
}

std::optional<Principal> ModernCall::waiting() const {
  const std::lock_guard lock(mutex_);
  return round_ ? std::optional(round_->principal) : std::nullopt;
}

void ModernCall::on_server_message(ServerMessage message) {
  if (message.id.empty()) {
    const bool progress = message.method == "notifications/progress";
    if (!progress && message.method != "notifications/message") {
      // Anything else concerns the client's subscriptions rather than this call.
      if (connection) session->on_connection_message(connection, message);
      return;
    }
    std::shared_ptr<ModernRound> round;
    {
      const std::lock_guard lock(mutex_);
      round = round_;
      if (progress && limit_.watched != 0) {
        limit_.left = limit_.timeout;
        limit_.at = std::chrono::steady_clock::now() + limit_.timeout;
      }
      if (progress && !round) late_progress_ = message.params;
    }
    if (!round) return;
    if (progress) {
      if (!round->progress_token.empty())
        round->reply->emit(make_notification(
            message.method, raw::with_member(message.params, "progressToken", round->progress_token)));
      return;
    }
    const auto level = raw::string_value(raw::find(message.params, "level"));
    if (round->log_severity >= 0 && level && log_severity(*level) >= round->log_severity)
      round->reply->emit(make_notification(message.method, message.params));
    return;
  }
  if (connection) push(std::move(message), connection);
}

void ModernCall::push(ServerMessage message, const std::shared_ptr<UpstreamConnection>& from) {
  if (message.method == "ping") return from->upstream().respond(message.id, "result", "{}");
  if (core->observer->refuses(*from, message)) return;
  const std::string required = required_capabilities(message.method, message.params);
  std::string error;
  bool gather = false;
  {
    const std::lock_guard lock(mutex_);
    if (required.empty() || !may_ask_) {
      error = R"({"code":-32601,"message":"Not available here"})";
    } else if (!declares(capabilities_, message.method, message.params)) {
      missing_ = required;
      error = not_declared(session->client_offers(message.method));
    } else if (done_ || pushes_.size() >= kMaxAtOnce || handle->cancelled()) {
      error = R"({"code":-32601,"message":"Not available now"})";
    } else {
      Push push;
      const auto taken = [&](const std::string& key) {
        return std::any_of(pushes_.begin(), pushes_.end(),
                           [&](const Push& other) { return other.request.key == key; });
      };
      std::string key = message.key;  // a name that the server gave is kept
      while (key.empty() || taken(key)) key = "input_" + std::to_string(next_key_++);
      push.request = {std::move(key), message.method, message.params};
      push.upstream_id = message.id;
      push.from = from;
      pushes_.push_back(std::move(push));
      gather = round_ && !gathering_;
      if (gather) gathering_ = true;
    }
  }
  core->observer->server_request(base_, from->target(), message, !error.empty());
  if (!error.empty()) from->upstream().respond(message.id, "error", std::move(error));
  if (!gather) return;
  home_.post([self = std::static_pointer_cast<ModernCall>(shared_from_this())] {
    self->home_.spawn([](std::shared_ptr<ModernCall> call) -> Task<void> {
      co_await sleep_for(kGather);
      call->park();
    }(self));
  });
}

}  // namespace mcpgw::detail
