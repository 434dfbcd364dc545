// notifications/*/list_changed towards clients: one for each session and kind whose list did change, and none
// else.
#include "stream_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

constexpr const char* kTools = "notifications/tools/list_changed";
constexpr const char* kPrompts = "notifications/prompts/list_changed";
constexpr const char* kResources = "notifications/resources/list_changed";

/// A client that listens, and has seen the lists that it names.
struct Listener {
  Listener(InProcessGateway& gw, const std::string& name, bool lists = true)
      : client(gw.as(name)), gateway(gw) {
    REQUIRE(client.initialize().ok());
    stream = std::make_unique<LiveRequest>(gw, get_request(client));
    REQUIRE(stream->status() == 200);
    if (!lists) return;
    client.list_tools();
    client.list_prompts();
    client.list_resources();
    CHECK(client.request("resources/templates/list").ok());
  }
  /// How often each kind was announced, once something else has come through after what went before:
  /// announcements are gathered for a moment, so a change that must be announced is waited for, by another
  /// client or this one.
  std::string counts() const {
    return std::to_string(stream->count(kTools)) + " " + std::to_string(stream->count(kPrompts)) + " " +
           std::to_string(stream->count(kResources));
  }
  McpClient& client;
  InProcessGateway& gateway;
  std::unique_ptr<LiveRequest> stream;
};

std::shared_ptr<FakeUpstream> everything(const std::string& name) {
  auto out = echo_upstream(name);
  out->add_prompt("ask", [](const auto&) { return R"({"messages":[]})"; });
  out->add_resource("file:///" + name, [](const auto&) { return R"({"contents":[]})"; });
  return out;
}

/// Long enough for an announcement that must not come: they are made within 100 ms of their reason.
void settle() { std::this_thread::sleep_for(milliseconds(700)); }

std::string target_id(InProcessGateway& gw, const std::string& name) {
  return gw.gateway().repository()->target_by_name(name)->id;
}

}  // namespace

TEST_CASE(
    "R21: a target that is added, edited, disabled and enabled is announced once, to those who see it") {
  InProcessGateway gw(options());
  auto git = everything("git"), docs = std::make_shared<FakeUpstream>();
  docs->add_tool("find", [](const auto&) { return FakeUpstream::text(""); });
  gw.add_upstream("git", git);
  gw.allow("alice", "");  // whatever there is
  gw.allow("bob", "git");
  Listener alice(gw, "alice"), bob(gw, "bob");
  settle();
  CHECK(alice.counts() == "0 0 0");

  // A second target: its tool is new, and what the first has gets other names.
  const std::string id = gw.add_upstream("docs", docs);
  REQUIRE(alice.stream->sees(kTools));
  REQUIRE(alice.stream->sees(kPrompts));
  REQUIRE(alice.stream->sees(kResources));
  settle();
  CHECK(alice.counts() == "1 1 1");
  CHECK(bob.counts() == "0 0 0");
  CHECK(alice.client.list_tools().size() == 2);

  // Nothing that anybody sees of it: not announced.
  change(gw.as("admin"), "PUT", "/api/targets/" + id, R"({"timeout_ms":30000})");
  settle();
  CHECK(alice.counts() == "1 1 1");
  // Its names.
  change(gw.as("admin"), "PUT", "/api/targets/" + id, R"({"slug":"papers"})");
  REQUIRE(becomes([&] { return alice.counts() == "2 1 1"; }));
  CHECK(contains(alice.client.list_tools(), "papers_find"));
  settle();

  change(gw.as("admin"), "PUT", "/api/targets/" + id, R"({"enabled":false})");
  REQUIRE(becomes([&] { return alice.counts() == "3 2 2"; }));
  CHECK(alice.client.list_tools() == Strings{"echo"});
  change(gw.as("admin"), "PUT", "/api/targets/" + id, R"({"enabled":true})");
  REQUIRE(becomes([&] { return alice.counts() == "4 3 3"; }));
  change(gw.as("admin"), "DELETE", "/api/targets/" + id);
  REQUIRE(becomes([&] { return alice.counts() == "5 4 4"; }));
  settle();
  CHECK(alice.counts() == "5 4 4");
  CHECK(bob.counts() == "0 0 0");
}

TEST_CASE("R21: a policy is announced once, for the kinds and to the users whose lists it changes") {
  InProcessGateway gw(options());
  auto git = everything("git");
  git->add_tool("push", [](const auto&) { return FakeUpstream::text(""); });
  gw.add_upstream("git", git);
  for (const char* name : {"alice", "bob"}) gw.allow(name, "git");
  Listener alice(gw, "alice"), bob(gw, "bob");
  // Two tabs of one user are told both.
  const auto token = gw.gateway().authenticator()->mint(alice.client.user_id(), "tab", TokenKind::api,
                                                        {"mcp"}, std::nullopt);
  McpClient tab = alice.client;
  REQUIRE(tab.initialize().ok());
  LiveRequest second(gw, get_request(tab));
  REQUIRE(second.status() == 200);
  tab.list_tools();
  settle();
  const std::string deny = change(
      gw.as("admin"), "POST", "/api/policies",
      R"({"name":"no push","effect":"deny","priority":5,"resource_type":"tool","resource_pattern":"^push$","subjects":[{"subject_type":"user","subject_value":")" +
          alice.client.user_id() + R"("}]})");
  REQUIRE(alice.stream->sees(kTools));
  REQUIRE(second.sees(kTools));
  settle();
  CHECK(alice.counts() == "1 0 0");
  CHECK(second.count(kTools) == 1);
  CHECK(bob.counts() == "0 0 0");
  // Listed again or not: what changes once more is announced once more.
  change(gw.as("admin"), "DELETE", "/api/policies/" + deny);
  REQUIRE(becomes([&] { return alice.counts() == "2 0 0"; }));
  // A policy that decides nothing about this user's lists.
  change(
      gw.as("admin"), "POST", "/api/policies",
      R"({"name":"nothing","effect":"deny","priority":5,"resource_pattern":"^nosuch$","subjects":[{"subject_type":"everyone"}]})");
  // Several writes at once are one reason.
  for (int i = 0; i < 5; ++i)
    change(
        gw.as("admin"), "POST", "/api/policies",
        R"({"name":"p)" + std::to_string(i) +
            R"(","effect":"deny","priority":9,"resource_type":"prompt","subjects":[{"subject_type":"everyone"}]})");
  REQUIRE(alice.stream->sees(kPrompts));
  REQUIRE(bob.stream->sees(kPrompts));
  settle();
  CHECK(alice.counts() == "2 1 0");
  CHECK(bob.counts() == "0 1 0");
}

TEST_CASE("R21: what a server itself announces reaches those whose list it changes, once") {
  for (const bool process : {true, false}) {
    CAPTURE(process);
    InProcessGateway gw(options());
    auto git = everything("git");
    if (process)
      gw.add_upstream("git", git);
    else
      gw.add_upstream(http_target("git"), git);
    gw.allow("alice", "git");
    gw.allow("bob", "git", "^echo$");
    Listener alice(gw, "alice"), bob(gw, "bob");
    settle();
    git->add_tool("fresh", [](const auto&) { return FakeUpstream::text(""); });
    for (int i = 0; i < 3; ++i) git->notify(kTools);
    REQUIRE(alice.stream->sees(kTools));
    settle();
    CHECK(alice.counts() == "1 0 0");
    CHECK(bob.counts() == "0 0 0");  // he may not see the new one
    CHECK(alice.client.list_tools() == Strings{"echo", "fresh"});
    // Without a change, and one of another kind.
    git->notify(kTools);
    git->add_prompt("more", [](const auto&) { return R"({"messages":[]})"; });
    git->notify(kPrompts);
    REQUIRE(alice.stream->sees(kPrompts));
    settle();
    CHECK(alice.counts() == "1 1 0");
    // Only a description changes: that is a change of the list, for him, too.
    git->add_raw_tool("echo", R"({"name":"echo","description":"new","inputSchema":{"type":"object"}})",
                      [](const auto&) { return FakeUpstream::text(""); });
    git->notify(kTools);
    REQUIRE(bob.stream->sees(kTools));
    REQUIRE(becomes([&] { return alice.counts() == "2 1 0"; }));
    settle();
    CHECK(bob.counts() == "1 0 0");
  }
}

TEST_CASE("R21: a target that was away is announced when it is back, without anybody's asking") {
  InProcessOptions opts = options();
  opts.gateway.upstream.list_timeout = milliseconds(300);
  InProcessGateway gw(std::move(opts));
  auto git = everything("git"), docs = everything("docs");
  docs->hang("initialize");
  gw.add_upstream(http_target("git"), git);
  gw.add_upstream(http_target("docs"), docs);
  gw.allow("alice", "");
  Listener alice(gw, "alice");
  CHECK(alice.client.list_tools() == Strings{"git_echo"});
  settle();
  CHECK(alice.counts() == "0 0 0");
  // The connection that hangs is given up when the target is edited; the next one is answered.
  docs->heal();
  change(gw.as("admin"), "PUT", "/api/targets/" + target_id(gw, "docs"), R"({"timeout_ms":20000})");
  REQUIRE(alice.stream->sees(kTools));
  REQUIRE(alice.stream->sees(kPrompts));
  REQUIRE(alice.stream->sees(kResources));
  CHECK(alice.client.list_tools() == Strings{"docs_echo", "git_echo"});
  settle();
  CHECK(alice.counts() == "1 1 1");
  // One that goes away is no change of a list; one that comes back with more is.
  docs->add_tool("more", [](const auto&) { return FakeUpstream::text(""); });
  docs->close_on("tools/call");
  CHECK(alice.client.call_tool("docs_echo").error_code() == -32603);
  docs->heal();
  REQUIRE(becomes([&] { return alice.counts() == "2 1 1"; }));
  CHECK(alice.client.list_tools().size() == 3);
}

TEST_CASE(
    "R21: who has listed nothing is told of what changes after its stream was opened; who has no stream, "
    "when it opens one") {
  InProcessGateway gw(options());
  auto git = everything("git");
  gw.add_upstream("git", git);
  gw.allow("alice", "");
  gw.allow("bob", "");
  Listener alice(gw, "alice", false);
  McpClient& bob = gw.as("bob");
  bob.initialize();
  bob.list_tools();
  settle();
  gw.add_upstream("docs", echo_upstream("docs"));
  REQUIRE(alice.stream->sees(kTools));
  settle();
  CHECK(alice.counts() == "1 1 1");
  // Bob has listed tools only, and hears of the rest what changes from here on.
  LiveRequest late(gw, get_request(bob));
  REQUIRE(late.sees(kTools));
  settle();
  CHECK(late.count(kTools) == 1);
  CHECK(late.count(kPrompts) + late.count(kResources) == 0);
}
