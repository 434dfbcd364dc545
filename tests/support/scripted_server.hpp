// A TCP server that a test writes line by line: blocking sockets in threads, on a free port of the loopback.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace mcpgw::testing {

/// One accepted connection. Its functions block, for a bounded time.
class Peer {
 public:
  Peer(int fd, std::function<void()> on_close) : fd_(fd), on_close_(std::move(on_close)) {
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }
  ~Peer() { close(); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  int fd() const { return fd_; }

  bool send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  /// Head and body of a request with Content-Length; empty when the client has closed.
  std::string read_request() {
    std::string text = std::move(left_);
    left_.clear();
    for (;;) {
      if (const auto end = text.find("\r\n\r\n"); end != std::string::npos) {
        std::size_t length = 0;
        if (const auto at = text.find("Content-Length: "); at < end)
          length = std::strtoul(&text[at + 16], nullptr, 10);
        if (text.size() >= end + 4 + length) {
          left_ = text.substr(end + 4 + length);
          text.resize(end + 4 + length);
          return text;
        }
      }
      char buffer[65536];
      const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) return {};
      text.append(buffer, static_cast<std::size_t>(n));
    }
  }

  /// Until the client closes; false when it does not.
  bool wait_closed() {
    char buffer[4096];
    for (;;) {
      const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
      if (n == 0 || (n < 0 && errno == ECONNRESET)) return true;
      if (n < 0) return false;
    }
  }

  void close() {
    if (fd_ >= 0) on_close_();
    fd_ = -1;
  }
  /// Ends with a reset instead of a clean end.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }

 private:
  int fd_;
  std::function<void()> on_close_;
  std::string left_;
};

class ScriptedServer {
 public:
  /// `script` runs in a thread of its own for each connection, which are numbered from 0.
  /// `port`: one that a server before it had; 0: any.
  explicit ScriptedServer(std::function<void(Peer&, int)> script, int port = 0) : script_(std::move(script)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    socklen_t length = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0)
      throw std::runtime_error("no port for a test server");
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }

  ~ScriptedServer() {
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    ::close(listener_);
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
  }

  int port() const { return port_; }
  std::string url(const std::string& path = "/", const std::string& scheme = "http") const {
    return scheme + "://127.0.0.1:" + std::to_string(port_) + path;
  }
  int connections() const { return accepted_; }

 private:
  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const int number = accepted_++;
      {
        const std::lock_guard lock(mutex_);
        open_.push_back(fd);
      }
      threads_.emplace_back([this, fd, number] {
        Peer peer(fd, [this, fd] {  // off the list before the number can be given to another
          const std::lock_guard lock(mutex_);
          std::erase(open_, fd);
          ::close(fd);
        });
        script_(peer, number);
      });
    }
  }

  std::function<void(Peer&, int)> script_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<int> accepted_{0};
  std::mutex mutex_;  // protects open_
  std::vector<int> open_;
  std::thread acceptor_;
  std::vector<std::thread> threads_;  // touched by the acceptor, and after it by the destructor
};

}  // namespace mcpgw::testing
