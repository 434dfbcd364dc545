#include "options.hpp"

#include <algorithm>

#include "config_keys.hpp"
#include "database.hpp"

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

/// `given`: the keys that were set.
Status read(const Json& object, const std::string& path, app::Config& config,
            std::vector<std::string>& given) {
  for (const auto& [word, value] : object.items()) {
    const std::string name = path.empty() ? word : path + "." + word;
    if (value.is_null()) continue;
    if (const auto* key = find_key(name)) {
      if (auto done = set(*key, value, config); !done) return done;
      given.push_back(name);
    } else if (is_section(name)) {
      if (!value.is_object()) return invalid("invalid_option", name + " must be an object of options", name);
      if (auto done = read(value, name, config, given); !done) return done;
    } else {
      return invalid("unknown_option", "There is no such option; docs/configuration.md lists them",
                     name.substr(0, 100));
    }
  }
  return {};
}

bool in_memory(const app::Config& config) {
  return config.database.kind == app::DatabaseConfig::Kind::sqlite && config.database.path.empty();
}

/// A database is named by a URL or by its parts, which are PostgreSQL's.
Status settle_database(const std::vector<std::string>& given, app::Config& config) {
  bool url = false, parts = false;
  for (const auto& name : given) {
    if (name.compare(0, 9, "database.") != 0 || name == "database.max_connections") continue;
    (name == "database.url" ? url : parts) = true;
  }
  if (url && parts)
    return invalid("invalid_option", "database.url excludes host, user and the like", "database.url");
  if (parts) config.database.kind = app::DatabaseConfig::Kind::postgres;
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
    std::vector<std::string> given;
    if (auto done = read(*object, "", config, given); !done) return done;
    if (auto done = settle_database(given, config); !done) return done;
  }
  const auto& gateway = config.gateway;
  if (!gateway.encryption.previous.empty() && gateway.encryption.current.empty())
    return invalid("invalid_option", "encryption.previous_keys needs encryption.key",
                   "encryption.previous_keys");
  if (!gateway.previous_jwt_secrets.empty() && gateway.jwt_secret.empty())
    return invalid("invalid_option", "jwt.previous_secrets needs jwt.secret", "jwt.previous_secrets");
  if (config.http.tls.cert.empty() != config.http.tls.key.empty())
    return invalid("invalid_option", "server.tls.cert and server.tls.key go together", "server.tls");
  if (!config.replicas.host.empty())
    return invalid("invalid_option", "Only the program listens for other replicas", "replicas.host");
  config.http.max_body = std::max(gateway.limits.api_body, gateway.limits.mcp_body);
  return {};
}

Result<OpenedStorage> open_storage(app::Config& config, const mcpgw_storage* given) {
  std::string& key = config.gateway.encryption.current;
  if (given != nullptr && !in_memory(config))
    return invalid("invalid_option", "database excludes a storage of the host", "database.url");
  // A key that is made up may only seal what ends with the process.
  if (given == nullptr && in_memory(config)) {
    if (key.empty()) key = make_up_key();
    return OpenedStorage{make_memory_storage(), nullptr};
  }
  if (given != nullptr && !given->callbacks) {
    if (key.empty()) key = given->made_up_key;
    return OpenedStorage{given->storage, nullptr};
  }
  if (key.empty())
    return invalid(
        "invalid_option",
        given != nullptr
            ? "encryption.key is missing; with a storage of the host it must be set, since what is sealed "
              "with it outlives this process"
            : "encryption.key is missing; with a database it must be set",
        "encryption.key");
  if (given != nullptr) return OpenedStorage{given->storage, nullptr};
  auto opened = app::open_storage(config.database);
  if (!opened) return opened.error();
  return OpenedStorage{opened->storage, opened->audit};
}

}  // namespace mcpgw::capi
