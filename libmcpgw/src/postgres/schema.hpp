// The tables of one database, by version.
#pragma once

#include "mcpgw/result.hpp"
#include "postgres/connection.hpp"

namespace mcpgw::detail::postgres {

/// Makes or updates the tables, in one transaction; of several programs that start at once one does it and
/// the others wait. unsupported/"schema_too_new" when a newer program made changes that this one cannot live
/// with.
Status migrate(Connection& connection, Deadline deadline);

/// unsupported/"schema_too_new"; not_found/"not_found" when there are no tables or older ones.
Status check_schema(Connection& connection, Deadline deadline);

/// The channel on which commits are announced.
inline constexpr const char* kChannel = "mcpgw_changes";
/// Keys of advisory locks: of migrations, and of appends to the audit log.
inline constexpr std::int64_t kMigrationLock = 0x6d63706777000001;
inline constexpr std::int64_t kAuditLock = 0x6d63706777000002;

}  // namespace mcpgw::detail::postgres
