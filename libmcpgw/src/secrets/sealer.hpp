// Sealer: AES-256-GCM for secrets at rest. The key's id travels with the value, and the record's identity is
// the associated data, so a value that is moved to another record does not open.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/random.hpp"
#include "mcpgw/repository.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class Sealer {
 public:
  /// invalid_argument when a key is not 32 bytes long. A null `random` is the system's.
  static Result<std::shared_ptr<Sealer>> create(const EncryptionKeys& keys, std::shared_ptr<Random> random);
  virtual ~Sealer() = default;

  /// "v1.<key id>.<base64url of nonce, ciphertext, tag>". As with Random, a crypto library that cannot
  /// encrypt ends the process. `plain` and `identity` have at most 64 MiB.
  virtual std::string seal(std::string_view plain, std::string_view identity) const = 0;
  /// data_loss/"credential_unavailable": unknown key, damaged value, other identity.
  virtual Result<std::string> open(std::string_view sealed, std::string_view identity) const = 0;
  /// Whether `sealed` was made with the current key.
  virtual bool is_current(std::string_view sealed) const = 0;
  /// Whether its key is one of ours.
  virtual bool knows(std::string_view sealed) const = 0;
  virtual std::string current_key_id() const = 0;
  /// As seal(), with a key that is among key_ids().
  virtual std::string seal_with(std::string_view key_id, std::string_view plain,
                                std::string_view identity) const = 0;
  /// Of all keys that open.
  virtual std::vector<std::string> key_ids() const = 0;

  /// The id of the key that made `sealed`; empty when it is not of our form.
  static std::string_view key_id_of(std::string_view sealed);
};

}  // namespace mcpgw::detail
