// Listening sockets: opened at an address or a path, or taken over from a supervisor.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mcpgw/server.hpp"
#include "server/proxies.hpp"

namespace mcpgw::detail::server {

/// A descriptor that is closed with its last owner.
class SharedFd {
 public:
  explicit SharedFd(int fd) noexcept : fd_(fd) {}
  ~SharedFd();
  SharedFd(const SharedFd&) = delete;
  SharedFd& operator=(const SharedFd&) = delete;
  int get() const noexcept { return fd_; }
  /// The descriptor, which is the caller's from now on.
  int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

/// A socket's file, which goes with it unless another one has taken its place.
class SocketFile {
 public:
  explicit SocketFile(std::string path);
  ~SocketFile() { remove(); }
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;
  void remove() noexcept;

 private:
  std::string path_;
  struct stat made_ {};
};

struct Listeners {
  std::vector<std::shared_ptr<SharedFd>> sockets;
  std::shared_ptr<SocketFile> file;  ///< null: none of ours
  int port = 0;                      ///< of the first; 0 for a socket file
  std::string authority;             ///< "127.0.0.1:3000" to connect to; empty for a socket file
  std::string path;                  ///< of a socket file
  bool loopback_only = true;         ///< no socket can be reached from another host's network
};

/// Takes over `given`, or opens what host, port and path say when there is none.
Result<Listeners> open_listeners(const HttpServerOptions& options,
                                 const std::vector<std::shared_ptr<SharedFd>>& given);

}  // namespace mcpgw::detail::server
