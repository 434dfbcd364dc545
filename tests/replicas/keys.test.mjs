// A new encryption key for several programs over one PostgreSQL, while all of them are used.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before, test } from 'node:test';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { eventually, Gateway, MCPGW, run, start, within } from '../e2e/lib/gateway.mjs';
import { httpTarget, scripted } from '../e2e/lib/upstreams.mjs';
import { Postgres } from './postgres.mjs';

const OLD = '00112233445566778899aabbccddeeff'.repeat(2), NEW = 'ffeeddccbbaa99887766554433221100'.repeat(2);
const CREDENTIAL = 'the-credential-of-the-target';
const VALUES = 1500;

let postgres;
before(async () => {
  postgres = await Postgres.start();
});

const configure = (url, keys) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: ${keys}
upstream: {allow_private: true}
`;
const KEYS = { old: `{key: "${OLD}"}`, both: `{key: "${NEW}", previous_keys: ["${OLD}"]}`, new: `{key: "${NEW}"}` };
const rewrite = (gateway, url, keys) => writeFile(path.join(gateway.directory, 'mcpgw.yaml'), configure(url, keys), { mode: 0o600 });
const rotating = (gateway) => start(MCPGW, ['keys', 'rotate', 'encryption'], { cwd: gateway.directory });
const status = async (gateway) => {
  const done = await run(['keys', 'status', '--json'], { cwd: gateway.directory });
  assert.equal(done.code, 0, done.stderr);
  return JSON.parse(done.stdout).encryption;
};
const metric = async (gateway, name) =>
  Number((await (await fetch(`${gateway.url}/metrics`)).text()).match(new RegExp(`^${name} (\\d+)$`, 'm'))[1]);

/** Programs with a target whose calls show its credential, and many sealed values. */
async function sealed(t, name) {
  const upstream = await scripted(() => '{"content":[]}');
  const url = postgres.database(name);
  const all = [];
  for (let i = 0; i < 2; ++i) all.push(await Gateway.start({ config: configure(url, KEYS.old) }));
  t.after(async () => {
    await Promise.all(all.map((gateway) => gateway.stop('SIGKILL')));
    await upstream.stop();
  });
  await all[0].registerAdmin();
  for (const gateway of all) gateway.adminToken = all[0].adminToken;
  const target = await all[0].addTarget('sealed', { ...httpTarget(upstream.url), auth_type: 'bearer' });
  const ann = await all[0].addUser('ann');
  await all[0].allow(ann, target);
  await all[0].ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: CREDENTIAL });
  for (let made = 0; made < VALUES; made += 500)
    await all[0].ask('PUT', `/api/targets/${target.id}/env/role/r${made}`, { configs:
      Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`K${made + i}`, 'value'])) });
  /** One call through that program; the credential that reached the server, or the error. */
  const call = async (gateway) => {
    const session = gateway.session ??= await eventually('a session', () => openSession(gateway, ann.token).catch(() => null));
    const seen = upstream.received.length;
    const answer = await post(gateway, ann.token,
      { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'run', arguments: {} } }, { session });
    const message = JSON.parse(lastMessage(answer));
    if (message.error) return message.error.data?.code;
    return upstream.received.slice(seen).findLast((one) => one.message.method === 'tools/call').headers.authorization;
  };
  const rows = (sql) => postgres.psql(name, sql);
  /** Ids of the keys by which environment values are sealed that were written since that commit. */
  const keysSince = (seq) => rows(`SELECT DISTINCT substring(convert_from(value, 'UTF8') from 'v1[.]([0-9a-f]{16})[.]') FROM
    mcpgw_record WHERE collection = 'env' AND seq > ${seq}`).split('\n');
  const record = (key) => JSON.parse(rows(`SELECT convert_from(value, 'UTF8') FROM mcpgw_record WHERE collection = 'meta' AND key = '${key}'`));
  return { all, url, target, call, rows, keysSince, record };
}

test('R79 a new key reaches programs one after another, is put in force for all at once, and the old one opens nothing then', async (t) => {
  const { all, url, target, call, rows, keysSince, record } = await sealed(t, 'rotated');
  const [first, second] = all;
  const oldKey = record('keys').id;
  // The first is given the new key; the second knows nothing of it. Both read what the other writes.
  await first.stop();
  await rewrite(first, url, KEYS.both);
  all[0] = await Gateway.start({ directory: first.directory, config: null });
  all[0].adminToken = first.adminToken;
  await all[0].ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: `${CREDENTIAL}-2` });
  for (const gateway of all)
    await eventually('it has the credential', async () => await call(gateway) === `Bearer ${CREDENTIAL}-2`);
  assert.equal(record('keys').id, oldKey);
  const waiting = await status(all[0]);
  assert.equal(waiting.current_key, oldKey);
  assert.notEqual(waiting.configured_key, oldKey);

  // The second one's file, without a restart; calls and writes go on through both.
  await rewrite(second, url, KEYS.both);
  const kept = rows(`SELECT encode(key, 'hex') || ' ' || encode(value, 'hex') FROM mcpgw_record WHERE collection = 'target_tokens'`).split(' ');
  let on = true, calls = 0;
  const traffic = Promise.all(all.map(async (gateway) => {
    for (; on; ++calls) assert.equal(await call(gateway), `Bearer ${CREDENTIAL}-2`);
  }));
  traffic.catch(() => {});
  const rotation = rotating(all[0]);
  await rotation.line('progress', (line) => /^re-sealed \d+ of \d+ values$/.test(line));
  for (const [i, gateway] of all.entries()) {
    const seq = rows('SELECT seq FROM mcpgw_state');
    await gateway.ask('PUT', `/api/targets/${target.id}/env/role/during${i}`, { configs: { A: 'a' } });
    assert.deepEqual(keysSince(seq), [waiting.configured_key], 'a write with the old key');
  }
  assert.equal((await rotation.exit).code, 0);
  on = false;
  await traffic;
  assert.ok(calls > 0);
  const { values } = await status(all[1]);
  // Besides, what sessions keep of their servers' sessions.
  assert.ok(values.current >= VALUES + 3 && values.other === 0, JSON.stringify(values));
  assert.deepEqual(record('keys').retired, [oldKey]);
  for (const gateway of all) {
    await gateway.log('everything is sealed with the new encryption key; older ones open nothing any more');
    assert.equal(await metric(gateway, 'mcpgw_key_rotation_running'), 0);
    assert.equal(await metric(gateway, 'mcpgw_key_rotation_values_left'), 0);
    for (const key of [OLD, NEW, CREDENTIAL]) assert.ok(!gateway.logText.includes(key));
  }

  // Somebody who has the old key and the database writes a value: it is not believed, though the key is still configured.
  const put = (value) => rows(`UPDATE mcpgw_record SET value = decode('${value}', 'hex'), version = version + 1 WHERE
    collection = 'target_tokens' AND key = decode('${kept[0]}', 'hex')`);
  const now = rows(`SELECT encode(value, 'hex') FROM mcpgw_record WHERE collection = 'target_tokens'`);
  put(kept[1]);
  for (const gateway of all) await gateway.stop();
  for (const i of [0, 1]) {
    all[i] = await Gateway.start({ directory: all[i].directory, config: null });
    assert.equal(await call(all[i]), 'credential_unavailable');
    await all[i].stop();
  }
  // And without it in the configuration everything is there.
  put(now);
  await rewrite(all[0], url, KEYS.new);
  all[0] = await Gateway.start({ directory: all[0].directory, config: null });
  assert.equal(await call(all[0]), `Bearer ${CREDENTIAL}-2`);
  // Back to the old key by mistake: nothing is sealed with it.
  await rewrite(all[1], url, KEYS.old);
  const back = await run(['keys', 'rotate', 'encryption'], { cwd: all[1].directory });
  assert.equal(back.code, 1);
  assert.match(back.stderr, /was replaced before/);
});

test('R79 a rotation whose command and whose program are killed with -9 is finished by the next one', async (t) => {
  const { all, url, call, record } = await sealed(t, 'killed');
  for (const gateway of all) await rewrite(gateway, url, KEYS.both);
  const rotation = rotating(all[0]);
  await rotation.line('progress', (line) => /^re-sealed \d+ of \d+ values$/.test(line));
  rotation.child.kill('SIGKILL');
  await rotation.exit;
  const begun = record('reseal');
  assert.equal(begun.state, 'running');
  assert.ok(begun.resealed > 0 && begun.resealed < VALUES, JSON.stringify(begun));
  for (const gateway of all) assert.equal(await metric(gateway, 'mcpgw_key_rotation_running'), 1);
  await eventually('one of the programs takes it over', () => record('reseal').owner !== begun.owner, 30000);
  for (const gateway of all) await gateway.stop('SIGKILL');
  const halfway = record('reseal');
  assert.equal(halfway.state, 'running');
  assert.ok(halfway.resealed < VALUES + 1, JSON.stringify(halfway));
  const third = await Gateway.start({ directory: all[0].directory, config: null });
  all.push(third);
  await eventually('it is finished', () => record('reseal').state === 'done', 60000);
  assert.ok(record('reseal').resealed <= VALUES + 1 && record('reseal').failed === 0);
  assert.deepEqual((await status(third)).values, { current: VALUES + 1, other: 0 });
  assert.equal(await call(third), `Bearer ${CREDENTIAL}`);
  const again = await run(['keys', 'rotate', 'encryption'], { cwd: third.directory });
  assert.equal(again.code, 1);
  assert.match(again.stderr, /everything is sealed with it/);
});

test('R79 a new key is not put in force while a program that answers for others does not have it', async (t) => {
  const url = postgres.database('unknown');
  const replicated = (keys) => `${configure(url, keys)}replicas: {host: 127.0.0.1, port: 0, lease: 2s}\n`;
  const all = [];
  for (let i = 0; i < 2; ++i) all.push(await Gateway.start({ config: replicated(KEYS.old) }));
  t.after(() => Promise.all(all.map((gateway) => gateway.stop('SIGKILL'))));
  const give = (gateway, keys) => writeFile(path.join(gateway.directory, 'mcpgw.yaml'), replicated(keys), { mode: 0o600 });
  // One that is dead is waited for for 15 seconds, on a machine that is busy.
  const rotate = async (gateway) => {
    const command = rotating(gateway);
    const { code } = await within(90000, 'the end of the rotation', command.exit);
    return { code, text: command.lines.join('\n') };
  };
  await give(all[0], KEYS.both);
  const { current_key: old } = await status(all[0]);
  const refused = await rotate(all[0]);
  assert.equal(refused.code, 1, refused.text);
  const { address, replica } = await all[1].log('answers for the other replicas');
  assert.match(refused.text, /does not have the new encryption key/);
  assert.ok(refused.text.includes(`${replica} at ${address}`), refused.text);
  for (const key of [OLD, NEW]) assert.ok(!refused.text.includes(key));
  assert.equal((await status(all[0])).current_key, old);
  const records = postgres.psql('unknown', `SELECT convert_from(value, 'UTF8') FROM mcpgw_record WHERE collection = 'replicas'`);
  assert.ok(records.includes(old), 'they say which keys they have, by their ids');
  for (const key of [OLD, NEW]) assert.ok(!records.includes(key));

  // It is configured there: no restart is needed.
  await give(all[1], KEYS.both);
  const done = await rotate(all[0]);
  assert.equal(done.code, 0, done.text);
  const { current_key: now, values } = await status(all[1]);
  assert.notEqual(now, old);
  assert.equal(values.other, 0);

  // Who was killed is not waited for for ever.
  const NEXT = '00f1e2d3c4b5a697'.repeat(4);
  await all[1].stop('SIGKILL');
  await give(all[0], `{key: "${NEXT}", previous_keys: ["${NEW}"]}`);
  const again = await rotate(all[0]);
  assert.equal(again.code, 0, again.text);
});
