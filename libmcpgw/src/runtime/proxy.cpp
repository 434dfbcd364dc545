#include "runtime/proxy.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include "base/text.hpp"
#include "runtime/url.hpp"

namespace mcpgw::detail {
namespace {

/// The bytes of an IPv4 or IPv6 literal; empty for a name.
std::string address_bytes(std::string_view text) {
  const std::string literal(text);
  char bytes[16];
  if (inet_pton(AF_INET, literal.c_str(), bytes) == 1) return std::string(bytes, 4);
  if (inet_pton(AF_INET6, literal.c_str(), bytes) == 1) return std::string(bytes, 16);
  return {};
}

bool in_network(const std::string& address, const std::string& network, int bits) {
  if (address.size() != network.size()) return false;
  for (std::size_t i = 0; i < address.size() && bits > 0; ++i, bits -= 8) {
    const unsigned mask = bits >= 8 ? 0xffU : 0xffU << (8 - bits);
    if (((static_cast<unsigned char>(address[i]) ^ static_cast<unsigned char>(network[i])) & mask & 0xffU) !=
        0)
      return false;
  }
  return true;
}

bool read_number(std::string_view text, int min, int max, int& out) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), out);
  return !text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size() && out >= min &&
         out <= max;
}

Error bad(const char* field, const char* message) {
  return {ErrorCode::invalid_argument, "invalid_request", message, field};
}

}  // namespace

bool Proxy::parse_rule(std::string_view text, Rule& rule) {
  text = trim(text);
  if (const auto slash = text.find('/'); slash != std::string_view::npos) {
    rule.network = address_bytes(text.substr(0, slash));
    return !rule.network.empty() &&
           read_number(text.substr(slash + 1), 0, static_cast<int>(rule.network.size()) * 8, rule.bits);
  }
  std::string_view host = text;
  if (address_bytes(text).empty()) {
    if (const auto colon = text.rfind(':'); colon != std::string_view::npos) {
      if (!read_number(text.substr(colon + 1), 1, 65535, rule.port)) return false;
      host = text.substr(0, colon);
    }
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  }
  rule.network = address_bytes(host);
  rule.bits = static_cast<int>(rule.network.size()) * 8;
  if (!rule.network.empty()) return true;
  if (host.substr(0, 2) == "*.") host.remove_prefix(1);
  if (!host.empty() && host.front() == '.') host.remove_prefix(1);
  if (!host.empty() && host.back() == '.') host.remove_suffix(1);
  rule.name = to_lower(host);
  return !rule.name.empty() && rule.name.size() <= 253 &&
         std::all_of(rule.name.begin(), rule.name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
         });
}

Result<Proxy> Proxy::parse(std::string_view url, const std::vector<std::string>& bypass) {
  constexpr std::string_view kScheme = "http://";
  constexpr const char* kForm = "A proxy is given as http://host:port, or http://user:password@host:port";
  Proxy out;
  if (to_lower(url.substr(0, kScheme.size())) != kScheme) return bad("proxy", kForm);
  url.remove_prefix(kScheme.size());
  const auto end = url.find_first_of("/?#");
  const std::string_view authority = url.substr(0, end);
  if (end != std::string_view::npos && url.substr(end) != "/") return bad("proxy", kForm);
  const auto at = authority.rfind('@');
  if (at != std::string_view::npos) {
    const auto user_info = percent_decode(authority.substr(0, at));
    if (!user_info || user_info->find(':') == std::string::npos || user_info->find('\0') != std::string::npos)
      return bad("proxy", kForm);
    out.authorization_ = "Basic " + base64(*user_info);
  }
  const auto place =
      parse_url(std::string(kScheme) +
                std::string(at == std::string_view::npos ? authority : authority.substr(at + 1)));
  if (!place) return bad("proxy", kForm);
  out.host_ = place->host;
  out.port_ = place->port;
  for (const std::string& text : bypass) {
    if (trim(text) == "*") {
      out.bypass_all_ = true;
      continue;
    }
    Rule rule;
    if (!parse_rule(text, rule)) return bad("no_proxy", "It must hold names, addresses, networks, or \"*\"");
    out.bypass_.push_back(std::move(rule));
  }
  return out;
}

bool Proxy::serves(std::string_view host, int port) const {
  if (bypass_all_) return false;
  if (!host.empty() && host.back() == '.') host.remove_suffix(1);
  const std::string address = address_bytes(host);
  for (const Rule& rule : bypass_) {
    if (rule.port != 0 && rule.port != port) continue;
    if (!rule.name.empty()) {
      if (!address.empty() || host.size() < rule.name.size()) continue;
      const std::size_t before = host.size() - rule.name.size();
      if (host.substr(before) == rule.name && (before == 0 || host[before - 1] == '.')) return false;
    } else if (!address.empty() && in_network(address, rule.network, rule.bits)) {
      return false;
    }
  }
  return true;
}

}  // namespace mcpgw::detail
