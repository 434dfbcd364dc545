// Repository: targets, their names and slugs, and what becomes of credentials when their destination changes.
#include <algorithm>
#include <map>

#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

Error name_taken() {
  return Error(ErrorCode::conflict, "name_taken", "There is a target with this name already", "name");
}
Error slug_taken() {
  return Error(ErrorCode::conflict, "slug_taken", "There is a target with this slug already", "slug");
}

Error credentials_bound(std::size_t count) {
  return Error(ErrorCode::conflict, "credentials_bound",
               "The destination changes while " + std::to_string(count) +
                   (count == 1 ? " credential is" : " credentials are") +
                   " stored for this target: say keep_credentials true to keep, or false to delete them",
               "keep_credentials");
}

Error bad_client_key() {
  return Error(ErrorCode::invalid_argument, "invalid_request", "client_key must be a private key in PEM form",
               "tls");
}

}  // namespace

std::string Repository::Impl::seal_client_key(const Target& target, const std::string& stored) const {
  if (!target.tls || target.tls->client_key.empty()) return {};
  // The stored text stays as long as nobody gives another key, also when it cannot be opened.
  if (target.tls->client_key == kUnreadableClientKey) return stored;
  return sealer->seal(target.tls->client_key, client_key_identity(target.id));
}

Status Repository::Impl::fence_client_key(Operations& operations, const Target& target) {
  if (!target.tls || target.tls->client_key.empty()) return {};
  if (target.tls->client_key == kUnreadableClientKey) return {};  // stays as it is stored
  const auto fence = key_fence();
  if (!fence) return fence.error();
  operations.push_back(*fence);
  return {};
}

Result<std::string> Repository::Impl::free_slug(const std::string& name) const {
  const std::string base = derive_slug(name);
  for (unsigned number = 1; number < 100000; ++number) {
    std::string slug = number == 1 ? base : numbered_slug(base, number);
    const auto index = get(collection::kTargetSlug, slug);
    if (!index) return index.error();
    if (!*index) return slug;
  }
  return slug_taken();
}

Status Repository::Impl::move_index(Operations& operations, std::string_view collection,
                                    const std::string& from, const std::string& to, std::string_view id,
                                    const Error& taken) const {
  if (from == to) return {};
  const auto index = get(collection, to);
  if (!index) return index.error();
  if (*index) return taken;
  operations.push_back(put(collection, to, encode_index(id), 0));
  if (!from.empty()) operations.push_back(erase(collection, from));
  return {};
}

Result<Target> Repository::create_target(Target target) {
  const TargetRules rules{impl_->options.stdio_enabled, impl_->options.stdio_allowed_commands};
  if (auto status = validate_target(target, rules); !status) return status.error();
  if (target.tls && target.tls->client_key == kUnreadableClientKey) return bad_client_key();
  if (target.id.empty()) target.id = impl_->new_id();
  if (!is_uuid(target.id))
    return Error(ErrorCode::invalid_argument, "invalid_id", "The id must be a lower-case UUID", "id");
  target.created_at = target.updated_at = impl_->now();
  const bool derive = target.slug.empty();
  return impl_->retry<Target>([&]() -> Result<Target> {
    Target made = target;
    if (derive) {
      auto slug = impl_->free_slug(made.name);
      if (!slug) return slug.error();
      made.slug = std::move(*slug);
    }
    const auto taken = impl_->get(collection::kTargets, made.id);
    if (!taken) return taken.error();
    if (*taken) return Error(ErrorCode::conflict, "id_taken", "There is a target with this id already", "id");
    Impl::Operations operations;
    Impl::Operations fence;
    if (auto status = impl_->fence_client_key(fence, made); !status) return status.error();
    operations.push_back(
        Impl::put(collection::kTargets, made.id, encode_target(made, impl_->seal_client_key(made, {})), 0));
    std::move(fence.begin(), fence.end(), std::back_inserter(operations));
    operations.push_back(Impl::put(collection::kTargetRefs, made.id, encode_index(made.id), 0));
    auto status = impl_->move_index(operations, collection::kTargetName, {}, to_lower(made.name), made.id,
                                    name_taken());
    if (!status) return status.error();
    if (derive) {  // should another target take it meanwhile, the next try finds another slug
      operations.push_back(Impl::put(collection::kTargetSlug, made.slug, encode_index(made.id), 0));
    } else {
      status = impl_->move_index(operations, collection::kTargetSlug, {}, made.slug, made.id, slug_taken());
      if (!status) return status.error();
    }
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    made.version = versions->front();
    return made;
  });
}

std::shared_ptr<const Target> Repository::target(std::string_view id) const {
  return impl_->memory.target(id);
}
std::shared_ptr<const Target> Repository::target_by_name(std::string_view name) const {
  return impl_->memory.target_by_name(name);
}
std::vector<std::shared_ptr<const Target>> Repository::targets() const { return impl_->memory.targets(); }

// Decides what becomes of the stored credentials, and makes sure that no more are added meanwhile.
Result<int> Repository::Impl::move_destination(Operations& operations, Target& target,
                                               const DecodedTarget& stored, std::optional<bool> keep) const {
  const auto refs = refs_version(collection::kTargetRefs, target.id);
  if (!refs) return refs.error();
  std::vector<Record> rows;
  for (const auto name : {collection::kTargetTokens, collection::kEnv}) {
    auto records = list(name, credential_prefix(target.id));
    if (!records) return records.error();
    std::move(records->begin(), records->end(), std::back_inserter(rows));
  }
  const bool has_key = !stored.sealed_client_key.empty();
  const std::size_t count = rows.size() + (has_key ? 1 : 0);
  add_reference(operations, collection::kTargetRefs, target.id, *refs);
  if (count == 0) return 0;
  if (!keep) return credentials_bound(count);
  if (*keep) {
    if (!stored.target.is_process() || target.is_process()) return 0;
    // What a process could tell apart must not fall together as headers.
    std::map<std::string, std::string> seen;
    for (const Record& row : rows) {
      const auto key = decode_credential_key(row.collection, row.key);
      if (!key || key->env_key.empty()) continue;
      const std::string scope = credential_prefix(target.id, key->scope);
      if (!seen.emplace(scope + to_lower(key->env_key), key->env_key).second)
        return Error(
            ErrorCode::conflict, "key_conflict",
            "Two environment keys of one scope differ only in case: an HTTP target cannot have both");
    }
    return 0;
  }
  for (const Record& row : rows) operations.push_back(erase(row.collection, row.key));
  if (has_key && target.tls) {
    const auto old_key = sealer->open(stored.sealed_client_key, client_key_identity(target.id));
    const std::string& given = target.tls->client_key;
    // A key that this very edit brings belongs to the new destination.
    if (given == kUnreadableClientKey || (old_key && given == *old_key)) {
      target.tls->client_key.clear();
      target.tls->client_cert.clear();
    }
  }
  return static_cast<int>(count);
}

Result<TargetUpdateResult> Repository::update_target(const TargetUpdate& update) {
  Target wanted = update.target;
  const TargetRules rules{impl_->options.stdio_enabled, impl_->options.stdio_allowed_commands};
  if (!is_uuid(wanted.id)) return target_not_found();
  if (auto status = validate_target(wanted, rules); !status) return status.error();
  return impl_->retry<TargetUpdateResult>([&]() -> Result<TargetUpdateResult> {
    const auto record = impl_->get(collection::kTargets, wanted.id);
    if (!record) return record.error();
    if (!*record) return target_not_found();
    const auto stored = decode_target(wanted.id, (*record)->value, (*record)->version);
    if (!stored) return target_not_found();
    if (update.if_version && *update.if_version != stored->target.version) return precondition_failed();
    if (wanted.tls && wanted.tls->client_key == kUnreadableClientKey && stored->sealed_client_key.empty())
      return bad_client_key();
    TargetUpdateResult result;
    Target& target = result.target;
    target = wanted;
    if (target.slug.empty()) target.slug = stored->target.slug;
    target.created_at = stored->target.created_at;
    target.updated_at = impl_->now();
    Impl::Operations operations(1);  // the target's own record comes first, when its text is known
    auto status = impl_->move_index(operations, collection::kTargetName, to_lower(stored->target.name),
                                    to_lower(target.name), target.id, name_taken());
    if (!status) return status.error();
    status = impl_->move_index(operations, collection::kTargetSlug, stored->target.slug, target.slug,
                               target.id, slug_taken());
    if (!status) return status.error();
    if (target_destination(stored->target) != target_destination(target)) {
      const auto dropped = impl_->move_destination(operations, target, *stored, update.keep_credentials);
      if (!dropped) return dropped.error();
      result.credentials_dropped = *dropped;
    }
    status = impl_->fence_client_key(operations, target);
    if (!status) return status.error();
    const std::string sealed = impl_->seal_client_key(target, stored->sealed_client_key);
    operations.front() = Impl::put(collection::kTargets, target.id,
                                   encode_target(target, sealed, (*record)->value), (*record)->version);
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    target.version = versions->front();
    return result;
  });
}

Status Repository::delete_target(std::string_view id, std::optional<std::uint64_t> if_version) {
  if (!is_uuid(id)) return target_not_found();
  return impl_->retry<void>([&]() -> Status {
    const auto refs = impl_->refs_version(collection::kTargetRefs, id);
    if (!refs) return refs.error();
    const auto record = impl_->get(collection::kTargets, id);
    if (!record) return record.error();
    if (!*record) return target_not_found();
    const auto stored = decode_target(id, (*record)->value, (*record)->version);
    if (!stored) return target_not_found();
    if (if_version && *if_version != stored->target.version) return precondition_failed();
    Impl::Operations operations;
    operations.push_back(Impl::erase(collection::kTargets, id, (*record)->version));
    operations.push_back(Impl::erase(collection::kTargetRefs, id, *refs));
    operations.push_back(Impl::erase(collection::kTargetName, to_lower(stored->target.name)));
    operations.push_back(Impl::erase(collection::kTargetSlug, stored->target.slug));
    for (const auto name : {collection::kTargetTokens, collection::kEnv}) {
      const auto rows = impl_->list(name, credential_prefix(id));
      if (!rows) return rows.error();
      for (const Record& row : *rows) operations.push_back(Impl::erase(name, row.key));
    }
    const auto policies = impl_->list(collection::kPolicies);
    if (!policies) return policies.error();
    for (const Record& policy : *policies)
      if (decode_policy(policy.key, policy.value, policy.version).target_id == id)
        operations.push_back(Impl::erase(collection::kPolicies, policy.key));
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    return {};
  });
}

}  // namespace mcpgw
