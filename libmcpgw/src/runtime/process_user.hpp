// The user and group that a program is started as.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "mcpgw/result.hpp"

namespace mcpgw::detail {

struct ProcessUser {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  ///< supplementary ones
};

/// `text` is "user" or "user:group", names or numbers. Without a group: the user's own groups. A number
/// without an account needs a group. Asks the system's user database: may block.
/// invalid_argument/"invalid_run_as".
Result<ProcessUser> find_process_user(const std::string& text);

}  // namespace mcpgw::detail
