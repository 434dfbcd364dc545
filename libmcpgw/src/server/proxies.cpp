#include "server/proxies.hpp"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

#include "base/text.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr std::size_t kMaxHops = 64;
constexpr AddressBytes kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0};

bool is_mapped(const AddressBytes& address) noexcept {
  return std::memcmp(address.data(), kMapped.data(), 12) == 0;
}

bool is_port(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == std::string_view::npos;
}

/// An address as proxies write it: bare, "1.2.3.4:80", "[2001:db8::1]", "[2001:db8::1]:80".
std::optional<AddressBytes> parse_node(std::string_view text) {
  text = trim(text);
  if (!text.empty() && text.front() == '[') {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view rest = text.substr(end + 1);
    if (!rest.empty() && (rest.front() != ':' || !is_port(rest.substr(1)))) return std::nullopt;
    return parse_address(text.substr(1, end - 1));
  }
  if (const auto colon = text.find(':');
      colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos) {
    if (!is_port(text.substr(colon + 1))) return std::nullopt;
    text = text.substr(0, colon);
  }
  return parse_address(text);
}

/// Elements of all headers of a name, in order; commas inside quotes do not separate.
std::vector<std::string_view> elements(const HttpHeaders& headers, std::string_view name) {
  std::vector<std::string_view> out;
  for (const auto& [key, value] : headers) {
    if (!iequals(key, name)) continue;
    const std::string_view text = value;
    bool quoted = false;
    std::size_t from = 0;
    for (std::size_t i = 0; i <= text.size(); ++i) {
      if (i < text.size() && text[i] == '"') quoted = !quoted;
      if (i == text.size() || (text[i] == ',' && !quoted)) {
        out.push_back(trim(text.substr(from, i - from)));
        from = i + 1;
      }
    }
  }
  return out;
}

/// A parameter of a Forwarded element, unquoted.
std::string_view parameter(std::string_view element, std::string_view name) {
  while (!element.empty()) {
    const auto semicolon = element.find(';');
    const std::string_view pair = trim(element.substr(0, semicolon));
    const auto equals = pair.find('=');
    if (equals != std::string_view::npos && iequals(pair.substr(0, equals), name)) {
      std::string_view value = pair.substr(equals + 1);
      if (value.size() >= 2 && value.front() == '"' && value.back() == '"')
        value = value.substr(1, value.size() - 2);
      return value;
    }
    if (semicolon == std::string_view::npos) break;
    element.remove_prefix(semicolon + 1);
  }
  return {};
}

}  // namespace

std::optional<AddressBytes> parse_address(std::string_view text) {
  if (text.empty() || text.size() >= INET6_ADDRSTRLEN) return std::nullopt;
  char buffer[INET6_ADDRSTRLEN];
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  if (std::memchr(buffer, '\0', text.size()) != nullptr) return std::nullopt;
  AddressBytes out = kMapped;
  if (::inet_pton(AF_INET, buffer, out.data() + 12) == 1) return out;
  if (::inet_pton(AF_INET6, buffer, out.data()) == 1) return out;
  return std::nullopt;
}

std::string format_address(const AddressBytes& address) {
  if (!is_mapped(address)) {
    char buffer[INET6_ADDRSTRLEN] = "";
    ::inet_ntop(AF_INET6, address.data(), buffer, sizeof buffer);
    return buffer;
  }
  // Once a request: inet_ntop() takes a printf for it.
  std::string out;
  for (std::size_t i = address.size() - 4; i < address.size(); ++i) {
    char digits[3];
    if (!out.empty()) out += '.';
    out.append(digits, std::to_chars(digits, std::end(digits), static_cast<unsigned>(address[i])).ptr);
  }
  return out;
}

Result<TrustedProxies> TrustedProxies::parse(const std::vector<std::string>& networks) {
  TrustedProxies out;
  for (const std::string& text : networks) {
    const auto slash = text.find('/');
    const auto address = parse_address(std::string_view(text).substr(0, slash));
    if (!address)
      return Error(ErrorCode::invalid_argument, "invalid_network",
                   "A trusted proxy is an address or a CIDR network", "trusted_proxies");
    const unsigned width = is_mapped(*address) ? 32 : 128;
    unsigned bits = width;
    if (slash != std::string::npos) {
      const std::string_view digits = std::string_view(text).substr(slash + 1);
      const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
      if (digits.empty() || failed != std::errc() || end != digits.data() + digits.size() || bits > width)
        return Error(ErrorCode::invalid_argument, "invalid_network",
                     "The prefix length of a trusted network is wrong", "trusted_proxies");
    }
    out.networks_.push_back({*address, bits + (128 - width)});
  }
  return out;
}

bool TrustedProxies::trusts(const AddressBytes& address) const noexcept {
  for (const Network& network : networks_) {
    const unsigned bytes = network.bits / 8;
    const unsigned rest = network.bits % 8;
    if (std::memcmp(address.data(), network.address.data(), bytes) != 0) continue;
    if (rest == 0 || ((address[bytes] ^ network.address[bytes]) >> (8 - rest)) == 0) return true;
  }
  return false;
}

TrustedProxies::Client TrustedProxies::client_of(const AddressBytes& peer, const HttpHeaders& headers,
                                                 bool tls) const {
  Client client;
  client.tls = tls;
  if (networks_.empty() || !trusts(peer)) {
    client.address = format_address(peer);
    return client;
  }
  std::vector<std::string_view> hops = elements(headers, "X-Forwarded-For");
  const std::vector<std::string_view> forwarded = elements(headers, "Forwarded");
  if (hops.empty())
    for (const std::string_view element : forwarded) hops.push_back(parameter(element, "for"));

  AddressBytes address = peer;
  for (std::size_t seen = 0; seen < hops.size() && seen < kMaxHops && trusts(address); ++seen) {
    const auto hop = parse_node(hops[hops.size() - 1 - seen]);
    if (!hop) break;  // not an address: the proxy that wrote it is the best we know
    address = *hop;
  }
  client.address = format_address(address);

  // The nearest proxy appends or overwrites: what stands left of its word may come from the client.
  const auto protos = elements(headers, "X-Forwarded-Proto");
  if (!protos.empty()) {
    client.tls = iequals(protos.back(), "https");
  } else if (!forwarded.empty()) {
    client.tls = iequals(parameter(forwarded.back(), "proto"), "https");
  }
  return client;
}

}  // namespace mcpgw::detail::server
