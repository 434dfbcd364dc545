// What is answered to a POST of revision 2026-07-28 (docs/protocol.md, "Revision 2026-07-28"). Routing,
// judging and forwarding are McpEndpoint's: this is their other face.
#pragma once

#include <memory>
#include <string>

#include "gateway/mcp_endpoint.hpp"
#include "gateway/modern_client.hpp"

namespace mcpgw::detail {

/// Made for each request; lives on the loop that read it.
class ModernEndpoint : public std::enable_shared_from_this<ModernEndpoint> {
 public:
  ModernEndpoint(std::shared_ptr<GatewayCore> core, std::shared_ptr<McpEndpoint> legacy)
      : core_(std::move(core)), legacy_(std::move(legacy)) {}

  /// `request` has a body that is one well-formed message of the modern era.
  Task<void> post(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                  Accepts accepts);

 private:
  using Call = std::shared_ptr<ModernCall>;
  using Round = std::shared_ptr<ModernRound>;

  /// Lists and completions: answered in one round.
  Task<void> plain(Round round, HttpHeaders headers, std::string params);
  /// Calls in whose middle a server may ask for input.
  Task<void> item(Round round, HttpHeaders headers, std::string params);
  /// A call that comes back with input.
  Task<void> resume(Round round, std::string params, const std::optional<RequestState>& state);
  /// Whether a call of which nothing waits may begin anew: its client has been where the server sent it.
  std::optional<ModernOutcome> visited(const Round& round, std::string_view params,
                                       const RequestState& state) const;
  Task<void> discover(Round round);
  Task<void> listen(Round round, std::string params, std::shared_ptr<Responder> responder, RequestMeta meta,
                    HttpHeaders headers, Accepts accepts);

  /// The client that the round's capabilities belong to. Null: refused, and the round is answered.
  std::shared_ptr<ModernClient> client_of(const Round& round);
  Call make_call(const Round& round, std::shared_ptr<Session> session, HttpHeaders headers,
                 const std::string& params, bool may_ask);
  /// Runs a call to its end, which may be rounds later. `round` waits for it.
  Task<void> run(Call call, Round round, std::int64_t number = 0);
  /// What has to be known of an item before it is used: which target it is of, and that headers that repeat
  /// arguments are right. A refusal, when it is one.
  Task<std::optional<ModernOutcome>> examine(Call call, const ModernRound& round,
                                             std::shared_ptr<const Target>& target);

  ModernCall::Deliver deliver();
  /// Writes the audit row of a round and answers it.
  void finish(const Round& round, ModernOutcome outcome, const UpstreamConnection* connection);
  std::string audited(const ModernRound& round, const UpstreamConnection* connection) const;

  const std::shared_ptr<GatewayCore> core_;
  const std::shared_ptr<McpEndpoint> legacy_;
};

/// The text of a JSON array of everything the gateway speaks, newest first.
const std::string& supported_versions_json();

}  // namespace mcpgw::detail
