// The audit log, and what is going on now.
#include <algorithm>

#include "admin/access.hpp"
#include "admin/answers.hpp"
#include "admin/routes.hpp"
#include "admin/views.hpp"
#include "base/text.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::int64_t kMaxLimit = 1000;
constexpr std::int64_t kMaxOffset = 1000000000;
constexpr std::string_view kFilters[] = {"user_id", "target", "method", "status", "decision",
                                         "kind",    "since",  "until",  "q"};

/// The filters of a query as they were given, for cursors and links. Empty ones are none.
using Given = std::vector<std::pair<std::string, std::string>>;

Result<Given> given_filters(const Call& call) {
  Given out;
  for (const std::string_view name : kFilters) {
    auto value = query_text(call, name);
    if (!value) return value.error();
    if (*value && !(*value)->empty()) out.emplace_back(name, std::move(**value));
  }
  return out;
}

/// What a cursor is bound to: the filter it was made with, and whose rows.
std::string digest_of(const Call& call, const Given& given) {
  std::string text = call.principal.is_admin() ? "*" : call.principal.user_id;
  for (const auto& [name, value] : given) text += "\n" + name + "=" + value;
  return to_hex(sha256(text)).substr(0, 16);
}

std::string make_cursor(const std::string& digest, std::int64_t position) {
  return base64url("1:" + digest + ":" + std::to_string(position));
}

std::optional<std::int64_t> read_cursor(const std::string& digest, const std::string& text) {
  const auto plain = from_base64url(text);
  const std::string start = "1:" + digest + ":";
  if (!plain || !plain->starts_with(start)) return std::nullopt;
  const auto position = raw::int_value(std::string_view(*plain).substr(start.size()));
  return position && *position > 0 ? position : std::nullopt;
}

bool one_of(const std::string& value, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), value) != words.end();
}

/// Whether the value of a filter has its form; then it is in `filter`.
bool put_filter(const Call& call, const std::string& name, const std::string& value, AuditFilter& filter) {
  if (name == "user_id") {
    filter.user_id = value;
    return is_uuid(value);
  }
  if (name == "target") {
    // Rows know targets by the name of that time: an id stands for the name of today.
    const auto target = is_uuid(value) ? call.api.repository->target(value) : nullptr;
    filter.target_name = target && may_see_target(call, *target) ? target->name : value;
    return true;
  }
  if (name == "method") filter.method = value;
  if (name == "q") filter.text = value;
  if (name == "status") {
    filter.status = value;
    const auto number = raw::int_value(value);
    return one_of(value, {"ok", "error"}) || (number && *number >= 0 && *number <= 999);
  }
  if (name == "decision") {
    filter.decision = value;
    return one_of(value, {"allow", "deny"});
  }
  if (name == "kind") {
    filter.kind = value;
    return one_of(value, {"mcp", "session", "admin", "auth"});
  }
  if (name == "since" || name == "until") {
    // A plus sign that was not encoded arrives as a space.
    std::string text = value;
    std::replace(text.begin(), text.end(), ' ', '+');
    auto& time = name == "since" ? filter.since : filter.until;
    time = parse_time(text);
    return time.has_value();
  }
  return true;
}

HttpResponse logs(Call& call) {
  AuditQuery query;
  const auto limit = query_number(call, "limit", 1, kMaxLimit);
  if (!limit) return failure(call, limit.error());
  if (*limit) query.limit = static_cast<std::size_t>(**limit);
  const auto offset = query_number(call, "offset", 0, kMaxOffset);
  if (!offset) return failure(call, offset.error());
  query.offset = static_cast<std::size_t>(offset->value_or(0));
  const auto given = given_filters(call);
  if (!given) return failure(call, given.error());
  for (const auto& [name, value] : *given)
    if (!put_filter(call, name, value, query.filter))
      return failure(400, "invalid_request", name + " is not valid", name);
  if (!call.principal.is_admin()) {
    if (query.filter.user_id && *query.filter.user_id != call.principal.user_id)
      return failure(403, "forbidden", "You may look at your own rows only", "user_id");
    query.filter.user_id = call.principal.user_id;
  }
  const std::string digest = digest_of(call, *given);
  const auto cursor = query_text(call, "cursor");
  if (!cursor) return failure(call, cursor.error());
  if (*cursor) {
    const auto position = read_cursor(digest, **cursor);
    if (!position) return failure(400, "invalid_cursor", "The cursor is not one of this query's", "cursor");
    if (*offset && **offset > 0)
      return failure(400, "invalid_request", "cursor and offset exclude each other", "cursor");
    query.before = *position;
  }
  auto page = call.api.audit_sink->query(query);
  if (!page) return failure(call, page.error());
  Json rows = Json::array();
  for (const AuditRecord& record : page->records) rows.push_back(log_view(record));
  HttpResponse out = json_response(200, rows);
  out.headers.emplace_back("X-Total-Count", std::to_string(page->total));
  if (page->next > 0) {
    std::string link = "/api/logs?limit=" + std::to_string(query.limit);
    for (const auto& [name, value] : *given) link += "&" + name + "=" + percent_encode(value);
    out.headers.emplace_back("Link",
                             "<" + link + "&cursor=" + make_cursor(digest, page->next) + ">; rel=\"next\"");
  }
  return out;
}

HttpResponse snapshot(Call& call) {
  HttpResponse out;
  out.headers.emplace_back("Content-Type", "application/json");
  out.body = call.api.live->snapshot(call.principal);
  return out;
}

HttpResponse ticket(Call& call) {
  const auto made = call.api.live->socket_ticket(call.principal);
  if (!made) return failure(call, made.error());
  return json_response(201, {{"ticket", made->text}, {"expires_at", format_time(made->expires_at)}});
}

/// Reached without an upgrade only: the gateway takes those that ask for one.
HttpResponse websocket(Call&) {
  HttpResponse out = failure(426, "upgrade_required", "This is a WebSocket: ask for an upgrade");
  out.headers.emplace_back("Upgrade", "websocket");
  out.headers.emplace_back("Sec-WebSocket-Version", "13");
  return out;
}

}  // namespace

std::vector<Route> log_routes() {
  return {
      {"GET", "/api/logs", Who::user, Audited::no, nullptr, logs},
      {"GET", "/api/observability/snapshot", Who::user, Audited::no, nullptr, snapshot},
      {"GET", "/api/observability/ws", Who::user, Audited::no, nullptr, websocket},
      {"POST", "/api/observability/ticket", Who::user, Audited::auth, nullptr, ticket},
  };
}

}  // namespace mcpgw::detail
