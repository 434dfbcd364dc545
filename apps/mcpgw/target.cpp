// mcpgw target: the MCP servers behind the gateway. A gateway that runs on the same storage follows within moments.
#include "cli.hpp"
#include "words.hpp"

namespace mcpgw::app {

namespace {

struct Arguments {
  std::string name;
  Target values;                   ///< what was given on the command line
  std::vector<std::string> given;  ///< names of the options that were
  bool keep_credentials = false, drop_credentials = false;
};

Json to_json(const Target& t) {
  Json out = {{"id", t.id},
              {"name", t.name},
              {"slug", t.slug},
              {"transport_type", word(kTransports, t.transport_type)},
              {"url", t.url}};
  if (!t.command.empty()) out["command"] = t.command;
  if (!t.args.empty()) out["args"] = t.args;
  if (!t.image.empty()) out["image"] = t.image;
  out["port"] = t.port;
  if (!t.health_path.empty()) out["health_path"] = t.health_path;
  out["statefulness"] = word(kStatefulness, t.statefulness);
  out["isolation_boundary"] = word(kIsolations, t.isolation_boundary);
  out["auth_type"] = word(kAuthTypes, t.auth_type);
  if (!t.auth_header_name.empty()) out["auth_header_name"] = t.auth_header_name;
  out["enabled"] = t.enabled;
  out["prefix"] = word(kPrefixModes, t.prefix);
  out["timeout_ms"] = t.timeout_ms;
  out["max_concurrency"] = t.max_concurrency ? Json(*t.max_concurrency) : Json(nullptr);
  out["allow_private_network"] = t.allow_private_network;
  if (!t.forward_headers.empty()) out["forward_headers"] = t.forward_headers;
  if (!t.user_env_keys.empty()) out["user_env_keys"] = t.user_env_keys;
  out["created_at"] = time_text(t.created_at);
  out["updated_at"] = time_text(t.updated_at);
  return out;
}

std::string place(const Target& t) {
  if (t.transport_type == TransportType::stdio) return join({t.command, join(t.args, " ")}, " ");
  return t.transport_type == TransportType::kubernetes ? t.image : t.url;
}

int show(const Invocation& invocation, const Target& target, const char* what) {
  if (invocation.json)
    print_json(to_json(target));
  else
    std::printf("%s %s: %s %s\n", what, target.name.c_str(), word(kTransports, target.transport_type).c_str(),
                place(target).c_str());
  return kDone;
}

/// One option of add and set, and how it gets from the command line into a target.
struct Member {
  const char* option;
  void (*define)(CLI::App&, const char* option, Target&);
  void (*copy)(const Target& from, Target& to);
};

#define MEMBER(option, member, help)                                                              \
  {                                                                                               \
    option, [](CLI::App& c, const char* name, Target& t) { c.add_option(name, t.member, help); }, \
        [](const Target& from, Target& to) { to.member = from.member; }                           \
  }
#define CHOICE(option, member, words, help)                                                               \
  {                                                                                                       \
    option, [](CLI::App& c, const char* name, Target& t) { add_choice(c, name, t.member, words, help); }, \
        [](const Target& from, Target& to) { to.member = from.member; }                                   \
  }

const std::vector<Member>& members() {
  static const std::vector<Member> kMembers = {
      MEMBER("--name", name, "New name"),
      MEMBER("--slug", slug, "Prefix of its tools' names; default: made from the name"),
      CHOICE("--transport", transport_type, kTransports,
             "Default: stdio with --command, else streamable-http"),
      MEMBER("--url", url, "Of an HTTP server"),
      MEMBER("--command", command, "Program of a stdio server"),
      MEMBER("--arg", args, "Argument of the program; repeat it"),
      CHOICE("--statefulness", statefulness, kStatefulness, ""),
      CHOICE("--isolation", isolation_boundary, kIsolations, "Who shares a process"),
      CHOICE("--auth", auth_type, kAuthTypes, "How an HTTP server gets the credential"),
      MEMBER("--auth-header", auth_header_name, "Header name with --auth header"),
      MEMBER("--enabled", enabled, "true or false"),
      CHOICE("--prefix", prefix, kPrefixModes, "When names get the slug in front"),
      MEMBER("--timeout-ms", timeout_ms, "Time limit of a call"),
      MEMBER("--allow-private-network", allow_private_network, "true: may be at a private address"),
      MEMBER("--forward-header", forward_headers, "Client header to pass on; repeat it"),
      MEMBER("--user-env-key", user_env_keys, "Key that users may set for themselves; repeat it"),
  };
  return kMembers;
}
#undef MEMBER
#undef CHOICE

bool was_given(const Arguments& arguments, const std::string& option) {
  return std::find(arguments.given.begin(), arguments.given.end(), option) != arguments.given.end();
}

void apply(const Arguments& arguments, Target& target) {
  for (const auto& member : members())
    if (was_given(arguments, member.option)) member.copy(arguments.values, target);
}

std::shared_ptr<const Target> find(const Store& store, const std::string& name) {
  auto target = store.repository->target_by_name(name);
  return target ? target : store.repository->target(name);
}

int add(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  Target target;
  target.name = arguments.name;
  apply(arguments, target);
  if (!was_given(arguments, "--transport") && !target.command.empty())
    target.transport_type = TransportType::stdio;
  const auto made = store.repository->create_target(std::move(target));
  return made ? show(invocation, *made, "added") : fail(made.error());
}

int set(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  const auto current = find(store, arguments.name);
  if (!current) return fail("there is no target " + arguments.name);
  TargetUpdate update;
  update.target = *current;
  update.if_version = current->version;
  if (arguments.keep_credentials || arguments.drop_credentials)
    update.keep_credentials = arguments.keep_credentials;
  apply(arguments, update.target);
  const auto changed = store.repository->update_target(update);
  return changed ? show(invocation, changed->target, "changed") : fail(changed.error());
}

int list(const Invocation& invocation, const Store& store, const Arguments&) {
  Json all = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const auto& target : store.repository->targets()) {
    all.push_back(to_json(*target));
    rows.push_back({target->name, target->slug, word(kTransports, target->transport_type),
                    target->enabled ? "yes" : "no", place(*target)});
  }
  if (invocation.json)
    print_json(all);
  else
    print_table({"NAME", "SLUG", "TRANSPORT", "ENABLED", "WHERE"}, rows);
  return kDone;
}

int show_one(const Invocation&, const Store& store, const Arguments& arguments) {
  const auto target = find(store, arguments.name);
  if (!target) return fail("there is no target " + arguments.name);
  print_json(to_json(*target));
  return kDone;
}

int erase(const Invocation& invocation, const Store& store, const Arguments& arguments) {
  const auto target = find(store, arguments.name);
  if (!target) return fail("there is no target " + arguments.name);
  if (const auto status = store.repository->delete_target(target->id); !status) return fail(status.error());
  return show(invocation, *target, "deleted");
}

}  // namespace

void add_target(CLI::App& app, Invocation& invocation) {
  auto& target = *app.add_subcommand("target", "MCP servers behind the gateway")->require_subcommand(1);
  using Action = int (*)(const Invocation&, const Store&, const Arguments&);
  const auto command = [&](const char* name, const char* help, Action action, bool named, bool with_members) {
    auto values = std::make_shared<Arguments>();
    auto* c = target.add_subcommand(name, help);
    if (named) c->add_option("target", values->name, "Its name")->required();
    if (with_members)
      for (const auto& member : members()) member.define(*c, member.option, values->values);
    if (with_members && action == set) {
      auto* keep = c->add_flag("--keep-credentials", values->keep_credentials,
                               "Stored credentials go to the new place");
      c->add_flag("--drop-credentials", values->drop_credentials, "Stored credentials are deleted")
          ->excludes(keep);
    }
    c->callback([&invocation, values, action, c] {
      invocation.action = [&invocation, values, action, c] {
        for (const auto* option : c->get_options())
          if (option->count() > 0) values->given.push_back(option->get_name());
        int exit_code = kDone;
        const auto store = open_store(invocation, exit_code);
        return store ? action(invocation, *store, *values) : exit_code;
      };
    });
  };
  command("add", "Adds a server", add, true, true);
  command("list", "Lists servers", list, false, false);
  command("show", "Shows one", show_one, true, false);
  command("set", "Changes one", set, true, true);
  command("delete", "Deletes one, its credentials and its policies", erase, true, false);
}

}  // namespace mcpgw::app
