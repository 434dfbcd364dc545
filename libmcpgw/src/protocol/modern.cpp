#include "protocol/modern.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::string_view kEncodedHead = "=?base64?";
constexpr std::string_view kEncodedTail = "?=";

bool looks_encoded(std::string_view value) {
  return value.size() >= kEncodedHead.size() + kEncodedTail.size() && value.starts_with(kEncodedHead) &&
         value.ends_with(kEncodedTail);
}

/// Visible ASCII, space and tab (RFC 9110, section 5.5).
bool header_bytes(std::string_view value) {
  return std::all_of(value.begin(), value.end(),
                     [](char c) { return (c >= 0x20 && c <= 0x7e) || c == '\t'; });
}

bool blank(char c) { return c == ' ' || c == '\t'; }

bool is_object(std::string_view value) { return !value.empty() && raw::type_of(value) == raw::Type::object; }

std::size_t count_headers(const HttpHeaders& headers, std::string_view name) {
  return static_cast<std::size_t>(std::count_if(
      headers.begin(), headers.end(), [&](const auto& header) { return iequals(header.first, name); }));
}

ModernFault mismatch(std::string message) {
  return {rpc::kHeaderMismatch, 400, "Header mismatch: " + std::move(message),
          R"({"code":"invalid_request"})"};
}

ModernFault invalid(std::string message) {
  return {rpc::kInvalidParams, 400, std::move(message), R"({"code":"invalid_params"})"};
}

/// Compares a standard header with what the body says. Two headers of one name are refused even when equal:
/// whoever reads the other one must not be told something else.
std::optional<ModernFault> check_header(const HttpHeaders& headers, const std::string& name,
                                        std::string_view expected, bool may_be_encoded) {
  const std::string* value = find_header(headers, name);
  if (value == nullptr) return mismatch(name + " is missing");
  if (count_headers(headers, name) > 1) return mismatch(name + " is there more than once");
  const auto decoded = may_be_encoded         ? decode_header_value(*value)
                       : header_bytes(*value) ? std::optional<std::string>(*value)
                                              : std::nullopt;
  if (!decoded) return mismatch(name + " has invalid characters or encoding");
  if (*decoded != expected) return mismatch(name + " does not match the body");
  return std::nullopt;
}

}  // namespace

bool is_modern_version(std::string_view version) { return version == kModernVersion; }

Era era_of(const Envelope& message, const HttpHeaders& headers) {
  const std::string_view about = message.about;
  const std::string_view version = raw::find(about, meta::kVersion);
  if (!version.empty()) {
    // A legacy revision has no such member; what names one means the handshake of that revision.
    const auto text = raw::string_value(version);
    if (!text || !is_legacy_version(*text)) return Era::modern;
  } else if (!raw::find(about, meta::kCapabilities).empty()) {
    return Era::modern;
  }
  const std::string* header = find_header(headers, "MCP-Protocol-Version");
  return header != nullptr && !is_legacy_version(*header) ? Era::modern : Era::legacy;
}

std::optional<ModernFault> read_modern_request(const Envelope& message, const HttpHeaders& headers,
                                               std::string_view supported, ModernRequest& out) {
  if (!message.params.empty() && !is_object(message.params)) return invalid("params must be an object");
  const std::string_view about = message.about;
  if (!about.empty() && !is_object(about)) return invalid("params._meta must be an object");
  const std::string_view stated = raw::find(about, meta::kVersion);
  const auto version = stated.empty() ? std::nullopt : raw::string_value(stated);
  const std::string* header = find_header(headers, "MCP-Protocol-Version");
  if (!stated.empty() && !version)
    return invalid("params._meta[\"" + std::string(meta::kVersion) + "\"] must be a string");
  if (version) {
    if (auto fault = check_header(headers, "MCP-Protocol-Version", *version, false)) return fault;
  }
  const std::string asked = version ? *version : header != nullptr ? *header : std::string();
  if (!is_modern_version(asked))
    return ModernFault{rpc::kUnsupportedVersion, 400, "Unsupported protocol version",
                       R"({"code":"invalid_request","supported":)" + std::string(supported) +
                           R"(,"requested":)" + raw::quote(asked) + "}"};
  if (!version) return invalid("params._meta[\"" + std::string(meta::kVersion) + "\"] is missing");
  out.version = *version;

  out.capabilities = raw::find(about, meta::kCapabilities);
  if (!is_object(out.capabilities))
    return invalid("params._meta[\"" + std::string(meta::kCapabilities) + "\"] must be an object");
  out.client_info = raw::find(about, meta::kClientInfo);
  if (!out.client_info.empty() && (!raw::string_value(raw::find(out.client_info, "name")) ||
                                   !raw::string_value(raw::find(out.client_info, "version"))))
    return invalid("params._meta[\"" + std::string(meta::kClientInfo) + "\"] must have a name and a version");
  if (const std::string_view level = raw::find(about, meta::kLogLevel); !level.empty()) {
    const auto text = raw::string_value(level);
    if (!text || log_severity(*text) < 0)
      return invalid("params._meta[\"" + std::string(meta::kLogLevel) + "\"] is not a log level");
    out.log_level = *text;
  }
  out.progress_token = raw::find(about, "progressToken");
  if (!out.progress_token.empty() && raw::type_of(out.progress_token) != raw::Type::string &&
      !raw::int_value(out.progress_token))
    return invalid("params._meta.progressToken must be a string or an integer");

  if (auto fault = check_header(headers, "Mcp-Method", message.method, false)) return fault;
  if (const std::string_view member = named_by(message.method); !member.empty()) {
    const auto name = raw::string_value(raw::find(message.params, member));
    if (!name) return invalid("params." + std::string(member) + " must be a string");
    if (auto fault = check_header(headers, "Mcp-Name", *name, true)) return fault;
  }
  return std::nullopt;
}

int modern_status(int error_code) {
  switch (error_code) {
    case rpc::kMethodNotFound:
      return 404;
    case rpc::kParseError:
    case rpc::kInvalidRequest:
    case rpc::kInvalidParams:
    case rpc::kHeaderMismatch:
    case rpc::kMissingCapability:
    case rpc::kUnsupportedVersion:
      return 400;
    default:
      return 200;
  }
}

std::string_view log_level_name(int severity) {
  constexpr std::string_view kLevels[] = {"debug", "info",     "notice", "warning",
                                          "error", "critical", "alert",  "emergency"};
  return kLevels[std::clamp<std::size_t>(static_cast<std::size_t>(std::max(severity, 0)), 0,
                                         std::size(kLevels) - 1)];
}

std::string_view named_by(std::string_view method) {
  if (method == "tools/call" || method == "prompts/get") return "name";
  if (method == "resources/read") return "uri";
  return {};
}

std::string encode_header_value(std::string_view value) {
  const bool plain = header_bytes(value) && !looks_encoded(value) &&
                     (value.empty() || (!blank(value.front()) && !blank(value.back())));
  if (plain) return std::string(value);
  return std::string(kEncodedHead) + base64(value) + std::string(kEncodedTail);
}

std::optional<std::string> decode_header_value(std::string_view header) {
  if (!header_bytes(header)) return std::nullopt;
  if (!looks_encoded(header)) return std::string(header);
  header.remove_prefix(kEncodedHead.size());
  header.remove_suffix(kEncodedTail.size());
  auto out = from_base64(header);
  if (out && !is_utf8(*out)) return std::nullopt;
  return out;
}

HttpHeaders standard_headers(std::string_view method, std::string_view params) {
  HttpHeaders out;
  out.emplace_back("Mcp-Method", std::string(method));
  if (const std::string_view member = named_by(method); !member.empty())
    if (const auto name = raw::string_value(raw::find(params, member)))
      out.emplace_back("Mcp-Name", encode_header_value(*name));
  return out;
}

std::string required_capabilities(std::string_view method, std::string_view params) {
  if (method == "sampling/createMessage")
    return raw::find(params, "tools").empty() ? R"({"sampling":{}})" : R"({"sampling":{"tools":{}}})";
  if (method == "elicitation/create")
    return raw::string_value(raw::find(params, "mode")) == "url" ? R"({"elicitation":{"url":{}}})"
                                                                 : R"({"elicitation":{"form":{}}})";
  if (method == "roots/list") return R"({"roots":{}})";
  return {};
}

bool declares(std::string_view capabilities, std::string_view method, std::string_view params) {
  if (method == "sampling/createMessage") {
    const std::string_view sampling = raw::find(capabilities, "sampling");
    return is_object(sampling) &&
           (raw::find(params, "tools").empty() || !raw::find(sampling, "tools").empty());
  }
  if (method == "elicitation/create") {
    const std::string_view elicitation = raw::find(capabilities, "elicitation");
    if (!is_object(elicitation)) return false;
    const bool url = !raw::find(elicitation, "url").empty();
    if (raw::string_value(raw::find(params, "mode")) == "url") return url;
    // An empty object means forms, as it did before there were other modes.
    return !raw::find(elicitation, "form").empty() || !url;
  }
  if (method == "roots/list") return is_object(raw::find(capabilities, "roots"));
  return false;
}

}  // namespace mcpgw::detail
