// ReplicaPlaces: so many calls of a target at once, counted for all replicas. For each target one replica,
// its keeper, has the places and the queue; which one it is all work out alike from who lives. The others ask
// it for a place, and hold it by leaving that request open: a place whose holder is gone comes back by
// itself.
//
// When the keeper cannot be reached the next in line is asked, in the end oneself: a replica that is alone
// goes on working. So while replicas come, go, or cannot reach one another, calls that run already are not
// known to the new keeper, and at most so many more run beside them.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gateway/concurrency.hpp"
#include "gateway/core.hpp"

namespace mcpgw::detail {

class Replicas;

/// The order by which a place is asked for.
inline constexpr const char* kPlaceOrder = "place";

/// Safe from any thread.
class ReplicaPlaces : public std::enable_shared_from_this<ReplicaPlaces> {
 public:
  explicit ReplicaPlaces(const std::shared_ptr<GatewayCore>& core) : core_(core) {}

  /// Held while a call runs; null: none.
  using Place = std::shared_ptr<void>;
  /// Waits for its turn among all users, at most until the deadline. Awaited on a loop.
  Task<Place> enter(std::string target_id, std::string user_id, std::size_t max, SteadyTime deadline);

  /// Another replica asks: the answer begins when it has a place, and ends when it gives it back.
  void give(const std::string& from, const std::string& order, const std::shared_ptr<Responder>& responder);
  /// Takes back what those had who are not among `living`.
  void take_back(const std::set<std::string>& living);
  void stop();

  /// Who is to be asked for a place of a target, first to last: everybody by the same rule.
  static std::vector<std::string> keepers(const std::string& target_id, std::vector<std::string> replicas);

 private:
  struct Held {
    std::string from;
    ConcurrencyLimit::Slot slot;
    std::shared_ptr<ResponseStream> stream;
  };
  static Task<void> serve(std::shared_ptr<ReplicaPlaces> self, std::string from, std::string target_id,
                          std::string user_id, std::size_t max, std::chrono::milliseconds wait,
                          std::shared_ptr<Responder> responder);
  void drop(std::uint64_t number);
  bool silent(const std::string& id) const;
  void found_silent(const std::string& id);

  const std::weak_ptr<GatewayCore> core_;
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::uint64_t, Held> held_;
  std::uint64_t next_ = 0;
  std::map<std::string, SteadyTime> silent_;  ///< who could not be reached, until when nobody tries again
  bool stopped_ = false;
};

}  // namespace mcpgw::detail
