// Gateway: the MCP endpoint and everything behind it, without a socket.
//
//   auto storage = mcpgw::open_sqlite({"gateway.db"});
//   mcpgw::GatewayOptions options;
//   options.storage = storage->storage;
//   auto gateway = mcpgw::Gateway::create(std::move(options));
//   mcpgw::HttpResponse reply = (*gateway)->handle(request);
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/audit.hpp"
#include "mcpgw/authenticator.hpp"
#include "mcpgw/clock.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/policy_engine.hpp"
#include "mcpgw/random.hpp"
#include "mcpgw/repository.hpp"
#include "mcpgw/resolvers.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/runtime.hpp"
#include "mcpgw/storage.hpp"
#include "mcpgw/upstream.hpp"

namespace mcpgw {

enum class LogLevel { trace, debug, info, warn, error, off };

/// One structured log line. Never holds a secret.
struct LogEvent {
  LogLevel level = LogLevel::info;
  std::string module;   ///< "gateway", "upstream", "http", "audit", "telemetry", "access", "server"
  std::string message;
  std::vector<std::pair<std::string, std::string>> fields;
};
/// Called from any thread; must not block for long and must not throw.
using LogSink = std::function<void(const LogEvent&)>;

struct CorsOptions {
  std::vector<std::string> allowed_origins{"http://localhost:3001"};
  std::vector<std::string> allowed_headers;  ///< empty: the default list
  std::vector<std::string> expose_headers;   ///< empty: the default list
};

struct SessionOptions {
  std::chrono::seconds timeout{30 * 60};
  std::chrono::seconds cleanup_interval{5 * 60};
  std::size_t max_per_user = 100;
  std::size_t max_streams_per_user = 50;
  /// How long a call goes on whose client was cut off and could take up the call's stream again
  /// (Last-Event-ID); then it is cancelled.
  std::chrono::milliseconds resume_grace{5000};
};

struct LimitOptions {
  std::size_t api_body = 1024 * 1024;
  std::size_t mcp_body = 8 * 1024 * 1024;
  std::size_t upstream_bytes = 32 * 1024 * 1024;
  std::size_t json_depth = 128;
  std::size_t list_max = 10000;
  std::size_t max_in_flight = 256;
  std::chrono::milliseconds api_timeout{60000};
};

struct UpstreamOptions {
  bool allow_private = false;   ///< connect to loopback, private and link-local addresses
  bool allow_metadata = false;  ///< cloud metadata addresses
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds list_timeout{10000};
  std::chrono::milliseconds max_timeout{3600000};
  std::chrono::milliseconds drain{30000};
  std::string ca;  ///< PEM file for HTTPS targets; empty: the system's
  /// "http://[user:password@]host:port": HTTP targets are reached through it (CONNECT), whatever their scheme.
  /// Its own address may be a private one. Empty: directly. Holds a secret when it has a password.
  std::string proxy;
  /// What is reached without it: names ("example.com" and all below it), addresses, networks ("10.0.0.0/8"),
  /// each with an optional ":port", or "*".
  std::vector<std::string> no_proxy;
  /// Names are resolved by the proxy, which then alone decides which addresses may be reached. Otherwise they
  /// are resolved here, and the proxy is asked for the address that was checked.
  bool proxy_resolves = false;
  /// So many failures of an HTTP target in a row, and its calls fail at once for `circuit_pause`; then one is
  /// let through, and while that fails too the pause doubles, up to 30 s. 0: never.
  int circuit_failures = 5;
  std::chrono::milliseconds circuit_pause{1000};
};

/// Resource limits of a process, soft and hard; 0: those of the gateway.
struct StdioLimits {
  std::uint64_t memory = 0;      ///< bytes of address space
  std::chrono::seconds cpu_time{0};
  std::uint64_t open_files = 0;
  std::uint64_t processes = 0;  ///< of its user, all together
  std::uint64_t file_size = 0;  ///< bytes
};

struct StdioOptions {
  bool enabled = false;  ///< the bundled server sets it
  std::vector<std::string> allowed_commands;
  std::vector<std::string> inherit_env;
  std::string working_dir;
  /// "user" or "user:group", names or numbers: programs run as this one. Needs a gateway that runs as root, or
  /// as this user already.
  std::string run_as;
  StdioLimits limits;
  std::chrono::seconds idle_ttl{30 * 60};
  std::chrono::seconds max_lifetime{24 * 3600};
  std::chrono::seconds gc_interval{60};
  std::size_t max_processes = 100;
  std::size_t max_per_user = 20;
};

/// How the API of a Kubernetes cluster is reached. Holds secrets; certificates and keys are PEM texts.
struct KubernetesAccess {
  std::string server;       ///< "https://10.0.0.1:6443", a path is permitted
  std::string ca;           ///< empty: the system's authorities
  bool verify = true;
  std::string client_cert;
  std::string client_key;
  std::string token;
};
/// Reads the access as it is now: it is asked again about once a minute and after a 401, since tokens are
/// replaced while we run. Called on a worker thread; may block. Must be safe from any thread.
using ReadKubernetesAccess = std::function<Result<KubernetesAccess>()>;

/// Targets that run as pods (docs/kubernetes.md).
struct KubernetesOptions {
  bool enabled = false;
  std::string name_space = "mcpgw";  ///< of one gateway alone: its replicas, and nobody else's instances
  ReadKubernetesAccess access;       ///< null: what a pod finds in its own file system
  /// How a Service is reached: {service}, {namespace} and {port} are replaced. The endpoint is /mcp below it.
  std::string service_url = "http://{service}.{namespace}.svc:{port}";
  std::map<std::string, std::string> requests;  ///< resources of a pod; both empty: modest ones
  std::map<std::string, std::string> limits;
  std::chrono::seconds start_timeout{120};
  std::chrono::seconds idle_ttl{30 * 60};
  std::chrono::seconds max_lifetime{24 * 3600};
  std::chrono::seconds gc_interval{60};
  std::size_t max_instances = 100;
  std::size_t max_per_user = 20;  ///< of those that are one user's alone
};

/// Several gateways over one storage that answer for one another (docs/operations.md, "Replicas").
struct ReplicaOptions {
  /// How long the others wait for a sign of life before they take over what a replica had open. A sign is
  /// written three times in it.
  std::chrono::milliseconds lease{15000};
  /// How long a replica that works on a request of another may say nothing to it before it is given up. It
  /// shows five times in it that it is there. The same for all.
  std::chrono::milliseconds silence{15000};
};

enum class AuditBody { none, redacted, full };
struct AuditOptions {
  AuditBody body = AuditBody::redacted;
  std::size_t body_max = 64 * 1024;
  std::chrono::hours retention{2160};
  bool include_ping = false;
  bool sync = false;  ///< write before answering
  std::size_t queue_max = 10000;
  /// JSON lines beside the stored rows: a file, "stdout", "syslog", or "syslog:" and its socket; empty: none.
  std::string export_to;
  std::uint64_t export_max_bytes = 100 * 1024 * 1024;  ///< a file is moved to "<file>.1" before a batch over it
  unsigned export_keep = 5;                            ///< moved files
};

/// Traces: spans of what the gateway does, sent to a collector by OTLP over HTTP.
struct TelemetryOptions {
  bool enabled = false;
  std::string endpoint = "http://localhost:4318";  ///< without /v1/traces
  std::string service_name = "mcpgw";
  double sampling = 1.0;  ///< part of the traces that begin here; others are recorded when their caller does
  std::string ca;         ///< PEM file; empty: the system's authorities
};

/// The secrets of a gateway, read anew (GatewayOptions::reload_keys).
struct GatewayKeys {
  std::string jwt_secret;
  std::vector<std::string> previous_jwt_secrets;
  EncryptionKeys encryption;
};

/// A file that the gateway serves besides its own paths, such as the page of a console. GET and HEAD, to everybody.
struct WebFile {
  std::string path;            ///< "/", "/assets/app.js"; the gateway's own paths come first
  std::string content_type;
  std::string_view bytes;      ///< must outlive the gateway, as must `gzip`
  std::string_view gzip;       ///< the same compressed; empty: never sent compressed
  bool immutable = false;      ///< other bytes would have another path: clients keep it for a year
  HttpHeaders headers;         ///< further ones: an HTML page needs a Content-Security-Policy
};

struct GatewayOptions {
  std::shared_ptr<Storage> storage;   ///< required
  /// While the storage does not answer, MCP requests of known users go on with what is in memory for this long;
  /// then they are refused (503).
  std::chrono::milliseconds storage_grace{60000};
  std::shared_ptr<AuditSink> audit_sink;  ///< null: in memory
  std::shared_ptr<Runtime> runtime;   ///< null: one of its own
  std::shared_ptr<Clock> clock;       ///< null: the system's
  std::shared_ptr<Random> random;     ///< null: the system's
  LogSink log;                        ///< null: silent
  /// Whether `log` would keep a line of that level and module: what it would not need not be made. Null: all.
  std::function<bool(LogLevel level, std::string_view module)> log_keeps;
  ConnectUpstream connect_upstream;   ///< null: only built-in transports

  std::string jwt_secret;             ///< at least 32 bytes; empty: made up, tokens end with the process
  std::vector<std::string> previous_jwt_secrets;
  std::string jwt_issuer = "mcpgw";
  std::string jwt_audience = "mcpgw";
  /// 32 bytes; empty: made up, but refused where the storage outlives the process (Storage::durable).
  EncryptionKeys encryption;
  /// Reads all secrets again: called when another process has announced new ones (Repository::announce_keys) or
  /// a stored value names a key that is not known. Nullopt: they cannot be read now, the old ones stay. Called
  /// from any thread. Null: they never change.
  std::function<std::optional<GatewayKeys>()> reload_keys;
  /// Further issuers of tokens, asked after our own (authenticator.hpp).
  std::vector<std::shared_ptr<TokenVerifier>> token_verifiers;

  bool registration_open = true;
  std::string setup_token;
  std::chrono::seconds login_ttl{24 * 3600};
  std::size_t password_min = 8;
  std::size_t max_tokens_per_user = 100;
  int login_failures_per_pair = 10;
  int login_failures_per_address = 100;
  int login_failures_per_account = 200;
  std::chrono::seconds rate_window{15 * 60};
  int registrations_per_address = 60;

  std::string public_url;             ///< URL that clients use; empty: unknown
  CorsOptions cors;
  std::vector<std::string> mcp_allowed_origins;
  bool always_prefix = false;
  SessionOptions session;
  LimitOptions limits;
  UpstreamOptions upstream;
  StdioOptions stdio;
  KubernetesOptions kubernetes;
  ReplicaOptions replicas;
  AuditOptions audit;
  bool docs_enabled = true;
  /// The Scalar API reference for /docs: dist/browser/standalone.js of the npm package @scalar/api-reference, as
  /// it is and gzip'd. Both must outlive the gateway. Empty: /docs is a plain page; only `docs_script_gzip`
  /// empty: the script is not sent compressed.
  std::string_view docs_script;
  std::string_view docs_script_gzip;
  std::vector<WebFile> web_files;
  bool metrics_enabled = true;
  std::string metrics_token;
  bool metrics_reflow_names = false;    ///< also the series that dashboards of Reflow Gateway ask for
  std::size_t metrics_max_tools = 500;  ///< tools with a series of their own; further ones are "other"
  TelemetryOptions telemetry;
};

/// Safe from any thread. Threads it starts: those of its own Runtime (unless one is given) and one that
/// writes audit rows; all are joined by close() or the destructor.
class Gateway : public RequestHandler, public std::enable_shared_from_this<Gateway> {
 public:
  static Result<std::shared_ptr<Gateway>> create(GatewayOptions options);
  ~Gateway() override;
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  /// Answers one request. Returns at once; the answer comes through the responder.
  void handle_async(HttpRequest request, std::shared_ptr<Responder> responder) override;

  /// The blocking face. A streamed answer is collected until its end or `deadline`; not from a loop thread.
  HttpResponse handle(HttpRequest request,
                      std::chrono::milliseconds deadline = std::chrono::milliseconds(120000));

  /// The port the server listens on, for the Origin rule (loopback origins are accepted with it), and
  /// whether it listens on loopback only. Called by HttpServer.
  void set_listen_address(int port, bool loopback_only);

  /// What other replicas send here: put it behind an HTTP server that they alone can reach (it answers nobody
  /// who does not have the encryption key), whose bound of a body is at least twice limits.mcp_body and whose
  /// write buffer twice limits.upstream_bytes. Valid as long as the gateway.
  std::shared_ptr<RequestHandler> replica_handler();
  /// From now on the replicas over the same storage know this one, and send requests of its sessions to that
  /// handler, which they reach at `address` (a URL without path). All replicas need the same encryption keys,
  /// and clocks that differ by less than 30 seconds. Once; writes to the storage.
  Status join_replicas(const std::string& address);

  /// Stops taking requests (503; /ready says so), lets running ones finish for at most `grace`, closes
  /// streams and upstreams, flushes the audit. Idempotent. Blocks; not from a loop thread.
  void close(std::chrono::milliseconds grace = std::chrono::milliseconds(30000));

  const std::shared_ptr<Repository>& repository() const noexcept;
  const std::shared_ptr<PolicyEngine>& policy_engine() const noexcept;
  const std::shared_ptr<Authenticator>& authenticator() const noexcept;
  const std::shared_ptr<AuditSink>& audit_sink() const noexcept;
  const std::shared_ptr<Runtime>& runtime() const noexcept;

  class Impl;

 private:
  explicit Gateway(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mcpgw
