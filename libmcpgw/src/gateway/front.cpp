#include "gateway/front.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "gateway/metrics.hpp"
#include "gateway/statistics.hpp"
#include "json/raw.hpp"
#include "mcpgw/version.hpp"
#include "observability/tracer.hpp"
#include "protocol/modern.hpp"
#include "runtime/poller.hpp"
#include "runtime/url.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::string_view kDefaultAllowedHeaders =
    "Authorization, Content-Type, Accept, If-Match, X-Request-Id, Mcp-Session-Id, MCP-Protocol-Version, "
    "Mcp-Method, "
    "Mcp-Name, Last-Event-ID, traceparent, tracestate";
constexpr std::string_view kDefaultExposedHeaders =
    "Mcp-Session-Id, MCP-Protocol-Version, ETag, Link, Location, X-Total-Count, X-Request-Id, Retry-After, "
    "WWW-Authenticate";
constexpr std::string_view kMethods = "GET, POST, PUT, DELETE, OPTIONS";

bool valid_request_id(const std::string& text) {
  return !text.empty() && text.size() <= 128 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

std::string join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) {
    if (!out.empty()) out += ", ";
    out += part;
  }
  return out;
}

bool is_loopback_name(std::string_view host) {
  return iequals(host, "localhost") || host == "127.0.0.1" || host == "::1" || host == "[::1]";
}

}  // namespace

bool origin_matches(std::string_view pattern, std::string_view origin) {
  const auto star = pattern.find('*');
  if (star == std::string_view::npos) return iequals(pattern, origin);
  const std::string_view head = pattern.substr(0, star), tail = pattern.substr(star + 1);
  if (origin.size() < head.size() + tail.size() || !starts_with_icase(origin, head) ||
      !iequals(origin.substr(origin.size() - tail.size()), tail))
    return false;
  const std::string_view middle = origin.substr(head.size(), origin.size() - head.size() - tail.size());
  // A star for a port stands for digits; elsewhere for labels of a host name, never for a slash or another
  // scheme.
  if (!head.empty() && head.back() == ':')
    return !middle.empty() && middle.find_first_not_of("0123456789") == std::string_view::npos;
  return !middle.empty() && middle.find_first_of("/:@?#") == std::string_view::npos;
}

/// Adds what every answer carries, counts what is in flight, and writes the access log line.
class Front::Reply : public Responder, public std::enable_shared_from_this<Front::Reply> {
 public:
  Reply(std::shared_ptr<GatewayCore> core, std::shared_ptr<Responder> inner)
      : core_(std::move(core)), inner_(std::move(inner)) {}

  ~Reply() override {
    if (!answered_) {
      HttpResponse response = http_error(500, "internal", "The request was not answered", request_id);
      send(std::move(response));
    }
    uncount();
    end_trace(status_);
  }

  // Set before the handler runs.
  std::string request_id;
  std::shared_ptr<RequestTrace> trace;  ///< null: there is none
  std::string method;
  std::string route;  ///< template: never the query string
  std::string user_id;
  std::string remote_address;
  HttpHeaders extra;
  bool no_store = false;
  bool forwarded = false;  ///< by another replica
  std::atomic<bool> counted{false};
  Statistics::InFlight of_user;  ///< while it is counted, and its user known
  Duration started{};
  std::size_t bytes_in = 0;

  void send(HttpResponse response) override {
    answered_ = true;
    decorate(response);
    note(response.status, response.body.size(), code_of(response));
    uncount();
    end_trace(response.status);
    inner_->send(std::move(response));
  }

  std::shared_ptr<ResponseStream> start(HttpResponse head) override {
    answered_ = true;
    decorate(head);
    note(head.status, head.body.size(), {});
    status_ = head.status;
    auto stream = inner_->start(std::move(head));
    return stream ? std::make_shared<CountedStream>(std::move(stream), shared_from_this()) : stream;
  }

  /// An open WebSocket is no request in flight.
  std::shared_ptr<WebSocket> accept_websocket(WebSocketOptions options) override {
    HttpResponse head;
    head.status = 101;
    head.headers = std::move(options.headers);
    decorate(head);
    options.headers = std::move(head.headers);
    auto socket = inner_->accept_websocket(std::move(options));
    if (socket == nullptr) return nullptr;
    answered_ = true;
    note(head.status, 0, {});
    uncount();
    end_trace(head.status);
    return socket;
  }

  void on_disconnect(std::function<void()> callback) override { inner_->on_disconnect(std::move(callback)); }

  /// An answer that stays open: no request in flight any more.
  void leave_flight() { uncount(); }

  void fail(int status, std::string_view code, std::string_view message, HttpHeaders headers = {}) {
    HttpResponse response = http_error(status, code, message, request_id);
    for (auto& header : headers) response.headers.push_back(std::move(header));
    send(std::move(response));
  }

  void json(int status, std::string body) {
    HttpResponse response;
    response.status = status;
    response.headers.emplace_back("Content-Type", "application/json");
    response.body = std::move(body);
    send(std::move(response));
  }

 private:
  /// The request is in flight until its stream ends.
  class CountedStream final : public ResponseStream {
   public:
    CountedStream(std::shared_ptr<ResponseStream> inner, std::shared_ptr<Reply> reply)
        : inner_(std::move(inner)), reply_(std::move(reply)) {}
    bool write(std::string data) override { return inner_->write(std::move(data)); }
    void close() override {
      reply_->uncount();
      reply_->end_trace(reply_->status_);
      inner_->close();
    }

   private:
    const std::shared_ptr<ResponseStream> inner_;
    const std::shared_ptr<Reply> reply_;
  };

  void uncount() {
    if (!counted.exchange(false)) return;
    core_->in_flight.fetch_sub(1, std::memory_order_relaxed);
    of_user.end();
  }

  void decorate(HttpResponse& response) const {
    if (response.header("X-Request-Id") == nullptr) response.headers.emplace_back("X-Request-Id", request_id);
    if (response.header("X-Content-Type-Options") == nullptr)
      response.headers.emplace_back("X-Content-Type-Options", "nosniff");
    if (no_store && response.header("Cache-Control") == nullptr)
      response.headers.emplace_back("Cache-Control", "no-store");
    for (const auto& header : extra) response.headers.push_back(header);
  }

  /// Of a refusal: those are counted by what they say.
  static std::string code_of(const HttpResponse& response) {
    if (response.status != 401 && response.status != 403) return {};
    return raw::string_value(raw::find(response.body, "code")).value_or("");
  }

  void end_trace(int status) {
    if (trace && trace->recording()) trace->end(core_->clock->now(), status);
  }

  /// The head of the answer is on its way.
  void note(int status, std::size_t bytes, std::string_view code) const {
    if (!kObserved) return;
    const Duration took = core_->clock->monotonic() - started;
    core_->metrics->http(route, method, status, code, took);
    if (trace && trace->recording()) {
      trace->name(method + ' ' + route);
      trace->attribute("http.request.method", method);
      trace->attribute("http.route", route);
      trace->attribute("client.address", remote_address);
      trace->attribute("enduser.id", user_id);
      trace->attribute("mcpgw.request_id", request_id);
    }
    if (!core_->logs(LogLevel::info, "access")) return;
    std::vector<std::pair<std::string, std::string>> fields{{"method", method},
                                                            {"route", route},
                                                            {"status", std::to_string(status)},
                                                            {"duration_us", std::to_string(took.count())},
                                                            {"bytes_in", std::to_string(bytes_in)},
                                                            {"bytes_out", std::to_string(bytes)},
                                                            {"client", remote_address},
                                                            {"request_id", request_id}};
    if (!user_id.empty()) fields.emplace_back("user_id", user_id);
    if (trace && !trace->trace_id().empty()) fields.emplace_back("trace_id", trace->trace_id());
    core_->options.log({LogLevel::info, "access", "request", std::move(fields)});
  }

  const std::shared_ptr<GatewayCore> core_;
  const std::shared_ptr<Responder> inner_;
  std::atomic<bool> answered_{false};
  std::atomic<int> status_{500};  ///< of a stream
};

Front::Front(std::shared_ptr<GatewayCore> core, std::unique_ptr<AdminApi> admin)
    : core_(std::move(core)),
      admin_(std::move(admin)),
      endpoint_(std::make_shared<McpEndpoint>(core_)),
      cores_(core_),
      endpoints_(endpoint_),
      socket_(core_),
      docs_(core_->options.docs_enabled, core_->options.docs_script, core_->options.docs_script_gzip),
      web_files_(core_->options.web_files) {}

std::shared_ptr<Front::Reply> Front::make_reply(HttpRequest& request,
                                                std::shared_ptr<Responder> responder) const {
  auto reply = std::make_shared<Reply>(cores_.here(), std::move(responder));
  const std::string* id = request.header("X-Request-Id");
  reply->request_id = id != nullptr && valid_request_id(*id) ? *id : make_uuid(*core_->ids);
  begin_trace(request, *reply);
  reply->method = request.method;
  reply->remote_address = request.remote_address;
  reply->started = core_->clock->monotonic();
  reply->bytes_in = request.body.size();
  return reply;
}

void Front::handle(const std::shared_ptr<Front>& self, HttpRequest request,
                   std::shared_ptr<Responder> responder) {
  auto reply = make_reply(request, std::move(responder));
  reply->extra = cors_headers(request);
  Poller* const poller = Poller::stepping();
  if (poller == nullptr) return route(std::move(request), std::move(reply));
  auto go_on = [self, request = std::move(request), reply = std::move(reply)]() mutable {
    self->route(std::move(request), std::move(reply));
  };
  using GoOn = decltype(go_on);
  poller->put_off<&GoOn::operator()>(std::make_shared<GoOn>(std::move(go_on)));
}

void Front::handle_forwarded(HttpRequest request, std::shared_ptr<Responder> responder) {
  auto reply = make_reply(request, std::move(responder));
  reply->route = "/mcp (forwarded)";
  reply->no_store = true;
  reply->forwarded = true;
  mcp(std::move(request), std::move(reply));
}

void Front::begin_trace(HttpRequest& request, Reply& reply) const {
  if (!kObserved) return;
  TraceContext incoming = read_trace_context(request.headers);
  const std::string_view path = request.path();
  // Who asks whether we live, or for figures, does so all the time.
  const bool probe = path == "/health" || path == "/ready" || path == "/metrics";
  const bool begins = incoming.trace_id.empty();
  // A message of 2026-07-28 may bring its trace along: read when it is.
  const std::string* version = request.header("MCP-Protocol-Version");
  const bool may_come = request.method == "POST" && version != nullptr && is_modern_version(*version);
  if (begins && !may_come && incoming.baggage.empty() && (probe || !core_->tracer)) return;
  reply.trace = std::make_shared<RequestTrace>(std::move(incoming), probe ? nullptr : core_->tracer,
                                               core_->clock->now());
  // What comes after reads the header.
  if (begins && !reply.trace->trace_id().empty())
    request.headers.emplace_back("traceparent", reply.trace->traceparent(nullptr));
}

void Front::route(HttpRequest request, std::shared_ptr<Reply> reply) {
  const std::string path(request.path());
  const bool get = request.method == "GET" || request.method == "HEAD";
  if (request.method == "OPTIONS" && request.header("Access-Control-Request-Method") != nullptr) {
    reply->route = "preflight";
    return preflight(request, reply);
  }
  const auto only = [&](std::string_view methods) {
    HttpResponse response;
    if (request.method == "OPTIONS") {
      response.status = 204;
    } else {
      response = http_error(405, "method_not_allowed", "This method is not offered here", reply->request_id);
    }
    response.headers.emplace_back("Allow", std::string(methods));
    reply->send(std::move(response));
  };
  if (path == "/mcp" || path == "/mcp/") {
    reply->route = "/mcp";
    reply->no_store = true;
    if (request.method != "POST" && request.method != "GET" && request.method != "DELETE")
      return only("GET, POST, DELETE, OPTIONS");
    return mcp(std::move(request), std::move(reply));
  }
  if (path == "/sse" || path == "/sse/") {
    reply->route = "/sse";
    reply->no_store = true;
    if (request.method != "GET") return only("GET, OPTIONS");
    return mcp(std::move(request), std::move(reply));
  }
  if (path == ObservabilitySocket::kPath && request.method == "GET") {
    reply->route = path;
    reply->no_store = true;
    return observe(std::move(request), std::move(reply));
  }
  if (path.starts_with("/api/") || path == "/api") {
    reply->route = AdminApi::route_template(path);
    if (reply->route.empty()) reply->route = "unknown";
    reply->no_store = true;
    return api(std::move(request), std::move(reply));
  }
  if (path == "/health" || path == "/ready" || path == "/version" ||
      (path == "/metrics" && core_->options.metrics_enabled)) {
    reply->route = path;
    if (!get) return only("GET, HEAD, OPTIONS");
    if (path == "/health") return reply->json(200, R"({"status":"ok"})");
    if (path == "/ready") return ready(reply);
    if (path == "/metrics") return metrics(request, reply);
    std::string versions;
    for (const std::string& version : supported_versions()) {
      if (!versions.empty()) versions += ',';
      versions += raw::quote(version);
    }
    return reply->json(200, R"({"name":"mcpgw","version":)" + raw::quote(mcpgw::version()) + R"(,"commit":)" +
                                raw::quote(mcpgw::commit()) + R"(,"protocol_versions":[)" + versions + "]}");
  }
  if (docs_.has(path)) {
    reply->route = path;
    if (!get) return only("GET, HEAD, OPTIONS");
    return reply->send(docs_.answer(request));
  }
  if (web_files_.has(path)) {
    reply->route = path;
    if (!get) return only("GET, HEAD, OPTIONS");
    return reply->send(web_files_.answer(request));
  }
  reply->route = "unknown";
  reply->fail(404, "not_found", "There is nothing at this path");
}

HttpHeaders Front::cors_headers(const HttpRequest& request) const {
  const std::string* origin = request.header("Origin");
  if (origin == nullptr) return {};
  for (const std::string& pattern : core_->options.cors.allowed_origins) {
    const bool any = pattern == "*";
    if (!any && !origin_matches(pattern, *origin)) continue;
    HttpHeaders out{{"Access-Control-Allow-Origin", any ? "*" : *origin}, {"Vary", "Origin"}};
    if (!any) out.emplace_back("Access-Control-Allow-Credentials", "true");
    const auto& exposed = core_->options.cors.expose_headers;
    out.emplace_back("Access-Control-Expose-Headers",
                     exposed.empty() ? std::string(kDefaultExposedHeaders) : join(exposed));
    return out;
  }
  return {};
}

void Front::preflight(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  HttpResponse response;
  response.status = 204;
  if (!reply->extra.empty()) {
    response.headers.emplace_back("Access-Control-Allow-Methods", std::string(kMethods));
    const auto& configured = core_->options.cors.allowed_headers;
    std::string allowed = configured.empty() ? std::string(kDefaultAllowedHeaders) : join(configured);
    if (std::find(configured.begin(), configured.end(), "*") != configured.end()) {
      allowed = kDefaultAllowedHeaders;
      if (const std::string* wanted = request.header("Access-Control-Request-Headers")) {
        for (const std::string& name : split(*wanted, ',')) {
          const std::string_view one = trim(name);
          const bool token =
              !one.empty() && one.size() <= 100 && std::all_of(one.begin(), one.end(), [](char c) {
                return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_';
              });
          if (token && starts_with_icase(one, "mcp-param-")) allowed += ", " + std::string(one);
        }
      }
    }
    response.headers.emplace_back("Access-Control-Allow-Headers", std::move(allowed));
    response.headers.emplace_back("Access-Control-Max-Age", "300");
  }
  reply->send(std::move(response));
}

bool Front::origin_allowed(const HttpRequest& request) const {
  const GatewayOptions& options = core_->options;
  const auto own_url = options.public_url.empty() ? std::nullopt : parse_url(options.public_url);
  const int port = core_->listen_port.load(std::memory_order_relaxed);
  if (!own_url && core_->loopback_only.load(std::memory_order_relaxed)) {
    // Against DNS rebinding: whoever listens on loopback only is addressed by a loopback name.
    const std::string* host = request.header("Host");
    if (host != nullptr) {
      std::string_view name = *host;
      const auto colon = name.rfind(':');
      if (colon != std::string_view::npos && name.find(']', colon) == std::string_view::npos)
        name = name.substr(0, colon);
      if (!is_loopback_name(name)) return false;
    }
  }
  const std::string* origin = request.header("Origin");
  if (origin == nullptr) return true;
  const auto listed = [&](const std::vector<std::string>& patterns) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
      return pattern == "*" || origin_matches(pattern, *origin);
    });
  };
  if (listed(options.cors.allowed_origins) || listed(options.mcp_allowed_origins)) return true;
  if (own_url && iequals(own_url->origin(), *origin)) return true;
  const auto url = parse_url(*origin);
  return url && url->target == "/" && is_loopback_name(url->host) && port != 0 && url->port == port;
}

void Front::mcp(HttpRequest request, std::shared_ptr<Reply> reply) {
  // Whoever forwards has compared the origin with its own addresses.
  if (!reply->forwarded && !origin_allowed(request))
    return reply->fail(403, "origin_not_allowed", "This origin may not use the gateway");
  if (core_->draining.load(std::memory_order_acquire))
    return reply->fail(503, "shutting_down", "The gateway is closing", {{"Retry-After", "5"}});
  if (core_->storage_health.lost(core_->options.storage_grace))
    return reply->fail(503, "storage_unavailable", "The storage has been away for too long: try again later",
                       {{"Retry-After", "5"}});
  if (request.method == "POST") {
    reply->counted = true;
    if (core_->in_flight.fetch_add(1, std::memory_order_relaxed) >= core_->options.limits.max_in_flight)
      return reply->fail(503, "overloaded", "Too many requests are running", {{"Retry-After", "1"}});
  }
  const std::string* authorization = request.header("Authorization");
  auto principal =
      core_->authenticator->authenticate(authorization == nullptr ? std::string_view() : *authorization);
  if (!principal) return fail_unauthenticated(*reply, principal.error(), authorization != nullptr);
  reply->user_id = principal->user_id;
  if (kObserved && reply->counted) reply->of_user = core_->statistics->begin(principal->user_id);
  if (!principal->token_id.empty() && core_->repository->token_touch_due(principal->token_id))
    (void)core_->runtime->post_blocking(
        [core = core_, id = principal->token_id] { core->repository->touch_token(id); });
  RequestMeta meta{reply->request_id,
                   reply->trace ? reply->trace->trace_id() : std::string(),
                   std::move(*principal),
                   [weak = std::weak_ptr(reply)] {
                     if (const auto alive = weak.lock()) alive->leave_flight();
                   },
                   reply->trace,
                   reply->forwarded};
  if (!meta.principal.has_scope("mcp")) {
    HttpResponse refusal =
        http_error(403, "insufficient_scope", "The token does not have the scope mcp", reply->request_id);
    refusal.headers.emplace_back("WWW-Authenticate",
                                 R"(Bearer realm="mcpgw", error="insufficient_scope", scope="mcp")");
    if (request.method != "POST") return reply->send(std::move(refusal));
    return endpoint_->reject(reply, meta, request, std::move(refusal), "insufficient_scope");
  }
  Loop* here = Loop::current();
  Loop& loop =
      here != nullptr && core_->runtime->impl().owns(here) ? *here : core_->runtime->impl().any_loop();
  auto begin = [&loop, endpoint = endpoints_.here(), request = std::move(request), reply,
                meta = std::move(meta)]() mutable {
    loop.spawn(endpoint->handle(std::move(request), std::move(reply), std::move(meta), endpoint));
  };
  using Begin = decltype(begin);
  Poller* const poller = Poller::stepping();
  if (poller != nullptr && here == &loop) {
    poller->put_off<&Begin::operator()>(std::make_shared<Begin>(std::move(begin)));
  } else {
    loop.dispatch(std::move(begin));
  }
}

void Front::api(HttpRequest request, std::shared_ptr<Reply> reply) {
  if (core_->draining.load(std::memory_order_acquire))
    return reply->fail(503, "shutting_down", "The gateway is closing", {{"Retry-After", "5"}});
  reply->counted = true;
  if (core_->in_flight.fetch_add(1, std::memory_order_relaxed) >= core_->options.limits.max_in_flight)
    return reply->fail(503, "overloaded", "Too many requests are running", {{"Retry-After", "1"}});
  auto& runtime = core_->runtime->impl();
  const AdminApi::Work work = AdminApi::work(request.method, request.path());
  auto& pool = work == AdminApi::Work::hashes_password      ? runtime.hash_workers()
               : work == AdminApi::Work::waits_for_upstream ? runtime.waiting_workers()
                                                            : runtime.workers();
  const bool taken = pool.post([self = shared_from_this(), request = std::move(request), reply] {
    reply->send(self->admin_->handle(request, reply->request_id));
  });
  if (!taken) reply->fail(503, "overloaded", "The gateway is overloaded", {{"Retry-After", "1"}});
}

void Front::fail_unauthenticated(Reply& reply, const Error& error, bool token_given) const {
  std::string challenge = R"(Bearer realm="mcpgw")";
  if (token_given) challenge += R"(, error="invalid_token")";
  reply.fail(401, error.reason, error.message, {{"WWW-Authenticate", std::move(challenge)}});
}

void Front::observe(HttpRequest request, std::shared_ptr<Reply> reply) {
  if (!origin_allowed(request))
    return reply->fail(403, "origin_not_allowed", "This origin may not use the gateway");
  if (core_->draining.load(std::memory_order_acquire))
    return reply->fail(503, "shutting_down", "The gateway is closing", {{"Retry-After", "5"}});
  reply->counted = true;
  if (core_->in_flight.fetch_add(1, std::memory_order_relaxed) >= core_->options.limits.max_in_flight)
    return reply->fail(503, "overloaded", "Too many requests are running", {{"Retry-After", "1"}});
  // Tickets are in storage.
  const bool taken =
      core_->runtime->post_blocking([self = shared_from_this(), request = std::move(request), reply] {
        const auto principal = self->socket_.authenticate(request);
        if (!principal && principal.error().code == ErrorCode::unauthenticated)
          return self->fail_unauthenticated(*reply, principal.error(),
                                            principal.error().reason != "unauthorized");
        if (!principal)
          return reply->fail(503, "storage_unavailable", "The ticket cannot be looked up now",
                             {{"Retry-After", "5"}});
        reply->user_id = principal->user_id;
        if (!principal->has_scope("api"))
          return reply->fail(
              403, "insufficient_scope", "The token does not have the scope api",
              {{"WWW-Authenticate", R"(Bearer realm="mcpgw", error="insufficient_scope", scope="api")"}});
        self->socket_.open(request, reply, *principal, reply->request_id);
      });
  if (!taken) reply->fail(503, "overloaded", "The gateway is overloaded", {{"Retry-After", "1"}});
}

void Front::ready(const std::shared_ptr<Reply>& reply) {
  const bool taken = core_->runtime->post_blocking([core = core_, reply] {
    const bool draining = core->draining.load(std::memory_order_acquire);
    const bool storage = core->repository->storage().ping().has_value();
    const bool disk = !core->audit->failing();
    const bool ok = storage && disk && !draining;
    std::string body = R"({"status":")" + std::string(ok ? "ready" : "not_ready") +
                       R"(","checks":{"storage":")" + (storage ? "ok" : "unavailable") +
                       R"(","migrations":")" + (storage ? "ok" : "unknown") + R"(","disk":")" +
                       (disk ? "ok" : "audit rows cannot be stored") + "\"";
    if (draining) body += R"(,"serving":"draining")";
    reply->json(ok ? 200 : 503, body + "}}");
  });
  if (!taken) reply->fail(503, "overloaded", "The gateway is overloaded", {{"Retry-After", "1"}});
}

void Front::metrics(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  const std::string& token = core_->options.metrics_token;
  if (!token.empty()) {
    const std::string* header = request.header("Authorization");
    const bool bearer = header != nullptr && starts_with_icase(*header, "bearer ");
    if (!bearer || !equal_constant_time(trim(std::string_view(*header).substr(7)), token))
      return reply->fail(401, "unauthorized", "The metrics need their token",
                         {{"WWW-Authenticate", R"(Bearer realm="mcpgw")"}});
  }
  HttpResponse response;
  const std::string* accept = request.header("Accept");
  std::string type;
  response.body = core_->metrics->render(*core_, accept != nullptr ? *accept : std::string_view(), type);
  response.headers.emplace_back("Content-Type", std::move(type));
  reply->send(std::move(response));
}

}  // namespace mcpgw::detail
