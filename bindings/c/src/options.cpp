#include "options.hpp"

#include <algorithm>

#include "config_keys.hpp"
#include "mcpgw/sqlite.hpp"

namespace mcpgw::capi {

namespace {

constexpr std::size_t kMaxBytes = 1024 * 1024;

const app::ConfigKey* find_key(std::string_view name) {
  for (const auto& key : app::config_key_table())
    if (key.name == name) return &key;
  return nullptr;
}

bool is_section(const std::string& name) {
  return std::any_of(app::config_key_table().begin(), app::config_key_table().end(),
                     [&](const app::ConfigKey& key) {
                       return key.name.size() > name.size() && key.name.compare(0, name.size(), name) == 0 &&
                              key.name[name.size()] == '.';
                     });
}

/// A single value as the table reads it. Nullopt: it is none.
std::optional<std::string> scalar(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return std::string(value.get<bool>() ? "true" : "false");
  if (value.is_number()) return detail::dump_json(value);
  return std::nullopt;
}

Status set(const app::ConfigKey& key, const Json& value, app::Config& config) {
  app::RawValue raw;
  raw.is_list = key.is_list;
  if (key.is_list) {
    if (!value.is_array()) return invalid("invalid_option", key.name + " must be a list", key.name);
    for (const auto& element : value) {
      auto text = scalar(element);
      if (!text) return invalid("invalid_option", key.name + " must be a list of single values", key.name);
      raw.list.push_back(std::move(*text));
    }
  } else {
    auto text = scalar(value);
    if (!text) return invalid("invalid_option", key.name + " must be a single value", key.name);
    raw.text = std::move(*text);
  }
  const std::string fault = key.set(config, raw);
  if (!fault.empty()) return invalid("invalid_option", key.name + " " + fault, key.name);
  return {};
}

Status read(const Json& object, const std::string& path, app::Config& config) {
  for (const auto& [word, value] : object.items()) {
    const std::string name = path.empty() ? word : path + "." + word;
    if (value.is_null()) continue;
    if (const auto* key = find_key(name)) {
      if (auto done = set(*key, value, config); !done) return done;
    } else if (is_section(name)) {
      if (!value.is_object()) return invalid("invalid_option", name + " must be an object of options", name);
      if (auto done = read(value, name, config); !done) return done;
    } else {
      return invalid("unknown_option", "There is no such option; docs/configuration.md lists them",
                     name.substr(0, 100));
    }
  }
  return {};
}

}  // namespace

app::Config default_options() {
  app::Config config;
  config.http.port = 0;
  config.gateway.stdio.enabled = false;
  config.console_enabled = false;
  return config;
}

Status apply_options(std::string_view json, app::Config& config) {
  if (json.size() > kMaxBytes) return invalid("invalid_options", "The options are larger than 1 MiB");
  if (!json.empty()) {
    const auto object = detail::parse_json(json);
    if (!object || !object->is_object())
      return invalid("invalid_options", "The options must be one JSON object");
    if (auto done = read(*object, "", config); !done) return done;
  }
  const auto& gateway = config.gateway;
  if (!gateway.encryption.previous.empty() && gateway.encryption.current.empty())
    return invalid("invalid_option", "encryption.previous_keys needs encryption.key",
                   "encryption.previous_keys");
  if (!gateway.previous_jwt_secrets.empty() && gateway.jwt_secret.empty())
    return invalid("invalid_option", "jwt.previous_secrets needs jwt.secret", "jwt.previous_secrets");
  if (config.http.tls.cert.empty() != config.http.tls.key.empty())
    return invalid("invalid_option", "server.tls.cert and server.tls.key go together", "server.tls");
  config.http.max_body = std::max(gateway.limits.api_body, gateway.limits.mcp_body);
  return {};
}

Result<OpenedStorage> open_storage(const app::Config& config, std::shared_ptr<Storage> given) {
  if (given) {
    if (!config.database.path.empty() || config.database.kind != app::DatabaseConfig::Kind::sqlite)
      return invalid("invalid_option", "database excludes a storage of the host", "database.url");
    return OpenedStorage{std::move(given), nullptr};
  }
  if (config.database.kind != app::DatabaseConfig::Kind::sqlite)
    return Error(ErrorCode::unsupported, "unsupported_database", "Only SQLite databases can be opened here",
                 "database.url");
  if (config.database.path.empty()) return OpenedStorage{make_memory_storage(), nullptr};
  SqliteOptions options;
  options.path = config.database.path;
  auto opened = open_sqlite(options);
  if (!opened) return opened.error();
  return OpenedStorage{opened->storage, opened->audit};
}

}  // namespace mcpgw::capi
