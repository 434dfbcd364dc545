// Options of the C interface: the keys of docs/configuration.md in a JSON object.
#pragma once

#include <string_view>

#include "config.hpp"
#include "mcpgw/audit.hpp"
#include "mcpgw/storage.hpp"
#include "storage.hpp"
#include "support.hpp"

namespace mcpgw::capi {

/// An embedder's defaults: memory, no processes, a free port of this host.
app::Config default_options();
/// Puts the members of a JSON object (an empty text: none) over `config`. invalid_argument/"invalid_options",
/// "unknown_option" or "invalid_option", `field` names the key; no value is in the message.
Status apply_options(std::string_view json, app::Config& config);

struct OpenedStorage {
  std::shared_ptr<Storage> storage;
  std::shared_ptr<AuditSink> audit;
};
/// `given`, else the database that is named, else memory. What outlives the process needs encryption.key; for
/// memory a key that is missing is put into `config`.
Result<OpenedStorage> open_storage(app::Config& config, const mcpgw_storage* given);

}  // namespace mcpgw::capi
