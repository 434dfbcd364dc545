// Logs, pages, and what the API itself leaves in the audit.
#include "admin_support.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

namespace {

AuditRecord row(int n, const std::string& user_id) {
  AuditRecord out;
  out.id = "id-" + std::to_string(n);
  out.kind = n % 2 ? "mcp" : "session";
  out.created_at = Time(std::chrono::seconds(1767225600 + n));
  out.user_id = user_id;
  out.user_email = "bob@example.test";
  out.method = n % 3 ? "tools/call" : "tools/list";
  out.target_name = n % 2 ? "crm" : "";
  out.tool = "Tool-" + std::to_string(n);
  out.decision = n % 5 ? "allow" : "deny";
  out.response_status = n % 5 ? 200 : 403;
  out.error_code = n % 5 ? "" : "denied";
  out.request_body = R"({"method":"tools/call"})";
  return out;
}

/// The target of a Link header.
std::string next_of(const HttpResponse& response) {
  const std::string* link = response.header("Link");
  if (link == nullptr) return {};
  REQUIRE(link->starts_with("<"));
  REQUIRE(link->ends_with(">; rel=\"next\""));
  return link->substr(1, link->find('>') - 1);
}

}  // namespace

TEST_CASE(
    "R39: what changes something is refused while the audit log is full, and told when its row was lost") {
  Api api;
  api.live.audit_full = true;
  const auto write = [&] {
    return api.call(api.admin, "PUT", "/api/users/" + api.user_id, R"({"groups":["g"]})");
  };
  const HttpResponse refused = write();
  CHECK(refused.status == 503);
  CHECK(Api::json(refused)["code"] == "overloaded");
  CHECK(refused.header("Retry-After") != nullptr);
  CHECK(api.live.rows.empty());
  CHECK(api.repository->user(api.user_id)->groups.empty());
  CHECK(api.call(api.admin, "GET", "/api/users").status == 200);
  api.live.audit_full = false;
  api.live.audit_broken = true;
  const HttpResponse unrecorded = write();
  CHECK(unrecorded.status == 503);
  CHECK(Api::json(unrecorded)["code"] == "storage_unavailable");
  api.live.audit_broken = false;
  CHECK(write().status == 200);
}

TEST_CASE("logs: filters, members, own rows only, totals") {
  Api api;
  const std::string target = api.make_target("crm");
  std::vector<AuditRecord> batch;
  for (int n = 0; n < 30; ++n) batch.push_back(row(n, n < 20 ? api.user_id : api.admin_id));
  REQUIRE(api.sink->append(batch));
  const auto get = [&](const std::string& query) { return api.call(api.admin, "GET", "/api/logs" + query); };
  const auto count = [&](const std::string& query) { return *get(query).header("X-Total-Count"); };
  const auto first = Api::json(get(""));
  CHECK(first.size() == 30);
  CHECK(first[0]["id"] == "id-29");
  const Json deny = Api::json(get("?decision=deny&limit=1"))[0];
  CHECK(deny["error_code"] == "denied");
  CHECK(deny["policy_id"].is_null());
  CHECK(deny["request_body"]["method"] == "tools/call");
  CHECK(deny["created_at"] == "2026-01-01T00:00:25.000000Z");
  CHECK_FALSE(deny.contains("session_id"));
  CHECK(Api::json(get("?decision=allow&limit=1"))[0]["error_code"].is_null());
  CHECK(count("?user_id=" + api.user_id) == "20");
  CHECK(count("?target=crm") == "15");
  CHECK(count("?target=" + target) == "15");
  CHECK(count("?target=none") == "0");
  CHECK(count("?method=tools/list") == "10");
  CHECK(count("?method=tools%2Flist&kind=mcp") == "5");
  CHECK(count("?status=ok") == "24");
  CHECK(count("?status=error") == "6");
  CHECK(count("?status=403&decision=deny") == "6");
  CHECK(count("?kind=session") == "15");
  CHECK(count("?since=2026-01-01T00:00:10Z&until=2026-01-01T01:00:20%2B01:00") == "10");
  CHECK(count("?since=2026-01-01T01:00:10+01:00") == "20");
  CHECK(count("?q=TOOL-7") == "1");
  CHECK(count("?q=") == "30");
  const auto own = api.call(api.user, "GET", "/api/logs?limit=1000");
  CHECK(Api::json(own).size() == 20);
  CHECK(own.body.find(api.admin_id) == std::string::npos);
  CHECK(*api.call(api.user, "GET", "/api/logs?user_id=" + api.user_id).header("X-Total-Count") == "20");
  for (const char* bad : {"limit=0", "limit=1001", "limit=x", "limit=", "limit=%zz", "limit=1.0", "offset=-1",
                          "offset=x", "status=fine", "status=1000", "decision=maybe", "kind=x",
                          "since=yesterday", "until=%ff", "user_id=bob", "q=%00", "q=%ff", "target=a%0Ab"}) {
    CAPTURE(bad);
    const auto answer = get(std::string("?") + bad);
    CHECK(answer.status == 400);
    CHECK(Api::field(answer) == std::string(bad).substr(0, std::string(bad).find('=')));
  }
  CHECK(get("?q=" + std::string(1001, 'q')).status == 400);
}

TEST_CASE("logs: a cursor sees every row once, whatever is added, and belongs to its filter") {
  Api api;
  std::vector<AuditRecord> batch;
  for (int n = 0; n < 25; ++n) batch.push_back(row(n, api.user_id));
  REQUIRE(api.sink->append(batch));
  std::vector<std::string> seen;
  std::string next = "/api/logs?limit=7&user_id=" + api.user_id + "&q=tool-";
  std::string cursor;
  int added = 100;
  while (!next.empty()) {
    const auto page = api.call(api.admin, "GET", next);
    REQUIRE(page.status == 200);
    for (const Json& one : Api::json(page)) seen.push_back(one["id"]);
    next = next_of(page);
    if (!next.empty()) cursor = next.substr(next.find("cursor=") + 7);
    REQUIRE(api.sink->append({row(added++, api.user_id)}));
  }
  CHECK(seen.size() == 25);
  std::sort(seen.begin(), seen.end());
  CHECK(std::unique(seen.begin(), seen.end()) == seen.end());
  REQUIRE_FALSE(cursor.empty());
  const std::string same = "&user_id=" + api.user_id + "&q=tool-";
  CHECK(api.call(api.admin, "GET", "/api/logs?cursor=" + cursor + same).status == 200);
  for (const std::string& bad :
       {"/api/logs?cursor=" + cursor, "/api/logs?q=tool-&cursor=" + cursor, "/api/logs?cursor=x" + same,
        std::string("/api/logs?cursor="), "/api/logs?cursor=" + cursor + "A" + same})
    CHECK(Api::code(api.call(api.admin, "GET", bad)) == "invalid_cursor");
  CHECK(Api::code(api.call(api.user, "GET", "/api/logs?cursor=" + cursor + same)) == "invalid_cursor");
  CHECK(Api::field(api.call(api.admin, "GET", "/api/logs?offset=5&cursor=" + cursor + same)) == "cursor");
  CHECK(Api::json(api.call(api.admin, "GET", "/api/logs?limit=5&offset=24&q=tool-")).size() == 5);
}

TEST_CASE("lists: pages, bounds, and links that lead through everything") {
  Settings settings;
  settings.api.list_max = 1500;
  Api api(std::move(settings));
  for (int i = 0; i < 7; ++i) api.make_target("t" + std::to_string(i));
  std::vector<std::string> seen;
  for (std::string next = "/api/targets?limit=3"; !next.empty();) {
    const auto page = api.call(api.admin, "GET", next);
    CHECK(*page.header("X-Total-Count") == "7");
    for (const Json& one : Api::json(page)) seen.push_back(one["name"]);
    next = next_of(page);
  }
  CHECK(seen == std::vector<std::string>{"t0", "t1", "t2", "t3", "t4", "t5", "t6"});
  CHECK(Api::json(api.call(api.admin, "GET", "/api/targets?offset=100")).empty());
  CHECK_FALSE(api.call(api.admin, "GET", "/api/targets?offset=100").header("Link"));
  for (const char* list : {"/api/users", "/api/targets", "/api/policies", "/api/auth/tokens"}) {
    CHECK(api.call(api.admin, "GET", list).header("X-Total-Count"));
    for (const char* bad :
         {"limit=0", "limit=1001", "limit=", "limit=%zz", "offset=-1", "offset=99999999999"})
      CHECK(api.call(api.admin, "GET", std::string(list) + "?" + bad).status == 400);
  }
  // What a client writes into a path is not copied into a header.
  const std::string env = "/api/targets/" +
                          std::string(Api::json(api.call(api.admin, "GET", "/api/targets"))[0]["id"]) +
                          "/env/group/a%3E%2Fb";
  CHECK(api.call(api.admin, "PUT", env, R"({"configs":{"A":"1","B":"2"}})").status == 200);
  CHECK(next_of(api.call(api.admin, "GET", env + "?limit=1")) == env + "?limit=1&offset=1");
  const std::string raw = env.substr(0, env.rfind('/')) + "/a>%2fb";
  CHECK(next_of(api.call(api.admin, "GET", raw + "?limit=1")) == env + "?limit=1&offset=1");
  // Without a limit the bound is list_max, and the link asks for what may be asked for.
  for (int i = 0; i < 1600; ++i) api.add_user("u" + std::to_string(i) + "@example.test", "user");
  const auto users = api.call(api.admin, "GET", "/api/users");
  CHECK(Api::json(users).size() == 1500);
  CHECK(next_of(users) == "/api/users?limit=1000&offset=1500");
  CHECK(Api::json(api.call(api.admin, "GET", next_of(users))).size() == 102);
}

TEST_CASE("R39: every write leaves a row with its route, its status and who, refused ones too") {
  Api api;
  const std::string path = "/api/targets/" + api.make_target("crm");
  const HttpHeaders traced{{"traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}};
  const auto check = [&](const std::string& who, const std::string& method, const std::string& target,
                         const std::string& body, const std::string& template_path, int status,
                         const std::string& code, const std::string& kind = "admin") {
    const std::size_t rows = api.live.rows.size();
    CAPTURE(method);
    CAPTURE(target);
    CHECK(api.call(who, method, target, body, traced).status == status);
    REQUIRE(api.live.rows.size() == rows + 1);
    const AuditRecord& one = api.row();
    CHECK(one.kind == kind);
    CHECK(one.method == method + " " + template_path);
    CHECK(one.response_status == status);
    CHECK(one.error_code == code);
    CHECK(one.user_id == (who == api.user ? api.user_id : api.admin_id));
    CHECK(one.client_ip == "10.0.0.1");
    CHECK(one.trace_id == "0123456789abcdef0123456789abcdef");
    CHECK(one.bytes_in == static_cast<std::int64_t>(body.size()));
    CHECK(one.created_at == api.clock->now());
    CHECK(one.decision.empty());
  };
  check(api.admin, "PUT", path, R"({"timeout_ms":5000})", "/api/targets/{id}", 200, "");
  CHECK(api.row().target_name == "crm");
  CHECK(api.row().request_body == R"({"timeout_ms":5000})");
  check(api.admin, "PUT", path, R"({"timeout_ms":5})", "/api/targets/{id}", 400, "invalid_request");
  check(api.admin, "PUT", path, "{", "/api/targets/{id}", 400, "invalid_json");
  CHECK(api.row().request_body.empty());
  check(api.user, "DELETE", path, "", "/api/targets/{id}", 403, "admin_required");
  CHECK(api.row().target_name.empty());
  check(api.admin, "DELETE", "/api/users/" + kNobody, "", "/api/users/{id}", 404, "user_not_found");
  check(api.admin, "DELETE", "/api/users/" + api.admin_id, "", "/api/users/{id}", 409, "last_admin");
  check(api.user, "POST", "/api/sessions/recycle", "", "/api/sessions/recycle", 200, "");
  check(api.user, "POST", "/api/auth/tokens", "{}", "/api/auth/tokens", 201, "", "auth");
  check(api.mcp_only, "POST", "/api/auth/tokens", "{}", "/api/auth/tokens", 403, "insufficient_scope",
        "auth");
  check(api.user, "POST", "/api/auth/logout", "", "/api/auth/logout", 204, "", "auth");
  // Reads, and what nobody known asked for, leave none.
  const std::size_t rows = api.live.rows.size();
  for (const auto& route : AdminApi::routes()) {
    if (route.method == "GET") api.call(api.admin, "GET", fill(route.path));
    if (route.who != "public") api.call("", route.method, fill(route.path), "{}");
  }
  CHECK(api.live.rows.size() == rows);
  for (const char* header : {"", "00-x", "00-00000000000000000000000000000000-0123456789abcdef-01",
                             "00-0123456789ABCDEF0123456789abcdef-0123456789abcdef-01"}) {
    api.call(api.admin, "PUT", path, "{}", {{"traceparent", header}});
    CHECK(api.row().trace_id.empty());
  }
}

TEST_CASE("R91: no secret in any answer or audit row, whatever becomes of the request") {
  Api api;
  api.open_to_all();
  const std::string id = api.make_target("crm", R"(,"auth_type":"bearer")");
  const std::string body =
      R"({"email":"c@example.test","password":"canary-1","old_password":"canary-2","new_password":"canary-3",)"
      R"("setup_token":"canary-4","token":"canary-5","key":"K","value":"canary-6","group":"ops","role":"dev",)"
      R"("configs":{"K":"canary-7","password":"canary-8"},"name":"n","effect":"allow","description":"d",)"
      R"("tls":{"client_key":"canary-9"},"subject_type":"everyone","resource_type":"all","target_id":"x"})";
  std::string everything;
  const std::vector<std::string> bodies{body,
                                        R"({"key":7,"value":"canary-10"})",
                                        R"({"key":"K","value":["canary-11",{"a":"canary-12"}]})",
                                        R"({"configs":["canary-13"]})",
                                        R"({"configs":{"K":"canary-14","L":7,"M":{"N":"canary-15"}}})",
                                        R"({"tls":[{"client_key":"canary-16"}]})",
                                        R"({"password":{"a":"canary-17"}})",
                                        R"({"v\u0061lue":"canary-18"})",
                                        R"({"value":"canary-19")",
                                        "canary-20",
                                        R"(["canary-21"])",
                                        R"({"value":"canary-22","value":"canary-22"})",
                                        R"({"value":"canary-23","x":")" + std::string(70000, 'x') + "\"}",
                                        "\xff canary-24"};
  for (const auto& route : AdminApi::routes()) {
    if (route.method == "GET") continue;
    for (const std::string& who : {std::string(), api.user, api.admin, api.mcp_only})
      for (const std::string& one : bodies)
        for (const std::string& scope : {api.user_id, kNobody}) {
          // Logout and the like would end what the rest of the test needs.
          const std::string path = fill(route.path, {{"id", id}, {"scopeValue", scope}});
          if (route.path == "/api/auth/logout" || path == "/api/targets/" + id) continue;
          everything += api.call(who, route.method, path, one).body;
        }
  }
  REQUIRE(api.live.rows.size() > 500);
  for (const auto& route : AdminApi::routes())
    if (route.method == "GET")
      everything +=
          api.call(api.admin, "GET", fill(route.path, {{"id", id}, {"scopeValue", api.user_id}})).body;
  for (const AuditRecord& one : api.live.rows) {
    if (one.request_body.find("canary") != std::string::npos) {
      CAPTURE(one.method);
      CAPTURE(one.response_status);
      FAIL_CHECK(one.request_body.substr(0, 500));
    }
    if (!one.request_body.empty()) {
      const auto parsed = detail::parse_json(one.request_body, 64);
      CHECK((parsed && parsed->is_object()));
    }
    everything += one.method + one.user_email + one.target_name + one.tool + one.error_code;
  }
  for (const std::string& cause : api.causes) everything += cause;
  CHECK(everything.find("canary") == std::string::npos);
}

TEST_CASE("bodies in the audit: keys of a map stay readable, sizes are capped, off is off") {
  Settings settings;
  settings.api.audit_body_max = 200;
  Api api(std::move(settings));
  const std::string path = "/api/targets/" + api.make_target("crm");
  CHECK(api.call(api.admin, "PUT", path + "/env/default", R"({"configs":{"A":"v1","B":"v2"}})").status ==
        200);
  CHECK(api.row().request_body == R"({"configs":{"A":"[redacted]","B":"[redacted]"}})");
  CHECK(api.call(api.admin, "POST", path + "/env/default",
                 R"({"key":"A","value":"sesame","description":"not sesame"})")
            .status == 200);
  CHECK(api.row().request_body == R"({"key":"A","value":"[redacted]","description":"not [redacted]"})");
  CHECK(api.call(api.admin, "PUT", path, R"({"args":[")" + std::string(300, 'a') + R"("]})").status == 200);
  const Json capped = *detail::parse_json(api.row().request_body);
  CHECK(capped == Json({{"truncated", true}, {"bytes", 313}, {"method", "PUT /api/targets/{id}"}}));

  Settings none;
  none.api.audit_bodies = false;
  Api silent(std::move(none));
  silent.make_target("crm");
  CHECK(silent.row().request_body.empty());
}

TEST_CASE("snapshot, and the WebSocket's route without an upgrade") {
  Api api;
  CHECK(api.call(api.admin, "GET", "/api/observability/snapshot").body == R"({"all":true})");
  CHECK(api.call(api.user, "GET", "/api/observability/snapshot").body == R"({"all":false})");
  const auto ws = api.call(api.user, "GET", "/api/observability/ws");
  CHECK(ws.status == 426);
  CHECK(Api::code(ws) == "upgrade_required");
  CHECK(*ws.header("Upgrade") == "websocket");
}

TEST_CASE("use of a token is remembered, and a storage that is away then costs nothing") {
  Api api;
  api.storage->set_down(true);
  CHECK(api.call(api.user, "GET", "/api/auth/me").status == 200);
  api.storage->set_down(false);
  api.clock->advance(std::chrono::minutes(2));
  CHECK(api.call(api.user, "GET", "/api/auth/me").status == 200);
  CHECK_FALSE(Api::json(api.call(api.user, "GET", "/api/auth/tokens"))[0]["last_used_at"].is_null());
}
