// Start, restart and end of the program.
import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { connect, lastMessage, openSession, post } from './lib/clients.mjs';
import { alive, eventually, Gateway, MCPGW, PASSWORD, run, start, temporaryDirectory } from './lib/gateway.mjs';
import { demoHttp, demoStdio, httpTarget } from './lib/upstreams.mjs';

const mode = async (file) => (await stat(file)).mode & 0o777;

describe('life of the program', { timeout: 180000 }, () => {
  test('the first start in an empty directory makes everything, for its user alone', async () => {
    const directory = await temporaryDirectory();
    const gateway = await Gateway.start({ config: null, directory });
    assert.match(gateway.url, /^http:\/\/127\.0\.0\.1:\d+$/);
    for (const message of ['data directory created', 'signing and encryption keys created', 'database created'])
      assert.ok(gateway.logText.includes(message), message);
    const data = path.join(directory, 'mcpgw-data');
    assert.equal(await mode(data), 0o700);
    assert.equal(await mode(path.join(data, 'secrets.json')), 0o600);
    assert.equal(await mode(path.join(data, 'mcpgw.db')), 0o600);
    assert.equal((await gateway.ask('GET', '/health', undefined, null)).status, 'ok');
    assert.equal((await gateway.ask('GET', '/ready', undefined, null)).status, 'ready');
    const { token } = await gateway.registerAdmin();
    const secrets = JSON.parse(await readFile(path.join(data, 'secrets.json'), 'utf8'));
    for (const secret of Object.values(secrets)) assert.ok(!gateway.logText.includes(secret));
    assert.deepEqual(await gateway.stop(), { code: 0, signal: null });

    // The same data again: tokens hold, nothing is made anew, a second registration is no admin.
    const again = await Gateway.start({ config: null, directory });
    assert.ok(!again.logText.includes('created'));
    assert.equal((await again.ask('GET', '/api/auth/me', undefined, token)).role, 'admin');
    const second = await again.ask('POST', '/api/auth/register', { email: 'b@example.test', password: PASSWORD }, null);
    assert.equal(second.user.role, 'user');
    assert.deepEqual(await again.stop(), { code: 0, signal: null });

    // Without its keys, or with keys that others can read, it does not start.
    const secretsFile = path.join(data, 'secrets.json');
    await chmod(secretsFile, 0o644);
    const readable = await run(['serve', '--port', '0'], { cwd: directory });
    assert.equal(readable.code, 1);
    assert.match(readable.stderr, /secrets\.json does not have mode 0600/);
    await rm(secretsFile);
    const lost = await run(['serve', '--port', '0'], { cwd: directory });
    assert.equal(lost.code, 1);
    assert.match(lost.stderr, /secrets\.json is missing/);
  });

  test('a bad configuration lists every fault and ends with 2', async () => {
    const directory = await temporaryDirectory();
    await writeFile(path.join(directory, 'mcpgw.yaml'),
      'server:\n  prt: 1\njwt:\n  secret: change-me-please-change-me-please-now\nlogging:\n  level: ${NO_SUCH_VARIABLE}\n');
    const result = await run(['serve'], { cwd: directory });
    assert.equal(result.code, 2);
    for (const line of ['mcpgw.yaml:2: unknown key server.prt', 'mcpgw.yaml:4: jwt.secret is a placeholder',
      'mcpgw.yaml:6: logging.level refers to the environment variable NO_SUCH_VARIABLE'])
      assert.ok(result.stderr.includes(line), result.stderr);
    assert.ok(!result.stderr.includes('change-me-please'));
    await mkdir(path.join(directory, 'empty'));
    assert.equal((await run(['serve', '-c', 'no-such.yaml'], { cwd: directory })).code, 2);
    assert.equal((await run(['serve', '--no-such-option'], { cwd: directory })).code, 2);
    assert.equal((await run([], { cwd: directory })).code, 2);
    assert.equal((await run(['--help'], { cwd: directory })).code, 0);
  });

  test('a port that is taken is said', async (t) => {
    const gateway = await Gateway.start();
    t.after(() => gateway.stop());
    const other = await temporaryDirectory();
    const result = await run(['serve', '--port', new URL(gateway.url).port], { cwd: other });
    assert.equal(result.code, 1);
    assert.match(result.stderr, /in use/);
  });

  /** A gateway, a user with a process of its own behind it, a session, and the pid of that process. */
  async function busy(t, config = '') {
    const gateway = await Gateway.start({ config });
    t.after(() => gateway.process.stop('SIGKILL'));
    await gateway.registerAdmin();
    const user = await gateway.addUser('user');
    await gateway.allow(user, await gateway.addTarget('local', demoStdio));
    const session = await openSession(gateway, user.token);
    const call = async (name, args) => {
      const answer = await post(gateway, user.token,
        { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }, { session });
      return { status: answer.status, message: JSON.parse(lastMessage(answer)) };
    };
    const { pid } = (await call('whoami', {})).message.result.structuredContent;
    const running = () => eventually('the call to run', async () =>
      (await gateway.ask('GET', '/api/observability/snapshot')).in_flight > 0);
    return { gateway, user, call, pid, running, session };
  }

  test('SIGTERM lets a running call finish, flushes the audit log and takes the children along', async (t) => {
    const { gateway, call, pid, running } = await busy(t);
    const slow = call('slow', { duration_ms: 1500 });
    await running();
    gateway.process.child.kill('SIGTERM');
    const answer = await slow;
    assert.equal(answer.message.result.content[0].text, 'waited 1500 ms in 5 steps');
    assert.deepEqual(await gateway.process.exit, { code: 0, signal: null });
    assert.ok(!alive(pid), 'the child is still there');
    const again = await Gateway.start({ config: null, directory: gateway.directory });
    t.after(() => again.stop());
    const rows = await again.ask('GET', '/api/logs?kind=mcp&method=tools/call', undefined, gateway.adminToken);
    assert.ok(rows.some((row) => row.tool === 'slow' && row.response_status === 200));
  });

  test('the grace period is kept', async (t) => {
    const { gateway, call, pid, running } = await busy(t, 'server:\n  shutdown_grace: 1s\n');
    const slow = call('slow', { duration_ms: 60000 }).catch((error) => error);
    await running();
    const started = Date.now();
    gateway.process.child.kill('SIGTERM');
    assert.deepEqual(await gateway.process.exit, { code: 0, signal: null });
    assert.ok(Date.now() - started < 15000);
    await slow;
    assert.ok(!alive(pid));
  });

  test('a second signal stops at once, and a kill leaves no child behind', async (t) => {
    for (const signals of [['SIGTERM', 'SIGINT'], ['SIGKILL']]) {
      const { gateway, call, pid, running } = await busy(t);
      const slow = call('slow', { duration_ms: 60000 }).catch((error) => error);
      await running();
      const started = Date.now();
      for (const signal of signals) {
        gateway.process.child.kill(signal);
        if (signal === 'SIGTERM') await gateway.log('stopping: running requests may end; a second signal stops at once');
      }
      await gateway.process.exit;
      assert.ok(Date.now() - started < 5000);
      await slow;
      await eventually('the end of the child', async () => !alive(pid));
    }
  });

  test('a session goes on after a restart', async (t) => {
    const demo = await demoHttp();
    const directory = await temporaryDirectory();
    t.after(() => demo.stop());
    const gateway = await Gateway.start({ directory });
    await gateway.registerAdmin();
    const user = await gateway.addUser('user');
    await gateway.allow(user, await gateway.addTarget('demo', httpTarget(demo.url)));
    const client = await connect(gateway, user.token);
    const add = { jsonrpc: '2.0', id: 5, method: 'tools/call', params: { name: 'add', arguments: { a: 1, b: 2 } } };
    const session = client.sessionId;
    await gateway.stop();
    const again = await Gateway.start({ directory });
    t.after(() => again.stop());
    const answer = await post(again, user.token, add, { session });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(JSON.parse(lastMessage(answer)).result.content[0].text, '3');
    await client.close();
  });

  test('SIGHUP reads the log level again and keeps the old one when the file is faulty', async (t) => {
    const gateway = await Gateway.start({ config: 'logging:\n  level: info\n' });
    t.after(() => gateway.stop());
    const file = path.join(gateway.directory, 'mcpgw.yaml');
    await writeFile(file, 'logging:\n  level: loud\n');
    gateway.process.child.kill('SIGHUP');
    await gateway.process.line('a report of the fault', (line) => line.includes('configuration not reloaded: ./mcpgw.yaml:2: logging.level'));
    await writeFile(file, 'logging:\n  level: info\n');
    gateway.process.child.kill('SIGHUP');
    await gateway.log('log level read again');
    assert.equal((await gateway.ask('GET', '/health', undefined, null)).status, 'ok');
  });
});

describe('the command line works on the storage of a running gateway', { timeout: 120000 }, () => {
  test('user, token, target, policy, doctor, version', async (t) => {
    const demo = await demoHttp();
    const gateway = await Gateway.start();
    t.after(async () => {
      await gateway.stop();
      await demo.stop();
    });
    const cli = async (args, input = '') => {
      const result = await run(args, { cwd: gateway.directory, input });
      assert.equal(result.code, 0, `${args.join(' ')}: ${result.stderr}`);
      return result.stdout;
    };
    const json = async (args, input) => JSON.parse(await cli([...args, '--json'], input));
    const admin = await json(['user', 'add', 'root@example.test', '--admin'], `${PASSWORD}\n`);
    assert.equal(admin.role, 'admin');
    await cli(['user', 'add', 'ann@example.test', '--groups', 'staff,ops'], `${PASSWORD}\n`);
    // What another process writes is seen within moments.
    const login = (await eventually('the running gateway to know the user', async () => {
      const answer = await gateway.api('POST', '/api/auth/login', { email: 'ann@example.test', password: PASSWORD }, null);
      return answer.status === 200 ? answer : null;
    })).body;
    assert.deepEqual(login.user.groups, ['staff', 'ops']);
    await cli(['target', 'add', 'demo', '--url', demo.url]);
    await cli(['policy', 'add', 'staff adds', '--effect', 'allow', '--target', 'demo', '--type', 'tool', '--pattern', '^add$',
      '--group', 'staff']);
    const token = (await cli(['token', 'create', 'ann@example.test', '--name', 'cli'])).trim();
    const client = await eventually('the running gateway to know the token', async () =>
      connect(gateway, token).catch(() => null));
    assert.deepEqual((await client.listTools()).tools.map((tool) => tool.name), ['add']);
    assert.equal((await client.callTool({ name: 'add', arguments: { a: 2, b: 3 } })).content[0].text, '5');
    const explained = await json(['policy', 'explain', '--user', 'ann@example.test', '--target', 'demo', '--type', 'tool',
      '--name', 'slow']);
    assert.equal(explained.effect, 'deny');
    assert.equal(explained.reason, 'no_matching_policy');

    const tokens = await json(['token', 'list', 'ann@example.test']);
    await cli(['token', 'revoke', 'ann@example.test', tokens.find((one) => one.name === 'cli').id]);
    await eventually('the revocation to act', async () =>
      (await post(gateway, token, { jsonrpc: '2.0', id: 1, method: 'ping' }, { session: client.sessionId })).status === 401);
    await client.close();
    assert.match(await cli(['user', 'list']), /ann@example\.test +user +yes +staff, ops/);
    await cli(['user', 'disable', 'ann@example.test']);
    await eventually('the user to be refused', async () =>
      (await gateway.api('GET', '/api/auth/me', undefined, login.token)).status === 401);
    const last = await run(['user', 'disable', 'root@example.test'], { cwd: gateway.directory });
    assert.equal(last.code, 1);
    assert.match(last.stderr, /admin/i);
    assert.match(await cli(['target', 'list']), /demo +demo +streamable-http/);
    await cli(['target', 'delete', 'demo']);
    assert.deepEqual(await json(['target', 'list']), []);
    assert.match(await cli(['doctor']), /^ok +configuration$/m);
    assert.equal((await json(['version'])).name, 'mcpgw');
    const weak = await run(['user', 'add', 'x@example.test'], { cwd: gateway.directory, input: 'short\n' });
    assert.equal(weak.code, 1);
    assert.match(weak.stderr, /8/);
  });
});

test('the program runs without a home, a terminal or a locale', { timeout: 30000 }, async () => {
  const directory = await temporaryDirectory();
  const gateway = start(MCPGW, ['serve', '--port', '0'], { cwd: directory, env: { PATH: '/usr/bin:/bin' } });
  await gateway.line('listening', (line) => line.includes('"listening"'));
  assert.deepEqual(await gateway.stop(), { code: 0, signal: null });
});
