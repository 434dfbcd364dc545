#include "postgres/audit_row.hpp"

#include "base/text.hpp"

namespace mcpgw::detail::postgres {
namespace {

// PostgreSQL's texts hold no zero byte: it is written as the noncharacter U+FFFF and "0", that one itself as
// U+FFFF and "1". The noncharacter begins every escape and nothing else, so substrings are found as they are.
constexpr std::string_view kEscape = "\xef\xbf\xbf";
constexpr std::string_view kZero("\0", 1);
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

}  // namespace

std::string to_stored(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\0') {
      out.append(kEscape).append("0");
    } else if (text.compare(i, kEscape.size(), kEscape) == 0) {
      out.append(kEscape).append("1");
      i += kEscape.size() - 1;
    } else {
      out += text[i];
    }
  }
  if (is_utf8(out)) return out;
  // A text against the rules must not keep the whole batch out for ever.
  std::string mended;
  for (std::size_t i = 0; i < out.size();) {
    std::size_t size = 1;
    while (size <= 4 && i + size <= out.size() && !is_utf8(std::string_view(out).substr(i, size))) ++size;
    if (size <= 4 && i + size <= out.size()) {
      mended.append(out, i, size);
      i += size;
    } else {
      mended += kReplacement;
      ++i;
    }
  }
  return mended;
}

std::string from_stored(std::string text) {
  for (auto at = text.find(kEscape); at != std::string::npos; at = text.find(kEscape, at)) {
    const bool zero = text.compare(at + kEscape.size(), 1, "0") == 0;
    const auto plain = zero ? kZero : kEscape;
    text.replace(at, kEscape.size() + 1, plain);
    at += plain.size();
  }
  return text;
}

AuditRecord read_audit_row(const Answer& rows, int row) {
  return read_audit_columns([&](int column) { return from_stored(rows.bytes(row, column)); },
                            [&](int column) { return rows.integer(row, column); });
}

}  // namespace mcpgw::detail::postgres
