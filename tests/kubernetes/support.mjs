// A cluster for the program: an API server (the double, or a real kube-apiserver when MCPGW_TEST_KUBE_APISERVER names its
// directory), what can go wrong before it (front.mjs), what runs its pods (cluster.mjs), a kubeconfig whose token file is
// replaced, and gateways in front.
import { execFileSync } from 'node:child_process';
import { readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Gateway, temporaryDirectory } from '../e2e/lib/gateway.mjs';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { ApiServer } from './api_server.mjs';
import { ask } from './ask.mjs';
import { Cluster } from './cluster.mjs';
import { Front } from './front.mjs';
import { PROGRAMS, RealApiServer } from './real.mjs';

export const NAMESPACE = 'mcpgw';  // that of docs/kubernetes
const MANIFESTS = new URL('../../docs/kubernetes/', import.meta.url);

async function certificate(directory) {
  const keyFile = path.join(directory, 'api.key'), certFile = path.join(directory, 'api.crt');
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=api',
    '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', keyFile, '-out', certFile], { stdio: 'ignore' });
  return { keyFile, certFile, key: await readFile(keyFile), cert: await readFile(certFile) };
}

/** An API server that holds what docs/kubernetes has: {url, ca, adminToken, mint, limited, stop}, be it real or not. */
export async function startApiServer() {
  const directory = await temporaryDirectory();
  const tls = await certificate(directory);
  const api = PROGRAMS ? await RealApiServer.start({ directory, tls }) : await ApiServer.start();
  await api.prepare(MANIFESTS, NAMESPACE);
  return { api, directory, tls };
}

export class World {
  gateways = [];

  static async start() {
    const world = new World();
    Object.assign(world, await startApiServer());
    world.front = await Front.start(world.api, world.tls);
    await writeFile(path.join(world.directory, 'kubeconfig'), `apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: here, context: {cluster: tests, user: gateway}}
clusters:
- name: tests
  cluster: {server: "${world.front.url}", certificate-authority: api.crt}
users:
- {name: gateway, user: {tokenFile: token}}
`);
    await world.newToken();
    world.cluster = await Cluster.start(world.api, NAMESPACE);
    return world;
  }

  /** Replaces the gateway's token, as a kubelet does: the old one is no longer good. */
  async newToken() {
    if (this.token) this.front.refused.add(this.token);
    this.token = await this.api.mint(NAMESPACE);
    const file = path.join(this.directory, 'token');
    await writeFile(file + '.new', this.token + '\n');
    await rename(file + '.new', file);
  }

  async gateway(settings = {}, more = {}) {
    const kubernetes = { enabled: true, namespace: NAMESPACE, kubeconfig: path.join(this.directory, 'kubeconfig'),
      service_url: this.cluster.serviceUrl, start_timeout: '30s', idle_ttl: '10m', gc_interval: '1s', ...settings };
    const gateway = await Gateway.start({ ...more,
      config: `kubernetes: ${JSON.stringify(kubernetes)}\nupstream: {drain: 1s}\n${more.text ?? ''}` });
    this.gateways.push(gateway);
    return gateway;
  }

  async stop() {
    for (const gateway of this.gateways) await gateway.stop().catch(() => {});
    await this.cluster.stop();
    await this.front.stop();
    await this.api.stop();
  }

  /** A request as the cluster's administrator, which must succeed; gives the body. */
  async ask(method, path, body, type) {
    const answer = await ask(this.api, method, path, body, type);
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }
  /** Objects of a kind as they are now. */
  async list(resource) {
    return (await this.ask('GET', this.cluster.path(resource))).items;
  }
  /** Deployments, in the order of their creation; those of one target when it is given. */
  async deployments(target) {
    const all = await this.list('deployments');
    return all.filter((one) => !target || one.metadata.labels['mcpgw.dev/target'] === target.id)
      .sort((a, b) => (a.metadata.creationTimestamp < b.metadata.creationTimestamp ? -1 : 1));
  }
  /** What gateways have asked for, such as "patch secrets". */
  asked(verb, resource) {
    return this.front.requests.filter((one) => one.verb === verb && one.resource === resource);
  }
}

export const podTarget = (image, members = {}) => ({ transport_type: 'kubernetes', image: `registry.test/${image}:1`, port: 8080, ...members });

/** A user's session; call(name, arguments) gives {result | error}; hold(name) makes a call, and gives {running, letGo}:
 * until it is let go it must run, and running() fails when it does not. */
export async function session(gateway, token) {
  const id = await openSession(gateway, token);
  let number = 0;
  const ask = async (method, params) => JSON.parse(lastMessage(await post(gateway, token,
    { jsonrpc: '2.0', id: ++number, method, params }, { session: id })));
  const hold = (name) => {
    let ended;
    const running = post(gateway, token, { jsonrpc: '2.0', id: ++number, method: 'tools/call',
      params: { name, arguments: { duration_ms: 600000, steps: 2 } } }, { session: id })
      .then((answer) => { ended = lastMessage(answer) || 'without an answer'; });
    const requestId = number;
    const mustRun = () => {
      if (ended) throw new Error(`${name} was to run until now: ${ended}`);
      return true;
    };
    const letGo = async () => {
      mustRun();
      await post(gateway, token, { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId } }, { session: id });
      await running;
    };
    return { running: mustRun, letGo };
  };
  return { id, ask, hold, call: (name, args = {}) => ask('tools/call', { name, arguments: args }) };
}
export const textOf = (answer) => answer.result?.content?.[0]?.text ?? `no result: ${JSON.stringify(answer)}`;
export const whoami = (answer) => JSON.parse(textOf(answer));
