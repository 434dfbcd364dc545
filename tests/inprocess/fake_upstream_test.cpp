// What a test author relies on: the scripted server speaks both eras of MCP, to clients of both, and its
// faults are the same in each.
#include <thread>

#include "support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using detail::raw::find;
using Era = FakeUpstream::Era;
using Strings = std::vector<std::string>;

namespace {

constexpr const char* kModern = "2026-07-28";
constexpr const char* kLegacy = "2025-11-25";

/// One pairing of server and client.
struct Pair {
  Era era;
  EraSetting setting;    ///< how the gateway speaks to it
  const char* upstream;  ///< the revision that its handlers see
  const char* client;
};

const std::vector<Pair>& pairs() {
  static const std::vector<Pair> all = {{Era::legacy, EraSetting::automatic, kLegacy, kLegacy},
                                        {Era::legacy, EraSetting::automatic, kLegacy, kModern},
                                        {Era::modern, EraSetting::automatic, kModern, kLegacy},
                                        {Era::modern, EraSetting::automatic, kModern, kModern},
                                        {Era::both, EraSetting::automatic, kLegacy, kModern},
                                        {Era::both, EraSetting::modern, kModern, kLegacy}};
  return all;
}

struct World {
  InProcessGateway gw{options()};
  std::shared_ptr<FakeUpstream> git;
  std::string seen;  ///< the revision of the last call

  explicit World(const Pair& pair) : git(std::make_shared<FakeUpstream>(pair.era)) {
    CAPTURE(pair.upstream);
    CAPTURE(pair.client);
    git->add_tool("log", [this](const FakeUpstream::Call& call) {
      seen = call.version;
      call.progress(1, 2);
      return FakeUpstream::text("log " + call.arguments);
    });
    git->add_tool("fail", [](const FakeUpstream::Call&) -> std::string {
      throw FakeUpstream::FakeError{4001, "out of disk", R"({"free":0})"};
    });
    git->add_resource("x:1", [](const FakeUpstream::Call& call) {
      return R"({"contents":[{"uri":)" + detail::raw::quote(call.name) + R"(,"text":"one"}]})";
    });
    git->add_prompt("greet", [](const FakeUpstream::Call&) {
      return std::string(R"({"messages":[{"role":"user","content":{"type":"text","text":"hi"}}]})");
    });
    Target target;
    target.name = "git";
    target.transport_type = TransportType::stdio;
    target.command = "in-process";
    target.protocol_era = pair.setting;
    target.timeout_ms = 1500;
    gw.add_upstream(target, git);
    gw.allow("alice", "git");
    alice().speak(pair.client, R"({"elicitation":{}})");
  }
  ~World() { git->heal(); }
  McpClient& alice() { return gw.as("alice"); }
};

template <class F>
bool eventually(F&& condition) {
  for (int i = 0; i < 4000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

}  // namespace

TEST_CASE("lists, calls, resources and prompts, whoever speaks what") {
  for (const Pair& pair : pairs()) {
    World world(pair);
    McpClient& alice = world.alice();
    CHECK(alice.list_tools() == Strings{"log", "fail"});
    CHECK(alice.list_resources() == Strings{"x:1"});
    CHECK(alice.list_prompts() == Strings{"greet"});
    CHECK(alice.call_tool("log", R"({"n":1.0})").text() == R"(log {"n":1.0})");
    CHECK(world.seen == pair.upstream);
    CHECK(find(alice.request("resources/read", R"({"uri":"x:1"})").result(), "contents") ==
          R"([{"uri":"x:1","text":"one"}])");
    CHECK(alice.request("prompts/get", R"({"name":"greet"})").ok());
    // A client sees results of its own revision.
    const bool modern = std::string_view(pair.client) == kModern;
    CHECK(find(alice.call_tool("log").result(), "resultType") == (modern ? R"("complete")" : ""));
    CHECK(alice.session_id().empty() == modern);
    // What the server heard is of its revision, and nothing else.
    CHECK(world.git->received("initialize").empty() == (std::string_view(pair.upstream) == kModern));
    CHECK(world.git->received("server/discover").empty() == (std::string_view(pair.upstream) == kLegacy));
    CHECK(world.git->received("tools/call").size() == 2);
  }
}

TEST_CASE("progress and errors of handlers arrive") {
  for (const Pair& pair : pairs()) {
    World world(pair);
    const McpReply counted =
        world.alice().request("tools/call", R"({"name":"log","arguments":{},"_meta":{"progressToken":"p"}})");
    CHECK(counted.ok());
    REQUIRE(counted.notifications.size() == 1);
    CHECK(find(find(counted.notifications[0], "params"), "progressToken") == "\"p\"");
    const McpReply failed = world.alice().call_tool("fail");
    CHECK(failed.error_code() == 4001);
    CHECK(failed.error_message() == "out of disk");
    CHECK(find(find(failed.body, "error"), "data") == R"({"free":0})");
    const McpReply missing = world.alice().request("resources/read", R"({"uri":"x:2"})");
    CHECK_FALSE(missing.ok());
  }
}

TEST_CASE("each fault is an error of that call, and heals") {
  for (const Pair& pair : pairs()) {
    World world(pair);
    McpClient& alice = world.alice();
    REQUIRE(alice.call_tool("log").ok());
    const auto again = [&](const char* fault) {
      CAPTURE(fault);
      const McpReply broken = alice.call_tool("log");
      CHECK_FALSE(broken.ok());
      CHECK(broken.error_code() != 0);
      world.git->heal();
      CHECK(eventually([&] { return alice.call_tool("log").ok(); }));
      return broken;
    };
    world.git->fail_on("tools/call", {4002, "not today", R"({"until":"noon"})"});
    const McpReply failed = again("fail_on");
    CHECK(failed.error_code() == 4002);
    CHECK(find(find(failed.body, "error"), "data") == R"({"until":"noon"})");
    world.git->close_on("tools/call");
    again("close_on");
    world.git->garbage_on("tools/call");
    again("garbage_on");
    if (std::string_view(pair.upstream) == pair.client) {  // the time limit has to pass
      world.git->hang("tools/call");
      again("hang");
    }
    CHECK(world.git->connections() >= 2);
  }
}

TEST_CASE("a server that cannot be greeted is none") {
  for (const Pair& pair : pairs()) {
    World world(pair);
    const bool modern = std::string_view(pair.upstream) == kModern;
    world.git->fail_on(modern ? "server/discover" : "initialize", {-32603, "closed"});
    CHECK_FALSE(world.alice().call_tool("log").ok());
    CHECK(world.git->received("tools/call").empty());
  }
}

TEST_CASE("a change is told to clients of both eras") {
  for (const Pair& pair : pairs()) {
    World world(pair);
    REQUIRE(world.alice().list_tools().size() == 2);
    if (std::string_view(pair.upstream) == kModern) {
      REQUIRE(eventually([&] { return world.git->listeners() == 1; }));
      const Strings asked = world.git->received("subscriptions/listen");
      CHECK(find(find(find(asked.at(0), "params"), "notifications"), "toolsListChanged") == "true");
    } else {
      CHECK(world.git->listeners() == 0);
    }
    world.git->add_tool("push", [](const FakeUpstream::Call&) { return FakeUpstream::text("done"); });
    world.git->notify("notifications/tools/list_changed");
    CHECK(eventually([&] { return world.alice().list_tools().size() == 3; }));
  }
}

TEST_CASE("a server of 2026-07-28 asks by a result") {
  for (const Pair& pair : pairs()) {
    if (std::string_view(pair.upstream) != kModern) continue;
    World world(pair);
    world.git->add_tool("greet", [](const FakeUpstream::Call& call) {
      if (call.input_responses.empty())
        return FakeUpstream::input_required(
            R"({"who":{"method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}}})",
            "step 1");
      return FakeUpstream::text(call.request_state + ": " + call.input_responses);
    });
    if (std::string_view(pair.client) != kModern)
      continue;  // its question would come on a stream: modern_upstream_test
    const McpReply asked = world.alice().call_tool("greet");
    REQUIRE(asked.needs_input());
    CHECK(asked.ok());
    const std::string questions(find(asked.result(), "inputRequests"));
    CHECK(find(find(find(questions, "who"), "params"), "message") == "\"Who?\"");
    const McpReply done = world.alice().request(
        "tools/call",
        R"({"name":"greet","arguments":{},"inputResponses":{"who":{"action":"accept","content":{"name":"Ada"}}},)"
        R"("requestState":)" +
            std::string(find(asked.result(), "requestState")) + "}");
    CHECK_FALSE(done.needs_input());
    CHECK(done.text() == R"(step 1: {"who":{"action":"accept","content":{"name":"Ada"}}})");
  }
}

TEST_CASE("a server of chosen revisions answers the handshake with what it knows") {
  auto git = std::make_shared<FakeUpstream>();
  git->set_legacy_versions({"2025-03-26", "2024-11-05"});
  std::string seen;
  git->add_tool("log", [&](const FakeUpstream::Call& call) {
    seen = call.version;
    return FakeUpstream::text("abc");
  });
  InProcessGateway gw(options());
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  CHECK(gw.as("alice").call_tool("log").text() == "abc");
  CHECK(seen == "2025-03-26");
  CHECK_THROWS(git->set_legacy_versions({}));

  auto strange = std::make_shared<FakeUpstream>();
  strange->set_legacy_versions({"1999-12-31"});
  strange->add_tool("old", [](const auto&) { return FakeUpstream::text("abc"); });
  gw.add_upstream("strange", strange);
  gw.allow("bob", "strange");
  CHECK_FALSE(gw.as("bob").call_tool("old").ok());
  CHECK(strange->received("tools/call").empty());
}

TEST_CASE("a fake is as strict as a server of its revision") {
  struct Row {
    Era era;
    const char* message;
    int code;
  };
  const auto modern = [](const char* method, const char* meta) {
    return std::string(R"({"jsonrpc":"2.0","id":"q","method":")") + method + R"(","params":{"_meta":{)" +
           meta + "}}}";
  };
  constexpr const char* kGood =
      R"("io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{})";
  const std::vector<std::pair<Row, std::string>> rows = {
      {{Era::modern, "handshake", -32022},
       R"({"jsonrpc":"2.0","id":"q","method":"initialize","params":{"protocolVersion":"2025-11-25"}})"},
      {{Era::modern, "no _meta", -32602}, R"({"jsonrpc":"2.0","id":"q","method":"tools/list"})"},
      {{Era::modern, "other version", -32022},
       modern(
           "tools/list",
           R"("io.modelcontextprotocol/protocolVersion":"2027-01-01","io.modelcontextprotocol/clientCapabilities":{})")},
      {{Era::modern, "no capabilities", -32602},
       modern("tools/list", R"("io.modelcontextprotocol/protocolVersion":"2026-07-28")")},
      {{Era::modern, "ping is gone", -32601}, modern("ping", kGood)},
      {{Era::modern, "subscribe is gone", -32601}, modern("resources/subscribe", kGood)},
      {{Era::modern, "listen to nothing said", -32602}, modern("subscriptions/listen", kGood)},
      {{Era::modern, "fine", 0}, modern("tools/list", kGood)},
      {{Era::legacy, "discover is unknown", -32601}, modern("server/discover", kGood)},
      {{Era::legacy, "listen is unknown", -32601}, modern("subscriptions/listen", kGood)},
      {{Era::both, "either", 0}, modern("server/discover", kGood)},
      {{Era::both, "or", 0}, R"({"jsonrpc":"2.0","id":"q","method":"ping"})"}};
  for (const auto& [row, message] : rows) {
    CAPTURE(row.message);
    FakeUpstream fake(row.era);
    CHECK(fake.era() == row.era);
    auto channel = fake.connect({});
    REQUIRE(channel);
    std::mutex mutex;
    std::string answer;
    (*channel)->start({[&](std::string text) {
                         const std::lock_guard lock(mutex);
                         answer = std::move(text);
                       },
                       [](Error) {},
                       {}});
    REQUIRE((*channel)->send(message));
    REQUIRE(eventually([&] {
      const std::lock_guard lock(mutex);
      return !answer.empty();
    }));
    CHECK(detail::raw::int_value(find(answer, "error", "code")).value_or(0) == row.code);
    if (row.code == -32022)
      CHECK(find(find(find(answer, "error"), "data"), "supported") == R"(["2026-07-28"])");
    (*channel)->close();
  }
}
