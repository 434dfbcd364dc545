#include "config_keys.hpp"

#include <algorithm>
#include <charconv>
#include <type_traits>

#include "config_values.hpp"
#include "kubeconfig.hpp"

namespace mcpgw::app {

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr std::uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;
constexpr const char* kNotOffered = "is not offered by this version yet; leave it at its default";

/// Reads a value into `out`. Returns what is wrong with it; empty: good.
template <class T>
using Parser = std::function<std::string(const RawValue&, T& out)>;

Parser<std::string> text(bool (*valid)(std::string_view) = nullptr, const char* form = "") {
  return [=](const RawValue& value, std::string& out) -> std::string {
    if (value.text.size() > 4096 || value.text.find('\0') != std::string::npos)
      return "must be a text of at most 4096 bytes";
    if (valid && !valid(value.text)) return form;
    out = value.text;
    return {};
  };
}

Parser<bool> flag() {
  return [](const RawValue& value, bool& out) -> std::string {
    if (value.text != "true" && value.text != "false") return "must be true or false";
    out = value.text == "true";
    return {};
  };
}

Parser<std::int64_t> integer(std::int64_t min, std::int64_t max) {
  return [=](const RawValue& value, std::int64_t& out) -> std::string {
    const auto number = parse_integer(value.text);
    if (!number || *number < min || *number > max)
      return "must be an integer from " + std::to_string(min) + " to " + std::to_string(max);
    out = *number;
    return {};
  };
}

/// Permissions of a file, as chmod takes them.
Parser<std::int64_t> file_mode() {
  return [](const RawValue& value, std::int64_t& out) -> std::string {
    const std::string_view digits = value.text;
    if (digits.size() < 3 || digits.size() > 4 ||
        digits.find_first_not_of("01234567") != std::string_view::npos ||
        (digits.size() == 4 && digits.front() != '0'))
      return "must be permissions in octal digits, such as 0660";
    out = 0;
    for (const char digit : digits) out = out * 8 + (digit - '0');
    return {};
  };
}

std::string size_text(std::uint64_t size) {
  if (size >= kGiB && size % kGiB == 0) return std::to_string(size / kGiB) + "GiB";
  if (size >= kMiB && size % kMiB == 0) return std::to_string(size / kMiB) + "MiB";
  if (size >= kKiB && size % kKiB == 0) return std::to_string(size / kKiB) + "KiB";
  return std::to_string(size);
}

Parser<std::uint64_t> size(std::uint64_t min, std::uint64_t max) {
  return [=](const RawValue& value, std::uint64_t& out) -> std::string {
    const auto bytes = parse_size(value.text);
    if (!bytes || *bytes < min || *bytes > max)
      return "must be a size from " + size_text(min) + " to " + size_text(max) +
             ", in bytes or with KiB or MiB";
    out = *bytes;
    return {};
  };
}

std::string duration_text(milliseconds time) {
  const auto count = time.count();
  if (count != 0 && count % 3600000 == 0) return std::to_string(count / 3600000) + "h";
  if (count != 0 && count % 60000 == 0) return std::to_string(count / 60000) + "m";
  if (count % 1000 == 0) return std::to_string(count / 1000) + "s";
  return std::to_string(count) + "ms";
}

Parser<nanoseconds> duration(milliseconds min, milliseconds max) {
  return [=](const RawValue& value, nanoseconds& out) -> std::string {
    const auto time = parse_duration(value.text);
    if (!time || *time < min || *time > max)
      return "must be a duration from " + duration_text(min) + " to " + duration_text(max) +
             ", such as 90s or 1h30m";
    out = *time;
    return {};
  };
}

template <class T>
Parser<T> choice(std::vector<std::pair<std::string, T>> choices) {
  return [=](const RawValue& value, T& out) -> std::string {
    std::string all;
    for (const auto& [word, meaning] : choices) {
      if (value.text == word) {
        out = meaning;
        return {};
      }
      all += (all.empty() ? "" : ", ") + word;
    }
    return "must be one of: " + all;
  };
}

Parser<std::vector<std::string>> list(bool (*valid)(std::string_view), const char* form) {
  return [=](const RawValue& value, std::vector<std::string>& out) -> std::string {
    for (const auto& entry : value.list)
      if (!valid(entry)) return form;
    out = value.list;
    return {};
  };
}

// --- secrets: an empty value is a missing one --------------------------------------------------------------
std::string parse_secret(const std::string& value, std::string& out) {
  out = value;
  return value.empty() ? std::string() : secret_fault(value);
}

std::string parse_key(const std::string& value, std::string& out) {
  out.clear();
  if (value.empty()) return {};
  const auto fault = secret_fault(value);
  if (!fault.empty()) return fault;
  const auto bytes = decode_key(value);
  if (!bytes) return "must be exactly 32 bytes: as text, as 64 hex digits or in base64";
  out = *bytes;
  return {};
}

using SecretForm = std::string (*)(const std::string&, std::string&);
Parser<std::string> secret(SecretForm form) {
  return [=](const RawValue& value, std::string& out) { return form(value.text, out); };
}
Parser<std::vector<std::string>> secrets(SecretForm form) {
  return [=](const RawValue& value, std::vector<std::string>& out) -> std::string {
    out.clear();
    for (const auto& entry : value.list) {
      std::string one;
      const auto fault = entry.empty() ? std::string("is empty") : form(entry, one);
      if (!fault.empty()) return "entry " + std::to_string(out.size() + 1) + " " + fault;
      out.push_back(std::move(one));
    }
    return {};
  };
}

// --- forms of texts -----------------------------------------------------------------------------------
bool some_text(std::string_view text) { return !text.empty() && text.size() <= 4096; }

bool is_base_url(std::string_view text) {
  if (text.empty()) return true;
  const auto scheme = text.find("://");
  if (scheme == std::string_view::npos) return false;
  const auto name = text.substr(0, scheme), rest = text.substr(scheme + 3);
  return (name == "http" || name == "https") && !rest.empty() && rest[0] != '/' && rest[0] != ':' &&
         rest.find_first_of(" ?#@\t\r\n") == std::string_view::npos;
}

/// Of a replica: requests to it have a path of their own.
bool is_replica_url(std::string_view text) {
  const auto scheme = text.find("://");
  return text.empty() ||
         (is_base_url(text) &&
          text.find('/', scheme == std::string_view::npos ? 0 : scheme + 3) == std::string_view::npos);
}
bool is_collector(std::string_view text) { return !text.empty() && is_base_url(text); }

bool is_dns_label(std::string_view text) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !text.empty() && text.size() <= 63 && plain(text.front()) && plain(text.back()) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return plain(c) || c == '-'; });
}

bool is_service_url(std::string_view text) {
  return is_collector(text) && text.find("{service}") != std::string_view::npos;
}

bool is_header_name(std::string_view text) {
  if (text == "*") return true;
  static constexpr std::string_view kOthers = "!#$%&'+-.^_`|~";
  return !text.empty() && text.size() <= 128 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kOthers.find(c) != std::string_view::npos;
  });
}

bool is_variable_name(std::string_view text) {
  return !text.empty() && text.size() <= 128 && text.find_first_of("= \t\r\n") == std::string_view::npos;
}

// --- putting values where they belong -----------------------------------------------------------------
template <class Member, class T>
std::string store(Member& member, T value) {
  member = static_cast<Member>(std::move(value));
  return {};
}
template <class Rep, class Period>
std::string store(std::chrono::duration<Rep, Period>& member, nanoseconds value) {
  using Unit = std::chrono::duration<Rep, Period>;
  member = std::chrono::duration_cast<Unit>(value);
  if (member == value) return {};
  return "must be a multiple of " + duration_text(std::chrono::duration_cast<milliseconds>(Unit(1)));
}

class Table {
 public:
  /// A key whose value goes to the member that `at` names.
  template <class T, class At>
  void add(const char* name, Parser<T> parse, At at) {
    put(name, parse, [at](Config& config, T value) { return store(at(config), std::move(value)); });
  }
  /// A part of something that is off as a whole: the form is checked, the value has no effect.
  template <class T>
  void checked(const char* name, Parser<T> parse) {
    put(name, parse, [](Config&, T) { return std::string(); });
  }
  /// A setting is never silently ignored: any value but the one that describes what happens is refused.
  template <class T>
  void not_offered(const char* name, Parser<T> parse, T only) {
    put(name, parse,
        [only](Config&, T value) { return value == only ? std::string() : std::string(kNotOffered); });
  }

  std::vector<ConfigKey> take() { return std::move(keys_); }

 private:
  template <class T, class Store>
  void put(const char* name, Parser<T> parse, Store store_value) {
    ConfigKey key;
    key.name = name;
    key.is_list = std::is_same_v<T, std::vector<std::string>>;
    key.set = [parse, store_value](Config& config, const RawValue& raw) -> std::string {
      T value{};
      auto fault = parse(raw, value);
      return fault.empty() ? store_value(config, std::move(value)) : fault;
    };
    keys_.push_back(std::move(key));
  }

  std::vector<ConfigKey> keys_;
};

#define AT(member) \
  [](Config & c) -> auto& { return c.member; }

void add_server(Table& t) {
  t.add("server.host", text(some_text, "must not be empty"), AT(http.host));
  t.add("server.port", integer(0, 65535), AT(http.port));
  t.add("server.unix_mode", file_mode(), AT(http.unix_mode));
  t.add("server.reuse_port", flag(), AT(http.reuse_port));
  t.add("server.public_url",
        text(is_base_url, "must be an http or https URL without user, query and fragment"),
        AT(gateway.public_url));
  t.add("server.data_dir", text(some_text, "must not be empty"), AT(data_dir));
  t.add("server.tls.cert", text(), AT(http.tls.cert));
  t.add("server.tls.key", text(), AT(http.tls.key));
  t.add("server.tls.client_ca", text(), AT(http.tls.client_ca));
  t.add("server.trusted_proxies", list(is_network, "must hold addresses or networks such as 10.0.0.0/8"),
        AT(http.trusted_proxies));
  t.add("server.workers", integer(1, 256), AT(runtime.workers));
  t.add("server.max_in_flight", integer(1, 1000000), AT(gateway.limits.max_in_flight));
  t.add("server.max_connections", integer(1, 1000000), AT(http.max_connections));
  t.add("server.shutdown_grace", duration(milliseconds(0), hours(1)), AT(shutdown_grace));
}

void add_storage_and_secrets(Table& t) {
  const Parser<DatabaseConfig> database = [](const RawValue& value, DatabaseConfig& out) {
    auto parsed = parse_database_url(value.text);
    parsed.database.max_connections = out.max_connections;  // that one is no part of the URL
    out = std::move(parsed.database);
    return parsed.error;
  };
  t.add("database.url", database, AT(database));
  t.add("database.host", text(some_text, "must not be empty"), AT(database.host));
  t.add("database.port", integer(1, 65535), AT(database.port));
  t.add("database.user", text(), AT(database.user));
  t.add("database.password", text(), AT(database.password));
  t.add("database.database", text(some_text, "must not be empty"), AT(database.database));
  t.add("database.sslmode",
        choice<std::string>({{"disable", "disable"},
                             {"allow", "allow"},
                             {"prefer", "prefer"},
                             {"require", "require"},
                             {"verify-ca", "verify-ca"},
                             {"verify-full", "verify-full"}}),
        AT(database.sslmode));
  t.add("database.max_connections", integer(1, 1000), AT(database.max_connections));
  t.add("storage.connect_timeout", duration(milliseconds(0), hours(1)), AT(storage_connect_timeout));
  t.add("storage.grace", duration(milliseconds(0), hours(24)), AT(gateway.storage_grace));
  t.add("replicas.host", text(), AT(replicas.host));
  t.add("replicas.port", integer(0, 65535), AT(replicas.port));
  t.add("replicas.url", text(is_replica_url, "must be an http or https URL without a path"),
        AT(replicas.url));
  t.add("replicas.lease", duration(seconds(1), minutes(10)), AT(gateway.replicas.lease));
  t.add("replicas.silence", duration(milliseconds(500), minutes(10)), AT(gateway.replicas.silence));
  t.add("jwt.secret", secret(parse_secret), AT(gateway.jwt_secret));
  t.add("jwt.previous_secrets", secrets(parse_secret), AT(gateway.previous_jwt_secrets));
  t.add("jwt.issuer", text(some_text, "must not be empty"), AT(gateway.jwt_issuer));
  t.add("jwt.audience", text(some_text, "must not be empty"), AT(gateway.jwt_audience));
  t.add("encryption.key", secret(parse_key), AT(gateway.encryption.current));
  t.add("encryption.previous_keys", secrets(parse_key), AT(gateway.encryption.previous));
}

void add_auth(Table& t) {
  t.add("auth.registration", choice<bool>({{"open", true}, {"closed", false}}),
        AT(gateway.registration_open));
  t.add("auth.setup_token", text(), AT(gateway.setup_token));
  t.add("auth.login_ttl", duration(minutes(1), hours(24 * 366)), AT(gateway.login_ttl));
  t.add("auth.password_min", integer(6, 128), AT(gateway.password_min));
  t.add("auth.max_tokens_per_user", integer(1, 900), AT(gateway.max_tokens_per_user));
  t.add("auth.rate.login_per_pair", integer(1, 1000000), AT(gateway.login_failures_per_pair));
  t.add("auth.rate.login_per_address", integer(1, 1000000), AT(gateway.login_failures_per_address));
  t.add("auth.rate.login_per_account", integer(1, 1000000), AT(gateway.login_failures_per_account));
  t.add("auth.rate.window", duration(seconds(1), hours(24)), AT(gateway.rate_window));
  t.add("auth.rate.register_per_address", integer(1, 1000000), AT(gateway.registrations_per_address));
}

void add_mcp(Table& t) {
  const auto origins =
      list(is_origin_pattern, "must hold origins such as https://app.example.com, one \"*\" at most in each");
  const auto headers = list(is_header_name, "must hold header names");
  t.add("cors.allowed_origins", origins, AT(gateway.cors.allowed_origins));
  t.add("cors.allowed_headers", headers, AT(gateway.cors.allowed_headers));
  t.add("cors.expose_headers", headers, AT(gateway.cors.expose_headers));
  t.add("mcp.allowed_origins", origins, AT(gateway.mcp_allowed_origins));
  t.add("naming.always_prefix", flag(), AT(gateway.always_prefix));
  t.add("session.timeout", duration(seconds(1), hours(24 * 366)), AT(gateway.session.timeout));
  t.add("session.cleanup_interval", duration(seconds(1), hours(24)), AT(gateway.session.cleanup_interval));
  t.add("session.max_per_user", integer(1, 100000), AT(gateway.session.max_per_user));
  t.add("session.max_streams_per_user", integer(1, 100000), AT(gateway.session.max_streams_per_user));
  t.add("limits.api_body", size(kKiB, kGiB), AT(gateway.limits.api_body));
  t.add("limits.mcp_body", size(kKiB, kGiB), AT(gateway.limits.mcp_body));
  t.add("limits.upstream_bytes", size(kKiB, 2 * kGiB), AT(gateway.limits.upstream_bytes));
  t.add("limits.json_depth", integer(8, 1000), AT(gateway.limits.json_depth));
  t.add("limits.header_bytes", size(kKiB, kMiB), AT(http.max_header_bytes));
  t.add("limits.request_time", duration(milliseconds(100), hours(1)), AT(http.request_timeout));
  t.add("limits.api_timeout", duration(milliseconds(100), hours(1)), AT(gateway.limits.api_timeout));
  t.add("limits.list_max", integer(1, 1000000), AT(gateway.limits.list_max));
}

void add_kubernetes(Table& t) {
  const Parser<ReadKubernetesAccess> kubeconfig = [](const RawValue& value, ReadKubernetesAccess& out) {
    std::string path;
    auto fault = text()(value, path);
    if (!path.empty()) out = [path] { return read_kubeconfig(path); };
    return fault;
  };
  t.add("kubernetes.enabled", flag(), AT(gateway.kubernetes.enabled));
  t.add("kubernetes.namespace",
        text(is_dns_label, "must be a name of small letters, digits and -, at most 63 characters"),
        AT(gateway.kubernetes.name_space));
  t.add("kubernetes.kubeconfig", kubeconfig, AT(gateway.kubernetes.access));
  t.add("kubernetes.service_url", text(is_service_url, "must be an http or https URL that holds {service}"),
        AT(gateway.kubernetes.service_url));
  t.add("kubernetes.start_timeout", duration(seconds(1), hours(1)), AT(gateway.kubernetes.start_timeout));
  t.add("kubernetes.idle_ttl", duration(seconds(1), hours(24 * 366)), AT(gateway.kubernetes.idle_ttl));
  t.add("kubernetes.max_lifetime", duration(seconds(1), hours(24 * 366)),
        AT(gateway.kubernetes.max_lifetime));
  t.add("kubernetes.gc_interval", duration(seconds(1), hours(24)), AT(gateway.kubernetes.gc_interval));
  t.add("kubernetes.max_instances", integer(1, 100000), AT(gateway.kubernetes.max_instances));
  t.add("kubernetes.max_per_user", integer(1, 100000), AT(gateway.kubernetes.max_per_user));
}

void add_targets(Table& t) {
  const auto texts = list(some_text, "must hold non-empty texts");
  t.add("upstream.allow_private", flag(), AT(gateway.upstream.allow_private));
  t.add("upstream.allow_metadata", flag(), AT(gateway.upstream.allow_metadata));
  t.add("upstream.connect_timeout", duration(milliseconds(10), minutes(10)),
        AT(gateway.upstream.connect_timeout));
  t.add("upstream.list_timeout", duration(milliseconds(10), hours(1)), AT(gateway.upstream.list_timeout));
  t.add("upstream.max_timeout", duration(seconds(1), hours(24)), AT(gateway.upstream.max_timeout));
  t.add("upstream.drain", duration(milliseconds(0), hours(1)), AT(gateway.upstream.drain));
  t.add("upstream.proxy", text(), AT(gateway.upstream.proxy));
  t.add("upstream.no_proxy", texts, AT(gateway.upstream.no_proxy));
  t.add("upstream.proxy_resolves", flag(), AT(gateway.upstream.proxy_resolves));
  t.add("upstream.circuit.failures", integer(0, 1000), AT(gateway.upstream.circuit_failures));
  t.add("upstream.circuit.pause", duration(milliseconds(10), seconds(30)),
        AT(gateway.upstream.circuit_pause));
  t.add("upstream.ca", text(), AT(gateway.upstream.ca));
  t.add("stdio.enabled", flag(), AT(gateway.stdio.enabled));
  t.add("stdio.allowed_commands", texts, AT(gateway.stdio.allowed_commands));
  t.add("stdio.inherit_env", list(is_variable_name, "must hold names of environment variables"),
        AT(gateway.stdio.inherit_env));
  t.add("stdio.working_dir", text(), AT(gateway.stdio.working_dir));
  t.add("stdio.run_as", text(), AT(gateway.stdio.run_as));
  t.add("stdio.limits.memory", size(0, std::int64_t{1} << 50), AT(gateway.stdio.limits.memory));
  t.add("stdio.limits.cpu_time", duration(seconds(0), hours(24 * 366)), AT(gateway.stdio.limits.cpu_time));
  t.add("stdio.limits.open_files", integer(0, 1 << 20), AT(gateway.stdio.limits.open_files));
  t.add("stdio.limits.processes", integer(0, 1 << 22), AT(gateway.stdio.limits.processes));
  t.add("stdio.limits.file_size", size(0, std::int64_t{1} << 50), AT(gateway.stdio.limits.file_size));
  t.add("stdio.idle_ttl", duration(seconds(1), hours(24 * 366)), AT(gateway.stdio.idle_ttl));
  t.add("stdio.max_lifetime", duration(seconds(1), hours(24 * 366)), AT(gateway.stdio.max_lifetime));
  t.add("stdio.gc_interval", duration(seconds(1), hours(24)), AT(gateway.stdio.gc_interval));
  t.add("stdio.max_processes", integer(1, 100000), AT(gateway.stdio.max_processes));
  t.add("stdio.max_per_user", integer(1, 100000), AT(gateway.stdio.max_per_user));
  add_kubernetes(t);
}

void add_observability(Table& t) {
  t.add("audit.body",
        choice<AuditBody>(
            {{"none", AuditBody::none}, {"redacted", AuditBody::redacted}, {"full", AuditBody::full}}),
        AT(gateway.audit.body));
  t.add("audit.body_max", size(0, kMiB), AT(gateway.audit.body_max));
  t.add("audit.retention", duration(hours(1), hours(24 * 3660)), AT(gateway.audit.retention));
  t.add("audit.include_ping", flag(), AT(gateway.audit.include_ping));
  t.add("audit.sync", flag(), AT(gateway.audit.sync));
  t.add("audit.export", text(), AT(gateway.audit.export_to));
  t.add("audit.export_max_bytes", size(64 * 1024, 1024 * 1024 * kMiB), AT(gateway.audit.export_max_bytes));
  t.add("audit.export_keep", integer(0, 1000), AT(gateway.audit.export_keep));
  t.add("metrics.enabled", flag(), AT(gateway.metrics_enabled));
  t.add("metrics.token", text(), AT(gateway.metrics_token));
  t.add("metrics.reflow_names", flag(), AT(gateway.metrics_reflow_names));
  t.add("metrics.max_tools", integer(0, 100000), AT(gateway.metrics_max_tools));
  t.add("telemetry.enabled", flag(), AT(gateway.telemetry.enabled));
  t.add("telemetry.endpoint", text(is_collector, "must be an http or https URL"),
        AT(gateway.telemetry.endpoint));
  t.add("telemetry.service_name", text(some_text, "must not be empty"), AT(gateway.telemetry.service_name));
  t.add("telemetry.ca", text(), AT(gateway.telemetry.ca));
  t.checked("telemetry.insecure", flag());
  const Parser<double> fraction = [](const RawValue& value, double& out) -> std::string {
    const auto* end = value.text.data() + value.text.size();
    const auto [stop, error] = std::from_chars(value.text.data(), end, out);
    if (error != std::errc() || stop != end || !(out >= 0 && out <= 1)) return "must be a number from 0 to 1";
    return {};
  };
  t.add("telemetry.sampling", fraction, AT(gateway.telemetry.sampling));
  t.add("logging.level",
        choice<LogLevel>({{"trace", LogLevel::trace},
                          {"debug", LogLevel::debug},
                          {"info", LogLevel::info},
                          {"warn", LogLevel::warn},
                          {"error", LogLevel::error},
                          {"off", LogLevel::off}}),
        AT(log.level));
  t.add(
      "logging.levels",
      list([](std::string_view entry) { return parse_module_level(entry).has_value(); },
           "must hold entries such as access=warn: a module (access, audit, gateway, http, server, storage, "
           "telemetry, upstream) and a level"),
      AT(log.levels));
  t.add("logging.format", choice<bool>({{"json", true}, {"console", false}}), AT(log.json));
  t.add("docs.enabled", flag(), AT(gateway.docs_enabled));
  t.add("console.enabled", flag(), AT(console_enabled));
}

#undef AT

}  // namespace

const std::vector<ConfigKey>& config_key_table() {
  static const std::vector<ConfigKey> kTable = [] {
    Table table;
    add_server(table);
    add_storage_and_secrets(table);
    add_auth(table);
    add_mcp(table);
    add_targets(table);
    add_observability(table);
    return table.take();
  }();
  return kTable;
}

}  // namespace mcpgw::app
