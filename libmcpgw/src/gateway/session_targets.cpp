// A session's targets while its client does nothing: those that fail are come back to, a new connection is
// given what the client asked for on the one before, and the servers' sessions outlive this process.
#include "gateway/kept_upstream.hpp"
#include "gateway/session.hpp"
#include "json/json.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// How long a client that holds no stream is thought to be there.
constexpr auto kRecently = std::chrono::minutes(5);
constexpr auto kPursueTimeout = std::chrono::seconds(60);
/// Of one server's session, and of all that a session keeps: a record has a limit.
constexpr std::size_t kMaxKept = 64 * 1024, kMaxKeptInAll = 256 * 1024;

std::string encode_kept(const std::string& key, const UpstreamSession& session) {
  return dump_json(Json{{"key", key},
                        {"id", session.id},
                        {"version", session.facts.protocol_version},
                        {"capabilities", session.facts.capabilities},
                        {"info", session.facts.server_info},
                        {"instructions", session.facts.instructions}});
}

}  // namespace

std::shared_ptr<KeptUpstream> decode_kept(const std::string& text) {
  const auto json = parse_json(text, 2);
  if (!json || !json->is_object()) return nullptr;
  auto out = std::make_shared<KeptUpstream>();
  ServerFacts& facts = out->session.facts;
  for (const auto& [name, into] :
       std::initializer_list<std::pair<const char*, std::string*>>{{"key", &out->key},
                                                                   {"id", &out->session.id},
                                                                   {"version", &facts.protocol_version},
                                                                   {"capabilities", &facts.capabilities},
                                                                   {"info", &facts.server_info},
                                                                   {"instructions", &facts.instructions}}) {
    const auto member = json->find(name);
    if (member == json->end() || !member->is_string()) return nullptr;
    *into = member->get<std::string>();
  }
  return out->session.id.empty() ? nullptr : out;
}

bool Session::waits_for_targets() const { return !closed() && (has_stream() || idle() < kRecently); }

bool Session::waits_for(const std::string& target_id) const {
  if (!waits_for_targets()) return false;
  const auto principal = current_principal();
  return principal && core_->policy->reaches(*principal, target_id);
}

void Session::on_target_ready(const std::string& target_id) {
  if (closed()) return;
  Loop& loop = core_->runtime->impl().any_loop();
  loop.post([&loop, self = shared_from_this(), target_id] { loop.spawn(pursue(self, target_id)); });
}

Task<void> Session::pursue(std::shared_ptr<Session> self, std::string target_id) {
  const GatewayCore& core = *self->core_;
  const auto principal = self->current_principal();
  const auto target = core.repository->target(target_id);
  if (!principal || !target || !target->enabled || !self->waits_for_targets() ||
      !core.policy->reaches(*principal, target_id))
    co_return;
  const auto open = co_await self->connection(*principal, target, steady_clock::now() + kPursueTimeout);
  if (!open) co_return;  // the pool comes back to it
  self->check_lists();
}

void Session::restore(const std::shared_ptr<UpstreamConnection>& connection, const Principal& principal) {
  std::string level;
  std::vector<std::string> wanted;
  {
    const std::lock_guard lock(mutex_);
    level = record_.log_level;
    wanted = record_.subscriptions;
  }
  if (level.empty() && wanted.empty()) return;
  const Target& target = connection->target();
  const auto seen = view(principal);
  std::vector<std::string> uris;
  for (const std::string& uri : wanted) {
    const auto imported = seen->prefixed(target) ? import_uri(uri) : std::nullopt;
    std::string original;
    if (imported && imported->slug == target.slug) {
      original = imported->uri;
    } else if (seen->targets.size() == 1 && !seen->prefixed(target)) {
      original = uri;
    } else if (const auto known = connection->known_listing(ListKind::resources);
               known && known->by_name.contains(uri)) {
      original = uri;
    }
    if (!original.empty() &&
        core_->policy->evaluate(principal, target.id, ResourceType::resource, original).allowed())
      uris.push_back(std::move(original));
  }
  connection->restore(shared_from_this(), std::move(level), std::move(uris));
}

std::shared_ptr<KeptUpstream> Session::kept(const std::string& target_id, const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto it = kept_.find(target_id);
  return it != kept_.end() && it->second->key == key ? it->second : nullptr;
}

bool Session::keep(const std::shared_ptr<UpstreamConnection>& connection) {
  if (!outlives()) return false;
  const bool ours = connection->claim(shared_from_this());
  std::string text;
  if (ours) text = encode_kept(connection->binding().key, *connection->upstream().session());
  const std::lock_guard lock(mutex_);
  if (closed() || leaving_) return false;
  auto& all = record_.upstream_ids;
  const std::string& target_id = connection->target().id;
  std::size_t others = 0;
  for (const auto& [id, one] : all) others += id == target_id ? 0 : one.size();
  if (text.size() > kMaxKept || others + text.size() > kMaxKeptInAll) text.clear();  // made anew then
  const auto it = all.find(target_id);
  if (it == all.end() ? text.empty() : it->second == text) return ours;
  if (text.empty())
    all.erase(it);
  else
    all[target_id] = std::move(text);
  changed_ = true;
  return ours;
}

bool Session::on_connection_left(const std::shared_ptr<UpstreamConnection>& connection) {
  return keep(connection);
}

void Session::end_kept() {
  std::map<std::string, std::shared_ptr<KeptUpstream>> all;
  {
    const std::lock_guard lock(mutex_);
    all.swap(kept_);
  }
  if (all.empty()) return;
  const auto principal = current_principal();
  if (!principal) return;
  for (const auto& [target_id, one] : all) {
    const auto target = core_->repository->target(target_id);
    if (!target || !target->enabled) continue;
    // With other values than it was made with it cannot be ended.
    const auto binding = core_->pool->bind(*principal, target, client_, id());
    if (binding && (*binding)->key == one->key) core_->pool->end_session(*binding, *one);
  }
}

void Session::leave() {
  leaving_ = true;
  for (const auto& connection : connections())
    if (connection->kept_by(this)) core_->pool->leave(connection);
}

}  // namespace mcpgw::detail
