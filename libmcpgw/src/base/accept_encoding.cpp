#include "base/accept_encoding.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

/// The weight of one element's parameters in thousandths (RFC 9110 12.4.2); what is malformed weighs nothing.
int weight(std::string_view parameters) {
  parameters = trim(parameters);
  if (parameters.empty()) return 1000;
  if (!starts_with_icase(parameters, "q=")) return 0;
  const std::string_view digits = parameters.substr(2);
  if (digits.empty() || digits.size() > 5 || (digits[0] != '0' && digits[0] != '1')) return 0;
  if (digits.size() > 1 && digits[1] != '.') return 0;
  int value = (digits[0] - '0') * 1000;
  int unit = 100;
  for (const char c : digits.substr(std::min<std::size_t>(digits.size(), 2))) {
    if (c < '0' || c > '9') return 0;
    value += (c - '0') * unit;
    unit /= 10;
  }
  return std::min(value, 1000);
}

}  // namespace

bool accepts_gzip(const HttpHeaders& request) {
  int gzip = -1;
  int any = -1;
  int identity = -1;
  for (const auto& [name, value] : request) {
    if (name.size() != 15 || !iequals(name, "Accept-Encoding")) continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const auto comma = std::min(rest.find(','), rest.size());
      const std::string_view element = rest.substr(0, comma);
      rest.remove_prefix(std::min(rest.size(), comma + 1));
      const auto semicolon = std::min(element.find(';'), element.size());
      const std::string_view coding = trim(element.substr(0, semicolon));
      const int q = weight(element.substr(std::min(element.size(), semicolon + 1)));
      if (iequals(coding, "gzip") || iequals(coding, "x-gzip")) gzip = std::max(gzip, q);
      if (coding == "*") any = q;
      if (iequals(coding, "identity")) identity = q;
    }
  }
  if (gzip < 0) gzip = any;
  return gzip > 0 && gzip >= identity;
}

}  // namespace mcpgw::detail
