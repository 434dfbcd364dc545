#include "support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

struct Case {
  const char* what;
  std::string body;
  int http;
  int code;
  const char* id;  ///< raw; "" = the member is absent
};

std::string deep(int levels) {
  return R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":)" +
         std::string(static_cast<std::size_t>(levels), '[') +
         std::string(static_cast<std::size_t>(levels), ']') + "}}";
}

}  // namespace

TEST_CASE("R50: malformed messages get the stated status and code") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  alice.initialize();
  const std::vector<Case> cases = {
      {"not JSON", "{", 400, -32700, "null"},
      {"empty", "", 400, -32700, "null"},
      {"two values", "{} {}", 400, -32700, "null"},
      {"bad UTF-8", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", 400, -32700, "null"},
      {"duplicate member", R"({"jsonrpc":"2.0","id":1,"id":2,"method":"ping"})", 400, -32700, "null"},
      {"duplicate member, escaped", R"({"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"})",
       400, -32700, "null"},
      {"duplicate name in params",
       R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"echo"}})", 400, -32700,
       "null"},
      {"nested too deep", deep(200), 400, -32700, "null"},
      {"array", "[]", 400, -32600, ""},
      {"batch where it is not allowed", R"([{"jsonrpc":"2.0","id":1,"method":"ping"}])", 400, -32600, ""},
      {"number", "7", 400, -32600, ""},
      {"no jsonrpc", R"({"id":1,"method":"ping"})", 400, -32600, "1"},
      {"jsonrpc 1.0", R"({"jsonrpc":"1.0","id":1,"method":"ping"})", 400, -32600, "1"},
      {"no method", R"({"jsonrpc":"2.0","id":1})", 400, -32600, "1"},
      {"method no string", R"({"jsonrpc":"2.0","id":1,"method":7})", 400, -32600, "1"},
      {"id null", R"({"jsonrpc":"2.0","id":null,"method":"ping"})", 400, -32600, ""},
      {"id fraction", R"({"jsonrpc":"2.0","id":1.5,"method":"ping"})", 400, -32600, ""},
      {"id true", R"({"jsonrpc":"2.0","id":true,"method":"ping"})", 400, -32600, ""},
      {"id object", R"({"jsonrpc":"2.0","id":{},"method":"ping"})", 400, -32600, ""},
      {"params string", R"({"jsonrpc":"2.0","id":1,"method":"ping","params":"x"})", 400, -32600, "1"},
      {"unknown method", R"({"jsonrpc":"2.0","id":"m","method":"no/such"})", 200, -32601, "\"m\""},
      {"method of another server", R"({"jsonrpc":"2.0","id":1,"method":"server/discover"})", 200, -32601,
       "1"},
      {"name missing", R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}})", 200, -32602, "1"},
      {"params missing", R"({"jsonrpc":"2.0","id":1,"method":"tools/call"})", 200, -32602, "1"},
      {"params array", R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]})", 200, -32602, "1"},
      {"name no string", R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}})", 200, -32602,
       "1"},
      {"arguments no object",
       R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":[]}})", 200,
       -32602, "1"},
      {"uri missing", R"({"jsonrpc":"2.0","id":1,"method":"resources/read","params":{}})", 200, -32602, "1"},
  };
  for (const Case& one : cases) {
    CAPTURE(one.what);
    const McpReply reply = alice.raw(one.body, {{"Mcp-Session-Id", alice.session_id()}});
    CHECK(reply.http_status == one.http);
    CHECK(reply.error_code() == one.code);
    CHECK(std::string(detail::raw::find(reply.body, "id")) == one.id);
    CHECK_FALSE(detail::raw::find(reply.body, "error", "data").empty());
  }
  CHECK(git->received("tools/call").empty());
  CHECK(alice.call_tool("echo").ok());
}

TEST_CASE("notifications never get a body") {
  InProcessGateway gw(options());
  McpClient& alice = gw.as("alice");
  alice.initialize();
  const HttpHeaders session{{"Mcp-Session-Id", alice.session_id()}};
  for (const char* body :
       {R"({"jsonrpc":"2.0","method":"notifications/initialized"})",
        R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}})",
        R"({"jsonrpc":"2.0","method":"notifications/unheard-of"})",
        R"({"jsonrpc":"2.0","id":12345,"result":{}})",
        R"({"jsonrpc":"2.0","id":"x","error":{"code":1,"message":""}})"}) {
    const McpReply reply = alice.raw(body, session);
    CHECK(reply.http_status == 202);
    CHECK(reply.body.empty());
  }
}

TEST_CASE("sessions: missing, unknown, foreign and ended") {
  InProcessGateway gw(options());
  McpClient& alice = gw.as("alice");
  McpClient& bob = gw.as("bob");
  alice.initialize();
  bob.initialize();
  const std::string ping = R"({"jsonrpc":"2.0","id":1,"method":"ping"})";
  const McpReply missing = alice.raw(ping);
  CHECK(missing.http_status == 400);
  CHECK(missing.error_code() == -32600);
  const McpReply unknown = alice.raw(ping, {{"Mcp-Session-Id", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}});
  // R77: another user's session answers exactly like an unknown one.
  const McpReply foreign = alice.raw(ping, {{"Mcp-Session-Id", bob.session_id()}});
  CHECK(unknown.http_status == 404);
  CHECK(unknown.error_code() == -32001);
  CHECK(foreign.http_status == 404);
  CHECK(foreign.body == unknown.body);
  CHECK(bob.raw(ping, {{"Mcp-Session-Id", bob.session_id()}}).ok());

  const auto end = [&](McpClient& who, const std::string& id) {
    HttpRequest request;
    request.method = "DELETE";
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + who.token()}};
    if (!id.empty()) request.headers.emplace_back("Mcp-Session-Id", id);
    return gw.send(std::move(request)).status;
  };
  CHECK(end(alice, "") == 400);
  CHECK(end(alice, bob.session_id()) == 404);
  CHECK(end(bob, bob.session_id()) == 204);
  CHECK(end(bob, bob.session_id()) == 404);
  CHECK(bob.raw(ping, {{"Mcp-Session-Id", bob.session_id()}}).http_status == 404);
}

TEST_CASE("before the body is looked at: token, scope, origin, size, type, accept") {
  InProcessOptions opts = options();
  opts.gateway.limits.mcp_body = 10000;
  InProcessGateway gw(std::move(opts));
  McpClient& alice = gw.as("alice");
  const auto send = [&](HttpHeaders headers,
                        std::string body = R"({"jsonrpc":"2.0","id":1,"method":"ping"})") {
    HttpRequest request;
    request.method = "POST";
    request.target = "/mcp";
    request.headers = std::move(headers);
    request.body = std::move(body);
    return gw.send(std::move(request));
  };
  const std::pair<std::string, std::string> token{"Authorization", "Bearer " + alice.token()};

  HttpResponse none = send({});
  CHECK(none.status == 401);
  REQUIRE(none.header("WWW-Authenticate"));
  CHECK(*none.header("WWW-Authenticate") == R"(Bearer realm="mcpgw")");
  HttpResponse bad = send({{"Authorization", "Bearer x.y.z"}});
  CHECK(bad.status == 401);
  CHECK(bad.header("WWW-Authenticate")->find("invalid_token") != std::string::npos);
  CHECK(send({{"Authorization", "Basic " + alice.token()}}).status == 401);
  // R16: a token in the query is no token.
  HttpRequest query;
  query.method = "POST";
  query.target = "/mcp?token=" + alice.token();
  CHECK(gw.send(std::move(query)).status == 401);

  auto narrow =
      gw.gateway().authenticator()->mint(alice.user_id(), "narrow", TokenKind::api, {"api"}, std::nullopt);
  REQUIRE(narrow);
  CHECK(send({{"Authorization", "Bearer " + narrow->token}}).status == 403);

  // R43: a foreign origin is refused before the token is looked at.
  CHECK(send({{"Origin", "https://evil.example"}}).status == 403);
  CHECK(send({token, {"Origin", "null"}}).status == 403);
  CHECK(send({token, {"Origin", "http://localhost:3001"}}).status == 400);

  CHECK(send({token}, std::string(20000, ' ')).status == 413);
  for (const char* type : {"text/plain", "*/*", "", "+json", "application/jsonp"})
    CHECK(send({token, {"Content-Type", type}}).status == 415);
  CHECK(send({token, {"Content-Type", "application/json; charset=utf-8"}}).status == 400);
  // R87: an Accept that rules out our forms.
  CHECK(send({token, {"Accept", "text/html"}}).status == 406);
  CHECK(send({token, {"Accept", "application/json;q=0, text/event-stream;q=0.0"}}).status == 406);
  CHECK(send({token, {"Accept", "*/*"}}).status == 400);

  for (const HttpResponse& response : {none, bad}) {
    CHECK(response.header("X-Request-Id"));
    CHECK(*response.header("X-Content-Type-Options") == "nosniff");
    CHECK(*response.header("Cache-Control") == "no-store");
    CHECK(response.body.find("\"code\"") != std::string::npos);
  }
}

TEST_CASE("paths, methods and revisions") {
  InProcessGateway gw(options());
  McpClient& alice = gw.as("alice");
  const auto send = [&](const char* method, const char* target, HttpHeaders headers = {}) {
    HttpRequest request;
    request.method = method;
    request.target = target;
    request.headers = {{"Authorization", "Bearer " + alice.token()}};
    for (auto& header : headers) request.headers.push_back(std::move(header));
    return gw.send(std::move(request));
  };
  CHECK(send("GET", "/health").body == R"({"status":"ok"})");
  CHECK(send("GET", "/ready").status == 200);
  CHECK(send("GET", "/version").body.find("2025-11-25") != std::string::npos);
  CHECK(send("GET", "/nothing").status == 404);
  CHECK(send("GET", "/mcp/x").status == 404);
  const HttpResponse put = send("PUT", "/mcp");
  CHECK(put.status == 405);
  CHECK(put.header("Allow")->find("POST") != std::string::npos);
  CHECK(send("GET", "/mcp", {{"Accept", "application/json"}}).status == 406);
  CHECK(send("GET", "/mcp", {{"MCP-Protocol-Version", "2099-01-01"}}).status == 405);
  CHECK(send("GET", "/mcp", {{"Mcp-Session-Id", "nope"}, {"Accept", "text/event-stream"}}).status == 404);

  // R41: the version that the client asks for when it is spoken, else the newest.
  for (const char* version : {"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"})
    CHECK(alice.initialize(version).result().find(std::string("\"protocolVersion\":\"") + version) !=
          std::string::npos);
  CHECK(alice.initialize("1999-01-01").result().find(R"("protocolVersion":"2025-11-25")") !=
        std::string::npos);
  const McpReply unsupported =
      alice.raw(R"({"jsonrpc":"2.0","id":5,"method":"ping"})",
                {{"Mcp-Session-Id", alice.session_id()}, {"MCP-Protocol-Version", "v999"}});
  CHECK(unsupported.http_status == 400);
  CHECK(unsupported.error_code() == -32022);
  CHECK(unsupported.body.find(R"("requested":"v999")") != std::string::npos);
  CHECK(alice.raw(R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{}}})")
            .error_code() == -32602);
}

TEST_CASE("batches of 2025-03-26") {
  InProcessGateway gw(options());
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  alice.initialize("2025-03-26");
  const HttpHeaders session{{"Mcp-Session-Id", alice.session_id()}};
  const McpReply reply = alice.raw(
      R"([{"jsonrpc":"2.0","id":"a","method":"ping"},{"jsonrpc":"2.0","method":"notifications/x"},)"
      R"({"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{}}},{"jsonrpc":"2.0","id":3}])",
      session);
  CHECK(reply.http_status == 200);
  const auto answers = detail::raw::elements(reply.body);
  REQUIRE(answers.size() == 3);
  CHECK(std::string(detail::raw::find(answers[0], "id")) == "\"a\"");
  CHECK(std::string(detail::raw::find(answers[1], "result")).find("git {}") != std::string::npos);
  CHECK(detail::raw::int_value(detail::raw::find(answers[2], "error", "code")) == -32600);
  CHECK(alice.raw("[]", session).error_code() == -32600);
  CHECK(alice.raw(R"([{"jsonrpc":"2.0","method":"notifications/x"}])", session).http_status == 202);
}

TEST_CASE("CORS: preflight, allowed and other origins") {
  InProcessGateway gw(options());
  const auto preflight = [&](const char* origin) {
    HttpRequest request;
    request.method = "OPTIONS";
    request.target = "/api/auth/login";
    request.headers = {{"Origin", origin}, {"Access-Control-Request-Method", "POST"}};
    return gw.send(std::move(request));
  };
  const HttpResponse ok = preflight("http://localhost:3001");
  CHECK(ok.status == 204);
  REQUIRE(ok.header("Access-Control-Allow-Origin"));
  CHECK(*ok.header("Access-Control-Allow-Origin") == "http://localhost:3001");
  CHECK(ok.header("Access-Control-Allow-Methods")->find("DELETE") != std::string::npos);
  CHECK(ok.header("Access-Control-Allow-Headers")->find("Authorization") != std::string::npos);
  const HttpResponse other = preflight("https://evil.example");
  CHECK(other.status == 204);
  CHECK(other.header("Access-Control-Allow-Origin") == nullptr);
  CHECK(other.header("Access-Control-Allow-Methods") == nullptr);
}
