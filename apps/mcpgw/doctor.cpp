// mcpgw doctor: looks for what makes a gateway fail or unsafe; each line is "ok" or says what to do.
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "cli.hpp"
#include "secrets_file.hpp"

namespace mcpgw::app {

namespace {

constexpr std::uint64_t kLowDisk = 100 * 1024 * 1024;
constexpr std::size_t kTestsAtOnce = 8;

struct Arguments {
  bool skip_targets = false;
};

class Findings {
 public:
  void ok(const char* check, const std::string& what) { add(check, "ok", what); }
  void warn(const char* check, const std::string& what) { add(check, "warning", what); }
  void problem(const char* check, const std::string& what) {
    add(check, "problem", what);
    exit_code_ = kFailed;
  }
  int print(bool json) const {
    if (json) {
      print_json(all_);
      return exit_code_;
    }
    for (const auto& one : all_) {
      auto result = cell(one, "result");
      result.resize(8, ' ');
      print_line(result + " " + cell(one, "text"));
    }
    return exit_code_;
  }

 private:
  void add(const char* check, const char* result, const std::string& text) {
    all_.push_back({{"check", check}, {"result", result}, {"text", text}});
  }
  Json all_ = Json::array();
  int exit_code_ = kDone;
};

bool contains(const std::vector<std::string>& all, const char* one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

bool is_loopback(const std::string& host) {
  return host.compare(0, 5, "unix:") == 0 || host == "localhost" || host == "::1" || host == "[::1]" ||
         host.compare(0, 4, "127.") == 0;
}

void check_exposure(const Config& config, Findings& findings) {
  const auto& host = config.http.host;
  const bool loopback = is_loopback(host);
  if (host.compare(0, 5, "unix:") == 0)
    findings.ok("listen", "listens on a socket file");
  else if (loopback)
    findings.ok("listen", "listens on this machine only");
  else if (!config.http.tls.cert.empty())
    findings.ok("listen", "listens on " + host + " with TLS");
  else
    findings.warn("listen",
                  "listens on " + host +
                      " without TLS: set server.tls, or put a TLS proxy in front and listen on 127.0.0.1");
  if (!config.gateway.registration_open)
    findings.ok("registration", "registration is closed");
  else if (loopback)
    findings.ok("registration", "registration is open, on this machine");
  else
    findings.warn("registration",
                  "registration is open to everyone who reaches the port: set auth.registration: closed");
  if (contains(config.gateway.cors.allowed_origins, "*"))
    findings.warn("cors", "cors.allowed_origins allows every web page: name the origins");
  else if (contains(config.gateway.mcp_allowed_origins, "*"))
    findings.warn("cors", "mcp.allowed_origins allows every web page: name the origins");
  else
    findings.ok("cors", "CORS names its origins");
  if (!config.gateway.metrics_enabled || !config.gateway.metrics_token.empty() || loopback)
    findings.ok("metrics", "metrics are not public");
  else
    findings.warn("metrics", "/metrics is readable by everyone who reaches the port: set metrics.token");
  if (config.gateway.upstream.allow_metadata)
    findings.warn("metadata", "upstream.allow_metadata lets targets be cloud metadata services: turn it off");
}

/// `path` exists and nobody but its owner, who is us, can read it.
void check_mode(const std::string& path, const char* mode, Findings& findings) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return;
  if (info.st_uid != ::geteuid())
    findings.problem("files", path + " belongs to another user: give it to the user that runs mcpgw");
  else if (info.st_mode & 077)
    findings.problem("files", path + " is open to others: run chmod " + mode + " " + path);
  else
    findings.ok("files", path + " is its owner's alone");
}

/// A TLS key may belong to whoever renews it; nobody else may read it.
void check_key_file(const std::string& path, Findings& findings) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || ::access(path.c_str(), R_OK) != 0)
    findings.problem("files", path + " cannot be read: server.tls.key must name the key of server.tls.cert");
  else if (info.st_mode & 07)
    findings.problem("files", path + " is open to everybody: run chmod o-rwx " + path);
  else
    findings.ok("files", path + " is not open to everybody");
}

void check_files(const Invocation& invocation, const Config& config, Findings& findings) {
  const bool in_file = config.database.kind == DatabaseConfig::Kind::sqlite;
  if (in_file || config.needs_jwt_secret() || config.needs_encryption_key())
    check_mode(config.data_dir, "700", findings);
  if (config.needs_jwt_secret() || config.needs_encryption_key())
    check_mode(config.data_dir + "/secrets.json", "600", findings);
  if (in_file)
    for (const char* suffix : {"", "-wal", "-shm"})
      check_mode(config.database.path + suffix, "600", findings);
  if (!config.http.tls.key.empty()) check_key_file(config.http.tls.key, findings);
  // The configuration is a secret when it holds one.
  if (config.needs_jwt_secret() && config.needs_encryption_key() && config.gateway.metrics_token.empty() &&
      config.gateway.setup_token.empty())
    return;
  const auto file = invocation.config_file.empty() ? "./mcpgw.yaml" : invocation.config_file;
  struct stat info {};
  if (::stat(file.c_str(), &info) == 0 && (info.st_mode & 077))
    findings.warn("files", "secrets are configured, and " + file +
                               " is open to others: if they stand in it, run chmod 600 " + file);
}

void check_disk(const Config& config, Findings& findings) {
  struct statvfs info {};
  const auto slash = config.database.path.rfind('/');
  const auto directory = slash == std::string::npos ? "." : config.database.path.substr(0, slash + 1);
  if (::statvfs(directory.c_str(), &info) != 0) return;
  const auto left = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
  if (left < kLowDisk)
    findings.problem("disk", "the disk of the database has " + std::to_string(left / 1024 / 1024) +
                                 " MiB left: make room, or shorten audit.retention");
  else
    findings.ok("disk", "the disk of the database has room");
}

/// What stands in the records, read with the keys that are in force.
void check_stored(const Opened& opened, const Config& unfilled, Findings& findings) {
  RepositoryOptions options;
  options.storage = opened.database.storage;
  options.keys = opened.config.gateway.encryption;
  auto repository = Repository::open(std::move(options));
  if (!repository) return findings.problem("storage", repository.error().message);
  findings.ok("storage", "storage opens and has a schema that this program knows");
  const auto values = (*repository)->sealed_values();
  if (!values) return findings.problem("keys", values.error().message);
  const auto damaged = (*repository)->damaged_records();
  if (values->unreadable > 0)
    findings.problem("keys", std::to_string(values->unreadable) +
                                 " stored values cannot be decrypted: set the missing key in "
                                 "encryption.previous_keys, or write them anew");
  else
    findings.ok("keys", "every stored value can be decrypted");
  if (damaged > 0)
    findings.problem("storage", std::to_string(damaged) + " stored rows cannot be read: restore a backup");
  bool pending = false;
  if (unfilled.needs_encryption_key())
    if (const auto secrets = load_secrets(unfilled.data_dir, *make_system_random(), false))
      pending = secrets->reseal_pending;
  std::uint64_t old = 0;
  for (const auto& [key, count] : values->by_key)
    if (key != values->current_key) old += count;
  if (pending || old > values->unreadable)
    findings.warn("keys",
                  std::to_string(old) +
                      " stored values are still sealed with an old key: run mcpgw keys rotate encryption to "
                      "finish");
  const auto users = (*repository)->users();
  if (users.empty())
    findings.warn(
        "users",
        "no user yet: the first one to register becomes the administrator; or run mcpgw user add --admin");
  else if (std::none_of(users.begin(), users.end(),
                        [](const auto& user) { return user->enabled && user->role == "admin"; }))
    findings.problem("users", "no administrator is enabled: run mcpgw user enable or mcpgw user add --admin");
  else
    findings.ok("users", "there is an administrator");
  bool policies_good = true;
  for (const auto& policy : (*repository)->policies()) {
    if (policy->damaged) {
      findings.problem("policies",
                       "policy " + policy->name + " cannot be evaluated and denies: write it anew");
      policies_good = false;
    }
    const bool everyone =
        std::any_of(policy->subjects.begin(), policy->subjects.end(),
                    [](const Subject& subject) { return subject.type == SubjectType::everyone; });
    if (policy->enabled && everyone && policy->effect == Effect::allow && policy->target_id.empty() &&
        policy->resource_pattern.empty() && unfilled.gateway.registration_open) {
      findings.warn("policies",
                    "policy " + policy->name +
                        " allows everyone everything, and registration is open: disable one of them");
      policies_good = false;
    }
  }
  if (policies_good) findings.ok("policies", "policies can be evaluated");
}

/// All enabled targets, a few at a time: one that hangs costs its own time limit.
void check_targets(Opened opened, Findings& findings) {
  auto backend = make_local_backend(std::move(opened));
  if (!backend) return findings.problem("targets", backend.error().message);
  Api api(std::move(*backend));
  const auto targets = api.list("/api/targets");
  if (!targets) return findings.problem("targets", targets.error().message);
  std::vector<Json> enabled;
  for (const auto& target : *targets)
    if (cell(target, "enabled") == "yes") enabled.push_back(target);
  std::vector<Result<Json>> results(enabled.size(), Json(nullptr));
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < enabled.size();)
      results[i] = api.call("POST", "/api/targets/" + cell(enabled[i], "id") + "/test", Json::object());
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < std::min(kTestsAtOnce, enabled.size()); ++i) threads.emplace_back(work);
  work();
  for (auto& thread : threads) thread.join();
  for (std::size_t i = 0; i < enabled.size(); ++i) {
    const auto name = cell(enabled[i], "name");
    if (!results[i]) {
      findings.problem("targets", "target " + name + " cannot be tested: " + results[i].error().message);
    } else if (cell(*results[i], "ok") == "yes") {
      findings.ok("targets", "target " + name + " answers");
    } else {
      std::string why = "it does not answer";
      for (const auto& step : results[i]->value("steps", Json::array()))
        if (cell(step, "ok") != "yes") why = cell(step, "name") + ": " + cell(step, "detail");
      findings.problem("targets",
                       "target " + name + " does not work (" + why +
                           "): correct it with mcpgw target set, or disable it with --enabled false");
    }
  }
}

int doctor(const Invocation& invocation, const Arguments& arguments) {
  if (const int code = local_only(invocation, "mcpgw doctor"); code != kDone) return code;
  Findings findings;
  const auto loaded = load_config(invocation.config_file, invocation.overrides);
  for (const auto& error : loaded.errors) findings.problem("config", error);
  for (const auto& warning : loaded.warnings) findings.warn("config", warning);
  if (!loaded.errors.empty()) {
    findings.print(invocation.json);
    return kWrongUsage;
  }
  findings.ok("config", "configuration");
  check_exposure(loaded.config, findings);
  if (!database_exists(loaded.config.database)) {
    findings.ok("storage", "no database yet: mcpgw serve makes it at its first start");
    return findings.print(invocation.json);
  }
  check_files(invocation, loaded.config, findings);
  if (loaded.config.database.kind == DatabaseConfig::Kind::sqlite) check_disk(loaded.config, findings);
  auto opened = open_database(loaded.config);
  if (!opened) {
    findings.problem("storage", opened.error().message);
    return findings.print(invocation.json);
  }
  check_stored(*opened, loaded.config, findings);
  if (!arguments.skip_targets) check_targets(std::move(*opened), findings);
  return findings.print(invocation.json);
}

}  // namespace

void add_doctor(CLI::App& app, Invocation& invocation) {
  add_action<Arguments>(
      app, invocation, "doctor", "Checks configuration, storage, keys, exposure and targets",
      [&invocation](const Arguments& arguments) { return doctor(invocation, arguments); },
      [](CLI::App& c, Arguments& a) {
        c.add_flag("--skip-targets", a.skip_targets,
                   "Does not connect to targets, nor start their processes");
      });
}

}  // namespace mcpgw::app
