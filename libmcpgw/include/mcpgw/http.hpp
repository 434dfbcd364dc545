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

/// How one request is answered: exactly one of send() and start() is called, once, from any thread.
/// A Responder that is destroyed unanswered answers 500.
class Responder {
 public:
  virtual ~Responder() = default;
  virtual void send(HttpResponse response) = 0;
  /// Begins a streamed answer; `head.body` is its first part.
  virtual std::shared_ptr<ResponseStream> start(HttpResponse head) = 0;
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
