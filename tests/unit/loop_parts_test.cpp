// What a loop keeps for its sockets and its reminders.
#include <doctest/doctest.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <future>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/moment.hpp"
#include "mcpgw/clock.hpp"
#include "runtime/poller.hpp"
#include "runtime/reminders.hpp"
#include "runtime/unique_fd.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

struct Loops {
  std::shared_ptr<Runtime> runtime = Runtime::create({.loops = 1});
  Loop& loop = runtime->impl().loop(0);

  /// Runs `work` on the loop and waits for it.
  void run(std::function<void()> work) {
    std::promise<void> done;
    loop.post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }
};

struct Pair {
  std::array<UniqueFd, 2> ends;
  Pair() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    ends = {UniqueFd(fds[0]), UniqueFd(fds[1])};
  }
  int here() const { return ends[0].get(); }
  void tell() const { REQUIRE(::send(ends[1].get(), "x", 1, MSG_NOSIGNAL) == 1); }
};

struct Watched final : Pollable {
  std::function<void(std::uint32_t)> work;
  void on_event(std::uint32_t events) override { work(events); }
};

struct Whom final : Reminded {
  std::function<void()> work;
  void on_reminder() override { work(); }
};

/// Something to be done in two steps.
struct InSteps {
  std::string& order;
  bool fails = false;
  void first() {
    order += 's';
    Poller::stepping()->put_off<&InSteps::second>(std::make_shared<InSteps>(*this));
    if (fails) throw std::runtime_error("a step that fails is its own affair");
  }
  void second() { order += 't'; }
};

std::shared_ptr<Whom> whom(std::function<void()> work) {
  auto out = std::make_shared<Whom>();
  out->work = std::move(work);
  return out;
}

}  // namespace

TEST_CASE("events that come together are worked off in steps, those that come alone are not") {
  constexpr std::size_t kMany = 6;
  Loops loops;
  std::vector<Pair> pairs(kMany);
  std::vector<Watched> watched(kMany);
  std::vector<Poller::Token> tokens(kMany);
  std::string order;
  const auto in_turn = [&](std::size_t count) {
    order.clear();
    loops.run([&] {
      CHECK(Poller::stepping() == nullptr);
      for (std::size_t i = 0; i < count; ++i) pairs[i].tell();
    });
    // All of it is over before what is posted after the events are there.
    for (std::size_t seen = 0; seen < count;)
      loops.run([&] { seen = std::count(order.begin(), order.end(), 'e'); });
    loops.run([] {});
    return order;
  };
  loops.run([&] {
    for (std::size_t i = 0; i < kMany; ++i) {
      watched[i].work = [&, i](std::uint32_t) {
        char byte;
        REQUIRE(::recv(pairs[i].here(), &byte, 1, 0) == 1);
        order += 'e';
        if (Poller* poller = Poller::stepping())
          poller->put_off<&InSteps::first>(std::make_shared<InSteps>(InSteps{order, i == 2}));
        loops.loop.spawn([](std::string& o) -> Task<void> {
          o += '1';
          if (Poller* poller = Poller::stepping()) co_await poller->next_step();
          o += '2';
          if (Poller* poller = Poller::stepping()) co_await poller->next_step();
          o += '3';
        }(order));
      };
      tokens[i] = loops.loop.poller().add(pairs[i].here(), EPOLLIN, watched[i]);
      REQUIRE(tokens[i] != 0);
    }
  });
  const auto times = [](const std::string& what) {
    std::string out;
    for (std::size_t i = 0; i < kMany; ++i) out += what;
    return out;
  };
  CHECK(in_turn(kMany) == times("e1") + times("s2") + times("t3"));
  CHECK(in_turn(1) == "e123");
  CHECK(in_turn(kMany) == times("e1") + times("s2") + times("t3"));
  CHECK(Poller::stepping() == nullptr);
  loops.run([&] {
    for (std::size_t i = 0; i < kMany; ++i) loops.loop.poller().remove(tokens[i], pairs[i].here());
  });
}

TEST_CASE("time stands still in a Moment until it passes, for its own thread") {
  const auto before = steady_clock::now();
  CHECK(steady_now() >= before);
  const auto clock = make_system_clock();
  {
    Moment moment;
    const auto steady = steady_now();
    const auto system = system_now();
    const auto told = clock->monotonic();
    const auto date = clock->now();
    std::this_thread::sleep_for(2ms);
    CHECK(steady_now() == steady);
    CHECK(system_now() == system);
    CHECK(clock->monotonic() == told);
    CHECK(clock->now() == date);
    std::thread([&] { CHECK(steady_now() >= steady + 2ms); }).join();
    {
      Moment inner;
      CHECK(steady_now() >= steady + 2ms);
    }
    CHECK(steady_now() == steady);
    moment.pass();
    CHECK(steady_now() >= steady + 2ms);
    CHECK(system_now() >= system);
    CHECK(clock->monotonic() >= told + 2ms);
  }
  const auto after = steady_now();
  std::this_thread::sleep_for(1ms);
  CHECK(steady_now() >= after + 1ms);
}

TEST_CASE("each event has its own time, and of many steps a few have one together") {
  constexpr std::size_t kSteps = 40;
  Loops loops;
  std::vector<steady_clock::time_point> times;
  struct Slow {
    std::vector<steady_clock::time_point>& times;
    void work() {
      times.push_back(steady_now());
      std::this_thread::sleep_for(1ms);
      CHECK(steady_now() == times.back());
    }
  };
  const auto slow = std::make_shared<Slow>(Slow{times});
  std::vector<Pair> pairs(4);
  std::vector<Watched> watched(4);
  std::vector<Poller::Token> tokens(4);
  std::atomic<int> seen{0};
  loops.run([&] {
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      watched[i].work = [&, i](std::uint32_t) {
        char byte;
        REQUIRE(::recv(pairs[i].here(), &byte, 1, 0) == 1);
        Poller* const poller = Poller::stepping();
        for (std::size_t step = 0; poller != nullptr && step < kSteps / pairs.size(); ++step)
          poller->put_off<&Slow::work>(slow);
        if (poller == nullptr) slow->work();
        ++seen;
      };
      tokens[i] = loops.loop.poller().add(pairs[i].here(), EPOLLIN, watched[i]);
    }
  });
  const auto tell = [&](std::size_t count) {
    seen = 0;
    times.clear();
    loops.run([&] {
      for (std::size_t i = 0; i < count; ++i) pairs[i].tell();
    });
    while (seen.load() < static_cast<int>(count)) std::this_thread::sleep_for(1ms);
    loops.run([] {});
  };
  tell(2);
  REQUIRE(times.size() == 2);
  CHECK(times[1] >= times[0] + 1ms);
  tell(4);
  REQUIRE(times.size() == kSteps);
  CHECK(std::is_sorted(times.begin(), times.end()));
  const std::set<steady_clock::time_point> different(times.begin(), times.end());
  CHECK(different.size() == 3);
  loops.run([&] {
    for (std::size_t i = 0; i < pairs.size(); ++i) loops.loop.poller().remove(tokens[i], pairs[i].here());
    const auto told = steady_now();  // no event's: each question is answered anew
    std::this_thread::sleep_for(1ms);
    CHECK(steady_now() >= told + 1ms);
  });
}

TEST_CASE("poller: whoever was removed is told nothing more, even when its event had been fetched") {
  Loops loops;
  Pair first, second;
  Watched one, two;
  Poller::Token a = 0, b = 0;
  std::atomic<int> told{0};
  std::promise<void> through;
  Poller& poller = loops.loop.poller();
  // Both events are fetched together; whichever comes first removes the other.
  one.work = [&](std::uint32_t) {
    ++told;
    poller.remove(std::exchange(a, 0), first.here());
    poller.remove(std::exchange(b, 0), second.here());
    loops.loop.post([&] { through.set_value(); });
  };
  two.work = one.work;
  loops.run([&] {
    a = poller.add(first.here(), EPOLLIN, one);
    b = poller.add(second.here(), EPOLLIN, two);
    REQUIRE(a != 0);
    REQUIRE(b != 0);
    first.tell();
    second.tell();
  });
  through.get_future().wait();
  loops.run([] {});
  CHECK(told == 1);
}

TEST_CASE("poller: a registration that takes the place of another is not told what was meant for that one") {
  Loops loops;
  Pair old_pair, other, fresh;
  Watched old, remover, heir;
  Poller::Token a = 0, b = 0, c = 0;
  std::atomic<int> wrong{0};
  std::promise<void> through;
  Poller& poller = loops.loop.poller();
  const auto replace = [&](Poller::Token& mine, int my_fd, Poller::Token& others, int others_fd) {
    poller.remove(std::exchange(mine, 0), my_fd);
    poller.remove(std::exchange(others, 0), others_fd);
    c = poller.add(fresh.here(), EPOLLIN, heir);
    CHECK(c != 0);
    loops.loop.post([&] { through.set_value(); });
  };
  old.work = [&](std::uint32_t) { replace(a, old_pair.here(), b, other.here()); };
  remover.work = [&](std::uint32_t) { replace(b, other.here(), a, old_pair.here()); };
  heir.work = [&](std::uint32_t) { ++wrong; };  // nothing was sent to it
  loops.run([&] {
    a = poller.add(old_pair.here(), EPOLLIN, old);
    b = poller.add(other.here(), EPOLLIN, remover);
    old_pair.tell();
    other.tell();
  });
  through.get_future().wait();
  loops.run([&] { poller.remove(c, fresh.here()); });
  CHECK(wrong == 0);
}

TEST_CASE("poller: an exception of one that is told ends nothing else") {
  Loops loops;
  Pair bad, good;
  Watched thrower, other;
  std::promise<void> told;
  Poller& poller = loops.loop.poller();
  Poller::Token a = 0, b = 0;
  thrower.work = [&](std::uint32_t) {
    poller.remove(a, bad.here());
    throw std::runtime_error("on purpose");
  };
  other.work = [&](std::uint32_t) {
    poller.remove(b, good.here());
    told.set_value();
  };
  loops.run([&] {
    a = poller.add(bad.here(), EPOLLIN, thrower);
    b = poller.add(good.here(), EPOLLIN, other);
    bad.tell();
  });
  loops.run([&] { good.tell(); });
  CHECK(told.get_future().wait_for(10s) == std::future_status::ready);
}

TEST_CASE("poller: a descriptor that cannot be watched is refused") {
  Loops loops;
  Watched watched;
  Poller::Token token = 1;
  loops.run([&] { token = loops.loop.poller().add(-1, EPOLLIN, watched); });
  CHECK(token == 0);
}

TEST_CASE("poller: sockets that always have something to say leave others on the loop their turn") {
  Loops loops;
  std::array<Pair, 16> pairs;
  std::array<Poller::Token, 16> tokens{};
  std::atomic<int> told{0};
  Watched watched;
  watched.work = [&](std::uint32_t) { ++told; };  // nothing is read: the event stays
  Poller& poller = loops.loop.poller();
  loops.run([&] {
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      tokens[i] = poller.add(pairs[i].here(), EPOLLIN, watched);
      REQUIRE(tokens[i] != 0);
      pairs[i].tell();
    }
  });
  for (int turn = 0; turn < 100; ++turn) {
    const int before = told;
    loops.run([] {});
    while (told == before) loops.run([] {});  // and they theirs
  }
  loops.run([&] {
    for (std::size_t i = 0; i < pairs.size(); ++i) poller.remove(tokens[i], pairs[i].here());
  });
  CHECK(told >= 100);
}

TEST_CASE("reminders: never early, in the order of their times, and not once they are called off") {
  Loops loops;
  Reminders& reminders = loops.loop.reminders();
  const auto began = steady_clock::now();
  std::vector<std::pair<int, steady_clock::duration>> came;
  std::promise<void> last;
  const auto note = [&](int which) {
    return whom([&came, began, which] { came.emplace_back(which, steady_clock::now() - began); });
  };
  const auto late = note(3), early = note(1), middle = note(2), off = note(4);
  const auto end = whom([&] { last.set_value(); });
  loops.run([&] {
    reminders.add(90ms, late);
    reminders.add(10ms, early);
    const auto ticket = reminders.add(20ms, off);
    reminders.add(50ms, middle);
    reminders.add(30ms, note(5));  // nobody holds it
    reminders.cancel(ticket);
    reminders.add(150ms, end);
  });
  REQUIRE(last.get_future().wait_for(20s) == std::future_status::ready);
  REQUIRE(came.size() == 3);
  CHECK(came[0].first == 1);
  CHECK(came[1].first == 2);
  CHECK(came[2].first == 3);
  CHECK(came[0].second >= 10ms);
  CHECK(came[1].second >= 50ms);
  CHECK(came[2].second >= 90ms);
}

TEST_CASE("reminders: one may call off another that has come due with it, and add new ones") {
  Loops loops;
  Reminders& reminders = loops.loop.reminders();
  std::optional<Reminders::Ticket> a, b;
  std::atomic<int> came{0};
  std::promise<void> again;
  const auto third = whom([&] { again.set_value(); });
  std::shared_ptr<Whom> first, second;
  const auto work = [&](std::optional<Reminders::Ticket>& other) {
    ++came;
    reminders.cancel(*other);
    reminders.add(1ms, third);
  };
  first = whom([&] { work(b); });
  second = whom([&] { work(a); });
  loops.run([&] {
    a = reminders.add(1ms, first);
    b = reminders.add(1ms, second);
  });
  REQUIRE(again.get_future().wait_for(20s) == std::future_status::ready);
  loops.run([] {});
  CHECK(came == 1);
}

TEST_CASE("reminders: many that are called off leave nothing") {
  Loops loops;
  Reminders& reminders = loops.loop.reminders();
  std::atomic<int> came{0};
  const auto one = whom([&] { ++came; });
  loops.run([&] {
    std::vector<Reminders::Ticket> tickets;
    for (int i = 0; i < 20000; ++i) tickets.push_back(reminders.add(std::chrono::milliseconds(i % 300), one));
    for (const auto& ticket : tickets) reminders.cancel(ticket);
  });
  std::promise<void> later;
  const auto end = whom([&] { later.set_value(); });
  loops.run([&] { reminders.add(350ms, end); });
  REQUIRE(later.get_future().wait_for(20s) == std::future_status::ready);
  CHECK(came == 0);
  CHECK(one.use_count() == 1);
}
