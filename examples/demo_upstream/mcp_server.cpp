#include "mcp_server.hpp"

#include <algorithm>

namespace demo {

const std::vector<std::string> kProtocolVersions{"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"};

namespace {

constexpr const char* kNoteUri = "demo://note";
constexpr const char* kNote = "This resource lives in the demo server.";

std::string string_member(const Json& params, const char* name) {
  const auto found = params.find(name);
  if (found == params.end() || !found->is_string())
    throw RpcError{-32602, std::string("\"") + name + "\" must be a string"};
  return found->get<std::string>();
}

Json initialize(Session& session, const Json& params) {
  const auto wanted = string_member(params, "protocolVersion");
  const bool known =
      std::find(kProtocolVersions.begin(), kProtocolVersions.end(), wanted) != kProtocolVersions.end();
  session.protocol_version = known ? wanted : kProtocolVersions.front();
  return {{"protocolVersion", session.protocol_version},
          {"capabilities",
           {{"tools", Json::object()}, {"resources", Json::object()}, {"prompts", Json::object()}}},
          {"serverInfo", {{"name", "demo_upstream"}, {"version", "1.0.0"}}},
          {"instructions", "A demo server: echo, add, slow (with progress) and whoami."}};
}

Json read_resource(const Json& params) {
  const auto uri = string_member(params, "uri");
  if (uri != kNoteUri) throw RpcError{-32002, "Resource not found", Json{{"uri", uri}}};
  return {{"contents", Json::array({{{"uri", kNoteUri}, {"mimeType", "text/plain"}, {"text", kNote}}})}};
}

Json list_prompts() {
  const Json argument = {{"name", "name"}, {"description", "Who is greeted"}, {"required", true}};
  return {{"prompts", Json::array({{{"name", "greet"},
                                    {"description", "A greeting"},
                                    {"arguments", Json::array({argument})}}})}};
}

Json get_prompt(const Json& params) {
  const auto name = string_member(params, "name");
  if (name != "greet") throw RpcError{-32602, "Unknown prompt: " + name};
  const auto arguments = params.value("arguments", Json::object());
  const auto text = "Please greet " + string_member(arguments, "name") + " warmly.";
  return {{"messages", Json::array({{{"role", "user"}, {"content", {{"type", "text"}, {"text", text}}}}})}};
}

asio::awaitable<Json> handle_request(std::shared_ptr<Session> session, std::string method, Json params,
                                     Json id, Caller caller, Notify notify) {
  if (method == "initialize") co_return initialize(*session, params);
  if (method == "ping") co_return Json::object();
  if (method == "tools/list") co_return tool_list();
  if (method == "tools/call") {
    ToolCall call;
    call.session = session;
    call.name = string_member(params, "name");
    call.arguments = params.value("arguments", Json::object());
    if (!call.arguments.is_object()) throw RpcError{-32602, "\"arguments\" must be an object"};
    if (params.contains("_meta") && params["_meta"].is_object())
      call.progress_token = params["_meta"].value("progressToken", Json(nullptr));
    call.id_text = id.dump();
    call.caller = std::move(caller);
    call.notify = std::move(notify);
    co_return co_await call_tool(std::move(call));
  }
  if (method == "resources/list")
    co_return Json{
        {"resources", Json::array({{{"uri", kNoteUri}, {"name", "note"}, {"mimeType", "text/plain"}}})}};
  if (method == "resources/templates/list") co_return Json{{"resourceTemplates", Json::array()}};
  if (method == "resources/read") co_return read_resource(params);
  if (method == "prompts/list") co_return list_prompts();
  if (method == "prompts/get") co_return get_prompt(params);
  throw RpcError{-32601, "Method not found: " + method};
}

void cancel(Session& session, const Json& params) {
  const auto found = session.waiting.find(params.value("requestId", Json(nullptr)).dump());
  if (found != session.waiting.end()) found->second->cancel();
}

}  // namespace

Json rpc_error(const Json& id, int code, const std::string& message, Json data) {
  Json error = {{"code", code}, {"message", message}};
  if (!data.is_null()) error["data"] = std::move(data);
  return {{"jsonrpc", "2.0"}, {"id", id}, {"error", std::move(error)}};
}

bool wants_progress(const Json& message) {
  const auto params = message.find("params");
  if (!message.contains("id") || params == message.end() || !params->is_object()) return false;
  const auto meta = params->find("_meta");
  return meta != params->end() && meta->is_object() && meta->contains("progressToken");
}

asio::awaitable<std::optional<Json>> handle_message(std::shared_ptr<Session> session, Json message,
                                                    Caller caller, Notify notify) {
  if (!message.is_object() || message.value("jsonrpc", Json()) != "2.0")
    co_return rpc_error(nullptr, -32600, "Not a JSON-RPC 2.0 message");
  const Json id = message.value("id", Json(nullptr));
  if (message.contains("id") && !id.is_string() && !id.is_number_integer())
    co_return rpc_error(nullptr, -32600, "\"id\" must be a string or integer");
  const Json method = message.value("method", Json(nullptr));
  if (!method.is_string()) {
    if (message.contains("result") || message.contains("error"))
      co_return std::nullopt;  // this server never asks
    co_return rpc_error(id, -32600, "\"method\" must be a string");
  }
  Json params = message.value("params", Json::object());
  if (!message.contains("id")) {
    if (method == "notifications/cancelled" && params.is_object()) cancel(*session, params);
    co_return std::nullopt;
  }
  if (!params.is_object()) co_return rpc_error(id, -32602, "\"params\" must be an object");
  try {
    Json result = co_await handle_request(session, method.get<std::string>(), std::move(params), id,
                                          std::move(caller), std::move(notify));
    co_return Json{{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}};
  } catch (const RpcError& error) {
    co_return rpc_error(id, error.code, error.message, error.data);
  } catch (const Json::exception&) {
    co_return rpc_error(id, -32602, "A member of \"params\" has the wrong type");
  } catch (const Cancelled&) {
    co_return std::nullopt;
  }
}

}  // namespace demo
