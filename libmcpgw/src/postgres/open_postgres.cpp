#include <algorithm>
#include <chrono>
#include <utility>

#include "mcpgw/postgres.hpp"
#include "postgres/audit_store.hpp"
#include "postgres/pool.hpp"
#include "postgres/record_store.hpp"

namespace mcpgw {

namespace detail::postgres {

Result<ConnectionInfo> connection_info(const PostgresOptions& options) {
  using std::chrono::milliseconds;
  constexpr int kLongest = 600'000;
  auto info = parse_url(options.url);
  if (!info) return info;
  info->connect_timeout = milliseconds(std::clamp(options.connect_timeout_ms, 10, kLongest));
  info->call_timeout = milliseconds(std::clamp(options.call_timeout_ms, 10, kLongest));
  return info;
}

}  // namespace detail::postgres

Result<PostgresStorage> open_postgres_storage(const PostgresOptions& options) {
  constexpr int kMostConnections = 1000;
  auto info = detail::postgres::connection_info(options);
  if (!info) return info.error();
  const auto size = static_cast<std::size_t>(std::clamp(options.max_connections, 1, kMostConnections));
  auto pool = std::make_shared<detail::postgres::Pool>(std::move(*info), size);
  auto storage = detail::postgres::open_record_store(pool);
  if (!storage) return storage.error();
  return PostgresStorage{std::move(*storage), detail::postgres::make_audit_store(std::move(pool))};
}

}  // namespace mcpgw
