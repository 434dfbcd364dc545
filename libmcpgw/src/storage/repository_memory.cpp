#include "storage/repository_memory.hpp"

#include <algorithm>
#include <mutex>

#include "base/text.hpp"
#include "storage/validate.hpp"

namespace mcpgw::detail {
namespace {

using ChangeKind = RepositoryChange::Kind;

std::optional<ChangeKind> cached_kind(std::string_view name) noexcept {
  if (name == collection::kUsers) return ChangeKind::user;
  if (name == collection::kTokens) return ChangeKind::token;
  if (name == collection::kTargets) return ChangeKind::target;
  if (name == collection::kTargetTokens) return ChangeKind::target_token;
  if (name == collection::kEnv) return ChangeKind::env;
  if (name == collection::kPolicies) return ChangeKind::policy;
  return std::nullopt;
}

template <class Map>
std::vector<typename Map::mapped_type> values_of(const Map& map) {
  std::vector<typename Map::mapped_type> out;
  out.reserve(map.size());
  for (const auto& entry : map) out.push_back(entry.second);
  return out;
}

template <class Map>
typename Map::mapped_type value_at(const Map& map, std::string_view key) {
  const auto it = map.find(key);
  return it == map.end() ? nullptr : it->second;
}

// Another object may have taken the place in the index already.
template <class Map, class Key, class Value>
void drop(Map& map, const Key& key, const Value& value) {
  const auto it = map.find(key);
  if (it != map.end() && it->second == value) map.erase(it);
}

}  // namespace

bool is_cached(std::string_view collection) noexcept { return cached_kind(collection).has_value(); }

std::optional<RepositoryChange> change_of(std::string_view collection, std::string_view key, bool erased) {
  RepositoryChange change{};
  change.erased = erased;
  const auto slash = key.find('/');
  if (collection == collection::kUserSessions || collection == collection::kTokens) {
    if (slash == std::string_view::npos) return std::nullopt;
    change.kind = collection == collection::kTokens ? ChangeKind::token : ChangeKind::session;
    change.user_id = std::string(key.substr(0, slash));
    change.id = std::string(key.substr(slash + 1));
    return change;
  }
  const auto kind = cached_kind(collection);
  if (!kind) return std::nullopt;
  change.kind = *kind;
  if (*kind != ChangeKind::target_token && *kind != ChangeKind::env) {
    change.id = std::string(key);
    return change;
  }
  const auto credential = decode_credential_key(collection, key);
  if (!credential) return std::nullopt;
  change.id = credential->target_id;
  if (credential->scope.scope == Scope::user) change.user_id = credential->scope.value;
  return change;
}

RepositoryMemory::RepositoryMemory(std::shared_ptr<Sealer> sealer, ProblemSink problem)
    : sealer_(std::move(sealer)), problem_(std::move(problem)) {}

RepositoryMemory::Guard::Guard(RepositoryMemory& memory) : memory_(memory) {
  std::unique_lock lock(memory_.mutex_);
  epoch_ = memory_.epoch_;
  memory_.active_.insert(epoch_);
}

RepositoryMemory::Guard::~Guard() {
  std::unique_lock lock(memory_.mutex_);
  memory_.active_.erase(memory_.active_.find(epoch_));
  memory_.prune_tombstones();
}

void RepositoryMemory::prune_tombstones() {
  // An erase is needed as long as someone lives who may have read before it.
  while (!erased_order_.empty() && (active_.empty() || erased_order_.front().first <= *active_.begin())) {
    erased_.erase(erased_order_.front().second);
    erased_order_.pop_front();
  }
}

std::size_t RepositoryMemory::tombstones() const {
  std::shared_lock lock(mutex_);
  return erased_.size();
}

template <class T>
std::shared_ptr<const T> RepositoryMemory::readable(std::optional<T> value, const RecordState& record) const {
  if (value) return std::make_shared<const T>(std::move(*value));
  if (problem_) problem_("unreadable record in " + record.collection);
  return nullptr;
}

std::shared_ptr<const Target> RepositoryMemory::decode_target_record(const RecordState& record) const {
  auto decoded = decode_target(record.key, *record.text, record.version);
  if (!decoded) return readable<Target>(std::nullopt, record);
  Target& target = decoded->target;
  if (!decoded->sealed_client_key.empty()) {
    auto key = sealer_->open(decoded->sealed_client_key, client_key_identity(target.id));
    if (!key && problem_) problem_("a TLS client key cannot be decrypted");
    target.tls->client_key = key ? std::move(*key) : std::string(kUnreadableClientKey);
  }
  return std::make_shared<const Target>(std::move(target));
}

RepositoryMemory::Decoded RepositoryMemory::decode(const RecordState& record) const {
  Decoded out;
  if (!record.text) return out;
  const auto kind = cached_kind(record.collection);
  if (!kind) return out;
  switch (*kind) {
    case ChangeKind::user:
      out.user = readable(decode_user(record.key, *record.text, record.version), record);
      break;
    case ChangeKind::token:
      out.token = readable(decode_token(record.key, *record.text), record);
      break;
    case ChangeKind::target:
      out.target = decode_target_record(record);
      break;
    case ChangeKind::policy:
      out.policy = std::make_shared<const Policy>(decode_policy(record.key, *record.text, record.version));
      if (out.policy->damaged && problem_) problem_("unreadable record in " + record.collection);
      break;
    case ChangeKind::target_token:
    case ChangeKind::env:
      out.credential = readable(decode_credential(record.collection, record.key, *record.text), record);
      if (out.credential && out.credential->sealed.empty() && problem_)
        problem_("unreadable record in " + record.collection);
      break;
    case ChangeKind::session:
    case ChangeKind::keys:
      break;
  }
  return out;
}

std::vector<bool> RepositoryMemory::apply(const std::vector<RecordState>& records) {
  std::vector<Decoded> decoded;
  decoded.reserve(records.size());
  for (const RecordState& record : records) decoded.push_back(decode(record));
  std::vector<bool> changed(records.size());
  std::unique_lock lock(mutex_);
  ++epoch_;
  for (std::size_t i = 0; i < records.size(); ++i) changed[i] = apply_one(records[i], std::move(decoded[i]));
  prune_tombstones();
  return changed;
}

template <class T, class Index>
bool RepositoryMemory::replace(Rows<T>& rows, const RecordState& record, std::shared_ptr<const T> value,
                               Index&& index) {
  const auto it = rows.find(record.key);
  if (!record.text) {
    Text2 id{record.collection, record.key};
    if (erased_.insert(id).second) erased_order_.emplace_back(epoch_, std::move(id));
    if (it == rows.end()) return false;
    if (it->second.value) index(it->second.value, false);
    rows.erase(it);
    return true;
  }
  if (erased_.count(Text2{record.collection, record.key}) != 0) return false;
  if (it == rows.end()) {
    if (value) index(value, true);
    rows.emplace(record.key, Entry<T>{record.version, std::move(value)});
    return true;
  }
  if (it->second.version >= record.version) return false;
  if (it->second.value) index(it->second.value, false);
  if (value) index(value, true);
  it->second = Entry<T>{record.version, std::move(value)};
  return true;
}

bool RepositoryMemory::apply_one(const RecordState& record, Decoded decoded) {
  const auto kind = cached_kind(record.collection);
  if (!kind) return false;
  const auto no_index = [](const auto&, bool) {};
  bool changed = false;
  switch (*kind) {
    case ChangeKind::user:
      changed = replace(users_, record, std::move(decoded.user),
                        [this](const auto& value, bool add) { index_user(value, add); });
      if (record.text) set_ever_had_user();
      break;
    case ChangeKind::token:
      changed = replace(tokens_, record, std::move(decoded.token),
                        [this](const auto& value, bool add) { index_token(value, add); });
      break;
    case ChangeKind::target:
      changed = replace(targets_, record, std::move(decoded.target),
                        [this](const auto& value, bool add) { index_target(value, add); });
      break;
    case ChangeKind::policy:
      changed = replace(policies_, record, std::move(decoded.policy),
                        [this](const auto& value, bool add) { index_policy(value, add); });
      break;
    case ChangeKind::target_token:
      changed = replace(target_tokens_, record, std::move(decoded.credential), no_index);
      break;
    case ChangeKind::env:
      changed = replace(env_, record, std::move(decoded.credential), no_index);
      break;
    case ChangeKind::session:
    case ChangeKind::keys:
      break;
  }
  if (!changed) return false;
  if (*kind == ChangeKind::policy || *kind == ChangeKind::target)
    policy_generation_.fetch_add(1, std::memory_order_acq_rel);
  if (*kind != ChangeKind::policy && *kind != ChangeKind::token)
    credential_generation_.fetch_add(1, std::memory_order_acq_rel);
  return true;
}

void RepositoryMemory::index_user(const std::shared_ptr<const User>& value, bool add) {
  Text2 key{value->email, value->id};
  if (add) {
    users_by_email_[std::move(key)] = value;
  } else {
    drop(users_by_email_, key, value);
  }
}

void RepositoryMemory::index_token(const std::shared_ptr<const ApiToken>& value, bool add) {
  if (add) {
    tokens_by_id_[value->id] = value;
    tokens_by_jti_[value->jti] = value;
  } else {
    drop(tokens_by_id_, value->id, value);
    drop(tokens_by_jti_, value->jti, value);
  }
}

void RepositoryMemory::index_target(const std::shared_ptr<const Target>& value, bool add) {
  Text2 key{to_lower(value->name), value->id};
  if (add) {
    targets_by_name_[std::move(key)] = value;
  } else {
    drop(targets_by_name_, key, value);
  }
}

void RepositoryMemory::index_policy(const std::shared_ptr<const Policy>& value, bool add) {
  PolicyOrder key{-value->priority, value->name, value->id};
  if (add) {
    policies_by_order_[std::move(key)] = value;
  } else {
    drop(policies_by_order_, key, value);
  }
}

std::vector<std::string> RepositoryMemory::keys(std::string_view collection) const {
  std::vector<std::string> out;
  const auto add = [&](const auto& rows) {
    for (const auto& row : rows) out.push_back(row.first);
  };
  std::shared_lock lock(mutex_);
  const auto kind = cached_kind(collection);
  if (!kind) return out;
  switch (*kind) {
    case ChangeKind::user:
      add(users_);
      break;
    case ChangeKind::token:
      add(tokens_);
      break;
    case ChangeKind::target:
      add(targets_);
      break;
    case ChangeKind::policy:
      add(policies_);
      break;
    case ChangeKind::target_token:
      add(target_tokens_);
      break;
    case ChangeKind::env:
      add(env_);
      break;
    case ChangeKind::session:
    case ChangeKind::keys:
      break;
  }
  return out;
}

std::shared_ptr<const User> RepositoryMemory::user(std::string_view id) const {
  std::shared_lock lock(mutex_);
  const auto it = users_.find(id);
  return it == users_.end() ? nullptr : it->second.value;
}

std::shared_ptr<const User> RepositoryMemory::user_by_email(std::string_view email) const {
  const std::string wanted = to_lower(trim(email));
  std::shared_lock lock(mutex_);
  const auto it = users_by_email_.lower_bound(Text2{wanted, {}});
  return it == users_by_email_.end() || it->first.first != wanted ? nullptr : it->second;
}

std::vector<std::shared_ptr<const User>> RepositoryMemory::users() const {
  std::shared_lock lock(mutex_);
  return values_of(users_by_email_);
}

std::shared_ptr<const ApiToken> RepositoryMemory::token(std::string_view id) const {
  std::shared_lock lock(mutex_);
  return value_at(tokens_by_id_, id);
}

std::shared_ptr<const ApiToken> RepositoryMemory::token_by_jti(std::string_view jti) const {
  std::shared_lock lock(mutex_);
  return value_at(tokens_by_jti_, jti);
}

std::vector<std::shared_ptr<const ApiToken>> RepositoryMemory::tokens_of(std::string_view user_id) const {
  const std::string prefix = std::string(user_id) + "/";
  std::vector<std::shared_ptr<const ApiToken>> out;
  {
    std::shared_lock lock(mutex_);
    for (auto it = tokens_.lower_bound(prefix); it != tokens_.end() && it->first.rfind(prefix, 0) == 0; ++it)
      if (it->second.value) out.push_back(it->second.value);
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return std::tie(b->created_at, b->id) < std::tie(a->created_at, a->id);
  });
  return out;
}

std::vector<std::shared_ptr<const ApiToken>> RepositoryMemory::all_tokens() const {
  std::shared_lock lock(mutex_);
  return values_of(tokens_by_id_);
}

std::shared_ptr<const Target> RepositoryMemory::target(std::string_view id) const {
  std::shared_lock lock(mutex_);
  const auto it = targets_.find(id);
  return it == targets_.end() ? nullptr : it->second.value;
}

std::shared_ptr<const Target> RepositoryMemory::target_by_name(std::string_view name) const {
  const std::string wanted = to_lower(trim(name));
  std::shared_lock lock(mutex_);
  const auto it = targets_by_name_.lower_bound(Text2{wanted, {}});
  return it == targets_by_name_.end() || it->first.first != wanted ? nullptr : it->second;
}

std::vector<std::shared_ptr<const Target>> RepositoryMemory::targets() const {
  std::shared_lock lock(mutex_);
  return values_of(targets_by_name_);
}

std::shared_ptr<const Policy> RepositoryMemory::policy(std::string_view id) const {
  std::shared_lock lock(mutex_);
  const auto it = policies_.find(id);
  return it == policies_.end() ? nullptr : it->second.value;
}

std::vector<std::shared_ptr<const Policy>> RepositoryMemory::policies() const {
  std::shared_lock lock(mutex_);
  return values_of(policies_by_order_);
}

const RepositoryMemory::CredentialRows* RepositoryMemory::credential_rows(std::string_view collection) const {
  return collection == collection::kEnv ? &env_ : &target_tokens_;
}

std::vector<std::shared_ptr<const StoredCredential>> RepositoryMemory::credentials(
    std::string_view collection, std::string_view prefix) const {
  std::vector<std::shared_ptr<const StoredCredential>> out;
  std::shared_lock lock(mutex_);
  const CredentialRows& rows = *credential_rows(collection);
  for (auto it = rows.lower_bound(prefix);
       it != rows.end() && it->first.compare(0, prefix.size(), prefix) == 0; ++it)
    if (it->second.value) out.push_back(it->second.value);
  return out;
}

}  // namespace mcpgw::detail
