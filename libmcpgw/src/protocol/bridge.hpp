// Translation between the eras of MCP (docs/protocol.md, "Between the eras"): what a request, a result, an
// error of one becomes in the other. Pure functions over raw JSON; members that need no change keep their
// bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/modern.hpp"

namespace mcpgw::detail {

// --- requests ----------------------------------------------------------------------------------------

/// params of a modern request for a legacy upstream: without the members of _meta and of params that only the
/// modern era knows. Foreign members of _meta stay.
std::string legacy_params(std::string_view params);

/// What a modern upstream is told with each request.
struct ModernMeta {
  std::string client_info;  ///< raw object or empty
  std::string capabilities = "{}";
  std::string log_level;  ///< empty: none
};
/// params of any request for a modern upstream.
std::string modern_params(std::string_view params, const ModernMeta& about);

/// Client capabilities as a legacy upstream may be told them, with members in a fixed order so that equal
/// sets have equal texts. What is not carried (tasks) is left out.
std::string legacy_capabilities(std::string_view capabilities);

/// The same for a server that serves several clients, which must all be able to do what it is told of: what
/// comes to the same is written the same. No client's list of roots is announced to have changed.
std::string shared_capabilities(std::string_view capabilities);

/// The error that a server gets whose request the client does not take. `offered`: it takes such requests, and
/// did not declare this way of asking (2025-11-25, client/elicitation, "Error Handling").
std::string not_declared(bool offered);

// --- results -----------------------------------------------------------------------------------------

/// A result for a modern client: resultType, and the caching hints where the method needs them. The scope is
/// always private: what a principal may see depends on policies. `server_info` goes into _meta.
std::string modern_result(std::string_view method, std::string_view result, std::string_view server_info);
/// A result of a modern upstream for a legacy client.
std::string legacy_result(std::string_view method, std::string_view result);

/// Whether a result of a modern upstream asks for input.
bool needs_input(std::string_view result);

// --- errors ------------------------------------------------------------------------------------------

/// An error object of a legacy upstream (or of the gateway) for a modern client. `asked` is the URI of
/// resources/read as the client gave it, else empty.
std::string modern_error(std::string_view error, std::string_view asked);
/// An error object of a modern upstream for a legacy client.
std::string legacy_error(std::string_view method, std::string_view error);

// --- input -------------------------------------------------------------------------------------------

/// One request of a legacy server that a modern client gets inside a result.
struct InputRequest {
  std::string key;
  std::string method;
  std::string params;  ///< raw, may be empty
};
/// The visits that an error of a legacy server asks for before the call is made again (-32042 of 2025-11-25,
/// "URL Elicitation Required"); nullopt for any other error, and one that does not say where to go.
std::optional<std::vector<InputRequest>> url_elicitations(std::string_view error);
/// A result that asks for input. `state` may be empty.
std::string input_required(const std::vector<InputRequest>& requests, std::string_view state,
                           std::string_view server_info);
/// Whether a client's answer has the form that its request needs.
bool is_input_response(std::string_view method, std::string_view response);

}  // namespace mcpgw::detail
