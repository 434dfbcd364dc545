// Where the server listens: socket files, sockets of a supervisor, ports shared between processes; and that a
// change of servers loses no connection.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <thread>

#include "unit/server_support.hpp"
#include "unit/tls_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

int listening_socket(int& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::listen(fd, 1024) == 0);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  port = ntohs(address.sin_port);
  return fd;
}

int connect_to(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

std::string ask(int fd, std::string_view request) {
  ::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = ::recv(fd, buffer, sizeof buffer, 0)) > 0;)
    out.append(buffer, static_cast<std::size_t>(n));
  ::close(fd);
  return out;
}

std::string last_get() { return get("/", "Connection: close\r\n"); }

}  // namespace

TEST_CASE("a socket file: mode, requests, removal") {
  ScratchDirectory directory;
  const std::string path = directory.file("gateway.sock");
  HttpServerOptions options;
  options.host = "unix:" + path;
  const mode_t old = ::umask(077);
  {
    Site site(echo, options);
    ::umask(old);
    CHECK(site.server->url() == "unix:" + path);
    CHECK(site.server->port() == 0);
    struct stat info {};
    REQUIRE(::stat(path.c_str(), &info) == 0);
    CHECK(S_ISSOCK(info.st_mode));
    CHECK((info.st_mode & 0777) == 0660);
    const int fd = connect_to(path);
    REQUIRE(fd >= 0);
    const std::string answer = ask(fd, last_get());
    CHECK(answer.find("HTTP/1.1 200 OK\r\n") == 0);
    CHECK(answer.find("X-Address: 127.0.0.1\r\n") != std::string::npos);

    options.unix_mode = 0600;
    const auto taken = HttpServer::start(site.handler, site.runtime, options);
    REQUIRE_FALSE(taken);
    CHECK(taken.error().reason == "address_in_use");
    CHECK(::stat(path.c_str(), &info) == 0);
  }
  struct stat info {};
  CHECK(::stat(path.c_str(), &info) != 0);
  // One that a crash left behind is in nobody's way.
  const int stale = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  REQUIRE(::bind(stale, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  ::close(stale);
  {
    const Site again(echo, options);
    REQUIRE(::stat(path.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
    const int fd = connect_to(path);
    REQUIRE(fd >= 0);
    CHECK(ask(fd, last_get()).find("HTTP/1.1 200 OK\r\n") == 0);
    // A file that another server has put in its place stays.
    ::unlink(path.c_str());
    REQUIRE(::close(::open(path.c_str(), O_CREAT | O_WRONLY, 0600)) == 0);
  }
  CHECK(::stat(path.c_str(), &info) == 0);
  CHECK(S_ISREG(info.st_mode));
}

TEST_CASE("socket files that cannot be made are refused, and no file is harmed") {
  ScratchDirectory directory;
  const std::string file = directory.file("file");
  REQUIRE(::close(::open(file.c_str(), O_CREAT | O_WRONLY, 0600)) == 0);
  const auto handler = std::make_shared<ScriptedHandler>(echo);
  const auto runtime = Runtime::create({1, 1, 1});
  const auto start = [&](const std::string& host, unsigned mode = 0660) {
    HttpServerOptions options;
    options.host = host;
    options.unix_mode = mode;
    return HttpServer::start(handler, runtime, options);
  };
  CHECK(start("unix:").error().reason == "invalid_address");
  CHECK(start("unix:relative.sock").error().reason == "invalid_address");
  CHECK(start("unix:/" + std::string(200, 'x')).error().reason == "invalid_address");
  CHECK(start("unix:/nowhere/at/all.sock").error().reason == "address_not_available");
  CHECK(start("unix:" + file).error().reason == "address_in_use");
  CHECK(start("unix:" + directory.path() + "/x.sock", 01777).error().field == "unix_mode");
  struct stat info {};
  CHECK((::stat(file.c_str(), &info) == 0 && S_ISREG(info.st_mode)));
}

TEST_CASE("TLS over a socket file, and proxies behind it are trusted as 127.0.0.1") {
  ScratchDirectory directory;
  const std::string path = directory.file("gateway.sock");
  HttpServerOptions options;
  options.host = "unix:" + path;
  options.trusted_proxies = {"127.0.0.1"};
  const Site site(echo, options);
  const int fd = connect_to(path);
  REQUIRE(fd >= 0);
  const std::string answer =
      ask(fd, get("/", "Connection: close\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n"));
  CHECK(answer.find("X-Address: 1.1.1.1\r\n") != std::string::npos);
  CHECK(answer.find("X-Tls: yes\r\n") != std::string::npos);
}

TEST_CASE("sockets of somebody else are taken over, or refused and closed") {
  int port = 0;
  int other_port = 0;
  HttpServerOptions options;
  options.host = "ignored";
  options.sockets = {listening_socket(port), listening_socket(other_port)};
  const std::vector<int> fds = options.sockets;
  {
    const Site site(echo, options);
    CHECK(site.server->port() == port);
    CHECK(site.server->loopback_only());
    for (const int at : {port, other_port}) {
      RawClient client(at);
      client.send(get());
      CHECK(client.read()->status == 200);
    }
    CHECK((::fcntl(fds[0], F_GETFD) & FD_CLOEXEC) != 0);
  }
  for (const int fd : fds) CHECK(::fcntl(fd, F_GETFD) < 0);

  const auto handler = std::make_shared<ScriptedHandler>(echo);
  const auto runtime = Runtime::create({1, 1, 1});
  options.sockets = {listening_socket(port), ::socket(AF_INET, SOCK_STREAM, 0)};
  CHECK(HttpServer::start(handler, runtime, options).error().reason == "invalid_sockets");
  for (const int fd : options.sockets) CHECK(::fcntl(fd, F_GETFD) < 0);
  options.sockets = {::socket(AF_INET, SOCK_DGRAM, 0)};
  CHECK(HttpServer::start(handler, runtime, options).error().reason == "invalid_sockets");
  options.sockets = {::open("/dev/null", O_RDONLY)};
  CHECK(HttpServer::start(handler, runtime, options).error().reason == "invalid_sockets");
  options.sockets = {listening_socket(port)};
  options.max_connections = 0;
  CHECK_FALSE(HttpServer::start(handler, runtime, options));
  CHECK(::fcntl(options.sockets[0], F_GETFD) < 0);
}

TEST_CASE("LISTEN_FDS and LISTEN_PID") {
  const auto with = [](const std::string& pid, const char* fds) {
    ::setenv("LISTEN_PID", pid.c_str(), 1);
    ::setenv("LISTEN_FDS", fds, 1);
    return HttpServer::inherited_sockets();
  };
  const std::string me = std::to_string(::getpid());
  auto none = HttpServer::inherited_sockets();
  REQUIRE(none);
  CHECK(none->empty());
  auto others = with("1", "1");
  REQUIRE(others);
  CHECK(others->empty());
  CHECK(::getenv("LISTEN_FDS") == nullptr);
  CHECK(with(me, "0")->empty());
  for (const char* bad : {"", "-1", "x", "1x", "65", "99999999999"})
    CHECK(with(me, bad).error().reason == "invalid_sockets");
  CHECK(with("x", "1").error().reason == "invalid_sockets");
  CHECK(::getenv("LISTEN_PID") == nullptr);
  // Descriptor 3 is whatever it is here: keep it, put a listening socket there, and put it back.
  const int kept = ::fcntl(3, F_DUPFD_CLOEXEC, 100);
  int port = 0;
  const int made = listening_socket(port);
  REQUIRE(::dup2(made, 3) == 3);
  if (made != 3) ::close(made);
  auto ours = with(me, "1");
  REQUIRE(ours);
  CHECK(*ours == std::vector<int>{3});
  CHECK((::fcntl(3, F_GETFD) & FD_CLOEXEC) != 0);
  ::close(3);
  CHECK(with(me, "1").error().reason == "invalid_sockets");
  if (kept >= 0) {
    ::dup2(kept, 3);
    ::close(kept);
  }
}

TEST_CASE("R40 one server follows another on a socket that lives on: no connection is lost") {
  int port = 0;
  const int socket = listening_socket(port);
  const auto serve = [&] {
    HttpServerOptions options;
    options.sockets = {::fcntl(socket, F_DUPFD_CLOEXEC, 0)};
    return std::make_unique<Site>(echo, options);
  };
  std::atomic<bool> done{false};
  std::atomic<int> answered{0};
  std::atomic<int> lost{0};
  auto site = serve();
  std::vector<std::thread> clients;
  for (int t = 0; t < 4; ++t)
    clients.emplace_back([&] {
      while (!done) {
        RawClient client(port);
        const bool sent = client.connected() && client.send(last_get());
        const auto answer = sent ? client.read() : std::nullopt;
        ++(answer && answer->status == 200 && answer->complete ? answered : lost);
      }
    });
  for (int generation = 0; generation < 10; ++generation) {
    const int before = answered;
    CHECK(eventually([&] { return answered > before + 20; }));
    auto next = serve();
    site->server->drain(std::chrono::seconds(5));
    site->server->stop();
    site = std::move(next);
  }
  done = true;
  for (auto& thread : clients) thread.join();
  CHECK(answered > 200);
  CHECK(lost == 0);
  ::close(socket);
}

TEST_CASE("drain waits for connections just accepted, but not for ever") {
  Site site(echo);
  RawClient silent = site.connect();
  RawClient speaking = site.connect();
  CHECK(eventually([&] { return site.server->statistics().connections == 2; }));
  std::thread late([&] {
    // Draining has begun when nobody can connect any more.
    CHECK(eventually([&] { return !RawClient(site.server->port()).connected(); }));
    speaking.send(get());
    const auto answer = speaking.read();
    REQUIRE(answer);
    CHECK(answer->status == 200);
    CHECK(answer->header("Connection") == "close");
  });
  const auto begun = std::chrono::steady_clock::now();
  site.server->drain(std::chrono::seconds(30));
  late.join();
  CHECK(silent.ended());
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(20));
}

TEST_CASE("a port may be shared only when both ask for it") {
  const auto handler = std::make_shared<ScriptedHandler>(echo);
  const auto runtime = Runtime::create({1, 1, 1});
  HttpServerOptions options;
  options.reuse_port = true;
  const auto first = HttpServer::start(handler, runtime, options);
  REQUIRE(first);
  options.port = (*first)->port();
  const auto second = HttpServer::start(handler, runtime, options);
  REQUIRE(second);
  CHECK((*second)->port() == (*first)->port());
  options.reuse_port = false;
  CHECK(HttpServer::start(handler, runtime, options).error().reason == "address_in_use");
  for (int i = 0; i < 20; ++i) {
    RawClient client(options.port);
    client.send(get());
    CHECK(client.read()->status == 200);
  }
}
