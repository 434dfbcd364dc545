// Which encodings of an answer a client takes (RFC 9110 12.5.3).
#pragma once

#include "mcpgw/http.hpp"

namespace mcpgw::detail {

/// Whether the request's Accept-Encoding prefers gzip to the plain body, or permits nothing else.
bool accepts_gzip(const HttpHeaders& request);

}  // namespace mcpgw::detail
