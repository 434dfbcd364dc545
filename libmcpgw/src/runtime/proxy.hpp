// An HTTP proxy, and what is reached without it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/result.hpp"

namespace mcpgw::detail {

class Proxy {
 public:
  /// `url`: "http://[user:password@]host[:port]", port 80 by default. `bypass`: names ("example.com" and all
  /// below it), addresses, networks ("10.0.0.0/8", "fd00::/8"), each name or address with an optional
  /// ":port", or "*". invalid_argument, with the field "proxy" or "no_proxy"; the message shows no part of
  /// the URL.
  static Result<Proxy> parse(std::string_view url, const std::vector<std::string>& bypass);

  const std::string& host() const noexcept { return host_; }
  int port() const noexcept { return port_; }
  /// Value of Proxy-Authorization, a secret; empty: none.
  const std::string& authorization() const noexcept { return authorization_; }
  /// Whether `host` (lower case, no brackets) is reached through it.
  bool serves(std::string_view host, int port) const;

 private:
  struct Rule {
    std::string name;     // lower case, no dot at its ends; empty: a network
    std::string network;  // its bytes
    int bits = 0;
    int port = 0;  // 0: any
  };
  static bool parse_rule(std::string_view text, Rule& rule);

  std::string host_;
  int port_ = 0;
  std::string authorization_;
  std::vector<Rule> bypass_;
  bool bypass_all_ = false;
};

}  // namespace mcpgw::detail
