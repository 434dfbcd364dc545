// A request whose answer is read while it comes: event streams, and connections that are cut.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "base/text.hpp"
#include "effects_support.hpp"
#include "runtime/sse_decoder.hpp"

namespace mcpgw::testing {

namespace raw = detail::raw;

/// By a direct call or over a socket, like everything in this tier. Thread-safe.
class LiveRequest {
 public:
  using Event = detail::SseDecoder::Event;

  LiveRequest(InProcessGateway& gateway, HttpRequest request) : state_(std::make_shared<State>()) {
    if (gateway.port() == 0) {
      auto responder = std::make_shared<Direct>(state_);
      gateway.gateway().handle_async(std::move(request), responder);
    } else {
      connect(gateway.port(), request);
    }
  }
  ~LiveRequest() {
    cut();
    if (reader_.joinable()) reader_.join();
  }
  LiveRequest(const LiveRequest&) = delete;
  LiveRequest& operator=(const LiveRequest&) = delete;

  /// Waits until the answer has begun.
  int status() {
    wait([](const State& s) { return s.status != 0; });
    const std::lock_guard lock(state_->mutex);
    return state_->status;
  }
  std::string header(const std::string& name) {
    (void)status();
    const std::lock_guard lock(state_->mutex);
    const std::string* value = find_header(state_->headers, name);
    return value == nullptr ? std::string() : *value;
  }
  /// Whether an event comes (or has come) for which it is so.
  bool sees(const std::function<bool(const Event&)>& probe) {
    return wait([&](const State& s) { return std::any_of(s.events.begin(), s.events.end(), probe); });
  }
  bool sees(const std::string& part) {
    return sees([&](const Event& event) { return event.data.find(part) != std::string::npos; });
  }
  std::size_t count(const std::string& part) const {
    const std::lock_guard lock(state_->mutex);
    return static_cast<std::size_t>(
        std::count_if(state_->events.begin(), state_->events.end(),
                      [&](const Event& event) { return event.data.find(part) != std::string::npos; }));
  }
  std::vector<Event> events() const {
    const std::lock_guard lock(state_->mutex);
    return state_->events;
  }
  std::string last_id() const {
    const std::lock_guard lock(state_->mutex);
    return state_->decoder.last_id();
  }
  std::string text() const {
    const std::lock_guard lock(state_->mutex);
    return state_->text;
  }
  /// Whether it ends.
  bool ends() {
    return wait([](const State& s) { return s.ended; });
  }
  bool ended() const {
    const std::lock_guard lock(state_->mutex);
    return state_->ended;
  }
  /// The client goes away.
  void cut() {
    std::function<void()> gone;
    {
      const std::lock_guard lock(state_->mutex);
      if (state_->ended) return;
      state_->ended = true;
      gone = std::exchange(state_->on_disconnect, nullptr);
      state_->changed.notify_all();
      if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
    }
    if (gone) gone();
  }

 private:
  struct State {
    mutable std::mutex mutex;
    std::condition_variable changed;
    int status = 0;
    HttpHeaders headers;
    std::string text;  ///< of the body
    detail::SseDecoder decoder{64 * 1024 * 1024};
    std::vector<Event> events;
    bool ended = false;
    std::function<void()> on_disconnect;

    void feed_locked(std::string_view bytes) {
      text += bytes;
      decoder.feed(bytes, events);
      changed.notify_all();
    }
  };

  class Direct final : public Responder {
   public:
    explicit Direct(std::shared_ptr<State> state) : state_(std::move(state)) {}
    void send(HttpResponse response) override {
      const std::lock_guard lock(state_->mutex);
      begin_locked(response);
      state_->ended = true;
      state_->on_disconnect = nullptr;
    }
    std::shared_ptr<ResponseStream> start(HttpResponse head) override {
      const std::lock_guard lock(state_->mutex);
      begin_locked(head);
      return std::make_shared<Stream>(state_);
    }
    void on_disconnect(std::function<void()> callback) override {
      {
        const std::lock_guard lock(state_->mutex);
        if (!state_->ended) {
          state_->on_disconnect = std::move(callback);
          return;
        }
      }
      if (callback) callback();
    }

   private:
    class Stream final : public ResponseStream {
     public:
      explicit Stream(std::shared_ptr<State> state) : state_(std::move(state)) {}
      bool write(std::string data) override {
        const std::lock_guard lock(state_->mutex);
        if (state_->ended) return false;
        state_->feed_locked(data);
        return true;
      }
      void close() override {
        const std::lock_guard lock(state_->mutex);
        state_->ended = true;
        state_->on_disconnect = nullptr;
        state_->changed.notify_all();
      }

     private:
      const std::shared_ptr<State> state_;
    };
    void begin_locked(HttpResponse& response) {
      state_->status = response.status;
      state_->headers = std::move(response.headers);
      state_->feed_locked(response.body);
    }
    const std::shared_ptr<State> state_;
  };

  void connect(int port, const HttpRequest& request) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    std::string text = request.method + " " + request.target + " HTTP/1.1\r\n";
    if (request.header("Host") == nullptr) text += "Host: 127.0.0.1:" + std::to_string(port) + "\r\n";
    for (const auto& [name, value] : request.headers) text += name + ": " + value + "\r\n";
    if (request.method != "GET") text += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
    text += "\r\n" + request.body;
    for (std::size_t sent = 0; sent < text.size();) {
      const auto n = ::send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      REQUIRE(n > 0);
      sent += static_cast<std::size_t>(n);
    }
    reader_ = std::thread([state = state_, fd = fd_] { read(*state, fd); });
  }

  /// Until the answer has ended or the connection has.
  static void read(State& state, int fd) {
    std::string buffer;
    std::size_t head = std::string::npos;
    bool chunked = false;
    std::size_t length = std::string::npos;
    char bytes[65536];
    for (;;) {
      const auto n = ::recv(fd, bytes, sizeof bytes, 0);
      if (n > 0) buffer.append(bytes, static_cast<std::size_t>(n));
      if (head == std::string::npos && (head = buffer.find("\r\n\r\n")) != std::string::npos) {
        const std::lock_guard lock(state.mutex);
        state.status = std::stoi(buffer.substr(9, 3));
        for (std::size_t at = buffer.find("\r\n") + 2; at < head + 2;) {
          const auto stop = buffer.find("\r\n", at), colon = buffer.find(':', at);
          state.headers.emplace_back(buffer.substr(at, colon - at),
                                     std::string(detail::trim(buffer.substr(colon + 1, stop - colon - 1))));
          at = stop + 2;
        }
        chunked = find_header(state.headers, "Transfer-Encoding") != nullptr;
        if (const std::string* value = find_header(state.headers, "Content-Length"))
          length = std::stoul(*value);
        else if (!chunked)
          length = 0;
        buffer.erase(0, head + 4);
        state.changed.notify_all();
      }
      bool done = n <= 0;
      while (head != std::string::npos && chunked) {
        const auto line = buffer.find("\r\n");
        if (line == std::string::npos) break;
        const std::size_t size = std::stoul(buffer.substr(0, line), nullptr, 16);
        if (buffer.size() < line + 2 + size + 2) break;
        if (size == 0) {
          done = true;
          break;
        }
        const std::lock_guard lock(state.mutex);
        state.feed_locked(std::string_view(buffer).substr(line + 2, size));
        buffer.erase(0, line + 2 + size + 2);
      }
      if (head != std::string::npos && !chunked && buffer.size() >= length) {
        const std::lock_guard lock(state.mutex);
        state.feed_locked(buffer);
        done = true;
      }
      if (!done) continue;
      const std::lock_guard lock(state.mutex);
      state.ended = true;
      state.changed.notify_all();
      ::close(fd);
      return;
    }
  }

  bool wait(const std::function<bool(const State&)>& probe) {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, std::chrono::seconds(20), [&] { return probe(*state_); });
  }

  const std::shared_ptr<State> state_;
  int fd_ = -1;
  std::thread reader_;
};

inline HttpRequest get_request(const McpClient& client, HttpHeaders more = {}) {
  HttpRequest out;
  out.method = "GET";
  out.target = "/mcp";
  out.headers = {{"Authorization", "Bearer " + client.token()}, {"Accept", "text/event-stream"}};
  if (!client.session_id().empty()) out.headers.emplace_back("Mcp-Session-Id", client.session_id());
  for (auto& header : more) out.headers.push_back(std::move(header));
  out.remote_address = "127.0.0.1";
  return out;
}

inline HttpRequest post_request(const McpClient& client, std::string body, HttpHeaders more = {}) {
  HttpRequest out;
  out.method = "POST";
  out.target = "/mcp";
  out.headers = {{"Authorization", "Bearer " + client.token()}, {"Content-Type", "application/json"}};
  if (!client.session_id().empty()) out.headers.emplace_back("Mcp-Session-Id", client.session_id());
  for (auto& header : more) out.headers.push_back(std::move(header));
  if (out.header("Accept") == nullptr)
    out.headers.emplace_back("Accept", "application/json, text/event-stream");
  out.body = std::move(body);
  out.remote_address = "127.0.0.1";
  return out;
}

inline std::string rpc_request(const std::string& id, const std::string& method,
                               const std::string& params = "{}") {
  return R"({"jsonrpc":"2.0","id":)" + id + R"(,"method":")" + method + R"(","params":)" + params + "}";
}

/// A tool's handler that reports progress, waits until it is let go, and answers with its nonce.
class Gate {
 public:
  FakeUpstream::Handler handler() {
    return [state = state_](const FakeUpstream::Call& call) {
      call.progress(1, 2);
      std::unique_lock lock(state->mutex);
      ++state->waiting;
      state->changed.notify_all();
      state->changed.wait_for(lock, std::chrono::seconds(20), [&] { return state->open; });
      lock.unlock();
      call.progress(2, 2);
      return FakeUpstream::text("done " + call.arguments);
    };
  }
  bool entered(int times = 1) {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, std::chrono::seconds(20), [&] { return state_->waiting >= times; });
  }
  void open() {
    const std::lock_guard lock(state_->mutex);
    state_->open = true;
    state_->changed.notify_all();
  }
  ~Gate() { open(); }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    int waiting = 0;
    bool open = false;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace mcpgw::testing
