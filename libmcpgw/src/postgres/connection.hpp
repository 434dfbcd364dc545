// One connection to PostgreSQL. Statements are sent in pipelines: one round trip for many. Used by one thread
// at a time: Pool hands connections out.
#pragma once

#include <libpq-fe.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mcpgw/result.hpp"

namespace mcpgw::detail::postgres {

using Deadline = std::chrono::steady_clock::time_point;

/// How to connect: what libpq is given, and limits.
struct ConnectionInfo {
  std::vector<std::pair<std::string, std::string>> parameters;
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds call_timeout{10000};
};
/// invalid_argument/"invalid_url". The error quotes nothing of the text.
Result<ConnectionInfo> parse_url(const std::string& url);

/// Values of $1, $2, ... in the binary format.
class Parameters {
 public:
  Parameters& add(std::int64_t value);
  Parameters& add(std::string_view bytes);  ///< bytea or text
  Parameters& add_null();

 private:
  friend class Connection;
  std::vector<std::string> values_;
  std::vector<bool> nulls_;
};

/// A literal: prepared once a connection, under its name.
struct Statement {
  const char* name;
  const char* sql;
};

/// The rows of one statement, in the binary format.
class Answer {
 public:
  explicit Answer(PGresult* result) : result_(result, &PQclear) {}
  int rows() const { return PQntuples(result_.get()); }
  bool is_null(int row, int column) const { return PQgetisnull(result_.get(), row, column) != 0; }
  std::int64_t integer(int row, int column) const;  ///< an int8 or int4; 0 for NULL
  std::string bytes(int row, int column) const;     ///< a bytea or text; empty for NULL
  std::uint64_t affected() const;                   ///< rows that the statement changed

 private:
  std::unique_ptr<PGresult, decltype(&PQclear)> result_;
};

class Connection {
 public:
  static Result<std::unique_ptr<Connection>> open(const ConnectionInfo& info, Deadline deadline);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Adds a statement to the pipeline. Nothing need be sent before run().
  void send(const Statement& statement, const Parameters& parameters = {});
  /// The same for a text that is made for this use.
  void send_text(const std::string& sql, const Parameters& parameters = {});
  /// Sends what was added, and reads all answers, one a statement. When one fails, those after it are not
  /// carried out and its error is returned; when the connection breaks or the deadline passes, broken() is
  /// true and what became of the statements is not known.
  Result<std::vector<Answer>> run(Deadline deadline);

  bool broken() const { return broken_; }
  /// Neither broken nor in a transaction.
  bool idle() const { return !broken_ && PQtransactionStatus(handle_.get()) == PQTRANS_IDLE; }
  /// Looks without waiting whether the server has closed an idle connection.
  bool alive();

  /// Waits until `deadline` for the server or for the descriptor `wake` to become readable. Fails when the
  /// connection is broken.
  Status wait_for_notice(int wake, Deadline deadline);
  /// The payloads of the notifications that have come.
  std::vector<std::string> take_notifications();

 private:
  struct Expected {
    bool prepares;
    std::string name;
  };
  explicit Connection(PGconn* handle) : handle_(handle, &PQfinish) {}
  void queue(int accepted, Expected expected);
  Result<std::vector<Answer>> fail();

  std::unique_ptr<PGconn, decltype(&PQfinish)> handle_;
  std::set<std::string> prepared_;
  std::vector<Expected> expected_;  // what the pipeline will answer
  bool broken_ = false;
};

/// What an SQLSTATE means to the caller. Never PostgreSQL's text: it may hold SQL, values or names.
Error to_error(std::string_view sqlstate);

}  // namespace mcpgw::detail::postgres
