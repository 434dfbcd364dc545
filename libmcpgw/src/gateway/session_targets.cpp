// A session's targets while its client does nothing: those that fail are come back to, and a new connection
// is given what the client asked for on the one before.
#include "gateway/session.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// How long a client that holds no stream is thought to be there.
constexpr auto kRecently = std::chrono::minutes(5);
constexpr auto kPursueTimeout = std::chrono::seconds(60);

}  // namespace

bool Session::waits_for_targets() const {
  return !closed() && (has_stream() || idle() < kRecently);
}

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

}  // namespace mcpgw::detail
