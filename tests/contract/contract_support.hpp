// Small helpers of the contract suite.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mcpgw/storage.hpp"

namespace mcpgw::contract {

/// The value; the case ends when there is none.
template <class T>
T must(Result<T> result) {
  if (!result) FAIL("unexpected error: " << to_string(result.error().code) << "/" << result.error().reason);
  return std::move(result).value();
}

inline void must_ok(const Status& status) {
  if (!status) FAIL("unexpected error: " << to_string(status.error().code) << "/" << status.error().reason);
}

template <class T>
void check_error(const Result<T>& result, ErrorCode code, const std::string& reason) {
  REQUIRE_FALSE(result.has_value());
  CHECK(std::string(to_string(result.error().code)) == to_string(code));
  CHECK(result.error().reason == reason);
  CHECK_FALSE(result.error().message.empty());
}

template <class T>
void check_conflict(const Result<T>& result, const std::string& field) {
  check_error(result, ErrorCode::conflict, "version_conflict");
  CHECK(result.error().field == field);
}

inline std::vector<std::string> keys_of(Storage& storage, const std::string& collection,
                                        const std::string& prefix, const std::string& after,
                                        std::size_t limit) {
  std::vector<std::string> keys;
  for (auto& record : must(storage.list(collection, prefix, after, limit)))
    keys.push_back(std::move(record.key));
  return keys;
}

/// Collects what a watcher is told. Outlives the watch.
class ChangeLog {
 public:
  Storage::WatchCallback callback() {
    return [this](const std::vector<Change>& changes) {
      std::lock_guard lock(mutex_);
      commits_.push_back(changes);
      changed_.notify_all();
    };
  }
  std::vector<std::vector<Change>> commits() const {
    std::lock_guard lock(mutex_);
    return commits_;
  }
  /// Waits until `count` commits have been told; false after ten seconds.
  bool wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return commits_.size() >= count; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::vector<Change>> commits_;
};

/// "collection/key@version " of each, in the order of the names: within a commit none is promised.
inline std::string text_of(std::vector<Change> changes) {
  std::sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) {
    return std::tie(a.collection, a.key) < std::tie(b.collection, b.key);
  });
  std::string text;
  for (const auto& change : changes)
    text += change.collection + "/" + change.key + "@" + std::to_string(change.version) + " ";
  return text;
}

}  // namespace mcpgw::contract
