// Secrets that nobody configured: made on first start and kept in <data_dir>/secrets.json, readable by the
// owner alone.
#pragma once

#include <string>

#include "mcpgw/random.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw::app {

struct StoredSecrets {
  std::string jwt_secret;
  std::string encryption_key;  ///< 32 bytes
  bool created = false;        ///< by this call
};

/// Makes the directory with mode 0700, or checks that it is a directory of ours with that mode: what is in it
/// must not be readable by others. `created` (may be null) tells which.
Status prepare_data_dir(const std::string& data_dir, bool* created);

/// Reads the secrets; makes them, atomically, when the file does not exist and `may_create`. Of several
/// processes that start at once all get the same ones. permission_denied/"insecure_file" for another owner,
/// mode or kind of file; data_loss/"secrets_damaged"; not_found/"secrets_missing".
Result<StoredSecrets> load_secrets(const std::string& data_dir, Random& random, bool may_create);

}  // namespace mcpgw::app
