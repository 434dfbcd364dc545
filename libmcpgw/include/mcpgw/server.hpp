// HttpServer: the bundled HTTP/1.1 server. It owns the sockets on the Runtime's loops and drives a
// RequestHandler; cpp-httplib parses requests. Component mcpgw::server.
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

/// Files in PEM. TLS 1.2 and 1.3.
struct TlsOptions {
  std::string cert;  ///< the certificate and its chain; with `key`: TLS is on
  std::string key;   ///< without passphrase
  std::string
      client_ca;  ///< clients must present a certificate of one of these authorities; "": they need none
  std::chrono::milliseconds handshake_timeout{10000};
};

struct HttpServerOptions {
  /// An IP address, "localhost", or "unix:/path" (a socket file; `port` is then of no meaning).
  std::string host = "127.0.0.1";
  int port = 0;               ///< 0: chosen by the system
  unsigned unix_mode = 0660;  ///< of the socket file
  /// Lets other processes of the same user listen on the same port (SO_REUSEPORT); the system shares the
  /// connections out. Those that wait in a process's queue when it ends are lost: `sockets` loses none.
  bool reuse_port = false;
  /// Listening sockets made by somebody else, see inherited_sockets(): used instead of host and port. The
  /// server owns them from start() on, also when that fails.
  std::vector<int> sockets;
  TlsOptions tls;
  std::size_t max_header_bytes = 32 * 1024;
  std::size_t max_headers = 100;
  std::size_t max_body = 8 * 1024 * 1024;
  std::chrono::milliseconds request_timeout{30000};  ///< for a whole request to arrive; 408
  std::chrono::milliseconds idle_timeout{75000};     ///< between requests of a connection
  std::size_t max_connections = 20000;               ///< beyond it the oldest idle one is closed
  std::size_t max_write_buffer = 8 * 1024 * 1024;    ///< a client that reads slower than that is dropped
  /// Addresses or CIDR networks. The peers of a socket file count as 127.0.0.1.
  std::vector<std::string> trusted_proxies;
  std::chrono::milliseconds websocket_ping{20000};  ///< how often a WebSocket's client is asked for a pong
  std::chrono::milliseconds websocket_pong{20000};  ///< how long it may take
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

  /// Sockets that a supervisor handed to this process (LISTEN_FDS and LISTEN_PID, as systemd does); empty
  /// when there are none. Takes them: the variables are removed. Call it once, before threads are started.
  /// invalid_argument/"invalid_sockets" when the variables make no sense.
  static Result<std::vector<int>> inherited_sockets();

  int port() const noexcept;  ///< 0 for a socket file
  /// "http://127.0.0.1:3000", "https://...", "unix:/path"
  std::string url() const;
  /// Whether only this host can connect over the network: every address is a loopback address.
  bool loopback_only() const noexcept;

  /// Reads the files of TlsOptions again: new connections use them. On an error the old ones stay in use.
  /// invalid_argument/"invalid_tls"; unsupported when TLS is off.
  Status reload_tls();

  /// Stops accepting and closes idle connections; running requests go on. Connections that were accepted but
  /// whose first request has not come get up to `patience` for it (their answer ends them): with a socket
  /// that another process accepts from, no client notices the change. Blocks for that long at most.
  void drain(std::chrono::milliseconds patience = {});
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
