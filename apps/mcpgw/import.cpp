// mcpgw import: takes over what another gateway has stored.
#include "cli.hpp"
#include "config_values.hpp"
#ifdef MCPGW_HAVE_POSTGRES
#include "mcpgw/reflow.hpp"
#endif

namespace mcpgw::app {

#ifdef MCPGW_HAVE_POSTGRES

namespace {

struct Arguments {
  std::string dsn, encryption_key;
  bool apply = false, keep_allow_all = false, logs = false;
};

/// Everything but the audit log, in memory: what a dry run writes to.
Result<Database> rehearsal(const DatabaseConfig& config) {
  Database out{make_memory_storage(), make_memory_audit_sink(1)};
  if (!database_exists(config)) return out;
  auto snapshot = open_snapshot(config);
  if (!snapshot) {
    if (snapshot.error().code == ErrorCode::not_found) return out;
    return snapshot.error();
  }
  for (;;) {
    auto records = (*snapshot)->next_records();
    if (!records) return records.error();
    if (records->empty()) return out;
    std::vector<Operation> operations;
    for (auto& record : *records)
      operations.push_back({Operation::Kind::put, std::move(record.collection), std::move(record.key),
                            std::move(record.value), std::nullopt});
    if (auto done = out.storage->commit(operations); !done) return done.error();
  }
}

const char* word_of(ReflowLine::Outcome outcome) {
  switch (outcome) {
    case ReflowLine::Outcome::taken:
      return "taken";
    case ReflowLine::Outcome::changed:
      return "changed";
    case ReflowLine::Outcome::skipped:
      return "skipped";
  }
  return "";
}

int import(const Invocation& invocation, const Arguments& arguments) {
  if (const int code = local_only(invocation, "mcpgw import"); code != kDone) return code;
  if (arguments.encryption_key != "-")
    return refuse(
        "--encryption-key must be -: the key is read from standard input, where nobody else sees it");
  const auto parsed = parse_database_url(arguments.dsn);
  if (!parsed.error.empty() || parsed.database.kind != DatabaseConfig::Kind::postgres)
    return refuse("--dsn must be postgres://user@host:port/name");
  if (!parsed.database.password.empty())
    return refuse(
        "no password in an argument, where others see it: set PGPASSWORD or a password file (PGPASSFILE)");
  auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  auto key = read_secret("Encryption key of the Reflow Gateway: ", false);
  if (!key) return fail(key.error());

  RepositoryOptions into;
  into.stdio_enabled = config->gateway.stdio.enabled;
  into.stdio_allowed_commands = config->gateway.stdio.allowed_commands;
  into.max_timeout_ms = config->gateway.upstream.max_timeout.count();
  Database database;
  if (arguments.apply) {
    auto opened = open_database(std::move(*config));
    if (!opened) return fail(opened.error());
    database = opened->database;
    into.keys = opened->config.gateway.encryption;
  } else {
    auto rehearsed = rehearsal(config->database);
    if (!rehearsed) return fail(rehearsed.error());
    database = std::move(*rehearsed);
    // What is sealed on the way is thrown away, and so is the key.
    into.keys.current.resize(32);
    make_system_random()->fill(into.keys.current.data(), into.keys.current.size());
  }
  into.storage = database.storage;

  ReflowOptions options;
  options.url = postgres_parameters(parsed.database);
  options.encryption_key = std::move(*key);
  options.keep_allow_all = arguments.keep_allow_all;
  options.logs = arguments.logs;
  Json lines = Json::array();
  const auto summary = import_reflow(options, std::move(into), *database.audit, [&](const ReflowLine& line) {
    if (invocation.json)
      lines.push_back({{"outcome", word_of(line.outcome)},
                       {"kind", line.kind},
                       {"name", line.name},
                       {"note", line.note}});
    else
      print_line(std::string(word_of(line.outcome)) + " " + line.kind + " " + shown(line.name) +
                 (line.note.empty() ? "" : ": " + shown(line.note)));
  });
  if (!summary) return fail(summary.error());
  if (invocation.json) {
    print_json({{"applied", arguments.apply},
                {"taken", summary->taken},
                {"changed", summary->changed},
                {"skipped", summary->skipped},
                {"lines", std::move(lines)}});
    return kDone;
  }
  print_line(std::to_string(summary->taken) + (arguments.apply ? " taken over" : " would be taken over") +
             ", of these " + std::to_string(summary->changed) + " with a change; " +
             std::to_string(summary->skipped) + " skipped");
  if (!arguments.apply) print_line("nothing was written: add --apply to do it");
  return kDone;
}

}  // namespace

void add_import(CLI::App& app, Invocation& invocation) {
  auto& command =
      *app.add_subcommand("import", "Takes over what another gateway has stored")->require_subcommand(1);
  add_action<Arguments>(
      command, invocation, "reflow",
      "Users, targets, credentials and policies of a Reflow Gateway; a dry run unless --apply is given",
      [&invocation](const Arguments& arguments) { return import(invocation, arguments); },
      [](CLI::App& c, Arguments& a) {
        c.add_option("--dsn", a.dsn, "Its database: postgres://user@host:port/name")->required();
        c.add_option("--encryption-key", a.encryption_key, "-: its key is read from standard input")
            ->required();
        c.add_flag("--apply", a.apply, "Writes; without it everything is tried in memory");
        c.add_flag("--keep-allow-all", a.keep_allow_all,
                   "Leaves its policy \"Default Allow All\" enabled when it is");
        c.add_flag("--logs", a.logs, "Its request log too");
      });
}

#else

void add_import(CLI::App&, Invocation&) {}

#endif

}  // namespace mcpgw::app
