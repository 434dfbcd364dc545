// What a killed gateway leaves behind is found by what was written down, and nobody else's process is
// touched.
#include "gateway/instance_ledger.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "repository_support.hpp"
#include "runtime/process_info.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using mcpgw::test::must;

namespace {

struct Ledger {
  std::shared_ptr<Storage> storage = make_memory_storage();
  std::shared_ptr<Repository> repository = [this] {
    RepositoryOptions options;
    options.storage = storage;
    options.keys = test::keys();
    return must(Repository::open(std::move(options)));
  }();
  std::vector<std::string> log;
  bool busy = false;  ///< nothing can be run
  std::shared_ptr<InstanceLedger> ledger = std::make_shared<InstanceLedger>(
      repository,
      [this](std::function<void()> work) {
        if (!busy) work();
        return !busy;
      },
      [this](LogLevel, std::string text) { log.push_back(std::move(text)); });
};

bool alive(pid_t pid) {
  const auto info = process_info(pid);
  return info && !info->zombie;
}

bool ends(const std::function<bool()>& done) {
  for (int i = 0; i < 5000 && !done(); ++i) ::usleep(1000);
  return done();
}

/// A group of two processes; the second one's parent goes on without it.
struct Group {
  pid_t leader = -1;
  pid_t member = -1;
  Group() {
    int fds[2];
    REQUIRE(::pipe(fds) == 0);
    leader = ::fork();
    if (leader == 0) {
      ::setpgid(0, 0);
      ::dup2(fds[1], 1);
      ::execl("/bin/sh", "sh", "-c", "sleep 600 >/dev/null & echo $!; exec sleep 600", nullptr);
      ::_exit(127);
    }
    ::close(fds[1]);
    char text[32] = {};
    REQUIRE(::read(fds[0], text, sizeof text - 1) > 0);
    ::close(fds[0]);
    member = static_cast<pid_t>(std::atoi(text));
    REQUIRE(ends([&] { return process_group(leader).size() == 2; }));
  }
  ~Group() {
    ::kill(-leader, SIGKILL);
    reap();
  }
  void kill_leader() {
    ::kill(leader, SIGKILL);
    reap();
  }
  void reap() {
    if (!reaped_) ::waitpid(leader, nullptr, 0);
    reaped_ = true;
  }

 private:
  bool reaped_ = false;
};

/// Of a gateway that is no more.
InstanceRecord left_by_dead_owner(const Group& group) {
  const pid_t owner = ::fork();
  if (owner == 0) {
    for (;;) ::pause();
  }
  const auto owner_info = process_info(owner);
  const auto info = process_info(group.leader);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  REQUIRE(owner_info);
  REQUIRE(info);
  InstanceRecord out;
  out.target_id = "0f8fad5b-d9cb-469f-a165-70867728950e";
  out.space = process_space();
  out.owner_pid = owner;
  out.owner_started = owner_info->started;
  out.pid = group.leader;
  out.pid_started = info->started;
  out.session = info->session;
  return out;
}

}  // namespace

TEST_CASE("a process is written down while it runs") {
  Ledger l;
  const auto entry = l.ledger->entry("0f8fad5b-d9cb-469f-a165-70867728950e");
  Group group;
  entry->started(group.leader);
  const auto rows = must(l.repository->instances());
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].pid == group.leader);
  CHECK(rows[0].owner_pid == ::getpid());
  CHECK(rows[0].target_id == "0f8fad5b-d9cb-469f-a165-70867728950e");
  // Its gateway lives: it is nobody's leftover.
  CHECK(l.ledger->end_leftovers() == 0);
  CHECK(alive(group.leader));
  int done = 0;
  entry->ended([&] { ++done; });
  CHECK(done == 1);
  CHECK(must(l.repository->instances()).empty());
}

TEST_CASE("an end that comes before the row is written, and one that cannot be written") {
  Ledger l;
  Group group;
  int done = 0;
  const auto early = l.ledger->entry("t");
  early->ended([&] { ++done; });
  early->started(group.leader);
  CHECK(done == 1);
  CHECK(must(l.repository->instances()).empty());
  const auto late = l.ledger->entry("t");
  late->started(group.leader);
  l.busy = true;
  late->ended([&] { ++done; });
  CHECK(done == 2);
  CHECK(must(l.repository->instances()).size() == 1);
}

TEST_CASE(
    "R26: what a killed gateway left behind is ended with its whole group, also when its leader has gone") {
  Ledger l;
  Group with_leader, without;
  must(l.repository->add_instance(left_by_dead_owner(with_leader)));
  must(l.repository->add_instance(left_by_dead_owner(without)));
  without.kill_leader();
  REQUIRE(alive(without.member));
  CHECK(l.ledger->end_leftovers() == 2);
  with_leader.reap();
  CHECK(ends([&] { return !alive(with_leader.member) && !alive(without.member); }));
  CHECK(must(l.repository->instances()).empty());
  CHECK(l.log.size() == 1);
  CHECK(l.ledger->end_leftovers() == 0);
}

TEST_CASE("a number that was given to another process, another session or another system is left alone") {
  Ledger l;
  Group group;
  const InstanceRecord right = left_by_dead_owner(group);
  auto reused = right;
  reused.pid_started -= 1;
  must(l.repository->add_instance(reused));
  auto other_session = right;
  other_session.session += 1;
  must(l.repository->add_instance(other_session));
  auto gone = right;
  gone.pid = gone.owner_pid;
  must(l.repository->add_instance(gone));
  CHECK(l.ledger->end_leftovers() == 0);
  CHECK(must(l.repository->instances()).empty());  // they are about what is over
  auto elsewhere = right;
  elsewhere.space = "another boot pid:[1]";
  must(l.repository->add_instance(elsewhere));
  CHECK(l.ledger->end_leftovers() == 0);
  CHECK(must(l.repository->instances()).size() == 1);  // it may live there
  CHECK(alive(group.leader));
  CHECK(alive(group.member));
}

TEST_CASE("rows that cannot be read are no reason to end anything") {
  Ledger l;
  for (
      const char* text :
      {"", "{}", "[]", R"({"schema":1,"pid":1})",
       R"({"schema":1,"target_id":"t","space":"s","owner_pid":2,)"
       R"("owner_started":1,"pid":0,"pid_started":1,"session":1,"created_at":"2026-01-01T00:00:00.000000Z"})"}) {
    Operation put;
    put.kind = Operation::Kind::put;
    put.collection = "instances";
    put.key = make_uuid(l.repository->random());
    put.value = text;
    (void)l.storage->commit({put});
  }
  CHECK(must(l.repository->instances()).empty());
  CHECK(l.ledger->end_leftovers() == 0);
}

TEST_CASE("what the kernel tells of processes") {
  const auto own = process_info(::getpid());
  REQUIRE(own);
  CHECK(own->pid == ::getpid());
  CHECK(own->group == ::getpgrp());
  CHECK(own->session == ::getsid(0));
  CHECK(own->started > 0);
  CHECK_FALSE(own->zombie);
  CHECK_FALSE(process_info(0x3fffffff));
  const auto group = process_group(::getpgrp());
  CHECK(
      std::any_of(group.begin(), group.end(), [](const ProcessInfo& one) { return one.pid == ::getpid(); }));
  CHECK(process_space() == process_space());
  CHECK_FALSE(process_space().empty());
}
