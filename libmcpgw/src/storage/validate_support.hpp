// Shared by the validate_*.cpp files.
#pragma once

#include <string>
#include <string_view>

#include "mcpgw/result.hpp"

namespace mcpgw::detail {

inline bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
inline bool is_lower_alnum(char c) noexcept { return is_digit(c) || (c >= 'a' && c <= 'z'); }
inline bool is_alnum(char c) noexcept { return is_lower_alnum(c) || (c >= 'A' && c <= 'Z'); }

Error invalid(std::string_view field, std::string message, std::string_view reason = "invalid_request");

/// Valid UTF-8 of at most `max` characters without control characters other than those listed.
Status validate_text(std::string_view text, std::size_t max, std::string_view field,
                     std::string_view allowed_controls = {});

}  // namespace mcpgw::detail
