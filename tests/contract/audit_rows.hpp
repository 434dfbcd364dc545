// Rows for tests of an audit log.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "mcpgw/audit.hpp"

namespace mcpgw::contract {

inline Time audit_time(std::int64_t seconds) {
  return Time(std::chrono::seconds(1'767'225'600 + seconds));  // 2026-01-01T00:00:00Z
}

inline AuditRecord audit_row(int n) {
  AuditRecord row;
  row.id = "id-" + std::to_string(n);
  row.kind = "mcp";
  row.created_at = audit_time(n);
  row.user_id = "u" + std::to_string(n % 3);
  row.user_email = "user" + std::to_string(n % 3) + "@example.org";
  row.method = "tools/call";
  row.target_name = "git";
  row.tool = "tool_" + std::to_string(n);
  row.decision = "allow";
  row.response_status = 200;
  return row;
}

}  // namespace mcpgw::contract
