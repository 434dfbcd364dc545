// HTTP+SSE (MCP 2024-11-05, basic/transports) as a MessageChannel: a GET opens an event stream whose first
// event names the endpoint; what we say is POSTed there, all that the server says comes on the stream.
#include <atomic>
#include <mutex>

#include "runtime/waiter.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kMaxPosts = 1000;  // on their way at once
constexpr auto kPostTimeout = std::chrono::seconds(30);
constexpr auto kEndpointTimeout = std::chrono::seconds(10);
constexpr std::size_t kMaxEndpoint = 4096;

class SseChannel final : public PostingChannel, public std::enable_shared_from_this<SseChannel> {
 public:
  SseChannel(Loop& home, HttpUpstreamOptions options, std::function<void(LogLevel, std::string)> on_log)
      : home_(home),
        options_(std::move(options)),
        on_log_(std::move(on_log)),
        decoder_(options_.max_message) {}

  /// Up to and with the endpoint event.
  Task<Status> connect(SteadyTime deadline, HttpRefusal* refusal) {
    ClientRequest request;
    request.method = "GET";
    request.url = options_.url;
    request.headers = options_.headers;
    request.headers.emplace_back("Accept", "text/event-stream");
    request.deadline = deadline;
    std::string detail;
    auto sent = co_await options_.client->send(std::move(request), &stream_cancel_, &detail);
    if (!sent) {
      if (!detail.empty()) log(LogLevel::warn, detail);
      co_return sent.error();
    }
    stream_ = std::move(*sent);
    const bool is_stream = is_media_type(stream_->headers, "text/event-stream");
    if (refusal != nullptr && (stream_->status != 200 || !is_stream)) refusal->status = stream_->status;
    if (stream_->status != 200) {
      log(LogLevel::warn, "the server answered HTTP " + std::to_string(stream_->status));
      co_return http_status_error(stream_->status);
    }
    if (!is_stream) co_return protocol_error("The server opened no event stream");
    stream_->set_deadline(std::min(deadline, steady_clock::now() + kEndpointTimeout));
    while (!endpoint_) {
      auto more = co_await read_more();
      if (!more) co_return more.error();
      if (!*more) co_return protocol_error("The event stream ended before it named an endpoint");
      // Nothing can precede it that means anything: there is no way yet to ask the server.
      while (!endpoint_ && !events_.empty()) {
        const SseDecoder::Event event = std::move(events_.front());
        events_.erase(events_.begin());
        if (event.event != "endpoint") continue;
        if (auto status = take_endpoint(event.data); !status) co_return status.error();
      }
    }
    stream_->set_deadline(SteadyTime::max());
    co_return Status();
  }

  void start(Receiver receiver) override {
    {
      const std::lock_guard in_turn(delivery_);
      receiver_ = std::move(receiver);
    }
    home_.dispatch([self = shared_from_this()] { self->home_.spawn(read(self)); });
  }

  Status send(std::string message) override { return post(std::move(message), {}, nullptr, nullptr); }

  Status post(std::string message, HttpHeaders headers, std::function<void(Error)> on_failed,
              std::shared_ptr<CallObserver> call) override {
    if (closed_.load(std::memory_order_acquire)) return closed_error("The connection is closed");
    if (posts_.fetch_add(1, std::memory_order_acq_rel) >= kMaxPosts) {
      sent_one();
      return Error(ErrorCode::resource_exhausted, "upstream_timeout", "The server does not take messages");
    }
    home_.dispatch([self = shared_from_this(), message = std::move(message), headers = std::move(headers),
                    on_failed = std::move(on_failed), call = std::move(call)]() mutable {
      self->home_.spawn(
          carry(self, std::move(message), std::move(headers), std::move(on_failed), std::move(call)));
    });
    return {};
  }

  Task<void> flush(SteadyTime deadline) override {
    std::shared_ptr<AsyncEvent> idle;
    {
      const std::lock_guard lock(mutex_);
      if (posts_.load(std::memory_order_acquire) == 0) co_return;
      if (!idle_) idle_ = std::make_shared<AsyncEvent>();
      idle = idle_;
    }
    (void)co_await idle->wait(deadline);
  }

  void close() override {
    {
      const std::lock_guard in_turn(delivery_);
      if (closed_.exchange(true)) return;
    }
    stream_cancel_.cancel();
  }

 private:
  Status take_endpoint(std::string_view reference) {
    const auto url = reference.size() > kMaxEndpoint ? std::nullopt : resolve_url(options_.url, reference);
    if (!url) return protocol_error("The endpoint that the server names cannot be used");
    // What is sent there carries the credential.
    if (url->origin() != options_.url.origin())
      return protocol_error("The endpoint that the server names is not of its own origin");
    endpoint_ = *url;
    return {};
  }

  /// False at the stream's end.
  Task<Result<bool>> read_more() {
    auto piece = co_await stream_->read_some();
    if (!piece) co_return piece.error();
    if (piece->empty()) co_return false;
    if (!decoder_.feed(*piece, events_))
      co_return Error(ErrorCode::resource_exhausted, "response_too_large", "An event exceeds the size limit");
    co_return true;
  }

  static Task<void> read(std::shared_ptr<SseChannel> self) {
    for (;;) {
      std::vector<SseDecoder::Event> events;
      events.swap(self->events_);
      for (SseDecoder::Event& event : events) {
        if (event.data.empty()) continue;
        if (event.event == "message")
          self->deliver(std::move(event.data));
        else if (event.event == "endpoint")
          self->log(LogLevel::warn, "a second endpoint was not taken");
      }
      auto more = co_await self->read_more();
      if (more && *more) continue;
      self->stream_.reset();
      self->end(more ? closed_error("The server ended its event stream") : more.error());
      co_return;
    }
  }

  void deliver(std::string message) {
    const std::lock_guard in_turn(delivery_);
    if (!closed_ && receiver_.on_message) receiver_.on_message(std::move(message));
  }

  void end(Error reason) {
    if (reason.code == ErrorCode::cancelled) reason = closed_error("The connection was closed");
    const std::lock_guard in_turn(delivery_);
    if (closed_.exchange(true)) return;
    if (receiver_.on_closed) receiver_.on_closed(std::move(reason));
  }

  static Task<void> carry(std::shared_ptr<SseChannel> self, std::string message, HttpHeaders headers,
                          std::function<void(Error)> on_failed, std::shared_ptr<CallObserver> call) {
    ClientRequest request;
    request.method = "POST";
    request.url = *self->endpoint_;
    request.headers = self->options_.headers;
    request.headers.emplace_back("Content-Type", "application/json");
    for (auto& header : headers)
      if (find_header(request.headers, header.first) == nullptr) request.headers.push_back(std::move(header));
    request.body = std::move(message);
    request.deadline = steady_clock::now() + kPostTimeout;
    std::string detail;
    auto sent = co_await self->options_.client->send(std::move(request), nullptr, &detail);
    self->sent_one();
    if (!sent) {
      if (!detail.empty()) self->log(LogLevel::warn, detail, call.get());
      if (on_failed) on_failed(sent.error());
      co_return;
    }
    if (const int status = (*sent)->status; status < 200 || status >= 300) {
      self->log(LogLevel::warn, "the server answered HTTP " + std::to_string(status) + " to a message",
                call.get());
      // It took no message of this session: it does not know it any more.
      const bool lost = status == 400 || status == 404 || status == 410;
      if (on_failed) on_failed(lost ? session_lost_error() : http_status_error(status));
      if (lost) self->stream_cancel_.cancel();
    }
    (void)co_await (*sent)->read_all(64 * 1024);
  }

  void sent_one() {
    std::shared_ptr<AsyncEvent> idle;
    {
      const std::lock_guard lock(mutex_);
      if (posts_.fetch_sub(1, std::memory_order_acq_rel) == 1) idle.swap(idle_);
    }
    if (idle) idle->set();
  }

  void log(LogLevel level, std::string text, CallObserver* call = nullptr) const {
    if (call != nullptr && call->on_log(level, text)) return;
    if (on_log_) on_log_(level, std::move(text));
  }

  Loop& home_;
  const HttpUpstreamOptions options_;
  const std::function<void(LogLevel, std::string)> on_log_;
  CancelSource stream_cancel_;
  std::optional<Url> endpoint_;  // set once, before the channel is shared

  // Of the one coroutine that reads.
  std::unique_ptr<HttpExchange> stream_;
  SseDecoder decoder_;
  std::vector<SseDecoder::Event> events_;

  std::atomic<std::size_t> posts_{0};
  std::atomic<bool> closed_{false};
  /// One call of the receiver at a time, which may itself send and close.
  std::recursive_mutex delivery_;
  Receiver receiver_;  // guarded by delivery_

  std::mutex mutex_;  // guards what follows
  std::shared_ptr<AsyncEvent> idle_;
};

}  // namespace

Task<Result<std::shared_ptr<PostingChannel>>> open_sse_channel(
    Loop& home, HttpUpstreamOptions options, std::function<void(LogLevel, std::string)> on_log,
    SteadyTime deadline, HttpRefusal* refusal) {
  auto channel = std::make_shared<SseChannel>(home, std::move(options), std::move(on_log));
  auto status = co_await channel->connect(deadline, refusal);
  if (!status) co_return status.error();
  co_return std::static_pointer_cast<PostingChannel>(channel);
}

Task<Result<std::shared_ptr<Upstream>>> open_sse_upstream(Loop& home, HttpUpstreamOptions options,
                                                          ClientFacts client, UpstreamEvents events,
                                                          SteadyTime deadline, HttpRefusal* refusal) {
  auto channel = co_await open_sse_channel(home, std::move(options), events.on_log, deadline, refusal);
  if (!channel) co_return channel.error();
  co_return co_await open_posting_upstream(std::move(*channel), std::move(client), std::move(events),
                                           deadline);
}

}  // namespace mcpgw::detail
