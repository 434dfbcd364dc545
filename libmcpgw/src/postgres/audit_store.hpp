#pragma once

#include <memory>

#include "mcpgw/audit.hpp"
#include "postgres/pool.hpp"

namespace mcpgw::detail::postgres {

/// The tables exist already.
std::shared_ptr<AuditSink> make_audit_store(std::shared_ptr<Pool> pool);

}  // namespace mcpgw::detail::postgres
