// Counters, gauges and names that many threads use at once.
#include "observability/meters.hpp"

#include <doctest/doctest.h>

#include <thread>

using namespace mcpgw::detail;

namespace {

template <class F>
void on_threads(int count, F work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&work, i] { work(i); });
  for (auto& thread : threads) thread.join();
}

}  // namespace

TEST_CASE("what threads count, each for itself, is added up, also when they are more than places or gone") {
  PerThread<Counter> counter;
  Gauge gauge;
  constexpr int kThreads = 3 * static_cast<int>(kThreadPlaces), kEach = 1000;
  on_threads(kThreads, [&](int) {
    for (int i = 0; i < kEach; ++i) {
      counter.mine().add();
      gauge.add(1);
    }
  });
  std::uint64_t sum = 0;
  counter.each([&](const Counter& part) { sum += part.read(); });
  CHECK(sum == kThreads * kEach);
  CHECK(gauge.read() == kThreads * kEach);
  // What began on one thread ends on another.
  for (int i = 0; i < kThreads * kEach; ++i) gauge.add(-1);
  CHECK(gauge.read() == 0);
  gauge.add(-1);
  CHECK(gauge.read() == 0);
}

TEST_CASE("a name is one thing to all threads, is forgotten by all, and may come again as another") {
  Named<Counter> named(100);
  CHECK(named.find("a") == nullptr);
  on_threads(20, [&](int i) {
    for (int k = 0; k < 100; ++k) named.get(i % 2 == 0 ? "a" : "b")->add();
  });
  CHECK(named.size() == 2);
  CHECK(named.find("a")->read() == 1000);
  CHECK(named.get("b")->read() == 1000);
  const auto held = named.get("a");
  named.keep([](const std::string& name) { return name != "a"; });
  on_threads(20, [&](int) { CHECK(named.find("a") == nullptr); });
  CHECK(named.get("a")->read() == 0);
  CHECK(held->read() == 1000);
  on_threads(20, [&](int) { named.get("a")->add(); });
  CHECK(named.find("a")->read() == 20);
  CHECK(named.find("b")->read() == 1000);
}

TEST_CASE("R35: names beyond the bound share one, and no thread remembers them") {
  Named<Counter> named(10);
  const std::weak_ptr<Counter> gone = named.get("name 0");
  on_threads(10, [&](int) {
    for (int i = 0; i < 1000; ++i) named.get("name " + std::to_string(i))->add();
  });
  CHECK(named.size() == 11);
  std::uint64_t sum = 0;
  for (const auto& [name, count] : named.all()) sum += count->read();
  CHECK(sum == 10000);
  CHECK(named.find("other")->read() == 9900);
  // Nor does it hold what nobody may find any more, once it looks again.
  named.keep([](const std::string&) { return false; });
  CHECK(named.find("name 0") == nullptr);
  on_threads(static_cast<int>(kThreadPlaces), [&](int) { (void)named.find("x"); });
  CHECK(gone.expired());
}
