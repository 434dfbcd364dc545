// HTTP as plain values: the seam between mcpgw and any HTTP stack. The bundled server, an embedder's
// framework and tests all make an HttpRequest and consume what comes back through a Responder.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mcpgw {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

/// The first value of a header, names compared ignoring ASCII case; nullptr when absent.
const std::string* find_header(const HttpHeaders& headers, std::string_view name) noexcept;

/// A complete request. `target` is as on the request line (path and query, still percent-encoded).
struct HttpRequest {
  std::string method;
  std::string target;
  HttpHeaders headers;
  std::string body;
  std::string remote_address;  ///< of the client, after trusted proxies were applied; no port
  bool over_tls = false;

  std::string_view path() const noexcept { return std::string_view(target).substr(0, target.find('?')); }
  std::string_view query() const noexcept {
    const auto at = target.find('?');
    return at == std::string::npos ? std::string_view{} : std::string_view(target).substr(at + 1);
  }
  const std::string* header(std::string_view name) const noexcept { return find_header(headers, name); }
};

struct HttpResponse {
  int status = 200;
  HttpHeaders headers;
  std::string body;

  const std::string* header(std::string_view name) const noexcept { return find_header(headers, name); }
  void set_header(std::string name, std::string value);  ///< replaces
};

/// The open body of a streamed answer. All functions may be called from any thread, none blocks.
class ResponseStream {
 public:
  virtual ~ResponseStream() = default;
  /// Queues bytes. False when the client is gone or does not read fast enough (its queue bound was met
  /// and it has been dropped): nothing more will be delivered.
  virtual bool write(std::string data) = 0;
  /// Ends the body. Further writes return false.
  virtual void close() = 0;
};

/// An open WebSocket (RFC 6455). All functions may be called from any thread, none blocks. Dropping the last
/// reference closes it with 1001.
class WebSocket {
 public:
  virtual ~WebSocket() = default;
  /// Queues a text message. False when it will not be delivered: either side has closed, the text is not
  /// UTF-8, or the client does not read fast enough (a bound of its queue was met; it is closed with 1013).
  virtual bool send_text(std::string text) = 0;
  /// Begins the closing handshake; what was queued is delivered first. `code` is 1000 to 1014 without 1004 to
  /// 1006, or 3000 to 4999, else 1011 is sent; of `reason` at most 123 bytes go out. Idempotent.
  virtual void close(int code = 1000, std::string_view reason = {}) = 0;
};

struct WebSocketOptions {
  HttpHeaders headers;                         ///< of the 101 answer, besides those of the handshake
  std::size_t max_message = 64 * 1024;         ///< of the client; closed with 1009 beyond it
  std::size_t max_queued_bytes = 1024 * 1024;  ///< not yet taken by the client; closed with 1013 beyond it
  std::size_t max_queued_messages = 256;       ///< likewise
  /// Each text message, one at a time, on an unspecified thread; must not block. Binary messages close with
  /// 1003. Null: messages of either kind are read and ignored.
  std::function<void(std::string)> on_text;
  /// Once, when the socket is over: the code that was sent or received, 1005 when the client gave none, 1006
  /// when the connection broke. May run before accept_websocket() returns. Must not block.
  std::function<void(int)> on_close;
};

/// Whether a request may become a WebSocket: 0 when it may, else the status that refuses it: 426 when it asks
/// for none or for another version than 13 (answer with `Upgrade: websocket` and `Sec-WebSocket-Version:
/// 13`), 400 when its handshake is malformed.
int websocket_refusal(const HttpRequest& request);

/// How one request is answered: exactly one of send(), start() and accept_websocket() is called, once, from
/// any thread. A Responder that is destroyed unanswered answers 500.
class Responder {
 public:
  virtual ~Responder() = default;
  virtual void send(HttpResponse response) = 0;
  /// Begins a streamed answer; `head.body` is its first part.
  virtual std::shared_ptr<ResponseStream> start(HttpResponse head) = 0;
  /// Answers 101 and makes the connection a WebSocket. nullptr when that cannot be (websocket_refusal() is
  /// not 0, or this HTTP stack has no WebSockets): the request is still to be answered.
  virtual std::shared_ptr<WebSocket> accept_websocket(WebSocketOptions options);
  /// `callback` runs once when the client disconnects or is dropped before the answer ended; at once when
  /// that has already happened. It runs on an unspecified thread and must not block. Pass nullptr to clear.
  virtual void on_disconnect(std::function<void()> callback) = 0;
};

/// What an HTTP server shell drives. Must be safe from any thread and must not block.
class RequestHandler {
 public:
  virtual ~RequestHandler() = default;
  virtual void handle_async(HttpRequest request, std::shared_ptr<Responder> responder) = 0;
};

}  // namespace mcpgw
