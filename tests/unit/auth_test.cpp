#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "auth/rate_limiter.hpp"
#include "mcpgw/authenticator.hpp"
#include "mcpgw/testing.hpp"
#include "secrets/jwt.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using detail::JwtClaims;
using detail::RateLimiter;

namespace {

const std::string kSecret = "a secret of the test, longer than 32 bytes";
constexpr const char* kPassword = "correct horse";

struct Fixture {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  std::shared_ptr<Repository> repository;
  AuthenticatorOptions options;
  std::shared_ptr<Authenticator> auth;

  explicit Fixture(std::function<void(AuthenticatorOptions&)> change = {}) {
    RepositoryOptions stored;
    stored.storage = make_memory_storage();
    stored.keys.current = "0123456789abcdefghijklmnopqrstuv";
    stored.clock = clock;
    auto opened = Repository::open(std::move(stored));
    REQUIRE(opened);
    repository = *opened;
    options.repository = repository;
    options.jwt_secret = kSecret;
    if (change) change(options);
    auto made = Authenticator::create(options);
    REQUIRE(made);
    auth = *made;
  }

  Result<SignedIn> register_as(const char* email) { return auth->register_user(email, kPassword, "", "10.0.0.1"); }
};

std::string reason(const Result<Principal>& result) { return result ? "ok" : result.error().reason; }
std::string reason(const Result<SignedIn>& result) { return result ? "ok" : result.error().reason; }

}  // namespace

TEST_CASE("the first registration makes the admin, later ones users, and their tokens say who they are") {
  Fixture f;
  const auto first = f.register_as(" Root@Example.test ");
  REQUIRE(first);
  CHECK(first->user.role == "admin");
  CHECK(first->user.email == "root@example.test");
  const auto second = f.register_as("bob@example.test");
  REQUIRE(second);
  CHECK(second->user.role == "user");
  CHECK(reason(f.register_as("BOB@example.test")) == "email_taken");
  const auto principal = f.auth->authenticate("bearer " + second->token);
  REQUIRE(principal);
  CHECK(principal->user_id == second->user.id);
  CHECK(principal->has_scope("mcp"));
  CHECK(principal->has_scope("api"));
  const auto rows = f.repository->tokens_of(second->user.id);
  REQUIRE(rows.size() == 1);
  CHECK(rows[0]->name == "Default");
  CHECK(rows[0]->kind == TokenKind::login);
}

TEST_CASE("R44: two first registrations at once make one admin") {
  for (int round = 0; round < 5; ++round) {
    Fixture f;
    std::vector<std::thread> threads;
    std::atomic<int> admins{0}, users{0};
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&, i] {
        const auto made = f.register_as(("u" + std::to_string(i) + "@example.test").c_str());
        if (made) (made->user.role == "admin" ? admins : users)++;
      });
    for (auto& thread : threads) thread.join();
    CHECK(admins == 1);
    CHECK(users == 3);
  }
}

TEST_CASE("registration: closed, setup token, weak passwords, rate") {
  Fixture closed([](auto& o) { o.registration_open = false; });
  CHECK(reason(closed.register_as("a@example.test")) == "registration_closed");
  Fixture setup([](auto& o) {
    o.registration_open = false;
    o.setup_token = "let me in";
  });
  CHECK(reason(setup.register_as("a@example.test")) == "registration_closed");
  CHECK(reason(setup.auth->register_user("a@example.test", kPassword, "let me im", "x")) == "registration_closed");
  CHECK(reason(setup.auth->register_user("a@example.test", kPassword, "let me in", "x")) == "ok");
  CHECK(reason(setup.auth->register_user("b@example.test", kPassword, "let me in", "x")) == "registration_closed");
  Fixture open([](auto& o) { o.setup_token = "let me in"; });
  CHECK(reason(open.register_as("a@example.test")) == "setup_token_required");
  CHECK(reason(open.auth->register_user("a@example.test", kPassword, "let me in", "x")) == "ok");
  CHECK(reason(open.register_as("b@example.test")) == "ok");

  Fixture f([](auto& o) { o.registrations_per_address = 4; });
  CHECK(reason(f.auth->register_user("a@example.test", "1234567", "", "y")) == "weak_password");
  CHECK(reason(f.auth->register_user("a@example.test", std::string(1025, 'x'), "", "y")) == "weak_password");
  CHECK(reason(f.auth->register_user("a@example.test", "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", "", "y")) == "weak_password");
  CHECK(reason(f.auth->register_user("no address", kPassword, "", "y")) == "invalid_request");
  CHECK(reason(f.auth->register_user("a@example.test", kPassword, "", "y")) == "rate_limited");
  CHECK(reason(f.auth->register_user("a@example.test", kPassword, "", "z")) == "ok");
  f.clock->advance(std::chrono::hours(1));
  CHECK(reason(f.auth->register_user("b@example.test", kPassword, "", "y")) == "ok");
}

TEST_CASE("login: one answer for whatever is wrong") {
  Fixture f;
  const auto root = f.register_as("root@example.test");
  const auto bob = f.register_as("bob@example.test");
  REQUIRE(root);
  REQUIRE(bob);
  const auto wrong = f.auth->login("bob@example.test", "wrong password", "a");
  const auto unknown = f.auth->login("nobody@example.test", kPassword, "a");
  UserPatch disable;
  disable.enabled = false;
  REQUIRE(f.repository->update_user(bob->user.id, disable));
  const auto disabled = f.auth->login("bob@example.test", kPassword, "a");
  for (const auto* result : {&wrong, &unknown, &disabled}) {
    REQUIRE_FALSE(*result);
    CHECK(result->error().reason == "invalid_credentials");
    CHECK(result->error().message == wrong.error().message);
    CHECK(result->error().code == ErrorCode::unauthenticated);
  }
  const auto ok = f.auth->login("ROOT@example.test ", kPassword, "a");
  REQUIRE(ok);
  CHECK(ok->user.last_login_at);
}

TEST_CASE("R44: failures count per account and address, success clears, the account is not locked out") {
  Fixture f([](auto& o) {
    o.login_failures_per_pair = 3;
    o.login_failures_per_address = 5;
  });
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  const auto attempt = [&](const char* password, const char* from) {
    return reason(f.auth->login("root@example.test", password, from));
  };
  CHECK(attempt("bad password", "a") == "invalid_credentials");
  CHECK(attempt("bad password", "a") == "invalid_credentials");
  CHECK(attempt(kPassword, "a") == "ok");
  for (int i = 0; i < 3; ++i) CHECK(attempt("bad password", "a") == "invalid_credentials");
  CHECK(attempt(kPassword, "a") == "rate_limited");
  CHECK(attempt(kPassword, "b") == "ok");
  CHECK(reason(f.auth->authenticate_token(root->token)) == "ok");
  f.clock->advance(std::chrono::minutes(15));
  CHECK(attempt(kPassword, "a") == "ok");
}

TEST_CASE("R7: what counts is the row, the user and the clock, not the token's text") {
  Fixture f;
  const auto root = f.register_as("root@example.test");
  const auto bob = f.register_as("bob@example.test");
  REQUIRE(root);
  REQUIRE(bob);
  CHECK(reason(f.auth->authenticate("")) == "unauthorized");
  CHECK(reason(f.auth->authenticate("Bearer")) == "unauthorized");
  CHECK(reason(f.auth->authenticate("Bearer ")) == "unauthorized");
  CHECK(reason(f.auth->authenticate("Basic " + bob->token)) == "unauthorized");
  CHECK(reason(f.auth->authenticate("Bearer a b")) == "unauthorized");
  CHECK(reason(f.auth->authenticate("Bearer nonsense")) == "invalid_token");

  // A well-signed token whose row belongs to another user.
  JwtClaims forged{"mcpgw", "mcpgw", root->user.id, f.repository->tokens_of(bob->user.id)[0]->jti, 0, 0, {}};
  forged.issued_at = forged.not_before = f.clock->now().time_since_epoch().count() / 1000000;
  CHECK(reason(f.auth->authenticate_token(detail::sign_jwt(forged, kSecret))) == "invalid_token");

  UserPatch promote;
  promote.role = "admin";
  REQUIRE(f.repository->update_user(bob->user.id, promote));
  const auto as_admin = f.auth->authenticate_token(bob->token);
  REQUIRE(as_admin);
  CHECK(as_admin->is_admin());
  CHECK(f.auth->still_valid(*as_admin));
  promote.role = "user";
  REQUIRE(f.repository->update_user(bob->user.id, promote));
  CHECK_FALSE(f.auth->still_valid(*as_admin));
  CHECK_FALSE(f.auth->authenticate_token(bob->token)->is_admin());

  f.clock->advance(std::chrono::hours(24));
  CHECK(reason(f.auth->authenticate_token(bob->token)) == "token_expired");
  const auto api = f.auth->mint(bob->user.id, "mine", TokenKind::api, {"mcp"}, std::nullopt);
  REQUIRE(api);
  f.clock->advance(std::chrono::hours(24 * 1000));
  CHECK(reason(f.auth->authenticate_token(api->token)) == "ok");
  REQUIRE(f.repository->revoke_token(bob->user.id, api->row.id));
  CHECK(reason(f.auth->authenticate_token(api->token)) == "token_revoked");
  CHECK(f.auth->mint(bob->user.id, "Login", TokenKind::api, {"mcp"}, std::nullopt).error().reason == "reserved_name");
}

TEST_CASE("secrets rotate by key id, and further issuers are asked for what is not ours") {
  Fixture f;
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  AuthenticatorOptions rotated = f.options;
  rotated.previous_jwt_secrets = {kSecret};
  rotated.jwt_secret = "the next secret, also more than 32 bytes";
  class Partner : public TokenVerifier {
   public:
    std::optional<Result<Principal>> verify(std::string_view token) override {
      if (!token.starts_with("partner:")) return std::nullopt;
      Principal out;
      out.user_id = token.substr(8);
      return Result<Principal>(out);
    }
  };
  rotated.verifiers.push_back(std::make_shared<Partner>());
  const auto auth = *Authenticator::create(rotated);
  CHECK(reason(auth->authenticate_token(root->token)) == "ok");
  CHECK(auth->authenticate_token("partner:eve")->user_id == "eve");
  CHECK(reason(auth->authenticate_token("other:eve")) == "invalid_token");
  rotated.previous_jwt_secrets.clear();
  CHECK(reason((*Authenticator::create(rotated))->authenticate_token(root->token)) == "invalid_token");
  rotated.jwt_secret = "short";
  CHECK_FALSE(Authenticator::create(rotated));
}

TEST_CASE("a changed password ends the other logins, and with the flag API tokens") {
  Fixture f;
  const auto root = f.register_as("root@example.test");
  const auto second = f.auth->login("root@example.test", kPassword, "a");
  const auto api = f.auth->mint(root->user.id, "api", TokenKind::api, {"api"}, std::nullopt);
  REQUIRE(second);
  REQUIRE(api);
  const auto me = f.auth->authenticate_token(root->token);
  CHECK(f.auth->change_password(*me, "wrong password", "another horse", false, "a").error().reason == "invalid_credentials");
  CHECK(f.auth->change_password(*me, kPassword, "short", false, "a").error().reason == "weak_password");
  REQUIRE(f.auth->change_password(*me, kPassword, "another horse", false, "a"));
  CHECK(reason(f.auth->authenticate_token(root->token)) == "ok");
  CHECK(reason(f.auth->authenticate_token(second->token)) == "token_revoked");
  CHECK(reason(f.auth->authenticate_token(api->token)) == "ok");
  REQUIRE(f.auth->change_password(*me, "another horse", "third horse!", true, "a"));
  CHECK(reason(f.auth->authenticate_token(api->token)) == "token_revoked");
  CHECK(reason(f.auth->login("root@example.test", kPassword, "b")) == "invalid_credentials");
  CHECK(reason(f.auth->login("root@example.test", "third horse!", "b")) == "ok");
}

TEST_CASE("an imported bcrypt hash logs in and is replaced") {
  Fixture f;
  User user;
  user.email = "old@example.test";
  user.password_hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
  REQUIRE(f.repository->create_user(user));
  REQUIRE(f.auth->login("old@example.test", "U*U", "a"));
  CHECK(f.repository->user_by_email("old@example.test")->password_hash.starts_with("$scrypt$"));
  CHECK(reason(f.auth->login("old@example.test", "U*U", "a")) == "ok");
}

TEST_CASE("the rate limiter's memory is bounded") {
  RateLimiter limiter(2, std::chrono::seconds(10), 100);
  for (int i = 0; i < 10000; ++i) limiter.record("n" + std::to_string(i), Duration(0));
  CHECK(limiter.size() == 100);
  limiter.record("x", Duration(0));
  limiter.record("x", Duration(0));
  CHECK_FALSE(limiter.allowed("x", std::chrono::seconds(9)));
  CHECK(limiter.allowed("x", std::chrono::seconds(10)));
}
