// The kinds that the gateway and the simulated cluster write, as the published OpenAPI of Kubernetes (apps/v1, v1,
// coordination.k8s.io/v1) has them, as far as they are used here: an unknown member is an error, as with
// fieldValidation=Strict. `*` marks what is required.
const list = (of) => ({ list: of });
const map = (of) => ({ map: of });
const object = (members) => ({ members });

const OwnerReference = object({ '*apiVersion': 'string', '*kind': 'string', '*name': 'string', '*uid': 'string',
  controller: 'boolean', blockOwnerDeletion: 'boolean' });
const ObjectMeta = object({
  name: 'string', namespace: 'string', uid: 'string', resourceVersion: 'string', generation: 'integer',
  creationTimestamp: 'time', deletionTimestamp: 'time', deletionGracePeriodSeconds: 'integer', generateName: 'string',
  labels: map('string'), annotations: map('string'), ownerReferences: list(OwnerReference), finalizers: list('string'),
  managedFields: list('any'), selfLink: 'string',
});
const LabelSelector = object({ matchLabels: map('string'), matchExpressions: list('any') });
const ResourceRequirements = object({ limits: map('quantity'), requests: map('quantity'), claims: list('any') });
const Port = 'intOrString';
const Probe = object({
  exec: object({ command: list('string') }),
  httpGet: object({ path: 'string', '*port': Port, host: 'string', scheme: ['HTTP', 'HTTPS'], httpHeaders: list('any') }),
  tcpSocket: object({ '*port': Port, host: 'string' }), grpc: 'any', initialDelaySeconds: 'integer', timeoutSeconds: 'integer',
  periodSeconds: 'integer', successThreshold: 'integer', failureThreshold: 'integer', terminationGracePeriodSeconds: 'integer',
});
const seccomp = object({ '*type': ['RuntimeDefault', 'Unconfined', 'Localhost'], localhostProfile: 'string' });
const SecurityContext = object({
  allowPrivilegeEscalation: 'boolean', privileged: 'boolean', runAsNonRoot: 'boolean', readOnlyRootFilesystem: 'boolean',
  runAsUser: 'integer', runAsGroup: 'integer', procMount: 'string', seccompProfile: seccomp,
  capabilities: object({ add: list('string'), drop: list('string') }),
});
const Container = object({
  '*name': 'label', image: 'string', command: list('string'), args: list('string'), workingDir: 'string',
  ports: list(object({ name: 'label', hostPort: 'integer', '*containerPort': 'port', protocol: ['TCP', 'UDP', 'SCTP'], hostIP: 'string' })),
  envFrom: list(object({ prefix: 'string', secretRef: object({ name: 'string', optional: 'boolean' }),
    configMapRef: object({ name: 'string', optional: 'boolean' }) })),
  env: list(object({ '*name': 'string', value: 'string', valueFrom: 'any' })),
  resources: ResourceRequirements, volumeMounts: list('any'), livenessProbe: Probe, readinessProbe: Probe, startupProbe: Probe,
  lifecycle: 'any', terminationMessagePath: 'string', terminationMessagePolicy: ['File', 'FallbackToLogsOnError'],
  imagePullPolicy: ['Always', 'Never', 'IfNotPresent'], securityContext: SecurityContext, stdin: 'boolean', tty: 'boolean',
});
const PodSpec = object({
  '*containers': list(Container), initContainers: list(Container), volumes: list('any'), restartPolicy: ['Always', 'OnFailure', 'Never'],
  terminationGracePeriodSeconds: 'integer', activeDeadlineSeconds: 'integer', dnsPolicy: 'string', nodeSelector: map('string'),
  serviceAccountName: 'string', serviceAccount: 'string', automountServiceAccountToken: 'boolean', enableServiceLinks: 'boolean',
  nodeName: 'string', schedulerName: 'string', tolerations: list('any'), priority: 'integer', preemptionPolicy: 'string',
  securityContext: object({ runAsNonRoot: 'boolean', runAsUser: 'integer', runAsGroup: 'integer', fsGroup: 'integer', seccompProfile: seccomp }),
  imagePullSecrets: list(object({ name: 'string' })),
});
const condition = object({ '*type': 'string', '*status': ['True', 'False', 'Unknown'], reason: 'string', message: 'string',
  lastTransitionTime: 'time', lastUpdateTime: 'time', lastProbeTime: 'time', observedGeneration: 'integer' });
const ContainerState = object({
  waiting: object({ reason: 'string', message: 'string' }), running: object({ startedAt: 'time' }),
  terminated: object({ '*exitCode': 'integer', signal: 'integer', reason: 'string', message: 'string', startedAt: 'time', finishedAt: 'time', containerID: 'string' }),
});

export const KINDS = {
  deployments: {
    kind: 'Deployment', apiVersion: 'apps/v1', name: 'subdomain', status: true,
    schema: object({
      '*apiVersion': 'string', '*kind': 'string', '*metadata': ObjectMeta,
      '*spec': object({
        replicas: 'integer', '*selector': LabelSelector, '*template': object({ metadata: ObjectMeta, '*spec': PodSpec }),
        strategy: object({ type: ['Recreate', 'RollingUpdate'], rollingUpdate: 'any' }), minReadySeconds: 'integer',
        revisionHistoryLimit: 'integer', paused: 'boolean', progressDeadlineSeconds: 'integer',
      }),
      status: object({ observedGeneration: 'integer', replicas: 'integer', updatedReplicas: 'integer', readyReplicas: 'integer',
        availableReplicas: 'integer', unavailableReplicas: 'integer', conditions: list(condition), collisionCount: 'integer' }),
    }),
  },
  pods: {
    kind: 'Pod', apiVersion: 'v1', name: 'subdomain', status: true,
    schema: object({
      '*apiVersion': 'string', '*kind': 'string', '*metadata': ObjectMeta, '*spec': PodSpec,
      status: object({
        phase: ['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'], conditions: list(condition), message: 'string', reason: 'string',
        podIP: 'string', hostIP: 'string', startTime: 'time', qosClass: 'string',
        containerStatuses: list(object({ '*name': 'string', '*ready': 'boolean', '*restartCount': 'integer', '*image': 'string',
          '*imageID': 'string', containerID: 'string', started: 'boolean', state: ContainerState, lastState: ContainerState })),
      }),
    }),
  },
  services: {
    kind: 'Service', apiVersion: 'v1', name: 'rfc1035',
    schema: object({
      '*apiVersion': 'string', '*kind': 'string', '*metadata': ObjectMeta,
      spec: object({
        type: ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'], selector: map('string'), clusterIP: 'string',
        clusterIPs: list('string'), ipFamilies: list('string'), ipFamilyPolicy: 'string', internalTrafficPolicy: 'string',
        ports: list(object({ name: 'label', '*port': 'port', targetPort: Port, protocol: ['TCP', 'UDP', 'SCTP'], nodePort: 'integer', appProtocol: 'string' })),
        sessionAffinity: ['None', 'ClientIP'], publishNotReadyAddresses: 'boolean',
      }),
      status: 'any',
    }),
  },
  secrets: {
    kind: 'Secret', apiVersion: 'v1', name: 'subdomain',
    schema: object({ '*apiVersion': 'string', '*kind': 'string', '*metadata': ObjectMeta, type: 'string', immutable: 'boolean',
      data: map('base64'), stringData: map('string') }),
  },
  leases: {
    kind: 'Lease', apiVersion: 'coordination.k8s.io/v1', name: 'subdomain',
    schema: object({
      '*apiVersion': 'string', '*kind': 'string', '*metadata': ObjectMeta,
      spec: object({ holderIdentity: 'string', leaseDurationSeconds: 'positive', acquireTime: 'microtime', renewTime: 'microtime', leaseTransitions: 'integer' }),
    }),
  },
};
export const DeleteOptions = object({ apiVersion: 'string', kind: 'string', gracePeriodSeconds: 'integer', dryRun: list('string'),
  propagationPolicy: ['Orphan', 'Background', 'Foreground'], preconditions: object({ uid: 'string', resourceVersion: 'string' }) });

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const PLAIN = {
  any: () => true,
  string: (v) => typeof v === 'string',
  boolean: (v) => typeof v === 'boolean',
  integer: (v) => Number.isSafeInteger(v),
  positive: (v) => Number.isSafeInteger(v) && v > 0,
  port: (v) => Number.isInteger(v) && v > 0 && v < 65536,
  intOrString: (v) => Number.isInteger(v) || (typeof v === 'string' && label.test(v)),
  time: (v) => typeof v === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$/.test(v),
  microtime: (v) => typeof v === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$/.test(v),
  quantity: (v) => typeof v === 'string' && /^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]+)?$/.test(v),
  label: (v) => typeof v === 'string' && label.test(v),
  base64: (v) => typeof v === 'string' && Buffer.from(v, 'base64').toString('base64') === v,
};

/** What is wrong with `value`, as texts. */
export function faults(value, schema, path = '') {
  if (typeof schema === 'string') return PLAIN[schema](value) ? [] : [`${path}: Invalid value: ${JSON.stringify(value)}: must be ${schema}`];
  if (Array.isArray(schema)) return schema.includes(value) ? [] : [`${path}: Unsupported value: ${JSON.stringify(value)}`];
  if (schema.list) return Array.isArray(value) ? value.flatMap((one, i) => faults(one, schema.list, `${path}[${i}]`)) : [`${path}: must be a list`];
  if (!isObject(value)) return [`${path}: must be an object`];
  if (schema.map) return Object.entries(value).flatMap(([name, one]) => faults(one, schema.map, `${path}[${name}]`));
  const out = [];
  for (const name of Object.keys(schema.members))
    if (name[0] === '*' && value[name.slice(1)] === undefined) out.push(`${path}.${name.slice(1)}: Required value`);
  for (const [name, one] of Object.entries(value)) {
    const known = schema.members[name] ?? schema.members[`*${name}`];
    if (!known) out.push(`unknown field "${`${path}.${name}`.slice(1)}"`);
    else out.push(...faults(one, known, `${path}.${name}`));
  }
  return out;
}

/** Rules beyond types. */
export function furtherFaults(resource, value) {
  const out = [];
  const { name } = value.metadata;
  const good = { subdomain: name.length <= 253 && subdomain.test(name), rfc1035: name.length <= 63 && /^[a-z]/.test(name) && label.test(name) };
  if (!good[KINDS[resource].name]) out.push(`metadata.name: Invalid value: "${name}"`);
  const checkLabels = (labels, where) => {
    for (const [key, text] of Object.entries(labels ?? {})) {
      const slash = key.lastIndexOf('/');
      const prefix = slash < 0 ? 'a' : key.slice(0, slash);
      if (prefix.length > 253 || !subdomain.test(prefix) || !/^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/.test(key.slice(slash + 1)))
        out.push(`${where}: Invalid value: "${key}"`);
      if (!/^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/.test(text)) out.push(`${where}: Invalid value: "${text}"`);
    }
  };
  checkLabels(value.metadata.labels, 'metadata.labels');
  if (Object.entries(value.metadata.annotations ?? {}).reduce((n, [k, v]) => n + k.length + v.length, 0) > 256 * 1024)
    out.push('metadata.annotations: Too long');
  const containers = (value.spec?.template?.spec ?? (resource === 'pods' ? value.spec : undefined))?.containers;
  if (containers?.length === 0) out.push('spec.containers: Required value');
  for (const container of containers ?? []) {
    if (!container.image) out.push('spec.containers.image: Required value');
    const names = new Set((container.ports ?? []).map((port) => port.name));
    const probe = container.readinessProbe;
    if (probe && [probe.exec, probe.httpGet, probe.tcpSocket, probe.grpc].filter(Boolean).length !== 1)
      out.push('readinessProbe: must specify one handler');
    for (const port of [probe?.httpGet?.port, probe?.tcpSocket?.port])
      if (typeof port === 'string' && !names.has(port)) out.push(`readinessProbe.port: no port is named "${port}"`);
    for (const [resourceName, quantity] of Object.entries(container.resources?.requests ?? {}))
      if (amount(quantity) > amount(container.resources?.limits?.[resourceName] ?? 'Infinity')) out.push('resources.requests: must be less than or equal to the limit');
  }
  if (resource === 'deployments') {
    const { selector, template, strategy } = value.spec;
    checkLabels(template.metadata?.labels, 'spec.template.metadata.labels');
    if (Object.keys(selector.matchLabels ?? {}).length === 0) out.push('spec.selector: Required value');
    for (const [key, text] of Object.entries(selector.matchLabels ?? {}))
      if (template.metadata?.labels?.[key] !== text) out.push('spec.template.metadata.labels: `selector` does not match template `labels`');
    if (strategy?.type === 'Recreate' && strategy.rollingUpdate) out.push('spec.strategy.rollingUpdate: Forbidden');
    if ((template.spec.restartPolicy ?? 'Always') !== 'Always') out.push('spec.template.spec.restartPolicy: Unsupported value');
  }
  if (resource === 'services') {
    if (!value.spec?.ports?.length) out.push('spec.ports: Required value');
  }
  if (resource === 'secrets')
    for (const key of Object.keys(value.data ?? {})) if (!/^[-._a-zA-Z0-9]{1,253}$/.test(key)) out.push(`data: Invalid key "${key}"`);
  return out;
}

function amount(quantity) {
  if (quantity === 'Infinity') return Infinity;
  const [, number, suffix] = /^([0-9.]+)(.*)$/.exec(quantity);
  const scale = { '': 1, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3, Ti: 1024 ** 4 };
  return Number(number) * (scale[suffix] ?? 1);
}
