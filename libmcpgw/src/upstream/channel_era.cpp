// Which era a server at the other end of a pipe is of. Both are tried on the same pipe: starting a process
// again would cost more, and lose what it has said.
#include <algorithm>
#include <mutex>

#include "json/raw.hpp"
#include "protocol/modern.hpp"
#include "upstream/modern_upstream.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// A channel that is handed from one listener to the next, and survives their closing it until it is settled
/// whose it is.
class HandedChannel final : public MessageChannel, public std::enable_shared_from_this<HandedChannel> {
 public:
  explicit HandedChannel(std::shared_ptr<MessageChannel> channel) : channel_(std::move(channel)) {}

  void start(Receiver receiver) override {
    bool first;
    std::optional<Error> end;
    std::function<void(Error)> on_closed;
    {
      const std::lock_guard lock(mutex_);
      receiver_ = std::make_shared<const Receiver>(std::move(receiver));
      first = !std::exchange(started_, true);
      end = end_;
      on_closed = receiver_->on_closed;
    }
    if (end) return on_closed(*end);
    if (!first) return;
    const std::weak_ptr<HandedChannel> weak = weak_from_this();
    channel_->start({[weak](std::string message) {
                       if (const auto self = weak.lock()) self->message(std::move(message));
                     },
                     [weak](Error reason) {
                       if (const auto self = weak.lock()) self->closed(std::move(reason));
                     },
                     [weak](std::string head, std::string tail) {
                       const auto self = weak.lock();
                       const auto now = self ? self->receiver() : nullptr;
                       if (now && now->on_dropped) now->on_dropped(std::move(head), std::move(tail));
                     }});
  }

  Status send(std::string message) override { return channel_->send(std::move(message)); }

  void close() override {
    {
      const std::lock_guard lock(mutex_);
      receiver_ = nullptr;
      if (!settled_) return;
    }
    channel_->close();
  }

  /// From now on closing is meant.
  void settle() {
    const std::lock_guard lock(mutex_);
    settled_ = true;
    late_.clear();
  }
  bool ended() const {
    const std::lock_guard lock(mutex_);
    return end_.has_value();
  }
  /// The question was answered as a server of 2026-07-28 does, after nobody waited for it any more.
  bool answered_late() const {
    const std::lock_guard lock(mutex_);
    const auto answer = answer_to(late_, kProbeId);
    if (!answer || answer->is_error) return false;
    const auto versions = raw::elements(raw::find(answer->payload, "supportedVersions"));
    return std::any_of(versions.begin(), versions.end(),
                       [](std::string_view one) { return raw::string_value(one) == kModernVersion; });
  }

 private:
  std::shared_ptr<const Receiver> receiver() const {
    const std::lock_guard lock(mutex_);
    return receiver_;
  }

  void message(std::string text) {
    std::shared_ptr<const Receiver> now;
    {
      const std::lock_guard lock(mutex_);
      if (!settled_ && late_.empty() && text.find(kProbeId) != std::string::npos &&
          raw::check(text, 256) == raw::Fault::none)
        late_ = text;
      now = receiver_;
    }
    if (now) now->on_message(std::move(text));
  }

  void closed(Error reason) {
    std::shared_ptr<const Receiver> now;
    {
      const std::lock_guard lock(mutex_);
      end_ = reason;
      now = receiver_;
    }
    if (now) now->on_closed(std::move(reason));
  }

  const std::shared_ptr<MessageChannel> channel_;
  mutable std::mutex mutex_;  // guards what follows
  std::shared_ptr<const Receiver> receiver_;
  std::string late_;
  std::optional<Error> end_;
  bool started_ = false;
  bool settled_ = false;
};

}  // namespace

Task<Result<std::shared_ptr<Upstream>>> open_any_channel_upstream(Loop& home,
                                                                  std::shared_ptr<MessageChannel> channel,
                                                                  ClientFacts client, UpstreamEvents events,
                                                                  SteadyTime deadline, EraFinding& finding) {
  using Verdict = EraFinding::Verdict;
  const auto pipe = std::make_shared<HandedChannel>(std::move(channel));
  auto upstream = co_await open_modern_channel_upstream(
      home, pipe, client, events, std::min(deadline, steady_clock::now() + kPipePatience), finding);
  if (!upstream && finding.verdict != Verdict::modern) {
    finding.ended = pipe->ended();
    if (!finding.ended) {
      auto older = co_await open_channel_upstream(pipe, client, events, deadline);
      if (older) {
        // One that knows both eras and was only slow will be asked again.
        finding.verdict = pipe->answered_late() ? Verdict::unknown : Verdict::legacy;
        upstream = std::move(older);
      } else if (!pipe->ended() && older.error().reason == "upstream_protocol_error") {
        // It refuses the handshake: it was only slow to start, and its answer is on the way.
        EraFinding again;
        upstream = co_await open_modern_channel_upstream(
            home, pipe, client, events, std::min(deadline, steady_clock::now() + kEraPatience), again);
        if (upstream || again.verdict == Verdict::modern)
          finding.verdict = again.verdict;
        else
          upstream = older.error();
      } else {
        upstream = older.error();
      }
    }
  }
  pipe->settle();
  if (!upstream) pipe->close();
  co_return upstream;
}

}  // namespace mcpgw::detail
