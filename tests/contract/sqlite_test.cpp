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
#include <thread>

#include "contract/contract_support.hpp"
#include "contract/sqlite_support.hpp"
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
  RawDatabase(path).run("PRAGMA user_version=1");
  CHECK(must(open_database(path).storage->get("c", "k"))->value == "1");
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
