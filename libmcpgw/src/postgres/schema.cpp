#include "postgres/schema.hpp"

#include <vector>

namespace mcpgw::detail::postgres {
namespace {

// One list a version, never changed once released: version N+1 is made from version N. A version that
// programs of an older one can work with leaves kCompatible alone, so that replicas may be replaced one by
// one.
const std::vector<std::vector<const char*>>& migrations() {
  // Names, keys and values are bytes: they compare byte by byte whatever the locale, and values come back as
  // they were written. An erased record stays as a tombstone (value NULL) for a while: other replicas find it
  // by its seq, and its version goes on. seq numbers commits: all rows of one commit share it.
  static const std::vector<std::vector<const char*>> kMigrations = {{
      "CREATE TABLE mcpgw_record(collection bytea NOT NULL, key bytea NOT NULL, value bytea,"
      " version bigint NOT NULL, seq bigint NOT NULL, erased_at timestamptz, PRIMARY KEY(collection, key))",
      "CREATE INDEX mcpgw_record_seq ON mcpgw_record(seq)",
      "CREATE INDEX mcpgw_record_erased ON mcpgw_record(erased_at) WHERE erased_at IS NOT NULL",
      // One row, locked by each commit: so commits have an order.
      "CREATE TABLE mcpgw_state(only_row boolean PRIMARY KEY DEFAULT true CHECK(only_row),"
      " seq bigint NOT NULL DEFAULT 0, version_floor bigint NOT NULL DEFAULT 0,"
      " purged_seq bigint NOT NULL DEFAULT 0)",
      "INSERT INTO mcpgw_state DEFAULT VALUES",
      // Who made a commit: whoever lost the connection before the answer asks here what became of it.
      "CREATE TABLE mcpgw_commit(seq bigint PRIMARY KEY, token bigint NOT NULL,"
      " made_at timestamptz NOT NULL DEFAULT now())",
      "CREATE INDEX mcpgw_commit_made ON mcpgw_commit(made_at)",

      "CREATE TABLE mcpgw_audit(position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
      " id text COLLATE \"C\" UNIQUE, kind text COLLATE \"C\" NOT NULL, created_at bigint NOT NULL,"
      " session_id text COLLATE \"C\" NOT NULL, user_id text COLLATE \"C\" NOT NULL,"
      " user_email text COLLATE \"C\" NOT NULL, method text COLLATE \"C\" NOT NULL,"
      " target_name text COLLATE \"C\" NOT NULL, tool text COLLATE \"C\" NOT NULL,"
      " decision text COLLATE \"C\" NOT NULL, policy_id text COLLATE \"C\" NOT NULL,"
      " policy_name text COLLATE \"C\" NOT NULL, response_status bigint NOT NULL,"
      " error_code text COLLATE \"C\" NOT NULL, duration_ms bigint NOT NULL, bytes_in bigint NOT NULL,"
      " bytes_out bigint NOT NULL, client_ip text COLLATE \"C\" NOT NULL,"
      " client_name text COLLATE \"C\" NOT NULL, trace_id text COLLATE \"C\" NOT NULL,"
      " request_body text COLLATE \"C\" NOT NULL)",
      "COMMENT ON COLUMN mcpgw_audit.created_at IS 'microseconds since 1970-01-01 UTC'",
      "CREATE INDEX mcpgw_audit_created ON mcpgw_audit(created_at)",
      "CREATE INDEX mcpgw_audit_user ON mcpgw_audit(user_id, position)",
      "CREATE INDEX mcpgw_audit_target ON mcpgw_audit(target_name, position)",
      // What nearly all rows have in common needs no index, and each index costs every call.
      "CREATE INDEX mcpgw_audit_method ON mcpgw_audit(method, position) WHERE method <> 'tools/call'",
      "CREATE INDEX mcpgw_audit_decision ON mcpgw_audit(decision, position) WHERE decision <> 'allow'",
      "CREATE INDEX mcpgw_audit_kind ON mcpgw_audit(kind, position) WHERE kind <> 'mcp'",
      "CREATE INDEX mcpgw_audit_failed ON mcpgw_audit(position) WHERE response_status >= 400",
  }};
  return kMigrations;
}

/// The oldest version whose programs can work with the tables of the latest.
constexpr std::int64_t kCompatible = 1;

struct Found {
  std::int64_t version = 0;
  std::int64_t compatible = 0;
};

Result<Found> look(Connection& connection, Deadline deadline) {
  connection.send_text("SELECT count(*) FROM pg_class WHERE oid = to_regclass('mcpgw_schema')");
  auto exists = connection.run(deadline);
  if (!exists) return exists.error();
  if (exists->front().integer(0, 0) == 0) return Found{};
  connection.send_text("SELECT version, compatible FROM mcpgw_schema");
  auto rows = connection.run(deadline);
  if (!rows) return rows.error();
  if (rows->front().rows() != 1) return to_error("XX001");
  return Found{rows->front().integer(0, 0), rows->front().integer(0, 1)};
}

Status check(const Found& found) {
  if (found.compatible > static_cast<std::int64_t>(migrations().size()))
    return Error{
        ErrorCode::unsupported, "schema_too_new",
        "The database was changed by a newer version of mcpgw; use that version or restore a backup."};
  return {};
}

Status migrate_locked(Connection& connection, Deadline deadline) {
  const auto latest = static_cast<std::int64_t>(migrations().size());
  auto found = look(connection, deadline);  // another program may have been faster
  if (!found) return found.error();
  if (auto ok = check(*found); !ok) return ok;
  if (found->version >= latest) return {};
  if (found->version == 0)
    connection.send_text(
        "CREATE TABLE mcpgw_schema(only_row boolean PRIMARY KEY DEFAULT true CHECK(only_row),"
        " version bigint NOT NULL, compatible bigint NOT NULL)");
  for (auto step = found->version; step < latest; ++step)
    for (const auto* sql : migrations()[static_cast<std::size_t>(step)]) connection.send_text(sql);
  connection.send_text(
      "INSERT INTO mcpgw_schema(version, compatible) VALUES($1, $2) ON CONFLICT(only_row) DO UPDATE SET"
      " version=excluded.version, compatible=excluded.compatible",
      Parameters().add(latest).add(kCompatible));
  connection.send_text("COMMIT");
  auto done = connection.run(deadline);
  if (!done) return done.error();
  return {};
}

}  // namespace

Status check_schema(Connection& connection, Deadline deadline) {
  auto found = look(connection, deadline);
  if (!found) return found.error();
  if (auto ok = check(*found); !ok) return ok;
  if (found->version < static_cast<std::int64_t>(migrations().size()))
    return Error{
        ErrorCode::not_found, "not_found",
        "The database holds nothing of mcpgw, or what an older version left: start mcpgw on it first."};
  return {};
}

Status migrate(Connection& connection, Deadline deadline) {
  auto found = look(connection, deadline);
  if (!found) return found.error();
  if (auto ok = check(*found); !ok) return ok;
  if (found->version >= static_cast<std::int64_t>(migrations().size())) return {};
  connection.send_text("BEGIN");
  connection.send_text("SELECT pg_advisory_xact_lock($1)", Parameters().add(kMigrationLock));
  auto begun = connection.run(deadline);
  auto status = begun ? migrate_locked(connection, deadline) : Status(begun.error());
  if (!connection.broken() && !connection.idle()) {
    connection.send_text("ROLLBACK");
    (void)connection.run(deadline);
  }
  return status;
}

}  // namespace mcpgw::detail::postgres
