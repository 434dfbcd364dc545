// What the two start() functions share.
#pragma once

#include <optional>
#include <string>

#include "server/proxies.hpp"

namespace mcpgw::detail::server {

/// The address a host option names: an IP literal or "localhost".
std::optional<AddressBytes> listen_address(const std::string& host);
bool is_loopback(const AddressBytes& address) noexcept;

}  // namespace mcpgw::detail::server
