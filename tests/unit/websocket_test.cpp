// The WebSocket codec: what RFC 6455 permits, and what it forbids.
#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "base/text.hpp"
#include "mcpgw/http.hpp"
#include "unit/websocket_support.hpp"

using namespace mcpgw;
using namespace mcpgw::detail::server;
using namespace mcpgw::testing;

namespace {

constexpr std::size_t kMaxMessage = 1000;
using Progress = WebSocketDecoder::Progress;

struct Event {
  Progress what;
  std::string payload;
  int code = 0;
  bool operator==(const Event& other) const {
    return what == other.what && payload == other.payload && code == other.code;
  }
};

/// Everything that comes out of `bytes`, fed in pieces of `step`.
std::vector<Event> decode(std::string_view bytes, std::size_t step = ~std::size_t{0}) {
  WebSocketDecoder decoder(kMaxMessage);
  std::vector<Event> out;
  for (std::size_t at = 0; at < bytes.size(); at += std::min(step, bytes.size() - at)) {
    std::string_view piece = bytes.substr(at, step);
    while (!piece.empty()) {
      const std::size_t before = piece.size();
      const Progress progress = decoder.next(piece);
      CHECK((piece.size() < before || progress == Progress::failed));
      if (progress == Progress::need_more) {
        CHECK(piece.empty());
        break;
      }
      const bool last = progress == Progress::close || progress == Progress::failed;
      out.push_back({progress, progress == Progress::failed ? std::string() : decoder.take_payload(),
                     last ? decoder.code() : 0});
      if (last) {
        std::string_view more = "\x81\x80";
        CHECK(decoder.next(more) == Progress::failed);
        return out;
      }
    }
  }
  return out;
}

struct FrameCase {
  const char* name;
  std::string bytes;
  std::vector<Event> events;
};

Event failed(int code) { return {Progress::failed, "", code}; }
Event message(std::string text) { return {Progress::text, std::move(text)}; }

std::vector<FrameCase> frame_cases() {
  const auto frame = [](WebSocketOpcode opcode, std::string_view payload, FrameForm form = {}) {
    return client_frame(opcode, payload, form);
  };
  constexpr auto kText = WebSocketOpcode::text;
  constexpr auto kBinary = WebSocketOpcode::binary;
  constexpr auto kMore = WebSocketOpcode::continuation;
  constexpr auto kPing = WebSocketOpcode::ping;
  constexpr auto kPong = WebSocketOpcode::pong;
  constexpr auto kClose = WebSocketOpcode::close;
  const FrameForm part{.final = false};
  const FrameForm bare{.masked = false};
  const std::string euro = "\xe2\x82\xac";
  const auto long_of = [](std::size_t size) { return std::string(size, 'x'); };
  const auto opcode = [](int value) { return static_cast<WebSocketOpcode>(value); };
  return {
      {"text", frame(kText, "hello"), {message("hello")}},
      {"empty text", frame(kText, ""), {message("")}},
      {"binary", frame(kBinary, "\xff\xfe"), {{Progress::binary, "\xff\xfe"}}},
      {"two messages", frame(kText, "a") + frame(kText, "b"), {message("a"), message("b")}},
      {"125 bytes", frame(kText, long_of(125)), {message(long_of(125))}},
      {"126 bytes", frame(kText, long_of(126)), {message(long_of(126))}},
      {"the most", frame(kText, long_of(1000)), {message(long_of(1000))}},
      {"one more", frame(kText, long_of(1001)), {failed(1009)}},
      {"claims 64 KiB", frame(kText, "", {.size = 65536}), {failed(1009)}},
      {"claims everything", frame(kText, "", {.size = ~0ull >> 1}), {failed(1009)}},
      {"claims a negative length", frame(kText, "", {.size_bytes = 8, .size = 1ull << 63}), {failed(1002)}},
      {"fragments over the limit",
       frame(kText, long_of(600), part) + frame(kMore, long_of(401)),
       {failed(1009)}},
      {"fragments at the limit",
       frame(kText, long_of(600), part) + frame(kMore, long_of(400)),
       {message(long_of(1000))}},
      {"fragments", frame(kText, "a", part) + frame(kMore, "b", part) + frame(kMore, "c"), {message("abc")}},
      {"empty fragments", frame(kText, "", part) + frame(kMore, "", part) + frame(kMore, ""), {message("")}},
      {"ping between fragments",
       frame(kText, "a", part) + frame(kPing, "p") + frame(kMore, "b"),
       {{Progress::ping, "p"}, message("ab")}},
      {"close between fragments",
       frame(kText, "a", part) + client_close(1000),
       {{Progress::close, "", 1000}}},
      {"binary fragments",
       frame(kBinary, "\xff", part) + frame(kMore, "\xff"),
       {{Progress::binary, "\xff\xff"}}},
      {"continuation of nothing", frame(kMore, "a"), {failed(1002)}},
      {"continuation after the end", frame(kText, "a") + frame(kMore, "b"), {message("a"), failed(1002)}},
      {"text inside a message", frame(kText, "a", part) + frame(kText, "b"), {failed(1002)}},
      {"binary inside a message", frame(kText, "a", part) + frame(kBinary, "b"), {failed(1002)}},
      {"not masked", frame(kText, "a", bare), {failed(1002)}},
      {"ping not masked", frame(kPing, "", bare), {failed(1002)}},
      {"RSV1", frame(kText, "a", {.reserved = 4}), {failed(1002)}},
      {"RSV2", frame(kText, "a", {.reserved = 2}), {failed(1002)}},
      {"RSV3", frame(kPing, "a", {.reserved = 1}), {failed(1002)}},
      {"opcode 3", frame(opcode(3), "a"), {failed(1002)}},
      {"opcode 7", frame(opcode(7), "a"), {failed(1002)}},
      {"opcode 11", frame(opcode(11), "a"), {failed(1002)}},
      {"opcode 15", frame(opcode(15), "a"), {failed(1002)}},
      {"length in too many bytes", frame(kText, "a", {.size_bytes = 2}), {failed(1002)}},
      {"length in far too many bytes", frame(kText, long_of(200), {.size_bytes = 8}), {failed(1002)}},
      {"ping", frame(kPing, "p"), {{Progress::ping, "p"}}},
      {"ping of 125", frame(kPing, long_of(125)), {{Progress::ping, long_of(125)}}},
      {"ping of 126", frame(kPing, long_of(126)), {failed(1002)}},
      {"ping in fragments", frame(kPing, "p", part), {failed(1002)}},
      {"pong nobody asked for", frame(kPong, "p"), {{Progress::pong, "p"}}},
      {"close in fragments", frame(kClose, "", part), {failed(1002)}},
      {"close of 126", frame(kClose, long_of(126)), {failed(1002)}},
      {"close without code", frame(kClose, ""), {{Progress::close, "", 1005}}},
      {"close with half a code", frame(kClose, "\x03"), {failed(1002)}},
      {"close with a reason", client_close(1001, "bye"), {{Progress::close, "bye", 1001}}},
      {"close with a reason that is not UTF-8", client_close(1000, "\xff"), {failed(1007)}},
      {"close 999", client_close(999), {failed(1002)}},
      {"close 1004", client_close(1004), {failed(1002)}},
      {"close 1005", client_close(1005), {failed(1002)}},
      {"close 1006", client_close(1006), {failed(1002)}},
      {"close 1014", client_close(1014), {{Progress::close, "", 1014}}},
      {"close 1015", client_close(1015), {failed(1002)}},
      {"close 2999", client_close(2999), {failed(1002)}},
      {"close 3000", client_close(3000), {{Progress::close, "", 3000}}},
      {"close 4999", client_close(4999), {{Progress::close, "", 4999}}},
      {"close 5000", client_close(5000), {failed(1002)}},
      {"nothing after close", client_close(1000) + frame(kText, "a"), {{Progress::close, "", 1000}}},
      {"UTF-8", frame(kText, euro), {message(euro)}},
      {"UTF-8 cut between fragments",
       frame(kText, euro.substr(0, 1), part) + frame(kMore, euro.substr(1, 1), part) +
           frame(kMore, euro.substr(2)),
       {message(euro)}},
      {"UTF-8 cut at the end", frame(kText, euro.substr(0, 2)), {failed(1007)}},
      {"UTF-8 wrong in the first of fragments", frame(kText, "a\xff", part), {failed(1007)}},
      {"UTF-8 overlong", frame(kText, "\xc0\xaf"), {failed(1007)}},
      {"UTF-8 overlong in three", frame(kText, "\xe0\x80\xaf"), {failed(1007)}},
      {"UTF-8 overlong in four", frame(kText, "\xf0\x80\x80\xaf"), {failed(1007)}},
      {"UTF-8 surrogate", frame(kText, "\xed\xa0\x80"), {failed(1007)}},
      {"UTF-8 too high", frame(kText, "\xf4\x90\x80\x80"), {failed(1007)}},
      {"UTF-8 highest", frame(kText, "\xf4\x8f\xbf\xbf"), {message("\xf4\x8f\xbf\xbf")}},
      {"UTF-8 lone continuation", frame(kText, "\x80"), {failed(1007)}},
      {"UTF-8 not asked of binary", frame(kBinary, "\xc0\xaf"), {{Progress::binary, "\xc0\xaf"}}},
      {"half a header", "\x81", {}},
      {"half a payload", frame(kText, "hello").substr(0, 8), {}},
      {"an HTTP request", "GET / HTTP/1.1\r\n\r\n", {failed(1002)}},
  };
}

}  // namespace

TEST_CASE("every frame has its outcome, whole and in pieces of any size") {
  const auto cases = frame_cases();
  CHECK(cases.size() >= 60);
  for (const FrameCase& c : cases) {
    CAPTURE(c.name);
    CHECK((decode(c.bytes) == c.events));
    for (const std::size_t step : {1, 2, 3, 7}) CHECK((decode(c.bytes, step) == c.events));
  }
}

TEST_CASE("random frames and random damage never break the decoder") {
  const auto cases = frame_cases();
  std::mt19937 random(20260102);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    for (int i = 0; i < 3; ++i) bytes += cases[random() % cases.size()].bytes;
    for (unsigned i = 0; i < random() % 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    CHECK((decode(bytes) == decode(bytes, 1 + random() % 20)));
  }
}

TEST_CASE("inputs that fuzzing found worth keeping") {
  // A length that nearly overflows beside a message in progress; a continuation right behind its refusal.
  CHECK((decode(client_frame(WebSocketOpcode::text, "a", {.final = false}) +
                client_frame(WebSocketOpcode::continuation, "", {.size = ~0ull >> 1})) ==
         std::vector<Event>{failed(1009)}));
  CHECK((decode(std::string("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 14)) ==
         std::vector<Event>{failed(1002)}));
}

TEST_CASE("UTF-8 in pieces is UTF-8 as a whole") {
  std::mt19937 random(20260103);
  const std::string alphabet = "a\x80\xbf\xc2\xdf\xe0\xed\xef\xf0\xf4\xf5\x90\x9f\xa0\x8f";
  for (int round = 0; round < 50000; ++round) {
    std::string text;
    for (unsigned i = 0; i < 1 + random() % 6; ++i) text += alphabet[random() % alphabet.size()];
    Utf8Checker checker;
    const std::size_t cut = random() % text.size();
    const bool good = checker.feed(std::string_view(text).substr(0, cut)) &&
                      checker.feed(std::string_view(text).substr(cut)) && checker.complete();
    CHECK(good == detail::is_utf8(text));
  }
}

TEST_CASE("frames of the server") {
  CHECK(websocket_frame(WebSocketOpcode::text, "Hello") == "\x81\x05Hello");
  CHECK(websocket_frame(WebSocketOpcode::ping, "") == std::string("\x89\x00", 2));
  CHECK(websocket_frame(WebSocketOpcode::text, std::string(126, 'x')).substr(0, 4) ==
        std::string("\x81\x7e\x00\x7e", 4));
  CHECK(websocket_frame(WebSocketOpcode::text, std::string(65535, 'x')).substr(0, 4) == "\x81\x7e\xff\xff");
  CHECK(websocket_frame(WebSocketOpcode::text, std::string(65536, 'x')).substr(0, 10) ==
        std::string("\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10));
  CHECK(websocket_accept(kSampleKey) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");  // the example of RFC 6455
  CHECK(websocket_close_frame(1000, "") == "\x88\x02\x03\xe8");
  CHECK(websocket_close_frame(1005, "") == "\x88\x02\x03\xf3");
  CHECK(websocket_close_frame(70000, "") == "\x88\x02\x03\xf3");
  const std::string cut = websocket_close_frame(1000, std::string(122, 'x') + "\xe2\x82\xac");
  CHECK(cut.size() == 2 + 2 + 122);
}

TEST_CASE("which requests may become WebSockets") {
  HttpRequest good;
  good.method = "GET";
  good.target = "/ws";
  good.headers = {{"Host", "a"},
                  {"connection", "keep-alive, UPGRADE"},
                  {"upgrade", "h2c, WebSocket"},
                  {"Sec-WebSocket-Version", "13"},
                  {"Sec-WebSocket-Key", kSampleKey}};
  CHECK(websocket_refusal(good) == 0);
  const auto with = [&](std::size_t header, const char* value) {
    HttpRequest changed = good;
    changed.headers[header].second = value;
    return websocket_refusal(changed);
  };
  CHECK(with(1, "keep-alive") == 426);
  CHECK(with(2, "h2c") == 426);
  CHECK(with(3, "8") == 426);
  CHECK(with(3, "13, 8") == 426);
  for (const char* key : {"", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZR==",
                          "dGhlIHNhbXBsZSBub25jZSE=", "dGhlIHNhbXBsZSBub25jZQ== "})
    CHECK(with(4, key) == 400);
  for (std::size_t header = 1; header < good.headers.size(); ++header) {
    HttpRequest less = good;
    less.headers.erase(less.headers.begin() + static_cast<std::ptrdiff_t>(header));
    CHECK(websocket_refusal(less) == (header == 4 ? 400 : 426));
  }
  HttpRequest other = good;
  other.headers.emplace_back("Sec-WebSocket-Key", kSampleKey);
  CHECK(websocket_refusal(other) == 400);
  other = good;
  other.body = "x";
  CHECK(websocket_refusal(other) == 400);
  other = good;
  other.method = "POST";
  CHECK(websocket_refusal(other) == 426);
}
