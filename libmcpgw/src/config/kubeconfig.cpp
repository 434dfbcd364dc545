#include "kubeconfig.hpp"

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <vector>

#include "config_values.hpp"

namespace mcpgw::app {
namespace {

constexpr std::size_t kMaxFileBytes = 4 * 1024 * 1024;

Error fault(std::string message) {
  return {ErrorCode::invalid_argument, "kubeconfig", std::move(message), "kubernetes.kubeconfig"};
}

std::optional<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad() || text.size() > kMaxFileBytes) return std::nullopt;
  return text;
}

/// A member's text; empty when it is absent or something else.
std::string text_of(const YAML::Node& map, const char* member) {
  if (!map.IsMap()) return {};
  const YAML::Node found = map[member];
  return found && found.IsScalar() ? found.Scalar() : std::string();
}

bool is_there(const YAML::Node& map, const char* member) {
  if (!map.IsMap()) return false;
  const YAML::Node found = map[member];
  return found && !found.IsNull() && !(found.IsScalar() && found.Scalar().empty());
}

/// `list` is one of [{name, <kind>: {...}}].
YAML::Node named(const YAML::Node& list, const std::string& name, const char* kind) {
  if (list && list.IsSequence())
    for (const auto& entry : list)
      if (entry.IsMap() && text_of(entry, "name") == name && entry[kind] && entry[kind].IsMap())
        return entry[kind];
  return YAML::Node(YAML::NodeType::Undefined);
}

class Reader {
 public:
  explicit Reader(const std::string& path) : directory_(std::filesystem::path(path).parent_path()) {}

  /// Data in the file itself, else what the file that it names holds.
  Result<std::string> material(const YAML::Node& map, const char* data, const char* file) const {
    if (is_there(map, data)) {
      auto bytes = decode_base64(text_of(map, data));
      if (!bytes) return fault(std::string("The kubeconfig's ") + data + " is not base64");
      return std::move(*bytes);
    }
    return file_of(map, file);
  }

  Result<std::string> file_of(const YAML::Node& map, const char* member) const {
    const std::string name = text_of(map, member);
    if (name.empty()) return std::string();
    const std::filesystem::path path(name);
    auto text = read_text(path.is_absolute() ? path.string() : (directory_ / path).string());
    if (!text)
      return fault(std::string("The file that the kubeconfig names as ") + member + " cannot be read");
    return std::move(*text);
  }

 private:
  const std::filesystem::path directory_;
};

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  return text;
}

Result<KubernetesAccess> read(const YAML::Node& root, const Reader& reader) {
  if (!root.IsMap()) return fault("The kubeconfig is not a map");
  const std::string current = text_of(root, "current-context");
  if (current.empty()) return fault("The kubeconfig has no current-context");
  const YAML::Node context = named(root["contexts"], current, "context");
  if (!context) return fault("The kubeconfig's current-context names no context");
  const YAML::Node cluster = named(root["clusters"], text_of(context, "cluster"), "cluster");
  if (!cluster) return fault("The kubeconfig's context names no cluster");
  const std::string user_name = text_of(context, "user");
  const YAML::Node user = named(root["users"], user_name, "user");
  if (!user && !user_name.empty()) return fault("The kubeconfig's context names a user that is not there");

  for (const char* member : {"tls-server-name", "proxy-url"})
    if (is_there(cluster, member))
      return fault(std::string("The kubeconfig's cluster has ") + member + ", which is not supported");
  KubernetesAccess out;
  out.server = text_of(cluster, "server");
  if (out.server.empty()) return fault("The kubeconfig's cluster has no server");
  out.verify = text_of(cluster, "insecure-skip-tls-verify") != "true";
  auto ca = reader.material(cluster, "certificate-authority-data", "certificate-authority");
  if (!ca) return ca.error();
  out.ca = std::move(*ca);
  if (!user) return out;

  for (const char* member : {"exec", "auth-provider", "username", "password", "as"})
    if (is_there(user, member))
      return fault(std::string("The kubeconfig's user has ") + member +
                   ", which is not supported: use a token, a tokenFile or a client certificate");
  auto certificate = reader.material(user, "client-certificate-data", "client-certificate");
  if (!certificate) return certificate.error();
  auto key = reader.material(user, "client-key-data", "client-key");
  if (!key) return key.error();
  out.client_cert = std::move(*certificate);
  out.client_key = std::move(*key);
  // As clients do: the file, which may hold a newer one, comes first.
  auto token = reader.file_of(user, "tokenFile");
  if (!token) return token.error();
  out.token = trimmed(token->empty() ? text_of(user, "token") : std::move(*token));
  return out;
}

}  // namespace

Result<KubernetesAccess> read_kubeconfig(const std::string& path) {
  const auto text = read_text(path);
  if (!text) return fault("The kubeconfig file cannot be read");
  try {
    return read(YAML::Load(*text), Reader(path));
  } catch (const YAML::Exception& error) {  // its text quotes no content
    return fault("The kubeconfig is not YAML: line " + std::to_string(error.mark.line + 1));
  }
}

}  // namespace mcpgw::app
