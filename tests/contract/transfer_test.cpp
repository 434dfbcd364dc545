// Copies between SQLite and PostgreSQL: of one moment while others write, verified, begun anew after a
// failure.
#include <atomic>
#include <thread>

#include "contract/audit_rows.hpp"
#include "contract/postgres_support.hpp"
#include "contract/sqlite_support.hpp"
#include "unit/repository_support.hpp"

using namespace mcpgw;
using namespace mcpgw::contract;
using Kind = Operation::Kind;

namespace {

/// A database of either kind.
struct Place {
  CopyTarget target;
  std::shared_ptr<void> kept;

  Storage& storage() const { return *target.storage; }
  AuditSink& audit() const { return *target.audit; }
  StorageContents contents() const { return must(contents_of(*must(target.snapshot()))); }
};

Place sqlite_place() {
  auto directory = std::make_shared<TempDir>();
  const auto path = directory->file("gateway.db");
  const auto opened = open_database(path);
  return {{opened.storage, opened.audit, [path] { return snapshot_sqlite(path); }}, directory};
}

Place postgres_place() {
  auto& server = PostgresServer::shared();
  PostgresOptions options;
  options.url = server.url_of(server.make_database());
  const auto opened = must(open_postgres_storage(options));
  return {{opened.storage, opened.audit, [options] { return snapshot_postgres(options); }}, nullptr};
}

void fill(const Place& place, int records) {
  for (int n = 0; n < records; ++n)
    must(place.storage().put("c" + std::to_string(n % 3), std::string("k\0", 2) + std::to_string(n),
                             R"({"n":1.0,"text":"\u0000"})"));
  must(place.storage().put("users", "gone", "1"));
  must_ok(place.storage().erase("users", "gone"));
  std::vector<AuditRecord> rows(2);
  for (int n = 0; n < records; ++n) rows.push_back(audit_row(n));
  rows.back().tool = std::string("a\0b", 3);
  must_ok(place.audit().append(rows));
}

/// Fails every commit after the first `left`.
class Failing final : public Storage {
 public:
  Failing(std::shared_ptr<Storage> inner, int left) : inner_(std::move(inner)), left_(left) {}
  Result<std::optional<Record>> get(std::string_view c, std::string_view k) override {
    return inner_->get(c, k);
  }
  Result<std::vector<Record>> list(std::string_view c, std::string_view p, std::string_view a,
                                   std::size_t l) override {
    return inner_->list(c, p, a, l);
  }
  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    if (left_-- > 0) return inner_->commit(operations);
    return Error{ErrorCode::unavailable, "storage_unavailable", "away"};
  }
  std::uint64_t watch(WatchCallback callback) override { return inner_->watch(std::move(callback)); }
  void unwatch(std::uint64_t id) override { inner_->unwatch(id); }
  Status ping() override { return inner_->ping(); }

 private:
  const std::shared_ptr<Storage> inner_;
  int left_;
};

std::string open_repository(const std::shared_ptr<Storage>& storage) {
  RepositoryOptions options;
  options.storage = storage;
  options.keys = test::keys();
  const auto opened = Repository::open(options);
  return opened ? "ok" : opened.error().reason;
}

}  // namespace

TEST_CASE("a copy from SQLite to PostgreSQL and back holds the same") {
  const Place first = sqlite_place(), second = postgres_place(), third = sqlite_place();
  CHECK(open_repository(first.target.storage) == "ok");
  fill(first, 1200);
  std::uint64_t told = 0;
  CopyOptions options;
  options.progress = [&](std::uint64_t records, std::uint64_t) { told = records; };
  const auto there = must(copy_storage(*must(first.target.snapshot()), second.target, options));
  CHECK(there.records >= 1200);
  CHECK(there.audit_rows == 1202);
  CHECK(told == there.records);
  const auto back = must(copy_storage(*must(second.target.snapshot()), third.target));
  CHECK(back.records_digest == there.records_digest);
  CHECK(back.audit_digest == there.audit_digest);
  CHECK(first.contents().records_digest == third.contents().records_digest);
  CHECK(must(third.storage().get("c1", std::string("k\0", 2) + "1"))->value ==
        R"({"n":1.0,"text":"\u0000"})");
  CHECK_FALSE(must(third.storage().get("users", "gone")).has_value());
  CHECK(open_repository(second.target.storage) == "ok");

  check_error(copy_storage(*must(first.target.snapshot()), second.target), ErrorCode::conflict, "not_empty");
  options.audit = false;
  const Place bare = sqlite_place();
  CHECK(must(copy_storage(*must(first.target.snapshot()), bare.target, options)).audit_rows == 0);
  CHECK(must(bare.audit().query({})).total == 0);
}

TEST_CASE("a copy of a database in use is of one moment") {
  for (const bool to_postgres : {true, false}) {
    const Place from = to_postgres ? sqlite_place() : postgres_place();
    const Place to = to_postgres ? postgres_place() : sqlite_place();
    fill(from, 300);
    std::atomic<bool> stop{false};
    std::atomic<int> rounds{0}, failures{0};
    std::vector<std::thread> writers;
    for (int t = 0; t < 2; ++t)
      writers.emplace_back([&, t] {
        for (int n = 0; !stop; ++n) {
          const auto text = std::to_string(n), name = std::to_string(t);
          // Far apart in the order of the keys, and on a new key each time.
          if (!from.storage().commit({{Kind::put, "a", "pair" + name, text, {}},
                                      {Kind::put, "z", "pair" + name, text, {}},
                                      {Kind::put, "m", name + "/" + text, text, 0}}))
            ++failures;
          if (!from.audit().append(
                  {audit_row(10000 * (t + 1) + 2 * n), audit_row(10000 * (t + 1) + 2 * n + 1)}))
            ++failures;
          ++rounds;
        }
      });
    while (rounds < 10) std::this_thread::yield();
    const auto copied = copy_storage(*must(from.target.snapshot()), to.target);
    const int during = rounds;
    while (rounds < during + 2) std::this_thread::yield();  // they went on
    stop = true;
    for (auto& writer : writers) writer.join();
    CHECK(failures == 0);
    must(copied);
    for (const char* name : {"pair0", "pair1"}) {
      const auto a = must(to.storage().get("a", name)), z = must(to.storage().get("z", name));
      REQUIRE(a.has_value());
      REQUIRE(z.has_value());
      CHECK(a->value == z->value);
      CHECK(must(to.storage().list("m", std::string(1, name[4]) + "/", "", 0)).size() ==
            static_cast<std::size_t>(std::stoi(a->value)) + 1);
    }
    CHECK(must(to.audit().query({})).total % 2 == 0);
  }
}

TEST_CASE("a copy that breaks off is no database to start on, and is begun anew") {
  const Place from = sqlite_place();
  CHECK(open_repository(from.target.storage) == "ok");
  fill(from, 1500);
  const Place to = postgres_place();
  for (const int commits : {1, 2, 3}) {
    CopyTarget failing = to.target;
    failing.storage = std::make_shared<Failing>(to.target.storage, commits);
    check_error(copy_storage(*must(from.target.snapshot()), failing), ErrorCode::unavailable,
                "storage_unavailable");
    CHECK(open_repository(to.target.storage) == "schema_too_new");
  }
  must(from.storage().put("c0", "later", "1"));
  must_ok(from.storage().erase("c1", std::string("k\0", 2) + "1"));
  const auto copied = must(copy_storage(*must(from.target.snapshot()), to.target));
  CHECK(copied.records_digest == from.contents().records_digest);
  CHECK(open_repository(to.target.storage) == "ok");
}

TEST_CASE("a copy that somebody else writes to is found out") {
  const Place from = sqlite_place(), to = sqlite_place();
  fill(from, 10);
  CopyTarget disturbed = to.target;
  int snapshots = 0;
  disturbed.snapshot = [&]() -> Result<std::unique_ptr<StorageSnapshot>> {
    if (++snapshots == 2) must(to.storage().put("c0", "else", "1"));
    return to.target.snapshot();
  };
  check_error(copy_storage(*must(from.target.snapshot()), disturbed), ErrorCode::data_loss, "copy_differs");
}

TEST_CASE("snapshots of what is no database of ours") {
  const TempDir directory;
  check_error(snapshot_sqlite(directory.file("none.db")), ErrorCode::not_found, "not_found");
  auto& server = PostgresServer::shared();
  PostgresOptions options;
  options.url = server.url_of(server.make_database());
  check_error(snapshot_postgres(options), ErrorCode::not_found, "not_found");
  options.url = server.url_of("none");
  check_error(snapshot_postgres(options), ErrorCode::not_found, "no_database");
}
