// What people and programs read, and secrets that people type.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mcpgw/result.hpp"

namespace mcpgw::app {

using Json = nlohmann::ordered_json;

/// Rows of equal length under a header.
void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows);
void print_json(const Json& value);       ///< indented
void print_json_line(const Json& value);  ///< one line, flushed
void print_line(const std::string& text);

/// Without what a terminal would obey: names in rows may come from anybody.
std::string shown(const std::string& text);
/// A member as one cell: texts as they are, lists joined, null and absent as "".
std::string cell(const Json& object, const char* member);
std::string join(const std::vector<std::string>& parts, const char* separator = ", ");

/// RFC 3339 in UTC with six digits of a second, as the REST API has it.
std::string time_text(std::chrono::system_clock::time_point time);

/// A secret from standard input: its first line, or a prompt without echo when it is a terminal; asked twice
/// there with `repeat`. invalid_argument when there is none, or it is too long.
Result<std::string> read_secret(const std::string& prompt, bool repeat);

}  // namespace mcpgw::app
