// mcpgw logs: what was done, by whom, and what was decided about it.
#include <chrono>
#include <csignal>
#include <deque>
#include <set>
#include <thread>

#include "cli.hpp"
#include "config_values.hpp"

namespace mcpgw::app {

namespace {

constexpr std::size_t kPage = 1000;
constexpr std::size_t kMaxRows = 100000;
/// Rows that came since the last look, beyond which the older of them are left out.
constexpr std::size_t kMaxBurst = 20 * kPage;
constexpr std::size_t kRemembered = 2 * kPage;
constexpr std::chrono::milliseconds kLookEvery{500};
constexpr std::chrono::hours kMaxAge{24 * 366 * 100};

struct Arguments {
  std::string user, target, method, status, decision, kind, since, until, text;
  std::size_t limit = 50;
  bool follow = false;
};

struct Page {
  Json rows;
  std::string cursor;  ///< empty: no more
};

Result<Page> read_page(Api& api, const std::string& query, std::size_t limit, const std::string& cursor) {
  auto response = api.exchange("GET",
                               "/api/logs?limit=" + std::to_string(limit) + query +
                                   (cursor.empty() ? "" : "&cursor=" + encoded(cursor)),
                               nullptr, {});
  if (!response) return response.error();
  Page page{Json::parse(response->body, nullptr, false), {}};
  if (!page.rows.is_array())
    return Error{ErrorCode::internal, "odd_answer", "The answer is not one of a gateway: is the URL right?"};
  if (const auto* link = response->header("Link")) {
    constexpr std::string_view kName = "cursor=";
    if (const auto at = link->find(kName); at != std::string::npos) {
      page.cursor = link->substr(at + kName.size());
      page.cursor.resize(std::min(page.cursor.size(), page.cursor.find_first_of("&>")));
    }
  }
  return page;
}

/// RFC 3339, or a duration: that long ago. Nullopt: neither.
std::optional<std::string> moment(const std::string& text) {
  if (const auto age = parse_duration(text); age && *age < kMaxAge)
    return time_text(std::chrono::system_clock::now() - *age);
  if (text.empty() || text[0] < '0' || text[0] > '9') return std::nullopt;
  return text;  // judged by the gateway
}

void print_row(const Json& row) {
  const auto target = cell(row, "target_name"), tool = cell(row, "tool"), code = cell(row, "error_code");
  const auto email = cell(row, "user_email"), decision = cell(row, "decision");
  print_line(cell(row, "created_at") + "  " + cell(row, "response_status") + "  " +
             (email.empty() ? "-" : email) + "  " + cell(row, "method") +
             (target.empty() ? "" : "  " + target + (tool.empty() ? "" : "/" + tool)) +
             (decision.empty() ? "" : "  " + decision) + (code.empty() ? "" : "  " + code) + "  " +
             cell(row, "duration_ms") + " ms");
  std::fflush(stdout);
}

/// Newest first, at most `limit`; all that is there when `stop` never says so.
template <class Stop>
Result<Json> collect(Api& api, const std::string& query, std::size_t limit, Stop stop) {
  Json all = Json::array();
  std::string cursor;
  while (all.size() < limit) {
    auto page = read_page(api, query, std::min(kPage, limit - all.size()), cursor);
    if (!page) return page.error();
    for (auto& row : page->rows) {
      if (stop(row)) return all;
      all.push_back(std::move(row));
    }
    if (page->cursor.empty()) break;
    cursor = page->cursor;
  }
  return all;
}

int follow(const Invocation& invocation, Api& api, const std::string& query, Json newest_first) {
  std::set<std::string> seen;
  std::deque<std::string> order;
  for (;;) {
    for (auto row = newest_first.rbegin(); row != newest_first.rend(); ++row) {
      if (invocation.json)
        print_json_line(*row);
      else
        print_row(*row);
      if (seen.insert(cell(*row, "id")).second) order.push_back(cell(*row, "id"));
    }
    while (order.size() > kRemembered) {
      seen.erase(order.front());
      order.pop_front();
    }
    if (std::ferror(stdout)) return kFailed;  // nobody reads any more
    std::this_thread::sleep_for(kLookEvery);
    auto fresh = collect(api, query, order.empty() ? kPage : kMaxBurst,
                         [&](const Json& row) { return seen.count(cell(row, "id")) != 0; });
    if (!fresh) return fail(fresh.error());
    if (fresh->size() == kMaxBurst)
      fail("there were more rows than can be followed: older ones are left out");
    newest_first = std::move(*fresh);
  }
}

int logs(const Invocation& invocation, Api& api, const Arguments& arguments) {
  std::string query;
  const auto add = [&query](const char* name, const std::string& value) {
    if (!value.empty()) query += std::string("&") + name + "=" + encoded(value);
  };
  if (!arguments.user.empty()) {
    const auto user = api.user(arguments.user);
    if (!user) return fail(user.error());
    add("user_id", cell(*user, "id"));
  }
  add("target", arguments.target);
  add("method", arguments.method);
  add("status", arguments.status);
  add("decision", arguments.decision);
  add("kind", arguments.kind);
  add("q", arguments.text);
  for (const auto& [name, value] :
       {std::pair("since", arguments.since), std::pair("until", arguments.until)}) {
    if (value.empty()) continue;
    const auto time = moment(value);
    if (!time)
      return refuse(std::string("--") + name +
                    " must be a time such as 2026-01-02T03:04:05Z or an age such as 2h");
    add(name, *time);
  }
  if (arguments.follow && !arguments.until.empty()) return refuse("--follow and --until exclude each other");
  auto rows = collect(api, query, arguments.limit, [](const Json&) { return false; });
  if (!rows) return fail(rows.error());
  if (arguments.follow) return follow(invocation, api, query, std::move(*rows));
  if (invocation.json) {
    print_json(*rows);
    return kDone;
  }
  std::vector<std::vector<std::string>> table;
  for (auto row = rows->rbegin(); row != rows->rend(); ++row)
    table.push_back({cell(*row, "created_at"), cell(*row, "user_email"), cell(*row, "method"),
                     cell(*row, "target_name"), cell(*row, "tool"), cell(*row, "response_status"),
                     cell(*row, "decision"), cell(*row, "error_code"), cell(*row, "duration_ms")});
  print_table({"TIME", "USER", "METHOD", "TARGET", "ITEM", "STATUS", "DECISION", "CODE", "MS"}, table);
  return kDone;
}

}  // namespace

void add_logs(CLI::App& app, Invocation& invocation) {
  add_api_action<Arguments>(app, invocation, "logs", "Shows the audit log, newest last", logs,
                            [](CLI::App& c, Arguments& a) {
                              c.add_flag("-f,--follow", a.follow, "Goes on with what comes");
                              c.add_option("--limit", a.limit, "How many rows; default: 50")
                                  ->check(CLI::Range(std::size_t{1}, kMaxRows));
                              c.add_option("--user", a.user, "Email");
                              c.add_option("--target", a.target, "Name or id");
                              c.add_option("--method", a.method, "Such as tools/call");
                              c.add_option("--status", a.status, "ok, error or a number");
                              add_choice(c, "--decision", a.decision, {"allow", "deny"}, "Of the policies");
                              add_choice(c, "--kind", a.kind, {"mcp", "session", "admin", "auth"}, "Of row");
                              c.add_option("--since", a.since, "A time (RFC 3339), or an age such as 2h");
                              c.add_option("--until", a.until, "The same");
                              c.add_option("--search", a.text, "Text in method, item, target, code or email");
                            });
}

}  // namespace mcpgw::app
