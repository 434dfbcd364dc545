#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <future>

#include "mcpgw/server.hpp"
#include "server/server_impl.hpp"
#include "server/shard.hpp"

namespace mcpgw {
namespace detail::server {
namespace {

constexpr int kBacklog = 4096;

Error bad_option(const char* field, const char* message) {
  return {ErrorCode::invalid_argument, "invalid_option", message, field};
}

struct Listener {
  std::shared_ptr<SharedFd> fd;
  int port = 0;
};

Result<Listener> open_listener(const AddressBytes& address, bool ipv4, int port) {
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (ipv4) {
    auto& in = reinterpret_cast<sockaddr_in&>(storage);
    in.sin_family = AF_INET;
    in.sin_port = htons(static_cast<std::uint16_t>(port));
    std::memcpy(&in.sin_addr, address.data() + 12, 4);
    size = sizeof in;
  } else {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(static_cast<std::uint16_t>(port));
    std::memcpy(&in6.sin6_addr, address.data(), 16);
    size = sizeof in6;
  }
  const int fd = ::socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Error(ErrorCode::unavailable, "no_socket", "No socket can be opened");
  Listener out;
  out.fd = std::make_shared<SharedFd>(fd);
  const int on = 1;
  const int off = 0;
  // Not SO_REUSEPORT: another process of the same user could take a share of our clients.
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!ipv4) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&storage), size) != 0 || ::listen(fd, kBacklog) != 0) {
    switch (errno) {
      case EADDRINUSE:
        return Error(ErrorCode::unavailable, "address_in_use", "The port is in use", "port");
      case EACCES:
        return Error(ErrorCode::permission_denied, "address_denied", "This port may not be used", "port");
      case EADDRNOTAVAIL:
        return Error(ErrorCode::invalid_argument, "address_not_available", "This host has no such address",
                     "host");
      default:
        return Error(ErrorCode::unavailable, "cannot_listen", "The server cannot listen there", "host");
    }
  }
  size = sizeof storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size);
  out.port = ntohs(ipv4 ? reinterpret_cast<sockaddr_in&>(storage).sin_port
                        : reinterpret_cast<sockaddr_in6&>(storage).sin6_port);
  return out;
}

}  // namespace

bool is_loopback(const AddressBytes& address) noexcept {
  AddressBytes v6{};
  v6[15] = 1;
  AddressBytes v4{};
  v4[10] = v4[11] = 0xff;
  v4[12] = 127;
  return address == v6 || std::memcmp(address.data(), v4.data(), 13) == 0;
}

std::optional<AddressBytes> listen_address(const std::string& host) {
  return parse_address(host == "localhost" ? std::string_view("127.0.0.1") : std::string_view(host));
}

}  // namespace detail::server

class HttpServer::Impl {
 public:
  static Result<std::shared_ptr<Impl>> start(std::shared_ptr<RequestHandler> handler,
                                             std::shared_ptr<Runtime> runtime, HttpServerOptions options);
  ~Impl() { stop(); }

  void drain() {
    context_->draining = true;
    everywhere([](detail::server::Shard& shard) { shard.drain(); });
  }

  void stop() {
    context_->draining = true;
    everywhere([](detail::server::Shard& shard) { shard.stop(); });
  }

  int port = 0;
  std::string url;
  const std::shared_ptr<detail::server::ServerContext>& context() const { return context_; }

 private:
  /// Runs `work` on each loop and waits for it: what a loop was doing is then over.
  void everywhere(void (*work)(detail::server::Shard&)) {
    std::vector<std::future<void>> waiting;
    for (const auto& shard : shards_) {
      if (shard->loop().here()) {
        work(*shard);  // against the rules of use; waiting for ourselves would be for ever
        continue;
      }
      auto done = std::make_shared<std::promise<void>>();
      waiting.push_back(done->get_future());
      shard->loop().post([shard, work, done] {
        work(*shard);
        done->set_value();
      });
    }
    for (auto& future : waiting) future.wait();
  }

  std::shared_ptr<Runtime> runtime_;         // first in, last out: shards use its loops
  std::shared_ptr<RequestHandler> handler_;  // let go by the owner's thread, never by a loop's
  std::shared_ptr<detail::server::ServerContext> context_;
  std::vector<std::shared_ptr<detail::server::Shard>> shards_;
};

Result<std::shared_ptr<HttpServer::Impl>> HttpServer::Impl::start(std::shared_ptr<RequestHandler> handler,
                                                                  std::shared_ptr<Runtime> runtime,
                                                                  HttpServerOptions options) {
  if (handler == nullptr) return detail::server::bad_option("handler", "A request handler is needed");
  if (runtime == nullptr) return detail::server::bad_option("runtime", "A runtime is needed");
  if (options.port < 0 || options.port > 65535)
    return detail::server::bad_option("port", "A port is between 0 and 65535");
  if (options.max_connections == 0)
    return detail::server::bad_option("max_connections", "At least one connection is needed");
  if (options.max_headers == 0 || options.max_header_bytes < 256 ||
      options.max_header_bytes > 16 * 1024 * 1024)
    return detail::server::bad_option("max_header_bytes", "The limit of the headers is out of range");
  if (options.max_write_buffer == 0)
    return detail::server::bad_option("max_write_buffer", "The write buffer cannot be empty");
  if (options.request_timeout.count() <= 0 || options.idle_timeout.count() <= 0)
    return detail::server::bad_option("request_timeout", "Timeouts are longer than zero");
  const auto address = detail::server::listen_address(options.host);
  if (!address)
    return Error(ErrorCode::invalid_argument, "invalid_address", "The host is no IP address", "host");
  auto proxies = detail::server::TrustedProxies::parse(options.trusted_proxies);
  if (!proxies) return proxies.error();

  const bool ipv4 = options.host.find(':') == std::string::npos;
  auto listener = detail::server::open_listener(*address, ipv4, options.port);
  if (!listener) return listener.error();

  auto impl = std::make_shared<Impl>();
  impl->runtime_ = std::move(runtime);
  impl->handler_ = std::move(handler);
  impl->port = listener->port;
  impl->context_ = std::make_shared<detail::server::ServerContext>();
  detail::server::ServerContext& context = *impl->context_;
  context.proxies = std::move(*proxies);
  context.limits.max_header_bytes = options.max_header_bytes;
  context.limits.max_request_line =
      std::min<std::size_t>(context.limits.max_request_line, options.max_header_bytes);
  context.limits.max_headers = options.max_headers;
  context.limits.max_body = options.max_body;
  context.options = std::move(options);

  // A wildcard address is no place to go to; the loopback address is one of those it stands for.
  std::string host = context.options.host == "localhost" ? "127.0.0.1" : context.options.host;
  if (host == "0.0.0.0") host = "127.0.0.1";
  if (host == "::") host = "::1";
  impl->url = "http://" + (ipv4 ? host : "[" + host + "]") + ":" + std::to_string(impl->port);

  Runtime::Impl& loops = impl->runtime_->impl();
  std::vector<detail::server::Shard*> peers;
  for (std::size_t i = 0; i < loops.loop_count(); ++i) {
    const int epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) {
      impl->shards_.clear();
      return Error(ErrorCode::unavailable, "no_socket", "No event queue can be opened");
    }
    impl->shards_.push_back(
        std::make_shared<detail::server::Shard>(loops.loop(i), impl->context_, *impl->handler_, epoll_fd));
    peers.push_back(impl->shards_.back().get());
  }
  for (const auto& shard : impl->shards_) {
    shard->set_peers(peers);
    shard->loop().post([shard, fd = listener->fd] { shard->listen(fd); });
  }
  return impl;
}

HttpServer::HttpServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() { impl_->stop(); }

Result<std::shared_ptr<HttpServer>> HttpServer::start(std::shared_ptr<RequestHandler> handler,
                                                      std::shared_ptr<Runtime> runtime,
                                                      HttpServerOptions options) {
  auto impl = Impl::start(std::move(handler), std::move(runtime), std::move(options));
  if (!impl) return impl.error();
  return std::shared_ptr<HttpServer>(new HttpServer(std::move(*impl)));
}

int HttpServer::port() const noexcept { return impl_->port; }
std::string HttpServer::url() const { return impl_->url; }
void HttpServer::drain() { impl_->drain(); }
void HttpServer::stop() { impl_->stop(); }

HttpServer::Statistics HttpServer::statistics() const {
  const detail::server::ServerContext& context = *impl_->context();
  return {context.accepted.load(std::memory_order_relaxed), context.requests.load(std::memory_order_relaxed),
          context.connections.load(std::memory_order_relaxed)};
}

}  // namespace mcpgw
