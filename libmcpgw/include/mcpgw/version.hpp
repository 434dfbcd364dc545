// Version of the headers and of the linked library. Within a minor series the C++ API is source-compatible.
#pragma once

#define MCPGW_VERSION_MAJOR 0
#define MCPGW_VERSION_MINOR 1
#define MCPGW_VERSION_PATCH 0
#define MCPGW_VERSION "0.1.0"

namespace mcpgw {
/// Of the linked library: "0.1.0".
const char* version() noexcept;
/// The commit it was built from; "unknown" outside a checkout.
const char* commit() noexcept;
}  // namespace mcpgw
