// Requests to a server of MCP 2026-07-28 over a pipe: one message a line, and everything shares the line.
// What belongs to which request is told by ids: of an answer, of a progress token, of a subscription.
#include <algorithm>
#include <atomic>

#include "json/raw.hpp"
#include "protocol/modern.hpp"
#include "runtime/waiter.hpp"
#include "upstream/log_limiter.hpp"
#include "upstream/modern_wire.hpp"
#include "upstream/pending_table.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kJsonDepth = 256;

class ChannelWire final : public ModernWire, public std::enable_shared_from_this<ChannelWire> {
 public:
  ChannelWire(std::shared_ptr<MessageChannel> channel, std::function<void(Error)> on_lost,
              std::function<void(LogLevel, std::string)> on_log)
      : channel_(std::move(channel)), on_lost_(std::move(on_lost)), log_(std::move(on_log)) {}

  void start() override {
    channel_->start({[weak = weak_from_this()](const std::string& message) {
                       if (const auto self = weak.lock()) self->receive(message);
                     },
                     [weak = weak_from_this()](Error reason) {
                       if (const auto self = weak.lock()) self->lose(std::move(reason));
                     },
                     [weak = weak_from_this()](const std::string& head, const std::string& tail) {
                       if (const auto self = weak.lock()) self->pending_.drop(head, tail);
                     }});
  }

  std::string_view transport() const override { return "stdio"; }

  Task<Result<UpstreamAnswer>> exchange(WireRequest request, int* status) override {
    if (status != nullptr) *status = 0;
    auto pending = std::make_shared<Pending>(*Loop::current());
    const std::string id = request.id;
    const bool first = request.method == "server/discover";
    pending->client = request.client;
    pending->on_notification = std::move(request.on_notification);
    // Gone before it could be told: nothing has been acted on.
    if (auto lost = pending_.add(id, pending)) co_return first ? *lost : session_lost_error();
    request.handle->on_cancel([self = shared_from_this(), id, pending](const std::string& reason) {
      pending->waiter->set(cancelled_error());
      self->tell_cancelled(id, reason);
    });
    Result<UpstreamAnswer> out = cancelled_error();
    if (auto sent = send(make_request(id, request.method, request.params)); !sent) {
      if (sent.error().code == ErrorCode::resource_exhausted) {
        out = Error(ErrorCode::deadline_exceeded, "upstream_timeout", "The server does not read its input");
      } else {
        out = first ? sent.error() : session_lost_error();
        lose(sent.error());
      }
    } else if (auto answer = co_await pending->waiter->wait(std::min(request.deadline, never()))) {
      out = std::move(*answer);
    } else {
      // Whether the server is of this era is still open then: it may not know the notification, and its
      // answer is of use whenever it comes.
      if (!first) tell_cancelled(id, "the time limit was reached");
      out = Error(ErrorCode::deadline_exceeded, "upstream_timeout", "The server did not answer in time");
    }
    request.handle->on_cancel(nullptr);
    pending_.remove(id);
    co_return out;
  }

  void close() override {
    if (closed_.exchange(true)) return;
    channel_->close();
    pending_.lose(closed_error("The connection was closed"));
  }

 private:
  struct Pending : PendingRequest {
    using PendingRequest::PendingRequest;
    const void* client = nullptr;
    std::function<std::optional<SteadyTime>(const Envelope&)> on_notification;
  };

  /// As late as a timer can be trusted with.
  static SteadyTime never() { return steady_clock::now() + std::chrono::hours(24 * 365); }

  static Error cancelled_error() { return {ErrorCode::cancelled, "cancelled", "The call was cancelled"}; }

  Status send(std::string text) {
    make_single_line(text);
    return channel_->send(std::move(text));
  }

  void tell_cancelled(const std::string& id, const std::string& reason) {
    if (auto sent = send(make_notification("notifications/cancelled", cancelled_params(id, reason))); !sent)
      log(LogLevel::debug, sent.error().message);
  }

  void receive(const std::string& text) {
    if (raw::check(text, kJsonDepth) != raw::Fault::none) {
      log(LogLevel::warn, "a line that is not JSON was skipped");
      return;
    }
    auto read = read_envelope(text);
    const auto* message = std::get_if<Envelope>(&read);
    if (message == nullptr) {
      log(LogLevel::warn, "a line that is not a message was skipped");
      return;
    }
    if (message->kind == Envelope::Kind::response) {
      const auto pending = pending_.find(message->id);
      if (!pending) return log(LogLevel::debug, "an answer to no running request was skipped");
      pending->waiter->set(answer_of(*message));
      return;
    }
    if (message->kind == Envelope::Kind::request)
      return log(LogLevel::warn, "a request was skipped: servers of this revision make none");
    if (const auto pending = concerned(*message)) {
      if (!pending->on_notification) return;
      if (const auto deadline = pending->on_notification(*message)) pending->waiter->set_deadline(*deadline);
    }
  }

  /// The request that a notification belongs to.
  std::shared_ptr<Pending> concerned(const Envelope& message) {
    if (message.method == "notifications/progress")
      return pending_.find(raw::find(message.params, "progressToken"));
    if (const auto id = raw::find(raw::find(message.params, "_meta"), meta::kSubscription); !id.empty())
      return pending_.find(id);
    if (message.method != "notifications/message") return nullptr;
    // It bears no name. When several clients' requests run it is nobody's: another one must not see it.
    std::shared_ptr<Pending> only;
    bool ambiguous = false;
    pending_.for_each([&](const std::shared_ptr<Pending>& pending) {
      if (pending->client == nullptr) return;
      ambiguous |= only && only->client != pending->client;
      only = pending;
    });
    return ambiguous ? nullptr : only;
  }

  void lose(Error reason) {
    log_.flush();
    pending_.lose(reason);
    if (!closed_.exchange(true) && on_lost_) on_lost_(std::move(reason));
  }

  void log(LogLevel level, std::string text) const { log_.log(level, std::move(text)); }

  const std::shared_ptr<MessageChannel> channel_;
  const std::function<void(Error)> on_lost_;
  mutable LogLimiter log_;
  std::atomic<bool> closed_{false};
  PendingTable<Pending> pending_;
};

}  // namespace

std::shared_ptr<ModernWire> make_channel_wire(std::shared_ptr<MessageChannel> channel,
                                              std::function<void(Error)> on_lost,
                                              std::function<void(LogLevel, std::string)> on_log) {
  return std::make_shared<ChannelWire>(std::move(channel), std::move(on_lost), std::move(on_log));
}

}  // namespace mcpgw::detail
