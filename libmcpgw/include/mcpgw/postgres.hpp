// The PostgreSQL backend: records and audit log in one database, shared by any number of gateways. Component
// mcpgw::postgres.
#pragma once

#include <memory>
#include <string>

#include "mcpgw/audit.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/storage.hpp"
#include "mcpgw/transfer.hpp"

namespace mcpgw {

struct PostgresOptions {
  /// "postgres://user:password@host:port/name?sslmode=verify-full&sslrootcert=..." or "host=... dbname=...",
  /// with every parameter of libpq. It appears in no error.
  std::string url;
  /// Connections at most, besides one that listens. At least 1.
  int max_connections = 8;
  /// For one connection to be made, in milliseconds. Name resolution is the system's and comes on top.
  int connect_timeout_ms = 5000;
  /// For one call, including the wait for a connection and for other writers, in milliseconds.
  int call_timeout_ms = 10000;
};

/// Both faces of one database. The connections are closed when the last of the two is destroyed.
struct PostgresStorage {
  std::shared_ptr<Storage> storage;
  std::shared_ptr<AuditSink> audit;
};

/// Connects and brings the schema up to date; several may start at once. Fails with
/// - invalid_argument "invalid_url": not something libpq understands;
/// - unavailable "storage_unavailable": the server does not answer (yet);
/// - permission_denied "storage_refused": user, password, client address, or right to make tables;
/// - permission_denied "storage_tls": what sslmode asks for is not met, or its files cannot be used;
/// - not_found "no_database";
/// - unsupported "schema_too_new", "encoding" (it must be UTF8), "server_too_old" (below 12).
/// Later failures of the connection are not final: calls fail with "storage_unavailable" until it is back.
Result<PostgresStorage> open_postgres_storage(const PostgresOptions& options);

/// What the database holds now. One connection is kept for as long as the snapshot lives. Errors as above;
/// not_found/"not_found" when there is nothing of mcpgw.
Result<std::unique_ptr<StorageSnapshot>> snapshot_postgres(const PostgresOptions& options);

}  // namespace mcpgw
