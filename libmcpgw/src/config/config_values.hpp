// The forms of configuration values: durations, sizes, variables, secrets, database URLs.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config.hpp"

namespace mcpgw::app {

/// Go syntax: "90s", "1h30m", "1.5h", "250ms", "0". Not negative.
std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text);
/// "1048576", "64KiB", "8 MiB", "1GiB".
std::optional<std::uint64_t> parse_size(std::string_view text);
std::optional<std::int64_t> parse_integer(std::string_view text);

struct Expanded {
  std::string text;
  std::string error;  ///< empty: good
};
/// Replaces ${NAME} and ${NAME:-default}; "$$" is a dollar sign.
Expanded expand_variables(std::string_view text, const std::map<std::string, std::string>& environment);

/// Why a signing secret or key text is not accepted; empty: it is.
std::string secret_fault(std::string_view secret);
/// The 32 bytes of a key given as text, 64 hex digits or base64.
std::optional<std::string> decode_key(std::string_view text);
/// Standard, padded, canonical.
std::optional<std::string> decode_base64(std::string_view text);

/// sqlite://path or postgres://user:password@host:port/name?sslmode=...; the error names no part of it.
struct ParsedDatabase {
  DatabaseConfig database;
  std::string error;
};
ParsedDatabase parse_database_url(std::string_view url);

/// A module of log lines, and from which level on its lines are kept: "access=warn".
std::optional<std::pair<std::string, LogLevel>> parse_module_level(std::string_view text);

/// An origin, one "*" permitted in it: "https://*.example.com", "http://localhost:*", or a lone "*".
bool is_origin_pattern(std::string_view text);
/// An address or CIDR network.
bool is_network(std::string_view text);

}  // namespace mcpgw::app
