// The audit log, and what is going on now.
#include "admin/routes.hpp"
#include "admin/views.hpp"
#include "base/text.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::int64_t kMaxLimit = 1000;

/// What a cursor is bound to: the filter it was made with, and whose rows.
std::string digest_of(const Call& call) {
  std::string text = call.principal.is_admin() ? "*" : call.principal.user_id;
  for (const char* name :
       {"user_id", "target", "method", "status", "decision", "kind", "since", "until", "q"})
    text += std::string("\n") + name + "=" + query_value(call.request.query(), name).value_or("");
  return to_hex(sha256(text)).substr(0, 16);
}

std::string make_cursor(const Call& call, std::int64_t position) {
  return base64url("1:" + digest_of(call) + ":" + std::to_string(position));
}

std::optional<std::int64_t> read_cursor(const Call& call, const std::string& text) {
  const auto plain = from_base64url(text);
  const std::string start = "1:" + digest_of(call) + ":";
  if (!plain || !plain->starts_with(start)) return std::nullopt;
  const auto position = raw::int_value(std::string_view(*plain).substr(start.size()));
  return position && *position > 0 ? position : std::nullopt;
}

HttpResponse logs(Call& call) {
  const std::string_view text = call.request.query();
  AuditQuery query;
  const auto bad = [](const char* name) {
    return failure(400, "invalid_request", std::string(name) + " is not valid", name);
  };
  const auto word = [&](const char* name, std::optional<std::string>& out) {
    if (auto value = query_value(text, name); value && !value->empty()) out = std::move(*value);
  };
  for (const auto& [name, low, high, out] :
       {std::tuple("limit", std::int64_t(1), kMaxLimit, &query.limit),
        std::tuple("offset", std::int64_t(0), std::int64_t(1000000000), &query.offset)}) {
    const auto value = query_value(text, name);
    if (!value) continue;
    const auto number = raw::int_value(*value);
    if (!number || *number < low || *number > high) return bad(name);
    *out = static_cast<std::size_t>(*number);
  }
  if (const auto cursor = query_value(text, "cursor")) {
    const auto position = read_cursor(call, *cursor);
    if (!position) return failure(400, "invalid_cursor", "The cursor is not one of this query's", "cursor");
    query.before = *position;
  }
  AuditFilter& filter = query.filter;
  word("user_id", filter.user_id);
  if (!call.principal.is_admin()) {
    if (filter.user_id && *filter.user_id != call.principal.user_id)
      return failure(403, "forbidden", "You may look at your own rows only", "user_id");
    filter.user_id = call.principal.user_id;
  } else if (filter.user_id && !is_uuid(*filter.user_id)) {
    return bad("user_id");
  }
  word("target", filter.target_name);
  if (filter.target_name && is_uuid(*filter.target_name))
    if (const auto target = call.api.repository->target(*filter.target_name))
      filter.target_name = target->name;
  word("method", filter.method);
  word("status", filter.status);
  if (filter.status && *filter.status != "ok" && *filter.status != "error") {
    const auto number = raw::int_value(*filter.status);
    if (!number || *number < 0 || *number > 999) return bad("status");
  }
  word("decision", filter.decision);
  if (filter.decision && *filter.decision != "allow" && *filter.decision != "deny") return bad("decision");
  word("kind", filter.kind);
  if (filter.kind && *filter.kind != "mcp" && *filter.kind != "session" && *filter.kind != "admin" &&
      *filter.kind != "auth")
    return bad("kind");
  word("q", filter.text);
  for (const auto& [name, out] : {std::pair("since", &filter.since), std::pair("until", &filter.until)}) {
    const auto value = query_value(text, name);
    if (!value || value->empty()) continue;
    // A plus sign that was not encoded arrives as a space.
    std::string time = *value;
    for (char& c : time)
      if (c == ' ') c = '+';
    *out = parse_time(time);
    if (!*out) return bad(name);
  }
  auto page = call.api.audit_sink->query(query);
  if (!page) return failure(page.error());
  Json rows = Json::array();
  for (const AuditRecord& record : page->records) rows.push_back(log_view(record));
  HttpResponse out = json_response(200, rows);
  out.headers.emplace_back("X-Total-Count", std::to_string(page->total));
  if (page->next > 0) {
    std::string link = "/api/logs?limit=" + std::to_string(query.limit);
    for (const char* name :
         {"user_id", "target", "method", "status", "decision", "kind", "since", "until", "q"})
      if (const auto value = query_value(text, name))
        link += std::string("&") + name + "=" + percent_encode(*value);
    out.headers.emplace_back("Link",
                             "<" + link + "&cursor=" + make_cursor(call, page->next) + ">; rel=\"next\"");
  }
  return out;
}

HttpResponse snapshot(Call& call) {
  HttpResponse out;
  out.headers.emplace_back("Content-Type", "application/json");
  out.body = call.api.live->snapshot(call.principal);
  return out;
}

}  // namespace

std::vector<Route> log_routes() {
  return {
      {"GET", "/api/logs", Who::user, Audited::no, nullptr, logs},
      {"GET", "/api/observability/snapshot", Who::user, Audited::no, nullptr, snapshot},
  };
}

}  // namespace mcpgw::detail
