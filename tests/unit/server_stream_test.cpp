// Streams, late answers, clients that vanish, and the end of the server.
#include <doctest/doctest.h>

#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "unit/server_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

/// Holds a server's only loop, so that what clients send meanwhile is there at once.
class Hold {
 public:
  explicit Hold(const Site& site) {
    std::promise<void> held;
    site.runtime->post([&held, ended = end_.get_future().share()] {
      held.set_value();
      ended.wait();
    });
    held.get_future().wait();
  }
  ~Hold() { let_go(); }
  void let_go() {
    if (!std::exchange(gone_, true)) end_.set_value();
  }

 private:
  std::promise<void> end_;
  bool gone_ = false;
};

}  // namespace

TEST_CASE("a stream is chunked, from any thread, and the connection lives on") {
  const Site site;
  RawClient client = site.connect();
  client.send(get() + get("/next"));
  const Asked asked = site.asked();
  HttpResponse head = text("first");
  head.headers = {{"Content-Type", "text/event-stream"}, {"X-Accel-Buffering", "no"}};
  const auto stream = asked.responder->start(head);
  const RawAnswer answer = client.read_head();
  CHECK(answer.header("Transfer-Encoding") == "chunked");
  CHECK(answer.header("Content-Length") == "(none)");
  CHECK(answer.header("X-Accel-Buffering") == "no");
  CHECK(client.chunk() == "first");
  CHECK(stream->write("second"));
  CHECK(client.chunk() == "second");
  CHECK(stream->write(""));
  CHECK(stream->write(std::string(100000, 'x')));
  CHECK((client.chunk() == std::string(100000, 'x')));
  std::thread writer([&] {
    for (int i = 0; i < 1000; ++i) CHECK(stream->write(std::to_string(i)));
    stream->close();
  });
  for (int i = 0; i < 1000; ++i) CHECK(client.chunk() == std::to_string(i));
  CHECK(client.chunk() == "");
  writer.join();
  CHECK_FALSE(stream->write("late"));
  stream->close();
  const Asked next = site.asked();
  CHECK(next.request.target == "/next");
  next.responder->send(text("next"));
  CHECK(client.read()->body == "next");
}

TEST_CASE(
    "requests that come together: each is answered, in order on its connection, and who has left is told "
    "of") {
  constexpr std::size_t kClients = 30;
  std::atomic<std::size_t> stay{0}, leave{0}, left{0};
  std::mutex mutex;
  std::vector<std::shared_ptr<Responder>> waiting;
  const Site site(
      [&](HttpRequest request, std::shared_ptr<Responder> responder) {
        if (request.target == "/stream") {
          const auto stream = responder->start(text("one "));
          stream->write("two ");
          stream->write("three");
          stream->close();
        } else if (request.target == "/stay" || request.target == "/leave") {
          responder->on_disconnect([&] { ++left; });
          ++(request.target == "/stay" ? stay : leave);
          const std::lock_guard lock(mutex);
          waiting.push_back(std::move(responder));
        } else {
          echo(std::move(request), std::move(responder));
        }
      },
      {}, 1);
  std::vector<RawClient> clients;
  for (std::size_t i = 0; i < kClients; ++i) {
    clients.push_back(site.connect());
    clients.back().send(get("/hello"));
    REQUIRE(clients.back().read());
  }
  for (int round = 0; round < 3; ++round) {
    Hold hold(site);
    for (std::size_t i = 0; i < kClients; ++i)
      clients[i].send(get("/a" + std::to_string(i)) + get("/stream") +
                      post("body", "/b" + std::to_string(i)));
    hold.let_go();
    for (std::size_t i = 0; i < kClients; ++i) {
      CAPTURE(i);
      CHECK(clients[i].read()->header("X-Target") == "/a" + std::to_string(i));
      CHECK(clients[i].read()->body == "one two three");
      const auto last = clients[i].read();
      CHECK(last->header("X-Target") == "/b" + std::to_string(i));
      CHECK(last->body == "body");
    }
  }
  Hold hold(site);
  for (std::size_t i = 0; i < kClients; ++i) clients[i].send(get(i % 2 == 0 ? "/leave" : "/stay"));
  for (std::size_t i = 0; i < kClients; i += 2) clients[i].close();
  hold.let_go();
  // Over TLS the end comes with the request.
  CHECK(eventually([&] { return stay == kClients / 2 && leave == stay && left == leave; }));
  {
    const std::lock_guard lock(mutex);
    for (const auto& responder : waiting) responder->send(text("late"));
  }
  for (std::size_t i = 1; i < kClients; i += 2) CHECK(clients[i].read()->body == "late");
  CHECK(left == leave);
}

TEST_CASE("a second start() does not end the first stream") {
  const Site site;
  RawClient client = site.connect();
  client.send(get());
  const Asked asked = site.asked();
  const auto stream = asked.responder->start(text("a"));
  const auto second = asked.responder->start(text("x"));
  CHECK_FALSE(second->write("y"));
  second->close();
  CHECK(stream->write("b"));
  stream->close();
  CHECK(client.read()->body == "ab");
}

TEST_CASE("a stream to HTTP/1.0 ends with the connection") {
  const Site site;
  RawClient client = site.connect();
  client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto stream = site.asked().responder->start(text("a"));
  CHECK(stream->write("b"));
  stream->close();
  const auto answer = client.read();
  REQUIRE(answer);
  CHECK(answer->body == "ab");
  CHECK(answer->header("Connection") == "close");
  CHECK(answer->header("Transfer-Encoding") == "(none)");
}

TEST_CASE("a stream that is dropped before its end does not look complete") {
  const Site site;
  RawClient client = site.connect();
  client.send(get());
  site.asked().responder->start(text("part")).reset();
  const auto answer = client.read();
  if (answer) CHECK_FALSE(answer->complete);
  CHECK(client.ended());
}

TEST_CASE("R33 a reader that does not read is dropped, and its memory stays bounded") {
  HttpServerOptions options;
  options.max_write_buffer = 1024 * 1024;
  const Site site({}, options);
  RawClient client = site.connect(4096);
  client.send(get());
  const Asked asked = site.asked();
  std::atomic<int> gone{0};
  asked.responder->on_disconnect([&] { ++gone; });
  const auto stream = asked.responder->start(text(""));
  std::size_t written = 0;
  while (stream->write(std::string(64 * 1024, 'x'))) {
    written += 64 * 1024;
    REQUIRE(written < 256 * 1024 * 1024);
  }
  CHECK_FALSE(stream->write("more"));
  CHECK(eventually([&] { return gone == 1; }));
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}

TEST_CASE("a slow reader among quick ones gets everything, as long as it reads") {
  const Site site;
  RawClient slow = site.connect(4096);
  slow.send(get());
  const auto stream = site.asked().responder->start(text(""));
  std::string all;
  for (int i = 0; i < 100; ++i) {
    const std::string part(20000, static_cast<char>('a' + i % 26));
    CHECK(stream->write(part));
    all += part;
  }
  stream->close();
  RawClient quick = site.connect();
  quick.send(get("/quick"));
  site.asked().responder->send(text("quick"));
  CHECK(quick.read()->body == "quick");
  const auto answer = slow.read();
  REQUIRE(answer);
  CHECK((answer->body == all));
}

TEST_CASE("a client that takes nothing for request_timeout is dropped, whatever the answer") {
  HttpServerOptions options;
  options.request_timeout = std::chrono::milliseconds(100);
  const Site site({}, options);
  RawClient client = site.connect(4096);
  client.send(get());
  const Asked asked = site.asked();
  asked.responder->send(text(std::string(32 * 1024 * 1024, 'x')));
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}

TEST_CASE("on_disconnect: closed and reset, before and after") {
  const Site site;
  for (const bool hard : {false, true}) {
    CAPTURE(hard);
    Mailbox<int> gone;
    RawClient client = site.connect();
    client.send(get());
    const Asked asked = site.asked();
    asked.responder->on_disconnect([] { FAIL("replaced"); });
    asked.responder->on_disconnect([&] { gone.put(1); });
    hard ? client.reset() : client.close();
    CHECK(gone.get() == 1);
    asked.responder->on_disconnect([&] { gone.put(2); });
    CHECK(gone.get() == 2);
    const auto stream = asked.responder->start(text("x"));
    CHECK_FALSE(stream->write("y"));
    stream->close();
    asked.responder->send(text("z"));
    CHECK(gone.empty());
  }
  // Cleared, or answered in time: never called.
  RawClient client = site.connect();
  client.send(get());
  Asked asked = site.asked();
  asked.responder->on_disconnect([] { FAIL("cleared"); });
  asked.responder->on_disconnect(nullptr);
  client.close();
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
  RawClient other = site.connect();
  other.send(get());
  asked = site.asked();
  asked.responder->on_disconnect([] { FAIL("answered"); });
  asked.responder->send(text("x"));
  CHECK(other.read()->body == "x");
  other.close();
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
  asked.responder->on_disconnect([] { FAIL("over"); });
}

TEST_CASE("a pipelined request behind does not hide that the client has gone") {
  const Site site;
  RawClient client = site.connect();
  client.send(get("/1") + get("/2"));
  const Asked asked = site.asked();
  Mailbox<int> gone;
  asked.responder->on_disconnect([&] { gone.put(1); });
  client.close();
  CHECK(gone.get() == 1);
  asked.responder->send(text("x"));
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
  CHECK(site.handler->asked.empty());
}

TEST_CASE("unanswered, twice answered, thrown") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    if (request.target == "/drop") return;
    if (request.target == "/throw") throw std::runtime_error("secret");
    if (request.target == "/odd") throw 1;
    responder->send(text("one"));
    responder->send(text("two"));
    const auto stream = responder->start(text("three"));
    CHECK_FALSE(stream->write("four"));
    stream->close();
    if (request.target == "/late-throw") throw std::runtime_error("secret");
  });
  RawClient client = site.connect();
  for (const char* target : {"/drop", "/throw", "/odd", "/twice", "/late-throw", "/drop"}) {
    CAPTURE(target);
    client.send(get(target, "X-Request-Id: id-1\r\n"));
    const auto answer = client.read();
    REQUIRE(answer);
    if (std::string_view(target) == "/twice" || std::string_view(target) == "/late-throw") {
      CHECK(answer->body == "one");
    } else {
      CHECK(answer->status == 500);
      CHECK(answer->body ==
            R"({"error":"The request was not answered","code":"internal","request_id":"id-1"})");
      CHECK(answer->header("X-Content-Type-Options") == "nosniff");
    }
  }
}

TEST_CASE("answering runs no other handler call in the caller's stack") {
  // The answer to the first pipelined request is sent from the loop under a lock that the handler takes, too.
  std::mutex mutex;
  std::atomic<int> nested{0};
  std::shared_ptr<Runtime> runtime;
  Site* here = nullptr;
  Site site(
      [&](HttpRequest request, std::shared_ptr<Responder> responder) {
        if (!mutex.try_lock()) {
          ++nested;
        } else {
          mutex.unlock();
        }
        here->runtime->post([&mutex, target = request.target, responder] {
          const std::lock_guard lock(mutex);
          responder->send(text(target));
        });
      },
      {}, 1);
  here = &site;
  RawClient client = site.connect();
  std::string all;
  for (int i = 0; i < 200; ++i) all += get("/" + std::to_string(i));
  client.send(all);
  for (int i = 0; i < 200; ++i) CHECK(client.read()->body == "/" + std::to_string(i));
  CHECK(nested == 0);
}

TEST_CASE("many threads answer many connections") {
  const Site site;
  std::vector<std::thread> answerers;
  for (int t = 0; t < 4; ++t)
    answerers.emplace_back([&] {
      for (;;) {
        Asked asked = site.asked();
        if (asked.responder == nullptr) return;
        if (asked.request.body.size() % 3 == 0) {
          const auto stream = asked.responder->start(text(asked.request.body));
          stream->write("+");
          stream->close();
        } else {
          asked.responder->send(text(asked.request.body + "+"));
        }
      }
    });
  std::vector<std::thread> clients;
  for (int c = 0; c < 8; ++c)
    clients.emplace_back([&, c] {
      RawClient client = site.connect();
      for (int i = 0; i < 100; ++i) {
        const std::string body(static_cast<std::size_t>(c * 100 + i), 'x');
        client.send(post(body));
        const auto answer = client.read();
        REQUIRE(answer);
        CHECK((answer->body == body + "+"));
      }
    });
  for (auto& thread : clients) thread.join();
  for (std::size_t i = 0; i < answerers.size(); ++i) site.handler->asked.put({});
  for (auto& thread : answerers) thread.join();
}

TEST_CASE("clients that come and go in any state") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    if (request.target == "/stream") {
      const auto stream = responder->start(text("a"));
      for (int i = 0; i < 20 && stream->write(std::string(5000, 'x')); ++i) {
      }
      return stream->close();
    }
    responder->send(text("x"));
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 150; ++i) {
        RawClient client = site.connect();
        switch ((i + t) % 5) {
          case 0:
            client.send("GET /");
            break;
          case 1:
            client.send(get("/stream"));
            break;
          case 2:
            client.send(get() + get("/stream") + "GET");
            break;
          case 3:
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
            break;
          default:
            client.send(get());
            CHECK(client.read()->body == "x");
            break;
        }
        if (i % 2 == 0) client.reset();
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(eventually([&] { return site.server->statistics().accepted == 600; }));
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}

TEST_CASE("R40 drain: idle connections end, running requests are answered and end theirs") {
  const Site site;
  RawClient idle = site.connect();
  RawClient busy = site.connect();
  RawClient streaming = site.connect();
  RawClient receiving = site.connect();
  idle.send(get("/warm"));
  site.asked().responder->send(text("x"));
  CHECK(idle.read()->body == "x");
  busy.send(get("/busy"));
  const Asked asked = site.asked();
  streaming.send(get("/stream"));
  const auto stream = site.asked().responder->start(text("a"));
  CHECK(streaming.read_head().status == 200);
  receiving.send(post("hello", "/receiving").substr(0, 30));
  // Its first bytes have come when a request sent after them on another connection of that loop is there; the
  // kernel may hold them still, so the server may also find it idle: both ends are right.
  site.server->drain();
  site.server->drain();
  CHECK(idle.ended());
  RawClient late = site.connect();
  CHECK((!late.connected() || late.ended()));
  asked.responder->send(text("done"));
  const auto answer = busy.read();
  REQUIRE(answer);
  CHECK(answer->body == "done");
  CHECK(answer->header("Connection") == "close");
  CHECK(busy.ended());
  CHECK(streaming.chunk() == "a");
  CHECK(stream->write("b"));
  CHECK(streaming.chunk() == "b");
  stream->close();
  CHECK(streaming.chunk() == "");
  CHECK(streaming.ended());
  receiving.close();
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}

TEST_CASE("stop while busy: everything ends at once and late answers are harmless") {
  Mailbox<int> gone;
  Site site;
  RawClient busy = site.connect();
  RawClient streaming = site.connect();
  busy.send(get("/busy"));
  Asked asked = site.asked();
  asked.responder->on_disconnect([&] { gone.put(1); });
  streaming.send(get("/stream"));
  const auto stream = site.asked().responder->start(text("a"));
  CHECK(streaming.read_head().status == 200);
  site.server->stop();
  site.server->stop();
  site.server->drain();
  CHECK(gone.get() == 1);
  CHECK(busy.ended());
  CHECK(site.server->statistics().connections == 0);
  CHECK_FALSE(stream->write("b"));
  asked.responder->send(text("late"));
  // They may outlive everything.
  site.server.reset();
  site.runtime.reset();
  site.handler.reset();
  CHECK_FALSE(stream->write("c"));
  stream->close();
  asked.responder->on_disconnect([&] { gone.put(2); });
  CHECK(gone.get() == 2);
}

TEST_CASE("stop waits for the handler call that is running") {
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::atomic<bool> left{false};
  Site site([&](HttpRequest, std::shared_ptr<Responder> responder) {
    inside = true;
    while (!leave) std::this_thread::yield();
    responder->send(text("x"));
    left = true;
  });
  RawClient client = site.connect();
  client.send(get());
  CHECK(eventually([&] { return inside.load(); }));
  std::thread stopper([&] {
    site.server->stop();
    CHECK(left);
  });
  leave = true;
  stopper.join();
}

TEST_CASE("server, handler and runtime end in any order, under load") {
  for (int order = 0; order < 6; ++order) {
    CAPTURE(order);
    Site site([](HttpRequest, std::shared_ptr<Responder> responder) { responder->send(text("x")); });
    std::atomic<bool> stop{false};
    std::vector<std::thread> load;
    const int port = site.port();
    for (int t = 0; t < 3; ++t)
      load.emplace_back([&] {
        while (!stop) {
          RawClient client(port);
          if (!client.connected()) return;
          for (int i = 0; i < 20; ++i)
            if (!client.send(get()) || !client.read()) break;
        }
      });
    CHECK(eventually([&] { return site.server->statistics().requests > 50; }));
    if (order % 2 == 0) site.server->drain();
    if (order / 2 == 0) site.runtime.reset();
    if (order / 2 != 1) site.handler.reset();
    site.server.reset();
    stop = true;
    for (auto& thread : load) thread.join();
  }
}

TEST_CASE("two servers share one runtime") {
  Site one([](HttpRequest, std::shared_ptr<Responder> responder) { responder->send(text("one")); });
  auto two = HttpServer::start(std::make_shared<ScriptedHandler>(
                                   [](HttpRequest, std::shared_ptr<Responder> r) { r->send(text("two")); }),
                               one.runtime);
  REQUIRE(two);
  RawClient first = one.connect();
  RawClient second((*two)->port());
  first.send(get());
  second.send(get());
  CHECK(first.read()->body == "one");
  CHECK(second.read()->body == "two");
  (*two)->stop();
  CHECK(second.ended());
  first.send(get());
  CHECK(first.read()->body == "one");
}
