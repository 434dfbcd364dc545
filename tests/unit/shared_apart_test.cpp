#include "base/shared_apart.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>
#include <vector>

using namespace mcpgw::detail;

namespace {

/// Runs `work(i)` on more threads than there are places.
template <class F>
void on_threads(const F& work) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreadPlaces * 2; ++i) threads.emplace_back([&work, i] { work(i); });
  for (auto& thread : threads) thread.join();
}

}  // namespace

TEST_CASE("an object that threads hold apart is one object, and lives as long as anybody holds it") {
  auto object = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = object;
  std::shared_ptr<int> last;
  {
    const HeldApart<int> apart(object);
    std::atomic<int> same{0};
    on_threads([&](std::size_t) { same += apart.here().get() == object.get(); });
    CHECK(same == static_cast<int>(kThreadPlaces * 2));
    last = apart.here();
    object.reset();
  }
  CHECK(*last == 7);
  CHECK_FALSE(watch.expired());
  last.reset();
  CHECK(watch.expired());
  CHECK(HeldApart<int>(nullptr).here() == nullptr);
}

TEST_CASE("what was replaced is seen by nobody who asks afterwards, and goes with its last holder") {
  SharedApart<const int> shared(std::make_shared<const int>(0));
  CHECK(SharedApart<const int>().get() == nullptr);
  // Nobody ever gets an older one than the one whose set() had ended before.
  std::atomic<int> ended{0}, wrong{0};
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    for (int i = 1; i <= 2000 && (i <= 20 || std::chrono::steady_clock::now() < enough); ++i) {
      shared.set(std::make_shared<const int>(i));
      ended = i;
    }
    stop = true;
  });
  on_threads([&](std::size_t) {
    while (!stop) {
      const int least = ended;
      if (*shared.get() < least) ++wrong;
      std::this_thread::yield();  // so that the writer gets on, too, wherever threads outnumber cores
    }
  });
  writer.join();
  CHECK(wrong == 0);
  const auto held = shared.get();
  const std::weak_ptr<const int> old = held;
  shared.set(std::make_shared<const int>(-1));
  on_threads([&](std::size_t) { wrong += *shared.get() != -1; });
  CHECK(wrong == 0);
  CHECK(*held == ended);
  CHECK(ended >= 20);
}

TEST_CASE("who writes is alone, whichever places the readers have") {
  ReadMostlyMutex mutex;
  int one = 0, two = 0;  // equal whenever nobody writes
  std::atomic<int> torn{0};
  on_threads([&](std::size_t i) {
    for (int k = 0; k < 500; ++k) {
      if (i % 4 == 0) {
        const std::unique_lock lock(mutex);
        ++one;
        std::this_thread::yield();
        ++two;
      } else {
        const std::shared_lock lock(mutex);
        torn += one != two;
      }
    }
  });
  CHECK(torn == 0);
  CHECK(one == static_cast<int>(kThreadPlaces / 2) * 500);
}
