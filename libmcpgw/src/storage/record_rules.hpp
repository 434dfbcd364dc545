// What every Storage backend refuses, and how it says so: shared so that all give the same answers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "mcpgw/storage.hpp"

namespace mcpgw::detail {

inline constexpr std::size_t kMaxCollectionBytes = 64;
inline constexpr std::size_t kMaxKeyBytes = 2048;
inline constexpr std::size_t kMaxValueBytes = std::size_t{1} << 20;

inline Status check_name(std::string_view collection, std::string_view key) {
  if (collection.empty() || collection.size() > kMaxCollectionBytes || !is_utf8(collection))
    return Error{ErrorCode::invalid_argument, "invalid_collection",
                 "A collection's name is UTF-8 text of 1 to 64 bytes.", "collection"};
  if (key.empty() || key.size() > kMaxKeyBytes || !is_utf8(key))
    return Error{ErrorCode::invalid_argument, "invalid_key",
                 "A record's key is UTF-8 text of 1 to 2048 bytes.", "key"};
  return {};
}

inline Error version_conflict(const Operation& operation) {
  return {ErrorCode::conflict, "version_conflict", "The record was changed in the meantime; read it again.",
          operation.collection + "/" + operation.key};
}

inline Error storage_unavailable() {
  return {ErrorCode::unavailable, "storage_unavailable", "The storage does not answer; try again later."};
}

/// Keeps of each record's changes in one transaction only the last, in the order of those.
inline std::vector<Change> last_changes(std::vector<Change> changes) {
  std::set<std::pair<std::string_view, std::string_view>> seen;
  std::vector<Change> kept;
  for (auto at = changes.rbegin(); at != changes.rend(); ++at)
    if (seen.insert({at->collection, at->key}).second) kept.push_back(*at);
  std::reverse(kept.begin(), kept.end());
  return kept;
}

}  // namespace mcpgw::detail
