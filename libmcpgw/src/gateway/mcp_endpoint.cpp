#include "gateway/mcp_endpoint.hpp"

#include <algorithm>
#include <variant>

#include "base/text.hpp"
#include "gateway/observer.hpp"
#include "gateway/modern_endpoint.hpp"
#include "json/raw.hpp"
#include "json/redact.hpp"
#include "mcpgw/version.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// Which of our two forms an Accept header admits. Absent: both.
Accepts read_accept(const std::string* header) {
  if (header == nullptr) return {};
  Accepts out{false, false};
  for (const std::string& range : split(*header, ',')) {
    const std::string_view whole = trim(range);
    const std::string_view type = trim(whole.substr(0, whole.find(';')));
    // "q=0" refuses what it names.
    bool refused = false;
    for (std::string_view rest = whole; rest.find(';') != std::string_view::npos;) {
      rest.remove_prefix(rest.find(';') + 1);
      const std::string_view parameter = trim(rest.substr(0, rest.find(';')));
      if (starts_with_icase(parameter, "q=")) {
        const auto value = parameter.substr(2);
        refused = !value.empty() && value.find_first_not_of("0.") == std::string_view::npos;
      }
    }
    if (refused) continue;
    if (iequals(type, "*/*")) out = {true, true};
    if (iequals(type, "application/json") || iequals(type, "application/*")) out.json = true;
    if (iequals(type, "text/event-stream") || iequals(type, "text/*")) out.sse = true;
  }
  return out;
}

std::string code_data(std::string_view code) { return R"({"code":)" + raw::quote(code) + "}"; }

}  // namespace

HttpResponse http_error(int status, std::string_view code, std::string_view message,
                        std::string_view request_id) {
  HttpResponse out;
  out.status = status;
  out.headers.emplace_back("Content-Type", "application/json");
  out.body = R"({"error":)" + raw::quote(message) + R"(,"code":)" + raw::quote(code) + R"(,"request_id":)" +
             raw::quote(request_id) + "}";
  return out;
}

AuditRecord McpEndpoint::audit_row(const RequestMeta& meta, const HttpRequest& request,
                                   const Session* session) const {
  AuditRecord row;
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

void McpEndpoint::refuse(const std::shared_ptr<Responder>& responder, const RequestMeta& meta,
                         const HttpRequest& request, const Session* session, int status, int code,
                         std::string_view message, std::string_view id, const char* error_code,
                         std::string_view data) {
  HttpResponse response;
  response.status = status;
  response.headers.emplace_back("Content-Type", "application/json");
  // Revisions before 2025-11-25 know no error without an id: there it is null.
  const bool may_omit = session == nullptr || session->version() >= "2025-11-25";
  response.body = make_error(id.empty() && !may_omit ? std::string_view("null") : id, code, message,
                             data.empty() ? code_data(error_code) : std::string(data));
  AuditRecord row = audit_row(meta, request, session);
  row.method = "invalid";
  row.response_status = status;
  row.error_code = error_code;
  row.bytes_out = static_cast<std::int64_t>(response.body.size());
  core_->observer->finished(row, Duration(0), meta.trace.get());
  core_->audit->add(std::move(row));
  responder->send(std::move(response));
}

std::string McpEndpoint::audited_body(const std::string& body, const std::string& method,
                                      const UpstreamConnection* connection) const {
  const AuditOptions& audit = core_->options.audit;
  if (audit.body == AuditBody::none) return {};
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

Task<void> McpEndpoint::handle(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta) {
  if (request.method == "POST")
    co_await post(std::move(request), std::move(responder), std::move(meta));
  else if (request.method == "GET")
    co_await get(std::move(request), std::move(responder), std::move(meta));
  else
    co_await remove(std::move(request), std::move(responder), std::move(meta));
}

Task<void> McpEndpoint::post(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta) {
  const auto respond = [&](int status, std::string_view code, std::string_view message) {
    responder->send(http_error(status, code, message, meta.request_id));
  };
  if (request.body.size() > core_->options.limits.mcp_body)
    co_return respond(413, "body_too_large", "The request body is too large");
  if (const std::string* type = request.header("Content-Type"); type != nullptr && !is_json_type(*type))
    co_return respond(415, "unsupported_media_type", "The request body must be application/json");
  const Accepts accepts = read_accept(request.header("Accept"));
  if (!accepts.json && !accepts.sse)
    co_return respond(406, "not_acceptable", "Accept must admit application/json or text/event-stream");

  const auto invalid = [&](const Session* session, int code, std::string_view message, std::string_view id) {
    refuse(responder, meta, request, session, 400, code, message, id, "invalid_request");
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

  // A session that is named is looked up first: its revision decides what a body may be.
  std::shared_ptr<Session> session;
  const std::string* session_id = request.header("Mcp-Session-Id");
  if (session_id != nullptr) {
    auto found = co_await core_->sessions->find(meta.principal, *session_id);
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

  if (envelope.kind == Envelope::Kind::request && envelope.method == "initialize")
    co_return co_await initialize(std::move(request), std::move(envelope), std::move(responder),
                                  std::move(meta), accepts);
  if (session_id == nullptr)
    co_return invalid(nullptr, rpc::kInvalidRequest,
                      "Header Mcp-Session-Id is missing: send initialize first", envelope.id);
  if (!session)
    co_return refuse(responder, meta, request, nullptr, 404, rpc::kSessionNotFound, "Session not found",
                     envelope.id, "session_not_found");
  session->touch();

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

  if (!co_await core_->audit->admit(steady_clock::now() + std::chrono::seconds(5)))
    co_return respond(503, "overloaded", "The audit log cannot keep up");
  auto call = std::make_shared<ClientCall>(core_, session, meta.principal);
  call->audit = audit_row(meta, request, session.get());
  call->request_id = meta.request_id;
  call->trace = meta.trace;
  call->id = envelope.id;
  call->method = std::move(envelope.method);
  const auto offset = envelope.params.empty() ? 0 : envelope.params.data() - request.body.data();
  const std::size_t length = envelope.params.size();
  call->body = std::move(request.body);
  call->headers = std::move(request.headers);
  if (length > 0)
    call->params = std::string_view(call->body).substr(static_cast<std::size_t>(offset), length);
  call->reply = std::make_shared<PostReply>(*Loop::current(), responder, accepts,
                                            HttpHeaders{{"Mcp-Session-Id", session->id()}});
  if (!session->begin(call)) {
    request.body = std::move(call->body);
    co_return invalid(session.get(), rpc::kInvalidRequest, "A request with this id is running already",
                      call->id);
  }
  responder->on_disconnect([handle = call->handle] { handle->cancel("the client disconnected"); });
  co_await answer(call);
  responder->on_disconnect(nullptr);
}

Task<void> McpEndpoint::answer(Call call) {
  call->started = core_->clock->monotonic();
  call->audit.method = call->method;
  call->progress_token = raw::find(raw::find(call->params, "_meta"), "progressToken");
  call->reply->watch();
  std::string text = co_await dispatch(call);
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
    row.request_body = audited_body(call->body, call->method, call->connection.get());
    if (core_->audit->sync()) {
      if (!co_await core_->audit->write(std::move(row)))
        text =
            make_error(call->id, rpc::kInternalError, "The audit log cannot be written: nothing is answered",
                       code_data("storage_unavailable"));
    } else {
      core_->audit->add(std::move(row));
    }
  }
  call->reply->finish(200, text);
}

Task<void> McpEndpoint::batch(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                              std::shared_ptr<Session> session, Accepts accepts) {
  session->touch();
  const auto parts = raw::elements(request.body);
  if (parts.empty())
    co_return refuse(responder, meta, request, session.get(), 400, rpc::kInvalidRequest,
                     "A batch must not be empty", {}, "invalid_request");
  // Answers are gathered and sent as one array; what servers send meanwhile needs a stream and is left out.
  std::vector<std::string> answers;
  for (std::string_view part : parts) {
    auto read = read_envelope(part);
    if (const auto* bad = std::get_if<EnvelopeFault>(&read)) {
      answers.push_back(make_error(bad->id.empty() ? "null" : bad->id, bad->code, bad->message,
                                   code_data("invalid_request")));
      continue;
    }
    const Envelope& envelope = std::get<Envelope>(read);
    if (envelope.kind == Envelope::Kind::response) {
      const bool error = !envelope.error.empty();
      session->answer(envelope.id, error ? "error" : "result", error ? envelope.error : envelope.result);
    } else if (envelope.kind == Envelope::Kind::notification) {
      notification(*session, envelope);
    } else if (envelope.method == "initialize") {
      answers.push_back(make_error(envelope.id, rpc::kInvalidRequest,
                                   "initialize must not be part of a batch", code_data("invalid_request")));
    } else {
      class Collector final : public Responder {
       public:
        void send(HttpResponse response) override { body = std::move(response.body); }
        std::shared_ptr<ResponseStream> start(HttpResponse) override { return nullptr; }
        void on_disconnect(std::function<void()>) override {}
        std::string body;
      };
      auto collector = std::make_shared<Collector>();
      auto call = std::make_shared<ClientCall>(core_, session, meta.principal);
      call->audit = audit_row(meta, request, session.get());
      call->request_id = meta.request_id;
      call->trace = meta.trace;
      call->id = envelope.id;
      call->method = envelope.method;
      call->body = part;
      call->params = raw::find(call->body, "params");
      call->reply =
          std::make_shared<PostReply>(*Loop::current(), collector, Accepts{true, false}, HttpHeaders{});
      if (!core_->authenticator->token_valid(meta.principal)) {
        answers.push_back(call->ended());
        continue;
      }
      if (!session->begin(call)) {
        answers.push_back(make_error(call->id, rpc::kInvalidRequest,
                                     "A request with this id is running already",
                                     code_data("invalid_request")));
        continue;
      }
      responder->on_disconnect([handle = call->handle] { handle->cancel("the client disconnected"); });
      co_await answer(call);
      answers.push_back(std::move(collector->body));
    }
  }
  responder->on_disconnect(nullptr);
  if (answers.empty()) {
    HttpResponse accepted;
    accepted.status = 202;
    co_return responder->send(std::move(accepted));
  }
  std::string text = "[";
  for (const std::string& one : answers) {
    if (text.size() > 1) text += ',';
    text += one;
  }
  text += ']';
  PostReply(*Loop::current(), responder, accepts, {{"Mcp-Session-Id", session->id()}}).finish(200, text);
}

Task<void> McpEndpoint::initialize(HttpRequest request, Envelope envelope,
                                   std::shared_ptr<Responder> responder, RequestMeta meta, Accepts accepts) {
  const Duration started = core_->clock->monotonic();
  AuditRecord row = audit_row(meta, request, nullptr);
  row.method = "initialize";
  const std::string id(envelope.id);
  const auto finish = [&](std::string text, HttpHeaders headers) {
    const Duration took = core_->clock->monotonic() - started;
    row.duration_ms = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
    row.bytes_out = static_cast<std::int64_t>(text.size());
    row.request_body = audited_body(request.body, "initialize", nullptr);
    core_->observer->finished(row, took, meta.trace.get());
    core_->audit->add(std::move(row));
    std::make_shared<PostReply>(*Loop::current(), responder, accepts, std::move(headers))->finish(200, text);
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
    core_->audit->add(std::move(row));
    co_return responder->send(std::move(response));
  }
  const std::shared_ptr<Session> session = *made;
  row.session_id = session->id();
  row.client_name = session->client_name();

  const auto view = session->view(meta.principal);
  const auto reached = co_await gather(session, meta.principal, view, std::nullopt, false);
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

Task<void> McpEndpoint::get(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta) {
  const auto respond = [&](int status, std::string_view code, std::string_view message) {
    HttpResponse response = http_error(status, code, message, meta.request_id);
    if (status == 405) response.headers.emplace_back("Allow", "POST");
    if (status == 429) response.headers.emplace_back("Retry-After", "5");
    responder->send(std::move(response));
  };
  const std::string* version = request.header("MCP-Protocol-Version");
  if (version != nullptr && !is_legacy_version(*version))
    co_return respond(405, "method_not_allowed", "This protocol version has no GET here");
  if (!read_accept(request.header("Accept")).sse)
    co_return respond(406, "not_acceptable", "Accept must admit text/event-stream");
  const std::string* id = request.header("Mcp-Session-Id");
  if (id == nullptr) co_return respond(405, "method_not_allowed", "A stream needs the header Mcp-Session-Id");
  auto found = co_await core_->sessions->find(meta.principal, *id);
  if (!found) co_return respond(503, "storage_unavailable", "The session cannot be looked up now");
  const std::shared_ptr<Session> session = *found;
  if (!session) {
    HttpResponse response;
    response.status = 404;
    response.headers.emplace_back("Content-Type", "application/json");
    response.body =
        make_error({}, rpc::kSessionNotFound, "Session not found", code_data("session_not_found"));
    co_return responder->send(std::move(response));
  }
  if (!session->has_stream() &&
      core_->sessions->streams_of(meta.principal.user_id) >= core_->options.session.max_streams_per_user)
    co_return respond(429, "rate_limited", "Too many streams are open");
  session->touch();
  HttpResponse head;
  head.headers.emplace_back("Content-Type", "text/event-stream");
  head.headers.emplace_back("X-Accel-Buffering", "no");
  head.headers.emplace_back("Mcp-Session-Id", session->id());
  // Sent at once, so that a client behind a proxy that waits for a body sees that the stream is open.
  head.body = ": open\n\n";
  const auto stream = responder->start(std::move(head));
  if (!stream) co_return;
  responder->on_disconnect([weak = std::weak_ptr(session), raw_stream = stream.get()] {
    if (const auto alive = weak.lock()) alive->stream_gone(raw_stream);
  });
  const std::string* last = request.header("Last-Event-ID");
  session->open_stream(stream, meta.principal, last != nullptr ? *last : std::string());
  if (session->closed()) session->close_stream();
  // After a restart nothing is open upstream yet: a client that only listens shall hear of changes too.
  session->reopen_targets(meta.principal);
}

Task<void> McpEndpoint::remove(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta) {
  const std::string* version = request.header("MCP-Protocol-Version");
  if (version != nullptr && !is_legacy_version(*version)) {
    HttpResponse response =
        http_error(405, "method_not_allowed", "This protocol version has no DELETE here", meta.request_id);
    response.headers.emplace_back("Allow", "POST");
    co_return responder->send(std::move(response));
  }
  const std::string* id = request.header("Mcp-Session-Id");
  if (id == nullptr)
    co_return responder->send(
        http_error(400, "invalid_request", "Header Mcp-Session-Id is missing", meta.request_id));
  auto found = co_await core_->sessions->find(meta.principal, *id);
  if (!found)
    co_return responder->send(
        http_error(503, "storage_unavailable", "The session cannot be looked up now", meta.request_id));
  HttpResponse response;
  if (*found) {
    core_->sessions->end(*found, "deleted");
    response.status = 204;
  } else {
    response.status = 404;
    response.headers.emplace_back("Content-Type", "application/json");
    response.body =
        make_error({}, rpc::kSessionNotFound, "Session not found", code_data("session_not_found"));
  }
  responder->send(std::move(response));
}

}  // namespace mcpgw::detail
