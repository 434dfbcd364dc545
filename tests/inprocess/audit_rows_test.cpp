// Which rows the audit log gets: every kind of message, session event and write, with what became of it.
#include <map>

#include "stream_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

/// A row in short: "kind method status decision code target tool", "-" for what is empty.
std::string summary(const AuditRecord& row) {
  const auto shown = [](const std::string& text) { return text.empty() ? std::string("-") : text; };
  return row.kind + " " + shown(row.method) + " " + std::to_string(row.response_status) + " " +
         shown(row.decision) + " " + shown(row.error_code) + " " + shown(row.target_name) + " " +
         shown(row.tool);
}

struct Case {
  const char* name;
  std::function<void()> act;
  Strings rows;  ///< as summary() says, in any order
};

/// The rows of each case, told apart by a write of the administrator after each.
class Recorder {
 public:
  Recorder(InProcessGateway& gateway, std::string user_id)
      : gateway_(gateway), user_id_(std::move(user_id)) {}

  void run(const std::vector<Case>& cases) {
    mark(0);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      cases[i].act();
      mark(i + 1);
    }
    REQUIRE(becomes([&] { return read(cases.size()); }));
    for (std::size_t i = 0; i < cases.size(); ++i) {
      Strings got, wanted = cases[i].rows;
      for (const AuditRecord& row : rows_[i + 1]) got.push_back(summary(row));
      std::sort(got.begin(), got.end());
      std::sort(wanted.begin(), wanted.end());
      std::string text = std::string(cases[i].name) + ":";
      for (const std::string& one : got) text += "\n  " + one;
      CHECK_MESSAGE(got == wanted, text);
    }
  }
  const std::vector<AuditRecord>& rows(std::size_t index) { return rows_[index + 1]; }
  std::vector<AuditRecord> all() const {
    std::vector<AuditRecord> out;
    for (const auto& [number, rows] : rows_) out.insert(out.end(), rows.begin(), rows.end());
    return out;
  }

 private:
  void mark(std::size_t number) {
    change(gateway_.as("admin"), "PUT", "/api/users/" + user_id_,
           R"({"groups":["case-)" + std::to_string(number) + R"("]})");
  }
  bool read(std::size_t last) {
    AuditQuery query;
    query.limit = 10000;
    const auto page = gateway_.gateway().audit_sink()->query(query);
    REQUIRE(page);
    rows_.clear();
    std::size_t number = 0;
    bool complete = false;
    for (auto row = page->records.rbegin(); row != page->records.rend(); ++row) {
      const auto at = row->request_body.find("\"case-");
      if (row->kind == "admin" && row->method == "PUT /api/users/{id}" && at != std::string::npos) {
        const std::size_t marked = std::stoul(row->request_body.substr(at + 6));
        number = marked + 1;
        complete |= marked == last;
      } else {
        rows_[number].push_back(*row);
      }
    }
    return complete;
  }

  InProcessGateway& gateway_;
  const std::string user_id_;
  std::map<std::size_t, std::vector<AuditRecord>> rows_;
};

/// A gateway with one server that does whatever goes wrong, and alice in a session.
struct World {
  explicit World(InProcessOptions given = options()) : gw(std::move(given)) {
    git->add_tool("fails",
                  [](const FakeUpstream::Call&) { return std::string(R"({"content":[],"isError":true})"); });
    git->add_tool("breaks", [](const FakeUpstream::Call&) -> std::string {
      throw FakeUpstream::FakeError{-32000, "broken"};
    });
    git->add_tool("secret", [](const FakeUpstream::Call&) { return FakeUpstream::text("x"); });
    git->add_tool("asks", [up = git.get()](const FakeUpstream::Call& call) {
      up->ask("in-call",
              call.arguments.find("elicit") != std::string::npos ? "elicitation/create" : "roots/list");
      return FakeUpstream::text("asked");
    });
    Target target;
    target.name = "git";
    target.transport_type = TransportType::stdio;
    target.command = "x";
    target.timeout_ms = 3000;
    target_id = gw.add_upstream(target, git);
    gw.allow("alice", "git");
    Policy deny;
    deny.name = "not this one";
    deny.effect = Effect::deny;
    deny.priority = 1000;
    deny.target_id = target_id;
    deny.resource_pattern = "secret";
    deny.subjects.push_back({});
    REQUIRE(gw.gateway().repository()->create_policy(deny));
  }
  HttpResponse post(McpClient& client, const std::string& body, HttpHeaders more = {}) {
    return gw.send(post_request(client, body, std::move(more)));
  }

  std::shared_ptr<FakeUpstream> git = echo_upstream("git");
  InProcessGateway gw;
  std::string target_id;
};

/// A log that can be out of order for a while.
class FailingSink final : public AuditSink {
 public:
  Status append(const std::vector<AuditRecord>& batch) override {
    if (down) return Error(ErrorCode::unavailable, "storage_unavailable", "The disk is full");
    return inner_->append(batch);
  }
  Result<AuditPage> query(const AuditQuery& query) override { return inner_->query(query); }
  Result<std::uint64_t> purge(Time cutoff) override {
    ++purges;
    return inner_->purge(cutoff);
  }
  std::atomic<bool> down{false};
  std::atomic<int> purges{0};

 private:
  const std::shared_ptr<AuditSink> inner_ = make_memory_audit_sink();
};

int ready(InProcessGateway& gateway) {
  HttpRequest request;
  request.method = "GET";
  request.target = "/ready";
  return gateway.send(std::move(request)).status;
}

const std::string kOk = "mcp tools/call 200 allow - git echo";

}  // namespace

TEST_CASE("R39: every message has its row, whatever became of it") {
  constexpr std::size_t kBody = 4096;
  InProcessOptions given = options();
  given.gateway.limits.mcp_body = kBody;
  World world(std::move(given));
  McpClient &alice = world.gw.as("alice"), &bob = world.gw.as("bob");
  const std::string api_only = world.gw.gateway()
                                   .authenticator()
                                   ->mint(alice.user_id(), "api", TokenKind::api, {"api"}, std::nullopt)
                                   ->token;
  REQUIRE(alice.initialize("2025-11-25", R"({"roots":{}})").ok());
  const auto post = [&](const std::string& body) { return world.post(alice, body).status; };
  const auto failing = [&](void (FakeUpstream::*fault)(const std::string&)) {
    (world.git.get()->*fault)("tools/call");
    CHECK_FALSE(alice.call_tool("echo").ok());
    world.git->heal();
  };
  const std::vector<Case> cases{
      {"a result", [&] { CHECK(alice.call_tool("echo").ok()); }, {kOk}},
      {"a list", [&] { CHECK(alice.request("tools/list").ok()); }, {"mcp tools/list 200 allow - - -"}},
      {"a result that says it is an error",
       [&] { alice.call_tool("fails"); },
       {"mcp tools/call 200 allow tool_error git fails"}},
      {"an error of the server",
       [&] { alice.call_tool("breaks"); },
       {"mcp tools/call 502 allow upstream_error git breaks"}},
      {"denied by a policy",
       [&] { CHECK_FALSE(alice.call_tool("secret").ok()); },
       {"mcp tools/call 403 deny denied git secret"}},
      {"no policy at all",
       [&] { CHECK_FALSE(bob.call_tool("echo").ok()); },
       {"session created 200 - - - -", "mcp initialize 200 - - - -",
        "mcp tools/call 404 - unknown_item - echo"}},
      {"unknown item",
       [&] { CHECK_FALSE(alice.call_tool("nothing").ok()); },
       {"mcp tools/call 404 - unknown_item - nothing"}},
      {"bad params",
       [&] { CHECK_FALSE(alice.request("tools/call", R"({"name":5})").ok()); },
       {"mcp tools/call 400 - invalid_params - -"}},
      {"unknown method",
       [&] { CHECK_FALSE(alice.request("no/such").ok()); },
       {"mcp no/such 404 - unknown_method - -"}},
      {"time limit",
       [&] { failing(&FakeUpstream::hang); },
       {"mcp tools/call 504 allow upstream_timeout git echo"}},
      {"the server closes",
       [&] { failing(&FakeUpstream::close_on); },
       {"mcp tools/call 502 allow upstream_closed git echo"}},
      {"cancelled by the client",
       [&] {
         CHECK(alice.call_tool("echo").ok());
         world.git->hang("tools/call");
         const auto before = world.git->received("tools/call").size();
         LiveRequest call(world.gw,
                          post_request(alice, rpc_request("77", "tools/call", R"({"name":"echo"})")));
         REQUIRE(becomes([&] { return world.git->received("tools/call").size() > before; }));
         CHECK(post(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":77}})") ==
               202);
         CHECK(call.ends());
         world.git->heal();
       },
       {kOk, "mcp tools/call 499 allow cancelled git echo"}},
      {"no JSON", [&] { CHECK(post("{") == 400); }, {"mcp invalid 400 - invalid_request - -"}},
      {"no message", [&] { CHECK(post(R"({"id":1})") == 400); }, {"mcp invalid 400 - invalid_request - -"}},
      {"a batch where there are none",
       [&] { CHECK(post("[" + rpc_request("1", "ping") + "]") == 400); },
       {"mcp invalid 400 - invalid_request - -"}},
      {"an id that is in use",
       [&] {
         world.git->hang("tools/call");
         const auto before = world.git->received("tools/call").size();
         LiveRequest call(world.gw,
                          post_request(alice, rpc_request("78", "tools/call", R"({"name":"echo"})")));
         REQUIRE(becomes([&] { return world.git->received("tools/call").size() > before; }));
         CHECK(post(rpc_request("78", "tools/list")) == 400);
         CHECK(call.ends());
         world.git->heal();
       },
       {"mcp tools/list 400 - invalid_request - -", "mcp tools/call 504 allow upstream_timeout git echo"}},
      {"no session",
       [&] {
         HttpRequest request = post_request(alice, rpc_request("1", "tools/list"));
         std::erase_if(request.headers, [](const auto& header) { return header.first == "Mcp-Session-Id"; });
         CHECK(world.gw.send(std::move(request)).status == 400);
       },
       {"mcp tools/list 400 - invalid_request - -"}},
      {"unknown session",
       [&] {
         HttpRequest request = post_request(alice, rpc_request("1", "tools/call", R"({"name":"echo"})"));
         for (auto& header : request.headers)
           if (header.first == "Mcp-Session-Id") header.second = "of nobody";
         CHECK(world.gw.send(std::move(request)).status == 404);
       },
       {"mcp tools/call 404 - session_not_found - -"}},
      {"a notification", [&] { CHECK(post(R"({"jsonrpc":"2.0","method":"notifications/x"})") == 202); }, {}},
      {"a refused notification",
       [&] {
         HttpRequest request =
             post_request(alice, R"({"jsonrpc":"2.0","method":"notifications/initialized"})");
         std::erase_if(request.headers, [](const auto& header) { return header.first == "Mcp-Session-Id"; });
         CHECK(world.gw.send(std::move(request)).status == 400);
       },
       {"mcp notifications/initialized 400 - invalid_request - -"}},
      {"ping, which nobody asked to record", [&] { CHECK(alice.request("ping").ok()); }, {}},
      {"nobody: counted, not stored",
       [&] {
         HttpRequest request = post_request(alice, rpc_request("1", "tools/list"));
         request.headers[0].second = "Bearer nonsense";
         CHECK(world.gw.send(std::move(request)).status == 401);
       },
       {}},
      {"a form that is not ours, or too much of it",
       [&] {
         const auto refused = [&](const char* name, const std::string& value, const std::string& body) {
           HttpRequest request = post_request(alice, body);
           std::erase_if(request.headers, [&](const auto& header) { return header.first == name; });
           request.headers.emplace_back(name, value);
           return world.gw.send(std::move(request)).status;
         };
         const std::string call = rpc_request("1", "tools/call", R"({"name":"echo"})");
         CHECK(refused("Accept", "text/html", call) == 406);
         CHECK(refused("Content-Type", "text/plain", call) == 415);
         CHECK(refused("Content-Type", "application/json", std::string(kBody + 1, ' ')) == 413);
       },
       {"mcp invalid 406 - not_acceptable - -", "mcp invalid 415 - unsupported_media_type - -",
        "mcp invalid 413 - body_too_large - -"}},
      {"a token that is not for this",
       [&] {
         HttpRequest request = post_request(alice, rpc_request("1", "tools/list"));
         request.headers[0].second = "Bearer " + api_only;
         CHECK(world.gw.send(request).status == 403);
         request.method = "GET";
         CHECK(world.gw.send(std::move(request)).status == 403);
       },
       {"mcp invalid 403 - insufficient_scope - -"}},
      {"a page of somebody else: nobody is known yet",
       [&] {
         CHECK(world.post(alice, rpc_request("1", "tools/list"), {{"Origin", "https://evil.test"}}).status ==
               403);
       },
       {}},
      {"a server asks in a call, and may",
       [&] { CHECK(alice.call_tool("asks").ok()); },
       {"mcp roots/list 200 allow - git asks", "mcp tools/call 200 allow - git asks"}},
      {"a server asks in a call for what the client does not offer",
       [&] { CHECK(alice.call_tool("asks", R"({"kind":"elicit"})").ok()); },
       {"mcp elicitation/create 404 - unknown_method git asks", "mcp tools/call 200 allow - git asks"}},
  };
  Recorder recorder(world.gw, bob.user_id());
  recorder.run(cases);
  for (const AuditRecord& row : recorder.all()) {
    CHECK(row.created_at != Time{});
    CHECK_FALSE(row.id.empty());
    if (row.kind != "mcp") continue;
    CHECK_FALSE(row.user_id.empty());
    CHECK_FALSE(row.client_ip.empty());
    // Whatever could be read is there, without what comes from servers.
    const bool asked = row.method == "roots/list" || row.method == "elicitation/create";
    CHECK_MESSAGE(row.request_body.empty() == (row.method == "invalid" || asked), summary(row));
  }
}

TEST_CASE("R39: each element of a batch has a row of its own") {
  World world;
  Gate gate;  // holds the first call, so that its id is in use when the same one comes again
  world.git->add_tool("slow", gate.handler());
  McpClient &alice = world.gw.as("alice"), &bob = world.gw.as("bob");
  REQUIRE(alice.initialize("2025-03-26").ok());
  REQUIRE(alice.call_tool("echo").ok());
  const std::string call = rpc_request("3", "tools/call", R"({"name":"slow"})");
  Recorder recorder(world.gw, bob.user_id());
  recorder.run({
      {"all kinds at once",
       [&] {
         const std::string body = "[" + call + "," + rpc_request("4", "tools/call", R"({"name":"secret"})") +
                                  "," + rpc_request("5", "tools/call", R"({"name":"nothing"})") + "," +
                                  rpc_request("3", "tools/list") + "," + rpc_request("6", "initialize") +
                                  R"(,{"id":9},5,{"jsonrpc":"2.0","method":"notifications/initialized"},)" +
                                  R"({"jsonrpc":"2.0","id":99,"result":{}},)" + rpc_request("7", "ping") +
                                  "," + rpc_request("8", "no/such") + "]";
         LiveRequest batch(world.gw, post_request(alice, body));
         AuditQuery refused;
         refused.filter.method = "tools/list";
         REQUIRE(becomes([&] { return world.gw.gateway().audit_sink()->query(refused)->total > 0; }));
         gate.open();
         CHECK(batch.status() == 200);
         CHECK(batch.ends());
       },
       {"mcp tools/call 200 allow - git slow", "mcp tools/call 403 deny denied git secret",
        "mcp tools/call 404 - unknown_item - nothing", "mcp tools/list 400 - invalid_request - -",
        "mcp initialize 400 - invalid_request - -", "mcp invalid 400 - invalid_request - -",
        "mcp invalid 400 - invalid_request - -", "mcp no/such 404 - unknown_method - -"}},
      {"an empty one",
       [&] { CHECK(world.post(alice, "[]").status == 400); },
       {"mcp invalid 400 - invalid_request - -"}},
  });
  for (const AuditRecord& row : recorder.rows(0)) {
    // Sizes and bodies are those of the element, not of the batch.
    CHECK(row.bytes_in <= 120);
    CHECK(row.bytes_out > 0);
    if (row.tool == "secret") CHECK(row.request_body.find("secret") != std::string::npos);
    CHECK(row.request_body.find("no/such") ==
          (row.method == "no/such" ? row.request_body.find("no/such") : std::string::npos));
    CHECK(row.session_id == alice.session_id());
  }
}

TEST_CASE("R39: what servers ask outside of a call has a row, also when nobody can be asked") {
  World world;
  McpClient &alice = world.gw.as("alice"), &bob = world.gw.as("bob");
  REQUIRE(alice.initialize("2025-11-25", R"({"roots":{},"sampling":{}})").ok());
  REQUIRE(alice.call_tool("echo").ok());
  const auto answered = [&](const std::string& id) {
    return becomes([&] {
      for (const std::string& message : world.git->received())
        if (raw::find(message, "id") == "\"" + id + "\"") return true;
      return false;
    });
  };
  HttpRequest listen;
  listen.method = "GET";
  listen.target = "/mcp";
  listen.headers = {{"Authorization", "Bearer " + alice.token()},
                    {"Accept", "text/event-stream"},
                    {"Mcp-Session-Id", alice.session_id()}};
  std::unique_ptr<LiveRequest> stream;
  Recorder recorder(world.gw, bob.user_id());
  recorder.run({
      {"nobody listens",
       [&] {
         world.git->ask("o1", "sampling/createMessage");
         CHECK(answered("o1"));
       },
       {"mcp sampling/createMessage 404 - unknown_method git -"}},
      {"the client listens",
       [&] {
         stream = std::make_unique<LiveRequest>(world.gw, listen);
         REQUIRE(stream->status() == 200);
         // Its head comes a moment before it is in use.
         REQUIRE(becomes([&] {
           return raw::find(alice.api("GET", "/api/observability/snapshot").body, "streams") == "1";
         }));
         world.git->ask("o2", "sampling/createMessage");
         CHECK(stream->sees("sampling/createMessage"));
       },
       {"mcp sampling/createMessage 200 allow - git -"}},
      {"what it does not offer",
       [&] {
         world.git->ask("o3", "elicitation/create");
         CHECK(answered("o3"));
       },
       {"mcp elicitation/create 404 - unknown_method git -"}},
      {"a ping",
       [&] {
         world.git->ask("o4", "ping");
         CHECK(answered("o4"));
       },
       {}},
      {"two sessions: nobody knows whose it is",
       [&] {
         McpClient& carol = world.gw.as("carol");
         world.gw.allow("carol", "git");
         // With the same capabilities, for which they share a process.
         REQUIRE(carol.initialize("2025-11-25", R"({"roots":{},"sampling":{}})").ok());
         REQUIRE(carol.call_tool("echo").ok());
         world.git->ask("o5", "roots/list");
         CHECK(answered("o5"));
       },
       {"session created 200 - - - -", "mcp initialize 200 - - - -", kOk,
        "mcp roots/list 404 - unknown_method git -"}},
  });
  CHECK(recorder.rows(1).front().user_id == alice.user_id());
  CHECK(recorder.rows(1).front().session_id == alice.session_id());
  for (const AuditRecord& row : recorder.rows(4))
    if (row.method == "roots/list") CHECK(row.user_id.empty());
}

TEST_CASE("R39: sessions, writes and logins have rows, reads have none") {
  InProcessOptions given = options();
  given.gateway.session.max_per_user = 2;
  World world(std::move(given));
  McpClient &alice = world.gw.as("alice"), &bob = world.gw.as("bob"), &admin = world.gw.as("admin");
  const auto api = [](McpClient& who, const char* method, const std::string& path,
                      const std::string& body = {}) { return who.api(method, path, body).status; };
  std::string token_id, login;
  const std::string alice_path = "/api/users/" + alice.user_id();
  Recorder recorder(world.gw, bob.user_id());
  recorder.run({
      {"a session begins",
       [&] { CHECK(alice.initialize().ok()); },
       {"session created 200 - - - -", "mcp initialize 200 - - - -"}},
      {"its client ends it",
       [&] {
         HttpRequest request = post_request(alice, "");
         request.method = "DELETE";
         CHECK(world.gw.send(std::move(request)).status == 204);
       },
       {"session deleted 200 - - - -"}},
      {"a session of HTTP+SSE",
       [&] {
         HttpRequest request;
         request.method = "GET";
         request.target = "/sse";
         request.headers = {{"Authorization", "Bearer " + alice.token()}, {"Accept", "text/event-stream"}};
         LiveRequest stream(world.gw, std::move(request));
         REQUIRE(stream.sees("session_id"));
         stream.cut();
         REQUIRE(becomes([&] {
           return raw::find(admin.api("GET", "/api/observability/snapshot").body, "active_sessions") == "0";
         }));
       },
       {"session created 200 - - - -", "session deleted 200 - - - -"}},
      {"an initialize that cannot be",
       [&] {
         CHECK(world.post(alice, rpc_request("1", "initialize", R"({"protocolVersion":5})")).status == 200);
       },
       {"mcp initialize 400 - invalid_params - -"}},
      {"the oldest makes room",
       [&] {
         for (int i = 0; i < 3; ++i) {
           alice.use_session({});
           CHECK(alice.initialize().ok());
         }
       },
       {"session created 200 - - - -", "mcp initialize 200 - - - -", "session created 200 - - - -",
        "mcp initialize 200 - - - -", "session created 200 - - - -", "mcp initialize 200 - - - -",
        "session expired 200 - - - -"}},
      {"recycled",
       [&] { CHECK(api(admin, "POST", alice_path + "/recycle") == 200); },
       {"session recycled 200 - - - -", "session recycled 200 - - - -",
        "admin POST /api/users/{id}/recycle 200 - - - -"}},
      {"a write",
       [&] { CHECK(api(admin, "PUT", alice_path, R"({"groups":["g"]})") == 200); },
       {"admin PUT /api/users/{id} 200 - - - -"}},
      {"a write that is refused",
       [&] { CHECK(api(alice, "PUT", alice_path, R"({"role":"admin"})") == 403); },
       {"admin PUT /api/users/{id} 403 - admin_required - -"}},
      {"a write that is wrong",
       [&] { CHECK(api(admin, "PUT", alice_path, R"({"role":5})") == 400); },
       {"admin PUT /api/users/{id} 400 - invalid_request - -"}},
      {"a write to nothing",
       [&] { CHECK(api(admin, "DELETE", "/api/targets/11111111-1111-4111-8111-111111111111") == 404); },
       {"admin DELETE /api/targets/{id} 404 - target_not_found - -"}},
      {"reads",
       [&] {
         CHECK(api(admin, "GET", "/api/users") == 200);
         CHECK(api(admin, "GET", "/api/logs?limit=1") == 200);
         CHECK(api(alice, "GET", "/api/targets") == 200);
       },
       {}},
      {"a write of nobody",
       [&] {
         HttpRequest request;
         request.method = "POST";
         request.target = "/api/targets";
         CHECK(world.gw.send(std::move(request)).status == 401);
       },
       {}},
      {"a registration",
       [&] {
         CHECK(api(alice, "POST", "/api/auth/register",
                   R"({"email":"d@example.test","password":"long enough, and odd"})") == 201);
       },
       {"auth POST /api/auth/register 201 - - - -"}},
      {"a login that fails",
       [&] {
         CHECK(api(alice, "POST", "/api/auth/login",
                   R"({"email":"d@example.test","password":"wrong and long too"})") == 401);
       },
       {"auth POST /api/auth/login 401 - invalid_credentials - -"}},
      {"a login",
       [&] {
         const HttpResponse answer = alice.api(
             "POST", "/api/auth/login", R"({"email":"d@example.test","password":"long enough, and odd"})");
         CHECK(answer.status == 200);
         login = member(answer, "token");
       },
       {"auth POST /api/auth/login 200 - - - -"}},
      {"a token is made, and revoked",
       [&] {
         const HttpResponse made = alice.api("POST", "/api/auth/tokens", R"({"name":"t"})");
         CHECK(made.status == 201);
         CHECK(api(alice, "DELETE",
                   "/api/auth/tokens/" +
                       raw::string_value(raw::find(raw::find(made.body, "api_token"), "id")).value_or("")) ==
               204);
       },
       {"auth POST /api/auth/tokens 201 - - - -", "auth DELETE /api/auth/tokens/{id} 204 - - - -"}},
      {"a changed password and a logout",
       [&] {
         const std::string before = alice.token();
         alice.use_token(login);
         CHECK(api(alice, "POST", "/api/auth/password",
                   R"({"old_password":"long enough, and odd","new_password":"another long one, odd"})") ==
               204);
         const HttpResponse again = alice.api(
             "POST", "/api/auth/login", R"({"email":"d@example.test","password":"another long one, odd"})");
         alice.use_token(member(again, "token"));
         CHECK(api(alice, "POST", "/api/auth/logout") == 204);
         alice.use_token(before);
       },
       {"auth POST /api/auth/password 204 - - - -", "auth POST /api/auth/login 200 - - - -",
        "auth POST /api/auth/logout 204 - - - -"}},
  });
  // No password is in any of them.
  for (const AuditRecord& row : recorder.all())
    for (const char* secret : {"long enough", "wrong and long", "another long"})
      CHECK(row.request_body.find(secret) == std::string::npos);
}

TEST_CASE("R39: ping is recorded when that is asked for") {
  InProcessOptions given = options();
  given.gateway.audit.include_ping = true;
  World world(std::move(given));
  McpClient& alice = world.gw.as("alice");
  REQUIRE(alice.initialize().ok());
  Recorder(world.gw, world.gw.as("bob").user_id())
      .run({{"ping", [&] { CHECK(alice.request("ping").ok()); }, {"mcp ping 200 - - - -"}}});
}

TEST_CASE("R35: names that clients choose are cut, and cannot steer a terminal") {
  World world;
  McpClient& alice = world.gw.as("alice");
  REQUIRE(alice.initialize().ok());
  const std::string wide = "\xf0\x9f\x98\x80";
  std::string long_name;
  for (int i = 0; i < 3000; ++i) long_name += wide;
  const auto quoted = raw::quote(long_name);
  world.post(alice, R"({"jsonrpc":"2.0","id":1,"method":)" + quoted + "}");
  world.post(alice, R"({"jsonrpc":"2.0","id":2,"method":"\u001b[2J\nforged line"})");
  world.post(alice, R"({"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":)" + quoted + "}}");
  world.post(alice,
             R"({"jsonrpc":"2.0","id":4,"method":"resources/read","params":{"uri":"x:)" + long_name + "\"}}");
  std::size_t seen = 0;
  for (const AuditRecord& row : world.gw.audit_rows()) {
    CHECK(row.method.size() <= 128);
    CHECK(row.tool.size() <= 2048);
    for (const std::string& text : {row.method, row.tool}) {
      CHECK(detail::is_utf8(text));
      CHECK_FALSE(detail::has_control(text));
    }
    seen += row.method.find("forged line") != std::string::npos || row.method.starts_with(wide) ||
            row.tool.find(wide) != std::string::npos;
  }
  CHECK(seen == 4);
}

TEST_CASE("R39, R71: while rows cannot be stored requests wait and are then refused, and no row is lost") {
  InProcessOptions given = options();
  const auto sink = std::make_shared<FailingSink>();
  given.gateway.audit_sink = sink;
  given.gateway.audit.queue_max = 12;
  World world(std::move(given));
  McpClient &alice = world.gw.as("alice"), &admin = world.gw.as("admin");
  REQUIRE(alice.call_tool("echo").ok());
  REQUIRE(becomes([&] { return world.gw.audit_rows().size() == 3; }));
  CHECK(ready(world.gw) == 200);
  sink->down = true;
  int answered = 0;
  while (answered < 20 && alice.call_tool("echo").ok()) ++answered;
  CHECK(answered == 12);
  CHECK(ready(world.gw) == 503);
  // Nor do refusals pile up: what is refused waits like what is done, and is answered without a row at last.
  HttpRequest wrong = post_request(alice, rpc_request("1", "tools/list"));
  wrong.headers.emplace_back("Content-Type", "text/plain");
  std::erase(wrong.headers, std::pair<std::string, std::string>("Content-Type", "application/json"));
  CHECK(world.gw.send(std::move(wrong)).status == 503);
  const std::string session = alice.session_id();
  alice.use_session({});
  CHECK_FALSE(alice.initialize().ok());
  alice.use_session(session);
  // Nothing happens of which there would be no row: at the server, or in storage.
  CHECK(world.git->received("tools/call").size() == 13);
  HttpResponse refused =
      admin.api("POST", "/api/policies", R"({"name":"p","effect":"allow","subjects":[{"type":"everyone"}]})");
  CHECK(refused.status == 503);
  CHECK(member(refused, "code") == "overloaded");
  CHECK(refused.header("Retry-After") != nullptr);
  CHECK(admin.api("POST", "/api/auth/login", R"({"email":"a@example.test","password":"x"})").status == 503);
  CHECK(admin.api("GET", "/api/policies").body.find("\"p\"") == std::string::npos);
  CHECK(admin.api("GET", "/api/logs").status == 200);
  sink->down = false;
  REQUIRE(becomes([&] { return alice.call_tool("echo").ok(); }));
  ++answered;
  REQUIRE(becomes([&] { return ready(world.gw) == 200; }));
  std::size_t calls = 0;
  for (const AuditRecord& row : world.gw.audit_rows()) calls += row.method == "tools/call";
  CHECK(calls == static_cast<std::size_t>(answered) + 1);
}

TEST_CASE(
    "R33, R71: what servers ask cannot fill memory while rows cannot be stored; what runs adds one row "
    "each") {
  constexpr std::size_t kMax = 12, kRunning = 5;
  InProcessOptions given = options();
  const auto sink = std::make_shared<FailingSink>();
  given.gateway.audit_sink = sink;
  given.gateway.audit.queue_max = kMax;
  World world(std::move(given));
  Gate gate;
  world.git->add_tool("slow", gate.handler());
  McpClient& alice = world.gw.as("alice");
  REQUIRE(alice.initialize("2025-11-25", R"({"roots":{},"sampling":{}})").ok());
  REQUIRE(alice.call_tool("echo").ok());
  const auto depth = [&] {
    HttpRequest request;
    request.method = "GET";
    request.target = "/metrics";
    const std::string text = world.gw.send(std::move(request)).body;
    const std::string name = "\nmcpgw_audit_queue_depth ";
    const auto at = text.find(name);
    REQUIRE(at != std::string::npos);
    return std::stoul(text.substr(at + name.size()));
  };
  REQUIRE(becomes([&] { return depth() == 0; }));
  std::vector<std::unique_ptr<LiveRequest>> running;
  for (std::size_t i = 0; i < kRunning; ++i)
    running.push_back(std::make_unique<LiveRequest>(
        world.gw, post_request(alice, rpc_request("\"slow" + std::to_string(i) + "\"", "tools/call",
                                                  R"({"name":"slow"})"))));
  REQUIRE(gate.entered(kRunning));

  sink->down = true;
  while (depth() < kMax) REQUIRE(alice.call_tool("echo").ok());
  const auto answers = [&] {
    std::size_t out = 0;
    for (const std::string& message : world.git->received())
      out += raw::find(raw::find(message, "error"), "code") == "-32000";
    return out;
  };
  constexpr std::size_t kAsked = 300;
  for (std::size_t i = 0; i < kAsked; ++i) world.git->ask("o" + std::to_string(i), "sampling/createMessage");
  REQUIRE(becomes([&] { return answers() == kAsked; }));
  CHECK(depth() == kMax);
  gate.open();
  for (const auto& call : running) REQUIRE(call->ends());
  CHECK(depth() == kMax + kRunning);

  sink->down = false;
  REQUIRE(becomes([&] { return depth() == 0; }));
  std::size_t slow = 0, asked = 0;
  for (const AuditRecord& row : world.gw.audit_rows()) {
    slow += row.tool == "slow";
    asked += row.method == "sampling/createMessage";
  }
  CHECK(slow == kRunning);
  CHECK(asked == 0);
  world.git->ask("again", "sampling/createMessage");
  REQUIRE(becomes([&] {
    for (const AuditRecord& row : world.gw.audit_rows())
      if (row.method == "sampling/createMessage") return true;
    return false;
  }));
}

TEST_CASE("R39: with audit.sync nothing is answered, nor done, whose row cannot be stored") {
  InProcessOptions given = options();
  const auto sink = std::make_shared<FailingSink>();
  given.gateway.audit_sink = sink;
  given.gateway.audit.sync = true;
  World world(std::move(given));
  McpClient &alice = world.gw.as("alice"), &admin = world.gw.as("admin");
  AuditQuery query;
  const auto stored = [&] { return sink->query(query)->total; };
  // Whatever is answered has its row by then.
  REQUIRE(alice.initialize().ok());
  CHECK(stored() == 2);
  REQUIRE(alice.call_tool("echo").ok());
  CHECK(stored() == 3);
  CHECK(world.post(alice, "{").status == 400);
  CHECK(stored() == 4);
  CHECK(admin.api("PUT", "/api/users/" + alice.user_id(), R"({"groups":["g"]})").status == 200);
  CHECK(stored() == 5);
  HttpRequest end = post_request(alice, "");
  end.method = "DELETE";
  CHECK(world.gw.send(std::move(end)).status == 204);
  CHECK(stored() == 6);
  REQUIRE(alice.initialize().ok());

  sink->down = true;
  // The first finds out: what it did is told nobody.
  CHECK_FALSE(alice.call_tool("echo").ok());
  const auto calls = world.git->received("tools/call").size();
  CHECK_FALSE(alice.call_tool("echo").ok());
  CHECK(world.git->received("tools/call").size() == calls);
  CHECK(admin.api("PUT", "/api/users/" + alice.user_id(), R"({"groups":["h"]})").status == 503);
  CHECK(admin.api("GET", "/api/users/" + alice.user_id()).body.find("\"h\"") == std::string::npos);
  sink->down = false;
  REQUIRE(becomes([&] { return alice.call_tool("echo").ok(); }));
  CHECK(admin.api("PUT", "/api/users/" + alice.user_id(), R"({"groups":["h"]})").status == 200);
}

TEST_CASE("R75: a gateway removes rows past retention when it starts") {
  InProcessOptions given = options();
  const auto sink = std::make_shared<FailingSink>();
  AuditRecord old, fresh;
  old.id = "11111111-1111-4111-8111-111111111111";
  fresh.id = "22222222-2222-4222-8222-222222222222";
  old.method = "old";
  fresh.method = "fresh";
  const auto now = std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now());
  old.created_at = now - std::chrono::hours(49);
  fresh.created_at = now - std::chrono::hours(47);
  REQUIRE(sink->append({old, fresh}));
  given.gateway.audit_sink = sink;
  given.gateway.audit.retention = std::chrono::hours(48);
  InProcessGateway gw(std::move(given));
  REQUIRE(becomes([&] { return sink->purges > 0; }));
  std::set<std::string> methods;
  for (const AuditRecord& row : gw.audit_rows()) methods.insert(row.method);
  CHECK(methods == std::set<std::string>{"fresh"});
}
