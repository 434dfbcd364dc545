// /metrics: what is counted, under which names, in how much memory.
#include <fstream>
#include <random>

#include "stream_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

HttpResponse scrape(InProcessGateway& gateway, const HttpHeaders& headers = {}) {
  HttpRequest request;
  request.method = "GET";
  request.target = "/metrics";
  request.headers = headers;
  return gateway.send(std::move(request));
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at);
    out.push_back(text.substr(at, end - at));
    at = end == std::string::npos ? text.size() : end + 1;
  }
  return out;
}

/// The value of a series, "(none)" when there is none.
std::string value(const std::string& text, const std::string& series) {
  for (const std::string& line : lines(text))
    if (line.rfind(series + " ", 0) == 0) return line.substr(series.size() + 1);
  return "(none)";
}

std::set<std::string> series(const std::string& text) {
  std::set<std::string> out;
  for (const std::string& line : lines(text))
    if (!line.empty() && line[0] != '#') out.insert(line.substr(0, line.rfind(' ')));
  return out;
}

}  // namespace

TEST_CASE("R64: metrics carry true method, target, status and code") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  git->add_tool("fails",
                [](const FakeUpstream::Call&) { return std::string(R"({"content":[],"isError":true})"); });
  git->add_tool("breaks", [](const FakeUpstream::Call&) -> std::string {
    throw FakeUpstream::FakeError{-32000, "broken"};
  });
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient &alice = gw.as("alice"), &bob = gw.as("bob");
  alice.call_tool("echo");
  alice.call_tool("echo");
  alice.call_tool("fails");
  alice.call_tool("breaks");
  alice.call_tool("nothing");
  alice.request("ping");
  alice.request("no/such/method");
  bob.call_tool("echo");
  HttpRequest nobody;
  nobody.method = "POST";
  nobody.target = "/mcp";
  CHECK(gw.send(nobody).status == 401);

  const HttpResponse answer = scrape(gw);
  CHECK(answer.status == 200);
  CHECK(*answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8");
  const std::string& text = answer.body;
  const auto requests = [&](const std::string& labels) {
    return value(text, "mcpgw_requests_total{" + labels + "}");
  };
  CHECK(requests(R"(method="tools/call",target="git",status="ok",code="ok")") == "2");
  CHECK(requests(R"(method="tools/call",target="git",status="ok",code="tool_error")") == "1");
  CHECK(requests(R"(method="tools/call",target="git",status="error",code="upstream_error")") == "1");
  CHECK(requests(R"(method="tools/call",target="_gateway",status="error",code="unknown_item")") == "2");
  CHECK(requests(R"(method="ping",target="_gateway",status="ok",code="ok")") == "1");
  CHECK(requests(R"(method="other",target="_gateway",status="error",code="unknown_method")") == "1");
  CHECK(requests(R"(method="initialize",target="_gateway",status="ok",code="ok")") == "2");
  CHECK(value(text, R"(mcpgw_request_duration_seconds_count{method="tools/call",target="git"})") == "4");
  CHECK(value(text, R"(mcpgw_request_duration_seconds_bucket{method="tools/call",target="git",le="+Inf"})") ==
        "4");
  CHECK(value(text, R"(mcpgw_tool_calls_total{target="git",tool="echo",status="ok"})") == "2");
  CHECK(value(text, R"(mcpgw_tool_calls_total{target="git",tool="fails",status="error"})") == "1");
  CHECK(value(text, R"(mcpgw_tool_calls_total{target="git",tool="breaks",status="error"})") == "1");
  CHECK(value(text, R"(mcpgw_authz_decisions_total{decision="allow",resource_type="tool"})") == "4");
  CHECK(value(text, R"(mcpgw_upstream_requests_total{target="git",method="tools/call",status="ok"})") == "3");
  CHECK(value(text, R"(mcpgw_upstream_requests_total{target="git",method="tools/call",status="error"})") ==
        "1");
  CHECK(value(text, R"(mcpgw_upstream_request_duration_seconds_count{target="git",method="tools/call"})") ==
        "4");
  CHECK(value(text, R"(mcpgw_upstream_up{target="git"})") == "1");
  CHECK(value(text, "mcpgw_sessions_active") == "2");
  CHECK(value(text, "mcpgw_requests_in_flight") == "0");
  CHECK(value(text, R"(mcpgw_auth_failures_total{reason="unauthorized"})") == "1");
  CHECK(value(text, R"(mcpgw_http_requests_total{route="/mcp",method="POST",code="401"})") == "1");
  CHECK(value(text, R"(mcpgw_storage_errors_total{op="commit"})") == "0");
  CHECK(std::stoul(value(text, R"(mcpgw_storage_duration_seconds_count{op="commit"})")) > 0);
  CHECK(std::stod(value(text, "process_resident_memory_bytes")) > 1e6);
  CHECK(std::stod(value(text, "process_open_fds")) > 2);
  CHECK(value(text, R"(mcp_sessions_active)") == "(none)");
}

TEST_CASE("a denied tool is counted as denied, and a failing target as down") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  gw.allow("alice", "git", "nothing");
  McpClient& alice = gw.as("alice");
  CHECK_FALSE(alice.call_tool("echo").ok());
  std::string text = scrape(gw).body;
  CHECK(value(text,
              R"(mcpgw_requests_total{method="tools/call",target="git",status="denied",code="denied"})") ==
        "1");
  CHECK(value(text, R"(mcpgw_tool_calls_total{target="git",tool="echo",status="denied"})") == "1");
  CHECK(value(text, R"(mcpgw_authz_decisions_total{decision="deny",resource_type="tool"})") == "1");
  gw.allow("alice", "git");
  git->close_on("tools/call");
  CHECK_FALSE(alice.call_tool("echo").ok());
  text = scrape(gw).body;
  CHECK(
      value(
          text,
          R"(mcpgw_requests_total{method="tools/call",target="git",status="error",code="upstream_closed"})") ==
      "1");
}

TEST_CASE("OpenMetrics is given to whom it is asked by, and the token is asked for") {
  InProcessOptions with_token = options();
  with_token.gateway.metrics_token = "only-for-prometheus";
  InProcessGateway gw(std::move(with_token));
  CHECK(scrape(gw).status == 401);
  CHECK(scrape(gw, {{"Authorization", "Bearer " + gw.as("admin").token()}}).status == 401);
  const HttpHeaders token{{"Authorization", "Bearer only-for-prometheus"}};
  CHECK(scrape(gw, token).status == 200);
  HttpHeaders open = token;
  open.emplace_back(
      "Accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2");
  const HttpResponse answer = scrape(gw, open);
  CHECK(*answer.header("Content-Type") == "application/openmetrics-text; version=1.0.0; charset=utf-8");
  CHECK(answer.body.find("# TYPE mcpgw_requests counter\n") != std::string::npos);
  CHECK(answer.body.find("# TYPE mcpgw_requests_total") == std::string::npos);
  CHECK(answer.body.substr(answer.body.size() - 6) == "# EOF\n");
  CHECK(answer.body.find(R"(le="1.0")") != std::string::npos);
  HttpHeaders plain = token;
  plain.emplace_back("Accept", "text/plain, application/openmetrics-text;q=0.1");
  CHECK(*scrape(gw, plain).header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8");
}

TEST_CASE("R35, R64: names that clients choose make no series") {
  InProcessOptions few = options();
  few.gateway.metrics_max_tools = 3;
  InProcessGateway gw(std::move(few));
  auto git = std::make_shared<FakeUpstream>();
  for (int i = 0; i < 6; ++i)
    git->add_tool("tool" + std::to_string(i),
                  [](const FakeUpstream::Call&) { return FakeUpstream::text("x"); });
  const std::string target = gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  const auto random_names = [&](int from, int to) {
    for (int i = from; i < to; ++i) {
      const std::string name = "name-" + std::to_string(i);
      alice.call_tool(name);
      alice.request(name);
      alice.request("resources/read", R"({"uri":"x:)" + name + R"("})");
      alice.request("prompts/get", R"({"name":")" + name + R"("})");
      HttpRequest request;
      request.method = "M" + std::to_string(i);
      request.target = "/api/" + name;
      gw.send(request);
      request.method = "GET";
      request.target = "/" + name;
      gw.send(request);
      request.target = "/api/targets/" + name;
      gw.send(request);
    }
  };
  for (int i = 0; i < 6; ++i) alice.call_tool("tool" + std::to_string(i));
  random_names(0, 3);
  scrape(gw);  // its own route has series, too, and so has the audit log once it has written
  gw.audit_rows();
  const std::string before = scrape(gw).body;
  CHECK(value(before, R"(mcpgw_tool_calls_total{target="git",tool="tool2",status="ok"})") == "1");
  CHECK(value(before, R"(mcpgw_tool_calls_total{target="git",tool="tool3",status="ok"})") == "(none)");
  CHECK(value(before, R"(mcpgw_tool_calls_total{target="git",tool="other",status="ok"})") == "3");
  random_names(3, 100);
  const std::string after = scrape(gw).body;
  // Storage operations and statuses that came late aside, there is nothing new.
  const auto known = series(before);
  for (const std::string& one : series(after))
    CHECK_MESSAGE((known.count(one) == 1 || one.rfind("mcpgw_storage_", 0) == 0), one);
  CHECK(after.find("name-") == std::string::npos);

  // What is no longer configured has no series.
  change(gw.as("admin"), "DELETE", "/api/targets/" + target);
  CHECK(scrape(gw).body.find(R"(target="git")") == std::string::npos);
}

#ifndef MCPGW_TEST_OVER_SOCKET
TEST_CASE("R35, R64: a hundred thousand names of methods and tools leave memory as it was") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr bool kMeasures = false;  // a sanitizer keeps what was freed: pages say nothing of the gateway
#else
  constexpr bool kMeasures = true;
#endif
  constexpr int kNames = kMeasures ? 100000 : 10000;
  constexpr int kBatch = 100;
  class Forgetful final : public AuditSink {
    Status append(const std::vector<AuditRecord>&) override { return {}; }
    Result<AuditPage> query(const AuditQuery&) override { return AuditPage(); }
    Result<std::uint64_t> purge(Time) override { return std::uint64_t{0}; }
  };
  InProcessOptions given = options();
  given.gateway.audit_sink = std::make_shared<Forgetful>();
  InProcessGateway gw(std::move(given));
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.initialize("2025-03-26").ok());
  std::minstd_rand random(42);
  const auto pages = [] {
    std::ifstream file("/proc/self/statm");
    long size = 0, resident = 0;
    file >> size >> resident;
    return resident;
  };
  int next = 0;
  const auto send = [&](int names) {
    for (int done = 0; done < names; done += kBatch) {
      std::string batch;
      for (int i = 0; i < kBatch; ++i, ++next) {
        // Of many lengths, up to what a row would cut.
        std::string name = "n" + std::to_string(random()) + std::string(random() % 300, 'x');
        batch += (i == 0 ? '[' : ',');
        batch += R"({"jsonrpc":"2.0","id":)" + std::to_string(next);
        batch += i % 2 == 0 ? R"(,"method":")" + name + "\"}"
                            : R"(,"method":"tools/call","params":{"name":")" + name + R"("}})";
      }
      REQUIRE(alice.raw(batch + "]", {{"Mcp-Session-Id", alice.session_id()}}).http_status == 200);
    }
  };
  send(5000);
  scrape(gw);
  const auto known = series(scrape(gw).body);
  const long before = pages();
  send(kNames);
  const long grown = pages() - before;
  if (kMeasures) CHECK_MESSAGE(grown < 32 * 1024 * 1024 / 4096, grown, " pages more");
  const std::string text = scrape(gw).body;
  for (const std::string& one : series(text))
    CHECK_MESSAGE((known.count(one) == 1 || one.rfind("mcpgw_storage_", 0) == 0), one);
  CHECK(
      value(
          text,
          R"(mcpgw_requests_total{method="other",target="_gateway",status="error",code="unknown_method"})") ==
      std::to_string((kNames + 5000) / 2));
}
#endif

TEST_CASE("R64: instances that die and instances that are restarted are counted") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  const std::string target = gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  const auto restarts = [&] {
    return value(scrape(gw).body, R"(mcpgw_instance_restarts_total{target="git"})");
  };
  REQUIRE(alice.call_tool("echo").ok());
  CHECK(restarts() == "(none)");
  git->close_on("tools/call");
  CHECK_FALSE(alice.call_tool("echo").ok());
  git->heal();
  CHECK(becomes([&] { return restarts() == "1"; }));
  REQUIRE(alice.call_tool("echo").ok());
  const HttpResponse marked = gw.as("admin").api("POST", "/api/targets/" + target + "/restart-instances");
  CHECK(marked.status == 200);
  CHECK(restarts() == "2");
  REQUIRE(alice.call_tool("echo").ok());
  CHECK(restarts() == "2");
}

TEST_CASE("R64: streams of every kind are counted, and what runs, for everybody and for each") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  Gate gate;
  git->add_tool("slow", gate.handler());
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient &alice = gw.as("alice"), &bob = gw.as("bob");
  REQUIRE(alice.initialize().ok());
  const auto streams = [&](const char* kind) {
    return value(scrape(gw).body, std::string(R"(mcpgw_streams_active{kind=")") + kind + "\"}");
  };
  CHECK(streams("sse") == "0");
  CHECK(streams("listen") == "0");
  CHECK(streams("websocket") == "0");
  HttpRequest get;
  get.method = "GET";
  get.target = "/mcp";
  get.headers = {{"Authorization", "Bearer " + alice.token()},
                 {"Accept", "text/event-stream"},
                 {"Mcp-Session-Id", alice.session_id()}};
  LiveRequest stream(gw, get);
  REQUIRE(stream.status() == 200);
  const std::string params =
      R"({"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",)"
      R"("io.modelcontextprotocol/clientCapabilities":{}}})";
  LiveRequest listen(
      gw, post_request(alice, rpc_request("1", "subscriptions/listen", params),
                       {{"MCP-Protocol-Version", "2026-07-28"}, {"Mcp-Method", "subscriptions/listen"}}));
  REQUIRE(listen.sees("acknowledged"));
  CHECK(streams("sse") == "1");
  CHECK(streams("listen") == "1");
  const auto snapshot = [&](McpClient& who) { return who.api("GET", "/api/observability/snapshot").body; };
  CHECK(raw::find(snapshot(alice), "streams") == "2");
  CHECK(raw::find(snapshot(bob), "streams") == "0");
  CHECK(raw::find(snapshot(gw.as("admin")), "streams") == "2");

  LiveRequest call(gw, post_request(alice, rpc_request("2", "tools/call", R"({"name":"slow"})")));
  REQUIRE(gate.entered(1));
  const auto of_git = [&](McpClient& who) {
    const std::string text = snapshot(who);
    for (const std::string_view target : raw::elements(raw::find(text, "targets")))
      if (raw::find(target, "name") == "\"git\"") return std::string(raw::find(target, "in_flight"));
    return std::string("(none)");
  };
  CHECK(raw::find(snapshot(alice), "in_flight") == "1");
  CHECK(of_git(alice) == "1");
  CHECK(raw::find(snapshot(bob), "in_flight") == "0");
  CHECK(of_git(bob) == "(none)");
  CHECK(of_git(gw.as("admin")) == "1");
  gate.open();
  REQUIRE(call.ends());
  CHECK(becomes([&] { return raw::find(snapshot(alice), "in_flight") == "0"; }));
  CHECK(of_git(alice) == "0");
  stream.cut();
  listen.cut();
  CHECK(becomes([&] { return streams("sse") == "0" && streams("listen") == "0"; }));
}

TEST_CASE("the series of Reflow Gateway's dashboards are there when they are asked for") {
  InProcessOptions old = options();
  old.gateway.metrics_reflow_names = true;
  InProcessGateway gw(std::move(old));
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  gw.as("alice").call_tool("echo");
  gw.as("alice").call_tool("nothing");
  const std::string text = scrape(gw).body;
  CHECK(value(text, R"(mcp_requests_total{method="tools/call",status="success",target="git"})") == "1");
  CHECK(value(text, R"(mcp_requests_total{method="tools/call",status="error",target="_gateway"})") == "1");
  CHECK(value(text, R"(mcp_request_duration_count{method="tools/call",target="git"})") == "1");
  CHECK(value(text, R"(mcp_request_duration_bucket{method="tools/call",target="git",le="60000"})") == "1");
  CHECK(value(text, R"(mcp_tool_calls_total{tool_name="echo",target="git"})") == "1");
  CHECK(value(text, R"(mcp_tool_call_duration_count{tool_name="echo",target="git"})") == "1");
  CHECK(value(text, R"(mcp_authz_decisions_total{decision="allow",resource_type="tool"})") == "1");
  CHECK(value(text, "mcp_sessions_active") == "1");
  CHECK(value(text, R"(mcp_upstream_requests_total{method="tools/call",status="success",target="git"})") ==
        "1");
  CHECK(value(text, R"(mcp_upstream_request_duration_count{method="tools/call",target="git"})") == "1");
}
