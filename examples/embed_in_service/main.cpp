// A service that brings its own gateway: one SQLite file, one port, and a target for an MCP server next door.
//
//   $ embed_in_service orders.db http://127.0.0.1:9000/mcp
//   http://127.0.0.1:43121/mcp
//   Authorization: Bearer eyJ...
//
// The two lines are all that an MCP client needs. The service ends when its input does.
#include <cstdio>
#include <mcpgw/mcpgw.hpp>
#include <mcpgw/server.hpp>
#include <mcpgw/sqlite.hpp>
#include <string>

namespace {

int fail(const mcpgw::Error& error) {
  std::fprintf(stderr, "%s: %s\n", error.reason.c_str(), error.message.c_str());
  return 1;
}

/// The user, the server and the right to use it, made with the first start.
mcpgw::Status set_up(mcpgw::Repository& repository, const std::string& upstream) {
  if (repository.user_by_email("agent@orders.example")) return {};
  mcpgw::User agent;
  agent.email = "agent@orders.example";
  auto user = repository.create_user(std::move(agent));
  if (!user) return user.error();
  mcpgw::Target target;
  target.name = "tools";
  target.url = upstream;
  target.allow_private_network = true;  // it runs next door
  auto made = repository.create_target(std::move(target));
  if (!made) return made.error();
  mcpgw::Policy policy;
  policy.name = "the agent uses the tools";
  policy.target_id = made->id;
  policy.subjects = {{{}, {}, mcpgw::SubjectType::user, user->id, {}}};
  if (auto allowed = repository.create_policy(std::move(policy)); !allowed) return allowed.error();
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: embed_in_service <database> <URL of an MCP server>\n");
    return 2;
  }
  auto database = mcpgw::open_sqlite({argv[1]});
  if (!database) return fail(database.error());

  mcpgw::GatewayOptions options;
  options.storage = database->storage;
  options.audit_sink = database->audit;
  // An example's secrets. Real ones are random and come from a vault.
  options.jwt_secret = "an example's secret of 32 bytes or more";
  options.encryption.current = "0123456789abcdefghijklmnopqrstuv";
  options.log = [](const mcpgw::LogEvent& event) {
    if (event.level >= mcpgw::LogLevel::warn) std::fprintf(stderr, "mcpgw: %s\n", event.message.c_str());
  };
  auto gateway = mcpgw::Gateway::create(std::move(options));
  if (!gateway) return fail(gateway.error());
  if (auto done = set_up(*(*gateway)->repository(), argv[2]); !done) return fail(done.error());

  auto server = mcpgw::HttpServer::start(*gateway);
  if (!server) return fail(server.error());
  const auto agent = (*gateway)->repository()->user_by_email("agent@orders.example");
  auto token = (*gateway)->authenticator()->mint(agent->id, "agent", mcpgw::TokenKind::api, {"mcp"}, {});
  if (!token) return fail(token.error());
  std::printf("%s/mcp\nAuthorization: Bearer %s\n", (*server)->url().c_str(), token->token.c_str());
  std::fflush(stdout);

  while (std::getchar() != EOF) {  // here the service does its own work
  }
  (*gateway)->close(std::chrono::seconds(5));
  (*server)->stop();
  return 0;
}
