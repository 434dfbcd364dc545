// What a test author needs: a clock to turn, a scripted MCP server, a storage that fails on demand, and a
// gateway with users that lives inside the test process. Component mcpgw::testing.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "mcpgw/gateway.hpp"

namespace mcpgw::testing {

/// Stands still until told to move. Starts at 2026-01-01T00:00:00Z.
class ManualClock : public Clock {
 public:
  ManualClock();
  Time now() const override;
  Duration monotonic() const override;
  /// Forwards only: a negative step is ignored.
  void advance(Duration by);

 private:
  std::atomic<std::int64_t> now_us_;
};

/// Deterministic bytes from a seed. Never outside tests.
std::shared_ptr<Random> make_seeded_random(std::uint64_t seed);

/// Forwards to another storage and fails on demand.
class FailingStorage : public Storage {
 public:
  explicit FailingStorage(std::shared_ptr<Storage> inner);
  /// The `nth` next commit (1 = the very next) fails with `error`, before (or after) it took effect.
  void fail_commit(int nth, Error error, bool after_commit = false);
  /// The `nth` next call that reads or writes (1 = the very next) fails with `error`, without effect.
  void fail_call(int nth, Error error);
  /// Whether a failure that was asked for is still to come. Neither kind replaces the other.
  bool failure_pending() const;
  /// Takes back what is still to come.
  void heal();
  /// Every call fails until set back.
  void set_down(bool down);

  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override;
  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override;
  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override;
  std::uint64_t watch(WatchCallback callback) override;
  void unwatch(std::uint64_t id) override;
  Status ping() override;
  bool shared() const override { return inner_->shared(); }
  bool durable() const override { return inner_->durable(); }

 private:
  /// The error that this call shall have.
  std::optional<Error> failure_of_call();

  std::shared_ptr<Storage> inner_;
  mutable std::mutex mutex_;  // protects the members below
  int call_countdown_ = 0;
  Error call_error_;
  int countdown_ = 0;
  bool after_ = false;
  bool down_ = false;
  Error error_;
};

/// A scripted MCP server inside the process. Thread-safe.
///
///   auto git = std::make_shared<FakeUpstream>();
///   git->add_tool("git_log", [](const FakeUpstream::Call& c) { return FakeUpstream::text("abc"); });
///
/// It is as strict as a real server: what its revision does not know or does not permit is refused.
class FakeUpstream {
 public:
  /// Which revisions of MCP it speaks.
  enum class Era {
    legacy,  ///< up to 2025-11-25: a handshake; it asks its client by requests of its own (ask())
    modern,  ///< 2026-07-28: each request says what it is; it asks its client by a result (input_required())
    both,    ///< whatever a request is of
  };
  struct Call {
    std::string method;
    std::string name;       ///< tool, prompt or URI
    std::string arguments;  ///< JSON text exactly as received; empty = absent
    std::string params;     ///< JSON text exactly as received
    UpstreamParameters connection;
    std::function<void(double progress, double total)> progress;
    std::string version;          ///< the revision that the request is of
    std::string input_responses;  ///< JSON text: what was asked for by input_required(); empty: nothing yet
    std::string request_state;    ///< the state that was given with it
  };
  /// The JSON text of the `result`; what 2026-07-28 wants of each result (resultType, ...) is added where it
  /// is missing. Throw FakeError for a JSON-RPC error.
  using Handler = std::function<std::string(const Call&)>;
  struct FakeError {
    int code;
    std::string message;
    std::string data = {};  ///< JSON text or empty
  };

  explicit FakeUpstream(Era era = Era::legacy);
  ~FakeUpstream();
  Era era() const;
  /// The legacy revisions that it knows, newest first, in place of all of them: a handshake gets the one that
  /// it asks for, else the first.
  void set_legacy_versions(std::vector<std::string> versions);
  static std::string text(const std::string& value);  ///< a result with one text content
  /// A result of 2026-07-28 that asks the client. `requests` is the JSON text of an object: key ->
  /// {"method","params"}. The call comes again with Call::input_responses and `state`.
  static std::string input_required(const std::string& requests, const std::string& state = {});

  /// `schema` is the JSON text of inputSchema.
  void add_tool(const std::string& name, Handler handler, const std::string& schema = R"({"type":"object"})");
  /// The JSON text of the whole tool object, sent as it is.
  void add_raw_tool(const std::string& name, const std::string& json, Handler handler);
  void add_resource(const std::string& uri, Handler handler);
  void add_prompt(const std::string& name, Handler handler);

  /// Faults: the next calls of that method never answer / close the channel / answer with rubbish.
  void hang(const std::string& method);
  void close_on(const std::string& method);
  void garbage_on(const std::string& method);
  /// ... get this error.
  void fail_on(const std::string& method, FakeError error);
  void heal();
  /// Sends a notification to every open connection. One of 2026-07-28 hears of changes what it has subscribed
  /// to, once for each subscription (see listeners()).
  void notify(const std::string& method, const std::string& params = "{}");
  /// Sends a request to every open connection; what the client answers is in received(). Clients of
  /// 2026-07-28 know no requests of servers and leave it aside.
  void ask(const std::string& id, const std::string& method, const std::string& params = "{}");

  /// Sends a text as it is to every open connection.
  void deliver(const std::string& message);

  /// Messages received so far, in order, as text.
  std::vector<std::string> received() const;
  /// Those whose method is `method`.
  std::vector<std::string> received(const std::string& method) const;
  int connections() const;
  /// Subscriptions (subscriptions/listen) of 2026-07-28 that are open now.
  int listeners() const;

  Result<std::shared_ptr<MessageChannel>> connect(const UpstreamParameters& parameters);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// The answer to an MCP request, as a test wants to look at it.
struct McpReply {
  int http_status = 0;
  std::string body;                        ///< the JSON-RPC answer's text
  std::vector<std::string> notifications;  ///< messages before it, in order
  std::string session_id;
  bool ok() const;           ///< a result, not an error
  bool needs_input() const;  ///< a result that asks for input (2026-07-28)
  int error_code() const;    ///< 0 when ok
  std::string error_message() const;
  std::string result() const;  ///< JSON text of `result`
  /// Texts of result.content[].text, joined by newlines.
  std::string text() const;
};

class InProcessGateway;

/// One user talking to the gateway: initialises on first use, keeps its session.
class McpClient {
 public:
  McpReply initialize(const std::string& version = "2025-11-25", const std::string& capabilities = "{}");
  McpReply request(const std::string& method, const std::string& params = "{}");
  McpReply raw(const std::string& body, const HttpHeaders& headers = {});
  McpReply call_tool(const std::string& name, const std::string& arguments = "{}");
  std::vector<std::string> list_tools();
  std::vector<std::string> list_resources();
  std::vector<std::string> list_prompts();
  /// Goes on in this revision, and leaves its session: "2026-07-28" has none, any other one begins with a
  /// handshake. `capabilities` is the JSON text of the client's.
  void speak(std::string version, std::string capabilities = "{}");
  /// A REST call with this user's token.
  HttpResponse api(const std::string& method, const std::string& path, const std::string& body = {});
  /// Goes on with another token, or in another session.
  void use_token(std::string token) { token_ = std::move(token); }
  void use_session(std::string session_id) { session_id_ = std::move(session_id); }
  const std::string& token() const { return token_; }
  const std::string& session_id() const { return session_id_; }
  const std::string& user_id() const { return user_id_; }

 private:
  friend class InProcessGateway;
  InProcessGateway* gateway_ = nullptr;
  std::string token_;
  std::string user_id_;
  std::string session_id_;
  std::string version_;  ///< of the session
  std::string wanted_ = "2025-11-25";
  std::string capabilities_ = "{}";
  int next_id_ = 1;
};

struct InProcessOptions {
  GatewayOptions gateway;    ///< storage may be null: memory
  bool over_socket = false;  ///< drive it through an HttpServer on a free port
};

/// A gateway with memory storage, an admin and whatever upstreams and users the test adds.
class InProcessGateway {
 public:
  explicit InProcessGateway(InProcessOptions options = {});
  ~InProcessGateway();

  Gateway& gateway();
  /// A target whose upstream is `fake`. Returns its id. The gateway speaks 2026-07-28 to a fake of that era
  /// alone; to one of both eras when the target's protocol_era says so.
  std::string add_upstream(const std::string& name, std::shared_ptr<FakeUpstream> fake);
  std::string add_upstream(Target target, std::shared_ptr<FakeUpstream> fake);
  /// The user, made on first use with role "user"; "admin" is the admin.
  McpClient& as(const std::string& name);
  /// Lets a user call tools of a target that match (empty: everything).
  std::string allow(const std::string& user, const std::string& target_name, const std::string& pattern = {});
  HttpResponse send(HttpRequest request);
  /// Of the HttpServer that it is driven through; 0: by direct calls.
  int port() const;
  std::vector<AuditRecord> audit_rows();  ///< flushed, oldest first

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mcpgw::testing
