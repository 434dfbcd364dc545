// Configuration of the program: a YAML file, environment variables and command line options become one
// checked value.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config.hpp"

namespace mcpgw::app {

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
