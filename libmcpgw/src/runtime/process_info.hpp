// What the kernel tells of processes (/proc): enough to recognise one again whose number may have been
// reused.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mcpgw::detail {

struct ProcessInfo {
  pid_t pid = 0;
  pid_t group = 0;
  pid_t session = 0;
  std::uint64_t started = 0;  ///< clock ticks since the system started: with the pid, one process for ever
  bool zombie = false;
};

/// nullopt when there is no such process.
std::optional<ProcessInfo> process_info(pid_t pid);

/// Processes of a group, zombies left out.
std::vector<ProcessInfo> process_group(pid_t group);

/// Names this run of this system, as far as its processes can see one another; empty when that cannot be
/// told.
std::string process_space();

}  // namespace mcpgw::detail
