// Targets: what administrators configure, and what others see of it.
#include "admin/access.hpp"
#include "admin/answers.hpp"
#include "admin/routes.hpp"
#include "admin/views.hpp"
#include "base/text.hpp"
#include "json/raw.hpp"
#include "storage/model_text.hpp"

namespace mcpgw::detail {
namespace {

const Schema kTls = {field::text("ca").any_text(), field::flag("verify"),
                     field::text("client_cert").any_text(), field::text("client_key").secret().any_text()};
const Schema kTarget = {field::text("name"),
                        field::text("slug"),
                        field::word("transport_type", {"streamable-http", "sse", "stdio", "kubernetes"}),
                        field::text("url"),
                        field::text("command"),
                        field::texts("args"),
                        field::text("image"),
                        field::integer("port", 0, 65535),
                        field::text("health_path"),
                        field::word("statefulness", {"stateless", "stateful"}),
                        field::word("isolation_boundary", {"shared", "per_role", "per_group", "per_user"}),
                        field::word("auth_type", {"", "none", "bearer", "header"}),
                        field::text("auth_header_name"),
                        field::flag("enabled"),
                        field::word("prefix", {"auto", "always"}),
                        field::integer("timeout_ms", 1000, 3600000),
                        field::integer("max_concurrency", 1, 10000),
                        field::word("protocol_era", {"auto", "legacy", "modern"}),
                        field::flag("allow_private_network"),
                        field::texts("forward_headers"),
                        field::texts("user_env_keys"),
                        field::object("tls", kTls),
                        field::flag("keep_credentials")};
const Schema kCreate = with_required(kTarget, {"name"});
const Schema kTest = {field::text("user_id")};

/// A member of words that the schema has checked.
template <class Enum>
void put_word(const Call& call, const char* name, Enum& out) {
  if (const auto text = call.text_if(name)) out = parse_text<Enum>(*text).value_or(out);
}

void put_tls(const Call& call, Target& target) {
  const auto it = call.body.find("tls");
  if (it == call.body.end()) return;
  if (it->is_null()) {
    target.tls.reset();
    return;
  }
  TargetTls tls = target.tls.value_or(TargetTls());
  const auto text = [&](const char* name, std::string& out) {
    if (const auto member = it->find(name); member != it->end() && member->is_string())
      out = member->get<std::string>();
  };
  text("ca", tls.ca);
  text("client_cert", tls.client_cert);
  text("client_key", tls.client_key);
  if (const auto verify = it->find("verify"); verify != it->end() && verify->is_boolean())
    tls.verify = verify->get<bool>();
  target.tls = std::move(tls);
}

/// The members of the body over those of `target`.
void merge(const Call& call, Target& target) {
  const Json& body = call.body;
  const auto text = [&](const char* name, std::string& out) {
    if (auto value = call.text_if(name)) out = std::move(*value);
  };
  const auto list = [&](const char* name, std::vector<std::string>& out) {
    if (call.has(name)) out = body[name].get<std::vector<std::string>>();
  };
  text("name", target.name);
  text("slug", target.slug);
  text("url", target.url);
  text("command", target.command);
  text("image", target.image);
  text("health_path", target.health_path);
  text("auth_header_name", target.auth_header_name);
  list("args", target.args);
  list("forward_headers", target.forward_headers);
  list("user_env_keys", target.user_env_keys);
  target.enabled = call.flag("enabled", target.enabled);
  target.allow_private_network = call.flag("allow_private_network", target.allow_private_network);
  put_word(call, "transport_type", target.transport_type);
  put_word(call, "statefulness", target.statefulness);
  put_word(call, "isolation_boundary", target.isolation_boundary);
  put_word(call, "auth_type", target.auth_type);
  put_word(call, "prefix", target.prefix);
  put_word(call, "protocol_era", target.protocol_era);
  if (call.has("port")) target.port = body["port"].get<int>();
  if (call.has("timeout_ms")) target.timeout_ms = body["timeout_ms"].get<std::int64_t>();
  if (call.has("max_concurrency")) target.max_concurrency = body["max_concurrency"].get<int>();
  if (body.contains("max_concurrency") && body["max_concurrency"].is_null()) target.max_concurrency.reset();
  put_tls(call, target);
}

Json view(const Call& call, const Target& target) {
  if (!call.principal.is_admin()) return target_view(target, nullptr);
  const TargetStatus status = call.api.live->target_status(target.id);
  return target_view(target, &status);
}

HttpResponse list(Call& call) {
  std::vector<Json> out;
  for (const auto& target : call.api.repository->targets())
    if (may_see_target(call, *target)) out.push_back(view(call, *target));
  return list_response(call, std::move(out));
}

HttpResponse create(Call& call) {
  Target target;
  merge(call, target);
  if (const std::string_view name = trim(target.name); name.size() <= 100) call.audit.target_name = name;
  auto made = call.api.repository->create_target(std::move(target));
  if (!made) return failure(call, made.error());
  HttpResponse out = object_response(201, view(call, *made), made->version);
  out.headers.emplace_back("Location", "/api/targets/" + made->id);
  return out;
}

HttpResponse get(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  return object_response(200, view(call, *found.target), found.target->version);
}

Result<HttpResponse> try_update(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  if (const auto wanted = if_match(call, found.target->version); !wanted) return wanted.error();
  TargetUpdate update;
  update.target = *found.target;
  merge(call, update.target);
  update.if_version = found.target->version;
  if (call.has("keep_credentials")) update.keep_credentials = call.flag("keep_credentials", true);
  auto updated = call.api.repository->update_target(update);
  if (!updated) return updated.error();
  call.credentials_dropped = updated->credentials_dropped;
  Json body = view(call, updated->target);
  if (updated->credentials_dropped > 0) body["credentials_dropped"] = updated->credentials_dropped;
  return object_response(200, body, updated->target.version);
}

HttpResponse update(Call& call) { return merged_write(call, try_update); }

HttpResponse remove(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  const auto version = if_match(call, found.target->version);
  if (!version) return failure(call, version.error());
  if (auto status = call.api.repository->delete_target(found.target->id, *version); !status)
    return failure(call, status.error());
  return no_content();
}

HttpResponse restart(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  if (!found.target->is_process())
    return failure(400, "not_restartable", "Only stdio and kubernetes targets have instances to restart");
  if (found.target->transport_type == TransportType::kubernetes && !call.api.kubernetes_enabled)
    return failure(400, "kubernetes_disabled", "Kubernetes targets are switched off");
  auto count = call.api.live->restart_instances(found.target->id);
  if (!count) return failure(502, "upstream_error", "The instances could not be restarted");
  return json_response(
      200, {{"deleted", *count},
            {"message", std::to_string(*count) + " instance(s) will be replaced by the next call"}});
}

HttpResponse test(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  Principal principal = call.principal;
  if (const auto user_id = call.text_if("user_id")) {
    const auto user = call.api.repository->user(*user_id);
    if (!user) return failure(400, "unknown_user", "There is no such user", "user_id");
    principal.user_id = user->id;
    principal.email = user->email;
    principal.role = user->role;
    principal.groups = user->groups;
  }
  auto result = call.api.live->test_target(principal, found.target->id);
  if (!result) return failure(call, result.error());
  Json steps = Json::array();
  for (const TargetTest::Step& step : result->steps)
    steps.push_back(
        {{"name", step.name}, {"ok", step.ok}, {"duration_ms", step.duration_ms}, {"detail", step.detail}});
  const auto info = parse_json(result->server_info);
  return json_response(200,
                       {{"ok", result->ok},
                        {"steps", std::move(steps)},
                        {"era", result->era.empty() ? Json(nullptr) : Json(result->era)},
                        {"protocol_version",
                         result->protocol_version.empty() ? Json(nullptr) : Json(result->protocol_version)},
                        {"server_info", info ? *info : Json(nullptr)},
                        {"tools", result->tools},
                        {"resources", result->resources},
                        {"prompts", result->prompts}});
}

}  // namespace

bool may_see_target(const Call& call, const Target& target) {
  return call.principal.is_admin() || call.api.policy_engine->reaches(call.principal, target.id);
}

FoundTarget find_target(Call& call) {
  if (auto bad = check_id(call.path[0])) return {nullptr, *bad};
  auto target = call.api.repository->target(call.path[0]);
  // What one may not see is told like what does not exist.
  if (!target || !may_see_target(call, *target))
    return {nullptr, failure(404, "target_not_found", "Target not found")};
  call.audit.target_name = target->name;
  return {std::move(target), {}};
}

std::vector<Route> target_routes() {
  return {
      {"GET", "/api/targets", Who::user, Audited::no, nullptr, list},
      {"POST", "/api/targets", Who::admin, Audited::admin, &kCreate, create},
      {"GET", "/api/targets/{id}", Who::user, Audited::no, nullptr, get},
      {"PUT", "/api/targets/{id}", Who::admin, Audited::admin, &kTarget, update},
      {"DELETE", "/api/targets/{id}", Who::admin, Audited::admin, nullptr, remove},
      {"POST", "/api/targets/{id}/restart-instances", Who::admin, Audited::admin, nullptr, restart},
      {"POST", "/api/targets/{id}/test", Who::admin, Audited::admin, &kTest, test,
       AdminApi::Work::waits_for_upstream},
  };
}

}  // namespace mcpgw::detail
