// The HTTP client against servers that the test scripts byte by byte.
#include "runtime/http_client.hpp"

#include <doctest/doctest.h>

#include <mutex>
#include <vector>

#include "support/on_loop.hpp"
#include "support/scripted_server.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace mcpgw::testing;
using namespace std::chrono_literals;

namespace {

std::shared_ptr<Runtime> one_loop() { return Runtime::create({.loops = 1, .workers = 2, .hash_workers = 1}); }

struct Answer {
  int status = 0;
  HttpHeaders headers;
  std::string body;
  std::string error;  // "reason", empty when all went well
  std::string detail;
};

struct Fixture {
  std::shared_ptr<Runtime> runtime = one_loop();
  HttpClientOptions options;
  std::shared_ptr<HttpClient> client;

  explicit Fixture(std::function<void(HttpClientOptions&)> change = {}) {
    options.allow_private = true;
    if (change) change(options);
    auto made = HttpClient::create(runtime, options);
    REQUIRE(made);
    client = *made;
  }

  static ClientRequest request(const std::string& url, std::string method = "GET", std::string body = {}) {
    ClientRequest out;
    out.method = std::move(method);
    out.url = *parse_url(url);
    out.body = std::move(body);
    out.deadline = std::chrono::steady_clock::now() + 20s;
    return out;
  }

  static Task<Answer> fetch(std::shared_ptr<HttpClient> client, ClientRequest request, CancelSource* cancel,
                            std::size_t max_bytes, bool in_pieces) {
    Answer answer;
    auto sent = co_await client->send(std::move(request), cancel, &answer.detail);
    if (!sent) {
      answer.error = sent.error().reason;
      co_return answer;
    }
    answer.status = (*sent)->status;
    answer.headers = (*sent)->headers;
    if (!in_pieces) {
      auto body = co_await (*sent)->read_all(max_bytes);
      if (body) answer.body = *body;
      if (!body) answer.error = body.error().reason;
      co_return answer;
    }
    for (;;) {
      auto piece = co_await (*sent)->read_some();
      if (!piece) answer.error = piece.error().reason;
      if (!piece || piece->empty()) co_return answer;
      answer.body += *piece;
    }
  }

  std::future<Answer> start(ClientRequest what, CancelSource* cancel = nullptr,
                            std::size_t max_bytes = 1 << 24, bool in_pieces = false) {
    return start_on_loop<Answer>(*runtime, [this, what, cancel, max_bytes, in_pieces] {
      return fetch(client, what, cancel, max_bytes, in_pieces);
    });
  }
  Answer get(const std::string& url) { return start(request(url)).get(); }
};

/// Answers every request on every connection with the same bytes, which may be cut off by closing.
ScriptedServer fixed(std::string bytes, bool then_close = false) {
  return ScriptedServer([bytes = std::move(bytes), then_close](Peer& peer, int) {
    while (!peer.read_request().empty()) {
      if (!peer.send(bytes) || then_close) return;
    }
  });
}

}  // namespace

TEST_CASE("every framing, and what follows from it for the connection") {
  struct Case {
    const char* bytes;
    bool close;
    int status;
    const char* body;
    int connections;  // for two requests
  };
  const Case cases[] = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 200, "hello", 1},
      {"HTTP/1.1 200\r\ncontent-length:5\r\n\r\nhello", false, 200, "hello", 1},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", false, 200, "hello", 1},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", false, 200, "hello", 2},
      {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, "", 1},
      {"HTTP/1.1 204 No Content\r\n\r\n", false, 204, "", 1},
      {"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", false, 304, "", 1},
      {"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 2\r\n\r\nno", false, 302, "no", 1},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nX: y\r\n\r\n",
       false, 200, "hello", 1},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n00005 \t;x\r\nhello\r\n0\r\n\r\n", false, 200,
       "hello", 1},
      {"HTTP/1.1 200 OK\r\n\r\nhello", true, 200, "hello", 2},
      {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 200, "hello", 2},
      {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", false, 200, "hello", 1},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 "
       "OK\r\nContent-Length: "
       "5\r\n\r\nhello",
       false, 200, "hello", 1},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloEXTRA", false, 200, "hello", 2},
  };
  for (const Case& c : cases) {
    CAPTURE(std::string(c.bytes));
    auto server = fixed(c.bytes, c.close);
    Fixture f;
    for (int i = 0; i < 2; ++i) {
      const Answer answer = f.get(server.url());
      CHECK(answer.error == "");
      CHECK(answer.status == c.status);
      CHECK(answer.body == c.body);
    }
    CHECK(server.connections() == c.connections);
  }
}

TEST_CASE("a server that closes together with its answer: the next request goes over a new connection") {
  std::promise<void> asked, may_answer, closed;
  ScriptedServer server([&](Peer& peer, int number) {
    if (peer.read_request().empty()) return;
    if (number == 0) {
      asked.set_value();
      may_answer.get_future().wait();
    }
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    if (number == 0) {
      peer.close();
      closed.set_value();
    }
    peer.wait_closed();
  });
  Fixture f;
  auto first = f.start(Fixture::request(server.url()));
  asked.get_future().wait();
  // While the loop is held up both come: one event tells of them, and no other will.
  std::promise<void> go_on, held;
  f.runtime->impl().loop(0).post([&] {
    held.set_value();
    go_on.get_future().wait();
  });
  held.get_future().wait();
  may_answer.set_value();
  closed.get_future().wait();
  go_on.set_value();
  CHECK(first.get().body == "ok");
  const Answer answer = f.get(server.url());
  CHECK(answer.error == "");
  CHECK(answer.body == "ok");
  CHECK(server.connections() == 2);
}

TEST_CASE("requests with a common base are sent as those without one, and checked as they are") {
  std::mutex mutex;
  std::vector<std::string> seen;
  ScriptedServer server([&](Peer& peer, int) {
    for (std::string text; !(text = peer.read_request()).empty();) {
      {
        const std::lock_guard lock(mutex);
        seen.push_back(text);
      }
      peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
  });
  Fixture f;
  const Url url = *parse_url(server.url() + "mcp?a=b");
  const HttpHeaders common{{"Accept", "text/plain"}, {"Host", "evil"}, {"Content-Length", "7"}};
  for (const char* method : {"POST", "GET", "HEAD"}) {
    const auto base = RequestBase::create(method, url, common);
    REQUIRE(base);
    CHECK(base->headers() == common);
    for (const std::string body : {"", "hello"}) {
      seen.clear();
      ClientRequest plain = Fixture::request(server.url() + "mcp?a=b", method, body);
      plain.headers = common;
      plain.headers.emplace_back("X-Own", "1");
      ClientRequest based = Fixture::request("http://elsewhere.invalid/", "PATCH", body);
      based.headers.emplace_back("X-Own", "1");
      based.base = &*base;
      const bool no_body = std::string_view(method) == "HEAD";  // which the peer does not know
      if (!no_body) CHECK(f.start(plain).get().body == "ok");
      CHECK(f.start(based).get().status == 200);
      if (no_body) continue;
      REQUIRE(seen.size() == 2);
      CHECK(seen[0] == seen[1]);
      CHECK(seen[1].find("evil") == std::string::npos);
    }
    for (const auto& [name, value] : HttpHeaders{{"X-Own", "a\r\nEvil: 1"}, {"X Own", "1"}, {"", "1"}}) {
      ClientRequest bad = Fixture::request(server.url());
      bad.base = &*base;
      bad.headers.emplace_back(name, value);
      CHECK(f.start(bad).get().error == "invalid_request");
    }
  }
  CHECK_FALSE(RequestBase::create("PO ST", url, {}));
  CHECK_FALSE(RequestBase::create("POST", url, {{"X-A", "b\nc"}}));
  CHECK_FALSE(RequestBase::create("POST", Url{"http", "ho st", 80, "/"}, {}));
  CHECK_FALSE(RequestBase::create("POST", Url{"http", "host", 80, "/a b"}, {}));
}
