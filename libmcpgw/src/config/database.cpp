#include "database.hpp"

#include <sys/stat.h>

#include "mcpgw/sqlite.hpp"
#ifdef MCPGW_HAVE_POSTGRES
#include "mcpgw/postgres.hpp"
#endif

namespace mcpgw::app {

namespace {

#ifdef MCPGW_HAVE_POSTGRES
PostgresOptions postgres_options(const DatabaseConfig& config) {
  PostgresOptions options;
  options.url = postgres_parameters(config);
  options.max_connections = config.max_connections;
  return options;
}
#else
Error no_postgres() {
  return {ErrorCode::unsupported, "no_postgres", "This program was built without PostgreSQL."};
}
#endif

}  // namespace

Result<Database> open_storage(const DatabaseConfig& config) {
  if (config.kind == DatabaseConfig::Kind::sqlite) {
    SqliteOptions options;
    options.path = config.path;
    auto opened = open_sqlite(options);
    if (!opened) return opened.error();
    return Database{std::move(opened->storage), std::move(opened->audit)};
  }
#ifdef MCPGW_HAVE_POSTGRES
  auto opened = open_postgres_storage(postgres_options(config));
  if (!opened) return opened.error();
  return Database{std::move(opened->storage), std::move(opened->audit)};
#else
  return no_postgres();
#endif
}

Result<std::unique_ptr<StorageSnapshot>> open_snapshot(const DatabaseConfig& config) {
  if (config.kind == DatabaseConfig::Kind::sqlite) return snapshot_sqlite(config.path);
#ifdef MCPGW_HAVE_POSTGRES
  return snapshot_postgres(postgres_options(config));
#else
  return no_postgres();
#endif
}

bool database_exists(const DatabaseConfig& config) {
  if (config.kind == DatabaseConfig::Kind::postgres) return true;
  struct stat info {};
  return ::stat(config.path.c_str(), &info) == 0 && info.st_size > 0;
}

std::string database_text(const DatabaseConfig& config) {
  if (config.kind == DatabaseConfig::Kind::sqlite) return config.path;
  return "postgres://" + config.host + "/" + config.database;
}

std::string postgres_parameters(const DatabaseConfig& config) {
  std::string out;
  const auto add = [&](const std::string& name, const std::string& value) {
    if (value.empty()) return;
    out += (out.empty() ? "" : " ") + name + "='";
    for (const char c : value) {
      if (c == '\'' || c == '\\') out += '\\';
      out += c;
    }
    out += "'";
  };
  const auto& host = config.host;
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  add("host", bracketed ? host.substr(1, host.size() - 2) : host);
  add("port", std::to_string(config.port));
  add("user", config.user);
  add("password", config.password);
  add("dbname", config.database);
  add("sslmode", config.sslmode);
  for (const auto& [name, value] : config.parameters) add(name, value);
  return out;
}

}  // namespace mcpgw::app
