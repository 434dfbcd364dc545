// x-mcp-header (MCP 2026-07-28, "Custom Headers from Tool Parameters"): arguments of a tool that a client
// repeats in Mcp-Param-* headers. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/http.hpp"
#include "protocol/modern.hpp"

namespace mcpgw::detail {

struct ToolHeader {
  enum class Type { string, integer, boolean };
  std::string name;               ///< without "Mcp-Param-"
  std::vector<std::string> path;  ///< members of `arguments` that lead to the value
  Type type = Type::string;
};

/// What a tool (raw JSON) says in its inputSchema. nullopt when an annotation breaks the rules: such a tool
/// must not be offered. `why`, when given, tells the reason.
std::optional<std::vector<ToolHeader>> tool_headers(std::string_view tool, std::string* why = nullptr);

/// The headers for a call, for the hop to a modern upstream. `arguments` is a raw object or empty.
HttpHeaders parameter_headers(const std::vector<ToolHeader>& declared, std::string_view arguments);

/// Whether a client's Mcp-Param-* headers say what its arguments say. Headers that are not declared are
/// ignored.
std::optional<ModernFault> check_parameter_headers(const std::vector<ToolHeader>& declared,
                                                   std::string_view arguments, const HttpHeaders& headers);

/// A result of tools/list without tools whose annotations break the rules.
std::string without_invalid_tools(std::string_view result);

}  // namespace mcpgw::detail
