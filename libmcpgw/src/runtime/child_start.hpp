// Starting a program: the part of ChildProcess that talks to the kernel.
#pragma once

#include <sys/types.h>

#include "mcpgw/result.hpp"
#include "runtime/child_process.hpp"
#include "runtime/unique_fd.hpp"

namespace mcpgw::detail {

struct StartedProcess {
  pid_t pid = -1;
  UniqueFd input;   ///< our end of its stdin; all three do not block
  UniqueFd output;  ///< of its stdout
  UniqueFd errors;  ///< of its stderr
};

/// Returns once the program runs, or could not be started. The child dies with the calling thread.
Result<StartedProcess> start_process(const SpawnOptions& options);

}  // namespace mcpgw::detail
