// What the PostgreSQL backend promises beyond the contract: starting, refusing to start, replicas.
#include <numeric>

#include "contract/audit_rows.hpp"
#include "contract/postgres_support.hpp"

using namespace mcpgw;
using namespace mcpgw::contract;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

Result<PostgresStorage> try_open(const std::string& url) {
  PostgresOptions options;
  options.url = url;
  options.connect_timeout_ms = 2000;
  return open_postgres_storage(options);
}

template <class T>
void check_silent(const Result<T>& result) {
  REQUIRE_FALSE(result.has_value());
  const auto& error = result.error();
  CHECK((error.message + error.reason + error.field).find("canary") == std::string::npos);
}

}  // namespace

TEST_CASE("postgres: many that start at once make the tables once") {
  auto& server = PostgresServer::shared();
  const auto database = server.make_database();
  std::vector<std::thread> threads;
  std::atomic<int> opened{0};
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&] {
      if (try_open(server.url_of(database))) ++opened;
    });
  for (auto& thread : threads) thread.join();
  CHECK(opened == 6);
  CHECK(server.run(database, "SELECT count(*) FROM mcpgw_state") == "1");
  CHECK(server.run(database, "SELECT version FROM mcpgw_schema") == "1");
}

TEST_CASE("postgres: tables of a newer version are used when they allow it, and left alone otherwise") {
  auto& server = PostgresServer::shared();
  const auto database = server.make_database();
  const auto url = server.url_of(database);
  must(open_postgres(url).storage->put("c", "k", "1"));
  server.run(database, "UPDATE mcpgw_schema SET version = 99");
  CHECK(must(open_postgres(url).storage->get("c", "k"))->value == "1");
  server.run(database, "UPDATE mcpgw_schema SET compatible = 99");
  check_error(try_open(url), ErrorCode::unsupported, "schema_too_new");
  CHECK(server.run(database, "SELECT version FROM mcpgw_schema") == "99");
}

TEST_CASE("postgres: what keeps it from starting is said, and nothing of the URL") {
  auto& server = PostgresServer::shared();
  check_error(try_open("nonsense"), ErrorCode::invalid_argument, "invalid_url");
  check_error(try_open(""), ErrorCode::invalid_argument, "invalid_url");
  const auto unknown = try_open("postgres://u:canary@host/db?canary=1");
  check_error(unknown, ErrorCode::invalid_argument, "invalid_url");
  check_silent(unknown);
  const auto absent = try_open(server.url_of("canary"));
  check_error(absent, ErrorCode::not_found, "no_database");
  check_silent(absent);
  const auto refused = try_open(server.url_of("postgres") + " user=canary");
  check_error(refused, ErrorCode::permission_denied, "storage_refused");
  check_silent(refused);
  const auto away = try_open("host=/nonexistent/canary dbname=x password=canary");
  check_error(away, ErrorCode::unavailable, "storage_unavailable");
  check_silent(away);
  const auto ascii = server.make_database("ENCODING 'SQL_ASCII' TEMPLATE template0");
  check_error(try_open(server.url_of(ascii)), ErrorCode::unsupported, "encoding");

  const auto database = server.make_database();
  server.run(database, "CREATE ROLE reader LOGIN; REVOKE ALL ON SCHEMA public FROM public");
  const auto denied = try_open("host=" + server.socket().substr(0, server.socket().rfind('/')) +
                               " user=reader dbname=" + database);
  check_error(denied, ErrorCode::permission_denied, "storage_refused");
  CHECK(server.run(database, "SELECT count(*) FROM pg_class WHERE relname LIKE 'mcpgw%'") == "0");
}

TEST_CASE("postgres: a commit of one replica is told on another within a tenth of a second") {
  auto& server = PostgresServer::shared();
  const auto database = server.make_database();
  const auto first = open_postgres(server.url_of(database)), second = open_postgres(server.url_of(database));
  ChangeLog told;
  const auto watch = second.storage->watch(told.callback());
  must(first.storage->put("c", "k", "0"));
  REQUIRE(told.wait_for(1));  // it listens
  std::vector<std::int64_t> took;
  for (std::size_t n = 2; n < 32; ++n) {
    const auto version = must(first.storage->put("c", "k", std::to_string(n)));
    const auto begun = steady_clock::now();
    REQUIRE(told.wait_for(n));
    took.push_back(std::chrono::duration_cast<milliseconds>(steady_clock::now() - begun).count());
    CHECK(text_of(told.commits().back()) == "c/k@" + std::to_string(version) + " ");
  }
  std::sort(took.begin(), took.end());
  CHECK(took[took.size() / 2] < 100);
  second.storage->unwatch(watch);
}

TEST_CASE("postgres: commits of two replicas are told on both in one order") {
  auto& server = PostgresServer::shared();
  const auto database = server.make_database();
  const PostgresStorage replicas[] = {open_postgres(server.url_of(database)),
                                      open_postgres(server.url_of(database))};
  ChangeLog logs[2];
  std::uint64_t watches[2];
  for (int i = 0; i < 2; ++i) watches[i] = replicas[i].storage->watch(logs[i].callback());
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  constexpr int kThreads = 4, kRounds = 50;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round)
        if (!replicas[t % 2].storage->put("c", "shared", std::to_string(round))) ++failures;
    });
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  std::vector<std::uint64_t> wanted;
  for (std::uint64_t v = 1; v <= kThreads * kRounds; ++v) wanted.push_back(v);
  for (int i = 0; i < 2; ++i) {
    // A replica that learns of several commits at once knows only the last state of a record.
    std::uint64_t last = 0;
    const auto end = steady_clock::now() + std::chrono::seconds(10);
    while (steady_clock::now() < end &&
           (logs[i].commits().empty() || logs[i].commits().back()[0].version != wanted.back()))
      std::this_thread::sleep_for(milliseconds(5));
    for (const auto& commit : logs[i].commits()) {
      REQUIRE(commit.size() == 1);
      CHECK(commit[0].version > last);
      last = commit[0].version;
    }
    CHECK(last == wanted.back());
    replicas[i].storage->unwatch(watches[i]);
  }
}

TEST_CASE("postgres: texts against the rules do not hold up the audit log") {
  auto& server = PostgresServer::shared();
  const auto opened = open_postgres(server.url_of(server.make_database()));
  auto row = audit_row(1);
  row.tool =
      "\xef\xbf\xbf"
      "0\xef\xbf\xbf"
      "1";  // looks like an escape
  row.client_name = "a\xff\xc3(\xf0\x9f\x98\x80";
  must_ok(opened.audit->append({row}));
  const auto back = must(opened.audit->query({})).records.front();
  CHECK(back.tool == row.tool);
  CHECK(back.client_name == "a\xef\xbf\xbd\xef\xbf\xbd(\xf0\x9f\x98\x80");
}
