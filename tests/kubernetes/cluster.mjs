// What makes a namespace live: one pod for each Deployment, whose container is a real program on loopback, the
// garbage collector of what is owned, and the way from a Service to its pod. An ordinary client of the API server,
// be that the double (api_server.mjs) or a real kube-apiserver without its controllers.
import http from 'node:http';
import { DEMO, start } from '../e2e/lib/gateway.mjs';
import { ask } from './ask.mjs';

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const stamp = () => new Date().toISOString().replace(/\.\d+Z/, 'Z');

/** What a container of an image does. `ready` may be a promise. */
export const IMAGES = {
  demo: {},
  slow: { slow: true },
  missing: { waiting: { reason: 'ImagePullBackOff', message: 'Back-off pulling image "registry.test/missing:1": not found' } },
  crashing: { restartCount: 2, waiting: { reason: 'CrashLoopBackOff', message: 'back-off 10s restarting failed container' },
    last: { exitCode: 7, reason: 'Error' } },
  root: { waiting: { reason: 'CreateContainerConfigError', message: 'container has runAsNonRoot and image will run as root' } },
  huge: { unschedulable: '0/3 nodes are available: 3 Insufficient memory.', after: 1000 },
  forbidden: { refused: 'pods "x" is forbidden: exceeded quota: small, requested: pods=1' },
};

export class Cluster {
  #pods = new Map();  // uid of the pod -> {program, port, env}
  #ending = new Set();  // programs that have been told to
  #stopped = false;
  #release = () => {};
  #released = Promise.resolve();
  lingering = false;  // pods whose owner is gone, or on its way out, take their time
  calls = new Set();  // tools/call that pods work on
  ports = {};  // by target id: where its pods listen; others anywhere

  constructor(api, namespace) {
    Object.assign(this, { api, namespace });
  }

  static async start(api, namespace) {
    const cluster = new Cluster(api, namespace);
    cluster.proxy = http.createServer((request, response) => cluster.#forward(request, response));
    await new Promise((resolve) => cluster.proxy.listen(0, '127.0.0.1', resolve));
    cluster.serviceUrl = `http://127.0.0.1:${cluster.proxy.address().port}/svc/{namespace}/{service}/{port}`;
    cluster.running = cluster.#run();
    return cluster;
  }
  async stop() {
    this.#stopped = true;
    this.release();
    await this.running;
    await Promise.all([...this.#ending, ...[...this.#pods.values()].map((pod) => pod.program?.stop('SIGKILL'))]);
    this.proxy.closeAllConnections();
    await new Promise((resolve) => this.proxy.close(resolve));
  }

  /** Pods of the image `slow` do not get ready from now on until release(). */
  hold() {
    this.#released = new Promise((resolve) => { this.#release = resolve; });
  }
  release() {
    this.#release();
  }

  /** The pod of an instance: {instance, program, port, env}. */
  pod(instance) {
    return [...this.#pods.values()].findLast((pod) => pod.instance === instance);
  }
  /** The environment that a pod of this instance was given. */
  environment(instance) {
    return this.pod(instance)?.env;
  }
  /** The container of an instance dies, and is started again in its pod. */
  async crash(instance) {
    const pod = this.pod(instance);
    await pod.program.stop('SIGKILL');
    await pod.run(1);
  }
  get programs() {
    return [...this.#pods.values()].filter((pod) => pod.program).length;
  }

  request(method, path, body, type) {
    return ask(this.api, method, path, body, type);
  }
  /** Of a collection, or of one of its objects. */
  path(resource, name = '') {
    const group = { deployments: 'apis/apps/v1', leases: 'apis/coordination.k8s.io/v1' }[resource] ?? 'api/v1';
    return `/${group}/namespaces/${this.namespace}/${resource}${name && `/${name}`}`;
  }
  async #list(path) {
    const answer = await this.request('GET', path);
    return answer.status === 200 ? answer.body.items : [];
  }

  async #run() {
    while (!this.#stopped) {
      await this.#reconcile().catch((error) => { if (!this.#stopped) this.fault = error; });
      await wait(30);
    }
  }

  async #reconcile() {
    // What is owned is listed before the owners: an owner is there before what it owns.
    const owned = {};
    for (const resource of ['services', 'secrets', 'pods']) owned[resource] = await this.#list(this.path(resource));
    const { pods } = owned;
    const all = await this.#list(this.path('deployments'));
    const [ending, deployments] = [true, false].map((state) => all.filter((one) => !!one.metadata.deletionTimestamp === state));
    const owners = new Set(deployments.map((one) => one.metadata.uid));
    for (const [path, objects] of Object.entries(owned))
      for (const object of objects) {
        const owner = object.metadata.ownerReferences?.[0]?.uid;
        if (owner && !owners.has(owner) && !(path === 'pods' && this.lingering)) await this.request('DELETE', `${this.path(path, object.metadata.name)}?gracePeriodSeconds=0`);
      }
    // Deleted in the foreground: when no pod of theirs is left, they go.
    for (const { metadata: { name, uid } } of ending)
      if (!pods.some((pod) => pod.metadata.ownerReferences?.[0]?.uid === uid))
        await this.request('PATCH', this.path('deployments', name), { metadata: { finalizers: null } }, 'application/merge-patch+json');
    const alive = new Set(pods.map((pod) => pod.metadata.uid));
    for (const [uid, pod] of this.#pods)
      if (!alive.has(uid)) {
        this.#pods.delete(uid);
        this.#end(pod);
      }
    for (const deployment of deployments) {
      const { name, uid } = deployment.metadata;
      if (pods.some((pod) => pod.metadata.ownerReferences?.[0]?.uid === uid)) continue;
      const behaviour = this.#behaviour(deployment.spec.template);
      if (behaviour.refused) {
        if (!deployment.status?.conditions)
          await this.#status(this.path('deployments', name), { conditions: [{ type: 'ReplicaFailure', status: 'True', reason: 'FailedCreate', message: behaviour.refused }] });
        continue;
      }
      const made = await this.request('POST', this.path('pods'), {
        apiVersion: 'v1', kind: 'Pod',
        metadata: { name: `${name}-0`, labels: deployment.spec.template.metadata.labels,
          ownerReferences: [{ apiVersion: 'apps/v1', kind: 'Deployment', name, uid, controller: true }] },
        spec: deployment.spec.template.spec,
      });
      if (made.status === 201) this.#start(made.body, behaviour, name).catch((error) => { this.fault = error; });
      else if (made.status !== 409) this.fault = new Error(`pod: ${made.status} ${JSON.stringify(made.body)}`);
    }
  }

  /** A pod's container is told to end. Others do not wait for it. */
  #end(pod) {
    if (!pod.program) return;
    const ended = pod.program.stop().catch((error) => { this.fault = error; }).finally(() => this.#ending.delete(ended));
    this.#ending.add(ended);
  }

  #behaviour(template) {
    return IMAGES[/\/([a-z]+)(?::|$)/.exec(template.spec.containers[0].image)?.[1]] ?? IMAGES.demo;
  }
  async #status(path, status) {
    const told = await this.request('PATCH', `${path}/status`, { status }, 'application/merge-patch+json');
    // 404: deleted meanwhile.
    if (told.status !== 200 && told.status !== 404) throw new Error(`status of ${path}: ${told.status} ${JSON.stringify(told.body)}`);
  }

  /** The kubelet's part. */
  async #start(pod, behaviour, instance) {
    const path = this.path('pods', pod.metadata.name);
    const container = pod.spec.containers[0];
    const report = (state, { ready = false, restartCount = 0, last } = {}) => this.#status(path, {
      phase: ready ? 'Running' : 'Pending',
      conditions: [{ type: 'PodScheduled', status: 'True' }, { type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: stamp() }],
      containerStatuses: [{ name: container.name, image: container.image, imageID: '', ready, restartCount, state, ...(last ? { lastState: { terminated: last } } : {}) }],
    });
    const known = { instance, env: {} };
    this.#pods.set(pod.metadata.uid, known);
    if (behaviour.unschedulable) {
      await wait(behaviour.after);  // the scheduler looks at it a while later
      return this.#status(path, { phase: 'Pending', conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: behaviour.unschedulable }] });
    }
    await report({ waiting: { reason: 'ContainerCreating' } });
    if (behaviour.waiting) return report({ waiting: behaviour.waiting }, behaviour);
    for (const { secretRef } of container.envFrom ?? []) {
      let secret;
      while (!this.#stopped && (secret = await this.request('GET', this.path('secrets', secretRef.name))).status !== 200) {
        await report({ waiting: { reason: 'CreateContainerConfigError', message: `secret "${secretRef.name}" not found` } });
        await wait(20);
      }
      for (const [name, value] of Object.entries(secret.body.data ?? {})) known.env[name] = Buffer.from(value, 'base64').toString();
    }
    if (this.#stopped) return;
    known.run = async (restartCount) => {
      known.program = start(DEMO, ['--http', '--port', String(this.ports[pod.metadata.labels['mcpgw.dev/target']] ?? 0)], { env: known.env });
      known.port = Number(await known.program.line('port of demo_upstream', (line) => /"port":(\d+)/.exec(line)?.[1]));
      await report({ running: { startedAt: stamp() } }, { restartCount });
      if (behaviour.slow) await this.#released;
      if (!this.#stopped) await report({ running: { startedAt: stamp() } }, { ready: true, restartCount });
    };
    await known.run(0);
  }

  /** /svc/<namespace>/<service>/<port>/<path>: as kube-proxy would, with what the objects say. */
  async #forward(request, response) {
    const refuse = (code) => response.writeHead(code).end();
    const [, namespace, service, port, path] = /^\/svc\/([^/]+)\/([^/]+)\/(\d+)(\/.*)$/.exec(request.url) ?? [];
    const found = namespace === this.namespace && await this.request('GET', this.path('services', service)).catch(() => null);
    if (found?.status !== 200 || !found.body.spec.ports.some((one) => one.port === Number(port))) return refuse(502);
    const pods = await this.#list(this.path('pods'));
    const pod = pods.find((one) => Object.entries(found.body.spec.selector).every(([name, value]) => one.metadata.labels?.[name] === value) &&
      one.status?.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True'));
    const target = pod && this.#pods.get(pod.metadata.uid);
    if (!target?.port) return refuse(502);
    this.forwarded = request.headers;
    const onward = http.request({ host: '127.0.0.1', port: target.port, path, method: request.method, headers: { ...request.headers, host: `127.0.0.1:${target.port}` }, agent: false },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        response.flushHeaders();
        answer.pipe(response);
        answer.on('error', () => response.destroy());
      });
    onward.on('error', () => (response.headersSent ? response.destroy() : refuse(502)));
    request.on('data', (data) => { if (data.includes('"tools/call"')) this.calls.add(response); });
    response.on('close', () => {
      this.calls.delete(response);
      onward.destroy();
    });
    request.pipe(onward);
  }
}
