// mcpgw token: API tokens.
#include "cli.hpp"
#include "config_values.hpp"

namespace mcpgw::app {

namespace {

struct Arguments {
  std::string email, name, id, lifetime;
  std::vector<std::string> scopes{"mcp"};
};

Json to_json(const ApiToken& token) {
  const auto time = [](const std::optional<Time>& value) {
    return value ? Json(time_text(*value)) : Json(nullptr);
  };
  return {{"id", token.id},
          {"user_id", token.user_id},
          {"jti", token.jti},
          {"name", token.name},
          {"kind", token.kind == TokenKind::api ? "api" : "login"},
          {"scopes", token.scopes},
          {"expires_at", time(token.expires_at)},
          {"last_used_at", time(token.last_used_at)},
          {"created_at", time_text(token.created_at)},
          {"revoked_at", time(token.revoked_at)}};
}

int create(const Invocation& invocation, const Store& store, const User& user, const Arguments& arguments) {
  std::optional<Time> expires_at;
  if (!arguments.lifetime.empty()) {
    const auto lifetime = parse_duration(arguments.lifetime);
    if (!lifetime || lifetime->count() == 0) {
      fail("--expires-in must be a duration such as 720h");
      return kWrongUsage;
    }
    expires_at = store.repository->clock().now() + std::chrono::duration_cast<Duration>(*lifetime);
  }
  const auto minted =
      store.authenticator->mint(user.id, arguments.name, TokenKind::api, arguments.scopes, expires_at);
  if (!minted) return fail(minted.error());
  if (invocation.json)
    print_json({{"api_token", to_json(minted->row)}, {"token", minted->token}});
  else
    std::puts(minted->token.c_str());
  return kDone;
}

int list(const Invocation& invocation, const Store& store, const User& user, const Arguments&) {
  Json all = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const auto& token : store.repository->tokens_of(user.id)) {
    all.push_back(to_json(*token));
    const bool expired = token->expires_at && *token->expires_at <= store.repository->clock().now();
    rows.push_back({token->id, token->name, token->kind == TokenKind::api ? "api" : "login",
                    join(token->scopes),
                    token->revoked_at ? "revoked"
                    : expired         ? "expired"
                                      : "valid",
                    time_text(token->created_at)});
  }
  if (invocation.json)
    print_json(all);
  else
    print_table({"ID", "NAME", "KIND", "SCOPES", "STATE", "CREATED"}, rows);
  return kDone;
}

int revoke(const Invocation& invocation, const Store& store, const User& user, const Arguments& arguments) {
  if (const auto status = store.repository->revoke_token(user.id, arguments.id); !status)
    return fail(status.error());
  if (invocation.json)
    print_json({{"id", arguments.id}, {"revoked", true}});
  else
    std::printf("revoked %s\n", arguments.id.c_str());
  return kDone;
}

}  // namespace

void add_token(CLI::App& app, Invocation& invocation) {
  auto& token = *app.add_subcommand("token", "API tokens")->require_subcommand(1);
  using Action = int (*)(const Invocation&, const Store&, const User&, const Arguments&);
  const auto command = [&](const char* name, const char* help, Action action,
                           std::function<void(CLI::App&, Arguments&)> options) {
    add_action<Arguments>(
        token, invocation, name, help,
        [&invocation, action](const Arguments& arguments) {
          int exit_code = kDone;
          const auto store = open_store(invocation, exit_code);
          if (!store) return exit_code;
          const auto user = store->repository->user_by_email(arguments.email);
          return user ? action(invocation, *store, *user, arguments)
                      : fail("there is no user " + arguments.email);
        },
        [options](CLI::App& c, Arguments& a) {
          c.add_option("email", a.email, "Whose token")->required();
          options(c, a);
        });
  };
  command("create", "Makes a token and prints it, this once", create, [](CLI::App& c, Arguments& a) {
    c.add_option("--name", a.name, "To know it by");
    c.add_option("--scopes", a.scopes, "mcp, api or both; default: mcp")->delimiter(',');
    c.add_option("--expires-in", a.lifetime, "Such as 720h; default: never");
  });
  command("list", "Lists tokens, revoked ones too", list, [](CLI::App&, Arguments&) {});
  command("revoke", "Ends a token", revoke,
          [](CLI::App& c, Arguments& a) { c.add_option("id", a.id)->required(); });
}

}  // namespace mcpgw::app
