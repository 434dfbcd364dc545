#include "protocol/message.hpp"

#include <algorithm>
#include <array>

#include "json/raw.hpp"
#include "protocol/modern.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxIdBytes = 1024;

bool is_integer(std::string_view text) {
  if (!text.empty() && text.front() == '-') text.remove_prefix(1);
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_id(std::string_view value) {
  if (value.size() > kMaxIdBytes) return false;
  switch (raw::type_of(value)) {
    case raw::Type::string:
      return true;
    case raw::Type::number:
      return is_integer(value);
    default:
      return false;
  }
}

}  // namespace

std::variant<Envelope, EnvelopeFault> read_envelope(std::string_view text) {
  Envelope out;
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text[first] != '{')
    return EnvelopeFault{rpc::kInvalidRequest, "A message must be a JSON object", {}};
  static constexpr std::array<std::string_view, 6> kMembers{"jsonrpc", "id",     "method",
                                                            "params",  "result", "error"};
  const auto [jsonrpc, id, method, params, result, error] = raw::find_each(text, kMembers);
  const bool has_id = !id.empty();
  out.id = id;
  out.params = params;
  out.result = result;
  out.error = error;
  const bool id_ok = has_id && is_id(out.id);
  const auto fault = [&](const char* message) {
    return EnvelopeFault{rpc::kInvalidRequest, message, id_ok ? std::string(out.id) : std::string()};
  };
  if (jsonrpc != "\"2.0\"" && raw::string_value(jsonrpc).value_or("") != "2.0")
    return fault("Member \"jsonrpc\" must be \"2.0\"");
  if (!method.empty()) {
    auto name = raw::string_value(method);
    if (!name || name->empty()) return fault("Member \"method\" must be a non-empty string");
    out.method = std::move(*name);
    if (has_id && !id_ok) return fault("Member \"id\" must be a string or an integer");
    if (!out.params.empty()) {
      const raw::Type type = raw::type_of(out.params);
      if (type != raw::Type::object && type != raw::Type::array)
        return fault("Member \"params\" must be an object");
      out.about = raw::find(out.params, "_meta");
    }
    out.kind = has_id ? Envelope::Kind::request : Envelope::Kind::notification;
    return out;
  }
  if (!out.result.empty() || !out.error.empty()) {
    // An error answer to something that could not be read has a null id, or none.
    if (has_id && !id_ok && out.id != "null") return fault("Member \"id\" must be a string or an integer");
    if (!id_ok) out.id = {};
    if (!out.result.empty() && !id_ok) return fault("An answer needs an \"id\"");
    if (!out.error.empty() && raw::type_of(out.error) != raw::Type::object)
      return fault("Member \"error\" must be an object");
    out.kind = Envelope::Kind::response;
    return out;
  }
  return fault("A message needs \"method\", \"result\" or \"error\"");
}

std::string make_request(std::string_view id, std::string_view method, std::string_view params) {
  std::string out;
  out.reserve(64 + id.size() + method.size() + params.size());
  out += R"({"jsonrpc":"2.0","id":)";
  out += id;
  out += R"(,"method":)";
  raw::append_quoted(out, method);
  if (!params.empty()) {
    out += R"(,"params":)";
    out += params;
  }
  out += '}';
  return out;
}

std::string make_notification(std::string_view method, std::string_view params) {
  std::string out = R"({"jsonrpc":"2.0","method":)";
  raw::append_quoted(out, method);
  if (!params.empty()) {
    out += R"(,"params":)";
    out += params;
  }
  out += '}';
  return out;
}

std::string make_result(std::string_view id, std::string_view result) {
  std::string out;
  out.reserve(48 + id.size() + result.size());
  out += R"({"jsonrpc":"2.0","id":)";
  out += id;
  out += R"(,"result":)";
  out += result;
  out += '}';
  return out;
}

std::string make_error(std::string_view id, int code, std::string_view message, std::string_view data) {
  std::string error = R"({"code":)" + std::to_string(code) + R"(,"message":)";
  raw::append_quoted(error, message);
  if (!data.empty()) {
    error += R"(,"data":)";
    error += data;
  }
  error += '}';
  return make_raw_error(id, error);
}

std::string make_raw_error(std::string_view id, std::string_view error) {
  std::string out = R"({"jsonrpc":"2.0")";
  if (!id.empty()) {
    out += R"(,"id":)";
    out += id;
  }
  out += R"(,"error":)";
  out += error;
  out += '}';
  return out;
}

void make_single_line(std::string& text, std::size_t from) {
  for (std::size_t i = from; i < text.size(); ++i)
    if (text[i] == '\n' || text[i] == '\r') text[i] = ' ';
}

std::string sse_event(std::string_view message, std::string_view event_id, std::string_view event) {
  std::string out;
  out.reserve(message.size() + 48);
  if (!event_id.empty()) {
    out += "id: ";
    out += event_id;
    out += '\n';
  }
  if (!event.empty()) {
    out += "event: ";
    out += event;
    out += '\n';
  }
  out += "data: ";
  const std::size_t from = out.size();
  out += message;
  make_single_line(out, from);
  out += '\n';
  out += '\n';
  return out;
}

int log_severity(std::string_view level) {
  constexpr std::string_view kLevels[] = {"debug", "info",     "notice", "warning",
                                          "error", "critical", "alert",  "emergency"};
  const auto at = std::find(std::begin(kLevels), std::end(kLevels), level);
  return at == std::end(kLevels) ? -1 : static_cast<int>(at - std::begin(kLevels));
}

const std::vector<std::string>& legacy_versions() {
  static const std::vector<std::string> versions{"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"};
  return versions;
}

bool is_legacy_version(std::string_view version) {
  const auto& all = legacy_versions();
  return std::find(all.begin(), all.end(), version) != all.end();
}

const std::vector<std::string>& supported_versions() {
  static const std::vector<std::string> versions = [] {
    std::vector<std::string> out{std::string(kModernVersion)};
    out.insert(out.end(), legacy_versions().begin(), legacy_versions().end());
    return out;
  }();
  return versions;
}

}  // namespace mcpgw::detail
