// Running a coroutine on a loop of a runtime and waiting for what it returns.
#pragma once

#include <future>
#include <optional>

#include "runtime/loop.hpp"

namespace mcpgw::testing {

template <class T>
std::future<T> start_on_loop(Runtime& runtime, std::function<detail::Task<T>()> make) {
  auto promise = std::make_shared<std::promise<T>>();
  auto future = promise->get_future();
  detail::Loop& loop = runtime.impl().loop(0);
  loop.spawn([](auto made, auto result) -> detail::Task<void> { result->set_value(co_await made()); }(
                                            std::move(make), promise));
  return future;
}

template <class T>
T on_loop(Runtime& runtime, std::function<detail::Task<T>()> make) {
  return start_on_loop<T>(runtime, std::move(make)).get();
}

}  // namespace mcpgw::testing
