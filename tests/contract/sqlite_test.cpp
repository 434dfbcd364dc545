// What only a database file has: persistence, other processes, crashes, damage, refusal.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <random>
#include <thread>
#include <tuple>

#include "contract/contract_support.hpp"
#include "contract/sqlite_support.hpp"
#include "sqlite/audit_block.hpp"
#include "storage/write_turns.hpp"

using namespace mcpgw;
using namespace mcpgw::contract;
using Kind = Operation::Kind;

namespace {

// Another program's access to the file.
class RawDatabase {
 public:
  explicit RawDatabase(const std::string& path) {
    REQUIRE(sqlite3_open(path.c_str(), &handle_) == SQLITE_OK);
  }
  ~RawDatabase() { sqlite3_close(handle_); }
  RawDatabase(const RawDatabase&) = delete;
  RawDatabase& operator=(const RawDatabase&) = delete;
  void run(const std::string& sql) {
    const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
    CAPTURE(sql);
    REQUIRE(code == SQLITE_OK);
  }
  std::string value(const std::string& sql) {
    std::string text;
    sqlite3_exec(
        handle_, sql.c_str(),
        [](void* out, int, char** columns, char**) {
          *static_cast<std::string*>(out) = columns[0] ? columns[0] : "null";
          return 0;
        },
        &text, nullptr);
    return text;
  }

 private:
  sqlite3* handle_ = nullptr;
};

// Runs `body` in a child process, which must not hold any database open from before.
pid_t in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(body());
  return child;
}

int exit_code_of(pid_t child) {
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

mode_t mode_of(const std::string& path) {
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  return info.st_mode & 0777;
}

// No message names the file or shows SQL.
void check_refused(const Result<SqliteStorage>& opened, ErrorCode code, const std::string& reason,
                   const std::string& path) {
  check_error(opened, code, reason);
  CHECK(opened.error().message.find(path) == std::string::npos);
  CHECK(opened.error().message.find("SELECT") == std::string::npos);
}

AuditRecord row(const std::string& id) {
  AuditRecord record;
  record.id = id;
  record.kind = "mcp";
  return record;
}

}  // namespace

TEST_CASE("sqlite: everything is there after a reopen") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  std::uint64_t version = 0;
  {
    auto database = open_database(path);
    must(database.storage->put("c", "k", "1"));
    version = must(database.storage->put("c", "k", "2"));
    must(database.storage->put("c", "gone", "1"));
    must(database.storage->put("c", "gone", "2"));
    must_ok(database.storage->erase("c", "gone"));
    must_ok(database.audit->append({row("a"), row("b")}));
  }
  CHECK_FALSE(std::filesystem::exists(path + "-wal"));  // closed in good order: folded into the file
  auto database = open_database(path);
  CHECK(must(database.storage->get("c", "k"))->value == "2");
  CHECK(must(database.storage->get("c", "k"))->version == version);
  CHECK(must(database.storage->put("c", "gone", "3", 0)) == 3);  // versions go on
  const auto page = must(database.audit->query({}));
  REQUIRE(page.records.size() == 2);
  CHECK(page.records[0].id == "b");
}

TEST_CASE("sqlite: files are private to their owner") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  const mode_t before = ::umask(0);
  {
    auto database = open_database(path);
    must(database.storage->put("c", "k", "1"));
    CHECK(mode_of(path) == 0600);
    CHECK(mode_of(path + "-wal") == 0600);
    CHECK(mode_of(path + "-shm") == 0600);
  }
  ::umask(before);
  ::chmod(path.c_str(), 0640);  // the operator's choice stays
  open_database(path);
  CHECK(mode_of(path) == 0640);
}

TEST_CASE("sqlite: paths that cannot be a database") {
  TempDir directory;
  for (const std::string& path :
       {directory.file("none/gateway.db"), directory.path().string(), std::string("/dev/null")})
    check_refused(open_sqlite({path}), ErrorCode::invalid_argument, "cannot_open", path);
  check_error(open_sqlite({""}), ErrorCode::invalid_argument, "invalid_path");
  check_error(open_sqlite({directory.file("a") + std::string("\0b", 2)}), ErrorCode::invalid_argument,
              "invalid_path");
  CHECK_FALSE(std::filesystem::exists(directory.file("a")));
}

TEST_CASE("sqlite: a newer schema is refused and the file stays as it is") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  must(open_database(path).storage->put("c", "k", "1"));
  RawDatabase(path).run("PRAGMA user_version=99");
  const auto before = content_of(path);
  check_refused(open_sqlite({path}), ErrorCode::unsupported, "schema_too_new", path);
  CHECK(content_of(path) == before);
  RawDatabase(path).run("PRAGMA user_version=4");
  CHECK(must(open_database(path).storage->get("c", "k"))->value == "1");
}

TEST_CASE("sqlite: audit rows of a file of version 2 are packed, and keep their order and positions") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  must(open_database(path).storage->put("c", "k", "1"));
  const std::string columns =
      "id, kind, created_at, session_id, user_id, user_email, method, target_name, tool, decision, policy_id,"
      " policy_name, response_status, failed, error_code, duration_ms, bytes_in, bytes_out, client_ip,"
      " client_name, trace_id, request_body";
  RawDatabase(path).run(
      "DROP TABLE audit_block; DROP TABLE audit_key; DELETE FROM meta WHERE name LIKE 'audit%';"
      "CREATE TABLE audit(position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, kind TEXT, created_at "
      "INTEGER,"
      " session_id TEXT, user_id TEXT, user_email TEXT, method TEXT, target_name TEXT, tool TEXT, decision "
      "TEXT,"
      " policy_id TEXT, policy_name TEXT, response_status INTEGER, failed INTEGER, error_code TEXT,"
      " duration_ms INTEGER, bytes_in INTEGER, bytes_out INTEGER, client_ip TEXT, client_name TEXT, trace_id "
      "TEXT,"
      " request_body TEXT);"
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) INSERT INTO audit(" +
      columns +
      ") SELECT 'id-' || i, 'mcp', i * 1000000, 's', 'u' || (i % 2), 'e', 'tools/call', 't', 'tool-' || i, "
      "'allow',"
      " 'p', 'n', 200, 0, '', i, 1, 2, '::1', 'c', '', '{\"n\":' || i || '}' FROM n;"
      "DELETE FROM audit WHERE position IN (700, 1200); PRAGMA user_version=2");
  REQUIRE(must(must(snapshot_sqlite(path))->next_audit_rows()).size() ==
          200);  // only read: it stays as it is
  CHECK(RawDatabase(path).value("PRAGMA user_version") == "2");
  auto database = open_database(path);
  AuditQuery query;
  query.limit = 2000;
  auto page = must(database.audit->query(query));
  CHECK(page.total == 1198);
  REQUIRE(page.records.size() == 1198);
  CHECK(page.records.front().id == "id-1199");
  CHECK(page.records.front().request_body == R"({"n":1199})");
  CHECK(page.records.front().duration_ms == 1199);
  CHECK(page.records.back().created_at == Time(std::chrono::seconds(1)));
  query.filter.user_id = "u1";
  CHECK(must(database.audit->query(query)).total == 600);
  // A position that was taken is not used again.
  must_ok(database.audit->append({row("new")}));
  query = {};
  query.before = 1201;
  query.limit = 1;
  CHECK(must(database.audit->query(query)).records.at(0).id == "id-1199");
  CHECK(must(database.audit->purge(Time(std::chrono::seconds(600)))) == 600);
  CHECK(must(database.audit->query({})).total == 599);
  CHECK(RawDatabase(path).value("SELECT sum(rows) FROM audit_block") == "599");
  CHECK(RawDatabase(path).value(
            "SELECT sum(rows) FROM audit_key WHERE what = 2 AND value = CAST('t' AS BLOB)") == "599");
  CHECK(RawDatabase(path).value("SELECT count(*) FROM sqlite_schema WHERE name = 'audit'") == "0");
}

TEST_CASE("sqlite: a block of audit rows gives back what was put in, and damage is noticed") {
  std::mt19937 random(7);
  const auto any = [&](std::size_t max) {
    std::string out(random() % (max + 1), '\0');
    for (char& c : out) c = static_cast<char>(random());
    return out;
  };
  for (int round = 0; round < 50; ++round) {
    std::vector<AuditRecord> records(1 + random() % 20);
    for (AuditRecord& one : records) {
      one.id = any(40);
      one.user_id = random() % 2 == 0 ? "same" : any(3);
      one.tool = any(300);
      one.request_body = any(2000);
      // As bodies of one method are: what begins and ends like the one before, also where both overlap.
      if (&one != &records[0] && random() % 2 == 0) {
        const std::string& before = (&one - 1)->request_body;
        const std::size_t begin = random() % (before.size() + 1), end = random() % (before.size() + 1);
        one.request_body = before.substr(0, begin) + any(8) + before.substr(before.size() - end);
        one.tool = std::string(random() % 40, 'a');
      }
      one.created_at = Time(
          Duration(static_cast<std::int64_t>((std::uint64_t{random()} << 32 | random()) >> random() % 64)));
      if (random() % 8 == 0) one.created_at = random() % 2 == 0 ? Time::min() : Time::max();
      one.response_status = static_cast<int>(random() % 600);
      one.duration_ms = random() % 4 == 0 ? INT64_MIN : static_cast<std::int64_t>(random());
      one.bytes_out = random() % 4 == 0 ? INT64_MAX : 0;
    }
    detail::sqlite::BlockWriter block;
    std::int64_t position = 1 + static_cast<std::int64_t>(random());
    const std::int64_t first = position;
    for (const AuditRecord& one : records)
      block.add(one, position += static_cast<std::int64_t>(random() % 3) + (&one != &records[0]));
    const auto rows = detail::sqlite::read_block(block.data(), block.first());
    REQUIRE(rows);
    REQUIRE(rows->size() == records.size());
    CHECK(block.first() >= first);
    for (std::size_t i = 0; i < records.size(); ++i) {
      const AuditRecord back = (*rows)[i].record();
      const AuditRecord& one = records[i];
      CHECK(std::tie(back.id, back.user_id, back.tool, back.request_body, back.created_at,
                     back.response_status, back.duration_ms, back.bytes_out, back.method) ==
            std::tie(one.id, one.user_id, one.tool, one.request_body, one.created_at, one.response_status,
                     one.duration_ms, one.bytes_out, one.method));
    }
    CHECK(rows->front().position == block.first());
    CHECK(rows->back().position == position);
    // A block that was cut, or of whose bytes one is another: refused or read as other rows, never beyond its
    // end.
    for (std::size_t cut = 0; cut < block.data().size(); cut += 1 + random() % 97)
      (void)detail::sqlite::read_block(std::string(block.data(), 0, cut), first);
    for (int i = 0; i < 50; ++i) {
      std::string bad = block.data();
      bad[random() % bad.size()] = static_cast<char>(random());
      (void)detail::sqlite::read_block(bad, first);
    }
    CHECK_FALSE(detail::sqlite::read_block(block.data().substr(0, block.data().size() - 1), first));
  }
  CHECK_FALSE(detail::sqlite::read_block("", 1));
  // As it was written before: texts are whole.
  const std::string_view before("\1\xfe\xfe\3\0\x0a\x90\3\0\0\0\1a\2hi\xff\xfe\3\2\0\x90\3\0\0\0\2hx", 29);
  const auto old = detail::sqlite::read_block(before, 7);
  REQUIRE(old);
  REQUIRE(old->size() == 2);
  CHECK(old->front().record().id == "a");
  CHECK(old->front().record().tool == "hi");
  CHECK(old->front().response_status == 200);
  CHECK(old->back().record().id == "a");
  CHECK(old->back().record().tool == "hx");
  CHECK(old->back().position == 8);
  CHECK_FALSE(detail::sqlite::read_block(std::string_view("\3", 1), 1));

  TempDir directory;
  const auto path = directory.file("gateway.db");
  auto database = open_database(path);
  must_ok(database.audit->append({row("a"), row("b")}));
  RawDatabase(path).run("UPDATE audit_block SET data = x'01ff'");
  check_error(database.audit->query({}), ErrorCode::data_loss, "storage_damaged");
}

TEST_CASE("sqlite: the file of another program is refused and stays as it is") {
  TempDir directory;
  const auto path = directory.file("other.db");
  SUBCASE("with tables") { RawDatabase(path).run("CREATE TABLE record(x); INSERT INTO record VALUES(1)"); }
  SUBCASE("with a mark") { RawDatabase(path).run("PRAGMA application_id=7"); }
  SUBCASE("with a version") { RawDatabase(path).run("PRAGMA user_version=1"); }
  const auto before = content_of(path);
  check_refused(open_sqlite({path}), ErrorCode::unsupported, "foreign_database", path);
  CHECK(content_of(path) == before);
}

TEST_CASE("sqlite: damage is reported, not hidden") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  SUBCASE("no database at all") {
    std::ofstream(path) << std::string(5000, 'x');
    check_refused(open_sqlite({path}), ErrorCode::data_loss, "storage_damaged", path);
    CHECK(content_of(path) == std::string(5000, 'x'));
  }
  SUBCASE("an empty file becomes one") {
    std::ofstream(path).close();
    CHECK(must(open_database(path).storage->put("c", "k", "1")) == 1);
  }
  SUBCASE("pages overwritten") {
    {
      auto database = open_database(path);
      for (int n = 0; n < 200; ++n)
        must(database.storage->put("c", std::to_string(n), std::string(2000, '1')));
    }
    {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(path) / 2));
      file << std::string(100000, '\x5a');
    }
    auto opened = open_sqlite({path});
    if (!opened) {
      check_refused(opened, ErrorCode::data_loss, "storage_damaged", path);
    } else {
      check_error(opened->storage->list("c", "", "", 0), ErrorCode::data_loss, "storage_damaged");
    }
  }
  SUBCASE("cut off") {
    must(open_database(path).storage->put("c", "k", "1"));
    std::filesystem::resize_file(path, 4096);
    auto opened = open_sqlite({path});
    if (!opened)
      CHECK(opened.error().code == ErrorCode::data_loss);
    else
      check_error(opened->storage->get("c", "k"), ErrorCode::data_loss, "storage_damaged");
  }
}

TEST_CASE("sqlite: two handles on one file see each other's commits, in order") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  auto one = open_database(path);
  auto two = open_database(path);
  ChangeLog log;
  const auto id = one.storage->watch(log.callback());

  const auto a = must(two.storage->put("c", "a", "1"));
  CHECK(must(one.storage->get("c", "a"))->value == "1");
  check_conflict(one.storage->put("c", "a", "2", a + 1), "c/a");  // tells what precedes it, though it fails
  REQUIRE(log.commits().size() == 1);
  CHECK(text_of(log.commits()[0]) == "c/a@1 ");

  must(two.storage->commit({{Kind::put, "c", "b", "1", {}}, {Kind::put, "c", "c", "1", {}}}));
  must_ok(two.storage->erase("c", "a"));
  must(one.storage->put("c", "d", "1"));
  REQUIRE(log.commits().size() == 4);
  CHECK(text_of(log.commits()[1]) == "c/b@1 c/c@1 ");
  CHECK(text_of(log.commits()[2]) == "c/a@0 ");
  CHECK(text_of(log.commits()[3]) == "c/d@1 ");

  must(two.storage->put("c", "e", "1"));  // with no commit of its own: by polling
  REQUIRE(log.wait_for(5));
  CHECK(text_of(log.commits()[4]) == "c/e@1 ");
  one.storage->unwatch(id);
}

TEST_CASE("sqlite: handles that write to one file at the same time lose nothing") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  constexpr int kHandles = 4;
  constexpr int kRounds = 25;
  std::vector<SqliteStorage> handles;
  std::vector<ChangeLog> logs(kHandles);
  for (int h = 0; h < kHandles; ++h) {
    handles.push_back(open_database(path, 60000));
    handles.back().storage->watch(logs[static_cast<std::size_t>(h)].callback());
  }
  must(handles[0].storage->put("c", "n", "0"));
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (auto& handle : handles)
    threads.emplace_back([&failures, storage = handle.storage, audit = handle.audit] {
      for (int round = 0; round < kRounds;) {
        auto record = storage->get("c", "n");
        if (!record || !*record) {
          ++failures;
          return;
        }
        auto done =
            storage->put("c", "n", std::to_string(std::stoi((*record)->value) + 1), (*record)->version);
        if (done)
          ++round;
        else if (done.error().code != ErrorCode::conflict)
          ++failures;
        if (!audit->append({row("")})) ++failures;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(must(handles[0].storage->get("c", "n"))->value == std::to_string(kHandles * kRounds));
  // Every handle hears of the last state, and never of an older one after a newer.
  const auto last = must(handles[0].storage->put("c", "n", "end"));
  for (std::size_t h = 0; h < kHandles; ++h) {
    std::size_t have = 0;
    for (;;) {
      const auto commits = logs[h].commits();
      have = commits.size();
      if (have > 0 && commits.back().back().version == last) break;
      REQUIRE(logs[h].wait_for(have + 1));
    }
    std::uint64_t version = 0;
    for (const auto& changes : logs[h].commits()) {
      REQUIRE(changes.size() == 1);
      CHECK(changes[0].version > version);
      version = changes[0].version;
    }
  }
}

TEST_CASE("sqlite: what another process writes and erases is told") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  must(open_database(path).storage->put("c", "old", "1"));
  int go[2];
  REQUIRE(::pipe(go) == 0);
  const pid_t child = in_child([&] {  // the command line beside a running server
    char byte = 0;
    if (::read(go[0], &byte, 1) != 1) return 1;
    auto opened = open_sqlite({path});
    if (!opened) return 2;
    if (!opened->storage->put("c", "new", "1")) return 3;
    if (!opened->storage->erase("c", "old")) return 4;
    return 0;
  });
  {
    auto database = open_database(path);
    ChangeLog log;
    const auto id = database.storage->watch(log.callback());
    REQUIRE(::write(go[1], "x", 1) == 1);
    CHECK(log.wait_for(2));
    const auto commits = log.commits();
    REQUIRE(commits.size() == 2);
    CHECK(text_of(commits[0]) == "c/new@1 ");
    CHECK(text_of(commits[1]) == "c/old@0 ");
    CHECK_FALSE(must(database.storage->get("c", "old")).has_value());
    database.storage->unwatch(id);
  }
  CHECK(exit_code_of(child) == 0);
  ::close(go[0]);
  ::close(go[1]);
}

TEST_CASE("sqlite: a process killed while it commits loses nothing it acknowledged") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  for (int round = 0; round < 3; ++round) {
    int acks[2];
    REQUIRE(::pipe(acks) == 0);
    const pid_t child = in_child([&] {
      auto opened = open_sqlite({path});
      if (!opened) return 1;
      for (std::int32_t n = 0;; ++n) {
        const auto key = std::to_string(round) + "/" + std::to_string(n);
        if (!opened->storage->commit({{Kind::put, "a", key, "1", 0}, {Kind::put, "b", key, "1", 0}}))
          return 2;
        if (::write(acks[1], &n, sizeof n) != sizeof n) return 3;
      }
    });
    ::close(acks[1]);
    std::int32_t acknowledged = -1;
    while (acknowledged < 20)
      REQUIRE(::read(acks[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged);
    REQUIRE(::kill(child, SIGKILL) == 0);
    while (::read(acks[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
    }
    ::close(acks[0]);
    CHECK(exit_code_of(child) == -1);

    auto database = open_database(path);
    const auto prefix = std::to_string(round) + "/";
    for (std::int32_t n = 0; n <= acknowledged; ++n)
      CHECK(must(database.storage->get("a", prefix + std::to_string(n))).has_value());
    CHECK(keys_of(*database.storage, "a", "", "", 0) == keys_of(*database.storage, "b", "", "", 0));
    CHECK(RawDatabase(path).value("PRAGMA integrity_check") == "ok");
  }
}

TEST_CASE("sqlite: first opens at the same time agree on one schema") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  int go[2];
  REQUIRE(::pipe(go) == 0);
  std::vector<pid_t> children;
  for (int n = 0; n < 4; ++n)
    children.push_back(in_child([&, n] {
      ::close(go[1]);
      char byte = 0;
      (void)!::read(go[0], &byte, 1);  // returns when the parent closes its end
      auto opened = open_sqlite({path, 60000});
      return opened && opened->storage->put("c", std::to_string(n), "1") ? 0 : 1;
    }));
  ::close(go[0]);
  ::close(go[1]);
  for (const pid_t child : children) CHECK(exit_code_of(child) == 0);
  CHECK(must(open_database(path).storage->list("c", "", "", 0)).size() == 4);
}

TEST_CASE("sqlite: a database held by another process") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  auto database = open_database(path, 50);
  must(database.storage->put("c", "k", "1"));
  RawDatabase other(path);
  other.run("BEGIN IMMEDIATE");
  check_error(database.storage->put("c", "k", "2"), ErrorCode::unavailable, "storage_unavailable");
  check_error(database.audit->append({row("a")}), ErrorCode::unavailable, "storage_unavailable");
  check_error(database.audit->purge(Time{}), ErrorCode::unavailable, "storage_unavailable");
  CHECK(must(database.storage->get("c", "k"))->value == "1");  // readers go on
  CHECK(database.storage->ping().has_value());
  other.run("ROLLBACK");
  must(database.storage->put("c", "k", "2"));
  must_ok(database.audit->append({row("a")}));
}

TEST_CASE("sqlite: a full disk fails the write and harms nothing") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  const pid_t child = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    auto opened = open_sqlite({path});
    if (!opened || !opened->storage->put("c", "k", "1")) return 1;
    const rlimit limit{1 << 20, 1 << 20};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    const std::string big(std::size_t{1} << 20, 'x');
    auto failed = opened->storage->commit({{Kind::put, "c", "k", "2", {}}, {Kind::put, "c", "big", big, {}}});
    if (failed || failed.error().code != ErrorCode::unavailable) return 3;
    if (failed.error().reason != "storage_unavailable") return 4;
    AuditRecord record = row("a");
    record.request_body = big;
    if (opened->audit->append({row("b"), record})) return 5;
    auto kept = opened->storage->get("c", "k");
    if (!kept || !*kept || (*kept)->value != "1") return 6;
    return opened->storage->put("c", "small", "1") ? 0 : 7;  // what fits is still taken
  });
  CHECK(exit_code_of(child) == 0);
  auto database = open_database(path);
  CHECK(keys_of(*database.storage, "c", "", "", 0) == std::vector<std::string>{"k", "small"});
  CHECK(must(database.audit->query({})).total == 0);
  CHECK(RawDatabase(path).value("PRAGMA integrity_check") == "ok");
}

TEST_CASE("sqlite: a file deleted under a running server is noticed") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  auto database = open_database(path);
  must(database.storage->put("c", "k", "1"));
  CHECK(database.storage->ping().has_value());
  std::filesystem::remove(path);
  check_error(database.storage->ping(), ErrorCode::unavailable, "storage_unavailable");
  check_error(database.storage->put("c", "k", "2"), ErrorCode::unavailable, "storage_unavailable");
  check_error(database.audit->append({row("a")}), ErrorCode::unavailable, "storage_unavailable");
}

TEST_CASE("sqlite: tombstones are forgotten, versions are not") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  {
    auto database = open_database(path);
    for (int n = 0; n < 5; ++n) must(database.storage->put("c", "k", "1"));
    must_ok(database.storage->erase("c", "k"));
    must(database.storage->put("c", "young", "1"));
    must_ok(database.storage->erase("c", "young"));
    std::vector<Operation> writes;
    std::vector<Operation> erasures;
    for (int n = 0; n < 1500; ++n) {  // more than one batch
      writes.push_back({Kind::put, "m", std::to_string(n), "1", 0});
      erasures.push_back({Kind::erase, "m", std::to_string(n), "", 1});
    }
    must(database.storage->commit(writes));
    must(database.storage->commit(erasures));
  }
  RawDatabase(path).run("UPDATE record SET erased_at=erased_at-100000 WHERE key<>CAST('young' AS BLOB)");
  auto database = open_database(path);
  CHECK(RawDatabase(path).value("SELECT count(*) FROM record") == "1");
  CHECK(must(database.storage->put("c", "k", "1", 0)) == 6);
  CHECK(must(database.storage->put("c", "young", "1", 0)) == 2);
  CHECK(must(database.storage->put("c", "never", "1", 0)) == 6);  // it might have been one of the forgotten
}

TEST_CASE("sqlite: a handle that slept through forgotten erasures is told to read everything") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  auto sleeper = open_database(path);
  auto other = open_database(path);
  must(other.storage->put("c", "k", "1"));
  std::promise<void> asleep;
  std::promise<void> wake;
  auto wake_future = wake.get_future();
  ChangeLog log;
  std::atomic<bool> slept{false};
  const auto id = sleeper.storage->watch([&, told = log.callback()](const std::vector<Change>& changes) {
    if (!slept.exchange(true)) {  // holds the polling thread
      asleep.set_value();
      wake_future.wait();
    }
    told(changes);
  });
  must(other.storage->put("c", "first", "1"));
  asleep.get_future().wait();
  must_ok(other.storage->erase("c", "k"));
  RawDatabase(path).run("UPDATE record SET erased_at=1 WHERE erased_at IS NOT NULL");
  auto third = open_database(path);  // forgets the erasure
  must(third.storage->put("c", "second", "1"));
  wake.set_value();
  bool reread = false;
  bool second = false;
  for (std::size_t have = 0; !second;) {
    REQUIRE(log.wait_for(have + 1));
    const auto commits = log.commits();
    for (; have < commits.size(); ++have) {
      reread = reread || commits[have].empty();
      for (const auto& change : commits[have]) second = second || change.key == "second";
    }
  }
  CHECK(reread);
  sleeper.storage->unwatch(id);
}

TEST_CASE("sqlite: closing while calls run") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  for (int round = 0; round < 5; ++round) {
    auto database = open_database(path);
    std::atomic<int> failures{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&failures, t, storage = database.storage, audit = database.audit]() mutable {
        for (int n = 0; n < 10; ++n) {
          if (!storage->put("c", std::to_string(t), std::to_string(n))) ++failures;
          if (!audit->append({row("")})) ++failures;
        }
        storage.reset();  // one of them is the last
        if (!audit->query({})) ++failures;
      });
    database = {};
    for (auto& thread : threads) thread.join();
    CHECK(failures == 0);
  }
}

TEST_CASE("sqlite: a watcher may drop the last reference from the polling thread") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  auto other = open_database(path);
  auto holder = std::make_shared<std::shared_ptr<Storage>>(open_database(path).storage);
  std::promise<void> dropped;
  auto done = dropped.get_future();
  (*holder)->watch([holder, &dropped](const std::vector<Change>&) {
    holder->reset();
    dropped.set_value();
  });
  must(other.storage->put("c", "k", "1"));
  CHECK(done.wait_for(std::chrono::seconds(10)) == std::future_status::ready);
}

TEST_CASE("sqlite: audit and records outlive each other's face") {
  TempDir directory;
  const auto path = directory.file("gateway.db");
  auto database = open_database(path);
  auto audit = database.audit;
  must(database.storage->put("c", "k", "1"));
  database = {};
  must_ok(audit->append({row("a")}));
  CHECK(must(audit->query({})).total == 1);
}

TEST_CASE("sqlite: writers take turns in the order they came, and give up in time") {
  detail::WriteTurns turns;
  std::mutex mutex;
  std::string order;
  std::vector<std::thread> threads;
  {
    const auto first = turns.take(std::chrono::milliseconds(0));
    REQUIRE(static_cast<bool>(first));
    CHECK_FALSE(static_cast<bool>(turns.take(std::chrono::milliseconds(0))));
    CHECK_FALSE(static_cast<bool>(turns.take(std::chrono::milliseconds(5))));
    for (std::size_t n = 0; n < 3; ++n) {
      threads.emplace_back([&, n] {
        const auto turn = turns.take(std::chrono::seconds(60));
        std::lock_guard lock(mutex);
        order += turn ? std::to_string(n) : "-";
      });
      while (turns.waiting() < n + 1) std::this_thread::yield();
    }
  }
  for (auto& thread : threads) thread.join();
  CHECK(order == "012");
  CHECK(static_cast<bool>(turns.take(std::chrono::milliseconds(0))));  // free again
}
