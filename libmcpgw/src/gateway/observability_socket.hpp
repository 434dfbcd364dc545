// ObservabilitySocket: the WebSocket of dashboards (docs/operations.md, "Live view").
#pragma once

#include <memory>
#include <string>

#include "gateway/core.hpp"
#include "mcpgw/http.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class ObservabilitySocket {
 public:
  static constexpr const char* kPath = "/api/observability/ws";

  explicit ObservabilitySocket(std::shared_ptr<GatewayCore> core) : core_(std::move(core)) {}

  /// By the header Authorization, else by ?ticket=, else by ?token=: browsers cannot set headers here.
  /// Blocks. Errors as of Authenticator::authenticate(), and those of Storage.
  Result<Principal> authenticate(const HttpRequest& request) const;
  /// Answers 101 and adds the dashboard, or 400, 426, 429.
  void open(const HttpRequest& request, const std::shared_ptr<Responder>& responder,
            const Principal& principal, const std::string& request_id) const;

 private:
  const std::shared_ptr<GatewayCore> core_;
};

}  // namespace mcpgw::detail
