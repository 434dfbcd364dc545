// Several gateways over one storage, behind a load balancer that knows nothing of sessions. A session is open
// in one of them, its owner, which storage knows; whoever gets a request of it hands the request to the owner
// and passes on what the owner answers. So all that belongs to a session (its streams and their events,
// running calls, questions of servers, processes) is in one place, wherever its client's requests arrive.
// When the owner is gone, whoever notices becomes the owner. See docs/operations.md, "Replicas".
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "gateway/core.hpp"
#include "gateway/mcp_endpoint.hpp"
#include "gateway/replica_counts.hpp"
#include "gateway/replica_peers.hpp"
#include "gateway/replica_places.hpp"
#include "gateway/replica_wire.hpp"
#include "runtime/http_client.hpp"

namespace mcpgw::detail {

/// Safe from any thread. Until join() it is off, and costs nothing.
class Replicas : public std::enable_shared_from_this<Replicas> {
 public:
  static Result<std::shared_ptr<Replicas>> create(const std::shared_ptr<GatewayCore>& core);
  ~Replicas();

  const std::string& id() const noexcept { return id_; }
  bool on() const noexcept { return on_.load(std::memory_order_acquire); }
  /// Of new sessions: empty while nobody else could reach them.
  std::string owner() const { return on() ? id_ : std::string(); }
  std::string id_suffix() const { return on() ? '.' + id_ : std::string(); }

  /// Blocks; from a worker or the embedder's thread.
  Status join(const std::string& address);
  /// The others take over what is asked for from now on. Blocks.
  void leave();
  /// Ends what is handed over to others, and everything else that runs.
  void stop();
  void refresh_keys(std::string in_force) const { seal_.refresh(std::move(in_force)); }

  /// Hands a request of a client to the replica that it belongs to; the responder is then used. False: it is
  /// to be answered here.
  Task<bool> forwarded(const HttpRequest& request, const std::shared_ptr<Responder>& responder,
                       const RequestMeta& meta);

  /// Has it done by all others that live, and waits for them; the sum of their answers. Blocks; not from a
  /// loop. An order is carried out in memory: whoever has not done so by then is gone, with what it ran.
  int order_all(const std::string& what, const std::string& argument,
                std::chrono::milliseconds wait = std::chrono::seconds(10));
  /// A number that another replica has answered with.
  struct Answer {
    std::string id, address;
    std::int64_t value;
  };
  /// What all others that live say to a question, of those that know it and answer soon. Awaited on a loop.
  Task<std::vector<Answer>> ask_all(std::string what, std::string argument);
  /// One of them.
  Task<std::optional<std::int64_t>> ask(std::string id, std::string address, std::string what,
                                        std::string argument);
  /// What it does with the order is told to the responder, which may be left unused.
  Task<void> order(std::string id, std::string address, std::string what, std::string argument,
                   std::shared_ptr<Responder> responder);
  /// Ids and addresses of the others that live.
  std::vector<std::pair<std::string, std::string>> others() const { return peers_->others(id_); }

  ReplicaCounts& counts() { return *counts_; }
  ReplicaPlaces& places() { return *places_; }

  /// Whether the others may have thought for a while that this one is gone, and storage can say what became
  /// of its sessions: until it has, nothing is done for them.
  bool stale() const;
  /// Asks it when that is so; on a loop. False: it could not say.
  Task<bool> awake();

  /// For replica_accept.cpp.
  ReplicaSeal& seal() { return seal_; }

  static constexpr std::chrono::milliseconds kConnect{2000};
  /// Questions are answered from memory, and whoever asks has a client that waits.
  static constexpr std::chrono::milliseconds kAnswered{1000};

 private:
  Replicas(const std::shared_ptr<GatewayCore>& core, std::shared_ptr<KeyRing> ring, std::string id);

  /// What became of a request that was handed over.
  enum class Outcome {
    answered,
    absent,  ///< the other does not have it, or is not there: nothing was done
    lost,    ///< the other has gone while it worked; nothing was answered, and it may be asked for again
  };
  Task<Outcome> send(std::string owner, std::string address, const HttpRequest& request,
                     std::shared_ptr<Responder> responder);
  Task<Outcome> relay(HttpExchange& exchange, ReplicaFrames& frames, const HttpRequest& request,
                      const std::shared_ptr<Responder>& responder);
  Task<bool> session_forwarded(std::string session_id, bool over_sse, const HttpRequest& request,
                               const std::shared_ptr<Responder>& responder, const RequestMeta& meta);
  Task<bool> parked_forwarded(const HttpRequest& request, const std::shared_ptr<Responder>& responder,
                              const RequestMeta& meta);
  /// The owner as storage has it, who is this replica when `gone`, or nobody that lives, was it.
  /// Nullopt: there is no such session of this user, or storage cannot say.
  Task<std::optional<std::string>> find_owner(std::string session_id, std::string user_id, std::string gone);

  /// Empty: storage must say.
  std::string remembered(const std::string& session_id) const;
  void remember(const std::string& session_id, const std::string& owner);

  void on_storage_change(const std::vector<Change>& changes);
  static Task<void> heartbeat(std::weak_ptr<Replicas> weak);
  /// False: storage could not say what has become of the sessions of one that slept.
  bool beat();
  /// Reads anew who lives.
  void look();
  /// Lets go of sessions that others have taken: those that it was told of, or whichever of all are not its
  /// own any more. False: storage could not say.
  bool let_go(bool all);
  std::chrono::steady_clock::duration since_beat() const;

  const std::weak_ptr<GatewayCore> core_;
  const std::string id_;
  const std::chrono::milliseconds lease_;
  ReplicaSeal seal_;
  const std::shared_ptr<ReplicaPeers> peers_;
  const std::shared_ptr<ReplicaCounts> counts_;
  const std::shared_ptr<ReplicaPlaces> places_;
  std::shared_ptr<HttpClient> http_;  // set once by join()
  std::atomic<bool> on_{false};
  std::atomic<bool> left_{false};
  std::atomic<std::int64_t> beaten_{0};  ///< when the last beat that storage took began, in ticks
  std::atomic<bool> away_{false};        ///< storage did not take the last one
  std::atomic<bool> catching_up_{false};
  std::mutex beating_;       ///< one beat after the other; this and the next are held around storage's calls
  std::mutex letting_go_;    ///< taken after beating_
  std::uint64_t watch_ = 0;  // set once by join()

  mutable std::mutex mutex_;  // guards what follows
  ReplicaRecord record_;
  std::unordered_map<std::string, std::string> owners_;  ///< by session id
  std::set<std::shared_ptr<CancelSource>> running_;
  bool stopped_ = false;
  bool missed_ = false;  ///< changes of storage
};

/// Requests of this method are orders: what is to be done is the path, the body its argument.
inline constexpr const char* kOrderMethod = "ORDER";
/// Carries out what another replica has ordered. nullopt: that is not known here. May block.
std::optional<int> obey(const GatewayCore& core, const std::string& what, const std::string& argument);

/// What one replica serves to the others.
std::shared_ptr<RequestHandler> make_replica_handler(
    const std::shared_ptr<GatewayCore>& core,
    std::function<void(HttpRequest, std::shared_ptr<Responder>)> handle);

/// The session that a request names.
struct NamedSession {
  std::string id;  ///< empty: none
  bool over_sse = false;
};
NamedSession named_session(const HttpRequest& request);

}  // namespace mcpgw::detail
