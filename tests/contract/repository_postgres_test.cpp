// Repository over PostgreSQL: the contract between two connections.
#include "contract/postgres_support.hpp"
#include "unit/repository_support.hpp"

namespace {

struct PostgresPlace {
  mcpgw::contract::PostgresServer& server = mcpgw::contract::PostgresServer::shared();
  std::string database = server.make_database();
  mcpgw::RepositoryOptions options() {
    mcpgw::RepositoryOptions out;
    out.storage = mcpgw::contract::open_postgres(server.url_of(database)).storage;
    out.keys = mcpgw::test::keys();
    return out;
  }
};

}  // namespace

#define MCPGW_REPOSITORY_PLACE PostgresPlace
#include "contract/repository_contract.hpp"
