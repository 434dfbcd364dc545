// What an HTTP target receives: the credential in its header, the environment as X-Env-* headers.
#include <algorithm>

#include "base/text.hpp"
#include "mcpgw/resolvers.hpp"
#include "storage/validate.hpp"

namespace mcpgw {

using namespace detail;

namespace {

Error unusable(const char* what) {
  return {ErrorCode::data_loss, "credential_unavailable",
          std::string("The stored value of ") + what + " cannot be used"};
}

/// Printable, without anything that could end a header line.
bool header_value(std::string_view value) { return is_utf8(value) && !has_control(value, "\t"); }

/// "Basic abc": a scheme and something behind it. A bearer token itself has no space.
bool has_scheme(std::string_view value) {
  const auto space = value.find(' ');
  if (space == std::string_view::npos || space == 0 || space + 1 == value.size()) return false;
  return std::all_of(value.begin(), value.begin() + static_cast<std::ptrdiff_t>(space), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '+';
  });
}

}  // namespace

Result<HttpTargetAccess> http_target_access(const Target& target,
                                            const std::map<std::string, std::string>& env,
                                            const std::optional<ResolvedCredential>& credential) {
  HttpTargetAccess out;
  out.url = target.url;
  out.timeout_ms = target.timeout_ms;
  std::string header = target.auth_type == AuthType::header ? target.auth_header_name : "Authorization";
  for (const auto& [key, value] : env) {
    if (key == "AUTH_TOKEN") continue;  // the credential, below
    if (key == "BASE_URL") {
      if (!parse_target_url(value)) return unusable("BASE_URL");
      out.url = value;
    } else if (key == "TIMEOUT") {
      const auto duration = parse_go_duration(value);
      if (!duration || *duration < std::chrono::seconds(1)) return unusable("TIMEOUT");
      out.timeout_ms = std::chrono::duration_cast<std::chrono::milliseconds>(*duration).count();
    } else if (key == "AUTH_HEADER") {
      if (!is_header_name(value) || is_forbidden_header(value)) return unusable("AUTH_HEADER");
      header = value;
    } else {
      if (!header_value(value)) return unusable("an environment entry");
      std::string name = "X-Env-" + key;
      std::replace(name.begin(), name.end(), '_', '-');  // many proxies drop names with "_"
      out.headers.emplace_back(std::move(name), value);
    }
  }
  if (!credential) return out;
  if (credential->value.empty() || !header_value(credential->value) || !is_header_name(header))
    return unusable("the credential");
  const bool raw = !iequals(header, "Authorization") || target.auth_type == AuthType::header ||
                   has_scheme(credential->value);
  out.headers.emplace_back(std::move(header), raw ? credential->value : "Bearer " + credential->value);
  return out;
}

}  // namespace mcpgw
