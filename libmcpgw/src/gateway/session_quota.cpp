// SessionRegistry: how many sessions one user may have at all replicas together. Storage knows of all of
// them, so a new one is written there first and counted then: of two that are made at once each sees the
// other. The one that was used least recently gives way, wherever it is open.
#include <algorithm>

#include "gateway/replicas.hpp"
#include "gateway/session.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

/// How often one that would give way may be in use after all.
constexpr int kRounds = 16;
/// So many of one user may be made at once; what is beyond the limit by more was there before.
constexpr std::size_t kAtOnce = 8;
/// Sessions of replicas that are gone, looked at in one round.
constexpr std::size_t kMaxOrphans = 8;
/// Who listens is busier than anybody who does not.
constexpr std::int64_t kSilent = std::int64_t{1} << 40;

/// Who would give way, and how much rather than others.
struct Candidate {
  std::int64_t idleness = 0;
  std::string replica, address;  ///< empty: here, or of nobody
  std::string orphan;            ///< a session that no replica has open
};

std::int64_t idleness(const Session& session) {
  const std::int64_t idle = 1 + duration_cast<milliseconds>(session.idle()).count();
  return session.has_stream() ? std::min(idle, kSilent - 1) : kSilent + idle;
}

std::string maker_of(const std::string& session_id) {
  const auto dot = session_id.rfind('.');
  return dot == std::string::npos ? std::string() : session_id.substr(dot + 1);
}

/// Of the sessions whose makers are gone and that nobody has taken over, the one that was used least
/// recently.
Result<Candidate> find_orphan(const GatewayCore& core, const std::vector<std::string>& ids,
                              const std::vector<std::string>& living) {
  const auto lives = [&](const std::string& id) {
    return std::find(living.begin(), living.end(), id) != living.end();
  };
  Candidate out;
  std::size_t looked = 0;
  for (const std::string& id : ids) {
    if (lives(maker_of(id))) continue;
    if (looked++ == kMaxOrphans) break;
    const auto record = core.repository->load_session(id);
    if (!record) return record.error();
    if (!*record || lives((*record)->owner)) continue;
    const auto idle = duration_cast<milliseconds>(core.clock->now() - (*record)->last_active_at).count();
    const std::int64_t rank = kSilent + std::max<std::int64_t>(idle, 1);
    if (rank > out.idleness) out = {rank, {}, {}, id};
  }
  return out;
}

}  // namespace

std::shared_ptr<Session> SessionRegistry::idlest_of(const std::string& user_id) const {
  std::shared_ptr<Session> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, session] : sessions_.of(user_id))
    if (session->running() == 0 && !session->over_sse() && (!out || idleness(*session) > idleness(*out)))
      out = session;
  return out;
}

std::int64_t SessionRegistry::idlest(const std::string& user_id) const {
  const auto session = idlest_of(user_id);
  return session ? idleness(*session) : 0;
}

bool SessionRegistry::end_idlest(const std::string& user_id) {
  const auto session = idlest_of(user_id);
  if (!session) return false;
  end(session, "expired");
  return true;
}

std::size_t SessionRegistry::not_ended(const std::vector<std::string>& ids) const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(
      std::count_if(ids.begin(), ids.end(), [&](const std::string& id) { return !ended_.contains(id); }));
}

Task<Status> SessionRegistry::room_at_all_replicas(std::shared_ptr<GatewayCore> core, std::string user_id) {
  const std::size_t limit = core->options.session.max_per_user;
  const Error full(ErrorCode::resource_exhausted, "rate_limited", "Too many sessions are open and busy");
  const Error overloaded(ErrorCode::unavailable, "overloaded", "The gateway is overloaded");
  WorkerPool& workers = core->runtime->impl().workers();
  const Replicas& replicas = *core->replicas;
  for (int round = 0; round < kRounds; ++round) {
    auto list = [core, user_id] { return core->repository->session_ids_of(user_id); };
    const auto ids = co_await run_blocking(workers, list);
    if (!ids) co_return overloaded;
    if (!*ids) co_return ids->error();
    const std::size_t count = not_ended(**ids);
    if (count <= limit) co_return Status();

    std::vector<std::string> living{replicas.id()};
    for (const auto& [other, address] : replicas.others()) living.push_back(other);
    auto look = [core, all = **ids, living] { return find_orphan(*core, all, living); };
    const auto orphan = co_await run_blocking(workers, look);
    if (!orphan) co_return overloaded;
    if (!*orphan) co_return orphan->error();
    Candidate best = **orphan;
    if (const std::int64_t own = idlest(user_id); own > best.idleness) best = {own, {}, {}, {}};
    const auto answers = co_await core->replicas->ask_all(std::string(question::kIdleSession), user_id);
    for (const auto& one : answers)
      if (one.value > best.idleness) best = {one.value, one.id, one.address, {}};
    if (best.idleness == 0) co_return full;
    bool ended = false;
    if (!best.orphan.empty()) {
      auto remove = [core, gone = best.orphan] { return core->repository->delete_session(gone); };
      const auto removed = co_await run_blocking(workers, remove);
      if (!removed) co_return overloaded;
      if (!*removed) co_return removed->error();
    } else if (best.replica.empty()) {
      ended = end_idlest(user_id);
    } else {
      const auto answer = co_await core->replicas->ask(best.replica, best.address,
                                                       std::string(question::kEndIdleSession), user_id);
      ended = answer == 1;
    }
    // Storage is told of it a moment later, so it is not counted again: others who make one now end one, too.
    if (ended && count <= limit + kAtOnce) co_return Status();
  }
  co_return full;
}

}  // namespace mcpgw::detail
