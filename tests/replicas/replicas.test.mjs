// Several programs over one PostgreSQL: what is changed through one acts through the others, sessions go on anywhere, and
// what happens while the database is away.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { Gateway, PASSWORD, eventually } from '../e2e/lib/gateway.mjs';
import { demoHttp, httpTarget, scripted } from '../e2e/lib/upstreams.mjs';
import { Postgres } from './postgres.mjs';

const CANARY = 'canary-of-the-database-password';
const config = (url, more = '') => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
upstream: {allow_private: true}
${more}`;

let postgres;
let databases = 0;
before(async () => {
  postgres = await Postgres.start();
});

/** Programs over one new database; the first has the admin. */
async function replicas(count, more, server = postgres) {
  const name = `replicas${++databases}`;
  server.database(name);
  const url = server.url(name, CANARY);  // the server trusts whoever comes over its socket
  const all = [];
  for (let i = 0; i < count; ++i) all.push(await Gateway.start({ config: config(url, more) }));
  await all[0].registerAdmin();
  for (const gateway of all) gateway.adminToken = all[0].adminToken;
  all.database = name;
  return all;
}

const call = (name, args = {}, id = 1) => ({ jsonrpc: '2.0', id, method: 'tools/call', params: { name, arguments: args } });
const callTool = async (gateway, token, session, name, args) => {
  const answer = await post(gateway, token, call(name, args), { session });
  return { status: answer.status, message: answer.text ? JSON.parse(lastMessage(answer)) : null };
};
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

/** Milliseconds for which something is known not to have taken effect: until the last `probe` that said no began. So a
 *  slow answer counts for nothing. */
async function took(probe) {
  const begun = performance.now();
  for (let last = 0, now = 0; ; last = now) {
    now = performance.now() - begun;
    if (await probe()) return last;
    if (now > 10000) throw new Error('it never took effect');
  }
}

test('R2 R98 changes made through one program act through the other within a tenth of a second', async () => {
  const upstream = await scripted((message, response, raw) => '{"content":[]}');
  const [first, second] = await replicas(2);
  const target = await first.addTarget('echo', { ...httpTarget(upstream.url), auth_type: 'bearer' });
  const ann = await first.addUser('ann');
  const delays = { token: [], deny: [], allow: [], target: [], credential: [] };
  // What a call takes at the same time: on a loaded machine everything takes longer, the news too.
  const calls = [];
  await first.allow(ann, target);
  const session = await eventually('a session', () => openSession(second, ann.token).catch(() => null));
  const works = async () => (await callTool(second, ann.token, session, 'run')).message.result !== undefined;
  await eventually('the call works', works);
  for (let round = 0; round < 5; ++round) {
    const minted = await first.ask('POST', '/api/auth/tokens', { name: `t${round}`, scopes: ['mcp'] }, (
      await first.ask('POST', '/api/auth/login', { email: ann.email, password: PASSWORD }, null)).token);
    await eventually('the token is known', async () =>
      (await post(second, minted.token, call('run'), { session })).status === 200);
    await first.ask('DELETE', `/api/users/${ann.user.id}/tokens/${minted.api_token.id}`);
    delays.token.push(await took(async () => (await post(second, minted.token, call('run'), { session })).status === 401));

    const deny = await first.allow(ann, target, { effect: 'deny', priority: 10 });
    delays.deny.push(await took(async () => !(await works())));
    await first.ask('DELETE', `/api/policies/${deny.id}`);
    delays.allow.push(await took(works));

    await first.ask('PUT', `/api/targets/${target.id}`, { enabled: false });
    delays.target.push(await took(async () => !(await works())));
    await first.ask('PUT', `/api/targets/${target.id}`, { enabled: true });
    await eventually('it works again', works);

    await first.ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: `credential-${round}` });
    delays.credential.push(await took(async () => {
      await works();
      return upstream.received.at(-1).headers.authorization === `Bearer credential-${round}`;
    }));
    for (let i = 0; i < 3; ++i) {
      const begun = performance.now();
      assert.ok(await works());
      calls.push(performance.now() - begun);
    }
  }
  const limit = 100 + 10 * median(calls);
  for (const [what, values] of Object.entries(delays))
    assert.ok(median(values) < limit, `${what}: ${values} ms, where ${limit} are allowed (calls: ${calls})`);
  await upstream.stop();
  await Promise.all([first.stop(), second.stop()]);
});

test('R30 R32 a session made on one program goes on at the other, also when the first was killed, and is recycled anywhere', async () => {
  const upstream = await demoHttp();
  const [first, second] = await replicas(2);
  const target = await first.addTarget('demo', httpTarget(upstream.url));
  const ann = await first.addUser('ann');
  await first.allow(ann, target);
  const session = await openSession(first, ann.token);
  const tools = async (gateway) => JSON.parse(lastMessage(await post(gateway, ann.token,
    { jsonrpc: '2.0', id: 1, method: 'tools/list' }, { session }))).result?.tools.map((tool) => tool.name).sort();
  const own = await tools(first);
  assert.ok(own.length > 0);
  assert.deepEqual(await tools(second), own);
  const echo = async (gateway, text) => (await callTool(gateway, ann.token, session, 'echo', { text })).message.result;
  assert.ok(await echo(second, 'two'));
  assert.ok(await echo(first, 'one'));
  await first.stop('SIGKILL');
  assert.ok(await echo(second, 'still'));
  const third = await Gateway.start({ directory: first.directory, config: null });
  third.adminToken = first.adminToken;
  assert.deepEqual(await tools(third), own);

  const recycled = await third.ask('POST', `/api/users/${ann.user.id}/recycle`, {});
  assert.equal(recycled.recycled, 1);
  await eventually('the session has ended on both', async () =>
    (await callTool(second, ann.token, session, 'echo', { text: 'x' })).status === 404 &&
    (await callTool(third, ann.token, session, 'echo', { text: 'x' })).status === 404);

  // Another user's session is as unknown as ever, on any program.
  const bob = await third.addUser('bob');
  const anns = await openSession(second, ann.token);
  const stolen = await post(third, bob.token, call('echo'), { session: anns });
  const unknown = await post(third, bob.token, call('echo'), { session: 'none' });
  assert.equal(stolen.status, 404);
  assert.equal(stolen.text, unknown.text);

  // Disabled through one, out at once on the other.
  await third.ask('PUT', `/api/users/${ann.user.id}`, { enabled: false });
  assert.ok(await took(async () => (await post(second, ann.token, call('echo'), { session: anns })).status === 401) < 1000);
  await Promise.all([second.stop(), third.stop()]);
  await upstream.stop();
});

test('R80 many programs that start at once make tables and policies once, and one first admin', async () => {
  const name = 'together';
  postgres.database(name);
  const gateways = await Promise.all([1, 2, 3].map(() => Gateway.start({ config: config(postgres.url(name)) })));
  const made = await Promise.all(gateways.map((gateway, i) => gateway.ask('POST', '/api/auth/register',
    { email: `user${i}@example.test`, password: PASSWORD }, null)));
  assert.equal(made.filter((one) => one.user.role === 'admin').length, 1);
  const admin = made.find((one) => one.user.role === 'admin');
  for (const gateway of gateways)
    assert.equal((await gateway.ask('GET', '/api/policies', undefined, admin.token)).length, 2);
  await Promise.all(gateways.map((gateway) => gateway.stop()));
});

test('R71 with PostgreSQL away calls go on for storage.grace, writes are refused, nothing is lost, and no restart is needed', async () => {
  const server = await Postgres.start();
  const upstream = await demoHttp();
  const [gateway] = await replicas(1, 'storage: {grace: 8s}', server);
  const target = await gateway.addTarget('demo', httpTarget(upstream.url));
  const ann = await gateway.addUser('ann');
  await gateway.allow(ann, target);
  const session = await openSession(gateway, ann.token);
  const echo = (text) => callTool(gateway, ann.token, session, 'echo', { text });
  assert.ok((await echo('before')).message.result);
  const ready = async () => {
    const response = await fetch(`${gateway.url}/ready`);
    return { code: response.status, ...(await response.json()) };
  };
  assert.equal((await ready()).code, 200);

  await server.stop('SIGQUIT');
  assert.ok((await echo('away')).message.result);
  const not = await ready();
  assert.equal(not.code, 503);
  assert.equal(not.checks.storage, 'unavailable');
  const write = await gateway.api('POST', '/api/users', { email: 'x@example.test', password: PASSWORD });
  assert.equal(write.status, 503);
  assert.equal(write.body.code, 'storage_unavailable');
  const stranger = await post(gateway, ann.token, { jsonrpc: '2.0', id: 0, method: 'initialize', params: {
    protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'bare', version: '1' } } });
  assert.equal(stranger.status, 503);
  assert.equal((await fetch(`${gateway.url}/health`)).status, 200);

  await eventually('the grace ends', async () => (await echo('late')).status === 503, 30000);
  assert.equal((await post(gateway, ann.token, call('echo'), { session })).headers.get('retry-after'), '5');

  await server.run();
  await eventually('it is ready again', async () => (await ready()).code === 200);
  await eventually('calls work again', async () => (await echo('after')).message.result);
  await gateway.ask('POST', '/api/users', { email: 'x@example.test', password: PASSWORD });
  // What was called while it was away is in the audit log.
  await eventually('the rows are there', async () => {
    const rows = await gateway.ask('GET', '/api/logs?method=tools/call&limit=1000');
    const texts = rows.map((row) => row.request_body?.params?.arguments?.text);
    return texts.includes('away') && texts.includes('after');
  });
  assert.ok(!gateway.logText.includes(CANARY));
  await gateway.stop();
  await upstream.stop();
  await server.stop();
});

test('a database that cannot be had ends the start with a reason and without its password', async () => {
  const { start, MCPGW, temporaryDirectory } = await import('../e2e/lib/gateway.mjs');
  const { writeFile } = await import('node:fs/promises');
  const directory = await temporaryDirectory();
  for (const [url, reason] of [
    [postgres.url('none', CANARY), /has no database of this name/],
    [`postgres://stranger:${CANARY}@${encodeURIComponent(postgres.directory)}/postgres`, /refuses this user/],
    [`postgres://mcpgw:${CANARY}@127.0.0.1:1/x`, /storage does not answer/],
    [`postgres://mcpgw:${CANARY}@127.0.0.1/x?nonsense=1`, /must be sqlite/]]) {
    await writeFile(`${directory}/mcpgw.yaml`, config(url, 'storage: {connect_timeout: 100ms}'));
    const failed = start(MCPGW, ['serve', '--port', '0'], { cwd: directory });
    const { code } = await failed.exit;
    assert.ok(code === 1 || code === 2);
    assert.match(failed.lines.join('\n'), reason);
    assert.ok(!failed.lines.join('\n').includes(CANARY));
  }
});
