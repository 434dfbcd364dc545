// How an audit row is written and read.
#pragma once

#include <string>
#include <string_view>

#include "postgres/connection.hpp"
#include "storage/audit_columns.hpp"

namespace mcpgw::detail::postgres {

/// A text as PostgreSQL can hold it: zero bytes escaped, what is no UTF-8 replaced.
std::string to_stored(std::string_view text);
std::string from_stored(std::string text);

/// Of MCPGW_AUDIT_COLUMNS.
AuditRecord read_audit_row(const Answer& rows, int row);

}  // namespace mcpgw::detail::postgres
