#include <future>
#include <mutex>
#include <thread>

#include "mcpgw/server.hpp"
#include "server/listener.hpp"
#include "server/shard.hpp"

namespace mcpgw {
namespace detail::server {
namespace {

Error bad_option(const char* field, const char* message) {
  return {ErrorCode::invalid_argument, "invalid_option", message, field};
}

constexpr std::chrono::milliseconds kDrainStep{5};

}  // namespace
}  // namespace detail::server

class HttpServer::Impl {
 public:
  static Result<std::shared_ptr<Impl>> start(std::shared_ptr<RequestHandler> handler,
                                             std::shared_ptr<Runtime> runtime, HttpServerOptions options);
  ~Impl() { stop(); }

  void drain(std::chrono::milliseconds patience) {
    context_->draining = true;
    everywhere([](detail::server::Shard& shard) { shard.drain(); });
    {
      const std::lock_guard lock(listeners_mutex_);
      listeners_.sockets.clear();
      if (listeners_.file != nullptr) listeners_.file->remove();
    }
    const auto end = std::chrono::steady_clock::now() + patience;
    while (context_->fresh.load(std::memory_order_relaxed) != 0 && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(detail::server::kDrainStep);
  }

  void stop() {
    drain({});
    everywhere([](detail::server::Shard& shard) { shard.stop(); });
    context_->workers.close();
  }

  bool loopback_only() const { return listeners_.loopback_only; }

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
  std::mutex listeners_mutex_;
  detail::server::Listeners listeners_;  ///< its sockets and its file: guarded by the mutex
  std::vector<std::shared_ptr<detail::server::Shard>> shards_;
};

Result<std::shared_ptr<HttpServer::Impl>> HttpServer::Impl::start(std::shared_ptr<RequestHandler> handler,
                                                                  std::shared_ptr<Runtime> runtime,
                                                                  HttpServerOptions options) {
  std::vector<std::shared_ptr<detail::server::SharedFd>> given;
  for (const int fd : options.sockets) given.push_back(std::make_shared<detail::server::SharedFd>(fd));
  options.sockets.clear();
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
  if (options.websocket_ping.count() <= 0 || options.websocket_pong.count() <= 0 ||
      options.tls.handshake_timeout.count() <= 0)
    return detail::server::bad_option("websocket_ping", "Timeouts are longer than zero");
  auto proxies = detail::server::TrustedProxies::parse(options.trusted_proxies);
  if (!proxies) return proxies.error();
  std::shared_ptr<detail::server::TlsListener> tls;
  if (!options.tls.cert.empty() || !options.tls.key.empty() || !options.tls.client_ca.empty()) {
    auto made = detail::server::TlsListener::create(options.tls);
    if (!made) return made.error();
    tls = std::move(*made);
  }
  auto listeners = detail::server::open_listeners(options, given);
  if (!listeners) return listeners.error();

  auto impl = std::make_shared<Impl>();
  impl->runtime_ = std::move(runtime);
  impl->handler_ = std::move(handler);
  impl->listeners_ = std::move(*listeners);
  impl->port = impl->listeners_.port;
  impl->context_ = std::make_shared<detail::server::ServerContext>();
  detail::server::ServerContext& context = *impl->context_;
  context.proxies = std::move(*proxies);
  context.limits.max_header_bytes = options.max_header_bytes;
  context.limits.max_request_line =
      std::min<std::size_t>(context.limits.max_request_line, options.max_header_bytes);
  context.limits.max_headers = options.max_headers;
  context.limits.max_body = options.max_body;
  context.options = std::move(options);
  context.tls = std::move(tls);
  context.workers.open(*impl->runtime_);

  if (impl->listeners_.authority.empty()) {
    impl->url = "unix:" + impl->listeners_.path;
  } else {
    impl->url = (context.tls == nullptr ? "http://" : "https://") + impl->listeners_.authority;
  }

  Runtime::Impl& loops = impl->runtime_->impl();
  std::vector<detail::server::Shard*> peers;
  for (std::size_t i = 0; i < loops.loop_count(); ++i) {
    impl->shards_.push_back(
        std::make_shared<detail::server::Shard>(loops.loop(i), impl->context_, *impl->handler_));
    peers.push_back(impl->shards_.back().get());
  }
  for (const auto& shard : impl->shards_) {
    shard->set_peers(peers);
    shard->loop().post([shard, sockets = impl->listeners_.sockets] { shard->listen(sockets); });
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
bool HttpServer::loopback_only() const noexcept { return impl_->loopback_only(); }
void HttpServer::drain(std::chrono::milliseconds patience) { impl_->drain(patience); }
void HttpServer::stop() { impl_->stop(); }

Status HttpServer::reload_tls() {
  const auto& tls = impl_->context()->tls;
  if (tls == nullptr) return Error(ErrorCode::unsupported, "no_tls", "The server speaks no TLS");
  return tls->reload();
}

HttpServer::Statistics HttpServer::statistics() const {
  const detail::server::ServerContext& context = *impl_->context();
  std::uint64_t requests = 0;
  context.requests.each([&](const auto& one) { requests += one.load(std::memory_order_relaxed); });
  return {context.accepted.load(std::memory_order_relaxed), requests,
          context.connections.load(std::memory_order_relaxed)};
}

}  // namespace mcpgw
