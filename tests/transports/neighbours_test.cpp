// One target that hangs, or is not there, and many who call it: others are served as before.
#include "support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

double median_ms(FaultyWorld& world, int calls) {
  std::vector<double> took;
  for (int i = 0; i < calls; ++i) {
    const auto from = mcpgw::testing::Clock::now();
    REQUIRE(world.gw.as("alice").call_tool("good_echo").ok());
    took.push_back(std::chrono::duration<double, std::milli>(mcpgw::testing::Clock::now() - from).count());
  }
  std::nth_element(took.begin(), took.begin() + calls / 2, took.end());
  return took[static_cast<std::size_t>(calls / 2)];
}

/// Calls of others to the bad target, as fast as they are answered but no faster than each ten milliseconds.
void compare(FaultyWorld& world, const std::string& name) {
  constexpr int kCalls = 300, kOthers = 8;
  for (int i = 0; i < kOthers; ++i) {
    world.gw.allow("other" + std::to_string(i), "");
    REQUIRE(world.gw.as("other" + std::to_string(i)).call_tool("good_echo").ok());
  }
  (void)median_ms(world, 50);
  const double alone = median_ms(world, kCalls);
  std::atomic<bool> stop{false};
  std::atomic<int> failed{0};
  std::vector<std::thread> others;
  for (int i = 0; i < kOthers; ++i) {
    others.emplace_back([&, i] {
      while (!stop) {
        if (!world.gw.as("other" + std::to_string(i)).call_tool("bad_echo").ok()) ++failed;
        std::this_thread::sleep_for(10ms);
      }
    });
  }
  CHECK(wait_until([&] { return failed > 0; }));
  const double beside = median_ms(world, kCalls);
  stop = true;
  for (auto& other : others) other.join();
  MESSAGE(name << ": median " << alone << " ms alone, " << beside << " ms beside it: ratio "
               << beside / alone);
  // A call that waited for the bad one would take a hundred times as long.
  CHECK(beside < alone * 10 + 5);
}

}  // namespace

TEST_CASE("a target that hangs") {
  ScriptedMcp bad([](McpExchange& e) { return e.method == "tools/call" && e.wait_closed(); });
  FaultyWorld world;
  world.add("bad", bad.url(), TransportType::streamable_http,
            [](Target& target) { target.timeout_ms = 1000; });
  compare(world, "hung");
}

TEST_CASE("a target that is not there") {
  FaultyWorld world;
  int port;
  {
    ScriptedMcp gone;
    port = gone.port();
  }
  world.add("bad", "http://127.0.0.1:" + std::to_string(port) + "/mcp", TransportType::streamable_http);
  compare(world, "closed port");
}

TEST_CASE("a target that takes one call at a time, and much longer than its callers wait") {
  ScriptedMcp bad([](McpExchange& e) {
    if (e.method != "tools/call") return false;
    std::this_thread::sleep_for(300ms);
    return false;
  });
  FaultyWorld world;
  world.add("bad", bad.url(), TransportType::streamable_http, [](Target& target) {
    target.timeout_ms = 1000;
    target.max_concurrency = 1;
  });
  compare(world, "one at a time");
}
