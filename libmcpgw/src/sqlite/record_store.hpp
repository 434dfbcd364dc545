// The Storage face of a database file.
#pragma once

#include <memory>

#include "mcpgw/storage.hpp"
#include "sqlite/database.hpp"

namespace mcpgw::detail::sqlite {

Result<std::shared_ptr<Storage>> open_record_store(std::shared_ptr<Database> database);

}  // namespace mcpgw::detail::sqlite
