// Front: everything that comes before a handler and after it: request ids, origins and CORS, load, tokens,
// which handler a path belongs to, the headers that every answer carries, and the access log.
#pragma once

#include <memory>
#include <string>

#include "base/shared_apart.hpp"
#include "docs/api_docs.hpp"
#include "docs/web_files.hpp"
#include "gateway/core.hpp"
#include "gateway/mcp_endpoint.hpp"
#include "gateway/observability_socket.hpp"
#include "mcpgw/admin_api.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class Front : public std::enable_shared_from_this<Front> {
 public:
  Front(std::shared_ptr<GatewayCore> core, std::unique_ptr<AdminApi> admin);

  /// `self`: this, as the thread holds it.
  void handle(const std::shared_ptr<Front>& self, HttpRequest request, std::shared_ptr<Responder> responder);
  /// A request to /mcp that another replica took from a client and has examined as far as it concerns it.
  void handle_forwarded(HttpRequest request, std::shared_ptr<Responder> responder);

 private:
  class Reply;
  std::shared_ptr<Reply> make_reply(HttpRequest& request, std::shared_ptr<Responder> responder) const;
  void begin_trace(HttpRequest& request, Reply& reply) const;
  void route(HttpRequest request, std::shared_ptr<Reply> reply);
  void preflight(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  void mcp(HttpRequest request, std::shared_ptr<Reply> reply);
  void api(HttpRequest request, std::shared_ptr<Reply> reply);
  void observe(HttpRequest request, std::shared_ptr<Reply> reply);
  void fail_unauthenticated(Reply& reply, const Error& error, bool token_given) const;
  void ready(const std::shared_ptr<Reply>& reply);
  void metrics(const HttpRequest& request, const std::shared_ptr<Reply>& reply);
  HttpHeaders cors_headers(const HttpRequest& request) const;
  /// Whether a browser page of this origin may talk to /mcp (docs/server.md, "Origins").
  bool origin_allowed(const HttpRequest& request) const;

  const std::shared_ptr<GatewayCore> core_;
  const std::unique_ptr<AdminApi> admin_;
  const std::shared_ptr<McpEndpoint> endpoint_;
  // The same two, for what each request holds.
  const HeldApart<GatewayCore> cores_;
  const HeldApart<McpEndpoint> endpoints_;
  const ObservabilitySocket socket_;
  const ApiDocs docs_;
  const WebFiles web_files_;
};

/// `pattern` is an origin with at most one `*` that stands for part of the host or for the port.
bool origin_matches(std::string_view pattern, std::string_view origin);

}  // namespace mcpgw::detail
