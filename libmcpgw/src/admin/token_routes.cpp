// Target tokens: written, never read back.
#include <algorithm>

#include "admin/access.hpp"
#include "admin/answers.hpp"
#include "admin/routes.hpp"
#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

const Field kTokenText = field::text("token").required().secret().any_text();
const Schema kToken = {kTokenText};
const Schema kRoleToken = {field::text("role").required(), kTokenText};
const Schema kGroupToken = {field::text("group_name"), field::text("group"), kTokenText};

HttpResponse write(Call& call, const ScopeRef& scope) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  auto status = call.api.repository->set_target_token(found.target->id, scope, call.text("token"));
  if (!status) {
    // The scope's name stands in a member that the caller chose.
    if (status.error().field == "group" && call.has("group_name")) status.error().field = "group_name";
    return failure(call, status.error());
  }
  const bool usable = scope_usable(*found.target, scope.scope);
  return json_response(
      200, {{"message",
             usable ? "The token is stored"
                    : "The token is stored, but the target's isolation keeps this scope from being used"},
            {"usable", usable}});
}

HttpResponse remove(Call& call, const ScopeRef& scope, bool missing_is_fine = false) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  auto status = call.api.repository->delete_target_token(found.target->id, scope);
  if (status || (missing_is_fine && status.error().reason == "token_not_set")) return no_content();
  return failure(call, status.error());
}

HttpResponse overview(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  bool has_default = false;
  std::vector<std::pair<std::string, Json>> users, roles, groups;
  for (const TargetToken& token : call.api.repository->target_tokens(found.target->id)) {
    Json row{{"created_at", format_time(token.created_at)}, {"updated_at", format_time(token.updated_at)}};
    switch (token.scope.scope) {
      case Scope::everyone:
        has_default = true;
        break;
      case Scope::role:
        row["role"] = token.scope.value;
        roles.emplace_back(token.scope.value, std::move(row));
        break;
      case Scope::group:
        row["group_name"] = token.scope.value;
        groups.emplace_back(token.scope.value, std::move(row));
        break;
      case Scope::user: {
        const auto user = call.api.repository->user(token.scope.value);
        const std::string email = user ? user->email : std::string();
        row["user_id"] = token.scope.value;
        row["user_email"] = email;
        users.emplace_back(email, std::move(row));
        break;
      }
    }
  }
  const auto ordered = [](std::vector<std::pair<std::string, Json>>& rows) {
    std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    Json out = Json::array();
    for (auto& [key, row] : rows) out.push_back(std::move(row));
    return out;
  };
  return json_response(200, {{"target_id", found.target->id},
                             {"target_name", found.target->name},
                             {"has_default", has_default},
                             {"has_default_token", has_default},
                             {"user_tokens", ordered(users)},
                             {"role_tokens", ordered(roles)},
                             {"group_tokens", ordered(groups)}});
}

HttpResponse own(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  const auto token =
      call.api.repository->target_token(found.target->id, {Scope::user, call.principal.user_id});
  if (!token) return json_response(200, {{"has_token", false}});
  return json_response(200, {{"has_token", true},
                             {"created_at", format_time(token->created_at)},
                             {"updated_at", format_time(token->updated_at)}});
}

HttpResponse set_own(Call& call) { return write(call, {Scope::user, call.principal.user_id}); }
HttpResponse remove_own(Call& call) { return remove(call, {Scope::user, call.principal.user_id}); }
HttpResponse set_role(Call& call) { return write(call, {Scope::role, call.text("role")}); }
HttpResponse remove_role(Call& call) { return remove(call, {Scope::role, call.path[1]}); }
HttpResponse set_default(Call& call) { return write(call, {Scope::everyone, ""}); }
HttpResponse remove_default(Call& call) { return remove(call, {Scope::everyone, ""}, true); }
HttpResponse remove_group(Call& call) { return remove(call, {Scope::group, call.path[1]}); }

HttpResponse set_group(Call& call) {
  const auto name = call.text_if("group_name"), alias = call.text_if("group");
  if (!name && !alias) return failure(400, "invalid_request", "group_name is required", "group_name");
  if (name && alias && *name != *alias)
    return failure(400, "invalid_request", "group_name and group differ: send one of them", "group_name");
  return write(call, {Scope::group, name ? *name : *alias});
}

}  // namespace

std::vector<Route> token_routes() {
  return {
      {"GET", "/api/targets/{id}/tokens", Who::admin, Audited::no, nullptr, overview},
      {"GET", "/api/targets/{id}/token", Who::user, Audited::no, nullptr, own},
      {"PUT", "/api/targets/{id}/token", Who::user, Audited::admin, &kToken, set_own},
      {"DELETE", "/api/targets/{id}/token", Who::user, Audited::admin, nullptr, remove_own},
      {"PUT", "/api/targets/{id}/tokens/role", Who::admin, Audited::admin, &kRoleToken, set_role},
      {"DELETE", "/api/targets/{id}/tokens/role/{role}", Who::admin, Audited::admin, nullptr, remove_role},
      {"PUT", "/api/targets/{id}/tokens/group", Who::admin, Audited::admin, &kGroupToken, set_group},
      {"DELETE", "/api/targets/{id}/tokens/group/{group}", Who::admin, Audited::admin, nullptr, remove_group},
      {"PUT", "/api/targets/{id}/tokens/default", Who::admin, Audited::admin, &kToken, set_default},
      {"DELETE", "/api/targets/{id}/tokens/default", Who::admin, Audited::admin, nullptr, remove_default},
  };
}

}  // namespace mcpgw::detail
