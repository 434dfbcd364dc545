// URLs as far as an HTTP client needs them (RFC 3986).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mcpgw::detail {

struct Url {
  std::string scheme;  ///< "http" or "https", lower case
  std::string host;    ///< lower case, without brackets
  int port = 0;        ///< explicit or the scheme's default
  std::string target;  ///< path and query, at least "/"

  bool tls() const { return scheme == "https"; }
  /// "https://host:8443": port only when it is not the default, IPv6 in brackets.
  std::string origin() const;
  /// The Host header's value.
  std::string authority() const;
};

/// Absolute http or https URL with a host, without user info and fragment; nullopt otherwise.
std::optional<Url> parse_url(std::string_view text);
/// Resolves a reference (absolute URL, or absolute or relative path) against a base.
std::optional<Url> resolve_url(const Url& base, std::string_view reference);

}  // namespace mcpgw::detail
