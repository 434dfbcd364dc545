// What the commands have in common: options, the configured storage, output, exit codes.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config.hpp"
#include "mcpgw/authenticator.hpp"
#include "mcpgw/sqlite.hpp"

namespace mcpgw::app {

using Json = nlohmann::ordered_json;

constexpr int kDone = 0, kFailed = 1, kWrongUsage = 2;

/// The command line as it was understood.
struct Invocation {
  std::string config_file;
  bool json = false;
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
void add_doctor(CLI::App& app, Invocation& invocation);
void add_version(CLI::App& app, Invocation& invocation);

/// A subcommand `name` of `parent` whose options end up in a T that the action receives.
template <class T>
CLI::App* add_action(CLI::App& parent, Invocation& invocation, const char* name, const char* help,
                     std::function<int(const T&)> action, std::function<void(CLI::App&, T&)> options) {
  auto values = std::make_shared<T>();
  auto* command = parent.add_subcommand(name, help);
  options(*command, *values);
  command->callback(
      [&invocation, values, action] { invocation.action = [values, action] { return action(*values); }; });
  return command;
}

/// Prints to stderr; returns kFailed.
int fail(const Error& error);
int fail(const std::string& message);

/// The configuration; prints what is wrong with it. No value: leave with kWrongUsage.
std::optional<Config> read_config(const Invocation& invocation);

/// What start-up had to make.
struct Opened {
  Config config;  ///< with its secrets filled in
  SqliteStorage database;
  bool made_data_dir = false, made_secrets = false, made_database = false;
};
/// Data directory, secrets, database. Waits for a storage that is away, up to storage.connect_timeout.
Result<Opened> open_database(Config config);

/// The same as the gateway uses, for the commands that manage what is stored.
struct Store {
  std::shared_ptr<Repository> repository;
  std::shared_ptr<Authenticator> authenticator;
};
/// No value: the reason has been printed and `exit_code` set.
std::optional<Store> open_store(const Invocation& invocation, int& exit_code);

/// A secret from stdin: its first line, or a prompt without echo when stdin is a terminal.
Result<std::string> read_secret(const std::string& prompt);

/// Rows of equal length under a header.
void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows);
void print_json(const Json& value);
std::string time_text(Time time);  ///< RFC 3339, UTC
std::string join(const std::vector<std::string>& parts, const char* separator = ", ");

}  // namespace mcpgw::app
