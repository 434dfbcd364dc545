// Responder and ResponseStream over a Connection. Answers are rendered on the thread that gives them.
#include <array>
#include <atomic>
#include <charconv>

#include "base/text.hpp"
#include "server/compress.hpp"
#include "server/connection.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr std::size_t kCopyLimit =
    16 * 1024;  // a body up to this is copied behind its head: one piece, one send

/// One chunk of the chunked coding.
Connection::Piece chunk(std::string data) {
  std::array<char, 20> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), data.size(), 16).ptr;
  Connection::Piece piece;
  if (data.size() <= kCopyLimit) piece.first.reserve(data.size() + 24);
  piece.first.assign(digits.data(), end);
  piece.first += "\r\n";
  if (data.size() <= kCopyLimit) {
    piece.first += data;
    piece.first += "\r\n";
  } else {
    piece.second = std::move(data);
    piece.second += "\r\n";
  }
  return piece;
}

class Stream final : public ResponseStream {
 public:
  /// `closed`: of no exchange, because that has its answer already.
  Stream(std::shared_ptr<Connection> connection, std::uint64_t id, bool chunked, bool closed)
      : connection_(std::move(connection)), id_(id), chunked_(chunked), closed_(closed) {}
  ~Stream() override {
    // Nobody said that the body was complete: the client must not take it for complete.
    if (!closed_) connection_->abort(id_);
  }

  bool write(std::string data) override {
    if (closed_) return false;
    if (data.empty()) return connection_->push(id_, {});
    if (chunked_) return connection_->push(id_, chunk(std::move(data)));
    return connection_->push(id_, {std::move(data), {}});
  }

  void close() override {
    if (closed_.exchange(true)) return;
    connection_->push(id_, {chunked_ ? "0\r\n\r\n" : "", {}, true, !chunked_});
  }

 private:
  const std::shared_ptr<Connection> connection_;
  const std::uint64_t id_;
  const bool chunked_;
  std::atomic<bool> closed_;
};

class Socket final : public WebSocket {
 public:
  Socket(std::shared_ptr<Connection> connection, std::uint64_t id)
      : connection_(std::move(connection)), id_(id) {}
  ~Socket() override { close(1001, {}); }

  bool send_text(std::string text) override {
    if (closed_ || !is_utf8(text)) return false;
    return connection_->push(id_, {websocket_frame(WebSocketOpcode::text, text), {}});
  }

  void close(int code, std::string_view reason) override {
    if (closed_.exchange(true)) return;
    if (!is_websocket_close_code(code)) code = 1011;
    Connection::Piece piece{
        websocket_close_frame(code, is_utf8(reason) ? reason : std::string_view{}), {}, true};
    piece.code = code;
    connection_->push(id_, std::move(piece));
  }

 private:
  const std::shared_ptr<Connection> connection_;
  const std::uint64_t id_;
  std::atomic<bool> closed_{false};
};

class Exchange final : public Responder {
 public:
  Exchange(std::shared_ptr<Connection> connection, std::uint64_t id, AnswerForm form, std::string request_id,
           std::string websocket_key)
      : connection_(std::move(connection)),
        id_(id),
        form_(form),
        request_id_(std::move(request_id)),
        websocket_key_(std::move(websocket_key)) {}
  ~Exchange() override {
    if (!answered_) fail("The request was not answered");
  }

  void send(HttpResponse response) override {
    if (answered_.exchange(true)) return;
    answer(std::move(response));
  }

  std::shared_ptr<ResponseStream> start(HttpResponse head) override {
    AnswerForm form = form_;
    form.body = form.http11 ? BodyForm::chunked : BodyForm::until_close;
    if (head.status == 204 || head.status == 304) form.body = BodyForm::sized;
    form.close = form.close || form.body == BodyForm::until_close || draining();
    const bool body = has_body(head.status, form.head);
    const bool late = answered_.exchange(true);
    auto stream = std::make_shared<Stream>(connection_, id_, form.body == BodyForm::chunked, late);
    if (late) return stream;
    if (!is_final(head.status)) {
      fail("The handler gave no valid status");
      return stream;
    }
    std::string first = std::move(head.body);
    head.body.clear();
    Connection::Piece piece{render_head(head, form), {}, !body, form.close};
    if (body && !first.empty()) {
      Connection::Piece begin = chunk_or_plain(std::move(first), form.body);
      piece.first += begin.first;
      piece.second = std::move(begin.second);
    }
    connection_->push(id_, std::move(piece));
    return stream;
  }

  std::shared_ptr<WebSocket> accept_websocket(WebSocketOptions options) override {
    if (websocket_key_.empty() || answered_.exchange(true)) return nullptr;
    Connection::Piece piece{render_upgrade(options.headers, websocket_accept(websocket_key_)), {}};
    auto channel = std::make_shared<WebSocketChannel>(std::move(options));
    piece.channel = channel;
    auto socket = std::make_shared<Socket>(connection_, id_);
    if (!connection_->push(id_, std::move(piece)) && channel->on_close) channel->on_close(1006);
    return socket;
  }

  void on_disconnect(std::function<void()> callback) override {
    connection_->on_disconnect(id_, std::move(callback));
  }

 private:
  static bool is_final(int status) noexcept { return status >= 200 && status <= 599; }
  bool draining() const noexcept { return connection_->context().draining.load(std::memory_order_relaxed); }

  static Connection::Piece chunk_or_plain(std::string data, BodyForm form) {
    if (form == BodyForm::chunked) return chunk(std::move(data));
    return {std::move(data), {}};
  }

  void fail(std::string_view message) {
    answer(server_error(500, "internal", message, request_id_for(request_id_)));
  }

  void answer(HttpResponse response) {
    if (!is_final(response.status)) {
      fail("The handler gave no valid status");
      return;
    }
    if (has_body(response.status, form_.head) && may_compress(response)) {
      response.headers.emplace_back("Vary", "Accept-Encoding");
      if (form_.gzip && compress_elsewhere(response)) return;
    }
    push_answer(*connection_, id_, form_, std::move(response));
  }

  /// Compresses the answer here, or has a worker compress and send it (true) when this is a loop and it is
  /// long. When no worker is free it goes out as it is.
  bool compress_elsewhere(HttpResponse& response) {
    if (response.body.size() <= kCompressOnLoop || Loop::current() == nullptr) {
      compress(response);
      return false;
    }
    auto held = std::make_shared<HttpResponse>(std::move(response));
    if (connection_->context().workers.post([connection = connection_, id = id_, form = form_, held] {
          compress(*held);
          push_answer(*connection, id, form, std::move(*held));
        }))
      return true;
    response = std::move(*held);
    return false;
  }

  static void push_answer(Connection& connection, std::uint64_t id, AnswerForm form, HttpResponse response) {
    form.close = form.close || connection.context().draining.load(std::memory_order_relaxed);
    const bool body = has_body(response.status, form.head);
    const bool copy = body && response.body.size() <= kCopyLimit;
    Connection::Piece piece{
        render_head(response, form, copy ? response.body.size() : 0), {}, true, form.close};
    if (copy) {
      piece.first += response.body;
    } else if (body) {
      piece.second = std::move(response.body);
    }
    connection.push(id, std::move(piece));
  }

  const std::shared_ptr<Connection> connection_;
  const std::uint64_t id_;
  const AnswerForm form_;
  const std::string request_id_;
  const std::string websocket_key_;
  std::atomic<bool> answered_{false};
};

}  // namespace

std::shared_ptr<Responder> make_exchange(std::shared_ptr<Connection> connection, std::uint64_t id,
                                         AnswerForm form, std::string request_id, std::string websocket_key) {
  return std::make_shared<Exchange>(std::move(connection), id, form, std::move(request_id),
                                    std::move(websocket_key));
}

}  // namespace mcpgw::detail::server
