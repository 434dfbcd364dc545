// The columns of an audit row in the databases, and their order.
#pragma once

#include <cstdint>
#include <type_traits>

#include "mcpgw/audit.hpp"

/// What read_audit_columns() takes; the position comes first.
#define MCPGW_AUDIT_COLUMNS                                                                               \
  "position, id, kind, created_at, session_id, user_id, user_email, method, target_name, tool, decision," \
  " policy_id, policy_name, response_status, error_code, duration_ms, bytes_in, bytes_out, client_ip,"    \
  " client_name, trace_id, request_body"

namespace mcpgw::detail {

/// `text_at` and `integer_at` give what a column of the row holds, by its number in MCPGW_AUDIT_COLUMNS.
template <class TextAt, class IntegerAt>
AuditRecord read_audit_columns(TextAt text_at, IntegerAt integer_at) {
  AuditRecord record;
  int column = 0;
  const auto text = [&](std::string& member) { member = text_at(++column); };
  const auto number = [&](auto& member) {
    member = static_cast<std::remove_reference_t<decltype(member)>>(integer_at(++column));
  };
  text(record.id);
  text(record.kind);
  std::int64_t created_at = 0;
  number(created_at);
  record.created_at = Time(Duration(created_at));
  for (auto* member :
       {&record.session_id, &record.user_id, &record.user_email, &record.method, &record.target_name,
        &record.tool, &record.decision, &record.policy_id, &record.policy_name})
    text(*member);
  number(record.response_status);
  text(record.error_code);
  number(record.duration_ms);
  number(record.bytes_in);
  number(record.bytes_out);
  for (auto* member : {&record.client_ip, &record.client_name, &record.trace_id, &record.request_body})
    text(*member);
  return record;
}

}  // namespace mcpgw::detail
