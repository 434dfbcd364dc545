// A connect that is refused is tried once more: nothing of the request was sent.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "../support/on_loop.hpp"
#include "../support/scripted_server.hpp"
#include "runtime/http_client.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace mcpgw::testing;
using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

std::atomic<int> port_to_refuse{0};
std::atomic<int> refusals_left{0};
std::atomic<int> connects{0};
std::atomic<int> refuse_with{ECONNREFUSED};
std::atomic<steady_clock::time_point> refuse_at{};

struct Outcome {
  int status = 0;
  std::string reason;
  std::string detail;
};

Outcome post_to(const std::shared_ptr<Runtime>& runtime, const std::string& url, SteadyTime deadline,
                CancelSource* cancel = nullptr) {
  HttpClientOptions options;
  options.allow_private = true;
  const auto client = *HttpClient::create(runtime, options);
  return on_loop<Outcome>(*runtime, [&]() -> Task<Outcome> {
    ClientRequest request;
    request.method = "POST";
    request.url = *parse_url(url);
    request.body = "{}";
    request.deadline = deadline;
    Outcome out;
    auto exchange = co_await client->send(std::move(request), cancel, &out.detail);
    if (!exchange) {
      out.reason = exchange.error().reason;
      co_return out;
    }
    out.status = (*exchange)->status;
    (void)co_await (*exchange)->read_all(1024);
    co_return out;
  });
}

struct Fixture {
  std::shared_ptr<Runtime> runtime = Runtime::create({.loops = 1, .workers = 1});
  std::atomic<int> requests{0};
  ScriptedServer server{[this](Peer& peer, int) {
    while (!peer.read_request().empty()) {
      ++requests;
      peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    }
  }};
  explicit Fixture(int refusals, int with = ECONNREFUSED) {
    connects = 0;
    refuse_with = with;
    refusals_left = refusals;
    port_to_refuse = server.port();
  }
  ~Fixture() { port_to_refuse = 0; }
  Outcome post(SteadyTime deadline = steady_clock::now() + 20s, CancelSource* cancel = nullptr) {
    return post_to(runtime, server.url("/mcp"), deadline, cancel);
  }
};

}  // namespace

// Takes the place of the C library's, for one port.
extern "C" int connect(int fd, const sockaddr* address, socklen_t length) {
  using Real = int (*)(int, const sockaddr*, socklen_t);
  static const Real real = reinterpret_cast<Real>(::dlsym(RTLD_NEXT, "connect"));
  if (address->sa_family == AF_INET && port_to_refuse != 0 &&
      ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port) == port_to_refuse) {
    ++connects;
    if (refusals_left > 0) {
      --refusals_left;
      std::this_thread::sleep_until(refuse_at.load());
      errno = refuse_with;
      return -1;
    }
  }
  return real(fd, address, length);
}

TEST_CASE("refused once: tried again after a moment, and the request is sent once") {
  Fixture f(1);
  const auto from = steady_clock::now();
  CHECK(f.post().status == 200);
  CHECK(steady_clock::now() - from >= 200ms);
  CHECK(connects == 2);
  CHECK(f.requests == 1);
}

TEST_CASE("refused twice: told, and not tried a third time") {
  Fixture f(2);
  const Outcome out = f.post();
  CHECK(out.reason == "upstream_unreachable");
  CHECK(out.detail.find("Connection refused") != std::string::npos);
  CHECK(connects == 2);
  CHECK(f.requests == 0);
}

TEST_CASE("another failure of connecting is told at once") {
  Fixture f(1, ENETUNREACH);
  CHECK(f.post().reason == "upstream_unreachable");
  CHECK(connects == 1);
}

TEST_CASE("a request whose time ends before the second try is told at once") {
  // On a very slow machine its time has ended by the time that the refusal is looked at, which says nothing.
  bool told = false;
  for (int round = 0; round < 5 && !told; ++round) {
    Fixture f(1);
    const auto deadline = steady_clock::now() + 2s;
    refuse_at = deadline - 150ms;  // the second try would come after 200
    told = f.post(deadline).reason == "upstream_unreachable" && steady_clock::now() < deadline;
    refuse_at = steady_clock::time_point();
    CHECK(connects <= 1);
    CHECK(f.requests == 0);
  }
  CHECK(told);
}

TEST_CASE("cancelled before the second try: there is none") {
  Fixture f(2);
  CancelSource cancel;
  std::thread canceller([&] {
    while (connects == 0) std::this_thread::yield();
    cancel.cancel();
  });
  const Outcome out = f.post(steady_clock::now() + 20s, &cancel);
  canceller.join();
  // On a very slow machine the second refusal may come first.
  CHECK((out.reason == "cancelled" || connects == 2));
  CHECK(f.requests == 0);
}
