#include "cli.hpp"

#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <thread>

#include "secrets_file.hpp"

namespace mcpgw::app {

namespace {

constexpr std::size_t kMaxSecret = 16384;

bool has_content(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && info.st_size > 0;
}

/// Puts the terminal back as it was.
class NoEcho {
 public:
  NoEcho() : active_(::tcgetattr(STDIN_FILENO, &before_) == 0) {
    auto silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    if (active_) ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
  }
  ~NoEcho() {
    if (active_) ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_);
  }
  NoEcho(const NoEcho&) = delete;
  NoEcho& operator=(const NoEcho&) = delete;

 private:
  termios before_{};
  bool active_;
};

}  // namespace

int run(int argc, char** argv, const std::vector<AddCommand>& commands) {
  CLI::App app{"mcpgw: one MCP endpoint in front of many servers, with users, policies and credentials"};
  app.require_subcommand(1);
  app.fallthrough();  // -c and --json may stand after the command
  Invocation invocation;
  app.add_option("-c,--config", invocation.config_file,
                 "YAML configuration; default: ./mcpgw.yaml when it exists");
  app.add_flag("--json", invocation.json, "Output for programs");
  for (const auto& add : commands) add(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kWrongUsage;
  }
  return invocation.action();
}

int fail(const std::string& message) {
  std::fprintf(stderr, "mcpgw: %s\n", message.c_str());
  return kFailed;
}

int fail(const Error& error) { return fail(error.message.empty() ? error.reason : error.message); }

std::optional<Config> read_config(const Invocation& invocation) {
  auto loaded = load_config(invocation.config_file, invocation.overrides);
  for (const auto& warning : loaded.warnings) std::fprintf(stderr, "mcpgw: warning: %s\n", warning.c_str());
  for (const auto& error : loaded.errors) std::fprintf(stderr, "mcpgw: %s\n", error.c_str());
  if (!loaded.errors.empty()) return std::nullopt;
  return std::move(loaded.config);
}

Result<Opened> open_database(Config config) {
  Opened out;
  const auto& path = config.database.path;
  const bool database_exists = has_content(path);
  out.made_database = !database_exists;
  const bool in_data_dir = path.compare(0, config.data_dir.size() + 1, config.data_dir + "/") == 0;
  const bool wants_secrets = config.needs_jwt_secret() || config.needs_encryption_key();
  if (in_data_dir || wants_secrets)
    if (auto status = prepare_data_dir(config.data_dir, &out.made_data_dir); !status) return status.error();
  if (wants_secrets) {
    // A new key beside an old database would make everything sealed in it unreadable.
    auto secrets = load_secrets(config.data_dir, *make_system_random(), !database_exists);
    if (!secrets) return secrets.error();
    out.made_secrets = secrets->created;
    if (config.needs_jwt_secret()) config.gateway.jwt_secret = secrets->jwt_secret;
    if (config.needs_encryption_key()) config.gateway.encryption.current = secrets->encryption_key;
  }
  SqliteOptions options;
  options.path = path;
  const auto deadline = std::chrono::steady_clock::now() + config.storage_connect_timeout;
  for (;;) {
    auto opened = open_sqlite(options);
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

std::optional<Store> open_store(const Invocation& invocation, int& exit_code) {
  auto config = read_config(invocation);
  if (!config) {
    exit_code = kWrongUsage;
    return std::nullopt;
  }
  auto opened = open_database(std::move(*config));
  if (!opened) {
    exit_code = fail(opened.error());
    return std::nullopt;
  }
  const auto& from = opened->config.gateway;
  RepositoryOptions options;
  options.storage = opened->database.storage;
  options.keys = from.encryption;
  options.stdio_allowed_commands = from.stdio.allowed_commands;
  options.stdio_enabled = from.stdio.enabled;
  options.max_tokens_per_user = from.max_tokens_per_user;
  options.max_timeout_ms = from.upstream.max_timeout.count();
  auto repository = Repository::open(std::move(options));
  if (!repository) {
    exit_code = fail(repository.error());
    return std::nullopt;
  }
  AuthenticatorOptions auth;
  auth.repository = *repository;
  auth.jwt_secret = from.jwt_secret;
  auth.previous_jwt_secrets = from.previous_jwt_secrets;
  auth.issuer = from.jwt_issuer;
  auth.audience = from.jwt_audience;
  auth.password_min = from.password_min;
  auto authenticator = Authenticator::create(std::move(auth));
  if (!authenticator) {
    exit_code = fail(authenticator.error());
    return std::nullopt;
  }
  return Store{std::move(*repository), std::move(*authenticator)};
}

Result<std::string> read_secret(const std::string& prompt) {
  std::string line;
  if (::isatty(STDIN_FILENO)) {
    std::fprintf(stderr, "%s: ", prompt.c_str());
    const NoEcho quiet;
    std::getline(std::cin, line);
    std::fputc('\n', stderr);
  } else {
    std::getline(std::cin, line);
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  if (line.empty())
    return Error{ErrorCode::invalid_argument, "missing_secret", prompt + " is expected on standard input"};
  if (line.size() > kMaxSecret)
    return Error{ErrorCode::invalid_argument, "too_long", prompt + " is too long"};
  return line;
}

void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> width(header.size(), 0);
  const auto measure = [&](const std::vector<std::string>& row) {
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  };
  measure(header);
  for (const auto& row : rows) measure(row);
  const auto print = [&](const std::vector<std::string>& row) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(width[i] - row[i].size() + 2, ' ');
    }
    std::puts(line.c_str());
  };
  print(header);
  for (const auto& row : rows) print(row);
}

void print_json(const Json& value) {
  std::puts(value.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

std::string time_text(Time time) {
  const auto since = time.time_since_epoch();
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(since);
  const std::time_t seconds = whole.count();
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                static_cast<int>((since - whole).count()));
  return text;
}

std::string join(const std::vector<std::string>& parts, const char* separator) {
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : separator) + part;
  return out;
}

}  // namespace mcpgw::app
