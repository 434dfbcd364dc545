// Servers of targets that something else runs for the gateway (Kubernetes): where one is, that it is in use,
// that it is no longer wanted. A connection to one is an HTTP upstream like any other.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mcpgw/model.hpp"
#include "mcpgw/result.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::detail {

struct WantedInstance {
  std::string key;  ///< 64 hex digits: equal keys share an instance, on any replica
  std::shared_ptr<const Target> target;
  std::string user_id;                     ///< whose alone it is; empty: users share it
  std::map<std::string, std::string> env;  ///< resolved values: secret
};

struct RunningInstance {
  std::string name;  ///< unique in time: what is started anew has another one
  std::string url;   ///< of its MCP endpoint
  /// It counts as in use while this is held, be there a call or not: until `uses` tells of its connection.
  std::shared_ptr<const void> held;
};

/// What this replica does with an instance.
struct InstanceUse {
  std::string name;
  std::size_t in_flight = 0;
  SteadyTime idle_since{};  ///< end of the last call
};

/// What the owner of the connections answers and hears. Called from any thread.
struct InstanceEvents {
  std::function<std::vector<InstanceUse>()> uses;
  /// It takes no new calls. `cut`: running ones end within upstream.drain; otherwise they end when they end.
  std::function<void(const std::string& name, bool cut)> on_retired;
};

/// Safe from any thread; tasks are awaited on a loop.
class InstanceProvider {
 public:
  virtual ~InstanceProvider() = default;
  /// The instance for a key, started when there is none. Those who ask meanwhile wait for the same one; that
  /// a caller's deadline passes does not end the start. Errors: unavailable/"upstream_unreachable" (the
  /// message says why it did not start), resource_exhausted/"instance_limit",
  /// deadline_exceeded/"upstream_timeout".
  virtual Task<Result<RunningInstance>> acquire(WantedInstance wanted, SteadyTime deadline) = 0;
  /// It was made of values that are no longer in force: no replica uses it any more. Returns at once.
  virtual void retire(const std::string& name) = 0;
  /// All instances of a target, on all replicas; how many. The next call starts new ones.
  virtual Task<Result<int>> restart(std::string target_id) = 0;
  /// How many run, as far as this replica knows.
  virtual int count(const std::string& target_id) const = 0;
  /// Nothing is begun any more. The instances go on: another replica, or the next start, uses them.
  virtual void stop() = 0;
};

}  // namespace mcpgw::detail
