// Sessions of the legacy era (MCP 2025-11-25, basic/transports, "Session Management"): a client's handshake,
// what is running for it, what it was asked, and its stream.
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

/// Safe from any thread.
class Session : public ConnectionListener, public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<GatewayCore> core, SessionRecord record);
  ~Session() override;

  const std::string& id() const noexcept { return record_.id; }
  const std::string& user_id() const noexcept { return record_.user_id; }
  const std::string& version() const noexcept { return record_.protocol_version; }
  const std::string& client_name() const noexcept { return client_name_; }
  /// What the client declared: capabilities.<name> is there.
  bool client_can(std::string_view capability) const;
  const ClientFacts& client() const noexcept { return client_; }
  SessionRecord record() const;

  void touch();
  SteadyTime last_active() const noexcept;
  /// Whether storage should learn of the activity now (at most every quarter of the timeout).
  bool save_due();

  // --- targets -------------------------------------------------------------------------------------
  /// Reached targets by slug, and whether names carry a prefix. Kept until a policy or target changes.
  struct View {
    std::vector<std::shared_ptr<const Target>> targets;
    bool many = false;
    bool prefixed(const Target& target) const;
    bool always = false;
  };
  std::shared_ptr<const View> view(const Principal& principal);
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
  /// False when a request with its id is running already, or too many are. The call is not kept alive by it.
  bool begin(const std::shared_ptr<ClientCall>& call);
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
  /// Replaces an open stream. `last_event_id` replays what was missed, as far as it is kept.
  void open_stream(std::shared_ptr<ResponseStream> stream, const Principal& principal,
                   std::string last_event_id);
  /// The client has gone.
  void stream_gone(const ResponseStream* stream);
  bool has_stream() const;
  std::optional<Principal> stream_principal() const;
  void close_stream();
  /// Sends a message on the stream, or keeps it for the next one.
  void send(std::string message);
  void keep_alive();

  // --- log level, subscriptions --------------------------------------------------------------------
  std::string log_level() const;
  void set_log_level(std::string level);
  void subscribe(const std::string& exported_uri, bool on);
  bool subscribed(const std::string& exported_uri) const;

  /// Ends everything. Idempotent.
  void close();
  bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }

  void on_connection_message(const std::shared_ptr<UpstreamConnection>& connection,
                             const ServerMessage& message) override;
  void on_connection_lost(const std::shared_ptr<UpstreamConnection>& connection) override;
  void on_target_ready(const std::string& target_id) override;
  /// While its client listens, or was here a moment ago.
  bool waits_for_targets() const override;
  /// Connects, in the background, to those targets that it is not connected to.
  void reopen_targets(const Principal& principal);

  /// Tells the client that lists of these kinds changed, if its own view did: at most once for what has
  /// happened since it last listed.
  void announce_changes();
  /// What the client has seen of a list: announce_changes compares with it.
  void remember_list(ListKind kind, std::string fingerprint);
  std::string fingerprint(const Principal& principal, ListKind kind);

 private:
  struct Bound {
    std::uint64_t generation = 0;
    std::string identity;  ///< role and groups it was resolved for
    std::shared_ptr<const Binding> binding;
    std::shared_ptr<UpstreamConnection> connection;
  };
  struct Asked {
    std::weak_ptr<Upstream> upstream;
    std::string upstream_id;
    std::string method;
  };
  struct Event {
    std::uint64_t number;
    std::string text;
  };

  void send_locked(std::string message);
  /// Connects to a target again and looks what it has now.
  static Task<void> pursue(std::shared_ptr<Session> self, std::string target_id);
  /// What the client asked for on earlier connections to this target is asked for on a new one.
  void restore(const std::shared_ptr<UpstreamConnection>& connection, const Principal& principal);

  const std::shared_ptr<GatewayCore> core_;
  ClientFacts client_;       // set once
  std::string client_name_;  // set once
  std::atomic<std::int64_t> last_active_;
  std::atomic<bool> closed_{false};

  mutable std::mutex mutex_;  // guards what follows
  SessionRecord record_;      // id, user_id and protocol_version never change
  std::int64_t last_saved_;
  std::shared_ptr<const View> view_;
  std::uint64_t view_generation_ = 0;
  std::string view_identity_;
  std::map<std::string, Bound> bound_;  // by target id
  std::unordered_map<std::string, std::weak_ptr<ClientCall>> running_;
  std::map<std::int64_t, Asked> asked_;  // oldest first
  std::int64_t next_ask_ = 1;
  std::shared_ptr<ResponseStream> stream_;
  std::optional<Principal> stream_principal_;
  std::deque<Event> events_;
  std::size_t event_bytes_ = 0;
  std::uint64_t next_event_ = 1;
  std::uint64_t delivered_ = 0;  ///< number of the last event that was written to a stream
  std::array<std::optional<std::string>, kListKinds> listed_;
};

/// All sessions of this process, and the way to those that another process made. Safe from any thread.
class SessionRegistry {
 public:
  explicit SessionRegistry(std::weak_ptr<GatewayCore> core) : core_(std::move(core)) {}

  /// Makes and stores one. resource_exhausted/"rate_limited" when the user has too many busy ones.
  Task<Result<std::shared_ptr<Session>>> create(const Principal& principal, std::string version,
                                                std::string initialize_params);
  /// The live session, or one that storage knows; nullptr when there is none of this user.
  Task<Result<std::shared_ptr<Session>>> find(const Principal& principal, const std::string& id);
  /// `event` is "deleted", "expired" or "recycled".
  void end(const std::shared_ptr<Session>& session, const char* event);
  /// Of this process and of storage. Fails, and ends none, when storage cannot be told.
  Result<int> recycle(const std::string& user_id);
  /// Storage no longer knows it: another replica has ended it.
  void ended_elsewhere(const std::string& id, const std::string& user_id);
  std::vector<std::shared_ptr<Session>> all() const;
  std::size_t count(const std::string* user_id = nullptr) const;
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
  const std::weak_ptr<GatewayCore> core_;
  mutable std::mutex mutex_;  // guards what follows
  std::unordered_map<std::string, std::shared_ptr<Session>> sessions_;
  /// Ended a moment ago: storage may still hold them.
  std::unordered_map<std::string, SteadyTime> ended_;
  SteadyTime next_cleanup_{};  ///< of sweep() alone, which one coroutine calls
  bool announcing_ = false;
  std::multiset<std::string> recycling_;  ///< users whose sessions are being ended here
};

}  // namespace mcpgw::detail
