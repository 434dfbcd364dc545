#include "runtime/child_process.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

/// A child and everything it said.
struct Child {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> lines;
  std::size_t oversize = 0;
  std::string ends;
  std::optional<ExitStatus> ended;
  std::shared_ptr<ChildProcess> process;
  Error error;

  Child(Runtime& runtime, const std::string& script, std::function<void(SpawnOptions&)> change = {}) {
    SpawnOptions options;
    options.command = "sh";
    options.args = {"-c", script};
    options.env = {"PATH=" + std::string(getenv("PATH")), "ONE=1"};
    options.stdin_grace = std::chrono::milliseconds(200);
    options.term_grace = std::chrono::milliseconds(300);
    if (change) change(options);
    ChildProcess::Callbacks callbacks;
    const auto locked = [this](auto action) {
      return [this, action](auto... values) {
        const std::lock_guard lock(mutex);
        action(values...);
        changed.notify_all();
      };
    };
    callbacks.on_line = locked([this](const std::string& line) { lines.push_back(line); });
    callbacks.on_oversize = locked([this](const std::string& head, const std::string& tail, std::size_t) {
      ++oversize;
      ends = head + "|" + tail;
    });
    callbacks.on_exit = locked([this](ExitStatus status) { ended = status; });
    auto spawned = ChildProcess::spawn(runtime.impl().loop(0), std::move(options), std::move(callbacks));
    if (spawned)
      process = *spawned;
    else
      error = spawned.error();
  }
  ~Child() {
    if (!process) return;
    const bool over = [this] {
      const std::lock_guard lock(mutex);
      return ended.has_value();
    }();
    if (over) return;
    process->kill();
    wait_end();
  }
  bool until(const std::function<bool()>& what) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(10), what);
  }
  bool wait_lines(std::size_t count) {
    return until([&] { return lines.size() >= count; });
  }
  bool wait_end() {
    return until([&] { return ended.has_value(); });
  }
};

bool alive(int pid) { return ::kill(pid, 0) == 0; }

bool gone_soon(int pid) {
  for (int i = 0; i < 3000 && alive(pid); ++i) ::usleep(1000);
  return !alive(pid);
}

}  // namespace

TEST_CASE("lines go in and come out") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Child child(*runtime, "exec cat");
  REQUIRE(child.process);
  REQUIRE(child.process->write("one"));
  REQUIRE(child.process->write(std::string(300000, 'x')));
  REQUIRE(child.wait_lines(2));
  CHECK(child.lines[0] == "one");
  CHECK(child.lines[1].size() == 300000);
  child.process->stop();
  REQUIRE(child.wait_end());
  CHECK(child.ended->code == 0);
  CHECK_FALSE(child.process->running());
  CHECK_FALSE(child.process->write("late"));
  CHECK(gone_soon(child.process->pid()));
}

TEST_CASE("R6: a child sees the given environment and three descriptors, nothing else") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  ::setenv("MCPGW_TEST_SECRET", "canary", 1);
  const int leak = ::dup(1);  // a descriptor of the host without close-on-exec
  Child child(*runtime, "env; ls /proc/self/fd | wc -l; echo end");
  REQUIRE(child.process);
  REQUIRE(child.until([&] { return !child.lines.empty() && child.lines.back() == "end"; }));
  ::close(leak);
  std::string all;
  for (const std::string& line : child.lines) all += line + "\n";
  CHECK(all.find("ONE=1") != std::string::npos);
  CHECK(all.find("canary") == std::string::npos);
  // 0, 1, 2 and the one that ls itself opens; the pipe to wc replaces its stdout.
  CHECK(child.lines[child.lines.size() - 2] == "4");
}

TEST_CASE("R27: megabytes on stderr without a newline are drained, the end is kept") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Child child(*runtime,
              "head -c 3000000 /dev/zero | tr '\\0' e >&2; printf 'the end' >&2; echo done; cat > /dev/null");
  REQUIRE(child.process);
  REQUIRE(child.wait_lines(1));
  CHECK(child.lines[0] == "done");
  for (int i = 0; i < 2000 && !child.process->stderr_tail().ends_with("the end"); ++i) ::usleep(1000);
  CHECK(child.process->stderr_tail().ends_with("the end"));
  CHECK(child.process->stderr_tail().size() <= 4096);
}

TEST_CASE("R59: a line over the bound is dropped and told, the next one arrives") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Child child(
      *runtime,
      "printf first; head -c 100000 /dev/zero | tr '\\0' x; echo last; echo; echo after; cat > /dev/null",
      [](SpawnOptions& options) { options.max_line = 10000; });
  REQUIRE(child.process);
  REQUIRE(child.wait_lines(1));
  CHECK(child.lines[0] == "after");
  CHECK(child.oversize == 1);
  CHECK(child.ends.starts_with("firstx"));
  CHECK(child.ends.ends_with("xlast"));
  CHECK(child.ends.size() < 2000);
}

TEST_CASE("R61: a child that does not read fills its queue, and writing says so at once") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Child child(*runtime, "exec sleep 60", [](SpawnOptions& options) { options.max_queued = 1 << 20; });
  REQUIRE(child.process);
  Status status;
  for (int i = 0; i < 100 && status; ++i) status = child.process->write(std::string(100000, 'x'));
  REQUIRE_FALSE(status);
  CHECK(status.error().code == ErrorCode::resource_exhausted);
}

TEST_CASE("a child that ends by itself: its last words and its code") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Child child(*runtime, "echo last; echo why >&2; exit 3");
  REQUIRE(child.process);
  REQUIRE(child.wait_end());
  CHECK(child.ended->code == 3);
  CHECK_FALSE(child.ended->signalled);
  CHECK(child.lines == std::vector<std::string>{"last"});
  CHECK(child.process->stderr_tail().find("why") != std::string::npos);
  CHECK(gone_soon(child.process->pid()));
}

TEST_CASE("R59: stop ends the whole group, also what ignores SIGTERM") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Child child(*runtime, "trap '' TERM; sleep 60 & echo $!; while :; do sleep 1; done");
  REQUIRE(child.process);
  REQUIRE(child.wait_lines(1));
  const int grandchild = std::stoi(child.lines[0]);
  CHECK(alive(grandchild));
  const auto started = std::chrono::steady_clock::now();
  child.process->stop();
  REQUIRE(child.wait_end());
  CHECK(child.ended->signalled);
  CHECK(child.ended->code == SIGKILL);
  CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(4));
  CHECK(gone_soon(grandchild));
}

TEST_CASE("a program runs as the user it is given, or not at all") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  const std::string me = std::to_string(::getuid()) + ":" + std::to_string(::getgid());
  if (::geteuid() == 0) {
    const auto nobody = find_process_user("nobody");
    REQUIRE(nobody);
    Child child(*runtime, "id -u; id -G; echo $$; read -r x",
                [&](SpawnOptions& options) { options.user = *nobody; });
    REQUIRE(child.process);
    REQUIRE(child.wait_lines(3));
    CHECK(child.lines[0] == std::to_string(nobody->uid));
    CHECK(child.lines[1] == std::to_string(nobody->gid));  // and none of ours
    // It ends with us all the same: the kernel forgets that with a change of the user.
    std::ifstream status("/proc/" + std::to_string(child.process->pid()) + "/status");
    CHECK(status.good());
    child.process->stop();
    REQUIRE(child.wait_end());
    CHECK(child.ended->code == 1);
  } else {
    Child refused(*runtime, "id -u", [](SpawnOptions& options) { options.user = ProcessUser{0, 0, {}}; });
    CHECK_FALSE(refused.process);
    CHECK(refused.error.message.find("may not change to the user") != std::string::npos);
  }
  const auto own = find_process_user(me);
  REQUIRE(own);
  Child child(*runtime, "id -u", [&](SpawnOptions& options) { options.user = *own; });
  REQUIRE(child.process);
  REQUIRE(child.wait_lines(1));
  CHECK(child.lines[0] == std::to_string(::getuid()));
  for (const char* bad :
       {"", ":", "root:", ":root", "no-such-user", "root:no-such-group", "4294967295", "12345678", "-1"}) {
    CAPTURE(bad);
    const auto user = find_process_user(bad);
    REQUIRE_FALSE(user);
    CHECK(user.error().reason == "invalid_run_as");
  }
  const auto numbers = find_process_user("12345678:23456789");
  REQUIRE(numbers);
  CHECK(numbers->uid == 12345678);
  CHECK(numbers->gid == 23456789);
  CHECK(find_process_user("root")->uid == 0);
}

TEST_CASE("resource limits bind a program, and are the gateway's own when not set") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Child child(*runtime, "ulimit -n; ulimit -Hn; ulimit -t; ulimit -v; ulimit -f", [](SpawnOptions& options) {
    options.limits = {
        {RLIMIT_NOFILE, 37}, {RLIMIT_CPU, 7}, {RLIMIT_AS, 512 * 1024 * 1024}, {RLIMIT_FSIZE, 4096}};
  });
  REQUIRE(child.process);
  REQUIRE(child.wait_lines(5));
  CHECK(child.lines == std::vector<std::string>{"37", "37", "7", "524288", "8"});
  rlimit own{};
  ::getrlimit(RLIMIT_CPU, &own);
  Child free(*runtime, "ulimit -t");
  REQUIRE(free.process);
  REQUIRE(free.wait_lines(1));
  CHECK(free.lines[0] ==
        (own.rlim_cur == RLIM_INFINITY ? std::string("unlimited") : std::to_string(own.rlim_cur)));
}

TEST_CASE("a command that is not there is an error that names it") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Child child(*runtime, "", [](SpawnOptions& options) { options.command = "no-such-command-4711"; });
  CHECK_FALSE(child.process);
  CHECK(child.error.reason == "upstream_unreachable");
  CHECK(child.error.message.find("no-such-command-4711") != std::string::npos);
}

TEST_CASE("many children leave no descriptor behind") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  const auto open_descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
  };
  { Child warm(*runtime, "exit 0"); }
  const auto before = open_descriptors();
  for (int i = 0; i < 30; ++i) {
    Child child(*runtime, "read line; exit 0");
    REQUIRE(child.process);
    REQUIRE(child.process->write("x"));
    REQUIRE(child.wait_end());
  }
  for (int i = 0; i < 2000 && open_descriptors() > before; ++i) ::usleep(1000);
  CHECK(open_descriptors() <= before);
}
