// Repository: API tokens.
#include <algorithm>

#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr std::size_t kMaxRows = 1000;  // a user may keep, dead ones included
constexpr auto kTouchInterval = std::chrono::minutes(1);
constexpr std::size_t kPurgeBatch = 100;

Error token_not_found() { return not_found("token", "Token not found"); }

std::string token_key(std::string_view user_id, std::string_view token_id) {
  return std::string(user_id) + "/" + std::string(token_id);
}

bool is_dead(const ApiToken& token, Time now) {
  return token.revoked_at || (token.expires_at && *token.expires_at <= now);
}

// Erases as many rows as are above the bound: dead ones first, then logins, oldest first each. Live API
// tokens have a bound of their own.
void make_room(std::vector<Operation>& operations, std::vector<std::pair<ApiToken, std::uint64_t>> rows,
               Time now,
               const std::function<Operation(const std::string& key, std::uint64_t version)>& erase) {
  if (rows.size() < kMaxRows) return;
  std::size_t excess = rows.size() - kMaxRows + 1;
  std::stable_sort(rows.begin(), rows.end(), [&](const auto& a, const auto& b) {
    return std::make_tuple(!is_dead(a.first, now), a.first.kind == TokenKind::api, a.first.created_at) <
           std::make_tuple(!is_dead(b.first, now), b.first.kind == TokenKind::api, b.first.created_at);
  });
  for (const auto& [token, version] : rows) {
    if (excess == 0 || (!is_dead(token, now) && token.kind == TokenKind::api)) return;
    operations.push_back(erase(token_key(token.user_id, token.id), version));
    --excess;
  }
}

}  // namespace

Status Repository::Impl::token_operations(Operations& operations, const ApiToken& token) const {
  const auto refs = refs_version(collection::kUserRefs, token.user_id);
  if (!refs) return refs.error();
  const auto records = list(collection::kTokens, token.user_id + "/");
  if (!records) return records.error();
  std::vector<std::pair<ApiToken, std::uint64_t>> rows;
  std::size_t live = 0;
  for (const Record& record : *records) {
    auto row = decode_token(record.key, record.value);
    if (!row) continue;
    if (row->kind == TokenKind::api && !is_dead(*row, token.created_at)) ++live;
    rows.emplace_back(std::move(*row), record.version);
  }
  if (token.kind == TokenKind::api && live >= options.max_tokens_per_user)
    return Error(ErrorCode::conflict, "token_limit",
                 "The user has the permitted number of API tokens already: revoke one first");
  operations.push_back(put(collection::kTokens, token_key(token.user_id, token.id), encode_token(token), 0));
  add_reference(operations, collection::kUserRefs, token.user_id, *refs);
  make_room(operations, std::move(rows), token.created_at, [](const std::string& key, std::uint64_t version) {
    return erase(collection::kTokens, key, version);
  });
  return {};
}

Status Repository::Impl::prepare_token(ApiToken& token) const {
  const Time time = now();
  if (auto status = validate_token(token, time); !status) return status;
  if (!is_uuid(token.user_id)) return user_not_found();
  token.id = new_id();
  token.jti = new_id();
  token.created_at = time;
  token.last_used_at.reset();
  token.revoked_at.reset();
  return {};
}

Result<ApiToken> Repository::create_token(ApiToken token) {
  if (auto status = impl_->prepare_token(token); !status) return status.error();
  return impl_->retry<ApiToken>([&]() -> Result<ApiToken> {
    Impl::Operations operations;
    if (auto status = impl_->token_operations(operations, token); !status) return status.error();
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    return token;
  });
}

Result<ApiToken> Repository::create_login(ApiToken token, std::string_view judged_hash, User& user) {
  if (auto status = impl_->prepare_token(token); !status) return status.error();
  return impl_->retry<ApiToken>([&]() -> Result<ApiToken> {
    const auto record = impl_->get(collection::kUsers, token.user_id);
    if (!record) return record.error();
    if (!*record) return user_not_found();
    auto stored = decode_user(token.user_id, (*record)->value, (*record)->version);
    if (!stored) return user_not_found();
    if (!stored->enabled || stored->password_hash != judged_hash)
      return Error(ErrorCode::conflict, "account_changed", "The account was changed in the meantime");
    stored->last_login_at = token.created_at;
    Impl::Operations operations;
    operations.push_back(Impl::put(collection::kUsers, token.user_id, encode_user(*stored, (*record)->value),
                                   (*record)->version));
    if (auto status = impl_->token_operations(operations, token); !status) return status.error();
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    stored->version = versions->front();
    user = std::move(*stored);
    return token;
  });
}

std::shared_ptr<const ApiToken> Repository::token_by_jti(std::string_view jti) const {
  return impl_->memory.token_by_jti(jti);
}
std::shared_ptr<const ApiToken> Repository::token(std::string_view id) const {
  return impl_->memory.token(id);
}
std::vector<std::shared_ptr<const ApiToken>> Repository::tokens_of(std::string_view user_id) const {
  return impl_->memory.tokens_of(user_id);
}

Status Repository::revoke_token(std::string_view user_id, std::string_view token_id) {
  if (!is_uuid(user_id) || !is_uuid(token_id)) return token_not_found();
  const std::string key = token_key(user_id, token_id);
  return impl_->retry<void>([&]() -> Status {
    const auto record = impl_->get(collection::kTokens, key);
    if (!record) return record.error();
    if (!*record) return token_not_found();
    auto token = decode_token(key, (*record)->value);
    if (!token) return token_not_found();
    if (token->revoked_at) return {};
    token->revoked_at = impl_->now();
    const auto versions = impl_->commit(
        {Impl::put(collection::kTokens, key, encode_token(*token, (*record)->value), (*record)->version)});
    if (!versions) return versions.error();
    return {};
  });
}

Status Repository::Impl::revoke_operations(Operations& operations, std::string_view user_id, bool login,
                                           bool api, std::string_view except_token_id) const {
  // A token that is made meanwhile writes this record, so none escapes.
  const auto refs = refs_version(collection::kUserRefs, user_id);
  if (!refs) return refs.error();
  const auto records = list(collection::kTokens, std::string(user_id) + "/");
  if (!records) return records.error();
  operations.push_back(check(collection::kUserRefs, user_id, *refs));
  for (const Record& record : *records) {
    auto token = decode_token(record.key, record.value);
    if (!token || token->revoked_at || token->id == except_token_id) continue;
    if (token->kind == TokenKind::api ? !api : !login) continue;
    token->revoked_at = now();
    operations.push_back(
        put(collection::kTokens, record.key, encode_token(*token, record.value), record.version));
  }
  return {};
}

Status Repository::revoke_tokens(std::string_view user_id, bool include_api,
                                 std::string_view except_token_id) {
  if (!is_uuid(user_id)) return user_not_found();
  return impl_->retry<void>([&]() -> Status {
    Impl::Operations operations;
    if (auto status = impl_->revoke_operations(operations, user_id, true, include_api, except_token_id);
        !status)
      return status;
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    return {};
  });
}

bool Repository::token_touch_due(std::string_view token_id) const {
  const auto token = impl_->memory.token(token_id);
  if (!token || (token->last_used_at && impl_->now() - *token->last_used_at < kTouchInterval)) return false;
  std::lock_guard lock(impl_->touch_mutex);
  const auto it = impl_->touched.find(token_id);
  return it == impl_->touched.end() || impl_->clock->monotonic() - it->second >= kTouchInterval;
}

void Repository::touch_token(std::string_view token_id) {
  const auto token = impl_->memory.token(token_id);
  if (!token || (token->last_used_at && impl_->now() - *token->last_used_at < kTouchInterval)) return;
  const Duration now = impl_->clock->monotonic();
  {
    // Claimed before it is written: many requests of one token make one write, and a storage that is away is
    // not asked again for each of them.
    std::lock_guard lock(impl_->touch_mutex);
    if (impl_->touched.size() > 10000) {
      for (auto it = impl_->touched.begin(); it != impl_->touched.end();)
        it = now - it->second >= kTouchInterval ? impl_->touched.erase(it) : std::next(it);
    }
    const auto [it, fresh] = impl_->touched.try_emplace(std::string(token_id), now);
    if (!fresh) {
      if (now - it->second < kTouchInterval) return;
      it->second = now;
    }
  }
  const std::string key = token_key(token->user_id, token->id);
  const auto record = impl_->get(collection::kTokens, key);
  if (!record || !*record) return;
  auto stored = decode_token(key, (*record)->value);
  if (!stored) return;
  stored->last_used_at = impl_->now();
  // A change in between (a revocation, another replica's touch) is worth more than this one.
  (void)impl_->commit(
      {Impl::put(collection::kTokens, key, encode_token(*stored, (*record)->value), (*record)->version)});
}

Result<std::uint64_t> Repository::purge_tokens(Time cutoff) {
  const auto over = [&](const ApiToken& token) {
    return (token.expires_at && *token.expires_at < cutoff) ||
           (token.revoked_at && *token.revoked_at < cutoff);
  };
  std::vector<std::string> keys;
  for (const auto& token : impl_->memory.all_tokens())
    if (over(*token)) keys.push_back(token_key(token->user_id, token->id));
  std::uint64_t purged = 0;
  for (std::size_t from = 0; from < keys.size(); from += kPurgeBatch) {
    // Neither an expiry nor a revocation is ever taken back, so no condition is needed.
    Impl::Operations operations;
    for (std::size_t i = from; i < std::min(from + kPurgeBatch, keys.size()); ++i)
      operations.push_back(Impl::erase(collection::kTokens, keys[i]));
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    purged += operations.size();
  }
  return purged;
}

}  // namespace mcpgw
