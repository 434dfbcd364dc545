// AuditWriter: every row is stored once and in order, whatever the sink does meanwhile.
#include "observability/audit_writer.hpp"

#include <doctest/doctest.h>

#include <condition_variable>
#include <mutex>
#include <set>

#include "base/id_random.hpp"
#include "support/on_loop.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace mcpgw::testing;

namespace {

/// Fails as often as told, and can be held in the middle of a batch.
class ScriptedSink final : public AuditSink {
 public:
  Status append(const std::vector<AuditRecord>& batch) override {
    std::unique_lock lock(mutex_);
    ++attempts_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !held_; });
    if (failures_ > 0) {
      --failures_;
      return Error(ErrorCode::unavailable, "storage_unavailable", "The disk is full");
    }
    for (const AuditRecord& record : batch) rows_.push_back(record);
    return {};
  }
  Result<AuditPage> query(const AuditQuery&) override { return AuditPage{}; }
  Result<std::uint64_t> purge(Time) override { return std::uint64_t{0}; }

  void fail(int times) {
    const std::lock_guard lock(mutex_);
    failures_ = times;
  }
  void hold(bool on) {
    const std::lock_guard lock(mutex_);
    held_ = on;
    changed_.notify_all();
  }
  void await_attempt(int number) {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, std::chrono::seconds(30), [&] { return attempts_ >= number; }));
  }
  std::vector<AuditRecord> rows() const {
    const std::lock_guard lock(mutex_);
    return rows_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<AuditRecord> rows_;
  int attempts_ = 0;
  int failures_ = 0;
  bool held_ = false;
};

struct Site {
  explicit Site(AuditOptions options = {})
      : sink(std::make_shared<ScriptedSink>()),
        writer(sink, options, make_system_clock(), std::make_shared<IdRandom>(make_system_random()),
               [this](const LogEvent& event) {
                 const std::lock_guard lock(mutex);
                 said.push_back(event.message);
               }) {}

  void add(int from, int to) {
    for (int i = from; i < to; ++i) {
      AuditRecord record;
      record.tool = std::to_string(i);
      writer.add(std::move(record));
    }
  }
  void check_rows(int count) const {
    const auto rows = sink->rows();
    REQUIRE(rows.size() == static_cast<std::size_t>(count));
    std::set<std::string> ids;
    for (int i = 0; i < count; ++i) {
      CHECK(rows[static_cast<std::size_t>(i)].tool == std::to_string(i));
      ids.insert(rows[static_cast<std::size_t>(i)].id);
    }
    CHECK(ids.size() == rows.size());
  }
  std::vector<std::string> log() const {
    const std::lock_guard lock(mutex);
    return said;
  }

  mutable std::mutex mutex;
  std::vector<std::string> said;
  std::shared_ptr<ScriptedSink> sink;
  AuditWriter writer;
};

}  // namespace

TEST_CASE("rows of many batches are stored once and in order") {
  Site site;
  site.add(0, 1700);
  CHECK(site.writer.flush(std::chrono::seconds(30)));
  site.check_rows(1700);
  CHECK(site.writer.depth() == 0);
  CHECK(site.writer.written() == 1700);
}

TEST_CASE("R39: a batch that cannot be stored is kept, tried again, and nothing overtakes it") {
  Site site;
  site.sink->fail(2);
  site.add(0, 10);
  site.sink->await_attempt(1);
  site.add(10, 20);
  CHECK(site.writer.depth() == 20);
  CHECK(site.writer.flush(std::chrono::seconds(30)));
  site.check_rows(20);
  CHECK_FALSE(site.writer.failing());
  CHECK(site.log() == std::vector<std::string>{"audit rows cannot be stored; they are kept and tried again",
                                               "audit rows are stored again"});
}

TEST_CASE("rows that are being stored still count towards the bound of the queue") {
  AuditOptions options;
  options.queue_max = 10;
  Site site(options);
  site.sink->hold(true);
  site.add(0, 10);
  site.sink->await_attempt(1);
  CHECK(site.writer.depth() == 10);
  const auto runtime = Runtime::create();
  REQUIRE(runtime);
  const auto admit = [&](std::chrono::milliseconds patience) {
    return start_on_loop<bool>(*runtime, [&site, patience] {
      return site.writer.admit(std::chrono::steady_clock::now() + patience);
    });
  };
  CHECK_FALSE(admit(std::chrono::milliseconds(50)).get());
  auto waiting = admit(std::chrono::seconds(30));
  site.sink->hold(false);
  CHECK(waiting.get());
  CHECK(site.writer.flush(std::chrono::seconds(30)));
  site.check_rows(10);
}

TEST_CASE("the end stores what is queued, and says what it could not store") {
  Site site;
  SUBCASE("the sink works") {
    site.add(0, 1200);
    site.writer.stop();
    site.check_rows(1200);
    CHECK(site.log().empty());
  }
  SUBCASE("the sink fails") {
    site.sink->fail(1000);
    site.add(0, 5);
    site.sink->await_attempt(1);
    site.writer.stop();
    CHECK(site.sink->rows().empty());
    CHECK(site.writer.depth() == 5);
    REQUIRE(site.log().size() == 2);
    CHECK(site.log().back() == "audit rows are lost: the gateway ends while they cannot be stored");
  }
}
