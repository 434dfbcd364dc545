#include <doctest/doctest.h>

#include <random>

#include "server/framing.hpp"
#include "server/httplib_parser.hpp"
#include "server/message.hpp"
#include "server/proxies.hpp"
#include "unit/http_cases.hpp"

using namespace mcpgw;
using namespace mcpgw::detail::server;
using mcpgw::testing::HttpCase;

namespace {

FramingLimits limits() {
  FramingLimits out;
  out.max_body = mcpgw::testing::kCaseMaxBody;
  return out;
}

struct Outcome {
  int status = 0;  ///< 200: complete; 0: more is needed; else the refusal
  HttpRequest request;
  std::size_t used = 0;
  bool gzip = false;
  bool keep_alive = false;
  bool continued = false;  ///< "100 Continue" was asked for
  bool known = false;      ///< the parser knew its head; no difference otherwise

  bool operator==(const Outcome& other) const {
    return status == other.status && gzip == other.gzip && keep_alive == other.keep_alive &&
           request.method == other.request.method && request.target == other.request.target &&
           request.headers == other.request.headers && request.body == other.request.body &&
           (status != 200 || used == other.used);
  }
};

/// Feeds `pieces` until the first request is complete or refused.
Outcome read(const std::vector<std::string>& pieces, HttplibParser& parser, const FramingLimits& bounds) {
  RequestReader reader(bounds);
  Outcome out;
  for (const std::string& piece : pieces) {
    std::size_t used = 0;
    const KnownHead* const known = reader.idle() ? parser.recall(piece) : nullptr;
    const auto progress = reader.feed(piece, used, known != nullptr ? &known->head : nullptr);
    out.known = out.known || known != nullptr;
    CHECK(used <= piece.size());
    out.used += used;
    if (progress == RequestReader::Progress::failed) {
      out.status = reader.error().status;
      return out;
    }
    if (progress == RequestReader::Progress::complete) {
      out.status = 200;
      CHECK(parser.parse(reader, out.request, out.gzip, known));
      out.keep_alive = reader.keep_alive();
      return out;
    }
    out.continued = reader.take_continue() || out.continued;
    CHECK(used == piece.size());
  }
  return out;
}

HttpRequest request_of(const std::string& bytes) {
  static HttplibParser parser;
  static const FramingLimits bounds = limits();
  const Outcome outcome = read({bytes}, parser, bounds);
  REQUIRE(outcome.status == 200);
  return outcome.request;
}

std::vector<std::string> values(const HttpRequest& request, std::string_view name) {
  std::vector<std::string> out;
  for (const auto& [key, value] : request.headers)
    if (key == name) out.push_back(value);
  return out;
}

}  // namespace

TEST_CASE("every case has its outcome, whole and cut in two anywhere") {
  HttplibParser parser;
  const FramingLimits bounds = limits();
  const auto cases = mcpgw::testing::http_cases();
  CHECK(cases.size() >= 120);
  for (const HttpCase& c : cases) {
    CAPTURE(c.name);
    const Outcome whole = read({c.bytes}, parser, bounds);
    CHECK(whole.status == c.status);
    if (c.status == 200) CHECK(whole.request.body == c.body);
    const std::size_t step = c.bytes.size() > 3000 ? 211 : 1;
    for (std::size_t cut = 0; cut <= c.bytes.size(); cut += step) {
      const Outcome two = read({c.bytes.substr(0, cut), c.bytes.substr(cut)}, parser, bounds);
      if (!(two == whole)) {
        CAPTURE(cut);
        CHECK(two.status == whole.status);
        CHECK(two.request.headers == whole.request.headers);
        CHECK(two.request.body == whole.request.body);
        CHECK(two.used == whole.used);
        break;
      }
    }
    if (c.bytes.size() < 3000) {
      std::vector<std::string> bytes;
      for (const char byte : c.bytes) bytes.emplace_back(1, byte);
      CHECK(read(bytes, parser, bounds) == whole);
    }
  }
}

TEST_CASE("a parser that has seen many heads says of each what a new one says") {
  HttplibParser used;
  const FramingLimits bounds = limits();
  const auto cases = mcpgw::testing::http_cases();
  for (int round = 0; round < 4; ++round) {
    int known = 0;
    for (const HttpCase& c : cases) {
      CAPTURE(c.name);
      HttplibParser fresh;
      const Outcome outcome = read({c.bytes}, used, bounds);
      CHECK(outcome == read({c.bytes}, fresh, bounds));
      if (outcome.known) ++known;
    }
    if (round > 1) CHECK(known > 20);  // kept when they came for the second time
  }
  // The same head with another length and body, with another byte in a value, and one too long to be kept.
  const auto post = [&](const std::string& header, const std::string& body) {
    return read({"POST /mcp?a=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + header +
                 "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body},
                used, bounds)
        .request;
  };
  for (int i = 0; i < 3000; ++i) {
    const std::string token = "t" + std::to_string(i % 300) + std::string(i % 7 == 0 ? 5000 : 0, 'x');
    const std::string body(static_cast<std::size_t>(i % 50), 'b');
    const HttpRequest request = post(token, body);
    CHECK(request.method == "POST");
    CHECK(request.target == "/mcp?a=1");
    CHECK(request.body == body);
    CHECK(values(request, "Authorization") == std::vector<std::string>{"Bearer " + token});
    CHECK(values(request, "Content-Length") == std::vector<std::string>{std::to_string(body.size())});
    CHECK(request.headers.size() == 3);
  }
}

TEST_CASE("a head is known again by every byte of it but the digits of its length") {
  const FramingLimits bounds = limits();
  const std::string head =
      "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nAccept-Encoding: gzip\r\n"
      "Authorization: Bearer abcdefghijklmnop\r\nX-Short: 1\r\n\r\n";
  HttplibParser used;
  const auto know = [&](const std::string& bytes) {
    for (int i = 0; i < 3; ++i) read({bytes}, used, bounds);
    return read({bytes}, used, bounds).known;
  };
  REQUIRE(know(head + "hi"));
  for (std::size_t at = 0; at < head.size(); ++at) {
    for (const char byte : {'x', '1', '9', ' ', '\t', '\r', '\n', ':', '\0', '\x80'}) {
      std::string other = head + "hi and something behind it";
      other[at] = byte;
      CAPTURE(other);
      HttplibParser fresh;
      CHECK(read({other}, used, bounds) == read({other}, fresh, bounds));
    }
  }
  CHECK(know(head + "hi"));  // whatever came meanwhile
  const auto with_length = [&](const std::string& digits) {
    std::string out = head;
    return out.replace(head.find(": 2\r\n") + 2, 1, digits);
  };
  const Outcome nine = read({with_length("9") + "123456789"}, used, bounds);
  CHECK(nine.known);
  CHECK(nine.gzip);
  CHECK(nine.request.body == "123456789");
  CHECK(*nine.request.header("content-length") == "9");
  CHECK(read({with_length("0")}, used, bounds).status == 200);
  CHECK_FALSE(read({with_length("10") + "1234567890"}, used, bounds).known);
  CHECK(read({with_length("10") + "1234567890"}, used, bounds).request.body == "1234567890");

  SUBCASE("its body may come later, and in pieces") {
    const Outcome later = read({with_length("9") + "123", "", "456", "789next"}, used, bounds);
    CHECK(later.known);
    CHECK(later.request.body == "123456789");
    CHECK(*later.request.header("Content-Length") == "9");
    CHECK(*later.request.header("Authorization") == "Bearer abcdefghijklmnop");
    CHECK(later.used == head.size() + 9);
  }
  SUBCASE("a head that comes in pieces is read, one behind a blank line too") {
    CHECK(read({head.substr(0, 40), head.substr(40) + "hi"}, used, bounds).request.body == "hi");
    CHECK(read({"\r\n" + head + "hi"}, used, bounds).request.body == "hi");
    CHECK(read({"\r\n", head + "hi"}, used, bounds).request.body == "hi");
  }
  SUBCASE("a body beyond the limit is refused all the same") {
    const std::string large = with_length(std::to_string(bounds.max_body));
    REQUIRE(know(large + std::string(bounds.max_body, 'x')));
    std::string more = std::to_string(bounds.max_body + 1);
    REQUIRE(more.size() == std::to_string(bounds.max_body).size());
    CHECK(read({with_length(more)}, used, bounds).status == 413);
  }
  SUBCASE("what a head asks for besides is asked for each time") {
    std::string chunked = head;
    chunked.replace(head.find("Content-Length: 2"), 17, "Transfer-Encoding: chunked");
    REQUIRE(know(chunked + "2\r\nhi\r\n0\r\n\r\n"));
    CHECK(read({chunked + "3\r\nyes\r\n0\r\n\r\n"}, used, bounds).request.body == "yes");
    std::string waits = head;
    waits.replace(head.find("X-Short: 1"), 10, "Expect: 100-continue\r\nConnection: close");
    REQUIRE(know(waits + "hi"));
    const Outcome waited = read({waits, "hi"}, used, bounds);
    CHECK(waited.known);
    CHECK(waited.continued);
    CHECK_FALSE(waited.keep_alive);
    CHECK_FALSE(read({waits + "h", "i"}, used, bounds).continued);
    CHECK(read({head + "h", "i"}, used, bounds).keep_alive);
  }
  SUBCASE("many clients that take turns are nearly all known in the end") {
    int known = 0;
    for (int round = 0; round < 4; ++round) {
      known = 0;
      for (int i = 0; i < 400; ++i) {
        std::string one = head;
        one.replace(head.find("X-Short: 1"), 10, "X-Client: " + std::to_string(10000 + i * 7));
        if (read({one + "hi"}, used, bounds).known) ++known;
      }
    }
    CAPTURE(known);
    CHECK(known >= 250);
  }
  SUBCASE("more heads than there is room for, and two in one place") {
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 4000; ++i) {
        const std::string name = "X-Client: " + std::to_string(i);
        std::string one = head;
        one.replace(head.find("X-Short: 1"), 10, name);
        const Outcome outcome = read({one + "hi"}, used, bounds);
        CHECK(*outcome.request.header("X-Client") == std::to_string(i));
        CHECK(outcome.request.body == "hi");
      }
    }
  }
}

TEST_CASE("random bytes and random damage never break the reader") {
  HttplibParser parser;
  const FramingLimits bounds = limits();
  const auto cases = mcpgw::testing::http_cases();
  std::mt19937 random(20260101);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = cases[random() % cases.size()].bytes.substr(0, 600);
    for (unsigned i = 0; i < 1 + random() % 4 && !bytes.empty(); ++i) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 3) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.erase(at, 1 + random() % 3);
          break;
        default:
          bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 20));
          break;
      }
    }
    const std::size_t cut = bytes.empty() ? 0 : random() % bytes.size();
    const Outcome whole = read({bytes}, parser, bounds);
    CHECK(read({bytes.substr(0, cut), bytes.substr(cut)}, parser, bounds) == whole);
  }
}

TEST_CASE("headers come as they were sent") {
  const HttpRequest request = request_of(
      "PATCH /a%20b?c=%2B+d HTTP/1.1\r\nhost: Example:80\r\nX-Plus: a%2Bb+c\r\nX-Inject: %0d%0aEvil: 1\r\n"
      "X-Unicode: %u0041%25\r\nx-Empty:\r\nRange: bytes=0-1\r\nExpect: 100-continue\r\nAccept-Encoding: "
      "br\r\n"
      "REMOTE_ADDR: 6.6.6.6\r\nX-Twice: 1\r\nX-Other: 0\r\nX-Twice: 2\r\nContent-Length: 2\r\nX-Bytes: "
      "\xff\xc3\xa9\r\n\r\nhi");
  CHECK(request.method == "PATCH");
  CHECK(request.target == "/a%20b?c=%2B+d");
  CHECK(request.body == "hi");
  CHECK(values(request, "host") == std::vector<std::string>{"Example:80"});
  CHECK(values(request, "X-Plus") == std::vector<std::string>{"a%2Bb+c"});
  CHECK(values(request, "X-Inject") == std::vector<std::string>{"%0d%0aEvil: 1"});
  CHECK(values(request, "X-Unicode") == std::vector<std::string>{"%u0041%25"});
  CHECK(values(request, "x-Empty") == std::vector<std::string>{""});
  CHECK(values(request, "Range") == std::vector<std::string>{"bytes=0-1"});
  CHECK(values(request, "Accept-Encoding") == std::vector<std::string>{"br"});
  CHECK(values(request, "REMOTE_ADDR") == std::vector<std::string>{"6.6.6.6"});
  CHECK(values(request, "X-Twice") == std::vector<std::string>{"1", "2"});
  CHECK(values(request, "X-Bytes") == std::vector<std::string>{"\xff\xc3\xa9"});
  CHECK(request.header("Evil") == nullptr);
  CHECK(request.header("REMOTE_PORT") == nullptr);
  CHECK(request.header("LOCAL_ADDR") == nullptr);
  CHECK(request.headers.size() == 14);
}

TEST_CASE("an absolute target names the host") {
  HttpRequest request = request_of("GET http://good:81/p?q HTTP/1.1\r\nHost: evil\r\n\r\n");
  CHECK(request.target == "/p?q");
  CHECK(*request.header("Host") == "good:81");
  CHECK(request.headers.size() == 1);
  request = request_of("GET http://good?q HTTP/1.0\r\n\r\n");
  CHECK(request.target == "/?q");
  CHECK(*request.header("Host") == "good");
  request = request_of("GET http://good HTTP/1.1\r\nHost: evil\r\n\r\n");
  CHECK(request.target == "/");
}

TEST_CASE("methods and targets that httplib does not know") {
  CHECK(request_of("PROPFIND /x HTTP/1.1\r\nHost: a\r\n\r\n").method == "PROPFIND");
  CHECK(request_of("get /x HTTP/1.1\r\nHost: a\r\n\r\n").method == "get");
  CHECK(request_of("GET /a?b?c HTTP/1.1\r\nHost: a\r\n\r\n").target == "/a?b?c");
  CHECK(request_of("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target == "*");
  CHECK(request_of("GET //evil/x HTTP/1.1\r\nHost: a\r\n\r\n").target == "//evil/x");
  CHECK(request_of("GET /../a/./b HTTP/1.1\r\nHost: a\r\n\r\n").target == "/../a/./b");
}

TEST_CASE("100-continue is asked for once, and only by who waits") {
  const FramingLimits bounds = limits();
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
  const auto asks = [&](const std::string& bytes) {
    RequestReader reader(bounds);
    std::size_t used = 0;
    reader.feed(bytes, used);
    const bool first = reader.take_continue();
    CHECK_FALSE(reader.take_continue());
    return first;
  };
  CHECK(asks(head + "Content-Length: 2\r\n\r\n"));
  CHECK(asks(head + "Transfer-Encoding: chunked\r\n\r\n"));
  CHECK_FALSE(asks(head + "Content-Length: 2\r\n\r\nh"));
  CHECK_FALSE(asks(head + "Transfer-Encoding: chunked\r\n\r\n2"));
  CHECK_FALSE(asks(head + "Content-Length: 0\r\n\r\n"));
  CHECK_FALSE(asks(head + "Content-Length: 2\r\n"));
  CHECK_FALSE(asks("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
}

TEST_CASE("the memory of a request is bounded by what has come, not by what was promised") {
  FramingLimits bounds;
  bounds.max_body = std::size_t{1} << 40;
  RequestReader reader(bounds);
  std::size_t used = 0;
  CHECK(reader.feed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n", used) ==
        RequestReader::Progress::need_more);
  CHECK(reader.take_body().capacity() <= 64 * 1024 + 64);
}

TEST_CASE("answers are rendered without a way out of their lines") {
  HttpResponse response;
  response.status = 200;
  response.headers = {{"X-A", "1"},
                      {"X-B", "a\r\nInjected: 1"},
                      {"X C", "1"},
                      {"X-D", std::string("a\0b", 3)},
                      {"Content-Length", "999"},
                      {"Connection", "upgrade"},
                      {"Transfer-Encoding", "gzip"},
                      {"", "x"}};
  response.body = "hello";
  const std::string head = render_head(response, {});
  CHECK(head.find("HTTP/1.1 200 OK\r\n") == 0);
  CHECK(head.find("X-A: 1\r\n") != std::string::npos);
  CHECK(head.find("Content-Length: 5\r\n") != std::string::npos);
  CHECK(head.find("Date: ") != std::string::npos);
  for (const char* gone :
       {"Injected", "X C", "X-B", "X-D", "999", "upgrade", "gzip", "Keep-Alive", "Connection"})
    CHECK(head.find(gone) == std::string::npos);
  CHECK(head.substr(head.size() - 4) == "\r\n\r\n");
  CHECK(head.find("\r\n\r\n") == head.size() - 4);

  CHECK(render_head({299, {}, {}}, {}).find("HTTP/1.1 299 Success\r\n") == 0);
  CHECK(render_head({418, {}, {}}, {}).find("HTTP/1.1 418 Client Error\r\n") == 0);
  CHECK(render_head({599, {}, {}}, {}).find("HTTP/1.1 599 Server Error\r\n") == 0);
  CHECK(render_head({204, {}, {}}, {}).find("Content-Length") == std::string::npos);
  CHECK(render_head({304, {}, {}}, {}).find("Content-Length") == std::string::npos);
  AnswerForm form;
  form.http11 = false;
  CHECK(render_head(response, form).find("Connection: keep-alive\r\n") != std::string::npos);
  form.close = true;
  CHECK(render_head(response, form).find("Connection: close\r\n") != std::string::npos);
}

TEST_CASE("request ids of clients are repeated when they are harmless") {
  CHECK(request_id_for("abc-1_2.Z") == "abc-1_2.Z");
  CHECK(request_id_for(std::string(128, 'a')) == std::string(128, 'a'));
  for (const std::string& bad : {std::string(), std::string(129, 'a'), std::string("a\"b"),
                                 std::string("a b"), std::string("\xc3\xa9")}) {
    const std::string made = request_id_for(bad);
    CHECK(made != bad);
    CHECK(made.size() == 36);
  }
}

TEST_CASE("trusted networks") {
  const auto proxies =
      TrustedProxies::parse({"10.0.0.0/8", "192.168.1.7", "2001:db8::/33", "fd00::1", "172.16.5.0/23"});
  REQUIRE(proxies);
  const auto trusts = [&](const char* text) { return proxies->trusts(*parse_address(text)); };
  CHECK(trusts("10.255.0.1"));
  CHECK(trusts("::ffff:10.0.0.1"));
  CHECK_FALSE(trusts("11.0.0.1"));
  CHECK(trusts("192.168.1.7"));
  CHECK_FALSE(trusts("192.168.1.6"));
  CHECK(trusts("2001:db8:7fff::1"));
  CHECK_FALSE(trusts("2001:db8:8000::1"));
  CHECK(trusts("fd00::1"));
  CHECK_FALSE(trusts("fd00::2"));
  CHECK(trusts("172.16.4.1"));
  CHECK_FALSE(trusts("172.16.6.1"));
  CHECK_FALSE(trusts("::10.0.0.1"));
  CHECK(TrustedProxies::parse({"0.0.0.0/0"})->trusts(*parse_address("1.2.3.4")));
  CHECK_FALSE(TrustedProxies::parse({"0.0.0.0/0"})->trusts(*parse_address("fd00::1")));
  for (const char* bad : {"", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8x", "10.0.0/8", "host",
                          "::/129", "10.0.0.0/+8"})
    CHECK_FALSE(TrustedProxies::parse({bad}));
}

TEST_CASE("an address is written as the system writes it") {
  for (const char* text : {"0.0.0.0", "1.2.3.4", "255.255.255.255", "10.0.100.9", "::1",
                           "2001:db8::8:800:200c:417a", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"})
    CHECK(format_address(*parse_address(text)) == text);
  CHECK(format_address(*parse_address("::ffff:198.51.100.200")) == "198.51.100.200");
}

TEST_CASE("R68 the client is who trusted proxies say, and nobody else") {
  const auto proxies = *TrustedProxies::parse({"10.0.0.0/8", "fd00::/16"});
  const auto client = [&](const char* peer, HttpHeaders headers) {
    return proxies.client_of(*parse_address(peer), headers);
  };
  CHECK(client("6.6.6.6", {{"X-Forwarded-For", "1.1.1.1"}, {"X-Forwarded-Proto", "https"}}).address ==
        "6.6.6.6");
  CHECK_FALSE(client("6.6.6.6", {{"X-Forwarded-Proto", "https"}, {"Forwarded", "proto=https"}}).tls);
  CHECK(client("10.0.0.1", {}).address == "10.0.0.1");
  CHECK(client("10.0.0.1", {{"X-Forwarded-For", "1.1.1.1"}}).address == "1.1.1.1");
  CHECK(client("10.0.0.1", {{"x-forwarded-for", "9.9.9.9, 1.1.1.1 ,10.0.0.2"}}).address == "1.1.1.1");
  CHECK(client("10.0.0.1", {{"X-Forwarded-For", "9.9.9.9"}, {"X-Forwarded-For", "1.1.1.1, 10.0.0.2"}})
            .address == "1.1.1.1");
  CHECK(client("10.0.0.1", {{"X-Forwarded-For", "10.0.0.3, 10.0.0.2"}}).address == "10.0.0.3");
  CHECK(client("10.0.0.1", {{"X-Forwarded-For", "1.1.1.1, unknown"}}).address == "10.0.0.1");
  CHECK(client("10.0.0.1", {{"X-Forwarded-For", "1.1.1.1, nonsense, 10.0.0.2"}}).address == "10.0.0.2");
  CHECK(client("10.0.0.1", {{"X-Forwarded-For", ""}}).address == "10.0.0.1");
  CHECK(client("10.0.0.1", {{"X-Forwarded-For", "1.1.1.1:4711"}}).address == "1.1.1.1");
  CHECK(client("fd00::1", {{"X-Forwarded-For", "[2001:db8::1]:80"}}).address == "2001:db8::1");
  CHECK(client("fd00::1", {{"X-Forwarded-For", "2001:db8::1"}}).address == "2001:db8::1");
  CHECK(client("::ffff:10.0.0.1", {{"X-Forwarded-For", "::ffff:1.1.1.1"}}).address == "1.1.1.1");
  CHECK(
      client("10.0.0.1", {{"Forwarded", "for=9.9.9.9, for=\"[2001:db8::1]:80\";proto=https;by=x"}}).address ==
      "2001:db8::1");
  CHECK(client("10.0.0.1", {{"Forwarded", "for=1.1.1.1;proto=https"}}).tls);
  CHECK(client("10.0.0.1", {{"X-Forwarded-Proto", "https"}}).tls);
  CHECK_FALSE(client("10.0.0.1", {{"X-Forwarded-Proto", "https, http"}}).tls);
  CHECK_FALSE(client("10.0.0.1", {{"X-Forwarded-Proto", "http"}, {"Forwarded", "proto=https"}}).tls);
  std::string chain = "1.1.1.1";
  for (int i = 0; i < 5000; ++i) chain += ", 10.0.0.2";
  CHECK(client("10.0.0.1", {{"X-Forwarded-For", chain}}).address == "10.0.0.2");
}
