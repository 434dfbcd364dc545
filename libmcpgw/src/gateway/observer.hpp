// Observer: what is told of a request, a session or a target to those who watch: statistics, metrics and open
// dashboards. The audit log is told by whoever has the row.
#pragma once

#include <string>
#include <string_view>

#include "gateway/core.hpp"
#include "mcpgw/http.hpp"
#include "observability/trace.hpp"
#include "upstream/upstream.hpp"

namespace mcpgw::detail {

class UpstreamConnection;

/// Safe from any thread; nothing here blocks.
class Observer {
 public:
  /// `core` owns it.
  explicit Observer(GatewayCore& core) : core_(core) {}

  /// A JSON-RPC request of a client has its answer; `row` is its audit row, complete but for the body. What
  /// it has from outside is bounded here.
  void finished(AuditRecord& row, Duration took, RequestTrace* trace = nullptr);
  /// Whether a server's request is refused, which it has been told then: it would have no row, since those that
  /// wait are as many as may. A server can ask as often as it likes, so memory depends on it.
  bool refuses(UpstreamConnection& from, const ServerMessage& message);
  /// A server asked something of a client, and was refused or not. It has a row of its own; `row` tells whose
  /// call or session it belongs to, as far as that is known.
  void server_request(AuditRecord row, const Target& target, const ServerMessage& message, bool refused);
  /// `event` is "created", "deleted", "expired" or "recycled".
  void session(const std::string& session_id, const std::string& user_id, const char* event);
  /// A call failed on the way to its target. `message` is what the client is told, `cause` is for
  /// administrators.
  void call_failed(const Target& target, const std::string& user_id, std::string_view code,
                   std::string_view message, std::string_view cause);
  /// A target that was up is not, or the other way round (code "recovered"): everybody who reaches it is
  /// told.
  void target_changed(const Target& target, std::string_view code, std::string_view cause);

 private:
  GatewayCore& core_;
};

}  // namespace mcpgw::detail
