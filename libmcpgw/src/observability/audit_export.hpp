// Audit rows as JSON lines: to a file that rotates, to standard output, or to syslog; beside where they are
// stored.
#pragma once

#include <memory>
#include <string>

#include "mcpgw/audit.hpp"
#include "mcpgw/gateway.hpp"

namespace mcpgw::detail {

/// One row as one JSON object, with the members of /api/logs.
std::string audit_json(const AuditRecord& record);

/// `sink`, whose rows are written to `options.export_to` too ("stdout", "syslog", "syslog:<socket>", else a
/// file). What cannot be written fails the batch, which is then tried again: stored rows are not stored
/// twice, and of a file a half-written batch is taken back. invalid_argument with field "audit.export" when
/// it cannot be opened.
Result<std::shared_ptr<AuditSink>> exporting(std::shared_ptr<AuditSink> sink, const AuditOptions& options);

}  // namespace mcpgw::detail
