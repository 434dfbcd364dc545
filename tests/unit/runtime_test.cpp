#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "runtime/waiter.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

constexpr std::chrono::hours kForEver{1};

struct OnEnd {
  std::function<void()> work;
  ~OnEnd() { work(); }
};

Task<void> wait_on(std::shared_ptr<AsyncEvent> event, std::atomic<int>& waiting) {
  ++waiting;
  co_await event->wait(std::chrono::steady_clock::now() + kForEver);
}

Task<void> keep([[maybe_unused]] std::shared_ptr<void> kept, std::atomic<int>& waiting) {
  ++waiting;
  co_await sleep_for(kForEver);
}

void until(std::atomic<int>& count, int wanted) {
  while (count < wanted) std::this_thread::yield();
}

}  // namespace

TEST_CASE("runtime: what one loop owns may be held by a coroutine of any other when it ends") {
  auto runtime = Runtime::create({.loops = 3});
  auto event = std::make_shared<AsyncEvent>();
  std::atomic<int> waiting{0};
  for (std::size_t i = 0; i < 3; ++i) {
    // Each loop's timers are held by the event, and the event by all of them: whichever loop goes last holds
    // timers of those that went before.
    runtime->impl().loop(i).spawn(wait_on(event, waiting));
    runtime->impl().loop(i).spawn(keep(event, waiting));
  }
  until(waiting, 6);
  std::weak_ptr<AsyncEvent> gone = event;
  event = nullptr;
  runtime = nullptr;
  CHECK(gone.expired());
}

TEST_CASE("runtime: work that is given to a loop while it ends is dropped, with all that it holds") {
  auto runtime = Runtime::create({.loops = 2});
  std::atomic<int> waiting{0};
  std::atomic<int> dropped{0}, ran{0};
  for (std::size_t i = 0; i < 2; ++i) {
    auto held = std::make_shared<OnEnd>();
    Loop& self = runtime->impl().loop(i);
    Loop& other = runtime->impl().loop(1 - i);
    held->work = [&] {
      for (Loop* loop : {&self, &other}) {
        auto timer = std::make_shared<SteadyTimer>(loop->io());
        auto mark = std::make_shared<OnEnd>();
        mark->work = [&] { ++dropped; };
        loop->post([timer, mark, &ran] { ++ran; });
        loop->dispatch([timer, mark, &ran] { ++ran; });
      }
    };
    self.spawn(keep(held, waiting));
  }
  until(waiting, 2);
  runtime = nullptr;
  CHECK(ran == 0);
  CHECK(dropped == 4);
}
