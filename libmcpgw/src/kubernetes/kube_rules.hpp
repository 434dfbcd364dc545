// What is to be done with instances as time goes by, and who does it. No I/O: the state machines of
// kube_instances.
#pragma once

#include <optional>
#include <string>

#include "json/json.hpp"
#include "kubernetes/kube_objects.hpp"
#include "mcpgw/clock.hpp"

namespace mcpgw::detail {

struct CollectRules {
  Duration idle_ttl;
  Duration max_lifetime;
  Duration drain;  ///< how long running calls of what is no longer in force may go on
  Duration beat;   ///< how often use is written down
  static CollectRules of(const KubernetesOptions& options, Duration drain);
};

/// An end has two steps: an instance is retired first, which all replicas see and heed before they send it
/// another call, and removed when none of them can be in the middle of one.
enum class Due { nothing, retire_idle, retire_old, retire_changed, remove };

/// `target_version`: of the target as it is configured now; nullopt when it is gone or disabled.
Due due(const PodInstance& record, const CollectRules& rules, std::optional<std::uint64_t> target_version,
        Time now);
/// Whether some replica may be in the middle of a call to it, as far as is written down.
bool may_be_in_use(const PodInstance& record, const CollectRules& rules, Time now);

/// One replica's view of a coordination.k8s.io Lease. Clocks of replicas are not compared: another's lease
/// has run out when it has not changed for its duration, by this replica's own monotonic clock.
class Election {
 public:
  Election(std::string identity, std::string name, std::string name_space, std::chrono::seconds duration);

  struct Step {
    enum class Action { create, update, wait } action = Action::wait;
    Json lease;  ///< to be written; an update holds the resourceVersion that was seen
  };
  /// `seen`: the Lease as it is; null when there is none.
  Step next(const Json& seen, Duration monotonic, Time now);
  /// The step's write was done. `asked_at` is the time before it was sent.
  void written(Duration asked_at);
  void lost();
  /// Not longer than others believe it.
  bool leads(Duration monotonic) const;
  const std::string& identity() const noexcept { return identity_; }
  /// A holder that ends lets the next one begin at once; nullopt when this is not the holder.
  std::optional<Json> release(const Json& seen) const;

 private:
  const std::string identity_, name_, namespace_;
  const std::chrono::seconds duration_;
  std::string seen_;  // the last state of another's lease
  Duration seen_at_{};
  std::optional<Duration> leads_until_;
};

}  // namespace mcpgw::detail
