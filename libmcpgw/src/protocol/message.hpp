// JSON-RPC 2.0 messages as MCP uses them: reading the envelope of one, and putting one together from parts
// that pass through unchanged.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace mcpgw::detail {

/// Codes of JSON-RPC and of MCP.
namespace rpc {
constexpr int kParseError = -32700;
constexpr int kInvalidRequest = -32600;
constexpr int kMethodNotFound = -32601;
constexpr int kInvalidParams = -32602;
constexpr int kInternalError = -32603;
constexpr int kSessionNotFound = -32001;
constexpr int kResourceNotFound = -32002;
constexpr int kUnsupportedVersion = -32022;
}  // namespace rpc

/// Views into the text it was read from.
struct Envelope {
  enum class Kind { request, notification, response };
  Kind kind = Kind::request;
  std::string_view id;      ///< raw JSON: a string or an integer; empty for notifications
  std::string method;       ///< empty for responses
  std::string_view params;  ///< raw JSON object or array; empty when absent
  std::string_view about;   ///< params._meta, raw; empty when absent
  std::string_view result;  ///< raw; responses only
  std::string_view error;   ///< raw object; responses only
};

/// Why a text is not a message. `id` is raw JSON when one could be read.
struct EnvelopeFault {
  int code = rpc::kInvalidRequest;
  std::string message;
  std::string id;
};

/// `text` has passed raw::check(). Classified by `method` first: a request of the other side is one whatever
/// its id says.
std::variant<Envelope, EnvelopeFault> read_envelope(std::string_view text);

/// `id` and `params` are raw JSON; empty params are left out.
std::string make_request(std::string_view id, std::string_view method, std::string_view params);
std::string make_notification(std::string_view method, std::string_view params);
std::string make_result(std::string_view id, std::string_view result);
/// `data` is raw JSON or empty. An empty id is left out; pass "null" for a null id.
std::string make_error(std::string_view id, int code, std::string_view message, std::string_view data = {});
/// An error object that passes through.
std::string make_raw_error(std::string_view id, std::string_view error);

/// Line breaks of a JSON text become spaces, for transports of one message a line. They can only stand
/// between tokens (a string has none), so no value changes.
void make_single_line(std::string& text, std::size_t from = 0);

/// One server-sent event with this message as data. `event_id` may be empty.
std::string sse_event(std::string_view message, std::string_view event_id = {}, std::string_view event = {});

/// Protocol revisions with a handshake, newest first.
const std::vector<std::string>& legacy_versions();
bool is_legacy_version(std::string_view version);
/// Severity of a level of logging/setLevel (RFC 5424, section 6.2.1, as MCP names them), 0 for "debug"; -1 for a
/// text that names none.
int log_severity(std::string_view level);
/// Newest first, everything the gateway speaks.
const std::vector<std::string>& supported_versions();

}  // namespace mcpgw::detail
