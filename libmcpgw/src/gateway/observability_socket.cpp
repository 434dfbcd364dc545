#include "gateway/observability_socket.hpp"

#include "base/text.hpp"
#include "gateway/live_state.hpp"
#include "gateway/mcp_endpoint.hpp"
#include "gateway/replicas.hpp"
#include "gateway/socket_tickets.hpp"
#include "observability/activity_hub.hpp"

namespace mcpgw::detail {
namespace {

/// What a dashboard sends is not read; more than this is no dashboard.
constexpr std::size_t kMaxMessage = 4096;

HttpResponse not_an_upgrade(int status, const std::string& request_id) {
  if (status != 426)
    return http_error(status, "invalid_request", "The WebSocket handshake is malformed", request_id);
  HttpResponse out =
      http_error(426, "upgrade_required", "This is a WebSocket: ask for an upgrade", request_id);
  out.headers.emplace_back("Upgrade", "websocket");
  out.headers.emplace_back("Sec-WebSocket-Version", "13");
  return out;
}

}  // namespace

Result<Principal> ObservabilitySocket::authenticate(const HttpRequest& request) const {
  const Authenticator& authenticator = *core_->authenticator;
  if (const std::string* header = request.header("Authorization")) return authenticator.authenticate(*header);
  if (const auto ticket = query_value(request.query(), "ticket")) {
    auto redeemed = core_->tickets->redeem(*ticket);
    if (!redeemed) return redeemed.error();
    if (!*redeemed || !authenticator.still_valid(**redeemed))
      return Error(ErrorCode::unauthenticated, "invalid_token", "The ticket is not or no longer valid");
    return std::move(**redeemed);
  }
  if (const auto token = query_value(request.query(), "token"))
    return authenticator.authenticate_token(*token);
  return authenticator.authenticate({});
}

void ObservabilitySocket::open(const HttpRequest& request, const std::shared_ptr<Responder>& responder,
                               const Principal& principal, const std::string& request_id) const {
  if (const int refusal = websocket_refusal(request); refusal != 0)
    return responder->send(not_an_upgrade(refusal, request_id));
  ReplicaCounts::Hold hold;  // until the dashboard has its place
  const bool fits = core_->replicas->counts().stream_fits_blocking(principal.user_id, hold);
  std::uint64_t id = 0;
  if (fits)
    hold.hand_over(
        [&] { id = core_->dashboards->reserve(principal, core_->options.session.max_streams_per_user); });
  if (id == 0) return responder->send(too_many("Too many streams are open", request_id));
  WebSocketOptions options;
  options.max_message = kMaxMessage;
  options.on_close = [weak = std::weak_ptr(core_->dashboards), id](int) {
    if (const auto hub = weak.lock()) hub->remove(id);
  };
  auto socket = responder->accept_websocket(std::move(options));
  if (!socket) {
    core_->dashboards->remove(id);
    return responder->send(not_an_upgrade(426, request_id));
  }
  core_->dashboards->attach(id, std::move(socket), snapshot_json(*core_, principal));
}

}  // namespace mcpgw::detail
