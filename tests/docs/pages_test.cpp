// The C++ of README.md and docs/, as it stands there: quotes.py looks for each block of a page in here (or in
// an example). So what a page shows compiles, and what can be run is run.
#include <doctest/doctest.h>

#include <cstdio>
#include <future>
#include <string>
#include <utility>

#include "mcpgw/mcpgw.hpp"
#include "mcpgw/server.hpp"
#include "mcpgw/sqlite.hpp"
#include "mcpgw/testing.hpp"

namespace {

std::string secret_from_your_vault() { return "a secret of the tests, longer than it must be"; }
std::string key_from_your_vault() { return "0123456789abcdefghijklmnopqrstuv"; }

mcpgw::HttpRequest version_request() {
  mcpgw::HttpRequest request;
  request.method = "GET";
  request.target = "/version";
  return request;
}

int fail(const mcpgw::Error& error) {
  std::fprintf(stderr, "%s: %s\n", error.reason.c_str(), error.message.c_str());
  return 1;
}

std::shared_ptr<mcpgw::Gateway> gateway_in_memory() {
  mcpgw::GatewayOptions options;
  options.storage = mcpgw::make_memory_storage();
  auto made = mcpgw::Gateway::create(std::move(options));
  REQUIRE(made);
  return *made;
}

/// Takes a whole answer.
class Whole : public mcpgw::Responder {
 public:
  void send(mcpgw::HttpResponse response) override { answer_.set_value(std::move(response)); }
  std::shared_ptr<mcpgw::ResponseStream> start(mcpgw::HttpResponse response) override {
    answer_.set_value(std::move(response));
    return nullptr;
  }
  void on_disconnect(std::function<void()>) override {}
  mcpgw::HttpResponse wait() { return answer_.get_future().get(); }

 private:
  std::promise<mcpgw::HttpResponse> answer_;
};

// Not run: it wants a file and port 3000.
[[maybe_unused]] int readme(const mcpgw::HttpRequest& request) {
  auto database = mcpgw::open_sqlite({"gateway.db"});
  if (!database) return fail(database.error());
  mcpgw::GatewayOptions options;
  options.storage = database->storage;
  options.audit_sink = database->audit;
  options.jwt_secret = secret_from_your_vault();       // 32 bytes or more
  options.encryption.current = key_from_your_vault();  // 32 bytes
  auto gateway = mcpgw::Gateway::create(std::move(options));
  if (!gateway) return fail(gateway.error());
  mcpgw::HttpResponse reply = (*gateway)->handle(request);           // from any HTTP stack, or from a test
  auto server = mcpgw::HttpServer::start(*gateway, {.port = 3000});  // or with sockets of its own
  return server ? reply.status : fail(server.error());
}

int embedding(const std::string& file, std::string& seen) {
  auto database = mcpgw::open_sqlite({file});
  if (!database) return fail(database.error());
  mcpgw::GatewayOptions options;
  options.storage = database->storage;
  options.audit_sink = database->audit;
  options.jwt_secret = secret_from_your_vault();
  options.encryption.current = key_from_your_vault();  // 32 bytes
  auto gateway = mcpgw::Gateway::create(std::move(options));
  if (!gateway) return fail(gateway.error());

  auto server = mcpgw::HttpServer::start(*gateway, {.port = 0});
  if (!server) return fail(server.error());
  std::printf("%s\n", (*server)->url().c_str());

  mcpgw::HttpRequest request = version_request();
  const auto whole = std::make_shared<Whole>();
  const std::shared_ptr<mcpgw::Responder> responder = whole;
  mcpgw::HttpResponse reply = (*gateway)->handle(request);  // blocks this thread
  (*gateway)->handle_async(std::move(request), responder);  // does not; streams arrive piece by piece
  seen = reply.body;
  return whole->wait().body == seen ? reply.status : 1;
}

int make_target(const std::shared_ptr<mcpgw::Gateway>& gateway) {
  mcpgw::Target target;
  target.name = "git";
  target.transport_type = mcpgw::TransportType::streamable_http;
  target.url = "https://git.example/mcp";
  auto made = gateway->repository()->create_target(target);
  if (!made) return fail(made.error());  // made.error().reason == "name_taken", ...
  return 0;
}

int listen(const std::shared_ptr<mcpgw::Gateway>& gateway) {
  auto server = mcpgw::HttpServer::start(gateway, {.host = "127.0.0.1", .port = 0});
  if (!server) return fail(server.error());
  (*server)->url();    // "http://127.0.0.1:41234"
  (*server)->drain();  // no new connections; running requests are answered
  (*server)->stop();   // everything ends now; returns when no handler call is running
  return 0;
}

}  // namespace

TEST_CASE("embedding.md: a gateway in a service") {
  std::string seen;
  CHECK(embedding(":memory:", seen) == 200);
  CHECK(seen.find(mcpgw::version()) != std::string::npos);
}

TEST_CASE("embedding.md: targets without REST") {
  const auto gateway = gateway_in_memory();
  CHECK(make_target(gateway) == 0);
  CHECK(make_target(gateway) == 1);
}

TEST_CASE("embedding.md: in tests") {
  mcpgw::testing::InProcessGateway gw;
  auto git = std::make_shared<mcpgw::testing::FakeUpstream>();
  git->add_tool("git_log", [](const auto&) { return mcpgw::testing::FakeUpstream::text("abc"); });
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  CHECK(gw.as("alice").call_tool("git_log").text() == "abc");
  CHECK_FALSE(gw.as("bob").call_tool("git_log").ok());
}

TEST_CASE("embedding.md: both eras, faults and what was heard") {
  mcpgw::testing::InProcessGateway gw;
  using mcpgw::testing::FakeUpstream;
  auto git = std::make_shared<FakeUpstream>(FakeUpstream::Era::modern);  // 2026-07-28; the default is legacy
  git->add_tool("git_push", [](const FakeUpstream::Call& call) {
    if (call.input_responses.empty())
      return FakeUpstream::input_required(
          R"({"sure":{"method":"elicitation/create","params":{"message":"Sure?","requestedSchema":{"type":"object","properties":{}}}}})");
    return FakeUpstream::text("pushed");
  });
  gw.add_upstream("git", git);
  gw.allow("alice", "git");
  auto& alice = gw.as("alice");
  alice.speak("2026-07-28", R"({"elicitation":{}})");  // the default is 2025-11-25
  const auto asked = alice.call_tool("git_push");
  CHECK(asked.needs_input());

  git->fail_on("tools/call", {-32603, "disk full"});  // or hang(), close_on(), garbage_on()
  CHECK_FALSE(alice.call_tool("git_push").ok());
  git->heal();
  CHECK(git->received("tools/call").size() == 2);
}

TEST_CASE("server.md: on a port") { CHECK(listen(gateway_in_memory()) == 0); }
