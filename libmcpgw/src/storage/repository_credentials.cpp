// Repository: target tokens and env rows. Values are sealed in storage and in memory, and opened when
// revealed.
#include <algorithm>
#include <set>

#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

Error token_not_set() { return Error(ErrorCode::not_found, "token_not_set", "No token is stored here"); }
Error env_not_found() {
  return Error(ErrorCode::not_found, "env_not_found", "There is no environment entry with this key");
}
Error credential_unavailable() {
  return Error(ErrorCode::data_loss, "credential_unavailable", "A stored credential cannot be decrypted");
}

TargetToken token_of(const StoredCredential& row) {
  return TargetToken{row.key.target_id, row.key.scope, row.created_at, row.updated_at};
}

EnvRow env_row_of(const StoredCredential& row) {
  return EnvRow{row.key.id,      row.key.target_id, row.key.scope, row.key.env_key,
                row.description, row.created_at,    row.updated_at};
}

// default, role, group, user: the widest first, the reverse of how they win.
bool wider(const ScopeRef& a, const ScopeRef& b) {
  if (a.scope != b.scope) return a.scope > b.scope;
  return a.value < b.value;
}

// A scope in the form it is stored in; nullopt when it cannot have rows.
std::optional<ScopeRef> normal_scope(ScopeRef scope) {
  if (!validate_scope(scope)) return std::nullopt;
  return scope;
}

const Record* find_row(const std::vector<Record>& rows, std::string_view collection,
                       std::string_view env_key) {
  for (const Record& row : rows) {
    const auto key = decode_credential_key(collection, row.key);
    if (key && key->env_key == env_key) return &row;
  }
  return nullptr;
}

}  // namespace

Result<Repository::Impl::CredentialPlace> Repository::Impl::credential_place(Operations& operations,
                                                                             std::string_view collection,
                                                                             std::string_view target_id,
                                                                             const ScopeRef& scope) const {
  CredentialPlace place;
  if (!is_uuid(target_id)) return target_not_found();
  const auto refs = refs_version(collection::kTargetRefs, target_id);
  if (!refs) return refs.error();
  place.target_refs = *refs;
  const auto record = get(collection::kTargets, target_id);
  if (!record) return record.error();
  auto target = *record ? decode_target(target_id, (*record)->value, (*record)->version) : std::nullopt;
  if (!target) return target_not_found();
  place.target = std::move(target->target);
  if (scope.scope == Scope::user) {
    const auto user_refs = refs_version(collection::kUserRefs, scope.value);
    if (!user_refs) return user_refs.error();
    add_reference(operations, collection::kUserRefs, scope.value, *user_refs);
  }
  auto rows = list(collection, credential_prefix(target_id, scope));
  if (!rows) return rows.error();
  place.rows = std::move(*rows);
  add_reference(operations, collection::kTargetRefs, target_id, place.target_refs);
  return place;
}

Status Repository::set_target_token(std::string_view target_id, const ScopeRef& asked,
                                    std::string_view token) {
  ScopeRef scope = asked;
  if (auto status = validate_scope(scope); !status) return status;
  return impl_->retry<void>([&]() -> Status {
    Impl::Operations operations;
    const auto place = impl_->credential_place(operations, collection::kTargetTokens, target_id, scope);
    if (!place) return place.error();
    if (auto status = validate_target_token(token, place->target.is_process()); !status) return status;
    StoredCredential row;
    row.key = CredentialKey{place->target.id, scope, {}, impl_->new_id()};
    row.created_at = row.updated_at = impl_->now();
    const Record* previous = find_row(place->rows, collection::kTargetTokens, {});
    if (previous != nullptr) {
      const auto old = decode_credential(collection::kTargetTokens, previous->key, previous->value);
      row.key.id = old->key.id;
      if (!old->sealed.empty()) row.created_at = old->created_at;
    }
    const auto fence = impl_->key_fence();
    if (!fence) return fence.error();
    operations.push_back(*fence);
    row.sealed = impl_->sealer->seal(token, credential_identity(collection::kTargetTokens, row.key));
    operations.push_back(
        Impl::put(collection::kTargetTokens, encode_credential_key(row.key),
                  encode_credential(row, previous != nullptr ? previous->value : std::string()),
                  previous != nullptr ? previous->version : 0));
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    return {};
  });
}

Status Repository::delete_target_token(std::string_view target_id, const ScopeRef& asked) {
  const auto scope = normal_scope(asked);
  return impl_->retry<void>([&]() -> Status {
    if (!is_uuid(target_id)) return target_not_found();
    const auto refs = impl_->refs_version(collection::kTargetRefs, target_id);
    if (!refs) return refs.error();
    if (!scope) return token_not_set();
    const auto rows = impl_->list(collection::kTargetTokens, credential_prefix(target_id, *scope));
    if (!rows) return rows.error();
    if (rows->empty()) return token_not_set();
    Impl::Operations operations;
    for (const Record& row : *rows)
      operations.push_back(Impl::erase(collection::kTargetTokens, row.key, row.version));
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    return {};
  });
}

std::vector<TargetToken> Repository::target_tokens(std::string_view target_id) const {
  std::vector<TargetToken> out;
  for (const auto& row : impl_->memory.credentials(collection::kTargetTokens, credential_prefix(target_id)))
    out.push_back(token_of(*row));
  std::sort(out.begin(), out.end(),
            [](const TargetToken& a, const TargetToken& b) { return wider(a.scope, b.scope); });
  return out;
}

std::optional<TargetToken> Repository::target_token(std::string_view target_id, const ScopeRef& scope) const {
  const auto rows = impl_->memory.credentials(collection::kTargetTokens, credential_prefix(target_id, scope));
  if (rows.empty()) return std::nullopt;
  return token_of(*rows.front());
}

Result<std::string> Repository::Impl::open_credential(std::string_view collection,
                                                      const StoredCredential& row) {
  if (row.sealed.empty()) return credential_unavailable();
  auto value = sealer->open(row.sealed, credential_identity(collection, row.key));
  if (value) return value;
  problem("a stored credential cannot be decrypted");
  return credential_unavailable();
}

Result<std::optional<std::string>> Repository::reveal_target_token(std::string_view target_id,
                                                                   const ScopeRef& scope) const {
  const auto rows = impl_->memory.credentials(collection::kTargetTokens, credential_prefix(target_id, scope));
  if (rows.empty()) return std::optional<std::string>();
  auto value = impl_->open_credential(collection::kTargetTokens, *rows.front());
  if (!value) return value.error();
  return std::optional(std::move(*value));
}

Result<std::vector<EnvRow>> Repository::set_env(std::string_view target_id, const ScopeRef& asked,
                                                const std::vector<EnvWrite>& writes) {
  ScopeRef scope = asked;
  if (auto status = validate_scope(scope); !status) return status.error();
  if (writes.size() > kMaxEnvWrites)
    return Error(ErrorCode::invalid_argument, "invalid_request",
                 "At most " + std::to_string(kMaxEnvWrites) + " entries can be written at once", "configs");
  return impl_->retry<std::vector<EnvRow>>([&]() -> Result<std::vector<EnvRow>> {
    Impl::Operations operations;
    const auto place = impl_->credential_place(operations, collection::kEnv, target_id, scope);
    if (!place) return place.error();
    const bool process = place->target.is_process();
    std::map<std::string, std::string> names;  // as compared -> as written
    const auto compared = [&](const std::string& key) { return process ? key : to_lower(key); };
    std::map<std::string, std::pair<const Record*, StoredCredential>> rows;
    for (const Record& record : place->rows) {
      auto row = decode_credential(collection::kEnv, record.key, record.value);
      if (!row) continue;
      names.emplace(compared(row->key.env_key), row->key.env_key);
      std::string key = row->key.env_key;
      rows.emplace(std::move(key), std::pair(&record, std::move(*row)));
    }
    const auto fence = impl_->key_fence();
    if (!fence) return fence.error();
    operations.push_back(*fence);
    std::set<std::string> written;
    const Time now = impl_->now();
    for (const EnvWrite& write : writes) {
      auto status = validate_env(write.key, write.value, process, impl_->options.max_timeout_ms);
      if (!status) return status.error();
      if (write.description && *write.description)
        if (status = validate_description(**write.description); !status) return status.error();
      if (!written.insert(write.key).second)
        return Error(ErrorCode::invalid_argument, "invalid_request", "A key is given twice", "configs");
      const auto [name, fresh] = names.emplace(compared(write.key), write.key);
      if (!fresh && name->second != write.key)
        return Error(ErrorCode::conflict, "key_conflict",
                     "There is an entry in this scope whose key differs only in case", "key");
      auto& [previous, row] = rows[write.key];
      if (previous == nullptr || row.sealed.empty()) row.created_at = now;
      if (previous == nullptr) row.key = CredentialKey{place->target.id, scope, write.key, impl_->new_id()};
      row.updated_at = now;
      if (write.description) row.description = write.description->value_or(std::string());
      row.sealed = impl_->sealer->seal(write.value, credential_identity(collection::kEnv, row.key));
      operations.push_back(Impl::put(collection::kEnv, encode_credential_key(row.key),
                                     encode_credential(row, previous ? previous->value : std::string()),
                                     previous ? previous->version : 0));
    }
    if (!writes.empty()) {
      const auto versions = impl_->commit(operations);
      if (!versions) return versions.error();
    }
    std::vector<EnvRow> out;
    for (const auto& [key, entry] : rows) out.push_back(env_row_of(entry.second));
    return out;
  });
}

Status Repository::delete_env(std::string_view target_id, const ScopeRef& asked, std::string_view key) {
  const auto scope = normal_scope(asked);
  return impl_->retry<void>([&]() -> Status {
    if (!is_uuid(target_id)) return target_not_found();
    const auto refs = impl_->refs_version(collection::kTargetRefs, target_id);
    if (!refs) return refs.error();
    if (!scope) return env_not_found();
    const auto rows = impl_->list(collection::kEnv, credential_prefix(target_id, *scope));
    if (!rows) return rows.error();
    const Record* row = find_row(*rows, collection::kEnv, key);
    if (row == nullptr) return env_not_found();
    const auto versions = impl_->commit({Impl::erase(collection::kEnv, row->key, row->version)});
    if (!versions) return versions.error();
    return {};
  });
}

std::vector<EnvRow> Repository::env_rows(std::string_view target_id) const {
  std::vector<EnvRow> out;
  for (const auto& row : impl_->memory.credentials(collection::kEnv, credential_prefix(target_id)))
    out.push_back(env_row_of(*row));
  std::sort(out.begin(), out.end(), [](const EnvRow& a, const EnvRow& b) {
    if (wider(a.scope, b.scope)) return true;
    if (wider(b.scope, a.scope)) return false;
    return a.key < b.key;
  });
  return out;
}

std::vector<EnvRow> Repository::env_rows(std::string_view target_id, const ScopeRef& scope) const {
  std::vector<EnvRow> out;
  for (const auto& row : impl_->memory.credentials(collection::kEnv, credential_prefix(target_id, scope)))
    out.push_back(env_row_of(*row));
  std::sort(out.begin(), out.end(), [](const EnvRow& a, const EnvRow& b) { return a.key < b.key; });
  return out;
}

Result<std::map<std::string, std::string>> Repository::reveal_env(std::string_view target_id,
                                                                  const ScopeRef& scope) const {
  std::map<std::string, std::string> out;
  for (const auto& row : impl_->memory.credentials(collection::kEnv, credential_prefix(target_id, scope))) {
    auto value = impl_->open_credential(collection::kEnv, *row);
    if (!value) return value.error();
    out.emplace(row->key.env_key, std::move(*value));
  }
  return out;
}

}  // namespace mcpgw
