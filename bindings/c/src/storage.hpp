#pragma once

#include <memory>
#include <string>

#include "mcpgw/storage.hpp"
#include "support.hpp"

namespace mcpgw::capi {
class CallbackStorage;

/// 32 random bytes.
std::string make_up_key();
}  // namespace mcpgw::capi

struct mcpgw_storage {
  std::shared_ptr<mcpgw::Storage> storage;
  /// The same, when it is the host's.
  std::shared_ptr<mcpgw::capi::CallbackStorage> callbacks;
  /// Of memory: seals where encryption.key is not given. All that share the memory must open what one of them
  /// sealed.
  std::string made_up_key;
};
