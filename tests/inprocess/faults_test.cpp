#include <thread>

#include "support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using Strings = std::vector<std::string>;

namespace {
std::string code_of(const McpReply& reply) {
  return detail::raw::string_value(detail::raw::find(detail::raw::find(reply.body, "error", "data"), "code"))
      .value_or("");
}
}  // namespace

TEST_CASE("an upstream that hangs, closes or writes rubbish: a clear error, and others go on") {
  InProcessGateway gw(options());
  auto good = echo_upstream("good"), bad = echo_upstream("bad");
  gw.add_upstream("good", good);
  Target target;
  target.name = "bad";
  target.transport_type = TransportType::stdio;
  target.command = "x";
  target.timeout_ms = 1000;
  gw.add_upstream(target, bad);
  gw.allow("alice", "");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.list_tools() == Strings{"bad_echo", "good_echo"});

  bad->hang("tools/call");
  const auto started = std::chrono::steady_clock::now();
  const McpReply hung = alice.call_tool("bad_echo");
  CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(5));
  CHECK(hung.error_code() == -32603);
  CHECK(code_of(hung) == "upstream_timeout");
  CHECK(hung.error_message().find("'bad'") != std::string::npos);
  // R22: the upstream is told that nobody waits any more.
  CHECK(bad->received("notifications/cancelled").size() == 1);
  bad->heal();
  CHECK(alice.call_tool("bad_echo").ok());

  bad->close_on("tools/call");
  CHECK(code_of(alice.call_tool("bad_echo")) == "upstream_closed");
  CHECK(alice.call_tool("good_echo").ok());
  bad->heal();
  // R26: the next call of the same session opens a new connection.
  CHECK(alice.call_tool("bad_echo").ok());

  bad->garbage_on("tools/call");
  CHECK(code_of(alice.call_tool("bad_echo")) == "upstream_closed");
  bad->heal();
  CHECK(alice.call_tool("bad_echo").ok());
  CHECK(alice.call_tool("good_echo").ok());
}

TEST_CASE("R17: a hung target costs the others nothing but the list deadline") {
  InProcessOptions opts = options();
  opts.gateway.upstream.list_timeout = std::chrono::milliseconds(300);
  InProcessGateway gw(std::move(opts));
  auto bad = echo_upstream("bad");
  bad->hang("initialize");
  gw.add_upstream("bad", bad);
  gw.add_upstream("good", echo_upstream("good"));
  gw.allow("alice", "");
  McpClient& alice = gw.as("alice");
  const auto started = std::chrono::steady_clock::now();
  CHECK(alice.initialize().ok());
  CHECK(alice.list_tools() == Strings{"good_echo"});
  CHECK(alice.call_tool("good_echo").ok());
  CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(3));
  CHECK(code_of(alice.call_tool("bad_echo")) == "upstream_timeout");
}

TEST_CASE("R51: an upstream's JSON-RPC error keeps code, message and data; isError is a result") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  git->add_tool("error", [](const auto&) -> std::string {
    throw FakeUpstream::FakeError{-31999, "its own words"};
  });
  git->add_tool("is_error", [](const auto&) { return std::string(R"({"content":[],"isError":true})"); });
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  const McpReply error = gw.as("alice").call_tool("error");
  CHECK(error.http_status == 200);
  CHECK(error.error_code() == -31999);
  CHECK(error.error_message() == "its own words");
  CHECK(gw.as("alice").call_tool("is_error").result() == R"({"content":[],"isError":true})");
}

TEST_CASE("R22: a client's cancellation ends the upstream's work under the upstream's own id") {
  InProcessGateway gw(options());
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.list_tools() == Strings{"echo"});
  git->hang("tools/call");
  const HttpHeaders session{{"Mcp-Session-Id", alice.session_id()}};
  McpReply reply;
  std::thread caller([&] {
    reply = alice.raw(R"({"jsonrpc":"2.0","id":"long-one","method":"tools/call","params":{"name":"echo"}})",
                      session);
  });
  while (git->received("tools/call").empty()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  alice.raw(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"long-one"}})",
            session);
  caller.join();
  CHECK(code_of(reply) == "cancelled");
  const auto cancelled = git->received("notifications/cancelled");
  REQUIRE(cancelled.size() == 1);
  CHECK(std::string(detail::raw::find(cancelled[0], "params", "requestId")) ==
        std::string(detail::raw::find(git->received("tools/call")[0], "id")));
}

TEST_CASE("R56: a credential that cannot be opened refuses the call and sends nothing") {
  auto storage = make_memory_storage();
  InProcessOptions first = options();
  first.gateway.storage = storage;
  first.gateway.encryption.current = std::string(32, 'a') + "";
  first.gateway.encryption.current[3] = 'b';
  std::string target;
  {
    InProcessGateway gw(std::move(first));
    target = gw.add_upstream(http_target("crm"), echo_upstream("crm"));
    REQUIRE(gw.gateway().repository()->set_target_token(target, {Scope::everyone, ""},
                                                        "sealed with the first key"));
  }
  InProcessOptions second = options();
  second.gateway.storage = storage;
  second.gateway.encryption.current = std::string(32, 'z');
  int connections = 0;
  second.gateway.connect_upstream =
      [&](const UpstreamParameters&) -> Result<std::shared_ptr<MessageChannel>> {
    ++connections;
    return Error(ErrorCode::unavailable, "upstream_unreachable", "none");
  };
  InProcessGateway gw(std::move(second));
  Policy policy;
  policy.name = "all";
  policy.effect = Effect::allow;
  policy.subjects.push_back({});
  REQUIRE(gw.gateway().repository()->create_policy(policy));
  const McpReply reply = gw.as("alice").call_tool("echo");
  CHECK(reply.error_code() == -32603);
  CHECK(code_of(reply) == "credential_unavailable");
  CHECK(connections == 0);
}

TEST_CASE("a target that is disabled or deleted is gone at once") {
  InProcessGateway gw(options());
  const std::string id = gw.add_upstream("git", echo_upstream("git"));
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  CHECK(alice.call_tool("echo").ok());
  auto& repository = *gw.gateway().repository();
  TargetUpdate update;
  update.target = *repository.target(id);
  update.target.enabled = false;
  REQUIRE(repository.update_target(update));
  CHECK(alice.call_tool("echo").error_message() == "Unknown tool: echo");
  update.target = *repository.target(id);
  update.target.enabled = true;
  REQUIRE(repository.update_target(update));
  CHECK(alice.call_tool("echo").ok());
  REQUIRE(repository.delete_target(id));
  CHECK(alice.call_tool("echo").error_message() == "Unknown tool: echo");
}

TEST_CASE("the gateway is full: 503 with Retry-After, and it recovers") {
  InProcessOptions opts = options();
  opts.gateway.limits.max_in_flight = 2;
  InProcessGateway gw(std::move(opts));
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  McpClient& alice = gw.as("alice");
  REQUIRE(alice.list_tools() == Strings{"echo"});
  std::atomic<bool> release{false};
  git->add_tool("block", [&](const auto&) {
    while (!release) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return FakeUpstream::text("done");
  });
  git->notify("notifications/tools/list_changed");
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&, i] {
      alice.raw(R"({"jsonrpc":"2.0","id":)" + std::to_string(100 + i) +
                    R"(,"method":"tools/call","params":{"name":"block"}})",
                {{"Mcp-Session-Id", alice.session_id()}});
    });
  while (git->received("tools/call").size() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  HttpRequest request;
  request.method = "POST";
  request.target = "/mcp";
  request.headers = {{"Authorization", "Bearer " + alice.token()}};
  request.body = "{}";
  const HttpResponse refused = gw.send(std::move(request));
  CHECK(refused.status == 503);
  CHECK(refused.header("Retry-After"));
  release = true;
  for (auto& thread : threads) thread.join();
  CHECK(alice.call_tool("echo").ok());
}

TEST_CASE("max_concurrency: calls wait in turn, and not for ever") {
  InProcessGateway gw(options());
  auto git = std::make_shared<FakeUpstream>();
  std::atomic<int> running{0}, most{0};
  std::atomic<bool> release{false};
  git->add_tool("work", [&](const auto&) {
    const int now = ++running;
    int seen = most;
    while (now > seen && !most.compare_exchange_weak(seen, now)) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    --running;
    return FakeUpstream::text("done");
  });
  git->add_tool("block", [&](const FakeUpstream::Call& call) {
    for (int i = 0; !release; ++i) {
      call.progress(i, 0);  // keeps the call from reaching its own time limit
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return FakeUpstream::text("done");
  });
  Target target;
  target.name = "git";
  target.transport_type = TransportType::stdio;
  target.command = "x";
  target.max_concurrency = 2;
  target.timeout_ms = 1000;
  gw.add_upstream(target, git);
  for (const char* user : {"alice", "bob", "carol"}) {
    gw.allow(user, "git");
    gw.as(user).list_tools();
  }
  const auto call = [&](const char* user, int id, const char* tool) {
    McpClient& client = gw.as(user);
    return client.raw(R"({"jsonrpc":"2.0","id":)" + std::to_string(id) +
                          R"(,"method":"tools/call","params":{"name":")" + tool +
                          R"(","_meta":{"progressToken":1}}})",
                      {{"Mcp-Session-Id", client.session_id()}});
  };
  std::vector<std::thread> threads;
  std::atomic<int> answered{0};
  for (int i = 0; i < 9; ++i)
    threads.emplace_back([&, i] {
      const char* users[] = {"alice", "bob", "carol"};
      if (call(users[i % 3], 100 + i, "work").ok()) ++answered;
    });
  for (auto& thread : threads) thread.join();
  CHECK(answered == 9);
  CHECK(most == 2);

  std::vector<std::thread> blocked;
  for (int i = 0; i < 2; ++i) blocked.emplace_back([&, i] { call("alice", 200 + i, "block"); });
  while (git->received("tools/call").size() < 11) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(code_of(call("bob", 300, "work")) == "target_busy");
  release = true;
  for (auto& thread : blocked) thread.join();
  CHECK(call("bob", 301, "work").ok());
}
