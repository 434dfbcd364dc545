// A test of something that talks to MCP servers, with the gateway in the same process: no port, no file, no
// sleep.
#include <cstdio>
#include <mcpgw/testing.hpp>

using mcpgw::testing::FakeUpstream;

#define EXPECT(condition) \
  if (!(condition)) return std::printf("FAILED: %s\n", #condition), 1

int main() {
  mcpgw::testing::InProcessGateway gateway;
  auto git = std::make_shared<FakeUpstream>();
  git->add_tool("git_log", [](const FakeUpstream::Call&) { return FakeUpstream::text("abc"); });
  git->add_tool("git_push", [](const FakeUpstream::Call&) { return FakeUpstream::text("done"); });
  gateway.add_upstream("git", git);
  gateway.allow("alice", "git", "^git_log$");

  // What alice may do works, and she sees nothing else.
  EXPECT(gateway.as("alice").call_tool("git_log", R"({"path":"."})").text() == "abc");
  EXPECT(gateway.as("alice").list_tools() == std::vector<std::string>{"git_log"});

  // What nobody allowed is refused, and the server does not hear of it.
  EXPECT(!gateway.as("bob").call_tool("git_log").ok());
  EXPECT(!gateway.as("alice").call_tool("git_push").ok());
  EXPECT(git->received("tools/call").size() == 1);

  // A server that hangs up is an error of that call; the next one finds a new connection.
  git->close_on("tools/call");
  EXPECT(!gateway.as("alice").call_tool("git_log").ok());
  git->heal();
  EXPECT(gateway.as("alice").call_tool("git_log").ok());
  return std::printf("all as expected\n"), 0;
}
