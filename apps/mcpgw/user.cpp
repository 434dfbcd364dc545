// mcpgw user: the people who may use the gateway.
#include "cli.hpp"

namespace mcpgw::app {

namespace {

struct Arguments {
  std::string email, role = "user";
  std::vector<std::string> groups;
  bool admin = false, api_tokens = false;
};

int show(const Invocation& invocation, const Json& user, const char* what) {
  if (invocation.json)
    print_json(user);
  else
    print_line(std::string(what) + " " + cell(user, "email") + " (" + cell(user, "role") + ")");
  return kDone;
}

int add(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto password = read_secret("Password of " + arguments.email, true);
  if (!password) return fail(password.error());
  const auto made = api.call("POST", "/api/users",
                             {{"email", arguments.email},
                              {"password", *password},
                              {"role", arguments.admin ? "admin" : arguments.role},
                              {"groups", arguments.groups}});
  return made ? show(invocation, *made, "added") : fail(made.error());
}

int list(const Invocation& invocation, Api& api, const Arguments&) {
  const auto all = api.list("/api/users");
  if (!all) return fail(all.error());
  if (invocation.json) {
    print_json(*all);
    return kDone;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& user : *all)
    rows.push_back({cell(user, "email"), cell(user, "role"), cell(user, "enabled"), cell(user, "groups"),
                    cell(user, "last_login_at"), cell(user, "id")});
  print_table({"EMAIL", "ROLE", "ENABLED", "GROUPS", "LAST LOGIN", "ID"}, rows);
  return kDone;
}

int change(const Invocation& invocation, Api& api, const Arguments& arguments, const Json& members) {
  const auto user = api.user(arguments.email);
  if (!user) return fail(user.error());
  const auto changed = api.call("PUT", "/api/users/" + cell(*user, "id"), members);
  return changed ? show(invocation, *changed, "changed") : fail(changed.error());
}

int set_role(const Invocation& invocation, Api& api, const Arguments& arguments) {
  return change(invocation, api, arguments, {{"role", arguments.role}});
}
int set_groups(const Invocation& invocation, Api& api, const Arguments& arguments) {
  return change(invocation, api, arguments, {{"groups", arguments.groups}});
}
int disable(const Invocation& invocation, Api& api, const Arguments& arguments) {
  return change(invocation, api, arguments, {{"enabled", false}});
}
int enable(const Invocation& invocation, Api& api, const Arguments& arguments) {
  return change(invocation, api, arguments, {{"enabled", true}});
}

int set_password(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto password = read_secret("New password of " + arguments.email, true);
  if (!password) return fail(password.error());
  return change(invocation, api, arguments,
                {{"password", *password}, {"revoke_api_tokens", arguments.api_tokens}});
}

int erase(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto user = api.user(arguments.email);
  if (!user) return fail(user.error());
  const auto gone = api.call("DELETE", "/api/users/" + cell(*user, "id"));
  return gone ? show(invocation, *user, "deleted") : fail(gone.error());
}

void email(CLI::App& command, Arguments& arguments) {
  command.add_option("email", arguments.email, "Whom")->required();
}

}  // namespace

void add_user(CLI::App& app, Invocation& invocation) {
  auto& user = *app.add_subcommand("user", "Users")->require_subcommand(1);
  add_api_action<Arguments>(
      user, invocation, "add", "Adds a user; the password comes from standard input", add,
      [](CLI::App& c, Arguments& a) {
        email(c, a);
        auto* role = c.add_option("--role", a.role, "Default: user");
        c.add_flag("--admin", a.admin, "Role admin")->excludes(role);
        c.add_option("--groups", a.groups, "Separated by commas, the most important first")->delimiter(',');
      });
  add_api_action<Arguments>(user, invocation, "list", "Lists users", list, nullptr);
  add_api_action<Arguments>(user, invocation, "set-role", "Changes the role", set_role,
                            [](CLI::App& c, Arguments& a) {
                              email(c, a);
                              c.add_option("role", a.role, "Such as admin, user, viewer")->required();
                            });
  add_api_action<Arguments>(user, invocation, "set-groups", "Replaces the groups; none clears them",
                            set_groups, [](CLI::App& c, Arguments& a) {
                              email(c, a);
                              c.add_option("groups", a.groups, "The most important first")->delimiter(',');
                            });
  add_api_action<Arguments>(user, invocation, "set-password",
                            "Sets a password from standard input and ends the user's logins", set_password,
                            [](CLI::App& c, Arguments& a) {
                              email(c, a);
                              c.add_flag("--revoke-api-tokens", a.api_tokens, "Ends API tokens too");
                            });
  add_api_action<Arguments>(user, invocation, "disable", "Refuses everything the user does from now on",
                            disable, email);
  add_api_action<Arguments>(user, invocation, "enable", "Lets the user in again", enable, email);
  add_api_action<Arguments>(user, invocation, "delete", "Deletes a user with tokens and credentials", erase,
                            email);
}

}  // namespace mcpgw::app
