#include "gateway/mcp_endpoint.hpp"

#include <algorithm>
#include <optional>
#include <variant>

#include "base/text.hpp"
#include "gateway/modern_endpoint.hpp"
#include "gateway/observer.hpp"
#include "gateway/replicas.hpp"
#include "json/raw.hpp"
#include "json/redact.hpp"
#include "mcpgw/version.hpp"
#include "observability/audit_bounds.hpp"
#include "runtime/poller.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// Messages of one batch.
constexpr std::size_t kMaxBatch = 100;
/// How long a request waits for room in the audit log.
constexpr auto kAdmission = std::chrono::seconds(5);

const char* begun_text(Session::Begun begun) {
  switch (begun) {
    case Session::Begun::duplicate:
      return "A request with this id is running already";
    case Session::Begun::too_many:
      return "Too many requests are running in this session";
    default:
      return "The session was closed";
  }
}

std::string code_data(std::string_view code) { return R"({"code":)" + raw::quote(code) + "}"; }

/// In the row of a message whose method could not be read.
constexpr std::string_view kUnreadMethod = "invalid";

/// With audit.sync nothing is answered that has no row.
constexpr std::string_view kUnrecorded = "The audit log cannot be written: nothing is answered";

HttpResponse unrecorded(std::string_view request_id) {
  return http_error(503, "storage_unavailable", kUnrecorded, request_id);
}

}  // namespace

std::string version_data(std::string_view requested) {
  std::string out = R"({"code":"unsupported_version","supported":[)";
  for (const std::string& version : supported_versions()) {
    if (out.back() != '[') out += ',';
    raw::append_quoted(out, version);
  }
  out += R"(],"requested":)" + raw::quote(requested) + "}";
  return out;
}

HttpResponse http_error(int status, std::string_view code, std::string_view message,
                        std::string_view request_id) {
  HttpResponse out;
  out.status = status;
  out.headers.emplace_back("Content-Type", "application/json");
  out.body = R"({"error":)" + raw::quote(message) + R"(,"code":)" + raw::quote(code) + R"(,"request_id":)" +
             raw::quote(request_id) + "}";
  return out;
}

HttpResponse too_many(std::string_view message, std::string_view request_id) {
  HttpResponse out = http_error(429, "rate_limited", message, request_id);
  out.headers.emplace_back("Retry-After", "5");
  return out;
}

AuditRecord McpEndpoint::audit_row(const RequestMeta& meta, const HttpRequest& request,
                                   const Session* session) const {
  AuditRecord row;
  if (!kObserved) return row;
  row.kind = "mcp";
  row.created_at = core_->clock->now();
  row.user_id = meta.principal.user_id;
  row.user_email = meta.principal.email;
  row.client_ip = request.remote_address;
  row.trace_id = meta.trace_id;
  row.bytes_in = static_cast<std::int64_t>(request.body.size());
  if (session != nullptr) {
    row.session_id = session->id();
    row.client_name = session->client_name();
  }
  return row;
}

void McpEndpoint::record(AuditRecord row, std::function<void(bool)> then) {
  if (!core_->audit->sync()) {
    core_->audit->add(std::move(row));
    return then(true);
  }
  Loop& loop = core_->runtime->impl().any_loop();
  loop.post([&loop, core = core_, row = std::move(row), then = std::move(then)]() mutable {
    loop.spawn([](std::shared_ptr<GatewayCore> held, AuditRecord one, auto done) -> Task<void> {
      done(co_await held->audit->write(std::move(one)));
    }(std::move(core), std::move(row), std::move(then)));
  });
}

void McpEndpoint::record_refusal(AuditRecord row, std::function<void(bool)> then) {
  if (core_->audit->admits()) return record(std::move(row), std::move(then));
  Loop& loop = core_->runtime->impl().any_loop();
  loop.post([&loop, core = core_, row = std::move(row), then = std::move(then)]() mutable {
    loop.spawn([](std::shared_ptr<GatewayCore> held, AuditRecord one, auto done) -> Task<void> {
      if (!co_await held->audit->admit(steady_clock::now() + kAdmission)) co_return done(false);
      done(co_await held->audit->write(std::move(one)));
    }(std::move(core), std::move(row), std::move(then)));
  });
}

void McpEndpoint::refuse(const std::shared_ptr<Responder>& responder, const RequestMeta& meta,
                         const HttpRequest& request, const Session* session, int status, int code,
                         std::string_view message, std::string_view id, const char* error_code,
                         std::string_view data, std::string_view method) {
  HttpResponse response;
  response.status = status;
  response.headers.emplace_back("Content-Type", "application/json");
  // Revisions before 2025-11-25 know no error without an id: there it is null.
  const bool may_omit = session == nullptr || session->version() >= "2025-11-25";
  response.body = make_error(id.empty() && !may_omit ? std::string_view("null") : id, code, message,
                             data.empty() ? code_data(error_code) : std::string(data));
  AuditRecord row = audit_row(meta, request, session);
  row.method = method.empty() ? kUnreadMethod : method;
  row.response_status = status;
  row.error_code = error_code;
  row.bytes_out = static_cast<std::int64_t>(response.body.size());
  // What could be read is JSON: only then can anybody tell what of it is a secret.
  if (!method.empty()) row.request_body = audited_body(request.body, row.method, nullptr);
  core_->observer->finished(row, Duration(0), meta.trace.get());
  record_refusal(std::move(row),
                 [responder, response = std::move(response), id = meta.request_id](bool stored) mutable {
                   responder->send(stored ? std::move(response) : unrecorded(id));
                 });
}

void McpEndpoint::reject(const std::shared_ptr<Responder>& responder, const RequestMeta& meta,
                         const HttpRequest& request, HttpResponse response, std::string_view code,
                         std::string_view method) {
  AuditRecord row = audit_row(meta, request, nullptr);
  row.method = method.empty() ? kUnreadMethod : method;
  row.response_status = response.status;
  row.error_code = code;
  row.bytes_out = static_cast<std::int64_t>(response.body.size());
  core_->observer->finished(row, Duration(0), meta.trace.get());
  record_refusal(std::move(row),
                 [responder, response = std::move(response), id = meta.request_id](bool stored) mutable {
                   responder->send(stored ? std::move(response) : unrecorded(id));
                 });
}

std::string McpEndpoint::audited_body(const std::string& body, const std::string& method,
                                      const UpstreamConnection* connection) const {
  const AuditOptions& audit = core_->options.audit;
  if (!kObserved || audit.body == AuditBody::none) return {};
  RedactRules rules;
  rules.by_name = audit.body == AuditBody::redacted;
  rules.max_bytes = audit.body_max;
  rules.method = method;
  if (connection != nullptr) {
    const Binding& binding = connection->binding();
    if (!binding.credential.empty()) rules.secrets.push_back(binding.credential);
    for (const auto& [key, value] : binding.env) rules.secrets.push_back(value);
  }
  return redact_body(body, rules);
}

Task<void> McpEndpoint::handle(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                               std::shared_ptr<const void> kept) {
  // What nearly every request is needs no coroutine around its own.
  if (request.method == "POST" && !core_->replicas->on())
    return post(std::move(request), std::move(responder), std::move(meta), std::move(kept));
  return route(std::move(request), std::move(responder), std::move(meta), std::move(kept));
}

Task<void> McpEndpoint::route(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                              std::shared_ptr<const void> kept) {
  if (core_->replicas->on() && !meta.forwarded) {
    const bool taken = co_await core_->replicas->forwarded(request, responder, meta);
    if (taken) co_return;
  }
  // g++ 12 lays the frame out in two ways when the calls stand in the co_await expressions.
  std::optional<Task<void>> work;
  if (request.path().starts_with("/sse"))
    work.emplace(open_sse(std::move(responder), meta));
  else if (request.method == "POST")
    work.emplace(post(std::move(request), std::move(responder), std::move(meta), std::move(kept)));
  else if (request.method == "GET")
    work.emplace(get(std::move(request), std::move(responder), std::move(meta)));
  else
    work.emplace(remove(std::move(request), std::move(responder), std::move(meta)));
  co_await *std::move(work);
}

Task<void> McpEndpoint::post(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                             [[maybe_unused]] std::shared_ptr<const void> kept) {
  if (Poller* poller = Poller::stepping()) co_await poller->next_step();
  std::string_view method;  // as far as it is known
  const auto respond = [&](int status, std::string_view code, std::string_view message) {
    reject(responder, meta, request, http_error(status, code, message, meta.request_id), code, method);
  };
  if (request.body.size() > core_->options.limits.mcp_body)
    co_return respond(413, "body_too_large", "The request body is too large");
  if (const std::string* type = request.header("Content-Type"); type != nullptr && !is_json_type(*type))
    co_return respond(415, "unsupported_media_type", "The request body must be application/json");
  // Of a client of HTTP+SSE, whose answers go over its stream whatever it accepts here.
  const auto sse_id = query_value(request.query(), "session_id");
  const Accepts accepts = read_accept(request.header("Accept"));
  if (!accepts.json && !accepts.sse && !sse_id)
    co_return respond(406, "not_acceptable", "Accept must admit application/json or text/event-stream");

  const auto invalid = [&](const Session* session, int code, std::string_view message, std::string_view id) {
    refuse(responder, meta, request, session, 400, code, message, id, "invalid_request", {}, method);
  };
  const raw::Fault fault = raw::check(request.body, core_->options.limits.json_depth);
  if (fault != raw::Fault::none)
    co_return invalid(nullptr, rpc::kParseError,
                      "The body is not valid JSON: " + std::string(raw::to_string(fault)), "null");

  const std::string_view text = trim(request.body);
  std::variant<Envelope, EnvelopeFault> read;
  if (text.front() != '[') {
    read = read_envelope(text);
    if (const auto* message = std::get_if<Envelope>(&read);
        message != nullptr && era_of(*message, request.headers) == Era::modern) {
      const auto modern = std::make_shared<ModernEndpoint>(core_, shared_from_this());
      co_return co_await modern->post(std::move(request), std::move(responder), std::move(meta), accepts);
    }
  }
  std::string name;
  if (const auto* message = std::get_if<Envelope>(&read);
      message != nullptr && text.front() != '[' && message->kind != Envelope::Kind::response)
    name = message->method;
  method = name;

  // A session that is named is looked up first: its revision decides what a body may be.
  std::shared_ptr<Session> session;
  const std::string* session_id = sse_id ? &*sse_id : request.header("Mcp-Session-Id");
  if (session_id != nullptr) {
    auto found = co_await core_->sessions->find(
        meta.principal, *session_id, sse_id ? ClientTransport::http_sse : ClientTransport::streamable_http);
    if (!found) co_return respond(503, "storage_unavailable", "The session cannot be looked up now");
    session = *found;
  }
  if (text.front() == '[') {
    if (session_id != nullptr && !session)
      co_return refuse(responder, meta, request, nullptr, 404, rpc::kSessionNotFound, "Session not found", {},
                       "session_not_found");
    if (!session || session->version() != "2025-03-26")
      co_return invalid(session.get(), rpc::kInvalidRequest, "A message must be a JSON object", {});
    co_return co_await batch(std::move(request), std::move(responder), std::move(meta), std::move(session),
                             accepts);
  }

  if (const auto* bad = std::get_if<EnvelopeFault>(&read))
    co_return invalid(session.get(), bad->code, bad->message, bad->id);
  Envelope envelope = std::move(std::get<Envelope>(read));

  // Nothing is done of which there would be no row.
  if (envelope.kind == Envelope::Kind::request && !core_->audit->admits() &&
      !co_await core_->audit->admit(steady_clock::now() + kAdmission))
    co_return responder->send(http_error(503, "overloaded", "The audit log cannot keep up", meta.request_id));
  const bool handshake = envelope.kind == Envelope::Kind::request && envelope.method == "initialize";
  if (handshake && !sse_id)
    co_return co_await initialize(std::move(request), std::move(envelope), std::move(responder),
                                  std::move(meta), accepts, nullptr);
  if (session_id == nullptr)
    co_return invalid(nullptr, rpc::kInvalidRequest,
                      "Header Mcp-Session-Id is missing: send initialize first", envelope.id);
  if (!session)
    co_return refuse(responder, meta, request, nullptr, 404, rpc::kSessionNotFound, "Session not found",
                     envelope.id, "session_not_found", {}, method);
  session->touch();
  if (handshake)
    co_return co_await initialize(std::move(request), std::move(envelope), std::move(responder),
                                  std::move(meta), accepts, session);
  if (!session->initialized() && envelope.kind == Envelope::Kind::request && envelope.method != "ping")
    co_return invalid(session.get(), rpc::kInvalidRequest,
                      "The session is not initialised: send initialize first", envelope.id);

  if (envelope.kind != Envelope::Kind::request) {
    if (envelope.kind == Envelope::Kind::response) {
      const bool error = !envelope.error.empty();
      session->answer(envelope.id, error ? "error" : "result", error ? envelope.error : envelope.result);
    } else {
      notification(*session, envelope);
    }
    HttpResponse accepted;
    accepted.status = 202;
    co_return responder->send(std::move(accepted));
  }

  if (Poller* poller = Poller::stepping()) co_await poller->next_step();
  AuditRecord row = audit_row(meta, request, session.get());
  auto call = std::make_shared<ClientCall>(cores_.here(), session, std::move(meta.principal));
  call->audit = std::move(row);
  call->request_id = meta.request_id;
  call->trace = meta.trace;
  call->id = envelope.id;
  call->method = std::move(envelope.method);
  call->may_have_meta = !envelope.about.empty();
  call->progress_token = raw::find(envelope.about, "progressToken");
  const auto offset = envelope.params.empty() ? 0 : envelope.params.data() - request.body.data();
  const std::size_t length = envelope.params.size();
  call->body = std::move(request.body);
  call->headers = std::move(request.headers);
  if (length > 0)
    call->params = std::string_view(call->body).substr(static_cast<std::size_t>(offset), length);
  call->reply = make_reply(responder, session, accepts, 1, false, {call->handle});
  if (const auto begun = session->begin(call); begun != Session::Begun::yes) {
    meta.principal = call->principal;
    request.body = std::move(call->body);
    if (begun == Session::Begun::closed)
      co_return refuse(responder, meta, request, nullptr, 404, rpc::kSessionNotFound, "Session not found",
                       call->id, "session_not_found", {}, method);
    co_return invalid(session.get(), rpc::kInvalidRequest, begun_text(begun), call->id);
  }
  call->reply->begin();
  auto work = answer(call);
  co_await std::move(work);
}

std::shared_ptr<Reply> McpEndpoint::make_reply(const std::shared_ptr<Responder>& responder,
                                               const std::shared_ptr<Session>& session, Accepts accepts,
                                               std::size_t answers, bool batch,
                                               std::vector<std::shared_ptr<CallHandle>> calls) {
  if (session->over_sse())
    return std::make_shared<SessionStreamReply>(core_, responder, session->streams(), answers);
  PostReply::Options options;
  options.accepts = accepts;
  options.core = cores_.here();
  options.streams = session->streams();
  options.prime = session->version() >= "2025-11-25";
  options.batch = batch;
  options.answers = answers;
  options.on_gone = [calls = std::move(calls)] {
    for (const auto& call : calls) call->cancel("the client disconnected");
  };
  HttpHeaders headers;
  headers.reserve(8);  // those that every answer gets
  headers.emplace_back("Mcp-Session-Id", session->id());
  return std::make_shared<PostReply>(*Loop::current(), responder, std::move(headers), std::move(options));
}

Task<void> McpEndpoint::answer(Call call, [[maybe_unused]] std::shared_ptr<const void> kept) {
  call->started = core_->clock->monotonic();
  call->audit.method = call->method;
  bound_text(call->audit.method, kMaxAuditMethod);
  call->reply->watch();
  std::string text = co_await dispatch(call);
  if (Poller* poller = Poller::stepping()) co_await poller->next_step();
  if (call->session->changed()) co_await core_->sessions->save_changes(call->session);
  call->session->end(call->id);
  AuditRecord& row = call->audit;
  if (call->handle->cancelled()) {
    row.response_status = 499;
    row.error_code = "cancelled";
  }
  const Duration took = core_->clock->monotonic() - call->started;
  row.duration_ms = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
  row.bytes_out = static_cast<std::int64_t>(text.size());
  core_->observer->finished(row, took, call->trace.get());
  if (call->method != "ping" || core_->options.audit.include_ping) {
    row.request_body = audited_body(call->body, row.method, call->connection.get());
    if (core_->audit->sync()) {
      if (!co_await core_->audit->write(std::move(row)))
        text = make_error(call->id, rpc::kInternalError, kUnrecorded, code_data("storage_unavailable"));
    } else {
      core_->audit->add(std::move(row), true);
    }
  }
  if (Poller* poller = Poller::stepping()) co_await poller->next_step();
  call->answer(std::move(text));
}

Task<void> McpEndpoint::batch(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                              std::shared_ptr<Session> session, Accepts accepts) {
  session->touch();
  const auto parts = raw::elements(request.body);
  if (parts.empty() || parts.size() > kMaxBatch)
    co_return refuse(responder, meta, request, session.get(), 400, rpc::kInvalidRequest,
                     parts.empty() ? "A batch must not be empty" : "A batch may hold at most 100 messages",
                     {}, "invalid_request");
  using Read = std::variant<Envelope, EnvelopeFault>;
  std::vector<Read> messages;
  std::size_t answers = 0;
  for (std::string_view part : parts) {
    messages.push_back(read_envelope(part));
    const auto* message = std::get_if<Envelope>(&messages.back());
    if (message != nullptr && message->kind != Envelope::Kind::request) continue;
    ++answers;
    if (!core_->audit->admits() && !co_await core_->audit->admit(steady_clock::now() + kAdmission))
      co_return responder->send(
          http_error(503, "overloaded", "The audit log cannot keep up", meta.request_id));
  }
  for (const Read& read : messages) {
    const auto* message = std::get_if<Envelope>(&read);
    if (message == nullptr || message->kind == Envelope::Kind::request) continue;
    const bool failed = !message->error.empty();
    if (message->kind == Envelope::Kind::notification)
      notification(*session, *message);
    else
      session->answer(message->id, failed ? "error" : "result", failed ? message->error : message->result);
  }
  if (answers == 0) {
    HttpResponse accepted;
    accepted.status = 202;
    co_return responder->send(std::move(accepted));
  }

  // All at once.
  struct Refused {
    std::string id, message, method;
    int code;
    std::size_t place;
    std::string_view part;  ///< of the batch
  };
  std::vector<Call> calls;
  std::vector<Refused> refused;
  std::vector<std::shared_ptr<CallHandle>> handles;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::size_t place = calls.size() + refused.size();
    const auto* message = std::get_if<Envelope>(&messages[i]);
    if (message == nullptr) {
      const auto& bad = std::get<EnvelopeFault>(messages[i]);
      refused.push_back({bad.id, bad.message, {}, bad.code, place, parts[i]});
      continue;
    }
    if (message->kind != Envelope::Kind::request) continue;
    if (message->method == "initialize") {
      refused.push_back({std::string(message->id), "initialize must not be part of a batch", message->method,
                         rpc::kInvalidRequest, place, parts[i]});
      continue;
    }
    auto call = std::make_shared<ClientCall>(core_, session, meta.principal);
    call->audit = audit_row(meta, request, session.get());
    call->audit.bytes_in = static_cast<std::int64_t>(parts[i].size());
    call->request_id = meta.request_id;
    call->trace = meta.trace;
    call->id = message->id;
    call->method = message->method;
    call->body = parts[i];
    call->headers = request.headers;
    call->params = raw::find(call->body, "params");
    call->may_have_meta = !message->about.empty();
    call->progress_token = raw::find(message->about, "progressToken");
    call->place = place;
    handles.push_back(call->handle);
    calls.push_back(std::move(call));
  }
  const auto reply = make_reply(responder, session, accepts, answers, true, std::move(handles));
  reply->begin();
  const auto fail = [&](const Refused& one) {
    AuditRecord row = audit_row(meta, request, session.get());
    row.method = one.method.empty() ? kUnreadMethod : one.method;
    row.response_status = 400;
    row.error_code = "invalid_request";
    row.bytes_in = static_cast<std::int64_t>(one.part.size());
    std::string text = make_error(one.id.empty() ? std::string_view("null") : one.id, one.code, one.message,
                                  code_data("invalid_request"));
    row.bytes_out = static_cast<std::int64_t>(text.size());
    row.request_body = audited_body(std::string(one.part), row.method, nullptr);
    core_->observer->finished(row, Duration(0));
    record(std::move(row), [reply, id = one.id, place = one.place, text = std::move(text)](bool stored) {
      reply->answer(stored ? text
                           : make_error(id.empty() ? std::string_view("null") : id, rpc::kInternalError,
                                        kUnrecorded, code_data("storage_unavailable")),
                    place);
    });
  };
  for (const Refused& one : refused) fail(one);
  for (const Call& call : calls) {
    call->reply = reply;
    if (const auto begun = session->begin(call); begun != Session::Begun::yes)
      fail({call->id, begun_text(begun), call->method, rpc::kInvalidRequest, call->place, call->body});
    else
      Loop::current()->spawn(answer(call, shared_from_this()));
  }
}

Task<void> McpEndpoint::initialize(HttpRequest request, Envelope envelope,
                                   std::shared_ptr<Responder> responder, RequestMeta meta, Accepts accepts,
                                   std::shared_ptr<Session> over_sse) {
  const Duration started = core_->clock->monotonic();
  AuditRecord row = audit_row(meta, request, nullptr);
  row.method = "initialize";
  const std::string id(envelope.id);
  std::shared_ptr<Reply> sse_reply;
  if (over_sse) {
    sse_reply = make_reply(responder, over_sse, accepts, 1, false, {});
    sse_reply->begin();
  }
  const auto finish = [&](std::string text, HttpHeaders headers) {
    const Duration took = core_->clock->monotonic() - started;
    row.duration_ms = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
    row.bytes_out = static_cast<std::int64_t>(text.size());
    row.request_body = audited_body(request.body, "initialize", nullptr);
    core_->observer->finished(row, took, meta.trace.get());
    auto reply = sse_reply;
    if (!reply) {
      PostReply::Options options;
      options.accepts = accepts;
      reply =
          std::make_shared<PostReply>(*Loop::current(), responder, std::move(headers), std::move(options));
    }
    record(std::move(row), [reply = std::move(reply), id, text = std::move(text)](bool stored) {
      reply->answer(
          stored ? text : make_error(id, rpc::kInternalError, kUnrecorded, code_data("storage_unavailable")));
    });
  };
  const auto version = raw::string_value(raw::find(envelope.params, "protocolVersion"));
  const std::string_view capabilities = raw::find(envelope.params, "capabilities");
  if (!version || (!capabilities.empty() && raw::type_of(capabilities) != raw::Type::object)) {
    row.response_status = 400;
    row.error_code = "invalid_params";
    co_return finish(make_error(id, rpc::kInvalidParams,
                                !version ? "params.protocolVersion must be a string"
                                         : "params.capabilities must be an object",
                                code_data("invalid_params")),
                     {});
  }
  const std::string negotiated = is_legacy_version(*version) ? *version : legacy_versions().front();

  std::shared_ptr<Session> session;
  if (over_sse) {
    // The stream stays, and with it the session's id; what was open upstream ends.
    session = core_->sessions->initialize_over_sse(over_sse, negotiated, std::string(envelope.params));
    if (!session) {
      row.response_status = 404;
      row.error_code = "session_not_found";
      co_return finish(
          make_error(id, rpc::kSessionNotFound, "Session not found", code_data("session_not_found")), {});
    }
  } else {
    // On a live session it starts anew: what was open upstream ends.
    if (const std::string* old_id = request.header("Mcp-Session-Id")) {
      if (auto old = co_await core_->sessions->find(meta.principal, *old_id); old && *old)
        core_->sessions->end(*old, "deleted");
    }
    auto made = co_await core_->sessions->create(meta.principal, negotiated, std::string(envelope.params));
    if (!made) {
      const bool busy = made.error().code == ErrorCode::resource_exhausted;
      HttpResponse response = http_error(
          busy ? 429 : 503, busy ? "rate_limited" : "storage_unavailable",
          busy ? "Too many sessions are open and busy: close one" : "The session cannot be stored now",
          meta.request_id);
      response.headers.emplace_back("Retry-After", "5");
      row.response_status = response.status;
      row.error_code = busy ? "rate_limited" : "storage_unavailable";
      core_->observer->finished(row, core_->clock->monotonic() - started);
      co_return record(std::move(row), [responder, response = std::move(response)](bool) mutable {
        responder->send(std::move(response));
      });
    }
    session = *made;
  }
  row.session_id = session->id();
  row.client_name = session->client_name();

  const auto view = session->view(meta.principal);
  const RequestIds ids{meta.request_id, meta.trace_id};
  const auto reached = co_await gather(session, meta.principal, view, std::nullopt, false, ids);
  Offer offered = offer(*view, reached);
  if (const std::string tasks = task_capabilities(*session, reached); !tasks.empty())
    offered.capabilities = raw::with_member(offered.capabilities, "tasks", tasks);
  std::string result = R"({"protocolVersion":)" + raw::quote(negotiated) + R"(,"capabilities":)" +
                       offered.capabilities + R"(,"serverInfo":{"name":"mcpgw","version":)" +
                       raw::quote(mcpgw::version()) + "}";
  if (!offered.instructions.empty()) result += R"(,"instructions":)" + raw::quote(offered.instructions);
  result += '}';
  row.response_status = 200;
  finish(make_result(id, result), {{"Mcp-Session-Id", session->id()}});
  if (over_sse) session->watch_lists(meta.principal);
}

McpEndpoint::Offer McpEndpoint::offer(const Session::View& view, const std::vector<Gathered>& reached) {
  bool tools = false, resources = false, subscribe = false, prompts = false, logging = false,
       completions = false;
  bool all_known = !reached.empty();
  std::string instructions;
  for (const Gathered& one : reached) {
    if (!one.connection) {
      all_known = false;
      continue;
    }
    const ServerFacts& facts = one.connection->upstream().facts();
    tools |= facts.offers("tools");
    resources |= facts.offers("resources");
    subscribe |= facts.offers("resources", "subscribe");
    prompts |= facts.offers("prompts");
    logging |= facts.offers("logging");
    completions |= facts.offers("completions");
    if (facts.instructions.empty()) continue;
    if (view.many) instructions += (instructions.empty() ? "## " : "\n\n## ") + one.target->slug + "\n\n";
    instructions += facts.instructions;
  }
  // What a target that is not there yet will offer is unknown; lists of every kind are served in any case.
  if (!all_known) tools = resources = prompts = true;
  if (view.targets.empty())
    instructions = "No server is available to you yet. Ask an administrator of this gateway for access.";
  std::string offered;
  const auto add = [&](bool there, std::string_view text) {
    if (!there) return;
    if (!offered.empty()) offered += ',';
    offered += text;
  };
  add(completions, R"("completions":{})");
  add(logging, R"("logging":{})");
  add(prompts, R"("prompts":{"listChanged":true})");
  add(resources, subscribe ? R"("resources":{"subscribe":true,"listChanged":true})"
                           : R"("resources":{"listChanged":true})");
  add(tools, R"("tools":{"listChanged":true})");
  return {"{" + offered + "}", std::move(instructions)};
}

void McpEndpoint::notification(Session& session, const Envelope& envelope) {
  if (envelope.method == "notifications/cancelled") {
    session.cancel(std::string(raw::find(envelope.params, "requestId")),
                   raw::string_value(raw::find(envelope.params, "reason")).value_or("the client cancelled"));
  } else if (envelope.method == "notifications/roots/list_changed") {
    for (const auto& connection : session.connections())
      connection->upstream().notify(envelope.method, std::string(envelope.params));
  }
  // "initialized" needs nothing; unknown notifications are accepted and ignored (JSON-RPC 2.0, section 4.1).
}

}  // namespace mcpgw::detail
