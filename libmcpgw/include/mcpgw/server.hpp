// HttpServer: the bundled HTTP/1.1 server. It owns the sockets on the Runtime's loops and drives a
// RequestHandler; cpp-httplib parses requests and renders answers. Component mcpgw::server.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mcpgw/gateway.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/runtime.hpp"

namespace mcpgw {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;  ///< 0: chosen by the system
  std::size_t max_header_bytes = 32 * 1024;
  std::size_t max_headers = 100;
  std::size_t max_body = 8 * 1024 * 1024;
  std::chrono::milliseconds request_timeout{30000};  ///< for a whole request to arrive; 408
  std::chrono::milliseconds idle_timeout{75000};     ///< between requests of a connection
  std::size_t max_connections = 20000;               ///< beyond it the oldest idle one is closed
  std::size_t max_write_buffer = 8 * 1024 * 1024;    ///< a client that reads slower than that is dropped
  std::vector<std::string> trusted_proxies;          ///< addresses or CIDR networks
  LogSink log;
};

/// Safe from any thread.
class HttpServer {
 public:
  /// Listens when it returns. unavailable/"address_in_use"; invalid_argument for a bad address.
  static Result<std::shared_ptr<HttpServer>> start(std::shared_ptr<Gateway> gateway,
                                                   HttpServerOptions options = {});
  /// The same for any handler.
  static Result<std::shared_ptr<HttpServer>> start(std::shared_ptr<RequestHandler> handler,
                                                   std::shared_ptr<Runtime> runtime,
                                                   HttpServerOptions options = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const noexcept;
  /// "http://127.0.0.1:3000"
  std::string url() const;

  /// Stops accepting and closes idle connections; running requests go on.
  void drain();
  /// Ends everything now. Idempotent; blocks until no handler call is running. Not from a loop thread.
  void stop();

  struct Statistics {
    std::uint64_t accepted = 0;
    std::uint64_t requests = 0;
    std::size_t connections = 0;
  };
  Statistics statistics() const;

 private:
  class Impl;
  explicit HttpServer(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace mcpgw
