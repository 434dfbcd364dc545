// The tools: echo, add, slow, whoami.
#include <openssl/sha.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdlib>
#include <limits>

#include "mcp_server.hpp"

namespace demo {

namespace {

constexpr std::int64_t kMaxDurationMs = 600000;
constexpr std::int64_t kMaxSteps = 1000;

Json text_result(std::string text) {
  return {{"content", Json::array({{{"type", "text"}, {"text", std::move(text)}}})}};
}

Json structured_result(const Json& value) {
  auto result = text_result(value.dump());
  result["structuredContent"] = value;
  return result;
}

/// A tool's own failure is a result, so that the model can read it.
Json tool_error(std::string text) {
  auto result = text_result(std::move(text));
  result["isError"] = true;
  return result;
}

std::string sha256_hex(const std::string& text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  static const char* const kDigits = "0123456789abcdef";
  std::string out;
  for (const unsigned char byte : digest) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

Json schema(Json properties, Json required) {
  return {{"type", "object"}, {"properties", std::move(properties)}, {"required", std::move(required)}};
}

Json add(const Json& arguments) {
  const auto a = arguments.value("a", Json()), b = arguments.value("b", Json());
  if (!a.is_number() || !b.is_number()) return tool_error("\"a\" and \"b\" must be numbers");
  if (a.is_number_integer() && b.is_number_integer()) {
    std::int64_t sum = 0;
    if (__builtin_add_overflow(a.get<std::int64_t>(), b.get<std::int64_t>(), &sum))
      return tool_error("the sum is too large");
    return text_result(std::to_string(sum));
  }
  return text_result(Json(a.get<double>() + b.get<double>()).dump());
}

std::int64_t bounded(const Json& arguments, const char* name, std::int64_t fallback, std::int64_t max) {
  const auto value = arguments.value(name, Json(fallback));
  if (!value.is_number_integer() || value.get<std::int64_t>() < 0 || value.get<std::int64_t>() > max)
    throw RpcError{-32602,
                   std::string("\"") + name + "\" must be an integer from 0 to " + std::to_string(max)};
  return value.get<std::int64_t>();
}

/// Waits in steps and tells after each how far it is.
asio::awaitable<Json> slow(ToolCall call) {
  const auto duration = bounded(call.arguments, "duration_ms", 1000, kMaxDurationMs);
  const auto steps = std::max<std::int64_t>(1, bounded(call.arguments, "steps", 5, kMaxSteps));
  const auto timer = std::make_shared<asio::steady_timer>(co_await asio::this_coro::executor);
  call.session->waiting[call.id_text] = timer;
  const auto start = std::chrono::steady_clock::now();
  bool cancelled = false;
  for (std::int64_t step = 1; step <= steps && !cancelled; ++step) {
    timer->expires_at(start + std::chrono::milliseconds(duration * step / steps));
    boost::system::error_code error;
    co_await timer->async_wait(asio::redirect_error(asio::use_awaitable, error));
    cancelled = error == asio::error::operation_aborted;
    if (cancelled || call.progress_token.is_null()) continue;
    Json progress = {{"progressToken", call.progress_token}, {"progress", step}, {"total", steps}};
    Json notification = {
        {"jsonrpc", "2.0"}, {"method", "notifications/progress"}, {"params", std::move(progress)}};
    co_await call.notify(std::move(notification));
  }
  call.session->waiting.erase(call.id_text);
  if (cancelled) throw Cancelled{};
  co_return text_result("waited " + std::to_string(duration) + " ms in " + std::to_string(steps) + " steps");
}

/// What the server was given, without giving it back: digests of secrets, names of everything else.
Json whoami(const Caller& caller) {
  Json out = {
      {"transport", caller.over_stdio ? "stdio" : "http"}, {"pid", getpid()}, {"credential_sha256", nullptr}};
  if (caller.over_stdio) {
    if (const char* token = std::getenv("AUTH_TOKEN")) out["credential_sha256"] = sha256_hex(token);
    Json names = Json::array();
    for (char** entry = environ; *entry; ++entry) {
      const std::string pair = *entry;
      names.push_back(pair.substr(0, pair.find('=')));
    }
    std::sort(names.begin(), names.end());
    out["env_names"] = names;
    return out;
  }
  Json names = Json::array(), env = Json::object();
  for (const auto& [name, value] : caller.headers) {
    names.push_back(name);
    if (name == "authorization") {
      const auto scheme = value.rfind("Bearer ", 0) == 0 ? 7 : 0;
      out["credential_sha256"] = sha256_hex(value.substr(scheme));
    }
    if (name.rfind("x-env-", 0) == 0) env[name] = sha256_hex(value);
  }
  std::sort(names.begin(), names.end());
  out["header_names"] = names;
  out["env_sha256"] = env;
  return out;
}

}  // namespace

Json tool_list() {
  const Json number = {{"type", "number"}}, text = {{"type", "string"}}, integer = {{"type", "integer"}};
  Json tools = Json::array();
  tools.push_back({{"name", "echo"},
                   {"description", "Answers with the text it was given"},
                   {"inputSchema", schema({{"text", text}}, {"text"})},
                   {"annotations", {{"readOnlyHint", true}}}});
  tools.push_back({{"name", "add"},
                   {"description", "Adds two numbers"},
                   {"inputSchema", schema({{"a", number}, {"b", number}}, {"a", "b"})}});
  tools.push_back({{"name", "slow"},
                   {"description", "Takes its time and reports progress"},
                   {"inputSchema", schema({{"duration_ms", integer}, {"steps", integer}}, Json::array())}});
  tools.push_back(
      {{"name", "whoami"},
       {"description", "SHA-256 of the credential this server was given, and the names of what came with it"},
       {"inputSchema", schema(Json::object(), Json::array())}});
  return {{"tools", std::move(tools)}};
}

asio::awaitable<Json> call_tool(ToolCall call) {
  if (call.name == "slow") co_return co_await slow(std::move(call));
  if (call.name == "add") co_return add(call.arguments);
  if (call.name == "whoami") co_return structured_result(whoami(call.caller));
  if (call.name == "echo") {
    const auto text = call.arguments.value("text", Json());
    if (!text.is_string()) co_return tool_error("\"text\" must be a string");
    co_return text_result(text.get<std::string>());
  }
  throw RpcError{-32602, "Unknown tool: " + call.name};
}

}  // namespace demo
