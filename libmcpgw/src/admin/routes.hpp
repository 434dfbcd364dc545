// The groups of the route table, one file each.
#pragma once

#include <vector>

#include "admin/router.hpp"

namespace mcpgw::detail {

std::vector<Route> auth_routes();
std::vector<Route> user_routes();
std::vector<Route> target_routes();
std::vector<Route> token_routes();
std::vector<Route> policy_routes();
std::vector<Route> env_routes();
std::vector<Route> log_routes();

}  // namespace mcpgw::detail
