// The modern era of MCP (revision 2026-07-28): no sessions, every request says in params._meta and in HTTP
// headers what it is. Pure functions: which era a message is of, whether a modern request is well formed, and
// the headers a modern request carries.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "mcpgw/http.hpp"
#include "protocol/message.hpp"

namespace mcpgw::detail {

inline constexpr std::string_view kModernVersion = "2026-07-28";
bool is_modern_version(std::string_view version);

/// Reserved members of params._meta and of a result's _meta.
namespace meta {
inline constexpr std::string_view kVersion = "io.modelcontextprotocol/protocolVersion";
inline constexpr std::string_view kClientInfo = "io.modelcontextprotocol/clientInfo";
inline constexpr std::string_view kCapabilities = "io.modelcontextprotocol/clientCapabilities";
inline constexpr std::string_view kLogLevel = "io.modelcontextprotocol/logLevel";
inline constexpr std::string_view kSubscription = "io.modelcontextprotocol/subscriptionId";
inline constexpr std::string_view kServerInfo = "io.modelcontextprotocol/serverInfo";
}  // namespace meta

namespace rpc {
constexpr int kHeaderMismatch = -32020;
constexpr int kMissingCapability = -32021;
constexpr int kUrlElicitation = -32042;  ///< 2025-11-25 only
}  // namespace rpc

enum class Era { legacy, modern };

/// The era of a message that a client posts. Modern: its _meta says so, or the header MCP-Protocol-Version
/// names something else than a legacy revision. A session id says nothing against that: modern servers ignore
/// it.
Era era_of(const Envelope& message, const HttpHeaders& headers);

/// Why a modern request is refused, with the HTTP status that belongs to it.
struct ModernFault {
  int code = rpc::kInvalidParams;
  int status = 400;
  std::string message;
  std::string data;  ///< raw JSON or empty
};

/// What a modern request says about itself. Views into the text of the message.
struct ModernRequest {
  std::string version;
  std::string_view client_info;   ///< raw object, empty when absent
  std::string_view capabilities;  ///< raw object
  std::string log_level;          ///< empty: no log messages are wanted
  std::string_view progress_token;
};

/// Checks _meta and the standard headers of a modern request, in the order version, _meta, method, name.
/// `supported` is the text of a JSON array for the error on an unknown version.
std::optional<ModernFault> read_modern_request(const Envelope& message, const HttpHeaders& headers,
                                               std::string_view supported, ModernRequest& out);

/// The HTTP status of an answer that consists of this error.
int modern_status(int error_code);

/// The opposite of log_severity(); "debug" for anything below it.
std::string_view log_level_name(int severity);

/// The member of params that Mcp-Name mirrors: "name", "uri", or empty when the method has none.
std::string_view named_by(std::string_view method);

/// `value` as an HTTP header carries it: as it is, or as "=?base64?...?=" when it has bytes that no header
/// may have, white space at its ends, or the look of that form.
std::string encode_header_value(std::string_view value);
/// The opposite; nullopt when the header's bytes are none a header may have or the base64 is not canonical.
std::optional<std::string> decode_header_value(std::string_view header);

/// Mcp-Method and Mcp-Name of a request, for the hop to a modern upstream.
HttpHeaders standard_headers(std::string_view method, std::string_view params);

/// Whether client capabilities (raw object) permit a server's request of this method with these params.
bool declares(std::string_view capabilities, std::string_view method, std::string_view params);
/// The capabilities that such a request needs, as raw JSON for data.requiredCapabilities; empty when the
/// method is none that a server may ask.
std::string required_capabilities(std::string_view method, std::string_view params);

}  // namespace mcpgw::detail
