// mcpgw policy: who may use what.
#include <map>

#include "cli.hpp"

namespace mcpgw::app {

namespace {

struct Arguments {
  std::string name, target, item, user, effect, type = "all", pattern, description;
  std::vector<std::string> users, roles, groups;
  int priority = 0;
  bool everyone = false, disabled = false;
};

const std::vector<std::string> kTypes{"all", "tool", "resource", "prompt"};

/// id -> what people call it; empty when they cannot be listed: names are a convenience.
std::map<std::string, std::string> names(Api& api, const char* path, const char* member) {
  std::map<std::string, std::string> out;
  if (const auto all = api.list(path))
    for (const auto& one : *all) out[cell(one, "id")] = cell(one, member);
  return out;
}

std::string name_of(const std::map<std::string, std::string>& names, const std::string& id) {
  const auto found = names.find(id);
  return found == names.end() ? id : found->second;
}

int list(const Invocation& invocation, Api& api, const Arguments&) {
  const auto all = api.list("/api/policies");
  if (!all) return fail(all.error());
  if (invocation.json) {
    print_json(*all);
    return kDone;
  }
  const auto targets = names(api, "/api/targets", "name"), users = names(api, "/api/users", "email");
  std::vector<std::vector<std::string>> rows;
  for (const auto& policy : *all) {
    std::vector<std::string> subjects;
    for (const auto& subject : policy.value("subjects", Json::array())) {
      const auto type = cell(subject, "subject_type"), value = cell(subject, "subject_value");
      subjects.push_back(type +
                         (value.empty() ? "" : ":" + (type == "user" ? name_of(users, value) : value)));
    }
    const auto target = cell(policy, "target_id"), pattern = cell(policy, "resource_pattern");
    rows.push_back({cell(policy, "priority"), cell(policy, "enabled"), cell(policy, "effect"),
                    target.empty() ? "(all)" : name_of(targets, target),
                    cell(policy, "resource_type") + (pattern.empty() ? "" : " /" + pattern + "/"),
                    join(subjects), cell(policy, "name")});
  }
  print_table({"PRIORITY", "ENABLED", "EFFECT", "TARGET", "ITEMS", "SUBJECTS", "NAME"}, rows);
  return kDone;
}

int add(const Invocation& invocation, Api& api, const Arguments& arguments) {
  Json subjects = Json::array();
  if (arguments.everyone) subjects.push_back({{"subject_type", "everyone"}});
  for (const auto& role : arguments.roles)
    subjects.push_back({{"subject_type", "role"}, {"subject_value", role}});
  for (const auto& group : arguments.groups)
    subjects.push_back({{"subject_type", "group"}, {"subject_value", group}});
  for (const auto& email : arguments.users) {
    const auto user = api.user(email);
    if (!user) return fail(user.error());
    subjects.push_back({{"subject_type", "user"}, {"subject_value", cell(*user, "id")}});
  }
  if (subjects.empty()) return refuse("say whom it concerns: --everyone, --role, --group or --user");
  Json body{{"name", arguments.name},          {"effect", arguments.effect},
            {"resource_type", arguments.type}, {"priority", arguments.priority},
            {"enabled", !arguments.disabled},  {"subjects", std::move(subjects)}};
  if (!arguments.description.empty()) body["description"] = arguments.description;
  if (!arguments.pattern.empty()) body["resource_pattern"] = arguments.pattern;
  if (!arguments.target.empty()) {
    const auto target = api.target(arguments.target);
    if (!target) return fail(target.error());
    body["target_id"] = cell(*target, "id");
  }
  const auto made = api.call("POST", "/api/policies", body);
  if (!made) return fail(made.error());
  if (invocation.json)
    print_json(*made);
  else
    print_line("added " + cell(*made, "name"));
  return kDone;
}

int erase(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto policy = api.policy(arguments.name);
  if (!policy) return fail(policy.error());
  const auto gone = api.call("DELETE", "/api/policies/" + cell(*policy, "id"));
  if (!gone) return fail(gone.error());
  if (invocation.json)
    print_json(*policy);
  else
    print_line("deleted " + cell(*policy, "name"));
  return kDone;
}

int explain(const Invocation& invocation, Api& api, const Arguments& arguments) {
  if (arguments.type != "all" && arguments.item.empty())
    return refuse("--name is needed unless --type is all");
  const auto user = api.user(arguments.user);
  if (!user) return fail(user.error());
  const auto target = api.target(arguments.target);
  if (!target) return fail(target.error());
  Json body{
      {"user_id", cell(*user, "id")}, {"target_id", cell(*target, "id")}, {"resource_type", arguments.type}};
  if (!arguments.item.empty()) body["name"] = arguments.item;
  const auto answer = api.call("POST", "/api/policies/evaluate", body);
  if (!answer) return fail(answer.error());
  if (invocation.json) {
    print_json(*answer);
    return kDone;
  }
  const auto by = cell(*answer, "policy_name");
  print_line(cell(*answer, "effect") + ": " + cell(*answer, "reason") + (by.empty() ? "" : " by " + by));
  std::vector<std::vector<std::string>> rows;
  for (const auto& one : answer->value("considered", Json::array()))
    rows.push_back({cell(one, "priority"), cell(one, "effect"), cell(one, "matched"), cell(one, "why"),
                    cell(one, "policy_name")});
  print_table({"PRIORITY", "EFFECT", "MATCHED", "WHY", "POLICY"}, rows);
  return kDone;
}

}  // namespace

void add_policy(CLI::App& app, Invocation& invocation) {
  auto& policy = *app.add_subcommand("policy", "Who may use what")->require_subcommand(1);
  add_api_action<Arguments>(policy, invocation, "list", "Lists policies in the order in which they decide",
                            list, nullptr);
  add_api_action<Arguments>(policy, invocation, "add", "Adds a policy", add, [](CLI::App& c, Arguments& a) {
    c.add_option("name", a.name, "To know it by")->required();
    add_choice(c, "--effect", a.effect, {"allow", "deny"}, "What it does")->required();
    c.add_option("--target", a.target, "Default: all targets");
    add_choice(c, "--type", a.type, kTypes, "Default: all");
    c.add_option("--pattern", a.pattern, "RE2, searched in the name; default: every name");
    c.add_option("--priority", a.priority, "Higher decides first; default: 0");
    c.add_option("--description", a.description, "For people");
    c.add_flag("--disabled", a.disabled, "Not in force yet");
    c.add_flag("--everyone", a.everyone, "Concerns everyone");
    c.add_option("--role", a.roles, "Concerns a role; repeat it")->allow_extra_args(false);
    c.add_option("--group", a.groups, "Concerns a group; repeat it")->allow_extra_args(false);
    c.add_option("--user", a.users, "Concerns a user, by email; repeat it")->allow_extra_args(false);
  });
  add_api_action<Arguments>(
      policy, invocation, "delete", "Deletes a policy", erase,
      [](CLI::App& c, Arguments& a) { c.add_option("name", a.name, "Name or id")->required(); });
  add_api_action<Arguments>(
      policy, invocation, "explain", "Tells what a user may do and why", explain,
      [](CLI::App& c, Arguments& a) {
        c.add_option("--user", a.user, "Email")->required();
        c.add_option("--target", a.target, "Name")->required();
        add_choice(c, "--type", a.type, kTypes, "Default: all, which asks whether anything is allowed");
        c.add_option("--name", a.item, "Original name of the tool or prompt, or the URI");
      });
}

}  // namespace mcpgw::app
