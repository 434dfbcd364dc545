#pragma once

#include <memory>

#include "mcpgw/upstream.hpp"
#include "support.hpp"

namespace mcpgw::capi {

/// Connections to servers that the host keeps, for GatewayOptions::connect_upstream.
ConnectUpstream make_connect(const mcpgw_upstream_callbacks& callbacks,
                             std::shared_ptr<CallbackThreads> threads);

}  // namespace mcpgw::capi
