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
class FakeUpstream {
 public:
  struct Call {
    std::string method;
    std::string name;       ///< tool, prompt or URI
    std::string arguments;  ///< JSON text exactly as received; empty = absent
    std::string params;     ///< JSON text exactly as received
    UpstreamParameters connection;
    std::function<void(double progress, double total)> progress;
  };
  /// The JSON text of the `result`. Throw FakeError for a JSON-RPC error.
  using Handler = std::function<std::string(const Call&)>;
  struct FakeError {
    int code;
    std::string message;
  };

  FakeUpstream();
  ~FakeUpstream();
  static std::string text(const std::string& value);  ///< a result with one text content

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
  void heal();
  /// Sends a notification to every open connection.
  void notify(const std::string& method, const std::string& params = "{}");
  /// Sends a request to every open connection; what the client answers is in received().
  void ask(const std::string& id, const std::string& method, const std::string& params = "{}");

  /// Sends a text as it is to every open connection.
  void deliver(const std::string& message);

  /// Messages received so far, in order, as text.
  std::vector<std::string> received() const;
  /// Those whose method is `method`.
  std::vector<std::string> received(const std::string& method) const;
  int connections() const;

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
  bool ok() const;         ///< a result, not an error
  int error_code() const;  ///< 0 when ok
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
  std::string version_;
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
  /// A target whose upstream is `fake`. Returns its id.
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
