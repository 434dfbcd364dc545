// Calls of a target beyond its limit wait, in turn among users.
#include "gateway/concurrency.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "../support/on_loop.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace mcpgw::testing;
using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

/// On one loop: what waits has begun to wait before the next one does.
struct Crowd {
  std::shared_ptr<Runtime> runtime = Runtime::create({.loops = 1, .workers = 1});
  std::shared_ptr<ConcurrencyLimit> limit = std::make_shared<ConcurrencyLimit>();
  std::vector<std::string> served;  // on the loop only

  void run(std::function<Task<int>()> what) { on_loop<int>(*runtime, std::move(what)); }
  Task<void> one(std::string user, std::size_t max, SteadyTime deadline) {
    auto slot = co_await limit->enter(user, max, deadline);
    served.push_back(slot ? user : user + " gave up");
  }
  void spawn(const std::string& user, std::size_t max = 1, SteadyTime deadline = steady_clock::now() + 20s) {
    Loop::current()->spawn(one(user, max, deadline));
  }
};

}  // namespace

TEST_CASE("R34: one user's many calls do not push back another's one") {
  Crowd crowd;
  crowd.run([&]() -> Task<int> {
    {
      auto held = co_await crowd.limit->enter("ann", 1, steady_clock::now() + 20s);
      REQUIRE(held);
      for (int i = 0; i < 50; ++i) crowd.spawn("ann");
      for (int i = 0; i < 2; ++i) crowd.spawn("bob");
      crowd.spawn("eve");
      CHECK(crowd.served.empty());
      CHECK(crowd.limit->running() == 1);
    }
    while (crowd.limit->running() > 0 || crowd.served.size() < 53) co_await sleep_for(1ms);
    co_return 0;
  });
  const std::vector<std::string> begin(crowd.served.begin(), crowd.served.begin() + 6);
  CHECK(begin == std::vector<std::string>{"ann", "bob", "eve", "ann", "bob", "ann"});
  CHECK(crowd.served.size() == 53);
}

TEST_CASE("who waits in vain gives up, loses no place, and holds up nobody") {
  Crowd crowd;
  crowd.run([&]() -> Task<int> {
    {
      auto held = co_await crowd.limit->enter("ann", 1, steady_clock::now() + 20s);
      crowd.spawn("bob", 1, steady_clock::now() + 30ms);
      crowd.spawn("eve");
      while (crowd.served.empty()) co_await sleep_for(1ms);
      CHECK(crowd.served == std::vector<std::string>{"bob gave up"});
      CHECK(crowd.limit->running() == 1);
    }
    while (crowd.served.size() < 2) co_await sleep_for(1ms);
    co_return 0;
  });
  CHECK(crowd.served == std::vector<std::string>{"bob gave up", "eve"});
  CHECK(crowd.limit->running() == 0);
}

TEST_CASE("a place is given to whoever waits, not to whoever comes; up to the limit nobody waits") {
  Crowd crowd;
  crowd.run([&]() -> Task<int> {
    {
      auto first = co_await crowd.limit->enter("ann", 2, steady_clock::now() + 20s);
      auto second = co_await crowd.limit->enter("ann", 2, steady_clock::now() + 20s);
      CHECK(first);
      CHECK(second);
      CHECK(crowd.limit->running() == 2);
      crowd.spawn("bob", 2);
      first = ConcurrencyLimit::Slot();
      crowd.spawn("eve", 2);  // comes as one leaves: behind bob
    }
    while (crowd.served.size() < 2) co_await sleep_for(1ms);
    co_return 0;
  });
  CHECK(crowd.served == std::vector<std::string>{"bob", "eve"});
}
