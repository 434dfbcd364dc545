// MCP servers that the host keeps: a MessageChannel whose other end are callbacks.
#include "upstream.hpp"

#include <atomic>

#include "storage/model_text.hpp"

namespace mcpgw::capi {

namespace {

using UpstreamHost = Host<mcpgw_upstream_callbacks>;

Error closed() { return {ErrorCode::unavailable, "upstream_closed", "The connection is over"}; }

}  // namespace

/// Both ends of one connection. The host's callbacks run on a strand; what it delivers runs on its own
/// thread.
class HostChannel final : public MessageChannel, public std::enable_shared_from_this<HostChannel> {
 public:
  HostChannel(std::shared_ptr<UpstreamHost> host, std::shared_ptr<CallbackThreads> threads)
      : host_(std::move(host)), out_(std::make_shared<Strand>(std::move(threads))) {}
  ~HostChannel() override { over(); }

  /// The host has said yes; from here on `connection` is given back by the callback close.
  void open(void* connection) {
    const std::lock_guard lock(mutex_);
    connection_ = connection;
    open_ = true;
  }

  // --- the gateway's side
  // ---------------------------------------------------------------------------------------
  void start(Receiver receiver) override {
    const std::lock_guard in_turn(delivery_);
    receiver_ = std::move(receiver);
    started_ = true;
    for (std::string& message : early_)
      if (receiver_.on_message) receiver_.on_message(std::move(message));
    early_.clear();
    if (ended_early_ && receiver_.on_closed) receiver_.on_closed(closed());
  }

  Status send(std::string message) override {
    {
      const std::lock_guard lock(mutex_);
      if (!open_) return closed();
      if (queued_ + message.size() > kMaxQueued && queued_ != 0)
        return Error(ErrorCode::resource_exhausted, "upstream_busy", "The server does not take its messages");
      queued_ += message.size();
    }
    out_->post([self = shared_from_this(), text = std::move(message)] {
      void* connection = nullptr;
      {
        const std::lock_guard lock(self->mutex_);
        self->queued_ -= text.size();
        if (!self->open_) return;
        connection = self->connection_;
      }
      (*self->host_)->send(connection, text.data(), text.size());
    });
    return {};
  }

  void close() override {
    {
      const std::lock_guard in_turn(delivery_);
      receiver_ = {};
      shut_ = true;
    }
    over();
  }

  // --- the host's side
  // ------------------------------------------------------------------------------------------
  Status deliver(std::string message) {
    const std::lock_guard in_turn(delivery_);
    if (shut_) return closed();
    if (!started_) {
      if (early_bytes_ + message.size() > kMaxQueued)
        return Error(ErrorCode::resource_exhausted, "gateway_busy",
                     "Too much came before the connection was taken up");
      early_bytes_ += message.size();
      early_.push_back(std::move(message));
    } else if (receiver_.on_message) {
      receiver_.on_message(std::move(message));
    }
    return {};
  }

  void end() {
    {
      const std::lock_guard in_turn(delivery_);
      if (shut_) return;
      shut_ = true;
      ended_early_ = !started_;
      if (started_ && receiver_.on_closed) receiver_.on_closed(closed());
      receiver_ = {};
    }
    over();
  }

 private:
  static constexpr std::size_t kMaxQueued = 32 * 1024 * 1024;

  /// Tells the host, once, after the callbacks that are under way.
  void over() {
    void* connection = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (!open_) return;
      open_ = false;
      connection = connection_;
    }
    out_->post([host = host_, connection] { (*host)->close(connection); });
  }

  const std::shared_ptr<UpstreamHost> host_;
  const std::shared_ptr<Strand> out_;

  std::mutex mutex_;  // protects the next three
  void* connection_ = nullptr;
  bool open_ = false;
  std::size_t queued_ = 0;

  // Held while the receiver runs, which may close the channel: hence recursive.
  std::recursive_mutex delivery_;  // protects the members below
  Receiver receiver_;
  std::vector<std::string> early_;
  std::size_t early_bytes_ = 0;
  bool started_ = false, shut_ = false, ended_early_ = false;
};

}  // namespace mcpgw::capi

struct mcpgw_channel {
  std::shared_ptr<mcpgw::capi::HostChannel> channel;
};

namespace mcpgw::capi {

namespace {

std::string parameters_json(const UpstreamParameters& parameters) {
  const Target& target = parameters.target;
  Json out{{"principal_user_id", parameters.principal_user_id}, {"credential", parameters.credential}};
  out["target"] = {{"id", target.id},     {"name", target.name},
                   {"slug", target.slug}, {"transport_type", detail::to_text(target.transport_type)},
                   {"url", target.url},   {"command", target.command},
                   {"args", target.args}};
  out["env"] = parameters.env;
  return detail::dump_json(out);
}

}  // namespace

ConnectUpstream make_connect(const mcpgw_upstream_callbacks& callbacks,
                             std::shared_ptr<CallbackThreads> threads) {
  auto host = std::make_shared<UpstreamHost>(callbacks);
  return [host, threads](const UpstreamParameters& parameters) -> Result<std::shared_ptr<MessageChannel>> {
    auto channel = std::make_shared<HostChannel>(host, threads);
    auto handle = std::make_unique<mcpgw_channel>(mcpgw_channel{channel});
    const std::string text = parameters_json(parameters);
    void* connection = nullptr;
    mcpgw_reply reply;
    const auto status =
        (*host)->connect((*host)->user_data, text.data(), text.size(), handle.get(), &connection, &reply);
    if (status == MCPGW_UNSUPPORTED) return std::shared_ptr<MessageChannel>();
    if (status != MCPGW_OK) return error_of(status, reply, "upstream_unavailable");
    channel->open(connection);
    (void)handle.release();  // the host's
    return std::shared_ptr<MessageChannel>(std::move(channel));
  };
}

}  // namespace mcpgw::capi

using namespace mcpgw;
using namespace mcpgw::capi;

mcpgw_status mcpgw_channel_deliver(mcpgw_channel* channel, const char* message, size_t size) {
  return guard(nullptr, [&]() -> Status {
    if (channel == nullptr) return invalid("invalid_argument", "channel must not be NULL");
    return channel->channel->deliver(std::string(view(message, size)));
  });
}

void mcpgw_channel_end(mcpgw_channel* channel) {
  if (channel == nullptr) return;
  (void)guard(nullptr, [&]() -> Status {
    channel->channel->end();
    return {};
  });
}

void mcpgw_channel_free(mcpgw_channel* channel) { delete channel; }
