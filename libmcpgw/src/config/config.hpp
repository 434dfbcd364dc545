// The configuration as one checked value. The program fills it from a file, the environment and its command
// line, the C interface from an object of options; the keys mean the same in both. docs/configuration.md is
// their reference.
#pragma once

#include <chrono>
#include <map>
#include <string>
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

/// Where the other replicas reach this one.
struct ReplicaConfig {
  std::string host;  ///< empty: they do not know one another
  int port = 3100;
  std::string url;  ///< empty: host and port
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
  ReplicaConfig replicas;

  Config();
  /// Secrets that were not configured. With SQLite they are kept in the data directory (secrets_file.hpp).
  bool needs_jwt_secret() const { return gateway.jwt_secret.empty(); }
  bool needs_encryption_key() const { return gateway.encryption.current.empty(); }
};

}  // namespace mcpgw::app
