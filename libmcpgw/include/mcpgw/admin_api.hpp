// AdminApi: the REST API under /api as a function HttpRequest -> HttpResponse.
//
// It needs no gateway: a host may serve it alone over a Repository. What concerns live traffic (sessions,
// instances, statistics) it asks of a LiveState, which a Gateway implements.
//
// Threads: safe from any thread. handle() blocks (storage, password hashing): call it from a worker.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/audit.hpp"
#include "mcpgw/authenticator.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/policy_engine.hpp"
#include "mcpgw/repository.hpp"
#include "mcpgw/resolvers.hpp"

namespace mcpgw {

/// What admins see of a target's live state.
struct TargetStatus {
  std::string state = "idle";  ///< "idle", "up", "degraded", "down", "disabled"
  std::optional<std::string> era;
  std::optional<std::string> protocol_version;
  /// How the newest connection is carried: "streamable-http", "sse", "stdio".
  std::optional<std::string> transport;
  std::optional<std::string> last_error;
  int instances = 0;
  std::optional<Time> since;
};

/// The outcome of POST /api/targets/{id}/test.
struct TargetTest {
  struct Step {
    std::string name;
    bool ok = false;
    std::int64_t duration_ms = 0;
    std::string detail;
  };
  bool ok = false;
  std::vector<Step> steps;
  std::string era;
  std::string protocol_version;
  std::string server_info;  ///< JSON object text; empty = unknown
  int tools = 0;
  int resources = 0;
  int prompts = 0;
};

/// Opens one WebSocket of its user within a short time.
struct SocketTicket {
  std::string text;  ///< secret
  Time expires_at{};
};

/// The live side of the gateway. Safe from any thread; functions may block unless they say otherwise.
class LiveState {
 public:
  virtual ~LiveState() = default;
  /// Closes all sessions of the user and their own instances; returns how many sessions. Fails, and closes
  /// none, when storage cannot be told.
  virtual Result<int> recycle(const std::string& user_id) = 0;
  /// Marks the target's instances as old; returns how many.
  virtual Result<int> restart_instances(const std::string& target_id) = 0;
  virtual TargetStatus target_status(const std::string& target_id) = 0;
  virtual Result<TargetTest> test_target(const Principal& principal, const std::string& target_id) = 0;
  /// JSON text of the snapshot; for admins everything, for others their own part.
  virtual std::string snapshot(const Principal& principal) = 0;
  /// resource_exhausted/"rate_limited", else the errors of Storage.
  virtual Result<SocketTicket> socket_ticket(const Principal& principal) = 0;
  /// Whether a row could be taken now: without one nothing is changed.
  virtual bool can_audit() { return true; }
  /// Queues an audit row. False: it had to be stored first (AuditOptions::sync), and could not be.
  virtual bool audit(AuditRecord record) = 0;
};

struct AdminApiOptions {
  std::shared_ptr<Repository> repository;        ///< required
  std::shared_ptr<Authenticator> authenticator;  ///< required
  std::shared_ptr<PolicyEngine> policy_engine;   ///< required
  std::shared_ptr<AuditSink> audit_sink;         ///< required
  LiveState* live = nullptr;                     ///< required; outlives the AdminApi
  std::size_t body_max = 1024 * 1024;
  std::size_t list_max = 10000;
  bool kubernetes_enabled = false;
  bool audit_bodies = true;  ///< record redacted request bodies
  std::size_t audit_body_max = 64 * 1024;
  /// Told why a request was answered 500. Called from the thread of handle().
  std::function<void(const std::string& request_id, const std::string& trace_id, const std::string& cause)>
      on_internal_error;
};

class AdminApi {
 public:
  explicit AdminApi(AdminApiOptions options);
  ~AdminApi();
  AdminApi(const AdminApi&) = delete;
  AdminApi& operator=(const AdminApi&) = delete;

  /// Answers one request below /api. `request_id` is echoed and put into errors. HEAD is answered as GET,
  /// body included: leaving it out is the HTTP server's part. Does not throw.
  HttpResponse handle(const HttpRequest& request, const std::string& request_id);

  /// What answering takes. A host runs those that hash a password (slow, and bounded in number), and those
  /// that wait for an upstream (for up to a minute; opening one needs threads too), on threads of their own.
  enum class Work { ordinary, hashes_password, waits_for_upstream };
  static Work work(std::string_view method, std::string_view path) noexcept;

  /// The template of the route at `path` ("/api/targets/{id}"), for logs and metrics; empty when there is
  /// none.
  static std::string route_template(std::string_view path);

  /// One line of the route table, for documentation and tests.
  struct RouteInfo {
    std::string method;
    std::string path;  ///< "/api/targets/{id}"
    std::string who;   ///< "public", "user", "admin"
  };
  static std::vector<RouteInfo> routes();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mcpgw
