// mcpgw doctor: looks for what makes a gateway fail or unsafe; each line is "ok" or says what to do.
#include <sys/stat.h>

#include "cli.hpp"
#include "secrets_file.hpp"

namespace mcpgw::app {

namespace {

class Findings {
 public:
  void ok(const std::string& what) { add("ok", what); }
  void warn(const std::string& what) { add("warning", what); }
  void problem(const std::string& what) {
    add("problem", what);
    exit_code_ = kFailed;
  }
  int print(bool json) const {
    for (const auto& one : all_)
      if (!json)
        std::printf("%-8s %s\n", one["result"].get<std::string>().c_str(),
                    one["text"].get<std::string>().c_str());
    if (json) print_json(all_);
    return exit_code_;
  }

 private:
  void add(const char* result, const std::string& text) {
    all_.push_back({{"result", result}, {"text", text}});
  }
  Json all_ = Json::array();
  int exit_code_ = kDone;
};

bool contains(const std::vector<std::string>& all, const char* one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

void check_exposure(const Config& config, Findings& findings) {
  const auto& host = config.http.host;
  const bool loopback = host == "127.0.0.1" || host == "::1" || host == "localhost";
  if (loopback)
    findings.ok("listens on this machine only");
  else
    findings.warn("listens on " + host + " without TLS: put a TLS proxy in front and set server.public_url");
  if (!config.gateway.registration_open)
    findings.ok("registration is closed");
  else if (loopback)
    findings.ok("registration is open, on this machine");
  else
    findings.warn("registration is open to everyone who reaches the port: set auth.registration: closed");
  if (contains(config.gateway.cors.allowed_origins, "*"))
    findings.warn("cors.allowed_origins allows every web page: name the origins");
  else
    findings.ok("CORS names its origins");
  if (!config.gateway.metrics_enabled || !config.gateway.metrics_token.empty() || loopback)
    findings.ok("metrics are not public");
  else
    findings.warn("/metrics is readable by everyone who reaches the port: set metrics.token");
  if (config.gateway.upstream.allow_metadata)
    findings.warn("upstream.allow_metadata lets targets be cloud metadata services: turn it off");
}

void check_file(const std::string& path, Findings& findings) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return;
  if (info.st_mode & 077)
    findings.problem(path + " is readable by others: run chmod 600 " + path);
  else
    findings.ok(path + " is readable by its owner alone");
}

int doctor(const Invocation& invocation) {
  Findings findings;
  const auto loaded = load_config(invocation.config_file, invocation.overrides);
  for (const auto& error : loaded.errors) findings.problem(error);
  for (const auto& warning : loaded.warnings) findings.warn(warning);
  if (!loaded.errors.empty()) {
    findings.print(invocation.json);
    return kWrongUsage;
  }
  findings.ok("configuration");
  check_exposure(loaded.config, findings);
  struct stat info {};
  if (::stat(loaded.config.database.path.c_str(), &info) != 0) {
    findings.ok("no database yet: mcpgw serve makes it at its first start");
    return findings.print(invocation.json);
  }
  check_file(loaded.config.database.path, findings);
  int exit_code = kDone;
  const auto store = open_store(invocation, exit_code);
  if (!store) {
    findings.problem("storage or keys cannot be opened: see above");
    return findings.print(invocation.json);
  }
  findings.ok("storage and keys");
  if (store->repository->damaged_records() > 0)
    findings.problem(std::to_string(store->repository->damaged_records()) +
                     " stored rows cannot be read or decrypted: restore a backup, or set the missing key in "
                     "encryption.previous_keys");
  if (!store->repository->has_users())
    findings.warn("no user yet: the first one to register becomes the administrator");
  for (const auto& policy : store->repository->policies())
    if (policy->damaged)
      findings.problem("policy " + policy->name + " cannot be evaluated and denies: write it anew");
  return findings.print(invocation.json);
}

}  // namespace

void add_doctor(CLI::App& app, Invocation& invocation) {
  auto* command = app.add_subcommand("doctor", "Checks configuration, storage, keys and exposure");
  command->callback([&invocation] { invocation.action = [&invocation] { return doctor(invocation); }; });
}

}  // namespace mcpgw::app
