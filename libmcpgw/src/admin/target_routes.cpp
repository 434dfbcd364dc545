// Targets: what administrators configure, and what others see of it.
#include "admin/access.hpp"
#include "admin/routes.hpp"
#include "admin/views.hpp"
#include "base/text.hpp"
#include "json/raw.hpp"
#include "storage/model_text.hpp"

namespace mcpgw::detail {
namespace {

using T = Field::Type;

const Schema kTarget = {{"name", T::string},
                        {"slug", T::string},
                        {"transport_type", T::string},
                        {"url", T::string},
                        {"command", T::string},
                        {"args", T::strings},
                        {"image", T::string},
                        {"port", T::integer},
                        {"health_path", T::string},
                        {"statefulness", T::string},
                        {"isolation_boundary", T::string},
                        {"auth_type", T::string},
                        {"auth_header_name", T::string},
                        {"enabled", T::boolean},
                        {"prefix", T::string},
                        {"timeout_ms", T::integer},
                        {"max_concurrency", T::integer},
                        {"protocol_era", T::string},
                        {"allow_private_network", T::boolean},
                        {"forward_headers", T::strings},
                        {"user_env_keys", T::strings},
                        {"tls", T::object},
                        {"keep_credentials", T::boolean}};
const Schema kCreate = [] {
  Schema out = kTarget;
  out.front().required = true;
  return out;
}();
const Schema kTest = {{"user_id", T::string}};

template <class Enum>
std::optional<HttpResponse> put_word(const Call& call, const char* name, Enum& out) {
  const auto text = call.text_if(name);
  if (!text) return std::nullopt;
  const auto value = parse_text<Enum>(*text);
  if (!value)
    return failure(400, "invalid_request", std::string(name) + " is not one of the permitted words", name);
  out = *value;
  return std::nullopt;
}

std::optional<HttpResponse> put_tls(Call& call, Target& target) {
  const auto it = call.body.find("tls");
  if (it == call.body.end()) return std::nullopt;
  if (it->is_null()) {
    target.tls.reset();
    return std::nullopt;
  }
  TargetTls tls = target.tls.value_or(TargetTls());
  const auto text = [&](const char* name, std::string& out) {
    const auto member = it->find(name);
    if (member == it->end() || member->is_null()) return true;
    if (!member->is_string() || member->get_ref<const std::string&>().find('\0') != std::string::npos)
      return false;
    out = member->get<std::string>();
    return true;
  };
  if (!text("ca", tls.ca) || !text("client_cert", tls.client_cert) || !text("client_key", tls.client_key))
    return failure(400, "invalid_request", "Members of tls must be PEM texts", "tls");
  if (const auto verify = it->find("verify"); verify != it->end() && !verify->is_null()) {
    if (!verify->is_boolean())
      return failure(400, "invalid_request", "tls.verify must be true or false", "tls");
    tls.verify = verify->get<bool>();
  }
  target.tls = std::move(tls);
  return std::nullopt;
}

/// The members of the body over those of `target`.
std::optional<HttpResponse> merge(Call& call, Target& target) {
  const Json& body = call.body;
  const auto text = [&](const char* name, std::string& out) {
    if (auto value = call.text_if(name)) out = std::move(*value);
  };
  const auto list = [&](const char* name, std::vector<std::string>& out) {
    if (call.has(name)) out = body[name].get<std::vector<std::string>>();
  };
  const auto number = [&](const char* name, std::int64_t low, std::int64_t high,
                          auto& out) -> std::optional<HttpResponse> {
    if (!call.has(name)) return std::nullopt;
    // Beyond 64 bits the value would wrap into the range.
    if (body[name].is_number_unsigned() && body[name].get<std::uint64_t>() > INT64_MAX)
      return failure(400, "invalid_request", std::string(name) + " is out of range", name);
    const auto value = body[name].get<std::int64_t>();
    if (value < low || value > high)
      return failure(400, "invalid_request", std::string(name) + " is out of range", name);
    out = static_cast<std::decay_t<decltype(out)>>(value);
    return std::nullopt;
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
  if (call.has("enabled")) target.enabled = body["enabled"].get<bool>();
  if (call.has("allow_private_network"))
    target.allow_private_network = body["allow_private_network"].get<bool>();
  if (auto bad = put_word(call, "transport_type", target.transport_type)) return bad;
  if (auto bad = put_word(call, "statefulness", target.statefulness)) return bad;
  if (auto bad = put_word(call, "isolation_boundary", target.isolation_boundary)) return bad;
  if (auto bad = put_word(call, "auth_type", target.auth_type)) return bad;
  if (auto bad = put_word(call, "prefix", target.prefix)) return bad;
  if (auto bad = put_word(call, "protocol_era", target.protocol_era)) return bad;
  if (auto bad = number("port", 0, 65535, target.port)) return bad;
  if (auto bad = number("timeout_ms", 1000, 3600000, target.timeout_ms)) return bad;
  int concurrency = 0;
  if (auto bad = number("max_concurrency", 1, 10000, concurrency)) return bad;
  if (concurrency > 0) target.max_concurrency = concurrency;
  if (body.contains("max_concurrency") && body["max_concurrency"].is_null()) target.max_concurrency.reset();
  return put_tls(call, target);
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
  call.secret_names = {"client_key"};
  Target target;
  if (auto bad = merge(call, target)) return *bad;
  call.audit.target_name = trim(target.name).substr(0, 100);
  auto made = call.api.repository->create_target(std::move(target));
  if (!made) return failure(made.error());
  HttpResponse out = object_response(201, view(call, *made), made->version);
  out.headers.emplace_back("Location", "/api/targets/" + made->id);
  return out;
}

HttpResponse get(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  return object_response(200, view(call, *found.target), found.target->version);
}

HttpResponse update(Call& call) {
  call.secret_names = {"client_key"};
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  const auto version = if_match(call, found.target->version);
  if (!version) return failure(version.error());
  TargetUpdate update;
  update.target = *found.target;
  if (auto bad = merge(call, update.target)) return *bad;
  // Without If-Match the last write wins, member by member: the version read here is the base of the merge.
  update.if_version = *version;
  if (call.has("keep_credentials")) update.keep_credentials = call.body["keep_credentials"].get<bool>();
  auto updated = call.api.repository->update_target(update);
  if (!updated) return failure(updated.error());
  Json body = view(call, updated->target);
  if (updated->credentials_dropped > 0) body["credentials_dropped"] = updated->credentials_dropped;
  return object_response(200, body, updated->target.version);
}

HttpResponse remove(Call& call) {
  const auto found = find_target(call);
  if (!found.target) return found.refusal;
  const auto version = if_match(call, found.target->version);
  if (!version) return failure(version.error());
  if (auto status = call.api.repository->delete_target(found.target->id, *version); !status)
    return failure(status.error());
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
  if (!result) return failure(result.error());
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
      {"POST", "/api/targets/{id}/test", Who::admin, Audited::admin, &kTest, test},
  };
}

}  // namespace mcpgw::detail
