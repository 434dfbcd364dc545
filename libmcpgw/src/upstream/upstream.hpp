// Upstream: one live connection to one MCP server, already initialised, whatever carries it. The gateway
// gives it a method and params as JSON text and gets a result or error as JSON text; ids are the connection's
// own.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/gateway.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/upstream.hpp"
#include "runtime/http_client.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::detail {

/// What a server said about itself when it was initialised. Members are raw JSON, empty when absent.
struct ServerFacts {
  std::string protocol_version;
  std::string capabilities;
  std::string server_info;
  std::string instructions;  ///< decoded text
  bool offers(std::string_view capability) const;
  /// capabilities.<capability>.<flag> is true.
  bool offers(std::string_view capability, std::string_view flag) const;
};

/// What the gateway tells a server about the client behind it.
struct ClientFacts {
  std::string protocol_version = "2025-11-25";  ///< asked for; the server may choose an older one
  std::string capabilities = "{}";
  std::string client_info;
};

/// A message that a server sent on its own account. `id` is raw JSON; empty for notifications.
struct ServerMessage {
  std::string id;
  std::string method;
  std::string params;  ///< raw, empty when absent
};

/// Receives what a server sends during one call, in order, before the call's answer. Called from any thread.
class CallObserver {
 public:
  virtual ~CallObserver() = default;
  virtual void on_server_message(ServerMessage message) = 0;
};

/// Ends one call from any thread: the server is told, the waiting request() ends with cancelled/"cancelled".
class CallHandle {
 public:
  /// `reason` is passed to the server.
  void cancel(std::string reason);
  bool cancelled() const;
  /// For upstreams: runs `action` on cancel(), at once when that has happened. An empty one clears.
  void on_cancel(std::function<void(std::string reason)> action);

 private:
  mutable std::mutex mutex_;
  bool cancelled_ = false;
  std::string reason_;
  std::function<void(std::string)> action_;
};

struct UpstreamCall {
  std::string method;
  std::string params;  ///< raw JSON object, empty when absent
  HttpHeaders headers;  ///< passed on by HTTP connections, unless one of that name is set already
  /// The client wants progress: a token of this connection is put into params._meta, and progress
  /// notifications reach the observer with it removed ("progressToken" absent).
  bool wants_progress = false;
  std::chrono::milliseconds timeout{60000};        ///< starts anew with each progress notification
  std::chrono::milliseconds max_timeout{3600000};  ///< in all
  std::shared_ptr<CallObserver> observer;          ///< may be null
  std::shared_ptr<CallHandle> handle;              ///< may be null
};

struct UpstreamAnswer {
  bool is_error = false;
  std::string payload;  ///< raw `result`, or the raw `error` object
};

/// What the owner of a connection wants to hear, from any thread.
struct UpstreamEvents {
  /// Messages that belong to no call: list_changed, resources/updated, requests on a standing stream.
  std::function<void(ServerMessage)> on_message;
  /// The connection is unusable from now on. Once.
  std::function<void(Error)> on_lost;
  /// One line for the log: never shown to clients, secrets masked.
  std::function<void(LogLevel, std::string)> on_log;
};

/// Safe from any thread; request() and open functions are awaited on a loop.
class Upstream {
 public:
  virtual ~Upstream() = default;
  virtual const ServerFacts& facts() const = 0;
  /// Errors: reasons of the audit table: "upstream_unreachable", "upstream_closed",
  /// "upstream_protocol_error", "upstream_redirect", "response_too_large", "upstream_timeout", "cancelled".
  /// Besides, "session_lost": the server forgot this session and has not acted on the call, which may be sent
  /// again on a new connection.
  virtual Task<Result<UpstreamAnswer>> request(UpstreamCall call) = 0;
  virtual void notify(std::string method, std::string params) = 0;
  /// Answers a ServerMessage with an id. `member` is "result" or "error", `payload` raw JSON.
  virtual void respond(std::string id, std::string_view member, std::string payload) = 0;
  virtual bool alive() const = 0;
  /// Ends the connection; running calls end with "upstream_closed".
  virtual void close() = 0;
};

/// Connects over Streamable HTTP and initialises (MCP 2025-11-25, basic/transports).
struct HttpUpstreamOptions {
  std::shared_ptr<HttpClient> client;
  Url url;
  HttpHeaders headers;  ///< credential and environment: secret
  std::size_t max_message = 32 * 1024 * 1024;
  std::shared_ptr<std::atomic<int>>
      farewells;  ///< counted while the closing DELETE is on its way; may be null
};
Task<Result<std::shared_ptr<Upstream>>> open_http_upstream(Loop& home, HttpUpstreamOptions options,
                                                           ClientFacts client, UpstreamEvents events,
                                                           SteadyTime deadline);

/// Initialises a server at the other end of a channel.
Task<Result<std::shared_ptr<Upstream>>> open_channel_upstream(std::shared_ptr<MessageChannel> channel,
                                                              ClientFacts client, UpstreamEvents events,
                                                              SteadyTime deadline);

/// A child process as a channel: one message a line. Blocks shortly (spawns): call it on a worker.
struct StdioChannelOptions {
  std::string command;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::string working_dir;
  std::size_t max_message = 32 * 1024 * 1024;
  std::function<void(LogLevel, std::string)> on_log;
  std::shared_ptr<std::atomic<int>> farewells;  ///< counted while the process lives; may be null
};
Result<std::shared_ptr<MessageChannel>> open_stdio_channel(Loop& home, StdioChannelOptions options);

}  // namespace mcpgw::detail
