#include "protocol/tool_headers.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/text.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::string_view kAnnotation = "x-mcp-header";
constexpr std::string_view kPrefix = "Mcp-Param-";
constexpr std::int64_t kSafeInteger = (std::int64_t{1} << 53) - 1;
constexpr std::size_t kMaxHeaders = 64;
constexpr std::size_t kMaxNameBytes = 128;

bool is_object(std::string_view value) { return !value.empty() && raw::type_of(value) == raw::Type::object; }

bool is_token(std::string_view text) {
  constexpr std::string_view kSymbols = "!#$%&'*+-.^_`|~";
  return !text.empty() && text.size() <= kMaxNameBytes && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           kSymbols.find(c) != std::string_view::npos;
  });
}

/// Keywords of JSON Schema whose value is data, not a schema: an annotation's name in there means nothing.
bool holds_data(const raw::Member& member) {
  for (const char* name : {"default", "const", "enum", "examples"})
    if (member.named(name)) return true;
  return false;
}

/// Keywords whose value is an object of schemas by name: the names are not keywords.
bool holds_named_schemas(const raw::Member& member) {
  for (const char* name : {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
    if (member.named(name)) return true;
  return false;
}

class Reader {
 public:
  bool read(std::string_view schema, bool reachable) {
    for (const raw::Member& member : raw::members(schema)) {
      if (member.named(kAnnotation)) {
        if (!reachable || path_.empty()) return fail("an annotation stands where no property of the call is");
        if (!take(schema, member.value)) return false;
      } else if (member.named("properties") && is_object(member.value)) {
        for (const raw::Member& property : raw::members(member.value)) {
          if (!is_object(property.value)) continue;
          const auto name = raw::string_value("\"" + std::string(property.key) + "\"");
          path_.push_back(name.value_or(std::string()));
          const bool good = read(property.value, reachable);
          path_.pop_back();
          if (!good) return false;
        }
      } else if (!holds_data(member)) {
        if (!search(member.value, holds_named_schemas(member))) return false;
      }
    }
    return true;
  }

  std::vector<ToolHeader> out;
  std::string why;

 private:
  bool fail(std::string reason) {
    why = std::move(reason);
    return false;
  }

  /// Schemas below any other keyword, where an annotation is not permitted.
  bool search(std::string_view value, bool named) {
    if (value.find(kAnnotation) == std::string_view::npos && value.find('\\') == std::string_view::npos)
      return true;
    if (is_object(value)) {
      if (!named) return read(value, false);
      for (const raw::Member& member : raw::members(value))
        if (is_object(member.value) && !read(member.value, false)) return false;
    } else if (!value.empty() && raw::type_of(value) == raw::Type::array) {
      for (const std::string_view element : raw::elements(value))
        if (is_object(element) && !read(element, false)) return false;
    }
    return true;
  }

  bool take(std::string_view schema, std::string_view value) {
    const auto name = raw::string_value(value);
    if (!name || !is_token(*name)) return fail("a header name is no token of HTTP");
    if (!names_.insert(to_lower(*name)).second) return fail("two properties have one header name");
    if (out.size() == kMaxHeaders) return fail("there are too many annotations");
    ToolHeader header;
    header.name = *name;
    header.path = path_;
    const auto type = raw::string_value(raw::find(schema, "type"));
    if (type == "string") {
      header.type = ToolHeader::Type::string;
    } else if (type == "integer") {
      header.type = ToolHeader::Type::integer;
    } else if (type == "boolean") {
      header.type = ToolHeader::Type::boolean;
    } else {
      return fail("an annotated property is no string, integer or boolean");
    }
    out.push_back(std::move(header));
    return true;
  }

  std::vector<std::string> path_;
  std::set<std::string> names_;
};

/// Raw value at the path; empty when there is none. null counts as none.
std::string_view value_at(const ToolHeader& header, std::string_view arguments) {
  std::string_view value = arguments;
  for (const std::string& step : header.path) {
    if (!is_object(value)) return {};
    value = raw::find(value, step);
  }
  return value == "null" ? std::string_view() : value;
}

/// A whole number, however it is written ("42", "42.0", "4.2e1"), that a double holds exactly.
std::optional<std::int64_t> whole(std::string_view text) {
  if (const auto exact = raw::int_value(text))
    return *exact >= -kSafeInteger && *exact <= kSafeInteger ? exact : std::nullopt;
  const auto number = raw::number_value(text);
  if (!number || std::trunc(*number) != *number || std::abs(*number) > static_cast<double>(kSafeInteger))
    return std::nullopt;
  return static_cast<std::int64_t>(*number);
}

/// The text that a header carries for a value; nullopt when the value is none that a header can carry.
std::optional<std::string> header_text(std::string_view value) {
  switch (raw::type_of(value)) {
    case raw::Type::string:
      return raw::string_value(value);
    case raw::Type::boolean:
      return std::string(value);
    case raw::Type::number: {
      const auto number = whole(value);
      return number ? std::optional(std::to_string(*number)) : std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

/// JSON's own form of a number, which raw::number_value expects.
bool is_number(std::string_view text) {
  return !text.empty() && raw::check(text, 1) == raw::Fault::none && text.front() != ' ' &&
         raw::type_of(text) == raw::Type::number;
}

}  // namespace

std::optional<std::vector<ToolHeader>> tool_headers(std::string_view tool, std::string* why) {
  const std::string_view schema = raw::find(tool, "inputSchema");
  // A backslash may hide the annotation's name in an escaped key.
  if (schema.find(kAnnotation) == std::string_view::npos && schema.find('\\') == std::string_view::npos)
    return std::vector<ToolHeader>();
  Reader reader;
  if (!is_object(schema) || reader.read(schema, true)) return std::move(reader.out);
  if (why != nullptr) *why = std::move(reader.why);
  return std::nullopt;
}

HttpHeaders parameter_headers(const std::vector<ToolHeader>& declared, std::string_view arguments) {
  HttpHeaders out;
  for (const ToolHeader& header : declared) {
    const std::string_view value = value_at(header, arguments);
    if (value.empty()) continue;
    if (const auto text = header_text(value))
      out.emplace_back(std::string(kPrefix) + header.name, encode_header_value(*text));
  }
  return out;
}

std::optional<ModernFault> check_parameter_headers(const std::vector<ToolHeader>& declared,
                                                   std::string_view arguments, const HttpHeaders& headers) {
  for (const ToolHeader& header : declared) {
    const std::string name = std::string(kPrefix) + header.name;
    const auto fault = [&name](const char* what) {
      return ModernFault{rpc::kHeaderMismatch, 400, "Header mismatch: " + name + what,
                         R"({"code":"invalid_request"})"};
    };
    const std::string* given = nullptr;
    for (const auto& [key, value] : headers) {
      if (!iequals(key, name)) continue;
      if (given != nullptr) return fault(" is there more than once");
      given = &value;
    }
    const std::string_view value = value_at(header, arguments);
    const auto expected = value.empty() ? std::nullopt : header_text(value);
    if (given == nullptr) {
      if (expected) return fault(" is missing");
      continue;
    }
    const auto decoded = decode_header_value(*given);
    if (!decoded) return fault(" has invalid characters or encoding");
    if (!expected) return fault(" is there, but the argument is not");
    if (*decoded == *expected) continue;
    const bool numbers = raw::type_of(value) == raw::Type::number && is_number(*decoded);
    if (!numbers || whole(*decoded) != whole(value)) return fault(" does not match the argument");
  }
  return std::nullopt;
}

std::string without_invalid_tools(std::string_view result) {
  const std::string_view tools = raw::find(result, "tools");
  if (tools.find(kAnnotation) == std::string_view::npos && tools.find('\\') == std::string_view::npos)
    return std::string(result);
  std::string kept = "[";
  bool dropped = false;
  for (const std::string_view tool : raw::elements(tools)) {
    if (!tool_headers(tool)) {
      dropped = true;
      continue;
    }
    if (kept.size() > 1) kept += ',';
    kept += tool;
  }
  if (!dropped) return std::string(result);
  return raw::with_member(result, "tools", kept + "]");
}

}  // namespace mcpgw::detail
