// The configured storage, whichever kind it is.
#pragma once

#include <memory>
#include <string>

#include "config.hpp"
#include "mcpgw/audit.hpp"
#include "mcpgw/storage.hpp"
#include "mcpgw/transfer.hpp"

namespace mcpgw::app {

struct Database {
  std::shared_ptr<Storage> storage;
  std::shared_ptr<AuditSink> audit;
};

/// Opens it; a SQLite file is made when there is none.
Result<Database> open_storage(const DatabaseConfig& config);

/// What it holds now; it must be there.
Result<std::unique_ptr<StorageSnapshot>> open_snapshot(const DatabaseConfig& config);

/// Whether there is a database already. With PostgreSQL always: a server has made it.
bool database_exists(const DatabaseConfig& config);

/// For logs: the file's path, or host and name of the database; no user, no password.
std::string database_text(const DatabaseConfig& config);

/// As libpq takes it: host='...' port=... and so on, with the password.
std::string postgres_parameters(const DatabaseConfig& config);

}  // namespace mcpgw::app
