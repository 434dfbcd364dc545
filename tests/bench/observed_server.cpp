// A gateway in front of one server, for observability_bench.py: as shipped, or (built as unobserved_server)
// with nothing that counts, records or traces. Prints where it listens and what a client needs; ends with its
// input.
#include <cstdio>
#include <string>

#include "mcpgw/gateway.hpp"
#include "mcpgw/server.hpp"
#include "mcpgw/sqlite.hpp"

using namespace mcpgw;

namespace {

[[noreturn]] void fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) fail(result.error().message);
  return std::move(*result);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) fail("usage: observed_server DATABASE UPSTREAM_URL");
  auto database = must(open_sqlite({argv[1]}));
  GatewayOptions options;
  options.storage = database.storage;
  options.audit_sink = database.audit;
  options.encryption.current = "0123456789abcdefghijklmnopqrstuv";
  options.upstream.allow_private = true;
  const auto gateway = must(Gateway::create(std::move(options)));
  User person;
  person.email = "bench@example.test";
  person.role = "user";
  const User user = must(gateway->repository()->create_user(std::move(person)));
  Target upstream;
  upstream.name = "demo";
  upstream.transport_type = TransportType::streamable_http;
  upstream.url = argv[2];
  const Target target = must(gateway->repository()->create_target(std::move(upstream)));
  Policy policy;
  policy.name = "bench";
  policy.effect = Effect::allow;
  policy.target_id = target.id;
  policy.resource_pattern = "^echo$";
  policy.subjects.push_back({});
  must(gateway->repository()->create_policy(std::move(policy)));
  const auto token =
      must(gateway->authenticator()->mint(user.id, "bench", TokenKind::api, {"mcp"}, std::nullopt));
  const auto server = must(HttpServer::start(gateway, {}));
  std::printf("{\"url\":\"%s/mcp\",\"token\":\"%s\"}\n", server->url().c_str(), token.token.c_str());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  server->stop();
  gateway->close(std::chrono::milliseconds(1000));
  return 0;
}
