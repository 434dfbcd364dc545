// Environment of targets in four scopes: values are written, never read back.
#include <algorithm>

#include "admin/access.hpp"
#include "admin/answers.hpp"
#include "admin/routes.hpp"
#include "admin/views.hpp"
#include "storage/model_text.hpp"
#include "storage/validate.hpp"

namespace mcpgw::detail {
namespace {

// Keys and values have rules, and errors, of their own.
const Schema kOne = {field::text("key").required().any_text(),
                     field::text("value").required().secret().any_text(),
                     field::text("description").any_text()};
const Schema kMany = {field::text_map("configs").required().secret().any_text()};

Json scoped_source(const ResolvedSource& source) {
  Json out{{"key", source.key}, {"scope_type", to_text(source.scope.scope)}};
  if (!source.scope.value.empty()) out["scope_value"] = source.scope.value;
  return out;
}

/// The scope that a path names: of default, or role, group or user with its value.
ScopeRef scope_of(const Call& call, Scope kind) {
  return {kind, kind == Scope::everyone ? std::string() : call.path[1]};
}

/// Whether a scope is one of the caller's own: what others than admins may look at.
bool applies(const Principal& principal, const ScopeRef& scope) {
  switch (scope.scope) {
    case Scope::everyone:
      return true;
    case Scope::role:
      return scope.value == principal.role;
    case Scope::group:
      return std::find(principal.groups.begin(), principal.groups.end(), scope.value) !=
             principal.groups.end();
    case Scope::user:
      return scope.value == principal.user_id;
  }
  return false;
}

struct Found {
  std::shared_ptr<const Target> target;
  ScopeRef scope;
  HttpResponse refusal;
};

Found find(Call& call, Scope kind, bool writing) {
  Found out;
  out.scope = scope_of(call, kind);
  const bool admin = call.principal.is_admin();
  if (kind == Scope::user) {
    if (auto bad = check_id(out.scope.value)) return {nullptr, {}, *bad};
  } else if (auto status = validate_scope(out.scope); !status) {
    return {nullptr, {}, failure(call, status.error())};
  }
  auto found = find_target(call);
  if (!found.target) return {nullptr, {}, std::move(found.refusal)};
  // The routes of the other scopes admit writers by the table: only "user" is open to its owner.
  if (!admin && !applies(call.principal, out.scope))
    return {nullptr,
            {},
            failure(403, "forbidden",
                    writing ? "You may change your own entries only"
                            : "You may look at the scopes that apply to you only")};
  if (kind == Scope::user && !call.api.repository->user(out.scope.value))
    return {nullptr, {}, failure(404, "user_not_found", "User not found")};
  out.target = std::move(found.target);
  return out;
}

Json rows_json(const std::vector<EnvRow>& rows, const Target& target) {
  Json out = Json::array();
  for (const EnvRow& row : rows) out.push_back(env_view(row, target));
  return out;
}

/// What a plain user may set for themselves: nothing that redirects other scopes' credentials or decides
/// which code a process runs.
bool key_permitted(const Call& call, const Target& target, const std::string& key) {
  if (call.principal.is_admin()) return true;
  if (!target.is_process()) return key != "BASE_URL" && key != "AUTH_HEADER";
  if (is_protected_env_key(key)) return false;
  if (key == "AUTH_TOKEN") return true;
  for (const std::string& declared : target.user_env_keys)
    if (declared == "*" || declared == key) return true;
  const auto rows = call.api.repository->env_rows(target.id);
  return std::any_of(rows.begin(), rows.end(),
                     [&](const EnvRow& row) { return row.key == key && row.scope.scope != Scope::user; });
}

HttpResponse not_permitted() {
  return failure(403, "key_not_permitted", "You may not set this key for yourself", "key");
}

HttpResponse all(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  auto rows = call.api.repository->env_rows(found.target->id);
  if (!call.principal.is_admin())
    std::erase_if(rows, [&](const EnvRow& row) { return !applies(call.principal, row.scope); });
  std::vector<Json> out;
  for (const EnvRow& row : rows) out.push_back(env_view(row, *found.target));
  return list_response(call, std::move(out));
}

HttpResponse resolve(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  const EnvResolver resolver(call.api.repository);
  std::vector<Json> out;
  for (const ResolvedSource& source : resolver.sources(call.principal, *found.target))
    out.push_back(scoped_source(source));
  return list_response(call, std::move(out));
}

HttpResponse read(Call& call, Scope kind) {
  auto found = find(call, kind, false);
  if (!found.target) return std::move(found.refusal);
  std::vector<Json> out;
  for (const EnvRow& row : call.api.repository->env_rows(found.target->id, found.scope))
    out.push_back(env_view(row, *found.target));
  return list_response(call, std::move(out));
}

HttpResponse write_one(Call& call, Scope kind) {
  auto found = find(call, kind, true);
  if (!found.target) return std::move(found.refusal);
  Repository::EnvWrite write;
  write.key = call.text("key");
  write.value = call.text("value");
  if (call.body.contains("description"))
    write.description = call.body["description"].is_null() ? std::optional<std::string>()
                                                           : std::optional(call.text("description"));
  if (!key_permitted(call, *found.target, write.key)) return not_permitted();
  auto rows = call.api.repository->set_env(found.target->id, found.scope, {write});
  if (!rows) return failure(call, rows.error());
  for (const EnvRow& row : *rows)
    if (row.key == write.key) return json_response(200, env_view(row, *found.target));
  return failure(500, "internal", "Something went wrong inside the gateway");
}

HttpResponse write_many(Call& call, Scope kind) {
  auto found = find(call, kind, true);
  if (!found.target) return std::move(found.refusal);
  const Json& configs = call.body["configs"];
  if (configs.size() > kMaxEnvWrites)
    return failure(400, "invalid_request", "configs may hold at most 500 entries", "configs");
  std::vector<Repository::EnvWrite> writes;
  for (const auto& [key, value] : configs.items()) {
    if (!key_permitted(call, *found.target, key)) return not_permitted();
    writes.push_back({key, value.get<std::string>(), {}});
  }
  if (!writes.empty()) {
    if (auto rows = call.api.repository->set_env(found.target->id, found.scope, writes); !rows)
      return failure(call, rows.error());
  }
  return json_response(
      200, rows_json(call.api.repository->env_rows(found.target->id, found.scope), *found.target));
}

HttpResponse remove(Call& call, Scope kind) {
  auto found = find(call, kind, true);
  if (!found.target) return std::move(found.refusal);
  auto status = call.api.repository->delete_env(found.target->id, found.scope, call.path.back());
  return status ? no_content() : failure(call, status.error());
}

template <Scope kScope>
void add_scope(std::vector<Route>& out, const char* path, const char* key_path, Who writer) {
  out.push_back(
      {"GET", path, Who::user, Audited::no, nullptr, [](Call& call) { return read(call, kScope); }});
  out.push_back(
      {"POST", path, writer, Audited::admin, &kOne, [](Call& call) { return write_one(call, kScope); }});
  out.push_back(
      {"PUT", path, writer, Audited::admin, &kMany, [](Call& call) { return write_many(call, kScope); }});
  out.push_back(
      {"DELETE", key_path, writer, Audited::admin, nullptr, [](Call& call) { return remove(call, kScope); }});
}

}  // namespace

std::vector<Route> env_routes() {
  std::vector<Route> out = {
      {"GET", "/api/targets/{id}/env", Who::user, Audited::no, nullptr, all},
      {"GET", "/api/targets/{id}/env/resolve", Who::user, Audited::no, nullptr, resolve},
  };
  add_scope<Scope::everyone>(out, "/api/targets/{id}/env/default", "/api/targets/{id}/env/default/{key}",
                             Who::admin);
  add_scope<Scope::role>(out, "/api/targets/{id}/env/role/{scopeValue}",
                         "/api/targets/{id}/env/role/{scopeValue}/{key}", Who::admin);
  add_scope<Scope::group>(out, "/api/targets/{id}/env/group/{scopeValue}",
                          "/api/targets/{id}/env/group/{scopeValue}/{key}", Who::admin);
  add_scope<Scope::user>(out, "/api/targets/{id}/env/user/{scopeValue}",
                         "/api/targets/{id}/env/user/{scopeValue}/{key}", Who::user);
  return out;
}

}  // namespace mcpgw::detail
