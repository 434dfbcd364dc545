// Requests to a server of MCP 2026-07-28 over a pipe: one message a line, and everything shares the line.
// What belongs to which request is told by ids: of an answer, of a progress token, of a subscription.
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

#include "json/raw.hpp"
#include "protocol/modern.hpp"
#include "runtime/waiter.hpp"
#include "upstream/modern_wire.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kJsonDepth = 256;

class ChannelWire final : public ModernWire, public std::enable_shared_from_this<ChannelWire> {
 public:
  ChannelWire(std::shared_ptr<MessageChannel> channel, std::function<void(Error)> on_lost,
              std::function<void(LogLevel, std::string)> on_log)
      : channel_(std::move(channel)), on_lost_(std::move(on_lost)), on_log_(std::move(on_log)) {}

  void start() override {
    channel_->start({[weak = weak_from_this()](const std::string& message) {
                       if (const auto self = weak.lock()) self->receive(message);
                     },
                     [weak = weak_from_this()](Error reason) {
                       if (const auto self = weak.lock()) self->lose(std::move(reason));
                     },
                     [weak = weak_from_this()](const std::string& head, const std::string& tail) {
                       if (const auto self = weak.lock()) self->dropped(head, tail);
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
    {
      const std::lock_guard lock(mutex_);
      // Gone before it could be told: nothing has been acted on.
      if (lost_) co_return first ? *lost_ : session_lost_error();
      pending_[id] = pending;
    }
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
    const std::lock_guard lock(mutex_);
    pending_.erase(id);
    co_return out;
  }

  void close() override {
    if (closed_.exchange(true)) return;
    channel_->close();
    fail_all(closed_error("The connection was closed"));
  }

 private:
  struct Pending {
    explicit Pending(Loop& loop) : waiter(std::make_shared<Waiter<Result<UpstreamAnswer>>>(loop)) {}
    const std::shared_ptr<Waiter<Result<UpstreamAnswer>>> waiter;
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

  std::shared_ptr<Pending> find(std::string_view raw_id) {
    const std::lock_guard lock(mutex_);
    const auto it = pending_.find(std::string(raw_id));
    return it == pending_.end() ? nullptr : it->second;
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
      const auto pending = find(message->id);
      if (!pending) return log(LogLevel::debug, "an answer to no running request was skipped");
      UpstreamAnswer answer;
      answer.is_error = !message->error.empty();
      answer.payload = answer.is_error ? message->error : message->result;
      pending->waiter->set(std::move(answer));
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
    if (message.method == "notifications/progress") return find(raw::find(message.params, "progressToken"));
    if (const auto id = raw::find(raw::find(message.params, "_meta"), meta::kSubscription); !id.empty())
      return find(id);
    if (message.method != "notifications/message") return nullptr;
    // It bears no name. When several clients' requests run it is nobody's: another one must not see it.
    std::shared_ptr<Pending> only;
    const std::lock_guard lock(mutex_);
    for (const auto& [id, pending] : pending_) {
      if (pending->client == nullptr) continue;
      if (only && only->client != pending->client) return nullptr;
      only = pending;
    }
    return only;
  }

  void dropped(const std::string& head, const std::string& tail) {
    const auto id = dropped_answer_id(head, tail);
    const Error error(ErrorCode::resource_exhausted, "response_too_large",
                      "An answer exceeds the size limit");
    std::vector<std::shared_ptr<Pending>> failed;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [known, pending] : pending_)
        if (!id || known == std::to_string(*id)) failed.push_back(pending);
    }
    for (const auto& pending : failed) pending->waiter->set(error);
  }

  void lose(Error reason) {
    fail_all(reason);
    if (!closed_.exchange(true) && on_lost_) on_lost_(std::move(reason));
  }

  void fail_all(const Error& reason) {
    std::map<std::string, std::shared_ptr<Pending>> pending;
    {
      const std::lock_guard lock(mutex_);
      if (!lost_) lost_ = reason;
      pending.swap(pending_);
    }
    for (const auto& [id, one] : pending) one->waiter->set(reason);
  }

  void log(LogLevel level, std::string text) const {
    if (on_log_) on_log_(level, std::move(text));
  }

  const std::shared_ptr<MessageChannel> channel_;
  const std::function<void(Error)> on_lost_;
  const std::function<void(LogLevel, std::string)> on_log_;
  std::atomic<bool> closed_{false};

  std::mutex mutex_;                                         // guards what follows
  std::map<std::string, std::shared_ptr<Pending>> pending_;  // by raw id
  std::optional<Error> lost_;
};

}  // namespace

std::shared_ptr<ModernWire> make_channel_wire(std::shared_ptr<MessageChannel> channel,
                                              std::function<void(Error)> on_lost,
                                              std::function<void(LogLevel, std::string)> on_log) {
  return std::make_shared<ChannelWire>(std::move(channel), std::move(on_lost), std::move(on_log));
}

}  // namespace mcpgw::detail
