// Repository: what is sealed with which key, sealing it anew, and telling others that keys were replaced.
#include "json/json.hpp"
#include "storage/repository_impl.hpp"

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

namespace {

constexpr std::string_view kSealedCollections[] = {collection::kTargetTokens, collection::kEnv,
                                                   collection::kTargets, collection::kSessions};

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

Result<ResealProgress> Repository::Impl::reseal_pass(
    const std::function<bool(const ResealProgress&)>& go_on) {
  ResealProgress done;
  for (const auto name : kSealedCollections) {
    const auto records = list(name);
    if (!records) return records.error();
    for (const Record& listed : *records) {
      bool sealed_value = false;
      bool failed = false;
      bool resealed = false;
      auto status = retry<void>([&]() -> Status {
        sealed_value = failed = resealed = false;
        const auto fence = key_fence();
        if (!fence) return fence.error();
        const auto record = get(name, listed.key);
        if (!record) return record.error();
        auto sealed = *record ? sealed_member(**record) : std::nullopt;
        if (!sealed) return {};
        sealed_value = true;
        const auto& text = sealed->text->get_ref<const std::string&>();
        const auto plain = sealer->open(text, sealed->identity);
        failed = !plain;
        if (failed || sealer->is_current(text)) return {};
        *sealed->text = sealer->seal(*plain, sealed->identity);
        const auto versions =
            commit({put(name, listed.key, dump_json(sealed->document), (*record)->version), *fence});
        if (!versions) return versions.error();
        resealed = true;
        return {};
      });
      if (!status) return status.error();
      if (!sealed_value) continue;
      ++done.checked;
      done.failed += failed ? 1 : 0;
      done.resealed += resealed ? 1 : 0;
      if (go_on && !go_on(done)) return done;
    }
  }
  return done;
}

Result<SealedValues> Repository::sealed_values() {
  SealedValues out;
  out.current_key = impl_->sealer->current_key_id();
  out.configured_key = impl_->sealer->configured_key_id();
  for (const auto name : kSealedCollections) {
    const auto records = impl_->list(name);
    if (!records) return records.error();
    for (const Record& record : *records) {
      const auto sealed = sealed_member(record);
      if (!sealed) continue;
      const auto& text = sealed->text->get_ref<const std::string&>();
      ++out.by_key[std::string(Sealer::key_id_of(text))];
      if (!impl_->sealer->open(text, sealed->identity)) ++out.unreadable;
    }
  }
  return out;
}

}  // namespace mcpgw
