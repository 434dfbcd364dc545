// The SQLite backend keeps the contract, in a file and in memory.
#include "contract/sqlite_support.hpp"

struct SqliteFile {
  mcpgw::contract::TempDir directory;
  mcpgw::SqliteStorage database = mcpgw::contract::open_database(directory.file("gateway.db"));
  std::shared_ptr<mcpgw::Storage> storage = database.storage;
  std::shared_ptr<mcpgw::AuditSink> audit = database.audit;
};
struct SqliteMemory {
  mcpgw::SqliteStorage database = mcpgw::contract::open_database(":memory:");
  std::shared_ptr<mcpgw::Storage> storage = database.storage;
  std::shared_ptr<mcpgw::AuditSink> audit = database.audit;
};

#define MCPGW_STORAGE_BACKEND SqliteFile, SqliteMemory
#define MCPGW_AUDIT_BACKEND SqliteFile, SqliteMemory
#include "contract/audit_contract.hpp"
#include "contract/storage_contract.hpp"

TEST_CASE("sqlite: one gateway has it, so it counts in memory") { CHECK_FALSE(SqliteFile().storage->shared()); }
