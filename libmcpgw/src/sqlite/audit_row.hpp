// How an audit row is read.
#pragma once

#include "sqlite/connection.hpp"
#include "storage/audit_columns.hpp"

namespace mcpgw::detail::sqlite {

/// Of MCPGW_AUDIT_COLUMNS.
inline AuditRecord read_audit_row(Statement& row) {
  return read_audit_columns([&](int column) { return row.bytes(column); },
                            [&](int column) { return row.integer(column); });
}

}  // namespace mcpgw::detail::sqlite
