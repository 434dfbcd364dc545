#include "gateway/socket_tickets.hpp"

#include "base/text.hpp"
#include "json/json.hpp"

namespace mcpgw::detail {
namespace {

constexpr const char* kCollection = "socket_tickets";
constexpr auto kLife = std::chrono::seconds(30);
/// A dashboard that reconnects once a second, and as much again.
constexpr int kPerMinute = 120;
constexpr std::size_t kExpiryBytes = 8;
constexpr std::size_t kBytes = kExpiryBytes + 24;
constexpr std::size_t kPurgePage = 100;
constexpr int kPurgePages = 100;

std::string expiry_bytes(Time time) {
  auto us = static_cast<std::uint64_t>(time.time_since_epoch().count());
  std::string out(kExpiryBytes, '\0');
  for (std::size_t i = kExpiryBytes; i-- > 0; us >>= 8) out[i] = static_cast<char>(us & 0xff);
  return out;
}

Time expiry_of(std::string_view bytes) {
  std::uint64_t us = 0;
  for (const char c : bytes.substr(0, kExpiryBytes)) us = us << 8 | static_cast<unsigned char>(c);
  return Time(Duration(static_cast<std::int64_t>(us)));
}

/// Ordered by expiry. Storage holds a digest: reading it gives nobody a ticket.
std::string key_of(std::string_view bytes) {
  return to_hex(bytes.substr(0, kExpiryBytes)) + "-" + to_hex(sha256(bytes));
}

std::string encode(const Principal& principal) {
  Json out{{"user_id", principal.user_id}, {"email", principal.email},       {"role", principal.role},
           {"groups", principal.groups},   {"token_id", principal.token_id}, {"scopes", principal.scopes}};
  if (principal.token_expires_at) out["token_expires_at"] = format_time(*principal.token_expires_at);
  return dump_json(out);
}

std::optional<Principal> decode(std::string_view text) {
  constexpr std::size_t kDepth = 4;
  const auto json = parse_json(text, kDepth);
  if (!json || !json->is_object()) return std::nullopt;
  Principal out;
  const auto word = [&](const char* name, std::string& value) {
    const auto it = json->find(name);
    if (it == json->end() || !it->is_string()) return false;
    value = it->get<std::string>();
    return true;
  };
  const auto list = [&](const char* name, std::vector<std::string>& values) {
    const auto it = json->find(name);
    if (it == json->end() || !it->is_array()) return false;
    for (const Json& one : *it) {
      if (!one.is_string()) return false;
      values.push_back(one.get<std::string>());
    }
    return true;
  };
  if (!word("user_id", out.user_id) || !word("email", out.email) || !word("role", out.role) ||
      !word("token_id", out.token_id) || !list("groups", out.groups) || !list("scopes", out.scopes))
    return std::nullopt;
  if (std::string expires; word("token_expires_at", expires)) {
    out.token_expires_at = parse_time(expires);
    if (!out.token_expires_at) return std::nullopt;
  }
  return out;
}

}  // namespace

SocketTickets::SocketTickets(std::shared_ptr<Storage> storage, std::shared_ptr<Clock> clock,
                             std::shared_ptr<Random> random)
    : storage_(std::move(storage)),
      clock_(std::move(clock)),
      random_(std::move(random)),
      rate_(kPerMinute, std::chrono::minutes(1)),
      shared_limit_{"ticket.user", kPerMinute, std::chrono::minutes(1)},
      // Ids of users are no secret: the records of users have them, too.
      shared_(storage_->shared() ? std::make_unique<SharedRates>(storage_, clock_, std::string()) : nullptr) {
}

Result<bool> SocketTickets::take(const std::string& user_id) {
  if (!shared_) return rate_.take(user_id, clock_->monotonic());
  return shared_->settle({{&shared_limit_, user_id, SharedRates::Step::What::add}});
}

Result<SocketTicket> SocketTickets::issue(const Principal& principal) {
  const auto taken = take(principal.user_id);
  if (!taken) return taken.error();
  if (!*taken) return Error(ErrorCode::resource_exhausted, "rate_limited", "Too many tickets were asked for");
  purge();
  SocketTicket out;
  out.expires_at = clock_->now() + kLife;
  std::string bytes = expiry_bytes(out.expires_at);
  bytes.resize(kBytes);
  random_->fill(bytes.data() + kExpiryBytes, kBytes - kExpiryBytes);
  if (auto stored = storage_->put(kCollection, key_of(bytes), encode(principal), 0); !stored)
    return stored.error();
  out.text = base64url(bytes);
  return out;
}

Result<std::optional<Principal>> SocketTickets::redeem(std::string_view text) {
  const auto bytes = from_base64url(text.substr(0, 2 * kBytes));
  if (!bytes || bytes->size() != kBytes || expiry_of(*bytes) <= clock_->now())
    return std::optional<Principal>();
  const std::string key = key_of(*bytes);
  auto record = storage_->get(kCollection, key);
  if (!record) return record.error();
  if (!*record) return std::optional<Principal>();
  // Whoever erases it has it: of several at once, one.
  const Status erased = storage_->erase(kCollection, key, (*record)->version);
  if (!erased && erased.error().code == ErrorCode::conflict) return std::optional<Principal>();
  if (!erased) return erased.error();
  return decode((*record)->value);
}

void SocketTickets::purge() {
  {
    const std::lock_guard lock(mutex_);
    const Duration now = clock_->monotonic();
    if (now < next_purge_) return;
    next_purge_ = now + kLife;
  }
  const std::string until = to_hex(expiry_bytes(clock_->now()));
  for (int page = 0; page < kPurgePages; ++page) {
    const auto oldest = storage_->list(kCollection, {}, {}, kPurgePage);
    if (!oldest) return;
    std::vector<Operation> erase;
    for (const Record& record : *oldest)
      if (record.key < until) erase.push_back({Operation::Kind::erase, kCollection, record.key, {}, {}});
    if (erase.empty() || !storage_->commit(erase) || erase.size() < kPurgePage) return;
  }
}

}  // namespace mcpgw::detail
