// mcpgw policy: who may use what.
#include "cli.hpp"
#include "mcpgw/policy_engine.hpp"
#include "words.hpp"

namespace mcpgw::app {

namespace {

struct Arguments {
  std::string name, target, item, user;
  std::vector<std::string> users, roles, groups;
  bool everyone = false;
  Policy values;
};

std::string target_name(const Store& store, const std::string& id) {
  if (id.empty()) return "(all)";
  const auto target = store.repository->target(id);
  return target ? target->name : id;
}

Json to_json(const Policy& p) {
  Json out = {{"id", p.id}, {"name", p.name}};
  if (!p.description.empty()) out["description"] = p.description;
  if (!p.target_id.empty()) out["target_id"] = p.target_id;
  out["resource_type"] = word(kResourceTypes, p.resource_type);
  if (!p.resource_pattern.empty()) out["resource_pattern"] = p.resource_pattern;
  out["effect"] = word(kEffects, p.effect);
  out["priority"] = p.priority;
  out["enabled"] = p.enabled;
  out["subjects"] = Json::array();
  for (const auto& subject : p.subjects)
    out["subjects"].push_back({{"id", subject.id},
                               {"policy_id", p.id},
                               {"subject_type", word(kSubjectTypes, subject.type)},
                               {"subject_value", subject.value.empty() ? Json(nullptr) : Json(subject.value)},
                               {"created_at", time_text(subject.created_at)}});
  out["created_at"] = time_text(p.created_at);
  out["updated_at"] = time_text(p.updated_at);
  return out;
}

int list(const Invocation& invocation, const Store& store, const Arguments&) {
  Json all = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const auto& policy : store.repository->policies()) {
    all.push_back(to_json(*policy));
    std::vector<std::string> subjects;
    for (const auto& subject : policy->subjects) {
      const auto user = subject.type == SubjectType::user ? store.repository->user(subject.value) : nullptr;
      subjects.push_back(word(kSubjectTypes, subject.type) +
                         (subject.value.empty() ? "" : ":" + (user ? user->email : subject.value)));
    }
    rows.push_back({std::to_string(policy->priority), policy->enabled ? "yes" : "no",
                    word(kEffects, policy->effect), target_name(store, policy->target_id),
                    word(kResourceTypes, policy->resource_type) +
                        (policy->resource_pattern.empty() ? "" : " /" + policy->resource_pattern + "/"),
                    join(subjects), policy->name});
  }
  if (invocation.json)
    print_json(all);
  else
    print_table({"PRIORITY", "ENABLED", "EFFECT", "TARGET", "ITEMS", "SUBJECTS", "NAME"}, rows);
  return kDone;
}

int add(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  Policy policy = arguments.values;
  policy.name = arguments.name;
  if (!arguments.target.empty()) {
    const auto target = store.repository->target_by_name(arguments.target);
    if (!target) return fail("there is no target " + arguments.target);
    policy.target_id = target->id;
  }
  const auto subject = [&policy](SubjectType type, std::string value) {
    Subject one;
    one.type = type;
    one.value = std::move(value);
    policy.subjects.push_back(std::move(one));
  };
  if (arguments.everyone) subject(SubjectType::everyone, "");
  for (const auto& role : arguments.roles) subject(SubjectType::role, role);
  for (const auto& group : arguments.groups) subject(SubjectType::group, group);
  for (const auto& email : arguments.users) {
    const auto user = store.repository->user_by_email(email);
    if (!user) return fail("there is no user " + email);
    subject(SubjectType::user, user->id);
  }
  if (policy.subjects.empty()) return fail("say whom it concerns: --everyone, --role, --group or --user");
  const auto made = store.repository->create_policy(std::move(policy));
  if (!made) return fail(made.error());
  if (invocation.json)
    print_json(to_json(*made));
  else
    std::printf("added %s\n", made->name.c_str());
  return kDone;
}

int erase(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  std::vector<std::shared_ptr<const Policy>> found;
  for (const auto& policy : store.repository->policies())
    if (policy->id == arguments.name || policy->name == arguments.name) found.push_back(policy);
  if (found.empty()) return fail("there is no policy " + arguments.name);
  if (found.size() > 1) return fail("several policies have that name; give the id");
  if (const auto status = store.repository->delete_policy(found[0]->id); !status) return fail(status.error());
  if (invocation.json)
    print_json(to_json(*found[0]));
  else
    std::printf("deleted %s\n", found[0]->name.c_str());
  return kDone;
}

int explain(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  const auto user = store.repository->user_by_email(arguments.user);
  if (!user) return fail("there is no user " + arguments.user);
  const auto target = store.repository->target_by_name(arguments.target);
  if (!target) return fail("there is no target " + arguments.target);
  const auto type = arguments.values.resource_type;
  if (type != ResourceType::all && arguments.item.empty())
    return fail("--name is needed unless --type is all");
  Principal principal;
  principal.user_id = user->id;
  principal.email = user->email;
  principal.role = user->role;
  principal.groups = user->groups;
  const auto engine = PolicyEngine::create(store.repository);
  const auto answer = engine->explain(principal, target->id, type, arguments.item);
  const auto& decision = answer.decision;
  if (!invocation.json) {
    std::printf("%s: %s%s\n", word(kEffects, decision.effect).c_str(), to_string(decision.reason),
                decision.policy_name.empty() ? "" : (" by " + decision.policy_name).c_str());
    std::vector<std::vector<std::string>> rows;
    for (const auto& one : answer.considered)
      rows.push_back({std::to_string(one.priority), word(kEffects, one.effect), one.matched ? "yes" : "no",
                      one.why, one.policy_name});
    print_table({"PRIORITY", "EFFECT", "MATCHED", "WHY", "POLICY"}, rows);
    return kDone;
  }
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  Json out = {{"effect", word(kEffects, decision.effect)},
              {"policy_id", or_null(decision.policy_id)},
              {"policy_name", or_null(decision.policy_name)},
              {"reason", to_string(decision.reason)},
              {"considered", Json::array()}};
  for (const auto& one : answer.considered)
    out["considered"].push_back({{"policy_id", one.policy_id},
                                 {"policy_name", one.policy_name},
                                 {"effect", word(kEffects, one.effect)},
                                 {"priority", one.priority},
                                 {"matched", one.matched},
                                 {"why", one.why}});
  print_json(out);
  return kDone;
}

}  // namespace

void add_policy(CLI::App& app, Invocation& invocation) {
  auto& policy = *app.add_subcommand("policy", "Who may use what")->require_subcommand(1);
  using Action = int (*)(const Invocation&, const Store&, const Arguments&);
  const auto command = [&](const char* name, const char* help, Action action,
                           std::function<void(CLI::App&, Arguments&)> options) {
    add_action<Arguments>(
        policy, invocation, name, help,
        [&invocation, action](const Arguments& arguments) {
          int exit_code = kDone;
          const auto store = open_store(invocation, exit_code);
          return store ? action(invocation, *store, arguments) : exit_code;
        },
        std::move(options));
  };
  command("list", "Lists policies in the order in which they decide", list, [](CLI::App&, Arguments&) {});
  command("add", "Adds a policy", add, [](CLI::App& c, Arguments& a) {
    c.add_option("name", a.name)->required();
    add_choice(c, "--effect", a.values.effect, kEffects, "")->required();
    c.add_option("--target", a.target, "Default: all targets");
    add_choice(c, "--type", a.values.resource_type, kResourceTypes, "Default: all");
    c.add_option("--pattern", a.values.resource_pattern, "RE2, searched in the name; default: every name");
    c.add_option("--priority", a.values.priority, "Higher decides first; default: 0");
    c.add_option("--description", a.values.description, "");
    c.add_flag("--everyone", a.everyone, "Concerns everyone");
    c.add_option("--role", a.roles, "Concerns a role; repeat it");
    c.add_option("--group", a.groups, "Concerns a group; repeat it");
    c.add_option("--user", a.users, "Concerns a user, by email; repeat it");
  });
  command("delete", "Deletes a policy", erase,
          [](CLI::App& c, Arguments& a) { c.add_option("name", a.name, "Name or id")->required(); });
  command("explain", "Tells what a user may do and why", explain, [](CLI::App& c, Arguments& a) {
    c.add_option("--user", a.user, "Email")->required();
    c.add_option("--target", a.target, "Name")->required();
    add_choice(c, "--type", a.values.resource_type, kResourceTypes,
               "Default: all, which asks whether anything is allowed");
    c.add_option("--name", a.item, "Original name of the tool or prompt, or the URI");
  });
}

}  // namespace mcpgw::app
