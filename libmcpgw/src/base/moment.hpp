// What time it is, for a thread that works off many small events: the clock is read once for some tens of
// microseconds' work instead of each time that somebody asks. A reading takes 60 ns where a hypervisor has a
// hand in it, and a call asks twenty-eight times.
#pragma once

#include <chrono>
#include <optional>

namespace mcpgw::detail {

/// Of the thread that made it, while it lives: what steady_now() and system_now() say after the first
/// question stays so until pass(). Who measures work between two events must read the clock itself.
class Moment {
 public:
  Moment() noexcept : outer_(current()) { current() = this; }
  ~Moment() { current() = outer_; }
  Moment(const Moment&) = delete;
  Moment& operator=(const Moment&) = delete;

  void pass() noexcept {
    steady_.reset();
    system_.reset();
  }

 private:
  friend std::chrono::steady_clock::time_point steady_now() noexcept;
  friend std::chrono::system_clock::time_point system_now() noexcept;

  static Moment*& current() noexcept {
    static thread_local Moment* moment = nullptr;
    return moment;
  }

  Moment* const outer_;
  std::optional<std::chrono::steady_clock::time_point> steady_;
  std::optional<std::chrono::system_clock::time_point> system_;
};

inline std::chrono::steady_clock::time_point steady_now() noexcept {
  Moment* const moment = Moment::current();
  if (moment == nullptr) return std::chrono::steady_clock::now();
  if (!moment->steady_) moment->steady_ = std::chrono::steady_clock::now();
  return *moment->steady_;
}

inline std::chrono::system_clock::time_point system_now() noexcept {
  Moment* const moment = Moment::current();
  if (moment == nullptr) return std::chrono::system_clock::now();
  if (!moment->system_) moment->system_ = std::chrono::system_clock::now();
  return *moment->system_;
}

}  // namespace mcpgw::detail
