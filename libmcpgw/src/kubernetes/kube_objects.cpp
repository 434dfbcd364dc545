#include "kubernetes/kube_objects.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/text.hpp"
#include "runtime/url.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kSlugPart = 20;
constexpr std::size_t kDigestPart = 32;
constexpr const char* kPortName = "mcp";

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

Json labels(const InstanceSpec& spec) {
  return {{kube::kManagedBy, "mcpgw"},
          {"app.kubernetes.io/name", "mcp-server"},
          {kube::kInstanceLabel, instance_name(spec)},
          {kube::kTargetLabel, spec.target->id}};
}

Json owned_metadata(const InstanceSpec& spec, const KubernetesOptions& options, const std::string& name,
                    const std::string& owner_uid) {
  return {{"name", name},
          {"namespace", options.name_space},
          {"labels", labels(spec)},
          {"ownerReferences", Json::array({{{"apiVersion", "apps/v1"},
                                            {"kind", "Deployment"},
                                            {"name", instance_name(spec)},
                                            {"uid", owner_uid}}})}};
}

Json resources(const KubernetesOptions& options) {
  Json out = Json::object();
  if (options.requests.empty() && options.limits.empty()) {
    out["requests"] = {{"cpu", "50m"}, {"memory", "64Mi"}};
    out["limits"] = {{"cpu", "1"}, {"memory", "512Mi"}};
    return out;
  }
  for (const auto& [name, quantity] : options.requests) out["requests"][name] = quantity;
  for (const auto& [name, quantity] : options.limits) out["limits"][name] = quantity;
  return out;
}

Json container(const InstanceSpec& spec, const KubernetesOptions& options) {
  const Target& target = *spec.target;
  Json out = {
      {"name", "server"},
      {"image", target.image},
      {"ports", Json::array({{{"name", kPortName}, {"containerPort", target.port}, {"protocol", "TCP"}}})},
      {"resources", resources(options)},
      {"securityContext",
       {{"allowPrivilegeEscalation", false},
        {"privileged", false},
        {"runAsNonRoot", true},
        {"capabilities", {{"drop", Json::array({"ALL"})}}}}}};
  if (!target.command.empty()) out["command"] = Json::array({target.command});
  if (!target.args.empty()) out["args"] = target.args;
  if (!spec.env.empty()) out["envFrom"] = Json::array({{{"secretRef", {{"name", secret_name(spec)}}}}});
  Json probe = {{"periodSeconds", 1}, {"timeoutSeconds", 2}, {"failureThreshold", 3}};
  if (target.health_path.empty())
    probe["tcpSocket"] = {{"port", kPortName}};
  else
    probe["httpGet"] = {{"path", target.health_path}, {"port", kPortName}, {"scheme", "HTTP"}};
  out["readinessProbe"] = std::move(probe);
  return out;
}

std::optional<int> to_int(const std::string& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

const Json& array_at(const Json& object, std::initializer_list<const char*> path) {
  static const Json kEmpty = Json::array();
  const Json& found = at_path(object, path);
  return found.is_array() ? found : kEmpty;
}

bool condition_is(const Json& condition, const char* type, const char* status) {
  return text_at(condition, {"type"}) == type && text_at(condition, {"status"}) == status;
}

std::string with_message(std::string what, const Json& object) {
  const std::string message = text_at(object, {"message"});
  return message.empty() ? what : what + ": " + for_people(message);
}

/// How a container ended, in words.
std::string how_it_ended(const Json& terminated) {
  const Json& code = at_path(terminated, {"exitCode"});
  std::string out = "exit code " + (code.is_number_integer() ? std::to_string(code.get<long>()) : "unknown");
  const std::string reason = text_at(terminated, {"reason"});
  if (!reason.empty() && reason != "Error") out += ", " + for_people(reason, 60);
  return out;
}

StartState failed(std::string cause) { return {StartState::Phase::failed, std::move(cause)}; }
StartState starting(std::string cause) { return {StartState::Phase::starting, std::move(cause)}; }

StartState container_state(const Json& status) {
  const Json& waiting = at_path(status, {"state", "waiting"});
  const std::string reason = text_at(waiting, {"reason"});
  const Json& restarts = at_path(status, {"restartCount"});
  const Json& last = at_path(status, {"lastState", "terminated"});
  const Json& ended = at_path(status, {"state", "terminated"});
  if (reason == "CrashLoopBackOff") return failed("the container keeps ending (" + how_it_ended(last) + ")");
  if (restarts.is_number_integer() && restarts.get<long>() >= 3)
    return failed("the container keeps ending (" + how_it_ended(last.is_object() ? last : ended) + ")");
  // ErrImagePull is the first failure and may pass; the kubelet then says ImagePullBackOff.
  if (reason == "ImagePullBackOff" || reason == "InvalidImageName" || reason == "ErrImageNeverPull")
    return failed(with_message("the image cannot be pulled (" + reason + ")", waiting));
  if (reason == "ErrImagePull" || reason == "RegistryUnavailable")
    return starting(with_message("the image cannot be pulled (" + reason + ")", waiting));
  if (reason == "CreateContainerConfigError" &&
      text_at(waiting, {"message"}).find("runAsNonRoot") != std::string::npos)
    return failed("the image runs as root, which is not permitted: build it with a numeric USER");
  if (!reason.empty() && reason != "ContainerCreating" && reason != "PodInitializing")
    return starting(
        with_message("the container cannot be started (" + for_people(reason, 60) + ")", waiting));
  if (ended.is_object()) return starting("the container ended (" + how_it_ended(ended) + ")");
  if (at_path(status, {"state", "running"}).is_object())
    return starting("the container runs, but is not ready: it does not answer on its port");
  return starting("the container is being created");
}

StartState pod_state(const Json& pod) {
  for (const Json& condition : array_at(pod, {"status", "conditions"}))
    if (condition_is(condition, "Ready", "True")) return {StartState::Phase::ready, {}};
  for (const Json& status : array_at(pod, {"status", "containerStatuses"})) return container_state(status);
  for (const Json& condition : array_at(pod, {"status", "conditions"}))
    if (condition_is(condition, "PodScheduled", "False"))
      return starting(with_message("the cluster has no room for it", condition));
  if (text_at(pod, {"status", "phase"}) == "Failed")
    return starting(with_message("the pod failed", at_path(pod, {"status"})));
  return starting("the pod waits for a node");
}

}  // namespace

const Json& at_path(const Json& object, std::initializer_list<const char*> path) {
  static const Json kNull;
  const Json* at = &object;
  for (const char* name : path) {
    if (!at->is_object()) return kNull;
    const auto it = at->find(name);
    if (it == at->end()) return kNull;
    at = &*it;
  }
  return *at;
}

std::string text_at(const Json& object, std::initializer_list<const char*> path) {
  const Json& found = at_path(object, path);
  return found.is_string() ? found.get<std::string>() : std::string();
}

std::string for_people(std::string_view text, std::size_t max) {
  std::string out;
  for (const char c : text) {
    if (out.size() >= max) return out + "...";
    const bool printable = static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f;
    out += printable ? c : (c == '\n' || c == '\t' ? ' ' : '?');
  }
  return out;
}

bool is_dns_label(std::string_view text) {
  return !text.empty() && text.size() <= 63 && is_lower_alnum(text.front()) && is_lower_alnum(text.back()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_lower_alnum(c) || c == '-'; });
}

bool is_quantity(std::string_view text) {
  std::size_t at = 0, digits = 0, dots = 0;
  while (at < text.size() && ((text[at] >= '0' && text[at] <= '9') || text[at] == '.')) {
    (text[at] == '.' ? dots : digits) += 1;
    ++at;
  }
  if (digits == 0 || digits > 18 || dots > 1) return false;
  const std::string_view suffix = text.substr(at);
  for (const char* known : {"", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"})
    if (suffix == known) return true;
  if (suffix[0] != 'e' && suffix[0] != 'E') return false;
  const std::string_view exponent = suffix.substr(1);
  return !exponent.empty() && exponent.size() <= 2 &&
         std::all_of(exponent.begin(), exponent.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string kubernetes_fault(const KubernetesOptions& options) {
  if (!is_dns_label(options.name_space))
    return "kubernetes.namespace must be a name of small letters, digits and -, at most 63 characters";
  for (const auto* quantities : {&options.requests, &options.limits})
    for (const auto& [name, quantity] : *quantities) {
      if (name.empty() || name.size() > 253 || !is_lower_alnum(name.front()))
        return "kubernetes.resources names something that is no resource";
      if (!is_quantity(quantity)) return "kubernetes.resources must hold quantities such as 500m or 64Mi";
    }
  std::string sample = options.service_url;
  for (const char* name : {"{service}", "{namespace}", "{port}"}) {
    const char* value = std::strcmp(name, "{port}") == 0 ? "1" : "a";
    const auto at = sample.find(name);
    if (at == std::string::npos && std::strcmp(name, "{service}") == 0)
      return "kubernetes.service_url must hold {service}";
    if (at != std::string::npos) sample.replace(at, std::strlen(name), value);
  }
  if (!parse_url(sample)) return "kubernetes.service_url must be an http or https URL";
  return {};
}

std::string instance_name(const InstanceSpec& spec) {
  std::string slug;
  for (const char c : spec.target->slug) {
    if (slug.size() == kSlugPart) break;
    if (is_lower_alnum(c) || (c == '-' && !slug.empty())) slug += c;
  }
  while (!slug.empty() && slug.back() == '-') slug.pop_back();
  std::string digested = spec.key;
  if (spec.generation > 0) digested += "#" + std::to_string(spec.generation);
  std::string out = "mcp-";
  if (!slug.empty()) out += slug + "-";
  return out + to_hex(sha256(digested)).substr(0, kDigestPart);
}

std::string secret_name(const InstanceSpec& spec) {
  std::string content;
  for (const auto& [name, value] : spec.env)
    content += std::to_string(name.size()) + ":" + name + std::to_string(value.size()) + ":" + value;
  // Keyed: whoever may list Secrets but not read them must not be able to try values.
  return instance_name(spec) + "-" + to_hex(hmac_sha256(spec.key, content)).substr(0, 10);
}

Json deployment_object(const InstanceSpec& spec, const KubernetesOptions& options, Time now) {
  const std::string name = instance_name(spec);
  const Json pod_labels = labels(spec);
  Json notes = {{kube::kKeyAnnotation, spec.key},
                {kube::kTargetName, spec.target->name},
                {kube::kTargetVersion, std::to_string(spec.target->version)},
                {kube::kGeneration, std::to_string(spec.generation)},
                {kube::kLastUsed, format_time(now)}};
  if (!spec.user_id.empty()) notes[kube::kUser] = spec.user_id;
  Json pod = {{"automountServiceAccountToken", false},
              {"enableServiceLinks", false},
              {"restartPolicy", "Always"},
              {"terminationGracePeriodSeconds", 10},
              {"securityContext", {{"runAsNonRoot", true}, {"seccompProfile", {{"type", "RuntimeDefault"}}}}},
              {"containers", Json::array({container(spec, options)})}};
  return {{"apiVersion", "apps/v1"},
          {"kind", "Deployment"},
          {"metadata",
           {{"name", name},
            {"namespace", options.name_space},
            {"labels", pod_labels},
            {"annotations", std::move(notes)}}},
          {"spec",
           {{"replicas", 1},
            {"revisionHistoryLimit", 0},
            {"progressDeadlineSeconds", std::max<std::int64_t>(options.start_timeout.count(), 30)},
            // Two pods of one instance would be two servers with one name: sessions live in one of them.
            {"strategy", {{"type", "Recreate"}}},
            {"selector", {{"matchLabels", {{kube::kInstanceLabel, name}}}}},
            {"template", {{"metadata", {{"labels", pod_labels}}}, {"spec", std::move(pod)}}}}}};
}

Json service_object(const InstanceSpec& spec, const KubernetesOptions& options,
                    const std::string& owner_uid) {
  const std::string name = instance_name(spec);
  return {{"apiVersion", "v1"},
          {"kind", "Service"},
          {"metadata", owned_metadata(spec, options, name, owner_uid)},
          {"spec",
           {{"type", "ClusterIP"},
            {"selector", {{kube::kInstanceLabel, name}}},
            {"ports", Json::array({{{"name", kPortName},
                                    {"port", spec.target->port},
                                    {"targetPort", kPortName},
                                    {"protocol", "TCP"}}})}}}};
}

Json secret_object(const InstanceSpec& spec, const KubernetesOptions& options, const std::string& owner_uid) {
  Json data = Json::object();
  for (const auto& [name, value] : spec.env) data[name] = base64(value);
  return {{"apiVersion", "v1"},
          {"kind", "Secret"},
          {"metadata", owned_metadata(spec, options, secret_name(spec), owner_uid)},
          {"type", "Opaque"},
          {"immutable", true},
          {"data", std::move(data)}};
}

std::string service_url(const InstanceSpec& spec, const KubernetesOptions& options) {
  std::string out = options.service_url;
  const auto put = [&out](std::string_view name, const std::string& value) {
    for (std::size_t at = 0; (at = out.find(name, at)) != std::string::npos; at += value.size())
      out.replace(at, name.size(), value);
  };
  put("{service}", instance_name(spec));
  put("{namespace}", options.name_space);
  put("{port}", std::to_string(spec.target->port));
  while (!out.empty() && out.back() == '/') out.pop_back();
  return out + "/mcp";
}

std::optional<PodInstance> read_instance(const Json& deployment) {
  if (text_at(deployment, {"metadata", "labels", kube::kManagedBy}) != "mcpgw") return std::nullopt;
  const auto note = [&](const char* name) { return text_at(deployment, {"metadata", "annotations", name}); };
  PodInstance out;
  out.name = text_at(deployment, {"metadata", "name"});
  out.uid = text_at(deployment, {"metadata", "uid"});
  out.resource_version = text_at(deployment, {"metadata", "resourceVersion"});
  out.key = note(kube::kKeyAnnotation);
  out.target_id = text_at(deployment, {"metadata", "labels", kube::kTargetLabel});
  out.user_id = note(kube::kUser);
  const auto created = parse_time(text_at(deployment, {"metadata", "creationTimestamp"}));
  const auto generation = to_int(note(kube::kGeneration));
  if (out.name.empty() || out.uid.empty() || out.key.size() != 64 || !created || !generation)
    return std::nullopt;
  out.generation = *generation;
  out.created = *created;
  out.last_used = parse_time(note(kube::kLastUsed)).value_or(*created);
  const std::string version = note(kube::kTargetVersion);
  std::from_chars(version.data(), version.data() + version.size(), out.target_version);
  if (const std::string at = note(kube::kRetiredAt); !at.empty())
    out.retired_at = parse_time(at).value_or(*created);
  out.retired_because = note(kube::kRetiredWhy);
  out.deleting = !text_at(deployment, {"metadata", "deletionTimestamp"}).empty();
  return out;
}

StartState start_state(const Json& deployment, const std::vector<Json>& pods) {
  StartState best = starting("its pod has not been made yet");
  bool any = false;
  const auto made = parse_time(text_at(deployment, {"metadata", "creationTimestamp"}));
  for (const Json& pod : pods) {
    if (!text_at(pod, {"metadata", "deletionTimestamp"}).empty()) continue;
    // Left over from a Deployment of that name that somebody else has deleted.
    const auto created = parse_time(text_at(pod, {"metadata", "creationTimestamp"}));
    if (made && created && *created < *made) continue;
    StartState state = pod_state(pod);
    if (state.phase == StartState::Phase::ready) return state;
    if (!any || state.phase == StartState::Phase::failed) best = std::move(state);
    any = true;
  }
  if (any) return best;
  // No pod: the cluster refuses to make one (quota, admission), which only the Deployment tells.
  for (const Json& condition : array_at(deployment, {"status", "conditions"}))
    if (condition_is(condition, "ReplicaFailure", "True"))
      return failed(with_message("the cluster refuses its pod", condition));
  return best;
}

}  // namespace mcpgw::detail
