#include <atomic>
#include <thread>

#include "support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using Strings = std::vector<std::string>;

namespace {

/// Answers with the credential of the connection it came over.
std::shared_ptr<FakeUpstream> whoami() {
  auto out = std::make_shared<FakeUpstream>();
  out->add_tool("whoami", [](const FakeUpstream::Call& call) {
    return FakeUpstream::text(call.connection.credential.empty() ? "nobody" : call.connection.credential);
  });
  return out;
}

}  // namespace

TEST_CASE("two users: each with own tools, own credential, own connection") {
  InProcessGateway gw(options());
  auto crm = whoami();
  crm->add_tool("delete_all", [](const auto&) { return FakeUpstream::text("deleted"); });
  const std::string target = gw.add_upstream(http_target("crm"), crm);
  gw.allow("alice", "crm");
  gw.allow("bob", "crm", "^whoami$");
  auto& repository = *gw.gateway().repository();
  REQUIRE(repository.set_target_token(target, {Scope::user, gw.as("alice").user_id()}, "alice-secret"));
  REQUIRE(repository.set_target_token(target, {Scope::everyone, ""}, "common-secret"));

  CHECK(gw.as("alice").list_tools() == Strings{"whoami", "delete_all"});
  CHECK(gw.as("bob").list_tools() == Strings{"whoami"});
  CHECK(gw.as("alice").call_tool("whoami").text() == "alice-secret");
  CHECK(gw.as("bob").call_tool("whoami").text() == "common-secret");
  CHECK_FALSE(gw.as("bob").call_tool("delete_all").ok());
  CHECK(crm->connections() == 2);

  // R29: a changed credential acts on the next call of the live session, and on that user's connection only.
  REQUIRE(repository.set_target_token(target, {Scope::user, gw.as("bob").user_id()}, "bob-secret"));
  CHECK(gw.as("bob").call_tool("whoami").text() == "bob-secret");
  CHECK(gw.as("alice").call_tool("whoami").text() == "alice-secret");
  CHECK(crm->connections() == 3);
  REQUIRE(repository.delete_target_token(target, {Scope::user, gw.as("alice").user_id()}));
  CHECK(gw.as("alice").call_tool("whoami").text() == "common-secret");
}

TEST_CASE("R4: a shared process gets default values only, a personal one its user's") {
  InProcessGateway gw(options());
  auto tool = whoami();
  Target shared;
  shared.name = "shared";
  shared.transport_type = TransportType::stdio;
  shared.command = "x";
  Target personal = shared;
  personal.name = "personal";
  personal.isolation_boundary = Isolation::per_user;
  const std::string shared_id = gw.add_upstream(shared, tool);
  const std::string personal_id = gw.add_upstream(personal, tool);
  gw.allow("alice", "");
  gw.allow("bob", "");
  auto& repository = *gw.gateway().repository();
  for (const std::string& id : {shared_id, personal_id}) {
    REQUIRE(repository.set_env(id, {Scope::user, gw.as("alice").user_id()},
                               {{"AUTH_TOKEN", "alice-secret", {}}}));
    REQUIRE(repository.set_env(id, {Scope::everyone, ""}, {{"AUTH_TOKEN", "common-secret", {}}}));
  }
  CHECK(gw.as("alice").call_tool("shared_whoami").text() == "common-secret");
  CHECK(gw.as("bob").call_tool("shared_whoami").text() == "common-secret");
  CHECK(tool->connections() == 1 + 2);  // one shared, two personal ones that the lists of names asked
  CHECK(gw.as("alice").call_tool("personal_whoami").text() == "alice-secret");
  CHECK(gw.as("bob").call_tool("personal_whoami").text() == "common-secret");
}

TEST_CASE("R7: role and groups come from storage, and a revoked token is refused at once") {
  InProcessGateway gw(options());
  gw.add_upstream("git", echo_upstream("git"));
  Policy policy;
  policy.name = "staff";
  policy.effect = Effect::allow;
  Subject subject;
  subject.type = SubjectType::group;
  subject.value = "staff";
  policy.subjects.push_back(subject);
  auto& repository = *gw.gateway().repository();
  REQUIRE(repository.create_policy(policy));
  McpClient& alice = gw.as("alice");
  CHECK_FALSE(alice.call_tool("echo").ok());
  UserPatch patch;
  patch.groups = Strings{"staff"};
  REQUIRE(repository.update_user(alice.user_id(), patch));
  CHECK(alice.call_tool("echo").ok());
  REQUIRE(repository.revoke_tokens(alice.user_id(), true));
  const McpReply refused = alice.call_tool("echo");
  CHECK(refused.http_status == 401);
  CHECK(refused.body.find("token_revoked") != std::string::npos);
}

TEST_CASE("R3: many users at once get their own answers") {
  InProcessOptions opts = options();
  opts.gateway.session.max_per_user = 1000;
  InProcessGateway gw(std::move(opts));
  auto git = echo_upstream("git");
  gw.add_upstream("git", git);
  constexpr int kUsers = 8, kCalls = 40;
  for (int u = 0; u < kUsers; ++u) gw.allow("user" + std::to_string(u), "git");
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int u = 0; u < kUsers; ++u) {
    threads.emplace_back([&, u] {
      McpClient& client = gw.as("user" + std::to_string(u));
      for (int i = 0; i < kCalls; ++i) {
        const std::string nonce = R"({"nonce":")" + std::to_string(u) + "-" + std::to_string(i) + "\"}";
        if (client.call_tool("echo", nonce).text() != "git " + nonce) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(git->received("tools/call").size() == kUsers * kCalls);
}

TEST_CASE("R34: sessions of a user are bounded: the oldest idle one goes") {
  InProcessOptions opts = options();
  opts.gateway.session.max_per_user = 3;
  InProcessGateway gw(std::move(opts));
  McpClient& alice = gw.as("alice");
  Strings ids;
  for (int i = 0; i < 5; ++i) {
    alice.initialize();
    ids.push_back(alice.session_id());
  }
  const std::string ping = R"({"jsonrpc":"2.0","id":1,"method":"ping"})";
  CHECK(alice.raw(ping, {{"Mcp-Session-Id", ids[0]}}).http_status == 404);
  CHECK(alice.raw(ping, {{"Mcp-Session-Id", ids[1]}}).http_status == 404);
  CHECK(alice.raw(ping, {{"Mcp-Session-Id", ids[4]}}).ok());
}

TEST_CASE("R91: no secret of a target comes back, in answers or in the audit log") {
  InProcessGateway gw(options());
  auto crm = std::make_shared<FakeUpstream>();
  crm->add_tool("fail", [](const auto&) -> std::string { throw FakeUpstream::FakeError{-32000, "no"}; });
  const std::string target = gw.add_upstream(http_target("crm"), crm);
  gw.allow("alice", "crm");
  REQUIRE(
      gw.gateway().repository()->set_target_token(target, {Scope::everyone, ""}, "canary-4711-credential"));
  const McpReply reply =
      gw.as("alice").call_tool("fail", R"({"password":"canary-4712-password","keep":"visible"})");
  CHECK(reply.error_code() == -32000);
  CHECK(reply.error_message() == "no");
  CHECK(reply.body.find("canary") == std::string::npos);
  for (const AuditRecord& row : gw.audit_rows()) {
    CHECK(row.request_body.find("canary") == std::string::npos);
    if (row.method == "tools/call") CHECK(row.request_body.find("visible") != std::string::npos);
  }
}
