// The writing half of a Connection: answers are queued by any thread, taken over and sent by the loop.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>

#include "server/connection.hpp"
#include "server/shard.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr std::size_t kMaxSegments = 32;
constexpr std::size_t kEncryptAhead = 64 * 1024;  // encrypted but not sent
constexpr std::size_t kKeepEncrypted = 4 * 1024;  // a larger buffer is given back when it is empty

}  // namespace

void Connection::queue(std::string bytes) {
  queued_.fetch_add(bytes.size(), std::memory_order_relaxed);
  out_.push_back(std::move(bytes));
}

/// Under mutex_.
bool Connection::is_full() const {
  if (channel_ == nullptr) return unsent() >= context_->options.max_write_buffer;
  return unsent() >= channel_->max_queued_bytes ||
         outbox_.size() + channel_->unsent_messages.load(std::memory_order_relaxed) >=
             channel_->max_queued_messages;
}

bool Connection::push(std::uint64_t id, Piece piece) {
  const std::size_t size = piece.first.size() + piece.second.size();
  const bool here = port_->here();
  // Inside a handler's call whoever called it goes on with what was queued.
  Poller* const poller = here && !called_ ? Poller::stepping() : nullptr;
  const bool pumps_now = here && !called_ && poller == nullptr;
  bool accepted = true;
  bool post = false;
  {
    const std::lock_guard lock(mutex_);
    if (gone_ || aborted_ || !answering_ || ended_ || id != exchange_) return false;
    if (!piece.end && is_full()) {
      accepted = false;
      if (channel_ == nullptr) {
        aborted_ = true;
      } else {
        overflowed_ = ended_ = true;
      }
    } else {
      queued_.fetch_add(size, std::memory_order_relaxed);
      if (!piece.first.empty()) outbox_.push_back(std::move(piece.first));
      if (!piece.second.empty()) outbox_.push_back(std::move(piece.second));
      ended_ = piece.end;
      close_after_ = close_after_ || piece.close;
      close_code_ = piece.code;
      if (piece.channel != nullptr) channel_ = std::move(piece.channel);
    }
    if (!here || poller != nullptr) {
      post = !pump_posted_;
      pump_posted_ = true;
    }
  }
  if (post && poller != nullptr) {
    poller->put_off<&Connection::pump>(shared_from_this());
  } else if (post) {
    port_->post([self = shared_from_this()] { self->pump(); });
  } else if (pumps_now) {
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
  bool overflowed = false;
  int code = 0;
  {
    const std::lock_guard lock(mutex_);
    pump_posted_ = false;
    aborted = aborted_;
    overflowed = overflowed_;
    code = close_code_;
    socket_ = channel_.get();
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
  if (socket_ != nullptr) {
    if (phase_ == Phase::busy) phase_ = Phase::websocket;
    if (phase_ != Phase::websocket) return;
    if (overflowed) {
      context_->log(LogLevel::debug, "A WebSocket whose client does not read was closed");
      end_websocket(1013, websocket_close_frame(1013, "Too slow"), true);
    } else if (ended) {
      phase_ = Phase::closing;
      linger_ = true;
      report_close(*socket_, code);
    }
    note_unsent();
  } else if (ended && phase_ == Phase::busy) {
    phase_ = closes ? Phase::closing : Phase::reading;
    if (closes && !in_.empty()) linger_ = true;
  }
}

/// Runs on the loop: posted by other threads, as a step, or inside a call of the loop's own.
void Connection::pump() {
  const auto keep = shared_from_this();
  if (phase_ != Phase::closed) collect();
  if (phase_ != Phase::closed) write_out();
  const bool reads = phase_ == Phase::websocket || (phase_ == Phase::reading && unsent() == 0);
  if (reads && (!in_.empty() || (watched_ & EPOLLIN) == 0)) {
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

void Connection::note_unsent() {
  if (socket_ != nullptr) socket_->unsent_messages.store(out_.size() - out_index_, std::memory_order_relaxed);
}

void Connection::write_out() {
  const bool done = tls_ != nullptr ? write_encrypted() : write_plain();
  note_unsent();
  if (!done) return;
  out_.clear();
  out_index_ = 0;
  if (out_.capacity() > 64) out_ = {};
  if ((watched_ & EPOLLOUT) != 0) watch(watched_ & ~static_cast<std::uint32_t>(EPOLLOUT));
  if (phase_ == Phase::closing) finish_writing();
}

bool Connection::write_plain() {
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
    if (!note_sent(sent)) {
      if (phase_ == Phase::closed || (watched_ & EPOLLOUT) != 0) return false;
      continue;
    }
    queued_.fetch_sub(static_cast<std::size_t>(sent), std::memory_order_relaxed);
    advance_out(static_cast<std::size_t>(sent));
  }
  return true;
}

bool Connection::write_encrypted() {
  std::string& cipher = tls_->out();
  std::size_t at = 0;
  const auto give_back = [&] {
    if (at == cipher.size() && cipher.capacity() > kKeepEncrypted) {
      cipher = {};
    } else {
      cipher.erase(0, at);
    }
  };
  for (;;) {
    while (tls_->ready() && out_index_ < out_.size() && cipher.size() - at < kEncryptAhead) {
      const std::size_t before = cipher.size();
      const ssize_t taken = tls_->write(std::string_view(out_[out_index_]).substr(out_offset_));
      if (taken < 0) {
        close();
        return false;
      }
      // What waits is counted as it is: encrypted text is longer.
      queued_.fetch_add(cipher.size() - before - static_cast<std::size_t>(taken), std::memory_order_relaxed);
      advance_out(static_cast<std::size_t>(taken));
    }
    if (at == cipher.size()) {
      if (phase_ != Phase::closing || said_goodbye_) break;
      said_goodbye_ = true;
      const std::size_t before = cipher.size();
      tls_->say_goodbye();
      queued_.fetch_add(cipher.size() - before, std::memory_order_relaxed);
      continue;
    }
    const ssize_t sent = ::send(fd_, cipher.data() + at, cipher.size() - at, MSG_NOSIGNAL);
    if (!note_sent(sent)) {
      if (phase_ == Phase::closed) return false;
      if ((watched_ & EPOLLOUT) == 0) continue;
      give_back();
      return false;
    }
    queued_.fetch_sub(static_cast<std::size_t>(sent), std::memory_order_relaxed);
    at += static_cast<std::size_t>(sent);
  }
  give_back();
  return true;
}

/// False when nothing was sent: the socket is full and watched, the connection has ended, or try again.
bool Connection::note_sent(ssize_t sent) {
  if (sent >= 0) {
    progress_ = progress_ || sent != 0;
    return true;
  }
  if (errno == EAGAIN) {
    watch(watched_ | EPOLLOUT);
  } else if (errno != EINTR) {
    close();
  }
  return false;
}

void Connection::advance_out(std::size_t size) {
  while (size != 0) {
    const std::size_t here = out_[out_index_].size() - out_offset_;
    if (size < here) {
      out_offset_ += size;
      return;
    }
    size -= here;
    out_[out_index_] = {};  // a long queue gives its memory back as it drains
    ++out_index_;
    out_offset_ = 0;
  }
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

}  // namespace mcpgw::detail::server
