// What all functions of the C interface share: errors and texts on their way out, callbacks' threads.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "json/json.hpp"
#include "mcpgw/mcpgw.h"
#include "mcpgw/result.hpp"

struct mcpgw_reply {
  std::string text;
};

namespace mcpgw::capi {

using detail::Json;

mcpgw_status status_of(ErrorCode code) noexcept;
/// A text that mcpgw_free() frees; nullptr without memory.
char* copy_out(std::string_view text) noexcept;
/// Hands an error out and returns its status.
mcpgw_status report(const Error& error, char** out_error) noexcept;
/// What a callback that answered `status` means by its reply. `reason` stands in when it names none.
Error error_of(mcpgw_status status, const mcpgw_reply& reply, const char* reason);

inline std::string_view view(const char* data, std::size_t size) noexcept {
  return data == nullptr ? std::string_view() : std::string_view(data, size);
}
Error invalid(std::string reason, std::string message, std::string field = {});

/// Runs the body of an entry point: no exception passes the border. The body returns Status.
template <class Body>
mcpgw_status guard(char** out_error, Body body) noexcept {
  if (out_error != nullptr) *out_error = nullptr;
  try {
    const Status done = body();
    return done ? MCPGW_OK : report(done.error(), out_error);
  } catch (const std::bad_alloc&) {
    return report(Error(ErrorCode::resource_exhausted, "out_of_memory", "There is not enough memory"),
                  out_error);
  } catch (...) {
    return report(Error(ErrorCode::internal, "internal", "An unexpected failure inside mcpgw"), out_error);
  }
}

/// A struct of the caller, which may be an older, shorter one: missing members are zero. False when it is not
/// even as long as `needed`.
template <class T>
bool read_struct(const T* given, std::size_t needed, T& out) noexcept {
  std::memset(static_cast<void*>(&out), 0, sizeof out);
  if (given == nullptr || given->struct_size < needed) return false;
  std::memcpy(static_cast<void*>(&out), given,
              given->struct_size < sizeof out ? given->struct_size : sizeof out);
  return true;
}

/// user_data of a set of callbacks: destroyed with the last of what uses it.
template <class Callbacks>
class Host {
 public:
  explicit Host(const Callbacks& callbacks) : callbacks_(callbacks) {}
  ~Host() {
    if (callbacks_.destroy != nullptr) callbacks_.destroy(callbacks_.user_data);
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  const Callbacks* operator->() const noexcept { return &callbacks_; }

 private:
  const Callbacks callbacks_;
};

/// The threads on which callbacks run that may block: never a loop's. Made with the first work.
class CallbackThreads {
 public:
  ~CallbackThreads() { stop(); }
  /// False when stopped: the work is then the caller's again.
  bool post(std::function<void()>& work);
  /// Runs what is queued and joins. Not from one of the threads.
  void stop();

 private:
  void run();
  static constexpr std::size_t kThreads = 8;

  std::mutex mutex_;  // protects the members below
  std::condition_variable ready_;
  std::deque<std::function<void()>> queue_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

/// Work that runs in order, one at a time, on CallbackThreads; on the caller's thread when those have ended.
class Strand : public std::enable_shared_from_this<Strand> {
 public:
  explicit Strand(std::shared_ptr<CallbackThreads> threads) : threads_(std::move(threads)) {}
  void post(std::function<void()> work);

 private:
  void drain();
  const std::shared_ptr<CallbackThreads> threads_;
  std::mutex mutex_;  // protects the members below
  std::deque<std::function<void()>> queue_;
  bool running_ = false;
};

}  // namespace mcpgw::capi
