// Kubeconfig files: how kubectl and others are told where a cluster is and who they are.
#pragma once

#include <map>
#include <string>

#include "mcpgw/gateway.hpp"

namespace mcpgw::app {

/// The access of a kubeconfig's current context. Files that it names are read from its directory. A token, a
/// token file, and client certificates are understood; what would run a program or ask a person is refused.
/// Errors name no secret.
Result<KubernetesAccess> read_kubeconfig(const std::string& path);

}  // namespace mcpgw::app
