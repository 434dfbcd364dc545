// The WebSocket of dashboards: who gets in, what is told to whom, when it is closed, what many of them cost.
#include <sys/resource.h>

#include <filesystem>

#include "dashboard_client.hpp"
#include "effects_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

constexpr const char* kTicketPath = "/api/observability/ticket";

std::string ticket_of(McpClient& client) {
  const HttpResponse answer = client.api("POST", kTicketPath);
  REQUIRE(answer.status == 201);
  return member(answer, "ticket");
}

int status_of(const Served& served, const std::string& query, const std::string& headers) {
  DashboardClient client(served, query, headers);
  return client.read_head().status;
}

std::size_t threads() {
  const auto tasks = std::filesystem::directory_iterator("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

/// Descriptors for many connections in one process, both ends.
void allow_descriptors(rlim_t wanted) {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  REQUIRE(limit.rlim_max >= wanted);
  limit.rlim_cur = std::max(limit.rlim_cur, wanted);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

}  // namespace

TEST_CASE("a dashboard is told figures, requests, sessions and failures") {
  InProcessGateway gw;
  auto fake = echo_upstream("git");
  gw.add_upstream("git", fake);
  const Served served(gw);
  McpClient& admin = gw.as("admin");
  gw.allow("alice", "git");
  DashboardClient dashboard(served, admin);
  const std::string first = dashboard.next("metrics");
  CHECK(field(first, "total_requests") == "0");
  CHECK(field(first, "active_sessions") == "0");

  McpClient& alice = gw.as("alice");
  const auto began = steady_clock::now();
  CHECK(alice.call_tool("echo", R"({"x":1})").ok());
  const std::string made = dashboard.next("session");
  CHECK(field(made, "event") == "created");
  CHECK(field(made, "session_id") == alice.session_id());
  CHECK(field(made, "user_id") == alice.user_id());
  CHECK(field(made, "targets") == R"(["git"])");
  CHECK(field(dashboard.next("activity"), "method") == "initialize");
  const std::string call = dashboard.next("activity");
  CHECK(field(call, "method") == "tools/call");
  CHECK(field(call, "target") == "git");
  CHECK(field(call, "tool") == "echo");
  CHECK(field(call, "user_id") == alice.user_id());
  CHECK(field(call, "user_email") == "alice@example.test");
  CHECK(field(call, "status") == "ok");
  CHECK(field(call, "decision") == "allow");
  CHECK(field(call, "session_id") == alice.session_id());
  CHECK(detail::raw::find(call, "error_code").empty());
  CHECK(field(call, "timestamp").size() == std::string("2026-01-02T03:04:05.678901Z").size());

  alice.request("ping");
  CHECK_FALSE(alice.call_tool("nothing").ok());
  const std::string failed = dashboard.next("activity");
  CHECK(field(failed, "method") == "tools/call");  // the ping is not told
  CHECK(field(failed, "status") == "error");
  CHECK(field(failed, "decision") == "null");
  CHECK(field(failed, "error_code") == "unknown_item");

  fake->close_on("tools/call");
  CHECK_FALSE(alice.call_tool("echo").ok());
  const std::string down = dashboard.next("error");
  CHECK(field(down, "target") == "git");
  CHECK(field(down, "error_type") == "upstream_closed");
  CHECK_FALSE(field(down, "message").empty());
  fake->heal();
  CHECK(alice.call_tool("echo").ok());
  std::string back;
  do back = dashboard.next("error");
  while (!back.empty() && field(back, "error_type") != "recovered");
  CHECK(field(back, "target") == "git");

  const std::string later = dashboard.next("metrics");
  CHECK(field(later, "active_sessions") == "1");
  CHECK(steady_clock::now() - began < std::chrono::seconds(30));
  gw.as("admin").api("POST", "/api/users/" + alice.user_id() + "/recycle");
  CHECK(field(dashboard.next("session"), "event") == "recycled");
}

TEST_CASE("R15: others than administrators are told what concerns themselves") {
  InProcessGateway gw;
  auto git = echo_upstream("git"), wiki = echo_upstream("wiki");
  gw.add_upstream("git", git);
  gw.add_upstream("wiki", wiki);
  const Served served(gw);
  gw.allow("alice", "git");
  gw.allow("bob", "wiki");
  McpClient &alice = gw.as("alice"), &bob = gw.as("bob");
  DashboardClient hers(served, alice), all(served, gw.as("admin"));
  const std::string first = hers.next("metrics");
  CHECK(field(first, "targets").find("git") != std::string::npos);
  CHECK(field(first, "targets").find("wiki") == std::string::npos);
  bob.call_tool("echo");
  wiki->close_on("tools/call");
  bob.call_tool("echo");
  alice.call_tool("echo");
  git->close_on("tools/call");
  alice.call_tool("echo");
  // Everything until the failure of the last call: nothing of it is about bob, his session or his target.
  std::string told;
  for (int calls = 0; calls < 2;) {
    const auto frame = hers.frame();
    REQUIRE(frame);
    told += frame->payload + "\n";
    if (frame->payload.find(R"("method":"tools/call")") != std::string::npos) ++calls;
  }
  CHECK(told.find(alice.user_id()) != std::string::npos);
  CHECK(told.find("upstream_closed") != std::string::npos);
  for (const std::string& secret : {bob.user_id(), bob.session_id(), std::string("bob"), std::string("wiki")})
    CHECK_MESSAGE(told.find(secret) == std::string::npos, secret);
  std::string seen;
  while (seen.find(alice.session_id()) == std::string::npos) {
    const auto frame = all.frame();
    REQUIRE(frame);
    seen += frame->payload;
  }
  CHECK(seen.find(bob.session_id()) != std::string::npos);
}

TEST_CASE("R43: a foreign page is refused before its token is looked at") {
  InProcessGateway gw;
  const Served served(gw);
  const std::string token = DashboardClient::bearer(gw.as("admin").token());
  CHECK(status_of(served, "", "Origin: https://evil.example\r\n") == 403);
  CHECK(status_of(served, "", token + "Origin: https://evil.example\r\n") == 403);
  CHECK(status_of(served, "", token + "Origin: http://localhost:3001\r\n") == 101);
  CHECK(status_of(served, "", token + "Origin: http://localhost:" + std::to_string(served.port()) + "\r\n") ==
        101);
}

TEST_CASE("who gets in: header, ticket or token; everything else is told why not") {
  InProcessGateway gw;
  const Served served(gw);
  McpClient& admin = gw.as("admin");
  const std::string token = admin.token();
  CHECK(status_of(served, "", DashboardClient::bearer(token)) == 101);
  CHECK(status_of(served, "?token=" + token, "") == 101);
  CHECK(status_of(served, "?ticket=" + ticket_of(admin), "") == 101);
  CHECK(status_of(served, "", "") == 401);
  CHECK(status_of(served, "?token=" + token + "x", "") == 401);
  CHECK(status_of(served, "?ticket=AAAA", "") == 401);
  CHECK(status_of(served, "?ticket=", "") == 401);
  CHECK(status_of(served, "?ticket=" + token, "") == 401);
  CHECK(status_of(served, "?token=" + ticket_of(admin), "") == 401);
  // The header rules: what is beside it is not looked at, so nobody is somebody else by accident.
  CHECK(status_of(served, "?token=" + token, "Authorization: Bearer wrong\r\n") == 401);

  HttpRequest request;
  request.method = "GET";
  request.target = std::string("/api/observability/snapshot?token=") + token;
  CHECK(gw.send(request).status == 401);  // R16: here a query is no way in
  request.target = DashboardClient::kPath;
  CHECK(gw.send(request).status == 401);
  request.headers = {{"Authorization", "Bearer " + token}};
  const HttpResponse plain = gw.send(request);
  CHECK(plain.status == 426);
  CHECK(member(plain, "code") == "upgrade_required");
  CHECK(*plain.header("Upgrade") == "websocket");
  CHECK(*plain.header("Sec-WebSocket-Version") == "13");
  request.method = "POST";
  CHECK(gw.send(request).status == 405);

  const HttpResponse narrow = admin.api("POST", "/api/auth/tokens", R"({"name":"m","scopes":["mcp"]})");
  REQUIRE(narrow.status == 201);
  CHECK(status_of(served, "", DashboardClient::bearer(member(narrow, "token"))) == 403);
}

TEST_CASE("R96: a ticket works once, within 30 s, for its user only") {
  auto clock = std::make_shared<ManualClock>();
  InProcessOptions options;
  options.gateway.clock = clock;
  InProcessGateway gw(std::move(options));
  const Served served(gw);
  McpClient &admin = gw.as("admin"), &alice = gw.as("alice");
  const HttpResponse made = alice.api("POST", kTicketPath);
  CHECK(made.status == 201);
  CHECK(member(made, "expires_at") == "2026-01-01T00:00:30.000000Z");
  const std::string ticket = member(made, "ticket");
  DashboardClient hers(served, "?ticket=" + ticket, "");
  CHECK(hers.read_head().status == 101);
  // It is alice's: she is told nothing of others.
  gw.as("bob").initialize();
  alice.initialize();
  CHECK(field(hers.next("activity"), "user_id") == alice.user_id());
  CHECK(status_of(served, "?ticket=" + ticket, "") == 401);

  const std::string late = ticket_of(admin);
  clock->advance(std::chrono::seconds(30));
  CHECK(status_of(served, "?ticket=" + late, "") == 401);
  const std::string in_time = ticket_of(admin);
  clock->advance(std::chrono::seconds(29));
  CHECK(status_of(served, "?ticket=" + in_time, "") == 101);

  // Of many who come with one ticket at once, one gets in.
  const std::string shared = ticket_of(admin);
  std::atomic<int> let_in{0};
  std::vector<std::thread> all;
  for (int i = 0; i < 8; ++i)
    all.emplace_back([&] { let_in += status_of(served, "?ticket=" + shared, "") == 101; });
  for (auto& thread : all) thread.join();
  CHECK(let_in == 1);

  // What became of its user and their token meanwhile counts.
  const std::string before = ticket_of(alice);
  change(admin, "PUT", "/api/users/" + alice.user_id(), R"({"role":"dev"})");
  CHECK(status_of(served, "?ticket=" + before, "") == 401);
  const std::string revoked = ticket_of(alice);
  CHECK(alice.api("POST", "/api/auth/logout").status == 204);
  CHECK(status_of(served, "?ticket=" + revoked, "") == 401);

  // Tickets are counted per user.
  int refused = 0;
  for (int i = 0; i < 150; ++i) refused += admin.api("POST", kTicketPath).status == 429;
  CHECK(refused > 0);
  CHECK(gw.as("bob").api("POST", kTicketPath).status == 201);
}

TEST_CASE("R67: dashboards close with what opened them") {
  InProcessGateway gw;
  const Served served(gw);
  McpClient &admin = gw.as("admin"), &alice = gw.as("alice"), &bob = gw.as("bob"), &eve = gw.as("eve");
  DashboardClient stays(served, admin), logged_out(served, alice), demoted(served, bob),
      disabled(served, eve);
  const auto began = steady_clock::now();
  CHECK(alice.api("POST", "/api/auth/logout").status == 204);
  CHECK(logged_out.closed() == 1008);
  change(admin, "PUT", "/api/users/" + bob.user_id(), R"({"role":"dev"})");
  CHECK(demoted.closed() == 1008);
  change(admin, "PUT", "/api/users/" + eve.user_id(), R"({"enabled":false})");
  CHECK(disabled.closed() == 1008);
  CHECK(steady_clock::now() - began < std::chrono::seconds(5));
  CHECK_FALSE(stays.next("metrics").empty());
  gw.gateway().close(milliseconds(0));
  CHECK(stays.closed() == 1001);
}

TEST_CASE("R66: a dashboard that does not read is closed, and what it sends is bounded") {
  InProcessOptions options;
  options.gateway.session.max_streams_per_user = 3;
  InProcessGateway gw(std::move(options));
  HttpServerOptions patient;  // who does not read answers no ping either: that is not what ends it here
  patient.websocket_ping = std::chrono::minutes(10);
  const Served served(gw, patient);
  McpClient& admin = gw.as("admin");
  {
    DashboardClient talks(served, admin);
    talks.send(client_frame(WebSocketOpcode::text, std::string(4096, 'x')));
    talks.send(client_frame(WebSocketOpcode::binary, "x"));
    CHECK_FALSE(talks.next("metrics").empty());
    talks.send(client_frame(WebSocketOpcode::text, std::string(4097, 'x')));
    CHECK(talks.closed() == 1009);
  }
  DashboardClient slow(served, "", DashboardClient::bearer(admin.token()), 4096);
  CHECK(slow.read_head().status == 101);
  // The kernel holds some megabytes, then the queue fills: other dashboards and the gateway go on.
  DashboardClient reads(served, admin);
  std::thread reader([&] { reads.closed(); });
  const std::string params = R"({"uri":"x:)" + std::string(1900, 'a') + R"("})";
  for (int calls = 0; calls < 6000; ++calls) gw.as("alice").request("resources/read", params);
  CHECK(slow.closed() == 1013);
  gw.gateway().close(milliseconds(0));
  reader.join();
}

TEST_CASE("R34: a user's dashboards and streams are bounded together") {
  InProcessOptions options;
  options.gateway.session.max_streams_per_user = 2;
  InProcessGateway gw(std::move(options));
  const Served served(gw);
  McpClient &admin = gw.as("admin"), &alice = gw.as("alice");
  auto first = std::make_unique<DashboardClient>(served, admin);
  DashboardClient second(served, admin);
  CHECK(status_of(served, "", DashboardClient::bearer(admin.token())) == 429);
  CHECK(status_of(served, "", DashboardClient::bearer(alice.token())) == 101);
  // Streams of MCP clients, too: of a session, of HTTP+SSE, and of revision 2026-07-28.
  REQUIRE(admin.initialize().ok());
  for (const std::string& session : {admin.session_id(), std::string()}) {
    HttpRequest request;
    request.method = "GET";
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + admin.token()}, {"Accept", "text/event-stream"}};
    if (!session.empty()) request.headers.emplace_back("Mcp-Session-Id", session);
    CHECK(gw.send(std::move(request)).status == 429);
  }
  const McpReply listen = admin.raw(
      R"({"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},)"
      R"("_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",)"
      R"("io.modelcontextprotocol/clientCapabilities":{}}}})",
      {{"MCP-Protocol-Version", "2026-07-28"}, {"Mcp-Method", "subscriptions/listen"}});
  CHECK(listen.http_status == 429);
  first.reset();
  CHECK(becomes([&] { return status_of(served, "", DashboardClient::bearer(admin.token())) == 101; }));
}

TEST_CASE("a thousand dashboards cost no threads, and their figures are worked out once") {
  constexpr int kMany = 1000;
  allow_descriptors(2 * kMany + 200);
  InProcessOptions options;
  options.gateway.session.max_streams_per_user = kMany;
  InProcessGateway gw(std::move(options));
  const Served served(gw);
  McpClient& admin = gw.as("admin");
  { const DashboardClient warm(served, admin); }
  const std::size_t before = threads();
  std::vector<std::unique_ptr<DashboardClient>> all;
  for (int i = 0; i < kMany; ++i) {
    all.push_back(std::make_unique<DashboardClient>(served, admin));
    CHECK_FALSE(all.back()->next("metrics").empty());
  }
  CHECK(threads() == before);
  gw.as("alice").initialize();
  std::set<std::string> times;
  for (const auto& one : all) {
    CHECK(field(one->next("activity"), "method") == "initialize");
    times.insert(field(one->next("metrics"), "timestamp"));
  }
  // Not one of its own each: at most as many as there were moments while this went on.
  CHECK(times.size() <= 30);
  CHECK(threads() == before);
}
