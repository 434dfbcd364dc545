// Gateways and repositories of the C interface over one PostgreSQL database.
#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <thread>

#include "contract/postgres_support.hpp"
#include "mcpgw/mcpgw.h"

using mcpgw::contract::PostgresServer;

namespace {

const std::string kKeys =
    R"("jwt":{"secret":"0123456789abcdef0123456789abcdef-signing"},)"
    R"("encryption":{"key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"})";

/// The directory of the server's socket, which is how it is reached.
std::string place() {
  const auto socket = PostgresServer::shared().socket();
  return socket.substr(0, socket.rfind('/'));
}
std::string by_url(const std::string& database) {
  return R"("database":{"url":"postgres://mcpgw@/)" + database + "?host=" + place() + R"("})";
}
std::string by_parts(const std::string& database) {
  return R"("database":{"host":")" + place() + R"(","user":"mcpgw","database":")" + database + R"("})";
}

struct Text {
  char* text = nullptr;
  ~Text() { mcpgw_free(text); }
  std::string str() const { return text == nullptr ? "" : text; }
};

struct OneGateway {
  mcpgw_gateway* handle = nullptr;
  explicit OneGateway(const std::string& options) {
    Text error;
    const auto status = mcpgw_gateway_create(options.data(), options.size(), nullptr, &handle, &error.text);
    INFO(error.str());
    REQUIRE(status == MCPGW_OK);
  }
  ~OneGateway() { mcpgw_gateway_free(handle); }
  OneGateway(const OneGateway&) = delete;
  OneGateway& operator=(const OneGateway&) = delete;

  /// "200 {...}"
  std::string admin(const std::string& method, const std::string& target,
                    const std::string& body = {}) const {
    int status = 0;
    Text out;
    REQUIRE(mcpgw_gateway_admin(handle, nullptr, 0, method.data(), method.size(), target.data(),
                                target.size(), body.data(), body.size(), &status, &out.text,
                                nullptr) == MCPGW_OK);
    return std::to_string(status) + " " + out.str();
  }
};

std::string refusal(const std::string& options) {
  mcpgw_gateway* gateway = nullptr;
  Text error;
  CHECK(mcpgw_gateway_create(options.data(), options.size(), nullptr, &gateway, &error.text) != MCPGW_OK);
  CHECK(gateway == nullptr);
  return error.str();
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

const std::string kAlice = R"({"email":"alice@example.org","password":"a long password"})";

}  // namespace

TEST_CASE("what one gateway writes the others see, and it stays") {
  const auto database = PostgresServer::shared().make_database();
  {
    const OneGateway one("{" + by_url(database) + "," + kKeys + "}");
    const OneGateway other("{" + by_parts(database) + "," + kKeys + "}");
    CHECK(has(one.admin("POST", "/api/users", kAlice), "201 "));
    bool seen = false;  // the other hears of it by itself
    for (int i = 0; i < 600 && !seen; ++i) {
      seen = has(other.admin("GET", "/api/users"), "alice@example.org");
      if (!seen) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    CHECK(seen);
    CHECK(has(other.admin("POST", "/api/users", kAlice), "409 "));
  }
  const OneGateway again("{" + by_url(database) + "," + kKeys + "}");
  CHECK(has(again.admin("GET", "/api/users"), "alice@example.org"));
  CHECK(PostgresServer::shared().run(
            database, "SELECT count(*) > 0 FROM pg_tables WHERE schemaname = 'public'") == "t");
}

TEST_CASE("a repository without a gateway") {
  const auto database = PostgresServer::shared().make_database();
  const std::string options = "{" + by_url(database) + "," + kKeys + "}";
  {
    const OneGateway gateway(options);
    CHECK(has(gateway.admin("POST", "/api/users", kAlice), "201 "));
  }
  mcpgw_repository* repository = nullptr;
  REQUIRE(mcpgw_repository_open(options.data(), options.size(), nullptr, &repository, nullptr) == MCPGW_OK);
  int status = 0;
  Text out;
  const std::string method = "GET", target = "/api/users";
  CHECK(mcpgw_repository_admin(repository, nullptr, 0, method.data(), method.size(), target.data(),
                               target.size(), "", 0, &status, &out.text, nullptr) == MCPGW_OK);
  CHECK(status == 200);
  CHECK(has(out.str(), "alice@example.org"));
  mcpgw_repository_free(repository);
}

TEST_CASE("keys must be given, and errors tell no password") {
  const auto database = PostgresServer::shared().make_database();
  CHECK(has(refusal("{" + by_url(database) + "}"), R"("field":"jwt.secret")"));
  CHECK(has(
      refusal("{" + by_parts(database) + R"(,"jwt":{"secret":"0123456789abcdef0123456789abcdef-signing"}})"),
      R"("field":"encryption.key")"));
  CHECK(has(refusal("{" + by_url("nowhere") + "," + kKeys + "}"), R"("reason":"no_database")"));
  const auto away = refusal(R"({"database":{"url":"postgres://u:hush-hush@127.0.0.1:1/d"},)" + kKeys + "}");
  CHECK(has(away, R"("code":"unavailable")"));
  CHECK(has(away, R"("reason":"storage_unavailable")"));
  CHECK_FALSE(has(away, "hush"));
  const auto both = R"({"database":{"url":"sqlite://x.db","host":"h","password":"hush-hush"},)" + kKeys + "}";
  CHECK(has(refusal(both), R"("field":"database.url")"));
  CHECK_FALSE(has(refusal(both), "hush"));
}
