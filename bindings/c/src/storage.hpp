#pragma once

#include <memory>

#include "mcpgw/storage.hpp"
#include "support.hpp"

namespace mcpgw::capi {
class CallbackStorage;
}

struct mcpgw_storage {
  std::shared_ptr<mcpgw::Storage> storage;
  /// The same, when it is the host's.
  std::shared_ptr<mcpgw::capi::CallbackStorage> callbacks;
};
