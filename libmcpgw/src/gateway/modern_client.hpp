// Clients of revision 2026-07-28 as the gateway knows them. They have no sessions: what is kept here belongs
// to a user and a set of client capabilities, serves all their requests, and goes when it has been idle.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "gateway/modern_call.hpp"
#include "gateway/request_state.hpp"
#include "gateway/session.hpp"

namespace mcpgw::detail {

/// This gateway as a raw Implementation object.
const std::string& gateway_info();

/// A resource that a listener wants to hear about.
struct ListenItem {
  std::string target_id;
  std::string original;  ///< URI as the target knows it
  std::string exported;  ///< as the client asked for it
};

/// An open subscriptions/listen. Safe from any thread.
class ModernListen {
 public:
  ModernListen(std::string id, Principal who) : id_(std::move(id)), principal_(std::move(who)) {}

  // Set before it is shared.
  bool tools = false, prompts = false, resources = false;
  std::vector<ListenItem> items;

  const Principal& principal() const noexcept { return principal_; }
  bool wants(ListKind kind) const;
  /// Begins to write to `stream`: first the acknowledgement (basic/patterns/subscriptions), whose params
  /// these are, then what was sent meanwhile.
  void open(std::shared_ptr<ResponseStream> stream, std::string_view acknowledged);
  /// A notification with the subscription's id in _meta. Before open() one and the same waits once.
  void send(std::string_view method, std::string_view params);
  /// False when the client has gone.
  bool keep_alive();
  /// The answer to the request, which says that this is the end, and the end.
  void finish() { end(true); }
  void close() { end(false); }
  /// Whether the client's own view of a list has news since this was last asked; the first time there is
  /// none.
  bool changed(ListKind kind, ListView now);

 private:
  std::string notification(std::string_view method, std::string_view params) const;
  void end(bool answered);

  const std::string id_;  ///< raw JSON
  const Principal principal_;
  std::mutex mutex_;  // guards what follows
  std::shared_ptr<ResponseStream> stream_;
  std::string early_;  ///< events until it is open
  bool ended_ = false;
  std::array<std::optional<ListView>, kListKinds> seen_;
};

/// The upstream side of a user's requests with one set of capabilities. Safe from any thread.
class ModernClient final : public Session {
 public:
  /// `capabilities` as of legacy_capabilities().
  ModernClient(std::shared_ptr<GatewayCore> core, const Principal& principal,
               const std::string& capabilities);

  void on_connection_message(const std::shared_ptr<UpstreamConnection>& connection,
                             const ServerMessage& message) override;

  bool waits_for_targets() const override;

  /// Asks a server for log lines of this severity: what the most curious request so far wanted.
  Task<void> want_level(std::shared_ptr<UpstreamConnection> connection, int severity);

  /// Tells the target, unless another listener has done so. False when it refuses.
  Task<bool> subscribe(Principal principal, std::shared_ptr<const Target> target, ListenItem item,
                       SteadyTime deadline);
  void unsubscribe(const ListenItem& item);

  /// False when there are too many.
  bool add(const std::shared_ptr<ModernListen>& listen);
  /// The client has gone, or the stream was closed.
  void remove(const ModernListen* listen);
  std::vector<std::shared_ptr<ModernListen>> listens() const;
  /// Tells listeners whose view of a list has changed.
  void announce();

 private:
  UpstreamCall subscription_call(const char* method, const std::string& uri) const;

  const std::shared_ptr<GatewayCore> owner_;
  mutable std::mutex listen_mutex_;  // guards what follows
  std::vector<std::shared_ptr<ModernListen>> listens_;
  std::map<std::string, std::pair<ListenItem, std::size_t>> subscriptions_;  // by exported URI: for how many
  int severity_ = -1;  ///< of the log lines that are asked for
};

/// All of them in this process. Safe from any thread.
class ModernClients {
 public:
  static Result<std::shared_ptr<ModernClients>> create(std::weak_ptr<GatewayCore> core);

  /// Made when there is none; nullptr when the user has too many busy ones.
  std::shared_ptr<ModernClient> get(const Principal& principal, std::string_view capabilities);
  /// One that serves a single call: for targets that keep state between calls.
  std::shared_ptr<ModernClient> single(const Principal& principal, std::string_view capabilities) const;

  const RequestStates& states() const noexcept { return *states_; }
  const std::string& replica() const noexcept { return replica_; }

  /// False when the user has too many calls running.
  bool begin(const std::shared_ptr<ModernCall>& call);
  void end(const ModernCall& call);
  /// The only running call of a client to a target; nullptr when there is none or more than one.
  std::shared_ptr<ModernCall> only_call(const ModernClient& client, const std::string& target_id) const;

  /// Keeps a call that waits for input. False when too many do.
  bool park(const std::shared_ptr<ModernCall>& call);
  void unpark(const ModernCall& call);
  std::shared_ptr<ModernCall> parked(const std::string& id) const;
  std::size_t parked_count() const;

  std::size_t streams_of(const std::string& user_id) const;
  std::size_t streams() const;

  void refresh_keys(std::string in_force) { states_->refresh(std::move(in_force)); }
  /// Ends streams and calls of identities that were revoked or are no longer what they were.
  void check_identities();
  void announce();
  void sweep(SteadyTime now);
  void keep_alive();
  /// Listeners are told that this is the end: they would keep the gateway from draining.
  void end_listens();
  void close_all();

  static constexpr std::size_t kMaxSetsPerUser = 16;
  static constexpr std::size_t kMaxRunningPerUser = 1000;
  static constexpr std::size_t kMaxParked = 1000;
  static constexpr std::size_t kMaxParkedPerUser = 50;

 private:
  ModernClients(std::weak_ptr<GatewayCore> core, std::shared_ptr<RequestStates> states, std::string replica)
      : core_(std::move(core)), states_(std::move(states)), replica_(std::move(replica)) {}
  std::vector<std::shared_ptr<ModernClient>> all() const;
  std::vector<std::shared_ptr<ModernCall>> running() const;

  const std::weak_ptr<GatewayCore> core_;
  const std::shared_ptr<RequestStates> states_;
  const std::string replica_;
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::pair<std::string, std::string>, std::shared_ptr<ModernClient>>
      clients_;  // user, capabilities
  std::unordered_map<const ModernCall*, std::weak_ptr<ModernCall>> running_;
  std::unordered_map<std::string, std::size_t> running_of_;  ///< by user id
  std::unordered_map<std::string, std::shared_ptr<ModernCall>> parked_;
  bool closed_ = false;
};

}  // namespace mcpgw::detail
