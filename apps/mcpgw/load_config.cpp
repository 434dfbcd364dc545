#include "load_config.hpp"

#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "config_keys.hpp"
#include "config_values.hpp"

namespace mcpgw::app {

namespace {

constexpr std::size_t kMaxFileBytes = 1024 * 1024;
constexpr std::size_t kMaxDepth = 16;
/// A map with names of the cluster's own.
constexpr std::string_view kFreeMap = "kubernetes.resources";

const ConfigKey* find_key(std::string_view name) {
  for (const auto& key : config_key_table())
    if (key.name == name) return &key;
  return nullptr;
}

bool is_section(std::string_view name) {
  const std::string prefix = std::string(name) + ".";
  return std::any_of(config_key_table().begin(), config_key_table().end(),
                     [&](const ConfigKey& key) { return key.name.compare(0, prefix.size(), prefix) == 0; });
}

/// Printable and short, for keys and file names in messages.
std::string shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 100)) out += (c >= ' ' && c != 0x7f) ? c : '?';
  return out;
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> out;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto first = part.find_first_not_of(" \t");
    if (first != std::string::npos)
      out.push_back(part.substr(first, part.find_last_not_of(" \t") - first + 1));
  }
  return out;
}

/// Applies values layer by layer and collects everything that is wrong.
class Loader {
 public:
  explicit Loader(const ConfigSources& sources) : sources_(sources) {}

  LoadedConfig load() {
    if (!sources_.file.empty()) read_file();
    end_layer();
    read_environment();
    end_layer();
    for (const auto& option : sources_.options) {
      const auto* key = find_key(option.key);
      if (key) set(option.name, *key, RawValue{false, option.value, {}});
    }
    end_layer();
    check_whole();
    return std::move(out_);
  }

 private:
  void error(const std::string& where, const std::string& what) {
    out_.errors.push_back(where + ": " + what);
  }

  void set(const std::string& where, const ConfigKey& key, const RawValue& value) {
    const auto fault = key.set(out_.config, value);
    if (!fault.empty()) error(where, key.name + " " + fault);
    where_[key.name] = where;
    if (key.name == "database.url")
      layer_has_url_ = true;
    else if (key.name.compare(0, 9, "database.") == 0 && key.name != "database.max_connections")
      layer_has_parts_ = true;
  }

  /// A layer says where the database is by a URL or by its parts, and then replaces what the layer below
  /// said.
  void end_layer() {
    auto& database = out_.config.database;
    if (layer_has_url_ && layer_has_parts_)
      error(where_["database.url"], "database.url excludes host, user and the like");
    if (layer_has_parts_ && !layer_has_url_) database.kind = DatabaseConfig::Kind::postgres;
    layer_has_url_ = layer_has_parts_ = false;
  }

  // --- the file ------------------------------------------------------------------------------------------
  std::string at(const YAML::Node& node) const {
    const auto mark = node.Mark();
    return sources_.file + (mark.line >= 0 ? ":" + std::to_string(mark.line + 1) : "");
  }

  void read_file() {
    std::vector<YAML::Node> documents;
    try {
      documents = YAML::LoadAll(sources_.text);
    } catch (const YAML::Exception& fault) {  // its text quotes no content
      return error(sources_.file + ":" + std::to_string(fault.mark.line + 1), "is not YAML: " + fault.msg);
    }
    if (documents.empty() || documents.front().IsNull()) return;
    if (documents.size() > 1) return error(sources_.file, "holds more than one YAML document");
    if (!documents.front().IsMap()) return error(at(documents.front()), "must be a map of keys");
    read_map(documents.front(), "", 0);
  }

  void read_map(const YAML::Node& map, const std::string& path, std::size_t depth) {
    std::set<std::string> seen;
    for (const auto& entry : map) {
      if (!entry.first.IsScalar()) {
        error(at(entry.first), "a key must be a word");
        continue;
      }
      const std::string name = path.empty() ? entry.first.Scalar() : path + "." + entry.first.Scalar();
      if (!seen.insert(name).second)
        error(at(entry.first), shown(name) + " is there twice");
      else
        read_entry(entry.first, entry.second, name, depth);
    }
  }

  void read_entry(const YAML::Node& key_node, const YAML::Node& value, const std::string& name,
                  std::size_t depth) {
    const auto where = at(key_node);
    if (name == kFreeMap) return read_resources(where, value);
    const auto* key = find_key(name == "database" && value.IsScalar() ? "database.url" : name);
    if (!key && !is_section(name)) return error(where, "unknown key " + shown(name));
    if (value.IsNull()) return;  // "key:" with nothing after it says nothing
    if (!key) {
      if (!value.IsMap() || depth > kMaxDepth) return error(where, name + " must be a map of keys");
      return read_map(value, name, depth + 1);
    }
    RawValue raw;
    if (key->is_list) {
      if (!value.IsSequence()) return error(where, name + " must be a list");
      raw.is_list = true;
      for (const auto& element : value) {
        if (!element.IsScalar()) return error(where, name + " must be a list of single values");
        std::string text;
        if (!expand(at(element), name, element.Scalar(), text)) return;
        raw.list.push_back(std::move(text));
      }
    } else {
      if (!value.IsScalar()) return error(where, name + " must be a single value");
      if (!expand(where, name, value.Scalar(), raw.text)) return;
    }
    set(where, *key, raw);
  }

  bool expand(const std::string& where, const std::string& name, const std::string& text, std::string& out) {
    auto expanded = expand_variables(text, sources_.environment);
    if (!expanded.error.empty()) {
      error(where, name + " " + expanded.error);
      return false;
    }
    out = std::move(expanded.text);
    return true;
  }

  void read_resources(const std::string& where, const YAML::Node& value) {
    auto& options = out_.config.gateway.kubernetes;
    if (value.IsNull()) return;
    const auto fault = [&] {
      error(where,
            std::string(kFreeMap) +
                " must be a map of requests and limits, each a map such as {cpu: 500m, memory: 256Mi}");
    };
    if (!value.IsMap()) return fault();
    options.requests.clear();
    options.limits.clear();
    for (const auto& entry : value) {
      const std::string kind = entry.first.IsScalar() ? entry.first.Scalar() : std::string();
      if ((kind != "requests" && kind != "limits") || !(entry.second.IsMap() || entry.second.IsNull()))
        return fault();
      if (entry.second.IsNull()) continue;
      for (const auto& one : entry.second) {
        if (!one.first.IsScalar() || !one.second.IsScalar()) return fault();
        std::string quantity;
        if (!expand(at(one.first), std::string(kFreeMap), one.second.Scalar(), quantity)) return;
        (kind == "limits" ? options.limits : options.requests)[one.first.Scalar()] = quantity;
      }
    }
  }

  // --- the environment -----------------------------------------------------------------------------------
  void read_environment() {
    std::set<std::string> known{"MCPGW_DATABASE", "MCPGW_TOKEN"};  // the latter is the command line's
    const auto read = [this](const std::string& variable, const ConfigKey& key) {
      const auto found = sources_.environment.find(variable);
      if (found == sources_.environment.end()) return;
      RawValue raw;
      raw.is_list = key.is_list;
      raw.text = found->second;
      if (key.is_list) raw.list = split_list(found->second);
      set(variable, key, raw);
    };
    for (const auto& key : config_key_table()) {
      const auto variable = environment_name(key.name);
      known.insert(variable);
      read(variable, key);
    }
    read("MCPGW_DATABASE", *find_key("database.url"));
    for (const auto& [name, value] : sources_.environment)
      if (name.compare(0, 6, "MCPGW_") == 0 && !known.count(name))
        out_.warnings.push_back(shown(name) + ": no such setting; the variable is ignored");
  }

  // --- what concerns several keys ------------------------------------------------------------------------
  std::string where_of(const std::string& key) const {
    const auto found = where_.find(key);
    return found == where_.end() ? "configuration" : found->second;
  }

  void check_whole() {
    auto& config = out_.config;
    if (config.database.kind == DatabaseConfig::Kind::postgres) {
      const auto where = where_of(where_.count("database.url") ? "database.url" : "database.host");
      if (config.needs_jwt_secret()) error(where, "jwt.secret is missing; with PostgreSQL it must be set");
      if (config.needs_encryption_key())
        error(where, "encryption.key is missing; with PostgreSQL it must be set");
    } else if (config.database.path.empty()) {
      config.database.path = config.data_dir + "/mcpgw.db";
    }
    const auto& replicas = config.replicas;
    if (!replicas.host.empty() && config.database.kind != DatabaseConfig::Kind::postgres)
      error(where_of("replicas.host"),
            "replicas.host needs PostgreSQL: other replicas must share the database");
    if ((replicas.host == "0.0.0.0" || replicas.host == "::") && replicas.url.empty())
      error(where_of("replicas.host"), "replicas.url is missing: how do the others reach this replica?");
    if (replicas.host.rfind("unix:", 0) == 0)
      error(where_of("replicas.host"), "replicas.host must be an address");
    const auto& tls = config.http.tls;
    if (tls.cert.empty() != tls.key.empty())
      error(where_of(tls.cert.empty() ? "server.tls.key" : "server.tls.cert"),
            "server.tls.cert and server.tls.key go together");
    if (!tls.client_ca.empty() && tls.cert.empty())
      error(where_of("server.tls.client_ca"),
            "server.tls.client_ca needs server.tls.cert and server.tls.key");
    if (!config.gateway.encryption.previous.empty() && config.needs_encryption_key())
      error(where_of("encryption.previous_keys"), "encryption.previous_keys needs encryption.key");
    if (!config.gateway.previous_jwt_secrets.empty() && config.needs_jwt_secret())
      error(where_of("jwt.previous_secrets"), "jwt.previous_secrets needs jwt.secret");
    config.http.max_body = std::max(config.gateway.limits.api_body, config.gateway.limits.mcp_body);
    warn_if(where_.count("telemetry.insecure") > 0, "telemetry.insecure",
            "has no effect: the URL's scheme decides");
    const auto any = [](const std::vector<std::string>& origins) {
      return std::find(origins.begin(), origins.end(), "*") != origins.end();
    };
    warn_if(any(config.gateway.cors.allowed_origins), "cors.allowed_origins",
            "lets pages of every origin read answers");
    warn_if(any(config.gateway.mcp_allowed_origins), "mcp.allowed_origins",
            "lets pages of every origin call tools");
  }

  void warn_if(bool condition, const std::string& key, const char* what) {
    if (condition) out_.warnings.push_back(where_of(key) + ": " + key + " " + what);
  }

  const ConfigSources& sources_;
  LoadedConfig out_;
  std::map<std::string, std::string> where_;  ///< key -> who set it last
  bool layer_has_url_ = false, layer_has_parts_ = false;
};

}  // namespace

LoadedConfig parse_config(const ConfigSources& sources) { return Loader(sources).load(); }

LoadedConfig load_config(const std::string& path, std::vector<ConfigSources::Option> options) {
  ConfigSources sources;
  sources.options = std::move(options);
  for (char** entry = environ; *entry; ++entry) {
    const std::string pair = *entry;
    const auto equals = pair.find('=');
    if (equals != std::string::npos) sources.environment[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  sources.file = path;
  if (path.empty() && ::access("./mcpgw.yaml", F_OK) == 0) sources.file = "./mcpgw.yaml";
  if (!sources.file.empty()) {
    LoadedConfig failed;
    struct stat info {};
    std::ifstream file(sources.file, std::ios::binary);
    if (!file || ::stat(sources.file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
      failed.errors.push_back(sources.file + ": cannot be read as a file");
      return failed;
    }
    std::ostringstream content;
    content << file.rdbuf();
    sources.text = content.str();
    if (sources.text.size() > kMaxFileBytes) {
      failed.errors.push_back(sources.file + ": is larger than 1 MiB");
      return failed;
    }
  }
  return parse_config(sources);
}

std::vector<std::string> config_keys() {
  std::vector<std::string> out;
  for (const auto& key : config_key_table()) out.push_back(key.name);
  return out;
}

std::string environment_name(std::string_view key) {
  std::string out = "MCPGW_";
  for (const char c : key) out += c == '.' ? '_' : (c >= 'a' && c <= 'z') ? static_cast<char>(c - 32) : c;
  return out;
}

}  // namespace mcpgw::app
