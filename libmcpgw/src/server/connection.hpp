// Connection: one client socket. It belongs to one loop; only there is it read, written and closed. Answers
// may come from any thread: they are queued under a mutex and taken over by the loop.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/per_thread.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/server.hpp"
#include "runtime/loop.hpp"
#include "runtime/poller.hpp"
#include "server/framing.hpp"
#include "server/message.hpp"
#include "server/proxies.hpp"
#include "server/tls_engine.hpp"
#include "server/websocket.hpp"

namespace mcpgw::detail::server {

struct KnownHead;
class Shard;

/// The way to the worker threads for those who may outlive the server.
class WorkerPort {
 public:
  void open(Runtime& runtime) { runtime_ = &runtime; }
  /// False when the queue is full or the server has ended: `work` was not taken.
  bool post(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    return runtime_ != nullptr && runtime_->post_blocking(std::move(work));
  }
  void close() {
    const std::lock_guard lock(mutex_);
    runtime_ = nullptr;
  }

 private:
  std::mutex mutex_;
  Runtime* runtime_ = nullptr;
};

/// What connections need of the server, and may need after its end.
struct ServerContext {
  HttpServerOptions options;
  FramingLimits limits;
  TrustedProxies proxies;
  std::shared_ptr<TlsListener> tls;  ///< null: plain HTTP
  WorkerPort workers;
  std::atomic<bool> draining{false};
  std::atomic<std::size_t> connections{0};
  std::atomic<std::size_t> fresh{0};  ///< connections whose first request has not come
  std::atomic<std::uint64_t> accepted{0};
  PerThread<std::atomic<std::uint64_t>> requests;

  void log(LogLevel level, std::string message,
           std::vector<std::pair<std::string, std::string>> fields = {}) const;
};

/// The way to a loop for those who may outlive it.
class LoopPort {
 public:
  explicit LoopPort(Loop& loop) noexcept : loop_(&loop) {}
  bool here() const noexcept { return !closed_.load(std::memory_order_acquire) && Loop::current() == loop_; }
  /// False when the server has ended.
  template <class F>
  bool post(F&& work) {
    const std::lock_guard lock(mutex_);
    if (closed_.load(std::memory_order_relaxed)) return false;
    loop_->post(std::forward<F>(work));
    return true;
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_.store(true, std::memory_order_release);
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> closed_{false};
  Loop* const loop_;
};

/// What a connection needs besides once it is a WebSocket.
struct WebSocketChannel {
  explicit WebSocketChannel(WebSocketOptions options)
      : max_queued_bytes(options.max_queued_bytes),
        max_queued_messages(options.max_queued_messages),
        decoder(options.max_message),
        on_text(std::move(options.on_text)),
        on_close(std::move(options.on_close)) {}

  const std::size_t max_queued_bytes;
  const std::size_t max_queued_messages;
  std::atomic<std::size_t> unsent_messages{0};  ///< those the loop has taken over

  // On the loop only, once the connection has the channel.
  WebSocketDecoder decoder;
  std::function<void(std::string)> on_text;
  std::function<void(int)> on_close;
  bool awaits_pong = false;
};

class Connection final : public Pollable, public std::enable_shared_from_this<Connection> {
 public:
  /// What a connection waits for: each kind has its own list, ordered by deadline.
  enum class Wait : std::uint8_t {
    none,
    idle,
    fresh,  ///< while the server drains: for the first request of a connection just accepted
    handshake,
    receiving,
    busy,
    writing,
    quiet,  ///< a WebSocket: until the next ping
    pong,
    lingering,
    count
  };

  /// `tls`: null for plain HTTP.
  Connection(Shard& shard, int fd, const AddressBytes& peer, std::unique_ptr<TlsEngine> tls);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // --- on the loop ---
  /// Keeps the connection alive until it is closed, and begins to read.
  void open();
  void on_event(std::uint32_t events) override;
  void on_deadline();
  /// Ends it now. A request that is being answered learns of it.
  void close();
  /// Answers 503 and closes: there is no room.
  void refuse();
  /// The server drains: an idle connection ends, others do after their answer.
  void drain();
  /// The server ends: like close(), but a WebSocket's client is told.
  void shut_down();

  // --- from any thread ---
  struct Piece {
    std::string first;
    std::string second;
    bool end = false;    ///< the answer is complete
    bool close = false;  ///< and the connection ends with it
    /// The answer is a switch to WebSocket: later pieces are frames, one each, and the last a close frame.
    std::shared_ptr<WebSocketChannel> channel{};
    int code = 1000;  ///< of that close frame
  };
  /// Queues a piece of the answer to request `id`. False when the client is gone or has just been dropped.
  bool push(std::uint64_t id, Piece piece);
  /// The answer cannot be completed: closes the connection.
  void abort(std::uint64_t id);
  void on_disconnect(std::uint64_t id, std::function<void()> callback);
  ServerContext& context() const noexcept { return *context_; }

  // Links of the shard's lists; on the loop.
  Connection* previous = nullptr;
  Connection* next = nullptr;
  Wait wait = Wait::none;
  std::chrono::steady_clock::time_point deadline;

 private:
  enum class Phase : std::uint8_t {
    handshake,  ///< TLS
    reading,    ///< waiting for, or in the middle of, a request
    busy,       ///< a request is being answered
    websocket,  ///< the answer was a switch of protocols
    closing,    ///< the last bytes are being written
    lingering,  ///< all is written; what still comes is thrown away so that the client gets to read our
                ///< answer
    closed
  };

  /// A request on its way to the handler, which gets it even if the client leaves now: leaving is told of.
  struct Handed {
    RequestHandler& handler;
    HttpRequest request;
    std::shared_ptr<Responder> responder;
  };

  void on_readable();
  void on_encrypted(std::string_view data);
  void plain_on_tls(char first);
  void consume(std::string_view data);
  void peer_closed();
  void lose_freshness();
  void advance(std::string_view data);
  void resume();
  bool has_more() const noexcept;
  void go_on_later();
  /// `known`: the head of the request, unless it came in pieces or is new.
  void dispatch(const KnownHead* known);
  void hand_over(Handed handed);
  void answer_handed();
  void fail(const FramingError& error);
  /// Takes over what was queued; ends the exchange when its answer is complete.
  void collect();
  void pump();
  bool is_full() const;
  void note_unsent();
  void write_out();
  /// All was sent. False when some is left or the connection has ended.
  bool write_plain();
  bool write_encrypted();
  /// Bytes that were sent, or encrypted, leave the queue.
  void advance_out(std::size_t size);
  bool note_sent(ssize_t sent);
  void finish_writing();

  // connection_websocket.cpp
  void receive_frames(std::string_view data);
  void deliver(std::string text);
  /// Ends the WebSocket: what is queued, then `frame`, then the end of the connection. `drop`: instead of
  /// what is queued, as far as no part of it has been sent.
  void end_websocket(int code, std::string frame, bool drop);
  void report_close(WebSocketChannel& channel, int code);
  void ask_for_pong();

  void settle();
  void watch(std::uint32_t events);
  void queue(std::string bytes);
  std::size_t unsent() const noexcept { return queued_.load(std::memory_order_relaxed); }

  // Constant after construction.
  const std::shared_ptr<ServerContext> context_;
  const std::shared_ptr<LoopPort> port_;
  const AddressBytes peer_;

  // On the loop only.
  Shard* shard_;
  std::shared_ptr<Connection> self_;
  std::unique_ptr<TlsEngine> tls_;
  WebSocketChannel* socket_ = nullptr;  ///< channel_, once the loop knows of it
  int fd_;
  RequestReader reader_;
  std::unique_ptr<Handed> handed_;  ///< what the handler gets in the next step
  std::string in_;                  ///< bytes behind the request being answered
  std::vector<std::string> out_;
  std::size_t out_index_ = 0;
  std::size_t out_offset_ = 0;
  std::uint32_t watched_ = 0;
  Poller::Token token_ = 0;
  Phase phase_;
  bool called_ = false;   ///< inside a call of a handler: nothing of the handler's may be called
  bool resumes_ = false;  ///< resume() is posted
  bool linger_ = false;
  bool fresh_ = true;          ///< no request has come yet
  const bool secure_;          ///< accepted on a port of TLS
  bool greeted_ = false;       ///< TLS: the first record was one of a handshake
  bool said_goodbye_ = false;  ///< TLS's end of our bytes is queued
  bool progress_ = false;      ///< bytes were written since the deadline was set

  std::atomic<std::size_t> queued_{0};  ///< bytes of answers not yet sent

  // Guarded by mutex_.
  std::mutex mutex_;
  std::vector<std::string> outbox_;
  std::function<void()> disconnected_;
  std::uint64_t exchange_ = 0;
  bool answering_ = false;  ///< request `exchange_` is not fully answered
  bool ended_ = false;      ///< its answer is complete in the outbox
  bool close_after_ = false;
  bool aborted_ = false;
  bool overflowed_ = false;  ///< a WebSocket's queue was full
  int close_code_ = 1000;
  std::shared_ptr<WebSocketChannel> channel_;  ///< set once; after collect() has seen it the loop's
  bool gone_ = false;
  bool pump_posted_ = false;  ///< or put off for a step
};

/// The Responder of one request. `websocket_key`: of a request that may become a WebSocket, else empty.
std::shared_ptr<Responder> make_exchange(std::shared_ptr<Connection> connection, std::uint64_t id,
                                         AnswerForm form, std::string request_id, std::string websocket_key);

}  // namespace mcpgw::detail::server
