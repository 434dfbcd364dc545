// Rules for targets.
#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "base/text.hpp"
#include "storage/validate.hpp"
#include "storage/validate_support.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxSlug = 40;

bool is_target_name(std::string_view name) {
  return !name.empty() && name.size() <= 100 && is_alnum(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_alnum(c) || c == ' ' || c == '.' || c == '_' || c == '-'; });
}

bool is_slug(std::string_view slug) {
  return !slug.empty() && slug.size() <= kMaxSlug && is_lower_alnum(slug.front()) &&
         std::all_of(slug.begin(), slug.end(), [](char c) { return is_lower_alnum(c) || c == '-'; });
}

std::optional<int> parse_port(std::string_view text) {
  int port = 0;
  if (text.empty() || text.size() > 5) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port < 1 || port > 65535)
    return std::nullopt;
  return port;
}

// RFC 4291 text form without a zone: zones are local to a machine and have no place in a stored URL.
bool is_ipv6(std::string_view text) {
  int groups = 0;
  bool compressed = false;
  if (text.size() < 2 || text.size() > 45) return false;
  std::size_t at = 0;
  if (text.substr(0, 2) == "::") {
    compressed = true;
    at = 2;
  }
  while (at < text.size()) {
    std::size_t end = at;
    while (end < text.size() && text[end] != ':') ++end;
    const std::string_view group = text.substr(at, end - at);
    if (group.find('.') != std::string_view::npos) {  // the last 32 bits as IPv4
      if (end != text.size()) return false;
      const auto parts = split(group, '.');
      if (parts.size() != 4) return false;
      for (const std::string& part : parts)
        if (part.empty() || part.size() > 3 || !std::all_of(part.begin(), part.end(), is_digit) ||
            std::stoi(part) > 255)
          return false;
      groups += 2;
      break;
    }
    const bool hex =
        !group.empty() && group.size() <= 4 && std::all_of(group.begin(), group.end(), [](char c) {
          return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        });
    if (!hex) return false;
    ++groups;
    if (end == text.size()) break;
    at = end + 1;
    if (at < text.size() && text[at] == ':') {
      if (compressed) return false;
      compressed = true;
      ++at;
    } else if (at == text.size()) {
      return false;  // a single colon at the end
    }
  }
  return compressed ? groups <= 7 : groups == 8;
}

bool is_host_name(std::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  if (host.back() == '.') host.remove_suffix(1);
  for (const std::string& label : split(host, '.')) {
    if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') return false;
    // '_' is no host name character, but service names in container networks have it.
    if (!std::all_of(label.begin(), label.end(), [](char c) { return is_alnum(c) || c == '-' || c == '_'; }))
      return false;
  }
  return true;
}

// Together with the rest of a target these bounds stay below what a record may hold.
constexpr std::size_t kMaxCa = 256 * 1024;
constexpr std::size_t kMaxPem = 64 * 1024;
constexpr std::size_t kMaxArgBytes = 400 * 1000;

Status validate_pem(std::string_view text, std::string_view field, bool key, std::size_t max) {
  if (text.empty()) return {};
  if (text.size() > max)
    return invalid(field, "A PEM text must have at most " + std::to_string(max) + " bytes");
  if (auto status = validate_text(text, max, field, "\t\r\n"); !status) return status;
  const bool has_key = text.find("PRIVATE KEY-----") != std::string_view::npos;
  if (key) {
    if (!has_key || text.find("-----BEGIN ") == std::string_view::npos ||
        text.find("-----END ") == std::string_view::npos)
      return invalid(field, "client_key must be a private key in PEM form");
    if (text.find("ENCRYPTED") != std::string_view::npos)
      return invalid(field, "client_key must not be protected by a passphrase");
    return {};
  }
  // Certificates are shown to admins: a key among them would be shown too.
  if (has_key) return invalid(field, "A private key belongs into client_key");
  if (text.find("-----BEGIN CERTIFICATE-----") == std::string_view::npos ||
      text.find("-----END CERTIFICATE-----") == std::string_view::npos)
    return invalid(field, "Certificates must be in PEM form");
  return {};
}

Status validate_tls(const TargetTls& tls) {
  if (auto status = validate_pem(tls.ca, "tls", false, kMaxCa); !status) return status;
  if (auto status = validate_pem(tls.client_cert, "tls", false, kMaxPem); !status) return status;
  if (tls.client_key != kUnreadableClientKey)
    if (auto status = validate_pem(tls.client_key, "tls", true, kMaxPem); !status) return status;
  if (tls.client_cert.empty() != tls.client_key.empty())
    return invalid("tls", "client_cert and client_key belong together: give both or none");
  return {};
}

Status validate_lists(const Target& target) {
  if (target.args.size() > 100) return invalid("args", "args can have at most 100 entries");
  std::size_t arg_bytes = 0;
  for (const std::string& arg : target.args) {
    if (auto status = validate_text(arg, 4000, "args"); !status) return status;
    arg_bytes += arg.size();
  }
  if (arg_bytes > kMaxArgBytes)
    return invalid("args", "args must have at most " + std::to_string(kMaxArgBytes) + " bytes together");
  if (target.forward_headers.size() > 100)
    return invalid("forward_headers", "forward_headers can have at most 100 entries");
  std::set<std::string> seen;
  for (const std::string& name : target.forward_headers) {
    if (!is_header_name(name)) return invalid("forward_headers", "forward_headers must be HTTP header names");
    if (is_forbidden_header(name, true))
      return invalid("forward_headers", "The header " + name + " must not be forwarded");
    if (!seen.insert(to_lower(name)).second)
      return invalid("forward_headers", "forward_headers has the name " + name + " twice");
  }
  if (target.user_env_keys.size() > kMaxEnvWrites)
    return invalid("user_env_keys",
                   "user_env_keys can have at most " + std::to_string(kMaxEnvWrites) + " entries");
  for (const std::string& key : target.user_env_keys)
    if (key != "*" && !is_env_key(key))
      return invalid("user_env_keys", "user_env_keys must be environment variable names or *");
  return {};
}

// Members of other transports are stored too, so their form is checked whatever the transport is.
Status validate_form(const Target& target) {
  if (!target.url.empty() && !parse_target_url(target.url))
    return invalid(
        "url",
        "url must be an absolute http or https URL with a host, without user info and fragment, of at "
        "most 2000 characters");
  if (auto status = validate_text(target.command, 500, "command"); !status) return status;
  if (!target.image.empty() && !is_image_reference(target.image))
    return invalid("image", "image must be an image reference such as registry.example/team/server:1.2");
  if (!target.health_path.empty()) {
    if (auto status = validate_text(target.health_path, 500, "health_path"); !status) return status;
    if (target.health_path.front() != '/' || target.health_path.find_first_of(" #") != std::string::npos)
      return invalid("health_path", "health_path must be a URL path that starts with /");
  }
  if (!target.auth_header_name.empty()) {
    if (!is_header_name(target.auth_header_name))
      return invalid("auth_header_name", "auth_header_name must be an HTTP header name");
    if (is_forbidden_header(target.auth_header_name))
      return invalid("auth_header_name", "This header must not carry a credential");
  }
  if (target.tls) return validate_tls(*target.tls);
  return {};
}

Status validate_transport(const Target& target, const TargetRules& rules) {
  switch (target.transport_type) {
    case TransportType::streamable_http:
    case TransportType::sse:
      if (target.url.empty()) return invalid("url", "This transport needs a url");
      return {};
    case TransportType::kubernetes:
      if (target.image.empty()) return invalid("image", "This transport needs an image");
      return {};
    case TransportType::stdio:
      break;
  }
  if (trim(target.command).empty()) return invalid("command", "This transport needs a command");
  if (!rules.stdio_enabled)
    return invalid("transport_type", "The stdio transport is disabled on this gateway", "transport_disabled");
  const auto& allowed = rules.stdio_allowed_commands;
  if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), target.command) == allowed.end())
    return invalid("command", "This command is not among the permitted ones", "command_not_allowed");
  return {};
}

}  // namespace

std::optional<UrlParts> parse_target_url(std::string_view text) {
  if (text.size() > 2000) return std::nullopt;
  // Printable ASCII only: anything else must be percent-encoded (RFC 3986).
  if (!std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; })) return std::nullopt;
  if (text.find_first_of("#\\\"<>^`{|}") != std::string_view::npos) return std::nullopt;
  UrlParts url;
  std::string_view rest;
  if (starts_with_icase(text, "http://")) {
    url.scheme = "http";
    url.port = 80;
    rest = text.substr(7);
  } else if (starts_with_icase(text, "https://")) {
    url.scheme = "https";
    url.port = 443;
    rest = text.substr(8);
  } else {
    return std::nullopt;
  }
  const auto end = rest.find_first_of("/?");
  std::string_view authority = rest.substr(0, end);
  if (!percent_decode(end == std::string_view::npos ? std::string_view{} : rest.substr(end)))
    return std::nullopt;
  if (authority.find('@') != std::string_view::npos) return std::nullopt;
  std::string_view host = authority;
  std::string_view port;
  if (!authority.empty() && authority.front() == '[') {
    const auto close = authority.find(']');
    if (close == std::string_view::npos || !is_ipv6(authority.substr(1, close - 1))) return std::nullopt;
    host = authority.substr(0, close + 1);
    port = authority.substr(close + 1);
    if (!port.empty() && port.front() != ':') return std::nullopt;
  } else {
    const auto colon = authority.find(':');
    host = authority.substr(0, colon);
    if (colon != std::string_view::npos) port = authority.substr(colon);
    if (!is_host_name(host)) return std::nullopt;
  }
  if (!port.empty()) {
    const auto number = parse_port(port.substr(1));
    if (!number) return std::nullopt;
    url.port = *number;
  }
  url.host = to_lower(host);
  return url;
}

namespace {

// [a-z0-9]+ groups joined by ".", "_", "__" or any number of "-".
bool is_image_component(std::string_view text) {
  if (text.empty() || !is_lower_alnum(text.front()) || !is_lower_alnum(text.back())) return false;
  for (std::size_t i = 0; i < text.size();) {
    if (is_lower_alnum(text[i])) {
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && !is_lower_alnum(text[end])) ++end;
    const std::string_view joint = text.substr(i, end - i);
    const bool dashes = joint.find_first_not_of('-') == std::string_view::npos;
    if (joint != "." && joint != "_" && joint != "__" && !dashes) return false;
    i = end;
  }
  return true;
}

struct ImageParts {
  std::string_view repository;
  std::optional<std::string_view> tag;
  std::optional<std::string_view> digest;
};

ImageParts split_image(std::string_view image) {
  ImageParts parts;
  if (const auto at = image.find('@'); at != std::string_view::npos) {
    parts.digest = image.substr(at + 1);
    image = image.substr(0, at);
  }
  const auto slash = image.rfind('/');
  const auto colon = image.find(':', slash == std::string_view::npos ? 0 : slash);
  if (colon != std::string_view::npos) {
    parts.tag = image.substr(colon + 1);
    image = image.substr(0, colon);
  }
  parts.repository = image;
  return parts;
}

bool is_tag(std::string_view tag) {
  return !tag.empty() && tag.size() <= 128 && (is_alnum(tag.front()) || tag.front() == '_') &&
         std::all_of(tag.begin(), tag.end(),
                     [](char c) { return is_alnum(c) || c == '_' || c == '.' || c == '-'; });
}

bool is_digest(std::string_view digest) {
  const auto colon = digest.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view algorithm = digest.substr(0, colon);
  const std::string_view hex = digest.substr(colon + 1);
  return std::all_of(algorithm.begin(), algorithm.end(),
                     [](char c) { return is_alnum(c) || c == '+' || c == '.' || c == '_' || c == '-'; }) &&
         hex.size() >= 32 &&
         std::all_of(hex.begin(), hex.end(), [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); });
}

}  // namespace

bool is_image_reference(std::string_view text) {
  if (text.empty() || text.size() > 500) return false;
  const ImageParts parts = split_image(text);
  if (parts.tag && !is_tag(*parts.tag)) return false;
  if (parts.digest && !is_digest(*parts.digest)) return false;
  auto components = split(parts.repository, '/');
  const bool registry = components.size() > 1 && (components[0].find_first_of(".:") != std::string::npos ||
                                                  components[0] == "localhost");
  std::size_t first = 0;
  if (registry) {
    const std::string_view authority = components[0];
    const auto colon = authority.rfind(':');
    if (!is_host_name(authority.substr(0, colon))) return false;
    if (colon != std::string_view::npos && !parse_port(authority.substr(colon + 1))) return false;
    first = 1;
  }
  return std::all_of(components.begin() + static_cast<std::ptrdiff_t>(first), components.end(),
                     [](const std::string& component) { return is_image_component(component); });
}

std::string image_repository(std::string_view image) { return std::string(split_image(image).repository); }

bool is_header_name(std::string_view name) noexcept {
  constexpr std::string_view marks = "!#$%&'*+-.^_`|~";
  return !name.empty() && name.size() <= 100 && std::all_of(name.begin(), name.end(), [&](char c) {
    return is_alnum(c) || marks.find(c) != std::string_view::npos;
  });
}

bool is_forbidden_header(std::string_view name, bool forwarded) noexcept {
  constexpr std::array<std::string_view, 15> names{
      "Host",      "Transfer-Encoding", "TE",     "Trailer", "Connection", "Keep-Alive",    "Upgrade",
      "Accept",    "Accept-Encoding",   "Origin", "Cookie",  "Forwarded",  "Last-Event-ID", "traceparent",
      "tracestate"};
  constexpr std::array<std::string_view, 3> prefixes{"Content-", "Mcp-", "X-Forwarded-"};
  for (const auto candidate : names)
    if (iequals(name, candidate)) return true;
  for (const auto prefix : prefixes)
    if (starts_with_icase(name, prefix)) return true;
  return forwarded && (iequals(name, "Authorization") || starts_with_icase(name, "Proxy-"));
}

Status validate_target(Target& target, const TargetRules& rules) {
  target.name = std::string(trim(target.name));
  if (!is_target_name(target.name))
    return invalid(
        "name",
        "name must be 1 to 100 letters, digits, spaces, '.', '_' or '-', and start with a letter or "
        "digit");
  if (!target.slug.empty() && !is_slug(target.slug))
    return invalid("slug", "slug must be 1 to 40 of a-z, 0-9 and '-', and start with a letter or digit");
  if (target.port == 0) target.port = 8080;
  if (target.port < 1 || target.port > 65535) return invalid("port", "port must be between 1 and 65535");
  if (target.timeout_ms < 1000 || target.timeout_ms > 3600000)
    return invalid("timeout_ms", "timeout_ms must be between 1000 and 3600000");
  if (target.max_concurrency && (*target.max_concurrency < 1 || *target.max_concurrency > 10000))
    return invalid("max_concurrency", "max_concurrency must be between 1 and 10000");
  if (auto status = validate_form(target); !status) return status;
  if (auto status = validate_lists(target); !status) return status;
  if (target.auth_type == AuthType::header && target.auth_header_name.empty())
    return invalid("auth_header_name", "auth_type header needs auth_header_name");
  return validate_transport(target, rules);
}

std::string derive_slug(std::string_view name) {
  std::string slug;
  for (char c : to_lower(name)) {
    if (is_lower_alnum(c)) {
      slug += c;
    } else if (!slug.empty() && slug.back() != '-') {
      slug += '-';
    }
  }
  if (!slug.empty() && slug.back() == '-') slug.pop_back();
  slug.resize(std::min(slug.size(), kMaxSlug));
  return slug;
}

std::string numbered_slug(std::string_view slug, unsigned number) {
  const std::string suffix = "-" + std::to_string(number);
  return std::string(slug.substr(0, kMaxSlug - suffix.size())) + suffix;
}

std::string target_destination(const Target& target) {
  switch (target.transport_type) {
    case TransportType::stdio:
      return "stdio " + target.command;
    case TransportType::kubernetes:
      return "kubernetes " + image_repository(target.image);
    case TransportType::streamable_http:
    case TransportType::sse:
      break;
  }
  const auto url = parse_target_url(target.url);
  // A stored URL that no longer parses is its own destination: leaving it asks what becomes of credentials.
  if (!url) return "http " + target.url;
  return "http " + url->scheme + "://" + url->host + ":" + std::to_string(url->port);
}

}  // namespace mcpgw::detail
