// mcpgw storage: copies of what is stored.
#include "cli.hpp"

namespace mcpgw::app {

namespace {

struct Arguments {
  std::string file;
};

int backup(const Invocation& invocation, const Arguments& arguments) {
  if (const int code = local_only(invocation, "mcpgw storage"); code != kDone) return code;
  const auto config = read_config(invocation);
  if (!config) return kWrongUsage;
  if (auto status = backup_sqlite(config->database.path, arguments.file); !status)
    return fail(arguments.file + ": " + status.error().message);
  const bool keys_apart = config->needs_jwt_secret() || config->needs_encryption_key();
  const auto keys = config->data_dir + "/secrets.json";
  if (invocation.json) {
    print_json({{"file", arguments.file}, {"keys", keys_apart ? Json(keys) : Json(nullptr)}});
    return kDone;
  }
  print_line("copied to " + arguments.file);
  if (keys_apart)
    print_line("its credentials can be read only with the keys in " + keys +
               ": keep a copy of those elsewhere");
  return kDone;
}

}  // namespace

void add_storage(CLI::App& app, Invocation& invocation) {
  auto& storage = *app.add_subcommand("storage", "What is stored")->require_subcommand(1);
  add_action<Arguments>(
      storage, invocation, "backup", "Makes a consistent copy of the database while it is in use",
      [&invocation](const Arguments& arguments) { return backup(invocation, arguments); },
      [](CLI::App& c, Arguments& a) { add_file(c, "file", a.file, "Where to; must not exist")->required(); });
}

}  // namespace mcpgw::app
