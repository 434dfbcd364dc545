// Which peers are proxies of ours, and what they say about the client (X-Forwarded-For, X-Forwarded-Proto,
// Forwarded). Nothing of these headers counts unless the peer is trusted.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/http.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw::detail::server {

/// IPv6, or IPv4 as ::ffff:a.b.c.d.
using AddressBytes = std::array<std::uint8_t, 16>;

std::optional<AddressBytes> parse_address(std::string_view text);
/// IPv4-mapped addresses in their IPv4 form.
std::string format_address(const AddressBytes& address);

class TrustedProxies {
 public:
  /// invalid_argument/"invalid_network" for what is neither an address nor a CIDR network.
  static Result<TrustedProxies> parse(const std::vector<std::string>& networks);

  bool empty() const noexcept { return networks_.empty(); }
  bool trusts(const AddressBytes& address) const noexcept;

  struct Client {
    std::string address;
    bool tls = false;
  };
  /// The client as trusted proxies tell it: from right to left through them, to the first that is not one.
  /// `tls`: whether our own connection is secure, which counts unless a proxy says otherwise.
  Client client_of(const AddressBytes& peer, const HttpHeaders& headers, bool tls = false) const;

 private:
  struct Network {
    AddressBytes address;
    unsigned bits;
  };
  std::vector<Network> networks_;
};

}  // namespace mcpgw::detail::server
