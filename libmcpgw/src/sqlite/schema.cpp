#include "sqlite/schema.hpp"

#include <array>
#include <cstdint>

#include "sqlite/audit_store.hpp"

namespace mcpgw::detail::sqlite {
namespace {

constexpr std::int64_t kApplicationId = 0x6d637067;  // "mcpg": tells our files from those of other programs

// One text a version, never changed once released: version N+1 is made from version N.
constexpr std::array kMigrations = {
    // Keys are blobs, so that they compare byte by byte whatever they hold. An erased record stays as a
    // tombstone (value NULL) for a while: other processes find it by its seq, and its version goes on.
    // seq numbers commits: all rows of one commit share it.
    R"sql(
CREATE TABLE record(
  collection BLOB NOT NULL,
  key BLOB NOT NULL,
  value TEXT,
  version INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  erased_at INTEGER,
  UNIQUE(collection, key)
) STRICT;
CREATE INDEX record_seq ON record(seq);
CREATE INDEX record_erased ON record(erased_at) WHERE erased_at IS NOT NULL;

CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta(name, value) VALUES('seq', 0), ('version_floor', 0), ('purged_seq', 0);

CREATE TABLE audit(
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT UNIQUE,
  kind TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  user_email TEXT NOT NULL,
  method TEXT NOT NULL,
  target_name TEXT NOT NULL,
  tool TEXT NOT NULL,
  decision TEXT NOT NULL,
  policy_id TEXT NOT NULL,
  policy_name TEXT NOT NULL,
  response_status INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  error_code TEXT NOT NULL,
  duration_ms INTEGER NOT NULL,
  bytes_in INTEGER NOT NULL,
  bytes_out INTEGER NOT NULL,
  client_ip TEXT NOT NULL,
  client_name TEXT NOT NULL,
  trace_id TEXT NOT NULL,
  request_body TEXT NOT NULL
) STRICT;
CREATE INDEX audit_created_at ON audit(created_at);
CREATE INDEX audit_user_id ON audit(user_id);
CREATE INDEX audit_target_name ON audit(target_name);
CREATE INDEX audit_method ON audit(method);
CREATE INDEX audit_decision ON audit(decision);
CREATE INDEX audit_kind ON audit(kind);
CREATE INDEX audit_failed ON audit(failed);
)sql",
    // What nearly all rows have in common needs no index, and each index costs every call: a query for it
    // reads
    // the rows themselves, from the newest on (audit_store.cpp, Where).
    R"sql(
DROP INDEX audit_method;
DROP INDEX audit_decision;
DROP INDEX audit_kind;
DROP INDEX audit_failed;
CREATE INDEX audit_method ON audit(method) WHERE method <> 'tools/call';
CREATE INDEX audit_decision ON audit(decision) WHERE decision <> 'allow';
CREATE INDEX audit_kind ON audit(kind) WHERE kind <> 'mcp';
CREATE INDEX audit_failed ON audit(failed) WHERE failed <> 0;
)sql",
    // Rows that come together are packed together (audit_block.hpp): a record and its indexes cost a call
    // more
    // than all else that is written of it. A block is found by its first position, by the times of its rows,
    // and
    // by what they have that not nearly all rows have. What is in the table "audit" is packed too.
    R"sql(
CREATE TABLE audit_block(
  first INTEGER PRIMARY KEY,
  rows INTEGER NOT NULL,
  oldest INTEGER NOT NULL,
  newest INTEGER NOT NULL,
  first_id TEXT,
  data BLOB NOT NULL
) STRICT;
CREATE INDEX audit_block_oldest ON audit_block(oldest);
CREATE INDEX audit_block_first_id ON audit_block(first_id) WHERE first_id IS NOT NULL;
CREATE TABLE audit_key(
  what INTEGER NOT NULL,
  value BLOB NOT NULL,
  first INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  PRIMARY KEY(what, value, first)
) STRICT, WITHOUT ROWID;
)sql",
    // Nothing changes but what blocks say: texts are told by what differs from the row before. Blocks that are
    // there stay as they are.
    "",
};
constexpr std::int64_t kPacked = 3;  // the version that packs what older ones have stored
constexpr auto kLatest = static_cast<std::int64_t>(kMigrations.size());

}  // namespace

Status check_schema(Connection& connection) {
  auto transaction = Transaction::begin(connection, Transaction::Kind::read);
  if (!transaction) return transaction.error();
  auto application = connection.integer("PRAGMA application_id");
  if (!application) return application.error();
  auto version = connection.integer("PRAGMA user_version");
  if (!version) return version.error();
  auto objects = connection.integer("SELECT count(*) FROM sqlite_schema");
  if (!objects) return objects.error();
  const bool empty = *application == 0 && *version == 0 && *objects == 0;
  if (!empty && *application != kApplicationId)
    return Error{ErrorCode::unsupported, "foreign_database",
                 "The file is a database of another program; name a new file or one made by mcpgw."};
  if (*version > kLatest)
    return Error{
        ErrorCode::unsupported, "schema_too_new",
        "The database was written by a newer version of mcpgw; use that version or restore a backup."};
  return {};
}

Status migrate(Connection& connection) {
  if (auto version = connection.integer("PRAGMA user_version"); !version) {
    return version.error();
  } else if (*version == kLatest) {
    return check_schema(connection);
  }
  auto transaction = Transaction::begin(connection, Transaction::Kind::write);
  if (!transaction) return transaction.error();
  // Another process may have been faster.
  auto version = connection.integer("PRAGMA user_version");
  if (!version) return version.error();
  if (*version >= kLatest) {
    { const auto undone = std::move(*transaction); }
    return check_schema(connection);
  }
  for (auto step = *version; step < kLatest; ++step) {
    if (auto ok = connection.execute(kMigrations[static_cast<std::size_t>(step)]); !ok) return ok;
    if (step + 1 == kPacked)
      if (auto ok = pack_audit_rows(connection); !ok) return ok;
  }
  const std::string stamp = "PRAGMA application_id=" + std::to_string(kApplicationId) +
                            "; PRAGMA user_version=" + std::to_string(kLatest) + ";";
  if (auto ok = connection.execute(stamp.c_str()); !ok) return ok;
  return transaction->commit();
}

}  // namespace mcpgw::detail::sqlite
