// Limits hold for all programs over one PostgreSQL together: whoever goes from one to the next has no more than at one.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { Gateway, PASSWORD, descendants, eventually } from '../e2e/lib/gateway.mjs';
import { stdioTarget } from '../e2e/lib/upstreams.mjs';
import { ChaosClient } from './chaos.mjs';
import { Postgres } from './postgres.mjs';

const SERVER = fileURLToPath(new URL('counting_server.mjs', import.meta.url));

const config = (url, more = '') => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
${more}`;

const joined = 'replicas: {host: 127.0.0.1, port: 0, lease: 3s}\n';
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
after(() => agent.destroy());

let postgres;
let databases = 0;
before(async () => {
  postgres = await Postgres.start();
});
after(() => postgres.stop());

/** Three programs over one database, the administrator of the first, and how to start one more. */
async function cluster(more) {
  const url = postgres.database(`limits${++databases}`);
  const one = () => Gateway.start({ config: config(url, more) });
  const all = await Promise.all([one(), one(), one()]);
  await all[0].registerAdmin();
  for (const gateway of all) gateway.adminToken = all[0].adminToken;
  return { all, one, database: `limits${databases}`, stop: () => Promise.all(all.map((gateway) => gateway.stop())) };
}

/** A user whom all programs know. */
async function userOf(all) {
  const ann = await all[0].addUser('ann');
  await eventually('all know ann', async () => (await Promise.all(all.map((gateway) => gateway.api('GET', '/api/auth/me', undefined, ann.token))))
    .every((answer) => answer.status === 200));
  return ann;
}

/** A client of one user at one program. */
async function client(gateway, user, modern = true) {
  const one = new ChaosClient({ agent, base: gateway.url, token: user.token, modern, name: 'limits' });
  await one.open();
  return one;
}
const call = (one, name) => one.ask('tools/call', { name, arguments: {} });
const code = async (answer) => (await answer).code;
/** How many processes a program runs, itself not counted. */
const children = async (gateway) => (await descendants(gateway.process.child.pid)).length;

const login = async (gateway, password, email = 'admin@example.test') =>
  (await gateway.api('POST', '/api/auth/login', { email, password }, null)).status;

test('R44 a guesser who goes from program to program has ten guesses, not thirty, also when a program begins anew', async () => {
  const { all, one, database, stop } = await cluster();
  const answers = [];
  for (let i = 0; i < 15; ++i) answers.push(await login(all[i % 3], `guess ${i}`));
  assert.deepEqual(answers, [...Array(10).fill(401), ...Array(5).fill(429)]);
  for (const gateway of all) assert.equal(await login(gateway, PASSWORD), 429);
  await all[1].stop('SIGKILL');
  all[1] = await one();
  assert.equal(await login(all[1], PASSWORD), 429);
  // At all of them at once, for an account that nobody has.
  const many = await Promise.all([...Array(24).keys()].map((i) => login(all[i % 3], 'a guess', 'nobody@example.test')));
  assert.equal(many.filter((status) => status === 401).length, 10);
  assert.equal(many.filter((status) => status === 429).length, 14);
  // Who guessed what is not to be read in the database.
  const stored = postgres.psql(database, `SELECT string_agg(encode(key, 'escape') || encode(value, 'escape'), '') FROM mcpgw_record WHERE collection = 'rates'::bytea`);
  assert.ok(stored.length > 0);
  for (const name of ['admin@', 'nobody@', '127.0.0.1']) assert.ok(!stored.includes(name));
  await stop();
});

test('registrations of an address and tickets of a user are counted together', async () => {
  const { all, stop } = await cluster('auth: {rate: {register_per_address: 6}}');
  const register = async (i) =>
    (await all[i % 3].api('POST', '/api/auth/register', { email: `u${i}@example.test`, password: PASSWORD }, null)).status;
  const answers = await Promise.all([...Array(9).keys()].map(register));
  assert.equal(answers.filter((status) => status === 201).length, 5);  // the administrator was the first
  assert.equal(answers.filter((status) => status === 429).length, 4);
  const tickets = [];
  for (let i = 0; i < 126; i += 9)
    tickets.push(...await Promise.all([...Array(9).keys()].map(async (k) =>
      (await all[k % 3].api('POST', '/api/observability/ticket')).status)));
  assert.equal(tickets.filter((status) => status < 300).length, 120, tickets.join(' '));
  assert.equal(tickets.filter((status) => status === 429).length, 6);
  await stop();
});

test('sessions of a user are counted together, and a killed program\'s are no hindrance', async () => {
  const { all, one, stop } = await cluster(joined + 'session: {max_per_user: 5}');
  const ann = await userOf(all);
  const clients = [];
  for (let i = 0; i < 9; ++i) clients.push(await client(all[i % 3], ann, false));
  const living = async () => {
    const pings = await Promise.all(clients.map((each) => each.ask('ping')));
    return pings.filter((answer) => answer.result).length;
  };
  await eventually('five are left', async () => await living() === 5);
  assert.ok((await clients.at(-1).ask('ping')).result);
  await all[2].stop('SIGKILL');
  const rest = all.slice(0, 2);
  // Until its lease has run out they may come back, so they count.
  await eventually('five more have room beside them', async () => {
    const fresh = [];
    for (let i = 0; i < 5; ++i) fresh.push(await client(rest[i % 2], ann, false));
    return (await Promise.all(fresh.map((each) => each.ask('ping')))).every((answer) => answer.result);
  });
  all[2] = await one();
  await stop();
});

test('streams of a user are counted together, and those of a killed program are free again', async () => {
  const { all, one, stop } = await cluster(joined + 'session: {max_streams_per_user: 2}');
  const ann = await userOf(all);
  const streams = [];
  const listen = async (gateway) => {
    const each = await client(gateway, ann, false);
    const aborter = new AbortController();
    const response = await fetch(gateway.url + '/mcp', { signal: aborter.signal, headers: {
      Accept: 'text/event-stream', Authorization: `Bearer ${ann.token}`, 'Mcp-Session-Id': each.session } });
    if (response.status === 200) streams.push(aborter);
    else await response.text();
    return response.status;
  };
  assert.equal(await listen(all[0]), 200);
  assert.equal(await listen(all[1]), 200);
  for (const gateway of all) assert.equal(await listen(gateway), 429);
  await all[0].stop('SIGKILL');
  assert.equal(await listen(all[2]), 200);
  for (const gateway of all.slice(1)) assert.equal(await listen(gateway), 429);
  for (const aborter of streams) aborter.abort();
  all[0] = await one();
  await stop();
});

test('calls of a target at once are counted together, and a killed program gives its places back', async () => {
  const { all, one, stop } = await cluster(joined + `stdio: {allowed_commands: ["${process.execPath}"]}`);
  const target = await all[0].addTarget('counting', { ...stdioTarget(process.execPath, SERVER), max_concurrency: 2, timeout_ms: 120000 });
  const ann = await userOf(all);
  await all[0].allow(ann, target);
  const clients = [];
  for (const gateway of all) {
    clients.push(await client(gateway, ann));
    await eventually('it is served', async () => (await call(clients.at(-1), 'count')).result);
  }
  const hanging = [0, 1].map((i) => call(clients[i], 'hang').catch(() => 'cut off'));
  // A second is what the others wait for their turn from now on.
  await eventually('both hang', async () => {
    const texts = await Promise.all(all.map(async (gateway) => (await fetch(gateway.url + '/metrics')).text()));
    const running = texts.map((text) => Number(/^mcpgw_requests_in_flight (\d+)/m.exec(text)?.[1] ?? 0));
    return running[0] >= 1 && running[1] >= 1;
  });
  await all[2].ask('PUT', `/api/targets/${target.id}`, { timeout_ms: 1000 });
  for (const gateway of all)
    await eventually('all know', async () => (await gateway.ask('GET', `/api/targets/${target.id}`)).timeout_ms === 1000);
  for (const each of clients) assert.equal(await code(call(each, 'count')), 'target_busy');
  await all[0].stop('SIGKILL');
  await eventually('its place is free', async () => (await call(clients[2], 'count')).result);
  await eventually('also for the other', async () => (await call(clients[1], 'count')).result);
  await all[1].stop('SIGKILL');
  await Promise.all(hanging);
  all[0] = await one();
  all[1] = await one();
  await stop();
});

test('processes of a user are counted together; an idle one gives way, wherever it is', async () => {
  const { all, stop } = await cluster(joined + `stdio: {allowed_commands: ["${process.execPath}"], max_per_user: 2}`);
  const ann = await userOf(all);
  const clients = [];
  for (const [i, gateway] of all.entries()) {
    const target = await all[0].addTarget(`counting${i}`, { ...stdioTarget(process.execPath, SERVER), isolation_boundary: 'per_user' });
    await all[0].allow(ann, target);
    clients.push(gateway);
  }
  const names = [0, 1, 2].map((i) => (name) => `counting${i}_${name}`);
  const [first, second, third] = await Promise.all(all.map((gateway) => client(gateway, ann)));
  const running = async () => (await Promise.all(all.map(children))).reduce((sum, each) => sum + each, 0);
  const done = async (each, name) => eventually(`${name} answers`, async () => (await call(each, name)).result);
  await done(first, names[0]('count'));
  await done(second, names[1]('count'));
  await done(third, names[2]('count'));
  await eventually('two are left', async () => await running() <= 2);
  await stop();
});
