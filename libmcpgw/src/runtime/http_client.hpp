// HttpClient: HTTP/1.1 on the event loops. Connections are pooled per loop and kept alive; bodies are read
// whole or piece by piece (SSE). Redirects are not followed: a 3xx is an answer like any other.
//
// The address that is connected to is checked after name resolution (docs/credentials.md, "Addresses").
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mcpgw/http.hpp"
#include "mcpgw/result.hpp"
#include "runtime/loop.hpp"
#include "runtime/sse_decoder.hpp"
#include "runtime/url.hpp"

namespace mcpgw::detail {

struct HttpClientOptions {
  std::chrono::milliseconds connect_timeout{5000};  ///< name resolution, connect and TLS handshake together
  std::chrono::milliseconds idle_timeout{55000};    ///< an idle pooled connection is closed after it
  std::size_t max_idle_per_loop = 256;
  std::size_t max_header_bytes = 64 * 1024;
  bool allow_private = false;
  bool allow_metadata = false;
  /// As Proxy::parse() takes them; an empty `proxy`: none. The proxy's own address may be a private one.
  std::string proxy;
  std::vector<std::string> no_proxy;
  /// Names are resolved by the proxy, which then alone decides what may be reached. Otherwise they are
  /// resolved here, and the proxy is asked for the address that was checked.
  bool proxy_resolves = false;
  // TLS; all PEM texts.
  std::string ca;       ///< empty: the system's
  std::string ca_file;  ///< PEM file, in addition
  bool verify = true;
  std::string client_cert;
  std::string client_key;
};

/// What many requests have in common: their heads are checked and written once as far as they are the same.
class RequestBase {
 public:
  /// invalid_argument/"invalid_request", as of HttpClient::send().
  static Result<RequestBase> create(std::string method, Url url, HttpHeaders headers);
  const std::string& method() const noexcept { return method_; }
  const Url& url() const noexcept { return url_; }
  const HttpHeaders& headers() const noexcept { return headers_; }
  /// Request line and header lines.
  const std::string& text() const noexcept { return text_; }

 private:
  RequestBase() = default;

  std::string method_;
  Url url_;
  HttpHeaders headers_;
  std::string text_;
};

struct ClientRequest {
  std::string method = "GET";
  Url url;
  HttpHeaders headers;  ///< Host, Content-Length and Connection are set by the client
  /// If there is one, it outlives the exchange; `method` and `url` are its, and `headers` come behind its.
  const RequestBase* base = nullptr;
  std::string body;
  /// Until the whole answer has been read, unless the exchange's deadline is moved. Max: none.
  SteadyTime deadline = SteadyTime::max();
};

/// An answer whose body is still being read. Lives on the loop that made it. Destroying it before the end of
/// the body closes the connection; after the end the connection goes back to the pool.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  int status = 0;
  HttpHeaders headers;

  /// The next piece of the body; empty string at its end. Errors as in HttpClient::send.
  virtual Task<Result<std::string>> read_some() = 0;
  /// The rest of the body. resource_exhausted/"response_too_large" beyond `max_bytes`.
  virtual Task<Result<std::string>> read_all(std::size_t max_bytes) = 0;
  /// What read_all() would bring, when all of it came with the head: most answers, and no coroutine is
  /// needed.
  virtual std::optional<std::string> take_whole(std::size_t max_bytes) = 0;
  /// Moves the deadline for everything that follows.
  virtual void set_deadline(SteadyTime deadline) = 0;
};

/// Aborts an exchange, or one that is still being made, from any thread: the waiting operation ends with
/// cancelled/"cancelled". May be used for one send() only.
class CancelSource {
 public:
  CancelSource();
  void cancel();
  bool cancelled() const noexcept;
  struct State;
  const std::shared_ptr<State>& state() const noexcept { return state_; }

 private:
  std::shared_ptr<State> state_;
};

/// Safe from any thread; send() is awaited on a loop of the runtime.
class HttpClient {
 public:
  /// invalid_argument when TLS material or the proxy cannot be used.
  static Result<std::shared_ptr<HttpClient>> create(std::shared_ptr<Runtime> runtime,
                                                    HttpClientOptions options);
  virtual ~HttpClient() = default;

  /// Sends the request and returns when the head of the answer is there.
  /// Errors: unavailable/"upstream_unreachable" (not resolved, refused, TLS; nothing was sent),
  /// unavailable/"address_not_allowed", unavailable/"upstream_closed" (ended early),
  /// deadline_exceeded/"upstream_timeout", cancelled/"cancelled",
  /// invalid_argument/"upstream_protocol_error" (not HTTP), resource_exhausted/"response_too_large".
  /// The message names no URL or address; `detail` does, for the log.
  virtual Task<Result<std::unique_ptr<HttpExchange>>> send(ClientRequest request,
                                                           CancelSource* cancel = nullptr,
                                                           std::string* detail = nullptr) = 0;
  /// Closes idle connections and lets running exchanges end.
  virtual void close_idle() = 0;
};

/// Whether an address may be connected to by these options. `address` is an IP literal.
bool address_allowed(std::string_view address, bool allow_private, bool allow_metadata);

}  // namespace mcpgw::detail
