// The figures of /metrics in the Prometheus text format.
#pragma once

#include <string>

#include "gateway/core.hpp"

namespace mcpgw::detail {

/// Label sets are bounded: names come from configuration, never from clients.
std::string render_metrics(const GatewayCore& core);

}  // namespace mcpgw::detail
