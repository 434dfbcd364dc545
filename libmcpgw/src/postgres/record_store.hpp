#pragma once

#include <memory>

#include "mcpgw/result.hpp"
#include "mcpgw/storage.hpp"
#include "postgres/pool.hpp"

namespace mcpgw::detail::postgres {

Result<std::shared_ptr<Storage>> open_record_store(std::shared_ptr<Pool> pool);

}  // namespace mcpgw::detail::postgres
