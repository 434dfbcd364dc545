#include "mcpgw/version.hpp"

#include "cli.hpp"

namespace mcpgw::app {

void add_version(CLI::App& app, Invocation& invocation) {
  auto* command = app.add_subcommand("version", "Shows the version");
  command->callback([&invocation] {
    invocation.action = [&invocation] {
      if (invocation.json)
        print_json({{"name", "mcpgw"}, {"version", version()}, {"commit", commit()}});
      else
        std::printf("mcpgw %s (%s)\n", version(), commit());
      return kDone;
    };
  });
}

}  // namespace mcpgw::app
