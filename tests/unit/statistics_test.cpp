// Statistics: the window of five minutes, what runs, and memory that names and traffic do not make grow.
#include "gateway/statistics.hpp"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "mcpgw/testing.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using mcpgw::testing::ManualClock;

namespace {

constexpr Duration ms(std::int64_t n) {
  return std::chrono::duration_cast<Duration>(std::chrono::milliseconds(n));
}

struct Site {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Statistics statistics{clock};
  const std::string alice = "alice", bob = "bob";
};

}  // namespace

TEST_CASE("each user's part, each target's, and all together") {
  Site s;
  for (int i = 0; i < 10; ++i) s.statistics.record("git", s.alice, 200, ms(10));
  s.statistics.record("git", s.bob, 502, ms(1000));
  s.statistics.record("wiki", s.bob, 403, ms(1));
  s.statistics.record("_gateway", "", 404, ms(1));
  CHECK(s.statistics.total().count == 13);
  CHECK(s.statistics.total().errors == 3);
  CHECK(s.statistics.total(&s.alice).count == 10);
  CHECK(s.statistics.total(&s.alice).errors == 0);
  CHECK(s.statistics.total(&s.bob).error_rate == 1.0);
  CHECK(s.statistics.target("git").count == 11);
  CHECK(s.statistics.target("git", &s.bob).count == 1);
  CHECK(s.statistics.target("wiki", &s.alice).count == 0);
  CHECK(s.statistics.target("_gateway").count == 1);
  CHECK(s.statistics.target("git", &s.alice).avg_ms == doctest::Approx(10));
  const auto git = s.statistics.target("git");
  CHECK(git.p50_ms >= 10);
  CHECK(git.p50_ms < 15);
  CHECK(git.p99_ms >= 1000);
  CHECK(git.rps == doctest::Approx(11.0 / 300));
}

TEST_CASE("latencies are told within a factor of 1.5, whatever their size") {
  for (const std::int64_t us : {1, 15, 16, 17, 22, 23, 100, 1000, 12345, 999999, 10000000}) {
    Site s;
    s.statistics.record("git", s.alice, 200, Duration(us));
    const double told = s.statistics.total().p95_ms * 1000;
    CAPTURE(us);
    CHECK(told >= static_cast<double>(us));
    CHECK(told <= std::max(16.0, static_cast<double>(us) * 1.5));
  }
}

TEST_CASE("what is older than five minutes is forgotten, a part at a time") {
  Site s;
  s.statistics.record("git", s.alice, 200, ms(1));
  s.clock->advance(std::chrono::seconds(150));
  s.statistics.record("git", s.alice, 500, ms(1));
  CHECK(s.statistics.total().count == 2);
  s.clock->advance(std::chrono::seconds(155));
  CHECK(s.statistics.total().count == 1);
  CHECK(s.statistics.target("git", &s.alice).errors == 1);
  s.clock->advance(std::chrono::seconds(150));
  CHECK(s.statistics.total().count == 0);
  // The same slot again, a window later.
  s.statistics.record("git", s.alice, 200, ms(1));
  CHECK(s.statistics.total().count == 1);
  CHECK(s.statistics.total().errors == 0);
}

TEST_CASE("what runs is counted while it runs, for its user and its target") {
  Site s;
  {
    auto request = s.statistics.begin("alice");
    auto call = s.statistics.begin("alice", "git");
    auto other = s.statistics.begin("bob", "git");
    CHECK(s.statistics.in_flight("alice") == 1);
    CHECK(s.statistics.in_flight("alice", "git") == 1);
    CHECK(s.statistics.in_flight("alice", "wiki") == 0);
    CHECK(s.statistics.in_flight("bob") == 0);
    auto moved = std::move(call);
    CHECK(s.statistics.in_flight("alice", "git") == 1);
    request.end();
    request.end();
    CHECK(s.statistics.in_flight("alice") == 0);
    other = std::move(moved);
    CHECK(s.statistics.in_flight("bob", "git") == 0);
    CHECK(s.statistics.in_flight("alice", "git") == 1);
  }
  CHECK(s.statistics.in_flight("alice", "git") == 0);
}

TEST_CASE("R35: a hundred thousand names take no more memory than the bound, and lose no total") {
  Site s;
  auto running = s.statistics.begin("the one who waits", "slow");
  constexpr int kNames = 100000;
  for (int i = 0; i < kNames; ++i) {
    s.statistics.record("target " + std::to_string(i % 70000), "user " + std::to_string(i), 200, ms(1));
    if (i % 1000 == 0) s.clock->advance(std::chrono::milliseconds(100));
  }
  CHECK(s.statistics.series() <= 3 * Statistics::kMaxPairs);
  CHECK(s.statistics.total().count == kNames);
  // The latest are still told apart, and what runs is not forgotten.
  const std::string last = "user " + std::to_string(kNames - 1);
  CHECK(s.statistics.total(&last).count == 1);
  CHECK(s.statistics.in_flight("the one who waits", "slow") == 1);
}

TEST_CASE("many threads at once lose nothing") {
  Site s;
  constexpr int kThreads = 8, kEach = 5000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      const std::string user = "user " + std::to_string(t % 3);
      for (int i = 0; i < kEach; ++i) {
        const auto running = s.statistics.begin(user, "git");
        s.statistics.record("git", user, i % 2 == 0 ? 200 : 500, ms(1));
        if (i % 500 == 0) (void)s.statistics.target("git", &user);
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(s.statistics.total().count == kThreads * kEach);
  CHECK(s.statistics.target("git").errors == kThreads * kEach / 2);
  CHECK(s.statistics.in_flight("user 0", "git") == 0);
}
