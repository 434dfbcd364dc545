// The PostgreSQL backend keeps the contract.
#include "contract/postgres_support.hpp"

struct Postgres {
  mcpgw::contract::PostgresServer& server = mcpgw::contract::PostgresServer::shared();
  std::string database = server.make_database();
  mcpgw::PostgresStorage opened = mcpgw::contract::open_postgres(server.url_of(database));
  std::shared_ptr<mcpgw::Storage> storage = opened.storage;
  std::shared_ptr<mcpgw::AuditSink> audit = opened.audit;
};

#define MCPGW_STORAGE_BACKEND Postgres
#define MCPGW_AUDIT_BACKEND Postgres
#include "contract/audit_contract.hpp"
#include "contract/storage_contract.hpp"

TEST_CASE("postgres: others may share it") { CHECK(Postgres().storage->shared()); }
