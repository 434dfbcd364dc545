#include "sqlite/connection.hpp"

#include <utility>

namespace mcpgw::detail::sqlite {

Error to_error(int code) {
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return {ErrorCode::data_loss, "storage_damaged",
              "The database file is damaged or is no database; restore it from a backup."};
    case SQLITE_FULL:
      return {ErrorCode::unavailable, "storage_unavailable", "The database cannot grow: the disk is full."};
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {ErrorCode::unavailable, "storage_unavailable",
              "Another process holds the database for too long; try again later."};
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return {ErrorCode::unavailable, "storage_unavailable", "The database file may not be written."};
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_NOMEM:
    case SQLITE_PROTOCOL:
    case SQLITE_NOLFS:
    case SQLITE_INTERRUPT:
      return {ErrorCode::unavailable, "storage_unavailable",
              "The database does not answer; try again later."};
    case SQLITE_TOOBIG:
      return {ErrorCode::invalid_argument, "value_too_large", "The value is too large for the database."};
    default:
      return {ErrorCode::internal, "storage_failed", "The database refused a statement of this program."};
  }
}

// --- Statement -----------------------------------------------------------------------------------------

Statement::Statement(Statement&& other) noexcept
    : statement_(std::exchange(other.statement_, nullptr)),
      cached_(other.cached_),
      code_(other.code_),
      next_(other.next_) {}

Statement::~Statement() {
  if (!statement_) return;
  if (cached_)
    reset();
  else
    sqlite3_finalize(statement_);
}

Statement& Statement::bind(std::int64_t value) {
  if (code_ == SQLITE_OK) code_ = sqlite3_bind_int64(statement_, next_++, value);
  return *this;
}

// A null pointer would bind NULL, which is not the empty text.
Statement& Statement::bind_text(std::string_view text) {
  if (code_ == SQLITE_OK)
    code_ = sqlite3_bind_text64(statement_, next_++, text.empty() ? "" : text.data(), text.size(),
                                SQLITE_STATIC, SQLITE_UTF8);
  return *this;
}

Statement& Statement::bind_blob(std::string_view bytes) {
  if (code_ == SQLITE_OK)
    code_ = sqlite3_bind_blob64(statement_, next_++, bytes.empty() ? "" : bytes.data(), bytes.size(),
                                SQLITE_STATIC);
  return *this;
}

Statement& Statement::bind_null() {
  if (code_ == SQLITE_OK) code_ = sqlite3_bind_null(statement_, next_++);
  return *this;
}

Result<bool> Statement::step() {
  if (code_ != SQLITE_OK) return to_error(code_);
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  code_ = code;
  return to_error(code);
}

Status Statement::run() {
  for (;;) {
    auto row = step();
    if (!row) return row.error();
    if (!*row) return {};
  }
}

void Statement::reset() {
  if (!statement_) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  code_ = SQLITE_OK;
  next_ = 1;
}

std::int64_t Statement::integer(int column) { return sqlite3_column_int64(statement_, column); }

std::string Statement::bytes(int column) {
  const void* data = sqlite3_column_blob(statement_, column);  // for a text: its bytes as they are stored
  const int size = sqlite3_column_bytes(statement_, column);
  return data ? std::string(static_cast<const char*>(data), static_cast<std::size_t>(size)) : std::string();
}

bool Statement::is_null(int column) { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

// --- Connection ----------------------------------------------------------------------------------------

Result<std::unique_ptr<Connection>> Connection::open(const std::string& path, Access access,
                                                     int busy_timeout_ms) {
  const int flags = (access == Access::read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
                    (path == ":memory:" ? SQLITE_OPEN_CREATE : 0) | SQLITE_OPEN_NOMUTEX |
                    SQLITE_OPEN_EXRESCODE;
  // A library built to read names as URIs must not read ours so.
  const std::string name = path.rfind("file:", 0) == 0 ? "./" + path : path;
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(name.c_str(), &handle, flags, nullptr);
  std::unique_ptr<Connection> connection(new Connection(handle));  // also closes a handle that failed to open
  if (code != SQLITE_OK) return to_error(code);
  sqlite3_busy_timeout(handle, busy_timeout_ms);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  return connection;
}

Connection::~Connection() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close_v2(handle_);
}

Statement Connection::cached(const char* sql) {
  auto [at, added] = statements_.try_emplace(sql, nullptr);
  if (at->second) return {at->second, true, SQLITE_OK};
  const int code = sqlite3_prepare_v3(handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &at->second, nullptr);
  if (code != SQLITE_OK) {
    statements_.erase(at);
    return {nullptr, true, code};
  }
  return {at->second, true, SQLITE_OK};
}

Statement Connection::prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int code =
      sqlite3_prepare_v2(handle_, sql.c_str(), static_cast<int>(sql.size()), &statement, nullptr);
  return {statement, false, code};
}

Status Connection::execute(const char* sql) {
  const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return to_error(code);
  return {};
}

Result<std::int64_t> Connection::integer(const char* sql) {
  auto statement = cached(sql);
  auto row = statement.step();
  if (!row) return row.error();
  if (!*row) return to_error(SQLITE_CORRUPT);
  return statement.integer(0);
}

std::int64_t Connection::changes() const { return sqlite3_changes64(handle_); }

bool Connection::file_moved() const {
  int moved = 0;
  return sqlite3_file_control(handle_, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0;
}

// --- Transaction ---------------------------------------------------------------------------------------

Result<Transaction> Transaction::begin(Connection& connection, Kind kind) {
  // A write transaction takes its lock at once: later it could fail half-way for want of it.
  const char* sql = kind == Kind::write ? "BEGIN IMMEDIATE" : "BEGIN";
  if (auto ok = connection.cached(sql).run(); !ok) return ok.error();
  return Transaction(connection);
}

Transaction::Transaction(Transaction&& other) noexcept
    : connection_(std::exchange(other.connection_, nullptr)) {}

Transaction::~Transaction() {
  // After some errors SQLite has rolled back by itself.
  if (connection_ && sqlite3_get_autocommit(connection_->handle()) == 0)
    (void)connection_->cached("ROLLBACK").run();
}

Status Transaction::commit() {
  if (auto ok = connection_->cached("COMMIT").run(); !ok) return ok;
  connection_ = nullptr;
  return {};
}

}  // namespace mcpgw::detail::sqlite
