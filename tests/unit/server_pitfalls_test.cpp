// What cpp-httplib 0.11 is known to get wrong, each over a real socket: none of it may reach our clients.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "unit/server_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

std::string body_of(RawClient& client, const std::string& request) {
  client.send(request);
  const auto answer = client.read();
  return answer ? answer->body : "(ended)";
}

/// Answers with the value of X-A.
void tell(HttpRequest request, std::shared_ptr<Responder> responder) {
  const std::string* value = request.header("X-A");
  responder->send(text(value == nullptr ? "(none)" : *value));
}

}  // namespace

TEST_CASE("httplib 1: header values keep their escapes") {
  const Site site(tell);
  RawClient client = site.connect();
  for (const char* value : {"a%2Bb", "%0d%0aInj: 1", "%", "%zz", "%u0041", "100%25", "a+b"})
    CHECK(body_of(client, get("/", "X-A: " + std::string(value) + "\r\n")) == value);
}

TEST_CASE("httplib 2: no body of any method, read or not, becomes a request") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    responder->send(text(request.target, request.target == "/refused" ? 416 : 200));
  });
  const std::string hidden = get("/smuggled");
  for (const char* method : {"GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "PROPFIND"}) {
    for (const char* target : {"/", "/refused"}) {
      RawClient client = site.connect();
      client.send(std::string(method) + " " + target +
                  " HTTP/1.1\r\nHost: a\r\nRange: bytes=9-1\r\nContent-Length: " +
                  std::to_string(hidden.size()) + "\r\n\r\n" + hidden + get("/next"));
      CHECK(client.read(std::string_view(method) == "HEAD"));
      CHECK(client.read()->body == "/next");
    }
  }
}

TEST_CASE("httplib 3: request lines, headers and chunked bodies take no memory beyond their bounds") {
  HttpServerOptions options;
  options.max_body = 1024 * 1024;
  const Site site(echo, options);
  const std::string block(1024 * 1024, 'x');
  const auto flood = [&](const std::string& begin, const std::string& unit) {
    RawClient client = site.connect();
    client.send(begin);
    for (int i = 0; i < 64 && client.send(unit); ++i) {
    }
    const auto answer = client.read();
    return answer ? answer->status : 0;
  };
  std::string headers;
  while (headers.size() < block.size()) headers += "X-A: " + std::string(1000, 'x') + "\r\n";
  const std::size_t before = resident_kib();
  CHECK(flood("GET /", block) == 414);
  CHECK(flood("GET / HTTP/1.1\r\nHost: a\r\n", headers) == 431);
  CHECK(flood("GET / HTTP/1.1\r\nHost: a\r\nX: ", block) == 431);
  CHECK(flood("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
              "100000\r\n" + block + "\r\n") == 413);
  CHECK(flood("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", headers) == 431);
  CHECK(flood("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", block) == 413);
  CHECK(resident_kib() < before + 32 * 1024);
}

TEST_CASE("httplib 4: half-sent requests, many more than there are threads, hold nobody up") {
  const Site site(echo, {}, 1);
  std::vector<RawClient> half;
  for (int i = 0; i < 300; ++i) {
    half.push_back(site.connect());
    half.back().send("GET / HTTP/1.1\r\nHos");
  }
  RawClient client = site.connect();
  for (int i = 0; i < 100; ++i) CHECK(body_of(client, post("x")) == "x");
}

TEST_CASE("httplib 5: no answer is compressed with brotli, no stream with anything") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    HttpResponse response = text(std::string(60000, 'x'));
    response.set_header("Content-Type",
                        request.target == "/json" ? "application/json" : "text/event-stream; charset=utf-8");
    if (request.target == "/json") return responder->send(std::move(response));
    responder->start(std::move(response))->close();
  });
  RawClient client = site.connect();
  client.send(get("/json", "Accept-Encoding: br\r\n"));
  CHECK(client.read()->body.size() == 60000);
  client.send(get("/stream", "Accept-Encoding: br, gzip, deflate\r\n"));
  const auto stream = client.read();
  CHECK(stream->header("Content-Encoding") == "(none)");
  CHECK(stream->body.size() == 60000);
}

TEST_CASE("httplib 6: long targets take no time and no stack") {
  const Site site(echo);
  RawClient client = site.connect();
  for (const char* piece : {"a", "/", "%2F", ".*", "a?"}) {
    std::string target = "/item/";
    while (target.size() < 8000) target += piece;
    client.send(get(target));
    CHECK(client.read()->header("X-Target") == target);
  }
}

TEST_CASE("httplib 7: child processes inherit no socket") {
  const Site site(echo);
  RawClient client = site.connect();
  CHECK(body_of(client, post("x")) == "x");
  const auto content = [](const std::string& path) {
    std::ifstream in(path);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  const std::string tcp = content("/proc/net/tcp");
  // By /proc alone: the descriptors are the server's to touch.
  int sockets = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const std::string what = std::filesystem::read_symlink(entry.path(), ignored).string();
    if (what.rfind("socket:[", 0) != 0) continue;
    if (tcp.find(' ' + what.substr(8, what.size() - 9) + ' ') == std::string::npos) continue;  // none of TCP
    const std::string info = content("/proc/self/fdinfo/" + entry.path().filename().string());
    const auto flags = info.find("flags:");
    REQUIRE(flags != std::string::npos);
    ++sockets;
    CHECK((std::stoul(info.substr(flags + 6), nullptr, 8) & O_CLOEXEC) != 0);
  }
  CHECK(sockets >= 3);  // the listener, both ends of the connection
}

TEST_CASE("httplib 8: exceptions tell nothing, and no header claims an address") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    if (request.target == "/throw") throw std::runtime_error("secret-text");
    std::set<std::string> lines;  // their order is httplib's, and not the same in all releases
    for (const auto& [name, value] : request.headers) lines.insert(name + "=" + value + ";");
    std::string names;
    for (const auto& line : lines) names += line;
    responder->send(text(names + request.remote_address));
  });
  RawClient client = site.connect();
  client.send(get("/throw"));
  const auto answer = client.read();
  CHECK(answer->status == 500);
  CHECK(answer->body.find("secret-text") == std::string::npos);
  for (const auto& [name, value] : answer->headers) CHECK(value.find("secret-text") == std::string::npos);
  CHECK(body_of(client, get("/", "REMOTE_ADDR: 6.6.6.6\r\n")) == "Host=a;REMOTE_ADDR=6.6.6.6;127.0.0.1");
}

TEST_CASE("httplib 9: connections end when they are asked to, forms may be long") {
  const Site site(echo);
  for (const char* close : {"close", "Close", "CLOSE", "x, Close"}) {
    RawClient client = site.connect();
    client.send(get("/", "Connection: " + std::string(close) + "\r\n"));
    CHECK(client.read()->header("Connection") == "close");
    CHECK(client.ended());
  }
  RawClient old = site.connect();
  for (const char* keep : {"keep-alive", "Keep-Alive", "KEEP-ALIVE"}) {
    old.send("GET / HTTP/1.0\r\nConnection: " + std::string(keep) + "\r\n\r\n");
    CHECK(old.read()->header("Connection") == "keep-alive");
  }
  RawClient form = site.connect();
  const std::string body(100000, 'x');
  form.send(
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: "
      "100000\r\n\r\n" +
      body);
  CHECK((form.read()->body == body));
}

TEST_CASE("httplib 10: unknown statuses are not called errors, no Keep-Alive promises anything") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    responder->send(text("", std::stoi(request.target.substr(1))));
  });
  RawClient client = site.connect();
  for (const auto& [status, line] : {std::pair{"299", "HTTP/1.1 299 Success"},
                                     {"399", "HTTP/1.1 399 Redirection"},
                                     {"444", "HTTP/1.1 444 Client Error"},
                                     {"555", "HTTP/1.1 555 Server Error"}}) {
    client.send(get("/" + std::string(status)));
    const auto answer = client.read();
    CHECK(answer->line == line);
    CHECK(answer->header("Keep-Alive") == "(none)");
  }
}

TEST_CASE(
    "httplib 11 to 14: an answer is one piece, a connection serves any number of requests, and many may "
    "wait") {
  const Site site(echo);
  RawClient client = site.connect();
  // Two segments and Nagle would take 40 ms each.
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < 500; ++i) CHECK(body_of(client, post("x")) == "x");
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(10));
  // 300 at once are more than httplib's backlog of 5 and its pool of 8.
  std::vector<RawClient> many;
  for (int i = 0; i < 300; ++i) many.push_back(site.connect());
  for (RawClient& one : many) one.send(post("y"));
  for (RawClient& one : many) CHECK(one.read()->body == "y");
}

TEST_CASE("a half-closed connection: what was asked before is answered, what waits is cancelled") {
  const Site site([](HttpRequest request, std::shared_ptr<Responder> responder) {
    static Mailbox<std::shared_ptr<Responder>> held;
    if (request.target == "/wait") {
      responder->on_disconnect([] { held.get(); });
      return held.put(std::move(responder));
    }
    responder->send(text(request.target));
  });
  RawClient client = site.connect();
  client.send(get("/1") + get("/2"));
  client.finish_sending();
  CHECK(client.read()->body == "/1");
  CHECK(client.read()->body == "/2");
  CHECK(client.ended());
  RawClient waiting = site.connect();
  waiting.send(get("/wait"));
  waiting.finish_sending();
  CHECK(waiting.ended());
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}
