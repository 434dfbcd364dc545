// Which target a call may concern: used by every group below /api/targets/{id}.
#pragma once

#include <memory>

#include "admin/router.hpp"

namespace mcpgw::detail {

/// Admins all; others those they reach.
bool may_see_target(const Call& call, const Target& target);

struct FoundTarget {
  std::shared_ptr<const Target> target;  ///< null: answer with the refusal
  HttpResponse refusal;
};
/// The target of the path's first value.
FoundTarget find_target(Call& call);

}  // namespace mcpgw::detail
