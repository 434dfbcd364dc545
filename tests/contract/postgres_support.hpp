// A PostgreSQL server of the test's own, from the system's packages: in a temporary directory, on a Unix
// socket alone, as a user without rights when the test runs as root (initdb refuses root).
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "contract/contract_support.hpp"
#include "contract/temp_dir.hpp"
#include "mcpgw/postgres.hpp"

namespace mcpgw::contract {

class PostgresServer {
 public:
  PostgresServer() {
    if (::geteuid() == 0) {
      for (const char* name : {"postgres", "nobody"})
        if (user_ == nullptr) user_ = ::getpwnam(name);
      REQUIRE(user_ != nullptr);
      REQUIRE(::chown(directory_.path().c_str(), user_->pw_uid, user_->pw_gid) == 0);
    }
    const int initialised = wait_for(start_program({"initdb", "-D", data(), "-U", "mcpgw", "-A", "trust",
                                                    "-E", "UTF8", "--locale=C", "-N", "--no-instructions"}));
    if (initialised != 0) FAIL("initdb failed: " << log());
    start();
  }
  ~PostgresServer() {
    if (pid_ > 0) stop(SIGQUIT);
  }
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  /// The one of this process, for whoever needs no own.
  static PostgresServer& shared() {
    static PostgresServer server;
    return server;
  }

  void start() {
    pid_ = start_program({"postgres", "-D", data(), "-c", "listen_addresses=", "-c",
                          "unix_socket_directories=" + directory_.path().string(), "-c", "fsync=off", "-c",
                          "shared_buffers=64MB", "-c", "full_page_writes=off", "-c", "max_connections=80"});
    const auto url = url_of("postgres");
    for (int i = 0; i < 3000; ++i) {
      if (PQping(url.c_str()) == PQPING_OK) return;
      if (::waitpid(pid_, nullptr, WNOHANG) == pid_) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    FAIL("the server does not start: " << log());
  }
  /// SIGINT: all transactions are rolled back; SIGQUIT: as a crash.
  void stop(int signal) {
    ::kill(pid_, signal);
    (void)wait_for(pid_);
    pid_ = -1;
  }

  std::string socket() const { return directory_.file(".s.PGSQL.5432"); }
  std::string url_of(const std::string& database) const {
    return "host=" + directory_.path().string() + " user=mcpgw dbname=" + database;
  }
  /// An empty database; its name.
  std::string make_database(const std::string& options = {}) {
    static std::atomic<int> last{0};
    const auto name = "test" + std::to_string(++last);
    run("postgres", "CREATE DATABASE " + name + " " + options);
    return name;
  }
  /// The first column of the first row, as text.
  std::string run(const std::string& database, const std::string& sql) const {
    const std::unique_ptr<PGconn, decltype(&PQfinish)> connection(PQconnectdb(url_of(database).c_str()),
                                                                  &PQfinish);
    PQsetNoticeProcessor(
        connection.get(), [](void*, const char*) {}, nullptr);
    const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(connection.get(), sql.c_str()),
                                                               &PQclear);
    const auto status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
      FAIL("the server says: " << PQerrorMessage(connection.get()));
    return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
  }
  /// Ends all connections to the database but this one.
  void cut(const std::string& database) const {
    run(database,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()");
  }

 private:
  std::string data() const { return directory_.file("data"); }
  std::string log() const {
    std::ifstream file(directory_.file("log"));
    return {std::istreambuf_iterator<char>(file), {}};
  }

  static std::string path_of(const std::string& program) {
    std::vector<std::string> found;
    std::error_code ignored;
    for (const auto& version : std::filesystem::directory_iterator("/usr/lib/postgresql", ignored))
      if (const auto path = version.path() / "bin" / program; std::filesystem::exists(path))
        found.push_back(path);
    std::sort(found.begin(), found.end());
    return found.empty() ? program : found.back();
  }

  pid_t start_program(std::vector<std::string> words) const {
    words.front() = path_of(words.front());
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const auto output = directory_.file("log");
    const pid_t parent = ::getpid(), pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid > 0) return pid;
    if (::chdir("/") != 0) ::_exit(126);
    if (user_ != nullptr &&
        (::setgroups(0, nullptr) != 0 || ::setgid(user_->pw_gid) != 0 || ::setuid(user_->pw_uid) != 0))
      ::_exit(126);
    const int in = ::open("/dev/null", O_RDONLY),
              out = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(out, 2) < 0) ::_exit(126);
    ::prctl(PR_SET_PDEATHSIG, SIGQUIT);  // a test that crashes leaves no server behind
    if (::getppid() != parent) ::_exit(126);
    ::execvp(arguments.front(), arguments.data());
    ::_exit(127);
  }
  static int wait_for(pid_t pid) {
    int status = -1;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  TempDir directory_;
  const struct passwd* user_ = nullptr;
  pid_t pid_ = -1;
};

inline PostgresStorage open_postgres(const std::string& url) {
  PostgresOptions options;
  options.url = url;
  auto opened = open_postgres_storage(options);
  if (!opened) FAIL("cannot open: " << opened.error().reason);
  return *opened;
}

}  // namespace mcpgw::contract
