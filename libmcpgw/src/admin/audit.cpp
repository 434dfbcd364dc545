#include "admin/audit.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "json/raw.hpp"
#include "json/redact.hpp"
#include "storage/validate.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kApiDepth = 32;

bool is_email(std::string text) { return validate_email(text).has_value(); }

/// More secret names than a body that fits any route can have.
constexpr std::size_t kMaxSecretNames = 600;

/// The request's body without its secrets. Refused requests are recorded too, and their bodies may be
/// anything: what is no JSON object is not kept, since nobody can tell what of it is a secret.
std::string without_secrets(const Route& route, const Call& call, const std::string& method) {
  const std::string& text = call.request.body;
  RedactRules rules;
  rules.max_bytes = call.api.audit_body_max;
  rules.method = method;
  if (text.size() > rules.max_bytes) return redact_body(text, rules);  // its size alone
  const auto body = parse_json(text, kApiDepth);
  if (!body || !body->is_object()) return {};
  // People type their password where the address belongs: what is no address is not kept.
  const auto email = body->find("email");
  const bool keep_email = email == body->end() || !email->is_string() || is_email(email->get<std::string>());
  BodySecrets secrets = secrets_of(route.schema != nullptr ? *route.schema : Schema(), *body);
  if (secrets.names.size() > kMaxSecretNames) rules.max_bytes = 0;
  if (!keep_email) secrets.names.emplace_back("email");
  rules.secret_names = std::move(secrets.names);
  rules.secrets = std::move(secrets.texts);
  return redact_body(text, rules);
}

std::string recorded_body(const Route& route, const Call& call, const std::string& method) {
  std::string out;
  if (call.api.audit_bodies && !call.request.body.empty()) out = without_secrets(route, call, method);
  if (call.credentials_dropped > 0)
    out = raw::with_member(out.empty() ? std::string("{}") : out, "credentials_dropped",
                           std::to_string(call.credentials_dropped));
  return out;
}

}  // namespace

std::optional<AuditRecord> audit_row(const Route& route, Call& call, const HttpResponse& response,
                                     Duration duration) {
  if (route.audited == Audited::no) return std::nullopt;
  // Who is unknown, or comes too often, is counted but leaves no row; a failed login does.
  if (response.status == 429 || (response.status == 401 && route.who != Who::everyone)) return std::nullopt;
  AuditRecord row = std::move(call.audit);
  row.kind = route.audited == Audited::auth ? "auth" : "admin";
  row.method = std::string(route.method) + " " + route.path;
  if (row.user_id.empty()) row.user_id = call.principal.user_id;
  if (row.user_email.empty()) row.user_email = call.principal.email;
  row.response_status = response.status;
  row.client_ip = call.request.remote_address;
  if (const std::string* traceparent = call.request.header("traceparent"))
    row.trace_id = trace_id_of(*traceparent);
  row.bytes_in = static_cast<std::int64_t>(call.request.body.size());
  row.bytes_out = static_cast<std::int64_t>(response.body.size());
  row.duration_ms = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
  if (response.status >= 400)
    row.error_code = raw::string_value(raw::find(response.body, "code")).value_or("");
  row.request_body = recorded_body(route, call, row.method);
  return row;
}

}  // namespace mcpgw::detail
