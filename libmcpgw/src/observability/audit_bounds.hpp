// What clients and servers choose freely may stand in an audit row: shortened, and harmless to whoever shows
// it.
#pragma once

#include <string>

#include "mcpgw/audit.hpp"

namespace mcpgw::detail {

/// Bytes of a method, and of an item's name or URI, in audit rows, log lines, spans and the live view.
inline constexpr std::size_t kMaxAuditMethod = 128;
inline constexpr std::size_t kMaxAuditItem = 2048;

/// Cuts `text` to `max` bytes, never inside a character (nor leaves one that was cut before), and replaces
/// control characters, which could steer the terminal of whoever reads.
void bound_text(std::string& text, std::size_t max);

/// Applies it to everything in the row that comes from outside, the body aside.
void bound_row(AuditRecord& row);

}  // namespace mcpgw::detail
