// TLS to PostgreSQL: what each sslmode asks for, and what is said when it is not met.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before, test } from 'node:test';
import { Gateway, MCPGW, eventually, start, temporaryDirectory } from '../e2e/lib/gateway.mjs';
import { Postgres } from './postgres.mjs';

const CANARY = 'canary-of-the-database-password';
const config = (url) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
storage: {connect_timeout: 100ms}
`;

let directory, postgres, plain;

/** An authority, and a certificate of it for `host` that lasts for `days`. */
function authority(name, host, days = 1) {
  const file = (what) => path.join(directory, `${name}.${what}`);
  const openssl = (...args) => execFileSync('openssl', args, { stdio: 'pipe' });
  openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', `/CN=${name}`, '-keyout', file('ca.key'), '-out', file('ca.pem'));
  writeFileSync(file('ext'), `subjectAltName=DNS:${host}\n`);
  openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/CN=${host}`,
    '-keyout', file('key'), '-out', file('csr'));
  openssl('x509', '-req', '-in', file('csr'), '-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial',
    '-days', `${days}`, '-extfile', file('ext'), '-out', file('pem'));
  return { ca: file('ca.pem'), cert: readFileSync(file('pem'), 'utf8'), key: readFileSync(file('key'), 'utf8') };
}

before(async () => {
  directory = await temporaryDirectory();
});

/** The end of a start that fails: its exit code and words. */
async function refused(url) {
  const at = await temporaryDirectory();
  await writeFile(path.join(at, 'mcpgw.yaml'), config(url));
  const failed = start(MCPGW, ['serve', '--port', '0'], { cwd: at });
  const { code } = await failed.exit;
  const words = failed.lines.join('\n');
  assert.equal(code, 1, words);
  assert.ok(!words.includes(CANARY));
  return words;
}

test('each sslmode gets what it asks for, or is refused with the reason and without the password', async (t) => {
  const ours = authority('ours', 'localhost'), theirs = authority('theirs', 'localhost');
  postgres = await Postgres.start({ tls: ours });
  t.after(() => postgres.stop());
  postgres.database('tls');
  const url = (host, more) => `postgres://mcpgw:${CANARY}@${host}:${postgres.port}/tls?${more}`;
  const used = () => postgres.psql('tls', `SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING(pid)
    WHERE application_name = 'mcpgw'`);

  for (const [host, more, encrypted] of [
    ['127.0.0.1', 'sslmode=disable', 'f'],
    ['127.0.0.1', 'sslmode=require', 't'],
    ['127.0.0.1', `sslmode=verify-ca&sslrootcert=${ours.ca}`, 't'],  // whatever its name is
    ['localhost', `sslmode=verify-full&sslrootcert=${ours.ca}`, 't']]) {
    const gateway = await Gateway.start({ config: config(url(host, more)) });
    assert.equal((await fetch(`${gateway.url}/ready`)).status, 200);
    assert.equal(used(), encrypted, more);
    await gateway.stop();
    await eventually('its connections are gone', () => used() === '');
  }

  for (const mode of ['verify-ca', 'verify-full'])
    assert.match(await refused(url('localhost', `sslmode=${mode}&sslrootcert=${theirs.ca}`)), /is not signed by an authority of sslrootcert/);
  assert.match(await refused(url('127.0.0.1', `sslmode=verify-full&sslrootcert=${ours.ca}`)), /is for another host/);
  assert.match(await refused(url('localhost', 'sslmode=verify-full&sslrootcert=/no/such/file')), /sslrootcert cannot be read/);
  assert.match(await refused(url('localhost', `sslmode=require&sslcert=${ours.ca}&sslkey=/no/such/file`)), /sslcert or sslkey cannot be used/);
  // Nobody was let in by these: a refusal is made before anything is sent.
  assert.equal(used(), '');
});

test('a server without TLS is not talked to when TLS is asked for', async (t) => {
  plain = await Postgres.start({ port: true });
  t.after(() => plain.stop());
  plain.database('plain');
  const url = (mode) => `postgres://mcpgw:${CANARY}@127.0.0.1:${plain.port}/plain?sslmode=${mode}`;
  assert.match(await refused(url('require')), /does not offer TLS/);
  const gateway = await Gateway.start({ config: config(url('prefer')) });
  await gateway.stop();
});

test('a certificate that is replaced by one of a stranger ends what is stored, not the gateway; the right one brings it back', async (t) => {
  const ours = authority('before', 'localhost'), theirs = authority('stranger', 'localhost');
  const server = await Postgres.start({ tls: ours });
  t.after(() => server.stop());
  server.database('replaced');
  const gateway = await Gateway.start({ config: config(
    `postgres://mcpgw:${CANARY}@localhost:${server.port}/replaced?sslmode=verify-full&sslrootcert=${ours.ca}`) });
  t.after(() => gateway.stop());
  await gateway.registerAdmin();
  const write = async () => (await gateway.api('POST', '/api/policies', { name: `p${Math.random()}`, effect: 'deny', enabled: false }));
  await server.stop();
  server.place(theirs);
  await server.run();
  await eventually('it is not ready', async () => (await fetch(`${gateway.url}/ready`)).status === 503);
  const failed = await write();
  assert.equal(failed.status, 503, JSON.stringify(failed.body));
  await server.stop();
  server.place(ours);
  await server.run();
  await eventually('it is ready', async () => (await fetch(`${gateway.url}/ready`)).status === 200);
  await eventually('writes succeed', async () => (await write()).status === 201, 20000);
  assert.ok(!gateway.logText.includes(CANARY));
});
