// Repository: session records, and sealing anew. Sessions are not kept in memory here: who has one open does.
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

Status Repository::Impl::write_session(const SessionRecord& session, std::optional<std::uint64_t> expected) {
  if (auto status = validate_session(session); !status) return status;
  std::string text = encode_session(session, *sealer);
  if (text.size() > kMaxSessionBytes)
    return Error(ErrorCode::resource_exhausted, "session_too_large",
                 "The session's state is too large to be stored");
  const auto versions = commit(
      {put(collection::kSessions, session.id, std::move(text), expected),
       put(collection::kUserSessions, session_key(session.user_id, session.id), encode_index(session.id))});
  if (!versions) return versions.error();
  return {};
}

Status Repository::save_session(const SessionRecord& session) {
  return impl_->write_session(session, std::nullopt);
}

Status Repository::update_session(const SessionRecord& session) {
  return impl_->retry<void>([&]() -> Status {
    const auto record = impl_->get(collection::kSessions, session.id);
    if (!record) return record.error();
    if (!*record) return not_found("session", "Session not found");
    return impl_->write_session(session, (*record)->version);
  });
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

Result<std::vector<SessionRecord>> Repository::sessions_of(std::string_view user_id) {
  std::vector<SessionRecord> sessions;
  if (!is_uuid(user_id)) return sessions;
  const std::string prefix = std::string(user_id) + "/";
  const auto index = impl_->list(collection::kUserSessions, prefix);
  if (!index) return index.error();
  for (const Record& entry : *index) {
    auto session = load_session(std::string_view(entry.key).substr(prefix.size()));
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

// --- keys ------------------------------------------------------------------------------------------

namespace {

// Where a record holds something sealed: {"sealed"} or {"tls":{"client_key_sealed"}} or
// {"upstream_ids_sealed"}.
struct SealedMember {
  Json document;
  Json* text = nullptr;
  std::string identity;
};

std::optional<SealedMember> sealed_member(const Record& record) {
  auto document = parse_json(record.value, 16);
  if (!document || !document->is_object()) return std::nullopt;
  SealedMember out;
  out.document = std::move(*document);
  const auto member = [](Json& object, const char* name) -> Json* {
    if (!object.is_object()) return nullptr;
    const auto it = object.find(name);
    return it == object.end() ? nullptr : &*it;
  };
  if (record.collection == collection::kTargets) {
    Json* tls = member(out.document, "tls");
    out.text = tls != nullptr ? member(*tls, "client_key_sealed") : nullptr;
    out.identity = client_key_identity(record.key);
  } else if (record.collection == collection::kSessions) {
    out.text = member(out.document, "upstream_ids_sealed");
    out.identity = session_identity(record.key);
  } else {
    const auto key = decode_credential_key(record.collection, record.key);
    if (!key) return std::nullopt;
    out.text = member(out.document, "sealed");
    out.identity = credential_identity(record.collection, *key);
  }
  if (out.text == nullptr || !out.text->is_string() || out.text->get_ref<const std::string&>().empty())
    return std::nullopt;
  return out;
}

}  // namespace

Result<ResealProgress> Repository::reseal(const std::function<void(const ResealProgress&)>& progress) {
  ResealProgress done;
  for (const auto name :
       {collection::kTargetTokens, collection::kEnv, collection::kTargets, collection::kSessions}) {
    const auto records = impl_->list(name);
    if (!records) return records.error();
    for (const Record& listed : *records) {
      bool sealed_value = false;
      bool failed = false;
      bool resealed = false;
      auto status = impl_->retry<void>([&]() -> Status {
        sealed_value = failed = resealed = false;
        const auto record = impl_->get(name, listed.key);
        if (!record) return record.error();
        auto sealed = *record ? sealed_member(**record) : std::nullopt;
        if (!sealed) return {};
        sealed_value = true;
        const auto& text = sealed->text->get_ref<const std::string&>();
        const auto plain = impl_->sealer->open(text, sealed->identity);
        failed = !plain;
        if (failed || impl_->sealer->is_current(text)) return {};
        *sealed->text = impl_->sealer->seal(*plain, sealed->identity);
        const auto versions =
            impl_->commit({Impl::put(name, listed.key, dump_json(sealed->document), (*record)->version)});
        if (!versions) return versions.error();
        resealed = true;
        return {};
      });
      if (!status) return status.error();
      if (!sealed_value) continue;
      ++done.checked;
      done.failed += failed ? 1 : 0;
      done.resealed += resealed ? 1 : 0;
      if (progress) progress(done);
    }
  }
  return done;
}

}  // namespace mcpgw
