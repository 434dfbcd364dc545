// Repository: session records. Sessions are not kept in memory here: who has one open does.
#include <algorithm>

#include "json/json.hpp"
#include "storage/record_reader.hpp"
#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr std::size_t kMaxSessionBytes = 768 * 1024;  // below what a record may hold
constexpr std::size_t kPurgePage = 500;

Status validate_session(const SessionRecord& session) {
  const bool id_form =
      !session.id.empty() && session.id.size() <= 256 &&
      std::all_of(session.id.begin(), session.id.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (!id_form)
    return Error(ErrorCode::invalid_argument, "invalid_request",
                 "A session id is 1 to 256 printable characters", "id");
  if (!is_uuid(session.user_id))
    return Error(ErrorCode::invalid_argument, "invalid_request", "A session belongs to a user", "user_id");
  return {};
}

std::string session_key(std::string_view user_id, std::string_view session_id) {
  return std::string(user_id) + "/" + std::string(session_id);
}

}  // namespace

Status Repository::Impl::write_session(const SessionRecord& session, std::optional<std::uint64_t> expected,
                                       std::string_view previous, Operations operations) {
  if (auto status = validate_session(session); !status) return status;
  if (!session.upstream_ids.empty()) {
    const auto fence = key_fence();
    if (!fence) return fence.error();
    operations.push_back(*fence);
  }
  std::string text = encode_session(session, *sealer, previous);
  if (text.size() > kMaxSessionBytes)
    return Error(ErrorCode::resource_exhausted, "session_too_large",
                 "The session's state is too large to be stored");
  operations.push_back(put(collection::kSessions, session.id, std::move(text), expected));
  operations.push_back(
      put(collection::kUserSessions, session_key(session.user_id, session.id), encode_index(session.id)));
  const auto versions = commit(operations);
  if (!versions) return versions.error();
  return {};
}

Status Repository::save_session(const SessionRecord& session) {
  return impl_->retry<void>([&] { return impl_->write_session(session, std::nullopt); });
}

Status Repository::update_session(const SessionRecord& session) {
  return impl_->retry<void>([&]() -> Status {
    const auto record = impl_->get(collection::kSessions, session.id);
    if (!record) return record.error();
    if (!*record) return not_found("session", "Session not found");
    if (!session.owner.empty()) {
      const auto stored = decode_session(session.id, (*record)->value, *impl_->sealer);
      if (stored && !stored->owner.empty() && stored->owner != session.owner)
        return Error(ErrorCode::conflict, "session_moved", "Another replica has taken the session");
    }
    return impl_->write_session(session, (*record)->version, (*record)->value);
  });
}

Result<std::optional<SessionRecord>> Repository::take_session(std::string_view id, std::string_view from,
                                                              std::string_view to) {
  using Out = std::optional<SessionRecord>;
  return impl_->retry<Out>([&]() -> Result<Out> {
    const auto record = impl_->get(collection::kSessions, id);
    if (!record) return record.error();
    if (!*record) return Out();
    auto session = decode_session(id, (*record)->value, *impl_->sealer);
    if (!session || session->owner != from) return session;
    session->owner = std::string(to);
    Impl::Operations operations;
    // One that has said goodbye need not be told.
    const auto previous =
        from.empty() ? Result<Impl::MaybeRecord>(std::nullopt) : impl_->get(collection::kReplicas, from);
    if (!previous) return previous.error();
    if (*previous)
      operations.push_back(
          Impl::put(collection::kReplicaMoves, std::string(from) + "/" + std::string(id), encode_index(to)));
    if (auto status =
            impl_->write_session(*session, (*record)->version, (*record)->value, std::move(operations));
        !status)
      return status.error();
    return session;
  });
}

Result<std::vector<std::string>> Repository::taken_sessions(std::string_view replica_id) {
  const std::string prefix = std::string(replica_id) + "/";
  const auto moves = impl_->list(collection::kReplicaMoves, prefix);
  if (!moves) return moves.error();
  std::vector<std::string> ids;
  Impl::Operations operations;
  for (const Record& move : *moves) {
    ids.push_back(move.key.substr(prefix.size()));
    operations.push_back(Impl::erase(collection::kReplicaMoves, move.key));
  }
  if (operations.empty()) return ids;
  const auto versions = impl_->commit(operations);
  if (!versions) return versions.error();
  return ids;
}

Result<std::optional<SessionRecord>> Repository::load_session(std::string_view id) {
  const auto record = impl_->get(collection::kSessions, id);
  if (!record) return record.error();
  if (!*record) return std::optional<SessionRecord>();
  auto session = decode_session(id, (*record)->value, *impl_->sealer);
  if (!session) impl_->problem("unreadable record in sessions");
  return session;
}

Status Repository::delete_session(std::string_view id) {
  return impl_->retry<void>([&]() -> Status {
    const auto record = impl_->get(collection::kSessions, id);
    if (!record) return record.error();
    if (!*record) return {};
    Impl::Operations operations;
    operations.push_back(Impl::erase(collection::kSessions, id, (*record)->version));
    if (const auto session = decode_session(id, (*record)->value, *impl_->sealer))
      operations.push_back(Impl::erase(collection::kUserSessions, session_key(session->user_id, id)));
    const auto versions = impl_->commit(operations);
    if (!versions) return versions.error();
    return {};
  });
}

Result<std::vector<std::string>> Repository::Impl::erase_sessions(Operations& operations,
                                                                  const std::string& user_id) const {
  const auto index = list(collection::kUserSessions, user_id + "/");
  if (!index) return index.error();
  std::vector<std::string> ids;
  for (const Record& entry : *index) {
    ids.push_back(entry.key.substr(user_id.size() + 1));
    operations.push_back(erase(collection::kSessions, ids.back()));
    operations.push_back(erase(collection::kUserSessions, entry.key));
  }
  return ids;
}

Result<std::vector<std::string>> Repository::delete_sessions_of(std::string_view user_id) {
  if (!is_uuid(user_id)) return std::vector<std::string>();
  Impl::Operations operations;
  auto ids = impl_->erase_sessions(operations, std::string(user_id));
  if (!ids || ids->empty()) return ids;
  const auto versions = impl_->commit(operations);
  if (!versions) return versions.error();
  return ids;
}

Result<std::vector<std::string>> Repository::session_ids_of(std::string_view user_id) {
  std::vector<std::string> ids;
  if (!is_uuid(user_id)) return ids;
  const std::string prefix = std::string(user_id) + "/";
  const auto index = impl_->list(collection::kUserSessions, prefix);
  if (!index) return index.error();
  for (const Record& entry : *index) ids.push_back(entry.key.substr(prefix.size()));
  return ids;
}

Result<std::vector<SessionRecord>> Repository::sessions_of(std::string_view user_id) {
  std::vector<SessionRecord> sessions;
  const auto ids = session_ids_of(user_id);
  if (!ids) return ids.error();
  for (const std::string& id : *ids) {
    auto session = load_session(id);
    if (!session) return session.error();
    if (*session && (*session)->user_id == user_id) sessions.push_back(std::move(**session));
  }
  return sessions;
}

Result<std::vector<std::string>> Repository::purge_sessions(Time cutoff) {
  std::vector<std::string> purged;
  std::string after;
  for (;;) {
    const auto page = impl_->storage->list(collection::kSessions, {}, after, kPurgePage);
    if (!page) return page.error();
    for (const Record& record : *page) {
      const auto session = decode_session(record.key, record.value, *impl_->sealer);
      if (session && session->last_active_at >= cutoff) continue;
      Impl::Operations operations;
      operations.push_back(Impl::erase(collection::kSessions, record.key, record.version));
      if (session)
        operations.push_back(
            Impl::erase(collection::kUserSessions, session_key(session->user_id, record.key)));
      const auto versions = impl_->commit(operations);
      if (!versions && is_version_conflict(versions.error())) continue;  // used in the meantime
      if (!versions) return versions.error();
      purged.push_back(record.key);
    }
    if (page->size() < kPurgePage) return purged;
    after = page->back().key;
  }
}

}  // namespace mcpgw
