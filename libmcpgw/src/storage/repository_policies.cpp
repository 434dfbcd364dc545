// Repository: policies and their subjects.
#include <algorithm>
#include <set>

#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

bool same_subject(const Subject& a, const Subject& b) { return a.type == b.type && a.value == b.value; }

const Subject* find_subject(const std::vector<Subject>& subjects, const Subject& wanted) {
  const auto it = std::find_if(subjects.begin(), subjects.end(),
                               [&](const Subject& subject) { return same_subject(subject, wanted); });
  return it == subjects.end() ? nullptr : &*it;
}

// In a whole policy the member at fault is the list.
Error in_subjects(Error error) {
  if (error.field == "subject_value") error.field = "subjects";
  return error;
}

Status validate_references(const Policy& policy) {
  if (policy.target_id.empty() || is_uuid(policy.target_id)) return {};
  return Error(ErrorCode::invalid_argument, "unknown_target", "There is no target with this id", "target_id");
}

}  // namespace

Status Repository::Impl::refer(Operations& operations, const Policy& policy, const Policy* previous) const {
  if (!policy.target_id.empty() && (previous == nullptr || previous->target_id != policy.target_id)) {
    const auto refs = refs_version(collection::kTargetRefs, policy.target_id);
    if (!refs && refs.error().code == ErrorCode::not_found)
      return Error(ErrorCode::invalid_argument, "unknown_target", "There is no target with this id",
                   "target_id");
    if (!refs) return refs.error();
    add_reference(operations, collection::kTargetRefs, policy.target_id, *refs);
  }
  for (const Subject& subject : policy.subjects) {
    if (subject.type != SubjectType::user) continue;
    if (previous != nullptr && find_subject(previous->subjects, subject) != nullptr) continue;
    const auto refs = refs_version(collection::kUserRefs, subject.value);
    if (!refs && refs.error().code == ErrorCode::not_found)
      return Error(ErrorCode::invalid_argument, "unknown_user", "There is no user with this id",
                   "subject_value");
    if (!refs) return refs.error();
    add_reference(operations, collection::kUserRefs, subject.value, *refs);
  }
  return {};
}

Result<Policy> Repository::create_policy(Policy policy) {
  if (auto status = validate_policy(policy); !status) return status.error();
  if (auto status = validate_references(policy); !status) return status.error();
  if (policy.id.empty()) policy.id = impl_->new_id();
  if (!is_uuid(policy.id))
    return Error(ErrorCode::invalid_argument, "invalid_id", "The id must be a lower-case UUID", "id");
  policy.damaged = false;
  policy.created_at = policy.updated_at = impl_->now();
  for (Subject& subject : policy.subjects) {
    subject.id = impl_->new_id();
    subject.policy_id = policy.id;
    subject.created_at = policy.created_at;
  }
  return impl_->retry<Policy>([&]() -> Result<Policy> {
    const auto taken = impl_->get(collection::kPolicies, policy.id);
    if (!taken) return taken.error();
    if (*taken) return Error(ErrorCode::conflict, "id_taken", "There is a policy with this id already", "id");
    Impl::Operations operations;
    operations.push_back(Impl::put(collection::kPolicies, policy.id, encode_policy(policy), 0));
    if (auto status = impl_->refer(operations, policy, nullptr); !status) return in_subjects(status.error());
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    Policy made = policy;
    made.version = versions->front();
    return made;
  });
}

std::shared_ptr<const Policy> Repository::policy(std::string_view id) const {
  return impl_->memory.policy(id);
}
std::vector<std::shared_ptr<const Policy>> Repository::policies() const { return impl_->memory.policies(); }

Result<Policy> Repository::update_policy(Policy policy, std::optional<std::uint64_t> if_version) {
  if (!is_uuid(policy.id)) return policy_not_found();
  if (auto status = validate_policy(policy); !status) return status.error();
  if (auto status = validate_references(policy); !status) return status.error();
  policy.damaged = false;
  return impl_->retry<Policy>([&]() -> Result<Policy> {
    const auto record = impl_->get(collection::kPolicies, policy.id);
    if (!record) return record.error();
    if (!*record) return policy_not_found();
    if (if_version && *if_version != (*record)->version) return precondition_failed();
    const Policy stored = decode_policy(policy.id, (*record)->value, (*record)->version);
    Policy made = policy;
    made.updated_at = impl_->now();
    made.created_at = stored.created_at == Time{} ? made.updated_at : stored.created_at;
    for (Subject& subject : made.subjects) {
      const Subject* old = stored.damaged ? nullptr : find_subject(stored.subjects, subject);
      subject.id = old != nullptr ? old->id : impl_->new_id();
      subject.created_at = old != nullptr ? old->created_at : made.updated_at;
      subject.policy_id = made.id;
    }
    Impl::Operations operations;
    operations.push_back(
        Impl::put(collection::kPolicies, made.id, encode_policy(made, (*record)->value), (*record)->version));
    if (auto status = impl_->refer(operations, made, stored.damaged ? nullptr : &stored); !status)
      return in_subjects(status.error());
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    made.version = versions->front();
    return made;
  });
}

Status Repository::delete_policy(std::string_view id, std::optional<std::uint64_t> if_version) {
  if (!is_uuid(id)) return policy_not_found();
  return impl_->retry<void>([&]() -> Status {
    const auto record = impl_->get(collection::kPolicies, id);
    if (!record) return record.error();
    if (!*record) return policy_not_found();
    if (if_version && *if_version != (*record)->version) return precondition_failed();
    const auto versions = impl_->commit({Impl::erase(collection::kPolicies, id, (*record)->version)});
    if (!versions) return versions.error();
    return {};
  });
}

Result<Subject> Repository::add_subject(std::string_view policy_id, Subject subject) {
  if (auto status = validate_subject(subject); !status) return status.error();
  if (!is_uuid(policy_id)) return policy_not_found();
  subject.id = impl_->new_id();
  subject.policy_id = std::string(policy_id);
  return impl_->retry<Subject>([&]() -> Result<Subject> {
    const auto record = impl_->get(collection::kPolicies, policy_id);
    if (!record) return record.error();
    if (!*record) return policy_not_found();
    const Policy stored = decode_policy(policy_id, (*record)->value, (*record)->version);
    if (stored.damaged)
      return Error(ErrorCode::data_loss, "policy_damaged",
                   "The stored policy cannot be read whole: replace or delete it");
    if (find_subject(stored.subjects, subject) != nullptr)
      return Error(ErrorCode::conflict, "duplicate_subject", "The policy has this subject already",
                   "subject_value");
    if (stored.subjects.size() >= kMaxSubjects)
      return Error(ErrorCode::invalid_argument, "invalid_request",
                   "A policy can have at most " + std::to_string(kMaxSubjects) + " subjects", "subjects");
    Policy made = stored;
    made.updated_at = subject.created_at = impl_->now();
    made.subjects.push_back(subject);
    Impl::Operations operations;
    operations.push_back(Impl::put(collection::kPolicies, policy_id, encode_policy(made, (*record)->value),
                                   (*record)->version));
    if (auto status = impl_->refer(operations, made, &stored); !status) return status.error();
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    return subject;
  });
}

Status Repository::remove_subject(std::string_view policy_id, std::string_view subject_id) {
  if (!is_uuid(policy_id)) return policy_not_found();
  return impl_->retry<void>([&]() -> Status {
    const auto record = impl_->get(collection::kPolicies, policy_id);
    if (!record) return record.error();
    if (!*record) return policy_not_found();
    Policy policy = decode_policy(policy_id, (*record)->value, (*record)->version);
    if (policy.damaged)
      return Error(ErrorCode::data_loss, "policy_damaged",
                   "The stored policy cannot be read whole: replace or delete it");
    const auto at = std::find_if(policy.subjects.begin(), policy.subjects.end(),
                                 [&](const Subject& subject) { return subject.id == subject_id; });
    if (at == policy.subjects.end())
      return Error(ErrorCode::not_found, "subject_not_found", "The policy has no such subject");
    policy.subjects.erase(at);
    policy.updated_at = impl_->now();
    const auto versions = impl_->commit({Impl::put(
        collection::kPolicies, policy_id, encode_policy(policy, (*record)->value), (*record)->version)});
    if (!versions) return versions.error();
    return {};
  });
}

}  // namespace mcpgw
