// Moving what is stored: SQLite to PostgreSQL and back, backups of a gateway in use, another gateway's database.
import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before, test } from 'node:test';
import { openSession, post } from '../e2e/lib/clients.mjs';
import { Gateway, PASSWORD, eventually, run, temporaryDirectory } from '../e2e/lib/gateway.mjs';
import { demoHttp, httpTarget } from '../e2e/lib/upstreams.mjs';
import { Postgres } from './postgres.mjs';

const keys = `jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
upstream: {allow_private: true}
`;
const config = (url) => `database: "${url}"\n${keys}`;

let postgres;
let upstream;
before(async () => {
  postgres = await Postgres.start();
  upstream = await demoHttp();
});

const call = (text) => ({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'echo', arguments: { text } } });
const ok = (done) => {
  assert.equal(done.code, 0, done.stderr);
  return JSON.parse(done.stdout);
};

/** A gateway with a user whose calls work; `work` goes on calling and writing until told to stop. */
async function busy(options) {
  const gateway = await Gateway.start(options);
  await gateway.registerAdmin();
  const target = await gateway.addTarget('demo', httpTarget(upstream.url));
  await gateway.ask('PUT', `/api/targets/${target.id}/env/default`, { configs: { LEVEL: 'one' } });
  const ann = await gateway.addUser('ann');
  await gateway.allow(ann, target);
  const session = await openSession(gateway, ann.token);
  let rounds = 0, running = true;
  const work = (async () => {
    while (running) {
      const answer = await post(gateway, ann.token, call(`round ${rounds}`), { session });
      assert.equal(answer.status, 200);
      await gateway.ask('PUT', `/api/targets/${target.id}/env/default`, { configs: { LEVEL: `${rounds}`, [`K${rounds % 50}`]: 'x' } });
      ++rounds;
    }
  })();
  const stop = async () => {
    running = false;
    await work;
  };
  await eventually('work is under way', () => rounds > 3);
  return { gateway, ann, session, target, stop, rounds: () => rounds };
}

test('a SQLite gateway moves to PostgreSQL while it is used: everything is there, tokens and sessions hold', async () => {
  const from = await busy({ config: keys });
  const url = postgres.database('moved');
  const moved = ok(await run(['storage', 'copy', '--to', url, '--json'], { cwd: from.gateway.directory }));
  assert.ok(moved.records > 10);
  assert.ok(moved.audit_rows > 0);
  await from.stop();
  const again = await run(['storage', 'copy', '--to', url, '--json'], { cwd: from.gateway.directory });
  assert.equal(again.code, 1);
  assert.match(again.stderr, /empty/);
  await from.gateway.stop();

  const there = await Gateway.start({ config: config(url) });
  const answer = await post(there, from.ann.token, call('there'), { session: from.session });
  assert.equal(answer.status, 200);
  const rows = await there.ask('GET', '/api/logs?limit=1000', undefined, from.gateway.adminToken);
  assert.ok(rows.length >= Math.min(moved.audit_rows, 1000));
  await there.stop();

  // And back, by way of the file that backup makes of a PostgreSQL database.
  const file = path.join(there.directory, 'backup.db');
  const saved = ok(await run(['storage', 'backup', file, '--json'], { cwd: there.directory }));
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const directory = await temporaryDirectory();
  await writeFile(path.join(directory, 'mcpgw.yaml'), keys);
  const restored = ok(await run(['storage', 'restore', file, '--json'], { cwd: directory }));
  assert.equal(restored.records_sha256, saved.records_sha256);
  assert.equal(restored.audit_sha256, saved.audit_sha256);
  const back = await Gateway.start({ directory, config: null });
  assert.equal((await back.ask('GET', '/api/auth/me', undefined, from.gateway.adminToken)).role, 'admin');
  await back.stop();
});

test('a backup of a PostgreSQL gateway in use is of one moment, and restores into an empty database', async () => {
  const url = postgres.database('busy');
  const from = await busy({ config: config(url) });
  const file = path.join(from.gateway.directory, 'backup.db');
  const before = from.rounds();
  const saved = ok(await run(['storage', 'backup', file, '--json'], { cwd: from.gateway.directory }));
  await eventually('work went on', () => from.rounds() > before);
  await from.stop();
  await from.gateway.stop();
  assert.equal((await run(['storage', 'backup', file], { cwd: from.gateway.directory })).code, 1);

  const directory = await temporaryDirectory();
  await writeFile(path.join(directory, 'mcpgw.yaml'), config(postgres.database('restored')));
  const restored = ok(await run(['storage', 'restore', file, '--json'], { cwd: directory }));
  assert.equal(restored.records_sha256, saved.records_sha256);
  const there = await Gateway.start({ directory, config: null });
  there.adminToken = from.gateway.adminToken;
  const env = await there.ask('GET', `/api/targets/${from.target.id}/env/default`);
  assert.ok(env.some((row) => row.env_key === 'LEVEL'));
  assert.equal((await run(['storage', 'restore', file], { cwd: directory })).code, 1);
  await there.stop();
});

test('passwords in arguments are refused, and nothing of them is said', async () => {
  const directory = await temporaryDirectory();
  await writeFile(path.join(directory, 'mcpgw.yaml'), keys);
  for (const args of [['storage', 'copy', '--to', postgres.url('x', 'canary')],
    ['import', 'reflow', '--dsn', postgres.url('x', 'canary'), '--encryption-key', '-']]) {
    const refused = await run(args, { cwd: directory });
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /PGPASSWORD/);
    assert.ok(!(refused.stdout + refused.stderr).includes('canary'));
  }
});

test('mcpgw import reflow: a dry run writes nothing, --apply does, and old passwords log in', async () => {
  const key = 'reflow-key-of-exactly-32-bytes!!';
  const sealed = (text) => {
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', key, nonce);
    return Buffer.concat([nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()]).toString('base64');
  };
  const url = postgres.database('reflow');
  const ann = '00000000-0000-4000-8000-000000000001', demo = '00000000-0000-4000-8000-0000000000a1';
  postgres.psql('reflow', `
    CREATE TABLE users(id uuid, email text, password_hash text, role text, groups text[], created_at timestamptz, updated_at timestamptz);
    CREATE TABLE targets(id uuid, name text, url text, command text, args text[], image text, port int, health_path text,
      transport_type text, statefulness text, isolation_boundary text, auth_type text, auth_header_name text,
      default_encrypted_token text, enabled boolean, created_at timestamptz, updated_at timestamptz);
    CREATE TABLE authorization_policies(id uuid, name text, description text, target_id uuid, resource_type text,
      resource_pattern text, effect text, priority int, enabled boolean, created_at timestamptz, updated_at timestamptz);
    CREATE TABLE policy_subjects(policy_id uuid, subject_type text, subject_value text);
    INSERT INTO users VALUES('${ann}', 'ann@example.test', '$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW', 'admin', '{}', now(), now());
    INSERT INTO targets VALUES('${demo}', 'demo', '${upstream.url}', NULL, NULL, NULL, 8080, NULL, 'streamable-http', 'stateless',
      'shared', 'bearer', NULL, '${sealed('the-token')}', true, now(), now());
    INSERT INTO authorization_policies VALUES('00000000-0000-4000-8000-0000000000b1', 'Default Allow All', '', NULL, 'all', NULL,
      'allow', 1, true, now(), now());
    INSERT INTO policy_subjects VALUES('00000000-0000-4000-8000-0000000000b1', 'everyone', NULL);`);
  const directory = await temporaryDirectory();
  await writeFile(path.join(directory, 'mcpgw.yaml'), config(postgres.database('taken_over')));
  const command = ['import', 'reflow', '--dsn', url, '--encryption-key', '-', '--json'];
  const wrong = await run(command, { cwd: directory, input: 'another-key-of-exactly-32-bytes!\n' });
  assert.equal(wrong.code, 1);
  const tried = ok(await run(command, { cwd: directory, input: key }));
  assert.equal(tried.applied, false);
  assert.equal(postgres.psql('taken_over', "SELECT count(*) FROM pg_class WHERE relname LIKE 'mcpgw%'"), '0');
  const done = ok(await run([...command, '--apply'], { cwd: directory, input: key }));
  assert.deepEqual(done.lines, tried.lines);
  assert.ok(!JSON.stringify(done).includes('the-token'));
  const gateway = await Gateway.start({ directory, config: null });
  for (let i = 0; i < 2; ++i) {  // the second time with the hash that the first one left
    const login = await gateway.ask('POST', '/api/auth/login', { email: 'ann@example.test', password: 'U*U' }, null);
    gateway.adminToken = login.token;
    assert.equal(login.user.id, ann);
  }
  assert.equal((await gateway.api('POST', '/api/auth/login', { email: 'ann@example.test', password: 'U*V' }, null)).status, 401);
  const record = postgres.psql('taken_over', `SELECT convert_from(value, 'UTF8') FROM mcpgw_record WHERE collection = 'users'`);
  assert.match(record, /\$scrypt\$/);
  const session = await openSession(gateway, gateway.adminToken);
  assert.equal((await post(gateway, gateway.adminToken, call('hello'), { session })).status, 200);
  const allow = (await gateway.ask('GET', '/api/policies')).find((policy) => policy.name === 'Default Allow All');
  assert.equal(allow.enabled, false);
  await gateway.stop();
});
