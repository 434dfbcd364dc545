// KeyRing: a sealer whose keys can be replaced while everything goes on. Which of them seals is not for this
// process alone to say: processes on one storage agree by a record in it, and a key that this process is
// configured with first seals nothing until that record names it.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
  bool is_current(std::string_view sealed) const override { return key_id_of(sealed) == current_key_id(); }
  bool knows(std::string_view sealed) const override;
  /// Of the key in force; of the configured one when that is not known.
  std::string current_key_id() const override;
  std::string seal_with(std::string_view key_id, std::string_view plain,
                        std::string_view identity) const override {
    return held()->seal_with(key_id, plain, identity);
  }
  std::vector<std::string> key_ids() const override { return held()->key_ids(); }

  /// Which key seals from now on, and which ones open nothing any more, whoever is configured with them.
  /// Both hold over refresh().
  void put_in_force(std::string key_id, std::vector<std::string> retired);
  /// Its id, known or not; empty: none was named.
  std::string key_in_force() const;
  /// Whether the key in force is one of ours; true as long as none was named.
  bool has_key_in_force() const;
  /// The key that is configured first.
  std::string configured_key_id() const { return held()->current_key_id(); }

  /// Reads the keys anew. Those that cannot be used are not put in force.
  void refresh() const;

 private:
  KeyRing(std::shared_ptr<Sealer> held, std::shared_ptr<Random> random, Source source)
      : random_(std::move(random)), source_(std::move(source)), held_(std::move(held)) {}
  std::shared_ptr<Sealer> held() const;
  bool retired(std::string_view key_id) const;
  /// Whether a key that is not known was looked for a moment ago.
  bool looked_for(std::string_view key_id) const;

  const std::shared_ptr<Random> random_;
  const Source source_;
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  mutable std::shared_ptr<Sealer> held_;
  std::string in_force_;  ///< empty: the configured one
  std::vector<std::string> retired_;
  mutable std::map<std::string, std::chrono::steady_clock::time_point, std::less<>> missed_;
};

}  // namespace mcpgw::detail
