// Settings about time that the gateway's sweeps act on.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';
import { lastMessage, openSession, post } from './lib/clients.mjs';
import { alive, eventually, Gateway, PASSWORD, run, temporaryDirectory } from './lib/gateway.mjs';
import { demoStdio } from './lib/upstreams.mjs';

describe('what is idle ends', { timeout: 120000 }, () => {
  async function idle(t, config) {
    const gateway = await Gateway.start({ config });
    t.after(() => gateway.stop());
    await gateway.registerAdmin();
    const user = await gateway.addUser('user');
    await gateway.allow(user, await gateway.addTarget('local', demoStdio));
    const session = await openSession(gateway, user.token);
    const ask = async (message) => post(gateway, user.token, { jsonrpc: '2.0', id: 1, ...message }, { session });
    const whoami = await ask({ method: 'tools/call', params: { name: 'whoami', arguments: {} } });
    return { gateway, ask, pid: JSON.parse(lastMessage(whoami)).result.structuredContent.pid };
  }

  test('a session, at session.timeout, cleared away at session.cleanup_interval', async (t) => {
    const { gateway, ask } = await idle(t, 'session:\n  timeout: 2s\n  cleanup_interval: 1s\n');
    assert.equal((await gateway.ask('GET', '/api/observability/snapshot')).active_sessions, 1);
    await eventually('the session to be cleared away', async () =>
      (await gateway.ask('GET', '/api/observability/snapshot')).active_sessions === 0);
    assert.equal((await ask({ method: 'ping' })).status, 404);
    await eventually('the row', async () => (await gateway.ask('GET', '/api/logs?kind=session&method=expired')).length === 1);
  });

  test('a process, at stdio.idle_ttl, looked at every stdio.gc_interval', async (t) => {
    const { ask, pid } = await idle(t, 'stdio:\n  idle_ttl: 1s\n  gc_interval: 1s\n');
    assert.ok(alive(pid), `pid ${pid}`);
    await eventually('the process to be stopped', async () => !alive(pid), 20000);
    // The next call has another one.
    const again = await ask({ method: 'tools/call', params: { name: 'whoami', arguments: {} } });
    assert.equal(again.status, 200);
  });
});

test('server.tls: the gateway speaks TLS, reads its files again on SIGHUP, and the command line talks to it', { timeout: 60000 },
  async (t) => {
    const directory = await temporaryDirectory();
    const cert = path.join(directory, 'cert.pem'), key = path.join(directory, 'key.pem');
    const make = (name) => promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt',
      'ec_paramgen_curve:prime256v1', '-nodes', '-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
      '-days', '2', '-keyout', key, '-out', cert]);
    await make('first');
    const gateway = await Gateway.start({ config: `server:\n  tls:\n    cert: ${cert}\n    key: ${key}\n`, directory });
    t.after(() => gateway.stop());
    assert.match(gateway.url, /^https:/);
    const admin = await run(['user', 'add', 'admin@example.test', '--admin'], { cwd: directory, input: `${PASSWORD}\n` });
    assert.equal(admin.code, 0, admin.stderr);
    const token = (await run(['token', 'create', 'admin@example.test', '--scopes', 'api'], { cwd: directory })).stdout.trim();
    const list = (env) => run(['user', 'list', '--json', '--server', gateway.url, '--ca', cert],
      { cwd: directory, env: { ...process.env, MCPGW_TOKEN: token, ...env } });
    const users = await eventually('the token to be known', async () => {
      const result = await list();
      return result.code === 0 ? JSON.parse(result.stdout) : null;
    });
    assert.equal(users[0].email, 'admin@example.test');
    const subject = () => new Promise((resolve, reject) => {
      const socket = tls.connect({ port: new URL(gateway.url).port, host: '127.0.0.1', rejectUnauthorized: false }, () => {
        resolve(socket.getPeerCertificate().subject.CN);
        socket.end();
      });
      socket.on('error', reject);
    });
    assert.equal(await subject(), 'first');
    await make('second');
    gateway.process.child.kill('SIGHUP');
    await gateway.log('certificates read again');
    assert.equal(await subject(), 'second');
    await writeFile(key, 'no key');
    gateway.process.child.kill('SIGHUP');
    await gateway.process.line('the fault', (line) => line.includes('certificates not read again'));
    assert.equal(await subject(), 'second');
    const doctor = await run(['doctor', '--json'], { cwd: directory });
    assert.match(doctor.stdout, /key\.pem is not open to everybody/);
    await chmod(key, 0o644);
    assert.match((await run(['doctor'], { cwd: directory })).stdout, /^problem +.*key\.pem is open to everybody/m);
  });
