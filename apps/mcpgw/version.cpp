// mcpgw version: as GET /version, of this program or of a server.
#include "cli.hpp"
#include "mcpgw/gateway.hpp"

namespace mcpgw::app {

namespace {

int version(const Invocation& invocation) {
  Result<Json> body = Json(nullptr);
  if (!invocation.server.url.empty()) {
    int exit_code = kDone;
    const auto api = open_api(invocation, exit_code);
    if (!api) return exit_code;
    body = api->call("GET", "/version");
  } else {
    GatewayOptions options;
    options.storage = make_memory_storage();
    auto gateway = Gateway::create(std::move(options));
    if (!gateway) return fail(gateway.error());
    HttpRequest request;
    request.method = "GET";
    request.target = "/version";
    body = Json::parse((*gateway)->handle(std::move(request)).body, nullptr, false);
  }
  if (!body) return fail(body.error());
  if (invocation.json)
    print_json(*body);
  else
    print_line(cell(*body, "name") + " " + cell(*body, "version") + " (" + cell(*body, "commit") + "), MCP " +
               cell(*body, "protocol_versions"));
  return kDone;
}

}  // namespace

void add_version(CLI::App& app, Invocation& invocation) {
  auto* command = app.add_subcommand("version", "Shows the version");
  command->callback([&invocation] { invocation.action = [&invocation] { return version(invocation); }; });
}

}  // namespace mcpgw::app
