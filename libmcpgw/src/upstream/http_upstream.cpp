// An MCP server behind Streamable HTTP (MCP 2025-11-25, basic/transports): each request is a POST whose
// answer is one JSON message or an event stream; a standing GET stream brings what belongs to no call.
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

#include "base/moment.hpp"
#include "base/text.hpp"
#include "json/raw.hpp"
#include "runtime/poller.hpp"
#include "runtime/waiter.hpp"
#include "upstream/log_limiter.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kJsonDepth = 256;
constexpr milliseconds kDefaultRetry{1000};
constexpr milliseconds kMinRetry{50};  // a server that says 0 is not asked in a tight loop
constexpr milliseconds kMaxBackoff{30000};
constexpr milliseconds kMaxRetry{600000};  // of the standing stream; a call's is bounded by its time limit
constexpr milliseconds kControlTimeout{10000};  // notifications, answers to server requests, DELETE

/// How long to wait before a stream is taken up again: what the server asked for, else longer each time.
milliseconds retry_delay(std::optional<milliseconds> told, int failures) {
  if (told && failures == 0) return *told;
  const milliseconds backoff = std::min(kDefaultRetry * (1 << std::min(failures, 5)), kMaxBackoff);
  return told ? std::max(*told, backoff) : backoff;
}

bool is_session_id(std::string_view text) {
  return !text.empty() && text.size() <= 1024 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x21 && c <= 0x7e; });
}

class HttpUpstream final : public Upstream, public std::enable_shared_from_this<HttpUpstream> {
 public:
  HttpUpstream(Loop& home, HttpUpstreamOptions options, ClientFacts client, UpstreamEvents events)
      : home_(home),
        options_(std::move(options)),
        client_(std::move(client)),
        events_(std::move(events)),
        log_(events_.on_log) {}

  const ServerFacts& facts() const override { return facts_; }
  bool alive() const override { return !closed_.load(std::memory_order_acquire); }
  std::string_view transport() const override { return "streamable-http"; }

  Task<Status> initialize(SteadyTime deadline, HttpRefusal* refusal) {
    UpstreamCall call;
    call.method = "initialize";
    call.params = initialize_params(client_);
    call.timeout = call.max_timeout = remaining(deadline);
    auto answer = co_await request(std::move(call));
    if (refusal != nullptr) refusal->status = refused_.load(std::memory_order_relaxed);
    if (!answer) co_return answer.error();
    auto facts = read_initialize_result(*answer);
    if (!facts) co_return facts.error();
    facts_ = std::move(*facts);
    initialized_ = true;
    co_await post_control(make_notification("notifications/initialized", {}), deadline);
    if (!alive()) co_return session_lost_error();
    opened();
    co_return Status();
  }

  /// Another connection's session from now on.
  void adopt(UpstreamSession session, std::int64_t first_id) {
    session_id_ = std::move(session.id);
    facts_ = std::move(session.facts);
    next_id_.store(first_id, std::memory_order_relaxed);
    initialized_ = true;
  }

  Task<Status> resume(SteadyTime deadline) {
    const auto running = std::make_shared<Running>();
    running->number = next_id_.fetch_add(1, std::memory_order_relaxed);
    running->id = std::to_string(running->number);
    running->timeout = remaining(deadline);
    running->deadline = running->hard = deadline;
    running->cancel = std::make_shared<CancelSource>();
    {
      const std::lock_guard lock(mutex_);
      running_[running->number] = running;
    }
    UpstreamCall call;
    call.method = "ping";
    const auto answer = co_await perform(std::move(call), *running);
    {
      const std::lock_guard lock(mutex_);
      running_.erase(running->number);
    }
    if (!answer) co_return answer.error();
    if (!alive()) co_return closed_error("The connection was closed");
    opened();
    co_return Status();
  }

  std::optional<UpstreamSession> session() const override {
    if (session_id_.empty()) return std::nullopt;
    return UpstreamSession{session_id_, facts_};
  }

  Task<Result<UpstreamAnswer>> request(UpstreamCall call) override {
    if (!alive()) co_return session_lost_error();  // nothing of it was sent
    auto running = std::make_shared<Running>();
    const auto started = steady_now();
    running->number = next_id_.fetch_add(1, std::memory_order_relaxed);
    running->id = std::to_string(running->number);
    running->timeout = call.timeout;
    running->hard = started + call.max_timeout;
    running->deadline = std::min(running->hard, started + call.timeout);
    running->observer = call.observer;
    {
      const std::lock_guard lock(mutex_);
      running->cancel = std::make_shared<CancelSource>();
      running_[running->number] = running;
    }
    if (call.handle) {
      call.handle->on_cancel([self = shared_from_this(), running](std::string reason) {
        self->notify("notifications/cancelled", cancelled_params(running->id, reason));
        self->abort(*running, std::nullopt);
      });
    }
    const bool wants_progress = call.wants_progress;
    const auto handle = call.handle;
    auto result = co_await perform(std::move(call), *running);
    if (handle) handle->on_cancel(nullptr);
    {
      const std::lock_guard lock(mutex_);
      running_.erase(running->number);
      // It came on another stream of the session than it was waited for on.
      if (!result && running->answer) result = std::move(*running->answer);
    }
    if (!result && result.error().reason == "cancelled" && !(handle && handle->cancelled()))
      result = closed_error("The connection was closed");
    if (!result && result.error().reason == "upstream_timeout")
      notify("notifications/cancelled", cancelled_params(running->id, "the time limit was reached"));
    if (!result && result.error().reason == "session_lost") lose(result.error());
    if (result && wants_progress) result->progress_token = running->id;
    co_return result;
  }

  void notify(std::string method, std::string params) override {
    send_detached(make_notification(method, params));
  }

  void respond(std::string id, std::string_view member, std::string payload) override {
    send_detached(member == "result" ? make_result(id, payload) : make_raw_error(id, payload));
  }

  void close() override {
    if (closed_.exchange(true)) return;
    stop();
    if (session_id_.empty()) return;
    if (options_.farewells) options_.farewells->fetch_add(1);
    home_.spawn(send_delete(shared_from_this()));
  }

  void leave() override {
    if (!closed_.exchange(true)) stop();
  }

 private:
  /// A call that waits for its answer.
  struct Running {
    std::int64_t number = 0;
    std::string id;
    std::shared_ptr<CallObserver> observer;
    milliseconds timeout{0};
    SteadyTime hard;
    SteadyTime deadline;  ///< moved by progress; of the call's own coroutine
    AsyncEvent ended;     ///< wakes it between two streams
    // Guarded by the upstream's mutex.
    std::shared_ptr<CancelSource> cancel;  ///< of the exchange that is open; each serves one
    bool aborted = false;
    std::optional<UpstreamAnswer> answer;
  };

  static milliseconds remaining(SteadyTime deadline) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
    return left.count() > 0 ? left : milliseconds(1);
  }

  ClientRequest base_request(std::string method) const {
    ClientRequest out;
    out.method = std::move(method);
    out.url = options_.url;
    out.headers.reserve(options_.headers.size() + 5);
    out.headers = options_.headers;
    if (initialized_) out.headers.emplace_back("MCP-Protocol-Version", facts_.protocol_version);
    if (!session_id_.empty()) out.headers.emplace_back("Mcp-Session-Id", session_id_);
    return out;
  }

  ClientRequest first_post_request() const {
    ClientRequest out = base_request("POST");
    out.headers.emplace_back("Content-Type", "application/json");
    out.headers.emplace_back("Accept", "application/json, text/event-stream");
    return out;
  }

  /// What the handshake settles is settled: requests have it in common from now on.
  void opened() {
    ClientRequest first = first_post_request();
    // What is wrong with it is told with each request.
    if (auto base =
            RequestBase::create(std::move(first.method), std::move(first.url), std::move(first.headers)))
      post_base_ = std::move(*base);
    home_.spawn(listen(shared_from_this()));
  }

  ClientRequest post_request(std::string body, SteadyTime deadline) const {
    ClientRequest out;
    if (post_base_)
      out.base = &*post_base_;
    else
      out = first_post_request();
    out.body = std::move(body);
    out.deadline = deadline;
    return out;
  }

  ClientRequest stream_request(const std::string& last_id) const {
    ClientRequest out = base_request("GET");
    out.headers.emplace_back("Accept", "text/event-stream");
    if (!last_id.empty()) out.headers.emplace_back("Last-Event-ID", last_id);
    return out;
  }

  void abort(Running& running, std::optional<UpstreamAnswer> answer) {
    std::shared_ptr<CancelSource> cancel;
    {
      const std::lock_guard lock(mutex_);
      if (running.aborted) return;
      running.aborted = true;
      running.answer = std::move(answer);
      cancel = running.cancel;
    }
    running.ended.set();
    cancel->cancel();
  }

  /// Ends what waits on this connection.
  void stop() {
    std::map<std::int64_t, std::shared_ptr<Running>> running;
    std::shared_ptr<CancelSource> listener;
    {
      const std::lock_guard lock(mutex_);
      running.swap(running_);
      listener = listener_cancel_;
    }
    for (const auto& [number, one] : running) abort(*one, std::nullopt);
    if (listener) listener->cancel();
    stopped_.set();
  }

  Task<Result<UpstreamAnswer>> perform(UpstreamCall call, Running& running) {
    std::string params =
        !call.wants_progress && (!call.may_have_meta || raw::find(call.params, "_meta").empty())
            ? std::move(call.params)
            : with_progress_token(call.params,
                                  call.wants_progress ? std::string_view(running.id) : std::string_view());
    std::string detail;
    ClientRequest message = post_request(make_request(running.id, call.method, params), running.deadline);
    const HttpHeaders& set = message.base != nullptr ? message.base->headers() : message.headers;
    for (auto& header : call.headers)
      if (find_header(set, header.first) == nullptr && find_header(message.headers, header.first) == nullptr)
        message.headers.push_back(std::move(header));
    if (Poller* poller = Poller::stepping()) co_await poller->next_step();
    auto sent = co_await options_.client->send(std::move(message), running.cancel.get(), &detail);
    if (!sent) {
      if (!detail.empty()) log(LogLevel::warn, detail, running.observer.get());
      co_return sent.error();
    }
    std::unique_ptr<HttpExchange> exchange = std::move(*sent);
    if (!initialized_) {
      refused_.store(exchange->status == 200 ? 0 : exchange->status, std::memory_order_relaxed);
      if (const std::string* header = find_header(exchange->headers, "Mcp-Session-Id")) {
        if (!is_session_id(*header)) co_return protocol_error("The session id is malformed");
        session_id_ = *header;
      }
    }
    if (exchange->status == 200 && is_media_type(exchange->headers, "text/event-stream"))
      co_return co_await read_streams(running, std::move(exchange));
    if (const auto whole = exchange->take_whole(options_.max_message))
      co_return read_json_answer(running, exchange->status, exchange->headers, *whole);
    auto body = co_await exchange->read_all(options_.max_message);
    if (!body) co_return body.error();
    co_return read_json_answer(running, exchange->status, exchange->headers, *body);
  }

  Result<UpstreamAnswer> read_json_answer(const Running& running, int status, const HttpHeaders& headers,
                                          const std::string& body) const {
    const bool json =
        is_media_type(headers, "application/json") && raw::check(body, kJsonDepth) == raw::Fault::none;
    std::optional<Envelope> envelope;
    if (json) {
      auto read = read_envelope(body);
      if (auto* message = std::get_if<Envelope>(&read)) envelope = std::move(*message);
    }
    const bool answer = envelope && envelope->kind == Envelope::Kind::response;
    if (status == 404 && !session_id_.empty()) return session_lost_error();
    if (answer && envelope->id == running.id && (status == 200 || !envelope->error.empty())) {
      UpstreamAnswer out;
      out.is_error = !envelope->error.empty();
      out.payload = out.is_error ? envelope->error : envelope->result;
      return out;
    }
    if (status == 400 && !session_id_.empty() && answer && envelope->id.empty() &&
        to_lower(raw::string_value(raw::find(envelope->error, "message")).value_or("")).find("session") !=
            std::string::npos)
      return session_lost_error();  // servers that answer 400 where the specification says 404
    if (status != 200) {
      log(LogLevel::warn, "the server answered HTTP " + std::to_string(status), running.observer.get());
      return http_status_error(status);
    }
    return protocol_error("The server's answer is not an MCP message");
  }

  /// Reads the call's event stream until its answer. A stream that ends early is taken up again where the
  /// server marked a place (Last-Event-ID), as often as the call's time permits.
  Task<Result<UpstreamAnswer>> read_streams(Running& running, std::unique_ptr<HttpExchange> exchange) {
    std::optional<milliseconds> told;
    std::string last_id;
    int failures = 0;
    for (;;) {
      if (exchange) {
        auto answer = co_await read_stream(running, std::move(exchange), last_id, told);
        if (!answer) co_return answer.error();
        if (*answer) co_return std::move(**answer);
      }
      if (last_id.empty()) co_return closed_error("The server ended the answer early");
      const SteadyTime again_at = steady_clock::now() + retry_delay(told, failures);
      if (again_at >= running.deadline) co_return closed_error("The server ended the answer early");
      co_await running.ended.wait(again_at);
      auto cancel = std::make_shared<CancelSource>();
      {
        const std::lock_guard lock(mutex_);
        if (running.aborted) co_return Error(ErrorCode::cancelled, "cancelled", "The call was cancelled");
        if (!alive()) co_return closed_error("The connection was closed");
        running.cancel = cancel;
      }
      ClientRequest request = stream_request(last_id);
      request.deadline = running.deadline;
      auto sent = co_await options_.client->send(std::move(request), cancel.get());
      if (sent && (*sent)->status == 200 && is_media_type((*sent)->headers, "text/event-stream")) {
        exchange = std::move(*sent);
        failures = 0;
        continue;
      }
      // The call may have been acted on: it is not sent again, whatever became of the session.
      if (sent && (*sent)->status == 404 && !session_id_.empty()) lose(session_lost_error());
      const bool may_pass =
          sent ? worth_another_try((*sent)->status) : sent.error().code == ErrorCode::unavailable;
      if (!sent && sent.error().code != ErrorCode::unavailable) co_return sent.error();
      if (!may_pass) co_return closed_error("The server ended the answer early");
      ++failures;
    }
  }

  /// The answer, or nothing when the stream ended before it.
  Task<Result<std::optional<UpstreamAnswer>>> read_stream(Running& running,
                                                          std::unique_ptr<HttpExchange> exchange,
                                                          std::string& last_id,
                                                          std::optional<milliseconds>& told) {
    SseDecoder decoder(options_.max_message);
    std::vector<SseDecoder::Event> events;
    for (;;) {
      auto piece = co_await exchange->read_some();
      if (!piece) {
        if (piece.error().reason == "upstream_closed") co_return std::optional<UpstreamAnswer>();
        co_return piece.error();
      }
      if (piece->empty()) co_return std::optional<UpstreamAnswer>();
      events.clear();
      if (!decoder.feed(*piece, events))
        co_return Error(ErrorCode::resource_exhausted, "response_too_large",
                        "An event exceeds the size limit");
      for (const SseDecoder::Event& event : events) {
        note_place(event, last_id, told);
        if (event.data.empty() || event.event != "message") continue;
        if (auto done = call_event(running, event.data, *exchange)) {
          // The rest of the stream is of no interest, but reading its end keeps the connection.
          Loop::current()->spawn(drain(std::move(exchange)));
          co_return std::move(done);
        }
      }
    }
  }

  static void note_place(const SseDecoder::Event& event, std::string& last_id,
                         std::optional<milliseconds>& told) {
    if (event.id) last_id = *event.id;
    if (event.retry) told = std::clamp(milliseconds(*event.retry), kMinRetry, kMaxRetry);
  }

  std::optional<Envelope> read_event(const std::string& data) const {
    if (raw::check(data, kJsonDepth) == raw::Fault::none) {
      auto read = read_envelope(data);
      if (auto* message = std::get_if<Envelope>(&read)) return std::move(*message);
    }
    log(LogLevel::warn, "an event that is not a message was skipped");
    return std::nullopt;
  }

  static UpstreamAnswer to_answer(const Envelope& message) {
    UpstreamAnswer out;
    out.is_error = !message.error.empty();
    out.payload = out.is_error ? message.error : message.result;
    return out;
  }

  /// The answer when this was it.
  std::optional<UpstreamAnswer> call_event(Running& running, const std::string& data,
                                           HttpExchange& exchange) {
    auto message = read_event(data);
    if (!message) return std::nullopt;
    if (message->kind == Envelope::Kind::response) {
      if (message->id == running.id) return to_answer(*message);
      other_answer(*message);
      return std::nullopt;
    }
    if (answer_ping(*message)) return std::nullopt;
    ServerMessage out{std::string(message->id), std::move(message->method), std::string(message->params)};
    if (out.method == "notifications/progress" && raw::find(out.params, "progressToken") == running.id) {
      running.deadline = std::min(running.hard, steady_clock::now() + running.timeout);
      exchange.set_deadline(running.deadline);
    } else if (out.method == "notifications/progress" || !running.observer) {
      standing_message(std::move(out));
      return std::nullopt;
    }
    if (running.observer) running.observer->on_server_message(std::move(out));
    return std::nullopt;
  }

  /// Answers belong on the stream of their call; one that comes elsewhere still is its answer, since ids are
  /// this connection's own.
  void other_answer(const Envelope& message) {
    const auto number = raw::int_value(message.id);
    std::shared_ptr<Running> running;
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = running_.find(number.value_or(0)); number && it != running_.end())
        running = it->second;
    }
    if (!running) return log(LogLevel::debug, "an answer to no running request was skipped");
    abort(*running, to_answer(message));
  }

  bool answer_ping(const Envelope& message) {
    if (message.kind != Envelope::Kind::request || message.method != "ping") return false;
    respond(std::string(message.id), "result", "{}");
    return true;
  }

  static Task<void> drain(std::unique_ptr<HttpExchange> exchange) {
    exchange->set_deadline(steady_clock::now() + std::chrono::seconds(2));
    for (;;) {
      auto piece = co_await exchange->read_some();
      if (!piece || piece->empty()) co_return;
    }
  }

  Task<void> post_control(std::string body, SteadyTime deadline) {
    std::string detail;
    auto sent = co_await options_.client->send(post_request(std::move(body), deadline), nullptr, &detail);
    if (!sent) {
      if (!detail.empty()) log(LogLevel::debug, detail);
      co_return;
    }
    if ((*sent)->status == 404 && !session_id_.empty()) lose(session_lost_error());
    (void)co_await (*sent)->read_all(64 * 1024);
  }

  void send_detached(std::string body) {
    home_.dispatch([self = shared_from_this(), body = std::move(body)]() mutable {
      self->home_.spawn([](std::shared_ptr<HttpUpstream> that, std::string text) -> Task<void> {
        co_await that->post_control(std::move(text), steady_clock::now() + kControlTimeout);
      }(self, std::move(body)));
    });
  }

  static Task<void> send_delete(std::shared_ptr<HttpUpstream> self) {
    ClientRequest request = self->base_request("DELETE");
    request.deadline = steady_clock::now() + std::chrono::seconds(3);
    auto sent = co_await self->options_.client->send(std::move(request));
    if (sent) (void)co_await (*sent)->read_all(64 * 1024);
    if (self->options_.farewells) self->options_.farewells->fetch_sub(1);
  }

  /// Whether a stream that was refused so may be granted a little later.
  static bool worth_another_try(int status) {
    return status == 408 || status == 409 || status == 425 || status == 429 || status >= 500;
  }

  /// The standing stream. A server that offers none answers 405 and is left alone; one that breaks is taken
  /// up again, where the server marked a place.
  static Task<void> listen(std::shared_ptr<HttpUpstream> self) {
    std::string last_id;
    std::optional<milliseconds> told;
    int failures = 0;
    while (self->alive()) {
      auto cancel = std::make_shared<CancelSource>();
      {
        const std::lock_guard lock(self->mutex_);
        self->listener_cancel_ = cancel;
      }
      if (!self->alive()) co_return;
      std::string detail;
      auto sent = co_await self->options_.client->send(self->stream_request(last_id), cancel.get(), &detail);
      if (!self->alive()) co_return;
      bool heard = false;
      if (sent) {
        HttpExchange& exchange = **sent;
        if (exchange.status == 404 && !self->session_id_.empty()) co_return self->lose(session_lost_error());
        if (exchange.status == 200 && is_media_type(exchange.headers, "text/event-stream"))
          heard = co_await self->read_standing(exchange, last_id, told);
        else if (exchange.status == 501 || !worth_another_try(exchange.status))
          co_return;
        sent->reset();
      } else if (!detail.empty()) {
        self->log(LogLevel::debug, detail);
      }
      failures = heard ? 0 : failures + 1;
      co_await self->stopped_.wait(steady_clock::now() + retry_delay(told, std::max(failures - 1, 0)));
    }
  }

  /// Whether anything came.
  Task<bool> read_standing(HttpExchange& exchange, std::string& last_id, std::optional<milliseconds>& told) {
    SseDecoder decoder(options_.max_message);
    std::vector<SseDecoder::Event> events;
    bool heard = false;
    for (;;) {
      auto piece = co_await exchange.read_some();
      if (!piece || piece->empty()) co_return heard;
      events.clear();
      if (!decoder.feed(*piece, events)) {
        log(LogLevel::warn, "an event over the size limit ended the stream");
        co_return heard;
      }
      for (const SseDecoder::Event& event : events) {
        heard = true;
        note_place(event, last_id, told);
        if (event.data.empty() || event.event != "message") continue;
        auto message = read_event(event.data);
        if (!message) continue;
        if (message->kind == Envelope::Kind::response)
          other_answer(*message);
        else if (!answer_ping(*message))
          standing_message(
              {std::string(message->id), std::move(message->method), std::string(message->params)});
      }
    }
  }

  void standing_message(ServerMessage message) {
    if (events_.on_message)
      events_.on_message(std::move(message));
    else if (!message.id.empty())
      respond(message.id, "error", R"({"code":-32601,"message":"Not available here"})");
  }

  void lose(const Error& error) {
    if (closed_.exchange(true)) return;
    log_.flush();
    // Other calls end by themselves: each is told by the server, which may still be working on them.
    std::shared_ptr<CancelSource> listener;
    {
      const std::lock_guard lock(mutex_);
      listener = listener_cancel_;
    }
    if (listener) listener->cancel();
    stopped_.set();
    if (events_.on_lost) events_.on_lost(error);
  }

  void log(LogLevel level, std::string text, CallObserver* call = nullptr) const {
    if (call != nullptr && call->on_log(level, text)) return;
    log_.log(level, std::move(text));
  }

  // Set once, before the connection is shared.
  Loop& home_;
  const HttpUpstreamOptions options_;
  const ClientFacts client_;
  const UpstreamEvents events_;
  mutable LogLimiter log_;
  ServerFacts facts_;
  std::string session_id_;
  std::optional<RequestBase> post_base_;  ///< once the session is open
  bool initialized_ = false;

  std::atomic<int> refused_{0};
  std::atomic<bool> closed_{false};
  std::atomic<std::int64_t> next_id_{1};
  AsyncEvent stopped_;

  std::mutex mutex_;  // guards what follows
  std::shared_ptr<CancelSource> listener_cancel_;
  std::map<std::int64_t, std::shared_ptr<Running>> running_;
};

}  // namespace

Task<Result<std::shared_ptr<Upstream>>> open_http_upstream(Loop& home, HttpUpstreamOptions options,
                                                           ClientFacts client, UpstreamEvents events,
                                                           SteadyTime deadline, HttpRefusal* refusal) {
  auto upstream =
      std::make_shared<HttpUpstream>(home, std::move(options), std::move(client), std::move(events));
  auto status = co_await upstream->initialize(deadline, refusal);
  if (!status) {
    upstream->close();
    co_return status.error();
  }
  co_return std::static_pointer_cast<Upstream>(upstream);
}

Task<Result<std::shared_ptr<Upstream>>> resume_http_upstream(Loop& home, HttpUpstreamOptions options,
                                                             ClientFacts client, UpstreamEvents events,
                                                             UpstreamSession session, std::int64_t first_id,
                                                             SteadyTime deadline) {
  auto upstream =
      std::make_shared<HttpUpstream>(home, std::move(options), std::move(client), std::move(events));
  upstream->adopt(std::move(session), first_id);
  auto status = co_await upstream->resume(deadline);
  if (!status) {
    upstream->leave();
    co_return status.error();
  }
  co_return std::static_pointer_cast<Upstream>(upstream);
}

void end_http_session(Loop& home, HttpUpstreamOptions options, UpstreamSession session) {
  const auto upstream =
      std::make_shared<HttpUpstream>(home, std::move(options), ClientFacts{}, UpstreamEvents{});
  upstream->adopt(std::move(session), 1);
  upstream->close();
}

}  // namespace mcpgw::detail
