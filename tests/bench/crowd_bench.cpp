// A crowd at one gateway: thousands of sessions with an open stream each, a thousand calls that wait for a
// slow upstream, and one client who works on. Prints how many threads and how much memory that takes, how
// long an event to all takes, and what the working client notices. Exit code 2: one of the bounds below was
// passed.
//   crowd_bench [streams, default 10000] [waiting calls, default 1000]
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <thread>
#include <vector>

#include "mcpgw/server.hpp"
#include "mcpgw/testing.hpp"
#include "unit/server_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

using Steady = std::chrono::steady_clock;

constexpr int kEvents = 10;
constexpr int kCalls = 2000;
#ifdef NDEBUG
constexpr double kMaxEventMs = 1000;
#else
constexpr double kMaxEventMs = 60000;
#endif
constexpr const char* kList = R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})";
constexpr const char* kWait =
    R"({"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"busy_slow"}})";
constexpr const char* kEcho =
    R"({"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"quick_echo","arguments":{"text":"x"}}})";

double milliseconds_since(Steady::time_point begun) {
  return std::chrono::duration<double, std::milli>(Steady::now() - begun).count();
}

std::string request(const std::string& method, const std::string& token, const std::string& session,
                    const std::string& body = {}) {
  return method +
         " /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: application/json, "
         "text/event-stream\r\nAuthorization: Bearer " +
         token + "\r\n" + (session.empty() ? "" : "Mcp-Session-Id: " + session + "\r\n") +
         (method == "GET" ? "\r\n" : "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
}

std::string open_session(RawClient& client, const std::string& token) {
  client.send(request(
      "POST", token, {},
      R"({"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"crowd","version":"1"}}})"));
  const auto hello = client.read();
  if (!hello || hello->status != 200)
    throw std::runtime_error("initialize failed" + (hello ? ": " + hello->line + hello->body : ""));
  return hello->header("Mcp-Session-Id");
}

std::string ask(RawClient& client, const std::string& token, const std::string& session, const char* body) {
  client.send(request("POST", token, session, body));
  const auto answer = client.read();
  if (!answer || answer->status != 200)
    throw std::runtime_error("a request failed: " +
                             (answer ? answer->line + answer->body : "no answer in time"));
  return answer->body;
}

struct Order {  // what the clients are told
  int port;
  int streams;
  int waiting;
  char token[2000];
};

/// The crowd, in a process of its own: one byte when all streams and calls are open, then one for each event
/// that every stream has got.
int crowd(int orders, int report) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Order order{};
  if (::read(orders, &order, sizeof order) != sizeof order) return 1;
  const std::string token = order.token;
  std::vector<RawClient> streams;
  std::vector<RawClient> calls;
  for (int i = 0; i < order.streams; ++i) {
    streams.emplace_back(order.port);
    const std::string session = open_session(streams.back(), token);
    ask(streams.back(), token, session, kList);
    streams.back().send(request("GET", token, session));
    if (streams.back().read_head().status != 200) return 2;
    if (i >= order.waiting) continue;
    calls.emplace_back(order.port);
    calls.back().send(request("POST", token, session, kWait));
  }
  if (::write(report, "x", 1) != 1) return 3;
  for (;;) {
    for (RawClient& stream : streams) {
      std::optional<std::string> piece;
      do {  // comments come in between
        piece = stream.chunk();
        if (!piece || piece->empty()) return 4;
      } while (piece->find("notifications/message") == std::string::npos);
    }
    if (::write(report, "x", 1) != 1) return 5;
  }
}

/// Median and 99th percentile of a call's time, in milliseconds.
std::pair<double, double> work(RawClient& client, const std::string& token, const std::string& session) {
  std::vector<double> times;
  for (int i = 0; i < kCalls; ++i) {
    const auto begun = Steady::now();
    ask(client, token, session, kEcho);
    times.push_back(milliseconds_since(begun));
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[times.size() * 99 / 100]};
}

bool await_byte(int fd, int milliseconds) {
  pollfd wait{fd, POLLIN, 0};
  char byte = 0;
  return ::poll(&wait, 1, milliseconds) == 1 && ::read(fd, &byte, 1) == 1;
}

std::size_t threads() {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                                                std::filesystem::directory_iterator()));
}

}  // namespace

int main(int argc, char** argv) {
  Order order{};
  order.streams = argc > 1 ? std::atoi(argv[1]) : 10000;
  order.waiting = std::min(argc > 2 ? std::atoi(argv[2]) : 1000, order.streams);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < static_cast<rlim_t>(order.streams + order.waiting + 200)) {
    std::fprintf(stderr, "a higher limit of open files is needed (ulimit -n)\n");
    return 1;
  }
  int to_crowd[2];
  int from_crowd[2];
  if (::pipe(to_crowd) != 0 || ::pipe(from_crowd) != 0) return 1;
  const pid_t clients = ::fork();  // before any thread
  if (clients == 0) {
    try {
      ::_exit(crowd(to_crowd[0], from_crowd[1]));
    } catch (const std::exception& fault) {
      std::fprintf(stderr, "a client: %s\n", fault.what());
      ::_exit(6);
    }
  }

  InProcessOptions options;
  const auto many = static_cast<std::size_t>(order.streams) * 2 + 100;
  options.gateway.session.max_per_user = many;
  options.gateway.session.max_streams_per_user = many;
  options.gateway.limits.max_in_flight = many;
  options.gateway.audit.queue_max = 100000;
  InProcessGateway gw(options);
  const auto quick = std::make_shared<FakeUpstream>();
  quick->add_tool("echo", [](const FakeUpstream::Call&) { return FakeUpstream::text("x"); });
  const auto busy = std::make_shared<FakeUpstream>();
  busy->add_tool("slow", [](const FakeUpstream::Call&) { return FakeUpstream::text("x"); });
  busy->hang("tools/call");
  for (const auto& [name, fake] : {std::pair{"quick", quick}, std::pair{"busy", busy}}) {
    Target target;  // of HTTP kind: one connection carries many calls at once
    target.name = name;
    target.transport_type = TransportType::streamable_http;
    target.url = "http://" + target.name + ".invalid/mcp";
    gw.add_upstream(target, fake);
    gw.allow("alice", name);
  }
  const std::string token = gw.as("alice").token();
  HttpServerOptions shell;
  shell.max_connections = many;
  const auto server = HttpServer::start(gw.gateway().shared_from_this(), shell);
  if (!server || token.size() >= sizeof order.token) return 1;
  order.port = (*server)->port();
  token.copy(order.token, token.size());

  RawClient worker(order.port);
  const std::string session = open_session(worker, token);
  work(worker, token, session);
  const auto alone = work(worker, token, session);
  const double before = static_cast<double>(resident_kib());
  const std::size_t threads_before = threads();  // the scripted servers' and the test gateway's too
  if (::write(to_crowd[1], &order, sizeof order) != sizeof order) return 1;
  if (!await_byte(from_crowd[0], 300000)) {
    std::fprintf(stderr, "the crowd did not get in\n");
    return 1;
  }
  const double each = (static_cast<double>(resident_kib()) - before) / order.streams;
  const std::size_t busy_threads = threads();
  std::vector<double> times;
  for (int i = 0; i < kEvents; ++i) {
    const auto sent = Steady::now();
    quick->notify("notifications/message", R"({"level":"error","data":"to all"})");
    if (!await_byte(from_crowd[0], 60000)) {
      std::fprintf(stderr, "an event did not reach all\n");
      return 1;
    }
    times.push_back(milliseconds_since(sent));
  }
  const double worst = *std::max_element(times.begin(), times.end());
  const auto crowded = work(worker, token, session);
  std::printf(
      "%d sessions with a stream, %d calls waiting: %zu threads (%zu before them), %.1f KiB each, an event "
      "to all in at most "
      "%.0f ms\n",
      order.streams, order.waiting, busy_threads, threads_before, each, worst);
  std::printf("a call meanwhile: p50 %.3f ms, %.2f times that without them; p99 %.3f ms, %.2f times\n",
              crowded.first, crowded.first / alone.first, crowded.second, crowded.second / alone.second);
  ::kill(clients, SIGKILL);
  ::waitpid(clients, nullptr, 0);
  (*server)->stop();
  return busy_threads <= threads_before && worst <= kMaxEventMs ? 0 : 2;
}
