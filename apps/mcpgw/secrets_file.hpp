// Secrets that nobody configured: made on first start and kept in <data_dir>/secrets.json, readable by the
// owner alone. The file is only ever replaced whole, so whoever reads it needs no lock.
#pragma once

#include <string>
#include <vector>

#include "mcpgw/random.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw::app {

struct StoredSecrets {
  std::string jwt_secret;
  std::string encryption_key;  ///< 32 bytes
  std::vector<std::string> previous_jwt_secrets;
  std::vector<std::string> previous_encryption_keys;  ///< 32 bytes each
  bool reseal_pending = false;                        ///< values may still be sealed with a previous key
  bool created = false;                               ///< by this call
};

/// Makes the directory with mode 0700, or checks that it is a directory of ours with that mode: what is in it
/// must not be readable by others. `created` (may be null) tells which.
Status prepare_data_dir(const std::string& data_dir, bool* created);

/// Reads the secrets; makes them, atomically, when the file does not exist and `may_create`. Of several
/// processes that start at once all get the same ones. permission_denied/"insecure_file" for another owner,
/// mode or kind of file; data_loss/"secrets_damaged"; not_found/"secrets_missing".
Result<StoredSecrets> load_secrets(const std::string& data_dir, Random& random, bool may_create);

enum class SecretKind { jwt, encryption };
/// Puts a new secret in force and keeps the old one to read with. For encryption, `reseal_pending` is set in
/// the same step; while it is, no further key is made and the present one is returned. Errors as above;
/// resource_exhausted/"too_many_keys".
Result<StoredSecrets> rotate_secret(const std::string& data_dir, SecretKind kind, Random& random);
/// Takes `reseal_pending` back, if this is still the key in force.
Status finish_reseal(const std::string& data_dir, const std::string& encryption_key);

}  // namespace mcpgw::app
