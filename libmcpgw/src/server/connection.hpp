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

#include "mcpgw/http.hpp"
#include "mcpgw/server.hpp"
#include "runtime/loop.hpp"
#include "server/framing.hpp"
#include "server/message.hpp"
#include "server/proxies.hpp"

namespace mcpgw::detail::server {

class Shard;

/// What connections need of the server, and may need after its end.
struct ServerContext {
  HttpServerOptions options;
  FramingLimits limits;
  TrustedProxies proxies;
  std::atomic<bool> draining{false};
  std::atomic<std::size_t> connections{0};
  std::atomic<std::uint64_t> accepted{0};
  std::atomic<std::uint64_t> requests{0};

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

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  /// What a connection waits for: each kind has its own list, ordered by deadline.
  enum class Wait : std::uint8_t { none, idle, receiving, busy, writing, lingering };

  Connection(Shard& shard, int fd, const AddressBytes& peer);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // --- on the loop ---
  /// Keeps the connection alive until it is closed, and begins to read.
  void open();
  void on_event(std::uint32_t events);
  void on_deadline();
  /// Ends it now. A request that is being answered learns of it.
  void close();
  /// Answers 503 and closes: there is no room.
  void refuse();
  /// The server drains: an idle connection ends, others do after their answer.
  void drain();

  // --- from any thread ---
  struct Piece {
    std::string first;
    std::string second;
    bool end = false;    ///< the answer is complete
    bool close = false;  ///< and the connection ends with it
  };
  /// Queues a piece of the answer to request `id`. False when the client is gone or has just been dropped.
  bool push(std::uint64_t id, Piece piece);
  /// The answer cannot be completed: closes the connection.
  void abort(std::uint64_t id);
  void on_disconnect(std::uint64_t id, std::function<void()> callback);
  const ServerContext& context() const noexcept { return *context_; }

  // Links of the shard's lists; on the loop.
  Connection* previous = nullptr;
  Connection* next = nullptr;
  Wait wait = Wait::none;
  std::chrono::steady_clock::time_point deadline;

 private:
  enum class Phase : std::uint8_t {
    reading,    ///< waiting for, or in the middle of, a request
    busy,       ///< a request is being answered
    closing,    ///< the last bytes are being written
    lingering,  ///< all is written; what still comes is thrown away so that the client gets to read our
                ///< answer
    closed
  };

  void on_readable();
  void peer_closed();
  void advance(std::string_view data);
  void resume();
  void dispatch();
  void fail(const FramingError& error);
  /// Takes over what was queued; ends the exchange when its answer is complete.
  void collect();
  void pump();
  void write_out();
  void finish_writing();
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
  int fd_;
  RequestReader reader_;
  std::string in_;  ///< bytes behind the request being answered
  std::vector<std::string> out_;
  std::size_t out_index_ = 0;
  std::size_t out_offset_ = 0;
  std::uint32_t watched_ = 0;
  Phase phase_ = Phase::reading;
  bool advancing_ = false;
  bool called_ = false;  ///< inside a call of a handler: nothing of the handler's may be called
  bool linger_ = false;
  bool progress_ = false;  ///< bytes were written since the deadline was set

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
  bool gone_ = false;
  bool pump_posted_ = false;
};

/// The Responder of one request.
std::shared_ptr<Responder> make_exchange(std::shared_ptr<Connection> connection, std::uint64_t id,
                                         AnswerForm form, std::string request_id);

}  // namespace mcpgw::detail::server
