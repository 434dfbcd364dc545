// What a server makes us write to the log is bounded, whatever it sends.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <mutex>
#include <string>

#include "mcpgw/gateway.hpp"
#include "runtime/waiter.hpp"

namespace mcpgw::detail {

/// Passes on so many lines in each span of time, and says how many it left out. Warnings are counted apart
/// from lesser lines: neither can hide the other. Safe from any thread; the sink is called without a lock.
class LogLimiter {
 public:
  using Sink = std::function<void(LogLevel, std::string)>;
  static constexpr std::size_t kLines = 20;
  static constexpr auto kSpan = std::chrono::seconds(10);

  explicit LogLimiter(Sink sink) : sink_(std::move(sink)) {}  ///< may be null

  void log(LogLevel level, std::string text, SteadyTime now = std::chrono::steady_clock::now());
  /// Says what was left out until now: for the end of what is logged about.
  void flush();

 private:
  struct Span {
    SteadyTime until{};
    std::size_t passed = 0;
    std::size_t left_out = 0;
  };
  void tell_left_out(std::size_t count) const;

  const Sink sink_;
  std::mutex mutex_;  // guards what follows
  std::array<Span, 2> spans_;
};

}  // namespace mcpgw::detail
