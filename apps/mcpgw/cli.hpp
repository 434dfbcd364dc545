// What the commands have in common: the command line, exit codes, errors, the configured storage.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api.hpp"
#include "database.hpp"
#include "load_config.hpp"
#include "output.hpp"

namespace mcpgw::app {

constexpr int kDone = 0, kFailed = 1, kWrongUsage = 2;

/// The command line as it was understood.
struct Invocation {
  std::string config_file;
  bool json = false;
  ServerOptions server;  ///< url empty: the commands work on the configured storage
  std::vector<ConfigSources::Option> overrides;
  std::function<int()> action;  ///< of the chosen command; returns the exit code
};

/// Adds one command to the program: its options, and its action when it is chosen.
using AddCommand = void (*)(CLI::App& app, Invocation& invocation);

/// The whole program: parses, runs the chosen command, returns its exit code.
int run(int argc, char** argv, const std::vector<AddCommand>& commands);

// The commands, one file each.
void add_serve(CLI::App& app, Invocation& invocation);
void add_user(CLI::App& app, Invocation& invocation);
void add_token(CLI::App& app, Invocation& invocation);
void add_target(CLI::App& app, Invocation& invocation);
void add_policy(CLI::App& app, Invocation& invocation);
void add_logs(CLI::App& app, Invocation& invocation);
void add_keys(CLI::App& app, Invocation& invocation);
void add_storage(CLI::App& app, Invocation& invocation);
void add_import(CLI::App& app, Invocation& invocation);
void add_doctor(CLI::App& app, Invocation& invocation);
void add_version(CLI::App& app, Invocation& invocation);
void add_completion(CLI::App& app, Invocation& invocation);

/// Prints to stderr; returns kFailed.
int fail(const Error& error);
int fail(const std::string& message);
/// The same for what is wrong with the command line; returns kWrongUsage.
int refuse(const std::string& message);

/// A subcommand `name` of `parent` whose options end up in a T that the action receives. The action throws
/// nothing; Error of a Result goes through fail().
template <class T>
CLI::App* add_action(CLI::App& parent, Invocation& invocation, const char* name, const char* help,
                     std::function<int(const T&)> action, std::function<void(CLI::App&, T&)> options) {
  auto values = std::make_shared<T>();
  auto* command = parent.add_subcommand(name, help);
  if (options) options(*command, *values);
  command->callback(
      [&invocation, values, action] { invocation.action = [values, action] { return action(*values); }; });
  return command;
}

/// For commands that manage what is stored: the API that the command line names. Null: the reason has been
/// printed and `exit_code` set.
std::unique_ptr<Api> open_api(const Invocation& invocation, int& exit_code);

/// The same with an action that works on that API.
template <class T>
CLI::App* add_api_action(CLI::App& parent, Invocation& invocation, const char* name, const char* help,
                         int (*action)(const Invocation&, Api&, const T&),
                         std::function<void(CLI::App&, T&)> options) {
  return add_action<T>(
      parent, invocation, name, help,
      [&invocation, action](const T& values) {
        int exit_code = kDone;
        const auto api = open_api(invocation, exit_code);
        return api ? action(invocation, *api, values) : exit_code;
      },
      std::move(options));
}

/// For commands about this machine's configuration and files: kWrongUsage when --server was given.
int local_only(const Invocation& invocation, const char* command);

/// The configuration; prints what is wrong with it. No value: leave with kWrongUsage.
std::optional<Config> read_config(const Invocation& invocation);

/// What start-up had to make.
struct Opened {
  Config config;  ///< with its secrets filled in
  Database database;
  bool made_data_dir = false, made_secrets = false, made_database = false;
};
/// Data directory, secrets, database. Waits for a storage that is away, up to storage.connect_timeout.
Result<Opened> open_database(Config config);
/// Fills in the secrets that nobody configured, from <data_dir>/secrets.json. `made` (may be null) tells
/// whether they were made now, which happens only when `may_create`.
Status fill_secrets(Config& config, bool may_create, bool* made);
/// For a gateway that runs on: the secrets of `config` as they are in force now.
std::optional<GatewayKeys> current_keys(const Config& config);

/// A choice among words, known to shell completion too.
CLI::Option* add_choice(CLI::App& app, const std::string& name, std::string& value,
                        std::vector<std::string> words, const std::string& help);
/// The same for an option that may be repeated, one word each time.
CLI::Option* add_choices(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                         std::vector<std::string> words, const std::string& help);
/// An option that names a file, as shell completion knows.
CLI::Option* add_file(CLI::App& app, const std::string& name, std::string& value, const std::string& help);
bool is_file(const CLI::Option& option);
/// The words of an option made by add_choice; empty for others.
const std::vector<std::string>& choices_of(const CLI::Option& option);

}  // namespace mcpgw::app
