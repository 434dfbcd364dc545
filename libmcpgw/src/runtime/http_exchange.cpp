#include "runtime/http_exchange.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "runtime/http_connect.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kReadBuffer = 64 * 1024;
constexpr int kMaxInterim = 16;  // 1xx answers before the real one

/// Shared by all connections of a loop: bytes are taken out of it before the next suspension, so that a
/// waiting connection holds no buffer.
char* read_buffer() {
  static thread_local const std::unique_ptr<char[]> buffer(new char[kReadBuffer]);
  return buffer.get();
}

Error too_large() {
  return {ErrorCode::resource_exhausted, "response_too_large", "The server's answer is too large"};
}

}  // namespace

Error protocol_error() {
  return {ErrorCode::invalid_argument, "upstream_protocol_error", "The server's answer is not valid HTTP"};
}

// --- cancelling ------------------------------------------------------------------------------------------

CancelSource::CancelSource() : state_(std::make_shared<State>()) {}

void CancelSource::cancel() {
  // Posted under the lock: the exchange detaches under it before its loop can go away.
  const std::lock_guard lock(state_->mutex);
  if (state_->cancelled) return;
  state_->cancelled = true;
  if (state_->loop == nullptr) return;
  state_->loop->post([target = state_->target, use = state_->use] {
    if (const auto connection = target.lock()) connection->abort(use);
  });
}

bool CancelSource::cancelled() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->cancelled;
}

bool CancelSource::State::attach(const std::shared_ptr<Connection>& connection) {
  const std::lock_guard lock(mutex);
  if (cancelled) return false;
  loop = &connection->loop();
  target = connection;
  use = connection->use();
  return true;
}

void CancelSource::State::detach() {
  const std::lock_guard lock(mutex);
  loop = nullptr;
  target.reset();
}

// --- the connection --------------------------------------------------------------------------------------

Exchange::~Exchange() { drop(); }

void Exchange::drop() noexcept {
  if (!connection_) return;
  if (cancel_) cancel_->detach();
  connection_->shutdown();
  connection_.reset();
}

void Exchange::finish() {
  done_ = true;
  if (!connection_) return;
  if (cancel_) cancel_->detach();
  if (reusable_ && pending_.empty() && connection_->stop() == Connection::Stop::none) {
    pool_->give_back(std::move(connection_));
  } else {
    connection_->shutdown();
  }
  connection_.reset();
}

Error Exchange::fail(Error error) {
  drop();
  error_ = error;
  return error;
}

Error Exchange::closed_error(std::string why) {
  failure_ = std::move(why);
  return fail({ErrorCode::unavailable, "upstream_closed",
               "The server closed the connection before its answer ended"});
}

void Exchange::set_deadline(SteadyTime deadline) {
  if (connection_) connection_->set_deadline(deadline);
}

std::optional<Status> Exchange::receive(std::string_view& piece) {
  if (connection_->stop() == Connection::Stop::timeout) return fail(timeout_error());
  if (connection_->stop() == Connection::Stop::cancelled) return fail(cancelled_error());
  if (!connection_->readable()) return std::nullopt;
  const ssize_t n = connection_->read(read_buffer(), kReadBuffer);
  if (n >= 0) {
    piece = std::string_view(read_buffer(), static_cast<std::size_t>(n));
    return Status();
  }
  if (n == Connection::kAgain) return std::nullopt;
  return closed_error(connection_->tls() != nullptr
                          ? "TLS: " + connection_->tls()->failure()
                          : std::generic_category().message(connection_->io_error()));
}

// --- the request -----------------------------------------------------------------------------------------

ssize_t Exchange::write_now(std::string_view& first, std::string_view& second) {
  const ssize_t n = connection_->write(first, second);
  if (n < 0) return n;
  const std::size_t of_first = std::min(first.size(), static_cast<std::size_t>(n));
  first.remove_prefix(of_first);
  second.remove_prefix(static_cast<std::size_t>(n) - of_first);
  return n;
}

Task<Status> Exchange::write_request(std::string_view first, std::string_view second, bool& unsent) {
  unsent = false;
  while (!first.empty() || !second.empty()) {
    if (connection_->stop() == Connection::Stop::timeout) co_return fail(timeout_error());
    if (connection_->stop() == Connection::Stop::cancelled) co_return fail(cancelled_error());
    const ssize_t n = write_now(first, second);
    if (n >= 0) continue;
    if (n != Connection::kAgain) {
      if (connection_->written() == 0) {
        unsent = true;
        co_return closed_error(std::generic_category().message(connection_->io_error()));
      }
      break;  // the peer has stopped reading; its answer may tell why
    }
    // A server may answer, say 413, before it has read everything. Waiting for room alone would not see that.
    if (connection_->readable()) {
      const ssize_t got = connection_->read(read_buffer(), kReadBuffer);
      if (got == 0 || got == -1) break;
      if (got > 0) {
        pending_.append(read_buffer(), static_cast<std::size_t>(got));
        parsed_ = parse_heads();
        if (parsed_ != Parse::more) break;
        continue;
      }
    }
    if (connection_->tls() == nullptr || connection_->tls()->wants_write()) connection_->want_write();
    co_await connection_->wait();
  }
  if (!first.empty() || !second.empty()) reusable_ = false;
  co_return Status();
}

// --- the head --------------------------------------------------------------------------------------------

Parse Exchange::parse_heads() {
  for (;;) {
    const Parse parsed = parser_->parse(pending_, head_request_, head_);
    if (parsed != Parse::done) return parsed;
    pending_.erase(0, parser_->size());
    // 101 would end HTTP on this connection, and nobody asked for that.
    if (head_.status >= 200) return Parse::done;
    if (head_.status == 101 || ++interim_ > kMaxInterim) return Parse::malformed;
    parser_.emplace(max_header_bytes_);
  }
}

Task<Status> Exchange::read_head() {
  while (parsed_ == Parse::more) {
    std::string_view piece;
    std::optional<Status> received;
    while (!(received = receive(piece))) co_await connection_->wait();
    if (!*received) co_return *received;
    if (piece.empty()) co_return closed_error("closed before the answer's head");
    pending_.append(piece);
    parsed_ = parse_heads();
  }
  if (parsed_ == Parse::malformed) co_return fail(protocol_error());
  if (parsed_ == Parse::too_large) co_return fail(too_large());
  status = head_.status;
  headers = std::move(head_.headers);
  left_ = head_.length;
  if (!head_.keep_alive) reusable_ = false;
  if (head_.framing == Framing::none) {
    if (!pending_.empty()) reusable_ = false;  // nothing was asked for that could be answered by this
    pending_.clear();
    finish();
  } else if (head_.framing == Framing::length && pending_.size() >= left_) {
    // All of it came along: the connection is free at once.
    if (pending_.size() > left_) reusable_ = false;
    std::string body = std::move(pending_);
    body.resize(static_cast<std::size_t>(left_));
    pending_.clear();
    left_ = 0;
    finish();
    pending_ = std::move(body);
  }
  co_return Status();
}

// --- the body --------------------------------------------------------------------------------------------

Status Exchange::take_body(std::string_view bytes, std::string& out) {
  std::size_t used = bytes.size();
  bool ended = false;
  switch (head_.framing) {
    case Framing::none:
      break;
    case Framing::length:
      used = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size()));
      out.append(bytes.substr(0, used));
      left_ -= used;
      ended = left_ == 0;
      break;
    case Framing::chunked: {
      const Parse parsed = chunks_.feed(bytes, out, used);
      if (parsed == Parse::malformed) return fail(protocol_error());
      if (parsed == Parse::too_large) return fail(too_large());
      ended = parsed == Parse::done;
      break;
    }
    case Framing::until_close:
      out.append(bytes);
      break;
  }
  if (used < bytes.size()) reusable_ = false;
  if (ended) finish();
  return {};
}

Status Exchange::take_pending(std::string& out) {
  if (done_) {  // the body that came with the head
    out.append(pending_);
    pending_.clear();
    return {};
  }
  const std::string bytes = std::move(pending_);
  pending_.clear();
  return take_body(bytes, out);
}

Status Exchange::body_ended_by_close() {
  if (head_.framing != Framing::until_close) return closed_error("closed before the answer's end");
  finish();
  return {};
}

Task<Result<std::string>> Exchange::read_some() {
  std::string out;
  if (error_) co_return *error_;
  if (!pending_.empty()) {
    if (auto taken = take_pending(out); !taken) co_return taken.error();
  }
  while (out.empty() && !done_) {
    std::string_view piece;
    std::optional<Status> received;
    while (!(received = receive(piece))) co_await connection_->wait();
    if (!*received) co_return received->error();
    if (auto taken = piece.empty() ? body_ended_by_close() : take_body(piece, out); !taken)
      co_return taken.error();
  }
  co_return out;
}

std::optional<std::string> Exchange::take_whole(std::size_t max_bytes) {
  if (error_ || !done_ || pending_.size() > max_bytes) return std::nullopt;
  return std::exchange(pending_, {});
}

Task<Result<std::string>> Exchange::read_all(std::size_t max_bytes) {
  std::string out;
  if (error_) co_return *error_;
  if (left_ > max_bytes) co_return fail(too_large());
  if (auto whole = take_whole(max_bytes)) co_return std::move(*whole);
  if (!pending_.empty()) {
    if (auto taken = take_pending(out); !taken) co_return taken.error();
  }
  // What is announced is not believed beyond this: memory follows what has come.
  out.reserve(static_cast<std::size_t>(std::min<std::uint64_t>(out.size() + left_, 1024 * 1024)));
  while (!done_ && out.size() <= max_bytes) {
    std::string_view piece;
    std::optional<Status> received;
    while (!(received = receive(piece))) co_await connection_->wait();
    if (!*received) co_return received->error();
    if (auto taken = piece.empty() ? body_ended_by_close() : take_body(piece, out); !taken)
      co_return taken.error();
  }
  if (out.size() > max_bytes) co_return fail(too_large());
  co_return out;
}

}  // namespace mcpgw::detail
