#include "gateway/client_call.hpp"

#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr auto kSilence = std::chrono::milliseconds(250);
constexpr auto kKeepAlive = std::chrono::milliseconds(14000);

}  // namespace

PostReply::PostReply(Loop& loop, std::shared_ptr<Responder> responder, Accepts accepts, HttpHeaders headers)
    : loop_(loop), responder_(std::move(responder)), accepts_(accepts), headers_(std::move(headers)) {}

void PostReply::watch() {
  if (accepts_.sse) tick(kSilence);
}

void PostReply::tick(std::chrono::milliseconds delay) {
  auto timer = std::make_shared<SteadyTimer>(loop_.io(), delay);
  {
    const std::lock_guard lock(mutex_);
    if (done_) return;
    timer_ = timer;
  }
  timer->async_wait([weak = weak_from_this(), timer](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self) return;
    {
      const std::lock_guard lock(self->mutex_);
      if (self->done_) return;
      if (!self->stream_) {
        if (!self->start_locked()) return;
      } else if (!self->stream_->write(": keep-alive\n\n")) {
        return;
      }
    }
    self->tick(kKeepAlive);
  });
}

bool PostReply::start_locked() {
  HttpResponse head;
  head.headers = headers_;
  head.headers.emplace_back("Content-Type", "text/event-stream");
  head.headers.emplace_back("X-Accel-Buffering", "no");
  stream_ = responder_->start(std::move(head));
  return stream_ != nullptr;
}

bool PostReply::emit(const std::string& message) {
  const std::lock_guard lock(mutex_);
  if (done_ || !accepts_.sse) return false;
  if (!stream_ && !start_locked()) return false;
  return stream_->write(sse_event(message));
}

std::size_t PostReply::finish(int status, const std::string& message) {
  std::shared_ptr<SteadyTimer> timer;
  std::size_t bytes = message.size();
  {
    const std::lock_guard lock(mutex_);
    if (done_) return 0;
    done_ = true;
    timer = std::move(timer_);
    if (stream_ || !accepts_.json) {
      if (!stream_) start_locked();
      if (stream_) {
        stream_->write(sse_event(message));
        stream_->close();
      }
    } else {
      HttpResponse response;
      response.status = status;
      response.headers = std::move(headers_);
      response.headers.emplace_back("Content-Type", "application/json");
      response.body = message;
      responder_->send(std::move(response));
    }
  }
  if (timer) loop_.dispatch([timer] { timer->cancel(); });
  return bytes;
}

void ClientCall::give_up(std::string reason) {
  handle->cancel(std::move(reason));
  reply->finish(200, ended());
}

std::string ClientCall::ended() const {
  return make_error(id, rpc::kInternalError, "The call was ended by the gateway", R"({"code":"cancelled"})");
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
  const auto refuse = [&](const char* why) {
    std::string error = R"({"code":-32601,"message":)" + raw::quote(why) + "}";
    if (connection) connection->upstream().respond(message.id, "error", std::move(error));
  };
  if (message.method == "ping") {
    if (connection) connection->upstream().respond(message.id, "result", "{}");
    return;
  }
  if (!session->client_offers(message.method) || !connection) return refuse("The client does not offer this");
  connection->remember_elicitation(message.params, session);
  const std::string asked = session->ask(connection->upstream_ptr(), message.id, message.method);
  AuditRecord row = audit;
  row.method = message.method;
  row.decision = "allow";
  row.response_status = 200;
  row.request_body.clear();
  row.created_at = core->clock->now();
  row.target_name = connection->target().name;
  const std::string exported =
      core->pool->export_related_task(*connection, session->user_id(), message.params);
  if (!reply->emit(make_request(asked, message.method, exported))) {
    session->answer(asked, "error",
                    R"({"code":-32601,"message":"The client takes no requests on this call"})");
    row.response_status = 502;
    row.error_code = "unknown_method";
  }
  core->audit->add(std::move(row));
}

}  // namespace mcpgw::detail
