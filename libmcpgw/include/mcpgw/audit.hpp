// AuditSink: where audit records go and where /api/logs reads them from.
//
// Threads: implementations are safe for concurrent use; calls may block and are made from worker
// threads. Errors as in storage.hpp.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mcpgw/clock.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw {

/// One audit row. Optional members are empty when they do not apply. Texts are UTF-8.
struct AuditRecord {
  std::string id;    ///< UUID; made by the writer
  std::string kind;  ///< "mcp", "session", "admin", "auth"
  Time created_at{};  ///< start of the request
  std::string session_id;
  std::string user_id;
  std::string user_email;
  std::string method;
  std::string target_name;
  std::string tool;         ///< original name of the tool or prompt, or the URI
  std::string decision;     ///< "allow", "deny" or empty
  std::string policy_id;
  std::string policy_name;
  int response_status = 0;
  std::string error_code;
  std::int64_t duration_ms = 0;
  std::int64_t bytes_in = 0;
  std::int64_t bytes_out = 0;
  std::string client_ip;
  std::string client_name;
  std::string trace_id;
  std::string request_body;  ///< a JSON object's text, already redacted and capped; empty = none
};

struct AuditFilter {
  std::optional<std::string> user_id;
  std::optional<std::string> target_name;
  std::optional<std::string> method;
  std::optional<std::string> decision;
  std::optional<std::string> kind;
  /// "ok" (< 400), "error" (>= 400) or an exact number as text.
  std::optional<std::string> status;
  std::optional<Time> since;  ///< inclusive
  std::optional<Time> until;  ///< exclusive
  /// Substring of method, tool, target_name, error_code or user_email, ignoring ASCII case.
  std::optional<std::string> text;
};

struct AuditQuery {
  AuditFilter filter;
  std::size_t limit = 50;  ///< at most 10000 rows a page; 0 = only the total
  std::size_t offset = 0;
  /// Position returned by an earlier page: only rows before it. 0 = from the newest.
  std::int64_t before = 0;
};

struct AuditPage {
  std::vector<AuditRecord> records;  ///< last stored first
  std::uint64_t total = 0;           ///< rows that match the filter, on all pages
  std::int64_t next = 0;             ///< `before` of the next page; 0 = no more
};

class AuditSink {
 public:
  virtual ~AuditSink() = default;
  /// Stores the batch whole or not at all, in order. When an error left its fate open it may be tried again, also
  /// with further records behind: those that are stored already, which their ids tell, are passed over.
  virtual Status append(const std::vector<AuditRecord>& batch) = 0;
  /// invalid_argument/"invalid_status", "invalid_position".
  virtual Result<AuditPage> query(const AuditQuery& query) = 0;
  /// Removes rows created before `cutoff`; returns how many.
  virtual Result<std::uint64_t> purge(Time cutoff) = 0;
};

/// Keeps the newest `capacity` rows in memory.
std::shared_ptr<AuditSink> make_memory_audit_sink(std::size_t capacity = 100000);

}  // namespace mcpgw
