// What every AuditSink promises, as tests. Used as storage_contract.hpp is, with
//   struct MyBackend { std::shared_ptr<mcpgw::AuditSink> audit; MyBackend(); };
//   #define MCPGW_AUDIT_BACKEND MyBackend
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "contract/audit_rows.hpp"
#include "contract/contract_support.hpp"
#include "mcpgw/audit.hpp"

namespace mcpgw::contract {

inline std::vector<std::string> audit_ids(AuditSink& sink, const AuditFilter& filter) {
  AuditQuery query;
  query.filter = filter;
  query.limit = 1000;
  auto page = must(sink.query(query));
  std::vector<std::string> ids;
  for (auto& record : page.records) ids.push_back(record.id);
  CHECK(page.total == ids.size());
  CHECK(page.next == 0);
  return ids;
}

TEST_CASE_TEMPLATE("audit: a row comes back whole", B, MCPGW_AUDIT_BACKEND) {
  B backend;
  AuditRecord row;
  row.id = "0b0e1a53-1111-4222-8333-444455556666";
  row.kind = "admin";
  row.created_at = audit_time(5) + std::chrono::microseconds(123456);
  row.session_id = "s";
  row.user_id = "u";
  row.user_email = "\xc3\xa4@example.org";
  row.method = "PUT /api/targets/{id}";
  row.target_name = "t'arget\"; --";
  row.tool = std::string("file:///a\0b", 11);
  row.decision = "deny";
  row.policy_id = "p";
  row.policy_name = "Policy %_";
  row.response_status = 409;
  row.error_code = "name_taken";
  row.duration_ms = 1234567890123;
  row.bytes_in = 3;
  row.bytes_out = std::int64_t{1} << 40;
  row.client_ip = "2001:db8::1";
  row.client_name = "client/1.0";
  row.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
  row.request_body = R"({"name":"x","n":1.0})";
  must_ok(backend.audit->append({row, AuditRecord{}}));
  const auto page = must(backend.audit->query({}));
  REQUIRE(page.records.size() == 2);
  CHECK(page.total == 2);
  const AuditRecord& back = page.records[1];
  CHECK(back.id == row.id);
  CHECK(back.kind == row.kind);
  CHECK(back.created_at == row.created_at);
  CHECK(back.session_id == row.session_id);
  CHECK(back.user_id == row.user_id);
  CHECK(back.user_email == row.user_email);
  CHECK(back.method == row.method);
  CHECK(back.target_name == row.target_name);
  CHECK(back.tool == row.tool);
  CHECK(back.decision == row.decision);
  CHECK(back.policy_id == row.policy_id);
  CHECK(back.policy_name == row.policy_name);
  CHECK(back.response_status == row.response_status);
  CHECK(back.error_code == row.error_code);
  CHECK(back.duration_ms == row.duration_ms);
  CHECK(back.bytes_in == row.bytes_in);
  CHECK(back.bytes_out == row.bytes_out);
  CHECK(back.client_ip == row.client_ip);
  CHECK(back.client_name == row.client_name);
  CHECK(back.trace_id == row.trace_id);
  CHECK(back.request_body == row.request_body);
  const AuditRecord& empty = page.records[0];
  CHECK(empty.id.empty());
  CHECK(empty.decision.empty());
  CHECK(empty.request_body.empty());
  CHECK(empty.response_status == 0);
  CHECK(empty.created_at == Time{});
}

TEST_CASE_TEMPLATE("audit: every filter, alone and together", B, MCPGW_AUDIT_BACKEND) {
  B backend;
  AuditSink& sink = *backend.audit;
  const auto row = [](const char* id, int second, const char* kind, const char* user, const char* method,
                      const char* target, const char* tool, const char* decision, int status,
                      const char* code) {
    AuditRecord r;
    r.id = id;
    r.created_at = audit_time(second);
    r.kind = kind;
    r.user_id = user;
    r.user_email = std::string(user) + "@Example.org";
    r.method = method;
    r.target_name = target;
    r.tool = tool;
    r.decision = decision;
    r.response_status = status;
    r.error_code = code;
    return r;
  };
  must_ok(sink.append({
      row("1", 10, "mcp", "ann", "tools/call", "git", "git_log", "allow", 200, ""),
      row("2", 20, "mcp", "ann", "tools/call", "git", "git_push", "deny", 403, "denied"),
      row("3", 30, "mcp", "bob", "tools/list", "", "", "", 200, ""),
      row("4", 40, "admin", "ann", "PUT /api/users/{id}", "", "", "", 409, "last_admin"),
      row("5", 25, "auth", "", "login", "", "", "", 401, "unauthenticated"),
      row("6", 60, "mcp", "bob", "tools/call", "web", "100%_done", "allow", 502, "upstream_error"),
      row("7", 70, "session", "bob", "created", "web", "", "", 200, ""),
      row("8", 80, "mcp", "bob", "resources/read", "web", "FILE:///\xc3\x84", "allow", 399, ""),
  }));
  using Ids = std::vector<std::string>;
  AuditFilter filter;
  SUBCASE("none: last stored first") {
    CHECK(audit_ids(sink, filter) == Ids{"8", "7", "6", "5", "4", "3", "2", "1"});
  }
  SUBCASE("user") {
    filter.user_id = "ann";
    CHECK(audit_ids(sink, filter) == Ids{"4", "2", "1"});
    filter.user_id = "";
    CHECK(audit_ids(sink, filter) == Ids{"5"});
    filter.user_id = "an";
    CHECK(audit_ids(sink, filter).empty());
    filter.user_id = "ANN";
    CHECK(audit_ids(sink, filter).empty());
  }
  SUBCASE("target") {
    filter.target_name = "web";
    CHECK(audit_ids(sink, filter) == Ids{"8", "7", "6"});
    filter.target_name = "' OR 1=1 --";
    CHECK(audit_ids(sink, filter).empty());
  }
  SUBCASE("method") {
    filter.method = "tools/call";
    CHECK(audit_ids(sink, filter) == Ids{"6", "2", "1"});
  }
  SUBCASE("decision") {
    filter.decision = "allow";
    CHECK(audit_ids(sink, filter) == Ids{"8", "6", "1"});
    filter.decision = "deny";
    CHECK(audit_ids(sink, filter) == Ids{"2"});
  }
  SUBCASE("kind") {
    filter.kind = "mcp";
    CHECK(audit_ids(sink, filter) == Ids{"8", "6", "3", "2", "1"});
  }
  SUBCASE("status") {
    filter.status = "ok";
    CHECK(audit_ids(sink, filter) == Ids{"8", "7", "3", "1"});
    filter.status = "error";
    CHECK(audit_ids(sink, filter) == Ids{"6", "5", "4", "2"});
    filter.status = "403";
    CHECK(audit_ids(sink, filter) == Ids{"2"});
    filter.status = "200";
    CHECK(audit_ids(sink, filter) == Ids{"7", "3", "1"});
    filter.status = "999999999";
    CHECK(audit_ids(sink, filter).empty());
    for (const char* bad : {"", "OK", "2xx", "-1", "4e2", " 200", "1000000000"}) {
      AuditQuery query;
      query.filter.status = bad;
      check_error(sink.query(query), ErrorCode::invalid_argument, "invalid_status");
    }
  }
  SUBCASE("time: since inclusive, until exclusive") {
    filter.since = audit_time(25);
    CHECK(audit_ids(sink, filter) == Ids{"8", "7", "6", "5", "4", "3"});
    filter.until = audit_time(60);
    CHECK(audit_ids(sink, filter) == Ids{"5", "4", "3"});
    filter.since.reset();
    CHECK(audit_ids(sink, filter) == Ids{"5", "4", "3", "2", "1"});
    filter.until = audit_time(10);
    CHECK(audit_ids(sink, filter).empty());
  }
  SUBCASE("text: a substring of five members, ignoring ASCII case") {
    const std::vector<std::pair<std::string, Ids>> cases = {{"GIT_", {"2", "1"}},
                                                            {"list", {"3"}},
                                                            {"Last_Admin", {"4"}},
                                                            {"BOB@EXAMPLE", {"8", "7", "6", "3"}},
                                                            {"web", {"8", "7", "6"}},
                                                            {"100%_", {"6"}},
                                                            {"%", {"6"}},
                                                            {"_d", {"6"}},
                                                            {"file:///\xc3\x84", {"8"}},
                                                            {"\xc3\xa4", {}},
                                                            {"api/users/{", {"4"}},
                                                            {"nothing", {}},
                                                            {std::string("\0", 1), {}},
                                                            {"'", {}},
                                                            {"\\", {}}};
    for (const auto& [text, ids] : cases) {
      CAPTURE(text);
      filter.text = text;
      CHECK(audit_ids(sink, filter) == ids);
    }
    filter.text = "";
    CHECK(audit_ids(sink, filter).size() == 8);
  }
  SUBCASE("together") {
    filter.kind = "mcp";
    filter.user_id = "bob";
    filter.method = "tools/call";
    filter.target_name = "web";
    filter.decision = "allow";
    filter.status = "error";
    filter.since = audit_time(60);
    filter.until = audit_time(61);
    filter.text = "upstream";
    CHECK(audit_ids(sink, filter) == Ids{"6"});
    filter.status = "ok";
    CHECK(audit_ids(sink, filter).empty());
  }
}

TEST_CASE_TEMPLATE("audit: pages by offset and by cursor", B, MCPGW_AUDIT_BACKEND) {
  B backend;
  AuditSink& sink = *backend.audit;
  std::vector<AuditRecord> batch;
  for (int n = 0; n < 100; ++n) batch.push_back(audit_row(n));
  must_ok(sink.append(batch));

  AuditQuery query;
  query.limit = 10;
  query.offset = 95;
  auto page = must(sink.query(query));
  CHECK(page.records.size() == 5);
  CHECK(page.records[0].id == "id-4");
  CHECK(page.total == 100);
  CHECK(page.next == 0);
  query.offset = 1000;
  CHECK(must(sink.query(query)).records.empty());
  query.offset = 0;
  query.limit = 100;
  CHECK(must(sink.query(query)).next == 0);  // exactly all
  query.limit = 99;
  CHECK(must(sink.query(query)).next > 0);
  query.limit = 0;
  CHECK(must(sink.query(query)).total == 100);
  CHECK(must(sink.query(query)).records.empty());
  CHECK(must(sink.query({})).records.size() == 50);

  // New rows arrive and old ones are purged between the pages: no row twice, none of the first ones lost.
  query = {};
  query.limit = 7;
  query.filter.user_id = "u1";
  std::vector<std::string> seen;
  int extra = 1000;
  for (;;) {
    page = must(sink.query(query));
    for (const auto& record : page.records) seen.push_back(record.id);
    if (page.next == 0) break;
    CHECK(page.records.size() == 7);
    query.before = page.next;
    auto row = audit_row(extra++);
    row.user_id = "u1";
    must_ok(sink.append({row}));
  }
  std::vector<std::string> wanted;
  for (int n = 99; n >= 0; --n)
    if (n % 3 == 1) wanted.push_back("id-" + std::to_string(n));
  CHECK(seen == wanted);
  CHECK(page.total == wanted.size() + static_cast<std::size_t>(extra - 1000));  // all pages, new rows too

  query.before = -1;
  check_error(sink.query(query), ErrorCode::invalid_argument, "invalid_position");
}

TEST_CASE_TEMPLATE("audit: a cursor survives a purge, positions are not used again", B, MCPGW_AUDIT_BACKEND) {
  B backend;
  AuditSink& sink = *backend.audit;
  for (int n = 0; n < 10; ++n) must_ok(sink.append({audit_row(n)}));
  AuditQuery query;
  query.limit = 2;
  const auto next = must(sink.query(query)).next;
  CHECK(must(sink.purge(audit_time(100))) == 10);
  CHECK(must(sink.query({})).total == 0);
  for (int n = 20; n < 25; ++n) must_ok(sink.append({audit_row(n)}));
  query.before = next;
  CHECK(must(sink.query(query)).records.empty());  // the rows before it are gone; the new ones come after it
  CHECK(must(sink.query({})).records.size() == 5);
}

TEST_CASE_TEMPLATE("audit: purge removes what is older, whatever its order", B, MCPGW_AUDIT_BACKEND) {
  B backend;
  AuditSink& sink = *backend.audit;
  std::vector<AuditRecord> batch;
  for (int n = 0; n < 1500; ++n) batch.push_back(audit_row(n % 2 == 0 ? n : 100000 + n));
  must_ok(sink.append(batch));
  CHECK(must(sink.purge(audit_time(0))) == 0);
  CHECK(must(sink.purge(audit_time(1000))) == 500);
  CHECK(must(sink.query({})).total == 1000);
  CHECK(must(sink.purge(audit_time(50000))) == 250);
  CHECK(must(sink.purge(audit_time(50000))) == 0);
  AuditQuery query;
  query.limit = 1000;
  for (const auto& record : must(sink.query(query)).records) CHECK(record.created_at >= audit_time(50000));
}

TEST_CASE_TEMPLATE("audit: a batch tried again is stored once", B, MCPGW_AUDIT_BACKEND) {
  B backend;
  AuditSink& sink = *backend.audit;
  must_ok(sink.append({}));
  must_ok(sink.append({audit_row(1), audit_row(2)}));
  auto changed = audit_row(2);
  changed.method = "changed";
  must_ok(sink.append({audit_row(1), changed, audit_row(3)}));
  const auto page = must(sink.query({}));
  REQUIRE(page.records.size() == 3);
  CHECK(page.records[0].id == "id-3");
  CHECK(page.records[1].method == "tools/call");
}

TEST_CASE_TEMPLATE("audit: writers, readers and a purge at the same time", B, MCPGW_AUDIT_BACKEND) {
  B backend;
  AuditSink& sink = *backend.audit;
  std::atomic<int> failures{0};
  std::atomic<int> torn{0};
  std::atomic<int> writers{3};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        std::vector<AuditRecord> batch;
        for (int n = 0; n < 5; ++n) batch.push_back(audit_row(t * 10000 + round * 5 + n));
        if (!sink.append(batch)) ++failures;
      }
      --writers;
    });
  threads.emplace_back([&] {
    while (writers > 0) {
      auto page = sink.query({});
      if (!page)
        ++failures;
      else if (page->total % 5 != 0 || page->records.size() != std::min<std::uint64_t>(50, page->total))
        ++torn;  // half a batch, or a total of another moment
    }
  });
  threads.emplace_back([&] {
    while (writers > 0)
      if (!sink.purge(audit_time(-1))) ++failures;
  });
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(torn == 0);
  CHECK(must(sink.query({})).total == 300);
}

TEST_CASE_TEMPLATE("audit: 100000 rows are queried in reasonable time", B, MCPGW_AUDIT_BACKEND) {
  B backend;
  AuditSink& sink = *backend.audit;
  std::vector<AuditRecord> batch;
  for (int n = 0; n < 100000; ++n) {
    auto row = audit_row(n);
    row.user_id = "u" + std::to_string(n % 100);
    row.response_status = n % 50 == 0 ? 502 : 200;
    row.decision = n % 1000 == 0 ? "deny" : "allow";
    row.request_body =
        R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{}}})";
    batch.push_back(std::move(row));
    if (batch.size() == 1000) {
      must_ok(sink.append(batch));
      batch.clear();
    }
  }
  std::vector<std::pair<const char*, std::function<void(AuditQuery&)>>> cases = {
      {"none", [](AuditQuery&) {}},
      {"user", [](AuditQuery& q) { q.filter.user_id = "u7"; }},
      {"user and kind", [](AuditQuery& q) { q.filter.user_id = "u7", q.filter.kind = "mcp"; }},
      {"error", [](AuditQuery& q) { q.filter.status = "error"; }},
      {"ok", [](AuditQuery& q) { q.filter.status = "ok"; }},
      {"deny", [](AuditQuery& q) { q.filter.decision = "deny"; }},
      {"old", [](AuditQuery& q) { q.filter.since = audit_time(10), q.filter.until = audit_time(5000); }},
      {"text", [](AuditQuery& q) { q.filter.text = "TOOL_9999"; }},
      {"deep offset", [](AuditQuery& q) { q.offset = 99000; }},
  };
  for (const auto& [name, set] : cases) {
    AuditQuery query;
    set(query);
    const auto start = std::chrono::steady_clock::now();
    const auto page = must(sink.query(query));
    const auto took = std::chrono::steady_clock::now() - start;
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
    CAPTURE(std::string(name));
    CHECK(page.total > 0);
    CHECK_FALSE(page.records.empty());
    CAPTURE(ms);
    CHECK(ms < 3000);  // a missing index or a quadratic plan is far beyond, also with a sanitizer
  }
}

}  // namespace mcpgw::contract
