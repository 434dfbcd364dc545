// The one place that includes nlohmann/json: for what mcpgw itself builds and inspects (records, REST
// bodies). What only passes through is handled as text: json/raw.hpp.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace mcpgw::detail {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

/// Parses untrusted text: nullopt for anything but one well-formed value without duplicate member names,
/// bad UTF-8 or deeper nesting than `max_depth`. Never throws.
std::optional<Json> parse_json(std::string_view text, std::size_t max_depth = 32);
std::optional<OrderedJson> parse_ordered_json(std::string_view text, std::size_t max_depth = 32);

/// dump() that cannot throw (invalid UTF-8 becomes U+FFFD).
std::string dump_json(const Json& value);
std::string dump_json(const OrderedJson& value);

}  // namespace mcpgw::detail
