// What joins the gateway to servers that run as pods (upstream/instances.hpp).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "gateway/core.hpp"

namespace mcpgw::detail {

/// Makes core->instances when Kubernetes targets are switched on. The pool is there already.
Status open_instances(const std::shared_ptr<GatewayCore>& core);
/// How many of its instances will be replaced; nullopt when the target has none of this kind. Blocks; not
/// from a loop thread.
std::optional<Result<int>> restart_kubernetes_instances(const std::shared_ptr<GatewayCore>& core,
                                                        const std::string& target_id);

}  // namespace mcpgw::detail
