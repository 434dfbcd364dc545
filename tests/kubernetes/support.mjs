// A cluster for the program: the API server's double (or a real kube-apiserver, tests/kubernetes/real.mjs), what runs
// its pods, a kubeconfig whose token file is replaced, and gateways in front.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Gateway, temporaryDirectory } from '../e2e/lib/gateway.mjs';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { ApiServer, roleOf } from './api_server.mjs';
import { Cluster } from './cluster.mjs';

export const NAMESPACE = 'mcp';
const RBAC = new URL('../../docs/kubernetes/rbac.yaml', import.meta.url);

async function certificate(directory) {
  const key = path.join(directory, 'api.key'), cert = path.join(directory, 'api.crt');
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=api',
    '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert], { stdio: 'ignore' });
  return { key: await readFile(key), cert: await readFile(cert) };
}

export class World {
  gateways = [];

  static async start() {
    const world = new World();
    world.directory = await temporaryDirectory();
    const tls = await certificate(world.directory);
    world.role = roleOf(await readFile(RBAC, 'utf8'));
    world.api = await ApiServer.start({ tls });
    world.api.tokens.set('cluster-token', null);
    await writeFile(path.join(world.directory, 'kubeconfig'), `apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: here, context: {cluster: double, user: gateway}}
clusters:
- name: double
  cluster: {server: "${world.api.url}", certificate-authority: api.crt}
users:
- {name: gateway, user: {tokenFile: token}}
`);
    await world.newToken();
    world.cluster = await Cluster.start({ url: world.api.url, token: 'cluster-token', ca: tls.cert, namespace: NAMESPACE });
    return world;
  }

  /** Replaces the gateway's token, as a kubelet does: the old one is no longer good. */
  async newToken({ written = true } = {}) {
    if (this.token) this.api.tokens.delete(this.token);
    this.token = randomBytes(16).toString('hex');
    this.api.tokens.set(this.token, this.role);
    if (written) await this.writeToken();
  }
  async writeToken() {
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
    await this.api.stop();
  }

  deployments() {
    return this.api.all('deployments');
  }
  /** What the gateway has asked for, such as "patch secrets". */
  asked(verb, resource) {
    return this.api.requests.filter((one) => one.user === 'gateway' && one.verb === verb && one.resource === resource);
  }
}

export const podTarget = (image, members = {}) => ({ transport_type: 'kubernetes', image: `registry.test/${image}:1`, port: 8080, ...members });

/** A user's session; call(name, arguments) gives {result | error}. */
export async function session(gateway, token) {
  const id = await openSession(gateway, token);
  let number = 0;
  const ask = async (method, params) => JSON.parse(lastMessage(await post(gateway, token,
    { jsonrpc: '2.0', id: ++number, method, params }, { session: id })));
  return { id, ask, call: (name, args = {}) => ask('tools/call', { name, arguments: args }) };
}
export const textOf = (answer) => answer.result?.content?.[0]?.text ?? `no result: ${JSON.stringify(answer)}`;
export const whoami = (answer) => JSON.parse(textOf(answer));
