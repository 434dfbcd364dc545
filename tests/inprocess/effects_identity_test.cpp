// What becomes of an identity that is revoked: the next request is refused, open streams and running calls
// end within a second, sessions as far as they are the user's own.
#include "effects_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

const char* kPing = R"({"jsonrpc":"2.0","id":1,"method":"ping"})";

struct World {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  InProcessGateway gw;
  std::shared_ptr<FakeUpstream> crm = std::make_shared<FakeUpstream>();
  McpClient& admin;
  McpClient& alice;
  std::string user_path;
  std::atomic<bool> release{false};

  World() : gw(with_clock()), admin(gw.as("admin")), alice(gw.as("alice")) {
    crm->add_tool("fast", [](const auto&) { return FakeUpstream::text("done"); });
    crm->add_tool("slow", [this](const FakeUpstream::Call& call) {
      call.progress(1, 2);
      while (!release) std::this_thread::sleep_for(milliseconds(1));
      return FakeUpstream::text("too late");
    });
    gw.add_upstream("crm", crm);
    gw.allow("alice", "crm");
    REQUIRE(alice.call_tool("fast").ok());
    user_path = "/api/users/" + alice.user_id();
  }
  ~World() { release = true; }

  std::string token_id() { return gw.gateway().authenticator()->authenticate_token(alice.token())->token_id; }
  /// A request of each kind with alice's token.
  int status(const std::string& method, const std::string& target) {
    HttpRequest request;
    request.method = method;
    request.target = target;
    request.headers = {{"Authorization", "Bearer " + alice.token()},
                       {"Accept", "application/json, text/event-stream"},
                       {"Content-Type", "application/json"},
                       {"Mcp-Session-Id", alice.session_id()}};
    if (method == "POST") request.body = kPing;
    request.remote_address = "127.0.0.1";
    return gw.send(std::move(request)).status;
  }

 private:
  InProcessOptions with_clock() {
    InProcessOptions out = options();
    out.gateway.clock = clock;
    return out;
  }
};

struct Revocation {
  const char* what;
  std::function<void(World&)> act;
  const char* code;   ///< of the 401
  bool session_ends;  ///< for all of the user's tokens
};

std::vector<Revocation> revocations() {
  return {
      {"the user revokes the token",
       [](World& w) { change(w.alice, "DELETE", "/api/auth/tokens/" + w.token_id()); }, "token_revoked",
       false},
      {"an admin revokes the token",
       [](World& w) { change(w.admin, "DELETE", w.user_path + "/tokens/" + w.token_id()); }, "token_revoked",
       false},
      {"logout", [](World& w) { change(w.alice, "POST", "/api/auth/logout"); }, "token_revoked", false},
      {"a password set by an admin, with the API tokens",
       [](World& w) {
         change(w.admin, "PUT", w.user_path, R"({"password":"battery staple","revoke_api_tokens":true})");
       },
       "token_revoked", false},
      {"the token expires", [](World& w) { w.clock->advance(std::chrono::minutes(20)); }, "token_expired",
       false},
      {"the user is disabled", [](World& w) { change(w.admin, "PUT", w.user_path, R"({"enabled":false})"); },
       "invalid_token", true},
      {"the user is deleted", [](World& w) { change(w.admin, "DELETE", w.user_path); }, "invalid_token",
       true},
  };
}

/// alice with a token that ends in ten minutes.
void use_expiring_token(World& w) {
  const auto minted = w.gw.gateway().authenticator()->mint(
      w.alice.user_id(), "short", TokenKind::api, {"mcp", "api"}, w.clock->now() + std::chrono::minutes(10));
  REQUIRE(minted);
  w.alice.use_token(minted->token);
}

}  // namespace

TEST_CASE(
    "R67: a revoked identity is refused at the very next request, its stream and its calls end within a "
    "second") {
  for (const Revocation& one : revocations()) {
    CAPTURE(std::string(one.what));
    World w;
    use_expiring_token(w);
    // Another token of the same user, and its stream in a session of its own.
    const auto other = w.gw.gateway().authenticator()->mint(w.alice.user_id(), "other", TokenKind::login,
                                                            {"mcp", "api"}, std::nullopt);
    REQUIRE(w.alice.initialize().ok());
    const std::string session = w.alice.session_id();
    OpenStream stream(w.gw, w.alice);
    RunningCall call(w.alice, "slow", R"(,"_meta":{"progressToken":1})");
    REQUIRE(becomes(
        [&] { return !w.crm->received("tools/call").empty() && w.crm->received("tools/call").size() >= 2; }));
    CHECK_FALSE(stream.ended());
    CHECK_FALSE(call.ended());

    one.act(w);
    for (const char* method : {"POST", "GET", "DELETE"}) CHECK(w.status(method, "/mcp") == 401);
    const HttpResponse refused = w.alice.api("GET", "/api/auth/me");
    CHECK(refused.status == 401);
    CHECK(member(refused, "code") == one.code);
    CHECK(refused.header("WWW-Authenticate") != nullptr);
    CHECK(stream.ends());
    CHECK(call.ends());
    CHECK(call.code() == "cancelled");
    // The upstream was told to stop.
    CHECK(becomes([&] { return w.crm->received("notifications/cancelled").size() == 1; }));

    // The session is the user's: it stays for their other tokens, unless the user is out.
    if (one.session_ends || std::string(one.what).find("password") != std::string::npos) continue;
    w.alice.use_token(other->token);
    w.alice.use_session(session);
    CHECK(w.alice.raw(kPing, {{"Mcp-Session-Id", session}}).ok());
  }
}

TEST_CASE("R67: streams of the user's other tokens stay") {
  World w;
  const auto other = w.gw.gateway().authenticator()->mint(w.alice.user_id(), "other", TokenKind::api,
                                                          {"mcp", "api"}, std::nullopt);
  const std::string first_token = w.alice.token();
  w.alice.use_token(other->token);
  REQUIRE(w.alice.initialize().ok());
  {
    OpenStream kept(w.gw, w.alice);
    const std::string kept_session = w.alice.session_id();
    w.alice.use_token(first_token);
    REQUIRE(w.alice.initialize().ok());
    {
      OpenStream stream(w.gw, w.alice);
      change(w.alice, "POST", "/api/auth/logout");
      CHECK(stream.ends());
    }
    CHECK_FALSE(kept.ended());
    w.alice.use_token(other->token);
    CHECK(w.alice.raw(kPing, {{"Mcp-Session-Id", kept_session}}).ok());
    change(w.admin, "PUT", w.user_path, R"({"enabled":false})");
    CHECK(kept.ends());
  }
}

TEST_CASE("a changed password ends the other logins, streams too, and not the one that asked") {
  World w;
  const std::string id =
      change(w.admin, "POST", "/api/users", R"({"email":"carol@example.test","password":"correct horse"})");
  const auto login = [&] {
    HttpRequest request;
    request.method = "POST";
    request.target = "/api/auth/login";
    request.body = R"({"email":"carol@example.test","password":"correct horse"})";
    request.remote_address = "127.0.0.1";
    return member(w.gw.send(std::move(request)), "token");
  };
  const std::string here = login(), elsewhere = login();
  McpClient& carol = w.alice;  // the client is anybody's; its token says whose
  carol.use_token(elsewhere);
  REQUIRE(carol.initialize().ok());
  const std::string session = carol.session_id();
  {
    OpenStream stream(w.gw, carol);
    carol.use_token(here);
    change(carol, "POST", "/api/auth/password",
           R"({"old_password":"correct horse","new_password":"battery staple"})");
    CHECK(stream.ends());
  }
  CHECK(carol.api("GET", "/api/auth/me").status == 200);
  CHECK(carol.raw(kPing, {{"Mcp-Session-Id", session}}).ok());
  carol.use_token(elsewhere);
  CHECK(carol.raw(kPing, {{"Mcp-Session-Id", session}}).http_status == 401);
}

TEST_CASE("a changed role or group ends the stream, not the session, nor the call that runs") {
  for (const char* body : {R"({"role":"viewer"})", R"({"groups":["ops"]})"}) {
    CAPTURE(std::string(body));
    World w;
    RunningCall call(w.alice, "slow");
    REQUIRE(becomes([&] { return w.crm->received("tools/call").size() == 2; }));
    {
      OpenStream stream(w.gw, w.alice);
      change(w.admin, "PUT", w.user_path, body);
      CHECK(stream.ends());
    }
    CHECK_FALSE(call.ended());
    CHECK(w.alice.raw(kPing, {{"Mcp-Session-Id", w.alice.session_id()}}).ok());
    // The client reconnects.
    OpenStream again(w.gw, w.alice);
    CHECK_FALSE(again.ended());
    w.release = true;
    CHECK(call.ends(milliseconds(10000)));
    CHECK(call.reply().text() == "too late");
    change(w.admin, "PUT", w.user_path, R"({"enabled":false})");
    CHECK(again.ends());
  }
}

TEST_CASE(
    "changes of policies, targets, credentials and environment keep the stream, and tell it what changed") {
  World w;
  CHECK(w.alice.list_tools() == Strings{"fast", "slow"});
  std::string events;
  {
    OpenStream stream(w.gw, w.alice);
    const std::string target = w.gw.gateway().repository()->target_by_name("crm")->id,
                      path = "/api/targets/" + target;
    change(w.admin, "PUT", path + "/tokens/default", R"({"token":"t"})");
    change(w.admin, "POST", path + "/env/default", R"({"key":"K","value":"v"})");
    change(w.admin, "PUT", path, R"({"timeout_ms":30000})");
    const std::string policy = change(
        w.admin, "POST", "/api/policies",
        R"({"name":"no","effect":"deny","priority":9,"resource_pattern":"^slow$","subjects":[{"subject_type":"everyone"}]})");
    CHECK(w.alice.list_tools() == Strings{"fast"});
    CHECK_FALSE(stream.ended());
    // A change that the client has not seen in a list of its own is announced.
    change(w.admin, "DELETE", "/api/policies/" + policy);
    std::this_thread::sleep_for(
        milliseconds(300));  // the announcement is gathered for a moment; nothing waits on it
    CHECK_FALSE(stream.ended());
    change(w.admin, "PUT", w.user_path, R"({"enabled":false})");
    CHECK(stream.ends());
    events = stream.events();
  }
  CHECK(events.find("notifications/tools/list_changed") != std::string::npos);
}

TEST_CASE("a call that waits for its turn ends with its token, and is never sent") {
  World w;
  const std::string path = "/api/targets/" + w.gw.gateway().repository()->target_by_name("crm")->id;
  change(w.admin, "PUT", path, R"({"max_concurrency":1})");
  w.gw.allow("bob", "crm");
  w.gw.as("bob").list_tools();
  w.alice.list_tools();
  RunningCall first(w.gw.as("bob"), "slow");
  REQUIRE(becomes([&] { return w.crm->received("tools/call").size() == 2; }));
  RunningCall second(w.alice, "fast");
  REQUIRE(becomes([&] {
    return member(w.admin.api("GET", "/api/observability/snapshot"), "in_flight") ==
           "3";  // with this request
  }));
  change(w.admin, "DELETE", w.user_path + "/tokens/" + w.token_id());
  CHECK(second.ends());
  CHECK(second.code() == "cancelled");
  w.release = true;
  CHECK(first.ends(milliseconds(10000)));
  CHECK(w.gw.as("bob").call_tool("fast").ok());
  CHECK(w.crm->received("tools/call").size() == 3);  // alice's first, bob's two
}

TEST_CASE("R47: a token of another scope does not open what it was not made for, whatever it was before") {
  World w;
  const auto narrow =
      w.gw.gateway().authenticator()->mint(w.alice.user_id(), "n", TokenKind::api, {"mcp"}, std::nullopt);
  w.alice.use_token(narrow->token);
  REQUIRE(w.alice.initialize().ok());
  CHECK(w.alice.call_tool("fast").ok());
  CHECK(w.alice.api("GET", "/api/auth/me").status == 403);
  CHECK(w.alice.api("POST", "/api/auth/tokens", "{}").status == 403);
  const auto api_only =
      w.gw.gateway().authenticator()->mint(w.alice.user_id(), "a", TokenKind::api, {"api"}, std::nullopt);
  w.alice.use_token(api_only->token);
  CHECK(w.alice.api("GET", "/api/auth/me").status == 200);
  CHECK(w.alice.call_tool("fast").http_status == 403);
}

TEST_CASE("a recycled user's stream and calls end, and a disabled one's sessions do not come back") {
  World w;
  const std::string session = w.alice.session_id();
  {
    OpenStream stream(w.gw, w.alice);
    RunningCall call(w.alice, "slow");
    REQUIRE(becomes([&] { return w.crm->received("tools/call").size() == 2; }));
    change(w.admin, "POST", w.user_path + "/recycle");
    CHECK(stream.ends());
    CHECK(call.ends());
  }
  CHECK(w.alice.raw(kPing, {{"Mcp-Session-Id", session}}).http_status == 404);
  REQUIRE(w.alice.initialize().ok());
  const std::string second = w.alice.session_id();
  change(w.admin, "PUT", w.user_path, R"({"enabled":false})");
  CHECK(w.alice.raw(kPing, {{"Mcp-Session-Id", second}}).http_status == 401);
  change(w.admin, "PUT", w.user_path, R"({"enabled":true})");
  CHECK(w.alice.raw(kPing, {{"Mcp-Session-Id", second}}).http_status == 404);
  CHECK(w.gw.gateway().repository()->sessions_of(w.alice.user_id())->empty());
}
