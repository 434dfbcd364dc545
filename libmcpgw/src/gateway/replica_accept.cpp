// Replicas: what others hand over is answered here. The answer is sealed line by line; while nothing is said,
// an empty line shows that somebody works on it.
#include "base/text.hpp"
#include "gateway/replicas.hpp"
#include "gateway/session.hpp"

namespace mcpgw::detail {
namespace {

using Kind = ReplicaFrame::Kind;

/// The answer of one request that another replica handed over. Safe from any thread.
class SealedReply final : public Responder, public std::enable_shared_from_this<SealedReply> {
 public:
  SealedReply(Loop& loop, std::shared_ptr<Responder> outer, std::unique_ptr<ReplicaFrames> frames,
              std::chrono::milliseconds alive)
      : loop_(loop), outer_(std::move(outer)), alive_(alive), frames_(std::move(frames)) {}

  ~SealedReply() override {
    // Unanswered: the other tells its client.
    if (stream_) stream_->close();
  }

  void send(HttpResponse response) override { finish({Kind::answer, std::move(response)}); }
  void absent() { finish({Kind::absent, {}}); }

  std::shared_ptr<ResponseStream> start(HttpResponse head) override {
    {
      const std::lock_guard lock(mutex_);
      if (ended_ || !write_locked({Kind::start, std::move(head)})) return nullptr;
    }
    return std::make_shared<Stream>(shared_from_this());
  }

  void on_disconnect(std::function<void()> callback) override { outer_->on_disconnect(std::move(callback)); }

  /// Shows from time to time that it lives.
  void watch() { tick(); }

 private:
  class Stream final : public ResponseStream {
   public:
    explicit Stream(std::shared_ptr<SealedReply> reply) : reply_(std::move(reply)) {}
    ~Stream() override { reply_->end(); }
    bool write(std::string data) override {
      HttpResponse part;
      part.body = std::move(data);
      const std::lock_guard lock(reply_->mutex_);
      return !reply_->ended_ && reply_->write_locked({Kind::data, std::move(part)});
    }
    void close() override { reply_->end(); }

   private:
    const std::shared_ptr<SealedReply> reply_;
  };

  void end() {
    std::shared_ptr<ResponseStream> stream;
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return;
      (void)write_locked({Kind::end, {}});
      ended_ = true;
      stream = std::move(stream_);
    }
    if (stream) stream->close();
  }

  void finish(ReplicaFrame frame) {
    std::shared_ptr<ResponseStream> stream;
    HttpResponse response;
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return;
      if (stream_)
        (void)write_locked(frame);
      else if (!begun_)
        response.body = frames_->seal(frame);
      ended_ = true;
      stream = std::move(stream_);
    }
    if (stream) return stream->close();
    if (response.body.empty()) return;  // the other has gone
    response.headers.emplace_back("Content-Type", "text/plain");
    outer_->send(std::move(response));
  }

  bool write_locked(const ReplicaFrame& frame) {
    std::string line = frames_->seal(frame);
    if (begun_) {
      if (stream_ && !stream_->write(std::move(line))) stream_ = nullptr;
      return stream_ != nullptr;
    }
    begun_ = true;
    HttpResponse head;
    head.headers.emplace_back("Content-Type", "text/plain");
    head.body = std::move(line);
    stream_ = outer_->start(std::move(head));
    return stream_ != nullptr;
  }

  void tick() {
    auto timer = std::make_shared<SteadyTimer>(loop_.io(), alive_);
    timer->async_wait([weak = weak_from_this(), timer](const boost::system::error_code& error) {
      const auto self = weak.lock();
      if (error || !self) return;
      {
        const std::lock_guard lock(self->mutex_);
        if (self->ended_ || !self->write_locked({Kind::alive, {}})) return;
      }
      self->tick();
    });
  }

  Loop& loop_;
  const std::shared_ptr<Responder> outer_;
  const std::chrono::milliseconds alive_;
  std::mutex mutex_;  // guards what follows
  const std::unique_ptr<ReplicaFrames> frames_;
  std::shared_ptr<ResponseStream> stream_;
  bool begun_ = false;  ///< the outer answer is a stream
  bool ended_ = false;
};

HttpResponse refusal(int status, std::string_view code, std::string_view message) {
  return http_error(status, code, message, {});
}

class ReplicaHandler final : public RequestHandler {
 public:
  ReplicaHandler(const std::shared_ptr<GatewayCore>& core,
                 std::function<void(HttpRequest, std::shared_ptr<Responder>)> handle)
      : core_(core), handle_(std::move(handle)) {}

  void handle_async(HttpRequest request, std::shared_ptr<Responder> responder) override {
    const auto core = core_.lock();
    if (!core) return responder->send(refusal(503, "shutting_down", "The gateway is closing"));
    if (request.path() != kReplicaPath || request.method != "POST")
      return responder->send(refusal(404, "not_found", "There is nothing at this path"));
    auto opened = core->replicas->seal().open(request.body);
    if (!opened) {
      if (opened.error().code == ErrorCode::unavailable)
        return responder->send(refusal(503, opened.error().reason, opened.error().message));
      core->log(LogLevel::warn, "replicas",
                "a request was refused that no replica with these keys and this time has made",
                {{"client", request.remote_address}});
      return responder->send(refusal(403, "unauthorized", opened.error().message));
    }
    auto frames = ReplicaFrames::create(opened->key, core->random);
    if (!frames) return responder->send(refusal(403, "unauthorized", "The request has no key"));
    Loop* here = Loop::current();
    Loop& loop =
        here != nullptr && core->runtime->impl().owns(here) ? *here : core->runtime->impl().any_loop();
    const auto reply = std::make_shared<SealedReply>(loop, std::move(responder), std::move(frames),
                                                     core->options.replicas.silence / 5);
    if (opened->request.method == kOrderMethod && opened->to == core->replicas->id())
      return carry_out(core, opened->from, opened->request, reply);
    if (!core->replicas->stale()) return answer(core, handle_, std::move(*opened), reply);
    loop.post([&loop, core, handle = handle_, kept = std::move(*opened), reply]() mutable {
      loop.spawn(answer_awake(std::move(core), std::move(handle), std::move(kept), std::move(reply)));
    });
  }

 private:
  using Handle = std::function<void(HttpRequest, std::shared_ptr<Responder>)>;

  static void answer(const std::shared_ptr<GatewayCore>& core, const Handle& handle, ReplicaRequest opened,
                     const std::shared_ptr<SealedReply>& reply) {
    // Whoever was at this address before has gone; whoever is about to go has no time for more.
    HttpRequest& inner = opened.request;
    const std::string session = named_session(inner).id;
    const bool here_still = core->sessions->holds(session) || core->sessions->just_ended(session);
    if (opened.to != core->replicas->id() || core->draining.load(std::memory_order_acquire) ||
        (!session.empty() && !here_still))
      return reply->absent();
    const bool served = inner.path() == "/mcp" || inner.path() == "/mcp/";
    if (!served || (inner.method != "POST" && inner.method != "GET" && inner.method != "DELETE"))
      return reply->send(refusal(404, "not_found", "There is nothing at this path"));
    handle(std::move(inner), reply);
    reply->watch();
  }

  /// Who was asleep may have been taken for dead, and does not know what is its own still.
  static Task<void> answer_awake(std::shared_ptr<GatewayCore> core, Handle handle, ReplicaRequest opened,
                                 std::shared_ptr<SealedReply> reply) {
    auto asked = core->replicas->awake();
    const bool known = co_await std::move(asked);
    if (!known) co_return reply->absent();
    answer(core, handle, std::move(opened), reply);
  }

  static void carry_out(const std::shared_ptr<GatewayCore>& core, const std::string& from,
                        const HttpRequest& order, const std::shared_ptr<SealedReply>& reply) {
    const std::string what = order.target.substr(order.target.empty() ? 0 : 1);
    const auto done = [reply](std::int64_t count) {
      HttpResponse response;
      response.body = std::to_string(count);
      reply->send(std::move(response));
    };
    if (const auto known = answer_question(*core, what, order.body)) return done(*known);
    if (what == kPlaceOrder) {
      core->replicas->places().give(from, order.body, reply);
      return reply->watch();
    }
    const bool taken = core->runtime->post_blocking([core, reply, done, what, argument = order.body] {
      const auto count = obey(*core, what, argument);
      if (!count) return reply->send(refusal(404, "not_found", "This order is not known here"));
      done(*count);
    });
    if (!taken) reply->send(refusal(503, "overloaded", "The gateway is overloaded"));
  }

  const std::weak_ptr<GatewayCore> core_;
  const std::function<void(HttpRequest, std::shared_ptr<Responder>)> handle_;
};

}  // namespace

std::shared_ptr<RequestHandler> make_replica_handler(
    const std::shared_ptr<GatewayCore>& core,
    std::function<void(HttpRequest, std::shared_ptr<Responder>)> handle) {
  return std::make_shared<ReplicaHandler>(core, std::move(handle));
}

}  // namespace mcpgw::detail
