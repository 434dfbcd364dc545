#include "base/scan.hpp"

#include <doctest/doctest.h>

#include <string>

#include "base/text.hpp"
#include "json/raw.hpp"

using namespace mcpgw::detail;

namespace {

/// Where `scan` stops in texts of every length with each byte at each place, beside what a loop over bytes
/// says.
template <class Scan, class Stops>
int differences(Scan scan, Stops stops) {
  int found = 0;
  for (std::size_t size = 1; size <= 36; ++size)
    for (std::size_t at = 0; at < size; ++at)
      for (int byte = 0; byte < 256; ++byte)
        for (const char filler : {'a', '\x7e', '!'}) {  // neighbours of what is looked for, too
          std::string text(size, filler);
          text[at] = static_cast<char>(byte);
          if (size > at + 3) text[at + 3] = '"';
          const char* const end = text.data() + text.size();
          const char* wanted = text.data();
          while (wanted != end && !stops(static_cast<unsigned char>(*wanted))) ++wanted;
          if (scan(text.data(), end) != wanted) ++found;
        }
  return found;
}

}  // namespace

TEST_CASE("scans of many bytes stop where scans of one do") {
  CHECK(differences(scan::past_plain_json,
                    [](unsigned char c) { return c == '"' || c == '\\' || c < 0x20 || c >= 0x80; }) == 0);
  CHECK(differences(scan::to_quote_or_escape, [](unsigned char c) { return c == '"' || c == '\\'; }) == 0);
  CHECK(differences(scan::to_control, [](unsigned char c) { return c < 0x20 || c == 0x7f; }) == 0);
  CHECK(differences(scan::past_token, [](unsigned char c) {
          return c <= ' ' || c >= 0x7f || c == ',' || c == '"' || c == ';';
        }) == 0);
  CHECK(differences(scan::past_ascii, [](unsigned char c) { return c >= 0x80; }) == 0);
}

TEST_CASE("a control character is found wherever it stands, unless it is allowed") {
  for (std::size_t at = 0; at < 20; ++at) {
    std::string text(20, 'x');
    text[at] = '\t';
    CHECK(has_control(text));
    CHECK_FALSE(has_control(text, "\t"));
    text[(at + 7) % 20] = '\n';
    CHECK(has_control(text, "\t"));
    text[(at + 7) % 20] = '\x7f';
    CHECK(has_control(text, "\t"));
  }
}

TEST_CASE("JSON strings: what needs an escape gets it at every place, and comes back as it was") {
  for (std::size_t at = 0; at < 20; ++at)
    for (const std::string_view special :
         {"\"", "\\", "\n", "\x01", "\x1f", "\xc3\xa9", "\xf0\x9f\x98\x80"}) {
      std::string text(20, 'x');
      text.replace(at, 1, special);
      const std::string quoted = raw::quote(text);
      CHECK(raw::check(quoted, 1) == raw::Fault::none);
      CHECK(raw::string_value(quoted) == text);
      const std::string object = "{\"" + std::string(at, 'k') + "\":" + quoted + ",\"last\":1}";
      CHECK(raw::check(object, 2) == raw::Fault::none);
      CHECK(raw::find(object, "last") == "1");
      // A control character or half a character as it is is refused.
      std::string bare = '"' + std::string(20, 'x') + '"';
      bare[at + 1] = special.front();
      if (special.front() != '"') CHECK(raw::check(bare, 1) != raw::Fault::none);
    }
  CHECK(raw::quote("ab\xff"
                   "cd") ==
        "\"ab\xef\xbf\xbd"
        "cd\"");
}
