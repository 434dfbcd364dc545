// Upstream: one live connection to one MCP server, already initialised, whatever carries it. The gateway
// gives it a method and params as JSON text and gets a result or error as JSON text; ids are the connection's
// own.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/gateway.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/upstream.hpp"
#include "runtime/child_process.hpp"
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
  /// tools/call may be made a task (2025-11-25, basic/utilities/tasks).
  bool runs_tasks() const;
};

/// A session that a server keeps for whoever names its id. Secret.
struct UpstreamSession {
  std::string id;
  ServerFacts facts;
};

/// What the gateway tells a server about the client behind it.
struct ClientFacts {
  std::string protocol_version = "2025-11-25";  ///< asked for; the server may choose an older one
  std::string capabilities = "{}";
  std::string client_info;
  /// Processes, too, are shared only with clients of the same capabilities.
  bool exact = false;
};

/// A message that a server sent on its own account. `id` is raw JSON; empty for notifications.
struct ServerMessage {
  std::string id;
  std::string method;
  std::string params;  ///< raw, empty when absent
  /// The name that a server of 2026-07-28 gave to what it asks for; empty otherwise.
  std::string key;
  /// Calls of several clients were running on the pipe it came from: nobody knows whose doing it is.
  bool ambiguous = false;
};

/// Receives what a server sends during one call, in order, before the call's answer. Called from any thread.
class CallObserver {
 public:
  virtual ~CallObserver() = default;
  virtual void on_server_message(ServerMessage message) = 0;
  /// Identifies the client that the call is made for: on one pipe, a message that comes while all running
  /// calls are one client's can only be that client's.
  virtual const void* client() const { return this; }
  /// A line for the log about the call. False: it goes to UpstreamEvents::on_log, as those of no call do.
  virtual bool on_log(LogLevel, const std::string&) { return false; }
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
  std::string params;   ///< raw JSON object, empty when absent
  HttpHeaders headers;  ///< passed on by HTTP connections, unless one of that name is set already
  bool may_have_meta = true;  ///< false: `params` have no member _meta
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
  /// The call's progress token on this connection (raw JSON); progress may follow the answer when that was
  /// a task. Empty when none was asked for.
  std::string progress_token;
};

/// What the owner of a connection wants to hear, from any thread.
struct UpstreamEvents {
  /// Messages that belong to no running call: list_changed, resources/updated, requests on a standing
  /// stream, progress of a task.
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
  /// How messages travel, for people: "streamable-http", "sse", "stdio" (any pipe).
  virtual std::string_view transport() const { return {}; }
  /// Ends the connection; running calls end with "upstream_closed".
  virtual void close() = 0;
  /// What another connection needs to go on with the server's session; nullopt: it ends with this one.
  virtual std::optional<UpstreamSession> session() const { return std::nullopt; }
  /// As close(), but the server's session stays, for another connection.
  virtual void leave() { close(); }
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
/// What a server answered instead of speaking a transport.
struct HttpRefusal {
  int status = 0;  ///< 0: it spoke it, or could not be asked
  /// A server of the older transport is to be looked for (2025-11-25, basic/transports, "Backwards
  /// Compatibility").
  bool suggests_sse() const { return status == 400 || status == 404 || status == 405; }
};
Task<Result<std::shared_ptr<Upstream>>> open_http_upstream(Loop& home, HttpUpstreamOptions options,
                                                           ClientFacts client, UpstreamEvents events,
                                                           SteadyTime deadline,
                                                           HttpRefusal* refusal = nullptr);

/// Goes on with a session that another connection has made and left, once the server has answered a ping in
/// it. "session_lost": the server does not know it. Ids of requests begin at `first_id`: none may be used
/// twice in a session.
Task<Result<std::shared_ptr<Upstream>>> resume_http_upstream(Loop& home, HttpUpstreamOptions options,
                                                             ClientFacts client, UpstreamEvents events,
                                                             UpstreamSession session, std::int64_t first_id,
                                                             SteadyTime deadline);
/// Tells the server that nobody needs the session any more. Does not wait.
void end_http_session(Loop& home, HttpUpstreamOptions options, UpstreamSession session);

/// Connects over HTTP+SSE (MCP 2024-11-05, basic/transports) and initialises: one event stream brings
/// everything, messages are POSTed to the endpoint that the stream's first event names.
Task<Result<std::shared_ptr<Upstream>>> open_sse_upstream(Loop& home, HttpUpstreamOptions options,
                                                          ClientFacts client, UpstreamEvents events,
                                                          SteadyTime deadline,
                                                          HttpRefusal* refusal = nullptr);

/// A channel whose messages travel as requests of their own: each may carry headers, and may fail alone.
class PostingChannel : public MessageChannel {
 public:
  /// As send(). `on_failed` is called at most once, from any thread, when the message did not arrive, with an
  /// error as of Upstream::request: "session_lost" when it has certainly not been acted on. `call`, which may
  /// be null, is told the log lines about it.
  virtual Status post(std::string message, HttpHeaders headers, std::function<void(Error)> on_failed,
                      std::shared_ptr<CallObserver> call = nullptr) = 0;
  /// Waits until everything that was posted has arrived or failed. Awaited on the channel's loop.
  virtual Task<void> flush(SteadyTime deadline) = 0;
};

/// Opens the event stream and reads the endpoint from it.
Task<Result<std::shared_ptr<PostingChannel>>> open_sse_channel(
    Loop& home, HttpUpstreamOptions options, std::function<void(LogLevel, std::string)> on_log,
    SteadyTime deadline, HttpRefusal* refusal = nullptr);

/// Initialises a server at the other end of a channel.
Task<Result<std::shared_ptr<Upstream>>> open_channel_upstream(std::shared_ptr<MessageChannel> channel,
                                                              ClientFacts client, UpstreamEvents events,
                                                              SteadyTime deadline);
/// The same over requests.
Task<Result<std::shared_ptr<Upstream>>> open_posting_upstream(std::shared_ptr<PostingChannel> channel,
                                                              ClientFacts client, UpstreamEvents events,
                                                              SteadyTime deadline);

/// A child process as a channel: one message a line. Blocks shortly (spawns): call it on a worker.
struct StdioChannelOptions {
  std::string command;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::string working_dir;
  std::string run_as;  ///< "user" or "user:group"; empty: that of the gateway
  std::vector<ProcessLimit> limits;
  std::size_t max_message = 32 * 1024 * 1024;
  std::function<void(LogLevel, std::string)> on_log;
  /// It runs, with this pid: called once, before anything is sent to it, by whoever opens the channel.
  std::function<void(int pid)> on_started;
  /// It was reaped: `done` is to be called when whatever that takes is over. Called on the home loop.
  std::function<void(std::function<void()> done)> on_ended;
  std::shared_ptr<std::atomic<int>> farewells;  ///< counted until `done`; may be null
};
Result<std::shared_ptr<MessageChannel>> open_stdio_channel(Loop& home, StdioChannelOptions options);

}  // namespace mcpgw::detail
