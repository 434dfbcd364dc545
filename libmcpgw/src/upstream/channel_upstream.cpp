// An MCP server at the other end of a MessageChannel: a child process, a server inside the host, or one that
// speaks HTTP+SSE.
#include <atomic>

#include "json/raw.hpp"
#include "runtime/waiter.hpp"
#include "upstream/log_limiter.hpp"
#include "upstream/pending_table.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kJsonDepth = 256;

class ChannelUpstream final : public Upstream, public std::enable_shared_from_this<ChannelUpstream> {
 public:
  /// `posting` is the channel itself when messages are requests of their own.
  ChannelUpstream(std::shared_ptr<MessageChannel> channel, PostingChannel* posting, ClientFacts client,
                  UpstreamEvents events)
      : channel_(std::move(channel)),
        posting_(posting),
        client_(std::move(client)),
        events_(std::move(events)),
        log_(events_.on_log) {}

  const ServerFacts& facts() const override { return facts_; }
  bool alive() const override { return !closed_.load(std::memory_order_acquire); }
  std::string_view transport() const override { return posting_ != nullptr ? "sse" : "stdio"; }

  Task<Status> initialize(SteadyTime deadline) {
    channel_->start({[weak = weak_from_this()](std::string message) {
                       if (auto self = weak.lock()) self->receive(std::move(message));
                     },
                     [weak = weak_from_this()](Error reason) {
                       if (auto self = weak.lock()) self->lose(std::move(reason));
                     },
                     [weak = weak_from_this()](const std::string& head, const std::string& tail) {
                       // The connection goes on.
                       if (auto self = weak.lock()) self->pending_.drop(head, tail);
                     }});
    UpstreamCall call;
    call.method = "initialize";
    call.params = initialize_params(client_);
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
    call.timeout = call.max_timeout = std::max(left, milliseconds(1));
    auto answer = co_await request(std::move(call));
    if (!answer) co_return answer.error();
    auto facts = read_initialize_result(*answer);
    if (!facts) co_return facts.error();
    facts_ = std::move(*facts);
    if (posting_ != nullptr) version_header_.emplace_back("MCP-Protocol-Version", facts_.protocol_version);
    notify("notifications/initialized", {});
    if (posting_ != nullptr) co_await posting_->flush(deadline);  // before anything that may overtake it
    co_return Status();
  }

  Task<Result<UpstreamAnswer>> request(UpstreamCall call) override {
    const auto started = steady_clock::now();
    const SteadyTime hard = started + call.max_timeout;
    auto pending = std::make_shared<Pending>(*Loop::current());
    pending->observer = call.observer;
    pending->timeout = call.timeout;
    pending->hard = hard;
    const std::string id = std::to_string(next_id_.fetch_add(1, std::memory_order_relaxed));
    // Gone before it could be told: nothing has been acted on.
    if (auto lost = pending_.add(id, pending)) co_return initialized() ? session_lost_error() : *lost;
    if (!alive()) {
      pending_.remove(id);
      co_return closed_error("The connection is closed");
    }
    if (call.handle) {
      call.handle->on_cancel([self = shared_from_this(), id, pending](std::string reason) {
        self->notify("notifications/cancelled", cancelled_params(id, reason));
        pending->waiter->set(Error(ErrorCode::cancelled, "cancelled", "The call was cancelled"));
      });
    }
    const std::string params =
        !call.wants_progress && (!call.may_have_meta || raw::find(call.params, "_meta").empty())
            ? std::move(call.params)
            : with_progress_token(call.params,
                                  call.wants_progress ? std::string_view(id) : std::string_view());
    if (auto sent = send(make_request(id, call.method, params), std::move(call.headers), pending); !sent) {
      if (call.handle) call.handle->on_cancel(nullptr);
      pending_.remove(id);
      if (sent.error().code == ErrorCode::resource_exhausted)
        co_return Error(ErrorCode::deadline_exceeded, "upstream_timeout",
                        "The server does not read its input");
      if (!initialized()) co_return sent.error();
      lose(sent.error());
      co_return session_lost_error();
    }
    auto result = co_await pending->waiter->wait(std::min(hard, started + call.timeout));
    if (call.handle) call.handle->on_cancel(nullptr);
    pending_.remove(id);
    if (!result) {
      notify("notifications/cancelled", cancelled_params(id, "the time limit was reached"));
      co_return Error(ErrorCode::deadline_exceeded, "upstream_timeout", "The server did not answer in time");
    }
    if (*result && call.wants_progress) (*result)->progress_token = id;
    if (!*result && result->error().reason == "session_lost") {
      lose(result->error());
      channel_->close();
    }
    co_return std::move(*result);
  }

  void notify(std::string method, std::string params) override { write(make_notification(method, params)); }

  void respond(std::string id, std::string_view member, std::string payload) override {
    write(member == "result" ? make_result(id, payload) : make_raw_error(id, payload));
  }

  void close() override {
    if (closed_.exchange(true)) return;
    channel_->close();
    pending_.lose(closed_error("The connection was closed"));
  }

 private:
  struct Pending : PendingRequest {
    using PendingRequest::PendingRequest;
    std::shared_ptr<CallObserver> observer;
    milliseconds timeout{0};
    SteadyTime hard;
  };

  /// Of a post, which may end long after its call has been answered: then it is not that call's any more.
  struct WhileWaiting final : CallObserver {
    explicit WhileWaiting(std::weak_ptr<Pending> of) : pending(std::move(of)) {}
    void on_server_message(ServerMessage) override {}
    bool on_log(LogLevel level, const std::string& text) override {
      const auto alive = pending.lock();
      return alive && alive->observer && alive->observer->on_log(level, text);
    }
    const std::weak_ptr<Pending> pending;
  };

  bool initialized() const { return !facts_.protocol_version.empty(); }

  void write(std::string text) {
    if (auto sent = send(std::move(text), {}, nullptr); !sent) log(LogLevel::debug, sent.error().message);
  }

  Status send(std::string text, HttpHeaders headers, const std::shared_ptr<Pending>& pending) {
    make_single_line(text);
    if (posting_ == nullptr) return channel_->send(std::move(text));
    headers.insert(headers.begin(), version_header_.begin(), version_header_.end());
    std::function<void(Error)> on_failed;
    if (pending)
      on_failed = [waiter = pending->waiter](Error error) {
        // A message that was refused was not waited for: whoever made the call is told why.
        waiter->set(std::move(error));
      };
    return posting_->post(std::move(text), std::move(headers), std::move(on_failed),
                          pending ? std::make_shared<WhileWaiting>(pending) : nullptr);
  }

  /// However the server writes the number.
  std::shared_ptr<Pending> find(std::string_view raw_id) {
    const auto number = raw::int_value(raw_id);
    return number ? pending_.find(std::to_string(*number)) : nullptr;
  }

  void receive(std::string text) {
    if (raw::check(text, kJsonDepth) != raw::Fault::none) {
      log(LogLevel::warn, "a line that is not JSON was skipped");
      return;
    }
    const auto first = text.find_first_not_of(" \t");
    if (first != std::string::npos && text[first] == '[') {  // a batch: 2025-03-26 permits it
      for (std::string_view element : raw::elements(text)) receive_one(element);
      return;
    }
    receive_one(text);
  }

  void receive_one(std::string_view text) {
    auto read = read_envelope(text);
    auto* message = std::get_if<Envelope>(&read);
    if (message == nullptr) {
      log(LogLevel::warn, "a line that is not a message was skipped");
      return;
    }
    if (message->kind == Envelope::Kind::response) {
      if (auto pending = find(message->id)) {
        pending->waiter->set(answer_of(*message));
      } else {
        log(LogLevel::debug, "an answer to no running request was skipped");
      }
      return;
    }
    if (message->method == "ping" && message->kind == Envelope::Kind::request) {
      respond(std::string(message->id), "result", "{}");
      return;
    }
    ServerMessage out{std::string(message->id), std::move(message->method), std::string(message->params)};
    if (out.method == "notifications/progress") {
      if (auto pending = find(raw::find(out.params, "progressToken"))) {
        pending->waiter->set_deadline(std::min(pending->hard, steady_clock::now() + pending->timeout));
        if (pending->observer) pending->observer->on_server_message(std::move(out));
      } else if (events_.on_message) {
        events_.on_message(std::move(out));  // of a task, whose call was answered long ago
      }
      return;
    }
    // On one pipe for everybody only the running calls tell whose doing this is. When they are several
    // clients' it is nobody's: another user's session must not see it.
    std::shared_ptr<CallObserver> only;
    if (!out.id.empty() || out.method == "notifications/message") {
      pending_.for_each([&](const std::shared_ptr<Pending>& pending) {
        if (!pending->observer) return;  // a list that the gateway asks for itself causes nothing
        out.ambiguous |= only && only->client() != pending->observer->client();
        only = pending->observer;
      });
    }
    if (only && !out.ambiguous) {
      only->on_server_message(std::move(out));
    } else if (events_.on_message) {
      events_.on_message(std::move(out));
    } else if (!out.id.empty()) {
      respond(out.id, "error", R"({"code":-32601,"message":"Not available here"})");
    }
  }

  void lose(Error reason) {
    pending_.refuse(reason);
    const bool first = !closed_.exchange(true);
    log_.flush();
    pending_.lose(reason);
    if (first && events_.on_lost) events_.on_lost(std::move(reason));
  }

  void log(LogLevel level, std::string text) const { log_.log(level, std::move(text)); }

  const std::shared_ptr<MessageChannel> channel_;
  PostingChannel* const posting_;  // null when the channel is a pipe
  const ClientFacts client_;
  const UpstreamEvents events_;
  mutable LogLimiter log_;
  // Set once, before the connection is shared.
  ServerFacts facts_;
  HttpHeaders version_header_;
  std::atomic<bool> closed_{false};
  std::atomic<std::int64_t> next_id_{1};
  PendingTable<Pending> pending_;
};

Task<Result<std::shared_ptr<Upstream>>> open(std::shared_ptr<ChannelUpstream> upstream, SteadyTime deadline) {
  auto status = co_await upstream->initialize(deadline);
  if (!status) {
    upstream->close();
    co_return status.error();
  }
  co_return std::static_pointer_cast<Upstream>(upstream);
}

}  // namespace

Task<Result<std::shared_ptr<Upstream>>> open_channel_upstream(std::shared_ptr<MessageChannel> channel,
                                                              ClientFacts client, UpstreamEvents events,
                                                              SteadyTime deadline) {
  return open(
      std::make_shared<ChannelUpstream>(std::move(channel), nullptr, std::move(client), std::move(events)),
      deadline);
}

Task<Result<std::shared_ptr<Upstream>>> open_posting_upstream(std::shared_ptr<PostingChannel> channel,
                                                              ClientFacts client, UpstreamEvents events,
                                                              SteadyTime deadline) {
  PostingChannel* const posting = channel.get();
  return open(
      std::make_shared<ChannelUpstream>(std::move(channel), posting, std::move(client), std::move(events)),
      deadline);
}

}  // namespace mcpgw::detail
