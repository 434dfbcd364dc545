// Small text helpers that several modules need: ASCII case, UTF-8, encodings, times, digests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/clock.hpp"

namespace mcpgw::detail {

std::string to_lower(std::string_view text);  ///< ASCII only
bool iequals(std::string_view a, std::string_view b) noexcept;
std::string_view trim(std::string_view text) noexcept;  ///< space, tab, CR, LF
std::vector<std::string> split(std::string_view text, char separator);
bool starts_with_icase(std::string_view text, std::string_view prefix) noexcept;

/// Whether `text` is valid UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text) noexcept;
/// Code points in valid UTF-8.
std::size_t utf8_length(std::string_view text) noexcept;
/// C0 controls and DEL, except those listed in `allowed`.
bool has_control(std::string_view text, std::string_view allowed = {}) noexcept;

std::string to_hex(std::string_view bytes);
std::optional<std::string> from_hex(std::string_view text);
std::string base64(std::string_view bytes);                             ///< standard, padded
std::optional<std::string> from_base64(std::string_view text);          ///< strict: canonical, padded
std::string base64url(std::string_view bytes);                          ///< no padding
std::optional<std::string> from_base64url(std::string_view text);       ///< strict: canonical, no padding

/// Decodes %XX; nullopt for a malformed escape. `+` stays.
std::optional<std::string> percent_decode(std::string_view text);
/// Everything but unreserved characters (RFC 3986) becomes %XX.
std::string percent_encode(std::string_view text);
/// Value of `name` in a query string, percent-decoded ('+' is a space); nullopt when absent or malformed.
std::optional<std::string> query_value(std::string_view query, std::string_view name);

/// Whether a Content-Type says JSON: application/json or any type with the suffix +json (RFC 6839).
bool is_json_type(std::string_view header) noexcept;

/// The trace id of a W3C traceparent header; empty when it is malformed.
std::string trace_id_of(std::string_view traceparent);

bool is_uuid(std::string_view text) noexcept;  ///< lower-case canonical form

/// RFC 3339 in UTC with six fractional digits.
std::string format_time(Time time);
/// RFC 3339 with any offset and fraction; nullopt when malformed.
std::optional<Time> parse_time(std::string_view text);

std::string sha256(std::string_view bytes);                              ///< 32 raw bytes
std::string hmac_sha256(std::string_view key, std::string_view bytes);   ///< 32 raw bytes
bool equal_constant_time(std::string_view a, std::string_view b) noexcept;

}  // namespace mcpgw::detail
