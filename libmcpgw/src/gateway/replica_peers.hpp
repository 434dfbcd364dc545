// Which replicas live, as far as storage shows. Clocks are not compared: a replica lives while its count of
// beats grows, as seen from here.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mcpgw/model.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class ReplicaPeers {
 public:
  using SteadyTime = std::chrono::steady_clock::time_point;
  /// Records are removed after so many leases without a sign of life.
  static constexpr int kRemoveAfter = 20;
  explicit ReplicaPeers(std::chrono::milliseconds lease) : lease_(lease) {}

  /// What storage holds at this moment. Those that have shown no sign of life for so long that nobody needs
  /// their record any more.
  std::vector<std::string> update(const std::vector<ReplicaRecord>& stored, SteadyTime now);
  /// It has said goodbye.
  void remove(const std::string& id);
  /// nullopt: it is not known to live.
  std::optional<std::string> address(const std::string& id) const;
  bool knows(const std::string& id) const;
  /// Ids and addresses of those that live, without one.
  std::vector<std::pair<std::string, std::string>> others(const std::string& without) const;

 private:
  struct Peer {
    std::string address;
    std::int64_t beat;
    SteadyTime seen;
  };
  const std::chrono::milliseconds lease_;
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, Peer> peers_;
  SteadyTime read_{};  ///< when storage was read last
};

}  // namespace mcpgw::detail
