// Events that are counted in storage: what several processes permit together is what one would.
#include "auth/shared_rates.hpp"

#include <atomic>
#include <set>
#include <thread>

#include "mcpgw/testing.hpp"
#include "unit/auth_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using detail::SharedRates;
using What = SharedRates::Step::What;
using std::chrono::minutes;
using std::chrono::seconds;

namespace {

/// Several processes on one storage: each has a SharedRates of its own.
struct Several {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  std::shared_ptr<Storage> storage = make_memory_storage();
  SharedRates one{storage, clock, "a key"}, other{storage, clock, "a key"}, third{storage, clock, "a key"};
  SharedRates::Limit limit{"test", 3, minutes(15)};

  SharedRates& of(int i) { return i % 3 == 0 ? one : i % 3 == 1 ? other : third; }
  bool add(SharedRates& rates, const std::string& name) {
    const auto settled = rates.settle({{&limit, name, What::add}});
    REQUIRE(settled);
    return *settled;
  }
  std::vector<Record> records() const {
    auto all = storage->list("rates", "", "", 0);
    REQUIRE(all);
    return *all;
  }
};

void run_at_once(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&work, i] { work(i); });
  for (auto& thread : threads) thread.join();
}

/// Three authenticators with repositories of their own on one storage, which fails on demand.
struct ThreeDoors {
  std::shared_ptr<FailingStorage> failing;
  AuthFixture first;
  std::vector<std::shared_ptr<Authenticator>> doors;

  explicit ThreeDoors(const std::function<void(AuthenticatorOptions&)>& change)
      : first([&](AuthenticatorOptions& o) { change(o); }) {
    failing = std::make_shared<FailingStorage>(first.storage);
    for (int i = 0; i < 3; ++i) {
      AuthenticatorOptions options = first.options;
      options.repository = first.open_repository();
      options.shared_counts = failing;
      auto made = Authenticator::create(options);
      REQUIRE(made);
      doors.push_back(*made);
    }
  }
};

}  // namespace

TEST_CASE("what one counts all have counted, until it leaves the window") {
  Several all;
  for (int i = 0; i < 3; ++i) {
    CHECK(all.add(all.of(i), "ann"));
    all.clock->advance(minutes(1));
  }
  for (int i = 0; i < 6; ++i) CHECK_FALSE(all.add(all.of(i), "ann"));
  CHECK(all.add(all.one, "bob"));
  // A look counts nothing, and is refused like anything else.
  CHECK_FALSE(all.other.settle({{&all.limit, "ann", What::look}}).value());
  CHECK(all.other.settle({{&all.limit, "cat", What::look}}).value());
  // The first event leaves a 64th of the window late at most; the second is then still in it.
  all.clock->advance(minutes(12) - seconds(1));
  CHECK_FALSE(all.add(all.third, "ann"));
  all.clock->advance(seconds(1 + 15));
  CHECK(all.add(all.third, "ann"));
  CHECK_FALSE(all.add(all.one, "ann"));
}

TEST_CASE("all steps are made or none, and a name that was right is forgotten everywhere") {
  Several all;
  SharedRates::Limit wide{"wide", 2, minutes(15)};
  const auto both = [&](SharedRates& rates, What what) {
    return rates.settle({{&all.limit, "pair", what}, {&wide, "all", What::add}}).value();
  };
  CHECK(both(all.one, What::add));
  CHECK(both(all.other, What::add));
  CHECK_FALSE(both(all.third, What::add));  // of the wide one; the pair has not been counted
  CHECK(all.one.settle({{&all.limit, "pair", What::clear}}).value());
  for (int i = 0; i < 3; ++i) CHECK(all.add(all.of(i), "pair"));
  // Whoever has reached the limit is not forgotten, right or not.
  CHECK_FALSE(all.other.settle({{&all.limit, "pair", What::clear}}).value());
}

TEST_CASE("what has reached its limit is known without a question") {
  Several all;
  for (int i = 0; i < 3; ++i) CHECK(all.add(all.one, "ann"));
  const std::vector<SharedRates::Step> look{{&all.limit, "ann", What::look}};
  CHECK(all.other.may_try(look));
  CHECK_FALSE(all.other.settle(look).value());
  CHECK_FALSE(all.other.may_try(look));
  all.clock->advance(minutes(15) + seconds(15));
  CHECK(all.other.may_try(look));
  CHECK(all.other.settle(look).value());
}

TEST_CASE("at once from all sides: exactly so many") {
  Several all;
  all.limit.max = 7;
  std::atomic<int> counted{0}, refused{0};
  run_at_once(9, [&](int i) {
    for (int k = 0; k < 4; ++k) {
      const auto settled = all.of(i).settle({{&all.limit, "ann", What::add}});
      // Nobody is told yes beyond the limit; who was always too late is told to come again.
      if (settled)
        ++(*settled ? counted : refused);
      else
        CHECK(settled.error().reason == "overloaded");
    }
  });
  CHECK(counted == 7);
  CHECK(refused > 0);
}

TEST_CASE("names from outside take a bounded room, and cannot be read there") {
  Several all;
  all.limit.max = 1000000;
  for (int i = 0; i < 3000; ++i) CHECK(all.add(all.one, "somebody" + std::to_string(i) + "@example.test"));
  const auto records = all.records();
  CHECK(records.size() <= 4096);
  for (const Record& record : records) {
    CHECK(record.value.find("somebody") == std::string::npos);
    CHECK(record.value.size() < 16 * 64);  // sixteen names with one event each
  }
  // A record that is full forgets who was silent longest.
  Several full;
  CHECK(full.add(full.one, "ann"));
  const Record record = full.records().at(0);
  const auto now =
      std::chrono::duration_cast<std::chrono::milliseconds>(full.clock->now().time_since_epoch());
  std::string names;
  for (std::size_t i = 0; i < SharedRates::kNamesPerRecord; ++i)
    names += (i == 0 ? "\"other" : ",\"other") + std::to_string(i) + "\":[[" +
             std::to_string(now.count() - 1000 - static_cast<std::int64_t>(i)) + ",1]]";
  REQUIRE(full.storage->put("rates", record.key, "{\"schema\":1,\"names\":{" + names + "}}"));
  CHECK(full.add(full.other, "ann"));
  const std::string after = full.records().at(0).value;
  CHECK(after.find("other15") == std::string::npos);
  for (int i = 0; i < 15; ++i) CHECK(after.find("other" + std::to_string(i) + "\"") != std::string::npos);
  CHECK(full.add(full.third, "ann"));
  CHECK(full.add(full.third, "ann"));
  CHECK_FALSE(full.add(full.third, "ann"));
  // One name's events take so much at most, however many there are.
  Several busy;
  busy.limit.max = 1000000;
  for (int i = 0; i < 2000; ++i) {
    CHECK(busy.add(busy.one, "ann"));
    busy.clock->advance(seconds(1));
  }
  REQUIRE(busy.records().size() == 1);
  CHECK(busy.records()[0].value.size() < 70 * 25);
  // By another key a name is another one: where it stands cannot be worked out without it.
  SharedRates elsewhere(busy.storage, busy.clock, "another key");
  CHECK(elsewhere.settle({{&busy.limit, "ann", What::add}}).value());
  CHECK(busy.records().size() == 2);
}

TEST_CASE("a record that cannot be read is begun anew, clocks that are far off keep nobody out for long") {
  Several all;
  CHECK(all.add(all.one, "ann"));
  const Record record = all.records().at(0);
  for (const char* damaged :
       {"[]", "{}", R"({"names":[]})", R"({"names":{"a":7,"b":[7],"c":[[1]],"d":[["1",2]],"e":[[-1,-1]]}})",
        R"({"names":{"a":[[18446744073709551615,18446744073709551615]]}})"}) {
    REQUIRE(all.storage->put("rates", record.key, damaged));
    for (int i = 0; i < 3; ++i) CHECK(all.add(all.of(i), "ann"));
    SharedRates fresh(all.storage, all.clock, "a key");
    CHECK_FALSE(all.add(fresh, "ann"));
    all.one.replace_key("x"), all.other.replace_key("x"), all.third.replace_key("x");
    all.one.replace_key("a key"), all.other.replace_key("a key"), all.third.replace_key("a key");
  }
  // A clock that is a day ahead counts, for those of today, nothing.
  Several apart;
  const auto ahead = std::make_shared<ManualClock>();
  ahead->advance(std::chrono::hours(24));
  SharedRates wrong(apart.storage, ahead, "a key");
  for (int i = 0; i < 3; ++i) CHECK(wrong.settle({{&apart.limit, "ann", What::add}}).value());
  CHECK(apart.add(apart.one, "ann"));
}

TEST_CASE("R44: who guesses at three doors in turn has as many guesses as at one") {
  ThreeDoors three([](auto& o) {
    o.login_failures_per_pair = 4;
    o.login_failures_per_account = 9;
  });
  REQUIRE(three.first.register_as("root@example.test"));
  int judged = 0;
  for (int i = 0; i < 12; ++i) {
    const auto said =
        reason(three.doors[i % 3]->login("root@example.test", "guess " + std::to_string(i), "6.6.6.6"));
    CHECK(said == (judged < 4 ? "invalid_credentials" : "rate_limited"));
    judged += said == "invalid_credentials";
  }
  for (const auto& door : three.doors)
    CHECK(reason(door->login("root@example.test", kPassword, "6.6.6.6")) == "rate_limited");
  // The owner elsewhere gets in, and clears a pair of their own for all.
  for (int i = 0; i < 3; ++i)
    CHECK(reason(three.doors[i]->login("root@example.test", "mistyped", "7.7.7.7")) == "invalid_credentials");
  CHECK(reason(three.doors[1]->login("root@example.test", kPassword, "7.7.7.7")) == "ok");
  // By many addresses: the account's limit.
  judged = 7;
  for (int i = 0; i < 6; ++i) {
    const auto said =
        reason(three.doors[i % 3]->login("root@example.test", "guess", "8.8.8." + std::to_string(i)));
    CHECK(said == (judged < 9 ? "invalid_credentials" : "rate_limited"));
    judged += said == "invalid_credentials";
  }
}

TEST_CASE("R44: at all doors at once, too") {
  ThreeDoors three([](auto& o) {
    o.login_failures_per_pair = 3;
    o.registrations_per_address = 5;
    o.max_parallel_hashes = 4;
  });
  REQUIRE(three.first.register_as("root@example.test"));
  std::atomic<int> judged{0}, limited{0}, else_{0};
  run_at_once(15, [&](int i) {
    const std::string answer = reason(
        three.doors[i % 3]->login("root@example.test", "guess number " + std::to_string(i), "6.6.6.6"));
    (answer == "invalid_credentials" ? judged : answer == "rate_limited" ? limited : else_)++;
  });
  CHECK(judged == 3);
  CHECK(limited == 12);
  CHECK(else_ == 0);
  judged = limited = 0;
  run_at_once(12, [&](int i) {
    const std::string answer = reason(three.doors[i % 3]->register_user(
        "u" + std::to_string(i) + "@example.test", kPassword, "", "2001:db8::1"));
    (answer == "ok" ? judged : answer == "rate_limited" ? limited : else_)++;
  });
  CHECK(judged == 5);
  CHECK(limited == 7);
  CHECK(else_ == 0);
}

TEST_CASE("what cannot be counted is not judged") {
  ThreeDoors three([](auto& o) { o.login_failures_per_pair = 2; });
  REQUIRE(three.first.register_as("root@example.test"));
  three.failing->set_down(true);
  for (const char* password : {"wrong password", kPassword})
    CHECK(reason(three.doors[0]->login("root@example.test", password, "a")) == "storage_unavailable");
  CHECK(reason(three.doors[0]->register_user("new@example.test", kPassword, "", "a")) ==
        "storage_unavailable");
  three.failing->set_down(false);
  for (int nth : {1, 2, 3, 4}) {
    three.failing->fail_call(nth, Error(ErrorCode::unavailable, "storage_unavailable", "away"));
    CHECK(reason(three.doors[0]->login("root@example.test", "wrong password", "a")) == "storage_unavailable");
  }
  CHECK(reason(three.doors[0]->login("root@example.test", kPassword, "a")) == "ok");
}

TEST_CASE("with other signing secrets counts begin anew, with the same ones they go on") {
  ThreeDoors three([](auto& o) { o.login_failures_per_pair = 1; });
  REQUIRE(three.first.register_as("root@example.test"));
  const auto& door = three.doors[0];
  CHECK(reason(door->login("root@example.test", "wrong password", "a")) == "invalid_credentials");
  REQUIRE(door->replace_secrets(kJwtSecret, {}));
  CHECK(reason(door->login("root@example.test", "wrong password", "a")) == "rate_limited");
  REQUIRE(door->replace_secrets("another secret of the test, long enough", {kJwtSecret}));
  CHECK(reason(door->login("root@example.test", "wrong password", "a")) == "invalid_credentials");
  CHECK(reason(door->login("root@example.test", kPassword, "a")) == "rate_limited");
}
