#include "server/shard.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/moment.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr int kAcceptsAtOnce = 32;  // then connections get their turn again
constexpr std::size_t kImbalance =
    8;  // connections one loop may have more than another before it hands them on
constexpr std::size_t kReceiveSize = 64 * 1024;
constexpr std::size_t kRecordSize = 16 * 1024;  // of TLS
constexpr std::chrono::milliseconds kAcceptPause{100};

AddressBytes address_of(const sockaddr_storage& peer) noexcept {
  AddressBytes out{};
  if (peer.ss_family == AF_INET6) {
    std::memcpy(out.data(), &reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr, out.size());
  } else {
    // Whoever comes by a socket file is on this host.
    sockaddr_in in{};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (peer.ss_family == AF_INET) in = reinterpret_cast<const sockaddr_in&>(peer);
    out[10] = out[11] = 0xff;
    std::memcpy(out.data() + 12, &in.sin_addr, 4);
  }
  return out;
}

}  // namespace

Shard::Shard(Loop& loop, std::shared_ptr<ServerContext> context, RequestHandler& handler)
    : loop_(loop),
      context_(std::move(context)),
      port_(std::make_shared<LoopPort>(loop)),
      handler_(handler),
      timer_(loop.executor()),
      accept_timer_(loop.executor()),
      scratch_(kReceiveSize),
      plain_scratch_(context_->tls == nullptr ? 0 : kRecordSize) {}

Shard::~Shard() = default;

// --- accepting -------------------------------------------------------------------------------------------

void Shard::listen(std::vector<std::shared_ptr<SharedFd>> listeners) {
  if (stopped_) return;
  listeners_ = std::move(listeners);
  watch_listeners();
}

void Shard::watch_listeners() {
  // Exclusive: a new connection wakes one loop, not all.
  for (const auto& listener : listeners_)
    watched_.push_back(poller().add(listener->get(), EPOLLIN | EPOLLEXCLUSIVE, *this));
}

void Shard::unwatch_listeners() {
  for (std::size_t i = 0; i < watched_.size(); ++i) poller().remove(watched_[i], listeners_[i]->get());
  watched_.clear();
}

void Shard::on_event(std::uint32_t /*events*/) {
  const auto keep = shared_from_this();
  for (std::size_t i = 0; i < listeners_.size(); ++i) accept_from(listeners_[i]->get());
}

void Shard::accept_from(int listener) {
  for (int i = 0; i < kAcceptsAtOnce && !listeners_.empty(); ++i) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    const int fd =
        ::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EAGAIN || errno == EINVAL) return;
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        // The kernel looks for a free descriptor before it looks for a connection: it complains although
        // nobody waits.
        const int error = errno;
        pollfd waiting{listener, POLLIN, 0};
        if (::poll(&waiting, 1, 0) == 1) pause_accepting(error);
        return;
      }
      continue;  // that connection failed (ECONNABORTED and the like); the next one may not
    }
    const int on = 1;
    if (peer.ss_family != AF_UNIX) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    context_->accepted.fetch_add(1, std::memory_order_relaxed);
    place(fd, address_of(peer));
  }
}

/// The system is out of descriptors or memory: makes some room and lets new clients wait in the backlog.
void Shard::pause_accepting(int error) {
  context_->log(LogLevel::warn, "No connection can be accepted for now", {{"errno", std::to_string(error)}});
  if (Connection* oldest = lists_[static_cast<std::size_t>(Connection::Wait::idle)].first) oldest->close();
  unwatch_listeners();
  accept_timer_.expires_after(kAcceptPause);
  accept_timer_.async_wait([self = shared_from_this()](const boost::system::error_code& failed) {
    if (!failed && !self->stopped_ && self->watched_.empty()) self->watch_listeners();
  });
}

/// Decides which loop serves a new connection, and whether another one must go for it.
void Shard::place(int fd, const AddressBytes& peer) {
  const bool full =
      context_->connections.fetch_add(1, std::memory_order_relaxed) >= context_->options.max_connections;
  Shard* target = this;
  for (Shard* shard : peers_) {
    if (full) {
      if (shard->oldest_idle_.load(std::memory_order_relaxed) <
          target->oldest_idle_.load(std::memory_order_relaxed))
        target = shard;
    } else if (shard->load_.load(std::memory_order_relaxed) + kImbalance <
               target->load_.load(std::memory_order_relaxed)) {
      target = shard;
    }
  }
  target->load_.fetch_add(1, std::memory_order_relaxed);
  if (target == this) {
    adopt(fd, peer, full);
    return;
  }
  // Should the other loop end first, the descriptor is closed with the work that was not done.
  target->port_->post([shard = target->shared_from_this(), owner = std::make_unique<SharedFd>(fd), peer,
                       full] { shard->adopt(owner->release(), peer, full); });
}

void Shard::adopt(int fd, const AddressBytes& peer, bool make_room) {
  bool refuse = stopped_;
  if (make_room && !refuse) {
    Connection* victim =
        lists_[static_cast<std::size_t>(Connection::Wait::lingering)].first;  // has its answer
    if (victim == nullptr) victim = lists_[static_cast<std::size_t>(Connection::Wait::idle)].first;
    if (victim != nullptr) {
      victim->close();
    } else {
      refuse = true;
    }
  }
  std::unique_ptr<TlsEngine> tls;
  if (context_->tls != nullptr && (tls = context_->tls->engine()) == nullptr) {
    ::close(fd);
    load_.fetch_sub(1, std::memory_order_relaxed);
    context_->connections.fetch_sub(1, std::memory_order_relaxed);
    return;
  }
  auto connection = std::make_shared<Connection>(*this, fd, peer, std::move(tls));
  connection->open();
  if (refuse) connection->refuse();
}

void Shard::drain() {
  unwatch_listeners();
  listeners_.clear();
  accept_timer_.cancel();
  for (const List& list : lists_) {
    for (Connection* connection = list.first; connection != nullptr;) {
      Connection* const next = connection->next;
      connection->drain();
      connection = next;
    }
  }
}

void Shard::stop() {
  if (stopped_) return;
  drain();
  // A callback of one may give another its answer and thereby move it to a list already emptied.
  for (bool any = true; any;) {
    any = false;
    for (List& list : lists_) {
      for (; list.first != nullptr; any = true) list.first->shut_down();
    }
  }
  stopped_ = true;
  port_->close();
  timer_.cancel();
}

// --- deadlines -------------------------------------------------------------------------------------------

void Shard::unlink(Connection& connection) {
  List& list = lists_[static_cast<std::size_t>(connection.wait)];
  (connection.previous == nullptr ? list.first : connection.previous->next) = connection.next;
  (connection.next == nullptr ? list.last : connection.next->previous) = connection.previous;
  connection.previous = connection.next = nullptr;
}

void Shard::enlist(Connection& connection, Connection::Wait wait,
                   std::chrono::steady_clock::duration patience) {
  const bool was_idle = connection.wait == Connection::Wait::idle;
  if (connection.wait != Connection::Wait::none) unlink(connection);
  connection.wait = wait;
  connection.deadline = patience == std::chrono::steady_clock::duration::max()
                            ? std::chrono::steady_clock::time_point::max()
                            : steady_now() + patience;
  // Each list has one patience: its back is its latest deadline.
  List& list = lists_[static_cast<std::size_t>(wait)];
  connection.previous = list.last;
  connection.next = nullptr;
  (list.last == nullptr ? list.first : list.last->next) = &connection;
  list.last = &connection;
  if (was_idle || wait == Connection::Wait::idle) note_idle();
  if (connection.deadline < armed_) arm(connection.deadline);
}

void Shard::remove(Connection& connection) {
  const bool was_idle = connection.wait == Connection::Wait::idle;
  if (connection.wait != Connection::Wait::none) unlink(connection);
  connection.wait = Connection::Wait::none;
  if (was_idle) note_idle();
  load_.fetch_sub(1, std::memory_order_relaxed);
  context_->connections.fetch_sub(1, std::memory_order_relaxed);
}

void Shard::note_idle() {
  const Connection* oldest = lists_[static_cast<std::size_t>(Connection::Wait::idle)].first;
  oldest_idle_.store(oldest == nullptr ? INT64_MAX : oldest->deadline.time_since_epoch().count(),
                     std::memory_order_relaxed);
}

void Shard::arm(std::chrono::steady_clock::time_point deadline) {
  armed_ = deadline;
  timer_.expires_at(deadline);
  timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error && !self->stopped_) self->on_timer();
  });
}

void Shard::on_timer() {
  armed_ = std::chrono::steady_clock::time_point::max();
  const auto now = std::chrono::steady_clock::now();
  auto next = std::chrono::steady_clock::time_point::max();
  for (List& list : lists_) {
    while (list.first != nullptr && list.first->deadline <= now) list.first->on_deadline();
    if (list.first != nullptr) next = std::min(next, list.first->deadline);
  }
  if (next < armed_) arm(next);
}

}  // namespace mcpgw::detail::server
