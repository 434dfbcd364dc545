#include "base/text.hpp"

#include <doctest/doctest.h>

#include <set>

#include "base/id_random.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

TEST_CASE("base64 is strict: one text for one value") {
  for (const std::string bytes : {"", "a", "ab", "abc", "\xff\x00\x10"}) {
    CHECK(from_base64(base64(bytes)) == bytes);
    CHECK(from_base64url(base64url(bytes)) == bytes);
  }
  CHECK(base64("ab") == "YWI=");
  CHECK(base64url("ab") == "YWI");
  CHECK_FALSE(from_base64("YWI"));
  CHECK_FALSE(from_base64("YWJ="));  // bits after the value
  CHECK_FALSE(from_base64url("YWI="));
  CHECK_FALSE(from_base64url("YW+"));
  CHECK_FALSE(from_base64url("Y"));
}

TEST_CASE("times have six digits and round-trip") {
  const auto t = parse_time("2026-01-02T03:04:05.678901Z");
  REQUIRE(t);
  CHECK(format_time(*t) == "2026-01-02T03:04:05.678901Z");
  CHECK(format_time(*parse_time("2026-01-02T05:04:05+02:00")) == "2026-01-02T03:04:05.000000Z");
  CHECK(format_time(*parse_time("2026-01-02T03:04:05.5z")) == "2026-01-02T03:04:05.500000Z");
  for (const char* bad :
       {"", "2026-01-02", "2026-13-02T03:04:05Z", "2026-02-30T03:04:05Z", "2026-01-02T03:04:05",
        "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05Zx", "2026-01-02T24:04:05Z"})
    CHECK_MESSAGE(!parse_time(bad), bad);
}

TEST_CASE("UTF-8 validity") {
  CHECK(is_utf8("a\xc3\xa4\xf0\x9f\x98\x80"));
  for (const char* bad : {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "\xc3", "\xe2\x82"})
    CHECK_FALSE(is_utf8(bad));
  CHECK(utf8_length("a\xc3\xa4\xf0\x9f\x98\x80") == 3);
}

TEST_CASE("percent-coding and query values") {
  CHECK(percent_decode("a%2Fb+c") == "a/b+c");
  CHECK_FALSE(percent_decode("%2"));
  CHECK_FALSE(percent_decode("%zz"));
  CHECK(percent_encode("a/b c~") == "a%2Fb%20c~");
  CHECK(query_value("a=1&b=x+y%26&c", "b") == "x y&");
  CHECK(query_value("a=1&c", "c") == "");
  CHECK_FALSE(query_value("a=1", "b"));
}

TEST_CASE("ids, digests, case") {
  CHECK(is_uuid("0f8fad5b-d9cb-469f-a165-70867728950e"));
  CHECK_FALSE(is_uuid("0F8FAD5B-d9cb-469f-a165-70867728950e"));
  CHECK(to_hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(to_hex(hmac_sha256("key", "The quick brown fox jumps over the lazy dog")) ==
        "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8");
  CHECK(iequals("AbC", "aBc"));
  CHECK(trim(" \t a b\r\n") == "a b");
}

TEST_CASE("letters of ASCII, and nothing else, are the same in either case, wherever they stand") {
  const auto lower = [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 0x20 : int{c}; };
  for (std::size_t size = 1; size <= 20; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        for (const int flip : {0, 0x20, 0x80, 0x01, 0xa0}) {
          std::string a(size, 'Q'), b(size, 'q');
          a[at] = static_cast<char>(byte);
          b[at] = static_cast<char>(byte ^ flip);
          if (at + 1 < size) b[at + 1] = 'Q';
          const auto x = static_cast<unsigned char>(a[at]), y = static_cast<unsigned char>(b[at]);
          if (iequals(a, b) != (lower(x) == lower(y))) FAIL_CHECK(size, " ", at, " ", byte, " ", flip);
        }
      }
    }
    CHECK_FALSE(iequals(std::string(size, 'a'), std::string(size - 1, 'a')));
  }
  CHECK(iequals("", ""));
}

TEST_CASE("ids: version 7 sorts by time, and an id's random comes whole however it is drawn") {
  struct Counting final : Random {
    int calls = 0;
    unsigned char next = 0;
    void fill(void* data, std::size_t size) override {
      ++calls;
      for (std::size_t i = 0; i < size; ++i) static_cast<unsigned char*>(data)[i] = next++;
    }
  };
  const auto source = std::make_shared<Counting>();
  IdRandom random(source);
  const Time time(std::chrono::milliseconds(0x0189abcdef01));
  const std::array<unsigned char, 10> drawn{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::string id = "whatever stood there before, which is longer than an id";
  put_ordered_uuid(id, drawn, time);
  CHECK(is_uuid(id));
  CHECK(id.substr(0, 15) == "0189abcd-ef01-7");
  CHECK(std::string("89ab").find(id[19]) != std::string::npos);
  CHECK(id.substr(28) == "06070809");
  std::string next;
  put_ordered_uuid(next, drawn, time + std::chrono::milliseconds(1));
  CHECK(id < next);
  const std::string plain = make_uuid(random);
  CHECK(is_uuid(plain));
  CHECK(plain[14] == '4');
  CHECK(source->calls == 1);

  std::set<std::string> ids;
  IdRandom system(make_system_random());
  for (int i = 0; i < 10000; ++i) ids.insert(make_uuid(system));
  CHECK(ids.size() == 10000);
  std::string large(5000, '\0');
  system.fill(large.data(), large.size());
  CHECK(large.find_first_not_of('\0') != std::string::npos);
}

TEST_CASE("media types: JSON by name and by suffix") {
  for (const char* type : {"application/json", "Application/JSON; charset=utf-8", "application/problem+json",
                           " application/json "})
    CHECK(is_json_type(type));
  for (const char* type : {"", "*/*", "text/plain", "+json", "/x+json", "application/jsonp", "json"})
    CHECK_FALSE(is_json_type(type));
}

TEST_CASE("traceparent: the trace id, or nothing") {
  const std::string id = "0af7651916cd43dd8448eb211c80319c";
  CHECK(trace_id_of("00-" + id + "-b7ad6b7169203331-01") == id);
  for (const std::string& bad :
       {std::string(), std::string("00-") + id, "00-" + std::string(32, '0') + "-b7ad6b7169203331-01",
        "00-" + id.substr(0, 31) + "G-b7ad6b7169203331-01", "00_" + id + "-b7ad6b7169203331-01"})
    CHECK(trace_id_of(bad).empty());
}
