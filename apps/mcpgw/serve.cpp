// mcpgw serve: storage, gateway and HTTP server, from the first start to an orderly end.
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "cli.hpp"
#include "console_ui.hpp"
#include "docs_ui.hpp"
#include "log.hpp"
#include "mcpgw/gateway.hpp"
#include "mcpgw/server.hpp"
#include "mcpgw/version.hpp"

namespace mcpgw::app {

namespace {

/// Signals as descriptors. Made before any thread is started, so that all threads have them blocked.
class Signals {
 public:
  Signals() {
    ::signal(SIGPIPE, SIG_IGN);
    ::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is a failed write, no end
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signals_ = ::signalfd(-1, &set, SFD_CLOEXEC);
    wake_ = ::eventfd(0, EFD_CLOEXEC);
    if (signals_ < 0 || wake_ < 0) std::abort();
  }
  ~Signals() {
    ::close(signals_);
    ::close(wake_);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  /// The next signal, or 0 after wake().
  int next() {
    for (;;) {
      pollfd descriptors[] = {{signals_, POLLIN, 0}, {wake_, POLLIN, 0}};
      if (::poll(descriptors, 2, -1) < 0) continue;
      if (descriptors[1].revents) return 0;
      signalfd_siginfo info{};
      if (descriptors[0].revents && ::read(signals_, &info, sizeof info) == sizeof info)
        return static_cast<int>(info.ssi_signo);
    }
  }
  void wake() {
    const std::uint64_t one = 1;
    while (::write(wake_, &one, sizeof one) < 0 && errno == EINTR) {
    }
  }

 private:
  int signals_ = -1, wake_ = -1;
};

void reload(const Invocation& invocation, HttpServer& server, bool with_tls, Log& log) {
  if (with_tls) {
    const auto status = server.reload_tls();
    if (status)
      log.info("certificates read again");
    else
      log.error("certificates not read again: " + status.error().message);
  }
  const auto loaded = load_config(invocation.config_file, invocation.overrides);
  if (!loaded.errors.empty()) {
    for (const auto& error : loaded.errors) log.error("configuration not reloaded: " + error);
    return;
  }
  log.set_levels(loaded.config.log);
  log.info("log level read again");
}

/// What a person who starts it for the first time needs to know.
void report_start(Log& log, const Opened& opened, const Gateway& gateway, const HttpServer& server) {
  const auto& config = opened.config;
  if (opened.made_data_dir) log.info("data directory created", {{"path", config.data_dir}});
  if (opened.made_secrets)
    log.info("signing and encryption keys created", {{"path", config.data_dir + "/secrets.json"}});
  if (opened.made_database) log.info("database created", {{"path", database_text(config.database)}});
  if (!server.loopback_only() && config.http.tls.cert.empty())
    log.write({LogLevel::warn,
               "server",
               "listening on a public address without TLS: set server.tls, or put a TLS proxy in front",
               {}});
  log.info("listening", {{"url", server.url()},
                         {"port", std::to_string(server.port())},
                         {"mcp", server.url() + "/mcp"},
                         {"version", version()},
                         {"pid", std::to_string(::getpid())}});
  if (!gateway.repository()->has_users())
    log.info("no user yet: the first one to register becomes the administrator",
             {{"next", "curl " + server.url() +
                           "/api/auth/register -H 'Content-Type: application/json' -d "
                           "'{\"email\":\"you@example.com\",\"password\":\"...\"}'"}});
}

/// Where the other replicas reach this one; null when they are not to know one another.
Result<std::shared_ptr<HttpServer>> open_to_replicas(const Config& config, Gateway& gateway, LogSink log) {
  if (config.replicas.host.empty()) return std::shared_ptr<HttpServer>();
  HttpServerOptions options;
  options.host = config.replicas.host;
  options.port = config.replicas.port;
  options.max_connections = config.http.max_connections;
  options.max_body =
      2 * config.gateway.limits.mcp_body + 1024 * 1024;  // it is sealed, and so are its headers
  options.max_write_buffer = 2 * config.gateway.limits.upstream_bytes;
  options.log = std::move(log);
  auto server = HttpServer::start(gateway.replica_handler(), gateway.runtime(), std::move(options));
  if (!server) return server;
  const auto joined =
      gateway.join_replicas(config.replicas.url.empty() ? (*server)->url() : config.replicas.url);
  if (!joined) return joined.error();
  return server;
}

int serve(const Invocation& invocation) {
  if (const int code = local_only(invocation, "mcpgw serve"); code != kDone) return code;
  ::umask(077);  // whatever is created here is for this user alone
  auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  auto sockets = HttpServer::inherited_sockets();
  if (!sockets) return fail(sockets.error());
  Signals signals;
  const auto log = std::make_shared<Log>(config->log);
  auto opened = open_database(std::move(*config));
  if (!opened) return fail(opened.error());

  auto options = opened->config.gateway;
  options.storage = opened->database.storage;
  options.audit_sink = opened->database.audit;
  options.runtime = Runtime::create(opened->config.runtime);
  options.log = [log](const LogEvent& event) { log->write(event); };
  options.log_keeps = [log](LogLevel level, std::string_view module) { return log->keeps(level, module); };
  options.docs_script = docs_ui().script;
  options.docs_script_gzip = docs_ui().script_gzip;
  if (opened->config.console_enabled) options.web_files = console_ui();
  // After mcpgw keys rotate: those in secrets.json, or what the configuration says by now.
  options.reload_keys = [invocation]() -> std::optional<GatewayKeys> {
    const auto loaded = load_config(invocation.config_file, invocation.overrides);
    if (!loaded.errors.empty()) return std::nullopt;
    return current_keys(loaded.config);
  };
  auto gateway = Gateway::create(std::move(options));
  if (!gateway) return fail(gateway.error());
  const LogSink sink = [log](const LogEvent& event) { log->write(event); };
  auto replicas = open_to_replicas(opened->config, **gateway, sink);
  if (!replicas) return fail(replicas.error());
  auto http = opened->config.http;
  http.sockets = std::move(*sockets);
  const bool with_tls = !http.tls.cert.empty();
  http.log = sink;
  auto server = HttpServer::start(*gateway, std::move(http));
  if (!server) return fail(server.error());
  report_start(*log, *opened, **gateway, **server);

  int signal;
  while ((signal = signals.next()) == SIGHUP) reload(invocation, **server, with_tls, *log);

  const auto grace = opened->config.shutdown_grace;
  log->info("stopping: running requests may end; a second signal stops at once",
            {{"grace_ms", std::to_string(grace.count())}});
  std::thread drain([&] {
    // First whom nobody has told to go elsewhere: connections whose request is on its way.
    (*server)->drain(std::min<std::chrono::milliseconds>(grace, std::chrono::seconds(1)));
    (*gateway)->close(grace);
    (*server)->stop();
    if (*replicas) (*replicas)->stop();
    signals.wake();
  });
  while ((signal = signals.next()) != 0) {
    if (signal == SIGHUP) continue;
    log->error("stopped at once by a second signal");
    log->flush();
    std::_Exit(kFailed);  // child processes notice that their parent is gone
  }
  drain.join();
  log->info("stopped");
  log->flush();
  return kDone;
}

}  // namespace

void add_serve(CLI::App& app, Invocation& invocation) {
  auto* command = app.add_subcommand("serve", "Runs the gateway");
  const auto option = [&](const char* name, const char* key, const char* help) {
    command->add_option_function<std::string>(
        name,
        [&invocation, key, name](const std::string& value) {
          invocation.overrides.push_back({key, value, name});
        },
        help);
  };
  option("--host", "server.host", "Address to listen on");
  option("--port", "server.port", "Port; 0: chosen by the system");
  option("--database", "database.url", "sqlite://<path> or postgres://user@host:port/name");
  command->callback([&invocation] { invocation.action = [&invocation] { return serve(invocation); }; });
}

}  // namespace mcpgw::app
