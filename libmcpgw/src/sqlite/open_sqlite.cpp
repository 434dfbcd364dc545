#include <utility>

#include "mcpgw/sqlite.hpp"
#include "sqlite/audit_store.hpp"
#include "sqlite/database.hpp"
#include "sqlite/record_store.hpp"

namespace mcpgw {

Result<SqliteStorage> open_sqlite(const SqliteOptions& options) {
  auto database = detail::sqlite::Database::open(options);
  if (!database) return database.error();
  auto storage = detail::sqlite::open_record_store(*database);
  if (!storage) return storage.error();
  auto audit = detail::sqlite::open_audit_store(*database);
  if (!audit) return audit.error();
  return SqliteStorage{std::move(*storage), std::move(*audit)};
}

}  // namespace mcpgw
