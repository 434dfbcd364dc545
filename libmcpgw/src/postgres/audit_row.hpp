// How an audit row is written and read.
#pragma once

#include <string>
#include <string_view>

#include "mcpgw/audit.hpp"
#include "postgres/connection.hpp"

/// What read_audit_row() takes; the position comes first.
#define MCPGW_AUDIT_COLUMNS                                                                               \
  "position, id, kind, created_at, session_id, user_id, user_email, method, target_name, tool, decision," \
  " policy_id, policy_name, response_status, error_code, duration_ms, bytes_in, bytes_out, client_ip,"    \
  " client_name, trace_id, request_body"

namespace mcpgw::detail::postgres {

/// A text as PostgreSQL can hold it: zero bytes escaped, what is no UTF-8 replaced.
std::string to_stored(std::string_view text);
std::string from_stored(std::string text);

AuditRecord read_audit_row(const Answer& rows, int row);

}  // namespace mcpgw::detail::postgres
