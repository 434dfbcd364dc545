// Who collects, and what: replicas of a gateway and the life of their instances, hour by hour on a clock by
// hand.
#include "kubernetes/kube_rules.hpp"

#include <doctest/doctest.h>

#include "base/text.hpp"
#include "mcpgw/testing.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using mcpgw::testing::ManualClock;
using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

namespace {

CollectRules rules() {
  KubernetesOptions options;
  return CollectRules::of(options, seconds(30));
}

PodInstance record_at(Time now) {
  PodInstance record;
  record.name = "mcp-x";
  record.uid = "u";
  record.target_version = 3;
  record.created = record.last_used = now;
  return record;
}

/// What an API server would hold.
struct Store {
  Json lease;
  int version = 0;
  /// False: the write is refused, since it is not of the state that was seen.
  bool write(const Election::Step& step) {
    if (step.action == Election::Step::Action::create && !lease.is_null()) return false;
    if (step.action == Election::Step::Action::update &&
        (lease.is_null() || text_at(step.lease, {"metadata", "resourceVersion"}) !=
                                text_at(lease, {"metadata", "resourceVersion"})))
      return false;
    lease = step.lease;
    lease["metadata"]["resourceVersion"] = std::to_string(++version);
    return true;
  }
};

bool take_turn(Election& election, Store& store, Clock& clock) {
  const Duration asked_at = clock.monotonic();
  const auto step = election.next(store.lease, asked_at, clock.now());
  if (step.action != Election::Step::Action::wait) {
    if (store.write(step))
      election.written(asked_at);
    else
      election.lost();
  }
  return election.leads(clock.monotonic());
}

}  // namespace

TEST_CASE("use is written down at most once a minute, and often enough for a short idle time") {
  CHECK(rules().beat == seconds(60));
  KubernetesOptions options;
  options.idle_ttl = seconds(6);
  CHECK(CollectRules::of(options, seconds(1)).beat == seconds(1));
}

TEST_CASE("an instance is retired when nobody has used it for long, and removed when all have heard") {
  ManualClock clock;
  PodInstance record = record_at(clock.now());
  clock.advance(minutes(29));
  CHECK(due(record, rules(), 3, clock.now()) == Due::nothing);
  record.last_used = clock.now();
  clock.advance(minutes(29));
  CHECK(due(record, rules(), 3, clock.now()) == Due::nothing);
  clock.advance(minutes(1));
  CHECK(due(record, rules(), 3, clock.now()) == Due::retire_idle);
  record.retired_at = clock.now();
  record.retired_because = "idle";
  CHECK(due(record, rules(), 3, clock.now()) == Due::nothing);
  clock.advance(seconds(2));
  CHECK(due(record, rules(), 3, clock.now()) == Due::remove);
  record.deleting = true;
  CHECK(due(record, rules(), 3, clock.now()) == Due::nothing);
}

TEST_CASE("an old instance takes no new calls, and goes when its last call has ended") {
  ManualClock clock;
  PodInstance record = record_at(clock.now());
  clock.advance(hours(24));
  record.last_used = clock.now();
  CHECK(due(record, rules(), 3, clock.now()) == Due::retire_old);
  record.retired_at = clock.now();
  record.retired_because = "lifetime";
  for (int minute = 0; minute < 60; ++minute) {  // a call of an hour, on any replica
    clock.advance(minutes(1));
    record.last_used = clock.now();
    CHECK(due(record, rules(), 3, clock.now()) == Due::nothing);
  }
  clock.advance(minutes(2));
  CHECK(due(record, rules(), 3, clock.now()) == Due::nothing);  // the next beat may be late
  clock.advance(minutes(1));
  CHECK(due(record, rules(), 3, clock.now()) == Due::remove);
}

TEST_CASE("what is not in force any more ends within the time for running calls") {
  ManualClock clock;
  PodInstance record = record_at(clock.now());
  CHECK(due(record, rules(), 4, clock.now()) == Due::retire_changed);
  CHECK(due(record, rules(), 2, clock.now()) == Due::nothing);  // we know less than who made it
  CHECK(due(record, rules(), std::nullopt, clock.now()) == Due::nothing);
  clock.advance(minutes(3));
  CHECK(due(record, rules(), std::nullopt, clock.now()) == Due::retire_changed);
  for (const char* why : {"changed", "restart"}) {
    record.retired_because = why;
    record.retired_at = clock.now();
    record.last_used = clock.now() + minutes(5);
    CHECK(due(record, rules(), 3, clock.now() + seconds(31)) == Due::nothing);
    CHECK(due(record, rules(), 3, clock.now() + seconds(32)) == Due::remove);
  }
}

TEST_CASE("one replica leads; another takes over when it is silent, by its own clock") {
  ManualClock first_clock, second_clock;
  second_clock.advance(hours(5));  // clocks that disagree
  Store store;
  Election first("one", "mcpgw-collector", "mcp", seconds(15)),
      second("two", "mcpgw-collector", "mcp", seconds(15));
  CHECK(take_turn(first, store, first_clock));
  CHECK(store.lease["spec"]["holderIdentity"] == "one");
  CHECK(store.lease["spec"]["leaseTransitions"] == 0);
  const auto advance = [&](Duration time) {
    first_clock.advance(time);
    second_clock.advance(time);
  };
  for (int i = 0; i < 20; ++i) {
    CHECK(take_turn(first, store, first_clock));
    CHECK_FALSE(take_turn(second, store, second_clock));
    advance(seconds(10));
  }
  // The first falls silent.
  CHECK_FALSE(take_turn(second, store, second_clock));
  advance(seconds(4));
  CHECK_FALSE(take_turn(second, store, second_clock));
  advance(seconds(1));
  CHECK_FALSE(first.leads(first_clock.monotonic()));  // it has stopped before another begins
  CHECK(take_turn(second, store, second_clock));
  CHECK(store.lease["spec"]["holderIdentity"] == "two");
  CHECK(store.lease["spec"]["leaseTransitions"] == 1);
  CHECK_FALSE(take_turn(first, store, first_clock));
}

TEST_CASE("of two that want it in one moment, one gets it") {
  ManualClock clock;
  Store store;
  Election first("one", "l", "mcp", seconds(15)), second("two", "l", "mcp", seconds(15));
  const auto a = first.next(store.lease, clock.monotonic(), clock.now());
  const auto b = second.next(store.lease, clock.monotonic(), clock.now());
  CHECK(store.write(a));
  CHECK_FALSE(store.write(b));
  first.written(clock.monotonic());
  second.lost();
  CHECK(first.leads(clock.monotonic()));
  CHECK_FALSE(second.leads(clock.monotonic()));
}

TEST_CASE(
    "a lease that is given up is free at once; one without a holder or with nonsense is not kept for ever") {
  ManualClock clock;
  Store store;
  Election first("one", "l", "mcp", seconds(15)), second("two", "l", "mcp", seconds(15));
  CHECK(take_turn(first, store, clock));
  CHECK_FALSE(second.release(store.lease));
  const auto free = first.release(store.lease);
  REQUIRE(free);
  store.lease = *free;
  CHECK(take_turn(second, store, clock));
  store.lease["spec"]["holderIdentity"] = "ghost";
  store.lease["spec"]["leaseDurationSeconds"] = "a lot";
  CHECK_FALSE(take_turn(first, store, clock));
  clock.advance(seconds(61));
  CHECK(take_turn(first, store, clock));
}
