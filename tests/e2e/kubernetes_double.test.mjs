// The double of the Kubernetes API server is only worth something if it refuses what a real one refuses, and does what a
// real one does: these tests hold for both (MCPGW_TEST_KUBE_APISERVER, docs/contributing.md).
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ask as askApi } from '../kubernetes/ask.mjs';
import { Front } from '../kubernetes/front.mjs';
import { NAMESPACE, startApiServer } from '../kubernetes/support.mjs';
import { eventually } from './lib/gateway.mjs';
import http from 'node:http';
import https from 'node:https';

const DEPLOYMENTS = `/apis/apps/v1/namespaces/${NAMESPACE}/deployments`, LEASES = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases`;
const CORE = `/api/v1/namespaces/${NAMESPACE}`;
const APPLY = 'application/apply-patch+yaml', MERGE = 'application/merge-patch+json';
const deployment = (change = () => {}) => {
  const object = {
    apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'a', namespace: NAMESPACE, labels: { x: '1' }, annotations: { n: '1' } },
    spec: { replicas: 1, selector: { matchLabels: { x: '1' } }, template: { metadata: { labels: { x: '1' } },
      spec: { containers: [{ name: 'server', image: 'i', ports: [{ name: 'mcp', containerPort: 80, protocol: 'TCP' }] }] } } },
  };
  change(object);
  return object;
};

describe('the API server of the tests', { timeout: 240000 }, () => {
  let api, few, tls;
  before(async () => {
    ({ api, tls } = await startApiServer());
    few = await api.limited('few', [{ apiGroups: ['apps'], resources: ['deployments'], verbs: ['get', 'patch'] }], NAMESPACE);
  });
  after(() => api?.stop());

  const ask = (method, path, body, { type, token } = {}) => askApi(api, method, path, body, type, token);
  const apply = (object, query = 'fieldManager=m&force=true', options = {}) =>
    ask('PATCH', `${DEPLOYMENTS}/${object.metadata.name}?${query}`, object, { type: APPLY, ...options });
  const patch = (body, options = {}) => ask('PATCH', `${DEPLOYMENTS}/a`, body, { type: MERGE, ...options });
  /** Lines of a watch, as they come. */
  function watch(query) {
    const events = [];
    const url = new URL(`${api.url}${DEPLOYMENTS}?watch=true&${query}`);
    const request = (url.protocol === 'https:' ? https : http).get(url, { ca: api.ca, agent: false, headers: { Authorization: `Bearer ${api.adminToken}` } }, (response) => {
      let rest = '';
      response.on('data', (data) => {
        rest += data;
        const lines = rest.split('\n');
        rest = lines.pop();
        events.push(...lines.filter(Boolean).map((line) => JSON.parse(line)));
      });
      response.on('end', () => { events.ended = true; });
      response.on('error', () => { events.ended = true; });
    });
    request.on('error', () => { events.ended = true; });
    events.stop = () => request.destroy();
    return events;
  }

  test('objects that are wrong', async () => {
    const cases = {
      400: [(o) => { o.kind = 'Pod'; }],
      422: [(o) => { o.metadata.name = 'A_b'; }, (o) => { delete o.spec.selector; },
        (o) => { o.spec.template.metadata.labels = { x: '2' }; }, (o) => { o.metadata.labels.x = 'a b'; },
        (o) => { o.spec.template.spec.containers[0].ports[0].containerPort = 0; },
        (o) => { o.spec.template.spec.containers[0].resources = { limits: { cpu: '1' }, requests: { cpu: '2' } }; },
        (o) => { o.spec.strategy = { type: 'Recreate', rollingUpdate: {} }; }],
      500: [(o) => { o.spec.replica = 1; }, (o) => { o.spec.template.spec.containers[0].imagePull = 'x'; },
        (o) => { o.spec.replicas = '1'; }, (o) => { o.spec.template.spec.containers[0].resources = { limits: { memory: '1 Gi' } }; }],
    };
    for (const [status, changes] of Object.entries(cases))
      for (const change of changes) {
        const answer = await apply(deployment(change));
        assert.equal(answer.status, Number(status), `${change}: ${JSON.stringify(answer.body)}`);
        assert.equal(answer.body.kind, 'Status');
      }
    assert.deepEqual((await ask('GET', DEPLOYMENTS)).body.items, []);
  });

  test('deletion in the foreground: the object stays until its finalizer is taken back', async () => {
    const { body: made } = await apply(deployment((o) => { o.metadata.name = 'b'; }));
    const at = `${DEPLOYMENTS}/b`;
    const options = { apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy: 'Foreground', preconditions: { uid: made.metadata.uid } };
    assert.equal((await ask('DELETE', at, { ...options, preconditions: { uid: 'other' } })).status, 409);
    for (let i = 0; i < 2; ++i) {  // a second time changes nothing
      const { status, body } = await ask('DELETE', at, options);
      assert.equal(status, 200);
      assert.equal(body.kind, 'Deployment');
      assert.deepEqual(body.metadata.finalizers, ['foregroundDeletion']);
      assert.ok(Date.parse(body.metadata.deletionTimestamp));
    }
    const events = watch(`resourceVersion=${(await ask('GET', at)).body.metadata.resourceVersion}`);
    assert.equal((await ask('PATCH', at, { metadata: { annotations: { n: '2' } } }, { type: MERGE })).status, 200, 'it can still be written to');
    assert.equal((await ask('PATCH', at, { metadata: { finalizers: null } }, { type: MERGE })).status, 200);
    assert.equal((await ask('GET', at)).status, 404);
    await eventually('the watch tells', () => events.length >= 2);
    assert.deepEqual(events.map((one) => one.type), ['MODIFIED', 'DELETED']);
    events.stop();
  });

  test('apply, its managers, and what may not change', async () => {
    assert.equal((await apply(deployment(), 'force=true')).status, 422, 'without a manager');
    assert.equal((await apply(deployment(), undefined, { type: 'application/nonsense' })).status, 415);
    const made = await apply(deployment());
    assert.equal(made.status, 201);
    assert.equal((await apply(deployment())).body.metadata.resourceVersion, made.body.metadata.resourceVersion, 'nothing changed');
    assert.equal((await apply(deployment((o) => { o.metadata.annotations.n = '2'; }), 'fieldManager=other')).status, 409);
    assert.equal((await apply(deployment((o) => { o.spec.selector.matchLabels = { y: '1' }; o.spec.template.metadata.labels.y = '1'; }))).status, 422);
    const marked = await patch({ metadata: { annotations: { mark: 'x' } } });
    assert.equal(marked.body.metadata.annotations.mark, 'x');
    const dropped = await apply(deployment((o) => { delete o.metadata.annotations.n; }));
    assert.deepEqual(dropped.body.metadata.annotations, { mark: 'x' }, 'what another wrote stays, what was applied before goes');
    assert.equal((await patch({ metadata: { resourceVersion: '1' } })).status, 409);
    assert.equal((await patch({ metadata: { uid: 'other' } })).status, 422, 'a uid cannot be changed');
    assert.equal((await ask('DELETE', `${DEPLOYMENTS}/a`, { preconditions: { uid: 'other' } })).status, 409);
    assert.equal((await ask('DELETE', `${DEPLOYMENTS}/missing`)).status, 404);
  });

  test('a Secret that is immutable, a Service without ports, a Lease with a time in whole seconds', async () => {
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's' }, type: 'Opaque', immutable: true, data: { A: 'eA==' } };
    assert.equal((await ask('PATCH', `${CORE}/secrets/s?fieldManager=m&force=true`, secret, { type: APPLY })).status, 201);
    assert.equal((await ask('PATCH', `${CORE}/secrets/s?fieldManager=m&force=true`, { ...secret, data: { A: 'eQ==' } }, { type: APPLY })).status, 422);
    const service = { apiVersion: 'v1', kind: 'Service', metadata: { name: 's' }, spec: { selector: { x: '1' }, ports: [] } };
    assert.equal((await ask('PATCH', `${CORE}/services/s?fieldManager=m&force=true`, service, { type: APPLY })).status, 422);
    const lease = (renewTime) => ({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'l' },
      spec: { holderIdentity: 'me', leaseDurationSeconds: 15, renewTime } });
    assert.equal((await ask('POST', LEASES, lease('2030-01-01T00:00:00Z'))).status, 400);
    const made = await ask('POST', LEASES, lease('2030-01-01T00:00:00.000000Z'));
    assert.equal(made.status, 201);
    assert.equal((await ask('POST', LEASES, lease('2030-01-01T00:00:00.000000Z'))).status, 409);
    assert.equal((await ask('PUT', `${LEASES}/l`, made.body)).status, 200);
    const newer = { ...made.body, spec: { ...made.body.spec, holderIdentity: 'you' } };
    assert.equal((await ask('PUT', `${LEASES}/l`, newer)).status, 200);
    assert.equal((await ask('PUT', `${LEASES}/l`, newer)).status, 409, 'it has been changed meanwhile');
  });

  test('who may do what', async () => {
    assert.equal((await ask('GET', DEPLOYMENTS, undefined, { token: 'none' })).status, 401);
    assert.equal((await ask('GET', DEPLOYMENTS, undefined, { token: few })).status, 403);
    assert.equal((await ask('GET', `${DEPLOYMENTS}/a`, undefined, { token: few })).status, 200);
    assert.equal((await apply(deployment((o) => { o.metadata.name = 'b'; }), undefined, { token: few })).status, 403, 'an apply that creates');
    assert.equal((await ask('GET', `${CORE}/nonsense`)).status, 404);
  });

  test('watches: from a version on, of what is selected', async () => {
    const { metadata } = (await ask('GET', `${DEPLOYMENTS}?labelSelector=x%3D1`)).body;
    const events = watch(`resourceVersion=${metadata.resourceVersion}&allowWatchBookmarks=true&labelSelector=x%3D1`);
    await patch({ metadata: { annotations: { mark: 'y' } } });
    const marked = (one) => one.type === 'MODIFIED' && one.object.metadata.annotations.mark === 'y';
    await eventually('the change', () => events.some(marked));
    const late = watch(`resourceVersion=${metadata.resourceVersion}`);
    await eventually('the same, later', () => late.some(marked));
    const other = watch(`resourceVersion=${metadata.resourceVersion}&labelSelector=x%3D2&timeoutSeconds=2`);
    await eventually('nothing of others', () => other.ended);
    assert.ok(other.every((one) => one.type === 'BOOKMARK'));
    for (const one of [events, late, other]) one.stop();
  });

  test('pages', async () => {
    for (const name of ['p1', 'p2', 'p3']) assert.equal((await apply(deployment((o) => { o.metadata.name = name; }))).status, 201);
    const first = (await ask('GET', `${DEPLOYMENTS}?limit=2`)).body;
    assert.equal(first.items.length, 2);
    const second = (await ask('GET', `${DEPLOYMENTS}?limit=2&continue=${encodeURIComponent(first.metadata.continue)}`)).body;
    assert.equal(second.items.length, 2);
    assert.equal(second.metadata.continue, undefined);
  });

  test('what stands before it: faults, refused tokens, watches that are told that the history is gone', async () => {
    const front = await Front.start(api, tls);
    const through = (path, token) => askApi({ url: front.url, ca: tls.cert, adminToken: api.adminToken }, 'GET', path, undefined, undefined, token);
    front.faults = [{ match: (seen) => seen.verb === 'get', times: 1, status: 429, retryAfter: 3 }];
    const refused = await through(`${DEPLOYMENTS}/p1`);
    assert.equal(refused.status, 429);
    assert.equal(refused.headers['retry-after'], '3');
    assert.equal((await through(`${DEPLOYMENTS}/p1`)).status, 200);
    front.refused.add(api.adminToken);
    assert.equal((await through(`${DEPLOYMENTS}/p1`)).status, 401);
    front.refused.clear();
    const watching = through(`${DEPLOYMENTS}?watch=true&timeoutSeconds=60`);
    await eventually('it watches', () => front.requests.some((one) => one.verb === 'watch'));
    front.forget();
    const lines = (await watching).body;
    assert.match(typeof lines === 'string' ? lines : JSON.stringify(lines), /"code":410/);
    assert.deepEqual(front.requests.map((one) => `${one.verb} ${one.resource} ${one.name ?? ''} ${one.status}`),
      ['get deployments p1 429', 'get deployments p1 200', 'get deployments p1 401', 'watch deployments  200']);
    await front.stop();
  });
});
