// A client of the observability WebSocket, over a real socket.
#pragma once

#include <optional>
#include <string>

#include "mcpgw/server.hpp"
#include "support.hpp"
#include "unit/server_support.hpp"
#include "unit/websocket_support.hpp"

namespace mcpgw::testing {

/// The gateway of a test behind a server of its own.
struct Served {
  explicit Served(InProcessGateway& gateway, HttpServerOptions options = {}) {
    auto started = HttpServer::start(gateway.gateway().shared_from_this(), std::move(options));
    REQUIRE(started);
    server = *started;
  }
  int port() const { return server->port(); }
  std::shared_ptr<HttpServer> server;
};

class DashboardClient : public RawClient {
 public:
  static constexpr const char* kPath = "/api/observability/ws";
  /// `query` with its question mark; `headers` each with its line end.
  DashboardClient(const Served& served, const std::string& query, const std::string& headers,
                  int receive_buffer = 0)
      : RawClient(served.port(), receive_buffer) {
    std::string request = upgrade_request(kPath + query, headers);
    request.replace(request.find("Host: a"), 7, "Host: localhost");
    send(request);
  }
  static std::string bearer(const std::string& token) { return "Authorization: Bearer " + token + "\r\n"; }
  /// As one that the gateway must let in.
  DashboardClient(const Served& served, const McpClient& client)
      : DashboardClient(served, "", bearer(client.token())) {
    const RawAnswer answer = read_head();
    REQUIRE_MESSAGE(answer.status == 101, answer.line);
  }

  std::optional<ServerFrame> frame() { return read_server_frame(*this); }
  /// The data of the next message of a type; what comes before it is left out. Empty: the socket closed.
  std::string next(const std::string& type) {
    while (const auto got = frame()) {
      if (got->opcode == WebSocketOpcode::close) {
        code_ = got->code();
        return {};
      }
      if (got->opcode != WebSocketOpcode::text) continue;
      REQUIRE(detail::raw::check(got->payload, 32) == detail::raw::Fault::none);
      if (detail::raw::string_value(detail::raw::find(got->payload, "type")) == type)
        return std::string(detail::raw::find(got->payload, "data"));
    }
    return {};
  }
  /// The code it is closed with; what comes before is left out. 1006: it broke.
  int closed() {
    while (code_ == 0) {
      const auto got = frame();
      if (!got) return 1006;
      if (got->opcode == WebSocketOpcode::close) code_ = got->code();
    }
    return code_;
  }

 private:
  int code_ = 0;
};

inline std::string field(const std::string& json, const char* name) {
  const auto value = detail::raw::find(json, name);
  return detail::raw::string_value(value).value_or(std::string(value));
}

}  // namespace mcpgw::testing
