// The MCP endpoint: what is answered to POST, GET and DELETE /mcp, and GET /sse (docs/protocol.md).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/shared_apart.hpp"
#include "gateway/client_call.hpp"
#include "gateway/core.hpp"
#include "gateway/session.hpp"

namespace mcpgw::detail {

/// What the front knows about a request besides its text.
struct RequestMeta {
  std::string request_id;
  std::string trace_id;
  Principal principal;
  /// The answer is a stream that stays open: it is no request in flight any more. May be null.
  std::function<void()> not_in_flight;
  std::shared_ptr<RequestTrace> trace;  ///< null: there is none
  bool forwarded = false;               ///< by another replica: it goes no further
};

/// Safe from any thread; runs on loops.
class McpEndpoint : public std::enable_shared_from_this<McpEndpoint> {
 public:
  explicit McpEndpoint(std::shared_ptr<GatewayCore> core) : core_(std::move(core)), cores_(core_) {}

  /// Answers a request to /mcp or /sse whose origin, load and token have been checked. `kept` keeps this: a
  /// call whose client has gone may outlive the gateway by a moment.
  Task<void> handle(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                    std::shared_ptr<const void> kept);

  /// The answer to a POST of a known user that is refused before anything reads its message, and its row,
  /// without a body. `method`: as far as it could be read.
  void reject(const std::shared_ptr<Responder>& responder, const RequestMeta& meta,
              const HttpRequest& request, HttpResponse response, std::string_view code,
              std::string_view method = {});

 private:
  friend class ModernEndpoint;  // the other era: the same items, judged and forwarded alike
  using Call = std::shared_ptr<ClientCall>;

  /// To the replica that has the session, or to post(), get() or remove().
  Task<void> route(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                   std::shared_ptr<const void> kept);
  Task<void> post(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                  std::shared_ptr<const void> kept);
  Task<void> get(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta);
  Task<void> remove(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta);
  /// Opens a session and its stream for a client of HTTP+SSE (2024-11-05).
  Task<void> open_sse(std::shared_ptr<Responder> responder, RequestMeta meta);
  /// The stream of one POST goes on where `last` says.
  void resume(const std::shared_ptr<Responder>& responder, const RequestMeta& meta,
              const std::shared_ptr<Session>& session, const EventId& last);
  Task<void> batch(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                   std::shared_ptr<Session> session, Accepts accepts);
  /// How the answers to one POST reach the client. One of HTTP+SSE is told 202 here.
  std::shared_ptr<Reply> make_reply(const std::shared_ptr<Responder>& responder,
                                    const std::shared_ptr<Session>& session, Accepts accepts,
                                    std::size_t answers, bool batch,
                                    std::vector<std::shared_ptr<CallHandle>> calls);
  /// Refuses versions that GET and DELETE do not have; true when it did.
  static bool refuse_version(const HttpRequest& request, const std::shared_ptr<Responder>& responder,
                             const RequestMeta& meta, const char* what);

  /// Answers one request of a client and writes its audit row.
  Task<void> answer(Call call, std::shared_ptr<const void> kept = nullptr);
  /// `over_sse`: the session that a client of HTTP+SSE has opened; else a new one is made.
  Task<void> initialize(HttpRequest request, Envelope envelope, std::shared_ptr<Responder> responder,
                        RequestMeta meta, Accepts accepts, std::shared_ptr<Session> over_sse);
  static void notification(Session& session, const Envelope& envelope);

  // Each returns the answer's text and fills the call's audit row.
  Task<std::string> dispatch(Call call);
  Task<std::string> list(Call call, ListKind kind);
  Task<std::string> call_item(Call call, ListKind kind);
  Task<std::string> resource(Call call);
  Task<std::string> complete(Call call);
  Task<std::string> set_level(Call call);
  Task<std::string> task(Call call);
  Task<std::string> list_tasks(Call call);
  /// Judges, sends to the target, and answers. `params` is what the upstream gets.
  Task<std::string> forward(Call call, ItemRoute route, ResourceType type, std::string params);

  Task<std::optional<ItemRoute>> find_item(Call call, ListKind kind, std::string name);
  /// The same as far as no server has to be asked for its list.
  static std::optional<ItemRoute> find_known_item(const ClientCall& call, ListKind kind,
                                                  const std::string& name);
  Task<std::optional<ItemRoute>> find_resource(Call call, ListKind kind, std::string uri);

  /// Connections and lists of all targets of the view, in its order, as far as they are there by the
  /// deadline.
  struct Gathered {
    std::shared_ptr<const Target> target;
    std::shared_ptr<UpstreamConnection> connection;
    std::shared_ptr<const Listing> listing;
  };
  Task<std::vector<Gathered>> gather(std::shared_ptr<Session> session, Principal principal,
                                     std::shared_ptr<const Session::View> view, std::optional<ListKind> kind,
                                     bool fresh, RequestIds request);
  /// What the gateway offers for these targets.
  struct Offer {
    std::string capabilities;  ///< raw object
    std::string instructions;
  };
  static Offer offer(const Session::View& view, const std::vector<Gathered>& reached);

  /// The `tasks` capability towards this client; empty when nothing of it is there.
  static std::string task_capabilities(const Session& session, const std::vector<Gathered>& reached);
  /// An answer about a task, with the ids that the client knows.
  std::string export_task(ClientCall& call, const Target& target, const std::string& tool,
                          const UpstreamConnection& connection, const UpstreamAnswer& answer);

  std::string unknown_task(ClientCall& call, const char* error_code, int status);
  std::string invalid_params(ClientCall& call, std::string_view message);
  std::string unknown_item(ClientCall& call, ListKind kind, std::string_view name, const char* error_code,
                           int status);
  std::string upstream_failure(ClientCall& call, const Target& target, const Error& error);
  AuditRecord audit_row(const RequestMeta& meta, const HttpRequest& request, const Session* session) const;
  /// What the audit log keeps of a message, by the configured rule.
  std::string audited_body(const std::string& body, const std::string& method,
                           const UpstreamConnection* connection) const;
  /// The answer to a message that goes no further, and its row. `method`: as far as it could be read.
  void refuse(const std::shared_ptr<Responder>& responder, const RequestMeta& meta,
              const HttpRequest& request, const Session* session, int status, int code,
              std::string_view message, std::string_view id, const char* error_code,
              std::string_view data = {}, std::string_view method = {});
  /// Records a row; in sync mode `then` is called when it is stored, with whether it could be.
  void record(AuditRecord row, std::function<void(bool)> then);
  /// The same for what was refused, which nobody has let pass yet: while the log is full it waits, and has no
  /// row when that takes too long (`then` gets false).
  void record_refusal(AuditRecord row, std::function<void(bool)> then);

  const std::shared_ptr<GatewayCore> core_;
  const HeldApart<GatewayCore> cores_;  ///< the same, for what each call holds
};

/// Whether both the client of this session and the server know tasks of tools/call.
bool carries_tasks(const Session& session, const ServerFacts& facts);

/// `data` of the error that a version which is not spoken gets.
std::string version_data(std::string_view requested);

/// The JSON error of everything that is no JSON-RPC message.
HttpResponse http_error(int status, std::string_view code, std::string_view message,
                        std::string_view request_id);
/// 429: a bound of the user's is met.
HttpResponse too_many(std::string_view message, std::string_view request_id);

}  // namespace mcpgw::detail
