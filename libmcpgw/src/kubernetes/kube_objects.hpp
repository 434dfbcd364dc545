// The Kubernetes objects of an instance, and what is read from them. Pure functions: nothing here talks to a
// cluster.
//
// An instance is a Deployment, which owns a Service and, when there is an environment, a Secret: deleting the
// Deployment deletes all. What the gateway must remember of it stands in the Deployment's annotations, so
// that any replica can go on with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "json/json.hpp"
#include "mcpgw/clock.hpp"
#include "mcpgw/gateway.hpp"
#include "upstream/instances.hpp"

namespace mcpgw::detail {

namespace kube {

inline constexpr const char* kFieldManager = "mcpgw";
inline constexpr const char* kManagedBy = "app.kubernetes.io/managed-by";
inline constexpr const char* kInstanceLabel = "mcpgw.dev/instance";
inline constexpr const char* kTargetLabel = "mcpgw.dev/target";
inline constexpr const char* kKeyAnnotation = "mcpgw.dev/key";
inline constexpr const char* kTargetName = "mcpgw.dev/target-name";
inline constexpr const char* kTargetVersion = "mcpgw.dev/target-version";
inline constexpr const char* kUser = "mcpgw.dev/user";  ///< whose alone it is
inline constexpr const char* kGeneration = "mcpgw.dev/generation";
inline constexpr const char* kLastUsed = "mcpgw.dev/last-used";
inline constexpr const char* kRetiredAt = "mcpgw.dev/retired-at";
inline constexpr const char* kRetiredWhy = "mcpgw.dev/retired-because";
/// Selects what belongs to gateways.
inline constexpr const char* kSelector = "app.kubernetes.io/managed-by=mcpgw";

}  // namespace kube

/// What an instance is made of.
struct InstanceSpec {
  std::string key;     ///< 64 hex digits
  int generation = 0;  ///< the next one takes over when this one is retired
  std::shared_ptr<const Target> target;
  std::string user_id;                     ///< empty: users share it
  std::map<std::string, std::string> env;  ///< secret
};

/// "mcp-", up to 20 characters of the slug, 32 hex digits: a DNS label (RFC 1123) that starts with a letter.
std::string instance_name(const InstanceSpec& spec);
/// Holds a digest of the content, so that a pod never starts with the environment of another revision.
std::string secret_name(const InstanceSpec& spec);

Json deployment_object(const InstanceSpec& spec, const KubernetesOptions& options, Time now);
/// `owner_uid` is the Deployment's.
Json service_object(const InstanceSpec& spec, const KubernetesOptions& options, const std::string& owner_uid);
Json secret_object(const InstanceSpec& spec, const KubernetesOptions& options, const std::string& owner_uid);
std::string service_url(const InstanceSpec& spec, const KubernetesOptions& options);

/// Faults of options that the cluster would refuse, or that would do harm. Empty: good.
std::string kubernetes_fault(const KubernetesOptions& options);
bool is_dns_label(std::string_view text);
/// "500m", "1.5", "64Mi", "1e3".
bool is_quantity(std::string_view text);

/// A Deployment of ours as the cluster has it.
struct PodInstance {
  std::string name;
  std::string uid;
  std::string resource_version;
  std::string key;
  std::string target_id;
  std::string user_id;  ///< empty: users share it
  std::uint64_t target_version = 0;
  int generation = 0;
  Time created{};
  Time last_used{};  ///< `created` when nobody has used it
  std::optional<Time> retired_at;
  std::string retired_because;
  bool deleting = false;

  bool retired() const { return retired_at.has_value() || deleting; }
};
/// nullopt when it is not one of ours, or is damaged.
std::optional<PodInstance> read_instance(const Json& deployment);

/// Whether a starting instance is there yet.
struct StartState {
  enum class Phase { starting, ready, failed };
  Phase phase = Phase::starting;
  std::string cause;  ///< why it is not ready, as far as is known: for admins and the log
  bool operator==(const StartState&) const = default;
};
/// `pods` are those of the instance. A cause that time may heal (no room in the cluster) does not fail: the
/// caller's deadline does.
StartState start_state(const Json& deployment, const std::vector<Json>& pods);

/// "a.b.c" of an object; null when it is not there.
const Json& at_path(const Json& object, std::initializer_list<const char*> path);
std::string text_at(const Json& object, std::initializer_list<const char*> path);
/// A text from the cluster for people: one line, bounded.
std::string for_people(std::string_view text, std::size_t max = 300);

}  // namespace mcpgw::detail
