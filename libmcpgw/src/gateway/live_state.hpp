// GatewayLiveState: what the REST API asks of the running gateway.
#pragma once

#include "gateway/core.hpp"
#include "mcpgw/admin_api.hpp"

namespace mcpgw::detail {

class GatewayLiveState final : public LiveState {
 public:
  explicit GatewayLiveState(std::weak_ptr<GatewayCore> core) : core_(std::move(core)) {}

  Result<int> recycle(const std::string& user_id) override;
  Result<int> restart_instances(const std::string& target_id) override;
  TargetStatus target_status(const std::string& target_id) override;
  Result<TargetTest> test_target(const Principal& principal, const std::string& target_id) override;
  std::string snapshot(const Principal& principal) override;
  Result<SocketTicket> socket_ticket(const Principal& principal) override;
  bool can_audit() override;
  bool audit(AuditRecord record) override;

 private:
  const std::weak_ptr<GatewayCore> core_;
};

/// JSON of what is going on now: for administrators everything, for others their own part. Reads memory.
std::string snapshot_json(const GatewayCore& core, const Principal& principal);

}  // namespace mcpgw::detail
