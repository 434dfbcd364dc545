// A raw TCP client and a scriptable handler for tests of the HTTP server.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/text.hpp"
#include "mcpgw/server.hpp"
#ifdef MCPGW_TEST_OVER_TLS
#include "unit/tls_support.hpp"
#endif

namespace mcpgw::testing {

#ifdef MCPGW_TEST_OVER_TLS
constexpr bool kOverTls = true;
#else
constexpr bool kOverTls = false;
#endif

/// Memory of this process.
inline std::size_t resident_kib() {
  FILE* in = std::fopen("/proc/self/statm", "r");
  unsigned long size = 0;
  unsigned long resident = 0;
  if (in == nullptr || std::fscanf(in, "%lu %lu", &size, &resident) != 2) resident = 0;
  if (in != nullptr) std::fclose(in);
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
}

struct RawAnswer {
  int status = 0;
  std::string line;
  HttpHeaders headers;
  std::string body;
  bool complete = true;  ///< false: the connection ended inside it
  std::string header(std::string_view name) const {
    const std::string* value = find_header(headers, name);
    return value == nullptr ? std::string("(none)") : *value;
  }
};

class RawClient {
 public:
  explicit RawClient(int port, int receive_buffer = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd_ < 0) throw std::runtime_error("no socket");
    if (receive_buffer != 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const timeval patience{60, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawClient() { close(); }
  RawClient(RawClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_), in_(std::move(other.in_)) {}
  RawClient(const RawClient&) = delete;

  bool connected() const { return connected_; }
  int fd() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  /// Closes with a reset instead of a FIN.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }
  void finish_sending() { ::shutdown(fd_, SHUT_WR); }

  /// False when the peer closed first.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  /// nullopt when the connection ended first. `head`: the answer has no body whatever its headers say.
  std::optional<RawAnswer> read(bool head = false) {
    std::size_t end = 0;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos)
      if (!fill()) return std::nullopt;
    RawAnswer out;
    std::size_t at = in_.find("\r\n");
    out.line = in_.substr(0, at);
    out.status = std::stoi(in_.substr(9, 3));
    at += 2;
    while (at < end + 2) {
      const auto stop = in_.find("\r\n", at);
      const auto colon = in_.find(':', at);
      out.headers.emplace_back(in_.substr(at, colon - at),
                               std::string(detail::trim(in_.substr(colon + 1, stop - colon - 1))));
      at = stop + 2;
    }
    in_.erase(0, end + 4);
    if (head || out.status == 204 || out.status == 304 || out.status < 200) return out;
    if (const std::string* length = find_header(out.headers, "Content-Length")) {
      out.complete = take(std::stoul(*length), out.body);
    } else if (find_header(out.headers, "Transfer-Encoding") != nullptr) {
      std::optional<std::string> piece;
      while ((piece = chunk()) && !piece->empty()) out.body += *piece;
      out.complete = piece.has_value();
    } else {
      while (fill()) {
      }
      out.body = std::move(in_);
      in_.clear();
    }
    return out;
  }

  /// The head of a streamed answer: its body is left to chunk().
  RawAnswer read_head() {
    auto answer = read(true);
    if (!answer) throw std::runtime_error("the connection ended");
    return *answer;
  }
  /// The next chunk; empty at the end; nullopt when the connection ended first.
  std::optional<std::string> chunk() {
    std::size_t end = 0;
    while ((end = in_.find("\r\n")) == std::string::npos)
      if (!fill()) return std::nullopt;
    const std::size_t size = std::stoul(in_.substr(0, end), nullptr, 16);
    in_.erase(0, end + 2);
    std::string data;
    if (!take(size + 2, data)) return std::nullopt;
    data.resize(size);
    return data;
  }

  /// Whether the connection ends with no more bytes.
  bool ended() {
    if (!in_.empty()) return false;
    return !fill() && !timed_out_;
  }
  bool readable(int milliseconds) {
    pollfd wait{fd_, POLLIN, 0};
    return ::poll(&wait, 1, milliseconds) == 1;
  }
  /// Exactly `size` bytes; false when the connection ended first.
  bool take_bytes(std::size_t size, std::string& out) { return take(size, out); }

 private:
  bool fill() {
    char buffer[65536];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    timed_out_ = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (n <= 0) return false;
    in_.append(buffer, static_cast<std::size_t>(n));
    return true;
  }
  bool take(std::size_t size, std::string& out) {
    while (in_.size() < size)
      if (!fill()) {
        out = std::move(in_);
        in_.clear();
        return false;
      }
    out = in_.substr(0, size);
    in_.erase(0, size);
    return true;
  }

  int fd_ = -1;
  bool connected_ = false;
  bool timed_out_ = false;
  std::string in_;
};

/// Something another thread brings.
template <class T>
class Mailbox {
 public:
  void put(T value) {
    // Notified under the lock: the taker may destroy the mailbox as soon as it has the value.
    const std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
    ready_.notify_all();
  }
  T get() {
    std::unique_lock lock(mutex_);
    if (!ready_.wait_for(lock, std::chrono::seconds(60), [this] { return !values_.empty(); }))
      throw std::runtime_error("nothing came");
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }
  bool empty() {
    const std::lock_guard lock(mutex_);
    return values_.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<T> values_;
};

struct Asked {
  HttpRequest request;
  std::shared_ptr<Responder> responder;
};

/// Calls a function on the loop; without one, hands requests to the test.
class ScriptedHandler final : public RequestHandler {
 public:
  using Script = std::function<void(HttpRequest, std::shared_ptr<Responder>)>;
  explicit ScriptedHandler(Script script = {}) : script_(std::move(script)) {}
  void handle_async(HttpRequest request, std::shared_ptr<Responder> responder) override {
    if (script_) {
      script_(std::move(request), std::move(responder));
    } else {
      asked.put({std::move(request), std::move(responder)});
    }
  }
  Mailbox<Asked> asked;

 private:
  const Script script_;
};

inline HttpResponse text(std::string body, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.headers = {{"Content-Type", "text/plain"}};
  response.body = std::move(body);
  return response;
}

/// Answers at once with what it got.
inline void echo(HttpRequest request, std::shared_ptr<Responder> responder) {
  HttpResponse response = text(std::move(request.body));
  response.headers.emplace_back("X-Method", request.method);
  response.headers.emplace_back("X-Target", request.target);
  response.headers.emplace_back("X-Address", request.remote_address);
  response.headers.emplace_back("X-Tls", request.over_tls ? "yes" : "no");
  responder->send(std::move(response));
}

/// A server on a free port with its handler and runtime. Over TLS, clients reach it through a proxy.
struct Site {
  explicit Site(ScriptedHandler::Script script = {}, HttpServerOptions options = {}, unsigned loops = 2)
      : handler(std::make_shared<ScriptedHandler>(std::move(script))) {
    RuntimeOptions threads;
    threads.loops = loops;
    threads.workers = 1;
    threads.hash_workers = 1;
    runtime = Runtime::create(threads);
#ifdef MCPGW_TEST_OVER_TLS
    if (options.tls.cert.empty()) {
      options.tls.cert = TestTls::shared().options.cert;
      options.tls.key = TestTls::shared().options.key;
    }
#endif
    auto started = HttpServer::start(handler, runtime, std::move(options));
    if (!started) throw std::runtime_error(started.error().message);
    server = *started;
#ifdef MCPGW_TEST_OVER_TLS
    proxy = std::make_unique<TlsProxy>(server->port());
#endif
  }
  int port() const {
#ifdef MCPGW_TEST_OVER_TLS
    return proxy->port();
#else
    return server->port();
#endif
  }
  RawClient connect(int receive_buffer = 0) const { return RawClient(port(), receive_buffer); }
  Asked asked() const { return handler->asked.get(); }

  std::shared_ptr<ScriptedHandler> handler;
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<HttpServer> server;
#ifdef MCPGW_TEST_OVER_TLS
  std::unique_ptr<TlsProxy> proxy;
#endif
};

inline std::string get(std::string_view target = "/", std::string_view more = {}) {
  return std::string("GET ").append(target).append(" HTTP/1.1\r\nHost: a\r\n").append(more).append("\r\n");
}
inline std::string post(std::string_view body, std::string_view target = "/") {
  return std::string("POST ").append(target).append(" HTTP/1.1\r\nHost: a\r\nContent-Length: ") +
         std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

/// Waits for a condition that other threads bring about.
template <class F>
bool eventually(F condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace mcpgw::testing
