// Configuration: a YAML file, environment variables and command line options become one checked value.
// docs/configuration.md is the reference of all keys.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mcpgw/gateway.hpp"
#include "mcpgw/server.hpp"

namespace mcpgw::app {

struct DatabaseConfig {
  enum class Kind { sqlite, postgres };
  Kind kind = Kind::sqlite;
  std::string path;  ///< sqlite
  std::string host, user, password, database, sslmode;
  int port = 5432;
  std::map<std::string, std::string> parameters;  ///< others of the URL, such as sslrootcert
  int max_connections = 8;
};

struct LogConfig {
  LogLevel level = LogLevel::info;
  std::vector<std::string> levels;  ///< of single modules: "access=warn"
  bool json = true;
};

struct Config {
  /// What the library takes as it is. storage, audit_sink, runtime and log are left to the caller.
  GatewayOptions gateway;
  HttpServerOptions http;
  RuntimeOptions runtime;
  bool console_enabled = true;  ///< the web console at /
  std::string data_dir = "./mcpgw-data";
  std::chrono::milliseconds shutdown_grace{30000};
  std::chrono::milliseconds storage_connect_timeout{30000};
  DatabaseConfig database;
  LogConfig log;

  Config();
  /// Secrets that were not configured. With SQLite they are kept in the data directory (secrets_file.hpp).
  bool needs_jwt_secret() const { return gateway.jwt_secret.empty(); }
  bool needs_encryption_key() const { return gateway.encryption.current.empty(); }
};

struct ConfigSources {
  std::string file;  ///< empty: no file
  std::string text;  ///< its content
  std::map<std::string, std::string> environment;
  struct Option {
    std::string key;  ///< "server.port"
    std::string value;
    std::string name;  ///< "--port", for errors
  };
  std::vector<Option> options;  ///< of the command line
};

struct LoadedConfig {
  Config config;
  std::vector<std::string> errors;  ///< "mcpgw.yaml:3: server.port: must be ..."; empty: config is good
  std::vector<std::string> warnings;
};

/// Order: options > environment > file > defaults. No text ever holds a configured value.
LoadedConfig parse_config(const ConfigSources& sources);

/// Reads `path`, or ./mcpgw.yaml when it is empty and that exists, and the process environment.
LoadedConfig load_config(const std::string& path, std::vector<ConfigSources::Option> options);

/// Every key, for documentation and tests.
std::vector<std::string> config_keys();
/// "server.tls.cert" -> "MCPGW_SERVER_TLS_CERT"
std::string environment_name(std::string_view key);

}  // namespace mcpgw::app
