// Repository: records of the gateways that run over one storage. They are not kept in memory here: who
// forwards to them keeps them.
#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

Status Repository::save_replica(const ReplicaRecord& replica) {
  ReplicaRecord record = replica;
  if (record.keys.empty()) record.keys = impl_->known_keys();
  const auto versions = impl_->commit({Impl::put(collection::kReplicas, record.id, encode_replica(record))});
  if (!versions) return versions.error();
  return {};
}

Status Repository::delete_replica(std::string_view id) {
  const auto moves = impl_->list(collection::kReplicaMoves, std::string(id) + "/");
  if (!moves) return moves.error();
  Impl::Operations operations{Impl::erase(collection::kReplicas, id)};
  for (const Record& move : *moves) operations.push_back(Impl::erase(collection::kReplicaMoves, move.key));
  const auto versions = impl_->commit(operations);
  if (!versions) return versions.error();
  return {};
}

Result<std::vector<ReplicaRecord>> Repository::replicas() {
  const auto records = impl_->list(collection::kReplicas);
  if (!records) return records.error();
  std::vector<ReplicaRecord> out;
  for (const Record& record : *records)
    if (auto replica = decode_replica(record.key, record.value)) out.push_back(std::move(*replica));
  return out;
}

}  // namespace mcpgw
