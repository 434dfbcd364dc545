// Sessions of the legacy era (MCP 2025-11-25, basic/transports, "Session Management"): a client's handshake,
// what is running for it, what it was asked, and what it has seen.
#pragma once

#include <atomic>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "gateway/client_streams.hpp"
#include "gateway/connection_pool.hpp"
#include "gateway/core.hpp"
#include "mcpgw/http.hpp"
#include "protocol/message.hpp"

namespace mcpgw::detail {

class ClientCall;

/// Where a name of a client leads.
struct ItemRoute {
  std::shared_ptr<const Target> target;
  std::string asked;     ///< name or URI as the client gave it
  std::string original;  ///< as the target knows it; empty when the target could not be asked
  bool prefixed = false;
};

/// What a client sees of one list: by target id, a digest of the items that it may see, under the names that
/// they have for it. Zero: none.
using SeenList = std::map<std::string, std::uint64_t>;

/// What a client would see of one list as far as that is known without asking, for as little memory as that
/// takes.
struct ListView {
  std::string targets;  ///< a record for each: which it is, and what of it is allowed, zero while not known
  std::uint64_t judged_from = 0, judged_to = 0;  ///< generations of the policies around the look

  /// Whether a client that has seen `before` or what came since may not know this. That more is known of a
  /// target than before is no change, unless policies have changed since.
  bool news_after(const ListView& before) const;
};

/// Digest of one target's items as a client sees them. In this process only.
class ListDigest {
 public:
  ListDigest(const Target& target, bool prefixed) : seed_((prefixed ? target.slug + ':' : std::string())) {}
  void add(const Item& item);
  std::uint64_t value() const noexcept { return value_; }

 private:
  std::string seed_;
  std::uint64_t value_ = 0;
};

/// Safe from any thread. What its client said in `initialize` never changes: another handshake makes another
/// Session.
class Session : public ConnectionListener, public std::enable_shared_from_this<Session> {
 public:
  /// `streams` may be those of a session whose place this one takes.
  Session(std::shared_ptr<GatewayCore> core, SessionRecord record, std::shared_ptr<ClientStreams> streams);
  ~Session() override;

  const std::string& id() const noexcept { return record_.id; }
  const std::string& user_id() const noexcept { return record_.user_id; }
  const std::string& version() const noexcept { return record_.protocol_version; }
  const std::string& client_name() const noexcept { return client_name_; }
  /// False as long as a client of HTTP+SSE has only opened its stream.
  bool initialized() const noexcept { return !record_.initialize_params.empty(); }
  const std::shared_ptr<ClientStreams>& streams() const noexcept { return streams_; }
  bool over_sse() const noexcept { return streams_->transport() == ClientTransport::http_sse; }
  /// What the client declared: capabilities.<name> is there.
  bool client_can(std::string_view capability) const;
  const ClientFacts& client() const noexcept { return client_; }

  void touch();
  /// By the gateway's clock.
  Duration last_active() const noexcept;
  Duration idle() const;
  /// What storage should learn now: activity that it does not know of (at most every eighth of the timeout,
  /// or whenever `any`), or a log level or subscription that was changed.
  std::optional<SessionRecord> save_due(bool any = false);
  /// A log level or subscription was changed since it was saved.
  bool changed() const;

  // --- targets -------------------------------------------------------------------------------------
  /// Reached targets by slug, and whether names carry a prefix. Kept until a policy or target changes.
  struct View {
    std::vector<std::shared_ptr<const Target>> targets;
    bool many = false;
    bool prefixed(const Target& target) const;
    bool always = false;
  };
  std::shared_ptr<const View> view(const Principal& principal);
  /// What connection() would bring, when it is open: then no coroutine is needed. Null otherwise.
  std::shared_ptr<UpstreamConnection> open_connection(const Principal& principal, const Target& target) const;
  /// The session's connection to a target for this principal, opened when needed.
  Task<Result<std::shared_ptr<UpstreamConnection>>> connection(const Principal& principal,
                                                               const std::shared_ptr<const Target>& target,
                                                               SteadyTime deadline);
  /// A list over that connection; over a new one when it was retired meanwhile.
  Task<Result<std::shared_ptr<const Listing>>> listing(const Principal& principal,
                                                       const std::shared_ptr<const Target>& target,
                                                       ListKind kind, SteadyTime deadline, bool fresh);
  /// Connections that are open now.
  std::vector<std::shared_ptr<UpstreamConnection>> connections() const;
  /// Drops a connection that turned out to be dead.
  void drop(const std::shared_ptr<UpstreamConnection>& connection);

  // --- requests of the client that are running -----------------------------------------------------
  enum class Begun { yes, duplicate, too_many, closed };
  /// The call is not kept alive by it.
  Begun begin(const std::shared_ptr<ClientCall>& call);
  void end(const std::string& raw_id);
  void cancel(const std::string& raw_id, std::string reason);
  std::size_t running() const;
  /// Cancels those whose token is no longer good.
  void cancel_revoked();

  // --- requests to the client ----------------------------------------------------------------------
  /// Whether the client declared that it takes requests of this method.
  bool client_offers(std::string_view method) const;
  /// Remembers whom an answer goes to; returns the id (raw JSON) for the client. The client need not answer
  /// ever: when too many are open, the oldest one's server is told that there will be no answer.
  std::string ask(std::weak_ptr<Upstream> upstream, std::string upstream_id, std::string method);
  /// Passes an answer of the client on. `member` is "result" or "error". Late and unknown ones are dropped.
  void answer(std::string_view raw_id, std::string_view member, std::string_view payload);

  // --- the client's stream -------------------------------------------------------------------------
  bool has_stream() const { return streams_->is_open(); }
  /// Who opened the stream.
  std::optional<Principal> stream_principal() const { return streams_->principal(); }
  /// Sends a message on the stream, or keeps it for the next one.
  void send(const std::string& message);
  void keep_alive();

  // --- log level, subscriptions --------------------------------------------------------------------
  std::string log_level() const;
  void set_log_level(std::string level);
  void subscribe(const std::string& exported_uri, bool on);
  bool subscribed(const std::string& exported_uri) const;
  /// The URI by which the client subscribed to a target's resource, if it did.
  std::optional<std::string> subscription(const Principal& principal, const Target& target,
                                          const std::string& uri, const Listing* resources);

  // --- the servers' sessions (session_targets.cpp) -------------------------------------------------
  /// Ends those that were kept for this session and that nothing has gone on with yet.
  void end_kept();
  /// Somebody else goes on with this session: close() leaves the servers' sessions to them.
  void leave();

  /// Ends everything. Idempotent. With `replaced` the client's streams stay: they are another Session's now.
  void close(bool replaced = false);
  bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }

  void on_connection_message(const std::shared_ptr<UpstreamConnection>& connection,
                             const ServerMessage& message) override;
  void on_connection_lost(const std::shared_ptr<UpstreamConnection>& connection) override;
  bool on_connection_left(const std::shared_ptr<UpstreamConnection>& connection) override;
  void on_target_ready(const std::string& target_id) override;
  bool waits_for(const std::string& target_id) const override;
  /// While its client listens, or was here a moment ago.
  virtual bool waits_for_targets() const;

  // --- what the client has seen (session_lists.cpp) ------------------------------------------------
  /// What was answered to the client just now.
  void remember_list(ListKind kind, SeenList seen);
  /// What a client would see of a list, as far as it is known now.
  ListView list_view(const Principal& principal, ListKind kind);
  /// The stream is open: who has listed nothing yet has seen what is there now.
  void watch_lists(const Principal& principal);
  /// Compares what the client has seen with what it would see after `delay`, which gathers what belongs
  /// together, and tells it what kinds of list have changed. Without an open stream: when one is opened.
  void check_lists(std::chrono::milliseconds delay = std::chrono::milliseconds(100));

 private:
  struct Bound {
    std::uint64_t generation = 0;
    std::string identity;  ///< role and groups it was resolved for
    std::shared_ptr<const Binding> binding;
    std::shared_ptr<UpstreamConnection> connection;
  };
  /// What is bound to the target, when it is still of these credentials, this identity and version. Null
  /// otherwise.
  const Bound* bound_locked(const Target& target, std::uint64_t generation,
                            const std::string& identity) const;
  struct Asked {
    std::weak_ptr<Upstream> upstream;
    std::string upstream_id;
    std::string method;
  };
  /// Whether it goes on after this process, or elsewhere.
  bool outlives() const { return !over_sse() && !client_.exact; }
  /// What was kept of the target's session, made with the same values.
  std::shared_ptr<KeptUpstream> kept(const std::string& target_id, const std::string& key) const;
  /// Puts into the record, or takes out of it, what it takes to go on with the connection's session. True:
  /// this session keeps it.
  bool keep(const std::shared_ptr<UpstreamConnection>& connection);
  /// Connects to a target again and looks what it has now.
  static Task<void> pursue(std::shared_ptr<Session> self, std::string target_id);
  /// What the client asked for on earlier connections to this target is asked for on a new one.
  void restore(const std::shared_ptr<UpstreamConnection>& connection, const Principal& principal);
  /// The user as storage knows it now; of another issuer's identities, as they opened the stream.
  std::optional<Principal> current_principal() const;
  struct Look;
  static Task<void> run_checks(std::weak_ptr<Session> weak, std::chrono::milliseconds delay);
  Task<void> compare_lists();
  static Task<void> look(std::shared_ptr<Session> self, Principal principal, std::shared_ptr<const View> view,
                         std::size_t at, SteadyTime deadline, std::shared_ptr<Look> into);

  const std::shared_ptr<GatewayCore> core_;
  const std::shared_ptr<ClientStreams> streams_;
  ClientFacts client_;                     // set once
  std::string client_name_;                // set once
  std::atomic<std::int64_t> last_active_;  ///< microseconds of the clock
  std::atomic<bool> closed_{false};
  std::atomic<bool> leaving_{false};

  mutable std::mutex mutex_;     // guards what follows
  SessionRecord record_;         // id, user_id and protocol_version never change
  std::int64_t saved_activity_;  ///< what storage knows
  std::shared_ptr<const View> view_;
  std::uint64_t view_generation_ = 0;
  std::string view_identity_;
  std::map<std::string, Bound> bound_;  // by target id
  /// Of the record as it was loaded, by target id, until the target is used.
  std::map<std::string, std::shared_ptr<KeptUpstream>> kept_;
  std::unordered_map<std::string, std::weak_ptr<ClientCall>> running_;
  std::map<std::int64_t, Asked> asked_;  // oldest first
  std::int64_t next_ask_;
  bool changed_ = false;  ///< since it was saved
  std::array<std::optional<SeenList>, kListKinds> seen_;
  std::array<std::uint64_t, kListKinds> seen_version_{};  ///< grows with each list that was answered
  bool checking_ = false, check_again_ = false;
};

/// All sessions of this process, and the way to those that another process made. Safe from any thread.
/// Live sessions by id and by user, for whoever holds the registry's lock.
class SessionTable {
 public:
  using Sessions = std::unordered_map<std::string, std::shared_ptr<Session>>;

  /// Nullptr when there is none.
  std::shared_ptr<Session> find(const std::string& id) const;
  const Sessions& of(const std::string& user_id) const;
  const Sessions& all() const { return by_id_; }
  /// False, and changes nothing, when the id is taken.
  bool insert(const std::shared_ptr<Session>& session);
  /// In place of the one of the same id and user.
  void replace(const std::shared_ptr<Session>& session);
  /// What was there; nullptr when nothing was.
  std::shared_ptr<Session> remove(const std::string& id);
  Sessions remove_all();

 private:
  Sessions by_id_;
  std::unordered_map<std::string, Sessions> by_user_;
};

class SessionRegistry {
 public:
  explicit SessionRegistry(std::weak_ptr<GatewayCore> core) : core_(std::move(core)) {}

  /// Makes and stores one. resource_exhausted/"rate_limited" when the user has too many busy ones.
  Task<Result<std::shared_ptr<Session>>> create(const Principal& principal, std::string version,
                                                std::string initialize_params);
  /// Makes one of a client of HTTP+SSE. It ends with its stream, so storage does not know it.
  Result<std::shared_ptr<Session>> create_over_sse(const Principal& principal);
  /// The client of HTTP+SSE has initialised it, maybe anew: what it had before ends. Nullptr when it is gone.
  std::shared_ptr<Session> initialize_over_sse(const std::shared_ptr<Session>& session, std::string version,
                                               std::string initialize_params);
  /// The live session, or one that storage knows; nullptr when there is none of this user and transport.
  Task<Result<std::shared_ptr<Session>>> find(const Principal& principal, const std::string& id,
                                              ClientTransport transport = ClientTransport::streamable_http);
  /// Writes what must survive the process: a changed log level or subscription.
  Task<void> save_changes(std::shared_ptr<Session> session);
  /// `event` is "deleted", "expired" or "recycled".
  void end(const std::shared_ptr<Session>& session, const char* event);
  /// The stream of a client of HTTP+SSE has ended.
  void end_over_sse(const std::string& id);
  /// Of this process and of storage. Fails, and ends none, when storage cannot be told.
  Result<int> recycle(const std::string& user_id);
  /// Whether it is open here.
  bool holds(const std::string& id) const;
  /// Whether it was ended here a moment ago.
  bool just_ended(const std::string& id) const;
  /// Another replica has taken it: its streams end, what runs may end here.
  void moved(const std::string& id);
  /// Storage no longer knows it: another replica has ended it.
  void ended_elsewhere(const std::string& id, const std::string& user_id);
  std::vector<std::shared_ptr<Session>> all() const;
  std::size_t count(const std::string* user_id = nullptr) const;
  /// For other replicas, about the user's session that would give way first (session_quota.cpp): how much
  /// rather than others; 0: there is none.
  std::int64_t idlest(const std::string& user_id) const;
  /// Ends it. False: there is none.
  bool end_idlest(const std::string& user_id);
  std::size_t streams() const;
  std::size_t streams_of(const std::string& user_id) const;
  /// Closes streams of identities that are no longer what they were, and ends calls of those that were
  /// revoked.
  void check_identities();
  void schedule_announcements();
  void sweep(SteadyTime now);
  void keep_alive();
  /// Closes all, and keeps what storage knows of them.
  void close_all();

 private:
  /// Makes room for one more of the user, and holds the place until it is given back.
  Status reserve(const GatewayCore& core, const std::string& user_id);
  void unreserve_locked(const std::string& user_id);
  bool expired(const GatewayCore& core, const Session& session) const;
  std::shared_ptr<Session> idlest_of(const std::string& user_id) const;
  std::size_t not_ended(const std::vector<std::string>& ids) const;
  /// Whether the one that was stored just now is one too many of the user at all replicas; another gives way
  /// then. resource_exhausted/"rate_limited"; the errors of storage.
  Task<Status> room_at_all_replicas(std::shared_ptr<GatewayCore> core, std::string user_id);

  const std::weak_ptr<GatewayCore> core_;
  mutable std::mutex mutex_;  // guards what follows
  SessionTable sessions_;
  /// Ended a moment ago: storage may still hold them.
  std::unordered_map<std::string, SteadyTime> ended_;
  SteadyTime next_cleanup_{};  ///< of sweep() alone, which one coroutine calls
  bool announcing_ = false;
  std::multiset<std::string> making_;     ///< users whose sessions are being made
  std::multiset<std::string> recycling_;  ///< users whose sessions are being ended here
};

}  // namespace mcpgw::detail
