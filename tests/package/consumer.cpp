// A host in C++17 that knows nothing but the public headers: a gateway, a user, an answer.
#include <mcpgw/mcpgw.hpp>
#include <mcpgw/server.hpp>
#include <mcpgw/sqlite.hpp>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  auto database = mcpgw::open_sqlite({argc > 1 ? argv[1] : ":memory:"});
  if (!database) return std::fprintf(stderr, "%s\n", database.error().message.c_str()), 1;
  mcpgw::GatewayOptions options;
  options.storage = database->storage;
  options.audit_sink = database->audit;
  options.encryption.current = "0123456789abcdefghijklmnopqrstuv";  // a test's
  auto gateway = mcpgw::Gateway::create(std::move(options));
  if (!gateway) return std::fprintf(stderr, "%s\n", gateway.error().message.c_str()), 1;
  auto server = mcpgw::HttpServer::start(*gateway);
  if (!server) return std::fprintf(stderr, "%s\n", server.error().message.c_str()), 1;
  mcpgw::HttpRequest request;
  request.method = "GET";
  request.target = "/version";
  const mcpgw::HttpResponse reply = (*gateway)->handle(request);
  std::printf("%d %s\n", reply.status, reply.body.c_str());
  (*server)->stop();
  return reply.status == 200 && reply.body.find(mcpgw::version()) != std::string::npos ? 0 : 1;
}
