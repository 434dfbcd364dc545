#include "observability/audit_bounds.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxName = 256;
constexpr std::string_view kCut = "...";

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

/// Bytes that a character has by its first.
std::size_t length_of(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

void drop_partial_character(std::string& text) {
  std::size_t start = text.size();
  while (start > 0 && text.size() - start < 4 && is_continuation(text[start - 1])) --start;
  if (start == 0) return text.clear();
  if (length_of(text[start - 1]) != text.size() - start + 1) text.resize(start - 1);
}

/// Without control characters, as nearly every text is: eight bytes are looked at together.
bool is_plain(std::string_view text) {
  constexpr std::uint64_t kOnes = 0x0101010101010101, kHigh = 0x8080808080808080;
  while (text.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, text.data(), 8);
    const std::uint64_t deleted = word ^ (kOnes * 0x7f);
    // A byte below n has its high bit in (word - n) and not in word.
    if ((((word - kOnes * 0x20) & ~word) | ((deleted - kOnes) & ~deleted)) & kHigh) return false;
    text.remove_prefix(8);
  }
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; });
}

}  // namespace

void bound_text(std::string& text, std::size_t max) {
  if (text.empty()) return;
  if (text.size() > max) {
    text.resize(max - kCut.size());
    drop_partial_character(text);
    text += kCut;
  } else if (static_cast<unsigned char>(text.back()) >= 0x80) {
    drop_partial_character(text);
  }
  if (is_plain(text)) return;
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }, '?');
}

void bound_row(AuditRecord& row) {
  bound_text(row.method, kMaxAuditMethod);
  bound_text(row.tool, kMaxAuditItem);
  // Names of users, targets and policies are checked where they are made.
  for (std::string* text : {&row.client_ip, &row.client_name, &row.trace_id}) bound_text(*text, kMaxName);
}

}  // namespace mcpgw::detail
