#include "secrets/key_ring.hpp"

#include <utility>

namespace mcpgw::detail {
namespace {

/// A row whose key is lost is asked for with every call: the source is not.
constexpr std::chrono::seconds kLookAgain{1};
constexpr std::size_t kMaxMissed = 64;

}  // namespace

Result<std::shared_ptr<KeyRing>> KeyRing::create(const EncryptionKeys& keys, std::shared_ptr<Random> random,
                                                 Source source) {
  if (!random) random = make_system_random();
  auto sealer = Sealer::create(keys, random);
  if (!sealer) return sealer.error();
  return std::shared_ptr<KeyRing>(new KeyRing(std::move(*sealer), std::move(random), std::move(source)));
}

std::shared_ptr<Sealer> KeyRing::held() const {
  const std::lock_guard lock(mutex_);
  return held_;
}

std::string KeyRing::seal(std::string_view plain, std::string_view identity) const {
  return held()->seal(plain, identity);
}

Result<std::string> KeyRing::open(std::string_view sealed, std::string_view identity) const {
  const auto sealer = held();
  auto out = sealer->open(sealed, identity);
  if (out || !source_ || sealer->knows(sealed) || looked_for(key_id_of(sealed))) return out;
  refresh();
  return held()->open(sealed, identity);
}

bool KeyRing::looked_for(std::string_view key_id) const {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (const auto it = missed_.find(key_id); it != missed_.end()) {
    if (now - it->second < kLookAgain) return true;
    it->second = now;
    return false;
  }
  if (missed_.size() >= kMaxMissed) missed_.clear();
  missed_.emplace(key_id, now);
  return false;
}

void KeyRing::refresh() const {
  if (!source_) return;
  const auto keys = source_();
  if (!keys) return;
  auto sealer = Sealer::create(*keys, random_);
  if (!sealer) return;
  const std::lock_guard lock(mutex_);
  held_ = std::move(*sealer);
}

}  // namespace mcpgw::detail
