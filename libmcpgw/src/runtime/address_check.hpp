#pragma once

#include <sys/socket.h>

namespace mcpgw::detail {

/// Whether this IPv4 or IPv6 address may be connected to (docs/credentials.md, "Addresses"). The forms of
/// IPv6 that carry an IPv4 address are judged as that address. Other families: never.
bool address_allowed(const sockaddr& address, bool allow_private, bool allow_metadata);

}  // namespace mcpgw::detail
