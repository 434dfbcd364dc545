#include "mcpgw/storage.hpp"

#include <utility>

#include "storage/record_rules.hpp"

namespace mcpgw {

Result<std::uint64_t> Storage::put(std::string collection, std::string key, std::string value,
                                   std::optional<std::uint64_t> expected_version) {
  auto versions = commit({Operation{Operation::Kind::put, std::move(collection), std::move(key),
                                    std::move(value), expected_version}});
  if (!versions) return versions.error();
  if (versions->size() != 1)
    return Error{ErrorCode::internal, "storage_protocol",
                 "The storage backend returned no version for a write."};
  return versions->front();
}

Status Storage::erase(std::string collection, std::string key,
                      std::optional<std::uint64_t> expected_version) {
  auto versions = commit(
      {Operation{Operation::Kind::erase, std::move(collection), std::move(key), {}, expected_version}});
  if (!versions) return versions.error();
  return {};
}

Status check_operations(const std::vector<Operation>& operations) {
  for (const auto& operation : operations) {
    if (auto ok = detail::check_name(operation.collection, operation.key); !ok) return ok;
    if (operation.kind == Operation::Kind::put && operation.value.size() > detail::kMaxValueBytes)
      return Error{ErrorCode::invalid_argument, "value_too_large", "A record's value has at most 1 MiB.",
                   "value"};
  }
  return {};
}

}  // namespace mcpgw
