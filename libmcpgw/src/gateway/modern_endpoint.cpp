#include "gateway/modern_endpoint.hpp"

#include "base/text.hpp"
#include "gateway/observer.hpp"
#include "json/raw.hpp"
#include "protocol/tool_headers.hpp"
#include "runtime/poller.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// One text for everything that is wrong with a request state: whoever tries learns nothing.
constexpr std::string_view kInvalidState = "The request state is not valid for this request";

bool is_list(std::string_view method) {
  return method == "tools/list" || method == "prompts/list" || method == "resources/list" ||
         method == "resources/templates/list";
}

ModernOutcome refusal(int code, std::string_view message, std::string_view data, const char* error_code,
                      int status) {
  return {true,
          R"({"code":)" + std::to_string(code) + R"(,"message":)" + raw::quote(message) + R"(,"data":)" +
              std::string(data) + "}",
          status, error_code};
}

ModernOutcome invalid_params(std::string_view message) {
  return refusal(rpc::kInvalidParams, message, R"({"code":"invalid_params"})", "invalid_params", 400);
}

}  // namespace

const std::string& supported_versions_json() {
  static const std::string text = [] {
    std::string out = "[";
    for (const std::string& version : supported_versions()) {
      if (out.size() > 1) out += ',';
      raw::append_quoted(out, version);
    }
    return out + "]";
  }();
  return text;
}

Task<void> ModernEndpoint::post(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta,
                                Accepts accepts) {
  const auto read = read_envelope(trim(request.body));
  if (!std::holds_alternative<Envelope>(read)) co_return;  // the caller has read it
  const Envelope& envelope = std::get<Envelope>(read);
  if (envelope.kind == Envelope::Kind::response)
    co_return legacy_->refuse(responder, meta, request, nullptr, 400, rpc::kInvalidRequest,
                              "This protocol version has no answers from clients: input travels in requests",
                              {}, "invalid_request");
  if (envelope.kind == Envelope::Kind::notification) {
    // This revision has none on HTTP: what comes is accepted and means nothing.
    HttpResponse accepted;
    accepted.status = 202;
    co_return responder->send(std::move(accepted));
  }
  ModernRequest about;
  if (const auto fault = read_modern_request(envelope, request.headers, supported_versions_json(), about))
    co_return legacy_->refuse(
        responder, meta, request, nullptr, fault->status, fault->code, fault->message, envelope.id,
        fault->code == rpc::kInvalidParams ? "invalid_params" : "invalid_request", fault->data);
  if (!core_->audit->admits() && !co_await core_->audit->admit(steady_clock::now() + std::chrono::seconds(5)))
    co_return responder->send(http_error(503, "overloaded", "The audit log cannot keep up", meta.request_id));

  if (meta.trace && meta.trace->adopt(raw::find(envelope.params, "_meta"))) {
    meta.trace_id = meta.trace->trace_id();
    std::erase_if(request.headers, [](const auto& header) { return iequals(header.first, "traceparent"); });
    request.headers.emplace_back("traceparent", meta.trace->traceparent(nullptr));
  }

  auto round = std::make_shared<ModernRound>();
  round->id = envelope.id;
  round->method = envelope.method;
  round->capabilities = about.capabilities;
  round->progress_token = about.progress_token;
  round->log_severity = about.log_level.empty() ? -1 : log_severity(about.log_level);
  round->principal = meta.principal;
  round->request_id = meta.request_id;
  round->trace = meta.trace;
  round->row = legacy_->audit_row(meta, request, nullptr);
  round->row.method = envelope.method.substr(0, 128);
  if (auto name = raw::string_value(raw::find(about.client_info, "name")); name && name->size() <= 200)
    round->row.client_name = std::move(*name);
  round->started = core_->clock->monotonic();
  round->reply = std::make_shared<ModernReply>(*Loop::current(), responder, accepts);
  std::string params(envelope.params);
  round->body = std::move(request.body);

  const std::string& method = round->method;
  if (method == "server/discover") co_return co_await discover(round);
  if (method == "tools/call" || method == "prompts/get" || method == "resources/read")
    co_return co_await item(round, std::move(request.headers), std::move(params));
  if (is_list(method) || method == "completion/complete")
    co_return co_await plain(round, std::move(request.headers), std::move(params));
  if (method == "subscriptions/listen")
    co_return co_await listen(round, std::move(params), std::move(responder), std::move(meta),
                              std::move(request.headers), accepts);
  // Methods of the era with sessions are as unknown here as any other.
  finish(round,
         refusal(rpc::kMethodNotFound, "Method not found", R"({"code":"unknown_method"})", "unknown_method",
                 404),
         nullptr);
}

std::shared_ptr<ModernClient> ModernEndpoint::client_of(const Round& round) {
  auto client = core_->modern->get(round->principal, round->capabilities);
  if (!client)
    finish(round,
           refusal(rpc::kInternalError, "Too many sets of client capabilities are in use",
                   R"({"code":"rate_limited"})", "rate_limited", 503),
           nullptr);
  return client;
}

ModernEndpoint::Call ModernEndpoint::make_call(const Round& round, std::shared_ptr<Session> session,
                                               HttpHeaders headers, const std::string& params, bool may_ask) {
  auto call = std::make_shared<ModernCall>(core_, std::move(session), round->principal, round->method,
                                           legacy_params(params), may_ask, deliver());
  call->headers = std::move(headers);
  call->audit = round->row;
  call->request_id = round->request_id;
  call->trace = round->trace;
  return call;
}

Task<void> ModernEndpoint::run(Call call, Round round, std::int64_t number) {
  call->started = round->started;
  call->begin(round, number);
  if (!core_->modern->begin(call)) {
    finish(round,
           refusal(rpc::kInternalError, "Too many requests are running", R"({"code":"rate_limited"})",
                   "rate_limited", 503),
           nullptr);
    co_return;
  }
  round->reply->on_disconnect([weak = std::weak_ptr(call), raw_round = round.get()] {
    if (const auto alive = weak.lock()) alive->gone(raw_round);
  });
  round = nullptr;  // answered while the call goes on, when it asks for input
  const std::string message = co_await legacy_->dispatch(call);
  if (Poller* poller = Poller::stepping()) co_await poller->next_step();
  core_->modern->end(*call);
  call->complete(message);
}

Task<void> ModernEndpoint::plain(Round round, HttpHeaders headers, std::string params) {
  const auto client = client_of(round);
  if (!client) co_return;
  round->reply->watch();
  Call call = make_call(round, client, std::move(headers), params, false);
  co_await run(std::move(call), std::move(round));
}

Task<std::optional<ModernOutcome>> ModernEndpoint::examine(Call call, const ModernRound& round,
                                                           std::shared_ptr<const Target>& target) {
  const bool resource = call->method == "resources/read";
  const ListKind kind = resource                        ? ListKind::resources
                        : call->method == "prompts/get" ? ListKind::prompts
                                                        : ListKind::tools;
  const auto name = raw::string_value(raw::find(call->params, named_by(call->method)));
  if (!name) co_return std::nullopt;
  std::optional<ItemRoute> route;
  if (resource)
    route = co_await legacy_->find_resource(call, kind, *name);
  else
    route = co_await legacy_->find_item(call, kind, *name);
  // What is unknown, denied or out of reach is told by whoever forwards.
  if (!route || route->original.empty() ||
      !core_->policy->evaluate(call->principal, route->target->id, policy_type(kind), route->original)
           .allowed())
    co_return std::nullopt;
  target = route->target;
  call->set_item({target->id, target->name, route->original, policy_type(kind)});
  const SteadyTime deadline = steady_clock::now() + core_->options.upstream.list_timeout;
  if (kind == ListKind::tools) {
    auto listing = co_await call->session->listing(call->principal, target, kind, deadline, false);
    if (listing) {
      if (const auto it = (*listing)->by_name.find(route->original); it != (*listing)->by_name.end()) {
        const auto declared = tool_headers((*listing)->items[it->second].json);
        if (!declared) {
          // It is in no list that this client gets.
          call->audit.tool = route->original.substr(0, 2000);
          co_return refusal(rpc::kInvalidParams, "Unknown tool: " + *name, R"({"code":"unknown_item"})",
                            "unknown_item", 404);
        }
        if (auto fault =
                check_parameter_headers(*declared, raw::find(call->params, "arguments"), call->headers))
          co_return ModernOutcome{true,
                                  R"({"code":)" + std::to_string(fault->code) + R"(,"message":)" +
                                      raw::quote(fault->message) + R"(,"data":)" + fault->data + "}",
                                  400, "invalid_request"};
      }
    }
  }
  if (round.log_severity >= 0 && target->statefulness != Statefulness::stateful) {
    auto open = co_await call->session->connection(call->principal, target, deadline);
    if (open)
      co_await std::static_pointer_cast<ModernClient>(call->session)->want_level(*open, round.log_severity);
  }
  co_return std::nullopt;
}

Task<void> ModernEndpoint::item(Round round, HttpHeaders headers, std::string params) {
  std::int64_t number = 0;
  if (const std::string_view state = raw::find(params, "requestState"); !state.empty()) {
    auto sealed = raw::string_value(state);
    if (!sealed) {
      finish(round, invalid_params("params.requestState must be a string"), nullptr);
      co_return;
    }
    const auto known = core_->modern->states().open(*sealed);
    if (!known || !known->parked.empty()) co_return co_await resume(round, std::move(params), known);
    if (auto refused = visited(round, params, *known)) {
      finish(round, std::move(*refused), nullptr);
      co_return;
    }
    number = known->round;
  }
  auto client = client_of(round);
  if (!client) co_return;
  Call call = make_call(round, client, headers, params, true);
  round->reply->watch();
  // A client that leaves during this is noticed when the call begins.
  std::shared_ptr<const Target> target;
  auto refused = co_await examine(call, *round, target);
  if (refused) {
    round->row.tool = call->audit.tool;
    if (target) round->row.target_name = target->name;
    finish(round, std::move(*refused), nullptr);
    co_return;
  }
  if (target && target->statefulness == Statefulness::stateful) {
    // Each call has a connection of its own: what a server remembers is not the next call's.
    const CallItem item = call->item();
    client = core_->modern->single(round->principal, round->capabilities);
    call = make_call(round, client, std::move(headers), params, true);
    call->set_item(item);
  }
  co_await run(std::move(call), std::move(round), number);
}

std::optional<ModernOutcome> ModernEndpoint::visited(const Round& round, std::string_view params,
                                                     const RequestState& state) const {
  if (state.user_id != round->principal.user_id || state.method != round->method ||
      state.digest != request_digest(round->method, legacy_params(params)))
    return invalid_params(kInvalidState);
  const std::string_view responses = raw::find(params, "inputResponses");
  if (!responses.empty() && raw::type_of(responses) != raw::Type::object)
    return invalid_params("params.inputResponses must be an object");
  for (const raw::Member& response : raw::members(responses)) {
    if (!is_input_response("elicitation/create", response.value))
      return invalid_params("params.inputResponses[\"" + std::string(response.key) +
                            "\"] is no answer to what was asked");
    if (raw::string_value(raw::find(response.value, "action")) == "accept") continue;
    constexpr std::string_view kWhy =
        "The server was not given what it asked for: the client did not go there";
    if (round->method != "tools/call")
      return refusal(rpc::kInternalError, kWhy, R"({"code":"upstream_error"})", "upstream_error", 502);
    const std::string result =
        R"({"content":[{"type":"text","text":)" + raw::quote(kWhy) + R"(}],"isError":true})";
    return ModernOutcome{false, modern_result(round->method, result, gateway_info()), 200, "tool_error"};
  }
  return std::nullopt;
}

Task<void> ModernEndpoint::resume(Round round, std::string params, const std::optional<RequestState>& state) {
  const auto refuse = [&](std::string_view why) { finish(round, invalid_params(why), nullptr); };
  const std::string_view responses = raw::find(params, "inputResponses");
  if (!responses.empty() && raw::type_of(responses) != raw::Type::object)
    co_return refuse("params.inputResponses must be an object");
  const std::string plain_params = legacy_params(params);
  if (!state || state->user_id != round->principal.user_id || state->method != round->method ||
      state->digest != request_digest(round->method, plain_params))
    co_return refuse(kInvalidState);
  if (state->replica != core_->modern->replica())
    co_return refuse("The replica where this call waited has gone: begin it anew");
  const Call call = core_->modern->parked(state->parked);
  if (!call || call->principal.user_id != round->principal.user_id ||
      call->item().target_id != state->target_id)
    co_return refuse(kInvalidState);

  // Policies are asked anew: what was permitted when the call began may not be any more.
  const CallItem item = call->item();
  round->row.target_name = item.target_name;
  round->row.tool = item.name;
  const Decision decision = core_->policy->evaluate(round->principal, item.target_id, item.type, item.name);
  round->row.policy_id = decision.policy_id;
  round->row.policy_name = decision.policy_name;
  if (!decision.allowed()) {
    round->row.decision = "deny";
    call->end("a policy does not permit it any more");
    const auto asked = raw::string_value(raw::find(plain_params, named_by(round->method))).value_or("");
    if (item.type == ResourceType::resource)
      finish(round,
             refusal(rpc::kInvalidParams, "Resource not found",
                     R"({"code":"unknown_item","uri":)" + raw::quote(asked) + "}", "denied", 403),
             nullptr);
    else
      finish(round,
             refusal(rpc::kInvalidParams,
                     (item.type == ResourceType::prompt ? "Unknown prompt: " : "Unknown tool: ") + asked,
                     R"({"code":"unknown_item"})", "denied", 403),
             nullptr);
    co_return;
  }
  round->row.decision = "allow";
  round->reply->on_disconnect([weak = std::weak_ptr(call), raw_round = round.get()] {
    if (const auto alive = weak.lock()) alive->gone(raw_round);
  });
  round->reply->watch();
  if (auto refused = call->resume(round, state->round, responses))
    finish(round, std::move(*refused), nullptr);
}

Task<void> ModernEndpoint::discover(Round round) {
  const auto client = client_of(round);
  if (!client) co_return;
  round->reply->watch();
  const auto view = client->view(round->principal);
  const RequestIds ids{round->request_id, round->row.trace_id};
  const auto reached = co_await legacy_->gather(client, round->principal, view, std::nullopt, false, ids);
  const McpEndpoint::Offer offer = McpEndpoint::offer(*view, reached);
  std::string result =
      R"({"supportedVersions":)" + supported_versions_json() + R"(,"capabilities":)" + offer.capabilities;
  if (!offer.instructions.empty()) result += R"(,"instructions":)" + raw::quote(offer.instructions);
  result += '}';
  finish(round, {false, modern_result("server/discover", result, gateway_info()), 200, {}}, nullptr);
}

ModernCall::Deliver ModernEndpoint::deliver() {
  return [self = shared_from_this()](std::shared_ptr<ModernRound> round, ModernOutcome outcome,
                                     std::shared_ptr<UpstreamConnection> connection) {
    self->finish(round, std::move(outcome), connection.get());
  };
}

std::string ModernEndpoint::audited(const ModernRound& round, const UpstreamConnection* connection) const {
  // What people answered to a server's questions is not the gateway's to keep.
  std::string_view params = raw::find(round.body, "params");
  std::string body = round.body;
  for (const char* name : {"inputResponses", "requestState"}) {
    if (raw::find(params, name).empty()) continue;
    body = raw::with_member(body, "params", raw::with_member(params, name, R"("[redacted]")"));
    params = raw::find(body, "params");
  }
  return legacy_->audited_body(body, round.method, connection);
}

void ModernEndpoint::finish(const Round& round, ModernOutcome outcome, const UpstreamConnection* connection) {
  AuditRecord& row = round->row;
  row.response_status = outcome.status;
  row.error_code = std::move(outcome.error_code);
  const int code = static_cast<int>(raw::int_value(raw::find(outcome.payload, "code")).value_or(0));
  const int status = outcome.is_error ? modern_status(code) : 200;
  std::string message =
      outcome.is_error ? make_raw_error(round->id, outcome.payload) : make_result(round->id, outcome.payload);
  const Duration took = core_->clock->monotonic() - round->started;
  row.duration_ms = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
  row.bytes_out = static_cast<std::int64_t>(message.size());
  row.request_body = audited(*round, connection);
  core_->observer->finished(row, took, round->trace.get());
  if (!core_->audit->sync()) {
    core_->audit->add(std::move(row), true);
    return round->reply->finish(status, message);
  }
  Loop& loop = core_->runtime->impl().any_loop();
  loop.post([&loop, core = core_, round, status, text = std::move(message)]() mutable {
    loop.spawn([](std::shared_ptr<GatewayCore> held, Round one, int http, std::string answer) -> Task<void> {
      if (!co_await held->audit->write(std::move(one->row)))
        answer =
            make_error(one->id, rpc::kInternalError, "The audit log cannot be written: nothing is answered",
                       R"({"code":"storage_unavailable"})");
      one->reply->finish(http, answer);
    }(core, round, status, std::move(text)));
  });
}

}  // namespace mcpgw::detail
