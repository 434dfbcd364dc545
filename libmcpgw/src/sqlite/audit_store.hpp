// The AuditSink face of a database file.
#pragma once

#include <memory>

#include "mcpgw/audit.hpp"
#include "sqlite/audit_block.hpp"
#include "sqlite/database.hpp"

namespace mcpgw::detail::sqlite {

Result<std::shared_ptr<AuditSink>> open_audit_store(std::shared_ptr<Database> database);

/// Packs the rows of a file of version 2, which had a record for each, and drops their table. Within the
/// transaction that brings the file up to date.
Status pack_audit_rows(Connection& connection);

}  // namespace mcpgw::detail::sqlite
