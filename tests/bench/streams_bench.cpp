// Ten thousand open event streams in one process, fed by one writer: memory a stream and how long an event to
// all takes. The clients are another process, so that only the server is measured.
//   streams_bench [streams, default 10000]
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mcpgw/server.hpp"

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kEvents = 20;
constexpr const char* kEvent =
    "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

class Streams final : public mcpgw::RequestHandler {
 public:
  void handle_async(mcpgw::HttpRequest, std::shared_ptr<mcpgw::Responder> responder) override {
    mcpgw::HttpResponse head;
    head.headers = {{"Content-Type", "text/event-stream"}, {"Cache-Control", "no-store"}};
    auto stream = responder->start(std::move(head));
    const std::lock_guard lock(mutex_);
    open_.push_back(std::move(stream));
  }
  std::size_t count() {
    const std::lock_guard lock(mutex_);
    return open_.size();
  }
  std::size_t send() {
    const std::lock_guard lock(mutex_);
    std::size_t taken = 0;
    for (const auto& stream : open_) taken += stream->write(kEvent) ? 1 : 0;
    return taken;
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<mcpgw::ResponseStream>> open_;
};

double resident_kib() {
  unsigned long size = 0;
  unsigned long resident = 0;
  FILE* in = std::fopen("/proc/self/statm", "r");
  if (in == nullptr || std::fscanf(in, "%lu %lu", &size, &resident) != 2) resident = 0;
  if (in != nullptr) std::fclose(in);
  return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024;
}

double milliseconds_since(Clock::time_point begun) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
}

/// The clients: opens `count` streams, then reports each event that all of them have got by one byte.
int read_streams(int port_in, int report, int count) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  int port = 0;
  if (::read(port_in, &port, sizeof port) != sizeof port) return 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int poller = ::epoll_create1(0);
  const std::string request = "GET /mcp HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
  for (int i = 0; i < count; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return 2;
    if (::send(fd, request.data(), request.size(), 0) != static_cast<ssize_t>(request.size())) return 3;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) return 4;
  }
  // A line that only events have: counted by its first letters, which never come in two parts here.
  long events = 0;
  std::vector<epoll_event> ready(1024);
  std::vector<char> buffer(65536);
  for (;;) {
    const int n = ::epoll_wait(poller, ready.data(), static_cast<int>(ready.size()), -1);
    for (int i = 0; i < n; ++i) {
      const ssize_t got = ::recv(ready[static_cast<std::size_t>(i)].data.fd, buffer.data(), buffer.size(), 0);
      if (got <= 0) return 5;
      const std::string_view text(buffer.data(), static_cast<std::size_t>(got));
      for (std::size_t at = 0; (at = text.find("event: ", at)) != std::string_view::npos; at += 7)
        if (++events % count == 0 && ::write(report, "x", 1) != 1) return 6;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 10000;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < static_cast<rlim_t>(count) + 100) {
    std::fprintf(stderr, "%d streams need a higher limit of open files (ulimit -n)\n", count);
    return 1;
  }
  int to_clients[2];
  int from_clients[2];
  if (::pipe(to_clients) != 0 || ::pipe(from_clients) != 0) return 1;
  const pid_t clients = ::fork();  // before any thread
  if (clients == 0) ::_exit(read_streams(to_clients[0], from_clients[1], count));
  const auto handler = std::make_shared<Streams>();
  mcpgw::HttpServerOptions options;
  options.max_connections = static_cast<std::size_t>(count) + 10;
  auto server = mcpgw::HttpServer::start(handler, mcpgw::Runtime::create(), options);
  if (!server) {
    std::fprintf(stderr, "%s\n", server.error().message.c_str());
    return 1;
  }
  const double before = resident_kib();
  const auto begun = Clock::now();
  const int port = (*server)->port();
  if (::write(to_clients[1], &port, sizeof port) != sizeof port) return 1;
  while (handler->count() < static_cast<std::size_t>(count)) {
    if (::waitpid(clients, nullptr, WNOHANG) != 0 || milliseconds_since(begun) > 60000) {
      std::fprintf(stderr, "the clients could not connect\n");
      return 1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const double opened = milliseconds_since(begun);
  std::vector<double> times;
  for (int i = 0; i < kEvents; ++i) {
    const auto sent = Clock::now();
    if (handler->send() != static_cast<std::size_t>(count)) return 1;
    pollfd wait{from_clients[0], POLLIN, 0};
    char byte = 0;
    if (::poll(&wait, 1, 60000) != 1 || ::read(from_clients[0], &byte, 1) != 1) return 1;
    times.push_back(milliseconds_since(sent));
  }
  const double each = (resident_kib() - before) / count;
  double sum = 0;
  double worst = 0;
  for (const double time : times) {
    sum += time;
    worst = std::max(worst, time);
  }
  std::printf(
      "%d streams: opened in %.0f ms, %.2f KiB of memory each, an event to all in %.1f ms (worst %.1f ms)\n",
      count, opened, each, sum / kEvents, worst);
  (*server)->stop();
  ::kill(clients, SIGKILL);
  ::waitpid(clients, nullptr, 0);
  return each <= 2.0 ? 0 : 2;
}
