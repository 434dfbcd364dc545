// A real kube-apiserver with its etcd, from the programs in the directory MCPGW_TEST_KUBE_APISERVER. No controllers and
// no kubelet: what they do, the simulated cluster does (cluster.mjs). docs/contributing.md says how to get them.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, constants, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { eventually, start } from '../e2e/lib/gateway.mjs';
import { ask } from './ask.mjs';
import { freePort } from '../e2e/lib/free_port.mjs';

/** The directory of the programs; undefined: the tests use the double. */
export const PROGRAMS = process.env.MCPGW_TEST_KUBE_APISERVER || undefined;

const PLURALS = { Namespace: 'namespaces', ServiceAccount: 'serviceaccounts', Role: 'roles', RoleBinding: 'rolebindings', NetworkPolicy: 'networkpolicies',
  ResourceQuota: 'resourcequotas', ConfigMap: 'configmaps', Deployment: 'deployments', PersistentVolumeClaim: 'persistentvolumeclaims', Service: 'services' };

export class RealApiServer {
  adminToken = randomBytes(16).toString('hex');

  /** `tls`: {key, cert} and the paths {keyFile, certFile}. */
  static async start({ directory, tls }) {
    for (const name of ['etcd', 'kube-apiserver'])
      await access(path.join(PROGRAMS, name), constants.X_OK).catch(() => {
        throw new Error(`MCPGW_TEST_KUBE_APISERVER=${PROGRAMS}: there is no program ${name}`);
      });
    const api = new RealApiServer();
    api.ca = tls.cert;
    const home = path.join(directory, 'apiserver');
    await mkdir(home);
    const at = (name) => path.join(home, name);
    await writeFile(at('tokens.csv'), `${api.adminToken},admin,admin,"system:masters"\n`, { mode: 0o600 });
    execFileSync('openssl', ['genrsa', '-traditional', '-out', at('accounts.key'), '2048'], { stdio: 'ignore' });
    const [client, peer, port] = [await freePort(), await freePort(), await freePort()];
    const etcd = `http://127.0.0.1:${client}`, peers = `http://127.0.0.1:${peer}`;
    api.etcd = start(path.join(PROGRAMS, 'etcd'), ['--name', 'one', '--data-dir', at('etcd'), '--unsafe-no-fsync', '--log-level', 'error',
      '--listen-client-urls', etcd, '--advertise-client-urls', etcd, '--listen-peer-urls', peers, '--initial-advertise-peer-urls', peers,
      '--initial-cluster', `one=${peers}`]);
    api.server = start(path.join(PROGRAMS, 'kube-apiserver'), [`--etcd-servers=${etcd}`, '--bind-address=127.0.0.1', '--advertise-address=127.0.0.1',
      '--endpoint-reconciler-type=none', `--secure-port=${port}`, `--tls-cert-file=${tls.certFile}`, `--tls-private-key-file=${tls.keyFile}`,
      `--cert-dir=${at('certs')}`, `--token-auth-file=${at('tokens.csv')}`, '--authorization-mode=RBAC', '--anonymous-auth=false',
      '--service-account-issuer=https://kubernetes.default.svc', `--service-account-key-file=${at('accounts.key')}`,
      `--service-account-signing-key-file=${at('accounts.key')}`, '--service-cluster-ip-range=10.0.0.0/24', '--profiling=false', '--v=0'],
    { cwd: home });
    api.url = `https://127.0.0.1:${port}`;
    let ended = false;
    for (const program of [api.etcd, api.server]) program.exit.then(() => { ended = true; }, () => { ended = true; });
    const ready = await eventually('kube-apiserver is ready', async () =>
      ended || (await ask(api, 'GET', '/readyz').catch(() => null))?.status === 200, 120000).catch(() => null);
    if (!ready || ended) {
      await api.stop();
      throw new Error(`kube-apiserver does not start:\n${api.lastWords}`);
    }
    return api;
  }
  get lastWords() {
    return [...this.etcd.lines.slice(-10), ...this.server.lines.slice(-20)].join('\n');
  }
  async stop() {
    await this.server.stop('SIGKILL').catch(() => {});
    await this.etcd.stop('SIGKILL').catch(() => {});
  }

  /** Applies the documents of a manifest as they are; `dryRun`: only asks whether they would be accepted. */
  async apply(file, { dryRun = false } = {}) {
    for (const document of (await readFile(file, 'utf8')).split(/^---$/m)) {
      const member = (pattern) => pattern.exec(document)?.[1];
      const version = member(/^apiVersion: (\S+)/m), kind = member(/^kind: (\w+)/m), name = member(/^ {2}name: (\S+)/m), namespace = member(/^ {2}namespace: (\S+)/m);
      const root = version.includes('/') ? `/apis/${version}` : `/api/${version}`;
      const where = `${root}${namespace ? `/namespaces/${namespace}` : ''}/${PLURALS[kind]}/${name}`;
      const answer = await ask(this, 'PATCH', `${where}?fieldManager=operator&fieldValidation=Strict${dryRun ? '&dryRun=All' : ''}`, document, 'application/apply-patch+yaml');
      if (answer.status >= 300) throw new Error(`${file}: ${kind} ${name}: ${answer.status} ${answer.body?.message}`);
    }
  }

  /** What docs/kubernetes.md tells an operator to apply, and the parts of the controllers that pods depend on. */
  async prepare(manifests, namespace) {
    for (const name of ['namespace', 'rbac', 'networkpolicy', 'quota']) await this.apply(new URL(`${name}.yaml`, manifests));
    await this.apply(new URL('gateway.yaml', manifests), { dryRun: true });
    const core = `/api/v1/namespaces/${namespace}`;
    const must = async (...request) => {
      const answer = await ask(this, ...request);
      if (answer.status >= 300) throw new Error(`${request[1]}: ${answer.status} ${answer.body?.message}`);
      return answer.body;
    };
    await must('POST', `${core}/serviceaccounts`, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default' } });
    const quota = await must('GET', `${core}/resourcequotas/mcpgw`);
    const used = Object.fromEntries(Object.keys(quota.spec.hard).map((name) => [name, '0']));
    await must('PATCH', `${core}/resourcequotas/mcpgw/status`, { status: { hard: quota.spec.hard, used } }, 'application/merge-patch+json');
  }

  /** A token of the gateway's service account. */
  async mint(namespace) {
    const answer = await ask(this, 'POST', `/api/v1/namespaces/${namespace}/serviceaccounts/mcpgw/token`,
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 3600 } });
    if (answer.status !== 201) throw new Error(`token: ${answer.status} ${answer.body?.message}`);
    return answer.body.status.token;
  }
  /** A token of an account that may do what the rules say. */
  async limited(name, rules, namespace) {
    const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`, group = 'rbac.authorization.k8s.io';
    for (const [where, object] of [
      [`/api/v1/namespaces/${namespace}/serviceaccounts`, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name } }],
      [`${rbac}/roles`, { apiVersion: `${group}/v1`, kind: 'Role', metadata: { name }, rules }],
      [`${rbac}/rolebindings`, { apiVersion: `${group}/v1`, kind: 'RoleBinding', metadata: { name }, roleRef: { apiGroup: group, kind: 'Role', name },
        subjects: [{ kind: 'ServiceAccount', name, namespace }] }]]) {
      const answer = await ask(this, 'POST', where, object);
      if (answer.status !== 201) throw new Error(`${where}: ${answer.status} ${answer.body?.message}`);
    }
    const answer = await ask(this, 'POST', `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`,
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 3600 } });
    return answer.body.status.token;
  }
}
