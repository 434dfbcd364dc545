// What every AuditSink refuses and how rows match a filter: shared so that all give the same answers.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "mcpgw/audit.hpp"

namespace mcpgw::detail {

/// A page holds at most this many rows, whatever was asked for.
inline constexpr std::size_t kMaxAuditPage = 10000;
inline constexpr std::size_t kMaxAuditOffset = std::size_t{1} << 40;

/// The rows a status filter lets through: response_status in [low, high].
struct StatusRange {
  int low = std::numeric_limits<int>::min();
  int high = std::numeric_limits<int>::max();
};

/// nullopt when `status` is neither "ok", "error" nor a number of at most nine digits.
inline std::optional<StatusRange> parse_status(std::string_view status) {
  if (status == "ok") return StatusRange{std::numeric_limits<int>::min(), 399};
  if (status == "error") return StatusRange{400, std::numeric_limits<int>::max()};
  if (status.empty() || status.size() > 9) return std::nullopt;
  int number = 0;
  for (const char c : status) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + (c - '0');
  }
  return StatusRange{number, number};
}

inline Status check_audit_query(const AuditQuery& query) {
  if (query.filter.status && !parse_status(*query.filter.status))
    return Error{ErrorCode::invalid_argument, "invalid_status",
                 "The status filter is \"ok\", \"error\" or a number of at most nine digits.", "status"};
  if (query.before < 0 || query.offset > kMaxAuditOffset)
    return Error{ErrorCode::invalid_argument, "invalid_position", "The position lies outside the audit log.",
                 query.before < 0 ? "before" : "offset"};
  return {};
}

/// Substring, ignoring ASCII case. `lower` is in lower case already.
inline bool contains_icase(std::string_view text, std::string_view lower) noexcept {
  const auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  if (lower.size() > text.size()) return false;
  for (std::size_t at = 0; at + lower.size() <= text.size(); ++at) {
    std::size_t same = 0;
    while (same < lower.size() && low(text[at + same]) == lower[same]) ++same;
    if (same == lower.size()) return true;
  }
  return false;
}

}  // namespace mcpgw::detail
