// The double of the Kubernetes API server is only worth something if it refuses what a real one refuses.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import http from 'node:http';
import { ApiServer, roleOf } from '../kubernetes/api_server.mjs';
import { eventually } from './lib/gateway.mjs';

const DEPLOYMENTS = '/apis/apps/v1/namespaces/mcp/deployments';
const deployment = (change = () => {}) => {
  const object = {
    apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'a', namespace: 'mcp', labels: { x: '1' }, annotations: { n: '1' } },
    spec: { replicas: 1, selector: { matchLabels: { x: '1' } }, template: { metadata: { labels: { x: '1' } },
      spec: { containers: [{ name: 'server', image: 'i', ports: [{ name: 'mcp', containerPort: 80, protocol: 'TCP' }] }] } } },
  };
  change(object);
  return object;
};

describe('the API server\'s double', { timeout: 60000 }, () => {
  let api;
  before(async () => {
    api = await ApiServer.start();
    api.tokens.set('all', null);
    api.tokens.set('few', roleOf('rules:\n  - apiGroups: ["apps"]\n    resources: ["deployments"]\n    verbs: ["get", "patch"]\n'));
    api.bookmarkEvery = 50;
  });
  after(() => api.stop());

  async function ask(method, path, body, { type = 'application/json', token = 'all' } = {}) {
    const response = await fetch(api.url + path, { method, headers: { Authorization: `Bearer ${token}`, ...(body ? { 'Content-Type': type } : {}) },
      body: body && JSON.stringify(body) });
    return { status: response.status, headers: response.headers, body: await response.json() };
  }
  const apply = (object, query = 'fieldManager=m&force=true', options = {}) =>
    ask('PATCH', `${DEPLOYMENTS}/${object.metadata.name}?${query}`, object, { type: 'application/apply-patch+yaml', ...options });
  const patch = (body, options = {}) => ask('PATCH', `${DEPLOYMENTS}/a`, body, { type: 'application/merge-patch+json', ...options });
  /** Lines of a watch, as they come. */
  function watch(query) {
    const events = [];
    const request = http.get(`${api.url}${DEPLOYMENTS}?watch=true&${query}`, { headers: { Authorization: 'Bearer all' } }, (response) => {
      let rest = '';
      response.on('data', (data) => {
        rest += data;
        const lines = rest.split('\n');
        rest = lines.pop();
        events.push(...lines.map((line) => JSON.parse(line)));
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
      400: [(o) => { o.spec.replica = 1; }, (o) => { o.spec.template.spec.containers[0].imagePull = 'x'; }, (o) => { o.kind = 'Pod'; }],
      422: [(o) => { o.metadata.name = 'A_b'; }, (o) => { o.spec.replicas = '1'; }, (o) => { delete o.spec.selector; },
        (o) => { o.spec.template.metadata.labels = { x: '2' }; }, (o) => { o.metadata.labels.x = 'a b'; },
        (o) => { o.spec.template.spec.containers[0].readinessProbe = { tcpSocket: { port: 'web' } }; },
        (o) => { o.spec.template.spec.containers[0].ports[0].containerPort = 0; },
        (o) => { o.spec.template.spec.containers[0].resources = { limits: { cpu: '1' }, requests: { cpu: '2' } }; },
        (o) => { o.spec.template.spec.containers[0].resources = { limits: { memory: '1 Gi' } }; },
        (o) => { o.spec.strategy = { type: 'Recreate', rollingUpdate: {} }; }],
    };
    for (const [status, changes] of Object.entries(cases))
      for (const change of changes) {
        const answer = await apply(deployment(change));
        assert.equal(answer.status, Number(status), `${change}: ${JSON.stringify(answer.body)}`);
        assert.equal(answer.body.kind, 'Status');
      }
    assert.deepEqual(api.all('deployments'), []);
  });

  test('apply, its managers, and what may not change', async () => {
    assert.equal((await apply(deployment(), 'force=true')).status, 400, 'without a manager');
    assert.equal((await apply(deployment(), undefined, { type: 'application/strategic-merge-patch+json' })).status, 415);
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
    assert.equal((await patch({ metadata: { uid: 'other' } })).status, 409);
    assert.equal((await ask('DELETE', `${DEPLOYMENTS}/a`, { preconditions: { uid: 'other' } })).status, 409);
    assert.equal((await ask('DELETE', `${DEPLOYMENTS}/a`, { unknown: 1 })).status, 400);
  });

  test('who may do what', async () => {
    assert.equal((await ask('GET', DEPLOYMENTS, undefined, { token: 'none' })).status, 401);
    assert.equal((await ask('GET', DEPLOYMENTS, undefined, { token: 'few' })).status, 403);
    assert.equal((await ask('GET', `${DEPLOYMENTS}/a`, undefined, { token: 'few' })).status, 200);
    assert.equal((await apply(deployment((o) => { o.metadata.name = 'b'; }), undefined, { token: 'few' })).status, 403, 'an apply that creates');
    assert.equal((await ask('GET', '/api/v1/namespaces/mcp/nonsense')).status, 404);
  });

  test('watches: from a version on, bookmarks, 410 when the history is gone', async () => {
    const { metadata } = (await ask('GET', `${DEPLOYMENTS}?labelSelector=x%3D1`)).body;
    const events = watch(`resourceVersion=${metadata.resourceVersion}&allowWatchBookmarks=true&labelSelector=x%3D1`);
    await patch({ metadata: { annotations: { mark: 'y' } } });
    await eventually('the change', () => events.some((one) => one.type === 'MODIFIED' && one.object.metadata.annotations.mark === 'y'));
    await eventually('a bookmark', () => events.some((one) => one.type === 'BOOKMARK'));
    const late = watch(`resourceVersion=${metadata.resourceVersion}`);
    await eventually('the same, later', () => late.length === 1 && late[0].type === 'MODIFIED');
    const other = watch(`resourceVersion=${metadata.resourceVersion}&labelSelector=x%3D2&allowWatchBookmarks=true`);
    await eventually('nothing of others', () => other.length > 0);
    assert.ok(other.every((one) => one.type === 'BOOKMARK'));
    api.compact();
    await eventually('all are told', () => [events, late, other].every((one) => one.at(-1)?.object.code === 410 && one.ended));
    const old = watch(`resourceVersion=${metadata.resourceVersion}`);
    await eventually('410', () => old[0]?.type === 'ERROR' && old[0].object.code === 410);
    for (const one of [events, late, other, old]) one.stop();
    assert.equal((await ask('GET', `${DEPLOYMENTS}?labelSelector=x in (1)`)).status, 400);
  });

  test('pages, and injected faults', async () => {
    for (const name of ['p1', 'p2', 'p3']) await apply(deployment((o) => { o.metadata.name = name; }));
    const first = (await ask('GET', `${DEPLOYMENTS}?limit=2`)).body;
    assert.equal(first.items.length, 2);
    const second = (await ask('GET', `${DEPLOYMENTS}?limit=2&continue=${first.metadata.continue}`)).body;
    assert.equal(second.items.length, 2);
    assert.equal(second.metadata.continue, undefined);
    api.faults = [{ match: (seen) => seen.verb === 'get', times: 1, status: 429, retryAfter: 3 }];
    const refused = await ask('GET', `${DEPLOYMENTS}/p1`);
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get('retry-after'), '3');
    assert.equal((await ask('GET', `${DEPLOYMENTS}/p1`)).status, 200);
  });
});
