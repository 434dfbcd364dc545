// Instances of targets as pods of a Kubernetes namespace: made when first needed, kept while they are used,
// shared by all replicas of the gateway.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kubernetes/kube_client.hpp"
#include "kubernetes/kube_objects.hpp"
#include "kubernetes/kube_rules.hpp"
#include "mcpgw/random.hpp"
#include "runtime/waiter.hpp"
#include "upstream/instances.hpp"

namespace mcpgw::detail {

class KubeInstances final : public InstanceProvider, public std::enable_shared_from_this<KubeInstances> {
 public:
  struct Parts {
    std::shared_ptr<Runtime> runtime;
    KubernetesOptions options;
    std::chrono::milliseconds drain{30000};
    std::shared_ptr<Clock> clock;
    std::shared_ptr<Random> random;
    /// The version of a target as it is configured now; nullopt when it is gone or disabled.
    std::function<std::optional<std::uint64_t>(const std::string& target_id)> target_version;
    InstanceEvents events;
    /// Counted while the lease is being given up at the end; may be null.
    std::shared_ptr<std::atomic<int>> farewells;
    LogSink log;
  };
  /// invalid_argument when the options cannot be used. Begins to watch the namespace.
  static Result<std::shared_ptr<KubeInstances>> create(Parts parts);

  Task<Result<RunningInstance>> acquire(WantedInstance wanted, SteadyTime deadline) override;
  void retire(const std::string& name) override;
  Task<Result<int>> restart(std::string target_id) override;
  int count(const std::string& target_id) const override;
  void stop() override;

 private:
  explicit KubeInstances(Parts parts);
  struct Known {
    PodInstance record;
    Json object;
    SteadyTime told_at{};  // by this replica's clock
  };
  struct Start {
    AsyncEvent done;
    std::optional<Result<RunningInstance>> result;  // written before `done`
  };
  struct Making;
  class Held;
  /// What is known of a starting instance's pods.
  struct Pods {
    std::mutex mutex;  // guards what follows
    std::map<std::string, Json> by_name;
    std::shared_ptr<AsyncEvent> changed = std::make_shared<AsyncEvent>();
  };

  void begin();
  static Task<void> beat(std::weak_ptr<KubeInstances> weak);
  static Task<void> collect(std::weak_ptr<KubeInstances> weak);
  static Task<void> run_start(std::shared_ptr<KubeInstances> self, WantedInstance wanted,
                              std::shared_ptr<Start> start);
  static Task<void> run_retire(std::shared_ptr<KubeInstances> self, std::string name);

  Task<Result<RunningInstance>> begin_instance(WantedInstance wanted);
  /// The Deployment of the spec's key, made or taken over; moves on to a later generation past retired ones.
  Task<Result<Json>> claim(InstanceSpec& spec, SteadyTime deadline);
  /// The limits: of all instances, and of those that are one user's alone. Holds the place in `making_`.
  Task<Status> make_room(const InstanceSpec& spec, SteadyTime deadline);
  Task<Status> wait_ready(const InstanceSpec& spec, const Json& deployment, SteadyTime deadline);
  Task<Result<Json>> apply(const std::string& collection, const Json& object, SteadyTime deadline);
  /// Marks it for all replicas. `only_unchanged`: not when somebody has used it meanwhile.
  Task<Status> mark_retired(const PodInstance& record, const char* because, bool only_unchanged);
  Task<Status> remove(const std::string& name, const std::string& uid);
  Task<Status> note_use(const PodInstance& record, Time at);
  Task<void> note_uses();
  Task<bool> lead(Election& election);
  Task<void> release(Election& election);
  Task<void> collect_once();

  /// `listed_at`: when the list that it is from was asked for.
  void see(const Json& deployment, std::optional<SteadyTime> listed_at = std::nullopt);
  void see_all(const std::vector<Json>& deployments, SteadyTime asked_at);
  /// `uid`: of the object that ended, which is no news of another one of its name. Empty: of whatever had it.
  void gone(const std::string& name, const std::string& uid = {});
  std::optional<Known> known(const std::string& name) const;
  std::vector<PodInstance> records() const;
  std::map<std::string, InstanceUse> uses() const;
  std::string collection(const char* group, const char* plural) const;
  void log(LogLevel level, std::string message,
           std::vector<std::pair<std::string, std::string>> fields = {}) const;

  const Parts parts_;
  const CollectRules rules_;
  const std::shared_ptr<KubeClient> client_;
  std::atomic<bool> leading_{false};
  std::atomic<bool> farewell_{false};  // is counted
  const std::shared_ptr<WatchStop> watching_ = std::make_shared<WatchStop>();
  const std::shared_ptr<AsyncEvent> listed_ = std::make_shared<AsyncEvent>();

  mutable std::mutex mutex_;                                // guards what follows
  std::map<std::string, Known> known_;                      // by name
  std::map<std::string, std::shared_ptr<Start>> starting_;  // by key
  std::map<std::string, std::string> making_;               // by name, whose they are: held by make_room()
  std::map<std::string, std::size_t> held_;                 // by name: how many Held there are
  std::map<std::string, Time> noted_;                       // by name: the use that was written down last
  std::string trouble_;                                     // why the API cannot be used at present
  bool stopped_ = false;
};

}  // namespace mcpgw::detail
