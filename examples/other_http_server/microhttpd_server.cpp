#include "microhttpd_server.hpp"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

using namespace mcpgw;

namespace {
constexpr std::size_t kMaxBody = 8 * 1024 * 1024;
constexpr std::size_t kMaxQueued = 1024 * 1024;  // of a client that does not read
}  // namespace

// One request and its answer. libmicrohttpd's thread reads it and takes the answer; the gateway gives the
// answer from any thread.
class Exchange : public Responder, public ResponseStream, public std::enable_shared_from_this<Exchange> {
 public:
  explicit Exchange(const char* target) { request.target = target; }
  HttpRequest request;
  bool dispatched = false;

  // --- the gateway's side --------------------------------------------------------------------------------
  void send(HttpResponse response) override { answer(std::move(response), true); }
  std::shared_ptr<ResponseStream> start(HttpResponse head) override {
    answer(std::move(head), false);
    return shared_from_this();
  }
  bool write(std::string data) override {
    const std::lock_guard lock(mutex_);
    if (gone_ || ended_) return false;
    if (pending_.size() + data.size() > kMaxQueued) gone_ = true;
    pending_ += data;
    resume();
    return !gone_;
  }
  void close() override {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    resume();
  }
  void on_disconnect(std::function<void()> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!gone_) {
        on_disconnect_ = std::move(callback);
        return;
      }
    }
    if (callback) callback();
  }

  // --- libmicrohttpd's side ------------------------------------------------------------------------------
  /// Queues the answer when there is one, else suspends the connection until there is.
  MHD_Result proceed(MHD_Connection* connection) {
    const std::lock_guard lock(mutex_);
    connection_ = connection;
    if (!answered_) return suspend();
    MHD_Response* response;
    if (ended_) {
      response = MHD_create_response_from_buffer(pending_.size(), pending_.data(), MHD_RESPMEM_MUST_COPY);
    } else {
      response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 * 1024, &Exchange::read,
                                                   new std::shared_ptr<Exchange>(shared_from_this()),
                                                   &Exchange::release);
    }
    for (const auto& [name, value] : head_.headers)
      MHD_add_response_header(response, name.c_str(), value.c_str());
    const MHD_Result queued = MHD_queue_response(connection, static_cast<unsigned>(head_.status), response);
    MHD_destroy_response(response);
    return queued;
  }
  /// The connection is over, whoever ended it.
  void over(bool complete) {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      connection_ = nullptr;
      gone_ = true;
      if (!complete) callback = std::move(on_disconnect_);
    }
    if (callback) callback();
  }
  /// A suspended connection is not watched by libmicrohttpd: whether its client has hung up is asked here.
  void look_at_client() {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      if (!suspended_ || gone_) return;
      const auto* info = MHD_get_connection_info(connection_, MHD_CONNECTION_INFO_CONNECTION_FD);
      pollfd client{info ? info->connect_fd : -1, POLLRDHUP, 0};
      if (::poll(&client, 1, 0) <= 0) return;
      gone_ = true;
      answered_ = true;
      callback = std::move(on_disconnect_);
      resume();
    }
    if (callback) callback();
  }

 private:
  void answer(HttpResponse response, bool whole) {
    const std::lock_guard lock(mutex_);
    if (answered_) return;
    pending_ = std::move(response.body);
    head_ = std::move(response);
    answered_ = true;
    ended_ = whole;
    resume();
  }
  static ssize_t read(void* self, std::uint64_t, char* buffer, std::size_t room) {
    Exchange& exchange = **static_cast<std::shared_ptr<Exchange>*>(self);
    const std::lock_guard lock(exchange.mutex_);
    if (exchange.gone_) return MHD_CONTENT_READER_END_WITH_ERROR;
    const std::size_t size = std::min(room, exchange.pending_.size());
    if (size == 0) {
      if (exchange.ended_) return MHD_CONTENT_READER_END_OF_STREAM;
      exchange.suspend();
      return 0;
    }
    std::memcpy(buffer, exchange.pending_.data(), size);
    exchange.pending_.erase(0, size);
    return static_cast<ssize_t>(size);
  }
  static void release(void* self) { delete static_cast<std::shared_ptr<Exchange>*>(self); }

  MHD_Result suspend() {
    suspended_ = true;
    MHD_suspend_connection(connection_);
    return MHD_YES;
  }
  void resume() {
    if (suspended_ && connection_) MHD_resume_connection(connection_);
    suspended_ = false;
  }

  std::mutex mutex_;  // guards what follows
  MHD_Connection* connection_ = nullptr;
  bool suspended_ = false;
  HttpResponse head_;
  std::string pending_;  // body that the client has not been given
  bool answered_ = false;
  bool ended_ = false;
  bool gone_ = false;
  std::function<void()> on_disconnect_;
};

struct MicrohttpdServer::Impl {
  std::shared_ptr<RequestHandler> handler;
  MHD_Daemon* daemon = nullptr;
  std::atomic<bool> stopping{false};
  std::thread watcher;
  std::mutex mutex;  // guards what follows
  std::set<std::shared_ptr<Exchange>> exchanges;

  void watch() {
    while (!stopping) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      std::vector<std::shared_ptr<Exchange>> all;
      {
        const std::lock_guard lock(mutex);
        all.assign(exchanges.begin(), exchanges.end());
      }
      for (const auto& exchange : all) exchange->look_at_client();
    }
  }

  // The one hook that sees the request target before it is decoded.
  static void* on_target(void* self, const char* target, MHD_Connection*) {
    auto exchange = std::make_shared<Exchange>(target);
    auto* impl = static_cast<Impl*>(self);
    const std::lock_guard lock(impl->mutex);
    impl->exchanges.insert(exchange);
    return new std::shared_ptr<Exchange>(std::move(exchange));
  }

  static MHD_Result on_header(void* headers, MHD_ValueKind, const char* name, const char* value) {
    static_cast<HttpHeaders*>(headers)->emplace_back(name, value ? value : "");
    return MHD_YES;
  }

  static MHD_Result on_request(void* self, MHD_Connection* connection, const char*, const char* method,
                               const char*, const char* data, std::size_t* size, void** state) {
    const auto exchange = *static_cast<std::shared_ptr<Exchange>*>(*state);
    HttpRequest& request = exchange->request;
    if (request.method.empty()) {  // the head has come
      request.method = method;
      MHD_get_connection_values(connection, MHD_HEADER_KIND, &on_header, &request.headers);
      char text[INET_ADDRSTRLEN] = "";
      const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
      if (info)
        inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(info->client_addr)->sin_addr, text,
                  sizeof text);
      request.remote_address = text;
      return MHD_YES;
    }
    if (*size > 0) {
      if (request.body.size() + *size > kMaxBody) return MHD_NO;
      request.body.append(data, *size);
      *size = 0;
      return MHD_YES;
    }
    if (!exchange->dispatched) {
      exchange->dispatched = true;
      static_cast<Impl*>(self)->handler->handle_async(std::move(request), exchange);
      request.method = "done";
    }
    return exchange->proceed(connection);
  }

  static void on_completed(void* self, MHD_Connection*, void** state, MHD_RequestTerminationCode code) {
    const std::unique_ptr<std::shared_ptr<Exchange>> exchange(
        static_cast<std::shared_ptr<Exchange>*>(*state));
    if (!exchange) return;
    {
      auto* impl = static_cast<Impl*>(self);
      const std::lock_guard lock(impl->mutex);
      impl->exchanges.erase(*exchange);
    }
    (*exchange)->over(code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
  }
};

MicrohttpdServer::MicrohttpdServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

std::unique_ptr<MicrohttpdServer> MicrohttpdServer::start(std::shared_ptr<RequestHandler> handler, int port) {
  auto impl = std::make_unique<Impl>();
  impl->handler = std::move(handler);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  impl->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, nullptr,
                                  nullptr, &Impl::on_request, impl.get(), MHD_OPTION_SOCK_ADDR, &address,
                                  MHD_OPTION_NOTIFY_COMPLETED, &Impl::on_completed, impl.get(),
                                  MHD_OPTION_URI_LOG_CALLBACK, &Impl::on_target, impl.get(),
                                  MHD_OPTION_CONNECTION_MEMORY_LIMIT, std::size_t{64 * 1024}, MHD_OPTION_END);
  if (!impl->daemon) return nullptr;
  impl->watcher = std::thread([self = impl.get()] { self->watch(); });
  return std::unique_ptr<MicrohttpdServer>(new MicrohttpdServer(std::move(impl)));
}

MicrohttpdServer::~MicrohttpdServer() {
  impl_->stopping = true;
  impl_->watcher.join();
  MHD_stop_daemon(impl_->daemon);
}

int MicrohttpdServer::port() const {
  return MHD_get_daemon_info(impl_->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}
