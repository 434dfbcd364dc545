// Random: the source of ids, tokens, nonces and salts.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace mcpgw {

/// Implementations are safe for concurrent use and, outside tests, cryptographically strong.
class Random {
 public:
  virtual ~Random() = default;
  /// Fills `size` bytes. Cannot fail: an implementation without entropy ends the process.
  virtual void fill(void* data, std::size_t size) = 0;
};

/// OpenSSL's generator.
std::shared_ptr<Random> make_system_random();

/// A version 4 UUID in lower case.
std::string make_uuid(Random& random);

}  // namespace mcpgw
