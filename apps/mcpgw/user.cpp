// mcpgw user: the people who may use the gateway.
#include "cli.hpp"

namespace mcpgw::app {

namespace {

struct Arguments {
  std::string email, role = "user";
  std::vector<std::string> groups;
  bool admin = false, api_tokens = false;
};

Json to_json(const User& user) {
  return {{"id", user.id},
          {"email", user.email},
          {"role", user.role},
          {"groups", user.groups},
          {"enabled", user.enabled},
          {"created_at", time_text(user.created_at)},
          {"updated_at", time_text(user.updated_at)},
          {"last_login_at", user.last_login_at ? Json(time_text(*user.last_login_at)) : Json(nullptr)}};
}

void show(const Invocation& invocation, const User& user, const char* what) {
  if (invocation.json)
    print_json(to_json(user));
  else
    std::printf("%s %s (%s)\n", what, user.email.c_str(), user.role.c_str());
}

int add(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  const auto password = read_secret("Password of " + arguments.email);
  if (!password) return fail(password.error());
  const auto hash = store.authenticator->hash_password(*password);
  if (!hash) return fail(hash.error());
  User user;
  user.email = arguments.email;
  user.role = arguments.admin ? "admin" : arguments.role;
  user.groups = arguments.groups;
  user.password_hash = *hash;
  const auto made = store.repository->create_user(std::move(user));
  if (!made) return fail(made.error());
  show(invocation, *made, "added");
  return kDone;
}

int list(const Invocation& invocation, const Store& store) {
  Json all = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const auto& user : store.repository->users()) {
    all.push_back(to_json(*user));
    rows.push_back({user->email, user->role, user->enabled ? "yes" : "no", join(user->groups), user->id});
  }
  if (invocation.json)
    print_json(all);
  else
    print_table({"EMAIL", "ROLE", "ENABLED", "GROUPS", "ID"}, rows);
  return kDone;
}

int change(const Invocation& invocation, const Store& store, const Arguments& arguments,
           const UserPatch& patch) {
  const auto user = store.repository->user_by_email(arguments.email);
  if (!user) return fail("there is no user " + arguments.email);
  const auto changed = store.repository->update_user(user->id, patch);
  if (!changed) return fail(changed.error());
  show(invocation, *changed, "changed");
  return kDone;
}

int set_password(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  const auto password = read_secret("New password of " + arguments.email);
  if (!password) return fail(password.error());
  const auto hash = store.authenticator->hash_password(*password);
  if (!hash) return fail(hash.error());
  UserPatch patch;
  patch.password_hash = *hash;
  patch.revoke_login_tokens = true;
  patch.revoke_api_tokens = arguments.api_tokens;
  return change(invocation, store, arguments, patch);
}

int erase(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  const auto user = store.repository->user_by_email(arguments.email);
  if (!user) return fail("there is no user " + arguments.email);
  if (const auto status = store.repository->delete_user(user->id); !status) return fail(status.error());
  show(invocation, *user, "deleted");
  return kDone;
}

}  // namespace

void add_user(CLI::App& app, Invocation& invocation) {
  auto& user = *app.add_subcommand("user", "Users")->require_subcommand(1);
  using Action = int (*)(const Invocation&, const Store&, const Arguments&);
  const auto command = [&](const char* name, const char* help, Action action,
                           std::function<void(CLI::App&, Arguments&)> options) {
    add_action<Arguments>(
        user, invocation, name, help,
        [&invocation, action](const Arguments& arguments) {
          int exit_code = kDone;
          const auto store = open_store(invocation, exit_code);
          return store ? action(invocation, *store, arguments) : exit_code;
        },
        std::move(options));
  };
  const auto email = [](CLI::App& c, Arguments& a) { c.add_option("email", a.email)->required(); };
  command("add", "Adds a user; the password comes from standard input", add, [](CLI::App& c, Arguments& a) {
    c.add_option("email", a.email)->required();
    auto* role = c.add_option("--role", a.role, "Default: user");
    c.add_flag("--admin", a.admin, "Role admin")->excludes(role);
    c.add_option("--groups", a.groups, "Separated by commas, the most important first")->delimiter(',');
  });
  command(
      "list", "Lists users", [](const Invocation& i, const Store& s, const Arguments&) { return list(i, s); },
      [](CLI::App&, Arguments&) {});
  command(
      "set-role", "Changes the role",
      [](const Invocation& i, const Store& s, const Arguments& a) {
        UserPatch patch;
        patch.role = a.role;
        return change(i, s, a, patch);
      },
      [](CLI::App& c, Arguments& a) {
        c.add_option("email", a.email)->required();
        c.add_option("role", a.role)->required();
      });
  command(
      "set-groups", "Replaces the groups; none clears them",
      [](const Invocation& i, const Store& s, const Arguments& a) {
        UserPatch patch;
        patch.groups = a.groups;
        return change(i, s, a, patch);
      },
      [](CLI::App& c, Arguments& a) {
        c.add_option("email", a.email)->required();
        c.add_option("groups", a.groups, "The most important first");
      });
  command("set-password", "Sets a password from standard input and ends the user's logins", set_password,
          [](CLI::App& c, Arguments& a) {
            c.add_option("email", a.email)->required();
            c.add_flag("--revoke-api-tokens", a.api_tokens, "Ends API tokens too");
          });
  command(
      "disable", "Refuses everything the user does from now on",
      [](const Invocation& i, const Store& s, const Arguments& a) {
        UserPatch patch;
        patch.enabled = false;
        return change(i, s, a, patch);
      },
      email);
  command(
      "enable", "Lets the user in again",
      [](const Invocation& i, const Store& s, const Arguments& a) {
        UserPatch patch;
        patch.enabled = true;
        return change(i, s, a, patch);
      },
      email);
  command("delete", "Deletes a user with tokens and credentials", erase, email);
}

}  // namespace mcpgw::app
