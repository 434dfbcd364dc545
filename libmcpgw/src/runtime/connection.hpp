// Connection: one outgoing TCP connection, with or without TLS, on one loop. It gives coroutines non-blocking
// reads and writes, a wait for readiness, and two ways to stop them: a deadline and abort().
//
// Its socket is watched from connecting to closing, edge by edge: that costs no system call an answer and
// tells at once when an idle peer closes. A deadline that moves costs nothing until it comes.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/loop.hpp"
#include "runtime/poller.hpp"
#include "runtime/tls.hpp"
#include "runtime/unique_fd.hpp"

namespace mcpgw::detail {

struct Origin {
  std::string host;
  int port = 0;
  bool tls = false;
};

class Connection;

/// Told about a pooled connection that must not be used any more.
class IdleOwner {
 public:
  virtual void idle_ended(Connection& connection) = 0;

 protected:
  ~IdleOwner() = default;
};

/// Threads: everything on its loop.
class Connection final : public Pollable, public Abandoned, public std::enable_shared_from_this<Connection> {
 public:
  enum class Stop { none, timeout, cancelled };

  Connection(Loop& loop, Origin origin);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const Origin& origin() const noexcept { return origin_; }
  Loop& loop() noexcept { return loop_; }
  int native_handle() const noexcept { return fd_.get(); }
  /// The number of the current use.
  std::uint64_t use() const noexcept { return use_; }

  /// Starts a new use and returns its number, which abort() must name: one that comes late does nothing.
  std::uint64_t begin_use() noexcept {
    stop_ = Stop::none;
    written_ = 0;
    tls_sent_before_ = tls_ ? tls_->sent() : 0;
    return ++use_;
  }
  void abort(std::uint64_t use);
  /// max(): none. When it passes, the socket is closed and stop() tells why.
  void set_deadline(SteadyTime deadline);
  Stop stop() const noexcept { return stop_; }
  void clear_timeout() noexcept {
    if (stop_ == Stop::timeout) stop_ = Stop::none;
  }

  /// Begins to connect; the socket is writable when that is settled. 0 or errno.
  int open(const sockaddr& address, socklen_t length);
  /// What became of it: 0, errno, or EINPROGRESS.
  int connect_result();
  bool is_open() const noexcept { return static_cast<bool>(fd_); }
  /// Attaches TLS. The handshake goes through step_handshake().
  void set_tls(std::unique_ptr<TlsSession> tls) { tls_ = std::move(tls); }
  TlsSession* tls() noexcept { return tls_.get(); }

  /// Bytes are there, or their end (0), or an error (-1; errno in io_error()), or nothing yet (-2).
  static constexpr ssize_t kAgain = -2;
  ssize_t read(char* data, std::size_t size);
  /// Writes what fits now of two pieces in a row; bytes taken, -1 or kAgain.
  ssize_t write(std::string_view first, std::string_view second);
  /// 1 done, -1 failed, kAgain: wait().
  int step_handshake();
  int io_error() const noexcept { return io_error_; }
  /// Bytes handed to the system since begin_use().
  std::size_t written() const noexcept { return written_; }

  /// Whether a read may bring something. False: wait().
  bool readable() const noexcept { return readable_ || ended_ || (tls_ && tls_->has_pending()); }
  /// The next wait() ends when there is room to write, too.
  void want_write() noexcept { wants_write_ = true; }
  /// Until there is something to read or what is wanted besides, or the connection stops. May also return for
  /// no reason.
  Task<void> wait();
  /// Ends a wait().
  void wake();

  /// Parks the connection; its owner is told once when the peer closes, or `until` passes.
  void enter_idle(IdleOwner* owner, SteadyTime until);
  void leave_idle() noexcept { idle_owner_ = nullptr; }
  SteadyTime idle_since() const noexcept { return idle_since_; }
  /// Whether a parked connection has neither data nor an end waiting, asked of the system.
  bool quiet();

  /// Closes the socket, for another try.
  void close_socket();
  /// Closes for good.
  void shutdown();

 private:
  using Waiting = asio::async_result<UseTask, void()>::handler_type;
  friend struct TimerOperation;

  void on_event(std::uint32_t events) override;
  void timer_fired(std::uint64_t number);
  void arm_timer();
  /// The loop is going away: the waiting coroutine is destroyed, which breaks the circle of the two.
  void abandon() noexcept override;

  Loop& loop_;
  const Origin origin_;
  UniqueFd fd_;
  Poller::Token watched_ = 0;
  std::unique_ptr<TlsSession> tls_;
  int io_error_ = 0;
  std::size_t written_ = 0;
  std::size_t tls_sent_before_ = 0;

  std::optional<Waiting> waiting_;
  bool readable_ = false;
  bool ended_ = false;  // the peer has closed: no other edge will tell
  bool wants_write_ = false;

  SteadyTimer timer_;
  SteadyTime deadline_ = SteadyTime::max();
  SteadyTime timer_at_ = SteadyTime::max();
  bool timer_armed_ = false;
  std::uint64_t timer_number_ = 0;

  Stop stop_ = Stop::none;
  std::uint64_t use_ = 0;
  IdleOwner* idle_owner_ = nullptr;
  SteadyTime idle_since_{};
};

}  // namespace mcpgw::detail
