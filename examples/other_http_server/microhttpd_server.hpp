// GNU libmicrohttpd driving an mcpgw::RequestHandler: what it takes to put a Gateway behind an HTTP server of
// one's own. One thread serves all connections; a request that waits and a stream that is silent are
// suspended.
#pragma once

#include <memory>

#include "mcpgw/http.hpp"

struct MHD_Daemon;
class Exchange;

class MicrohttpdServer {
 public:
  /// Listens on 127.0.0.1; port 0 is chosen by the system. nullptr when that fails.
  static std::unique_ptr<MicrohttpdServer> start(std::shared_ptr<mcpgw::RequestHandler> handler, int port);
  /// The handler must have ended its answers and streams, as Gateway::close() does.
  ~MicrohttpdServer();
  int port() const;

 private:
  struct Impl;
  explicit MicrohttpdServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};
