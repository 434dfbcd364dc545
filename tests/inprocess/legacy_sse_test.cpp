// The HTTP+SSE transport of revision 2024-11-05: one stream for everything, POSTs that are answered with 202.
#include "stream_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

HttpRequest open_request(const McpClient& client, const std::string& path = "/sse", HttpHeaders more = {}) {
  HttpRequest out;
  out.method = "GET";
  out.target = path;
  out.headers = {{"Authorization", "Bearer " + client.token()}, {"Accept", "text/event-stream"}};
  for (auto& header : more) out.headers.push_back(std::move(header));
  out.remote_address = "127.0.0.1";
  return out;
}

/// A client of this transport.
class SseClient {
 public:
  SseClient(InProcessGateway& gateway, McpClient& user, const std::string& path = "/sse")
      : gateway_(gateway), user_(user), stream_(gateway, open_request(user, path)) {
    REQUIRE(stream_.sees([](const auto& event) { return event.event == "endpoint"; }));
    endpoint_ = stream_.events().front().data;
  }
  LiveRequest& stream() { return stream_; }
  const std::string& endpoint() const { return endpoint_; }
  HttpRequest message(const std::string& body) const {
    HttpRequest out;
    out.method = "POST";
    out.target = endpoint_;
    out.headers = {{"Authorization", "Bearer " + user_.token()}, {"Content-Type", "application/json"}};
    out.body = body;
    out.remote_address = "127.0.0.1";
    return out;
  }
  HttpResponse post(const std::string& body) { return gateway_.send(message(body)); }
  /// Posts a request, which must be taken, and gives the answer from the stream.
  std::string call(const std::string& id, const std::string& method, const std::string& params = "{}") {
    const HttpResponse taken = post(rpc_request(id, method, params));
    CHECK(taken.status == 202);
    CHECK(taken.body.empty());
    return answer(id);
  }
  std::string answer(const std::string& id) {
    std::string out;
    REQUIRE(stream_.sees([&](const auto& event) {
      if (raw::find(event.data, "id") != id || !raw::find(event.data, "method").empty()) return false;
      CHECK(event.event == "message");
      CHECK_FALSE(event.id.has_value());
      out = event.data;
      return true;
    }));
    return out;
  }
  std::string initialize(const std::string& version = "2024-11-05", const std::string& capabilities = "{}") {
    const std::string out = call("\"init\"", "initialize",
                                 R"({"protocolVersion":")" + version + R"(","capabilities":)" + capabilities +
                                     R"(,"clientInfo":{"name":"old","version":"1"}})");
    CHECK(post(R"({"jsonrpc":"2.0","method":"notifications/initialized"})").status == 202);
    return out;
  }
  std::string session_id() const { return endpoint_.substr(endpoint_.find('=') + 1); }

 private:
  InProcessGateway& gateway_;
  McpClient& user_;
  LiveRequest stream_;
  std::string endpoint_;
};

struct World {
  explicit World(InProcessOptions opts = options()) : gw(std::move(opts)), alice(gw.as("alice")) {
    git = echo_upstream("git");
    git->add_tool("slow", gate.handler());
    git->add_resource("file:///a", [](const auto&) { return R"({"contents":[]})"; });
    gw.add_upstream("git", git);
    gw.allow("alice", "git");
  }
  std::string active_sessions() {
    return member(gw.as("admin").api("GET", "/api/observability/snapshot"), "active_sessions");
  }
  std::shared_ptr<FakeUpstream> git;
  Gate gate;
  InProcessGateway gw;
  McpClient& alice;
};

}  // namespace

TEST_CASE("R20: a client of HTTP+SSE gets 202 on its POST and every reply on its stream") {
  World w;
  for (const char* path : {"/sse", "/sse/", "/mcp"}) {
    CAPTURE(path);
    SseClient client(w.gw, w.alice, path);
    CHECK(client.stream().status() == 200);
    CHECK(client.stream().header("Content-Type") == "text/event-stream");
    CHECK(client.stream().header("Cache-Control") == "no-store");
    CHECK(client.endpoint().starts_with("/mcp?session_id="));
    CHECK(client.session_id().size() >= 22);
    for (const char* version : {"2024-11-05", "2025-06-18"}) {
      const std::string hello = client.initialize(version);
      CHECK(raw::string_value(raw::find(raw::find(hello, "result"), "protocolVersion")) == version);
      break;
    }
    CHECK(client.call("1", "tools/list").find("\"echo\"") != std::string::npos);
    CHECK(client.call("\"x\"", "tools/call", R"({"name":"echo","arguments":{"n":1}})")
              .find("git {\\\"n\\\":1}") != std::string::npos);
    CHECK(client.call("3", "no/such").find("-32601") != std::string::npos);
    CHECK(client.call("4", "tools/call", R"({"name":"nope"})").find("-32602") != std::string::npos);
    CHECK(raw::find(client.call("5", "ping"), "result") == "{}");
  }
  // R39: rows as for every other call.
  int calls = 0;
  for (const AuditRecord& row : w.gw.audit_rows())
    if (row.method == "tools/call" && row.response_status == 200) {
      ++calls;
      CHECK(row.client_name == "old");
      CHECK(row.target_name == "git");
      CHECK_FALSE(row.session_id.empty());
    }
  CHECK(calls == 3);
}

TEST_CASE("HTTP+SSE: progress, what a server asks, notifications, cancellation") {
  World w;
  SseClient client(w.gw, w.alice);
  client.initialize("2025-06-18", R"({"sampling":{}})");
  CHECK(client.call("1", "tools/list").find("slow") != std::string::npos);
  REQUIRE(client
              .post(rpc_request("2", "tools/call",
                                R"({"name":"slow","arguments":{},"_meta":{"progressToken":"p"}})"))
              .status == 202);
  REQUIRE(client.stream().sees(R"("progressToken":"p")"));
  w.git->ask("u1", "sampling/createMessage", R"({"messages":[],"maxTokens":1})");
  std::string asked;
  REQUIRE(client.stream().sees([&](const auto& event) {
    if (event.data.find("sampling/createMessage") == std::string::npos) return false;
    asked = raw::find(event.data, "id");
    return true;
  }));
  CHECK(client
            .post(R"({"jsonrpc":"2.0","id":)" + asked +
                  R"(,"result":{"role":"assistant","model":"m","content":{"type":"text","text":"t"}}})")
            .status == 202);
  REQUIRE(becomes([&] {
    for (const std::string& message : w.git->received())
      if (raw::find(message, "id") == "\"u1\"") return !raw::find(message, "result").empty();
    return false;
  }));
  CHECK(client.post(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}})")
            .status == 202);
  REQUIRE(becomes([&] { return w.git->received("notifications/cancelled").size() == 1; }));
  // list_changed comes on this stream, too.
  w.git->add_tool("fresh", [](const auto&) { return FakeUpstream::text(""); });
  w.git->notify("notifications/tools/list_changed");
  CHECK(client.stream().sees("notifications/tools/list_changed"));
  CHECK(client.call("9", "resources/subscribe", R"({"uri":"file:///a"})").find("result") !=
        std::string::npos);
  w.git->notify("notifications/resources/updated", R"({"uri":"file:///a"})");
  CHECK(client.stream().sees("notifications/resources/updated"));
}

TEST_CASE("HTTP+SSE: the end of the stream is the end of the session") {
  World w;
  std::string endpoint;
  {
    SseClient client(w.gw, w.alice);
    client.initialize();
    endpoint = client.endpoint();
    CHECK(w.active_sessions() == "1");
    REQUIRE(client.post(rpc_request("2", "tools/call", R"({"name":"slow","arguments":{}})")).status == 202);
    REQUIRE(w.gate.entered());
    client.stream().cut();
  }
  REQUIRE(becomes([&] { return w.active_sessions() == "0"; }));
  CHECK(becomes([&] { return w.git->received("notifications/cancelled").size() == 1; }));
  HttpRequest late = post_request(w.alice, rpc_request("3", "ping"));
  late.target = endpoint;
  CHECK(w.gw.send(late).status == 404);
  CHECK(becomes([&] {
    for (const AuditRecord& row : w.gw.audit_rows())
      if (row.method == "tools/call") return row.response_status == 499;
    return false;
  }));
  // From the other side: recycled, or a token that is no longer good.
  SseClient recycled(w.gw, w.alice);
  recycled.initialize();
  CHECK(w.alice.api("POST", "/api/sessions/recycle").body.find("\"recycled\":1") != std::string::npos);
  CHECK(recycled.stream().ends());
  CHECK(recycled.post(rpc_request("1", "ping")).status == 404);
  SseClient disabled(w.gw, w.alice);
  disabled.initialize();
  change(w.gw.as("admin"), "PUT", "/api/users/" + w.alice.user_id(), R"({"enabled":false})");
  CHECK(disabled.stream().ends());
  CHECK(disabled.post(rpc_request("1", "ping")).status == 401);
}

TEST_CASE("session_id in a query: of such sessions only, and of their user only") {
  World w;
  SseClient client(w.gw, w.alice);
  client.initialize();
  const std::string ping = rpc_request("1", "ping");
  // R77: another user's answers like an unknown one.
  McpClient& bob = w.gw.as("bob");
  HttpRequest foreign = post_request(bob, ping);
  foreign.target = client.endpoint();
  const HttpResponse refused = w.gw.send(foreign);
  foreign.target = "/mcp?session_id=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
  const HttpResponse unknown = w.gw.send(foreign);
  CHECK(refused.status == 404);
  CHECK(refused.body == unknown.body);
  CHECK(refused.body.find("-32001") != std::string::npos);
  // Nor is one of the other transport reached that way, or this one by the header.
  w.alice.initialize();
  HttpRequest other = post_request(w.alice, ping);
  other.target = "/mcp?session_id=" + w.alice.session_id();
  std::erase_if(other.headers, [](const auto& header) { return header.first == "Mcp-Session-Id"; });
  CHECK(w.gw.send(other).status == 404);
  CHECK(w.alice.raw(ping, {{"Mcp-Session-Id", client.session_id()}}).http_status == 404);
  HttpRequest end = get_request(w.alice);
  end.method = "DELETE";
  for (auto& [name, value] : end.headers)
    if (name == "Mcp-Session-Id") value = client.session_id();
  CHECK(w.gw.send(end).status == 404);
  CHECK(raw::find(client.call("7", "ping"), "result") == "{}");
  CHECK(client.stream().count("\"id\":1") == 0);
  for (const char* query : {"/mcp?session_id=", "/mcp?session_id=%zz", "/mcp?session_id=a%00b"}) {
    CAPTURE(query);
    other.target = query;
    const int status = w.gw.send(other).status;
    CHECK((status == 404 || status == 400));
  }
}

TEST_CASE("HTTP+SSE: what is refused, and how") {
  World w;
  const auto status = [&](HttpRequest request) { return w.gw.send(std::move(request)).status; };
  // R43: before anything else.
  CHECK(status(open_request(w.alice, "/sse", {{"Origin", "https://evil.example"}})) == 403);
  HttpRequest nobody = open_request(w.alice);
  nobody.headers.erase(nobody.headers.begin());
  nobody.headers.emplace_back("Origin", "https://evil.example");
  CHECK(status(nobody) == 403);
  nobody.headers.pop_back();
  CHECK(status(nobody) == 401);
  // R16
  nobody.target = "/sse?token=" + w.alice.token();
  CHECK(status(nobody) == 401);
  for (const char* method : {"POST", "PUT", "DELETE", "HEAD"}) {
    CAPTURE(method);
    HttpRequest request = open_request(w.alice);
    request.method = method;
    const HttpResponse answer = w.gw.send(request);
    CHECK(answer.status == 405);
    CHECK(answer.header("Allow")->find("GET") != std::string::npos);
  }
  CHECK(status(open_request(w.alice, "/sse/x")) == 404);
  HttpRequest json = open_request(w.alice, "/mcp");
  json.headers[1].second = "application/json";
  CHECK(status(json) == 406);
  CHECK(status(open_request(w.alice, "/mcp", {{"MCP-Protocol-Version", "2026-07-28"}})) == 405);
  CHECK(status(open_request(w.alice, "/mcp", {{"MCP-Protocol-Version", "v999"}})) == 400);

  SseClient client(w.gw, w.alice);
  CHECK(client.post("{").status == 400);
  CHECK(client.post("[]").status == 400);
  CHECK(client.post(R"({"jsonrpc":"2.0","id":null,"method":"ping"})").status == 400);
  const HttpResponse early = client.post(rpc_request("1", "tools/list"));
  CHECK(early.status == 400);
  CHECK(early.body.find("initialize") != std::string::npos);
  CHECK(raw::find(client.call("2", "ping"), "result") == "{}");
  CHECK(client.call("3", "initialize", "{}").find("-32602") != std::string::npos);
  client.initialize();
  CHECK(client.call("4", "tools/list").find("echo") != std::string::npos);
  // The same again on the same stream: a new handshake.
  client.stream();
  const std::string again = client.call(
      "5", "initialize",
      R"({"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"n","version":"2"}})");
  CHECK(again.find("2025-03-26") != std::string::npos);
  CHECK(client.call("6", "tools/list").find("echo") != std::string::npos);
  CHECK(w.active_sessions() == "1");
  // Now that it has batches, each answer comes by itself.
  CHECK(client.post(R"([{"jsonrpc":"2.0","id":7,"method":"ping"},{"jsonrpc":"2.0","id":8,"method":"ping"}])")
            .status == 202);
  CHECK(raw::find(client.answer("7"), "result") == "{}");
  CHECK(raw::find(client.answer("8"), "result") == "{}");
}

TEST_CASE("R34: streams and sessions of HTTP+SSE are bounded") {
  InProcessOptions opts = options();
  opts.gateway.session.max_streams_per_user = 2;
  World w(std::move(opts));
  SseClient first(w.gw, w.alice), second(w.gw, w.alice);
  const HttpResponse third = w.gw.send(open_request(w.alice));
  CHECK(third.status == 429);
  CHECK(third.header("Retry-After"));
  CHECK(w.active_sessions() == "2");
  first.stream().cut();
  REQUIRE(becomes([&] { return w.active_sessions() == "1"; }));
  SseClient again(w.gw, w.alice);
  CHECK(again.stream().status() == 200);
}

TEST_CASE("the endpoint stands below the path of the public URL, whatever Host and proxies' headers say") {
  for (const auto& [url, path] : std::vector<std::pair<std::string, std::string>>{
           {"https://mcp.example.com", "/mcp?session_id="},
           {"https://mcp.example.com/", "/mcp?session_id="},
           {"https://example.com/gate/way/", "/gate/way/mcp?session_id="}}) {
    CAPTURE(url);
    InProcessOptions opts = options();
    opts.gateway.public_url = url;
    World w(std::move(opts));
    LiveRequest stream(w.gw, open_request(w.alice, "/sse",
                                          {{"X-Forwarded-Host", "evil.example"},
                                           {"X-Forwarded-Prefix", "/evil"},
                                           {"Forwarded", "host=evil.example"}}));
    REQUIRE(stream.sees([](const auto& event) { return event.event == "endpoint"; }));
    CHECK(stream.events().front().data.starts_with(path));
  }
}

TEST_CASE("R16: neither the query of a POST nor the session id in it is in any log") {
  auto lines = std::make_shared<std::vector<std::string>>();
  auto mutex = std::make_shared<std::mutex>();
  InProcessOptions opts = options();
  opts.gateway.log = [lines, mutex](const LogEvent& event) {
    std::string text = event.module + " " + event.message;
    for (const auto& [name, value] : event.fields) text += " " + name + "=" + value;
    const std::lock_guard lock(*mutex);
    lines->push_back(std::move(text));
  };
  World w(std::move(opts));
  std::string id;
  {
    SseClient client(w.gw, w.alice);
    client.initialize();
    id = client.session_id();
    client.call("1", "tools/call", R"({"name":"echo","arguments":{}})");
    client.post("{");
    McpClient& bob = w.gw.as("bob");
    HttpRequest foreign = post_request(bob, rpc_request("1", "ping"));
    foreign.target = client.endpoint() + "&token=canary";
    CHECK(w.gw.send(foreign).status == 404);
  }
  REQUIRE(becomes([&] { return w.active_sessions() == "0"; }));
  const std::lock_guard lock(*mutex);
  int requests = 0;
  for (const std::string& line : *lines) {
    CAPTURE(line);
    requests += line.find("route=/mcp") != std::string::npos || line.find("route=/sse") != std::string::npos;
    CHECK(line.find(id) == std::string::npos);
    CHECK(line.find("session_id") == std::string::npos);
    CHECK(line.find("canary") == std::string::npos);
  }
  CHECK(requests >= 5);
}
