#include "gateway/observer.hpp"

#include "base/text.hpp"
#include "gateway/connection_pool.hpp"
#include "gateway/metrics.hpp"
#include "gateway/statistics.hpp"
#include "json/raw.hpp"
#include "observability/activity_hub.hpp"
#include "observability/audit_bounds.hpp"

namespace mcpgw::detail {
namespace {

using raw::put;
using raw::put_if;

std::string activity_json(const AuditRecord& row) {
  std::string out;
  put(out, "timestamp", format_time(row.created_at));
  put(out, "user_id", row.user_id);
  put(out, "user_email", row.user_email);
  put(out, "method", row.method);
  put_if(out, "target", row.target_name);
  put_if(out, "tool", row.tool);
  out += R"(,"duration_ms":)" + std::to_string(row.duration_ms);
  put(out, "status", row.response_status < 400 ? "ok" : "error");
  if (row.decision.empty())
    out += R"(,"decision":null)";
  else
    put(out, "decision", row.decision);
  put_if(out, "error_code", row.error_code);
  put_if(out, "session_id", row.session_id);
  put_if(out, "trace_id", row.trace_id);
  return out += '}';
}

}  // namespace

void Observer::finished(AuditRecord& row, Duration took, RequestTrace* trace) {
  if (!kObserved) return;
  bound_row(row);
  core_.metrics->request(row, took);
  if (trace != nullptr && trace->recording()) {
    trace->attribute("mcp.method.name", row.method);
    trace->attribute("error.type", row.error_code);
  }
  core_.statistics->record(row.target_name.empty() ? std::string_view("_gateway") : row.target_name,
                           row.user_id, row.response_status, took);
  if (row.method == "ping" || !core_.dashboards->watched()) return;
  ActivityHub::Event event;
  event.type = "activity";
  event.data = activity_json(row);
  event.user_id = row.user_id;
  core_.dashboards->publish(std::move(event));
}

bool Observer::refuses(UpstreamConnection& from, const ServerMessage& message) {
  if (message.id.empty() || message.method == "ping" || core_.audit->admits()) return false;
  from.upstream().respond(message.id, "error",
                          R"({"code":-32000,"message":"The audit log of the gateway cannot keep up"})");
  return true;
}

void Observer::server_request(AuditRecord row, const Target& target, const ServerMessage& message,
                              bool refused) {
  if (message.method == "ping") return;
  row.kind = "mcp";
  row.created_at = core_.clock->now();
  row.method = message.method;
  row.target_name = target.name;
  row.decision = refused ? "" : "allow";
  row.response_status = refused ? 404 : 200;
  row.error_code = refused ? "unknown_method" : "";
  row.duration_ms = 0;
  row.bytes_in = static_cast<std::int64_t>(message.params.size());
  row.bytes_out = 0;
  row.request_body.clear();
  core_.audit->add(std::move(row));
}

void Observer::session(const std::string& session_id, const std::string& user_id, const char* event_name) {
  if (!core_.dashboards->watched()) return;
  ActivityHub::Event event;
  event.type = "session";
  event.user_id = user_id;
  put(event.data, "event", event_name);
  put(event.data, "session_id", session_id);
  put(event.data, "user_id", user_id);
  std::string targets;
  if (const auto user = core_.repository->user(user_id)) {
    Principal principal;
    principal.user_id = user->id;
    principal.role = user->role;
    principal.groups = user->groups;
    for (const auto& target : core_.repository->targets()) {
      if (!target->enabled || !core_.policy->reaches(principal, target->id)) continue;
      if (!targets.empty()) targets += ',';
      raw::append_quoted(targets, target->name);
    }
  }
  if (!targets.empty()) event.data += R"(,"targets":[)" + targets + "]";
  event.data += '}';
  core_.dashboards->publish(std::move(event));
}

void Observer::call_failed(const Target& target, const std::string& user_id, std::string_view code,
                           std::string_view message, std::string_view cause) {
  if (!core_.dashboards->watched()) return;
  ActivityHub::Event event;
  event.type = "error";
  event.user_id = user_id;
  event.target_id = target.id;
  const auto text = [&](std::string_view told) {
    std::string out;
    put(out, "timestamp", format_time(core_.clock->now()));
    put_if(out, "user_id", user_id);
    put(out, "target", target.name);
    put(out, "error_type", code);
    put(out, "message", told);
    return out += '}';
  };
  event.data = text(cause.empty() ? message : cause);
  event.for_users = text(message);
  core_.dashboards->publish(std::move(event));
}

void Observer::target_changed(const Target& target, std::string_view code, std::string_view cause) {
  const bool back = code == "recovered";
  call_failed(target, {}, code,
              "Target '" + target.name + (back ? "' is back" : "' is not available: its connection failed"),
              back ? std::string_view() : cause);
}

}  // namespace mcpgw::detail
