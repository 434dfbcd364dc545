#include "server/connection.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "server/shard.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr std::size_t kMaxReadAhead = 64 * 1024;      // of pipelined requests, while one is being answered
constexpr std::size_t kMaxPipelinedOut = 256 * 1024;  // unsent answers, before the next request is looked at
constexpr std::size_t kMaxSegments = 32;
constexpr std::chrono::seconds kLinger{2};

}  // namespace

void ServerContext::log(LogLevel level, std::string message,
                        std::vector<std::pair<std::string, std::string>> fields) const {
  if (options.log) options.log(LogEvent{level, "http", std::move(message), std::move(fields)});
}

Connection::Connection(Shard& shard, int fd, const AddressBytes& peer)
    : context_(shard.context()),
      port_(shard.port()),
      peer_(peer),
      shard_(&shard),
      fd_(fd),
      reader_(context_->limits) {}

Connection::~Connection() {
  if (fd_ >= 0) ::close(fd_);
}

void Connection::open() {
  self_ = shared_from_this();
  watched_ = EPOLLIN | EPOLLRDHUP;
  if (!shard_->watch(fd_, watched_, this, false)) {
    close();
    return;
  }
  settle();
}

// --- reading ---------------------------------------------------------------------------------------------

void Connection::on_event(std::uint32_t events) {
  if (phase_ == Phase::closed) return;
  if ((watched_ & EPOLLIN) != 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    on_readable();
  } else if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    peer_closed();
  }
  if (phase_ != Phase::closed && (events & EPOLLOUT) != 0) {
    write_out();
    if (phase_ == Phase::reading && unsent() == 0) resume();
    settle();
  }
}

void Connection::on_readable() {
  char* const buffer = shard_->scratch();
  const ssize_t n = ::recv(fd_, buffer, shard_->scratch_size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    peer_closed();
    return;
  }
  if (phase_ == Phase::lingering || phase_ == Phase::closing) {
    linger_ = true;
    return;
  }
  const std::string_view data(buffer, static_cast<std::size_t>(n));
  if (phase_ == Phase::reading && unsent() == 0) {
    advance(data);
    settle();
  } else {
    in_.append(data);
    if (in_.size() >= kMaxReadAhead) watch(watched_ & ~static_cast<std::uint32_t>(EPOLLIN));
  }
}

// A half-closed connection counts as closed: for MCP, going away is how a client cancels.
void Connection::peer_closed() { close(); }

void Connection::advance(std::string_view data) {
  const auto keep = shared_from_this();
  advancing_ = true;
  while (phase_ == Phase::reading && !data.empty() && unsent() < kMaxPipelinedOut) {
    std::size_t used = 0;
    const RequestReader::Progress progress = reader_.feed(data, used);
    data.remove_prefix(used);
    if (progress == RequestReader::Progress::complete) {
      dispatch();
    } else if (progress == RequestReader::Progress::failed) {
      fail(reader_.error());
    } else if (reader_.take_continue()) {
      queue("HTTP/1.1 100 Continue\r\n\r\n");
    }
  }
  advancing_ = false;
  if (phase_ == Phase::closed) return;
  if (phase_ != Phase::closing) {
    in_.assign(data);
    if (in_.empty() && in_.capacity() > kMaxReadAhead) in_ = {};
  } else if (!data.empty()) {
    linger_ = true;
  }
  write_out();
}

void Connection::resume() {
  while (phase_ == Phase::reading && unsent() == 0 && !in_.empty()) {
    const std::string data = std::move(in_);
    in_.clear();
    advance(data);
  }
  if (phase_ != Phase::closed && (watched_ & EPOLLIN) == 0 && in_.size() < kMaxReadAhead)
    watch(watched_ | EPOLLIN);
}

void Connection::dispatch() {
  context_->requests.fetch_add(1, std::memory_order_relaxed);
  AnswerForm form;
  form.http11 = reader_.http11();
  form.close = !reader_.keep_alive();
  form.head = reader_.method() == "HEAD";
  HttpRequest request;
  if (!shard_->parser().parse(reader_, request)) {
    fail({400, "invalid_request", "The request is malformed"});
    return;
  }
  TrustedProxies::Client client = context_->proxies.client_of(peer_, request.headers);
  request.remote_address = std::move(client.address);
  request.over_tls = client.tls;
  const std::string_view offered_id = reader_.find("X-Request-Id");
  std::string request_id(offered_id);
  reader_.next();

  std::uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = ++exchange_;
    answering_ = true;
    ended_ = close_after_ = false;
  }
  phase_ = Phase::busy;
  called_ = true;
  try {
    shard_->handler().handle_async(std::move(request),
                                   make_exchange(shared_from_this(), id, form, std::move(request_id)));
  } catch (...) {
    // The responder answers 500 when it is dropped. The text may hold anything: it is not ours to log.
    context_->log(LogLevel::error, "A request handler threw an exception");
  }
  called_ = false;
  if (phase_ != Phase::closed) collect();
}

void Connection::fail(const FramingError& error) {
  const std::string id = request_id_for(reader_.find("X-Request-Id"));
  HttpResponse response = server_error(error.status, error.code, error.message, id);
  AnswerForm form;
  form.http11 = reader_.http11();
  form.close = true;
  // Without a readable method the body is sent: the client did not ask HEAD for certain.
  form.head = reader_.method() == "HEAD";
  std::string text = render_head(response, form, response.body.size());
  if (!form.head) text += response.body;
  queue(std::move(text));
  phase_ = Phase::closing;
  linger_ = true;
  in_ = {};
}

void Connection::refuse() {
  if (phase_ == Phase::closed) return;
  const auto keep = shared_from_this();
  fail({503, "overloaded", "The server has too many connections"});
  write_out();
  settle();
}

void Connection::drain() {
  const auto keep = shared_from_this();
  if (phase_ == Phase::reading && reader_.idle() && in_.empty() && unsent() == 0) close();
}

void Connection::on_deadline() {
  const auto keep = shared_from_this();
  switch (wait) {
    case Wait::receiving:
      fail({408, "request_timeout", "The request did not arrive in time"});
      write_out();
      settle();
      break;
    case Wait::writing:
      context_->log(LogLevel::debug, "A client that does not read was dropped");
      close();
      break;
    default:
      close();
      break;
  }
}

// --- writing ---------------------------------------------------------------------------------------------

void Connection::queue(std::string bytes) {
  queued_.fetch_add(bytes.size(), std::memory_order_relaxed);
  out_.push_back(std::move(bytes));
}

bool Connection::push(std::uint64_t id, Piece piece) {
  const std::size_t size = piece.first.size() + piece.second.size();
  const bool here = port_->here();
  bool accepted = true;
  bool post = false;
  {
    const std::lock_guard lock(mutex_);
    if (gone_ || aborted_ || !answering_ || ended_ || id != exchange_) return false;
    if (!piece.end && unsent() >= context_->options.max_write_buffer) {
      aborted_ = true;
      accepted = false;
    } else {
      queued_.fetch_add(size, std::memory_order_relaxed);
      if (!piece.first.empty()) outbox_.push_back(std::move(piece.first));
      if (!piece.second.empty()) outbox_.push_back(std::move(piece.second));
      ended_ = piece.end;
      close_after_ = close_after_ || piece.close;
    }
    if (!here) {
      post = !pump_posted_;
      pump_posted_ = true;
    }
  }
  if (post) {
    port_->post([self = shared_from_this()] { self->pump(); });
  } else if (here && !called_) {
    called_ = true;
    pump();
  }
  return accepted;
}

void Connection::abort(std::uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    if (gone_ || !answering_ || ended_ || id != exchange_) return;
    aborted_ = true;
  }
  port_->post([self = shared_from_this()] { self->pump(); });
}

void Connection::on_disconnect(std::uint64_t id, std::function<void()> callback) {
  std::function<void()> old;
  {
    const std::lock_guard lock(mutex_);
    if (id != exchange_ || !answering_) return;
    old = std::move(disconnected_);
    disconnected_ = nullptr;
    if (!gone_) {
      disconnected_ = std::move(callback);
      return;
    }
  }
  if (callback) callback();
}

void Connection::collect() {
  std::function<void()> callback;  // destroyed outside the lock
  bool ended = false;
  bool closes = false;
  bool aborted = false;
  {
    const std::lock_guard lock(mutex_);
    pump_posted_ = false;
    aborted = aborted_;
    if (out_.empty()) {
      out_.swap(outbox_);
    } else {
      for (std::string& bytes : outbox_) out_.push_back(std::move(bytes));
      outbox_.clear();
    }
    if (answering_ && ended_) {
      ended = true;
      closes = close_after_;
      answering_ = false;
      callback = std::move(disconnected_);
      disconnected_ = nullptr;
    }
  }
  if (aborted) {
    close();
    return;
  }
  if (ended && phase_ == Phase::busy) {
    phase_ = closes ? Phase::closing : Phase::reading;
    if (closes && !in_.empty()) linger_ = true;
  }
}

/// Runs on the loop: posted by other threads, or inside a call of the loop's own.
void Connection::pump() {
  const auto keep = shared_from_this();
  if (phase_ != Phase::closed) collect();
  if (phase_ != Phase::closed) write_out();
  if (phase_ == Phase::reading && unsent() == 0 && (!in_.empty() || (watched_ & EPOLLIN) == 0)) {
    if (!called_) {
      resume();
    } else {
      // The next request must not start inside a handler's call, under its locks.
      port_->post([keep] {
        if (keep->phase_ == Phase::closed) return;
        keep->resume();
        keep->settle();
      });
    }
  }
  settle();
  called_ = false;
}

void Connection::write_out() {
  while (out_index_ < out_.size()) {
    std::array<iovec, kMaxSegments> parts;
    std::size_t count = 0;
    for (std::size_t i = out_index_; i < out_.size() && count < parts.size(); ++i, ++count) {
      const std::size_t skip = i == out_index_ ? out_offset_ : 0;
      parts[count].iov_base = out_[i].data() + skip;
      parts[count].iov_len = out_[i].size() - skip;
    }
    ssize_t sent = 0;
    if (count == 1) {
      sent = ::send(fd_, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL);
    } else {
      msghdr message{};
      message.msg_iov = parts.data();
      message.msg_iovlen = count;
      sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    }
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        watch(watched_ | EPOLLOUT);
      } else {
        close();
      }
      return;
    }
    progress_ = progress_ || sent != 0;
    queued_.fetch_sub(static_cast<std::size_t>(sent), std::memory_order_relaxed);
    auto left = static_cast<std::size_t>(sent);
    while (left != 0) {
      const std::size_t here = out_[out_index_].size() - out_offset_;
      if (left < here) {
        out_offset_ += left;
        break;
      }
      left -= here;
      out_[out_index_] = {};  // a long queue gives its memory back as it drains
      ++out_index_;
      out_offset_ = 0;
    }
  }
  out_.clear();
  out_index_ = 0;
  if (out_.capacity() > 64) out_ = {};
  if ((watched_ & EPOLLOUT) != 0) watch(watched_ & ~static_cast<std::uint32_t>(EPOLLOUT));
  if (phase_ == Phase::closing) finish_writing();
}

void Connection::finish_writing() {
  if (!linger_) {
    close();
    return;
  }
  // Closing with unread input resets the connection, and the client could lose our answer.
  ::shutdown(fd_, SHUT_WR);
  phase_ = Phase::lingering;
  watch(EPOLLIN | EPOLLRDHUP);
}

// --- state -----------------------------------------------------------------------------------------------

void Connection::settle() {
  if (phase_ == Phase::closed) return;
  const HttpServerOptions& options = context_->options;
  if (phase_ == Phase::lingering) {
    if (wait != Wait::lingering) shard_->enlist(*this, Wait::lingering, kLinger);
  } else if (unsent() != 0) {
    // A slow reader may take as long as it likes while it takes something at all.
    if (wait != Wait::writing || progress_) shard_->enlist(*this, Wait::writing, options.request_timeout);
  } else if (phase_ != Phase::reading) {
    if (wait != Wait::busy) shard_->enlist(*this, Wait::busy, std::chrono::steady_clock::duration::max());
  } else if (!reader_.idle()) {
    // Once per request: a byte now and then moves nothing.
    if (wait != Wait::receiving) shard_->enlist(*this, Wait::receiving, options.request_timeout);
  } else if (context_->draining.load(std::memory_order_relaxed)) {
    close();
  } else {
    shard_->enlist(*this, Wait::idle, options.idle_timeout);
  }
  progress_ = false;
}

void Connection::watch(std::uint32_t events) {
  if (events == watched_) return;
  watched_ = events;
  shard_->watch(fd_, events, this, true);
}

void Connection::close() {
  if (phase_ == Phase::closed) return;
  phase_ = Phase::closed;
  std::function<void()> callback;
  std::vector<std::string> dropped;
  {
    const std::lock_guard lock(mutex_);
    gone_ = true;
    dropped.swap(outbox_);
    if (answering_ && !ended_) callback = std::move(disconnected_);
    disconnected_ = nullptr;
  }
  shard_->unwatch(fd_);
  ::close(fd_);
  fd_ = -1;
  in_ = {};
  out_ = {};
  out_index_ = out_offset_ = 0;
  reader_.next();
  shard_->remove(*this);
  Shard* const shard = shard_;
  shard_ = nullptr;
  if (callback) {
    if (called_) {
      port_->post(std::move(callback));  // never inside a handler's own call
    } else {
      callback();
    }
  }
  shard->bury(std::move(self_));
}

}  // namespace mcpgw::detail::server
