// The tables of a database file, and how older files are brought up to date.
#pragma once

#include <string>

#include "mcpgw/result.hpp"
#include "sqlite/connection.hpp"

namespace mcpgw::detail::sqlite {

/// Whether this program may use the file: ok for an empty file and for one of ours that is not too new.
/// unsupported/"schema_too_new", unsupported/"foreign_database", data_loss/"storage_damaged". Only reads.
Status check_schema(Connection& connection);

/// Makes or updates the tables in one transaction; does nothing when they are up to date.
Status migrate(Connection& connection);

}  // namespace mcpgw::detail::sqlite
