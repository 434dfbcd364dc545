// Several sessions over one connection: subscriptions, log levels, requests of the server, and whose they
// are.
#include "effects_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using namespace std::chrono_literals;

namespace {

/// A process that all users share; `delete` ends a client's session.
struct World {
  InProcessGateway gw{options()};
  std::shared_ptr<FakeUpstream> git = echo_upstream("git");
  std::atomic<bool> release{false};

  World() {
    git->add_resource("file:///a", [](const auto&) { return std::string(R"({"contents":[]})"); });
    git->add_tool("block", [this](const auto&) {
      while (!release) std::this_thread::sleep_for(1ms);
      return FakeUpstream::text("done");
    });
    gw.add_upstream("git", git);
    for (const char* user : {"alice", "bob"}) {
      gw.allow(user, "git");
      REQUIRE(gw.as(user).list_tools() == Strings{"echo", "block"});
    }
  }
  ~World() { release = true; }

  void end(McpClient& client) {
    HttpRequest request;
    request.method = "DELETE";
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + client.token()},
                       {"Mcp-Session-Id", client.session_id()}};
    CHECK(gw.send(std::move(request)).status == 204);
  }
};

const std::string kFile = R"({"uri":"file:///a"})";

std::size_t count_of(const std::string& text, const std::string& what) {
  std::size_t out = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at) ++out;
  return out;
}

}  // namespace

TEST_CASE("subscriptions are counted: the server sees one, and its end when the last one ends") {
  World w;
  McpClient &alice = w.gw.as("alice"), &bob = w.gw.as("bob");
  CHECK(alice.request("resources/subscribe", kFile).result() == "{}");
  CHECK(bob.request("resources/subscribe", kFile).result() == "{}");
  CHECK(alice.request("resources/subscribe", kFile).result() == "{}");
  CHECK(w.git->connections() == 1);
  CHECK(w.git->received("resources/subscribe").size() == 1);

  std::string of_alice, of_bob;
  {
    OpenStream first(w.gw, alice), second(w.gw, bob);
    w.git->notify("notifications/resources/updated", kFile);
    CHECK(alice.request("resources/unsubscribe", kFile).result() == "{}");
    CHECK(w.git->received("resources/unsubscribe").empty());
    w.git->notify("notifications/resources/updated", kFile);
    // Whoever does not hold it cannot end it for those who do.
    CHECK(alice.request("resources/unsubscribe", kFile).result() == "{}");
    CHECK(w.git->received("resources/unsubscribe").empty());
    w.end(alice);
    // The last one goes with its session.
    w.end(bob);
    REQUIRE(first.ends());
    REQUIRE(second.ends());
    of_alice = first.events();
    of_bob = second.events();
  }
  CHECK(count_of(of_alice, "notifications/resources/updated") == 1);
  CHECK(count_of(of_bob, "notifications/resources/updated") == 2);
  CHECK(becomes([&] { return w.git->received("resources/unsubscribe").size() == 1; }));
}

TEST_CASE("many subscribe at once: the server sees one, and one that it refuses is nobody's") {
  World w;
  std::vector<std::thread> threads;
  std::atomic<int> done{0};
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      const std::string user = "user" + std::to_string(i);
      w.gw.allow(user, "git");
      if (w.gw.as(user).request("resources/subscribe", kFile).ok()) ++done;
    });
  for (auto& thread : threads) thread.join();
  CHECK(done == 8);
  CHECK(w.git->received("resources/subscribe").size() == 1);
}

TEST_CASE("subscriptions and log level are asked for again on a new connection") {
  World w;
  McpClient& alice = w.gw.as("alice");
  CHECK(alice.request("resources/subscribe", kFile).ok());
  CHECK(alice.request("logging/setLevel", R"({"level":"warning"})").result() == "{}");
  REQUIRE(w.git->received("logging/setLevel").size() == 1);
  w.git->close_on("tools/call");
  CHECK_FALSE(alice.call_tool("echo").ok());
  w.git->heal();
  // Without a call: who has subscribed waits to hear.
  CHECK(becomes([&] { return w.git->received("resources/subscribe").size() == 2; }));
  CHECK(w.git->received("logging/setLevel").size() == 2);
  CHECK(w.git->connections() == 2);
  std::string events;
  {
    OpenStream stream(w.gw, alice);
    w.git->notify("notifications/resources/updated", kFile);
    w.end(alice);
    REQUIRE(stream.ends());
    events = stream.events();
  }
  CHECK(count_of(events, "notifications/resources/updated") == 1);
}

TEST_CASE("a shared server is asked for the lowest level, and each session sees from its own on") {
  World w;
  McpClient &alice = w.gw.as("alice"), &bob = w.gw.as("bob");
  CHECK(alice.request("logging/setLevel", R"({"level":"error"})").ok());
  CHECK(bob.request("logging/setLevel", R"({"level":"debug"})").ok());
  CHECK(alice.request("logging/setLevel", R"({"level":"warning"})").ok());  // no news to the server
  Strings levels;
  for (const std::string& message : w.git->received("logging/setLevel"))
    levels.push_back(detail::raw::string_value(detail::raw::find(message, "params", "level")).value_or(""));
  CHECK(levels == Strings{"error", "debug"});

  // Lines during a call are the caller's.
  const auto lines = [&](McpClient& client) {
    w.release = false;
    RunningCall call(client, "block");
    while (w.git->received("tools/call").empty()) std::this_thread::sleep_for(1ms);
    const auto calls = w.git->received("tools/call").size();
    (void)calls;
    w.git->notify("notifications/message", R"({"level":"info","data":"low"})");
    w.git->notify("notifications/message", R"({"level":"error","data":"high"})");
    w.release = true;
    REQUIRE(becomes([&] { return call.ended(); }));
    return call.reply().notifications.size();
  };
  CHECK(lines(alice) == 1);
  // Bob's wish goes with his session.
  w.end(bob);
  CHECK(becomes([&] { return w.git->received("logging/setLevel").size() == 3; }));
  CHECK(w.git->received("logging/setLevel")[2].find("warning") != std::string::npos);
}

TEST_CASE("a request of a shared server goes to the client whose calls run, and to nobody when several do") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  std::atomic<int> running{0};
  std::atomic<bool> release{false};
  git->add_tool("block", [&](const auto&) {
    ++running;
    while (!release) std::this_thread::sleep_for(1ms);
    return FakeUpstream::text("done");
  });
  gw.add_upstream("git", git);
  const std::string can =
      R"({"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{"listChanged":true}})";
  for (const char* user : {"alice", "bob"}) {
    gw.allow(user, "git");
    REQUIRE(gw.as(user).initialize("2025-11-25", can).ok());
    REQUIRE(gw.as(user).list_tools() == Strings{"echo", "block"});
  }
  const auto answers = [&](const std::string& id) {
    int count = 0;
    for (const std::string& message : git->received())
      count += message.find(R"("id":")" + id + R"(","error":{"code":-32601)") != std::string::npos;
    return count;
  };
  {
    // Two calls of one client: it can only be that client's.
    RunningCall one(gw.as("alice"), "block");
    REQUIRE(becomes([&] { return running == 1; }));
    McpReply second;
    std::thread two([&] {
      second = gw.as("alice").raw(
          R"({"jsonrpc":"2.0","id":"two","method":"tools/call","params":{"name":"block"}})",
          {{"Mcp-Session-Id", gw.as("alice").session_id()}});
    });
    REQUIRE(becomes([&] { return running == 2; }));
    git->ask("e1", "elicitation/create", R"({"message":"?","requestedSchema":{}})");
    CHECK(answers("e1") == 0);
    {
      // And now a second client's.
      RunningCall three(gw.as("bob"), "block");
      REQUIRE(becomes([&] { return running == 3; }));
      git->ask("e2", "elicitation/create", R"({"message":"?","requestedSchema":{}})");
      CHECK(becomes([&] { return answers("e2") == 1; }));
      git->ask("e3", "roots/list");
      CHECK(becomes([&] { return answers("e3") == 1; }));
      release = true;
      REQUIRE(becomes([&] { return three.ended(); }));
      CHECK(three.reply().notifications.empty());
    }
    two.join();
    REQUIRE(becomes([&] { return one.ended(); }));
    CHECK(one.reply().notifications.size() + second.notifications.size() == 1);
  }
  // Nothing runs, and two sessions share the process: nobody's.
  git->ask("e4", "sampling/createMessage");
  CHECK(becomes([&] { return answers("e4") == 1; }));
}

TEST_CASE("the end of a URL elicitation is told to the client that was sent there, and to no other") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  std::atomic<bool> release{false};
  std::atomic<int> running{0};
  git->add_tool("block", [&](const auto&) {
    ++running;
    while (!release) std::this_thread::sleep_for(1ms);
    return FakeUpstream::text("done");
  });
  gw.add_upstream("git", git);
  for (const char* user : {"alice", "bob"}) {
    gw.allow(user, "git");
    REQUIRE(gw.as(user).initialize("2025-11-25", R"({"elicitation":{"url":{}}})").ok());
    REQUIRE(gw.as(user).list_tools() == Strings{"echo", "block"});
  }
  McpClient &alice = gw.as("alice"), &bob = gw.as("bob");
  std::string of_alice, of_bob;
  {
    OpenStream first(gw, alice), second(gw, bob);
    RunningCall call(alice, "block");
    REQUIRE(becomes([&] { return running == 1; }));
    git->ask("e1", "elicitation/create",
             R"({"mode":"url","elicitationId":"el-1","url":"https://x.test/","message":"m"})");
    git->notify("notifications/elicitation/complete", R"({"elicitationId":"unknown"})");
    git->notify("notifications/elicitation/complete", R"({"elicitationId":"el-1"})");
    git->notify("notifications/elicitation/complete", R"({"elicitationId":"el-1"})");  // it is done already
    release = true;
    REQUIRE(becomes([&] { return call.ended(); }));
    CHECK(call.reply().notifications.size() == 1);
    for (McpClient* client : {&alice, &bob}) {
      HttpRequest request;
      request.method = "DELETE";
      request.target = "/mcp";
      request.headers = {{"Authorization", "Bearer " + client->token()},
                         {"Mcp-Session-Id", client->session_id()}};
      CHECK(gw.send(std::move(request)).status == 204);
    }
    REQUIRE(first.ends());
    REQUIRE(second.ends());
    of_alice = first.events();
    of_bob = second.events();
  }
  CHECK(count_of(of_alice, "notifications/elicitation/complete") == 1);
  CHECK(count_of(of_bob, "notifications/elicitation/complete") == 0);
}

TEST_CASE("R60: an older process is replaced, an idle one makes room, and a user has no more than a share") {
  InProcessOptions opts = options();
  opts.gateway.stdio.max_processes = 2;
  opts.gateway.stdio.max_per_user = 1;
  opts.gateway.stdio.gc_interval = 1s;
  opts.gateway.stdio.max_lifetime = 2s;
  InProcessGateway gw(std::move(opts));
  for (const char* name : {"one", "two"}) {
    Target target;
    target.name = name;
    target.transport_type = TransportType::stdio;
    target.command = "/bin/sh";
    target.args = {
        "-c",
        "while read -r line; do id=$(printf '%s' \"$line\" | sed -n 's/.*\"id\":\\([0-9]*\\).*/\\1/p'); "
        "[ -n \"$id\" ] || continue; case \"$line\" in *initialize*) "
        "printf '{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"protocolVersion\":\"2025-11-25\","
        "\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}}\\n' \"$id\";; "
        "*tools/list*) printf '{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"tools\":[{\"name\":\"pid\"}]}}"
        "\\n' \"$id\";; *) sleep 0.2; printf "
        "'{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"content\":[{\"type\":"
        "\"text\",\"text\":\"%s\"}]}}\\n' \"$id\" $$;; esac; done"};
    target.isolation_boundary = Isolation::per_user;
    auto made = gw.gateway().repository()->create_target(std::move(target));
    REQUIRE(made);
  }
  gw.allow("alice", "");
  gw.allow("bob", "one");
  McpClient& alice = gw.as("alice");
  // Her share is one: what is idle makes room for what is called.
  std::string first, second;
  REQUIRE(becomes([&] { return !(first = alice.call_tool("one_pid").text()).empty(); }));
  REQUIRE(becomes([&] { return !(second = alice.call_tool("two_pid").text()).empty(); }));
  const std::string bobs = gw.as("bob").call_tool("pid").text();
  REQUIRE_FALSE(bobs.empty());
  CHECK(bobs != first);
  const std::string again = alice.call_tool("one_pid").text();
  CHECK_FALSE(again.empty());
  CHECK(again != first);
  // Older than its lifetime: another process answers, and no call fails meanwhile, however little time there
  // is between them.
  McpClient& bob = gw.as("bob");
  const auto until = std::chrono::steady_clock::now() + 10s;
  std::string now = bobs;
  while (now == bobs && std::chrono::steady_clock::now() < until) {
    const McpReply reply = bob.call_tool("pid");
    REQUIRE_MESSAGE(reply.ok(), reply.body);
    now = reply.text();
  }
  CHECK(now != bobs);
}

TEST_CASE("clients share a process when they can do the same, and it is told of just that") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  const std::pair<const char*, const char*> users[] = {
      {"ann", R"({"sampling":{},"elicitation":{},"tasks":{"list":{}}})"},
      {"ben", R"({"elicitation":{"form":{}}, "sampling":{}})"},
      {"cem", R"({"elicitation":{"form":{},"url":{}},"sampling":{}})"},
      {"dee", R"({"roots":{"listChanged":true}})"},
      {"eva", R"({"roots":{}})"},
      {"fay", "{}"},
  };
  for (const auto& [user, can] : users) {
    gw.allow(user, "git");
    REQUIRE(gw.as(user).initialize("2025-11-25", can).ok());
    REQUIRE(gw.as(user).call_tool("echo").ok());
  }
  Strings told;
  for (const std::string& message : git->received("initialize"))
    told.emplace_back(detail::raw::find(detail::raw::find(message, "params"), "capabilities"));
  CHECK(told == Strings{R"({"elicitation":{},"sampling":{}})",
                        R"({"elicitation":{"form":{},"url":{}},"sampling":{}})", R"({"roots":{}})", "{}"});
  CHECK(git->connections() == 4);
}
