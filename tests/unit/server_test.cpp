// The server over real sockets: requests, answers, connections. Streams and the end of things are in
// server_stream_test.cpp.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <thread>

#include "unit/http_cases.hpp"
#include "unit/server_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

void check_error(const RawAnswer& answer, int status, const std::string& code) {
  CHECK(answer.status == status);
  CHECK(answer.header("Content-Type") == "application/json");
  CHECK(answer.header("X-Content-Type-Options") == "nosniff");
  CHECK(answer.body.find("\"code\":\"" + code + "\"") != std::string::npos);
  CHECK(answer.body.find("\"request_id\":\"" + answer.header("X-Request-Id") + "\"") != std::string::npos);
}

}  // namespace

TEST_CASE("every case of raw bytes has its answer and its fate") {
  HttpServerOptions options;
  options.max_body = kCaseMaxBody;
  const Site site(echo, options);
  for (const HttpCase& c : http_cases()) {
    CAPTURE(c.name);
    RawClient client = site.connect();
    client.send(c.bytes);
    if (c.status == 0) {
      client.finish_sending();
      CHECK(client.ended());
      continue;
    }
    const auto first = client.read();
    REQUIRE(first);
    CHECK(first->status == c.status);
    CHECK(first->complete);
    if (c.status == 200) {
      CHECK(first->body == c.body);
    } else {
      CHECK(first->header("Content-Type") == "application/json");
      CHECK(first->header("Connection") == "close");
      CHECK(first->header("X-Request-Id").size() == 36);
    }
    for (int i = 1; i < c.answers; ++i) CHECK(client.read());
    if (c.keeps) {
      CHECK(client.send(get("/again")));
      const auto again = client.read();
      REQUIRE(again);
      CHECK(again->status == 200);
      CHECK(again->header("X-Target") == "/again");
    } else {
      CHECK(client.ended());
    }
  }
}

TEST_CASE("a request arrives byte by byte") {
  const Site site(echo);
  RawClient client = site.connect();
  for (const char byte :
       std::string("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;e\r\nhello\r\n0\r\n"
                   "T: 1\r\n\r\n"))
    REQUIRE(client.send({&byte, 1}));
  const auto answer = client.read();
  REQUIRE(answer);
  CHECK(answer->body == "hello");
  CHECK(answer->line == "HTTP/1.1 200 OK");
}

TEST_CASE("errors repeat the client's request id when it is known and harmless") {
  const Site site(echo);
  RawClient client = site.connect();
  client.send(get("/", "X-Request-Id: my-id\r\nX Bad: 1\r\n"));
  const auto answer = client.read();
  REQUIRE(answer);
  check_error(*answer, 400, "invalid_request");
  CHECK(answer->header("X-Request-Id") == "my-id");
  RawClient other = site.connect();
  other.send(get("/", "X-Request-Id: a\"b\r\nX Bad: 1\r\n"));
  CHECK(other.read()->header("X-Request-Id").size() == 36);
}

TEST_CASE("pipelined requests are answered in order, also by other threads") {
  std::mutex mutex;
  std::vector<std::thread> threads;
  {
    const Site site([&](HttpRequest request, std::shared_ptr<Responder> responder) {
      if (request.target.back() % 2 == 0) return responder->send(text(request.target));
      const std::lock_guard lock(mutex);
      threads.emplace_back(
          [target = request.target, responder = std::move(responder)] { responder->send(text(target)); });
    });
    RawClient client = site.connect();
    std::string all;
    for (int i = 0; i < 400; ++i)
      all += i % 3 == 0 ? post("abc", "/" + std::to_string(i)) : get("/" + std::to_string(i));
    std::thread sender([&] { client.send(all); });
    for (int i = 0; i < 400; ++i) {
      const auto answer = client.read();
      REQUIRE(answer);
      CHECK(answer->body == "/" + std::to_string(i));
    }
    sender.join();
    CHECK(site.server->statistics().requests == 400);
  }
  for (auto& thread : threads) thread.join();
}

TEST_CASE("pipelining is bounded: a busy connection stops reading") {
  const Site site;
  RawClient client = site.connect();
  CHECK(client.send(get("/first")));
  const Asked first = site.asked();
  ::fcntl(client.fd(), F_SETFL, O_NONBLOCK);
  const std::string more = get("/more");
  std::size_t sent = 0;
  constexpr std::size_t kTooMuch = 64 * 1024 * 1024;
  std::string block;
  while (block.size() < 1024 * 1024) block += more;
  std::size_t offset = 0;
  while (sent < kTooMuch) {
    const ssize_t n = ::send(client.fd(), block.data() + offset, block.size() - offset, MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
      offset = (offset + static_cast<std::size_t>(n)) % block.size();
      continue;
    }
    pollfd wait{client.fd(), POLLOUT, 0};
    if (::poll(&wait, 1, 300) == 0) break;
  }
  CHECK(sent < kTooMuch);
  ::fcntl(client.fd(), F_SETFL, 0);
  first.responder->send(text("first"));
  CHECK(client.read()->body == "first");
  const Asked second = site.asked();
  CHECK(second.request.target == "/more");
  second.responder->send(text("second"));
  CHECK(client.read()->body == "second");
}

TEST_CASE("HEAD: the length without the body") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    if (request.target == "/stream") {
      auto stream = responder->start(text("first"));
      CHECK_FALSE(stream->write("more"));
      stream->close();
    } else {
      responder->send(text("hello"));
    }
  });
  RawClient client = site.connect();
  for (const char* target : {"/", "/stream", "/"}) {
    client.send(std::string("HEAD ") + target + " HTTP/1.1\r\nHost: a\r\n\r\n");
    const auto answer = client.read(true);
    REQUIRE(answer);
    CHECK(answer->status == 200);
    CHECK(answer->header("Content-Length") == (std::string_view(target) == "/" ? "5" : "(none)"));
  }
  client.send(get());
  CHECK(client.read()->body == "hello");
}

TEST_CASE("answers without a body, and statuses that are none") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    responder->send(text("body", std::stoi(request.target.substr(1))));
  });
  RawClient client = site.connect();
  for (const int status : {204, 304, 201, 204}) {
    client.send(get("/" + std::to_string(status)));
    const auto answer = client.read();
    REQUIRE(answer);
    CHECK(answer->status == status);
    CHECK(answer->body == (status == 201 ? "body" : ""));
    if (status == 204) CHECK(answer->header("Content-Length") == "(none)");
  }
  for (const int status : {0, 99, 100, 101, 600, -1}) {
    client.send(get("/" + std::to_string(status)));
    const auto answer = client.read();
    REQUIRE(answer);
    check_error(*answer, 500, "internal");
  }
}

TEST_CASE("large bodies, both ways") {
  const Site site(echo);
  std::string body(8 * 1024 * 1024, 'x');
  for (std::size_t i = 0; i < body.size(); i += 4099) body[i] = static_cast<char>('a' + i % 26);
  RawClient client = site.connect();
  std::thread sender([&] { client.send(post(body)); });
  auto answer = client.read();
  sender.join();
  REQUIRE(answer);
  CHECK((answer->body == body));
  // The same in chunks of odd sizes.
  std::string chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  char size[32];
  for (std::size_t at = 0, n = 1; at < body.size(); at += n, n = n * 3 % 100003 + 1) {
    const std::string part = body.substr(at, n);
    std::snprintf(size, sizeof size, "%zx\r\n", part.size());
    chunked += size + part + "\r\n";
  }
  chunked += "0\r\n\r\n";
  std::thread again([&] { client.send(chunked); });
  answer = client.read();
  again.join();
  REQUIRE(answer);
  CHECK((answer->body == body));
}

TEST_CASE("R33 a body over the limit is refused while it comes, and the client gets to read why") {
  const Site site(echo);
  const std::string big(1024 * 1024, 'x');
  RawClient client = site.connect();
  client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 67108864\r\n\r\n");
  for (int i = 0; i < 16 && client.send(big); ++i) {
  }
  auto answer = client.read();
  REQUIRE(answer);
  check_error(*answer, 413, "body_too_large");

  RawClient chunks = site.connect();
  chunks.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 16 && chunks.send("100000\r\n" + big + "\r\n"); ++i) {
  }
  answer = chunks.read();
  REQUIRE(answer);
  check_error(*answer, 413, "body_too_large");
}

TEST_CASE("100 Continue comes before the body, and not for a body that will be refused") {
  const Site site(echo);
  RawClient client = site.connect();
  client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  CHECK(client.read()->line == "HTTP/1.1 100 Continue");
  client.send("hello");
  CHECK(client.read()->body == "hello");
  client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n");
  CHECK(client.read()->status == 413);
  CHECK(client.ended());
}

TEST_CASE("a slow request is answered 408 and holds nobody up") {
  HttpServerOptions options;
  options.request_timeout = std::chrono::milliseconds(200);
  const Site site(echo, options, 1);
  std::vector<RawClient> slow;
  for (int i = 0; i < 100; ++i) {
    slow.push_back(site.connect());
    slow.back().send(i % 2 == 0 ? "GET / HTTP/1.1\r\nHost: a\r\nX"
                                : "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
  }
  RawClient quick = site.connect();
  for (int i = 0; i < 50; ++i) {
    quick.send(get());
    CHECK(quick.read()->status == 200);
  }
  for (RawClient& client : slow) {
    const auto answer = client.read();
    REQUIRE(answer);
    check_error(*answer, 408, "request_timeout");
    CHECK(client.ended());
  }
  // A byte now and then buys no time.
  RawClient drip = site.connect();
  drip.send("GET / HTTP/1.1\r\nX: ");
  while (!drip.readable(20) && drip.send("a")) {
  }
  CHECK(drip.read()->status == 408);
}

TEST_CASE("an idle connection is closed without a word") {
  HttpServerOptions options;
  options.idle_timeout = std::chrono::milliseconds(50);
  const Site site(echo, options);
  RawClient fresh = site.connect();
  CHECK(fresh.ended());
  RawClient used = site.connect();
  used.send(get());
  CHECK(used.read()->status == 200);
  CHECK(used.ended());
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}

TEST_CASE("a blank line behind a body does not begin a request") {
  HttpServerOptions options;
  options.request_timeout = std::chrono::milliseconds(30);
  options.idle_timeout = std::chrono::milliseconds(200);
  const Site site(echo, options);
  RawClient client = site.connect();
  client.send(post("hi") + "\r\n");
  CHECK(client.read()->body == "hi");
  CHECK(client.ended());  // idle, not 408
  RawClient other = site.connect();
  other.send(post("hi") + "\r\n");
  CHECK(other.read()->body == "hi");
  site.server->drain();
  CHECK(other.ended());
}

TEST_CASE("a busy connection does not time out") {
  HttpServerOptions options;
  options.idle_timeout = options.request_timeout = std::chrono::milliseconds(30);
  const Site site({}, options);
  RawClient client = site.connect();
  client.send(get());
  const Asked asked = site.asked();
  CHECK_FALSE(client.readable(150));
  asked.responder->send(text("late"));
  CHECK(client.read()->body == "late");
}

TEST_CASE("beyond max_connections the oldest idle one makes room; busy ones are kept") {
  HttpServerOptions options;
  options.max_connections = 3;
  for (const unsigned loops : {1u, 2u}) {
    CAPTURE(loops);
    const Site site(
        [](HttpRequest request, std::shared_ptr<Responder> responder) {
          static Mailbox<std::shared_ptr<Responder>> held;
          if (request.target == "/hold") return held.put(std::move(responder));
          responder->send(text("x"));
          if (request.target == "/release")
            while (!held.empty()) held.get()->send(text("held"));
        },
        options, loops);
    std::vector<RawClient> clients;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(site.connect());
      clients.back().send(get());
      CHECK(clients.back().read()->status == 200);
    }
    RawClient fourth = site.connect();
    fourth.send(get());
    CHECK(fourth.read()->status == 200);
    CHECK(clients[0].ended());
    for (std::size_t i : {1u, 2u}) {
      clients[i].send(get("/hold"));
      CHECK(eventually([&] { return site.server->statistics().requests == 4 + i; }));
    }
    fourth.send(get("/hold"));
    CHECK(eventually([&] { return site.server->statistics().requests == 7; }));
    RawClient fifth = site.connect();
    const auto refusal = fifth.read();
    CHECK(refusal.has_value() != kOverTls);  // no handshake is spent on it
    if (refusal) {
      check_error(*refusal, 503, "overloaded");
      CHECK(refusal->header("Retry-After") == "1");
    }
    CHECK(fifth.ended());
    fifth.close();
    clients[1].close();
    CHECK(eventually([&] { return site.server->statistics().connections == 2; }));
    RawClient sixth = site.connect();
    sixth.send(get("/release"));
    CHECK(sixth.read()->status == 200);
    CHECK(clients[2].read()->body == "held");
    CHECK(fourth.read()->body == "held");
  }
}

TEST_CASE("thousands of idle connections, and active ones among them") {
  const Site site(echo);
  const std::size_t count = kOverTls ? 300 : 2000;  // handshakes cost what is not tested here
  std::vector<RawClient> idle;
  for (std::size_t i = 0; i < count; ++i) {
    idle.push_back(site.connect());
    REQUIRE(idle.back().connected());
  }
  for (int round = 0; round < 20; ++round) {
    for (std::size_t i = static_cast<std::size_t>(round); i < idle.size(); i += 97)
      idle[i].send(get("/" + std::to_string(i)));
    for (std::size_t i = static_cast<std::size_t>(round); i < idle.size(); i += 97)
      CHECK(idle[i].read()->header("X-Target") == "/" + std::to_string(i));
  }
  CHECK(eventually([&] { return site.server->statistics().connections == count; }));
  CHECK(site.server->statistics().accepted == count);
  idle.clear();
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}

#ifndef MCPGW_TEST_OVER_TLS  // the proxy would run out of them first
TEST_CASE("running out of descriptors is survived") {
  const Site site(echo);
  RawClient before = site.connect();
  before.send(get());
  CHECK(before.read()->status == 200);
  rlimit old{};
  ::getrlimit(RLIMIT_NOFILE, &old);
  rlimit low = old;
  low.rlim_cur = 256;
  ::setrlimit(RLIMIT_NOFILE, &low);
  std::vector<int> fillers;
  for (int fd; (fd = ::dup(2)) >= 0;) fillers.push_back(fd);
  REQUIRE(fillers.size() > 2);
  ::close(fillers.back());
  fillers.pop_back();
  RawClient waiting = site.connect();  // takes the last one: the server gets none for its end
  CHECK(waiting.connected());
  waiting.send(get("/waited"));
  // The oldest idle connection goes to make room.
  CHECK(before.ended());
  for (const int fd : fillers) ::close(fd);
  ::setrlimit(RLIMIT_NOFILE, &old);
  const auto answer = waiting.read();
  REQUIRE(answer);
  CHECK(answer->header("X-Target") == "/waited");
}
#endif

TEST_CASE("R68 addresses and schemes come from trusted proxies only") {
  HttpServerOptions options;
  const Site plain(echo);
  RawClient client = plain.connect();
  const std::string headers = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n";
  client.send(get("/", headers));
  auto answer = client.read();
  CHECK(answer->header("X-Address") == "127.0.0.1");
  CHECK(answer->header("X-Tls") == (kOverTls ? "yes" : "no"));
  options.trusted_proxies = {"127.0.0.0/8"};
  const Site behind(echo, options);
  RawClient proxied = behind.connect();
  proxied.send(get("/", headers));
  answer = proxied.read();
  CHECK(answer->header("X-Address") == "1.1.1.1");
  CHECK(answer->header("X-Tls") == "yes");
}

TEST_CASE("starting: addresses, ports and options") {
  const auto handler = std::make_shared<ScriptedHandler>(echo);
  const auto runtime = Runtime::create({1, 1, 1});
  const auto start = [&](auto change) {
    HttpServerOptions options;
    change(options);
    return HttpServer::start(handler, runtime, options);
  };
  auto server = start([](auto&) {});
  REQUIRE(server);
  CHECK((*server)->port() > 0);
  CHECK((*server)->url() == "http://127.0.0.1:" + std::to_string((*server)->port()));

  auto taken = start([&](auto& o) { o.port = (*server)->port(); });
  REQUIRE_FALSE(taken);
  CHECK(taken.error().code == ErrorCode::unavailable);
  CHECK(taken.error().reason == "address_in_use");
  for (const char* host : {"", "nowhere.invalid", "1.2.3", "[::1]", "256.0.0.1", "127.0.0.1:80"}) {
    auto bad = start([&](auto& o) { o.host = host; });
    REQUIRE_FALSE(bad);
    CHECK(bad.error().code == ErrorCode::invalid_argument);
  }
  CHECK(start([](auto& o) { o.host = "203.0.113.1"; }).error().code == ErrorCode::invalid_argument);
  CHECK(start([](auto& o) { o.port = 65536; }).error().code == ErrorCode::invalid_argument);
  CHECK(start([](auto& o) { o.trusted_proxies = {"x"}; }).error().field == "trusted_proxies");
  CHECK(start([](auto& o) { o.max_connections = 0; }).error().code == ErrorCode::invalid_argument);
  CHECK(start([](auto& o) { o.idle_timeout = std::chrono::milliseconds(0); }).error().code ==
        ErrorCode::invalid_argument);
  CHECK_FALSE(HttpServer::start(std::shared_ptr<RequestHandler>(), runtime));
  CHECK_FALSE(HttpServer::start(handler, nullptr));
  CHECK(start([](auto& o) { o.host = "localhost"; }));
  auto any = start([](auto& o) { o.host = "0.0.0.0"; });
  REQUIRE(any);
  CHECK((*any)->url().find("http://127.0.0.1:") == 0);

  auto six = start([](auto& o) { o.host = "::1"; });
  if (six) {
    CHECK((*six)->url() == "http://[::1]:" + std::to_string((*six)->port()));
  } else {  // a host without IPv6 says so
    CHECK((six.error().reason == "address_not_available" || six.error().reason == "no_socket"));
  }

  // The port is free again as soon as stop() returns.
  const int port = (*server)->port();
  (*server)->stop();
  CHECK(start([&](auto& o) { o.port = port; }));
}
