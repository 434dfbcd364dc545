// What is kept of names that others choose.
#include "observability/audit_bounds.hpp"

#include <doctest/doctest.h>

#include "base/text.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {
std::string bounded(std::string text, std::size_t max) {
  bound_text(text, max);
  return text;
}
}  // namespace

TEST_CASE("texts are cut between characters") {
  CHECK(bounded("", 10).empty());
  CHECK(bounded("tools/call", 10) == "tools/call");
  CHECK(bounded("tools/calls", 10) == "tools/c...");
  // Two, three and four bytes a character, at every offset.
  for (const std::string& wide :
       {std::string("\xc3\xa9"), std::string("\xe2\x82\xac"), std::string("\xf0\x9f\x98\x80")})
    for (std::size_t offset = 0; offset < 8; ++offset) {
      std::string text(offset, 'a');
      for (int i = 0; i < 50; ++i) text += wide;
      const std::string cut = bounded(text, 64);
      CHECK(cut.size() <= 64);
      CHECK(cut.size() > 64 - 8);
      CHECK(is_utf8(cut));
      CHECK(text.starts_with(cut.substr(0, cut.size() - 3)));
      // One that somebody else has cut in the middle of a character.
      for (std::size_t length = 1; length < offset + 2 * wide.size(); ++length)
        CHECK(is_utf8(bounded(text.substr(0, length), 64)));
    }
}

TEST_CASE("control characters are replaced") {
  CHECK(bounded("\x1b[31mred\r\n\tx\x7f", 64) == "?[31mred???x?");
  CHECK(bounded(std::string("a\0b", 3), 64) == "a?b");
}

TEST_CASE("rows: what comes from outside is bounded, what is configured is not touched") {
  AuditRecord row;
  row.method = std::string(100000, 'm');
  row.tool = std::string(100000, 't');
  row.client_name = std::string(100000, 'c');
  row.target_name = std::string(800, 'n');
  row.policy_name = std::string(800, 'p');
  bound_row(row);
  CHECK(row.method.size() == kMaxAuditMethod);
  CHECK(row.tool.size() == kMaxAuditItem);
  CHECK(row.client_name.size() <= 256);
  CHECK(row.target_name.size() == 800);
  CHECK(row.policy_name.size() == 800);
}
