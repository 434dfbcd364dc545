// Records that hold something sealed: target tokens, env rows, sessions.
#include <initializer_list>

#include "base/text.hpp"
#include "json/json.hpp"
#include "storage/model_text.hpp"
#include "storage/record_reader.hpp"
#include "storage/records.hpp"
#include "storage/validate.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kDepth = 16;

// Each part with its length: no two lists of parts give the same text.
std::string join_identity(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (const auto part : parts) {
    out += std::to_string(part.size());
    out += ':';
    out += part;
  }
  return out;
}

std::string merge(Json members, std::string_view previous) {
  members["schema"] = kRecordSchema;
  if (auto old = parse_json(previous, kDepth); old && old->is_object()) {
    old->update(members);
    return dump_json(*old);
  }
  return dump_json(members);
}

bool readable_schema(std::string_view text) {
  const auto schema = record_schema(text);
  return schema && *schema <= kRecordSchema;
}

}  // namespace

std::string credential_prefix(std::string_view target_id) { return std::string(target_id) + "/"; }

std::string credential_prefix(std::string_view target_id, const ScopeRef& scope) {
  std::string out = credential_prefix(target_id);
  out += to_text(scope.scope);
  out += '/';
  out += base64url(scope.value);
  out += '/';
  return out;
}

std::string encode_credential_key(const CredentialKey& key) {
  std::string out = credential_prefix(key.target_id, key.scope);
  if (!key.env_key.empty()) out += key.env_key + "/";
  return out + key.id;
}

std::optional<CredentialKey> decode_credential_key(std::string_view collection, std::string_view text) {
  const auto parts = split(text, '/');
  const bool env = collection == collection::kEnv;
  if (parts.size() != (env ? 5u : 4u)) return std::nullopt;
  CredentialKey key;
  key.target_id = parts[0];
  const auto scope = parse_text<Scope>(parts[1]);
  auto value = from_base64url(parts[2]);
  if (env) key.env_key = parts[3];
  key.id = parts.back();
  if (!scope || !value || !is_uuid(key.target_id) || !is_uuid(key.id)) return std::nullopt;
  if (env && !is_env_key(key.env_key)) return std::nullopt;
  key.scope.scope = *scope;
  key.scope.value = std::move(*value);
  return key;
}

std::string encode_credential(const StoredCredential& row, std::string_view previous) {
  return merge(Json{{"description", row.description},
                    {"sealed", row.sealed},
                    {"created_at", format_time(row.created_at)},
                    {"updated_at", format_time(row.updated_at)}},
               previous);
}

std::optional<StoredCredential> decode_credential(std::string_view collection, std::string_view key,
                                                  std::string_view text) {
  auto identity = decode_credential_key(collection, key);
  if (!identity) return std::nullopt;
  StoredCredential row;
  row.key = std::move(*identity);
  const auto json = parse_json(text, kDepth);
  if (!json || !readable_schema(text)) return row;
  RecordReader reader(*json);
  row.description = reader.text("description");
  row.created_at = reader.time("created_at");
  row.updated_at = reader.time("updated_at");
  row.sealed = reader.text("sealed");
  if (!reader.ok()) row.sealed.clear();
  return row;
}

std::string credential_identity(std::string_view collection, const CredentialKey& key) {
  return join_identity({collection, key.target_id, to_text(key.scope.scope), key.scope.value, key.env_key});
}

std::string client_key_identity(std::string_view target_id) {
  return join_identity({"target_tls_client_key", target_id});
}

std::string session_identity(std::string_view session_id) {
  return join_identity({"session_upstream_ids", session_id});
}

std::string encode_session(const SessionRecord& session, const Sealer& sealer, std::string_view previous) {
  std::string upstream_ids;
  if (!session.upstream_ids.empty())
    upstream_ids = sealer.seal(dump_json(Json(session.upstream_ids)), session_identity(session.id));
  return merge(Json{{"user_id", session.user_id},
                    {"token_id", session.token_id},
                    {"protocol_version", session.protocol_version},
                    {"initialize_params", session.initialize_params},
                    {"log_level", session.log_level},
                    {"subscriptions", session.subscriptions},
                    {"upstream_ids_sealed", upstream_ids},
                    {"owner", session.owner},
                    {"created_at", format_time(session.created_at)},
                    {"last_active_at", format_time(session.last_active_at)}},
               previous);
}

std::optional<SessionRecord> decode_session(std::string_view key, std::string_view text,
                                            const Sealer& sealer) {
  const auto json = parse_json(text, kDepth);
  if (!json || !readable_schema(text)) return std::nullopt;
  RecordReader reader(*json);
  SessionRecord session;
  session.id = std::string(key);
  session.user_id = reader.text("user_id");
  session.token_id = reader.text("token_id");
  session.protocol_version = reader.text("protocol_version");
  session.initialize_params = reader.text("initialize_params");
  session.log_level = reader.text("log_level");
  session.subscriptions = reader.texts("subscriptions");
  session.created_at = reader.time("created_at");
  session.last_active_at = reader.time("last_active_at");
  session.owner = reader.optional_text("owner");  // none in records of older versions
  const std::string sealed = reader.text("upstream_ids_sealed");
  if (!reader.ok()) return std::nullopt;
  if (sealed.empty()) return session;
  const auto opened = sealer.open(sealed, session_identity(session.id));
  const auto ids = opened ? parse_json(*opened, 2) : std::nullopt;
  if (ids && ids->is_object())
    for (const auto& [name, value] : ids->items())
      if (value.is_string()) session.upstream_ids[name] = value.get_ref<const std::string&>();
  return session;
}

}  // namespace mcpgw::detail
