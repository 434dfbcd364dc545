// Registration, login, own account and own tokens.
#include <algorithm>

#include "admin/answers.hpp"
#include "admin/routes.hpp"
#include "admin/views.hpp"
#include "base/text.hpp"
#include "storage/validate.hpp"

namespace mcpgw::detail {
namespace {

const Schema kRegister = {field::text("email").required(), field::text("password").required().secret(),
                          field::text("setup_token").secret()};
const Schema kLogin = {field::text("email").required(), field::text("password").required().secret()};
const Schema kCreateToken = {field::text("name"), field::texts("scopes"), field::text("expires_at")};
const Schema kPassword = {field::text("old_password").required().secret(),
                          field::text("new_password").required().secret(), field::flag("revoke_api_tokens")};

HttpResponse signed_in(Call& call, int status, const Result<SignedIn>& result) {
  // Only what is an address: people type their password into the wrong field.
  if (std::string email = call.text("email"); validate_email(email)) call.audit.user_email = email;
  if (!result) return failure(call, result.error());
  call.audit.user_id = result->user.id;
  call.audit.user_email = result->user.email;
  return json_response(status, {{"user", user_view(result->user)}, {"token", result->token}});
}

HttpResponse register_user(Call& call) {
  std::string setup = call.text("setup_token");
  if (setup.empty())
    if (const std::string* header = call.request.header("X-Setup-Token")) setup = *header;
  return signed_in(call, 201,
                   call.api.authenticator->register_user(call.text("email"), call.text("password"), setup,
                                                         call.request.remote_address));
}

HttpResponse login(Call& call) {
  HttpResponse out = signed_in(
      call, 200,
      call.api.authenticator->login(call.text("email"), call.text("password"), call.request.remote_address));
  if (out.status == 401) out.headers.emplace_back("WWW-Authenticate", R"(Bearer realm="mcpgw")");
  return out;
}

HttpResponse me(Call& call) {
  const auto user = call.api.repository->user(call.principal.user_id);
  if (!user) return failure(404, "user_not_found", "User not found");
  return object_response(200, user_view(*user), user->version);
}

HttpResponse own_tokens(Call& call) {
  const Time now = call.api.repository->clock().now();
  std::vector<Json> out;
  for (const auto& token : call.api.repository->tokens_of(call.principal.user_id))
    if (!token->revoked_at && (!token->expires_at || *token->expires_at > now))
      out.push_back(token_view(*token));
  return list_response(call, std::move(out));
}

HttpResponse create_token(Call& call) {
  std::vector<std::string> scopes = call.principal.scopes;
  if (call.has("scopes")) scopes = call.body["scopes"].get<std::vector<std::string>>();
  for (const std::string& scope : scopes) {
    if (scope != "mcp" && scope != "api")
      return failure(400, "invalid_request", "scopes may hold mcp and api", "scopes");
    // A token mints no scope that it lacks itself.
    if (!call.principal.has_scope(scope))
      return insufficient_scope(scope, "The token that asks does not have this scope itself", "scopes");
  }
  std::optional<Time> expires_at;
  if (const auto text = call.text_if("expires_at")) {
    expires_at = parse_time(*text);
    if (!expires_at || *expires_at <= call.api.repository->clock().now())
      return failure(400, "invalid_request", "expires_at must be a time in the future (RFC 3339)",
                     "expires_at");
  }
  auto minted = call.api.authenticator->mint(call.principal.user_id, call.text("name"), TokenKind::api,
                                             std::move(scopes), expires_at);
  if (!minted) return failure(call, minted.error());
  return json_response(201, {{"api_token", token_view(minted->row)}, {"token", minted->token}});
}

HttpResponse revoke_token(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  if (auto status = call.api.repository->revoke_token(call.principal.user_id, call.path[0]); !status)
    return failure(call, status.error());
  return no_content();
}

HttpResponse logout(Call& call) {
  if (auto status = call.api.repository->revoke_token(call.principal.user_id, call.principal.token_id);
      !status)
    return failure(call, status.error());
  return no_content();
}

HttpResponse change_password(Call& call) {
  auto status = call.api.authenticator->change_password(
      call.principal, call.text("old_password"), call.text("new_password"),
      call.flag("revoke_api_tokens", false), call.request.remote_address);
  return status ? no_content() : failure(call, status.error());
}

HttpResponse recycle_own(Call& call) {
  const auto count = call.api.live->recycle(call.principal.user_id);
  if (!count) return failure(call, count.error());
  return json_response(200, {{"recycled", *count}, {"user_id", call.principal.user_id}});
}

}  // namespace

std::vector<Route> auth_routes() {
  return {
      {"POST", "/api/auth/register", Who::everyone, Audited::auth, &kRegister, register_user,
       AdminApi::Work::hashes_password},
      {"POST", "/api/auth/login", Who::everyone, Audited::auth, &kLogin, login,
       AdminApi::Work::hashes_password},
      {"GET", "/api/auth/me", Who::user, Audited::no, nullptr, me},
      {"GET", "/api/auth/tokens", Who::user, Audited::no, nullptr, own_tokens},
      {"POST", "/api/auth/tokens", Who::user, Audited::auth, &kCreateToken, create_token},
      {"DELETE", "/api/auth/tokens/{id}", Who::user, Audited::auth, nullptr, revoke_token},
      {"POST", "/api/auth/logout", Who::user, Audited::auth, nullptr, logout},
      {"POST", "/api/auth/password", Who::user, Audited::auth, &kPassword, change_password,
       AdminApi::Work::hashes_password},
      {"POST", "/api/sessions/recycle", Who::user, Audited::admin, nullptr, recycle_own},
  };
}

}  // namespace mcpgw::detail
