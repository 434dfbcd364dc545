// The objects of an instance as they are sent, their names, and what is read from the cluster's.
#include "kubernetes/kube_objects.hpp"

#include <doctest/doctest.h>

#include "base/text.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

const std::string kKey(64, 'a');
constexpr const char* kTargetId = "0b9a8f0e-3a52-4d0c-9d6f-2f6f0c1d2e3f";

InstanceSpec spec_of(std::string slug = "github") {
  auto target = std::make_shared<Target>();
  target->id = kTargetId;
  target->name = "GitHub \"tools\" é";
  target->slug = std::move(slug);
  target->transport_type = TransportType::kubernetes;
  target->image = "registry.example/team/server:1.2";
  target->command = "serve";
  target->args = {"--port", "9000"};
  target->port = 9000;
  target->health_path = "/healthz";
  target->version = 7;
  InstanceSpec spec;
  spec.key = kKey;
  spec.target = target;
  spec.env = {{"API_KEY", "s3cret-value"}, {"MODE", "x"}};
  return spec;
}

KubernetesOptions options_of() {
  KubernetesOptions options;
  options.name_space = "mcp";
  return options;
}

Time time_of(const char* text) { return *parse_time(text); }

Json pod_with(const char* state, const char* name = "p") {
  return Json::parse(R"({"metadata":{"name":")" + std::string(name) +
                     R"("},"status":{"phase":"Pending","containerStatuses":[)" + state + "]}}");
}

}  // namespace

TEST_CASE("R12, R74: names are DNS labels that keep the digest, whatever the slug is") {
  const std::string digest = to_hex(sha256(kKey)).substr(0, 32);
  CHECK(instance_name(spec_of("github")) == "mcp-github-" + digest);
  CHECK(instance_name(spec_of("a-very-long-name-of-a-server-that-goes-on")) ==
        "mcp-a-very-long-name-of-" + digest);
  CHECK(instance_name(spec_of("")) == "mcp-" + digest);
  CHECK(instance_name(spec_of("---")) == "mcp-" + digest);
  for (const char* slug : {"0", "9-lives", "-x-", "a", "abcdefghijklmnopqrst-uvw", "ABC"}) {
    INFO(slug);
    const std::string name = instance_name(spec_of(slug));
    CHECK(is_dns_label(name));
    CHECK(name.size() <= 57);
    CHECK(name.substr(name.size() - 32) == digest);
  }
  InstanceSpec next = spec_of();
  next.generation = 1;
  CHECK(instance_name(next) != instance_name(spec_of()));
  InstanceSpec other = spec_of();
  other.key = std::string(64, 'b');
  CHECK(instance_name(other) != instance_name(spec_of()));
}

TEST_CASE("the name of a Secret follows its content, and tells nothing of it") {
  InstanceSpec changed = spec_of();
  changed.env["MODE"] = "y";
  CHECK(secret_name(changed) != secret_name(spec_of()));
  InstanceSpec moved = spec_of();
  moved.env = {{"API_KEY", "s3cret-valueMODE"}, {"x", ""}};
  CHECK(secret_name(moved) != secret_name(spec_of()));
  InstanceSpec elsewhere = spec_of();
  elsewhere.key = std::string(64, 'b');
  CHECK(secret_name(elsewhere).substr(secret_name(elsewhere).size() - 10) !=
        secret_name(spec_of()).substr(secret_name(spec_of()).size() - 10));
}

TEST_CASE("R72: the Deployment, member by member") {
  const std::string name = instance_name(spec_of());
  const Json labels = {{"app.kubernetes.io/managed-by", "mcpgw"},
                       {"app.kubernetes.io/name", "mcp-server"},
                       {"mcpgw.dev/instance", name},
                       {"mcpgw.dev/target", kTargetId}};
  Json expected = Json::parse(R"({
    "apiVersion":"apps/v1","kind":"Deployment",
    "metadata":{"namespace":"mcp","annotations":{
      "mcpgw.dev/target-name":"GitHub \"tools\" é","mcpgw.dev/target-version":"7","mcpgw.dev/generation":"0",
      "mcpgw.dev/last-used":"2026-01-02T03:04:05.000000Z"}},
    "spec":{"replicas":1,"revisionHistoryLimit":0,"progressDeadlineSeconds":120,"strategy":{"type":"Recreate"},
      "selector":{"matchLabels":{}},
      "template":{"metadata":{},"spec":{
        "automountServiceAccountToken":false,"enableServiceLinks":false,"restartPolicy":"Always",
        "terminationGracePeriodSeconds":10,
        "securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},
        "containers":[{"name":"server","image":"registry.example/team/server:1.2","command":["serve"],
          "args":["--port","9000"],
          "ports":[{"name":"mcp","containerPort":9000,"protocol":"TCP"}],
          "envFrom":[{"secretRef":{}}],
          "readinessProbe":{"periodSeconds":1,"timeoutSeconds":2,"failureThreshold":3,
            "httpGet":{"path":"/healthz","port":"mcp","scheme":"HTTP"}},
          "resources":{"requests":{"cpu":"50m","memory":"64Mi"},"limits":{"cpu":"1","memory":"512Mi"}},
          "securityContext":{"allowPrivilegeEscalation":false,"privileged":false,"runAsNonRoot":true,
            "capabilities":{"drop":["ALL"]}}}]}}}})");
  expected["metadata"]["name"] = name;
  expected["metadata"]["labels"] = labels;
  expected["metadata"]["annotations"]["mcpgw.dev/key"] = kKey;
  expected["spec"]["selector"]["matchLabels"]["mcpgw.dev/instance"] = name;
  expected["spec"]["template"]["metadata"]["labels"] = labels;
  expected["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"] =
      secret_name(spec_of());
  const Json made = deployment_object(spec_of(), options_of(), time_of("2026-01-02T03:04:05Z"));
  CHECK(made == expected);
  CHECK(made.dump().find("s3cret") == std::string::npos);
}

TEST_CASE("what a target does not say is left to the image, and what the configuration says is taken") {
  InstanceSpec spec = spec_of();
  auto target = std::make_shared<Target>(*spec.target);
  target->command.clear();
  target->args.clear();
  target->health_path.clear();
  spec.target = target;
  spec.env.clear();
  KubernetesOptions options = options_of();
  options.limits = {{"memory", "1Gi"}};
  const Json made = deployment_object(spec, options, Time{});
  const Json& container = made["spec"]["template"]["spec"]["containers"][0];
  CHECK_FALSE(container.contains("command"));
  CHECK_FALSE(container.contains("args"));
  CHECK_FALSE(container.contains("envFrom"));
  CHECK(container["readinessProbe"]["tcpSocket"] == Json{{"port", "mcp"}});
  CHECK_FALSE(container["readinessProbe"].contains("httpGet"));
  CHECK(container["resources"] == Json{{"limits", {{"memory", "1Gi"}}}});
}

TEST_CASE("Service and Secret belong to the Deployment") {
  const std::string name = instance_name(spec_of());
  const Json owner =
      Json::array({{{"apiVersion", "apps/v1"}, {"kind", "Deployment"}, {"name", name}, {"uid", "u-1"}}});
  const Json service = service_object(spec_of(), options_of(), "u-1");
  CHECK(service["metadata"]["ownerReferences"] == owner);
  CHECK(service["metadata"]["name"] == name);
  CHECK(service["spec"] ==
        Json::parse(R"({"type":"ClusterIP","selector":{"mcpgw.dev/instance":")" + name +
                    R"("},"ports":[{"name":"mcp","port":9000,"targetPort":"mcp","protocol":"TCP"}]})"));
  const Json secret = secret_object(spec_of(), options_of(), "u-1");
  CHECK(secret["metadata"]["ownerReferences"] == owner);
  CHECK(secret["metadata"]["name"] == secret_name(spec_of()));
  CHECK(secret["type"] == "Opaque");
  CHECK(secret["immutable"] == true);
  CHECK(secret["data"] == Json{{"API_KEY", base64("s3cret-value")}, {"MODE", base64("x")}});
  CHECK(service_url(spec_of(), options_of()) == "http://" + name + ".mcp.svc:9000/mcp");
  KubernetesOptions through = options_of();
  through.service_url = "http://127.0.0.1:1/svc/{namespace}/{service}/{port}/";
  CHECK(service_url(spec_of(), through) == "http://127.0.0.1:1/svc/mcp/" + name + "/9000/mcp");
}

TEST_CASE("options that would do harm are refused") {
  CHECK(kubernetes_fault(options_of()).empty());
  const auto with = [](auto change) {
    KubernetesOptions options = options_of();
    change(options);
    return kubernetes_fault(options);
  };
  for (const char* bad : {"", "Mcp", "a/b", "-a", "a.b", "../x"})
    CHECK(with([&](auto& o) { o.name_space = bad; }).find("kubernetes.namespace") == 0);
  for (const char* bad : {"http://svc", "{service}", "ftp://{service}", "http://{service}:x"})
    CHECK(with([&](auto& o) { o.service_url = bad; }).find("kubernetes.service_url") == 0);
  for (const char* bad : {"", "m", "1 Gi", "-1", "1.2.3", "1Q", "1e", "1e999"})
    CHECK(with([&](auto& o) { o.limits["cpu"] = bad; }).find("kubernetes.resources") == 0);
  for (const char* good : {"1", "500m", "0.5", "64Mi", "1e3", "2E2", "4Ei"})
    CHECK(with([&](auto& o) { o.requests["cpu"] = good; }).empty());
}

TEST_CASE("a Deployment is read back; what is not ours, or is damaged, is not") {
  Json object = deployment_object(spec_of(), options_of(), time_of("2026-01-02T03:04:05Z"));
  object["metadata"]["uid"] = "u-1";
  object["metadata"]["resourceVersion"] = "5";
  CHECK_FALSE(read_instance(object));  // without a time of creation
  object["metadata"]["creationTimestamp"] = "2026-01-02T03:00:00Z";
  const auto record = read_instance(object);
  REQUIRE(record);
  CHECK(record->name == instance_name(spec_of()));
  CHECK(record->key == kKey);
  CHECK(record->target_id == kTargetId);
  CHECK(record->target_version == 7);
  CHECK(record->generation == 0);
  CHECK(record->last_used == time_of("2026-01-02T03:04:05Z"));
  CHECK_FALSE(record->retired());
  Json retired = object;
  retired["metadata"]["annotations"]["mcpgw.dev/retired-at"] = "2026-01-02T04:00:00Z";
  CHECK(read_instance(retired)->retired());
  retired["metadata"]["annotations"]["mcpgw.dev/retired-at"] = "soon";  // a damaged mark is a mark
  CHECK(read_instance(retired)->retired());
  Json deleting = object;
  deleting["metadata"]["deletionTimestamp"] = "2026-01-02T04:00:00Z";
  CHECK(read_instance(deleting)->retired());
  for (const char* annotation : {"mcpgw.dev/key", "mcpgw.dev/generation"}) {
    Json damaged = object;
    damaged["metadata"]["annotations"][annotation] = "x";
    CHECK_FALSE(read_instance(damaged));
  }
  Json foreign = object;
  foreign["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm";
  CHECK_FALSE(read_instance(foreign));
  for (const char* text : {"null", "[]", "{}", R"({"metadata":[]})", R"({"metadata":{"labels":5}})"})
    CHECK_FALSE(read_instance(Json::parse(text)));
}

TEST_CASE("why an instance is not ready is told by its pods") {
  const Json deployment = Json::object();
  using Phase = StartState::Phase;
  const auto state = [&](const char* container) { return start_state(deployment, {pod_with(container)}); };
  CHECK(start_state(deployment, {}).phase == Phase::starting);

  auto pull = state(
      R"({"state":{"waiting":{"reason":"ImagePullBackOff","message":"Back-off pulling image \"x\""}}})");
  CHECK(pull.phase == Phase::failed);
  CHECK(pull.cause == "the image cannot be pulled (ImagePullBackOff): Back-off pulling image \"x\"");
  CHECK(state(R"({"state":{"waiting":{"reason":"InvalidImageName"}}})").phase == Phase::failed);
  CHECK(state(R"({"state":{"waiting":{"reason":"ErrImagePull","message":"m"}}})") ==
        StartState{Phase::starting, "the image cannot be pulled (ErrImagePull): m"});

  auto crash = state(
      R"({"restartCount":1,"state":{"waiting":{"reason":"CrashLoopBackOff"}},"lastState":{"terminated":{"exitCode":3,"reason":"Error"}}})");
  CHECK(crash == StartState{Phase::failed, "the container keeps ending (exit code 3)"});
  CHECK(
      state(
          R"({"restartCount":4,"state":{"running":{}},"lastState":{"terminated":{"exitCode":137,"reason":"OOMKilled"}}})") ==
      StartState{Phase::failed, "the container keeps ending (exit code 137, OOMKilled)"});
  CHECK(state(R"({"restartCount":1,"state":{"terminated":{"exitCode":1}}})").phase == Phase::starting);
  CHECK(
      state(
          R"({"state":{"waiting":{"reason":"CreateContainerConfigError","message":"container has runAsNonRoot and image will run as root"}}})")
          .phase == Phase::failed);
  CHECK(
      state(
          R"({"state":{"waiting":{"reason":"CreateContainerConfigError","message":"secret \"s\" not found"}}})")
          .phase == Phase::starting);
  CHECK(state(R"({"state":{"running":{}}})").phase == Phase::starting);

  const Json unschedulable = Json::parse(
      R"({"metadata":{"name":"p"},"status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/3 nodes"}]}})");
  CHECK(start_state(deployment, {unschedulable}) ==
        StartState{Phase::starting, "the cluster has no room for it: 0/3 nodes"});
  const Json ready =
      Json::parse(R"({"metadata":{"name":"q"},"status":{"conditions":[{"type":"Ready","status":"True"}]}})");
  CHECK(start_state(deployment, {unschedulable, ready}).phase == Phase::ready);
  Json leaving = ready;
  leaving["metadata"]["deletionTimestamp"] = "2026-01-02T04:00:00Z";
  CHECK(start_state(deployment, {leaving}).phase == Phase::starting);
  Json dated = Json::parse(R"({"metadata":{"creationTimestamp":"2026-01-02T03:04:05Z"}})"), older = ready;
  older["metadata"]["creationTimestamp"] = "2026-01-02T03:04:04Z";
  CHECK(start_state(dated, {older}).phase == Phase::starting);  // of one before, of the same name
  CHECK(start_state(dated, {older, unschedulable}).cause == "the cluster has no room for it: 0/3 nodes");
  older["metadata"]["creationTimestamp"] = "2026-01-02T03:04:05Z";
  CHECK(start_state(dated, {older}).phase == Phase::ready);
  const Json refused = Json::parse(
      R"({"status":{"conditions":[{"type":"ReplicaFailure","status":"True","message":"exceeded quota: pods=10"}]}})");
  CHECK(start_state(refused, {}) ==
        StartState{Phase::failed, "the cluster refuses its pod: exceeded quota: pods=10"});
  CHECK(start_state(refused, {ready}).phase == Phase::ready);
  // Damaged objects say nothing, and break nothing.
  for (const char* text : {"null", "5", "[]", R"({"status":[]})", R"({"status":{"containerStatuses":[5]}})",
                           R"({"status":{"conditions":[[]]}})"})
    CHECK(start_state(deployment, {Json::parse(text)}).phase == Phase::starting);
}

TEST_CASE("texts of the cluster are one line, and bounded") {
  CHECK(for_people("a\nb\tc\x01") == "a b c?");
  CHECK(for_people(std::string(1000, 'x')).size() == 303);
}
