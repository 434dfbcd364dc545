// gzip for large JSON answers.
#pragma once

#include <string>
#include <string_view>

#include "base/accept_encoding.hpp"
#include "mcpgw/http.hpp"

namespace mcpgw::detail::server {

/// Bodies below it are not worth the time.
constexpr std::size_t kCompressFrom = 16 * 1024;
/// Beyond it compressing takes more than a loop may spend on one client (a millisecond or so).
constexpr std::size_t kCompressOnLoop = 64 * 1024;

using detail::accepts_gzip;

/// JSON of some size, not encoded already, not pinned to its bytes by an ETag or no-transform.
bool may_compress(const HttpResponse& response);
/// Replaces the body when that makes it smaller.
void compress(HttpResponse& response);

}  // namespace mcpgw::detail::server
