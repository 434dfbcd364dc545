#include "server/connection.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "server/compress.hpp"
#include "server/shard.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr std::size_t kMaxReadAhead = 64 * 1024;      // of pipelined requests, while one is being answered
constexpr std::size_t kMaxPipelinedOut = 256 * 1024;  // unsent answers, before the next request is looked at
constexpr int kRequestsATurn = 64;                    // of one connection, before others get theirs
constexpr std::chrono::seconds kLinger{2};
constexpr std::chrono::seconds kFresh{1};  // for the first request of a connection, while the server drains
constexpr char kHandshakeRecord = 0x16;

}  // namespace

void ServerContext::log(LogLevel level, std::string message,
                        std::vector<std::pair<std::string, std::string>> fields) const {
  if (options.log) options.log(LogEvent{level, "http", std::move(message), std::move(fields)});
}

Connection::Connection(Shard& shard, int fd, const AddressBytes& peer, std::unique_ptr<TlsEngine> tls)
    : context_(shard.context()),
      port_(shard.port()),
      peer_(peer),
      shard_(&shard),
      tls_(std::move(tls)),
      fd_(fd),
      reader_(context_->limits),
      phase_(tls_ == nullptr ? Phase::reading : Phase::handshake),
      secure_(tls_ != nullptr) {
  context_->fresh.fetch_add(1, std::memory_order_relaxed);
}

Connection::~Connection() {
  lose_freshness();
  if (fd_ >= 0) ::close(fd_);
}

void Connection::open() {
  self_ = shared_from_this();
  watched_ = EPOLLIN | EPOLLRDHUP;
  token_ = shard_->poller().add(fd_, watched_, *this);
  if (token_ == 0) {
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
  const std::string_view data(buffer, static_cast<std::size_t>(n));
  if (tls_ != nullptr && phase_ != Phase::lingering && phase_ != Phase::closing) {
    on_encrypted(data);
  } else {
    consume(data);
  }
}

void Connection::on_encrypted(std::string_view data) {
  const auto keep = shared_from_this();
  if (!greeted_ && data.front() != kHandshakeRecord) {
    plain_on_tls(data.front());
    return;
  }
  greeted_ = true;
  tls_->receive(data);
  // The engine may have something to say of its own: handshake messages, alerts.
  std::size_t before = tls_->out().size();
  const auto account = [&] { queued_.fetch_add(tls_->out().size() - before, std::memory_order_relaxed); };
  if (phase_ == Phase::handshake) {
    const int result = tls_->handshake();
    account();
    if (result != 1) {
      write_out();
      if (result != TlsEngine::kAgain) {
        close();
      } else {
        settle();
      }
      return;
    }
    phase_ = Phase::reading;
    write_out();
    if (phase_ == Phase::closed) return;
  }
  for (;;) {
    before = tls_->out().size();
    const ssize_t n = tls_->read(shard_->plain_scratch(), shard_->plain_scratch_size());
    account();
    if (n == TlsEngine::kAgain) break;
    if (n <= 0) {
      write_out();
      peer_closed();
      return;
    }
    consume({shard_->plain_scratch(), static_cast<std::size_t>(n)});
    if (phase_ == Phase::closed || phase_ == Phase::closing || phase_ == Phase::lingering) return;
  }
  write_out();
  // What came behind an answer of the engine's own has waited until that was sent.
  go_on_later();
  settle();
}

/// Somebody speaks HTTP, or nothing we know, to a port of TLS.
void Connection::plain_on_tls(char first) {
  tls_.reset();
  if (!is_token({&first, 1})) {
    close();
    return;
  }
  fail({400, "https_required", "This port speaks HTTPS"});
  write_out();
  settle();
}

void Connection::consume(std::string_view data) {
  if (phase_ == Phase::lingering || phase_ == Phase::closing) {
    linger_ = true;
    return;
  }
  if (phase_ == Phase::websocket) {
    receive_frames(data);
    settle();
  } else if (phase_ == Phase::reading && unsent() == 0 && in_.empty()) {
    advance(data);
    if (phase_ == Phase::websocket) resume();  // a frame behind its handshake
    go_on_later();
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
  for (int left = kRequestsATurn;
       left != 0 && phase_ == Phase::reading && !data.empty() && unsent() < kMaxPipelinedOut;) {
    std::size_t used = 0;
    const KnownHead* const known = reader_.idle() ? shard_->parser().recall(data) : nullptr;
    const RequestReader::Progress progress =
        reader_.feed(data, used, known != nullptr ? &known->head : nullptr);
    data.remove_prefix(used);
    if (progress == RequestReader::Progress::complete) {
      --left;
      dispatch(known);
    } else if (progress == RequestReader::Progress::failed) {
      fail(reader_.error());
    } else if (reader_.take_continue()) {
      queue("HTTP/1.1 100 Continue\r\n\r\n");
    }
  }
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
  const bool frames = phase_ == Phase::websocket;
  if (!in_.empty() && (frames || (phase_ == Phase::reading && unsent() == 0))) {
    const std::string data = std::move(in_);
    in_.clear();
    if (frames) {
      receive_frames(data);
    } else {
      advance(data);
    }
  }
  go_on_later();
  if (phase_ != Phase::closed && (watched_ & EPOLLIN) == 0 && in_.size() < kMaxReadAhead)
    watch(watched_ | EPOLLIN);
}

/// Whether requests wait although nothing is in their way but others' turns.
bool Connection::has_more() const noexcept {
  return !in_.empty() && ((phase_ == Phase::reading && unsent() == 0) || phase_ == Phase::websocket);
}

void Connection::go_on_later() {
  if (!has_more() || resumes_) return;
  resumes_ = true;
  port_->post([self = shared_from_this()] {
    self->resumes_ = false;
    if (self->phase_ == Phase::closed) return;
    self->resume();
    self->settle();
  });
}

void Connection::lose_freshness() {
  if (!fresh_) return;
  fresh_ = false;
  context_->fresh.fetch_sub(1, std::memory_order_relaxed);
}

void Connection::dispatch(const KnownHead* known) {
  context_->requests.mine().fetch_add(1, std::memory_order_relaxed);
  AnswerForm form;
  form.http11 = reader_.http11();
  form.close = !reader_.keep_alive();
  form.head = reader_.method() == "HEAD";
  HttpRequest request;
  bool gzip = false;
  if (!shard_->parser().parse(reader_, request, gzip, known)) {
    fail({400, "invalid_request", "The request is malformed"});
    return;
  }
  TrustedProxies::Client client = context_->proxies.client_of(peer_, request.headers, secure_);
  request.remote_address = std::move(client.address);
  request.over_tls = client.tls;
  const std::string_view offered_id = reader_.find("X-Request-Id");
  std::string request_id(offered_id);
  form.gzip = gzip && !form.head;
  std::string websocket_key(reader_.find("Sec-WebSocket-Key"));
  if (!websocket_key.empty() && (!form.http11 || websocket_refusal(request) != 0)) websocket_key.clear();
  reader_.next();

  std::uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = ++exchange_;
    answering_ = true;
    ended_ = close_after_ = false;
  }
  phase_ = Phase::busy;
  Handed handed{shard_->handler(), std::move(request),
                make_exchange(shared_from_this(), id, form, std::move(request_id), std::move(websocket_key))};
  if (Poller* poller = Poller::stepping()) {
    handed_ = std::make_unique<Handed>(std::move(handed));
    poller->put_off<&Connection::answer_handed>(shared_from_this());
  } else {
    hand_over(std::move(handed));
    if (phase_ != Phase::closed) collect();
  }
}

/// To the handler, which may answer at once.
void Connection::hand_over(Handed handed) {
  called_ = true;
  try {
    handed.handler.handle_async(std::move(handed.request), std::move(handed.responder));
  } catch (...) {
    // The responder answers 500 when it is dropped. The text may hold anything: it is not ours to log.
    context_->log(LogLevel::error, "A request handler threw an exception");
  }
  called_ = false;
  lose_freshness();
}

/// hand_over() as a step.
void Connection::answer_handed() {
  const auto handed = std::move(handed_);
  hand_over(std::move(*handed));
  pump();
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
  lose_freshness();
  phase_ = Phase::closing;
  linger_ = true;
  in_ = {};
}

void Connection::refuse() {
  if (phase_ == Phase::closed) return;
  const auto keep = shared_from_this();
  if (tls_ != nullptr) {
    close();  // not worth a handshake
    return;
  }
  fail({503, "overloaded", "The server has too many connections"});
  write_out();
  settle();
}

void Connection::drain() {
  const auto keep = shared_from_this();
  if (phase_ == Phase::reading && reader_.idle() && in_.empty() && unsent() == 0) settle();
}

void Connection::shut_down() {
  const auto keep = shared_from_this();
  if (phase_ == Phase::websocket) {
    end_websocket(1001, websocket_close_frame(1001, "The server stops"), false);
    write_out();
  }
  close();
}

void Connection::on_deadline() {
  const auto keep = shared_from_this();
  switch (wait) {
    case Wait::receiving:
      fail({408, "request_timeout", "The request did not arrive in time"});
      write_out();
      settle();
      break;
    case Wait::quiet:
      ask_for_pong();
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

// --- state -----------------------------------------------------------------------------------------------

void Connection::settle() {
  if (phase_ == Phase::closed) return;
  const HttpServerOptions& options = context_->options;
  if (phase_ == Phase::lingering) {
    if (wait != Wait::lingering) shard_->enlist(*this, Wait::lingering, kLinger);
  } else if (phase_ == Phase::handshake) {
    if (wait != Wait::handshake) shard_->enlist(*this, Wait::handshake, options.tls.handshake_timeout);
  } else if (unsent() != 0) {
    // A slow reader may take as long as it likes while it takes something at all.
    if (wait != Wait::writing || progress_) shard_->enlist(*this, Wait::writing, options.request_timeout);
  } else if (phase_ == Phase::websocket) {
    if (socket_->awaits_pong) {
      if (wait != Wait::pong) shard_->enlist(*this, Wait::pong, options.websocket_pong);
    } else if (wait != Wait::quiet) {
      shard_->enlist(*this, Wait::quiet, options.websocket_ping);
    }
  } else if (phase_ != Phase::reading || has_more()) {
    if (wait != Wait::busy) shard_->enlist(*this, Wait::busy, std::chrono::steady_clock::duration::max());
  } else if (!reader_.idle()) {
    // Once per request: a byte now and then moves nothing.
    if (wait != Wait::receiving) shard_->enlist(*this, Wait::receiving, options.request_timeout);
  } else if (context_->draining.load(std::memory_order_relaxed)) {
    if (!fresh_) {
      close();
    } else if (wait != Wait::fresh) {
      shard_->enlist(*this, Wait::fresh, kFresh);
    }
  } else {
    shard_->enlist(*this, Wait::idle, options.idle_timeout);
  }
  progress_ = false;
}

void Connection::watch(std::uint32_t events) {
  if (events == watched_) return;
  watched_ = events;
  shard_->poller().modify(token_, fd_, events);
}

void Connection::close() {
  if (phase_ == Phase::closed) return;
  if (tls_ != nullptr && phase_ == Phase::reading && unsent() == 0) {
    // An end between requests; one in the middle of an answer must not look like it.
    tls_->say_goodbye();
    (void)::send(fd_, tls_->out().data(), tls_->out().size(), MSG_NOSIGNAL);
  }
  phase_ = Phase::closed;
  lose_freshness();
  std::function<void()> callback;
  std::vector<std::string> dropped;
  WebSocketChannel* channel = nullptr;
  {
    const std::lock_guard lock(mutex_);
    gone_ = true;
    dropped.swap(outbox_);
    if (answering_ && !ended_) callback = std::move(disconnected_);
    disconnected_ = nullptr;
    channel = channel_.get();
  }
  shard_->poller().remove(token_, fd_);
  ::close(fd_);
  fd_ = -1;
  in_ = {};
  out_ = {};
  out_index_ = out_offset_ = 0;
  tls_.reset();
  reader_.next();
  shard_->remove(*this);
  Poller& poller = shard_->poller();
  shard_ = nullptr;
  if (callback) {
    if (called_) {
      port_->post(std::move(callback));  // never inside a handler's own call
    } else {
      callback();
    }
  }
  if (channel != nullptr) report_close(*channel, 1006);
  poller.bury(std::move(self_));
}

}  // namespace mcpgw::detail::server
