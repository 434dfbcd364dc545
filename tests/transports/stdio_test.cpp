// Faults of a server that is a program.
#include "process_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

struct FaultyProcess {
  FaultyWorld world;
  const std::string id;
  explicit FaultyProcess(const std::string& more = "serve", std::function<void(GatewayOptions&)> change = {})
      : world(std::move(change)), id(world.add("bad", "", TransportType::stdio, shell_server(more))) {}

  int pid() { return std::atoi(world.gw.as("alice").call_tool("bad_pid").text().c_str()); }
  void check(const char* tool, const char* code, const char* why) {
    const int before = pid();
    REQUIRE(before > 0);
    world.fails(id, tool, code, why);
    world.recovers("bad_pid");
    // R59: reaped within a second, whatever it was that ended it.
    CHECK(wait_until([] { return children(true).empty(); }));
  }
};

}  // namespace

TEST_CASE("killed in a call") {
  FaultyProcess f;
  f.check("bad_killed", "upstream_closed", "signal 9");
}

TEST_CASE("exit in a call: its code and its last words are told to administrators") {
  FaultyProcess f;
  f.check("bad_exit", "upstream_closed", "these are my last words");
  CHECK(f.world.gw.as("alice").call_tool("bad_exit").body.find("last words") == std::string::npos);
}

TEST_CASE("hung: it does not answer, and goes on") {
  FaultyProcess f;
  const int before = f.pid();
  f.check("bad_hang", "upstream_timeout", "");
  CHECK(f.pid() == before);
}

TEST_CASE("deaf: it reads nothing any more; a restart makes room for one that does") {
  FaultyProcess f;
  const int before = f.pid();
  f.world.fails(f.id, "bad_deaf", "upstream_timeout", "");
  f.world.fails(f.id, "bad_pid", "upstream_timeout", "");
  CHECK(f.world.gw.as("admin").api("POST", "/api/targets/" + f.id + "/restart-instances").status == 200);
  f.world.recovers("bad_pid");
  CHECK(f.pid() != before);
  CHECK(wait_until([&] { return !alive(before); }));
}

TEST_CASE("slow: within its time limit it is waited for") {
  FaultyProcess f;
  CHECK(f.world.gw.as("alice").call_tool("bad_slow").text() == "slow");
}

TEST_CASE("a call waits for a program that starts slowly as long as for its answer, a list does not") {
  FaultyProcess f("sleep 2; serve", [](GatewayOptions& o) { o.upstream.list_timeout = 300ms; });
  f.world.edit(f.id, [](Target& target) { target.timeout_ms = 30000; });
  McpClient& alice = f.world.gw.as("alice");
  CHECK(alice.initialize().ok());
  CHECK(alice.list_tools() == std::vector<std::string>{"good_echo"});
  CHECK(f.pid() > 0);
}

TEST_CASE("a program that never gets ready fails a call at the call's time limit") {
  FaultyProcess f("sleep 600", [](GatewayOptions& o) { o.upstream.list_timeout = 100ms; });
  f.world.edit(f.id, [](Target& target) { target.timeout_ms = 1500; });
  const auto from = std::chrono::steady_clock::now();
  CHECK(code_of(f.world.gw.as("alice").call_tool("bad_pid")) == "upstream_timeout");
  CHECK(std::chrono::steady_clock::now() - from >= 1500ms);
}

TEST_CASE("garbage between messages is skipped") {
  FaultyProcess f;
  CHECK(f.world.gw.as("alice").call_tool("bad_garbage").text() == "garbage");
}

TEST_CASE("half an answer, then its end") {
  FaultyProcess f;
  f.check("bad_half", "upstream_closed", "code 0");
}

TEST_CASE("an answer over the limit: its call fails, the process goes on") {
  FaultyProcess f;
  const int before = f.pid();
  f.check("bad_huge", "response_too_large", "");
  CHECK(f.pid() == before);
}

TEST_CASE("a flood of output, without an end and in lines, takes no memory and no other's time") {
  FaultyProcess f;
  REQUIRE(f.pid() > 0);
  const std::size_t before = resident();
  CHECK(code_of(f.world.gw.as("alice").call_tool("bad_flood")) == "response_too_large");
  CHECK(f.world.gw.as("alice").call_tool("bad_lines").text() == "lines");
  CHECK(f.world.gw.as("alice").call_tool("good_echo").ok());
  CHECK(resident() < before + 40 * 1024 * 1024);
}

TEST_CASE(
    "junk lines without end, on either output, are a bounded number of log lines, and their end is told") {
  std::mutex mutex;
  std::size_t lines = 0, told = 0;
  const auto count = [&](const LogEvent& event) {
    const std::lock_guard lock(mutex);
    lines += event.module == "upstream";
    told += event.message.find("more lines were left out") != std::string::npos;
  };
  {
    FaultyProcess f("serve", [&](GatewayOptions& o) { o.log = count; });
    CHECK(f.world.gw.as("alice").call_tool("bad_lines").text() == "lines");
    CHECK(f.world.gw.as("alice").call_tool("bad_shout").text() == "shout");
    // What matters is not hidden behind them.
    f.check("bad_exit", "upstream_closed", "these are my last words");
  }
  const std::lock_guard lock(mutex);
  CHECK(lines > 40);
  CHECK(lines < 400);  // of 40,000
  CHECK(told >= 2);
}

TEST_CASE("exit at start: told within a second, tried again with growing pauses, back when it starts") {
  const std::string gate = TlsFront::files().file("gate");
  FaultyProcess f("[ -e " + gate + " ] || { echo 'no gate, no service' >&2; exit 3; }; serve");
  const auto from = mcpgw::testing::Clock::now();
  const McpReply reply = f.world.gw.as("alice").call_tool("bad_pid");
  CHECK(code_of(reply) == "upstream_closed");
  CHECK(mcpgw::testing::Clock::now() - from < 3s);
  CHECK(f.world.status(f.id, "last_error").find("no gate, no service") != std::string::npos);
  CHECK(f.world.status(f.id, "last_error").find("code 3") != std::string::npos);
  CHECK(reply.body.find("no gate") == std::string::npos);
  // It is not started again by each call.
  for (int i = 0; i < 50; ++i) CHECK_FALSE(f.world.gw.as("alice").call_tool("bad_pid").ok());
  std::ofstream(gate) << "open";
  f.world.recovers("bad_pid");
  ::unlink(gate.c_str());
}

TEST_CASE("a program that is not there, and one that is not permitted") {
  FaultyWorld world([](GatewayOptions& o) { o.stdio.allowed_commands = {"/bin/sh", "no-such-program"}; });
  const std::string gone =
      world.add("gone", "", TransportType::stdio, [](Target& target) { target.command = "no-such-program"; });
  world.fails(gone, "gone_pid", "upstream_unreachable", "was not found");
  Target other;
  other.name = "other";
  other.transport_type = TransportType::stdio;
  other.command = "/bin/cat";
  const auto refused = world.gw.gateway().repository()->create_target(std::move(other));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().reason == "command_not_allowed");
}

TEST_CASE("ignores SIGTERM and the end of its input: killed with its whole group, calls go on meanwhile") {
  FaultyProcess f("trap '' TERM; sleep 600 & serve; while :; do sleep 1; done");
  const int before = f.pid();
  REQUIRE(before > 0);
  REQUIRE(detail::process_group(before).size() == 2);
  CHECK(f.world.gw.as("admin").api("POST", "/api/targets/" + f.id + "/restart-instances").status == 200);
  const int after = f.pid();
  CHECK(after > 0);
  CHECK(after != before);
  const auto from = mcpgw::testing::Clock::now();
  CHECK(wait_until([&] { return detail::process_group(before).empty(); }));
  CHECK(mcpgw::testing::Clock::now() - from > 5s);  // it was asked first, and then once more
  CHECK(wait_until([] { return children(true).empty(); }));
}
