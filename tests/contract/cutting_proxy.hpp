// A proxy in front of a PostgreSQL server's socket that cuts a connection after a given number of messages,
// or lets nothing through. The connection that listens for announcements is cut only by the latter.
#pragma once

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "contract/temp_dir.hpp"

namespace mcpgw::contract {

class CuttingProxy {
 public:
  explicit CuttingProxy(std::string server) : server_(std::move(server)) {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const auto address = address_of(directory_.file(".s.PGSQL.5432"));
    REQUIRE(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listener_, 64) == 0);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~CuttingProxy() {
    stopped_ = true;
    acceptor_.join();
    for (auto& thread : relays_) thread.join();
    ::close(listener_);
  }
  CuttingProxy(const CuttingProxy&) = delete;
  CuttingProxy& operator=(const CuttingProxy&) = delete;

  std::string url_of(const std::string& database) const {
    return "host=" + directory_.path().string() + " user=mcpgw dbname=" + database;
  }

  enum class Side { client, server };
  /// The connection on which `count` more messages of that side have passed is cut. Only once.
  void cut_after(Side side, int count) {
    side_ = side;
    left_ = count;
    cut_ = false;
    armed_ = true;
  }
  /// Whether it was cut. Nothing will be from now on.
  bool disarm() {
    armed_ = false;
    return cut_;
  }
  /// Cuts everything, and takes no connection until told otherwise.
  void set_down(bool down) { down_ = down; }
  /// After a cut no connection is taken.
  void down_after_cut(bool down) { down_after_cut_ = down; }

 private:
  static sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
  }

  void accept_all() {
    while (!stopped_) {
      pollfd ready{listener_, POLLIN, 0};
      if (::poll(&ready, 1, 10) <= 0) continue;
      const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      if (down_) {
        ::close(client);
        continue;
      }
      const int upstream = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::memcpy(address.sun_path, server_.c_str(), server_.size() + 1);
      if (::connect(upstream, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        ::close(client);
        ::close(upstream);
        continue;
      }
      relays_.emplace_back([this, client, upstream] { relay(client, upstream); });
    }
  }

  /// One direction: takes whole messages off the front of what has come.
  struct Stream {
    std::string pending;
    bool startup;  // the first message of a client has no type
    std::string next() {
      const std::size_t type = startup ? 0 : 1;
      if (pending.size() < type + 4) return {};
      std::uint32_t size = 0;
      for (std::size_t i = 0; i < 4; ++i) size = (size << 8) | static_cast<unsigned char>(pending[type + i]);
      if (pending.size() < type + size) return {};
      startup = false;
      auto message = pending.substr(0, type + size);
      pending.erase(0, type + size);
      return message;
    }
  };

  void relay(int client, int upstream) {
    Stream streams[2] = {{"", true}, {"", false}};
    bool listens = false, open = true;
    while (open && !stopped_ && !down_) {
      pollfd ready[] = {{client, POLLIN, 0}, {upstream, POLLIN, 0}};
      if (::poll(ready, 2, 10) <= 0) continue;
      for (int from = 0; from < 2 && open; ++from) {
        if (ready[from].revents == 0) continue;
        char buffer[65536];
        const auto got = ::read(from == 0 ? client : upstream, buffer, sizeof buffer);
        if (got <= 0) {
          open = false;
          break;
        }
        auto& stream = streams[from];
        stream.pending.append(buffer, static_cast<std::size_t>(got));
        for (auto message = stream.next(); !message.empty(); message = stream.next()) {
          listens = listens || message.find("LISTEN mcpgw") != std::string::npos;
          const bool counted = armed_ && !listens && from == (side_ == Side::client ? 0 : 1);
          if (counted && left_-- == 0) {
            armed_ = false;
            cut_ = true;
            if (down_after_cut_) down_ = true;
            open = false;
            break;
          }
          if (::send(from == 0 ? upstream : client, message.data(), message.size(), MSG_NOSIGNAL) < 0)
            open = false;
        }
      }
    }
    ::close(client);
    ::close(upstream);
  }

  const TempDir directory_;
  const std::string server_;
  int listener_ = -1;
  std::atomic<bool> stopped_{false}, down_{false}, down_after_cut_{false}, armed_{false}, cut_{false};
  std::atomic<Side> side_{Side::client};
  std::atomic<int> left_{0};
  std::thread acceptor_;
  std::vector<std::thread> relays_;  // of the acceptor
};

}  // namespace mcpgw::contract
