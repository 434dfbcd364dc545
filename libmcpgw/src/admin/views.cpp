#include "admin/views.hpp"

#include "base/text.hpp"
#include "storage/model_text.hpp"

namespace mcpgw::detail {
namespace {

Json time_or_null(const std::optional<Time>& time) { return time ? Json(format_time(*time)) : Json(nullptr); }
Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }
void put_if(Json& out, const char* name, const std::string& value) {
  if (!value.empty()) out[name] = value;
}

}  // namespace

Json user_view(const User& user) {
  return {{"id", user.id},
          {"email", user.email},
          {"role", user.role},
          {"groups", user.groups},
          {"enabled", user.enabled},
          {"created_at", format_time(user.created_at)},
          {"updated_at", format_time(user.updated_at)},
          {"last_login_at", time_or_null(user.last_login_at)}};
}

Json token_view(const ApiToken& token) {
  return {{"id", token.id},
          {"user_id", token.user_id},
          {"jti", token.jti},
          {"name", token.name},
          {"kind", to_text(token.kind)},
          {"scopes", token.scopes},
          {"expires_at", time_or_null(token.expires_at)},
          {"last_used_at", time_or_null(token.last_used_at)},
          {"created_at", format_time(token.created_at)},
          {"revoked_at", time_or_null(token.revoked_at)}};
}

Json target_view(const Target& target, const TargetStatus* status) {
  Json out{{"id", target.id},
           {"name", target.name},
           {"slug", target.slug},
           {"transport_type", to_text(target.transport_type)},
           {"url", status != nullptr ? target.url : ""},
           {"statefulness", to_text(target.statefulness)},
           {"isolation_boundary", to_text(target.isolation_boundary)},
           {"auth_type", to_text(target.auth_type)},
           {"enabled", target.enabled},
           {"prefix", to_text(target.prefix)},
           {"timeout_ms", target.timeout_ms},
           {"max_concurrency", target.max_concurrency ? Json(*target.max_concurrency) : Json(nullptr)},
           {"protocol_era", to_text(target.protocol_era)},
           {"created_at", format_time(target.created_at)},
           {"updated_at", format_time(target.updated_at)}};
  if (!target.user_env_keys.empty()) out["user_env_keys"] = target.user_env_keys;
  if (status == nullptr) return out;
  put_if(out, "command", target.command);
  if (!target.args.empty()) out["args"] = target.args;
  put_if(out, "image", target.image);
  out["port"] = target.port;
  put_if(out, "health_path", target.health_path);
  put_if(out, "auth_header_name", target.auth_header_name);
  out["allow_private_network"] = target.allow_private_network;
  if (!target.forward_headers.empty()) out["forward_headers"] = target.forward_headers;
  if (target.tls) {
    Json tls{{"verify", target.tls->verify}};
    put_if(tls, "ca", target.tls->ca);
    put_if(tls, "client_cert", target.tls->client_cert);
    if (!target.tls->client_key.empty()) tls["has_client_key"] = true;
    out["tls"] = std::move(tls);
  }
  const auto optional = [](const std::optional<std::string>& text) {
    return text ? Json(*text) : Json(nullptr);
  };
  out["status"] = {{"state", status->state},
                   {"era", optional(status->era)},
                   {"protocol_version", optional(status->protocol_version)},
                   {"transport", optional(status->transport)},
                   {"last_error", optional(status->last_error)},
                   {"instances", status->instances},
                   {"since", time_or_null(status->since)}};
  return out;
}

Json subject_view(const Subject& subject) {
  return {{"id", subject.id},
          {"policy_id", subject.policy_id},
          {"subject_type", to_text(subject.type)},
          {"subject_value", text_or_null(subject.value)},
          {"created_at", format_time(subject.created_at)}};
}

Json policy_view(const Policy& policy) {
  Json out{{"id", policy.id},
           {"name", policy.name},
           {"resource_type", to_text(policy.resource_type)},
           {"effect", to_text(policy.effect)},
           {"priority", policy.priority},
           {"enabled", policy.enabled},
           {"created_at", format_time(policy.created_at)},
           {"updated_at", format_time(policy.updated_at)}};
  put_if(out, "description", policy.description);
  put_if(out, "target_id", policy.target_id);
  put_if(out, "resource_pattern", policy.resource_pattern);
  if (!policy.subjects.empty()) {
    Json subjects = Json::array();
    for (const Subject& subject : policy.subjects) subjects.push_back(subject_view(subject));
    out["subjects"] = std::move(subjects);
  }
  return out;
}

Json env_view(const EnvRow& row, const Target& target) {
  Json out{{"id", row.id},
           {"target_id", row.target_id},
           {"scope_type", to_text(row.scope.scope)},
           {"scope_value", text_or_null(row.scope.value)},
           {"env_key", row.key},
           {"usable", scope_usable(target, row.scope.scope)},
           {"created_at", format_time(row.created_at)},
           {"updated_at", format_time(row.updated_at)}};
  put_if(out, "description", row.description);
  return out;
}

Json log_view(const AuditRecord& record) {
  Json out{{"id", record.id},
           {"kind", record.kind},
           {"created_at", format_time(record.created_at)},
           {"method", record.method},
           {"decision", text_or_null(record.decision)},
           {"policy_id", text_or_null(record.policy_id)},
           {"policy_name", text_or_null(record.policy_name)},
           {"response_status", record.response_status},
           {"error_code", text_or_null(record.error_code)},
           {"duration_ms", record.duration_ms},
           {"bytes_in", record.bytes_in},
           {"bytes_out", record.bytes_out},
           {"client_ip", record.client_ip}};
  put_if(out, "session_id", record.session_id);
  put_if(out, "user_id", record.user_id);
  put_if(out, "user_email", record.user_email);
  put_if(out, "target_name", record.target_name);
  put_if(out, "tool", record.tool);
  put_if(out, "client_name", record.client_name);
  put_if(out, "trace_id", record.trace_id);
  if (!record.request_body.empty()) {
    if (auto body = parse_json(record.request_body, 256); body && body->is_object())
      out["request_body"] = std::move(*body);
  }
  return out;
}

Json explanation_view(const Explanation& explanation) {
  Json considered = Json::array();
  for (const Considered& one : explanation.considered)
    considered.push_back({{"policy_id", one.policy_id},
                          {"policy_name", one.policy_name},
                          {"effect", to_text(one.effect)},
                          {"priority", one.priority},
                          {"matched", one.matched},
                          {"why", one.why}});
  return {{"effect", to_text(explanation.decision.effect)},
          {"policy_id", text_or_null(explanation.decision.policy_id)},
          {"policy_name", text_or_null(explanation.decision.policy_name)},
          {"reason", to_string(explanation.decision.reason)},
          {"considered", std::move(considered)}};
}

}  // namespace mcpgw::detail
