// Policies, their subjects, and the question what they decide.
#include <algorithm>

#include "admin/answers.hpp"
#include "admin/routes.hpp"
#include "admin/views.hpp"
#include "base/text.hpp"
#include "storage/model_text.hpp"

namespace mcpgw::detail {
namespace {

const Schema kSubject = {field::word("subject_type", {"user", "role", "group", "everyone"}).required(),
                         field::text("subject_value")};
const Schema kPolicy = {field::text("name"),
                        field::text("description").any_text(),
                        field::text("target_id"),
                        field::word("resource_type", {"all", "tool", "resource", "prompt"}),
                        field::text("resource_pattern"),
                        field::word("effect", {"allow", "deny"}),
                        field::integer("priority", -1000000, 1000000),
                        field::flag("enabled"),
                        field::objects("subjects", kSubject)};
const Schema kCreate = with_required(kPolicy, {"name", "effect"});
const Schema kEvaluate = {field::text("user_id"), field::text("target_id").required(),
                          field::word("resource_type", {"all", "tool", "resource", "prompt"}).required(),
                          field::text("name")};

HttpResponse unknown() { return failure(404, "policy_not_found", "Policy not found"); }

/// A subject whose form the schema has checked.
Subject read_subject(const Json& body) {
  Subject out;
  out.type = *parse_text<SubjectType>(body["subject_type"].get_ref<const std::string&>());
  if (const auto value = body.find("subject_value"); value != body.end() && value->is_string())
    out.value = value->get<std::string>();
  return out;
}

std::optional<HttpResponse> merge(const Call& call, Policy& policy) {
  const Json& body = call.body;
  // Conditions on arguments do not exist: nobody shall think that such a rule is in force.
  if (body.contains("arguments"))
    return failure(400, "invalid_request", "arguments is reserved: conditions on arguments are not evaluated",
                   "arguments");
  const auto text = [&](const char* name, std::string& out, bool null_clears) {
    if (auto value = call.text_if(name))
      out = std::move(*value);
    else if (null_clears && body.contains(name) && body[name].is_null())
      out.clear();
  };
  text("name", policy.name, false);
  text("description", policy.description, false);
  text("target_id", policy.target_id, true);
  text("resource_pattern", policy.resource_pattern, true);
  if (const auto word = call.text_if("resource_type"))
    policy.resource_type = *parse_text<ResourceType>(*word);
  if (const auto word = call.text_if("effect")) policy.effect = *parse_text<Effect>(*word);
  policy.enabled = call.flag("enabled", policy.enabled);
  if (call.has("priority")) policy.priority = body["priority"].get<int>();
  if (call.has("subjects")) {
    policy.subjects.clear();
    for (const Json& one : body["subjects"]) policy.subjects.push_back(read_subject(one));
  }
  return std::nullopt;
}

HttpResponse list(Call& call) {
  std::vector<Json> out;
  if (call.principal.is_admin()) {
    for (const auto& policy : call.api.repository->policies()) out.push_back(policy_view(*policy));
  } else {
    for (const Policy& policy : call.api.policy_engine->visible_policies(call.principal))
      out.push_back(policy_view(policy));
  }
  return list_response(call, std::move(out));
}

HttpResponse create(Call& call) {
  Policy policy;
  if (auto bad = merge(call, policy)) return *bad;
  auto made = call.api.repository->create_policy(std::move(policy));
  if (!made) return failure(call, made.error());
  HttpResponse out = object_response(201, policy_view(*made), made->version);
  out.headers.emplace_back("Location", "/api/policies/" + made->id);
  return out;
}

HttpResponse get(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  if (call.principal.is_admin()) {
    const auto policy = call.api.repository->policy(call.path[0]);
    return policy ? object_response(200, policy_view(*policy), policy->version) : unknown();
  }
  for (const Policy& policy : call.api.policy_engine->visible_policies(call.principal))
    if (policy.id == call.path[0]) return object_response(200, policy_view(policy), policy.version);
  return unknown();
}

Result<HttpResponse> try_update(Call& call) {
  const auto stored = call.api.repository->policy(call.path[0]);
  if (!stored) return unknown();
  if (const auto wanted = if_match(call, stored->version); !wanted) return wanted.error();
  Policy policy = *stored;
  if (auto bad = merge(call, policy)) return *bad;
  auto updated = call.api.repository->update_policy(std::move(policy), stored->version);
  if (!updated) return updated.error();
  return object_response(200, policy_view(*updated), updated->version);
}

HttpResponse update(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  return merged_write(call, try_update);
}

HttpResponse remove(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  const auto stored = call.api.repository->policy(call.path[0]);
  if (!stored) return unknown();
  const auto version = if_match(call, stored->version);
  if (!version) return failure(call, version.error());
  if (auto status = call.api.repository->delete_policy(stored->id, *version); !status)
    return failure(call, status.error());
  return no_content();
}

HttpResponse add_subject(Call& call) {
  if (auto bad = check_id(call.path[0])) return *bad;
  if (!call.api.repository->policy(call.path[0])) return unknown();
  auto made = call.api.repository->add_subject(call.path[0], read_subject(call.body));
  return made ? json_response(201, subject_view(*made)) : failure(call, made.error());
}

HttpResponse remove_subject(Call& call) {
  for (const std::string& id : call.path)
    if (auto bad = check_id(id)) return *bad;
  auto status = call.api.repository->remove_subject(call.path[0], call.path[1]);
  return status ? no_content() : failure(call, status.error());
}

HttpResponse evaluate(Call& call) {
  const auto type = parse_text<ResourceType>(call.text("resource_type"));
  if (*type != ResourceType::all && !call.has("name"))
    return failure(400, "invalid_request", "name is required unless resource_type is all", "name");
  Principal principal = call.principal;
  const bool admin = call.principal.is_admin();
  if (const auto user_id = call.text_if("user_id"); user_id && *user_id != call.principal.user_id) {
    if (!admin) return failure(403, "forbidden", "You may ask about yourself only", "user_id");
    const auto user = call.api.repository->user(*user_id);
    if (!user) return failure(400, "unknown_user", "There is no such user", "user_id");
    principal.user_id = user->id;
    principal.role = user->role;
    principal.groups = user->groups;
  }
  const std::string target_id = call.text("target_id");
  if (admin && !call.api.repository->target(target_id))
    return failure(400, "unknown_target", "There is no such target", "target_id");
  Explanation out = call.api.policy_engine->explain(principal, target_id, *type, call.text("name"));
  if (!admin) {
    // A plain user learns nothing of policies that are not theirs, nor whether the target exists.
    const auto visible = call.api.policy_engine->visible_policies(call.principal);
    const auto seen = [&](const std::string& id) {
      return std::any_of(visible.begin(), visible.end(),
                         [&](const Policy& policy) { return policy.id == id; });
    };
    if (!call.api.policy_engine->reaches(call.principal, target_id)) {
      out = Explanation();
    } else {
      std::erase_if(out.considered, [&](const Considered& one) { return !seen(one.policy_id); });
      if (!out.decision.policy_id.empty() && !seen(out.decision.policy_id)) {
        out.decision.policy_id.clear();
        out.decision.policy_name.clear();
      }
    }
  }
  return json_response(200, explanation_view(out));
}

}  // namespace

std::vector<Route> policy_routes() {
  return {
      {"GET", "/api/policies", Who::user, Audited::no, nullptr, list},
      {"POST", "/api/policies", Who::admin, Audited::admin, &kCreate, create},
      {"POST", "/api/policies/evaluate", Who::user, Audited::no, &kEvaluate, evaluate},
      {"GET", "/api/policies/{id}", Who::user, Audited::no, nullptr, get},
      {"PUT", "/api/policies/{id}", Who::admin, Audited::admin, &kPolicy, update},
      {"DELETE", "/api/policies/{id}", Who::admin, Audited::admin, nullptr, remove},
      {"POST", "/api/policies/{id}/subjects", Who::admin, Audited::admin, &kSubject, add_subject},
      {"DELETE", "/api/policies/{id}/subjects/{subjectId}", Who::admin, Audited::admin, nullptr,
       remove_subject},
  };
}

}  // namespace mcpgw::detail
