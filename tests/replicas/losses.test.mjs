// Rows of "What is lost when what dies" (docs/operations.md): replicas that only seem to be dead, that fall silent, and a
// database that goes while sessions change hands.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { Gateway, descendants, eventually } from '../e2e/lib/gateway.mjs';
import { httpTarget, stdioTarget } from '../e2e/lib/upstreams.mjs';
import { counting } from './counting_http.mjs';
import { Postgres } from './postgres.mjs';

const SERVER = fileURLToPath(new URL('counting_server.mjs', import.meta.url));
const config = (url) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
upstream: {allow_private: true}
stdio: {allowed_commands: ["${process.execPath}"]}
replicas: {host: 127.0.0.1, port: 0, lease: 1s, silence: 1500ms}
`;

let postgres;
let databases = 0;
before(async () => {
  postgres = await Postgres.start();
});

/** {all, ann, owner, forget}: `owner` of a session, as the database has it; `forget` a replica, as others do in time. */
async function cluster(t, size, target, server = postgres) {
  const name = `losses${++databases}`;
  const url = server.database(name);
  const all = await Promise.all(Array.from({ length: size }, () => Gateway.start({ config: config(url) })));
  t.after(() => Promise.all(all.map((gateway) => gateway.stop('SIGKILL'))));
  await all[0].registerAdmin();
  for (const gateway of all) gateway.adminToken = all[0].adminToken;
  const ann = await all[0].addUser('ann');
  await all[0].allow(ann, await all[0].addTarget('counting', target));
  for (const gateway of all)
    await eventually('it knows the user', async () => (await say(gateway, ann, 'none', 'count')).status === 404);
  const owner = (session) => JSON.parse(server.psql(name,
    `SELECT convert_from(value, 'UTF8') FROM mcpgw_record WHERE collection = 'sessions' AND key = convert_to('${session}', 'UTF8')`)).owner;
  const forget = (id) => server.psql(name, `DELETE FROM mcpgw_record WHERE collection LIKE 'replica%' AND
    (convert_from(key, 'UTF8') = '${id}' OR convert_from(key, 'UTF8') LIKE '${id}/%')`);
  return { all, ann, owner, forget };
}

let calls = 0;
/** One call: {status, error, value}. */
async function say(gateway, who, session, name, args = {}) {
  const answer = await post(gateway, who.token,
    { jsonrpc: '2.0', id: ++calls, method: 'tools/call', params: { name, arguments: args } }, { session });
  if (answer.status !== 200) return { status: answer.status };
  const message = JSON.parse(lastMessage(answer));
  return { status: 200, error: message.error, value: message.result && JSON.parse(message.result.content[0].text) };
}

test('a program that slept past its lease does nothing for sessions that others have taken meanwhile', async (t) => {
  const { all: [first, second], ann, owner } = await cluster(t, 2, stdioTarget(process.execPath, SERVER));
  const session = await openSession(first, ann.token);
  const slept = (await say(first, ann, session, 'count')).value;
  assert.ok((await descendants(first.process.child.pid)).includes(slept.pid));
  const before = owner(session);
  const stop = () => first.process.child.kill('SIGSTOP'), wake = () => first.process.child.kill('SIGCONT');
  t.after(wake);
  stop();
  const taken = await eventually('it is taken over', async () => (await say(second, ann, session, 'count')).value);
  assert.notEqual(taken.pid, slept.pid);
  const now = owner(session);
  assert.notEqual(now, before);
  // Its lease has run out for certain, and what its clients have asked it for meanwhile lies there when it wakes.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const asked = Array.from({ length: 8 }, () => say(first, ann, session, 'count'));
  await new Promise((resolve) => setTimeout(resolve, 100));
  wake();
  const answers = await Promise.all(asked);
  for (const one of answers) assert.equal(one.value?.pid, taken.pid, JSON.stringify(one));
  assert.deepEqual(answers.map((one) => one.value.count).sort((a, b) => a - b),
    answers.map((_, i) => taken.count + 1 + i), 'each was done once');
  assert.equal(owner(session), now);
});

test('the same after so long a sleep that its record was removed', async (t) => {
  const server = await counting(t);
  const { all: [first, second], ann, owner, forget } =
    await cluster(t, 2, { ...httpTarget(server.url), statefulness: 'stateful' });
  const sessions = [];
  for (let i = 0; i < 4; ++i) {
    const session = await openSession(first, ann.token);
    sessions.push({ session, id: (await say(first, ann, session, 'count')).value.id });
  }
  t.after(() => first.process.child.kill('SIGCONT'));
  const { replica } = await first.log('answers for the other replicas');
  first.process.child.kill('SIGSTOP');
  const stopped = performance.now();
  for (const { session, id } of sessions)
    assert.deepEqual((await eventually('it goes on', async () => (await say(second, ann, session, 'count')).value)), { id, count: 2 });
  forget(replica);
  const owners = sessions.map(({ session }) => owner(session));
  // Half of the time after which records are removed: 20 leases.
  await new Promise((resolve) => setTimeout(resolve, stopped + 10500 - performance.now()));
  const asked = sessions.map(({ session }) => say(first, ann, session, 'count'));
  await new Promise((resolve) => setTimeout(resolve, 100));
  first.process.child.kill('SIGCONT');
  const answers = await Promise.all(asked);
  assert.deepEqual(answers.map(({ value }) => value), sessions.map(({ id }) => ({ id, count: 3 })));
  assert.deepEqual(sessions.map(({ session }) => owner(session)), owners);
  assert.deepEqual(server.twice, []);
  assert.deepEqual(server.ended, []);
  assert.equal(server.made.length, sessions.length);
});

test('a program that falls silent in a call is given up, one that only takes long is not', async (t) => {
  const { all: [first, second], ann } = await cluster(t, 2, stdioTarget(process.execPath, SERVER));
  const session = await openSession(first, ann.token);
  const { pid } = (await say(first, ann, session, 'count')).value;
  assert.equal((await say(second, ann, session, 'sleep', { ms: 4000 })).value, 'slept');
  const call = say(second, ann, session, 'hang');
  await new Promise((resolve) => setTimeout(resolve, 500));
  t.after(() => first.process.child.kill('SIGCONT'));
  first.process.child.kill('SIGSTOP');
  const begun = performance.now();
  const { error } = await call;
  assert.equal(error?.data?.code, 'replica_lost', JSON.stringify(error));
  assert.ok(performance.now() - begun < 12000, 'it waited for longer than replicas.silence');
  const after = (await say(second, ann, session, 'count')).value;
  assert.notEqual(after.pid, pid);
  assert.equal(after.count, 1);
});

test('PostgreSQL restarts while sessions are taken over: each goes on once, and no call is made twice', async (t) => {
  const own = await Postgres.start();
  t.after(() => own.stop());
  const server = await counting(t);
  const { all: [first, second, third], ann, owner } = await cluster(t, 3, { ...httpTarget(server.url), statefulness: 'stateful' }, own);
  const sessions = [];
  for (let i = 0; i < 12; ++i) {
    const session = await openSession(first, ann.token);
    sessions.push({ session, id: (await say(first, ann, session, 'count')).value.id, done: 1 });
  }
  await first.stop('SIGKILL');
  const outcomes = new Set();
  let on = true;
  const traffic = Promise.all(sessions.map(async (one, i) => {
    for (let turn = i; on; ++turn) {
      const { status, value, error } = await say(turn % 2 ? second : third, ann, one.session, 'count');
      outcomes.add(error ? error.data?.code : status);
      if (value === undefined) continue;
      assert.equal(value.id, one.id, 'a session of the server was lost, or another one\'s answer came');
      assert.equal(value.count, ++one.done, 'a call was lost or made twice');
    }
  }));
  traffic.catch(() => {});
  await own.stop('SIGQUIT');
  await new Promise((resolve) => setTimeout(resolve, 500));
  await own.run();
  await eventually('all go on', () => sessions.every((one) => one.done > 2), 30000);
  on = false;
  await traffic;
  for (const what of outcomes) assert.ok([200, 503].includes(what), `unexpected: ${what}`);
  assert.equal(server.made.length, sessions.length);
  const owners = new Set(sessions.map((one) => owner(one.session)));
  assert.ok(!owners.has(''));
  assert.deepEqual(server.twice, []);
});
