// Password hashing: scrypt (N 2^15, r 8, p 1), parameters stored with the hash; verifies imported bcrypt too.
#pragma once

#include <string>
#include <string_view>

#include "mcpgw/random.hpp"

namespace mcpgw::detail {

/// "$scrypt$ln=15,r=8,p=1$<salt>$<hash>" (base64 without padding). About 60 ms of CPU and 32 MiB.
/// Empty when the crypto library refuses (no memory): a text that no password matches.
std::string hash_password(std::string_view password, Random& random);
/// False for a text that is no hash, after the work of hash_password(): the time of an answer does not tell
/// whether there was a hash. (An imported bcrypt hash costs what its own parameter says, until it is
/// replaced.)
bool verify_password(std::string_view password, std::string_view hash);
/// Whether verify_password() could ever say yes: scrypt or bcrypt in exact form, with a bounded cost. For
/// imports.
bool is_password_hash(std::string_view hash);
/// Whether a hash that verified should be replaced (bcrypt, or other parameters).
bool needs_rehash(std::string_view hash);

}  // namespace mcpgw::detail
