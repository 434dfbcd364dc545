#include "upstream/rpc_support.hpp"

#include "base/text.hpp"
#include "json/raw.hpp"
#include "mcpgw/version.hpp"

namespace mcpgw::detail {

std::string with_progress_token(std::string_view params, std::string_view token) {
  const std::string_view meta = raw::find(params, "_meta");
  if (token.empty()) {
    if (raw::find(meta, "progressToken").empty()) return std::string(params);
    const std::string rest = raw::without_member(meta, "progressToken");
    // An empty _meta says nothing: leave no trace of it.
    if (raw::members(rest).empty()) return raw::without_member(params, "_meta");
    return raw::with_member(params, "_meta", rest);
  }
  const std::string with_token = raw::with_member(meta.empty() ? "{}" : meta, "progressToken", token);
  return raw::with_member(params.empty() ? "{}" : params, "_meta", with_token);
}

std::string initialize_params(const ClientFacts& client) {
  std::string out = R"({"protocolVersion":)";
  raw::append_quoted(out, client.protocol_version);
  out += R"(,"capabilities":)" + (client.capabilities.empty() ? std::string("{}") : client.capabilities);
  out += R"(,"clientInfo":)";
  if (client.client_info.empty()) {
    out += R"({"name":"mcpgw","version":)";
    raw::append_quoted(out, version());
    out += '}';
  } else {
    out += client.client_info;
  }
  out += '}';
  return out;
}

Result<ServerFacts> read_initialize_result(const UpstreamAnswer& answer) {
  if (answer.is_error) return protocol_error("The server refused to initialise");
  ServerFacts facts;
  auto version = raw::string_value(raw::find(answer.payload, "protocolVersion"));
  if (!version) return protocol_error("The server's answer to initialize names no protocol version");
  if (!is_legacy_version(*version))
    return protocol_error("The server chose a protocol version that is not supported");
  facts.protocol_version = std::move(*version);
  const std::string_view capabilities = raw::find(answer.payload, "capabilities");
  facts.capabilities = capabilities.empty() || raw::type_of(capabilities) != raw::Type::object
                           ? std::string("{}")
                           : std::string(capabilities);
  facts.server_info = raw::find(answer.payload, "serverInfo");
  facts.instructions = raw::string_value(raw::find(answer.payload, "instructions")).value_or("");
  return facts;
}

std::string cancelled_params(std::string_view request_id, std::string_view reason) {
  std::string out = R"({"requestId":)";
  out += request_id;
  if (!reason.empty()) {
    out += R"(,"reason":)";
    raw::append_quoted(out, reason);
  }
  out += '}';
  return out;
}

std::optional<UpstreamAnswer> answer_to(std::string_view text, std::string_view id) {
  auto read = read_envelope(trim(text));
  const auto* message = std::get_if<Envelope>(&read);
  if (message == nullptr || message->kind != Envelope::Kind::response) return std::nullopt;
  if (message->id != id && !(message->id.empty() && !message->error.empty())) return std::nullopt;
  UpstreamAnswer out;
  out.is_error = !message->error.empty();
  out.payload = out.is_error ? message->error : message->result;
  return out;
}

std::optional<std::int64_t> dropped_answer_id(std::string_view head, std::string_view tail) {
  const auto number_after = [](std::string_view text) -> std::optional<std::int64_t> {
    return raw::int_value(text.substr(0, text.find_first_not_of("0123456789")));
  };
  constexpr std::string_view kFirst = R"({"jsonrpc":"2.0","id":)", kLast = R"("id":)";
  if (head.starts_with(kFirst))
    if (const auto number = number_after(head.substr(kFirst.size()))) return number;
  const auto at = tail.rfind(kLast);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = tail.substr(at + kLast.size());
  const auto close = rest.find_first_not_of("0123456789");
  if (close == std::string_view::npos ||
      rest.substr(close).find_first_not_of("} \r") != std::string_view::npos)
    return std::nullopt;
  return number_after(rest);
}

Error protocol_error(std::string message) {
  return {ErrorCode::invalid_argument, "upstream_protocol_error", std::move(message)};
}

Error closed_error(std::string message) {
  return {ErrorCode::unavailable, "upstream_closed", std::move(message)};
}

Error session_lost_error() {
  return {ErrorCode::unavailable, "session_lost", "The server does not know the session any more"};
}

bool is_media_type(const HttpHeaders& headers, std::string_view type) {
  const std::string* value = find_header(headers, "Content-Type");
  if (value == nullptr) return false;
  return iequals(trim(std::string_view(*value).substr(0, value->find(';'))), type);
}

Error http_status_error(int status) {
  if (status >= 300 && status < 400)
    return {ErrorCode::unavailable, "upstream_redirect", "The server answered with a redirect"};
  if (status == 401 || status == 403)
    return protocol_error("The server refused the credential (HTTP " + std::to_string(status) + ")");
  Error error = protocol_error("The server answered HTTP " + std::to_string(status));
  if (status >= 500) error.code = ErrorCode::unavailable;  // it says so itself
  return error;
}

}  // namespace mcpgw::detail
