// Repository: records of running processes. They are not kept in memory: who started one knows it.
#include "base/text.hpp"
#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

Result<InstanceRecord> Repository::add_instance(InstanceRecord instance) {
  instance.id = make_uuid(random());
  instance.created_at = clock().now();
  const auto versions =
      impl_->commit({Impl::put(collection::kInstances, instance.id, encode_instance(instance))});
  if (!versions) return versions.error();
  return instance;
}

Status Repository::delete_instance(std::string_view id) {
  if (!is_uuid(id)) return {};
  const auto versions = impl_->commit({Impl::erase(collection::kInstances, id)});
  if (!versions) return versions.error();
  return {};
}

Result<std::vector<InstanceRecord>> Repository::instances() {
  const auto records = impl_->list(collection::kInstances);
  if (!records) return records.error();
  std::vector<InstanceRecord> out;
  for (const Record& record : *records)
    if (auto instance = decode_instance(record.key, record.value)) out.push_back(std::move(*instance));
  return out;
}

}  // namespace mcpgw
