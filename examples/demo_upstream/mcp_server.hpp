// The protocol part: JSON-RPC and MCP 2025-11-25 and older, without a transport.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace demo {

namespace asio = boost::asio;
using Json = nlohmann::ordered_json;  // keeps the order of members

/// Revisions that this server speaks, newest first.
extern const std::vector<std::string> kProtocolVersions;

/// One client connection (stdio) or one Mcp-Session-Id (HTTP).
struct Session {
  std::string id;
  std::string protocol_version;
  /// Running calls by the text of their id; notifications/cancelled cancels the timer they wait on.
  std::map<std::string, std::shared_ptr<asio::steady_timer>> waiting;
};

/// What came with a request besides the message.
struct Caller {
  bool over_stdio = false;
  std::vector<std::pair<std::string, std::string>> headers;  ///< HTTP only; names in lower case
};

/// Sends a notification that belongs to the running request.
using Notify = std::function<asio::awaitable<void>(Json)>;

/// Thrown by tools and handlers; becomes a JSON-RPC error.
struct RpcError {
  int code;
  std::string message;
  Json data = nullptr;
};
/// Thrown by a call that the client has cancelled.
struct Cancelled {};

/// A request that a client has not understood is answered with one of these.
Json rpc_error(const Json& id, int code, const std::string& message, Json data = nullptr);

/// Answers one message. No value: nothing is to be sent (a notification, or a cancelled request).
/// Must run on one thread for all messages of a session.
asio::awaitable<std::optional<Json>> handle_message(std::shared_ptr<Session> session, Json message,
                                                    Caller caller, Notify notify);

/// Whether the message is a request that asks for progress.
bool wants_progress(const Json& message);

// --- tools.cpp ------------------------------------------------------------------------------------------
struct ToolCall {
  std::shared_ptr<Session> session;
  std::string name;
  Json arguments;
  Json progress_token;  ///< null when no progress is wanted
  std::string id_text;
  Caller caller;
  Notify notify;
};

Json tool_list();
/// The result of tools/call.
asio::awaitable<Json> call_tool(ToolCall call);

}  // namespace demo
