#include "runtime/child_start.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

// glibc's own name of clone(): under the public one ThreadSanitizer takes the call for a fork, and notes in
// the memory that both share that this process is the child.
extern "C" int __clone(int (*function)(void*), void* stack, int flags, void* argument, ...);

namespace mcpgw::detail {
namespace {

constexpr std::size_t kStackSize = 64 * 1024;
constexpr unsigned kCloseRangeCloexec = 4;  // CLOSE_RANGE_CLOEXEC, Linux 5.11

enum class Stage : int { setup = 1, limits, user, working_dir, exec };

struct Report {
  Stage stage;
  int error;
};

/// All that the child needs, made ready before it exists.
struct Launch {
  const char* path;
  char* const* argv;
  char* const* envp;
  const char* working_dir;  // may be null
  const ProcessUser* user;  // may be null
  const ProcessLimit* limits;
  std::size_t limit_count;
  int input, output, errors, report;
  pid_t parent;
};

// The child shares our memory until it runs the program (as posix_spawn does it): it allocates nothing, takes
// no lock and makes system calls directly, so that neither libc nor a sanitizer notes down what it does as
// ours.
#define MCPGW_IN_CHILD \
  __attribute__((no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined"), noinline))

MCPGW_IN_CHILD void give_up(const Launch& launch, Stage stage) {
  const Report report{stage, errno};
  syscall(SYS_write, launch.report, &report, sizeof report);
  for (;;) syscall(SYS_exit_group, 127);
}

/// Every descriptor from 3 on will be closed by exec, whoever opened it and however.
MCPGW_IN_CHILD void close_rest_on_exec() {
#ifdef SYS_close_range
  if (syscall(SYS_close_range, 3U, ~0U, kCloseRangeCloexec) == 0) return;
#endif
  struct {
    std::uint64_t soft, hard;
  } limit{65536, 65536};
  syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, &limit);
  const int end = limit.soft > (1U << 20) ? 1 << 20 : static_cast<int>(limit.soft);
  for (int fd = 3; fd < end; ++fd) syscall(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
}

MCPGW_IN_CHILD int run_child(void* argument) {
  const Launch& launch = *static_cast<const Launch*>(argument);
  if (syscall(SYS_setpgid, 0, 0) != 0) give_up(launch, Stage::setup);
  // Limits first: raising one may need the rights that the next step gives up.
  for (std::size_t i = 0; i < launch.limit_count; ++i) {
    const std::uint64_t both[2] = {launch.limits[i].value, launch.limits[i].value};
    if (syscall(SYS_prlimit64, 0, launch.limits[i].resource, both, nullptr) != 0)
      give_up(launch, Stage::limits);
  }
  if (const ProcessUser* user = launch.user) {
    if (syscall(SYS_setgroups, user->groups.size(), user->groups.data()) != 0 ||
        syscall(SYS_setresgid, user->gid, user->gid, user->gid) != 0 ||
        syscall(SYS_setresuid, user->uid, user->uid, user->uid) != 0)
      give_up(launch, Stage::user);
  }
  // After the change of the user, which clears it.
  if (syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) give_up(launch, Stage::setup);
  if (syscall(SYS_getppid) != launch.parent) give_up(launch, Stage::setup);  // it died before the line above

  // What the host ignores or handles is its own affair. All zero is SIG_DFL in the kernel's layout.
  const std::uint64_t defaults[8] = {};
  for (int signal = 1; signal <= 64; ++signal)
    syscall(SYS_rt_sigaction, signal, defaults, nullptr, sizeof(std::uint64_t));

  if (syscall(SYS_dup3, launch.input, 0, 0) < 0 || syscall(SYS_dup3, launch.output, 1, 0) < 0 ||
      syscall(SYS_dup3, launch.errors, 2, 0) < 0)
    give_up(launch, Stage::setup);
  if (launch.working_dir != nullptr && syscall(SYS_chdir, launch.working_dir) != 0)
    give_up(launch, Stage::working_dir);
  close_rest_on_exec();
  const std::uint64_t no_signals = 0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, nullptr, sizeof no_signals);
  syscall(SYS_execve, launch.path, launch.argv, launch.envp);
  give_up(launch, Stage::exec);
  return 127;
}

Error cannot(const std::string& command, const char* why) {
  const std::size_t slash = command.rfind('/');
  const std::string name = slash == std::string::npos ? command : command.substr(slash + 1);
  return {ErrorCode::unavailable, "upstream_unreachable", "The command \"" + name + "\" " + why};
}

Error explain(const std::string& command, const Report& report) {
  if (report.stage == Stage::limits)
    return cannot(command, "cannot be started: its resource limits cannot be set");
  if (report.stage == Stage::user)
    return cannot(command, "cannot be started: the gateway may not change to the user it is to run as");
  if (report.stage == Stage::working_dir)
    return cannot(command, "cannot be started: its working directory cannot be entered");
  if (report.stage == Stage::exec) {
    if (report.error == ENOENT || report.error == ENOTDIR) return cannot(command, "was not found");
    if (report.error == EACCES || report.error == EPERM) return cannot(command, "may not be executed");
    if (report.error == ENOEXEC) return cannot(command, "is not a program");
    if (report.error == E2BIG)
      return cannot(command, "cannot be started: arguments and environment are too large");
  }
  return cannot(command, "cannot be started");
}

bool is_program(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && ::access(path.c_str(), X_OK) == 0;
}

/// The program's file; empty when PATH has none. Entries that are not absolute are skipped: the current
/// directory must not decide what runs.
std::string find_program(const std::string& command) {
  if (command.find('/') != std::string::npos) return command;
  const char* path = std::getenv("PATH");
  std::string_view left = path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin";
  while (!left.empty()) {
    const std::size_t colon = std::min(left.find(':'), left.size());
    const std::string_view directory = left.substr(0, colon);
    left.remove_prefix(std::min(colon + 1, left.size()));
    if (directory.empty() || directory[0] != '/') continue;
    std::string candidate = std::string(directory) + "/" + command;
    if (is_program(candidate)) return candidate;
  }
  return {};
}

bool has_nul(const std::string& text) { return text.find('\0') != std::string::npos; }

Status check(const SpawnOptions& options) {
  const auto bad = [](const char* field, const char* message) {
    return Error(ErrorCode::invalid_argument, "invalid_command", message, field);
  };
  if (options.command.empty() || has_nul(options.command))
    return bad("command", "The command is empty or malformed");
  if (has_nul(options.working_dir)) return bad("working_dir", "The working directory is malformed");
  for (const std::string& each : options.args)
    if (has_nul(each)) return bad("args", "An argument contains a NUL byte");
  for (const std::string& each : options.env)
    if (has_nul(each) || each.empty() || each.find('=') == 0 || each.find('=') == std::string::npos)
      return bad("env", "An environment entry is malformed");
  return {};
}

struct Pipe {
  UniqueFd read;
  UniqueFd write;

  /// Both ends close on exec and have numbers from 3 on, even in a host that closed its own stdin.
  bool open() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return false;
    read = UniqueFd(fds[0]);
    write = UniqueFd(fds[1]);
    for (UniqueFd* end : {&read, &write}) {
      if (end->get() > 2) continue;
      *end = UniqueFd(::fcntl(end->get(), F_DUPFD_CLOEXEC, 3));
      if (!*end) return false;
    }
    return true;
  }
};

void do_not_block(const UniqueFd& fd) { ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK); }

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

/// The child's pid, or -1. Returns when the child has called exec or has given up.
pid_t launch_child(Launch& launch) {
  void* const stack =
      ::mmap(nullptr, kStackSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return -1;
  // A signal handler of the host must not run in the child, whose memory is the host's.
  const std::uint64_t all = ~std::uint64_t{0};
  std::uint64_t before = 0;
  // Changing the user marks the memory, which is ours too, as not to be dumped.
  const int dumpable = launch.user != nullptr ? ::prctl(PR_GET_DUMPABLE) : -1;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
  const pid_t pid =
      __clone(run_child, static_cast<char*>(stack) + kStackSize, CLONE_VM | CLONE_VFORK | SIGCHLD, &launch);
  const int error = errno;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
  ::munmap(stack, kStackSize);
  if (dumpable == 1 && ::prctl(PR_GET_DUMPABLE) != 1) ::prctl(PR_SET_DUMPABLE, 1);
  errno = error;
  return pid;
}

}  // namespace

Result<StartedProcess> start_process(const SpawnOptions& options) {
  if (auto status = check(options); !status) return status.error();
  const std::string program = find_program(options.command);
  if (program.empty()) return cannot(options.command, "was not found");

  Pipe input, output, errors, report;
  if (!input.open() || !output.open() || !errors.open() || !report.open())
    return cannot(options.command, "cannot be started: no more files can be opened");
  do_not_block(input.write);
  do_not_block(output.read);
  do_not_block(errors.read);
  do_not_block(report.read);

  std::vector<std::string> arguments{options.command};
  arguments.insert(arguments.end(), options.args.begin(), options.args.end());
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(options.env);
  const ProcessUser* user = options.user ? &*options.user : nullptr;
  // Somebody else's rights are asked for only when there is something to change.
  if (user != nullptr && ::geteuid() != 0 && user->uid == ::getuid() && user->uid == ::geteuid() &&
      user->gid == ::getgid() && user->gid == ::getegid())
    user = nullptr;
  Launch launch{};
  launch.path = program.c_str();
  launch.argv = argv.data();
  launch.envp = envp.data();
  launch.working_dir = options.working_dir.empty() ? nullptr : options.working_dir.c_str();
  launch.user = user;
  launch.limits = options.limits.data();
  launch.limit_count = options.limits.size();
  launch.input = input.read.get();
  launch.output = output.write.get();
  launch.errors = errors.write.get();
  launch.report = report.write.get();
  launch.parent = ::getpid();
  const pid_t pid = launch_child(launch);
  if (pid < 0) return cannot(options.command, "cannot be started: no more processes can be made");

  Report failed{};
  if (::read(report.read.get(), &failed, sizeof failed) == static_cast<ssize_t>(sizeof failed)) {
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return explain(options.command, failed);
  }
  StartedProcess out;
  out.pid = pid;
  out.input = std::move(input.write);
  out.output = std::move(output.read);
  out.errors = std::move(errors.read);
  return out;
}

}  // namespace mcpgw::detail
