// What of a body may be kept in the audit log.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mcpgw::detail {

/// A member of this name holds a secret: password, token, api_key and their kind, in any case.
bool is_secret_name(std::string_view name);

struct RedactRules {
  bool by_name = true;                    ///< off: only `secrets` are removed
  std::vector<std::string> secrets;       ///< texts that must not be kept, wherever they stand
  std::vector<std::string> secret_names;  ///< further names whose values, of any shape, are secret
  std::size_t max_bytes = 64 * 1024;
  std::string method;  ///< named in what replaces a body over the limit
};

/// `body` (a JSON object) with every secret replaced by "[redacted]". Empty when it is no JSON object.
std::string redact_body(std::string_view body, const RedactRules& rules);

}  // namespace mcpgw::detail
