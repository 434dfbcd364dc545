// An MCP server behind Streamable HTTP (MCP 2025-11-25, basic/transports): each request is a POST whose
// answer is one JSON message or an event stream; a standing GET stream brings what belongs to no call.
#include <atomic>
#include <map>
#include <mutex>

#include "base/text.hpp"
#include "json/raw.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kJsonDepth = 256;
constexpr milliseconds kDefaultRetry{1000};
constexpr milliseconds kMaxRetry{30000};
constexpr milliseconds kControlTimeout{10000};  // notifications, answers to server requests, DELETE

bool is_media_type(const HttpHeaders& headers, std::string_view type) {
  const std::string* value = find_header(headers, "Content-Type");
  if (value == nullptr) return false;
  return iequals(trim(std::string_view(*value).substr(0, value->find(';'))), type);
}

class HttpUpstream final : public Upstream, public std::enable_shared_from_this<HttpUpstream> {
 public:
  HttpUpstream(Loop& home, HttpUpstreamOptions options, ClientFacts client, UpstreamEvents events)
      : home_(home), options_(std::move(options)), client_(std::move(client)), events_(std::move(events)) {}

  const ServerFacts& facts() const override { return facts_; }
  bool alive() const override { return !closed_.load(std::memory_order_acquire); }

  Task<Status> initialize(SteadyTime deadline) {
    UpstreamCall call;
    call.method = "initialize";
    call.params = initialize_params(client_);
    call.timeout = call.max_timeout = remaining(deadline);
    auto answer = co_await request(std::move(call));
    if (!answer) co_return answer.error();
    auto facts = read_initialize_result(*answer);
    if (!facts) co_return facts.error();
    facts_ = std::move(*facts);
    initialized_ = true;
    co_await post_control(make_notification("notifications/initialized", {}), deadline);
    home_.spawn(listen(shared_from_this()));
    co_return Status();
  }

  Task<Result<UpstreamAnswer>> request(UpstreamCall call) override {
    if (!alive()) co_return closed_error("The connection is closed");
    const auto started = steady_clock::now();
    const SteadyTime hard = started + call.max_timeout;
    const std::int64_t number = next_id_.fetch_add(1, std::memory_order_relaxed);
    const std::string id = std::to_string(number);
    const std::shared_ptr<CancelSource> cancel = start_running(number);
    if (call.handle) {
      call.handle->on_cancel([self = shared_from_this(), id, number](std::string reason) {
        self->notify("notifications/cancelled", cancelled_params(id, reason));
        self->abort(number);
      });
    }
    auto result = co_await perform(call, number, id, *cancel, started, hard);
    if (call.handle) call.handle->on_cancel(nullptr);
    {
      const std::lock_guard lock(mutex_);
      running_.erase(number);
    }
    if (!result && result.error().reason == "upstream_timeout")
      notify("notifications/cancelled", cancelled_params(id, "the time limit was reached"));
    if (!result && result.error().reason == "session_lost") lose(result.error());
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
    std::map<std::int64_t, std::shared_ptr<CancelSource>> running;
    {
      const std::lock_guard lock(mutex_);
      running.swap(running_);
    }
    for (const auto& [id, cancel] : running) cancel->cancel();
    stop_listening();
    if (session_id_.empty()) return;
    if (options_.farewells) options_.farewells->fetch_add(1);
    home_.spawn(send_delete(shared_from_this()));
  }

 private:
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

  ClientRequest post_request(std::string body, SteadyTime deadline) const {
    ClientRequest out = base_request("POST");
    out.headers.emplace_back("Content-Type", "application/json");
    out.headers.emplace_back("Accept", "application/json, text/event-stream");
    out.body = std::move(body);
    out.deadline = deadline;
    return out;
  }

  /// A CancelSource serves one send(); a call that resumes its stream takes another.
  std::shared_ptr<CancelSource> start_running(std::int64_t number) {
    auto cancel = std::make_shared<CancelSource>();
    const std::lock_guard lock(mutex_);
    running_[number] = cancel;
    return cancel;
  }

  void abort(std::int64_t number) {
    std::shared_ptr<CancelSource> cancel;
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = running_.find(number); it != running_.end()) cancel = it->second;
    }
    if (cancel) cancel->cancel();
  }

  void stop_listening() {
    std::shared_ptr<CancelSource> cancel;
    {
      const std::lock_guard lock(mutex_);
      cancel = listener_cancel_;
    }
    if (cancel) cancel->cancel();
  }

  Task<Result<UpstreamAnswer>> perform(UpstreamCall& call, std::int64_t number, const std::string& id,
                                       CancelSource& cancel, SteadyTime started, SteadyTime hard) {
    std::string params = raw::find(call.params, "_meta").empty() && !call.wants_progress
                             ? std::move(call.params)
                             : with_progress_token(call.params, call.wants_progress ? std::string_view(id)
                                                                                    : std::string_view());
    const SteadyTime deadline = std::min(hard, started + call.timeout);
    std::string detail;
    ClientRequest message = post_request(make_request(id, call.method, params), deadline);
    for (auto& header : call.headers)
      if (find_header(message.headers, header.first) == nullptr) message.headers.push_back(std::move(header));
    auto sent = co_await options_.client->send(std::move(message), &cancel, &detail);
    if (!sent) {
      if (!detail.empty()) log(LogLevel::warn, detail);
      co_return sent.error();
    }
    std::unique_ptr<HttpExchange> exchange = std::move(*sent);
    if (!initialized_) {
      if (const std::string* header = find_header(exchange->headers, "Mcp-Session-Id")) {
        if (header->size() > 1024 || has_control(*header))
          co_return protocol_error("The session id is malformed");
        session_id_ = *header;
      }
    }
    if (exchange->status >= 300 && exchange->status < 400)
      co_return Error(ErrorCode::unavailable, "upstream_redirect", "The server answered with a redirect");
    if (exchange->status == 200 && is_media_type(exchange->headers, "text/event-stream"))
      co_return co_await read_stream(call, number, id, std::move(exchange), hard);
    auto body = co_await exchange->read_all(options_.max_message);
    if (!body) co_return body.error();
    co_return read_json_answer(id, exchange->status, exchange->headers, *body);
  }

  Result<UpstreamAnswer> read_json_answer(const std::string& id, int status, const HttpHeaders& headers,
                                          const std::string& body) const {
    const bool json =
        is_media_type(headers, "application/json") && raw::check(body, kJsonDepth) == raw::Fault::none;
    std::optional<Envelope> envelope;
    if (json) {
      auto read = read_envelope(body);
      if (auto* message = std::get_if<Envelope>(&read)) envelope = std::move(*message);
    }
    const bool answer = envelope && envelope->kind == Envelope::Kind::response;
    if (status == 404 && !session_id_.empty()) return session_lost();
    if (answer && envelope->id == id && (status == 200 || !envelope->error.empty())) {
      UpstreamAnswer out;
      out.is_error = !envelope->error.empty();
      out.payload = out.is_error ? envelope->error : envelope->result;
      return out;
    }
    if (status == 400 && !session_id_.empty() && answer && envelope->id.empty() &&
        to_lower(raw::string_value(raw::find(envelope->error, "message")).value_or("")).find("session") !=
            std::string::npos)
      return session_lost();  // servers that answer 400 where the specification says 404
    if (status != 200) {
      log(LogLevel::warn, "the server answered HTTP " + std::to_string(status));
      if (status == 401 || status == 403)
        return protocol_error("The server refused the credential (HTTP " + std::to_string(status) + ")");
      return protocol_error("The server answered HTTP " + std::to_string(status));
    }
    return protocol_error("The server's answer is not an MCP message");
  }

  static Error session_lost() {
    return {ErrorCode::unavailable, "session_lost", "The server does not know the session any more"};
  }

  /// Reads the call's event stream until its answer. A stream that ends early is taken up again where the
  /// server marked a place (Last-Event-ID).
  Task<Result<UpstreamAnswer>> read_stream(UpstreamCall& call, std::int64_t number, const std::string& id,
                                           std::unique_ptr<HttpExchange> exchange, SteadyTime hard) {
    milliseconds retry = kDefaultRetry;
    std::string last_id;
    for (;;) {
      SseDecoder decoder(options_.max_message);
      std::vector<SseDecoder::Event> events;
      std::optional<UpstreamAnswer> answer;
      for (;;) {
        auto piece = co_await exchange->read_some();
        if (!piece) {
          if (piece.error().reason == "upstream_closed" && !decoder.last_id().empty()) break;
          co_return piece.error();
        }
        if (piece->empty()) break;
        events.clear();
        if (!decoder.feed(*piece, events))
          co_return Error(ErrorCode::resource_exhausted, "response_too_large",
                          "An event exceeds the size limit");
        for (const SseDecoder::Event& event : events) {
          if (event.retry) retry = std::clamp(milliseconds(*event.retry), milliseconds(10), kMaxRetry);
          if (event.data.empty() || (event.event != "message" && !event.event.empty())) continue;
          if (auto done = handle_event(call, id, event.data, *exchange, hard)) {
            answer = std::move(done);
            break;
          }
        }
        if (answer) {
          // The rest of the stream is of no interest, but reading its end keeps the connection.
          Loop::current()->spawn(drain(std::move(exchange)));
          co_return std::move(*answer);
        }
      }
      if (!decoder.last_id().empty()) last_id = decoder.last_id();
      if (last_id.empty()) co_return closed_error("The server ended the answer early");
      exchange.reset();
      if (steady_clock::now() + retry >= hard) co_return closed_error("The server ended the answer early");
      co_await sleep_for(retry);
      const std::shared_ptr<CancelSource> cancel = start_running(number);
      if (!alive() || (call.handle && call.handle->cancelled()))
        co_return Error(ErrorCode::cancelled, "cancelled", "The call was cancelled");
      auto again = co_await resume(last_id, *cancel, std::min(hard, steady_clock::now() + call.timeout));
      if (!again) co_return again.error();
      exchange = std::move(*again);
    }
  }

  Task<Result<std::unique_ptr<HttpExchange>>> resume(const std::string& last_id, CancelSource& cancel,
                                                     SteadyTime deadline) {
    ClientRequest request = base_request("GET");
    request.headers.emplace_back("Accept", "text/event-stream");
    request.headers.emplace_back("Last-Event-ID", last_id);
    request.deadline = deadline;
    auto sent = co_await options_.client->send(std::move(request), &cancel);
    if (!sent) co_return sent.error();
    if ((*sent)->status != 200 || !is_media_type((*sent)->headers, "text/event-stream"))
      co_return closed_error("The server ended the answer early");
    co_return std::move(*sent);
  }

  /// The answer when this was it.
  std::optional<UpstreamAnswer> handle_event(UpstreamCall& call, const std::string& id,
                                             const std::string& data, HttpExchange& exchange,
                                             SteadyTime hard) {
    if (raw::check(data, kJsonDepth) != raw::Fault::none) {
      log(LogLevel::warn, "an event that is not JSON was skipped");
      return std::nullopt;
    }
    auto read = read_envelope(data);
    auto* message = std::get_if<Envelope>(&read);
    if (message == nullptr) {
      log(LogLevel::warn, "an event that is not a message was skipped");
      return std::nullopt;
    }
    if (message->kind == Envelope::Kind::response) {
      if (message->id != id) {
        log(LogLevel::warn, "an answer to another request was skipped");
        return std::nullopt;
      }
      UpstreamAnswer out;
      out.is_error = !message->error.empty();
      out.payload = out.is_error ? message->error : message->result;
      return out;
    }
    if (message->method == "notifications/progress") {
      exchange.set_deadline(std::min(hard, steady_clock::now() + call.timeout));
      if (raw::find(message->params, "progressToken") != id) return std::nullopt;
    }
    if (call.observer)
      call.observer->on_server_message(
          {std::string(message->id), std::move(message->method), std::string(message->params)});
    else if (message->kind == Envelope::Kind::request)
      respond(std::string(message->id), "error", R"({"code":-32601,"message":"Not available here"})");
    return std::nullopt;
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

  /// The standing stream. A server that offers none answers 405 and is left alone.
  static Task<void> listen(std::shared_ptr<HttpUpstream> self) {
    std::string last_id;
    milliseconds retry = kDefaultRetry;
    while (self->alive()) {
      ClientRequest request = self->base_request("GET");
      request.headers.emplace_back("Accept", "text/event-stream");
      if (!last_id.empty()) request.headers.emplace_back("Last-Event-ID", last_id);
      auto cancel = std::make_shared<CancelSource>();
      {
        const std::lock_guard lock(self->mutex_);
        self->listener_cancel_ = cancel;
      }
      if (!self->alive()) co_return;
      auto sent = co_await self->options_.client->send(std::move(request), cancel.get());
      if (!self->alive()) co_return;
      if (sent) {
        HttpExchange& exchange = **sent;
        if (exchange.status == 404 && !self->session_id_.empty()) {
          self->lose(session_lost());
          co_return;
        }
        if (exchange.status != 200 || !is_media_type(exchange.headers, "text/event-stream")) co_return;
        SseDecoder decoder(self->options_.max_message);
        std::vector<SseDecoder::Event> events;
        for (;;) {
          auto piece = co_await exchange.read_some();
          if (!piece || piece->empty()) break;
          events.clear();
          if (!decoder.feed(*piece, events)) break;
          for (const SseDecoder::Event& event : events) {
            retry = event.retry ? std::clamp(milliseconds(*event.retry), milliseconds(10), kMaxRetry)
                                : kDefaultRetry;
            if (!event.data.empty()) self->standing_event(event.data);
          }
        }
        if (!decoder.last_id().empty()) last_id = decoder.last_id();
      }
      if (!self->alive()) co_return;
      co_await sleep_for(retry);
      retry = std::min(retry * 2, kMaxRetry);
    }
  }

  void standing_event(const std::string& data) {
    if (raw::check(data, kJsonDepth) != raw::Fault::none) return;
    auto read = read_envelope(data);
    auto* message = std::get_if<Envelope>(&read);
    if (message == nullptr || message->kind == Envelope::Kind::response) return;
    if (events_.on_message)
      events_.on_message(
          {std::string(message->id), std::move(message->method), std::string(message->params)});
  }

  void lose(const Error& error) {
    if (closed_.exchange(true)) return;
    stop_listening();
    if (events_.on_lost) events_.on_lost(error);
  }

  void log(LogLevel level, std::string text) const {
    if (events_.on_log) events_.on_log(level, std::move(text));
  }

  // Set once, before the connection is shared.
  Loop& home_;
  const HttpUpstreamOptions options_;
  const ClientFacts client_;
  const UpstreamEvents events_;
  ServerFacts facts_;
  std::string session_id_;
  bool initialized_ = false;

  std::atomic<bool> closed_{false};
  std::atomic<std::int64_t> next_id_{1};

  std::mutex mutex_;  // guards what follows
  std::shared_ptr<CancelSource> listener_cancel_;
  std::map<std::int64_t, std::shared_ptr<CancelSource>> running_;
};

}  // namespace

Task<Result<std::shared_ptr<Upstream>>> open_http_upstream(Loop& home, HttpUpstreamOptions options,
                                                           ClientFacts client, UpstreamEvents events,
                                                           SteadyTime deadline) {
  auto upstream =
      std::make_shared<HttpUpstream>(home, std::move(options), std::move(client), std::move(events));
  auto status = co_await upstream->initialize(deadline);
  if (!status) {
    upstream->close();
    co_return status.error();
  }
  co_return std::static_pointer_cast<Upstream>(upstream);
}

}  // namespace mcpgw::detail
