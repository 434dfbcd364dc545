// mcpgw token: API tokens.
#include <chrono>

#include "cli.hpp"
#include "config_values.hpp"

namespace mcpgw::app {

namespace {

struct Arguments {
  std::string email, name, id, lifetime;
  std::vector<std::string> scopes{"mcp"}, email_and_id;
};

constexpr std::chrono::hours kMaxLifetime{24 * 366 * 100};

/// Where the tokens of a user are; of the one who asks when no email was given.
Result<std::string> place(Api& api, const std::string& email) {
  if (email.empty()) return std::string("/api/auth/tokens");
  const auto user = api.user(email);
  if (!user) return user.error();
  return "/api/users/" + cell(*user, "id") + "/tokens";
}

int create(const Invocation& invocation, Api& api, const Arguments& arguments) {
  Json body{{"name", arguments.name}, {"scopes", arguments.scopes}};
  if (!arguments.lifetime.empty()) {
    const auto lifetime = parse_duration(arguments.lifetime);
    if (!lifetime || lifetime->count() == 0 || *lifetime > kMaxLifetime)
      return refuse("--expires-in must be a duration such as 720h, at most 100 years");
    body["expires_at"] = time_text(std::chrono::system_clock::now() + *lifetime);
  }
  std::string user_id;
  if (api.is_local()) {
    const auto user = api.user(arguments.email);
    if (!user) return fail(user.error());
    user_id = cell(*user, "id");
  } else if (!arguments.email.empty()) {
    const auto me = api.call("GET", "/api/auth/me");
    if (!me) return fail(me.error());
    if (cell(*me, "email") != arguments.email)
      return fail("a server makes tokens for the owner of the token that asks alone: that is " +
                  cell(*me, "email"));
  }
  const auto made = api.call("POST", "/api/auth/tokens", body, user_id);
  if (!made) return fail(made.error());
  if (invocation.json)
    print_json(*made);
  else
    print_line(cell(*made, "token"));
  return kDone;
}

int list(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto at = place(api, arguments.email);
  if (!at) return fail(at.error());
  const auto all = api.list(*at);
  if (!all) return fail(all.error());
  if (invocation.json) {
    print_json(*all);
    return kDone;
  }
  const auto now = time_text(std::chrono::system_clock::now());
  std::vector<std::vector<std::string>> rows;
  for (const auto& token : *all) {
    const auto expires = cell(token, "expires_at");  // texts of this form compare as their times
    const char* state = !cell(token, "revoked_at").empty()   ? "revoked"
                        : !expires.empty() && expires <= now ? "expired"
                                                             : "valid";
    rows.push_back({cell(token, "id"), cell(token, "name"), cell(token, "kind"), cell(token, "scopes"), state,
                    cell(token, "created_at"), expires, cell(token, "last_used_at")});
  }
  print_table({"ID", "NAME", "KIND", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED"}, rows);
  return kDone;
}

int revoke(const Invocation& invocation, Api& api, const Arguments& given) {
  Arguments arguments = given;
  arguments.id = given.email_and_id.back();
  if (given.email_and_id.size() == 2) arguments.email = given.email_and_id.front();
  if (arguments.email.empty() && api.is_local()) return refuse("say whose token: EMAIL ID");
  const auto at = place(api, arguments.email);
  if (!at) return fail(at.error());
  const auto gone = api.call("DELETE", *at + "/" + encoded(arguments.id));
  if (!gone) return fail(gone.error());
  if (invocation.json)
    print_json({{"id", arguments.id}, {"revoked", true}});
  else
    print_line("revoked " + arguments.id);
  return kDone;
}

using Action = int (*)(const Invocation&, Api&, const Arguments&);

/// On the storage everybody's tokens are within reach, so it must be said whose.
template <Action action>
int with_owner(const Invocation& invocation, Api& api, const Arguments& arguments) {
  if (arguments.email.empty() && api.is_local())
    return refuse("say whose token: an email is needed without --server");
  return action(invocation, api, arguments);
}

}  // namespace

void add_token(CLI::App& app, Invocation& invocation) {
  auto& token = *app.add_subcommand("token", "API tokens")->require_subcommand(1);
  const char* const kWhose = "Whose; with --server, default: of the owner of the token that asks";
  add_api_action<Arguments>(
      token, invocation, "create", "Makes a token and prints it, this once", with_owner<create>,
      [kWhose](CLI::App& c, Arguments& a) {
        c.add_option("email", a.email, kWhose);
        c.add_option("--name", a.name, "To know it by");
        c.add_option("--scopes", a.scopes, "mcp, api or both; default: mcp")->delimiter(',');
        c.add_option("--expires-in", a.lifetime, "Such as 720h; default: never");
      });
  add_api_action<Arguments>(token, invocation, "list",
                            "Lists tokens; with an email revoked and expired ones too", with_owner<list>,
                            [kWhose](CLI::App& c, Arguments& a) { c.add_option("email", a.email, kWhose); });
  add_api_action<Arguments>(token, invocation, "revoke", "Ends a token", revoke,
                            [](CLI::App& c, Arguments& a) {
                              c.add_option("token", a.email_and_id, "[EMAIL] ID, from mcpgw token list")
                                  ->required()
                                  ->expected(1, 2);
                            });
}

}  // namespace mcpgw::app
