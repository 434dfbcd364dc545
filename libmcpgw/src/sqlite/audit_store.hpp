// The AuditSink face of a database file.
#pragma once

#include <memory>

#include "mcpgw/audit.hpp"
#include "sqlite/database.hpp"

namespace mcpgw::detail::sqlite {

Result<std::shared_ptr<AuditSink>> open_audit_store(std::shared_ptr<Database> database);

}  // namespace mcpgw::detail::sqlite
