// Through a proxy: who goes there, what is asked of it, and what it may not be used for.
#include "runtime/proxy.hpp"

#include <doctest/doctest.h>

#include "../support/on_loop.hpp"
#include "../support/scripted_server.hpp"
#include "runtime/http_client.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace mcpgw::testing;
using namespace std::chrono_literals;

TEST_CASE("a proxy's URL, with and without a password") {
  const auto plain = Proxy::parse("http://proxy.example.com:3128", {});
  REQUIRE(plain);
  CHECK(plain->host() == "proxy.example.com");
  CHECK(plain->port() == 3128);
  CHECK(plain->authorization().empty());
  const auto named = Proxy::parse("HTTP://us%40er:p%3Aw@[::1]:8080/", {});
  REQUIRE(named);
  CHECK(named->host() == "::1");
  CHECK(named->authorization() == "Basic dXNAZXI6cDp3");  // us@er:p:w
  for (const char* bad :
       {"", "proxy:3128", "https://proxy", "socks5://proxy", "http://", "http://user@proxy", "http://a:b@",
        "http://proxy/path", "http://proxy?x", "http://proxy:0", "http://u:%zz@proxy", "http://u:p@pro xy"}) {
    CAPTURE(bad);
    const auto refused = Proxy::parse(bad, {});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().field == "proxy");
    CHECK(refused.error().message.find("zz") == std::string::npos);
  }
}

TEST_CASE("what is reached without the proxy") {
  const auto proxy = Proxy::parse(
      "http://p:1", {"example.com", ".corp.example", "*.lab.example", "10.0.0.0/8", "192.168.7.9", "fd00::/8",
                     "[::1]:8080", "one.example:444", " Two.Example. "});
  REQUIRE(proxy);
  for (const char* direct :
       {"example.com", "a.example.com", "x.corp.example", "corp.example", "y.lab.example", "10.1.2.3",
        "192.168.7.9", "fd12::1", "two.example", "b.two.example", "example.com."}) {
    CAPTURE(direct);
    CHECK_FALSE(proxy->serves(direct, 443));
  }
  for (const char* through : {"notexample.com", "example.com.evil.org", "11.0.0.1", "192.168.7.8", "fe80::1",
                              "::1", "example.org", "one.example", "10.example.org"}) {
    CAPTURE(through);
    CHECK(proxy->serves(through, 443));
  }
  CHECK_FALSE(proxy->serves("::1", 8080));
  CHECK_FALSE(proxy->serves("one.example", 444));
  CHECK_FALSE(Proxy::parse("http://p:1", {"*"})->serves("anything.example", 80));
  for (const char* bad : {"", "10.0.0.0/33", "fd00::/129", "a b", "x:0", "x:99999", "10.0.0/8", "exa/mple"}) {
    CAPTURE(bad);
    const auto refused = Proxy::parse("http://p:1", {bad});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().field == "no_proxy");
  }
}

namespace {

struct Answer {
  int status = 0;
  std::string body;
  std::string reason;
  std::string detail;
};

/// GETs a URL with a client of these options.
Answer get(const std::shared_ptr<Runtime>& runtime, HttpClientOptions options, const std::string& url) {
  auto client = HttpClient::create(runtime, std::move(options));
  REQUIRE(client);
  return on_loop<Answer>(*runtime, [&]() -> Task<Answer> {
    ClientRequest request;
    request.url = *parse_url(url);
    request.headers = {{"Authorization", "Bearer of-the-target"}};
    request.deadline = std::chrono::steady_clock::now() + 10s;
    Answer out;
    auto exchange = co_await (*client)->send(std::move(request), nullptr, &out.detail);
    if (!exchange) {
      out.reason = exchange.error().reason;
      co_return out;
    }
    out.status = (*exchange)->status;
    auto body = co_await (*exchange)->read_all(1000);
    if (body) out.body = *body;
    co_return out;
  });
}

/// A proxy that answers for what is behind it.
struct FakeProxy {
  std::mutex mutex;
  std::vector<std::string> heads;  // of what it was sent
  std::string answer = "HTTP/1.1 200 Connection established\r\n\r\n";
  ScriptedServer server{[this](Peer& peer, int) {
    const std::string asked = peer.read_request();
    note(asked);
    peer.send(answer);
    const std::string request = peer.read_request();
    if (request.empty()) return;
    note(request);
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    peer.wait_closed();
  }};
  void note(const std::string& text) {
    const std::lock_guard lock(mutex);
    heads.push_back(text);
  }
  std::vector<std::string> seen() {
    const std::lock_guard lock(mutex);
    return heads;
  }
  std::string url(const std::string& user_info = {}) const {
    return "http://" + user_info + "127.0.0.1:" + std::to_string(server.port());
  }
};

}  // namespace

TEST_CASE(
    "a request goes through CONNECT; the proxy's password goes to the proxy alone, the target's to the "
    "target") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  FakeProxy proxy;
  HttpClientOptions options;
  options.proxy = proxy.url("me:secret@");
  const Answer answer = get(runtime, options, "http://203.0.113.7:8080/mcp");
  CHECK(answer.status == 200);
  CHECK(answer.body == "ok");
  const auto seen = proxy.seen();
  REQUIRE(seen.size() == 2);
  CHECK(seen[0] ==
        "CONNECT 203.0.113.7:8080 HTTP/1.1\r\nHost: 203.0.113.7:8080\r\n"
        "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n");
  CHECK(seen[1].find("GET /mcp HTTP/1.1") == 0);
  CHECK(seen[1].find("Proxy-Authorization") == std::string::npos);
  CHECK(seen[1].find("Bearer of-the-target") != std::string::npos);
}

TEST_CASE("R14: a proxy is no way around the address check, unless it is to judge itself") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  FakeProxy proxy;
  HttpClientOptions options;
  options.proxy = proxy.url();
  for (const char* inside : {"http://10.0.0.1/", "http://127.0.0.1:1/", "http://localhost/",
                             "http://169.254.169.254/", "http://[::1]/"}) {
    CAPTURE(inside);
    CHECK(get(runtime, options, inside).reason == "address_not_allowed");
  }
  options.proxy_resolves = true;
  CHECK(get(runtime, options, "http://10.0.0.1/").reason == "address_not_allowed");  // no name
  CHECK(proxy.seen().empty());
  CHECK(get(runtime, options, "http://name-of-the-inside.invalid:81/").status == 200);
  CHECK(proxy.seen()[0].find("CONNECT name-of-the-inside.invalid:81 HTTP/1.1") == 0);
  // A name is asked for by the address that was checked.
  options.proxy_resolves = false;
  options.allow_private = true;
  CHECK(get(runtime, options, "http://localhost:82/").status == 200);
  const std::string asked = proxy.seen()[2];
  CHECK((asked.find("CONNECT 127.0.0.1:82 ") == 0 || asked.find("CONNECT [::1]:82 ") == 0));
  CHECK(get(runtime, options, "http://169.254.169.254/").reason == "address_not_allowed");
  // And without the proxy it is as it was.
  options.no_proxy = {"127.0.0.0/8"};
  options.allow_private = false;
  CHECK(get(runtime, options, "http://127.0.0.1:1/").reason == "address_not_allowed");
}

TEST_CASE(
    "a proxy that refuses, talks nonsense, closes or hangs: a clear error in time, and nothing sent "
    "through") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  const std::pair<const char*, const char*> cases[] = {
      {"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy answered 407"},
      {"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nNo.", "malformed"},
      {"SSH-2.0-OpenSSH\r\n\r\n", "malformed"},
      {"HTTP/1.1 2x0 \r\n\r\n", "nonsense"},
      {"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "malformed"},
  };
  for (const auto& [text, why] : cases) {
    CAPTURE(text);
    FakeProxy proxy;
    proxy.answer = text;
    HttpClientOptions options;
    options.proxy = proxy.url("me:secret@");
    const Answer answer = get(runtime, options, "http://203.0.113.7/");
    CHECK(answer.reason == "upstream_unreachable");
    CHECK(answer.detail.find(why) != std::string::npos);
    CHECK(answer.detail.find("secret") == std::string::npos);
    CHECK(proxy.seen().size() == 1);
  }
  {
    ScriptedServer closes([](Peer& peer, int) { (void)peer.read_request(); });
    HttpClientOptions options;
    options.proxy = closes.url("");
    CHECK(get(runtime, options, "http://203.0.113.7/").detail.find("closed") != std::string::npos);
  }
  ScriptedServer endless([](Peer& peer, int) {
    (void)peer.read_request();
    for (int i = 0; i < 1000 && peer.send("X-Filler: " + std::string(1000, 'x') + "\r\n"); ++i) {
    }
  });
  HttpClientOptions options;
  options.proxy = endless.url("");
  CHECK(get(runtime, options, "http://203.0.113.7/").detail.find("too large") != std::string::npos);
  ScriptedServer hangs([](Peer& peer, int) { peer.wait_closed(); });
  options.proxy = hangs.url("");
  options.connect_timeout = 200ms;
  const auto began = std::chrono::steady_clock::now();
  CHECK(get(runtime, options, "http://203.0.113.7/").reason == "upstream_unreachable");
  CHECK(std::chrono::steady_clock::now() - began < 5s);
  CHECK_FALSE(HttpClient::create(runtime, [&] {
    HttpClientOptions wrong;
    wrong.proxy = "ftp://x";
    return wrong;
  }()));
}
