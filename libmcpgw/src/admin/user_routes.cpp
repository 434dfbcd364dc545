// Users, for administrators.
#include "admin/answers.hpp"
#include "admin/routes.hpp"
#include "admin/views.hpp"

namespace mcpgw::detail {
namespace {

const Schema kCreate = {field::text("email").required(), field::text("password").required().secret(),
                        field::text("role"), field::texts("groups")};
const Schema kUpdate = {field::text("role"), field::texts("groups"), field::flag("enabled"),
                        field::text("password").secret(), field::flag("revoke_api_tokens")};

HttpResponse unknown() { return failure(404, "user_not_found", "User not found"); }

HttpResponse list(Call& call) {
  std::vector<Json> out;
  for (const auto& user : call.api.repository->users()) out.push_back(user_view(*user));
  return list_response(call, std::move(out));
}

HttpResponse create(Call& call) {
  auto hash = call.api.authenticator->hash_password(call.text("password"));
  if (!hash) return failure(call, hash.error());
  User user;
  user.email = call.text("email");
  user.password_hash = std::move(*hash);
  if (const auto role = call.text_if("role")) user.role = *role;
  if (call.has("groups")) user.groups = call.body["groups"].get<std::vector<std::string>>();
  auto made = call.api.repository->create_user(std::move(user));
  if (!made) return failure(call, made.error());
  HttpResponse out = object_response(201, user_view(*made), made->version);
  out.headers.emplace_back("Location", "/api/users/" + made->id);
  return out;
}

HttpResponse get(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  const auto user = call.api.repository->user(call.path[0]);
  return user ? object_response(200, user_view(*user), user->version) : unknown();
}

HttpResponse update(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  const auto user = call.api.repository->user(call.path[0]);
  if (!user) return unknown();
  const auto version = if_match(call, user->version);
  if (!version) return failure(call, version.error());
  UserPatch patch;
  if (const auto role = call.text_if("role")) patch.role = *role;
  if (call.has("groups")) patch.groups = call.body["groups"].get<std::vector<std::string>>();
  if (call.has("enabled")) patch.enabled = call.body["enabled"].get<bool>();
  if (const auto password = call.text_if("password")) {
    auto hash = call.api.authenticator->hash_password(*password);
    if (!hash) return failure(call, hash.error());
    patch.password_hash = std::move(*hash);
    patch.revoke_login_tokens = true;
    patch.revoke_api_tokens = call.flag("revoke_api_tokens", false);
  }
  auto updated = call.api.repository->update_user(user->id, patch, *version);
  if (!updated) return failure(call, updated.error());
  // Their sessions are gone from storage: this ends what is open here.
  if (!updated->enabled) (void)call.api.live->recycle(user->id);
  return object_response(200, user_view(*updated), updated->version);
}

HttpResponse remove(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  const auto user = call.api.repository->user(call.path[0]);
  if (!user) return unknown();
  const auto version = if_match(call, user->version);
  if (!version) return failure(call, version.error());
  if (auto status = call.api.repository->delete_user(user->id, *version); !status)
    return failure(call, status.error());
  (void)call.api.live->recycle(user->id);
  return no_content();
}

HttpResponse tokens(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  if (!call.api.repository->user(call.path[0])) return unknown();
  std::vector<Json> out;
  for (const auto& token : call.api.repository->tokens_of(call.path[0])) out.push_back(token_view(*token));
  return list_response(call, std::move(out));
}

HttpResponse revoke_token(Call& call) {
  for (const std::string& id : call.path)
    if (auto bad = check_id(id)) return *bad;
  if (!call.api.repository->user(call.path[0])) return unknown();
  auto status = call.api.repository->revoke_token(call.path[0], call.path[1]);
  return status ? no_content() : failure(call, status.error());
}

HttpResponse recycle(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  if (!call.api.repository->user(call.path[0])) return unknown();
  const auto count = call.api.live->recycle(call.path[0]);
  if (!count) return failure(call, count.error());
  return json_response(200, {{"recycled", *count}, {"user_id", call.path[0]}});
}

}  // namespace

std::vector<Route> user_routes() {
  return {
      {"GET", "/api/users", Who::admin, Audited::no, nullptr, list},
      {"POST", "/api/users", Who::admin, Audited::admin, &kCreate, create, AdminApi::Work::hashes_password},
      {"GET", "/api/users/{id}", Who::admin, Audited::no, nullptr, get},
      {"PUT", "/api/users/{id}", Who::admin, Audited::admin, &kUpdate, update,
       AdminApi::Work::hashes_password},
      {"DELETE", "/api/users/{id}", Who::admin, Audited::admin, nullptr, remove},
      {"GET", "/api/users/{id}/tokens", Who::admin, Audited::no, nullptr, tokens},
      {"DELETE", "/api/users/{id}/tokens/{tokenId}", Who::admin, Audited::admin, nullptr, revoke_token},
      {"POST", "/api/users/{id}/recycle", Who::admin, Audited::admin, nullptr, recycle},
  };
}

}  // namespace mcpgw::detail
