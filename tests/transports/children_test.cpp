// Many programs, started and ended many times: nothing of them stays.
#include <filesystem>

#include "process_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

TEST_CASE("R59: 24 children restarted 1,000 times leave no process, zombie, descriptor, row or memory") {
  constexpr int kTargets = 24, kThreads = 4, kRounds = 42;
  std::size_t descriptors = 0, memory = 0;
  {
    FaultyWorld world;
    std::vector<std::string> ids;
    for (int i = 0; i < kTargets; ++i)
      ids.push_back(world.add("t" + std::to_string(i), "", TransportType::stdio, shell_server()));
    for (int t = 0; t < kThreads; ++t) world.gw.allow("user" + std::to_string(t), "");
    auto& repository = *world.gw.gateway().repository();
    std::atomic<int> starts{0}, failed{0};
    const auto round = [&] {
      std::vector<std::thread> threads;
      for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
          McpClient& client = world.gw.as("user" + std::to_string(t));
          for (int i = t; i < kTargets; i += kThreads) {
            const McpReply reply = client.call_tool("t" + std::to_string(i) + "_pid");
            if (reply.ok())
              ++starts;
            else
              ++failed;
          }
        });
      }
      for (auto& thread : threads) thread.join();
      for (const std::string& id : ids)
        if (world.gw.as("admin")
                .api("POST", "/api/targets/" + id + "/restart-instances")
                .body.find("\"deleted\":1") == std::string::npos)
          ++failed;
    };
    const auto quiet = [&] {
      return wait_until([&] { return children(false).empty() && children(true).empty(); }) &&
             wait_until([&] { return repository.instances() && repository.instances()->empty(); });
    };
    for (int i = 0; i < 2; ++i) round();
    REQUIRE(quiet());
    descriptors = open_descriptors();
    memory = resident();
    for (int i = 2; i < kRounds; ++i) round();
    CHECK(quiet());
    CHECK(failed == 0);
    CHECK(starts == kTargets * kRounds);
    // A connection to the other target or a timer's descriptor may come and go; a leak would be hundreds.
    CHECK(open_descriptors() <= descriptors + 8);
    CHECK(resident() < memory + 48 * 1024 * 1024);
    MESSAGE(starts.load() << " starts; descriptors " << descriptors << " -> " << open_descriptors()
                          << ", memory " << memory / 1024 << " -> " << resident() / 1024 << " KiB");
    round();
  }
  CHECK(children(false).empty());
  CHECK(children(true).empty());
}

TEST_CASE(
    "R28: neither idleness nor age ends a process in a call; quotas make room by the least recently used") {
  FaultyWorld world([](GatewayOptions& o) {
    o.stdio.idle_ttl = 1s;
    o.stdio.max_lifetime = 1s;
    o.stdio.gc_interval = 1s;
  });
  world.add("bad", "", TransportType::stdio, [](Target& target) {
    shell_server("PAUSE=4.5; serve")(target);
    target.timeout_ms = 20000;
  });
  const std::string before = world.gw.as("alice").call_tool("bad_pid").text();
  CHECK(world.gw.as("alice").call_tool("bad_slow").text() == "slow");  // older and longer than both
  CHECK(wait_until([&] { return !alive(std::atoi(before.c_str())); }));
  CHECK(world.gw.as("alice").call_tool("bad_pid").ok());
}

TEST_CASE("processes of one user have a share, also where sessions do not share them") {
  FaultyWorld world([](GatewayOptions& o) { o.stdio.max_per_user = 2; });
  const std::string id = world.add("bad", "", TransportType::stdio, [](Target& target) {
    shell_server()(target);
    target.statefulness = Statefulness::stateful;
  });
  McpClient& alice = world.gw.as("alice");
  for (int session = 0; session < 5; ++session) {
    alice.use_session({});
    REQUIRE(alice.initialize().ok());
    CHECK(alice.call_tool("bad_pid").ok());
  }
  CHECK(world.status(id, "instances") == "2");
}

TEST_CASE("processes that end their calls, and those of a test, count into the limit") {
  const std::string hold = TlsFront::files().file("hold");
  FaultyWorld world([](GatewayOptions& o) {
    o.stdio.max_processes = 1;
    o.upstream.drain = 30s;
  });
  const std::string id = world.add("bad", "", TransportType::stdio, [&](Target& target) {
    shell_server("HOLD=" + hold + "; serve")(target);
    target.timeout_ms = 30000;
  });
  const auto test_ok = [&](const std::string& target) {
    return world.gw.as("admin").api("POST", "/api/targets/" + target + "/test").body;
  };
  REQUIRE(world.gw.as("alice").call_tool("bad_pid").ok());
  // An idle one makes room for a test.
  CHECK(test_ok(id).find("\"ok\":true") != std::string::npos);
  REQUIRE(world.gw.as("alice").call_tool("bad_pid").ok());
  std::string held;
  std::atomic<bool> done{false};
  std::thread call([&] {
    held = world.gw.as("alice").call_tool("bad_held").text();
    done = true;
  });
  // The process has it: until then it is an idle one, which makes room.
  CHECK(wait_until([&] { return std::filesystem::exists(hold + ".begun"); }));
  CHECK(test_ok(id).find("Too many processes") != std::string::npos);
  CHECK(world.gw.as("admin").api("POST", "/api/targets/" + id + "/restart-instances").status == 200);
  CHECK(code_of(world.gw.as("bob").call_tool("bad_pid")) == "instance_limit");
  CHECK_FALSE(done);
  std::ofstream(hold + ".go").close();
  CHECK(wait_until([&] { return done.load(); }));
  call.join();
  CHECK(held == "held");
  world.recovers("bad_pid");
}

TEST_CASE("a change of the credential or the target acts on the next call, in a process of its own") {
  FaultyWorld world;
  const std::string id = world.add("bad", "", TransportType::stdio, shell_server());
  auto& repository = *world.gw.gateway().repository();
  const auto pid = [&] { return world.gw.as("alice").call_tool("bad_pid").text(); };
  const std::string first = pid();
  REQUIRE_FALSE(first.empty());
  CHECK(pid() == first);
  REQUIRE(repository.set_env(id, {Scope::everyone, ""}, {{"KEY", "value", {}}}));
  const std::string second = pid();
  CHECK(second != first);
  REQUIRE(repository.set_env(id, {Scope::user, world.gw.as("alice").user_id()}, {{"KEY", "hers", {}}}));
  CHECK(pid() == second);  // a scope that a shared process does not use
  world.edit(id, [](Target& target) { target.isolation_boundary = Isolation::per_user; });
  const std::string third = pid();
  CHECK(third != second);
  CHECK(wait_until([&] { return !alive(std::atoi(first.c_str())) && !alive(std::atoi(second.c_str())); }));
}
