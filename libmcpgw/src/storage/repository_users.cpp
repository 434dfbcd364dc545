// Repository: users, and what must hold among them (one first user, at least one enabled admin).
#include <algorithm>

#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

bool is_enabled_admin(const User& user) { return user.enabled && user.role == "admin"; }

Error email_taken() {
  return Error(ErrorCode::conflict, "email_taken", "There is a user with this email address already",
               "email");
}

Status validate_patch(UserPatch& patch) {
  if (patch.role)
    if (auto status = validate_role(*patch.role); !status) return status;
  if (patch.groups)
    if (auto status = validate_groups(*patch.groups); !status) return status;
  return {};
}

void apply_patch(User& user, const UserPatch& patch, Time now) {
  if (patch.role) user.role = *patch.role;
  if (patch.groups) user.groups = *patch.groups;
  if (patch.enabled) user.enabled = *patch.enabled;
  if (patch.password_hash) user.password_hash = *patch.password_hash;
  if (patch.last_login_at) user.last_login_at = patch.last_login_at;
  // A login is no edit.
  if (patch.role || patch.groups || patch.enabled || patch.password_hash) user.updated_at = now;
}

}  // namespace

Status Repository::Impl::change_admins(Operations& operations, std::string_view user_id,
                                       bool is_admin) const {
  const auto record = get(collection::kMeta, meta::kAdmins);
  if (!record) return record.error();
  std::vector<std::string> ids;
  if (*record) {
    auto stored = decode_ids((*record)->value);
    if (!stored) return Error(ErrorCode::data_loss, "data_loss", "The list of admins is damaged");
    ids = std::move(*stored);
  }
  ids.erase(std::remove(ids.begin(), ids.end(), user_id), ids.end());
  if (is_admin) {
    ids.emplace_back(user_id);
  } else {
    // An admin whose row cannot be read is none.
    const auto effective = [&](const std::string& id) -> Result<bool> {
      const auto other = get(collection::kUsers, id);
      if (!other) return other.error();
      const auto user = *other ? decode_user(id, (*other)->value, (*other)->version) : std::nullopt;
      return user && is_enabled_admin(*user);
    };
    bool found = false;
    for (auto it = ids.begin(); it != ids.end() && !found; ++it) {
      const auto result = effective(*it);
      if (!result) return result.error();
      found = *result;
    }
    if (!found)
      return Error(ErrorCode::conflict, "last_admin",
                   "This is the last enabled admin: make another one first");
  }
  // Two changes of the list exclude each other, so no two can each count on the other's admin.
  operations.push_back(
      put(collection::kMeta, meta::kAdmins, encode_ids(ids), *record ? (*record)->version : 0));
  return {};
}

Result<User> Repository::create_user(User user, bool first_becomes_admin, bool* was_first, ApiToken* token) {
  if (auto status = validate_user(user); !status) return status.error();
  if (user.id.empty()) user.id = impl_->new_id();
  if (!is_uuid(user.id))
    return Error(ErrorCode::invalid_argument, "invalid_id", "The id must be a lower-case UUID", "id");
  user.created_at = user.updated_at = impl_->now();
  user.last_login_at.reset();
  if (token != nullptr) {
    token->id = impl_->new_id();
    token->jti = impl_->new_id();
    token->user_id = user.id;
    token->created_at = user.created_at;
    token->last_used_at.reset();
    token->revoked_at.reset();
    if (auto status = validate_token(*token, user.created_at); !status) return status.error();
  }
  const std::string asked_role = user.role;
  return impl_->retry<User>([&]() -> Result<User> {
    User made = user;
    Impl::Operations operations;
    bool first = false;
    if (!impl_->memory.ever_had_user()) {
      const auto record = impl_->get(collection::kMeta, meta::kFirstUser);
      if (!record) return record.error();
      first = !*record;
    }
    made.role = first && first_becomes_admin ? "admin" : asked_role;
    const auto index = impl_->get(collection::kUserEmail, made.email);
    if (!index) return index.error();
    if (*index) return email_taken();
    const auto taken = impl_->get(collection::kUsers, made.id);
    if (!taken) return taken.error();
    if (*taken) return Error(ErrorCode::conflict, "id_taken", "There is a user with this id already", "id");
    operations.push_back(Impl::put(collection::kUsers, made.id, encode_user(made), 0));
    operations.push_back(Impl::put(collection::kUserRefs, made.id, encode_index(made.id), 0));
    operations.push_back(Impl::put(collection::kUserEmail, made.email, encode_index(made.id), 0));
    if (first) operations.push_back(Impl::put(collection::kMeta, meta::kFirstUser, encode_index(made.id), 0));
    if (is_enabled_admin(made))
      if (auto status = impl_->change_admins(operations, made.id, true); !status) return status.error();
    if (token != nullptr)
      operations.push_back(
          Impl::put(collection::kTokens, made.id + "/" + token->id, encode_token(*token), 0));
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    made.version = versions->front();
    if (was_first != nullptr) *was_first = first;
    return made;
  });
}

std::shared_ptr<const User> Repository::user(std::string_view id) const { return impl_->memory.user(id); }
std::shared_ptr<const User> Repository::user_by_email(std::string_view email) const {
  return impl_->memory.user_by_email(email);
}
std::vector<std::shared_ptr<const User>> Repository::users() const { return impl_->memory.users(); }
bool Repository::has_users() const { return impl_->memory.ever_had_user(); }

Result<User> Repository::update_user(std::string_view id, const UserPatch& asked,
                                     std::optional<std::uint64_t> if_version) {
  UserPatch patch = asked;
  if (auto status = validate_patch(patch); !status) return status.error();
  if (!is_uuid(id)) return user_not_found();
  return impl_->retry<User>([&]() -> Result<User> {
    const auto record = impl_->get(collection::kUsers, id);
    if (!record) return record.error();
    if (!*record) return user_not_found();
    auto user = decode_user(id, (*record)->value, (*record)->version);
    if (!user) return user_not_found();
    if (if_version && *if_version != user->version) return precondition_failed();
    const bool was_admin = is_enabled_admin(*user), was_enabled = user->enabled;
    apply_patch(*user, patch, impl_->now());
    Impl::Operations operations;
    operations.push_back(
        Impl::put(collection::kUsers, id, encode_user(*user, (*record)->value), (*record)->version));
    if (was_admin != is_enabled_admin(*user))
      if (auto status = impl_->change_admins(operations, id, !was_admin); !status) return status.error();
    if (patch.revoke_login_tokens || patch.revoke_api_tokens) {
      const auto status = impl_->revoke_operations(operations, id, patch.revoke_login_tokens,
                                                   patch.revoke_api_tokens, patch.keep_token_id);
      if (!status) return status.error();
    }
    if (was_enabled && !user->enabled)
      if (const auto ended = impl_->erase_sessions(operations, std::string(id)); !ended) return ended.error();
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    user->version = versions->front();
    return *user;
  });
}

Status Repository::delete_user(std::string_view id, std::optional<std::uint64_t> if_version) {
  if (!is_uuid(id)) return user_not_found();
  const std::string user_id(id);
  return impl_->retry<void>([&]() -> Status {
    // Before the rest: whatever is added for the user after this read makes the commit fail.
    const auto refs = impl_->refs_version(collection::kUserRefs, id);
    if (!refs) return refs.error();
    const auto record = impl_->get(collection::kUsers, id);
    if (!record) return record.error();
    if (!*record) return user_not_found();
    const auto user = decode_user(id, (*record)->value, (*record)->version);
    if (!user) return user_not_found();
    if (if_version && *if_version != user->version) return precondition_failed();
    Impl::Operations operations;
    operations.push_back(Impl::erase(collection::kUsers, id, (*record)->version));
    operations.push_back(Impl::erase(collection::kUserRefs, id, *refs));
    operations.push_back(Impl::erase(collection::kUserEmail, user->email));
    if (is_enabled_admin(*user))
      if (auto status = impl_->change_admins(operations, id, false); !status) return status;
    const auto tokens = impl_->list(collection::kTokens, user_id + "/");
    if (!tokens) return tokens.error();
    for (const Record& token : *tokens) operations.push_back(Impl::erase(collection::kTokens, token.key));
    for (const auto name : {collection::kTargetTokens, collection::kEnv}) {
      const auto rows = impl_->list(name);
      if (!rows) return rows.error();
      for (const Record& row : *rows) {
        const auto key = decode_credential_key(name, row.key);
        if (key && key->scope.scope == Scope::user && key->scope.value == user_id)
          operations.push_back(Impl::erase(name, row.key));
      }
    }
    if (auto status = impl_->remove_from_policies(operations, user_id); !status) return status;
    if (const auto sessions = impl_->erase_sessions(operations, user_id); !sessions) return sessions.error();
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    return {};
  });
}

Status Repository::Impl::remove_from_policies(Operations& operations, const std::string& user_id) const {
  const auto records = list(collection::kPolicies);
  if (!records) return records.error();
  for (const Record& record : *records) {
    Policy policy = decode_policy(record.key, record.value, record.version);
    if (policy.damaged) continue;  // rewriting it would hide the damage
    const auto concerned = [&](const Subject& subject) {
      return subject.type == SubjectType::user && subject.value == user_id;
    };
    const auto end = std::remove_if(policy.subjects.begin(), policy.subjects.end(), concerned);
    if (end == policy.subjects.end()) continue;
    policy.subjects.erase(end, policy.subjects.end());
    policy.updated_at = now();
    operations.push_back(
        put(collection::kPolicies, record.key, encode_policy(policy, record.value), record.version));
  }
  return {};
}

}  // namespace mcpgw
