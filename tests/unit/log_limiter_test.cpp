// What a server makes us log: so many lines in a span of time, and how many were left out.
#include "upstream/log_limiter.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

struct Lines {
  std::vector<std::pair<LogLevel, std::string>> seen;
  LogLimiter limiter{[this](LogLevel level, std::string text) { seen.emplace_back(level, std::move(text)); }};
};

}  // namespace

TEST_CASE("lines over the limit are counted, and told when the next span begins") {
  Lines l;
  const SteadyTime start{std::chrono::hours(1)};
  for (int i = 0; i < 1000; ++i) l.limiter.log(LogLevel::debug, "junk", start + std::chrono::milliseconds(i));
  CHECK(l.seen.size() == LogLimiter::kLines);
  l.limiter.log(LogLevel::debug, "later", start + LogLimiter::kSpan);
  REQUIRE(l.seen.size() == LogLimiter::kLines + 2);
  CHECK(l.seen[LogLimiter::kLines].second == "980 more lines were left out");
  CHECK(l.seen.back().second == "later");
  l.limiter.log(LogLevel::debug, "again", start + 2 * LogLimiter::kSpan);
  CHECK(l.seen.size() == LogLimiter::kLines + 3);  // nothing was left out in between
}

TEST_CASE("lesser lines do not hide warnings, nor warnings them") {
  Lines l;
  const SteadyTime start{std::chrono::hours(1)};
  for (int i = 0; i < 100; ++i) l.limiter.log(LogLevel::info, "junk", start);
  l.limiter.log(LogLevel::warn, "warning", start);
  CHECK(l.seen.back() == std::pair(LogLevel::warn, std::string("warning")));
  for (int i = 0; i < 100; ++i) l.limiter.log(LogLevel::error, "junk", start);
  CHECK(l.seen.size() == 2 * LogLimiter::kLines);
}

TEST_CASE("the end tells what was left out, once; without a sink nothing happens") {
  Lines l;
  const SteadyTime start{std::chrono::hours(1)};
  for (std::size_t i = 0; i < LogLimiter::kLines + 1; ++i) l.limiter.log(LogLevel::warn, "junk", start);
  l.limiter.flush();
  CHECK(l.seen.back() == std::pair(LogLevel::info, std::string("1 more line was left out")));
  const std::size_t told = l.seen.size();
  l.limiter.flush();
  CHECK(l.seen.size() == told);
  LogLimiter none(nullptr);
  none.log(LogLevel::warn, "x");
  none.flush();
}
