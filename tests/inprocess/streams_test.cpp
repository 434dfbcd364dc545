// Streams of the session and of single calls: ids, replay, connections that are cut.
#include "stream_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

const std::string kSlow = R"({"name":"slow","arguments":{"nonce":"n1"},"_meta":{"progressToken":"p1"}})";

struct World {
  explicit World(milliseconds grace = milliseconds(5000), const std::string& version = "2025-11-25")
      : gw(with(grace)), alice(gw.as("alice")) {
    git->add_tool("slow", gate.handler());
    git->add_resource("file:///a", [](const auto&) { return R"({"contents":[]})"; });
    gw.add_upstream("git", git);
    gw.allow("alice", "git");
    REQUIRE(alice.initialize(version, R"({"sampling":{}})").ok());
  }
  static InProcessOptions with(milliseconds grace) {
    InProcessOptions out = options();
    out.gateway.session.resume_grace = grace;
    return out;
  }
  std::string row_of(const std::string& method) {
    for (const AuditRecord& row : gw.audit_rows())
      if (row.method == method) return std::to_string(row.response_status) + " " + row.error_code;
    return {};
  }

  std::shared_ptr<FakeUpstream> git = std::make_shared<FakeUpstream>();
  Gate gate;
  InProcessGateway gw;
  McpClient& alice;
};

/// A client that looks at something as soon as it knows that its stream is there, while the gateway has not
/// gone on.
class Looking final : public Responder {
 public:
  explicit Looking(std::function<void()> look) : look_(std::move(look)) {}
  void send(HttpResponse response) override { set(response.status); }
  std::shared_ptr<ResponseStream> start(HttpResponse head) override {
    look_();
    set(head.status);
    return std::make_shared<Sink>();
  }
  void on_disconnect(std::function<void()> callback) override {
    const std::lock_guard lock(mutex_);
    leave_ = std::move(callback);
  }
  int status() {
    const std::lock_guard lock(mutex_);
    return status_;
  }
  void leave() {
    std::function<void()> left;
    {
      const std::lock_guard lock(mutex_);
      left = std::exchange(leave_, nullptr);
    }
    REQUIRE(left);
    left();
  }
  bool can_leave() {
    const std::lock_guard lock(mutex_);
    return leave_ != nullptr;
  }

 private:
  class Sink final : public ResponseStream {
   public:
    bool write(std::string /*data*/) override { return true; }
    void close() override {}
  };
  void set(int status) {
    const std::lock_guard lock(mutex_);
    status_ = status;
  }
  const std::function<void()> look_;
  std::mutex mutex_;
  int status_ = 0;
  std::function<void()> leave_;
};

}  // namespace

TEST_CASE("R21: the session's stream tells where it is, and replays what came after Last-Event-ID") {
  World w;
  LiveRequest first(w.gw, get_request(w.alice));
  CHECK(first.status() == 200);
  CHECK(first.header("Content-Type") == "text/event-stream");
  CHECK(first.header("Mcp-Session-Id") == w.alice.session_id());
  REQUIRE(first.sees([](const auto& event) { return event.id.has_value(); }));
  const auto primed = first.events().front();
  CHECK(primed.data.empty());
  CHECK(primed.has_data);
  CHECK(primed.retry.has_value());
  w.git->notify("notifications/message", R"({"level":"info","data":"one"})");
  REQUIRE(first.sees("one"));
  const std::string after_one = first.last_id();
  CHECK(after_one != *primed.id);
  w.git->notify("notifications/message", R"({"level":"info","data":"two"})");
  REQUIRE(first.sees("two"));
  first.cut();
  REQUIRE(becomes(
      [&] { return member(w.gw.as("admin").api("GET", "/api/observability/snapshot"), "streams") == "0"; }));
  w.git->notify("notifications/message", R"({"level":"info","data":"three"})");
  {
    LiveRequest again(w.gw, get_request(w.alice, {{"Last-Event-ID", after_one}}));
    REQUIRE(again.sees("three"));
    CHECK(again.count("one") == 0);
    CHECK(again.count("two") == 1);
    CHECK(again.count("three") == 1);
  }
  // The priming event is a place, too; an id of another process names nothing, and is no error.
  LiveRequest all(w.gw, get_request(w.alice, {{"Last-Event-ID", *primed.id}}));
  REQUIRE(all.sees("three"));
  CHECK(all.count("one") + all.count("two") + all.count("three") == 3);
  for (const char* foreign : {"abcdef012345-0-1", "17", "", "x-y-z", "-0-0"}) {
    CAPTURE(foreign);
    LiveRequest other(w.gw, get_request(w.alice, {{"Last-Event-ID", foreign}}));
    CHECK(other.status() == 200);
    REQUIRE(other.sees([](const auto& event) { return event.id.has_value(); }));
    CHECK(other.count("one") == 0);
  }
}

TEST_CASE("R21: revisions before 2025-11-25 get ids, and no event without data") {
  for (const char* version : {"2024-11-05", "2025-03-26", "2025-06-18"}) {
    CAPTURE(version);
    World w(milliseconds(5000), version);
    REQUIRE(w.alice.request("resources/subscribe", R"({"uri":"file:///a"})").ok());
    LiveRequest stream(w.gw, get_request(w.alice));
    CHECK(stream.status() == 200);
    LiveRequest call(w.gw, post_request(w.alice, rpc_request("1", "tools/call", kSlow)));
    REQUIRE(call.sees("progress"));
    w.git->notify("notifications/resources/updated", R"({"uri":"file:///a"})");
    REQUIRE(stream.sees("resources/updated"));
    w.gate.open();
    REQUIRE(call.ends());
    for (const auto* live : {&stream, &call})
      for (const auto& event : live->events()) {
        CHECK_FALSE(event.data.empty());
        CHECK(event.id.has_value());
      }
  }
}

TEST_CASE("R21: a call whose stream was cut goes on, and its client gets the rest") {
  World w;
  REQUIRE(w.alice.request("resources/subscribe", R"({"uri":"file:///a"})").ok());
  LiveRequest stream(w.gw, get_request(w.alice));
  REQUIRE(stream.status() == 200);
  LiveRequest call(w.gw, post_request(w.alice, rpc_request("\"a\"", "tools/call", kSlow)));
  REQUIRE(call.sees(R"("progress":1)"));
  CHECK(call.events().front().data.empty());
  CHECK(call.events().front().retry.has_value());
  const std::string start = call.events().front().id.value(), seen = call.last_id();
  call.cut();
  // What the session's own stream carries meanwhile is no part of it.
  w.git->notify("notifications/resources/updated", R"({"uri":"file:///a"})");
  SUBCASE("resumed while it runs") {
    LiveRequest rest(w.gw, get_request(w.alice, {{"Last-Event-ID", seen}}));
    CHECK(rest.status() == 200);
    w.gate.open();
    REQUIRE(rest.sees("done"));
    REQUIRE(rest.ends());
    CHECK(rest.count(R"("progress":1)") == 0);
    CHECK(rest.count(R"("progress":2)") == 1);
    CHECK(rest.count(R"("id":"a")") == 1);
    CHECK(rest.count("updated") == 0);
    // Again, from the start, after the end.
    LiveRequest again(w.gw, get_request(w.alice, {{"Last-Event-ID", start}}));
    REQUIRE(again.ends());
    CHECK(again.count(R"("progress":1)") == 1);
    CHECK(again.count(R"("id":"a")") == 1);
  }
  SUBCASE("resumed when it is over") {
    w.gate.open();
    REQUIRE(becomes([&] { return w.row_of("tools/call") == "200 "; }));
    LiveRequest rest(w.gw, get_request(w.alice, {{"Last-Event-ID", seen}}));
    REQUIRE(rest.ends());
    CHECK(rest.count(R"("progress":2)") == 1);
    CHECK(rest.count(R"("id":"a")") == 1);
  }
  SUBCASE("cut twice") {
    LiveRequest second(w.gw, get_request(w.alice, {{"Last-Event-ID", seen}}));
    CHECK(second.status() == 200);
    second.cut();
    w.gate.open();
    LiveRequest third(w.gw, get_request(w.alice, {{"Last-Event-ID", seen}}));
    REQUIRE(third.sees("done"));
    CHECK(third.count(R"("progress":2)") == 1);
  }
  SUBCASE("a second connection takes the place of the first") {
    LiveRequest second(w.gw, get_request(w.alice, {{"Last-Event-ID", start}}));
    REQUIRE(second.sees(R"("progress":1)"));
    LiveRequest third(w.gw, get_request(w.alice, {{"Last-Event-ID", start}}));
    REQUIRE(third.sees(R"("progress":1)"));
    REQUIRE(second.ends());
    w.gate.open();
    REQUIRE(third.sees("done"));
    CHECK(second.count("done") == 0);
  }
  CHECK(w.row_of("tools/call") == "200 ");
  CHECK(w.git->received("notifications/cancelled").empty());
  CHECK(w.git->received("tools/call").size() == 1);
  REQUIRE(stream.sees("updated"));
  CHECK(stream.count("done") == 0);
}

TEST_CASE("R22: a client that does not come back ends the call, as does one that could not") {
  SUBCASE("it was told an event id: after a while") {
    World w(milliseconds(100));
    LiveRequest call(w.gw, post_request(w.alice, rpc_request("1", "tools/call", kSlow)));
    REQUIRE(call.sees("progress"));
    const std::string seen = call.last_id();
    call.cut();
    REQUIRE(becomes([&] { return w.git->received("notifications/cancelled").size() == 1; }));
    CHECK(becomes([&] { return w.row_of("tools/call") == "499 cancelled"; }));
    // Its end is told to one that comes later.
    LiveRequest late(w.gw, get_request(w.alice, {{"Last-Event-ID", seen}}));
    REQUIRE(late.ends());
    CHECK(late.count(R"("code":"cancelled")") == 1);
  }
  SUBCASE("it takes no streams: at once") {
    World w(milliseconds(3600000));
    LiveRequest call(
        w.gw, post_request(w.alice, rpc_request("1", "tools/call", kSlow), {{"Accept", "application/json"}}));
    REQUIRE(w.gate.entered());
    call.cut();
    REQUIRE(becomes([&] { return w.git->received("notifications/cancelled").size() == 1; }));
    CHECK(becomes([&] { return w.row_of("tools/call") == "499 cancelled"; }));
  }
  SUBCASE("its revision has no priming event and nothing was sent: at once") {
    World w(milliseconds(3600000), "2025-06-18");
    LiveRequest call(w.gw, post_request(w.alice, rpc_request("1", "tools/call", R"({"name":"slow"})")));
    CHECK(call.status() == 200);  // a stream by now
    REQUIRE(w.gate.entered());
    call.cut();
    REQUIRE(becomes([&] { return w.git->received("notifications/cancelled").size() == 1; }));
  }
}

TEST_CASE("what cannot be resumed: foreign sessions, unknown streams, and streams that were not kept") {
  World w;
  LiveRequest call(w.gw, post_request(w.alice, rpc_request("1", "tools/call", kSlow)));
  REQUIRE(call.sees("progress"));
  const std::string seen = call.last_id();
  call.cut();
  w.gw.allow("bob", "git");
  McpClient& bob = w.gw.as("bob");
  bob.initialize();
  HttpRequest foreign = get_request(bob, {{"Last-Event-ID", seen}});
  for (auto& [name, value] : foreign.headers)
    if (name == "Mcp-Session-Id") value = w.alice.session_id();
  CHECK(w.gw.send(foreign).status == 404);
  // In a session of his own the id means nothing.
  CHECK(w.gw.send(get_request(bob, {{"Last-Event-ID", seen}})).status == 400);
  const auto dash = seen.find('-');
  for (const std::string& id : {seen.substr(0, dash) + "-99-1", std::string("0123456789ab-1-1")}) {
    const HttpResponse unknown = w.gw.send(get_request(w.alice, {{"Last-Event-ID", id}}));
    CHECK(unknown.status == 400);
    CHECK(member(unknown, "code") == "unknown_event");
  }
  w.gate.open();
}

TEST_CASE("R33: an answer that is too large to be kept for a client that is away is told as an error") {
  World w;
  Gate gate;
  w.git->add_tool("big", [wait = gate.handler()](const FakeUpstream::Call& call) {
    (void)wait(call);
    return FakeUpstream::text(std::string(3 * 1024 * 1024, 'x'));
  });
  const std::string params = R"({"name":"big","arguments":{},"_meta":{"progressToken":1}})";
  LiveRequest call(w.gw, post_request(w.alice, rpc_request("1", "tools/call", params)));
  REQUIRE(call.sees("progress"));
  const std::string seen = call.last_id();
  SUBCASE("away") {
    call.cut();
    gate.open();
    LiveRequest rest(w.gw, get_request(w.alice, {{"Last-Event-ID", seen}}));
    REQUIRE(rest.ends());
    // Whoever is back before the answer gets it; after it, what is kept.
    CHECK(rest.count("response_too_large") + rest.count("xxx") == 1);
    REQUIRE(becomes([&] { return w.row_of("tools/call") == "200 "; }));
  }
  SUBCASE("there") {
    gate.open();
    REQUIRE(call.sees("xxx"));
    CHECK(call.count("response_too_large") == 0);
  }
  LiveRequest again(w.gw, get_request(w.alice, {{"Last-Event-ID", seen}}));
  REQUIRE(again.ends());
  CHECK(again.count("response_too_large") == 1);
  CHECK(again.count(R"("id":1)") == 1);
}

TEST_CASE("R67: a resumed stream ends with its token, and the call goes on for the user's other tokens") {
  World w;
  const auto other =
      w.gw.gateway().authenticator()->mint(w.alice.user_id(), "other", TokenKind::api, {"mcp"}, std::nullopt);
  REQUIRE(other);
  LiveRequest call(w.gw, post_request(w.alice, rpc_request("1", "tools/call", kSlow)));
  REQUIRE(call.sees("progress"));
  const std::string seen = call.last_id();
  call.cut();
  HttpRequest request = get_request(w.alice, {{"Last-Event-ID", seen}});
  request.headers[0].second = "Bearer " + other->token;
  LiveRequest resumed(w.gw, request);
  CHECK(resumed.status() == 200);
  change(w.gw.as("admin"), "DELETE", "/api/users/" + w.alice.user_id() + "/tokens/" + other->row.id);
  REQUIRE(resumed.ends());
  LiveRequest again(w.gw, get_request(w.alice, {{"Last-Event-ID", seen}}));
  CHECK(again.status() == 200);
  w.gate.open();
  REQUIRE(again.sees("done"));
}

TEST_CASE("a stream counts as soon as its client knows of it") {
  World w;
  const std::string listen = rpc_request(
      "1", "subscriptions/listen",
      R"({"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",)"
      R"("io.modelcontextprotocol/clientCapabilities":{}}})");
  HttpRequest over_sse = get_request(w.alice);
  std::erase_if(over_sse.headers, [](const auto& header) { return header.first == "Mcp-Session-Id"; });
  for (const auto& [name, request] : std::vector<std::pair<std::string, HttpRequest>>{
           {"GET", get_request(w.alice)},
           {"HTTP+SSE", over_sse},
           {"listen", post_request(w.alice, listen,
                                   {{"MCP-Protocol-Version", "2026-07-28"},
                                    {"Mcp-Method", "subscriptions/listen"}})}}) {
    CAPTURE(name);
    const auto streams = [&] {
      return member(w.gw.as("admin").api("GET", "/api/observability/snapshot"), "streams");
    };
    std::string seen;
    const auto client = std::make_shared<Looking>([&] { seen = streams(); });
    w.gw.gateway().handle_async(request, client);
    REQUIRE(becomes([&] { return client->can_leave(); }));
    CHECK(client->status() == 200);
    CHECK(seen == "1");
    CHECK(streams() == "1");
    client->leave();
    CHECK(becomes([&] { return streams() == "0"; }));
  }
}

TEST_CASE("R34: a stream that is being opened counts once, for whoever opens the next at the same time") {
  InProcessOptions few = options();
  few.gateway.session.max_streams_per_user = 2;
  InProcessGateway gw(std::move(few));
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.initialize().ok());
  const HttpRequest of_session = get_request(alice);
  HttpRequest of_its_own = of_session;
  std::erase_if(of_its_own.headers, [](const auto& header) { return header.first == "Mcp-Session-Id"; });
  for (int i = 0; i < 100; ++i) {
    CAPTURE(i);
    LiveRequest first(gw, of_session), second(gw, of_its_own);
    CHECK(first.status() == 200);
    CHECK(second.status() == 200);
    LiveRequest third(gw, of_its_own);
    CHECK(third.status() == 429);
    first.cut();
    second.cut();
    REQUIRE(becomes(
        [&] { return member(gw.as("admin").api("GET", "/api/observability/snapshot"), "streams") == "0"; }));
  }
}
