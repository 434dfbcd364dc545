// subscriptions/listen: one stream on which a client of revision 2026-07-28 hears what it asked for.
#include "gateway/modern_client.hpp"
#include "modern_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using Strings = std::vector<std::string>;

namespace {

class Written final : public ResponseStream {
 public:
  bool write(std::string data) override {
    if (!closed) text += data;
    return !closed;
  }
  void close() override { closed = true; }
  std::string text;
  bool closed = false;
};

constexpr const char* kSubscription = "io.modelcontextprotocol/subscriptionId";

struct World {
  InProcessGateway gw;
  std::shared_ptr<FakeUpstream> git = std::make_shared<FakeUpstream>();
  std::string policy;
  explicit World(InProcessOptions with = options()) : gw(std::move(with)) {
    git->add_tool("echo", [](const auto&) { return FakeUpstream::text("x"); });
    for (const char* uri : {"file:///a", "file:///b"})
      git->add_resource(uri, [](const auto&) { return R"({"contents":[]})"; });
    gw.add_upstream(http_target("git"), git);
    policy = gw.allow("alice", "git");
  }
  McpClient& alice() { return gw.as("alice"); }

  std::shared_ptr<ModernStream> listen(McpClient& client, const std::string& filter,
                                     const std::string& id = "\"s\"") {
    const std::string params = modern_params(R"("notifications":)" + filter);
    return ModernStream::post(gw.gateway(), client.token(),
                            detail::make_request(id, "subscriptions/listen", params),
                            modern_headers("subscriptions/listen", params));
  }
  /// Waits until the stream has so many messages.
  static std::string message(const std::shared_ptr<ModernStream>& stream, std::size_t number) {
    if (!eventually([&] { return stream->messages().size() > number; }))
      return "none came: " + stream->text();
    return stream->messages()[number];
  }
};

std::string method_of(const std::string& message) {
  return detail::raw::string_value(find(message, "method")).value_or("");
}

}  // namespace

TEST_CASE("what is acknowledged comes first, and only what was asked for comes after") {
  World world;
  const auto tools = world.listen(
      world.alice(), R"({"toolsListChanged":true,"promptsListChanged":false,"other":true})", "7");
  const std::string ack = World::message(tools, 0);
  CHECK(tools->status() == 200);
  CHECK(method_of(ack) == "notifications/subscriptions/acknowledged");
  CHECK(find(ack, "params", "notifications") == R"({"toolsListChanged":true})");
  CHECK(find(find(ack, "params"), "_meta", kSubscription) == "7");
  const auto prompts = world.listen(world.alice(), R"({"promptsListChanged":true})");
  CHECK(find(World::message(prompts, 0), "params", "notifications") == R"({"promptsListChanged":true})");
  CHECK(eventually([&] { return world.git->connections() == 1; }));
  // The connection is there once its lists can be read.
  CHECK(modern(world.alice(), "tools/list").ok());

  world.git->notify("notifications/resources/list_changed");
  world.git->notify("notifications/prompts/list_changed");
  world.git->notify("notifications/tools/list_changed");
  CHECK(method_of(World::message(tools, 1)) == "notifications/tools/list_changed");
  CHECK(find(find(World::message(tools, 1), "params"), "_meta", kSubscription) == "7");
  CHECK(method_of(World::message(prompts, 1)) == "notifications/prompts/list_changed");
  CHECK(find(find(World::message(prompts, 1), "params"), "_meta", kSubscription) == "\"s\"");
  CHECK(tools->messages().size() == 2);
  CHECK(prompts->messages().size() == 2);
}

TEST_CASE("resources: those that may be read, told by the names the client uses, until nobody listens") {
  World world;
  auto other = echo_upstream("jira");
  world.gw.add_upstream("jira", other);
  world.gw.allow("alice", "jira");
  const auto stream = world.listen(
      world.alice(),
      R"({"resourceSubscriptions":["mcpgw+git:file:///a","mcpgw+none:file:///a","mcpgw+git:file:///a"]})");
  const std::string ack = World::message(stream, 0);
  CHECK(find(find(ack, "params"), "notifications", "resourceSubscriptions") == R"(["mcpgw+git:file:///a"])");
  REQUIRE(world.git->received("resources/subscribe").size() == 1);
  CHECK(find(world.git->received("resources/subscribe").front(), "params", "uri") == "\"file:///a\"");

  world.git->notify("notifications/resources/updated", R"({"uri":"file:///b"})");
  world.git->notify("notifications/resources/updated", R"({"uri":"file:///a","title":"t"})");
  const std::string updated = World::message(stream, 1);
  CHECK(find(updated, "params", "uri") == "\"mcpgw+git:file:///a\"");
  CHECK(find(updated, "params", "title") == "\"t\"");
  CHECK_FALSE(find(find(updated, "params"), "_meta", kSubscription).empty());

  const auto second = world.listen(world.alice(), R"({"resourceSubscriptions":["mcpgw+git:file:///a"]})");
  CHECK(method_of(World::message(second, 0)) == "notifications/subscriptions/acknowledged");
  CHECK(world.git->received("resources/subscribe").size() == 1);
  stream->leave();
  world.git->notify("notifications/resources/updated", R"({"uri":"file:///a"})");
  CHECK(method_of(World::message(second, 1)) == "notifications/resources/updated");
  CHECK(world.git->received("resources/unsubscribe").empty());
  second->leave();
  CHECK(eventually([&] { return world.git->received("resources/unsubscribe").size() == 1; }));
}

TEST_CASE("nobody hears of what is not theirs") {
  World world;
  world.gw.allow("bob", "git", "^echo$");
  const auto bobs = world.listen(
      world.gw.as("bob"),
      R"({"resourceSubscriptions":["file:///a"],"resourcesListChanged":true,"toolsListChanged":true})");
  const std::string ack = World::message(bobs, 0);
  CHECK(find(ack, "params", "notifications") == R"({"toolsListChanged":true,"resourcesListChanged":true})");
  CHECK(world.git->received("resources/subscribe").empty());
  const auto nobodys = world.listen(world.gw.as("carol"), R"({"toolsListChanged":true})");
  CHECK(method_of(World::message(nobodys, 0)) == "notifications/subscriptions/acknowledged");
  CHECK(modern(world.gw.as("bob"), "tools/list").ok());
  world.git->notify("notifications/tools/list_changed");
  CHECK(method_of(World::message(bobs, 1)) == "notifications/tools/list_changed");
  CHECK(nobodys->messages().size() == 1);
}

TEST_CASE("a policy that changes a client's lists is announced") {
  World world;
  const auto stream = world.listen(world.alice(), R"({"toolsListChanged":true})");
  CHECK(method_of(World::message(stream, 0)) == "notifications/subscriptions/acknowledged");
  CHECK(modern(world.alice(), "tools/list").ok());
  CHECK(world.gw.gateway().repository()->delete_policy(world.policy));
  CHECK(method_of(World::message(stream, 1)) == "notifications/tools/list_changed");
}

TEST_CASE("what changes while servers are still being reached is announced") {
  for (const bool all : {true, false}) {
    CAPTURE(all);
    InProcessOptions with = options();
    with.gateway.upstream.list_timeout = std::chrono::seconds(3);
    World world(std::move(with));
    const auto slow = std::make_shared<FakeUpstream>();
    for (const char* greeting : {"initialize", "server/discover"}) slow->hang(greeting);
    world.gw.add_upstream(http_target("slow"), slow);
    world.gw.allow("alice", "slow");
    // What was made here is announced a moment later, and must not be what is seen below.
    CHECK(modern_call(world.alice(), "git_echo").ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const auto stream = world.listen(world.alice(), R"({"toolsListChanged":true})");
    CHECK(method_of(World::message(stream, 0)) == "notifications/subscriptions/acknowledged");
    // Its client may know the list of the one that is there, and the gateway waits for the other one.
    auto& repository = *world.gw.gateway().repository();
    if (all) {
      CHECK(repository.delete_policy(world.policy));
    } else {
      Policy no_echo;
      no_echo.name = "no echo";
      no_echo.effect = Effect::deny;
      no_echo.priority = 1;
      no_echo.resource_pattern = "echo";
      no_echo.subjects.emplace_back();
      no_echo.subjects.back().type = SubjectType::everyone;
      CHECK(repository.create_policy(std::move(no_echo)));
    }
    CHECK(method_of(World::message(stream, 1)) == "notifications/tools/list_changed");
  }
}

TEST_CASE("a server that is reached late, and policies of before, are no news") {
  InProcessOptions with = options();
  with.gateway.upstream.list_timeout = std::chrono::milliseconds(300);
  World world(std::move(with));
  world.gw.allow("bob", "git");  // what follows from it comes a moment later
  const auto stream = world.listen(world.alice(), R"({"toolsListChanged":true})");
  CHECK(modern(world.alice(), "tools/list").ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(800));
  CHECK(stream->messages().size() == 1);
}

TEST_CASE("filters that are none are refused") {
  World world;
  for (const char* bad : {"7", "[]", R"({"toolsListChanged":1})", R"({"resourceSubscriptions":"a"})",
                          R"({"resourceSubscriptions":[7]})"}) {
    CAPTURE(bad);
    const McpReply reply =
        modern(world.alice(), "subscriptions/listen", R"("notifications":)" + std::string(bad));
    CHECK(reply.http_status == 400);
    CHECK(reply.error_code() == -32602);
  }
  CHECK(modern(world.alice(), "subscriptions/listen").http_status == 400);
}

TEST_CASE("a token that is revoked ends its streams; a gateway that closes says that this is the end") {
  World world;
  world.gw.allow("bob", "git");
  const auto alices = world.listen(world.alice(), R"({"toolsListChanged":true})");
  const auto bobs = world.listen(world.gw.as("bob"), R"({"toolsListChanged":true})", "9");
  World::message(alices, 0);
  World::message(bobs, 0);
  CHECK(world.gw.gateway().repository()->revoke_tokens(world.alice().user_id(), true));
  CHECK(eventually([&] { return alices->closed(); }));
  CHECK(alices->messages().size() == 1);
  CHECK_FALSE(bobs->closed());
  // Open streams do not make it wait.
  const auto before = std::chrono::steady_clock::now();
  world.gw.gateway().close(std::chrono::milliseconds(60000));
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(30));
  CHECK(bobs->closed());
  const std::string last = bobs->messages().back();
  CHECK(find(last, "id") == "9");
  CHECK(find(last, "result", "resultType") == "\"complete\"");
  CHECK(find(find(last, "result"), "_meta", kSubscription) == "9");
}

TEST_CASE("open streams are bounded per user and are no requests in flight") {
  InProcessOptions few = options();
  few.gateway.session.max_streams_per_user = 3;
  few.gateway.limits.max_in_flight = 2;
  InProcessGateway gw(std::move(few));
  gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  std::vector<std::shared_ptr<ModernStream>> open;
  const std::string params = modern_params(R"("notifications":{"toolsListChanged":true})");
  const auto listen = [&] {
    open.push_back(ModernStream::post(gw.gateway(), gw.as("alice").token(),
                                    detail::make_request("1", "subscriptions/listen", params),
                                    modern_headers("subscriptions/listen", params)));
    CHECK(eventually([&] { return open.back()->status() != 0; }));
    return open.back()->status();
  };
  for (int i = 0; i < 3; ++i) {
    CHECK(listen() == 200);
    CHECK(eventually([&] { return !open.back()->messages().empty(); }));
  }
  CHECK(listen() == 429);
  CHECK(modern_call(gw.as("alice"), "echo").ok());
  open.front()->leave();
  CHECK(eventually([&] { return listen() == 200; }));
}

TEST_CASE(
    "what is sent before a listen stream is there follows the acknowledgement, once, and within a bound") {
  const auto listen = [] { return std::make_shared<detail::ModernListen>("7", Principal{}); };
  const auto opened = [](detail::ModernListen& one) {
    auto out = std::make_shared<Written>();
    one.open(out, R"({"notifications":{}})");
    CHECK(out->text.find("acknowledged") < out->text.find("\n\n"));
    return out;
  };
  const auto times = [](const std::string& text, std::string_view part) {
    int out = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++out;
    return out;
  };
  {
    const auto one = listen();
    for (int i = 0; i < 3; ++i) one->send("notifications/tools/list_changed", {});
    one->send("notifications/prompts/list_changed", {});
    CHECK(one->keep_alive());
    const auto stream = opened(*one);
    CHECK(times(stream->text, "tools/list_changed") == 1);
    CHECK(stream->text.find("prompts/list_changed") > stream->text.find("tools/list_changed"));
    for (int i = 0; i < 2; ++i) one->send("notifications/tools/list_changed", {});
    CHECK(times(stream->text, "tools/list_changed") == 3);  // once it is there, nothing is left out
    CHECK_FALSE(stream->closed);
    one->finish();
    one->finish();
    CHECK(times(stream->text, R"("resultType":"complete")") == 1);
    CHECK(stream->closed);
    CHECK_FALSE(one->keep_alive());
  }
  {
    const auto one = listen();
    one->finish();
    one->send("notifications/tools/list_changed", {});
    const auto stream = opened(*one);
    CHECK(times(stream->text, R"("resultType":"complete")") == 1);
    CHECK(times(stream->text, "list_changed") == 0);
    CHECK(stream->closed);
  }
  {
    const auto one = listen();
    one->close();
    const auto stream = opened(*one);
    CHECK(times(stream->text, "resultType") == 0);
    CHECK(stream->closed);
  }
  const auto one = listen();
  for (int i = 0; i < 2000; ++i)
    one->send("notifications/resources/updated", R"({"uri":"file:///)" + std::to_string(i) + "\"}");
  const auto stream = opened(*one);
  CHECK(stream->closed);
  CHECK(stream->text.size() < 65 * 1024);
  CHECK_FALSE(one->keep_alive());
}
