"""The Helm chart as Helm renders it: each object as Kubernetes would take it, what must hold of it, what is refused, and the
real program on the configuration that comes out. Usage: MCPGW=.../mcpgw python -m unittest chart_test"""

import copy
import http.client
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import helm_python
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "apps/packaging/helm/mcpgw"
MANIFESTS = ROOT / "docs/kubernetes"
VERSIONS = ("1.25.0", "1.37.0")  # the oldest that the chart takes, and the newest whose schemas there are

SHARED = {"database": {"existingSecret": "mcpgw-database"}, "keys": {"existingSecret": "mcpgw-keys"}}
REPLICAS = {"replicas": 3, **SHARED}
PODS = {"kubernetes": {"enabled": True}}
CASES = {
    "default": {},
    "keys of a Secret": {"keys": {"existingSecret": "mcpgw-keys"}},
    "replicas": REPLICAS,
    "one over PostgreSQL": SHARED,
    "pods": PODS,
    "replicas with pods and network policies": {**REPLICAS, **PODS, "networkPolicy": {"enabled": True}},
    "everything": {
        **REPLICAS, **PODS,
        "image": {"repository": "registry.example/mcpgw", "digest": "sha256:" + "a1" * 32, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "config": {"server": {"public_url": "https://mcp.example", "trusted_proxies": ["10.0.0.0/8"]}, "auth": {"registration": "closed"}},
        "serviceAccount": {"name": "gateway", "annotations": {"example.org/role": "a"}},
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"example.org/lb": "b"}},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
        "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]},
        "resources": {"limits": {"cpu": "2", "memory": "2Gi"}},
        "terminationGracePeriodSeconds": 120,
        "extraEnv": [{"name": "MCPGW_LOGGING_LEVEL", "value": "debug"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
        "podAnnotations": {"example.org/scrape": "true"},
        "podLabels": {"team": "a", "app.kubernetes.io/name": "not-this"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    },
}


class StrictLoader(yaml.SafeLoader):
    """As Kubernetes reads YAML: a key that stands twice is an error."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise ValueError(f"a key stands twice: {keys}")
        return super().construct_mapping(node, deep)


def documents(text):
    return [one for one in yaml.load_all(text, StrictLoader) if one is not None]


def render(values, name="gw", namespace="tools"):
    """What Helm sends, by kind and name."""
    out = {}
    with helm_python.Chart.load(CHART) as chart:
        for file, text in chart.render(copy.deepcopy(values), name=name, namespace=namespace).items():
            if file.endswith(".yaml"):
                for one in documents(text):
                    key = (one["kind"], one["metadata"]["name"])
                    assert key not in out, key
                    out[key] = one
    return out


def kinds(objects):
    return sorted(kind for kind, _ in objects)


def of_kind(objects, kind):
    found = [one for (its, _), one in objects.items() if its == kind]
    assert len(found) == 1, (kind, found)
    return found[0]


def pod(objects):
    return of_kind(objects, "Deployment")["spec"]["template"]


def container(objects):
    (one,) = pod(objects)["spec"]["containers"]
    return one


def selects(selector, labels):
    return selector and all(labels.get(key) == value for key, value in selector.items())


RENDERED = {name: render(values) for name, values in CASES.items()}


class Objects(unittest.TestCase):
    def test_helm_finds_no_fault(self):
        for values in CASES.values():
            report = helm_python.lint(CHART, values, strict=True)
            self.assertEqual(report["errors"], [])
            self.assertEqual([one for one in report["messages"] if one["severity"] > 1], [])

    def test_kubernetes_takes_them(self):
        for name, objects in RENDERED.items():
            with self.subTest(name):
                for one in objects.values():
                    for version in VERSIONS:
                        kubernetes_validate.validate(one, version, strict=True)

    def test_the_schemas_refuse_what_is_wrong(self):
        for change in ({"replica": 1}, {"replicas": "three"}):
            deployment = of_kind(render({}), "Deployment")
            deployment["spec"].update(change)
            with self.assertRaises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)

    def test_they_stay_in_their_namespace(self):
        for name, objects in RENDERED.items():
            with self.subTest(name):
                for one in objects.values():
                    self.assertEqual(one["metadata"]["namespace"], "tools")
                    self.assertFalse(one["kind"].startswith("Cluster"))

    def test_no_secret_is_made_and_none_is_in_the_pod(self):
        for name, objects in RENDERED.items():
            with self.subTest(name):
                self.assertNotIn("Secret", kinds(objects))
                for entry in container(objects)["env"]:
                    self.assertFalse(re.search("SECRET|KEY|PASSWORD", entry["name"]) and "value" in entry, entry)

    def test_the_pod_may_nothing(self):
        for name, objects in RENDERED.items():
            with self.subTest(name):
                spec = pod(objects)["spec"]
                self.assertEqual({key: spec["securityContext"][key] for key in ("runAsNonRoot", "runAsUser", "seccompProfile")},
                                 {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}})
                self.assertEqual(container(objects)["securityContext"], {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
                for key in ("hostNetwork", "hostPID", "hostIPC"):
                    self.assertNotIn(key, spec)
                # What it writes to has a volume.
                mounts = {mount["mountPath"]: mount for mount in container(objects)["volumeMounts"]}
                env = {entry["name"]: entry.get("value") for entry in container(objects)["env"]}
                self.assertEqual(env["MCPGW_SERVER_DATA_DIR"], "/var/lib/mcpgw/data")
                self.assertIn("/var/lib/mcpgw", mounts)
                self.assertIn("/tmp", mounts)
                self.assertTrue(mounts["/etc/mcpgw"]["readOnly"])
                names = [volume["name"] for volume in spec["volumes"]]
                self.assertEqual(len(names), len(set(names)))
                self.assertLessEqual({mount["name"] for mount in mounts.values()}, set(names))

    def test_who_it_is_fits_the_image(self):
        dockerfile = (ROOT / "apps/packaging/Dockerfile").read_text()
        self.assertIn("USER 10001:10001\n", dockerfile)
        self.assertIn("EXPOSE 3000\n", dockerfile)
        command = json.loads(re.search(r"^CMD (\[.*\])$", dockerfile, re.M)[1])
        self.assertEqual(container(render({}))["args"], command)

    def test_versions_agree(self):
        version = re.search(r"project\(mcpgw VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))
        self.assertEqual(container(render({}))["image"], f"mcpgw:{version}")

    def test_probes(self):
        for name, objects in RENDERED.items():
            with self.subTest(name):
                one = container(objects)
                self.assertEqual({kind: one[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")},
                                 {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"})
                ports = {port["name"]: port["containerPort"] for port in one["ports"]}
                self.assertEqual(ports["http"], 3000)
                for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                    self.assertEqual((one[kind]["httpGet"]["port"], one[kind]["httpGet"]["scheme"]), ("http", "HTTP"))
        tls = render({"config": {"server": {"tls": {"cert": "/tls/tls.crt", "key": "/tls/tls.key"}}}})
        self.assertEqual(container(tls)["readinessProbe"]["httpGet"]["scheme"], "HTTPS")

    def test_selectors_find_the_gateways_pods_and_no_others(self):
        for name, objects in RENDERED.items():
            with self.subTest(name):
                labels = pod(objects)["metadata"]["labels"]
                others = pod(render({}, name="other"))["metadata"]["labels"]
                deployment = of_kind(objects, "Deployment")
                # The gateway takes what has this label for its own instances, and removes what nobody uses.
                self.assertNotEqual(deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"], "mcpgw")
                self.assertNotEqual(labels["app.kubernetes.io/managed-by"], "mcpgw")
                selectors = [deployment["spec"]["selector"]["matchLabels"], of_kind(objects, "Service")["spec"]["selector"]]
                if "PodDisruptionBudget" in kinds(objects):
                    selectors.append(of_kind(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
                for selector in selectors:
                    self.assertTrue(selects(selector, labels), selector)
                    self.assertFalse(selects(selector, others), selector)

    def test_sqlite_is_one_file_of_one_process(self):
        objects = render({})
        deployment = of_kind(objects, "Deployment")["spec"]
        self.assertEqual((deployment["replicas"], deployment["strategy"]), (1, {"type": "Recreate"}))
        claim = of_kind(objects, "PersistentVolumeClaim")
        self.assertEqual(claim["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
        data = next(volume for volume in pod(objects)["spec"]["volumes"] if volume["name"] == "data")
        self.assertEqual(data["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"])
        self.assertNotIn("PodDisruptionBudget", kinds(objects))
        mine = render({"persistence": {"existingClaim": "mine"}})
        self.assertNotIn("PersistentVolumeClaim", kinds(mine))
        data = next(volume for volume in pod(mine)["spec"]["volumes"] if volume["name"] == "data")
        self.assertEqual(data["persistentVolumeClaim"]["claimName"], "mine")

    def test_replicas_share_a_database_and_keys(self):
        objects = render(REPLICAS)
        deployment = of_kind(objects, "Deployment")["spec"]
        self.assertEqual(deployment["replicas"], 3)
        self.assertEqual(deployment["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1})
        self.assertNotIn("PersistentVolumeClaim", kinds(objects))
        env = {entry["name"]: entry for entry in container(objects)["env"]}
        self.assertEqual(env["MCPGW_DATABASE"]["valueFrom"]["secretKeyRef"], {"name": "mcpgw-database", "key": "url"})
        self.assertIn({"secretRef": {"name": "mcpgw-keys"}}, container(objects)["envFrom"])
        # They answer for one another.
        self.assertEqual(env["POD_IP"]["valueFrom"], {"fieldRef": {"fieldPath": "status.podIP"}})
        self.assertEqual(env["MCPGW_REPLICAS_HOST"]["value"], "$(POD_IP)")
        names = [entry["name"] for entry in container(objects)["env"]]
        self.assertLess(names.index("POD_IP"), names.index("MCPGW_REPLICAS_HOST"))  # else it is not put in
        self.assertIn({"name": "replicas", "containerPort": int(env["MCPGW_REPLICAS_PORT"]["value"]), "protocol": "TCP"}, container(objects)["ports"])
        self.assertFalse([entry for entry in container(render({}))["env"] if "REPLICAS" in entry["name"]])
        self.assertEqual(of_kind(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1)
        (spread,) = pod(objects)["spec"]["topologySpreadConstraints"]
        self.assertEqual(spread["topologyKey"], "kubernetes.io/hostname")
        self.assertNotIn("PodDisruptionBudget", kinds(render({**REPLICAS, "podDisruptionBudget": {"enabled": False}})))

    def test_a_changed_configuration_is_a_new_rollout(self):
        def sum_of(values):
            return pod(render(values))["metadata"]["annotations"]["checksum/config"]
        self.assertEqual(sum_of({}), sum_of({"replicas": 1}))
        self.assertNotEqual(sum_of({}), sum_of({"config": {"auth": {"registration": "closed"}}}))

    def test_what_is_given_arrives(self):
        objects = render(CASES["everything"])
        one = container(objects)
        self.assertEqual(one["image"], "registry.example/mcpgw@sha256:" + "a1" * 32)
        self.assertIn({"name": "MCPGW_LOGGING_LEVEL", "value": "debug"}, one["env"])
        self.assertEqual(one["envFrom"], [{"secretRef": {"name": "more"}}, {"secretRef": {"name": "mcpgw-keys"}}])
        self.assertEqual(pod(objects)["spec"]["serviceAccountName"], "gateway")
        self.assertEqual(of_kind(objects, "ServiceAccount")["metadata"]["name"], "gateway")
        self.assertEqual(pod(objects)["metadata"]["labels"]["team"], "a")
        self.assertEqual(pod(objects)["metadata"]["annotations"]["example.org/scrape"], "true")
        self.assertEqual(of_kind(objects, "Service")["spec"]["type"], "LoadBalancer")
        config = yaml.safe_load(of_kind(objects, "ConfigMap")["data"]["mcpgw.yaml"])
        self.assertEqual(config, {"server": {"public_url": "https://mcp.example", "trusted_proxies": ["10.0.0.0/8"]},
                                  "auth": {"registration": "closed"}, "stdio": {"enabled": False}})


class Rights(unittest.TestCase):
    def test_without_pods_there_are_none(self):
        objects = render({})
        self.assertNotIn("Role", kinds(objects))
        self.assertNotIn("RoleBinding", kinds(objects))
        self.assertFalse(pod(objects)["spec"]["automountServiceAccountToken"])
        self.assertFalse(of_kind(objects, "ServiceAccount")["automountServiceAccountToken"])

    def test_with_pods_they_are_those_of_the_manifests(self):
        written = {one["kind"]: one for one in documents((MANIFESTS / "rbac.yaml").read_text())}
        objects = render(PODS)
        role, binding = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")
        self.assertEqual(role["rules"], written["Role"]["rules"])
        self.assertEqual(binding["roleRef"], {**written["RoleBinding"]["roleRef"], "name": role["metadata"]["name"]})
        account = of_kind(objects, "ServiceAccount")["metadata"]
        self.assertEqual(binding["subjects"], [{"kind": "ServiceAccount", "name": account["name"], "namespace": "tools"}])
        self.assertEqual(pod(objects)["spec"]["serviceAccountName"], account["name"])
        self.assertTrue(pod(objects)["spec"]["automountServiceAccountToken"])
        env = {entry["name"]: entry.get("value") for entry in container(objects)["env"]}
        self.assertEqual((env["MCPGW_KUBERNETES_ENABLED"], env["MCPGW_KUBERNETES_NAMESPACE"]), ("true", "tools"))

    def test_instances_are_called_by_the_gateway_alone(self):
        (written,) = documents((MANIFESTS / "networkpolicy.yaml").read_text())
        objects = render(CASES["replicas with pods and network policies"])
        instances = objects[("NetworkPolicy", "gw-mcpgw-instances")]["spec"]
        self.assertEqual(instances["podSelector"], written["spec"]["podSelector"])
        self.assertEqual(instances["policyTypes"], written["spec"]["policyTypes"])
        (rule,) = instances["ingress"]
        (peer,) = rule["from"]
        self.assertTrue(selects(peer["podSelector"]["matchLabels"], pod(objects)["metadata"]["labels"]))
        own = objects[("NetworkPolicy", "gw-mcpgw")]["spec"]
        self.assertTrue(selects(own["podSelector"]["matchLabels"], pod(objects)["metadata"]["labels"]))
        self.assertEqual(own["ingress"][0]["ports"], [{"port": "http", "protocol": "TCP"}])
        self.assertNotIn("from", own["ingress"][0])
        among = own["ingress"][1]
        self.assertEqual(among["ports"], [{"port": "replicas", "protocol": "TCP"}])
        self.assertTrue(selects(among["from"][0]["podSelector"]["matchLabels"], pod(objects)["metadata"]["labels"]))
        alone = render({"networkPolicy": {"enabled": True}})
        self.assertEqual(len(of_kind(alone, "NetworkPolicy")["spec"]["ingress"]), 1)
        named = render(CASES["everything"])[("NetworkPolicy", "gw-mcpgw")]["spec"]
        self.assertEqual(named["ingress"][0]["from"], CASES["everything"]["networkPolicy"]["from"])


class Refusals(unittest.TestCase):
    def refused(self, values, why):
        with self.subTest(values), self.assertRaises(helm_python.HelmError) as caught:
            render(values)
        self.assertRegex(str(caught.exception), why)

    def test_values_that_need_others(self):
        self.refused({"replicas": 2}, "set database.existingSecret")
        self.refused({"replicas": 2, "keys": SHARED["keys"]}, "set database.existingSecret")
        self.refused({"database": SHARED["database"]}, "keys.existingSecret")
        self.refused({"config": {"server": {"tls": {"client_ca": "/ca.pem"}}}}, "client_ca")

    def test_values_that_are_none(self):
        for values in ({"replica": 2}, {"replicas": 0}, {"replicas": "2"}, {"image": {"tags": "1"}}, {"image": {"digest": "sha256:1"}},
                       {"service": {"port": 0}}, {"service": {"type": "ExternalName"}}, {"persistence": {"size": "much"}},
                       {"keys": {"existingSecret": "Not A Name"}}, {"podDisruptionBudget": {"maxUnavailable": 0}}):
            self.refused(values, "specifications of the schema")

    def test_secrets_do_not_stand_in_values(self):
        for config in ({"jwt": {"secret": "hush"}}, {"encryption": {"key": "hush"}}, {"encryption": {"previous_keys": ["hush"]}},
                       {"auth": {"setup_token": "hush"}}, {"metrics": {"token": "hush"}}, {"database": {"password": "hush"}},
                       {"database": {"url": "postgres://u:hush@h/d"}}, {"upstream": {"proxy": "http://u:hush@proxy:3128"}}):
            self.refused({"config": config}, "specifications of the schema")
        self.refused({"extraEnv": [{"name": "MCPGW_JWT_SECRET", "value": "hush"}]}, "specifications of the schema")
        render({"config": {"metrics": {"token": "${METRICS_TOKEN}"}}, "extraEnvFrom": [{"secretRef": {"name": "metrics"}}]})

    def test_what_the_chart_itself_sets(self):
        for config in ({"server": {"port": 80}}, {"server": {"host": "::"}}, {"server": {"data_dir": "/x"}},
                       {"kubernetes": {"enabled": True}}, {"kubernetes": {"namespace": "other"}}, {"replicas": {"host": "::"}}):
            self.refused({"config": config}, "specifications of the schema")


class Manifests(unittest.TestCase):
    def test_kubernetes_takes_those_of_the_docs(self):
        for file in sorted(MANIFESTS.glob("*.yaml")):
            for one in documents(file.read_text()):
                for version in VERSIONS:
                    with self.subTest(file.name, kind=one["kind"], version=version):
                        kubernetes_validate.validate(one, version, strict=True)

    def test_what_is_stored_is_in_the_volume(self):
        deployment = next(one for one in documents((MANIFESTS / "gateway.yaml").read_text()) if one["kind"] == "Deployment")
        (one,) = deployment["spec"]["template"]["spec"]["containers"]
        directory = pathlib.PurePosixPath({entry["name"]: entry["value"] for entry in one["env"]}["MCPGW_SERVER_DATA_DIR"])
        data = next(mount["mountPath"] for mount in one["volumeMounts"] if mount["name"] == "data")
        # Below it: the volume's own directory belongs to root.
        self.assertIn(pathlib.PurePosixPath(data), directory.parents)


class Program(unittest.TestCase):
    def test_it_starts_with_what_the_chart_gives_it(self):
        for name in ("default", "keys of a Secret"):
            with self.subTest(name), tempfile.TemporaryDirectory() as directory:
                self.start(render(CASES[name]), pathlib.Path(directory))

    def start(self, objects, directory):
        config = directory / "mcpgw.yaml"
        config.write_text(of_kind(objects, "ConfigMap")["data"]["mcpgw.yaml"])
        volume = directory / "volume"
        volume.mkdir(mode=0o2775)  # as a cluster makes it
        given = {entry["name"]: entry["value"] for entry in container(objects)["env"]}
        given["MCPGW_SERVER_DATA_DIR"] = given["MCPGW_SERVER_DATA_DIR"].replace("/var/lib/mcpgw", str(volume))
        given |= {"MCPGW_SERVER_HOST": "127.0.0.1", "MCPGW_SERVER_PORT": "0"}
        if "envFrom" in container(objects):
            given |= {"MCPGW_JWT_SECRET": os.urandom(32).hex(), "MCPGW_ENCRYPTION_KEY": os.urandom(32).hex()}
        arguments = [str(config) if one == "/etc/mcpgw/mcpgw.yaml" else one for one in container(objects)["args"]]
        program = subprocess.Popen([os.environ["MCPGW"], *arguments], env=given, stderr=subprocess.PIPE, text=True)
        try:
            lines = []
            url = None
            for line in program.stderr:
                lines.append(line)
                if found := re.search(r'"url":"http://127\.0\.0\.1:(\d+)', line):
                    url = int(found[1])
                    break
            self.assertIsNotNone(url, "".join(lines))
            for path in ("/health", "/ready"):
                connection = http.client.HTTPConnection("127.0.0.1", url, timeout=60)
                connection.request("GET", path)
                self.assertEqual(connection.getresponse().status, 200)
                connection.close()
            self.assertTrue((volume / "data/mcpgw.db").exists())
            self.assertEqual((volume / "data/secrets.json").exists(), "MCPGW_JWT_SECRET" not in given)
        finally:
            program.terminate()
            program.stderr.close()
            self.assertEqual(program.wait(timeout=60), 0)


if __name__ == "__main__":
    unittest.main()
