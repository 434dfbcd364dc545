#include "protocol/bridge.hpp"

#include <algorithm>
#include <array>

#include "json/json.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kDepth = 256;
constexpr std::size_t kMaxElicitations = 16;  // that one error asks for

bool is_object(std::string_view value) { return !value.empty() && raw::type_of(value) == raw::Type::object; }

/// Results that a client may keep (MCP 2026-07-28, server/utilities/caching).
bool cacheable(std::string_view method) {
  return method == "tools/list" || method == "prompts/list" || method == "resources/list" ||
         method == "resources/templates/list" || method == "resources/read" || method == "server/discover";
}

std::string without_meta(std::string_view object, std::string_view key) {
  const std::string_view about = raw::find(object, "_meta");
  if (raw::find(about, key).empty()) return std::string(object);
  const std::string rest = raw::without_member(about, key);
  // An empty _meta says nothing: leave no trace of it.
  if (raw::members(rest).empty()) return raw::without_member(object, "_meta");
  return raw::with_member(object, "_meta", rest);
}

std::string with_meta(std::string_view object, std::string_view key, std::string_view value) {
  const std::string_view about = raw::find(object, "_meta");
  return raw::with_member(object, "_meta", raw::with_member(is_object(about) ? about : "{}", key, value));
}

std::string without(std::string object, std::string_view name) {
  return raw::find(object, name).empty() ? std::move(object) : raw::without_member(object, name);
}

/// A tool as clients before 2026-07-28 know them: an output schema describes an object.
std::string legacy_tool(std::string_view tool) {
  const std::string_view schema = raw::find(tool, "outputSchema");
  if (schema.empty() || raw::string_value(raw::find(schema, "type")) == "object") return std::string(tool);
  return raw::without_member(tool, "outputSchema");
}

}  // namespace

std::string legacy_params(std::string_view params) {
  if (!is_object(params)) return std::string(params);
  std::string out(params);
  for (const std::string_view key :
       {meta::kVersion, meta::kClientInfo, meta::kCapabilities, meta::kLogLevel, meta::kSubscription})
    out = without_meta(out, key);
  out = without(std::move(out), "inputResponses");
  return without(std::move(out), "requestState");
}

std::string modern_params(std::string_view params, const ModernMeta& about) {
  const std::string_view old = raw::find(params, "_meta");
  std::string fields(is_object(old) ? old : "{}");
  fields = raw::with_member(fields, meta::kVersion, raw::quote(kModernVersion));
  fields =
      raw::with_member(fields, meta::kCapabilities, about.capabilities.empty() ? "{}" : about.capabilities);
  fields = about.client_info.empty() ? without(std::move(fields), meta::kClientInfo)
                                     : raw::with_member(fields, meta::kClientInfo, about.client_info);
  fields = about.log_level.empty() ? without(std::move(fields), meta::kLogLevel)
                                   : raw::with_member(fields, meta::kLogLevel, raw::quote(about.log_level));
  return raw::with_member(is_object(params) ? params : "{}", "_meta", fields);
}

std::string legacy_capabilities(std::string_view capabilities) {
  auto parsed = parse_json(capabilities, kDepth);
  if (!parsed || !parsed->is_object()) return "{}";
  parsed->erase("tasks");
  if (const auto extensions = parsed->find("extensions");
      extensions != parsed->end() && extensions->is_object()) {
    extensions->erase("io.modelcontextprotocol/tasks");
    if (extensions->empty()) parsed->erase(extensions);
  }
  return dump_json(*parsed);
}

std::string shared_capabilities(std::string_view capabilities) {
  auto parsed = parse_json(capabilities, kDepth);
  if (!parsed || !parsed->is_object()) return "{}";
  if (const auto roots = parsed->find("roots"); roots != parsed->end() && roots->is_object())
    roots->erase("listChanged");
  // Forms alone are what an empty object has always meant.
  if (const auto asks = parsed->find("elicitation");
      asks != parsed->end() && asks->is_object() && !asks->contains("url"))
    asks->erase("form");
  for (const char* name : {"experimental", "extensions"})
    if (const auto member = parsed->find(name);
        member != parsed->end() && member->is_object() && member->empty())
      parsed->erase(member);
  return legacy_capabilities(dump_json(*parsed));
}

std::string not_declared(bool offered) {
  return offered ? R"({"code":-32602,"message":"The client did not declare that it can be asked so"})"
                 : R"({"code":-32601,"message":"The client does not offer this"})";
}

std::string modern_result(std::string_view method, std::string_view result, std::string_view server_info) {
  if (!is_object(result)) return std::string(result);
  std::string out = raw::with_member(result, "resultType", R"("complete")");
  if (cacheable(method)) {
    const auto ttl = raw::int_value(raw::find(out, "ttlMs"));
    if (!ttl || *ttl < 0) out = raw::with_member(out, "ttlMs", "0");
    out = raw::with_member(out, "cacheScope", R"("private")");
  }
  return server_info.empty() ? out : with_meta(out, meta::kServerInfo, server_info);
}

std::string legacy_result(std::string_view method, std::string_view result) {
  if (!is_object(result)) return std::string(result);
  std::string out = without(std::string(result), "resultType");
  if (cacheable(method)) {
    out = without(std::move(out), "ttlMs");
    out = without(std::move(out), "cacheScope");
  }
  out = without_meta(out, meta::kServerInfo);
  if (method == "tools/call") {
    if (const std::string_view content = raw::find(out, "structuredContent");
        !content.empty() && !is_object(content))
      out = raw::without_member(out, "structuredContent");
  } else if (method == "tools/list" && out.find("outputSchema") != std::string::npos) {
    std::string tools = "[";
    for (const std::string_view tool : raw::elements(raw::find(out, "tools"))) {
      if (tools.size() > 1) tools += ',';
      tools += legacy_tool(tool);
    }
    out = raw::with_member(out, "tools", tools + "]");
  }
  return out;
}

bool needs_input(std::string_view result) {
  return raw::string_value(raw::find(result, "resultType")) == "input_required";
}

std::string modern_error(std::string_view error, std::string_view asked) {
  const auto code = raw::int_value(raw::find(error, "code"));
  if (!code) return R"({"code":-32603,"message":"The server's error has no code"})";
  const auto with_code = [&error](int other) {
    return raw::with_member(error, "code", std::to_string(other));
  };
  if (*code == rpc::kResourceNotFound || (*code == rpc::kInvalidParams && !asked.empty())) {
    std::string out = with_code(rpc::kInvalidParams);
    if (asked.empty()) return out;
    const std::string_view data = raw::find(error, "data");
    return raw::with_member(out, "data",
                            raw::with_member(is_object(data) ? data : "{}", "uri", raw::quote(asked)));
  }
  // Codes that this revision must not send, or gives a meaning of its own.
  if (*code == rpc::kUrlElicitation || (*code <= -32020 && *code >= -32099))
    return with_code(rpc::kInternalError);
  return std::string(error);
}

std::string legacy_error(std::string_view method, std::string_view error) {
  const auto code = raw::int_value(raw::find(error, "code"));
  if (!code) return R"({"code":-32603,"message":"The server's error has no code"})";
  const auto with_code = [&error](int other) {
    return raw::with_member(error, "code", std::to_string(other));
  };
  if (*code == rpc::kInvalidParams && method == "resources/read" &&
      !raw::find(raw::find(error, "data"), "uri").empty())
    return with_code(rpc::kResourceNotFound);
  if (*code == rpc::kMissingCapability) return with_code(rpc::kInvalidParams);
  if (*code <= -32020 && *code >= -32099) return with_code(rpc::kInternalError);
  return std::string(error);
}

std::optional<std::vector<InputRequest>> url_elicitations(std::string_view error) {
  if (raw::int_value(raw::find(error, "code")) != rpc::kUrlElicitation) return std::nullopt;
  const std::string_view asked = raw::find(raw::find(error, "data"), "elicitations");
  if (asked.empty() || raw::type_of(asked) != raw::Type::array) return std::nullopt;
  std::vector<InputRequest> out;
  for (const std::string_view one : raw::elements(asked)) {
    const auto text = [&one](std::string_view name) { return raw::string_value(raw::find(one, name)); };
    if (!is_object(one) || text("mode") != "url" || !text("url") || !text("message") ||
        out.size() == kMaxElicitations)
      return std::nullopt;
    out.push_back({"visit_" + std::to_string(out.size() + 1), "elicitation/create", std::string(one)});
  }
  if (out.empty()) return std::nullopt;
  return out;
}

std::string input_required(const std::vector<InputRequest>& requests, std::string_view state,
                           std::string_view server_info) {
  std::string out = R"({"resultType":"input_required")";
  if (!requests.empty()) {
    out += R"(,"inputRequests":{)";
    for (const InputRequest& request : requests) {
      if (out.back() != '{') out += ',';
      raw::append_quoted(out, request.key);
      out += R"(:{"method":)";
      raw::append_quoted(out, request.method);
      std::string params = without_meta(request.params, "progressToken");
      if (is_object(params)) {
        // Members of the handshake era: tasks, and the id of an elicitation that a notification would end.
        params = without(std::move(params), "task");
        if (request.method == "elicitation/create") params = without(std::move(params), "elicitationId");
        out += R"(,"params":)" + params;
      }
      out += '}';
    }
    out += '}';
  }
  if (!state.empty()) out += R"(,"requestState":)" + raw::quote(state);
  if (!server_info.empty())
    out += R"(,"_meta":{)" + raw::quote(meta::kServerInfo) + ":" + std::string(server_info) + "}";
  return out + "}";
}

bool is_input_response(std::string_view method, std::string_view response) {
  if (!is_object(response)) return false;
  const auto type_is = [&response](std::string_view name, raw::Type type) {
    const std::string_view value = raw::find(response, name);
    return !value.empty() && raw::type_of(value) == type;
  };
  if (method == "elicitation/create") {
    const auto action = raw::string_value(raw::find(response, "action"));
    if (action != "accept" && action != "decline" && action != "cancel") return false;
    return raw::find(response, "content").empty() || type_is("content", raw::Type::object);
  }
  if (method == "sampling/createMessage")
    return type_is("role", raw::Type::string) && type_is("model", raw::Type::string) &&
           (type_is("content", raw::Type::object) || type_is("content", raw::Type::array));
  if (method == "roots/list") return type_is("roots", raw::Type::array);
  return false;
}

}  // namespace mcpgw::detail
