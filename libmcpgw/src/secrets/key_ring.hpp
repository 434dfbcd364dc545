// KeyRing: a sealer whose keys can be replaced while everything goes on.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "secrets/sealer.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class KeyRing final : public Sealer {
 public:
  /// Reads the keys anew; nullopt: not now. Null: they never change.
  using Source = std::function<std::optional<EncryptionKeys>()>;

  /// As Sealer::create.
  static Result<std::shared_ptr<KeyRing>> create(const EncryptionKeys& keys, std::shared_ptr<Random> random,
                                                 Source source);

  std::string seal(std::string_view plain, std::string_view identity) const override;
  /// Reads the keys anew when the value names one that is not known.
  Result<std::string> open(std::string_view sealed, std::string_view identity) const override;
  bool is_current(std::string_view sealed) const override { return held()->is_current(sealed); }
  bool knows(std::string_view sealed) const override { return held()->knows(sealed); }
  std::string current_key_id() const override { return held()->current_key_id(); }

  /// Reads the keys anew. Those that cannot be used are not put in force.
  void refresh() const;

 private:
  KeyRing(std::shared_ptr<Sealer> held, std::shared_ptr<Random> random, Source source)
      : random_(std::move(random)), source_(std::move(source)), held_(std::move(held)) {}
  std::shared_ptr<Sealer> held() const;
  /// Whether a key that is not known was looked for a moment ago.
  bool looked_for(std::string_view key_id) const;

  const std::shared_ptr<Random> random_;
  const Source source_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<Sealer> held_;  ///< guarded by mutex_
  /// Guarded by mutex_.
  mutable std::map<std::string, std::chrono::steady_clock::time_point, std::less<>> missed_;
};

}  // namespace mcpgw::detail
