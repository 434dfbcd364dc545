#include <algorithm>
#include <atomic>
#include <thread>

#include "base/text.hpp"
#include "unit/auth_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using detail::JwtClaims;

namespace {

std::string sign(const JwtClaims& claims, const std::string& secret = kJwtSecret) {
  return *detail::JwtKeys(secret, {}).sign(claims);
}

class Partner : public TokenVerifier {
 public:
  std::optional<Result<Principal>> verify(std::string_view token) override {
    if (!token.starts_with("partner:")) return std::nullopt;
    if (token == "partner:refused")
      return Result<Principal>(Error(ErrorCode::unauthenticated, "invalid_token", "No"));
    Principal out;
    out.user_id = token.substr(8);
    out.role = "guest";
    out.token_id = "something of the partner's";
    out.token_expires_at = expires_at;
    return Result<Principal>(out);
  }
  std::optional<Time> expires_at;
};

}  // namespace

TEST_CASE("the first registration makes the admin, later ones users, and their tokens say who they are") {
  AuthFixture f;
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
    AuthFixture f;
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
  AuthFixture closed([](auto& o) { o.registration_open = false; });
  CHECK(reason(closed.register_as("a@example.test")) == "registration_closed");
  AuthFixture setup([](auto& o) {
    o.registration_open = false;
    o.setup_token = "let me in";
  });
  CHECK(reason(setup.register_as("a@example.test")) == "registration_closed");
  CHECK(reason(setup.auth->register_user("a@example.test", kPassword, "let me im", "x")) ==
        "registration_closed");
  CHECK(reason(setup.auth->register_user("a@example.test", kPassword, "let me in", "x")) == "ok");
  CHECK(reason(setup.auth->register_user("b@example.test", kPassword, "let me in", "x")) ==
        "registration_closed");
  AuthFixture open([](auto& o) { o.setup_token = "let me in"; });
  CHECK(reason(open.register_as("a@example.test")) == "setup_token_required");
  CHECK(reason(open.auth->register_user("a@example.test", kPassword, "let me in", "x")) == "ok");
  CHECK(reason(open.register_as("b@example.test")) == "ok");

  AuthFixture f([](auto& o) { o.registrations_per_address = 4; });
  CHECK(reason(f.auth->register_user("a@example.test", "1234567", "", "y")) == "weak_password");
  CHECK(reason(f.auth->register_user("a@example.test", std::string(1025, 'x'), "", "y")) == "weak_password");
  CHECK(reason(f.auth->register_user("a@example.test", "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", "", "y")) ==
        "weak_password");
  CHECK(reason(f.auth->register_user("no address", kPassword, "", "y")) == "invalid_request");
  CHECK(reason(f.auth->register_user("a@example.test", kPassword, "", "y")) == "rate_limited");
  CHECK(reason(f.auth->register_user("a@example.test", kPassword, "", "z")) == "ok");
  f.clock->advance(std::chrono::hours(1));
  CHECK(reason(f.auth->register_user("b@example.test", kPassword, "", "y")) == "ok");
}

TEST_CASE("login: one answer for whatever is wrong") {
  AuthFixture f;
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
  AuthFixture f([](auto& o) {
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
  AuthFixture f;
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
  CHECK(reason(f.auth->authenticate_token(sign(forged))) == "invalid_token");

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
  CHECK(f.auth->mint(bob->user.id, "Login", TokenKind::api, {"mcp"}, std::nullopt).error().reason ==
        "reserved_name");
}

TEST_CASE("secrets rotate by key id, and further issuers are asked for what is not ours") {
  AuthFixture f;
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  AuthenticatorOptions rotated = f.options;
  rotated.previous_jwt_secrets = {kJwtSecret};
  rotated.jwt_secret = "the next secret, also more than 32 bytes";
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
  AuthFixture f;
  const auto root = f.register_as("root@example.test");
  const auto second = f.auth->login("root@example.test", kPassword, "a");
  const auto api = f.auth->mint(root->user.id, "api", TokenKind::api, {"api"}, std::nullopt);
  REQUIRE(second);
  REQUIRE(api);
  const auto me = f.auth->authenticate_token(root->token);
  CHECK(f.auth->change_password(*me, "wrong password", "another horse", false, "a").error().reason ==
        "invalid_credentials");
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
  AuthFixture f;
  User user;
  user.email = "old@example.test";
  user.password_hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
  REQUIRE(f.repository->create_user(user));
  REQUIRE(f.auth->login("old@example.test", "U*U", "a"));
  CHECK(f.repository->user_by_email("old@example.test")->password_hash.starts_with("$scrypt$"));
  CHECK(reason(f.auth->login("old@example.test", "U*U", "a")) == "ok");
}

TEST_CASE("the header has one form") {
  AuthFixture f;
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  for (const char* scheme : {"Bearer ", "bearer ", "BEARER ", "Bearer   ", " Bearer "})
    CHECK(reason(f.auth->authenticate(scheme + root->token)) == "ok");
  CHECK(reason(f.auth->authenticate("Bearer " + root->token + " ")) == "ok");
  for (const std::string& bad :
       {std::string(), std::string(" "), root->token, "Bearer" + root->token, "Bearer\t" + root->token,
        "Token " + root->token, "Bearer " + root->token + ", Bearer x", "Bearer \"" + root->token + "\"",
        "Bearer " + root->token + " x", std::string("Bearer \xc3\xa4"), std::string("Bearer a\0b", 10),
        "Bearer Bearer " + root->token})
    CHECK_MESSAGE(reason(f.auth->authenticate(bad)) == "unauthorized", bad);
  CHECK(reason(f.auth->authenticate("Bearer " + std::string(30000, 'a'))) == "invalid_token");
}

TEST_CASE("a token needs its row, its user, and both of them valid") {
  AuthFixture f;
  const auto root = f.register_as("root@example.test");
  const auto bob = f.register_as("bob@example.test");
  REQUIRE(root);
  REQUIRE(bob);
  const auto principal = f.auth->authenticate_token(bob->token);
  REQUIRE(principal);
  f.set_enabled(bob->user.id, false);
  CHECK(reason(f.auth->authenticate_token(bob->token)) == "invalid_token");
  CHECK_FALSE(f.auth->still_valid(*principal));
  f.set_enabled(bob->user.id, true);
  CHECK(reason(f.auth->authenticate_token(bob->token)) == "ok");
  CHECK(f.auth->still_valid(*principal));

  auto other_row = *principal;
  other_row.token_id = f.repository->tokens_of(root->user.id)[0]->id;
  CHECK_FALSE(f.auth->still_valid(other_row));
  auto more_scopes = *principal;
  more_scopes.scopes = {"mcp"};
  CHECK_FALSE(f.auth->still_valid(more_scopes));
  auto groups = *principal;
  groups.groups = {"ops"};
  CHECK_FALSE(f.auth->still_valid(groups));

  REQUIRE(f.repository->delete_user(bob->user.id));
  CHECK(reason(f.auth->authenticate_token(bob->token)) == "invalid_token");
  CHECK_FALSE(f.auth->still_valid(*principal));

  // Signed with our secret, but no such row, or none of ours in the text.
  JwtClaims claims{"mcpgw", "mcpgw", root->user.id, "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", 0, 0, {}};
  CHECK(reason(f.auth->authenticate_token(sign(claims))) == "invalid_token");
  claims.token_id = "../tokens";
  CHECK(reason(f.auth->authenticate_token(sign(claims))) == "invalid_token");
  // A text that lives longer than its row does not live longer.
  const auto row = f.repository->tokens_of(root->user.id)[0];
  claims.token_id = row->jti;
  CHECK(reason(f.auth->authenticate_token(sign(claims))) == "ok");
  f.clock->advance(std::chrono::hours(24) - Duration(1));
  CHECK(reason(f.auth->authenticate_token(sign(claims))) == "ok");
  f.clock->advance(Duration(1));
  CHECK(reason(f.auth->authenticate_token(sign(claims))) == "token_expired");
}

TEST_CASE("the identity has what storage says, and nothing of the token's text") {
  AuthFixture f;
  REQUIRE(f.register_as("root@example.test"));
  const auto bob = f.register_as("bob@example.test");
  REQUIRE(bob);
  const auto api = f.auth->mint(bob->user.id, "robot", TokenKind::api, {"mcp"}, std::nullopt);
  REQUIRE(api);
  UserPatch patch;
  patch.role = "viewer";
  patch.groups = std::vector<std::string>{"b", "a"};
  REQUIRE(f.repository->update_user(bob->user.id, patch));
  const auto principal = f.auth->authenticate_token(api->token);
  REQUIRE(principal);
  CHECK(principal->email == "bob@example.test");
  CHECK(principal->role == "viewer");
  CHECK(principal->groups == std::vector<std::string>{"b", "a"});
  CHECK(principal->scopes == std::vector<std::string>{"mcp"});
  CHECK(principal->token_id == api->row.id);
  CHECK_FALSE(principal->token_expires_at);
  CHECK(principal->has_scope("mcp"));
  CHECK_FALSE(principal->has_scope("api"));
  const auto payload = *detail::from_base64url(detail::split(api->token, '.')[1]);
  for (const char* absent : {"viewer", "bob", "robot", "scope", "exp", "role", "groups"})
    CHECK(payload.find(absent) == std::string::npos);
}

TEST_CASE("minting follows the rules of the row") {
  AuthFixture f;
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  const std::string& id = root->user.id;
  const auto mint = [&](const char* name, std::vector<std::string> scopes, std::optional<Time> expires_at) {
    return reason(f.auth->mint(id, name, TokenKind::api, std::move(scopes), expires_at));
  };
  CHECK(mint("Default", {"mcp"}, {}) == "reserved_name");
  CHECK(mint("Login", {"mcp"}, {}) == "reserved_name");
  CHECK(mint("x", {}, {}) == "invalid_request");
  CHECK(mint("x", {"admin"}, {}) == "invalid_request");
  CHECK(mint(std::string(101, 'x').c_str(), {"mcp"}, {}) == "invalid_request");
  CHECK(mint("x", {"mcp"}, f.clock->now()) == "invalid_request");
  CHECK(mint("x", {"mcp"}, f.clock->now() + Duration(1)) == "ok");
  CHECK(reason(f.auth->mint("6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "x", TokenKind::api, {"mcp"}, {})) ==
        "user_not_found");
  for (int i = 0; i < 99; ++i) CHECK(mint("x", {"mcp"}, {}) == "ok");
  CHECK(mint("x", {"mcp"}, {}) == "token_limit");
  CHECK(reason(f.auth->login("root@example.test", kPassword, "a")) == "ok");
}

TEST_CASE("further verifiers: their tokens, our disabled users") {
  const auto partner = std::make_shared<Partner>();
  AuthFixture f([&](auto& o) { o.verifiers = {partner}; });
  const auto root = f.register_as("root@example.test");
  const auto bob = f.register_as("bob@example.test");
  REQUIRE(root);
  REQUIRE(bob);
  const auto eve = f.auth->authenticate("Bearer partner:eve");
  REQUIRE(eve);
  CHECK(eve->role == "guest");
  CHECK(eve->token_id.empty());
  CHECK(f.auth->still_valid(*eve));
  CHECK(reason(f.auth->authenticate_token("partner:refused")) == "invalid_token");
  CHECK(reason(f.auth->authenticate_token("partner:")) == "invalid_token");
  CHECK(reason(f.auth->authenticate_token("else:eve")) == "invalid_token");

  const auto as_bob = f.auth->authenticate_token("partner:" + bob->user.id);
  REQUIRE(as_bob);
  f.set_enabled(bob->user.id, false);
  CHECK_FALSE(f.auth->still_valid(*as_bob));
  CHECK(reason(f.auth->authenticate_token("partner:" + bob->user.id)) == "invalid_token");

  partner->expires_at = f.clock->now() + std::chrono::seconds(5);
  const auto brief = f.auth->authenticate_token("partner:eve");
  REQUIRE(brief);
  CHECK(f.auth->still_valid(*brief));
  f.clock->advance(std::chrono::seconds(5));
  CHECK_FALSE(f.auth->still_valid(*brief));
  CHECK(reason(f.auth->authenticate_token("partner:eve")) == "token_expired");

  // Without a verifier nobody vouches for an identity that has no row.
  AuthFixture alone;
  CHECK_FALSE(alone.auth->still_valid(*eve));
}

TEST_CASE("options out of range are refused and named") {
  AuthFixture f;
  const auto field = [&](const std::function<void(AuthenticatorOptions&)>& change) {
    AuthenticatorOptions options = f.options;
    change(options);
    const auto made = Authenticator::create(options);
    return made ? std::string("accepted") : made.error().field;
  };
  CHECK(field([](auto&) {}) == "accepted");
  CHECK(field([](auto& o) { o.repository = nullptr; }) == "repository");
  CHECK(field([](auto& o) { o.jwt_secret = ""; }) == "jwt.secret");
  CHECK(field([](auto& o) { o.jwt_secret = std::string(31, 'x'); }) == "jwt.secret");
  CHECK(field([](auto& o) { o.previous_jwt_secrets = {"short"}; }) == "jwt.previous_secrets");
  CHECK(field([](auto& o) { o.issuer = ""; }) == "jwt.issuer");
  CHECK(field([](auto& o) { o.audience = ""; }) == "jwt.audience");
  CHECK(field([](auto& o) { o.login_ttl = std::chrono::seconds(0); }) == "auth.login_ttl");
  CHECK(field([](auto& o) { o.login_ttl = std::chrono::seconds::max(); }) == "auth.login_ttl");
  CHECK(field([](auto& o) { o.password_min = 5; }) == "auth.password_min");
  CHECK(field([](auto& o) { o.password_min = 129; }) == "auth.password_min");
  CHECK(field([](auto& o) { o.login_failures_per_pair = 0; }) == "auth.rate");
  CHECK(field([](auto& o) { o.rate_window = std::chrono::seconds(0); }) == "auth.rate");
  CHECK(field([](auto& o) { o.verifiers = {nullptr}; }) == "verifiers");
}

TEST_CASE("R78: passwords count in characters and are used whole") {
  AuthFixture f([](auto& o) { o.password_min = 6; });
  std::string longest;
  for (int i = 0; i < 1024; ++i) longest += "\xf0\x9f\x98\x80";  // four bytes each
  REQUIRE(f.auth->register_user("root@example.test", longest, "", "a"));
  CHECK(reason(f.auth->login("root@example.test", longest, "a")) == "ok");
  CHECK(reason(f.auth->login("root@example.test", longest.substr(4), "a")) == "invalid_credentials");
  CHECK(reason(f.auth->login("root@example.test", longest + "x", "a")) == "invalid_credentials");
  CHECK(reason(f.auth->login("root@example.test", "", "a")) == "invalid_credentials");
  CHECK(reason(f.auth->login("root@example.test", std::string(1 << 20, 'x'), "a")) == "invalid_credentials");
  for (const std::string& weak :
       {longest + "x", std::string("12345"), std::string("\xff\xfe\xfd\xfc\xfb\xfa\xf9"),
        std::string("1234567\0"
                    "9",
                    9),
        std::string(1 << 20, 'x')})
    CHECK(f.auth->hash_password(weak).error().reason == "weak_password");
  CHECK(f.auth->hash_password("12345").error().message.find("6 to 1024") != std::string::npos);
  CHECK(f.auth->hash_password("\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"));
  for (const char* email : {"", "root", "@", "root@", "root@example.test\n.org", "root@example.test, x"})
    CHECK(reason(f.auth->login(email, longest, "b")) == "invalid_credentials");
}

TEST_CASE("what comes back holds no hash") {
  AuthFixture f;
  const auto made = f.register_as("root@example.test");
  const auto login = f.auth->login("root@example.test", kPassword, "a");
  REQUIRE(made);
  REQUIRE(login);
  CHECK(made->user.password_hash.empty());
  CHECK(login->user.password_hash.empty());
  CHECK_FALSE(f.repository->user(made->user.id)->password_hash.empty());
}
