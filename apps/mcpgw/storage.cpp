// mcpgw storage: copies of what is stored.
#include <sys/stat.h>
#include <unistd.h>

#include "cli.hpp"
#include "config_values.hpp"
#include "mcpgw/sqlite.hpp"
#include "secrets_file.hpp"

namespace mcpgw::app {

namespace {

struct FileArgument {
  std::string file;
};

struct CopyArguments {
  std::string from, to;
  bool without_audit = false;
};

DatabaseConfig file_config(const std::string& path) {
  DatabaseConfig out;
  out.path = path;
  return out;
}

/// Where a copy is on its way is said to people, at most once a second.
CopyOptions copy_options(const Invocation& invocation) {
  CopyOptions out;
  if (invocation.json || !::isatty(STDERR_FILENO)) return out;
  auto last = std::make_shared<std::chrono::steady_clock::time_point>(std::chrono::steady_clock::now());
  out.progress = [last](std::uint64_t records, std::uint64_t audit_rows) {
    if (std::chrono::steady_clock::now() - *last < std::chrono::seconds(1)) return;
    *last = std::chrono::steady_clock::now();
    std::fprintf(stderr, "copied %llu records and %llu audit rows\n",
                 static_cast<unsigned long long>(records), static_cast<unsigned long long>(audit_rows));
  };
  return out;
}

Result<StorageContents> copy_between(const DatabaseConfig& from, const DatabaseConfig& to,
                                     const CopyOptions& options) {
  auto snapshot = open_snapshot(from);
  if (!snapshot) return snapshot.error();
  auto opened = open_storage(to);
  if (!opened) return opened.error();
  CopyTarget target{opened->storage, opened->audit, [to] { return open_snapshot(to); }};
  return copy_storage(**snapshot, target, options);
}

int report(const Invocation& invocation, const std::string& what, const StorageContents& done, Json more) {
  if (invocation.json) {
    more["records"] = done.records;
    more["audit_rows"] = done.audit_rows;
    more["records_sha256"] = done.records_digest;
    more["audit_sha256"] = done.audit_digest;
    print_json(more);
    return kDone;
  }
  print_line(what + ": " + std::to_string(done.records) + " records, " + std::to_string(done.audit_rows) +
             " audit rows, read back and compared");
  return kDone;
}

/// Said after a copy whose credentials other keys open.
void mention_keys(const Invocation& invocation, const Config& config) {
  if (invocation.json || (!config.needs_jwt_secret() && !config.needs_encryption_key())) return;
  print_line("its credentials can be read only with the keys in " + config.data_dir +
             "/secrets.json: keep a copy of those elsewhere");
}

/// The directory of a database that does not exist yet.
Status prepare_place(const Config& config) {
  const auto& path = config.database.path;
  bool made = false;
  if (config.database.kind != DatabaseConfig::Kind::sqlite ||
      path.compare(0, config.data_dir.size() + 1, config.data_dir + "/") != 0)
    return {};
  return prepare_data_dir(config.data_dir, &made);
}

/// From PostgreSQL into a file that appears whole or not at all.
Result<StorageContents> backup_to_file(const DatabaseConfig& from, const std::string& file,
                                       const CopyOptions& options) {
  struct stat info {};
  if (::lstat(file.c_str(), &info) == 0)
    return Error{ErrorCode::conflict, "already_exists", "The file is there already; it is not overwritten.",
                 "to"};
  const auto unfinished = file + "." + std::to_string(::getpid()) + ".copying";
  auto done = copy_between(from, file_config(unfinished), options);
  if (done)
    if (auto status = backup_sqlite(unfinished, file); !status) done = status.error();
  for (const char* suffix : {"", "-wal", "-shm"}) ::unlink((unfinished + suffix).c_str());
  return done;
}

int backup(const Invocation& invocation, const FileArgument& arguments) {
  if (const int code = local_only(invocation, "mcpgw storage"); code != kDone) return code;
  const auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  ::umask(077);
  if (config->database.kind == DatabaseConfig::Kind::postgres) {
    const auto done = backup_to_file(config->database, arguments.file, copy_options(invocation));
    if (!done) return fail(arguments.file + ": " + done.error().message);
    return report(invocation, "copied to " + arguments.file, *done,
                  {{"file", arguments.file}, {"keys", nullptr}});
  }
  if (auto status = backup_sqlite(config->database.path, arguments.file); !status)
    return fail(arguments.file + ": " + status.error().message);
  const bool keys_apart = config->needs_jwt_secret() || config->needs_encryption_key();
  if (invocation.json)
    print_json({{"file", arguments.file},
                {"keys", keys_apart ? Json(config->data_dir + "/secrets.json") : Json(nullptr)}});
  else
    print_line("copied to " + arguments.file);
  mention_keys(invocation, *config);
  return kDone;
}

int restore(const Invocation& invocation, const FileArgument& arguments) {
  if (const int code = local_only(invocation, "mcpgw storage"); code != kDone) return code;
  const auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  ::umask(077);
  if (::access(arguments.file.c_str(), R_OK) != 0) return fail(arguments.file + ": cannot be read");
  if (auto status = prepare_place(*config); !status) return fail(status.error());
  const auto done = copy_between(file_config(arguments.file), config->database, copy_options(invocation));
  if (!done) return fail(done.error().message);
  const auto into = database_text(config->database);
  report(invocation, "restored into " + into, *done, {{"database", into}});
  mention_keys(invocation, *config);
  return kDone;
}

int copy(const Invocation& invocation, const CopyArguments& arguments) {
  if (const int code = local_only(invocation, "mcpgw storage"); code != kDone) return code;
  if (arguments.from.empty() && arguments.to.empty())
    return refuse("name at least one side: --from, --to; the other one is the configured database");
  const auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  ::umask(077);
  DatabaseConfig sides[] = {config->database, config->database};
  const std::string* urls[] = {&arguments.from, &arguments.to};
  for (int i = 0; i < 2; ++i) {
    if (urls[i]->empty()) continue;
    auto parsed = parse_database_url(*urls[i]);
    if (!parsed.error.empty()) return refuse(std::string(i == 0 ? "--from " : "--to ") + parsed.error);
    if (!parsed.database.password.empty())
      return refuse(
          "no password in an argument, where others see it: set PGPASSWORD or a password file (PGPASSFILE), "
          "or "
          "name that database in the configuration");
    sides[i] = std::move(parsed.database);
  }
  if (arguments.to.empty())
    if (auto status = prepare_place(*config); !status) return fail(status.error());
  auto options = copy_options(invocation);
  options.audit = !arguments.without_audit;
  const auto done = copy_between(sides[0], sides[1], options);
  if (!done) return fail(done.error().message);
  const auto from = database_text(sides[0]), to = database_text(sides[1]);
  report(invocation, "copied from " + from + " to " + to, *done, {{"from", from}, {"to", to}});
  mention_keys(invocation, *config);
  return kDone;
}

}  // namespace

void add_storage(CLI::App& app, Invocation& invocation) {
  auto& storage = *app.add_subcommand("storage", "What is stored")->require_subcommand(1);
  add_action<FileArgument>(
      storage, invocation, "backup", "Makes a consistent copy of the database in a file while it is in use",
      [&invocation](const FileArgument& arguments) { return backup(invocation, arguments); },
      [](CLI::App& c, FileArgument& a) {
        add_file(c, "file", a.file, "Where to; must not exist")->required();
      });
  add_action<FileArgument>(
      storage, invocation, "restore", "Fills the configured database, which must be empty, from a backup",
      [&invocation](const FileArgument& arguments) { return restore(invocation, arguments); },
      [](CLI::App& c, FileArgument& a) { add_file(c, "file", a.file, "The backup")->required(); });
  add_action<CopyArguments>(
      storage, invocation, "copy", "Copies everything from one database to another, which must be empty",
      [&invocation](const CopyArguments& arguments) { return copy(invocation, arguments); },
      [](CLI::App& c, CopyArguments& a) {
        c.add_option("--from", a.from, "sqlite://<path> or postgres://...; default: the configured database");
        c.add_option("--to", a.to, "The same; it must be empty");
        c.add_flag("--without-audit", a.without_audit, "Leaves the audit log behind");
      });
}

}  // namespace mcpgw::app
