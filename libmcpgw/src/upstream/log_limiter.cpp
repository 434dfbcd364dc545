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
  tell_left_out(left_out);
  sink_(level, std::move(text));
}

void LogLimiter::flush() {
  if (!sink_) return;
  std::size_t left_out = 0;
  {
    const std::lock_guard lock(mutex_);
    for (Span& span : spans_) left_out += std::exchange(span.left_out, 0);
  }
  tell_left_out(left_out);
}

/// Never a warning: those are kept as a target's last error, which this would hide.
void LogLimiter::tell_left_out(std::size_t count) const {
  if (count > 0)
    sink_(LogLevel::info,
          std::to_string(count) + (count == 1 ? " more line was" : " more lines were") + " left out");
}

}  // namespace mcpgw::detail
