// PostgreSQL that breaks off: in every step of a transaction, under load, for a while, for good.
#include <mutex>

#include "contract/audit_rows.hpp"
#include "contract/cutting_proxy.hpp"
#include "contract/postgres_support.hpp"
#include "postgres/pool.hpp"

using namespace mcpgw;
using namespace mcpgw::contract;
using Kind = Operation::Kind;
using Side = CuttingProxy::Side;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

/// One database, reached directly and through a proxy.
struct Both {
  PostgresServer& server = PostgresServer::shared();
  std::string database = server.make_database();
  CuttingProxy proxy{server.socket()};
  PostgresStorage direct = open_postgres(server.url_of(database));
  PostgresStorage proxied;

  explicit Both(int call_timeout_ms = 10000) {
    PostgresOptions options;
    options.url = proxy.url_of(database);
    options.call_timeout_ms = call_timeout_ms;
    proxied = must(open_postgres_storage(options));
  }
};

template <class Condition>
bool eventually(Condition condition, milliseconds limit = milliseconds(20000)) {
  const auto end = steady_clock::now() + limit;
  while (!condition()) {
    if (steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

std::vector<Operation> round_of(int n) {
  const auto text = std::to_string(n);
  return {{Kind::put, "c", "a", text, {}},
          {Kind::put, "c", "once" + text, text, 0},
          {Kind::erase, "c", "once" + std::to_string(n - 1), "", {}},
          {Kind::check, "c", "none", "", 0}};
}

}  // namespace

TEST_CASE("postgres: a commit whose connection is cut in any step is made whole, once") {
  for (const auto side : {Side::client, Side::server}) {
    CAPTURE(static_cast<int>(side));
    Both both;
    ChangeLog told;
    const auto watch = both.proxied.storage->watch(told.callback());
    must(both.proxied.storage->commit(round_of(0)));
    int n = 1;
    for (;; ++n) {
      CAPTURE(n);
      REQUIRE(n < 200);
      both.proxy.cut_after(side, n - 1);
      const auto versions = must(both.proxied.storage->commit(round_of(n)));
      const bool cut = both.proxy.disarm();
      // Exactly this commit, once: versions count it.
      CHECK(versions[0] == static_cast<std::uint64_t>(n) + 1);
      const auto a = must(both.direct.storage->get("c", "a"));
      REQUIRE(a.has_value());
      CHECK(a->value == std::to_string(n));
      CHECK(a->version == versions[0]);
      CHECK(keys_of(*both.direct.storage, "c", "once", "", 0) ==
            std::vector<std::string>{"once" + std::to_string(n)});
      REQUIRE(told.commits().size() == static_cast<std::size_t>(n) + 1);
      CHECK(text_of(told.commits().back()).find("c/a@" + std::to_string(n + 1)) == 0);
      if (!cut) break;
    }
    CHECK(n > 10);  // there were that many steps to be cut in
    both.proxied.storage->unwatch(watch);
  }
}

TEST_CASE("postgres: a commit cut for good is made or not, whole, and who watches learns which") {
  // By the end of what the client sends, the commit itself is among it; what the server answers then is lost.
  for (const auto& [side, step] : {std::pair{Side::client, 3}, {Side::client, 25}, {Side::server, 22}}) {
    CAPTURE(step);
    Both both(1000);
    must(both.proxied.storage->commit(round_of(0)));
    ChangeLog told;
    const auto watch = both.proxied.storage->watch(told.callback());
    both.proxy.down_after_cut(true);
    both.proxy.cut_after(side, step);
    const auto begun = steady_clock::now();
    const auto result = both.proxied.storage->commit(round_of(1));
    CHECK(steady_clock::now() - begun < std::chrono::seconds(15));
    REQUIRE(both.proxy.disarm());
    check_error(result, ErrorCode::unavailable, "storage_unavailable");
    check_error(both.proxied.storage->get("c", "a"), ErrorCode::unavailable, "storage_unavailable");
    check_error(both.proxied.storage->ping(), ErrorCode::unavailable, "storage_unavailable");
    const auto keys = keys_of(*both.direct.storage, "c", "", "", 0);
    const bool made = keys == std::vector<std::string>{"a", "once1"};
    CHECK((made || keys == std::vector<std::string>{"a", "once0"}));
    // What others do meanwhile is made up too, without a restart.
    must(both.direct.storage->put("c", "later", "1"));
    both.proxy.down_after_cut(false);
    both.proxy.set_down(false);
    CHECK(eventually([&] { return both.proxied.storage->ping().has_value(); }));
    REQUIRE(told.wait_for(made ? 2 : 1));
    CHECK(told.commits().size() == (made ? 2 : 1));
    CHECK(text_of(told.commits().back()) == "c/later@1 ");
    both.proxied.storage->unwatch(watch);
  }
}

TEST_CASE("postgres: reads and audit batches go on over a new connection, rows stay single") {
  for (const auto side : {Side::client, Side::server}) {
    Both both;
    must(both.proxied.storage->put("c", "a", "1"));
    bool cut = true;
    for (int n = 0; cut; ++n) {
      REQUIRE(n < 100);
      both.proxy.cut_after(side, n);
      CHECK(must(both.proxied.storage->get("c", "a"))->value == "1");
      CHECK(must(both.proxied.storage->list("c", "", "", 0)).size() == 1);
      cut = both.proxy.disarm();
    }
    int n = 0;
    for (cut = true; cut; ++n) {
      REQUIRE(n < 100);
      both.proxy.cut_after(side, n);
      must_ok(both.proxied.audit->append({audit_row(2 * n), audit_row(2 * n + 1)}));
      cut = both.proxy.disarm();
      CHECK(must(both.direct.audit->query({})).total == static_cast<std::uint64_t>(2 * n + 2));
    }
    CHECK(n > 3);
  }
}

TEST_CASE("postgres: connections ended by the server at random times cost no acknowledged write") {
  Both both;
  must(both.direct.storage->put("counter", "n", "0"));
  std::atomic<int> acknowledged{0}, uncertain{0}, wrong{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      while (!stop) {
        const auto record = both.direct.storage->get("counter", "n");
        if (!record || !*record) continue;
        const auto next = std::to_string(std::stoi((*record)->value) + 1);
        const auto done = both.direct.storage->commit(
            {{Kind::put, "counter", "n", next, (*record)->version}, {Kind::put, "proof", next, "1", 0}});
        if (done)
          ++acknowledged;
        else if (done.error().code == ErrorCode::unavailable)
          ++uncertain;
        else if (done.error().code != ErrorCode::conflict)
          ++wrong;
      }
    });
  for (int n = 0; n < 20; ++n) {
    const int before = acknowledged;
    both.server.cut(both.database);
    CHECK(eventually([&] { return acknowledged >= before + 5; }));
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(eventually([&] { return both.direct.storage->ping().has_value(); }));
  const int counted = std::stoi(must(both.direct.storage->get("counter", "n"))->value);
  CHECK(counted >= acknowledged);
  CHECK(counted <= acknowledged + uncertain);
  CHECK(must(both.direct.storage->list("proof", "", "", 0)).size() == static_cast<std::size_t>(counted));
}

TEST_CASE("postgres: a restart of the server, orderly and not, needs none of ours") {
  PostgresServer server;
  const auto database = server.make_database();
  const auto first = open_postgres(server.url_of(database)), second = open_postgres(server.url_of(database));
  ChangeLog told;
  const auto watch = first.storage->watch(told.callback());
  std::size_t commits = 0;
  for (const int signal : {SIGINT, SIGQUIT}) {
    must(second.storage->put("c", std::to_string(signal), "before"));
    REQUIRE(told.wait_for(++commits));
    server.stop(signal);
    check_error(first.storage->put("c", "k", "1"), ErrorCode::unavailable, "storage_unavailable");
    check_error(first.audit->append({audit_row(1)}), ErrorCode::unavailable, "storage_unavailable");
    check_error(first.storage->ping(), ErrorCode::unavailable, "storage_unavailable");
    server.start();
    CHECK(eventually([&] { return second.storage->put("c", "k", "2").has_value(); }));
    REQUIRE(told.wait_for(++commits));
    CHECK(eventually([&] { return first.storage->ping().has_value(); }));
    CHECK(must(first.storage->get("c", "k"))->value == "2");
    CHECK(must(first.storage->get("c", std::to_string(signal)))->value == "before");
    CHECK(eventually([&] { return first.audit->append({audit_row(signal)}).has_value(); }));
  }
  CHECK(told.commits().size() == commits);
  first.storage->unwatch(watch);
}

TEST_CASE("postgres: a lock that somebody keeps fails writers in time and stops no reader") {
  Both both(500);
  must(both.proxied.storage->put("c", "a", "1"));
  const std::unique_ptr<PGconn, decltype(&PQfinish)> keeper(
      PQconnectdb(both.server.url_of(both.database).c_str()), &PQfinish);
  PQclear(PQexec(keeper.get(), "BEGIN"));
  PQclear(PQexec(keeper.get(), "SELECT seq FROM mcpgw_state FOR UPDATE"));
  const auto begun = steady_clock::now();
  std::vector<std::thread> writers;
  std::atomic<int> refused{0};
  for (int t = 0; t < 4; ++t)
    writers.emplace_back([&] {
      const auto done = both.proxied.storage->put("c", "a", "2");
      if (!done && done.error().reason == "storage_unavailable") ++refused;
    });
  CHECK(must(both.proxied.storage->get("c", "a"))->value == "1");
  CHECK(both.proxied.storage->ping().has_value());
  for (auto& writer : writers) writer.join();
  CHECK(refused == 4);
  CHECK(steady_clock::now() - begun < std::chrono::seconds(15));
  PQclear(PQexec(keeper.get(), "ROLLBACK"));
  CHECK(must(both.proxied.storage->put("c", "a", "2")) == 2);
}

TEST_CASE("postgres: what was missed for longer than it can be told is read again as a whole") {
  Both both;
  ChangeLog told;
  const auto watch = both.proxied.storage->watch(told.callback());
  must(both.proxied.storage->put("c", "gone", "1"));
  both.proxy.set_down(true);
  must_ok(both.direct.storage->erase("c", "gone"));
  must(both.direct.storage->put("c", "other", "1"));
  both.server.run(both.database,
                  "UPDATE mcpgw_record SET erased_at = now() - interval '2 days' WHERE value IS NULL");
  // The other one forgets the tombstone in its turn.
  CHECK(
      eventually([&] { return both.server.run(both.database, "SELECT purged_seq FROM mcpgw_state") == "2"; },
                 milliseconds(30000)));
  both.proxy.set_down(false);
  REQUIRE(told.wait_for(2));
  CHECK(told.commits()[1].empty());
  CHECK(must(both.proxied.storage->put("c", "gone", "2", 0)) > 1);
  CHECK(both.server.run(both.database, "SELECT count(*) FROM mcpgw_record WHERE value IS NULL") == "0");
  both.proxied.storage->unwatch(watch);
}

TEST_CASE(
    "postgres: what was committed while nobody could be notified is told afterwards, once and in order") {
  Both both;
  ChangeLog told;
  const auto watch = both.proxied.storage->watch(told.callback());
  must(both.proxied.storage->put("c", "gone", "1"));
  REQUIRE(told.wait_for(1));
  for (std::size_t round = 0; round < 3; ++round) {
    const auto before = told.commits().size();
    both.proxy.set_down(true);
    const auto name = std::to_string(round);
    const auto first = must(both.direct.storage->put("c", "first" + name, "1"));
    must(both.direct.storage->commit(
        {{Kind::put, "c", "left" + name, "1", {}}, {Kind::put, "c", "right" + name, "1", {}}}));
    const auto last = must(both.direct.storage->put("c", "last" + name, "1"));
    both.proxy.set_down(false);
    REQUIRE(told.wait_for(before + 3));
    const auto commits = told.commits();
    CHECK(text_of(commits[before]) == "c/first" + name + "@" + std::to_string(first) + " ");
    CHECK(commits[before + 1].size() == 2);
    CHECK(text_of(commits[before + 2]) == "c/last" + name + "@" + std::to_string(last) + " ");
  }
  // And what comes now is told as ever, nothing twice.
  const auto before = told.commits().size();
  must(both.direct.storage->put("c", "now", "1"));
  REQUIRE(told.wait_for(before + 1));
  CHECK(told.commits().size() == before + 1);
  CHECK(before == 10);
  both.proxied.storage->unwatch(watch);
}

TEST_CASE(
    "postgres: a statement that takes longer than a call may is ended on the server, and its connection goes "
    "on") {
  auto& server = PostgresServer::shared();
  const auto database = server.make_database();
  PostgresOptions options;
  options.url = server.url_of(database);
  options.call_timeout_ms = 300;
  const auto info = must(detail::postgres::connection_info(options));
  const auto connection =
      must(detail::postgres::Connection::open(info, steady_clock::now() + std::chrono::seconds(10)));
  const auto begun = steady_clock::now();
  connection->send_text("SELECT pg_sleep(60)");
  const auto ended = connection->run(begun + std::chrono::seconds(30));
  REQUIRE_FALSE(ended);
  CHECK(ended.error().code == ErrorCode::unavailable);
  CHECK(steady_clock::now() - begun < std::chrono::seconds(15));
  CHECK_FALSE(connection->broken());
  CHECK(
      server.run(database,
                 "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mcpgw' AND state <> 'idle'"
                 " AND datname = current_database()") == "0");
  connection->send_text("SELECT 1::bigint");
  const auto after = connection->run(steady_clock::now() + std::chrono::seconds(10));
  REQUIRE(after);
  CHECK(after->front().integer(0, 0) == 1);
}
