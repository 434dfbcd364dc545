// SharedRates: counts events per name in a window, in storage, for all processes that work on it. Whoever is
// counted by one is counted by all, and nobody is told yes beyond a limit, however many ask at once.
//
// Names come from outside, so the room they take is fixed: each limit has 4096 records of at most 16 names.
// The name that was silent longest gives way. Names are kept as digests with a key: which ones share a record
// cannot be chosen by who does not know it, and whoever reads the storage learns nothing of them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mcpgw/clock.hpp"
#include "mcpgw/storage.hpp"

namespace mcpgw::detail {

/// Safe from any thread. settle() blocks.
class SharedRates {
 public:
  /// At most `max` (>= 1) events of a name within `window`, as far as the clocks of the processes agree. An
  /// event counts for up to a 64th of the window longer, never shorter.
  struct Limit {
    std::string id;  ///< of the limit: part of a record's key
    std::size_t max;
    Duration window;
  };
  struct Step {
    const Limit* limit;
    std::string name;
    enum class What {
      look,   ///< only asks
      add,    ///< one more event
      clear,  ///< forgets the name
    } what;
  };

  SharedRates(std::shared_ptr<Storage> storage, std::shared_ptr<Clock> clock, std::string key)
      : storage_(std::move(storage)), clock_(std::move(clock)), key_(std::move(key)) {}

  /// False when one of the names is known here to have reached its limit. Asks memory alone: a true is no
  /// permission.
  bool may_try(const std::vector<Step>& steps) const;
  /// All steps at once when no name has reached its limit; else none of them, and false. The errors of
  /// Storage; unavailable/"overloaded" when others were always faster.
  Result<bool> settle(const std::vector<Step>& steps);
  /// All names are digested with it from now on; what was counted before is forgotten.
  void replace_key(std::string key);

  static constexpr std::size_t kNamesPerRecord = 16;

 private:
  struct Place {
    std::string record;  ///< its key in storage
    std::string digest;  ///< the name in it
  };
  /// Moments in milliseconds, oldest first, and how many events each stands for.
  using Events = std::vector<std::pair<std::int64_t, std::size_t>>;
  using Names = std::map<std::string, Events>;

  Place place_of(const Step& step) const;
  static Names decode(std::string_view text, const Limit& limit, std::int64_t now);
  static std::string encode(const Names& names);
  static void add(Names& names, const std::string& digest, const Limit& limit, std::int64_t now);
  std::int64_t now() const;
  void remember_full(const Place& place, Duration rest);

  const std::shared_ptr<Storage> storage_;
  const std::shared_ptr<Clock> clock_;
  mutable std::mutex mutex_;  // guards what follows
  std::string key_;
  /// Names that are known to have reached a limit, until when by this process's own clock. Nobody can be let
  /// off before: whoever has reached a limit is not judged, so cannot be right.
  std::unordered_map<std::string, Duration> full_;
};

}  // namespace mcpgw::detail
