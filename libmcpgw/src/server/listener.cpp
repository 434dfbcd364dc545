#include "server/listener.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace mcpgw {
namespace detail::server {
namespace {

constexpr int kBacklog = 4096;
constexpr std::string_view kUnix = "unix:";
constexpr int kFirstInherited = 3;
constexpr int kMaxInherited = 64;

Error no_socket() { return {ErrorCode::unavailable, "no_socket", "No socket can be opened"}; }

Error cannot_bind(int error, bool file) {
  const char* field = file ? "host" : "port";
  switch (error) {
    case EADDRINUSE:
      return {ErrorCode::unavailable, "address_in_use",
              file ? "Another server listens on this socket file, or it is no socket" : "The port is in use",
              field};
    case EACCES:
    case EPERM:
    case EROFS:
      return {ErrorCode::permission_denied, "address_denied",
              file ? "The socket file may not be made there" : "This port may not be used", field};
    case EADDRNOTAVAIL:
    case ENOENT:
    case ENOTDIR:
      return {ErrorCode::invalid_argument, "address_not_available",
              file ? "There is no directory for the socket file" : "This host has no such address", "host"};
    default:
      return {ErrorCode::unavailable, "cannot_listen", "The server cannot listen there", "host"};
  }
}

bool is_loopback(const AddressBytes& address) noexcept {
  AddressBytes v6{};
  v6[15] = 1;
  AddressBytes v4{};
  v4[10] = v4[11] = 0xff;
  v4[12] = 127;
  return address == v6 || std::memcmp(address.data(), v4.data(), 13) == 0;
}

/// Where a listening socket is, as others would connect to it.
struct Place {
  bool file = false;
  std::string path;
  int port = 0;
  std::string authority;
  bool loopback = true;
};

Place place_of(const sockaddr_storage& storage, socklen_t size) {
  Place out;
  if (storage.ss_family == AF_UNIX) {
    out.file = true;
    const auto& un = reinterpret_cast<const sockaddr_un&>(storage);
    const std::size_t offset = offsetof(sockaddr_un, sun_path);
    if (size > offset && un.sun_path[0] != '\0')
      out.path.assign(un.sun_path, ::strnlen(un.sun_path, size - offset));
    return out;
  }
  AddressBytes address{};
  const bool ipv4 = storage.ss_family == AF_INET;
  if (ipv4) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(storage);
    address[10] = address[11] = 0xff;
    std::memcpy(address.data() + 12, &in.sin_addr, 4);
    out.port = ntohs(in.sin_port);
  } else {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(storage);
    std::memcpy(address.data(), &in6.sin6_addr, 16);
    out.port = ntohs(in6.sin6_port);
  }
  out.loopback = is_loopback(address);
  std::string host = format_address(address);
  // A wildcard address is no place to go to; the loopback address is one of those it stands for.
  if (host == "0.0.0.0") host = "127.0.0.1";
  if (host == "::") host = "::1";
  out.authority = (ipv4 ? host : "[" + host + "]") + ":" + std::to_string(out.port);
  return out;
}

bool locate(int fd, sockaddr_storage& storage, socklen_t& size) {
  size = sizeof storage;
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) == 0;
}

void add(Listeners& out, std::shared_ptr<SharedFd> socket, const Place& place) {
  if (out.sockets.empty()) {
    out.port = place.port;
    out.authority = place.authority;
    out.path = place.path;
  }
  out.loopback_only = out.loopback_only && place.loopback;
  out.sockets.push_back(std::move(socket));
}

Result<Listeners> open_address(const HttpServerOptions& options) {
  const auto address = parse_address(options.host == "localhost" ? std::string_view("127.0.0.1")
                                                                 : std::string_view(options.host));
  if (!address)
    return Error(ErrorCode::invalid_argument, "invalid_address", "The host is no IP address", "host");
  const bool ipv4 = options.host.find(':') == std::string::npos;
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (ipv4) {
    auto& in = reinterpret_cast<sockaddr_in&>(storage);
    in.sin_family = AF_INET;
    in.sin_port = htons(static_cast<std::uint16_t>(options.port));
    std::memcpy(&in.sin_addr, address->data() + 12, 4);
    size = sizeof in;
  } else {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(static_cast<std::uint16_t>(options.port));
    std::memcpy(&in6.sin6_addr, address->data(), 16);
    size = sizeof in6;
  }
  const int fd = ::socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return no_socket();
  auto socket = std::make_shared<SharedFd>(fd);
  const int on = 1;
  const int off = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Only when asked for: another process of the same user could take a share of our clients.
  if (options.reuse_port) ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (!ipv4) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&storage), size) != 0 || ::listen(fd, kBacklog) != 0 ||
      !locate(fd, storage, size))
    return cannot_bind(errno, false);
  Listeners out;
  add(out, std::move(socket), place_of(storage, size));
  return out;
}

/// Whether a socket file is one that nobody listens on any more.
bool is_left_over(const sockaddr_un& address, socklen_t size) {
  struct stat info {};
  if (::lstat(address.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
  const SharedFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  return probe.get() >= 0 && ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 &&
         errno == ECONNREFUSED;
}

Result<Listeners> open_file(const HttpServerOptions& options) {
  const std::string path = options.host.substr(kUnix.size());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.front() != '/' || path.size() >= sizeof address.sun_path ||
      path.find('\0') != std::string::npos)
    return Error(ErrorCode::invalid_argument, "invalid_address",
                 "A socket file needs an absolute path of at most 107 bytes", "host");
  if ((options.unix_mode & ~0777u) != 0)
    return Error(ErrorCode::invalid_argument, "invalid_option", "The mode of the socket file is no file mode",
                 "unix_mode");
  std::memcpy(address.sun_path, path.data(), path.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return no_socket();
  auto socket = std::make_shared<SharedFd>(fd);
  // The file is made with the socket's own mode less the umask: it is never open to more than it should be.
  ::fchmod(fd, static_cast<mode_t>(options.unix_mode));
  const auto* bound = reinterpret_cast<const sockaddr*>(&address);
  int result = ::bind(fd, bound, size);
  if (result != 0 && errno == EADDRINUSE && is_left_over(address, size) && ::unlink(path.c_str()) == 0)
    result = ::bind(fd, bound, size);
  if (result != 0) return cannot_bind(errno, true);
  Listeners out;
  out.file = std::make_shared<SocketFile>(path);
  if (::chmod(path.c_str(), static_cast<mode_t>(options.unix_mode)) != 0 || ::listen(fd, kBacklog) != 0)
    return cannot_bind(errno, true);
  Place place;
  place.file = true;
  place.path = path;
  add(out, std::move(socket), place);
  return out;
}

Result<Listeners> take_over(const std::vector<std::shared_ptr<SharedFd>>& given) {
  Listeners out;
  for (const auto& socket : given) {
    const int fd = socket->get();
    int listening = 0;
    int type = 0;
    socklen_t size = sizeof listening;
    sockaddr_storage storage{};
    const bool good =
        ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening != 0 &&
        ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM &&
        locate(fd, storage, size) &&
        (storage.ss_family == AF_INET || storage.ss_family == AF_INET6 || storage.ss_family == AF_UNIX);
    const int flags = good ? ::fcntl(fd, F_GETFL) : -1;
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
      return Error(ErrorCode::invalid_argument, "invalid_sockets",
                   "A socket to take over is no listening stream socket", "sockets");
    add(out, socket, place_of(storage, size));
  }
  return out;
}

std::optional<int> number(const char* text) {
  int value = 0;
  const std::string_view digits(text);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || digits.empty()) return std::nullopt;
  return value;
}

}  // namespace

SharedFd::~SharedFd() {
  if (fd_ >= 0) ::close(fd_);
}

SocketFile::SocketFile(std::string path) : path_(std::move(path)) {
  if (::lstat(path_.c_str(), &made_) != 0) path_.clear();
}

void SocketFile::remove() noexcept {
  struct stat now {};
  if (!path_.empty() && ::lstat(path_.c_str(), &now) == 0 && now.st_dev == made_.st_dev &&
      now.st_ino == made_.st_ino)
    ::unlink(path_.c_str());
  path_.clear();
}

Result<Listeners> open_listeners(const HttpServerOptions& options,
                                 const std::vector<std::shared_ptr<SharedFd>>& given) {
  if (!given.empty()) return take_over(given);
  if (std::string_view(options.host).substr(0, kUnix.size()) == kUnix) return open_file(options);
  return open_address(options);
}

}  // namespace detail::server

Result<std::vector<int>> HttpServer::inherited_sockets() {
  const char* pid = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (pid == nullptr || count == nullptr) return std::vector<int>{};
  const auto whose = detail::server::number(pid);
  const auto many = detail::server::number(count);
  const bool ours = whose && *whose == static_cast<int>(::getpid());
  // Children of ours must not take them for theirs.
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  if (whose && !ours) return std::vector<int>{};
  if (!whose || !many || *many < 0 || *many > detail::server::kMaxInherited)
    return Error(ErrorCode::invalid_argument, "invalid_sockets",
                 "LISTEN_PID and LISTEN_FDS are not what a supervisor sets");
  std::vector<int> out;
  for (int fd = detail::server::kFirstInherited; fd < detail::server::kFirstInherited + *many; ++fd) {
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
      return Error(ErrorCode::invalid_argument, "invalid_sockets", "A socket of LISTEN_FDS is not open");
    out.push_back(fd);
  }
  return out;
}

}  // namespace mcpgw
