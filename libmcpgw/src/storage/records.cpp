// Records of users, tokens, targets, policies and indexes. Sealed ones: records_sealed.cpp.
#include "storage/records.hpp"

#include "base/text.hpp"
#include "json/json.hpp"
#include "storage/model_text.hpp"
#include "storage/record_reader.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kDepth = 16;

Json optional_time(const std::optional<Time>& time) {
  return time ? Json(format_time(*time)) : Json(nullptr);
}
template <class Enum>
std::string word(Enum value) {
  return std::string(to_text(value));
}

// A row of a newer program may mean something else by the same members: it is not read.
std::optional<Json> parse_record(std::string_view text) {
  auto json = parse_json(text, kDepth);
  if (!json || !json->is_object()) return std::nullopt;
  const auto schema = json->find("schema");
  if (schema == json->end() || !schema->is_number_integer() || *schema > kRecordSchema || *schema < 1)
    return std::nullopt;
  return json;
}

std::string finish(Json members, std::string_view previous) {
  members["schema"] = kRecordSchema;
  if (!previous.empty()) {
    if (auto old = parse_record(previous)) {
      old->update(members);
      return dump_json(*old);
    }
  }
  return dump_json(members);
}

}  // namespace

std::optional<std::int64_t> record_schema(std::string_view text) {
  const auto json = parse_json(text, kDepth);
  if (!json) return std::nullopt;
  RecordReader reader(*json);
  const std::int64_t schema = reader.integer("schema", 1);
  return reader.ok() ? std::optional(schema) : std::nullopt;
}

std::string encode_user(const User& user, std::string_view previous) {
  return finish(Json{{"email", user.email},
                     {"password_hash", user.password_hash},
                     {"role", user.role},
                     {"groups", user.groups},
                     {"enabled", user.enabled},
                     {"created_at", format_time(user.created_at)},
                     {"updated_at", format_time(user.updated_at)},
                     {"last_login_at", optional_time(user.last_login_at)}},
                previous);
}

std::optional<User> decode_user(std::string_view key, std::string_view text, std::uint64_t version) {
  const auto json = parse_record(text);
  if (!json || !is_uuid(key)) return std::nullopt;
  RecordReader reader(*json);
  User user;
  user.id = std::string(key);
  user.email = reader.text("email");
  user.password_hash = reader.text("password_hash");
  user.role = reader.text("role");
  user.groups = reader.texts("groups");
  user.enabled = reader.boolean("enabled");
  user.created_at = reader.time("created_at");
  user.updated_at = reader.time("updated_at");
  user.last_login_at = reader.optional_time("last_login_at");
  user.version = version;
  return reader.ok() ? std::optional(std::move(user)) : std::nullopt;
}

std::string encode_token(const ApiToken& token, std::string_view previous) {
  return finish(Json{{"jti", token.jti},
                     {"name", token.name},
                     {"kind", word(token.kind)},
                     {"scopes", token.scopes},
                     {"expires_at", optional_time(token.expires_at)},
                     {"last_used_at", optional_time(token.last_used_at)},
                     {"created_at", format_time(token.created_at)},
                     {"revoked_at", optional_time(token.revoked_at)}},
                previous);
}

std::optional<ApiToken> decode_token(std::string_view key, std::string_view text) {
  const auto json = parse_record(text);
  const auto slash = key.find('/');
  if (!json || slash == std::string_view::npos) return std::nullopt;
  RecordReader reader(*json);
  ApiToken token;
  token.user_id = std::string(key.substr(0, slash));
  token.id = std::string(key.substr(slash + 1));
  if (!is_uuid(token.user_id) || !is_uuid(token.id)) return std::nullopt;
  token.jti = reader.text("jti");
  token.name = reader.text("name");
  token.kind = reader.word<TokenKind>("kind");
  token.scopes = reader.texts("scopes");
  token.expires_at = reader.optional_time("expires_at");
  token.last_used_at = reader.optional_time("last_used_at");
  token.created_at = reader.time("created_at");
  token.revoked_at = reader.optional_time("revoked_at");
  return reader.ok() && !token.jti.empty() ? std::optional(std::move(token)) : std::nullopt;
}

std::string encode_replica(const ReplicaRecord& replica) {
  return finish(Json{{"address", replica.address},
                     {"beat", replica.beat},
                     {"keys", replica.keys},
                     {"started_at", format_time(replica.started_at)}},
                {});
}

std::optional<ReplicaRecord> decode_replica(std::string_view key, std::string_view text) {
  const auto json = parse_record(text);
  if (!json) return std::nullopt;
  RecordReader reader(*json);
  ReplicaRecord out;
  out.id = std::string(key);
  out.address = reader.text("address");
  out.beat = reader.integer("beat", 0);
  if (reader.find("keys") != nullptr) out.keys = reader.texts("keys");  // older versions do not say
  out.started_at = reader.time("started_at");
  return reader.ok() ? std::optional(std::move(out)) : std::nullopt;
}

std::string encode_instance(const InstanceRecord& instance) {
  return finish(Json{{"target_id", instance.target_id},
                     {"space", instance.space},
                     {"owner_pid", instance.owner_pid},
                     {"owner_started", static_cast<std::int64_t>(instance.owner_started)},
                     {"pid", instance.pid},
                     {"pid_started", static_cast<std::int64_t>(instance.pid_started)},
                     {"session", instance.session},
                     {"created_at", format_time(instance.created_at)}},
                {});
}

std::optional<InstanceRecord> decode_instance(std::string_view key, std::string_view text) {
  const auto json = parse_record(text);
  if (!json || !is_uuid(key)) return std::nullopt;
  constexpr std::int64_t kMaxPid = 1 << 22;
  RecordReader reader(*json);
  InstanceRecord out;
  out.id = std::string(key);
  out.target_id = reader.text("target_id");
  out.space = reader.text("space");
  out.owner_pid = reader.integer("owner_pid", 1, kMaxPid);
  out.owner_started = static_cast<std::uint64_t>(reader.integer("owner_started", 0));
  out.pid = reader.integer("pid", 2, kMaxPid);
  out.pid_started = static_cast<std::uint64_t>(reader.integer("pid_started", 0));
  out.session = reader.integer("session", 0, kMaxPid);
  out.created_at = reader.time("created_at");
  return reader.ok() ? std::optional(std::move(out)) : std::nullopt;
}

std::string encode_target(const Target& target, std::string_view sealed_client_key,
                          std::string_view previous) {
  Json tls = nullptr;
  if (target.tls)
    tls = Json{{"ca", target.tls->ca},
               {"verify", target.tls->verify},
               {"client_cert", target.tls->client_cert},
               {"client_key_sealed", sealed_client_key}};
  return finish(
      Json{{"name", target.name},
           {"slug", target.slug},
           {"transport_type", word(target.transport_type)},
           {"url", target.url},
           {"command", target.command},
           {"args", target.args},
           {"image", target.image},
           {"port", target.port},
           {"health_path", target.health_path},
           {"statefulness", word(target.statefulness)},
           {"isolation_boundary", word(target.isolation_boundary)},
           {"auth_type", word(target.auth_type)},
           {"auth_header_name", target.auth_header_name},
           {"enabled", target.enabled},
           {"prefix", word(target.prefix)},
           {"timeout_ms", target.timeout_ms},
           {"max_concurrency", target.max_concurrency ? Json(*target.max_concurrency) : Json(nullptr)},
           {"protocol_era", word(target.protocol_era)},
           {"allow_private_network", target.allow_private_network},
           {"forward_headers", target.forward_headers},
           {"user_env_keys", target.user_env_keys},
           {"tls", std::move(tls)},
           {"created_at", format_time(target.created_at)},
           {"updated_at", format_time(target.updated_at)}},
      previous);
}

std::optional<DecodedTarget> decode_target(std::string_view key, std::string_view text,
                                           std::uint64_t version) {
  const auto json = parse_record(text);
  if (!json || !is_uuid(key)) return std::nullopt;
  RecordReader reader(*json);
  DecodedTarget out;
  Target& target = out.target;
  target.id = std::string(key);
  target.name = reader.text("name");
  target.slug = reader.text("slug");
  target.transport_type = reader.word<TransportType>("transport_type");
  target.url = reader.text("url");
  target.command = reader.text("command");
  target.args = reader.texts("args");
  target.image = reader.text("image");
  target.port = static_cast<int>(reader.integer("port", 1, 65535));
  target.health_path = reader.text("health_path");
  target.statefulness = reader.word_or("statefulness", Statefulness::stateful);
  target.isolation_boundary = reader.word_or("isolation_boundary", Isolation::per_user);
  target.auth_type = reader.word<AuthType>("auth_type");
  target.auth_header_name = reader.text("auth_header_name");
  target.enabled = reader.boolean("enabled");
  target.prefix = reader.word<PrefixMode>("prefix");
  target.timeout_ms = reader.integer("timeout_ms", 1);
  if (reader.find("max_concurrency") != nullptr)
    target.max_concurrency = static_cast<int>(reader.integer("max_concurrency", 1, 10000));
  target.protocol_era = reader.word<EraSetting>("protocol_era");
  target.allow_private_network = reader.boolean("allow_private_network");
  target.forward_headers = reader.texts("forward_headers");
  target.user_env_keys = reader.texts("user_env_keys");
  if (const Json* tls = reader.find("tls"); tls != nullptr) {
    RecordReader inner(*tls);
    target.tls.emplace();
    target.tls->ca = inner.text("ca");
    target.tls->verify = inner.boolean("verify");
    target.tls->client_cert = inner.text("client_cert");
    out.sealed_client_key = inner.text("client_key_sealed");
    if (!inner.ok()) return std::nullopt;
  }
  target.created_at = reader.time("created_at");
  target.updated_at = reader.time("updated_at");
  target.version = version;
  return reader.ok() ? std::optional(std::move(out)) : std::nullopt;
}

std::string encode_policy(const Policy& policy, std::string_view previous) {
  Json subjects = Json::array();
  for (const Subject& subject : policy.subjects)
    subjects.push_back(Json{{"id", subject.id},
                            {"type", word(subject.type)},
                            {"value", subject.value},
                            {"created_at", format_time(subject.created_at)}});
  return finish(Json{{"name", policy.name},
                     {"description", policy.description},
                     {"target_id", policy.target_id},
                     {"resource_type", word(policy.resource_type)},
                     {"resource_pattern", policy.resource_pattern},
                     {"effect", word(policy.effect)},
                     {"priority", policy.priority},
                     {"enabled", policy.enabled},
                     {"subjects", std::move(subjects)},
                     {"created_at", format_time(policy.created_at)},
                     {"updated_at", format_time(policy.updated_at)}},
                previous);
}

namespace {

std::optional<std::vector<Subject>> read_subjects(const Json& json, std::string_view policy_id) {
  RecordReader outer(json);
  const Json* list = outer.find("subjects");
  if (list == nullptr || !list->is_array()) return std::nullopt;
  std::vector<Subject> subjects;
  for (const Json& element : *list) {
    RecordReader reader(element);
    Subject subject;
    subject.id = reader.text("id");
    subject.policy_id = std::string(policy_id);
    subject.type = reader.word<SubjectType>("type");
    subject.value = reader.text("value");
    subject.created_at = reader.time("created_at");
    if (!reader.ok() || !is_uuid(subject.id)) return std::nullopt;
    subjects.push_back(std::move(subject));
  }
  return subjects;
}

// What is known for certain narrows what a damaged policy concerns; everything else is taken at its widest.
Policy damaged_policy(std::string_view key, const Json& json, std::uint64_t version) {
  Policy policy;
  policy.id = std::string(key);
  policy.version = version;
  policy.damaged = true;
  policy.effect = Effect::deny;
  policy.priority = 1000000;
  RecordReader name(json);
  policy.name = name.text("name");
  if (!name.ok()) policy.name = "(unreadable policy)";
  RecordReader target(json);
  if (std::string id = target.text("target_id"); target.ok() && is_uuid(id)) policy.target_id = std::move(id);
  RecordReader type(json);
  if (const auto value = type.word<ResourceType>("resource_type"); type.ok()) policy.resource_type = value;
  RecordReader enabled(json);
  if (const bool value = enabled.boolean("enabled"); enabled.ok()) policy.enabled = value;
  RecordReader priority(json);
  if (const auto value = priority.integer("priority", -1000000, 1000000); priority.ok())
    policy.priority = static_cast<int>(value);
  RecordReader created(json);
  if (const Time value = created.time("created_at"); created.ok()) policy.created_at = value;
  RecordReader updated(json);
  if (const Time value = updated.time("updated_at"); updated.ok()) policy.updated_at = value;
  if (auto subjects = read_subjects(json, key)) {
    policy.subjects = std::move(*subjects);
  } else {
    Subject everyone;
    everyone.id = policy.id;
    everyone.policy_id = policy.id;
    policy.subjects.push_back(std::move(everyone));
  }
  return policy;
}

}  // namespace

Policy decode_policy(std::string_view key, std::string_view text, std::uint64_t version) {
  const auto json = parse_record(text);
  if (!json) return damaged_policy(key, Json(nullptr), version);
  RecordReader reader(*json);
  Policy policy;
  policy.id = std::string(key);
  policy.name = reader.text("name");
  policy.description = reader.text("description");
  policy.target_id = reader.text("target_id");
  policy.resource_type = reader.word<ResourceType>("resource_type");
  policy.resource_pattern = reader.text("resource_pattern");
  policy.effect = reader.word<Effect>("effect");
  policy.priority = static_cast<int>(reader.integer("priority", -1000000, 1000000));
  policy.enabled = reader.boolean("enabled");
  policy.created_at = reader.time("created_at");
  policy.updated_at = reader.time("updated_at");
  policy.version = version;
  auto subjects = read_subjects(*json, key);
  const bool target_form = policy.target_id.empty() || is_uuid(policy.target_id);
  if (!reader.ok() || !subjects || !target_form) return damaged_policy(key, *json, version);
  policy.subjects = std::move(*subjects);
  return policy;
}

std::string encode_index(std::string_view id) { return finish(Json{{"id", id}}, {}); }

std::optional<std::string> decode_index(std::string_view text) {
  const auto json = parse_record(text);
  if (!json) return std::nullopt;
  RecordReader reader(*json);
  std::string id = reader.text("id");
  return reader.ok() ? std::optional(std::move(id)) : std::nullopt;
}

std::string encode_ids(const std::vector<std::string>& ids) { return finish(Json{{"ids", ids}}, {}); }

std::optional<std::vector<std::string>> decode_ids(std::string_view text) {
  const auto json = parse_record(text);
  if (!json) return std::nullopt;
  RecordReader reader(*json);
  auto ids = reader.texts("ids");
  return reader.ok() ? std::optional(std::move(ids)) : std::nullopt;
}

}  // namespace mcpgw::detail
