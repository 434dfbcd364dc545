// The helpers of testing.hpp that stand without a gateway.
#include <doctest/doctest.h>

#include <chrono>
#include <set>
#include <string>

#include "mcpgw/testing.hpp"

using namespace mcpgw;
using namespace std::chrono_literals;

TEST_CASE("manual clock: stands still, moves forward only") {
  testing::ManualClock clock;
  const auto start = clock.now();
  CHECK(start.time_since_epoch() == 1'767'225'600s);
  const auto monotonic = clock.monotonic();
  CHECK(clock.now() == start);
  clock.advance(90s);
  CHECK(clock.now() - start == 90s);
  CHECK(clock.monotonic() - monotonic == 90s);
  clock.advance(-5s);
  CHECK(clock.monotonic() - monotonic == 90s);
}

TEST_CASE("seeded random: the same seed gives the same bytes, another seed others") {
  const auto draw = [](Random& random, std::size_t size) {
    std::string bytes(size, '\0');
    random.fill(bytes.data(), size);
    return bytes;
  };
  const auto one = testing::make_seeded_random(7);
  const auto two = testing::make_seeded_random(7);
  const auto other = testing::make_seeded_random(8);
  const auto first = draw(*one, 33);
  CHECK(first == draw(*two, 33));
  CHECK(first != draw(*other, 33));
  CHECK(draw(*one, 33) != first);
  CHECK(draw(*one, 0).empty());
  std::set<std::string> ids;
  for (int n = 0; n < 1000; ++n) ids.insert(make_uuid(*one));
  CHECK(ids.size() == 1000);
}

TEST_CASE("failing storage: fails the commit it was told to, before or after its effect") {
  testing::FailingStorage storage(make_memory_storage());
  const Error error{ErrorCode::unavailable, "storage_unavailable", "away"};
  storage.fail_commit(2, error);
  CHECK(storage.put("c", "a", "1").has_value());
  const auto second = storage.put("c", "b", "1");
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().message == "away");
  CHECK_FALSE(storage.get("c", "b")->has_value());
  CHECK(storage.put("c", "b", "1").has_value());  // once only

  storage.fail_commit(1, error, true);
  CHECK_FALSE(storage.put("c", "c", "1").has_value());
  CHECK(storage.get("c", "c")->has_value());  // the answer was lost, not the commit
  storage.fail_commit(1, error, true);
  const auto conflict = storage.put("c", "c", "2", 99);  // what would have failed anyway says why
  REQUIRE_FALSE(conflict.has_value());
  CHECK(conflict.error().reason == "version_conflict");
}

TEST_CASE("failing storage: down until set back") {
  testing::FailingStorage storage(make_memory_storage());
  int told = 0;
  const auto id = storage.watch([&](const std::vector<Change>&) { ++told; });
  CHECK(storage.put("c", "a", "1").has_value());
  storage.set_down(true);
  CHECK(storage.get("c", "a").error().reason == "storage_unavailable");
  CHECK(storage.list("c", "", "", 0).error().code == ErrorCode::unavailable);
  CHECK_FALSE(storage.put("c", "a", "2").has_value());
  CHECK_FALSE(storage.ping().has_value());
  storage.set_down(false);
  CHECK(storage.ping().has_value());
  CHECK(storage.get("c", "a")->value().value == "1");
  CHECK(told == 1);
  storage.unwatch(id);
}
