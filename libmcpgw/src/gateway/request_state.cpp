#include "gateway/request_state.hpp"

#include "base/text.hpp"
#include "json/json.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::string_view kIdentity = "mcpgw:request-state:v1";
constexpr std::size_t kMaxSealed = 256 * 1024;
constexpr std::size_t kDepth = 256;

}  // namespace

std::string request_digest(std::string_view method, std::string_view params) {
  // Parsed and written anew: a client that builds its request again may order or space it differently.
  Json salient = Json::object();
  for (const char* name : {"name", "uri", "arguments"}) {
    const std::string_view value = raw::find(params, name);
    if (value.empty()) continue;
    if (auto parsed = parse_json(value, kDepth)) salient[name] = std::move(*parsed);
  }
  std::string text(method);
  text += '\0';
  text += dump_json(salient);
  return to_hex(sha256(text));
}

Result<std::shared_ptr<RequestStates>> RequestStates::create(const EncryptionKeys& keys,
                                                             std::shared_ptr<Clock> clock,
                                                             std::shared_ptr<Random> random,
                                                             KeyRing::Source source) {
  auto ring = KeyRing::create(keys, std::move(random), std::move(source));
  if (!ring) return ring.error();
  return std::shared_ptr<RequestStates>(new RequestStates(std::move(*ring), std::move(clock)));
}

std::int64_t RequestStates::now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_->now().time_since_epoch()).count();
}

std::string RequestStates::seal(const RequestState& state) const {
  Json out = {{"u", state.user_id}, {"t", state.target_id}, {"m", state.method}, {"d", state.digest},
              {"p", state.parked},  {"r", state.replica},   {"n", state.round},  {"e", state.expires}};
  // Any text a server may give: base64, since this is JSON again.
  if (state.upstream) out["s"] = base64url(*state.upstream);
  return ring_->seal(dump_json(out), kIdentity);
}

std::optional<RequestState> RequestStates::open(std::string_view sealed) const {
  // A key that is not known is not looked for: anybody may send anything here.
  if (sealed.size() > kMaxSealed || !ring_->knows(sealed)) return std::nullopt;
  const auto plain = ring_->open(sealed, kIdentity);
  if (!plain) return std::nullopt;
  const auto parsed = parse_json(*plain);
  if (!parsed || !parsed->is_object()) return std::nullopt;
  const auto text = [&parsed](const char* name) {
    const auto it = parsed->find(name);
    return it != parsed->end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  const auto number = [&parsed](const char* name) {
    const auto it = parsed->find(name);
    return it != parsed->end() && it->is_number_integer() ? it->get<std::int64_t>() : 0;
  };
  RequestState out{text("u"), text("t"),   text("m"),   text("d"), text("p"),
                   text("r"), number("n"), number("e"), {}};
  if (out.expires <= now()) return std::nullopt;
  if (parsed->contains("s")) {
    out.upstream = from_base64url(text("s"));
    if (!out.upstream) return std::nullopt;
  }
  return out;
}

}  // namespace mcpgw::detail
