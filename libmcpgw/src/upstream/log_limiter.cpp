#include "upstream/log_limiter.hpp"

#include <utility>

namespace mcpgw::detail {

void LogLimiter::log(LogLevel level, std::string text, SteadyTime now) {
  if (!sink_) return;
  std::size_t left_out = 0;
  {
    const std::lock_guard lock(mutex_);
    Span& span = spans_[level >= LogLevel::warn ? 1 : 0];
    if (now >= span.until) {
      left_out = span.left_out;
      span = {now + kSpan, 0, 0};
    }
    if (span.passed == kLines) {
      ++span.left_out;
      return;
    }
    ++span.passed;
  }
  tell_left_out(level, left_out);
  sink_(level, std::move(text));
}

void LogLimiter::flush() {
  if (!sink_) return;
  std::array<std::size_t, 2> left_out{};
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < spans_.size(); ++i) left_out[i] = std::exchange(spans_[i].left_out, 0);
  }
  tell_left_out(LogLevel::debug, left_out[0]);
  tell_left_out(LogLevel::warn, left_out[1]);
}

void LogLimiter::tell_left_out(LogLevel level, std::size_t count) const {
  if (count > 0)
    sink_(level, std::to_string(count) + (count == 1 ? " more line was" : " more lines were") + " left out");
}

}  // namespace mcpgw::detail
