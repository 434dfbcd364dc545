// Clients that misbehave in numbers: others are served meanwhile, and nothing is left behind.
#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <thread>

#include "unit/server_support.hpp"
#include "unit/websocket_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // allocators that keep what is freed, and a tenth of the speed
#else
constexpr bool kSanitized = false;
#endif

std::size_t descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++count;
  }
  return count;
}

/// A well-behaved client that is served all the time; the longest wait for an answer is its finding.
class Bystander {
 public:
  explicit Bystander(const Site& site) : client_(site.connect()), thread_([this] { run(); }) {}
  std::chrono::milliseconds finish() {
    done_ = true;
    thread_.join();
    CHECK(failed_ == 0);
    CHECK(served_ > 0);
    return std::chrono::duration_cast<std::chrono::milliseconds>(longest_);
  }

 private:
  void run() {
    do {
      const auto begun = std::chrono::steady_clock::now();
      client_.send(post("ping"));
      const auto answer = client_.read();
      ++(answer && answer->body == "ping" ? served_ : failed_);
      longest_ = std::max(longest_, std::chrono::steady_clock::now() - begun);
    } while (!done_ && failed_ == 0);
  }

  RawClient client_;
  std::atomic<bool> done_{false};
  int served_ = 0;
  int failed_ = 0;
  std::chrono::steady_clock::duration longest_{};
  std::thread thread_;
};

/// The server under test: `/hold` is never answered, `/stream` is fed until its client goes, `/ws` is a
/// WebSocket.
void serve(HttpRequest request, std::shared_ptr<Responder> responder) {
  if (request.target == "/hold") return responder->on_disconnect([held = responder] { (void)held; });
  if (request.target == "/stream") {
    const auto stream = responder->start(text("first"));
    for (int i = 0; i < 8 && stream->write(std::string(10000, 'x')); ++i) {
    }
    return responder->on_disconnect([stream] { (void)stream; });
  }
  if (request.target == "/ws") {
    auto socket = std::make_shared<std::shared_ptr<WebSocket>>();
    WebSocketOptions options;
    options.on_text = [socket](std::string message) { (*socket)->send_text(std::move(message)); };
    options.on_close = [socket](int) { socket->reset(); };
    *socket = responder->accept_websocket(std::move(options));
    return;
  }
  responder->send(text(std::move(request.body)));
}

}  // namespace

TEST_CASE("a hundred thousand connections come and go in every state, and nothing stays") {
  const Site site(serve);
  const int cycles = kSanitized ? 2000 : 100000;
  std::mt19937 random(20260104);
  const auto cycle = [&](unsigned kind) {
    RawClient client = site.connect();
    REQUIRE(client.connected());
    switch (kind) {
      case 0:
        break;
      case 1:
        client.send("GET /hold HTTP/1.1\r\nHo");
        break;
      case 2:
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + std::string(3000, 'x'));
        break;
      case 3:
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nxx");
        break;
      case 4:
        client.send(get("/hold"));
        break;
      case 5:
        client.send(get("/stream"));
        break;
      case 6:
        client.send(upgrade_request() + client_frame(WebSocketOpcode::text, "x"));
        break;
      case 7:
        client.send(post("x") + get("/hold") + get());
        CHECK(client.read()->body == "x");
        break;
      case 8:
        client.send("nonsense\r\n\r\n");
        break;
      default:
        client.send(get("/hold"));
        client.finish_sending();
        break;
    }
    // A FIN now and then: each costs a port for a minute.
    if (random() % 16 != 0) client.reset();
  };
  const auto settled = [&] { return site.server->statistics().connections == 1; };
  Bystander bystander(site);
  CHECK(eventually(settled));
  const std::size_t fds = descriptors();
  for (int i = 0; i < cycles / 10; ++i) cycle(static_cast<unsigned>(i) % 10);
  CHECK(eventually(settled));
  const std::size_t memory = resident_kib();
  for (int i = 0; i < cycles; ++i) cycle(random() % 10);
  CHECK(eventually(settled));
  // Closed sockets leave the count of connections before they leave the process.
  CHECK(eventually([&] { return descriptors() <= fds; }));
  if (!kSanitized) CHECK(resident_kib() < memory + 4 * 1024);
  CHECK(bystander.finish() < std::chrono::seconds(kSanitized ? 20 : 5));
}

TEST_CASE("slow-loris: a thousand clients that drip headers and bodies") {
  HttpServerOptions options;
  options.request_timeout = std::chrono::milliseconds(1500);
  const Site site(serve, options);
  std::vector<RawClient> slow;
  for (int i = 0; i < (kSanitized ? 200 : 1000); ++i) {
    slow.push_back(site.connect());
    slow.back().send(i % 2 == 0
                         ? "GET / HTTP/1.1\r\nX-A: "
                         : "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1000000\r\n");
  }
  Bystander bystander(site);
  // Each byte is progress, none of it buys time.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  std::size_t open = slow.size();
  while (open != 0 && std::chrono::steady_clock::now() < end) {
    open = 0;
    for (RawClient& client : slow)
      if (!client.readable(0)) {
        client.send("a");
        ++open;
      }
  }
  CHECK(open == 0);
  CHECK(bystander.finish() < std::chrono::seconds(kSanitized ? 20 : 3));
  for (RawClient& client : slow) {
    const auto answer = client.read();
    REQUIRE(answer);
    CHECK(answer->status >= 400);  // 408; or 400 and 413 when what dripped was wrong first
    CHECK(answer->status < 500);
  }
}

TEST_CASE("header and pipeline floods: bounded memory, others are served") {
  const Site site(serve);
  Bystander bystander(site);
  const std::size_t before = resident_kib();
  std::string headers = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 1000; ++i) headers += "X-" + std::to_string(i) + ": " + std::string(50, 'x') + "\r\n";
  std::string requests;
  for (int i = 0; i < 2000; ++i) requests += get("/");
  std::vector<std::thread> floods;
  for (int t = 0; t < 4; ++t)
    floods.emplace_back([&, t] {
      for (int i = 0; i < (kSanitized ? 20 : 100); ++i) {
        RawClient client = site.connect();
        if (t % 2 == 0) {
          client.send(headers);
          CHECK(client.read()->status == 431);
        } else {
          // Many requests whose answers nobody reads.
          const timeval patience{0, 50000};
          ::setsockopt(client.fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
          for (int k = 0; k < 20 && client.send(requests); ++k) {
          }
        }
        client.reset();
      }
    });
  for (auto& thread : floods) thread.join();
  CHECK(bystander.finish() < std::chrono::seconds(kSanitized ? 20 : 5));
  CHECK(eventually([&] { return site.server->statistics().connections == 1; }));
  if (!kSanitized) CHECK(resident_kib() < before + 64 * 1024);
}

TEST_CASE("resets in the middle of bodies, both ways") {
  const Site site(serve);
  Bystander bystander(site);
  for (int i = 0; i < (kSanitized ? 50 : 300); ++i) {
    RawClient upload = site.connect();
    upload.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + std::string(100000, 'x'));
    upload.reset();
    RawClient download = site.connect(4096);
    download.send(post(std::string(500000, 'y')));
    download.readable(1000);
    download.reset();
  }
  CHECK(bystander.finish() < std::chrono::seconds(kSanitized ? 20 : 5));
  CHECK(eventually([&] { return site.server->statistics().connections == 1; }));
}
