#include "gateway/client_call.hpp"

#include "gateway/observer.hpp"
#include "json/raw.hpp"
#include "protocol/bridge.hpp"

namespace mcpgw::detail {
void ClientCall::answer(std::string text) {
  if (reply && !answered_.exchange(true)) reply->answer(std::move(text), place);
}

void ClientCall::give_up(std::string reason) {
  handle->cancel(std::move(reason));
  answer(ended());
}

std::string ClientCall::ended() const {
  return make_error(id, rpc::kInternalError, "The call was ended by the gateway", R"({"code":"cancelled"})");
}

bool ClientCall::on_log(LogLevel level, const std::string& text) {
  if (!connection) return false;
  std::string masked = mask_secrets(text, connection->binding());
  if (level >= LogLevel::warn) core->pool->note(connection->target(), masked);
  core->log(level, "upstream", std::move(masked), {{"target", connection->target().name}}, ids());
  return true;
}

void ClientCall::on_server_message(ServerMessage message) {
  if (message.id.empty()) {
    if (message.method == "notifications/progress") {
      if (progress_token.empty()) return;
      reply->emit(make_notification(message.method,
                                    raw::with_member(message.params, "progressToken", progress_token)));
      return;
    }
    if (message.method == "notifications/message") {
      const int asked = log_severity(session->log_level());
      const auto level = raw::string_value(raw::find(message.params, "level"));
      if (asked >= 0 && level && log_severity(*level) < asked) return;
      reply->emit(make_notification(message.method, message.params));
      return;
    }
    // Anything else concerns all who use the connection rather than this call.
    if (connection) connection->deliver(message);
    return;
  }
  if (message.method == "ping") {
    if (connection) connection->upstream().respond(message.id, "result", "{}");
    return;
  }
  if (!connection || core->observer->refuses(*connection, message)) return;
  const bool offered = session->client_offers(message.method);
  if (!offered || !declares(session->client().capabilities, message.method, message.params)) {
    core->observer->server_request(audit, connection->target(), message, true);
    return connection->upstream().respond(message.id, "error", not_declared(offered));
  }
  connection->remember_elicitation(message.params, session);
  const std::string asked = session->ask(connection->upstream_ptr(), message.id, message.method);
  const std::string exported =
      core->pool->export_related_task(*connection, session->user_id(), message.params);
  const bool taken = reply->emit(make_request(asked, message.method, exported));
  core->observer->server_request(audit, connection->target(), message, !taken);
  if (!taken)
    session->answer(asked, "error",
                    R"({"code":-32601,"message":"The client takes no requests on this call"})");
}

}  // namespace mcpgw::detail
