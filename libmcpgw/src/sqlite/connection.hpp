// One SQLite connection and its statements. Used by one thread at a time: Database hands connections out.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "mcpgw/result.hpp"

namespace mcpgw::detail::sqlite {

/// What a result code means to the caller. Never SQLite's text: it may hold SQL or a path.
Error to_error(int code);

/// A prepared statement in use. Parameters are bound in order; bound texts must outlive the last step.
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement();  ///< resets a cached statement, so that it holds no read transaction open

  Statement& bind(std::int64_t value);
  Statement& bind_text(std::string_view text);
  Statement& bind_blob(std::string_view bytes);
  Statement& bind_null();

  /// true: a row is there to read.
  Result<bool> step();
  /// Runs to the end, passing over rows.
  Status run();
  /// Makes it ready to be bound and run again.
  void reset();

  std::int64_t integer(int column);
  std::string bytes(int column);  ///< a text's or blob's bytes; empty for NULL
  bool is_null(int column);

 private:
  friend class Connection;
  Statement(sqlite3_stmt* statement, bool cached, int code)
      : statement_(statement), cached_(cached), code_(code) {}

  sqlite3_stmt* statement_;
  bool cached_;
  int code_;  // the first failure; every later step reports it
  int next_ = 1;
};

class Connection {
 public:
  enum class Access { read_write, read_only };

  /// The file must exist, unless it is ":memory:".
  static Result<std::unique_ptr<Connection>> open(const std::string& path, Access access,
                                                  int busy_timeout_ms);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Kept prepared for the life of the connection. `sql` is a literal.
  Statement cached(const char* sql);
  /// Prepared for this use.
  Statement prepare(const std::string& sql);
  /// One or more statements without parameters; rows are passed over.
  Status execute(const char* sql);
  /// The integer of a statement with one row and column.
  Result<std::int64_t> integer(const char* sql);
  /// Rows changed by the last statement.
  std::int64_t changes() const;
  /// Whether the file was moved or deleted under us: what is written then is lost.
  bool file_moved() const;
  sqlite3* handle() const { return handle_; }

 private:
  explicit Connection(sqlite3* handle) : handle_(handle) {}

  sqlite3* handle_;
  std::unordered_map<const char*, sqlite3_stmt*> statements_;
};

/// A transaction that is undone unless committed.
class Transaction {
 public:
  enum class Kind { read, write };
  static Result<Transaction> begin(Connection& connection, Kind kind);
  Transaction(Transaction&& other) noexcept;
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();
  Status commit();

 private:
  explicit Transaction(Connection& connection) : connection_(&connection) {}
  Connection* connection_;
};

}  // namespace mcpgw::detail::sqlite
