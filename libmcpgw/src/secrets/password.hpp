// Password hashing: scrypt (N 2^15, r 8, p 1), parameters stored with the hash; verifies imported bcrypt too.
#pragma once

#include <string>
#include <string_view>

#include "mcpgw/random.hpp"

namespace mcpgw::detail {

/// "$scrypt$ln=15,r=8,p=1$<salt>$<hash>" (base64 without padding). About 60 ms of CPU and 32 MiB.
std::string hash_password(std::string_view password, Random& random);
/// Same work for any well-formed hash. False for a malformed one, after the same work.
bool verify_password(std::string_view password, std::string_view hash);
/// Whether a hash that verified should be replaced (bcrypt, or other parameters).
bool needs_rehash(std::string_view hash);

}  // namespace mcpgw::detail
