// Traces: taken in, passed on to servers, told in logs and rows, and exported; whatever the collector does.
#include "dashboard_client.hpp"
#include "effects_support.hpp"
#include "protocol/modern.hpp"
#include "support/scripted_mcp.hpp"
#include "unit/tls_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using detail::raw::elements;
using detail::raw::find;
using detail::raw::string_value;

namespace {

constexpr const char* kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr const char* kParent = "00f067aa0ba902b7";
const std::string kIncoming = std::string("00-") + kTrace + "-" + kParent + "-01";

/// Answers as a collector does, and keeps what it is given.
class Collector : public RequestHandler {
 public:
  explicit Collector(int status = 200) : status_(status) {}
  void handle_async(HttpRequest request, std::shared_ptr<Responder> responder) override {
    HttpResponse response;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
      response.status = status_;
      if (hangs_) {
        kept_.push_back(std::move(responder));
        return;
      }
    }
    response.headers = {{"Content-Type", "application/json"}};
    response.body = "{}";
    responder->send(std::move(response));
  }
  void hang() { hangs_ = true; }
  std::vector<HttpRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  struct Seen {
    std::string trace, id, parent, name, kind, json;
    std::string attribute(const std::string& key) const {
      for (const auto one : elements(find(json, "attributes")))
        if (string_value(find(one, "key")) == key) {
          const auto value = find(one, "value");
          return string_value(find(value, "stringValue"))
              .value_or(string_value(find(value, "intValue")).value_or(""));
        }
      return {};
    }
  };
  std::vector<Seen> spans() const {
    std::vector<Seen> out;
    for (const HttpRequest& request : requests())
      for (const auto resource : elements(find(request.body, "resourceSpans")))
        for (const auto scope : elements(find(resource, "scopeSpans")))
          for (const auto span : elements(find(scope, "spans"))) {
            const auto text = [&](const char* name) { return string_value(find(span, name)).value_or(""); };
            out.push_back({text("traceId"), text("spanId"), text("parentSpanId"), text("name"),
                           std::string(find(span, "kind")), std::string(span)});
          }
    return out;
  }
  std::vector<Seen> named(const std::string& name) const {
    auto all = spans();
    std::erase_if(all, [&](const Seen& one) { return one.name != name; });
    return all;
  }

 private:
  const int status_;
  std::atomic<bool> hangs_{false};
  mutable std::mutex mutex_;  // protects what follows
  std::vector<HttpRequest> requests_;
  std::vector<std::shared_ptr<Responder>> kept_;
};

struct Listening {
  explicit Listening(std::shared_ptr<Collector> with, const TlsOptions& tls = {})
      : collector(std::move(with)) {
    HttpServerOptions options;
    options.tls = tls;
    auto started = HttpServer::start(std::shared_ptr<RequestHandler>(collector), runtime, std::move(options));
    REQUIRE(started);
    server = *started;
  }
  std::shared_ptr<Runtime> runtime = Runtime::create({.loops = 1, .workers = 1});
  std::shared_ptr<Collector> collector;
  std::shared_ptr<HttpServer> server;
};

struct Lines {
  LogSink sink() {
    return [kept = kept_](const LogEvent& event) {
      const std::lock_guard lock(kept->mutex);
      kept->events.push_back(event);
    };
  }
  /// Of a module, the values of a field.
  std::vector<std::string> values(const std::string& module, const std::string& field) const {
    std::vector<std::string> out;
    const std::lock_guard lock(kept_->mutex);
    for (const LogEvent& event : kept_->events)
      if (event.module == module)
        for (const auto& [name, value] : event.fields)
          if (name == field) out.push_back(value);
    return out;
  }
  /// A field of the line that says this; empty when there is none.
  std::string value(const std::string& text, const std::string& field) const {
    const std::lock_guard lock(kept_->mutex);
    for (const LogEvent& event : kept_->events)
      if (event.message.find(text) != std::string::npos)
        for (const auto& [name, value] : event.fields)
          if (name == field) return value;
    return {};
  }

 private:
  struct Kept {
    std::mutex mutex;
    std::vector<LogEvent> events;
  };
  std::shared_ptr<Kept> kept_ = std::make_shared<Kept>();
};

InProcessOptions with_telemetry(const std::string& endpoint) {
  InProcessOptions out;
  out.gateway.upstream.allow_private = true;
  out.gateway.telemetry.enabled = true;
  out.gateway.telemetry.endpoint = endpoint;
  out.gateway.telemetry.service_name = "tested";
  return out;
}

void add_http_target(InProcessGateway& gateway, const ScriptedMcp& server) {
  change(gateway.as("admin"), "POST", "/api/targets",
         R"({"name":"git","transport_type":"streamable-http","url":")" + server.url() + "\"}");
  gateway.allow("alice", "git");
}

McpReply call(McpClient& client, const std::string& tool, HttpHeaders headers) {
  if (client.session_id().empty()) client.initialize();
  headers.emplace_back("Mcp-Session-Id", client.session_id());
  return client.raw(R"({"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":")" + tool + R"("}})",
                    headers);
}

/// A call of revision 2026-07-28; `meta` are further members of its _meta, with a comma before.
McpReply modern_echo(McpClient& client, const std::string& meta, const HttpHeaders& more = {}) {
  const std::string params =
      R"({"name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",)"
      R"("io.modelcontextprotocol/clientCapabilities":{})" +
      meta + "}}";
  HttpHeaders headers = detail::standard_headers("tools/call", params);
  headers.emplace_back("MCP-Protocol-Version", "2026-07-28");
  headers.insert(headers.end(), more.begin(), more.end());
  return client.raw(detail::make_request("1", "tools/call", params), headers);
}

}  // namespace

TEST_CASE("R65: a trace that comes in goes on to the server, and into log, row and dashboard") {
  const ScriptedMcp server;
  Lines log;
  InProcessOptions options;
  options.gateway.upstream.allow_private = true;
  options.gateway.log = log.sink();
  InProcessGateway gw(std::move(options));
  add_http_target(gw, server);
  const Served served(gw);
  DashboardClient dashboard(served, gw.as("admin"));
  McpClient& alice = gw.as("alice");
  alice.initialize();
  const HttpHeaders headers{{"traceparent", kIncoming},
                            {"tracestate", "vendor=1,other=2"},
                            {"baggage", "tenant=blue"},
                            {"X-Other", "stays"}};
  CHECK(call(alice, "echo", headers).ok());
  auto sent = server.received("tools/call");
  REQUIRE(sent.size() == 1);
  // Nobody here records it: the caller stays the parent.
  CHECK(sent[0].header("traceparent") == kIncoming);
  CHECK(sent[0].header("tracestate") == "vendor=1,other=2");
  CHECK(sent[0].header("baggage") == "tenant=blue");
  CHECK(sent[0].header("x-other").empty());
  const auto rows = gw.audit_rows();
  REQUIRE_FALSE(rows.empty());
  CHECK(rows.back().method == "tools/call");
  CHECK(rows.back().trace_id == kTrace);
  CHECK(contains(log.values("access", "trace_id"), kTrace));
  std::string told;
  do told = dashboard.next("activity");
  while (!told.empty() && field(told, "method") != "tools/call");
  CHECK(field(told, "trace_id") == kTrace);

  // Malformed ones are as good as none.
  for (const std::string& bad :
       {std::string("00-") + std::string(32, '0') + "-" + kParent + "-01",
        std::string("ff") + kIncoming.substr(2), kIncoming + "-x", kIncoming.substr(1),
        std::string("00-4BF92F3577B34DA6A3CE929D0E0E4736-") + kParent + "-01", std::string()}) {
    CHECK(call(alice, "echo", {{"traceparent", bad}, {"tracestate", "vendor=1"}}).ok());
    CHECK_MESSAGE(server.received("tools/call").back().header("traceparent").empty(), bad);
    CHECK(server.received("tools/call").back().header("tracestate").empty());
  }
  // A later version may say more.
  CHECK(call(alice, "echo", {{"traceparent", "01" + kIncoming.substr(2) + "-more"}}).ok());
  CHECK(server.received("tools/call").back().header("traceparent") == kIncoming);
  CHECK(call(alice, "echo", {{"baggage", std::string(9000, 'b')}}).ok());
  CHECK(server.received("tools/call").back().header("baggage").empty());
}

TEST_CASE("R65: what is logged of one call bears its ids, whichever way its server is reached") {
  std::optional<ScriptedMcp> http;
  std::optional<ScriptedSse> sse;
  std::string transport = "streamable-http", line;
  SUBCASE("Streamable HTTP") {
    http.emplace([](McpExchange& exchange) {
      if (exchange.method != "tools/call") return false;
      exchange.status(500);
      return true;
    });
    line = "HTTP 500";
  }
  SUBCASE("HTTP+SSE") {
    sse.emplace();
    sse->on_request = [](McpExchange& exchange) {
      if (exchange.method != "tools/call") return false;
      exchange.status(500);
      return true;
    };
    transport = "sse";
    line = "HTTP 500 to a message";
  }
  SUBCASE("2026-07-28") {
    http.emplace([](McpExchange& exchange) {
      if (exchange.method == "server/discover") {
        exchange.result(
            R"({"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"resultType":"complete"})");
        return true;
      }
      if (exchange.method != "tools/call") return false;
      exchange.stream();
      exchange.event("no JSON");
      exchange.stream_result(R"({"content":[],"resultType":"complete"})");
      exchange.end_stream();
      return true;
    });
    line = "an event that is not JSON was skipped";
  }
  Lines log;
  InProcessOptions options;
  options.gateway.upstream.allow_private = true;
  options.gateway.log = log.sink();
  InProcessGateway gw(std::move(options));
  change(gw.as("admin"), "POST", "/api/targets",
         R"({"name":"git","transport_type":")" + transport + R"(","url":")" +
             (http ? http->url() : sse->url()) + "\"}");
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  call(alice, "echo", {{"traceparent", kIncoming}, {"X-Request-Id", "the-call"}});
  REQUIRE(becomes([&] { return !log.value(line, "target").empty(); }));
  CHECK(log.value(line, "target") == "git");
  CHECK(log.value(line, "request_id") == "the-call");
  CHECK(log.value(line, "trace_id") == kTrace);
}

TEST_CASE("spans of a call: server, authorize, credential and upstream, each below the request") {
  const ScriptedMcp server;
  Listening listening(std::make_shared<Collector>());
  const Collector& collector = *listening.collector;
  InProcessGateway gw(with_telemetry(listening.server->url()));
  add_http_target(gw, server);
  McpClient& alice = gw.as("alice");
  alice.initialize();
  CHECK(call(alice, "echo", {{"traceparent", kIncoming}, {"tracestate", "vendor=1"}}).ok());
  REQUIRE(becomes([&] { return collector.named("tools/call").size() == 1; }));
  REQUIRE(becomes([&] {
    const auto all = collector.named("POST /mcp");
    return std::any_of(all.begin(), all.end(), [](const auto& one) { return one.trace == kTrace; });
  }));
  const auto upstream = collector.named("tools/call")[0];
  std::vector<Collector::Seen> mine = collector.spans();
  std::erase_if(mine, [](const auto& one) { return one.trace != kTrace; });
  CHECK(mine.size() == 4);
  const auto one = [&](const std::string& name) {
    for (const auto& span : mine)
      if (span.name == name) return span;
    return Collector::Seen();
  };
  const auto root = one("POST /mcp"), authorize = one("authorize"), credential = one("credential");
  CHECK(root.parent == kParent);
  CHECK(root.kind == "2");
  CHECK(upstream.kind == "3");
  for (const auto& span : {authorize, credential, upstream}) CHECK(span.parent == root.id);
  CHECK(authorize.attribute("mcpgw.decision") == "allow");
  CHECK(root.attribute("mcp.method.name") == "tools/call");
  CHECK(root.attribute("mcpgw.target") == "git");
  CHECK(root.attribute("gen_ai.tool.name") == "echo");
  CHECK(root.attribute("http.response.status_code") == "200");
  CHECK(root.attribute("enduser.id") == alice.user_id());
  CHECK(upstream.attribute("mcpgw.target") == "git");
  CHECK(string_value(find(root.json, "traceState")) == "vendor=1");
  // What the server gets names the span that stands for it.
  CHECK(server.received("tools/call")[0].header("traceparent") ==
        std::string("00-") + kTrace + "-" + upstream.id + "-01");
  const HttpRequest request = collector.requests()[0];
  CHECK(request.target == "/v1/traces");
  CHECK(*request.header("Content-Type") == "application/json");
  CHECK(request.body.find(R"({"key":"service.name","value":{"stringValue":"tested"}})") != std::string::npos);

  // A trace that begins here, a failure, and a request of the API.
  server.received();
  CHECK_FALSE(call(alice, "nothing", {}).ok());
  gw.as("admin").api("GET", "/api/users");
  REQUIRE(becomes([&] { return !collector.named("GET /api/users").empty(); }));
  CHECK(collector.named("GET /api/users")[0].parent.empty());
  CHECK(gw.audit_rows().back().trace_id.size() == 32);
  // No secret of a caller in any of it.
  for (const auto& sent : collector.requests()) CHECK(sent.body.find(alice.token()) == std::string::npos);
}

TEST_CASE("a trace that a message of 2026-07-28 brings in its _meta counts like one of headers") {
  const std::string brought =
      R"(,"traceparent":")" + kIncoming + R"(","tracestate":"vendor=1","baggage":"tenant=blue")";
  const std::string other = std::string("00-") + std::string(32, 'a') + "-" + kParent + "-01";
  SUBCASE("nobody records: it goes on as it came") {
    const ScriptedMcp server;
    InProcessOptions options;
    options.gateway.upstream.allow_private = true;
    InProcessGateway gw(std::move(options));
    add_http_target(gw, server);
    McpClient& alice = gw.as("alice");
    CHECK(modern_echo(alice, brought).ok());
    const auto sent = server.received("tools/call");
    REQUIRE(sent.size() == 1);
    CHECK(sent[0].header("traceparent") == kIncoming);
    CHECK(sent[0].header("tracestate") == "vendor=1");
    CHECK(sent[0].header("baggage") == "tenant=blue");
    CHECK(gw.audit_rows().back().trace_id == kTrace);
    // The header is what proxies on the way have seen and continued.
    CHECK(modern_echo(alice, brought, {{"traceparent", other}}).ok());
    CHECK(server.received("tools/call").back().header("traceparent") == other);
    CHECK(modern_echo(alice, R"(,"traceparent":"00-nonsense","tracestate":7)").ok());
    CHECK(server.received("tools/call").back().header("traceparent").empty());
    CHECK(gw.audit_rows().back().trace_id.empty());
  }
  SUBCASE("the gateway records: its spans are below the caller's") {
    const ScriptedMcp server;
    Listening listening(std::make_shared<Collector>());
    const Collector& collector = *listening.collector;
    InProcessGateway gw(with_telemetry(listening.server->url()));
    add_http_target(gw, server);
    CHECK(modern_echo(gw.as("alice"), brought).ok());
    REQUIRE(becomes([&] {
      const auto all = collector.named("POST /mcp");
      return std::any_of(all.begin(), all.end(),
                         [](const auto& one) { return one.trace == kTrace && one.parent == kParent; });
    }));
    const auto upstream = collector.named("tools/call");
    REQUIRE(upstream.size() == 1);
    CHECK(upstream[0].trace == kTrace);
    CHECK(server.received("tools/call")[0].header("traceparent") ==
          std::string("00-") + kTrace + "-" + upstream[0].id + "-01");
  }
}

TEST_CASE("who samples decides: the caller, else the configured part") {
  const ScriptedMcp server;
  Listening listening(std::make_shared<Collector>());
  InProcessOptions options = with_telemetry(listening.server->url());
  options.gateway.telemetry.sampling = 0;
  InProcessGateway gw(std::move(options));
  add_http_target(gw, server);
  McpClient& alice = gw.as("alice");
  CHECK(call(alice, "echo", {{"traceparent", kIncoming.substr(0, 53) + "00"}}).ok());
  REQUIRE_FALSE(server.received("tools/call").empty());
  CHECK(server.received("tools/call").back().header("traceparent") == kIncoming.substr(0, 53) + "00");
  CHECK(call(alice, "echo", {}).ok());
  const std::string own = server.received("tools/call").back().header("traceparent");
  CHECK(own.size() == 55);
  CHECK(own.substr(53) == "00");
  CHECK(call(alice, "echo", {{"traceparent", kIncoming}}).ok());
  REQUIRE(becomes([&] { return !listening.collector->named("POST /mcp").empty(); }));
  gw.gateway().close(milliseconds(0));
  for (const auto& span : listening.collector->spans()) CHECK(span.trace == kTrace);
}

TEST_CASE("spans go to a collector over TLS, and to none that is not trusted") {
  const ScriptedMcp server;
  const TestTls& tls = TestTls::shared();
  ScratchDirectory directory;
  const std::string ca = directory.file("ca.crt");
  tls.authority.write_certificate(ca);
  Listening listening(std::make_shared<Collector>(), tls.options);
  InProcessOptions options = with_telemetry("https://localhost:" + std::to_string(listening.server->port()));
  options.gateway.telemetry.ca = ca;
  {
    InProcessGateway gw(std::move(options));
    add_http_target(gw, server);
    CHECK(call(gw.as("alice"), "echo", {{"traceparent", kIncoming}}).ok());
    CHECK(becomes([&] { return !listening.collector->named("tools/call").empty(); }));
  }
  const std::size_t before = listening.collector->requests().size();
  InProcessGateway stranger(with_telemetry("https://localhost:" + std::to_string(listening.server->port())));
  CHECK(stranger.as("alice").request("tools/list").ok());
  stranger.gateway().close(milliseconds(0));
  CHECK(listening.collector->requests().size() == before);
}

TEST_CASE("R65: a collector that is away, refuses or hangs stops nothing; what is lost is counted") {
  const ScriptedMcp server;
  const auto lost = [](InProcessGateway& gw) {
    HttpRequest request;
    request.method = "GET";
    request.target = "/metrics";
    const std::string text = gw.send(request).body;
    const std::string name = R"(mcpgw_spans_total{result="dropped"} )";
    const auto at = text.find(name);
    return at == std::string::npos ? 0 : std::atoi(text.c_str() + at + name.size());
  };
  SUBCASE("away") {
    std::string endpoint;
    {
      const Listening gone(std::make_shared<Collector>());
      endpoint = gone.server->url();
    }
    Lines log;
    InProcessOptions options = with_telemetry(endpoint);
    options.gateway.log = log.sink();
    InProcessGateway gw(std::move(options));
    add_http_target(gw, server);
    for (int i = 0; i < 20; ++i) CHECK(call(gw.as("alice"), "echo", {{"traceparent", kIncoming}}).ok());
    CHECK(becomes([&] { return log.values("telemetry", "cause").size() == 1; }));
    const auto began = steady_clock::now();
    gw.gateway().close(milliseconds(0));
    CHECK(steady_clock::now() - began < std::chrono::seconds(15));
    CHECK(lost(gw) > 0);
  }
  SUBCASE("refuses") {
    Listening listening(std::make_shared<Collector>(400));
    InProcessGateway gw(with_telemetry(listening.server->url()));
    add_http_target(gw, server);
    CHECK(call(gw.as("alice"), "echo", {{"traceparent", kIncoming}}).ok());
    CHECK(becomes([&] { return lost(gw) > 0; }));
  }
  SUBCASE("hangs, and more comes than is kept") {
    Listening listening(std::make_shared<Collector>());
    listening.collector->hang();
    InProcessGateway gw(with_telemetry(listening.server->url()));
    add_http_target(gw, server);
    McpClient& alice = gw.as("alice");
    alice.initialize();
    for (int i = 0; i < 10000 && lost(gw) == 0; ++i)
      for (int n = 0; n < 100; ++n) alice.request("ping");
    CHECK(lost(gw) > 0);
    const auto began = steady_clock::now();
    CHECK(alice.request("tools/list").ok());
    gw.gateway().close(milliseconds(0));
    CHECK(steady_clock::now() - began < std::chrono::seconds(15));
  }
}

TEST_CASE("telemetry that cannot be set up is told at the start") {
  for (const auto& [endpoint, ca, field_name] :
       {std::tuple("ftp://collector", "", "telemetry.endpoint"),
        std::tuple("collector", "", "telemetry.endpoint"),
        std::tuple("https://localhost", "/nonexistent/ca.pem", "telemetry.ca")}) {
    GatewayOptions options;
    options.storage = make_memory_storage();
    options.telemetry.enabled = true;
    options.telemetry.endpoint = endpoint;
    options.telemetry.ca = ca;
    const auto made = Gateway::create(std::move(options));
    REQUIRE_FALSE(made);
    CHECK(made.error().field == field_name);
  }
}
