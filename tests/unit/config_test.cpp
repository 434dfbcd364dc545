#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "config_values.hpp"
#include "kubeconfig.hpp"
#include "load_config.hpp"
#include "mcpgw/random.hpp"
#include "secrets_file.hpp"

using namespace mcpgw;
using namespace mcpgw::app;

namespace {

const std::string kSecret = "f3Qm8ZtR1vXw6LpN0sYb4UcHd9JeKg2A";  // 32 bytes, of this test
using Environment = std::map<std::string, std::string>;

LoadedConfig parse(const std::string& text, Environment environment = {},
                   std::vector<ConfigSources::Option> options = {}) {
  ConfigSources sources;
  sources.file = "gw.yaml";
  sources.text = text;
  sources.environment = std::move(environment);
  sources.options = std::move(options);
  return parse_config(sources);
}

std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const auto& line : lines) out += line + "\n";
  return out;
}

/// "a.b" and a value become the YAML that sets it.
std::string yaml_of(const std::string& key, const std::string& value) {
  std::string out, indent;
  std::size_t from = 0;
  for (;;) {
    const auto dot = key.find('.', from);
    out += indent + key.substr(from, dot - from) + ":";
    if (dot == std::string::npos) return out + " " + value + "\n";
    out += "\n";
    indent += "  ";
    from = dot + 1;
  }
}

struct TemporaryDirectory {
  std::string path;
  TemporaryDirectory() {
    char name[] = "/tmp/mcpgw-config-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

int mode_of(const std::string& path) {
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  return static_cast<int>(info.st_mode & 0777);
}

}  // namespace

TEST_CASE("nothing configured gives the documented defaults") {
  for (const char* text : {"", "# a comment\n", "---\n", "server:\n"}) {
    const auto loaded = parse(text);
    CHECK(joined(loaded.errors) == "");
    CHECK(joined(loaded.warnings) == "");
    const auto& c = loaded.config;
    CHECK(c.http.host == "127.0.0.1");
    CHECK(c.http.port == 3000);
    CHECK(c.data_dir == "./mcpgw-data");
    CHECK(c.database.kind == DatabaseConfig::Kind::sqlite);
    CHECK(c.database.path == "./mcpgw-data/mcpgw.db");
    CHECK(c.needs_jwt_secret());
    CHECK(c.needs_encryption_key());
    CHECK(c.gateway.stdio.enabled);
    CHECK(c.gateway.registration_open);
    CHECK_FALSE(c.gateway.upstream.allow_private);
    CHECK(c.gateway.limits.mcp_body == 8u << 20);
    CHECK(c.http.max_body == 8u << 20);
    CHECK(c.shutdown_grace == std::chrono::seconds(30));
    CHECK(c.log.json);
  }
}

TEST_CASE("R85: no default allows every origin") {
  const auto c = parse("").config;
  for (const auto& origin : c.gateway.cors.allowed_origins) CHECK(origin.find('*') == std::string::npos);
  CHECK(c.gateway.mcp_allowed_origins.empty());
  CHECK(joined(parse("cors:\n  allowed_origins: [\"*\"]\n").warnings).find("cors.allowed_origins") !=
        std::string::npos);
}

TEST_CASE("keys take their values from file, environment and command line, in that order of weight") {
  const std::string file = "server:\n  port: 4000\n  host: 0.0.0.0\n  shutdown_grace: 1m30s\n";
  CHECK(parse(file).config.http.port == 4000);
  CHECK(parse(file, {{"MCPGW_SERVER_PORT", "4001"}}).config.http.port == 4001);
  const auto all = parse(file, {{"MCPGW_SERVER_PORT", "4001"}}, {{"server.port", "4002", "--port"}});
  CHECK(all.config.http.port == 4002);
  CHECK(all.config.http.host == "0.0.0.0");
  CHECK(all.config.shutdown_grace == std::chrono::seconds(90));
  CHECK(joined(parse(file, {}, {{"server.port", "70000", "--port"}}).errors) ==
        "--port: server.port must be an integer from 0 to 65535\n");
  CHECK(joined(parse(file, {{"MCPGW_SERVER_PORT", "x"}}).errors) ==
        "MCPGW_SERVER_PORT: server.port must be an integer from 0 to 65535\n");
}

TEST_CASE("every key can be set by a variable of its own, and an unknown variable is pointed out") {
  std::set<std::string> names;
  for (const auto& key : config_keys()) CHECK(names.insert(environment_name(key)).second);
  CHECK(environment_name("server.tls.cert") == "MCPGW_SERVER_TLS_CERT");
  const auto loaded = parse("", {{"MCPGW_CORS_ALLOWED_ORIGINS", "https://a.test, http://localhost:*"},
                                 {"MCPGW_STDIO_ALLOWED_COMMANDS", ""},
                                 {"MCPGW_SERVER_PRT", "1"},
                                 {"HOME", "/root"}});
  CHECK(loaded.errors.empty());
  CHECK(loaded.config.gateway.cors.allowed_origins ==
        std::vector<std::string>{"https://a.test", "http://localhost:*"});
  CHECK(loaded.config.gateway.stdio.allowed_commands.empty());
  CHECK(joined(loaded.warnings) == "MCPGW_SERVER_PRT: no such setting; the variable is ignored\n");
}

TEST_CASE("all faults are listed, each with file, line and key") {
  const auto loaded = parse(
      "server:\n"
      "  port: many\n"
      "  prt: 1\n"
      "cors: 5\n"
      "session:\n"
      "  timeout: 30\n"
      "  timeout: 30m\n"
      "stdio:\n"
      "  enabled: yes\n"
      "  allowed_commands: npx\n"
      "limits:\n"
      "  mcp_body: 8MB\n"
      "logging: {level: loud, format: xml}\n"
      "naming:\n"
      "  always_prefix: [true]\n");
  CHECK(joined(loaded.errors) ==
        "gw.yaml:2: server.port must be an integer from 0 to 65535\n"
        "gw.yaml:3: unknown key server.prt\n"
        "gw.yaml:4: cors must be a map of keys\n"
        "gw.yaml:6: session.timeout must be a duration from 1s to 8784h, such as 90s or 1h30m\n"
        "gw.yaml:7: session.timeout is there twice\n"
        "gw.yaml:9: stdio.enabled must be true or false\n"
        "gw.yaml:10: stdio.allowed_commands must be a list\n"
        "gw.yaml:12: limits.mcp_body must be a size from 1KiB to 1GiB, in bytes or with KiB or MiB\n"
        "gw.yaml:13: logging.level must be one of: trace, debug, info, warn, error, off\n"
        "gw.yaml:13: logging.format must be one of: json, console\n"
        "gw.yaml:15: naming.always_prefix must be a single value\n");
}

TEST_CASE("what is not one map of keys is refused") {
  for (const char* text :
       {"server: [", "- a\n", "just text\n", "a: 1\n---\nb: 2\n", "? [a]\n: 1\n", "\t- x: y: z"}) {
    INFO(text);
    const auto loaded = parse(text);
    REQUIRE(loaded.errors.size() >= 1);
    CHECK(loaded.errors[0].find("gw.yaml") == 0);
  }
}

TEST_CASE("values out of range or of a wrong form") {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"server.port", "-1"},
      {"server.port", "65536"},
      {"server.port", "1.5"},
      {"server.port", "0x10"},
      {"server.host", "\"\""},
      {"server.unix_mode", "0888"},
      {"server.unix_mode", "1777"},
      {"server.unix_mode", "66"},
      {"server.reuse_port", "1"},
      {"server.workers", "0"},
      {"server.max_in_flight", "0"},
      {"server.shutdown_grace", "-1s"},
      {"server.shutdown_grace", "10"},
      {"server.shutdown_grace", "2h"},
      {"server.public_url", "example.com"},
      {"server.public_url", "ftp://x"},
      {"server.public_url", "https://u@x"},
      {"server.public_url", "\"https://x/?a=1\""},
      {"server.trusted_proxies", "[10.0.0.0/33]"},
      {"server.trusted_proxies", "[localhost]"},
      {"database", "mysql://x"},
      {"database", "sqlite://"},
      {"database", "gw.db"},
      {"auth.registration", "maybe"},
      {"auth.password_min", "5"},
      {"auth.password_min", "129"},
      {"auth.login_ttl", "0"},
      {"auth.rate.window", "0s"},
      {"auth.rate.login_per_pair", "0"},
      {"cors.allowed_origins", "[example.com]"},
      {"cors.allowed_origins", "[\"https://*.*.test\"]"},
      {"cors.allowed_origins", "[\"https://a.test/\"]"},
      {"cors.allowed_headers", "[\"a b\"]"},
      {"mcp.allowed_origins", "[\"https://*\"]"},
      {"session.timeout", "1500ms"},
      {"session.max_per_user", "0"},
      {"limits.api_body", "0"},
      {"limits.api_body", "1TiB"},
      {"limits.json_depth", "7"},
      {"limits.list_max", "1e3"},
      {"upstream.connect_timeout", "0s"},
      {"stdio.inherit_env", "[\"A=B\"]"},
      {"stdio.max_processes", "-5"},
      {"audit.body", "some"},
      {"audit.retention", "90m"},
      {"audit.body_max", "2MiB"},
      {"audit.export_keep", "-1"},
      {"audit.export_max_bytes", "1KiB"},
      {"metrics.max_tools", "many"},
      {"telemetry.endpoint", "collector:4317"},
      {"telemetry.service_name", "\"\""},
      {"telemetry.sampling", "1.5"},
      {"telemetry.sampling", "nan"},
      {"logging.level", "INFO"},
      {"logging.levels", "[access]"},
      {"logging.levels", "[access=loud]"},
      {"logging.levels", "[nonsense=info]"},
      {"logging.levels", "[\"access=info \"]"},
      {"docs.enabled", "1"},
      {"console.enabled", "yes please"},
      {"kubernetes.resources", "5"},
      {"database.port", "0"},
  };
  for (const auto& [key, value] : cases) {
    INFO(key << ": " << value);
    const auto loaded = parse(yaml_of(key, value));
    REQUIRE(loaded.errors.size() >= 1);
    CHECK(loaded.errors[0].find(key) != std::string::npos);
  }
}

TEST_CASE("values that are accepted") {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"server.port", "0"},
      {"server.port", "\"8080\""},
      {"server.public_url", "https://gw.example.com/path/"},
      {"server.trusted_proxies", "[10.0.0.0/8, \"::1\", 192.168.1.1]"},
      {"session.timeout", "1.5h"},
      {"limits.mcp_body", "16 MiB"},
      {"limits.mcp_body", "4096"},
      {"database", "sqlite:///var/lib/gw.db"},
      {"database", "{url: \"sqlite://gw.db\"}"},
      {"auth.registration", "closed"},
      {"cors.allowed_origins", "[]"},
      {"cors.allowed_headers", "[\"*\"]"},
      {"audit.retention", "2160h"},
      {"kubernetes.resources", "{limits: {cpu: 1}}"},
      {"jwt.secret", ""},
      {"telemetry.sampling", "0.25"},
      {"storage.grace", "60s"},
      {"replicas.host", ""},
      {"replicas.port", "3100"},
      {"replicas.url", ""},
      {"replicas.lease", "15s"},
      {"replicas.silence", "15s"},
      {"metrics.max_tools", "0"},
      {"metrics.reflow_names", "true"},
      {"telemetry.enabled", "true"},
      {"telemetry.endpoint", "https://collector.example:4318/otlp"},
      {"telemetry.ca", "/etc/ca.pem"},
      {"audit.export", "/var/log/mcpgw/audit.jsonl"},
      {"audit.export", "syslog"},
      {"audit.export_max_bytes", "1MiB"},
      {"logging.levels", "[]"},
      {"logging.levels", "[access=warn, upstream=debug, http=off]"},
  };
  for (const auto& [key, value] : cases) {
    INFO(key << ": " << value);
    CHECK(joined(parse(yaml_of(key, value)).errors) == "");
  }
  CHECK(parse("server: {unix_mode: 0600, reuse_port: true}").config.http.unix_mode == 0600u);
  CHECK(parse("server: {unix_mode: \"666\", reuse_port: true}").config.http.unix_mode == 0666u);
  CHECK(parse("server: {reuse_port: true}").config.http.reuse_port);
  CHECK(parse("database: sqlite:///var/lib/gw.db").config.database.path == "/var/lib/gw.db");
  CHECK(parse("database: sqlite://gw.db").config.database.path == "gw.db");
  CHECK(parse("server: {data_dir: /data}").config.database.path == "/data/mcpgw.db");
  CHECK(parse("limits: {mcp_body: 16MiB}").config.http.max_body == 16u << 20);
}

TEST_CASE("replicas: what nobody could reach is refused at the start") {
  const std::string postgres =
      "database: postgres://db/x\njwt: {secret: 0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978}\n"
      "encryption: {key: 00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef}\n";
  const auto good =
      parse(postgres + "replicas: {host: 0.0.0.0, port: 0, url: \"http://10.0.0.7:3100\", lease: 30s}");
  CHECK(joined(good.errors) == "");
  CHECK(good.config.replicas.host == "0.0.0.0");
  CHECK(good.config.replicas.port == 0);
  CHECK(good.config.replicas.url == "http://10.0.0.7:3100");
  CHECK(good.config.gateway.replicas.lease == std::chrono::seconds(30));
  CHECK(parse(postgres).config.replicas.host == "");
  for (const char* line : {"replicas: {host: \"::\"}", "replicas: {host: \"unix:/run/x\"}",
                           "replicas: {host: 10.0.0.7, url: \"http://10.0.0.7/x\"}",
                           "replicas: {host: 10.0.0.7, url: \"10.0.0.7\"}", "replicas: {lease: 10ms}"}) {
    INFO(line);
    CHECK(parse(postgres + line).errors.size() == 1);
  }
  CHECK(parse("replicas: {host: 10.0.0.7}").errors.size() == 1);  // SQLite
}

TEST_CASE("Kubernetes: what a cluster could not take is refused at the start") {
  const auto good = parse(
      "kubernetes: {enabled: true, namespace: tools, idle_ttl: 5m, max_instances: 7,\n"
      "  service_url: \"https://{service}.{namespace}.svc:{port}\",\n"
      "  resources: {requests: {cpu: 50m}, limits: {cpu: 1, memory: 1Gi}}}");
  CHECK(joined(good.errors) == "");
  const auto& options = good.config.gateway.kubernetes;
  CHECK(options.enabled);
  CHECK(options.name_space == "tools");
  CHECK(options.idle_ttl == std::chrono::minutes(5));
  CHECK(options.max_instances == 7);
  CHECK(options.requests == std::map<std::string, std::string>{{"cpu", "50m"}});
  CHECK(options.limits == std::map<std::string, std::string>{{"cpu", "1"}, {"memory", "1Gi"}});
  CHECK_FALSE(options.access);  // in the cluster
  CHECK(parse("kubernetes: {kubeconfig: /etc/kubeconfig}").config.gateway.kubernetes.access);
  for (const char* line : {"kubernetes: {namespace: Tools}", "kubernetes: {namespace: ../x}",
                           "kubernetes: {service_url: \"http://svc\"}",
                           "kubernetes: {resources: {limits: 1}}", "kubernetes: {resources: {max: {cpu: 1}}}",
                           "kubernetes: {resources: {limits: {cpu: [1]}}}", "kubernetes: {idle_ttl: 0s}"}) {
    INFO(line);
    CHECK(parse(line).errors.size() == 1);
  }
}

TEST_CASE("a kubeconfig's current context says where the cluster is and who we are") {
  const TemporaryDirectory dir;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir.path + "/" + name) << text;
  };
  const auto read = [&](const std::string& cluster, const std::string& user) {
    write("config",
          "current-context: b\ncontexts:\n- {name: a, context: {cluster: other, user: u}}\n"
          "- {name: b, context: {cluster: c, user: u}}\nclusters:\n- {name: c, cluster: {" +
              cluster + "}}\nusers:\n- {name: u, user: {" + user + "}}\n");
    return read_kubeconfig(dir.path + "/config");
  };
  write("ca.crt", "a CA");
  write("token", "from a file\n");
  const auto good =
      read("server: \"https://k:6443\", certificate-authority: ca.crt", "tokenFile: token, token: old");
  REQUIRE(good);
  CHECK(good->server == "https://k:6443");
  CHECK(good->ca == "a CA");
  CHECK(good->token == "from a file");
  CHECK(good->verify);
  const auto inside =
      read("server: \"https://k\", certificate-authority-data: YSBDQQ==, insecure-skip-tls-verify: true",
           "client-certificate-data: Y2VydA==, client-key-data: a2V5");
  REQUIRE(inside);
  CHECK(inside->ca == "a CA");
  CHECK_FALSE(inside->verify);
  CHECK(inside->client_cert == "cert");
  CHECK(inside->client_key == "key");
  for (const auto& [cluster, user] : std::vector<std::pair<std::string, std::string>>{
           {"server: \"https://k\"", "exec: {command: login}"},
           {"server: \"https://k\"", "username: u, password: s3cret"},
           {"server: \"https://k\", proxy-url: \"http://p\"", "token: t"},
           {"server: \"https://k\", certificate-authority: missing.crt", "token: t"},
           {"server: \"https://k\", certificate-authority-data: \"%%\"", "token: t"},
           {"x: y", "token: t"}}) {
    const auto bad = read(cluster, user);
    REQUIRE_FALSE(bad);
    CHECK(bad.error().message.find("kubeconfig") != std::string::npos);
    CHECK(bad.error().message.find("s3cret") == std::string::npos);
  }
  write("config", "a: [");
  CHECK(read_kubeconfig(dir.path + "/config").error().message.find("not YAML") != std::string::npos);
  CHECK_FALSE(read_kubeconfig(dir.path + "/nowhere"));
}

TEST_CASE("TLS files go together") {
  const auto good = parse("server: {tls: {cert: /c.pem, key: /k.pem, client_ca: /ca.pem}}");
  CHECK(joined(good.errors) == "");
  CHECK(good.config.http.tls.cert == "/c.pem");
  CHECK(good.config.http.tls.key == "/k.pem");
  CHECK(good.config.http.tls.client_ca == "/ca.pem");
  CHECK(joined(parse("server: {tls: {cert: /c.pem}}").errors) ==
        "gw.yaml:1: server.tls.cert and server.tls.key go together\n");
  CHECK(joined(parse("server: {tls: {key: /k.pem}}").errors) ==
        "gw.yaml:1: server.tls.cert and server.tls.key go together\n");
  CHECK(joined(parse("server: {tls: {client_ca: /ca.pem}}").errors) ==
        "gw.yaml:1: server.tls.client_ca needs server.tls.cert and server.tls.key\n");
}

TEST_CASE("the names of Reflow Gateway's configuration file are known") {
  const auto loaded = parse(
      "server: {host: 0.0.0.0, port: 3000}\n"
      "jwt: {secret: \"" +
      kSecret +
      "\"}\n"
      "cors: {allowed_origins: [\"http://localhost:3001\"]}\n"
      "session: {timeout: 30m, cleanup_interval: 5m}\n"
      "encryption: {key: \"" +
      kSecret +
      "\"}\n"
      "logging: {level: info, format: json}\n"
      "stdio: {idle_ttl: 30m, max_lifetime: 24h, gc_interval: 1m, max_processes: 100}\n"
      "kubernetes: {enabled: false, namespace: mcp, kubeconfig: \"\", idle_ttl: 30m, max_lifetime: 24h, "
      "gc_interval: 1m,"
      " max_instances: 100}\n"
      "telemetry: {enabled: false, endpoint: \"http://localhost:4318\", service_name: gw, insecure: true}\n");
  CHECK(joined(loaded.errors) == "");
  CHECK(joined(loaded.warnings) == "gw.yaml:9: telemetry.insecure has no effect: the URL's scheme decides\n");
  const auto database =
      parse("database: {host: db, port: 5432, user: u, password: p, database: d, sslmode: disable}\n");
  CHECK(database.config.database.kind == DatabaseConfig::Kind::postgres);
  CHECK(joined(database.errors).find("unknown key") == std::string::npos);
}

TEST_CASE("R5: secrets that anyone could guess are refused") {
  const std::vector<std::pair<std::string, const char*>> refused = {
      {"short", "at least 32 bytes"},
      {std::string(31, 'x') + "", "at least 32 bytes"},
      {"abcabcabcabcabcabcabcabcabcabcabcabc", "8 different"},
      {std::string(64, 'a'), "8 different"},
      {"$${JWT_SECRET}" + kSecret, "variable that was not replaced"},
      {"change-me-" + kSecret, "placeholder"},
      {kSecret + "CHANGEME", "placeholder"},
      {"change-in-production-" + kSecret, "placeholder"},
      {"your-super-secret-jwt-key-of-32-bytes", "placeholder"},
      {"a-Placeholder-that-is-long-enough-0123", "placeholder"},
      {"12345678901234567890123456789012", "1234567890"},
      {"1234567890123456789012345678901234567890", "1234567890"},
      {"01234567890123456789012345678901", "1234567890"},
  };
  for (const auto& [value, why] : refused) {
    for (const char* key : {"jwt.secret", "encryption.key"}) {
      INFO(key << ": " << value);
      const auto loaded = parse(yaml_of(key, "\"" + value + "\""));
      REQUIRE(loaded.errors.size() == 1);
      CHECK(loaded.errors[0].find(key) != std::string::npos);
      CHECK(loaded.errors[0].find(why) != std::string::npos);
      CHECK(loaded.errors[0].find(value) == std::string::npos);
    }
    const auto previous = parse("jwt:\n  secret: " + kSecret + "\n  previous_secrets: [\"" + value + "\"]\n");
    REQUIRE(previous.errors.size() == 1);
    CHECK(previous.errors[0].find("jwt.previous_secrets entry 1") != std::string::npos);
  }
  CHECK(joined(parse("jwt:\n  previous_secrets: [" + kSecret + "]\n").errors).find("needs jwt.secret") !=
        std::string::npos);
}

TEST_CASE("R5: an encryption key is 32 bytes in one of three forms") {
  const auto key = [](const std::string& value) {
    return parse(yaml_of("encryption.key", "\"" + value + "\""));
  };
  CHECK(key(kSecret).config.gateway.encryption.current == kSecret);
  const auto hex = key("000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F");
  CHECK(joined(hex.errors) == "");
  std::string bytes;
  for (char c = 0; c < 32; ++c) bytes += c;
  CHECK(hex.config.gateway.encryption.current == bytes);
  CHECK(key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").config.gateway.encryption.current == bytes);
  for (const std::string& wrong :
       {kSecret + "x", std::string("zz0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
        std::string("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9="),
        std::string("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8f")}) {
    INFO(wrong);
    CHECK(joined(key(wrong).errors).find("must be exactly 32 bytes") != std::string::npos);
  }
}

TEST_CASE("with PostgreSQL no secret is made up, and none of the URL is shown") {
  const auto loaded = parse("database: \"postgres://gw:pa%40ss:w@rd@db.internal:5433/name?sslmode=require\"");
  const auto all = joined(loaded.errors);
  CHECK(all.find("jwt.secret is missing") != std::string::npos);
  CHECK(all.find("encryption.key is missing") != std::string::npos);
  CHECK(all.find("db.internal") == std::string::npos);
  const auto& db = loaded.config.database;
  CHECK(db.password == "pa@ss:w@rd");
  CHECK(db.host == "db.internal");
  CHECK(db.port == 5433);
  CHECK(db.sslmode == "require");
}

TEST_CASE("parameters of a PostgreSQL URL are known by name") {
  const auto database = [](const std::string& url) { return parse_database_url(url); };
  const auto tls = database("postgres://gw@db/name?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem");
  CHECK(tls.error == "");
  CHECK(tls.database.sslmode == "verify-full");
  CHECK(tls.database.parameters.at("sslrootcert") == "/etc/ca.pem");
  CHECK(database("postgres:///name?host=/run/postgresql").database.host == "/run/postgresql");
  CHECK(database("postgres://%2Frun%2Fpostgresql/name").database.host == "/run/postgresql");
  for (const char* wrong :
       {"postgres://gw@db/name?passfile=/etc/passwd", "postgres://gw@db/name?sslmode",
        "postgres://gw@db/name?sslmode=", "postgres:///name", "postgres://db/name?host=/run/postgresql",
        "postgres://db/name?a=1", "mysql://db/name"}) {
    INFO(wrong);
    CHECK(database(wrong).error != "");
  }
}

TEST_CASE("R69: a variable's value cannot change the structure, and passwords need no escaping") {
  const std::string evil = "x\"\nserver:\n  port: 1\n#: {}[]&*!|>'%@`$${}";
  const auto loaded = parse(
      "server:\n  port: 3000\ndatabase:\n  host: db\n  password: ${DB_PASSWORD}\n  user: "
      "\"${DB_USER:-gw}\"\n",
      {{"DB_PASSWORD", evil}});
  CHECK(loaded.config.database.password == evil);
  CHECK(loaded.config.database.user == "gw");
  CHECK(loaded.config.http.port == 3000);
  const auto mixed = parse("database:\n  url: sqlite://a.db\n  host: x\n");
  CHECK(joined(mixed.errors).find("excludes") != std::string::npos);
  const auto overridden = parse("database: {host: db, user: u}", {{"MCPGW_DATABASE", "sqlite://b.db"}});
  CHECK(joined(overridden.errors) == "");
  CHECK(overridden.config.database.path == "b.db");
}

TEST_CASE("expansion of variables") {
  const Environment env{{"A", "1"}, {"EMPTY", ""}, {"B_2", "two"}};
  const std::vector<std::pair<const char*, const char*>> good = {
      {"plain", "plain"},   {"${A}", "1"},    {"x${A}y${B_2}", "x1ytwo"}, {"${NONE:-d}", "d"},
      {"${EMPTY:-d}", "d"}, {"${EMPTY}", ""}, {"${NONE:-}", ""},          {"$$", "$"},
      {"$${A}", "${A}"},    {"$A $", "$A $"}, {"${NONE:-a:-b}", "a:-b"}};
  for (const auto& [text, result] : good) {
    INFO(text);
    const auto expanded = expand_variables(text, env);
    CHECK(expanded.error == "");
    CHECK(expanded.text == result);
  }
  for (const char* text : {"${NONE}", "${", "${A", "${}", "${1A}", "${A-B}", "${ A }", "${:-x}"}) {
    INFO(text);
    CHECK(expand_variables(text, env).error != "");
  }
  CHECK(expand_variables("${NONE}", env).error.find("NONE") != std::string::npos);
  CHECK(joined(parse("stdio:\n  allowed_commands:\n    - npx\n    - ${NONE}\n").errors) ==
        "gw.yaml:4: stdio.allowed_commands refers to the environment variable NONE, which is not set\n");
  CHECK(parse("server: {port: \"${PORT:-81}\"}").config.http.port == 81);
}

TEST_CASE("durations and sizes") {
  using std::chrono::nanoseconds;
  const auto ns = [](const char* text) { return parse_duration(text).value_or(nanoseconds(-1)).count(); };
  CHECK(ns("0") == 0);
  CHECK(ns("90s") == 90000000000);
  CHECK(ns("1h30m") == 5400000000000);
  CHECK(ns("1.5h") == 5400000000000);
  CHECK(ns("250ms") == 250000000);
  CHECK(ns("1m0.5s") == 60500000000);
  for (const char* bad :
       {"", "5", "s", "5x", "-5s", "+5s", "1.2.3s", ".s", "5 s", "1e3s", "99999999999h", "5s5"}) {
    INFO(bad);
    CHECK_FALSE(parse_duration(bad));
  }
  CHECK(parse_size("1024") == 1024u);
  CHECK(parse_size("64KiB") == 65536u);
  CHECK(parse_size("2 MiB") == 2u << 20);
  for (const char* bad : {"", "KiB", "1KB", "-1", "1.5MiB", "9223372036854775807KiB", "12 ", "1 K"}) {
    INFO(bad);
    CHECK_FALSE(parse_size(bad));
  }
}

TEST_CASE("secrets that nobody configured are made once and kept from others") {
  TemporaryDirectory dir;
  const auto data = dir.path + "/a/data";
  const auto random = make_system_random();
  bool created = false;
  REQUIRE(prepare_data_dir(data, &created));
  CHECK(created);
  CHECK(mode_of(data) == 0700);
  REQUIRE(prepare_data_dir(data, &created));
  CHECK_FALSE(created);

  const auto first = load_secrets(data, *random, true);
  REQUIRE(first);
  CHECK(first->created);
  CHECK(first->encryption_key.size() == 32);
  CHECK(secret_fault(first->jwt_secret) == "");
  CHECK(mode_of(data + "/secrets.json") == 0600);
  const auto second = load_secrets(data, *random, false);
  REQUIRE(second);
  CHECK_FALSE(second->created);
  CHECK(second->jwt_secret == first->jwt_secret);
  CHECK(second->encryption_key == first->encryption_key);
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(data)) ++files;
  CHECK(files == 1);
}

TEST_CASE("secrets: other modes, links, damage and loss are refused") {
  TemporaryDirectory dir;
  const auto data = dir.path + "/data", file = data + "/secrets.json";
  const auto random = make_system_random();
  REQUIRE(prepare_data_dir(data, nullptr));
  const auto missing = load_secrets(data, *random, false);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().reason == "secrets_missing");
  REQUIRE(load_secrets(data, *random, true));

  for (const int mode : {0640, 0604, 0644, 0700, 0400}) {
    REQUIRE(::chmod(file.c_str(), static_cast<mode_t>(mode)) == 0);
    const auto result = load_secrets(data, *random, true);
    REQUIRE_FALSE(result);
    CHECK(result.error().reason == "insecure_file");
  }
  REQUIRE(::chmod(file.c_str(), 0600) == 0);
  for (const int mode : {0750, 0701, 0755}) {
    REQUIRE(::chmod(data.c_str(), static_cast<mode_t>(mode)) == 0);
    const auto status = prepare_data_dir(data, nullptr);
    REQUIRE_FALSE(status);
    CHECK(status.error().reason == "insecure_file");
  }
  REQUIRE(::chmod(data.c_str(), 0700) == 0);

  for (const char* content : {"", "{", "[]", "{}", R"({"jwt_secret":"x","encryption_key":"y"})",
                              R"({"jwt_secret":5,"encryption_key":null})"}) {
    std::ofstream(file, std::ios::trunc) << content;
    const auto result = load_secrets(data, *random, true);
    REQUIRE_FALSE(result);
    CHECK(result.error().reason == "secrets_damaged");
  }
  const auto elsewhere = dir.path + "/elsewhere";
  std::filesystem::rename(file, elsewhere);
  std::filesystem::create_symlink(elsewhere, file);
  const auto linked = load_secrets(data, *random, true);
  REQUIRE_FALSE(linked);
  CHECK(linked.error().reason == "insecure_file");
  std::filesystem::remove(file);
  std::filesystem::create_directory(file);
  CHECK(load_secrets(data, *random, true).error().reason == "insecure_file");
  if (::geteuid() == 0) {  // another owner can only be made by root
    std::filesystem::remove(file);
    REQUIRE(load_secrets(data, *random, true));
    REQUIRE(::chown(file.c_str(), 12345, 12345) == 0);
    CHECK(load_secrets(data, *random, true).error().reason == "insecure_file");
    REQUIRE(::chown(data.c_str(), 12345, 12345) == 0);
    CHECK(prepare_data_dir(data, nullptr).error().reason == "insecure_file");
  }
}

TEST_CASE("secrets are rotated: the new one in force, the old ones kept, the rest of the file as it was") {
  TemporaryDirectory dir;
  const auto data = dir.path + "/data", file = data + "/secrets.json";
  const auto random = make_system_random();
  REQUIRE(prepare_data_dir(data, nullptr));
  CHECK(rotate_secret(data, SecretKind::jwt, *random).error().reason == "secrets_missing");
  const auto first = load_secrets(data, *random, true);
  REQUIRE(first);
  {
    std::ifstream in(file);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    text.insert(text.find('{') + 1, "\"of_a_later_version\": [1],");
    std::ofstream(file) << text;
  }

  const auto second = rotate_secret(data, SecretKind::jwt, *random);
  REQUIRE(second);
  CHECK(second->jwt_secret != first->jwt_secret);
  CHECK(second->previous_jwt_secrets == std::vector<std::string>{first->jwt_secret});
  CHECK(second->encryption_key == first->encryption_key);
  CHECK(second->previous_encryption_keys.empty());
  CHECK_FALSE(second->reseal_pending);
  CHECK(mode_of(file) == 0600);

  const auto third = rotate_secret(data, SecretKind::encryption, *random);
  REQUIRE(third);
  CHECK(third->encryption_key.size() == 32);
  CHECK(third->previous_encryption_keys == std::vector<std::string>{first->encryption_key});
  CHECK(third->reseal_pending);
  // Until everything is sealed with it, there is no further one.
  const auto same = rotate_secret(data, SecretKind::encryption, *random);
  REQUIRE(same);
  CHECK(same->encryption_key == third->encryption_key);
  CHECK(same->previous_encryption_keys.size() == 1);
  REQUIRE(finish_reseal(data, first->encryption_key));  // somebody else's rotation
  CHECK(load_secrets(data, *random, false)->reseal_pending);
  REQUIRE(finish_reseal(data, third->encryption_key));
  CHECK_FALSE(load_secrets(data, *random, false)->reseal_pending);
  CHECK(rotate_secret(data, SecretKind::encryption, *random)->previous_encryption_keys.size() == 2);
  std::ifstream in(file);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  CHECK(text.find("of_a_later_version") != std::string::npos);

  // Several at once: each is one after the other, and none is lost.
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] { CHECK(rotate_secret(data, SecretKind::jwt, *random)); });
  for (auto& thread : threads) thread.join();
  const auto last = load_secrets(data, *random, false);
  REQUIRE(last);
  CHECK(last->previous_jwt_secrets.size() == 9);
  CHECK(last->previous_jwt_secrets.back() == first->jwt_secret);
  for (int i = 9; i < 100; ++i) REQUIRE(rotate_secret(data, SecretKind::jwt, *random));
  CHECK(rotate_secret(data, SecretKind::jwt, *random).error().reason == "too_many_keys");
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(data)) ++files;
  CHECK(files == 2);  // and the lock
}

TEST_CASE("several first starts at once agree on the secrets") {
  for (int round = 0; round < 10; ++round) {
    TemporaryDirectory dir;
    REQUIRE(::chmod(dir.path.c_str(), 0700) == 0);
    const auto random = make_system_random();
    std::vector<std::string> seen(4);
    std::vector<std::thread> threads;
    for (auto& one : seen)
      threads.emplace_back([&] {
        const auto result = load_secrets(dir.path, *random, true);
        one = result ? result->jwt_secret : result.error().reason;
      });
    for (auto& thread : threads) thread.join();
    CHECK(seen[0].size() == 64);
    for (const auto& one : seen) CHECK(one == seen[0]);
  }
}

TEST_CASE("the documentation names every key") {
  std::ifstream file(MCPGW_SOURCE_DIR "/docs/configuration.md");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  REQUIRE_FALSE(text.empty());
  for (const auto& key : config_keys()) {
    INFO(key);
    CHECK(text.find("`" + key + "`") != std::string::npos);
  }
  CHECK(text.find("`kubernetes.resources`") != std::string::npos);
}
