// WebSockets through the server: the seam that handlers see.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "unit/server_support.hpp"
#include "unit/websocket_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

class WebSocketClient : public RawClient {
 public:
  explicit WebSocketClient(const Site& site, int receive_buffer = 0, std::string_view more = {})
      : RawClient(site.port(), receive_buffer) {
    send(upgrade_request("/ws", more));
  }
  /// The 101 and its headers.
  RawAnswer greeting() { return read_head(); }
  bool say(std::string_view text) { return send(client_frame(WebSocketOpcode::text, text)); }
  std::optional<ServerFrame> frame() {
    auto out = read_server_frame(*this);
    if (out) {
      CHECK_FALSE(out->reserved);
      CHECK_FALSE(out->masked);
    }
    return out;
  }
  std::string text() {
    const auto got = frame();
    return got && got->opcode == WebSocketOpcode::text ? got->payload : "(no text)";
  }
  /// The code of the close frame that comes next; 1006: the connection broke.
  int closed() {
    const auto got = frame();
    return !got ? 1006 : got->opcode == WebSocketOpcode::close ? got->code() : 0;
  }
};

/// What a handler under test keeps of one WebSocket.
struct Held {
  std::shared_ptr<WebSocket> socket;
  Mailbox<std::string> texts;
  Mailbox<int> closed;
};

/// The callbacks own what they write to, until the socket is over.
WebSocketOptions holding(const std::shared_ptr<Held>& held) {
  WebSocketOptions options;
  options.on_text = [held](std::string text) { held->texts.put(std::move(text)); };
  options.on_close = [held](int code) { held->closed.put(code); };
  return options;
}

/// Accepts the next upgrade of `site`.
std::shared_ptr<Held> accept(const Site& site, WebSocketOptions limits = {}) {
  auto held = std::make_shared<Held>();
  const Asked asked = site.asked();
  WebSocketOptions options = holding(held);
  options.max_message = limits.max_message;
  options.max_queued_bytes = limits.max_queued_bytes;
  options.max_queued_messages = limits.max_queued_messages;
  held->socket = asked.responder->accept_websocket(std::move(options));
  REQUIRE(held->socket);
  return held;
}

void echo_socket(HttpRequest request, std::shared_ptr<Responder> responder) {
  const int refusal = websocket_refusal(request);
  if (refusal != 0) {
    HttpResponse response = text("refused", refusal);
    if (refusal == 426) response.headers.emplace_back("Upgrade", "websocket");
    return responder->send(std::move(response));
  }
  auto socket = std::make_shared<std::shared_ptr<WebSocket>>();
  WebSocketOptions options;
  options.headers = {{"X-Request-Id", "abc"}, {"Connection", "close"}};
  options.on_text = [socket](std::string message) { (*socket)->send_text("echo " + message); };
  options.on_close = [socket](int) { socket->reset(); };
  *socket = responder->accept_websocket(std::move(options));
}

}  // namespace

TEST_CASE("a connection becomes a WebSocket, and messages go both ways") {
  const Site site(echo_socket);
  WebSocketClient client(site);
  const RawAnswer answer = client.greeting();
  CHECK(answer.line == "HTTP/1.1 101 Switching Protocols");
  CHECK(answer.header("Upgrade") == "websocket");
  CHECK(answer.header("Connection") == "Upgrade");
  CHECK(answer.header("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  CHECK(answer.header("Sec-WebSocket-Extensions") == "(none)");
  CHECK(answer.header("X-Request-Id") == "abc");
  CHECK(answer.header("Content-Length") == "(none)");
  client.say("one");
  client.send(client_frame(WebSocketOpcode::text, "tw", {.final = false}) +
              client_frame(WebSocketOpcode::ping, "beat") + client_frame(WebSocketOpcode::continuation, "o"));
  CHECK(client.text() == "echo one");
  const auto pong = client.frame();
  REQUIRE(pong);
  CHECK(pong->opcode == WebSocketOpcode::pong);
  CHECK(pong->payload == "beat");
  CHECK(client.text() == "echo two");
  client.send(client_close(1000, "bye"));
  CHECK(client.closed() == 1000);
  CHECK(client.ended());
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}

TEST_CASE("frames right behind the handshake, and a handshake behind a request") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    if (request.target == "/ws") return echo_socket(std::move(request), std::move(responder));
    responder->send(text("plain"));
  });
  RawClient first = site.connect();
  first.send(get("/plain"));
  CHECK(first.read()->body == "plain");
  WebSocketClient client(site, 0);
  client.say("early");
  CHECK(client.greeting().status == 101);
  CHECK(client.text() == "echo early");
  RawClient pipelined = site.connect();
  pipelined.send(get("/plain") + upgrade_request() + client_frame(WebSocketOpcode::text, "x"));
  CHECK(pipelined.read()->body == "plain");
  CHECK(pipelined.read_head().status == 101);
  std::string bytes;
  CHECK(pipelined.take_bytes(8, bytes));
  CHECK(bytes ==
        "\x81\x06"
        "echo x");
}

TEST_CASE("an upgrade that is accepted late, by another thread, with frames waiting") {
  const Site site;
  WebSocketClient client(site);
  client.say("waiting");
  const Asked asked = site.asked();
  auto held = std::make_shared<Held>();
  std::thread other([&] {
    held->socket = asked.responder->accept_websocket(holding(held));
    CHECK(held->socket->send_text("hello"));
  });
  other.join();
  CHECK(client.greeting().status == 101);
  CHECK(client.text() == "hello");
  CHECK(held->texts.get() == "waiting");
  held->socket->close(4001, "enough");
  const auto last = client.frame();
  REQUIRE(last);
  CHECK(last->code() == 4001);
  CHECK(last->payload.substr(2) == "enough");
  CHECK(held->closed.get() == 4001);
  CHECK_FALSE(held->socket->send_text("late"));
  held->socket->close(1000);
  client.send(client_close(4001));
  CHECK(client.ended());
  CHECK(held->closed.empty());
}

TEST_CASE("what is no handshake is answered as a request") {
  const Site site(echo_socket);
  RawClient client = site.connect();
  client.send(get("/ws"));
  auto answer = client.read();
  REQUIRE(answer);
  CHECK(answer->status == 426);
  CHECK(answer->header("Upgrade") == "websocket");
  CHECK(answer->header("Connection") == "upgrade");
  client.send(get("/ws",
                  "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Key: short\r\n"));
  CHECK(client.read()->status == 400);
  // HTTP/1.0 has no upgrade.
  std::string old = upgrade_request();
  old.replace(old.find("HTTP/1.1"), 8, "HTTP/1.0");
  RawClient ancient = site.connect();
  ancient.send(old);
  CHECK(ancient.read()->status == 500);  // this handler relies on accept_websocket()

  const Site refusing([](HttpRequest, std::shared_ptr<Responder> responder) {
    CHECK(responder->accept_websocket({}) == nullptr);
    responder->send(text("still to be answered"));
  });
  RawClient plain = refusing.connect();
  plain.send(get());
  CHECK(plain.read()->body == "still to be answered");
}

TEST_CASE("answered twice: an accepted request stays a WebSocket, an answered one becomes none") {
  const Site site;
  WebSocketClient client(site);
  Asked asked = site.asked();
  auto held = std::make_shared<Held>();
  held->socket = asked.responder->accept_websocket(holding(held));
  REQUIRE(held->socket);
  asked.responder->send(text("again"));
  CHECK_FALSE(asked.responder->start(text("again"))->write("x"));
  CHECK(asked.responder->accept_websocket({}) == nullptr);
  CHECK(held->socket->send_text("one"));
  CHECK(client.greeting().status == 101);
  CHECK(client.text() == "one");
  WebSocketClient other(site);
  asked = site.asked();
  asked.responder->send(text("no"));
  CHECK(asked.responder->accept_websocket({}) == nullptr);
  CHECK(other.read()->body == "no");
}

TEST_CASE("violations close with their code") {
  const Site site;
  const auto outcome = [&](const std::string& bytes, WebSocketOptions limits = {}) {
    WebSocketClient client(site);
    const auto held = accept(site, std::move(limits));
    CHECK(client.greeting().status == 101);
    client.send(bytes);
    const int code = client.closed();
    CHECK(held->closed.get() == code);
    CHECK(client.ended());
    CHECK_FALSE(held->socket->send_text("x"));
    return code;
  };
  CHECK(outcome(client_frame(WebSocketOpcode::text, "a", {.masked = false})) == 1002);
  CHECK(outcome(client_frame(WebSocketOpcode::text, "a", {.reserved = 4})) == 1002);
  CHECK(outcome(client_frame(WebSocketOpcode::text, "\xff")) == 1007);
  CHECK(outcome(client_frame(WebSocketOpcode::binary, "a")) == 1003);
  WebSocketOptions small;
  small.max_message = 4096;
  CHECK(outcome(client_frame(WebSocketOpcode::text, std::string(4097, 'x')), small) == 1009);
  CHECK(outcome(client_frame(WebSocketOpcode::text, std::string(4096, 'x'), {.final = false}) +
                    client_frame(WebSocketOpcode::continuation, "x"),
                small) == 1009);
  CHECK(outcome("GET / HTTP/1.1\r\n\r\n") == 1002);
}

TEST_CASE("messages nobody listens to are read and ignored") {
  const Site site;
  WebSocketClient client(site);
  const auto socket = site.asked().responder->accept_websocket({});
  CHECK(client.greeting().status == 101);
  client.say("x");
  client.send(client_frame(WebSocketOpcode::binary, "\xff"));
  client.send(client_frame(WebSocketOpcode::ping, "p"));
  CHECK(client.frame()->opcode == WebSocketOpcode::pong);
  CHECK(socket->send_text("y"));
  CHECK(client.text() == "y");
}

TEST_CASE("the end of a client is reported once: closed, reset, gone before the answer") {
  const Site site;
  for (const bool hard : {false, true}) {
    CAPTURE(hard);
    WebSocketClient client(site);
    const auto held = accept(site);
    CHECK(client.greeting().status == 101);
    hard ? client.reset() : client.close();
    CHECK(held->closed.get() == 1006);
    CHECK(eventually([&] { return !held->socket->send_text("x"); }));
    CHECK(held->closed.empty());
  }
  WebSocketClient client(site);
  const Asked asked = site.asked();
  Mailbox<int> gone;
  asked.responder->on_disconnect([&] { gone.put(1); });
  client.close();
  CHECK(gone.get() == 1);
  auto held = std::make_shared<Held>();
  held->socket = asked.responder->accept_websocket(holding(held));
  CHECK(held->closed.get() == 1006);
  CHECK_FALSE(held->socket->send_text("x"));
}

TEST_CASE("dropping the last reference closes with 1001") {
  const Site site;
  WebSocketClient client(site);
  const auto held = accept(site);
  CHECK(held->socket->send_text("last words"));
  held->socket.reset();
  CHECK(client.greeting().status == 101);
  CHECK(client.text() == "last words");
  CHECK(client.closed() == 1001);
  CHECK(held->closed.get() == 1001);
}

TEST_CASE("R33 a client that does not read is closed with 1013, and others go on") {
  const Site site;
  WebSocketClient slow(site, 4096);
  WebSocketOptions limits;
  limits.max_queued_bytes = 256 * 1024;
  limits.max_queued_messages = 1000000;
  const auto held = accept(site, limits);
  CHECK(slow.greeting().status == 101);
  WebSocketClient quick(site);
  const auto other = accept(site);
  CHECK(quick.greeting().status == 101);
  std::size_t sent = 0;
  while (held->socket->send_text(std::string(8192, 'x'))) REQUIRE(++sent < 100000);
  CHECK(held->closed.get() == 1013);
  CHECK_FALSE(held->socket->send_text("more"));
  CHECK(other->socket->send_text("quick"));
  CHECK(quick.text() == "quick");
  // When it reads at last, it finds whole messages and then the reason.
  std::size_t got = 0;
  for (;;) {
    const auto frame = slow.frame();
    REQUIRE(frame);
    if (frame->opcode == WebSocketOpcode::close) {
      CHECK(frame->code() == 1013);
      break;
    }
    CHECK(frame->payload.size() == 8192);
    ++got;
  }
  CHECK(got < sent);
  CHECK(slow.ended());
}

TEST_CASE("the number of queued messages is bounded as well") {
  const Site site;
  WebSocketClient client(site, 4096);
  WebSocketOptions limits;
  limits.max_queued_messages = 16;
  const auto held = accept(site, limits);
  std::size_t sent = 0;
  while (held->socket->send_text(std::string(60000, 'x'))) REQUIRE(++sent < 10000);
  CHECK(held->closed.get() == 1013);
}

TEST_CASE("who pings without reading is too slow as well") {
  const Site site;
  WebSocketClient client(site, 4096);
  WebSocketOptions limits;
  limits.max_queued_bytes = 64 * 1024;
  const auto held = accept(site, limits);
  CHECK(client.greeting().status == 101);
  const timeval patience{1, 0};
  ::setsockopt(client.fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  std::string pings;
  for (int i = 0; i < 500; ++i) pings += client_frame(WebSocketOpcode::ping, std::string(125, 'p'));
  for (int i = 0; i < 5000 && held->closed.empty(); ++i)
    if (!client.send(pings)) break;
  const int code = held->closed.get();
  CHECK((code == 1013 || code == 1006));
}

TEST_CASE("pings are sent, and a client without a pong is dropped") {
  HttpServerOptions options;
  options.websocket_ping = std::chrono::milliseconds(30);
  options.websocket_pong = std::chrono::milliseconds(60);
  const Site site({}, options);
  WebSocketClient dead(site);
  const auto held = accept(site);
  CHECK(dead.greeting().status == 101);
  CHECK(dead.frame()->opcode == WebSocketOpcode::ping);
  CHECK(held->closed.get() == 1006);
  CHECK_FALSE(dead.frame());
  options.websocket_pong = std::chrono::milliseconds(30000);
  const Site patient({}, options);
  WebSocketClient alive(patient);
  const auto other = accept(patient);
  CHECK(alive.greeting().status == 101);
  for (int i = 0; i < 5; ++i) {
    const auto ping = alive.frame();
    REQUIRE(ping);
    CHECK(ping->opcode == WebSocketOpcode::ping);
    alive.send(client_frame(WebSocketOpcode::pong, ping->payload));
  }
  CHECK(other->closed.empty());
  CHECK(other->socket->send_text("x"));
}

TEST_CASE("callbacks that throw, close or drop the socket") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    auto socket = std::make_shared<std::shared_ptr<WebSocket>>();
    WebSocketOptions options;
    const std::string target = request.target;
    options.on_text = [socket, target](std::string) {
      if (target == "/throw") throw std::runtime_error("secret");
      if (target == "/close") (*socket)->close(4000);
      if (target == "/drop") socket->reset();
    };
    options.on_close = [socket](int) { socket->reset(); };
    *socket = responder->accept_websocket(std::move(options));
  });
  for (const auto& [target, code] : {std::pair{"/throw", 1011}, {"/close", 4000}, {"/drop", 1001}}) {
    CAPTURE(target);
    RawClient raw = site.connect();
    raw.send(upgrade_request(target) + client_frame(WebSocketOpcode::text, "x"));
    CHECK(raw.read_head().status == 101);
    std::string frame;
    CHECK(raw.take_bytes(4, frame));
    CHECK(frame == detail::server::websocket_close_frame(code, {}));
    CHECK(raw.ended());
  }
}

TEST_CASE("drain leaves WebSockets open, stop tells their clients") {
  const Site site;
  WebSocketClient client(site);
  const auto held = accept(site);
  CHECK(client.greeting().status == 101);
  site.server->drain();
  client.say("still here");
  CHECK(held->texts.get() == "still here");
  CHECK(held->socket->send_text("yes"));
  CHECK(client.text() == "yes");
  site.server->stop();
  CHECK(held->closed.get() == 1001);
  CHECK(client.closed() == 1001);
  CHECK(client.ended());
  CHECK_FALSE(held->socket->send_text("x"));
}

TEST_CASE("many threads send to many sockets while clients come and go") {
  const Site site;
  std::mutex mutex;
  std::vector<std::shared_ptr<Held>> open;
  std::atomic<bool> done{false};
  WebSocketOptions limits;  // slow clients are another test's
  limits.max_queued_bytes = limits.max_queued_messages = 1u << 30;
  std::thread acceptor([&] {
    for (int i = 0; i < 120; ++i) {
      auto held = accept(site, limits);
      const std::lock_guard lock(mutex);
      open.push_back(std::move(held));
    }
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&] {
      while (!done) {
        std::vector<std::shared_ptr<Held>> now;
        {
          const std::lock_guard lock(mutex);
          now = open;
        }
        for (const auto& held : now) held->socket->send_text("tick");
        std::this_thread::yield();
      }
    });
  std::vector<std::thread> clients;
  for (int t = 0; t < 4; ++t)
    clients.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i) {
        WebSocketClient client(site);
        CHECK(client.greeting().status == 101);
        CHECK(client.text() == "tick");
        client.say("x");
        if ((i + t) % 3 == 0) client.send(client_close(1000));
        if ((i + t) % 3 == 1) client.reset();
      }
    });
  for (auto& thread : clients) thread.join();
  acceptor.join();
  done = true;
  for (auto& thread : threads) thread.join();
  for (const auto& held : open) {
    const int code = held->closed.get();
    CHECK((code == 1000 || code == 1006));
  }
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}
