// Servers of the legacy era that ask their client something in the middle of a call, and clients of revision
// 2026-07-28 that are told so in a result and come back with the answer.
#include <atomic>

#include "../support/scripted_mcp.hpp"
#include "modern_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using Strings = std::vector<std::string>;

namespace {

constexpr const char* kAll = R"({"elicitation":{},"sampling":{},"roots":{}})";
constexpr const char* kForm =
    R"({"message":"Who?","requestedSchema":{"type":"object","properties":{"name":{"type":"string"}}}})";
constexpr const char* kSample = R"({"messages":[],"maxTokens":9,"_meta":{"progressToken":4}})";
constexpr const char* kSampled =
    R"({"role":"assistant","model":"m","content":{"type":"text","text":"Paris"}})";

struct World {
  InProcessGateway gw{options()};
  std::shared_ptr<FakeUpstream> git = std::make_shared<FakeUpstream>();
  std::string policy;
  explicit World(bool http = true) {
    git->add_tool("echo", [](const FakeUpstream::Call& call) { return FakeUpstream::text(call.arguments); });
    if (http)
      gw.add_upstream(http_target("git"), git);
    else
      gw.add_upstream("git", git);
    policy = gw.allow("alice", "git");
  }
  ~World() { git->heal(); }
  McpClient& alice() { return gw.as("alice"); }
};

std::string state_of(const McpReply& reply) {
  return detail::raw::string_value(find(reply.result(), "requestState")).value_or("");
}

/// The keys of what is asked.
Strings keys_of(const McpReply& reply) {
  Strings out;
  const std::string result = reply.result();
  for (const auto& member : detail::raw::members(find(result, "inputRequests"))) out.emplace_back(member.key);
  return out;
}

bool asks(const McpReply& reply) {
  return reply.http_status == 200 && find(reply.result(), "resultType") == "\"input_required\"";
}

std::string with(const std::string& state, const std::string& responses = {}) {
  return (responses.empty() ? "" : R"(,"inputResponses":)" + responses) + R"(,"requestState":)" +
         quote(state);
}

McpReply again(McpClient& client, const std::string& tool, const std::string& state,
               const std::string& responses = {}, const char* capabilities = kAll) {
  return modern_call(client, tool, "{}", {.capabilities = capabilities, .id = "2"}, with(state, responses));
}

McpReply first(McpClient& client, const std::string& tool, const char* capabilities = kAll) {
  return modern_call(client, tool, "{}", {.capabilities = capabilities});
}

}  // namespace

TEST_CASE("a question in the middle of a call becomes a result, its answer the call's next step") {
  World world;
  add_asking_tool(*world.git, "ask", {{"elicitation/create", kForm}});
  const McpReply asked = first(world.alice(), "ask");
  REQUIRE(asks(asked));
  CHECK(find(asked.result(), "ttlMs").empty());
  REQUIRE(keys_of(asked).size() == 1);
  const std::string key = keys_of(asked).front();
  const std::string request(find(find(asked.result(), "inputRequests"), key));
  CHECK(find(request, "method") == "\"elicitation/create\"");
  CHECK(find(request, "params") == kForm);
  CHECK(find(request, "id").empty());
  CHECK_FALSE(state_of(asked).empty());

  const std::string answer = R"({"action":"accept","content":{"name":"octocat","n":1.0}})";
  const McpReply done =
      again(world.alice(), "ask", state_of(asked), "{" + quote(key) + ":" + answer + R"(,"x":1})");
  CHECK(done.http_status == 200);
  CHECK(find(done.body, "id") == "2");
  CHECK(find(done.result(), "resultType") == "\"complete\"");
  CHECK(done.text() == answer);
  CHECK(world.git->received("tools/call").size() == 1);

  // Used up.
  const McpReply replayed =
      again(world.alice(), "ask", state_of(asked), "{" + quote(key) + ":" + answer + "}");
  CHECK(replayed.http_status == 400);
  CHECK(replayed.error_code() == -32602);

  const auto rows = world.gw.audit_rows();
  CHECK(std::count_if(rows.begin(), rows.end(), [](const AuditRecord& r) {
          return r.method == "tools/call" && r.response_status == 200 && r.tool == "ask" &&
                 r.target_name == "git" && r.decision == "allow";
        }) == 2);
  CHECK(std::count_if(rows.begin(), rows.end(),
                      [](const AuditRecord& r) { return r.method == "elicitation/create"; }) == 1);
  // What people answer is not kept.
  CHECK(std::none_of(rows.begin(), rows.end(), [](const AuditRecord& r) {
    return r.request_body.find("octocat") != std::string::npos;
  }));
}

TEST_CASE("questions that come together are asked together, in parts if the client likes") {
  World world;
  add_asking_tool(*world.git, "ask",
                  {{"elicitation/create", kForm}, {"sampling/createMessage", kSample}, {"roots/list", "{}"}},
                  true);
  const McpReply asked = first(world.alice(), "ask");
  REQUIRE(asks(asked));
  const Strings keys = keys_of(asked);
  REQUIRE(keys.size() == 3);
  CHECK(find(find(find(asked.result(), "inputRequests"), keys[1]), "params") ==
        R"({"messages":[],"maxTokens":9})");

  const McpReply partly =
      again(world.alice(), "ask", state_of(asked), "{" + quote(keys[2]) + R"(:{"roots":[]}})");
  REQUIRE(asks(partly));
  CHECK(keys_of(partly) == Strings{keys[0], keys[1]});
  CHECK(state_of(partly) != state_of(asked));
  const McpReply nothing = again(world.alice(), "ask", state_of(partly));
  REQUIRE(asks(nothing));
  CHECK(keys_of(nothing) == keys_of(partly));

  const McpReply done =
      again(world.alice(), "ask", state_of(nothing),
            "{" + quote(keys[0]) + R"(:{"action":"decline"},)" + quote(keys[1]) + ":" + kSampled + "}");
  CHECK(done.text() == R"({"action":"decline"}|)" + std::string(kSampled) + R"(|{"roots":[]})");
}

TEST_CASE("each round has a state of its own, and each step is one call at the server") {
  World world;
  add_asking_tool(*world.git, "ask", {{"elicitation/create", kForm}, {"sampling/createMessage", kSample}});
  const McpReply one = first(world.alice(), "ask");
  REQUIRE(asks(one));
  const McpReply two =
      again(world.alice(), "ask", state_of(one), "{" + quote(keys_of(one)[0]) + R"(:{"action":"cancel"}})");
  REQUIRE(asks(two));
  CHECK(state_of(two) != state_of(one));
  CHECK(again(world.alice(), "ask", state_of(one)).error_code() == -32602);
  const McpReply done =
      again(world.alice(), "ask", state_of(two), "{" + quote(keys_of(two)[0]) + ":" + kSampled + "}");
  CHECK(done.text() == R"({"action":"cancel"}|)" + std::string(kSampled));
  CHECK(world.git->received("tools/call").size() == 1);
}

TEST_CASE("prompts and resources ask alike") {
  World world;
  const auto asking = [git = world.git.get()](const std::string& result) {
    return [git, result](const FakeUpstream::Call&) {
      git->ask("p1", "elicitation/create", kForm);
      const bool answered = eventually([&] {
        for (const std::string& message : git->received())
          if (find(message, "id") == "\"p1\"" && find(message, "method").empty()) return true;
        return false;
      });
      if (!answered) throw FakeUpstream::FakeError{1, "nobody answered"};
      return result;
    };
  };
  world.git->add_prompt("p", asking(R"({"messages":[]})"));
  const McpReply asked = modern(world.alice(), "prompts/get", R"("name":"p")", {.capabilities = kAll});
  REQUIRE(asks(asked));
  const McpReply done = modern(
      world.alice(), "prompts/get",
      R"("name":"p")" + with(state_of(asked), "{" + quote(keys_of(asked)[0]) + R"(:{"action":"decline"}})"),
      {.capabilities = kAll});
  CHECK(done.ok());
  CHECK(find(done.result(), "messages") == "[]");
}

TEST_CASE("a state is good for its user, its request and nothing else") {
  World world;
  world.gw.allow("bob", "git");
  add_asking_tool(*world.git, "ask", {{"elicitation/create", kForm}});
  add_asking_tool(*world.git, "other", {{"elicitation/create", kForm}});
  const McpReply asked = first(world.alice(), "ask");
  REQUIRE(asks(asked));
  const std::string state = state_of(asked);
  const std::string answers = "{" + quote(keys_of(asked)[0]) + R"(:{"action":"decline"}})";
  const auto refused = [](const McpReply& reply) {
    return reply.http_status == 400 && reply.error_code() == -32602 &&
           reply.error_message() == "The request state is not valid for this request";
  };
  CHECK(refused(again(world.gw.as("bob"), "ask", state, answers)));
  CHECK(refused(again(world.alice(), "other", state, answers)));
  CHECK(refused(again(world.alice(), "ask", state + "-TAMPERED", answers)));
  CHECK(refused(again(world.alice(), "ask", state.substr(0, state.size() - 1), answers)));
  std::string flipped = state;
  flipped[flipped.size() / 2] = flipped[flipped.size() / 2] == 'A' ? 'B' : 'A';
  CHECK(refused(again(world.alice(), "ask", flipped, answers)));
  for (const char* bad : {"", "x", "v1.", "v1.abc.def", "...."})
    CHECK(refused(again(world.alice(), "ask", bad, answers)));
  CHECK(
      refused(modern_call(world.alice(), "ask", R"({"a":1})", {.capabilities = kAll}, with(state, answers))));
  CHECK(
      refused(modern(world.alice(), "prompts/get", R"("name":"ask","arguments":{})" + with(state, answers))));
  const McpReply number =
      modern_call(world.alice(), "ask", "{}", {.capabilities = kAll}, R"(,"requestState":7)");
  CHECK(number.http_status == 400);
  // Another process would not know it.
  InProcessGateway elsewhere(options());
  elsewhere.add_upstream("git", world.git);
  elsewhere.allow("alice", "git");
  CHECK(refused(again(elsewhere.as("alice"), "ask", state, answers)));

  CHECK(again(world.alice(), "ask", state, answers).text() == R"({"action":"decline"})");
}

TEST_CASE("malformed answers are refused, and may be put right") {
  World world;
  add_asking_tool(*world.git, "ask", {{"elicitation/create", kForm}});
  const McpReply asked = first(world.alice(), "ask");
  REQUIRE(asks(asked));
  const std::string key = quote(keys_of(asked)[0]);
  for (const std::string bad :
       {"7", "null", R"("x")", "[]", "{}", R"({"action":"maybe"})", R"({"action":"accept","content":[]})"}) {
    CAPTURE(bad);
    const McpReply reply = again(world.alice(), "ask", state_of(asked), "{" + key + ":" + bad + "}");
    CHECK(reply.http_status == 400);
    CHECK(reply.error_code() == -32602);
  }
  CHECK(again(world.alice(), "ask", state_of(asked), "[]").http_status == 400);
  CHECK(again(world.alice(), "ask", state_of(asked), "{" + key + R"(:{"action":"decline"}})").ok());
}

TEST_CASE("answers without a state belong to nothing: the call begins anew") {
  World world;
  add_asking_tool(*world.git, "ask", {{"elicitation/create", kForm}});
  const McpReply asked = modern_call(world.alice(), "ask", "{}", {.capabilities = kAll},
                                     R"(,"inputResponses":{"input_1":{"action":"accept","content":{}}})");
  REQUIRE(asks(asked));
  CHECK(find(world.git->received("tools/call").front(), "params", "inputResponses").empty());
}

TEST_CASE("only what the client declared is asked; what it lacks is told when the server fails for it") {
  World world;
  add_asking_tool(*world.git, "ask", {{"sampling/createMessage", kSample}});
  world.git->add_tool("needs", [git = world.git.get()](const FakeUpstream::Call&) {
    git->ask("n1", "sampling/createMessage", kSample);
    (void)eventually([&] {
      for (const std::string& message : git->received())
        if (find(message, "id") == "\"n1\"" && find(message, "method").empty()) return true;
      return false;
    });
    return R"({"content":[{"type":"text","text":"no model"}],"isError":true})";
  });
  // A server that copes has a result.
  const McpReply copes = first(world.alice(), "ask", R"({"elicitation":{}})");
  CHECK(copes.ok());
  CHECK(copes.text().find("-32601") != std::string::npos);
  const McpReply fails = first(world.alice(), "needs", R"({"elicitation":{}})");
  CHECK(fails.http_status == 400);
  CHECK(fails.error_code() == -32021);
  CHECK(find(find(find(fails.body, "error"), "data"), "requiredCapabilities") == R"({"sampling":{}})");
}

TEST_CASE("questions that only a list could cause are not asked") {
  World world;
  CHECK(first(world.alice(), "echo").ok());
  // No call is running: nobody knows who should answer.
  world.git->ask("stray", "elicitation/create", kForm);
  CHECK(eventually([&] {
    for (const std::string& message : world.git->received())
      if (find(message, "id") == "\"stray\"" && find(message, "error", "code") == "-32601") return true;
    return false;
  }));
}

TEST_CASE("a policy that changed while the client was asked decides") {
  World world;
  add_asking_tool(*world.git, "ask", {{"elicitation/create", kForm}});
  const McpReply asked = first(world.alice(), "ask");
  REQUIRE(asks(asked));
  CHECK(world.gw.gateway().repository()->delete_policy(world.policy));
  world.gw.allow("alice", "git", "^echo$");
  const McpReply denied = again(world.alice(), "ask", state_of(asked),
                                "{" + quote(keys_of(asked)[0]) + R"(:{"action":"decline"}})");
  CHECK(denied.http_status == 400);
  CHECK(denied.error_message() == "Unknown tool: ask");
  // The server is told that nobody will answer.
  CHECK(eventually([&] { return !world.git->received("notifications/cancelled").empty(); }));
}

TEST_CASE("a client that never comes back does not keep its call") {
  auto clock = std::make_shared<ManualClock>();
  InProcessOptions with_clock = options();
  with_clock.gateway.clock = clock;
  InProcessGateway gw(std::move(with_clock));
  auto git = std::make_shared<FakeUpstream>();
  add_asking_tool(*git, "ask", {{"elicitation/create", kForm}});
  gw.add_upstream(http_target("git"), git);
  gw.allow("alice", "git");
  const McpReply asked = first(gw.as("alice"), "ask");
  REQUIRE(asks(asked));
  clock->advance(std::chrono::seconds(301));
  CHECK(eventually([&] { return git->received("notifications/cancelled").size() == 1; }));
  CHECK(again(gw.as("alice"), "ask", state_of(asked)).error_code() == -32602);
}

TEST_CASE("a client that leaves while its answer is worked on has cancelled") {
  World world;
  std::atomic<bool> release{false};
  world.git->add_tool("ask", [&, git = world.git.get()](const FakeUpstream::Call&) {
    git->ask("slow", "elicitation/create", kForm);
    (void)eventually([&] { return release.load(); });
    return FakeUpstream::text("late");
  });
  const McpReply asked = first(world.alice(), "ask");
  REQUIRE(asks(asked));
  const std::string params =
      modern_params(R"("name":"ask","arguments":{})" +
                        with(state_of(asked), "{" + quote(keys_of(asked)[0]) + R"(:{"action":"decline"}})"),
                    {.capabilities = kAll});
  const auto waiting =
      ModernStream::post(world.gw.gateway(), world.alice().token(),
                       detail::make_request("2", "tools/call", params), modern_headers("tools/call", params));
  // The answer has arrived: the second round waits for the call.
  CHECK(eventually([&] {
    for (const std::string& message : world.git->received())
      if (find(message, "id") == "\"slow\"" && find(message, "method").empty()) return true;
    return false;
  }));
  CHECK(world.git->received("notifications/cancelled").empty());
  waiting->leave();
  CHECK(eventually([&] { return world.git->received("notifications/cancelled").size() == 1; }));
  release = true;
}

TEST_CASE("a server asks a bounded number of things at once") {
  World world;
  std::vector<std::pair<std::string, std::string>> questions(20, {"elicitation/create", kForm});
  add_asking_tool(*world.git, "ask", questions, true);
  const McpReply asked = first(world.alice(), "ask");
  REQUIRE(asks(asked));
  CHECK(keys_of(asked).size() == 16);
  std::string answers;
  for (const std::string& key : keys_of(asked))
    answers += (answers.empty() ? "{" : ",") + quote(key) + R"(:{"action":"decline"})";
  const std::string told = again(world.alice(), "ask", state_of(asked), answers + "}").text();
  CHECK(told.find("Not available now") != std::string::npos);
}

TEST_CASE("the time limit of a call stands still while its client is asked, and goes on then") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  std::atomic<bool> release{false};
  add_asking_tool(*git, "ask", {{"elicitation/create", kForm}});
  git->add_tool("slow", [&, server = git.get()](const FakeUpstream::Call&) {
    server->ask("before", "elicitation/create", kForm);
    (void)eventually([&] { return release.load(); });
    return FakeUpstream::text("late");
  });
  Target target = http_target("git");
  target.timeout_ms = 1000;
  gw.add_upstream(std::move(target), git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");

  const McpReply asked = first(alice, "ask");
  REQUIRE(asks(asked));
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));
  CHECK(git->received("notifications/cancelled").empty());
  const std::string decline = "{" + quote(keys_of(asked)[0]) + R"(:{"action":"decline"}})";
  CHECK(again(alice, "ask", state_of(asked), decline).text() == R"({"action":"decline"})");

  const McpReply second = first(alice, "slow");
  REQUIRE(asks(second));
  const McpReply late =
      again(alice, "slow", state_of(second), "{" + quote(keys_of(second)[0]) + R"(:{"action":"decline"}})");
  CHECK(late.error_code() == -32603);
  CHECK(find(find(find(late.body, "error"), "data"), "code") == "\"upstream_timeout\"");
  CHECK(eventually([&] { return git->received("notifications/cancelled").size() == 1; }));
  const auto rows = gw.audit_rows();
  CHECK(std::count_if(rows.begin(), rows.end(), [](const AuditRecord& r) {
          return r.error_code == "upstream_timeout" && r.response_status == 504;
        }) == 1);
  release = true;
}

TEST_CASE("a call that nobody asks about still has its time limit") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  git->hang("tools/call");
  git->add_tool("never", [](const FakeUpstream::Call&) { return FakeUpstream::text("x"); });
  Target target = http_target("git");
  target.timeout_ms = 1000;
  gw.add_upstream(std::move(target), git);
  gw.allow("alice", "git");
  const McpReply late = modern_call(gw.as("alice"), "never");
  CHECK(late.http_status == 200);
  CHECK(find(find(find(late.body, "error"), "data"), "code") == "\"upstream_timeout\"");
  CHECK(eventually([&] { return git->received("notifications/cancelled").size() == 1; }));
  git->heal();
}

TEST_CASE("the newest progress that came while the client was asked is told with its next request") {
  World world;
  std::atomic<bool> parked{false}, told{false};
  world.git->add_tool("ask", [&, git = world.git.get()](const FakeUpstream::Call& call) {
    git->ask("question", "elicitation/create", kForm);
    (void)eventually([&] { return parked.load(); });
    call.progress(1, 9);
    call.progress(2, 9);
    told = true;
    (void)eventually([&] {
      for (const std::string& message : git->received())
        if (find(message, "id") == "\"question\"" && find(message, "method").empty()) return true;
      return false;
    });
    return FakeUpstream::text("done");
  });
  const McpReply asked = modern_call(world.alice(), "ask", "{}",
                                     {.capabilities = kAll, .more_meta = R"(,"progressToken":"one")"});
  REQUIRE(asks(asked));
  parked = true;
  REQUIRE(eventually([&] { return told.load(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // on its way to the gateway
  const McpReply done = modern_call(
      world.alice(), "ask", "{}", {.capabilities = kAll, .more_meta = R"(,"progressToken":"two")", .id = "2"},
      with(state_of(asked), "{" + quote(keys_of(asked)[0]) + R"(:{"action":"decline"}})"));
  CHECK(done.text() == "done");
  REQUIRE_FALSE(done.notifications.empty());
  for (const std::string& one : done.notifications)
    CHECK(find(find(one, "params"), "progressToken") == "\"two\"");
  CHECK(find(find(done.notifications.back(), "params"), "progress").starts_with("2"));
}

namespace {

/// A server of 2025-11-25 that wants its client to visit a page before it works.
struct Visited {
  std::atomic<int> calls{0};
  std::atomic<int> wants{1};  // refusals
  ScriptedMcp server;
  Visited()
      : server([this](McpExchange& e) {
          if (e.method != "tools/call") return false;
          if (calls++ >= wants) return false;
          e.status(
              200,
              R"({"jsonrpc":"2.0","id":)" + e.id +
                  R"(,"error":{"code":-32042,"message":"visit","data":{"elicitations":[{"mode":"url",)"
                  R"("elicitationId":"e-1","url":"https://example.com/go","message":"Sign in","x":1.0}]}}})");
          return true;
        }) {}
};

constexpr const char* kVisits = R"({"elicitation":{"url":{}}})";

}  // namespace

TEST_CASE("a page that a server of before wants visited is asked for in a result, and the call made again") {
  InProcessOptions near = options();
  near.gateway.upstream.allow_private = true;
  Visited visited;
  InProcessGateway gw(std::move(near));
  Target target;
  target.name = "old";
  target.transport_type = TransportType::streamable_http;
  target.url = visited.server.url();
  REQUIRE(gw.gateway().repository()->create_target(std::move(target)));
  gw.allow("alice", "old");
  McpClient& alice = gw.as("alice");

  const McpReply asked = first(alice, "echo", kVisits);
  REQUIRE(asks(asked));
  REQUIRE(keys_of(asked) == Strings{"visit_1"});
  const std::string request(find(find(asked.result(), "inputRequests"), "visit_1"));
  CHECK(find(request, "method") == "\"elicitation/create\"");
  CHECK(find(request, "params") ==
        R"({"mode":"url","url":"https://example.com/go","message":"Sign in","x":1.0})");
  CHECK(visited.calls == 1);

  // Another request, another user's hand, a malformed answer.
  CHECK(modern_call(alice, "echo", R"({"other":1})", {.capabilities = kVisits}, with(state_of(asked)))
            .error_code() == -32602);
  gw.allow("bob", "old");
  CHECK(again(gw.as("bob"), "echo", state_of(asked), "{}", kVisits).error_code() == -32602);
  CHECK(again(alice, "echo", state_of(asked), R"({"visit_1":{"action":"maybe"}})", kVisits).error_code() ==
        -32602);
  CHECK(visited.calls == 1);

  // Who does not go there has a tool that failed.
  const McpReply refused =
      again(alice, "echo", state_of(asked), R"({"visit_1":{"action":"decline"}})", kVisits);
  CHECK(refused.http_status == 200);
  CHECK(find(refused.result(), "isError") == "true");
  CHECK(visited.calls == 1);

  const McpReply done = again(alice, "echo", state_of(asked), R"({"visit_1":{"action":"accept"}})", kVisits);
  CHECK(done.ok());
  CHECK_FALSE(asks(done));
  CHECK(visited.calls == 2);

  // Not there yet: it is asked again, with another state.
  visited.calls = 0;
  visited.wants = 2;
  const McpReply once = first(alice, "echo", kVisits);
  const McpReply twice = again(alice, "echo", state_of(once), R"({"visit_1":{"action":"accept"}})", kVisits);
  REQUIRE(asks(twice));
  CHECK(state_of(twice) != state_of(once));
  CHECK(again(alice, "echo", state_of(twice), R"({"visit_1":{"action":"accept"}})", kVisits).ok());

  // A client that cannot is told what it lacks; one with a session gets the server's own error.
  visited.calls = 0;
  const McpReply lacking = first(alice, "echo", R"({"elicitation":{}})");
  CHECK(lacking.http_status == 400);
  CHECK(lacking.error_code() == -32021);
  CHECK(find(find(find(lacking.body, "error"), "data"), "requiredCapabilities") ==
        R"({"elicitation":{"url":{}}})");
  visited.calls = 0;
  const McpReply older = alice.call_tool("echo");
  CHECK(older.error_code() == -32042);
  CHECK(older.body.find("e-1") != std::string::npos);
}

TEST_CASE("what a client did not declare is refused in its name: a mode, and whatever it does not have") {
  constexpr const char* kUrl =
      R"({"mode":"url","elicitationId":"e","url":"https://example.com","message":"go"})";
  constexpr const char* kWithTools = R"({"messages":[],"maxTokens":9,"tools":[]})";
  struct Row {
    const char *capabilities, *method, *params;
    int code;
  };
  const Row rows[] = {
      {R"({"elicitation":{}})", "elicitation/create", kUrl, -32602},
      {R"({"elicitation":{"form":{}}})", "elicitation/create", kUrl, -32602},
      {R"({"elicitation":{"url":{}}})", "elicitation/create", kForm, -32602},
      {R"({"sampling":{}})", "sampling/createMessage", kWithTools, -32602},
      {R"({"sampling":{}})", "elicitation/create", kForm, -32601},
      {R"({"elicitation":{}})", "roots/list", "{}", -32601},
  };
  for (const Row& row : rows) {
    CAPTURE(row.capabilities);
    CAPTURE(row.params);
    for (const bool modern_client : {false, true}) {
      CAPTURE(modern_client);
      World world;  // the scripted server asks on all its connections
      add_asking_tool(*world.git, "ask", {{row.method, row.params}});
      McpClient& alice = world.alice();
      if (!modern_client) REQUIRE(alice.initialize("2025-11-25", row.capabilities).ok());
      const McpReply reply = modern_client ? first(alice, "ask", row.capabilities) : alice.call_tool("ask");
      CHECK(reply.notifications.empty());
      CHECK_FALSE(asks(reply));
      CHECK(find(reply.text(), "code") == std::to_string(row.code));
    }
  }
}
