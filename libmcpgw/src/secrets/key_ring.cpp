#include "secrets/key_ring.hpp"

#include <algorithm>
#include <utility>

namespace mcpgw::detail {
namespace {

/// A row whose key is lost is asked for with every call: the source is not.
constexpr std::chrono::seconds kLookAgain{1};
constexpr std::size_t kMaxMissed = 64;

/// Whoever could write such a value now has an old key, and no right to.
Error sealed_with_retired_key() {
  return {ErrorCode::data_loss, "credential_unavailable",
          "A stored secret is sealed with a key that was taken out of use"};
}

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

bool KeyRing::retired(std::string_view key_id) const {
  const std::lock_guard lock(mutex_);
  return std::find(retired_.begin(), retired_.end(), key_id) != retired_.end();
}

void KeyRing::put_in_force(std::string key_id, std::vector<std::string> retired) {
  const std::lock_guard lock(mutex_);
  in_force_ = std::move(key_id);
  retired_ = std::move(retired);
}

std::string KeyRing::key_in_force() const {
  const std::lock_guard lock(mutex_);
  return in_force_;
}

bool KeyRing::has_key_in_force() const {
  const std::lock_guard lock(mutex_);
  if (in_force_.empty()) return true;
  const auto ids = held_->key_ids();
  return std::find(ids.begin(), ids.end(), in_force_) != ids.end();
}

std::string KeyRing::current_key_id() const {
  const std::lock_guard lock(mutex_);
  const auto ids = held_->key_ids();
  const bool known = std::find(ids.begin(), ids.end(), in_force_) != ids.end();
  return known ? in_force_ : held_->current_key_id();
}

std::string KeyRing::seal(std::string_view plain, std::string_view identity) const {
  std::shared_ptr<Sealer> sealer;
  std::string with;
  {
    const std::lock_guard lock(mutex_);
    sealer = held_;
    with = in_force_;
  }
  const auto ids = sealer->key_ids();
  if (std::find(ids.begin(), ids.end(), with) == ids.end()) return sealer->seal(plain, identity);
  return sealer->seal_with(with, plain, identity);
}

bool KeyRing::knows(std::string_view sealed) const {
  return held()->knows(sealed) && !retired(key_id_of(sealed));
}

Result<std::string> KeyRing::open(std::string_view sealed, std::string_view identity) const {
  const auto id = key_id_of(sealed);
  if (retired(id)) return sealed_with_retired_key();
  const auto sealer = held();
  auto out = sealer->open(sealed, identity);
  if (out || !source_ || sealer->knows(sealed) || looked_for(id)) return out;
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
