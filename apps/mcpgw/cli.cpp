#include "cli.hpp"

#include <sys/stat.h>

#include <csignal>
#include <cstdio>
#include <map>
#include <set>
#include <thread>

#include "secrets_file.hpp"

namespace mcpgw::app {

namespace {

/// Words of options made by add_choice. Options live as long as the program.
std::map<const CLI::Option*, std::vector<std::string>>& choices() {
  static std::map<const CLI::Option*, std::vector<std::string>> all;
  return all;
}

std::set<const CLI::Option*>& files() {
  static std::set<const CLI::Option*> all;
  return all;
}

}  // namespace

int run(int argc, char** argv, const std::vector<AddCommand>& commands) {
  ::signal(SIGPIPE, SIG_IGN);
  CLI::App app{"mcpgw: one MCP endpoint in front of many servers, with users, policies and credentials",
               "mcpgw"};
  app.require_subcommand(1);
  app.fallthrough();  // what follows may stand after the command
  Invocation invocation;
  auto* config = add_file(app, "-c,--config", invocation.config_file,
                          "YAML configuration; default: ./mcpgw.yaml when it exists");
  app.add_flag("--json", invocation.json, "Output for programs");
  auto* server = app.add_option("--server", invocation.server.url,
                                "Work on the running server at this URL; default: on the configured storage");
  server->excludes(config);
  add_file(app, "--token-file", invocation.server.token_file,
           "API token for --server; default: the variable MCPGW_TOKEN")
      ->needs(server);
  add_file(app, "--ca", invocation.server.ca_file, "PEM file that vouches for --server")->needs(server);
  app.add_flag("--plain-http", invocation.server.plain_http,
               "Lets the token go to --server without TLS, beyond this machine")
      ->needs(server);
  for (const auto& add : commands) add(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kWrongUsage;
  }
  return invocation.action();
}

int fail(const std::string& message) {
  std::fprintf(stderr, "mcpgw: %s\n", shown(message).c_str());
  return kFailed;
}

int fail(const Error& error) { return fail(error.message.empty() ? error.reason : error.message); }

int refuse(const std::string& message) {
  fail(message);
  return kWrongUsage;
}

int local_only(const Invocation& invocation, const char* command) {
  if (invocation.server.url.empty()) return kDone;
  return refuse(std::string(command) +
                " works on files of the machine that it runs on: --server does not go with it");
}

std::optional<Config> read_config(const Invocation& invocation) {
  auto loaded = load_config(invocation.config_file, invocation.overrides);
  for (const auto& warning : loaded.warnings) std::fprintf(stderr, "mcpgw: warning: %s\n", warning.c_str());
  for (const auto& error : loaded.errors) std::fprintf(stderr, "mcpgw: %s\n", error.c_str());
  if (!loaded.errors.empty()) return std::nullopt;
  return std::move(loaded.config);
}

Status fill_secrets(Config& config, bool may_create, bool* made) {
  if (!config.needs_jwt_secret() && !config.needs_encryption_key()) return {};
  auto secrets = load_secrets(config.data_dir, *make_system_random(), may_create);
  if (!secrets) return secrets.error();
  if (made) *made = secrets->created;
  auto& into = config.gateway;
  if (config.needs_jwt_secret()) {
    into.jwt_secret = std::move(secrets->jwt_secret);
    into.previous_jwt_secrets = std::move(secrets->previous_jwt_secrets);
  }
  if (config.needs_encryption_key()) {
    into.encryption.current = std::move(secrets->encryption_key);
    into.encryption.previous = std::move(secrets->previous_encryption_keys);
  }
  return {};
}

std::optional<GatewayKeys> current_keys(const Config& config) {
  Config filled = config;
  if (!fill_secrets(filled, false, nullptr)) return std::nullopt;
  return GatewayKeys{filled.gateway.jwt_secret, filled.gateway.previous_jwt_secrets,
                     filled.gateway.encryption};
}

Result<Opened> open_database(Config config) {
  ::umask(077);  // whatever is created here is for this user alone
  Opened out;
  const auto& path = config.database.path;
  const bool exists = database_exists(config.database);
  out.made_database = !exists;
  const bool in_data_dir = path.compare(0, config.data_dir.size() + 1, config.data_dir + "/") == 0;
  if (in_data_dir || config.needs_jwt_secret() || config.needs_encryption_key())
    if (auto status = prepare_data_dir(config.data_dir, &out.made_data_dir); !status) return status.error();
  // A new key beside an old database would make everything sealed in it unreadable.
  if (auto status = fill_secrets(config, !exists, &out.made_secrets); !status) return status.error();
  const auto deadline = std::chrono::steady_clock::now() + config.storage_connect_timeout;
  for (;;) {
    auto opened = open_storage(config.database);
    if (opened) {
      out.database = std::move(*opened);
      out.config = std::move(config);
      return out;
    }
    if (opened.error().code != ErrorCode::unavailable || std::chrono::steady_clock::now() >= deadline)
      return opened.error();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

std::unique_ptr<Api> open_api(const Invocation& invocation, int& exit_code) {
  if (!invocation.server.url.empty()) {
    auto remote = make_remote_backend(invocation.server);
    if (remote) return std::make_unique<Api>(std::move(*remote));
    exit_code = refuse(remote.error().message);
    return nullptr;
  }
  auto config = read_config(invocation);
  if (!config) {
    exit_code = kWrongUsage;
    return nullptr;
  }
  auto opened = open_database(std::move(*config));
  auto local =
      opened ? make_local_backend(std::move(*opened)) : Result<std::unique_ptr<Backend>>(opened.error());
  if (local) return std::make_unique<Api>(std::move(*local));
  exit_code = fail(local.error());
  return nullptr;
}

CLI::Option* add_choice(CLI::App& app, const std::string& name, std::string& value,
                        std::vector<std::string> words, const std::string& help) {
  auto* option = app.add_option(name, value, help)->check(CLI::IsMember(words));
  choices()[option] = std::move(words);
  return option;
}

CLI::Option* add_choices(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                         std::vector<std::string> words, const std::string& help) {
  auto* option = app.add_option(name, values, help)->allow_extra_args(false)->check(CLI::IsMember(words));
  choices()[option] = std::move(words);
  return option;
}

CLI::Option* add_file(CLI::App& app, const std::string& name, std::string& value, const std::string& help) {
  auto* option = app.add_option(name, value, help);
  files().insert(option);
  return option;
}

bool is_file(const CLI::Option& option) { return files().count(&option) != 0; }

const std::vector<std::string>& choices_of(const CLI::Option& option) {
  static const std::vector<std::string> kNone;
  const auto found = choices().find(&option);
  return found == choices().end() ? kNone : found->second;
}

}  // namespace mcpgw::app
