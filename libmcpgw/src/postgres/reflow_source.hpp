// A Reflow Gateway's database, as rows of JSON and values that can be opened.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "json/json.hpp"
#include "mcpgw/clock.hpp"
#include "mcpgw/postgres.hpp"
#include "postgres/connection.hpp"

namespace mcpgw::detail::postgres {

class ReflowSource {
 public:
  /// Begins a transaction that reads one moment. not_found/"no_reflow" when its tables are not there.
  static Result<ReflowSource> open(const std::string& url);

  /// All rows of a table, each with `_us_<column>`: its times in microseconds. Empty when there is no such
  /// table.
  Result<std::vector<Json>> rows(std::string_view table, std::string_view order);
  /// The next rows of the request log, oldest first. Empty: there are no more.
  Result<std::vector<Json>> next_log_rows();

 private:
  explicit ReflowSource(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
  Result<std::vector<Json>> read(const std::string& sql, const Parameters& parameters = {});

  std::unique_ptr<Connection> connection_;
  bool logs_begun_ = false;
};

// Columns: empty or zero when they are absent, null or of another type.
std::string text_of(const Json& row, const char* column);
std::vector<std::string> texts_of(const Json& row, const char* column);
std::int64_t number_of(const Json& row, const char* column);
bool flag_of(const Json& row, const char* column, bool otherwise);
Time time_of(const Json& row, const char* column);

/// base64 of nonce, ciphertext and tag: AES-256-GCM without associated data. Nullopt: another key, or
/// damaged.
std::optional<std::string> open_reflow_value(std::string_view key, std::string_view sealed);

}  // namespace mcpgw::detail::postgres
