// ClientCall: one JSON-RPC request of a client while it is answered: its answer's way back, the messages that
// may precede it, its cancellation, and what the audit log will say of it.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "gateway/client_reply.hpp"
#include "gateway/session.hpp"
#include "gateway/tasks.hpp"
#include "observability/trace.hpp"

namespace mcpgw::detail {

class ClientCall : public CallObserver, public std::enable_shared_from_this<ClientCall> {
 public:
  ClientCall(std::shared_ptr<GatewayCore> c, std::shared_ptr<Session> s, Principal p)
      : core(std::move(c)),
        session(std::move(s)),
        principal(std::move(p)),
        handle(std::make_shared<CallHandle>()) {}

  const std::shared_ptr<GatewayCore> core;
  const std::shared_ptr<Session> session;
  const Principal principal;
  const std::shared_ptr<CallHandle> handle;

  // Set before it runs.
  std::string body;     ///< keeps the views alive
  HttpHeaders headers;  ///< of the client's request; those that a target lists are passed on
  std::string id;       ///< raw JSON
  std::string method;
  std::string_view params;     ///< raw, may be empty
  bool may_have_meta = true;   ///< params may have a member _meta
  std::string progress_token;  ///< raw; empty: none asked for
  std::shared_ptr<Reply> reply;
  std::size_t place = 0;  ///< among the requests of its batch
  std::string request_id;
  std::shared_ptr<RequestTrace> trace;  ///< null: there is none
  AuditRecord audit;
  RequestIds ids() const { return {request_id, trace ? trace->trace_id() : std::string()}; }
  Duration started{};
  bool as_task = false;  ///< a tools/call that asks for a task (2025-11-25, basic/utilities/tasks)
  TaskRef task;          ///< that it asks about, or made
  /// Target of the running upstream request, for messages that come with it.
  std::shared_ptr<UpstreamConnection> connection;

  /// Sends the answer. The first one counts.
  void answer(std::string text);
  /// How long the server has, where the call does not see to that itself. Before a try upstream begins.
  virtual std::chrono::milliseconds begin_limit(std::chrono::milliseconds timeout,
                                                std::chrono::milliseconds /*in_all*/) {
    return timeout;
  }
  /// The try has ended: whether that was for want of time.
  virtual bool end_limit() { return false; }
  /// Ends the work and answers the client at once, wherever the call waits. From any thread.
  void give_up(std::string reason);
  /// The answer to a call that the gateway ends of its own accord.
  std::string ended() const;

  /// What a server sends while it works on this call goes to this client.
  void on_server_message(ServerMessage message) override;
  const void* client() const override { return session.get(); }
  bool on_log(LogLevel level, const std::string& text) override;

 private:
  std::atomic<bool> answered_{false};
};

}  // namespace mcpgw::detail
