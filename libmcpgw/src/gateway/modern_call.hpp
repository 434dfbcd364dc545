// One JSON-RPC request of a client of revision 2026-07-28 while it is answered. Such a client takes no
// requests: when a server asks for input in the middle of a call, the client's request ends with that
// question
// ("input_required"), the call goes on waiting here, and the client's next request brings the answer.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "gateway/client_call.hpp"
#include "gateway/request_state.hpp"
#include "protocol/bridge.hpp"

namespace mcpgw::detail {

/// The HTTP answer of one modern POST: JSON, or an event stream once something precedes the answer. It stays
/// undecided for a while, since the status of an error is part of the answer. Safe from any thread.
class ModernReply final : public Reminded, public std::enable_shared_from_this<ModernReply> {
 public:
  ModernReply(Loop& loop, std::shared_ptr<Responder> responder, Accepts accepts);

  /// Becomes a stream by itself when nothing has been sent for long, and is kept alive from then on.
  void watch();
  /// Sends a message before the answer; false when the client takes no streams or has gone.
  bool emit(const std::string& message);
  void finish(int status, const std::string& message);
  void on_disconnect(std::function<void()> callback) { responder_->on_disconnect(std::move(callback)); }

 private:
  bool start_locked();
  /// Nothing has been sent for a while.
  void on_reminder() override;

  Loop& loop_;
  const std::shared_ptr<Responder> responder_;
  const Accepts accepts_;
  std::mutex mutex_;  // guards what follows
  std::shared_ptr<ResponseStream> stream_;
  bool done_ = false;
  std::optional<Reminders::Ticket> reminder_;  ///< of the loop
};

/// One HTTP request of a call: the first one, and each one that brings input.
struct ModernRound {
  std::string id;  ///< raw JSON
  std::string method;
  std::string body;  ///< for the audit log
  std::string capabilities;
  std::string progress_token;  ///< raw; empty: none asked for
  int log_severity = -1;       ///< least severe log line that is wanted; -1: none
  Principal principal;
  AuditRecord row;
  Duration started{};
  std::shared_ptr<ModernReply> reply;
  std::string request_id;
  std::shared_ptr<RequestTrace> trace;  ///< null: there is none
};

/// The item that a call is about.
struct CallItem {
  std::string target_id;
  std::string target_name;
  std::string name;  ///< original name or URI
  ResourceType type = ResourceType::tool;
};

/// What a round ends with: a raw result, or a raw error object.
struct ModernOutcome {
  bool is_error = false;
  std::string payload;
  // For the audit row.
  int status = 200;
  std::string error_code;
};

class ModernCall final : public ClientCall {
 public:
  /// Writes the audit row of a round and answers it.
  using Deliver = std::function<void(std::shared_ptr<ModernRound>, ModernOutcome,
                                     std::shared_ptr<UpstreamConnection> connection)>;

  /// Lives on the loop it is made on. `upstream_params` is what a legacy upstream may get.
  ModernCall(std::shared_ptr<GatewayCore> c, std::shared_ptr<Session> s, Principal p, std::string method_name,
             std::string upstream_params, bool may_ask, Deliver deliver);

  /// The first round. Before it runs. `number` is that of the last one when the call begins anew.
  void begin(std::shared_ptr<ModernRound> round, std::int64_t number = 0);
  /// dispatch() has ended with this message: whoever waits is answered, else it is kept for the next round.
  void complete(const std::string& message);
  /// A further round. Answers it at once when there is something to say, else when the server has.
  /// `number` is what its requestState says; nullopt, or why it is refused.
  std::optional<ModernOutcome> resume(const std::shared_ptr<ModernRound>& round, std::int64_t number,
                                      std::string_view responses);

  /// The client of this round has gone.
  void gone(const ModernRound* round);
  /// Ends the call wherever it waits, and answers whoever waits for it. From any thread.
  void end(std::string reason);
  /// Nobody came back with the input.
  bool lapsed(std::int64_t now) const;

  /// Known once the name has been looked up.
  CallItem item() const;
  void set_item(CallItem item);
  /// Principal of the round that is waiting; nullopt while none is.
  std::optional<Principal> waiting() const;
  const std::string& parked_id() const noexcept { return parked_id_; }
  void on_server_message(ServerMessage message) override;
  /// The time limit is kept here: it stands still while the client is asked.
  std::chrono::milliseconds begin_limit(std::chrono::milliseconds timeout,
                                        std::chrono::milliseconds in_all) override;
  bool end_limit() override;
  /// A server's request that can only be this call's doing.
  void push(ServerMessage message, const std::shared_ptr<UpstreamConnection>& from);

  /// How long input is waited for, and how often one call may ask.
  static constexpr std::chrono::seconds kWait{300};
  static constexpr std::int64_t kMaxRounds = 32;
  static constexpr std::size_t kMaxAtOnce = 16;

 private:
  struct Push {
    InputRequest request;
    std::string upstream_id;
    std::shared_ptr<UpstreamConnection> from;
  };

  /// What is asked now, with the state that leads back here. Under the lock.
  ModernOutcome ask_locked();
  /// Ends the round with what has been asked. On the call's loop.
  void park();
  ModernOutcome translated(const std::string& message) const;
  /// What the call's audit row says of the item, for the row of a round. On the call's loop.
  void describe(AuditRecord& row) const;
  void refuse(const Push& push, const char* why) const;
  /// The outcome when a server wants its client to visit URLs first and have the call begin anew then: that
  /// question, or what the client lacks for it.
  std::optional<ModernOutcome> ask_to_visit(std::string_view error) const;
  RequestState state_of(std::string target_id) const;
  /// The limit stands still, or goes on.
  void hold_limit_locked();
  void release_limit_locked();
  /// Wakes up when the limit is reached. On the call's loop.
  void watch_limit(std::int64_t watched);

  Loop& home_;
  const std::string upstream_params_;
  const bool may_ask_;
  const Deliver deliver_;
  const std::string parked_id_;
  AuditRecord base_;                          // set before it runs
  std::shared_ptr<SteadyTimer> limit_timer_;  // of the call's loop

  mutable std::mutex mutex_;  // guards what follows
  std::shared_ptr<ModernRound> round_;
  std::string capabilities_;  ///< of the last round
  std::vector<Push> pushes_;
  bool gathering_ = false;
  bool done_ = false;
  std::optional<ModernOutcome> outcome_;
  std::string missing_;  ///< capabilities that a server asked for in vain
  CallItem item_;
  std::int64_t number_ = 0;
  std::int64_t next_key_ = 1;
  std::int64_t expires_ = 0;
  std::string late_progress_;  ///< params of the newest progress that came while nobody waited
  struct Limit {
    std::int64_t watched = 0;  ///< the try upstream it is of; 0: none runs
    std::chrono::milliseconds timeout{0};
    SteadyTime at{};
    SteadyTime::duration left{};  ///< while it stands still
    bool held = false;
    bool reached = false;
  } limit_;
  std::int64_t tries_ = 0;
};

}  // namespace mcpgw::detail
