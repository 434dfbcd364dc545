#include "runtime/url.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <vector>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxUrl = 16 * 1024;

bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

/// The scheme a reference starts with, without the colon; empty when it has none.
std::string_view scheme_of(std::string_view text) {
  if (text.empty() || !is_alpha(text[0])) return {};
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == ':') return text.substr(0, i);
    if (!is_alpha(text[i]) && !is_digit(text[i]) && text[i] != '+' && text[i] != '-' && text[i] != '.')
      return {};
  }
  return {};
}

bool valid_host_name(std::string_view host) {
  if (host.empty() || host.size() > 253 || host[0] == '.') return false;
  for (std::size_t i = 0; i < host.size(); ++i) {
    const char c = host[i];
    if (c == '.' && i > 0 && host[i - 1] == '.') return false;
    if (!is_alpha(c) && !is_digit(c) && c != '-' && c != '.' && c != '_') return false;
  }
  return true;
}

bool valid_ipv6(std::string_view host) {
  in6_addr ignored;
  return host.size() < INET6_ADDRSTRLEN && inet_pton(AF_INET6, std::string(host).c_str(), &ignored) == 1;
}

/// Path and query as RFC 3986 writes them: everything else must be percent-encoded.
bool valid_target(std::string_view target) {
  for (std::size_t i = 0; i < target.size(); ++i) {
    const char c = target[i];
    if (c == '%') {
      if (i + 2 >= target.size() || !is_hex(target[i + 1]) || !is_hex(target[i + 2])) return false;
      i += 2;
    } else if (!is_alpha(c) && !is_digit(c) &&
               std::string_view("-._~!$&'()*+,;=:@/?").find(c) == std::string_view::npos) {
      return false;
    }
  }
  return true;
}

std::optional<int> parse_port(std::string_view text) {
  if (text.size() > 5) return std::nullopt;
  int port = 0;
  for (const char c : text) {
    if (!is_digit(c)) return std::nullopt;
    port = port * 10 + (c - '0');
  }
  if (port < 1 || port > 65535) return std::nullopt;
  return port;
}

/// RFC 3986, 5.2.4.
std::string remove_dot_segments(std::string_view path) {
  std::vector<std::string_view> out;
  bool slash_at_end = true;
  std::size_t at = 0;
  while (at < path.size()) {
    const std::size_t next = std::min(path.find('/', at + 1), path.size());
    const std::string_view segment = path.substr(at + 1, next - at - 1);
    slash_at_end = segment == "." || segment == "..";
    if (segment == "..") {
      if (!out.empty()) out.pop_back();
    } else if (segment != ".") {
      out.push_back(segment);
    }
    at = next;
  }
  std::string text;
  for (const std::string_view segment : out) text.append("/").append(segment);
  if (slash_at_end) text += '/';
  return text;
}

}  // namespace

std::string Url::authority() const {
  std::string text = host.find(':') == std::string::npos ? host : "[" + host + "]";
  if (port != (tls() ? 443 : 80)) text += ":" + std::to_string(port);
  return text;
}

std::string Url::origin() const { return scheme + "://" + authority(); }

std::optional<Url> parse_url(std::string_view text) {
  if (text.size() > kMaxUrl) return std::nullopt;
  Url url;
  url.scheme = to_lower(scheme_of(text));
  if (url.scheme != "http" && url.scheme != "https") return std::nullopt;
  text.remove_prefix(url.scheme.size() + 1);
  if (text.substr(0, 2) != "//") return std::nullopt;
  text.remove_prefix(2);
  const std::size_t end = std::min(text.find_first_of("/?#"), text.size());
  std::string_view authority = text.substr(0, end);
  const std::string_view rest = text.substr(end);

  if (!authority.empty() && authority[0] == '[') {
    const std::size_t close = authority.find(']');
    if (close == std::string_view::npos || !valid_ipv6(authority.substr(1, close - 1))) return std::nullopt;
    url.host = to_lower(authority.substr(1, close - 1));
    authority.remove_prefix(close + 1);
  } else {
    const std::size_t colon = std::min(authority.find(':'), authority.size());
    if (!valid_host_name(authority.substr(0, colon))) return std::nullopt;
    url.host = to_lower(authority.substr(0, colon));
    authority.remove_prefix(colon);
  }
  url.port = url.tls() ? 443 : 80;
  if (!authority.empty()) {
    if (authority[0] != ':') return std::nullopt;
    if (authority.size() > 1) {
      const auto port = parse_port(authority.substr(1));
      if (!port) return std::nullopt;
      url.port = *port;
    }
  }

  if (!valid_target(rest)) return std::nullopt;  // '#' included: a fragment has no place in a request
  if (rest.empty() || rest[0] == '?') url.target = "/";
  url.target += rest;
  return url;
}

std::optional<Url> resolve_url(const Url& base, std::string_view reference) {
  if (reference.size() > kMaxUrl) return std::nullopt;
  if (!scheme_of(reference).empty()) return parse_url(reference);
  if (reference.substr(0, 2) == "//") return parse_url(base.scheme + ":" + std::string(reference));
  if (!valid_target(reference)) return std::nullopt;

  const std::string_view base_path = std::string_view(base.target).substr(0, base.target.find('?'));
  const std::size_t question = std::min(reference.find('?'), reference.size());
  const std::string_view path = reference.substr(0, question);
  Url url = base;
  if (reference.empty()) return url;
  if (path.empty()) {
    url.target = base_path;
  } else if (path[0] == '/') {
    url.target = remove_dot_segments(path);
  } else {
    url.target = remove_dot_segments(std::string(base_path.substr(0, base_path.rfind('/') + 1)).append(path));
  }
  url.target += reference.substr(question);
  return url;
}

}  // namespace mcpgw::detail
