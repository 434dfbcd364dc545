// mcpgw target: the MCP servers behind the gateway.
#include <sys/stat.h>

#include <fstream>
#include <map>

#include "cli.hpp"
#include "config_values.hpp"

namespace mcpgw::app {

namespace {

constexpr off_t kMaxPem = 256 * 1024;

struct Arguments {
  std::string name, user;
  Json members = Json::object();  ///< of the REST API, as far as they were given
  std::vector<std::string> clear;
  bool keep_credentials = false, drop_credentials = false;
};

enum class Kind { text, flag, integer, texts, file };
/// One option of add and set, and the member of a target that it gives.
struct Member {
  const char* option;
  const char* name;  ///< "tls.ca": a member of a member
  Kind kind;
  const char* help;
  std::vector<std::string> words;
};

const std::vector<Member>& members() {
  static const std::vector<Member> kMembers = {
      {"--name", "name", Kind::text, "New name", {}},
      {"--slug", "slug", Kind::text, "Prefix of its tools' names; default: made from the name", {}},
      {"--transport",
       "transport_type",
       Kind::text,
       "Default: stdio with --command, else streamable-http",
       {"streamable-http", "sse", "stdio", "kubernetes"}},
      {"--url", "url", Kind::text, "Of an HTTP server", {}},
      {"--command", "command", Kind::text, "Program of a stdio server", {}},
      {"--arg", "args", Kind::texts, "Argument of the program; repeat it", {}},
      {"--image", "image", Kind::text, "Container image of a kubernetes server", {}},
      {"--port", "port", Kind::integer, "Of a kubernetes server", {}},
      {"--health-path", "health_path", Kind::text, "Of a kubernetes server", {}},
      {"--statefulness",
       "statefulness",
       Kind::text,
       "Whether sessions share a process",
       {"stateless", "stateful"}},
      {"--isolation",
       "isolation_boundary",
       Kind::text,
       "Who shares a process",
       {"shared", "per_role", "per_group", "per_user"}},
      {"--auth",
       "auth_type",
       Kind::text,
       "How an HTTP server gets the credential",
       {"none", "bearer", "header"}},
      {"--auth-header", "auth_header_name", Kind::text, "Header name with --auth header", {}},
      {"--enabled", "enabled", Kind::flag, "Whether it is served", {"true", "false"}},
      {"--prefix", "prefix", Kind::text, "When names get the slug in front", {"auto", "always"}},
      {"--timeout-ms", "timeout_ms", Kind::integer, "Time limit of a call", {}},
      {"--max-concurrency", "max_concurrency", Kind::integer, "Calls at once", {}},
      {"--protocol-era", "protocol_era", Kind::text, "Which MCP it speaks", {"auto", "legacy", "modern"}},
      {"--allow-private-network",
       "allow_private_network",
       Kind::flag,
       "Whether it may be at a private address",
       {"true", "false"}},
      {"--forward-header", "forward_headers", Kind::texts, "Client header to pass on; repeat it", {}},
      {"--user-env-key",
       "user_env_keys",
       Kind::texts,
       "Key that users may set for themselves; repeat it",
       {}},
      {"--tls-ca", "tls.ca", Kind::file, "PEM file that vouches for an HTTPS server", {}},
      {"--tls-cert", "tls.client_cert", Kind::file, "PEM file of our certificate for it", {}},
      {"--tls-key", "tls.client_key", Kind::file, "PEM file of that certificate's key", {}},
      {"--tls-verify", "tls.verify", Kind::flag, "Whether its certificate is checked", {"true", "false"}},
  };
  return kMembers;
}

/// What --clear empties, and with what.
const std::map<std::string, std::pair<const char*, Json>>& clearable() {
  static const std::map<std::string, std::pair<const char*, Json>> kAll = {
      {"arg", {"args", Json::array()}},
      {"auth-header", {"auth_header_name", ""}},
      {"command", {"command", ""}},
      {"forward-header", {"forward_headers", Json::array()}},
      {"health-path", {"health_path", ""}},
      {"image", {"image", ""}},
      {"max-concurrency", {"max_concurrency", nullptr}},
      {"tls", {"tls", nullptr}},
      {"user-env-key", {"user_env_keys", Json::array()}}};
  return kAll;
}

std::string read_pem(const std::string& path, std::string& out) {
  struct stat info {};
  std::ifstream file(path, std::ios::binary);
  if (!file || ::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode))
    return path + " cannot be read as a file";
  if (info.st_size > kMaxPem) return path + " is too large";
  out.assign(std::istreambuf_iterator<char>(file), {});
  return {};
}

/// The place of a member, made when it is not there yet.
Json& at(Json& object, const std::string& name) {
  const auto dot = name.find('.');
  return dot == std::string::npos ? object[name] : object[name.substr(0, dot)][name.substr(dot + 1)];
}

void add_member(CLI::App& command, const Member& member, Json& into) {
  CLI::Option* option = nullptr;
  if (member.kind == Kind::texts) {
    option = command.add_option_function<std::vector<std::string>>(
        member.option,
        [&member, &into](const std::vector<std::string>& values) { at(into, member.name) = values; },
        member.help);
    option->allow_extra_args(false);  // one value each time: "--arg -y --arg x"
    return;
  }
  auto value = std::make_shared<std::string>();
  option = member.kind == Kind::file ? add_file(command, member.option, *value, member.help)
           : member.words.empty()    ? command.add_option(member.option, *value, member.help)
                                     : add_choice(command, member.option, *value, member.words, member.help);
  option->each([&member, &into, value](const std::string& text) {
    Json& place = at(into, member.name);
    if (member.kind == Kind::flag) {
      place = text == "true";
    } else if (member.kind == Kind::integer) {
      const auto number = parse_integer(text);
      if (!number) throw CLI::ValidationError(member.option, "must be a number");
      place = *number;
    } else if (member.kind == Kind::file) {
      std::string pem;
      if (const auto fault = read_pem(text, pem); !fault.empty())
        throw CLI::ValidationError(member.option, fault);
      place = pem;
    } else {
      place = text;
    }
  });
}

std::string place_of(const Json& target) {
  const auto transport = cell(target, "transport_type");
  if (transport == "kubernetes") return cell(target, "image");
  if (transport != "stdio") return cell(target, "url");
  std::string out = cell(target, "command");
  if (target.contains("args"))
    for (const auto& argument : target["args"])
      out += " " + (argument.is_string() ? argument.get<std::string>() : "");
  return out;
}

int show(const Invocation& invocation, const Json& target, const char* what) {
  if (invocation.json)
    print_json(target);
  else
    print_line(std::string(what) + " " + cell(target, "name") + ": " + cell(target, "transport_type") + " " +
               place_of(target));
  return kDone;
}

int add(const Invocation& invocation, Api& api, const Arguments& arguments) {
  Json body = arguments.members;
  body["name"] = arguments.name;
  if (!body.contains("transport_type") && body.contains("command")) body["transport_type"] = "stdio";
  const auto made = api.call("POST", "/api/targets", body);
  return made ? show(invocation, *made, "added") : fail(made.error());
}

int set(const Invocation& invocation, Api& api, const Arguments& arguments) {
  Json body = arguments.members;
  for (const auto& name : arguments.clear) {
    const auto& [member, empty] = clearable().at(name);
    if (body.contains(member)) return refuse("--clear " + name + " and a new value exclude each other");
    body[member] = empty;
  }
  if (body.empty()) return refuse("say what to change: mcpgw target set --help");
  if (arguments.keep_credentials || arguments.drop_credentials)
    body["keep_credentials"] = arguments.keep_credentials;
  const auto target = api.target(arguments.name);
  if (!target) return fail(target.error());
  const auto changed = api.call("PUT", "/api/targets/" + cell(*target, "id"), body);
  if (!changed && changed.error().reason == "credentials_bound")
    return fail(changed.error().message + ": repeat it with --keep-credentials or --drop-credentials");
  return changed ? show(invocation, *changed, "changed") : fail(changed.error());
}

int list(const Invocation& invocation, Api& api, const Arguments&) {
  const auto all = api.list("/api/targets");
  if (!all) return fail(all.error());
  if (invocation.json) {
    print_json(*all);
    return kDone;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& target : *all)
    rows.push_back({cell(target, "name"), cell(target, "slug"), cell(target, "transport_type"),
                    cell(target, "enabled"), target.contains("status") ? cell(target["status"], "state") : "",
                    place_of(target)});
  print_table({"NAME", "SLUG", "TRANSPORT", "ENABLED", "STATE", "WHERE"}, rows);
  return kDone;
}

int show_one(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto target = api.target(arguments.name);
  if (!target) return fail(target.error());
  if (invocation.json) {
    print_json(*target);
    return kDone;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [member, value] : target->items()) {
    if (!value.is_object()) {
      if (const auto text = cell(*target, member.c_str()); !text.empty()) rows.push_back({member, text});
      continue;
    }
    for (const auto& [inner, unused] : value.items())
      if (const auto text = cell(value, inner.c_str()); !text.empty())
        rows.push_back({member + "." + inner, text});
  }
  print_table({"MEMBER", "VALUE"}, rows);
  return kDone;
}

int test(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto target = api.target(arguments.name);
  if (!target) return fail(target.error());
  Json body = Json::object();
  if (!arguments.user.empty()) {
    const auto user = api.user(arguments.user);
    if (!user) return fail(user.error());
    body["user_id"] = cell(*user, "id");
  }
  const auto result = api.call("POST", "/api/targets/" + cell(*target, "id") + "/test", body);
  if (!result) return fail(result.error());
  const bool ok = cell(*result, "ok") == "yes";
  if (invocation.json) {
    print_json(*result);
    return ok ? kDone : kFailed;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& step : result->value("steps", Json::array()))
    rows.push_back({cell(step, "name"), cell(step, "ok") == "yes" ? "ok" : "failed",
                    cell(step, "duration_ms") + " ms", cell(step, "detail")});
  print_table({"STEP", "RESULT", "TIME", "DETAIL"}, rows);
  return ok ? kDone : kFailed;
}

int restart(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto target = api.target(arguments.name);
  if (!target) return fail(target.error());
  const auto path = "/api/targets/" + cell(*target, "id");
  auto result = api.call("POST", path + "/restart-instances");
  if (!result) return fail(result.error());
  if (api.is_local()) {
    // Instances belong to the gateways that run on this storage. A new version of the target is what all of
    // them replace their instances by.
    const auto touched = api.call("PUT", path, Json::object());
    if (!touched) return fail(touched.error());
    (*result)["message"] = "The next call gets a new instance, of every gateway that runs on this storage";
  }
  if (invocation.json)
    print_json(*result);
  else
    print_line(cell(*result, "message"));
  return kDone;
}

int erase(const Invocation& invocation, Api& api, const Arguments& arguments) {
  const auto target = api.target(arguments.name);
  if (!target) return fail(target.error());
  const auto gone = api.call("DELETE", "/api/targets/" + cell(*target, "id"));
  return gone ? show(invocation, *target, "deleted") : fail(gone.error());
}

void name(CLI::App& command, Arguments& arguments) {
  command.add_option("target", arguments.name, "Its name")->required();
}

}  // namespace

void add_target(CLI::App& app, Invocation& invocation) {
  auto& target = *app.add_subcommand("target", "MCP servers behind the gateway")->require_subcommand(1);
  add_api_action<Arguments>(target, invocation, "add", "Adds a server", add, [](CLI::App& c, Arguments& a) {
    name(c, a);
    for (const auto& member : members())
      if (std::string(member.name) != "name") add_member(c, member, a.members);
  });
  add_api_action<Arguments>(target, invocation, "list", "Lists servers", list, nullptr);
  add_api_action<Arguments>(target, invocation, "show", "Shows one", show_one, name);
  add_api_action<Arguments>(target, invocation, "set", "Changes one", set, [](CLI::App& c, Arguments& a) {
    name(c, a);
    for (const auto& member : members()) add_member(c, member, a.members);
    std::vector<std::string> words;
    for (const auto& [word, unused] : clearable()) words.push_back(word);
    add_choices(c, "--clear", a.clear, words, "Empties it; repeat it");
    auto* keep =
        c.add_flag("--keep-credentials", a.keep_credentials, "Stored credentials go to the new place");
    c.add_flag("--drop-credentials", a.drop_credentials, "Stored credentials are deleted")->excludes(keep);
  });
  add_api_action<Arguments>(target, invocation, "test", "Connects to one and says what it found", test,
                            [](CLI::App& c, Arguments& a) {
                              name(c, a);
                              c.add_option("--user", a.user, "Email: with this user's credentials");
                            });
  add_api_action<Arguments>(target, invocation, "restart", "Replaces its processes", restart, name);
  add_api_action<Arguments>(target, invocation, "delete", "Deletes one, its credentials and its policies",
                            erase, name);
}

}  // namespace mcpgw::app
