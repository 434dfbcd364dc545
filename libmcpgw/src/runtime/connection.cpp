#include "runtime/connection.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/moment.hpp"

namespace mcpgw::detail {

// Keeps the connection alive while the timer is pending.
struct TimerOperation {
  std::shared_ptr<Connection> connection;
  std::uint64_t number;

  TimerOperation(std::shared_ptr<Connection> c, std::uint64_t n) : connection(std::move(c)), number(n) {}
  void operator()(const boost::system::error_code&) { connection->timer_fired(number); }
};

Connection::Connection(Loop& loop, Origin origin)
    : loop_(loop), origin_(std::move(origin)), timer_(loop.executor()) {}

Connection::~Connection() { close_socket(); }

// --- stopping --------------------------------------------------------------------------------------------

void Connection::abort(std::uint64_t use) {
  if (use != use_ || idle_owner_ != nullptr || stop_ != Stop::none) return;
  stop_ = Stop::cancelled;
  close_socket();
  wake();
}

void Connection::set_deadline(SteadyTime deadline) {
  deadline_ = deadline;
  // A timer that is already set for an earlier time looks at the deadline again when it fires.
  if (deadline != SteadyTime::max() && (!timer_armed_ || deadline < timer_at_)) arm_timer();
}

void Connection::arm_timer() {
  timer_at_ = deadline_;
  timer_armed_ = true;
  timer_.expires_at(timer_at_);
  timer_.async_wait(TimerOperation(shared_from_this(), ++timer_number_));
}

void Connection::timer_fired(std::uint64_t number) {
  if (number != timer_number_) return;
  timer_armed_ = false;
  if (deadline_ == SteadyTime::max()) return;
  if (std::chrono::steady_clock::now() < deadline_) {
    arm_timer();
    return;
  }
  deadline_ = SteadyTime::max();
  if (idle_owner_ != nullptr) {
    idle_owner_->idle_ended(*this);
  } else if (stop_ == Stop::none) {
    stop_ = Stop::timeout;
    close_socket();
    wake();
  }
}

void Connection::close_socket() {
  readable_ = ended_ = wants_write_ = false;
  tls_.reset();
  loop_.poller().remove(std::exchange(watched_, 0), fd_.get());
  fd_.reset();
}

void Connection::shutdown() {
  ++use_;
  idle_owner_ = nullptr;
  if (tls_) tls_->say_goodbye();
  close_socket();
  deadline_ = SteadyTime::max();
  ++timer_number_;
  if (timer_armed_) timer_.cancel();
  timer_armed_ = false;
}

// --- waiting ---------------------------------------------------------------------------------------------

Task<void> Connection::wait() {
  return asio::async_initiate<const UseTask, void()>(
      [this](auto&& handler) {
        waiting_.emplace(std::move(handler));
        loop_.poller().begin_wait(*this);
      },
      use_task);
}

void Connection::wake() {
  if (!waiting_) return;
  loop_.poller().end_wait(*this);
  Waiting waiting = std::move(*waiting_);
  waiting_.reset();
  std::move(waiting)();
}

void Connection::abandon() noexcept {
  const auto kept = shared_from_this();
  const auto waiting = std::move(waiting_);
  waiting_.reset();
}

void Connection::on_event(std::uint32_t events) {
  const auto kept = shared_from_this();
  const bool ended = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  const bool reads = ended || (events & EPOLLIN) != 0;
  const bool writes = wants_write_ && (ended || (events & EPOLLOUT) != 0);
  ended_ |= ended;
  readable_ |= reads;
  if (idle_owner_ != nullptr) {
    if (reads && !quiet()) idle_owner_->idle_ended(*this);
    return;
  }
  if (writes) wants_write_ = false;
  if (!waiting_ || (!reads && !writes)) return;
  if (Poller* poller = Poller::stepping()) {
    poller->put_off<&Connection::wake>(kept);
  } else {
    wake();
  }
}

// --- idle ------------------------------------------------------------------------------------------------

void Connection::enter_idle(IdleOwner* owner, SteadyTime until) {
  ++use_;
  idle_owner_ = owner;
  idle_since_ = steady_now();
  set_deadline(until);
  wants_write_ = false;
}

bool Connection::quiet() {
  char byte;
  if (tls_) {
    // Session tickets and key updates may come at any time and are no data.
    const ssize_t n = tls_->read(&byte, 1);
    readable_ = false;
    return n == kAgain;
  }
  const ssize_t n = ::recv(fd_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  readable_ = false;
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

// --- I/O -------------------------------------------------------------------------------------------------

int Connection::open(const sockaddr& address, socklen_t length) {
  const int fd = ::socket(address.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) return errno;
  const int on = 1;
  const int keep_idle = 60;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keep_idle, sizeof keep_idle);
  int result = 0;
  if (::connect(fd, &address, length) != 0 && errno != EINPROGRESS) result = errno;
  if (result == 0) {
    watched_ = loop_.poller().add(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this);
    if (watched_ == 0) result = errno;
  }
  if (result != 0)
    ::close(fd);
  else
    fd_ = UniqueFd(fd);
  return result;
}

int Connection::connect_result() {
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  if (error != 0) return error;
  sockaddr_storage peer;
  size = sizeof peer;
  if (::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size) == 0) return 0;
  return errno == ENOTCONN ? EINPROGRESS : errno;
}

ssize_t Connection::read(char* data, std::size_t size) {
  if (!fd_) {
    io_error_ = EBADF;
    return -1;
  }
  ssize_t n;
  if (tls_) {
    n = tls_->read(data, size);
    io_error_ = tls_->io_error();
    if (n == kAgain) readable_ = false;
    return n;
  }
  do {
    n = ::recv(fd_.get(), data, size, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  // Fewer bytes than asked for: the socket is empty, and asking again would be a wasted call.
  if (n < static_cast<ssize_t>(size)) readable_ = false;
  if (n >= 0) return n;
  if (errno == EAGAIN || errno == EWOULDBLOCK) return kAgain;
  io_error_ = errno;
  return -1;
}

ssize_t Connection::write(std::string_view first, std::string_view second) {
  if (!fd_) {
    io_error_ = EBADF;
    return -1;
  }
  if (tls_) {
    const ssize_t n = tls_->write(first.empty() ? second : first);
    io_error_ = tls_->io_error();
    written_ = tls_->sent() - tls_sent_before_;
    return n;
  }
  iovec parts[2] = {{const_cast<char*>(first.data()), first.size()},
                    {const_cast<char*>(second.data()), second.size()}};
  msghdr message{};
  message.msg_iov = first.empty() ? &parts[1] : parts;
  message.msg_iovlen = first.empty() || second.empty() ? 1 : 2;
  ssize_t n;
  do {
    n = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) {
    written_ += static_cast<std::size_t>(n);
    return n;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK) return kAgain;
  io_error_ = errno;
  return -1;
}

int Connection::step_handshake() {
  if (!tls_ || !fd_) return -1;
  readable_ = false;
  const int n = tls_->handshake();
  io_error_ = tls_->io_error();
  return n;
}

}  // namespace mcpgw::detail
