// A server that keeps something for each of its sessions notices nothing of a gateway that is restarted, or of a session
// that goes on at another program: its session goes on, too.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { Gateway, eventually } from '../e2e/lib/gateway.mjs';
import { httpTarget } from '../e2e/lib/upstreams.mjs';
import { counting } from './counting_http.mjs';
import { Postgres } from './postgres.mjs';

const CLUSTER = (url) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
upstream: {allow_private: true}
replicas: {host: 127.0.0.1, port: 0, lease: 3s}
`;
const ALONE = 'upstream: {allow_private: true}\n';

let postgres;
let databases = 0;
before(async () => {
  postgres = await Postgres.start();
});

const call = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'count', arguments: {} } };
/** One call: the server's session and its count. */
async function count(gateway, who, session) {
  const answer = await post(gateway, who.token, call, { session });
  assert.equal(answer.status, 200, answer.text);
  const message = JSON.parse(lastMessage(answer));
  assert.ok(message.result, answer.text);
  return JSON.parse(message.result.content[0].text);
}
const end = async (gateway, who, session) => (await fetch(`${gateway.url}/mcp`, { method: 'DELETE',
  headers: { Authorization: `Bearer ${who.token}`, 'Mcp-Session-Id': session } })).status;

/** Programs that answer for one another, with one counting server behind them. */
async function cluster(t, size, target = {}) {
  const server = await counting(t);
  const name = `upstream_sessions${++databases}`;
  const url = postgres.database(name);
  const all = await Promise.all(Array.from({ length: size }, () => Gateway.start({ config: CLUSTER(url) })));
  t.after(() => Promise.all(all.map((gateway) => gateway.stop('SIGKILL'))));
  await all[0].registerAdmin();
  for (const gateway of all) gateway.adminToken = all[0].adminToken;
  const added = await all[0].addTarget('counting', { ...httpTarget(server.url), ...target });
  const ann = await all[0].addUser('ann');
  await all[0].allow(ann, added);
  for (const gateway of all)
    await eventually('it knows the user', async () => (await post(gateway, ann.token, call, { session: 'none' })).status === 404);
  const stored = () => postgres.psql(name, `SELECT string_agg(convert_from(value, 'UTF8'), ' ') FROM mcpgw_record WHERE value IS NOT NULL`);
  return { server, all, ann, stored };
}

for (const signal of ['SIGKILL', 'SIGTERM'])
  test(`a session whose program ends by ${signal} goes on elsewhere with the session that its server has made`, async (t) => {
    const { server, all: [first, second], ann, stored } = await cluster(t, 2);
    const session = await openSession(first, ann.token);
    const { id } = await count(first, ann, session);
    assert.equal((await count(second, ann, session)).count, 2);
    assert.ok(!stored().includes(id), 'the id stands in the database');
    await first.stop(signal);
    assert.deepEqual(await count(second, ann, session), { id, count: 3 });
    assert.deepEqual(await count(second, ann, session), { id, count: 4 });
    assert.equal(server.made.length, 1);
    assert.deepEqual(server.ended, []);
    assert.deepEqual(server.twice, []);
    assert.equal(await end(second, ann, session), 204);
    await eventually('the server is told', () => server.ended.length === 1);
    assert.deepEqual(server.ended, [id]);
  });

test('a server that has forgotten its session meanwhile makes a new one, and nobody is told of an error', async (t) => {
  const { server, all: [first, second], ann } = await cluster(t, 2);
  const session = await openSession(first, ann.token);
  const { id } = await count(first, ann, session);
  await first.stop('SIGKILL');
  server.sessions.clear();
  const anew = await count(second, ann, session);
  assert.equal(anew.count, 1);
  assert.notEqual(anew.id, id);
  assert.equal(server.made.length, 2);
  assert.equal((await count(second, ann, session)).count, 2);
  assert.deepEqual(server.ended, []);
});

test('a session that its client ends before it has been used again ends at the server, too', async (t) => {
  const { server, all: [first, second], ann } = await cluster(t, 2);
  const session = await openSession(first, ann.token);
  const { id } = await count(first, ann, session);
  await first.stop('SIGKILL');
  assert.equal(await end(second, ann, session), 204);
  await eventually('the server is told', () => server.ended.length === 1);
  assert.deepEqual(server.ended, [id]);
});

test('sessions of a client that share one session of a server never go on with it in two places', async (t) => {
  const { server, all: [first, second, third], ann } = await cluster(t, 3);
  const sessions = [await openSession(first, ann.token), await openSession(first, ann.token)];
  const [{ id }, same] = [await count(first, ann, sessions[0]), await count(first, ann, sessions[1])];
  assert.equal(same.id, id);
  await first.stop('SIGKILL');
  const there = [await count(second, ann, sessions[0]), await count(third, ann, sessions[1])];
  assert.deepEqual(there[0], { id, count: 3 });
  assert.equal(there[1].count, 1);
  assert.equal(server.made.length, 2);
  // The one that keeps it ends first: the other keeps it then.
  const more = [await openSession(second, ann.token)];
  assert.deepEqual(await count(second, ann, more[0]), { id, count: 4 });
  assert.equal(await end(second, ann, sessions[0]), 204);
  assert.deepEqual(await count(second, ann, more[0]), { id, count: 5 });
  await second.stop('SIGKILL');
  assert.deepEqual(await count(third, ann, more[0]).then((one) => one.id), there[1].id, 'they share what is open there');
  await eventually('what is not needed is ended', () => server.ended.includes(id));
  assert.deepEqual(server.twice, []);
});

test('each session of a stateful target goes on with its own', async (t) => {
  const { server, all: [first, second], ann } = await cluster(t, 2, { statefulness: 'stateful' });
  const sessions = [await openSession(first, ann.token), await openSession(first, ann.token)];
  const ids = [];
  for (const session of sessions) ids.push((await count(first, ann, session)).id);
  assert.notEqual(ids[0], ids[1]);
  await first.stop('SIGKILL');
  for (const i of [1, 0]) assert.deepEqual(await count(second, ann, sessions[i]), { id: ids[i], count: 2 });
  assert.equal(server.made.length, 2);
});

for (const signal of ['SIGKILL', 'SIGTERM'])
  test(`a program alone that ends by ${signal} and is started again goes on with its servers' sessions`, async (t) => {
    const server = await counting(t);
    const first = await Gateway.start({ config: ALONE });
    t.after(() => first.stop('SIGKILL'));
    await first.registerAdmin();
    const target = await first.addTarget('counting', httpTarget(server.url));
    const ann = await first.addUser('ann');
    await first.allow(ann, target);
    const session = await openSession(first, ann.token);
    const { id } = await count(first, ann, session);
    await first.stop(signal);
    const again = await Gateway.start({ directory: first.directory, config: null });
    t.after(() => again.stop('SIGKILL'));
    assert.deepEqual(await count(again, ann, session), { id, count: 2 });
    assert.deepEqual(server.ended, []);
    assert.equal(await end(again, ann, session), 204);
    await eventually('the server is told', () => server.ended.length === 1);
    assert.deepEqual(server.ended, [id]);

    // With another credential it is another client: what was is not touched.
    const later = await openSession(again, ann.token);
    await count(again, ann, later);
    await again.stop('SIGKILL');
    const third = await Gateway.start({ directory: first.directory, config: null });
    t.after(() => third.stop('SIGKILL'));
    third.adminToken = first.adminToken;
    await third.ask('PUT', `/api/targets/${target.id}`, { auth_type: 'bearer' });
    await third.ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: 'another' });
    assert.equal((await count(third, ann, later)).count, 1);
  });
