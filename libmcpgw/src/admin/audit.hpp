// The audit rows of the REST API.
#pragma once

#include "admin/router.hpp"

namespace mcpgw::detail {

/// The row that this answer leaves, bodies redacted; nullopt when it leaves none. `duration` of the request.
std::optional<AuditRecord> audit_row(const Route& route, Call& call, const HttpResponse& response,
                                     Duration duration);

}  // namespace mcpgw::detail
