// Users and API tokens.
#include <algorithm>

#include "repository_support.hpp"

using namespace mcpgw;        // NOLINT
using namespace mcpgw::test;  // NOLINT

TEST_CASE("a created user is found by id and by email in any case") {
  Fixture f;
  User wanted;
  wanted.email = "  Alice@Example.COM ";
  wanted.groups = {"b", " a ", "b"};
  const User made = must(f->create_user(wanted));
  CHECK(made.email == "alice@example.com");                  // R78
  CHECK(made.groups == std::vector<std::string>{"b", "a"});  // R86: the first place is kept
  CHECK(made.version == 1);
  CHECK(made.created_at == f.clock->now());
  REQUIRE(f->user(made.id));
  CHECK(f->user(made.id)->email == "alice@example.com");
  REQUIRE(f->user_by_email(" ALICE@example.com"));
  CHECK(f->user_by_email("ALICE@example.com")->id == made.id);
  CHECK(f->user_by_email("alice@example.co") == nullptr);
  CHECK(f->user("nobody") == nullptr);
  CHECK(f->has_users());
}

TEST_CASE("an email address belongs to one user, whatever its case") {
  Fixture f;
  f.user("alice");
  User again;
  again.email = "ALICE@example.com";
  const auto result = f->create_user(again);
  CHECK(reason(result) == "email_taken");
  CHECK(result.error().code == ErrorCode::conflict);
  CHECK(field(result) == "email");
  CHECK(f->users().size() == 1);
}

TEST_CASE("users are listed by email") {
  Fixture f;
  f.user("carol");
  f.user("alice");
  f.user("bob");
  std::vector<std::string> emails;
  for (const auto& user : f->users()) emails.push_back(user->email);
  CHECK(emails == std::vector<std::string>{"alice@example.com", "bob@example.com", "carol@example.com"});
}

TEST_CASE("the first user becomes admin once, also after all users are gone") {
  Fixture f;
  CHECK_FALSE(f->has_users());
  User wanted;
  wanted.email = "first@example.com";
  bool first = false;
  const User admin = must(f->create_user(wanted, true, &first));
  CHECK(first);
  CHECK(admin.role == "admin");
  wanted.email = "second@example.com";
  const User second = must(f->create_user(wanted, true, &first));
  CHECK_FALSE(first);
  CHECK(second.role == "user");
  // An instance that starts later knows it too.
  const auto other = must(Repository::open(f.options()));
  CHECK(other->has_users());
}

TEST_CASE("a user and a first token are created together or not at all") {
  Fixture f;
  User wanted;
  wanted.email = "alice@example.com";
  ApiToken token;
  token.name = "Default";
  token.kind = TokenKind::login;
  token.scopes = {"mcp", "api"};
  f.storage->fail_commit(1, Error(ErrorCode::unavailable, "storage_unavailable", "away"));
  CHECK(reason(f->create_user(wanted, true, nullptr, &token)) == "storage_unavailable");
  CHECK_FALSE(f->has_users());
  CHECK(f->users().empty());
  const User made = must(f->create_user(wanted, true, nullptr, &token));
  CHECK(made.role == "admin");
  REQUIRE(f->token_by_jti(token.jti));
  CHECK(f->token_by_jti(token.jti)->user_id == made.id);
  CHECK(f->tokens_of(made.id).size() == 1);
}

TEST_CASE("a patch writes its members and no others") {
  Fixture f;
  f.user("root", "admin");
  const User made = f.user("alice", "viewer", {"x"});
  f.clock->advance(std::chrono::seconds(5));
  UserPatch patch;
  patch.groups = std::vector<std::string>{"y", "y", "z"};
  User changed = must(f->update_user(made.id, patch));
  CHECK(changed.role == "viewer");
  CHECK(changed.groups == std::vector<std::string>{"y", "z"});
  CHECK(changed.updated_at == f.clock->now());
  CHECK(changed.created_at == made.created_at);
  CHECK(changed.version > made.version);
  CHECK(f->user(made.id)->groups == changed.groups);

  SUBCASE("a login is no edit") {
    f.clock->advance(std::chrono::seconds(5));
    UserPatch login;
    login.last_login_at = f.clock->now();
    const User after = must(f->update_user(made.id, login));
    CHECK(after.updated_at == changed.updated_at);
    CHECK(after.last_login_at == f.clock->now());
  }
  SUBCASE("a wrong version changes nothing") {
    patch.role = "other";
    CHECK(reason(f->update_user(made.id, patch, made.version)) == "precondition_failed");
    CHECK(f->user(made.id)->role == "viewer");
    CHECK(must(f->update_user(made.id, patch, changed.version)).role == "other");
  }
  SUBCASE("members are checked") {
    patch.role = "-x";
    CHECK(field(f->update_user(made.id, patch)) == "role");
    patch.role.reset();
    patch.groups = std::vector<std::string>{"a,b"};
    CHECK(field(f->update_user(made.id, patch)) == "groups");
  }
  CHECK(reason(f->update_user("0f8fad5b-d9cb-469f-a165-70867728950e", UserPatch{})) == "user_not_found");
  CHECK(reason(f->update_user("x/y", UserPatch{})) == "user_not_found");
}

TEST_CASE("R45: the last enabled admin stays") {
  Fixture f;
  const User root = f.user("root", "admin");
  UserPatch demote;
  demote.role = "user";
  UserPatch disable;
  disable.enabled = false;
  CHECK(reason(f->update_user(root.id, demote)) == "last_admin");
  CHECK(reason(f->update_user(root.id, disable)) == "last_admin");
  CHECK(reason(f->delete_user(root.id)) == "last_admin");
  CHECK(f->update_user(root.id, demote).error().code == ErrorCode::conflict);
  REQUIRE(f->user(root.id));
  CHECK(f->user(root.id)->role == "admin");
  CHECK(f->user(root.id)->enabled);

  const User second = f.user("second", "admin");
  SUBCASE("a disabled admin does not count") {
    must(f->update_user(second.id, disable));
    CHECK(reason(f->update_user(root.id, demote)) == "last_admin");
    UserPatch enable;
    enable.enabled = true;
    must(f->update_user(second.id, enable));
    must(f->update_user(root.id, demote));
    CHECK(reason(f->delete_user(second.id)) == "last_admin");
  }
  SUBCASE("a second one lets the first go") {
    must(f->delete_user(root.id));
    CHECK(reason(f->update_user(second.id, disable)) == "last_admin");
  }
  SUBCASE("an admin whose row cannot be read does not count") {
    f.plant(collection::kUsers, second.id, "{\"schema\":1}");
    CHECK(reason(f->update_user(root.id, demote)) == "last_admin");
  }
}

TEST_CASE("deleting a user removes all that refers to it, and nothing else") {
  Fixture f;
  f.user("root", "admin");
  const User alice = f.user("alice");
  const User bob = f.user("bob");
  const Target target = f.target("t");
  const ApiToken token = f.token(alice);
  const ApiToken kept = f.token(bob);
  for (const User& user : {alice, bob}) {
    const ScopeRef scope{Scope::user, user.id};
    must(f->set_target_token(target.id, scope, "secret"));
    must(f->set_env(target.id, scope, {{"KEY", "value", {}}}));
    SessionRecord session;
    session.id = "session-of-" + user.email;
    session.user_id = user.id;
    must(f->save_session(session));
  }
  const Policy policy =
      f.policy("p", {},
               {Fixture::subject(SubjectType::user, alice.id), Fixture::subject(SubjectType::user, bob.id),
                Fixture::subject(SubjectType::role, "user")});
  must(f->delete_user(alice.id));
  CHECK(f->user(alice.id) == nullptr);
  CHECK(f->user_by_email(alice.email) == nullptr);
  CHECK(f->token(token.id) == nullptr);
  CHECK(f->token_by_jti(token.jti) == nullptr);
  CHECK(f->token(kept.id) != nullptr);
  CHECK_FALSE(f->target_token(target.id, {Scope::user, alice.id}));
  CHECK(f->target_token(target.id, {Scope::user, bob.id}));
  CHECK(f->env_rows(target.id, {Scope::user, alice.id}).empty());
  CHECK(f->env_rows(target.id, {Scope::user, bob.id}).size() == 1);
  CHECK(must(f->sessions_of(alice.id)).empty());
  CHECK(must(f->sessions_of(bob.id)).size() == 1);
  const auto left = f->policy(policy.id)->subjects;
  REQUIRE(left.size() == 2);
  CHECK(left[0].value == bob.id);
  CHECK(left[0].id == policy.subjects[1].id);
  // Not a trace of the id in storage, save where it was first used.
  CHECK(dump(*f.memory).find(alice.id) == std::string::npos);
  CHECK(reason(f->delete_user(alice.id)) == "user_not_found");
  // The address is free again.
  CHECK(f.user("alice").id != alice.id);
}

TEST_CASE("delete_user honours a version") {
  Fixture f;
  f.user("root", "admin");
  const User alice = f.user("alice");
  CHECK(reason(f->delete_user(alice.id, alice.version + 1)) == "precondition_failed");
  CHECK(f->user(alice.id) != nullptr);
  must(f->delete_user(alice.id, alice.version));
}

TEST_CASE("tokens are listed newest first and keep their members") {
  Fixture f;
  const User alice = f.user("alice");
  ApiToken wanted;
  wanted.user_id = alice.id;
  wanted.name = "ci";
  wanted.scopes = {"mcp", "mcp"};
  wanted.expires_at = f.clock->now() + std::chrono::hours(1);
  const ApiToken first = must(f->create_token(wanted));
  CHECK(first.scopes == std::vector<std::string>{"mcp"});
  f.clock->advance(std::chrono::seconds(1));
  const ApiToken second = f.token(alice, TokenKind::login, "Login");
  const auto tokens = f->tokens_of(alice.id);
  REQUIRE(tokens.size() == 2);
  CHECK(tokens[0]->id == second.id);
  CHECK(tokens[1]->id == first.id);
  CHECK(tokens[1]->expires_at == wanted.expires_at);
  CHECK(tokens[0]->kind == TokenKind::login);
  CHECK(f->token_by_jti(first.jti)->id == first.id);
  CHECK(first.jti != first.id);
}

TEST_CASE("what a token may not be") {
  Fixture f;
  const User alice = f.user("alice");
  ApiToken token;
  token.user_id = alice.id;
  token.scopes = {"mcp"};
  const auto create = [&] { return f->create_token(token); };
  token.name = "Login";
  CHECK(reason(create()) == "reserved_name");
  token.name = std::string(101, 'x');
  CHECK(field(create()) == "name");
  token.name = "ok";
  token.scopes = {};
  CHECK(field(create()) == "scopes");
  token.scopes = {"root"};
  CHECK(field(create()) == "scopes");
  token.scopes = {"api"};
  token.expires_at = f.clock->now();
  CHECK(field(create()) == "expires_at");
  token.expires_at.reset();
  token.user_id = "0f8fad5b-d9cb-469f-a165-70867728950e";
  CHECK(reason(create()) == "user_not_found");
  CHECK(f->tokens_of(alice.id).empty());
}

TEST_CASE("the token limit counts live API tokens") {
  Fixture f;
  auto options = f.options();
  options.max_tokens_per_user = 2;
  f.repository = must(Repository::open(options));
  const User alice = f.user("alice");
  f.token(alice, TokenKind::login, "Login");
  const ApiToken first = f.token(alice);
  ApiToken short_lived;
  short_lived.user_id = alice.id;
  short_lived.scopes = {"mcp"};
  short_lived.expires_at = f.clock->now() + std::chrono::seconds(10);
  must(f->create_token(short_lived));
  ApiToken third;
  third.user_id = alice.id;
  third.scopes = {"mcp"};
  const auto refused = f->create_token(third);
  CHECK(reason(refused) == "token_limit");
  CHECK(refused.error().code == ErrorCode::conflict);
  f.token(alice, TokenKind::login, "Login");  // logins are not counted
  f.clock->advance(std::chrono::seconds(11));
  must(f->create_token(third));
  must(f->revoke_token(alice.id, first.id));
  must(f->create_token(third));
  CHECK(reason(f->create_token(third)) == "token_limit");
}

TEST_CASE("rows of logins have a bound, and live API tokens survive it") {
  Fixture f;
  const User alice = f.user("alice");
  const ApiToken api = f.token(alice);
  const ApiToken oldest = f.token(alice, TokenKind::login, "Login");
  std::vector<ApiToken> logins;
  for (int i = 0; i < 998; ++i) {
    f.clock->advance(std::chrono::milliseconds(1));
    ApiToken row = oldest;
    row.id = make_uuid(f->random());
    row.jti = make_uuid(f->random());
    row.created_at = f.clock->now();
    f.plant(collection::kTokens, alice.id + "/" + row.id, detail::encode_token(row));
    logins.push_back(row);
  }
  f.repository = must(Repository::open(f.options()));
  REQUIRE(f->tokens_of(alice.id).size() == 1000);
  must(f->revoke_token(alice.id, logins[500].id));
  f.clock->advance(std::chrono::milliseconds(1));
  f.token(alice, TokenKind::login, "Login");
  CHECK(f->token(logins[500].id) == nullptr);  // the dead one first
  CHECK(f->token(oldest.id) != nullptr);
  f.token(alice, TokenKind::login, "Login");
  CHECK(f->token(oldest.id) == nullptr);
  CHECK(f->token(logins[0].id) != nullptr);
  CHECK(f->token(api.id) != nullptr);
  CHECK(f->tokens_of(alice.id).size() == 1000);
}

TEST_CASE("revoking") {
  Fixture f;
  const User alice = f.user("alice");
  const User bob = f.user("bob");
  const ApiToken token = f.token(alice);
  CHECK(reason(f->revoke_token(bob.id, token.id)) == "token_not_found");
  CHECK(reason(f->revoke_token(alice.id, "x")) == "token_not_found");
  CHECK_FALSE(f->token(token.id)->revoked_at);
  must(f->revoke_token(alice.id, token.id));
  const auto revoked_at = f->token(token.id)->revoked_at;
  CHECK(revoked_at == f.clock->now());
  f.clock->advance(std::chrono::seconds(1));
  must(f->revoke_token(alice.id, token.id));
  CHECK(f->token(token.id)->revoked_at == revoked_at);

  const ApiToken login = f.token(alice, TokenKind::login, "Login");
  const ApiToken current = f.token(alice, TokenKind::login, "Login");
  const ApiToken api = f.token(alice);
  must(f->revoke_tokens(alice.id, false, current.id));
  CHECK(f->token(login.id)->revoked_at);
  CHECK_FALSE(f->token(current.id)->revoked_at);
  CHECK_FALSE(f->token(api.id)->revoked_at);
  must(f->revoke_tokens(alice.id, true));
  CHECK(f->token(current.id)->revoked_at);
  CHECK(f->token(api.id)->revoked_at);
  CHECK(reason(f->revoke_tokens("0f8fad5b-d9cb-469f-a165-70867728950e", true)) == "user_not_found");
}

TEST_CASE("a new password and the end of the old logins are one transaction") {
  Fixture f;
  const User alice = f.user("alice");
  const ApiToken login = f.token(alice, TokenKind::login, "Login");
  const ApiToken current = f.token(alice, TokenKind::login, "Login");
  const ApiToken api = f.token(alice);
  UserPatch patch;
  patch.password_hash = "new";
  patch.revoke_login_tokens = true;
  patch.keep_token_id = current.id;
  const std::string before = dump(*f.memory);
  f.storage->fail_commit(1, Error(ErrorCode::unavailable, "storage_unavailable", "away"));
  CHECK(reason(f->update_user(alice.id, patch)) == "storage_unavailable");
  CHECK(dump(*f.memory) == before);
  CHECK(f->user(alice.id)->password_hash == "hash of alice");
  CHECK_FALSE(f->token(login.id)->revoked_at);
  must(f->update_user(alice.id, patch));
  CHECK(f->user(alice.id)->password_hash == "new");
  CHECK(f->token(login.id)->revoked_at);
  CHECK_FALSE(f->token(current.id)->revoked_at);
  CHECK_FALSE(f->token(api.id)->revoked_at);
}

TEST_CASE("a token's use is written once a minute, and failures do not matter") {
  Fixture f;
  const User alice = f.user("alice");
  const ApiToken token = f.token(alice);
  CHECK(f->token_touch_due(token.id));
  f->touch_token(token.id);
  CHECK(f->token(token.id)->last_used_at == f.clock->now());
  CHECK_FALSE(f->token_touch_due(token.id));
  const auto used = f->token(token.id)->last_used_at;
  f.clock->advance(std::chrono::seconds(59));
  f->touch_token(token.id);
  CHECK(f->token(token.id)->last_used_at == used);
  f.clock->advance(std::chrono::seconds(1));
  CHECK(f->token_touch_due(token.id));
  f.storage->set_down(true);
  f->touch_token(token.id);
  CHECK_FALSE(f->token_touch_due(token.id));  // tried: not again within the minute
  f.storage->set_down(false);
  CHECK(f->token(token.id)->last_used_at == used);
  f.clock->advance(std::chrono::seconds(60));
  f->touch_token(token.id);
  CHECK(f->token(token.id)->last_used_at == f.clock->now());
  CHECK_FALSE(f->token_touch_due("unknown"));
  f->touch_token("unknown");
}

TEST_CASE("R75: purging removes tokens that expired or were revoked before the cutoff") {
  Fixture f;
  const User alice = f.user("alice");
  const ApiToken live = f.token(alice);
  const ApiToken revoked = f.token(alice);
  ApiToken wanted;
  wanted.user_id = alice.id;
  wanted.scopes = {"mcp"};
  wanted.expires_at = f.clock->now() + std::chrono::hours(1);
  const ApiToken expiring = must(f->create_token(wanted));
  must(f->revoke_token(alice.id, revoked.id));
  CHECK(must(f->purge_tokens(f.clock->now())) == 0);
  f.clock->advance(std::chrono::hours(2));
  CHECK(must(f->purge_tokens(f.clock->now() - std::chrono::minutes(90))) == 1);
  CHECK(f->token(revoked.id) == nullptr);
  CHECK(f->token(expiring.id) != nullptr);
  CHECK(must(f->purge_tokens(f.clock->now())) == 1);
  CHECK(f->token(expiring.id) == nullptr);
  CHECK(f->token(live.id) != nullptr);
}
