#include "gateway/replica_wire.hpp"

#include "base/text.hpp"
#include "json/json.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::string_view kRequestIdentity = "replica/request";
constexpr std::string_view kAnswerIdentity = "replica/answer/";
constexpr std::size_t kKeyBytes = 32;

/// Texts of HTTP may hold any bytes, JSON may not.
Json encode(const HttpHeaders& headers) {
  Json out = Json::array();
  for (const auto& [name, value] : headers) out.push_back(Json::array({base64url(name), base64url(value)}));
  return out;
}

std::optional<std::string> text_of(const Json& json, const char* name) {
  const auto it = json.find(name);
  if (it == json.end() || !it->is_string()) return std::nullopt;
  return it->get<std::string>();
}

std::optional<std::string> bytes_of(const Json& json) {
  return json.is_string() ? from_base64url(json.get_ref<const std::string&>()) : std::nullopt;
}

std::optional<HttpHeaders> decode(const Json& json) {
  HttpHeaders out;
  if (!json.is_array()) return std::nullopt;
  for (const Json& one : json) {
    if (!one.is_array() || one.size() != 2) return std::nullopt;
    auto name = bytes_of(one[0]), value = bytes_of(one[1]);
    if (!name || !value) return std::nullopt;
    out.emplace_back(std::move(*name), std::move(*value));
  }
  return out;
}

/// A line of JSON, and whatever follows it.
struct Parts {
  Json head;
  std::string_view body;
};
std::optional<Parts> split_head(std::string_view text) {
  const auto end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  auto head = parse_json(text.substr(0, end), 4);
  if (!head || !head->is_object()) return std::nullopt;
  return Parts{std::move(*head), text.substr(end + 1)};
}

Error refused() {
  return {ErrorCode::unauthenticated, "unauthorized", "This is for the replicas of this gateway"};
}

}  // namespace

std::int64_t ReplicaSeal::now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_->now().time_since_epoch()).count();
}

std::string ReplicaSeal::seal(const ReplicaRequest& one) const {
  const Json head = {{"from", one.from},
                     {"to", one.to},
                     {"at", now()},
                     {"key", base64url(one.key)},
                     {"method", base64url(one.request.method)},
                     {"target", base64url(one.request.target)},
                     {"client", base64url(one.request.remote_address)},
                     {"tls", one.request.over_tls},
                     {"headers", encode(one.request.headers)}};
  return ring_->seal(dump_json(head) + '\n' + one.request.body, kRequestIdentity);
}

Result<ReplicaRequest> ReplicaSeal::open(std::string_view sealed) {
  // Text of strangers is no reason to read the keys again.
  if (!ring_->knows(sealed)) return refused();
  const auto plain = ring_->open(sealed, kRequestIdentity);
  if (!plain) return refused();
  const auto parts = split_head(*plain);
  if (!parts) return refused();
  const Json& head = parts->head;
  const auto decoded = [&](const char* name) {
    const auto text = text_of(head, name);
    return text ? from_base64url(*text) : std::nullopt;
  };
  const auto from = text_of(head, "from"), to = text_of(head, "to");
  auto key = decoded("key"), method = decoded("method"), target = decoded("target"),
       client = decoded("client");
  const auto headers = head.find("headers"), at = head.find("at"), tls = head.find("tls");
  if (!from || !to || !key || key->size() != kKeyBytes || !method || !target || !client ||
      headers == head.end() || at == head.end() || !at->is_number_integer() || tls == head.end() ||
      !tls->is_boolean())
    return refused();
  auto fields = decode(*headers);
  const std::int64_t age = now() - at->get<std::int64_t>();
  if (!fields || age > kSkewSeconds || age < -kSkewSeconds) return refused();
  if (auto fresh = remember(*key); !fresh) return fresh.error();
  ReplicaRequest out{*from, *to, std::move(*key), {}};
  out.request.method = std::move(*method);
  out.request.target = std::move(*target);
  out.request.headers = std::move(*fields);
  out.request.body = parts->body;
  out.request.remote_address = std::move(*client);
  out.request.over_tls = tls->get<bool>();
  return out;
}

Status ReplicaSeal::remember(const std::string& key) {
  // A key is made for one request. What has been seen is kept for longer than a request is good for.
  std::string digest = sha256(key).substr(0, 16);
  const std::int64_t moment = now();
  const std::lock_guard lock(mutex_);
  if (moment - turned_ > 2 * kSkewSeconds + 1 || moment < turned_) {
    seen_before_ = moment - turned_ > 2 * (2 * kSkewSeconds + 1) ? std::set<std::string>() : std::move(seen_);
    seen_.clear();
    turned_ = moment;
  }
  if (seen_before_.contains(digest) || seen_.contains(digest)) return refused();
  if (seen_.size() >= kMaxSeen)
    return Error(ErrorCode::unavailable, "overloaded", "Too many requests are handed over");
  seen_.insert(std::move(digest));
  return {};
}

std::unique_ptr<ReplicaFrames> ReplicaFrames::create(const std::string& key, std::shared_ptr<Random> random) {
  auto sealer = Sealer::create({key, {}}, std::move(random));
  if (!sealer) return nullptr;
  return std::unique_ptr<ReplicaFrames>(new ReplicaFrames(std::move(*sealer)));
}

std::string ReplicaFrames::identity() { return std::string(kAnswerIdentity) + std::to_string(number_++); }

std::string ReplicaFrames::seal(const ReplicaFrame& frame) {
  using Kind = ReplicaFrame::Kind;
  std::string plain(1, static_cast<char>(frame.kind));
  if (frame.kind == Kind::answer || frame.kind == Kind::start) {
    plain += dump_json(Json{{"status", frame.response.status}, {"headers", encode(frame.response.headers)}});
    plain += '\n';
  }
  plain += frame.response.body;
  return sealer_->seal(plain, identity()) + '\n';
}

std::optional<ReplicaFrame> ReplicaFrames::open(std::string_view line) {
  using Kind = ReplicaFrame::Kind;
  const auto plain = sealer_->open(line, identity());
  if (!plain || plain->empty()) return std::nullopt;
  ReplicaFrame out;
  out.kind = static_cast<Kind>(plain->front());
  const std::string_view rest = std::string_view(*plain).substr(1);
  if (out.kind != Kind::answer && out.kind != Kind::start) {
    out.response.body = rest;
    return out;
  }
  const auto parts = split_head(rest);
  if (!parts) return std::nullopt;
  const auto status = parts->head.find("status"), headers = parts->head.find("headers");
  if (status == parts->head.end() || !status->is_number_integer() || headers == parts->head.end())
    return std::nullopt;
  auto fields = decode(*headers);
  if (!fields) return std::nullopt;
  out.response.status = status->get<int>();
  out.response.headers = std::move(*fields);
  out.response.body = parts->body;
  return out;
}

}  // namespace mcpgw::detail
