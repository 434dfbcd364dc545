// Live connections to targets: which principal's calls may share one, when one is opened, and when it ends.
//
// A connection's key is made of the target, the boundary subject and every value that is put into it, so that
// two principals with different values never share one (docs/credentials.md, "Isolation").
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "gateway/catalog.hpp"
#include "gateway/circuit.hpp"
#include "gateway/concurrency.hpp"
#include "gateway/core.hpp"
#include "gateway/kept_upstream.hpp"
#include "gateway/tasks.hpp"
#include "mcpgw/admin_api.hpp"
#include "runtime/http_client.hpp"
#include "runtime/waiter.hpp"
#include "upstream/instances.hpp"
#include "upstream/upstream.hpp"

namespace mcpgw::detail {

class UpstreamConnection;

/// Reason of acquire(): what the binding was made of has changed while the connection was being opened.
inline constexpr const char* kSuperseded = "superseded";
/// How often a call may meet a change of its target or values before it is told.
inline constexpr int kMaxReopened = 5;

/// Who hears what a server sends outside calls: a client's session. Its functions are called from any thread,
/// and must not block.
class ConnectionListener {
 public:
  virtual ~ConnectionListener() = default;
  virtual void on_connection_message(const std::shared_ptr<UpstreamConnection>& connection,
                                     const ServerMessage& message) = 0;
  virtual void on_connection_lost(const std::shared_ptr<UpstreamConnection>& connection) = 0;
  /// Whoever kept the connection's session for later has gone. True: this one does it now.
  virtual bool on_connection_left(const std::shared_ptr<UpstreamConnection>& /*connection*/) { return false; }
  /// A target that failed can be tried anew: it is connected, or what it is connected with has changed.
  virtual void on_target_ready(const std::string& /*target_id*/) {}
  /// Whether a target that cannot be used now is worth trying for this listener while nobody calls it: its
  /// client is there, and may still use the target.
  virtual bool waits_for(const std::string& /*target_id*/) const { return false; }
};

/// Everything one principal's connection to one target is made with. Holds secrets.
struct Binding {
  std::string key;  ///< 64 hex digits
  std::shared_ptr<const Target> target;
  std::string user_id;  ///< of the principal it was resolved for
  /// Of a principal whom another issuer vouches for: they have no account here that could change.
  std::string external_role;
  std::vector<std::string> external_groups;
  bool external = false;
  std::string subject;     ///< boundary subject
  std::string session_id;  ///< stateful targets only
  /// Of a server that is started elsewhere (Kubernetes): those with equal keys share it.
  std::string instance_key;
  std::map<std::string, std::string> env;
  std::string credential;
  HttpTargetAccess access;  ///< HTTP targets
  ClientFacts client;
  std::chrono::milliseconds timeout{60000};
};

/// One initialised upstream connection. Safe from any thread.
class UpstreamConnection : public std::enable_shared_from_this<UpstreamConnection> {
 public:
  UpstreamConnection(std::shared_ptr<GatewayCore> core, std::shared_ptr<const Binding> binding);

  const Binding& binding() const noexcept { return *binding_; }
  const std::shared_ptr<const Binding>& binding_ptr() const noexcept { return binding_; }
  const Target& target() const noexcept { return *binding_->target; }
  Upstream& upstream() const noexcept { return *upstream_; }
  const std::shared_ptr<Upstream>& upstream_ptr() const noexcept { return upstream_; }
  /// Name of the instance it leads to, when there is one (upstream/instances.hpp).
  const std::string& instance() const noexcept { return instance_; }
  bool usable() const { return upstream_ && upstream_->alive() && !retired_.load(std::memory_order_seq_cst); }

  /// The items of one kind, all pages. Kept while the server announces changes, else for a short time;
  /// `fresh` asks again unless that was done a moment ago. Empty when the server does not offer the kind.
  Task<Result<std::shared_ptr<const Listing>>> listing(ListKind kind, SteadyTime deadline,
                                                       bool fresh = false);
  /// What is known now, without asking.
  std::shared_ptr<const Listing> known_listing(ListKind kind) const;
  /// What listing() would bring without asking the server. Null otherwise.
  std::shared_ptr<const Listing> current_listing(ListKind kind) const;

  void attach(const std::shared_ptr<ConnectionListener>& listener);
  /// Ends what was done for it: its subscriptions, its part in the log level.
  void detach(const ConnectionListener* listener);
  bool attached() const;
  /// One listener keeps the server's session for whoever opens it after this process, so that no two
  /// connections ever go on with one session. True: it is `listener`, now or already.
  bool claim(const std::shared_ptr<ConnectionListener>& listener);
  bool kept_by(const ConnectionListener* listener) const;
  /// As retire(), but the server's session stays: somebody else goes on with it.
  void leave(SteadyTime deadline);

  /// A call on behalf of `listener`. Subscriptions are counted: the server sees one for all listeners, and
  /// its end when the last one ends.
  Task<Result<UpstreamAnswer>> request(UpstreamCall call, const ConnectionListener* listener);
  /// The lowest level that `listener` wants to see, a name of RFC 5424; empty: no wish. The server is asked
  /// for the lowest one of all listeners.
  Task<void> want_log_level(const ConnectionListener* listener, std::string level);
  /// The same wishes on a new connection, in the background.
  void restore(const std::shared_ptr<ConnectionListener>& listener, std::string level,
               std::vector<std::string> uris);
  /// A message of the server that belongs to no call, wherever it came from.
  void deliver(const ServerMessage& message);
  /// `listener`'s client was sent to a URL: who learns that it is done there.
  void remember_elicitation(std::string_view params, const std::shared_ptr<ConnectionListener>& listener);
  /// Asks again for lists that failed, when their time has come. Called by the pool.
  void retry_lists(SteadyTime now);

  /// Counts a running call while it exists.
  class Use {
   public:
    explicit Use(std::shared_ptr<UpstreamConnection> connection);
    ~Use();
    Use(Use&&) = default;
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    std::shared_ptr<UpstreamConnection> connection_;
  };
  std::size_t in_flight() const noexcept { return in_flight_.load(std::memory_order_relaxed); }
  SteadyTime idle_since() const noexcept;
  SteadyTime created() const noexcept { return created_; }

  /// Retires when no call runs: now, or with the end of the last one.
  void retire_when_idle();
  /// Takes no new calls; ends when the running ones have ended, or at `deadline`.
  void retire(SteadyTime deadline);
  bool overdue(SteadyTime now) const;
  void close();

 private:
  friend class ConnectionPool;
  struct Cache {
    std::shared_ptr<const Listing> listing;
    std::shared_ptr<AsyncEvent> loading;
    std::optional<Error> error;
    std::uint64_t generation = 0;  ///< grows with each list_changed: a load begun before one is not kept
    int failures = 0;
    SteadyTime retry_at{};
  };
  /// One URI's subscription at the server.
  struct Subscription {
    std::set<const ConnectionListener*> holders;
    bool active = false;
    std::shared_ptr<AsyncEvent> busy;  ///< while it is being made or ended
  };

  /// Whether the message is about a task, whose client alone has got it then.
  bool deliver_to_task(const ServerMessage& message);
  UpstreamEvents events();
  void on_lost(const Error& error);
  Task<Result<std::shared_ptr<const Listing>>> load(ListKind kind);
  /// Starts a load when none runs; the lock is held.
  std::shared_ptr<AsyncEvent> start_loading_locked(ListKind kind);
  static Task<void> keep_loaded(std::shared_ptr<UpstreamConnection> self, ListKind kind,
                                std::shared_ptr<AsyncEvent> loaded);
  Task<Result<UpstreamAnswer>> subscribe(UpstreamCall call, std::string uri,
                                         const ConnectionListener* listener);
  Task<Result<UpstreamAnswer>> unsubscribe(UpstreamCall call, std::string uri,
                                           const ConnectionListener* listener);
  /// Idle time begins now.
  void touch() noexcept;
  void judge(CircuitBreaker::Pass& pass, CircuitBreaker::Outcome outcome);
  /// The level to ask for when it is another than was asked for last; the lock is held.
  std::optional<std::string> wanted_level_locked();
  UpstreamCall control_call(std::string method, std::string params) const;
  /// Runs on a loop of its own, when the connection still lives then.
  void spawn_control(UpstreamCall call);

  const std::shared_ptr<GatewayCore> core_;
  const std::shared_ptr<const Binding> binding_;
  const SteadyTime created_;
  std::string instance_;  // set once, before the connection is shared
  std::shared_ptr<const void> instance_held_;  // until the pool has a place for the connection, or to its end
  // Set once, before the connection is shared.
  std::shared_ptr<Upstream> upstream_;
  std::shared_ptr<CircuitBreaker> circuit_;  // of the place that it goes to; null: none

  std::atomic<bool> retired_{false};
  std::atomic<bool> left_{false};
  std::atomic<bool> outlived_{false};  // of retire_when_idle()
  std::atomic<std::size_t> in_flight_{0};
  std::atomic<std::int64_t> idle_since_;
  std::atomic<std::int64_t> close_at_{0};

  mutable std::mutex mutex_;  // guards what follows
  std::array<Cache, kListKinds> caches_;
  std::vector<std::weak_ptr<ConnectionListener>> listeners_;
  const ConnectionListener* keeper_ = nullptr;         ///< one of the listeners: of claim()
  std::map<std::string, Subscription> subscriptions_;  // by the server's URI
  std::map<const ConnectionListener*, int> levels_;    // severities that were asked for
  std::optional<int> level_;                           // what the server was told
  std::deque<std::pair<std::string, std::weak_ptr<ConnectionListener>>> elicitations_;  // by id, oldest first
};

/// Safe from any thread.
class ConnectionPool {
 public:
  explicit ConnectionPool(std::weak_ptr<GatewayCore> core);

  /// Resolves credential and environment. data_loss/"credential_unavailable".
  Result<std::shared_ptr<const Binding>> bind(const Principal& principal,
                                              const std::shared_ptr<const Target>& target,
                                              const ClientFacts& client, const std::string& session_id) const;

  /// The connection for a binding, opened when there is none. Errors: those of Upstream,
  /// "transport_disabled", "kubernetes_disabled", "instance_limit", kSuperseded. After a failure it is tried
  /// again in the background, with backoff, while `waiting` waits for targets, and that is told when it is
  /// there. When it must be opened, and the server still knows the session `kept`, that goes on.
  Task<Result<std::shared_ptr<UpstreamConnection>>> acquire(
      std::shared_ptr<const Binding> binding, SteadyTime deadline,
      std::shared_ptr<ConnectionListener> waiting = nullptr, std::shared_ptr<KeptUpstream> kept = nullptr);
  /// Ends a session at its server that no connection has gone on with. Does not wait.
  void end_session(const std::shared_ptr<const Binding>& binding, const KeptUpstream& kept);

  /// A connection of its own, which nobody else uses: it is opened now, whatever is known of the target, and
  /// what becomes of that is news about the target. To be retired by the caller.
  Task<Result<std::shared_ptr<UpstreamConnection>>> open_alone(std::shared_ptr<const Binding> binding,
                                                               SteadyTime deadline);
  /// What a circuit had kept waiting is tried at once.
  void circuit_closed(const std::string& target_id);

  /// After changes in storage: connections whose values are no longer the current ones are retired.
  void on_change(const RepositoryChange& change);
  /// Retires the target's connections; returns how many.
  int restart(const std::string& target_id);
  /// Retires the connections that belong to one user alone.
  void close_user(const std::string& user_id);
  /// What is done with instances now, and that one is not to be used any more: running calls end when they
  /// end, or with `cut` after upstream.drain.
  std::vector<InstanceUse> instance_uses() const;
  void retire_instance(const std::string& name, bool cut);
  /// A listener has gone: HTTP sessions nobody uses any more are closed.
  void released(const std::shared_ptr<UpstreamConnection>& connection);
  void forget(const std::shared_ptr<UpstreamConnection>& connection);
  /// Its server's session belongs to somebody else from now on.
  void leave(const std::shared_ptr<UpstreamConnection>& connection);
  /// It broke: those who had it may wait for another.
  void lost(const std::shared_ptr<UpstreamConnection>& connection, const Error& error,
            const std::vector<std::shared_ptr<ConnectionListener>>& listeners);
  /// Whether one of the target's lists could be read to its end. `fault` is told to admins.
  void report_list(const UpstreamConnection& connection, ListKind kind, std::optional<std::string> fault);
  /// Idle and overdue connections. Called about once a second.
  void sweep(SteadyTime now);
  void close_all();

  TaskTable& tasks() noexcept { return *tasks_; }
  /// Params of a server's message, with the related task's id as its user knows it.
  std::string export_related_task(const UpstreamConnection& connection, const std::string& user_id,
                                  std::string_view params) const;
  /// Of a target; the same one as long as the target exists.
  std::shared_ptr<ConcurrencyLimit> concurrency(const std::string& target_id);
  /// Processes that are this user's alone, those that are being started included (connection_process.cpp).
  std::size_t processes_of(const std::string& user_id) const;
  /// Ends that one of them which nobody has used for longest. False: all are in use.
  bool end_idle_process(const std::string& user_id);
  TargetStatus status(const Target& target) const;
  void report(const Target& target, const std::string& key, std::optional<Error> error, std::string detail,
              const ServerFacts* facts);
  void note(const Target& target, std::string detail);
  std::size_t size() const;

 private:
  struct Slot {
    std::shared_ptr<UpstreamConnection> connection;
    std::shared_ptr<AsyncEvent> opening;
    std::shared_ptr<const Binding> binding;
    std::optional<Error> error;
    int failures = 0;
    SteadyTime retry_at{};  ///< before it, a call does not try
    SteadyTime next_try{};  ///< when the background does
    std::vector<std::weak_ptr<ConnectionListener>> waiting;
    std::shared_ptr<KeptUpstream> kept;  ///< to go on with
  };
  using Waiting = std::vector<std::weak_ptr<ConnectionListener>>;
  struct Health {
    std::string state = "idle";
    std::optional<std::string> version;
    std::optional<std::string> last_error;
    std::string note;  ///< since the last attempt to connect ended
    std::optional<std::string> transport;
    std::set<std::string> list_faults;  ///< "<key>:<member>" of lists that could not be read
    Time since{};
  };

  static void wait(Slot& slot, const std::shared_ptr<ConnectionListener>& listener);
  static void tell(const Waiting& waiting, const std::string& target_id);
  Result<HttpUpstreamOptions> http_options(const GatewayCore& core, const Binding& binding);
  Task<Result<std::shared_ptr<Upstream>>> connect_http(std::shared_ptr<GatewayCore> core,
                                                       std::shared_ptr<const Binding> binding,
                                                       UpstreamEvents events, SteadyTime deadline,
                                                       std::shared_ptr<KeptUpstream> kept);
  Task<Result<std::shared_ptr<Upstream>>> connect_process(std::shared_ptr<GatewayCore> core,
                                                          std::shared_ptr<const Binding> binding,
                                                          UpstreamEvents events, SteadyTime deadline);
  Task<Result<std::shared_ptr<Upstream>>> connect_instance(std::shared_ptr<GatewayCore> core,
                                                           std::shared_ptr<const Binding> binding,
                                                           UpstreamConnection& connection,
                                                           std::shared_ptr<KeptUpstream> kept);
  Task<void> open(std::shared_ptr<GatewayCore> core, std::shared_ptr<const Binding> binding,
                  std::shared_ptr<AsyncEvent> opened, std::shared_ptr<KeptUpstream> kept);
  /// `forced`: an open circuit does not matter.
  Task<Result<std::shared_ptr<UpstreamConnection>>> connect(std::shared_ptr<GatewayCore> core,
                                                            std::shared_ptr<const Binding> binding,
                                                            SteadyTime deadline, bool forced,
                                                            std::shared_ptr<KeptUpstream> kept);
  std::shared_ptr<CircuitBreaker> circuit(const GatewayCore& core, const Binding& binding);
  /// Tries again what failed and is waited for.
  void retry_failed(GatewayCore& core, SteadyTime now);
  Result<std::shared_ptr<HttpClient>> http_client(const GatewayCore& core, const Target& target);
  /// Processes for which `counts` holds, those that are being started and those that still end their calls
  /// included, `besides` left out.
  struct Processes {
    std::size_t live = 0;
    std::shared_ptr<UpstreamConnection>
        idlest;  ///< the one that nobody has used for longest; null: none is idle
  };
  Processes processes_locked(const std::function<bool(const Binding&)>& counts,
                             const Binding* besides = nullptr) const;
  Status reserve_process(const GatewayCore& core, const Binding& binding);
  /// Whether a process of this user alone is one too many at all replicas.
  /// resource_exhausted/"instance_limit".
  Task<Status> room_at_all_replicas(std::shared_ptr<GatewayCore> core, std::string user_id);
  /// `instances`: names of those that the retired connections lead to.
  void retire(const std::function<bool(const Binding&)>& which, int* count = nullptr,
              std::vector<std::string>* instances = nullptr);
  /// After a change of a target or of values for it.
  void retire_outdated(const GatewayCore& core, const std::string& target_id);
  /// Whether the binding would be made otherwise now, for the same principal as storage knows it now.
  bool outdated(const GatewayCore& core, const Binding& binding) const;
  /// Whether the one user whose connection it is may use nothing of its target any more.
  static bool forbidden(const GatewayCore& core, const Binding& binding);

  const std::weak_ptr<GatewayCore> core_;
  const std::unique_ptr<TaskTable> tasks_;
  mutable std::mutex mutex_;  // guards what follows
  std::unordered_map<std::string, Slot> slots_;
  std::vector<std::shared_ptr<UpstreamConnection>> retired_;
  std::vector<std::weak_ptr<const Binding>> alone_;  // of open_alone(): gone when its connection is
  SteadyTime next_collection_{};
  std::map<std::string, Health> health_;                                                  // by target id
  std::map<std::string, std::pair<std::uint64_t, std::shared_ptr<HttpClient>>> clients_;  // by target id
  std::map<std::string, std::shared_ptr<ConcurrencyLimit>> limits_;                       // by target id
  struct Circuit {
    std::uint64_t version = 0;
    std::shared_ptr<CircuitBreaker> breaker;
  };
  std::map<std::pair<std::string, std::string>, Circuit> circuits_;  // by target id and origin
  std::map<std::string, std::pair<std::uint64_t, std::string>>
      older_;  // by target id: which version of it, at which URL, spoke HTTP+SSE
  std::map<std::string, std::pair<std::uint64_t, std::string>>
      legacy_;  // by target id: which version of it, at which URL, is known not to speak 2026-07-28
  bool closed_ = false;
};

/// `text` with every secret of the binding replaced.
std::string mask_secrets(std::string text, const Binding& binding);

}  // namespace mcpgw::detail
