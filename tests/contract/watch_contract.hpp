// What every Storage promises of watch() and unwatch(). Included by storage_contract.hpp.
#pragma once

namespace mcpgw::contract {

TEST_CASE_TEMPLATE("watch: each commit is told once, before it returns", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  must(storage.put("c", "before", "1"));
  ChangeLog first;
  ChangeLog second;
  const auto one = storage.watch(first.callback());
  const auto two = storage.watch(second.callback());
  CHECK(one != two);

  const auto a = must(storage.put("c", "a", "1"));
  REQUIRE(first.commits().size() == 1);
  CHECK(second.commits().size() == 1);
  CHECK(text_of(first.commits()[0]) == "c/a@" + std::to_string(a) + " ");

  const auto versions = must(storage.commit({{Kind::put, "c", "b", "1", {}},
                                             {Kind::check, "c", "a", "", a},
                                             {Kind::erase, "c", "a", "", {}},
                                             {Kind::erase, "c", "none", "", {}},
                                             {Kind::put, "d", "a", "1", {}}}));
  REQUIRE(first.commits().size() == 2);
  CHECK(text_of(first.commits()[1]) ==
        "c/a@0 c/b@" + std::to_string(versions[0]) + " d/a@" + std::to_string(versions[4]) + " ");

  SUBCASE("one change a record: its last state") {
    const auto twice = must(storage.commit({{Kind::put, "c", "b", "2", {}}, {Kind::put, "c", "b", "3", {}}}));
    CHECK(text_of(first.commits()[2]) == "c/b@" + std::to_string(twice[1]) + " ");
  }
  SUBCASE("what changed nothing is not told") {
    check_conflict(storage.put("c", "b", "2", 0), "c/b");
    must_ok(storage.erase("c", "none"));
    must(storage.commit({{Kind::check, "c", "b", "", {}}}));
    must(storage.commit({}));
    CHECK(first.commits().size() == 2);
  }
  SUBCASE("after unwatch nothing is told") {
    storage.unwatch(one);
    must(storage.put("c", "a", "1"));
    CHECK(first.commits().size() == 2);
    CHECK(second.commits().size() == 3);
    storage.unwatch(one);  // a second time does nothing
    storage.unwatch(two + 1000);
    must(storage.put("c", "a", "1"));
    CHECK(second.commits().size() == 4);
  }
  storage.unwatch(one);
  storage.unwatch(two);
}

TEST_CASE_TEMPLATE("watch: commits of many threads are told in commit order", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  constexpr int kThreads = 6;
  constexpr int kRounds = 30;
  ChangeLog log;
  ChangeLog other;
  std::atomic<int> inside{0};
  std::atomic<bool> overlapped{false};
  const auto id = storage.watch([&, told = log.callback()](const std::vector<Change>& changes) {
    if (++inside != 1) overlapped = true;
    told(changes);
    --inside;
  });
  const auto other_id = storage.watch(other.callback());
  std::atomic<int> untold{0};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        auto versions = storage.commit({{Kind::put, "w", "shared", "1", {}},
                                        {Kind::put, "w", std::to_string(t), std::to_string(round), {}}});
        if (!versions) {
          ++failures;
          continue;
        }
        bool told = false;  // its own commit has been told by now
        const auto commits = log.commits();
        for (const auto& changes : commits)
          for (const auto& change : changes)
            told = told || (change.key == "shared" && change.version == versions->front());
        if (!told) ++untold;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(untold == 0);
  CHECK_FALSE(overlapped);
  const auto commits = log.commits();
  REQUIRE(commits.size() == kThreads * kRounds);
  std::map<std::string, std::uint64_t> last;
  for (const auto& changes : commits) {
    REQUIRE(changes.size() == 2);
    for (const auto& change : changes) {
      CHECK(change.version > last[change.key]);
      last[change.key] = change.version;
    }
  }
  REQUIRE(other.commits().size() == commits.size());
  for (std::size_t i = 0; i < commits.size(); ++i) CHECK(text_of(other.commits()[i]) == text_of(commits[i]));
  storage.unwatch(id);
  storage.unwatch(other_id);
}

TEST_CASE_TEMPLATE("watch: unwatch from inside a callback ends that watch", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  std::atomic<int> calls{0};
  std::atomic<std::uint64_t> id{0};
  id = storage.watch([&](const std::vector<Change>&) {
    ++calls;
    storage.unwatch(id);
  });
  must(storage.put("c", "a", "1"));
  CHECK(calls == 1);
  must(storage.put("c", "a", "2"));
  CHECK(calls == 1);

  // One callback ends the watch of another. In which order the two are called is the backend's affair, so the
  // killer stands on both sides of its victim; once the victim's watch has ended it must not be called.
  std::atomic<std::uint64_t> victim_id{0};
  std::atomic<bool> dead{false};
  std::atomic<bool> called_dead{false};
  const auto kill = [&](const std::vector<Change>&) {
    storage.unwatch(victim_id);
    dead = true;
  };
  const auto before = storage.watch(kill);
  victim_id = storage.watch([&](const std::vector<Change>&) { called_dead = called_dead || dead; });
  const auto after = storage.watch(kill);
  must(storage.put("c", "a", "3"));
  must(storage.put("c", "a", "4"));
  CHECK(dead);
  CHECK_FALSE(called_dead);
  storage.unwatch(before);
  storage.unwatch(after);
}

TEST_CASE_TEMPLATE("watch: unwatch waits for a running callback", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  std::promise<void> entered;
  std::promise<void> leave;
  auto leave_future = leave.get_future();
  std::atomic<bool> running{false};
  const auto id = storage.watch([&](const std::vector<Change>&) {
    running = true;
    entered.set_value();
    leave_future.wait();
    running = false;
  });
  std::thread writer([&] { (void)storage.put("c", "a", "1"); });
  entered.get_future().wait();
  std::atomic<bool> was_running{true};
  std::atomic<bool> unwatching{false};
  std::thread remover([&] {
    unwatching = true;
    storage.unwatch(id);
    was_running = running.load();
  });
  while (!unwatching) std::this_thread::yield();
  leave.set_value();
  remover.join();
  CHECK_FALSE(was_running);
  writer.join();
  must(storage.put("c", "a", "2"));  // a second call would break the promise `entered`
}

TEST_CASE_TEMPLATE("watch: a callback that throws harms neither the commit nor the others", B,
                   MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  const auto bad = storage.watch([](const std::vector<Change>&) { throw 42; });
  ChangeLog log;
  const auto good = storage.watch(log.callback());
  CHECK(must(storage.put("c", "a", "1")) == 1);
  CHECK(log.commits().size() == 1);
  storage.unwatch(bad);
  storage.unwatch(good);
}

TEST_CASE_TEMPLATE("watch: watching and unwatching while others commit", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::vector<std::thread> writers;
  for (int t = 0; t < 3; ++t)
    writers.emplace_back([&, t] {
      while (!stop)
        if (!storage.put("c", std::to_string(t), "1")) ++failures;
    });
  int late = 0;
  for (int round = 0; round < 100; ++round) {
    auto alive = std::make_shared<std::atomic<bool>>(true);
    auto told_dead = std::make_shared<std::atomic<bool>>(false);
    const auto id = storage.watch([alive, told_dead](const std::vector<Change>&) {
      if (!*alive) *told_dead = true;
    });
    storage.unwatch(id);
    *alive = false;
    if (*told_dead) ++late;
  }
  stop = true;
  for (auto& writer : writers) writer.join();
  CHECK(late == 0);
  CHECK(failures == 0);
}

}  // namespace mcpgw::contract
