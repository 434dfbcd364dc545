// The command line: every subcommand on the storage and on a running server, for people and for programs.
import assert from 'node:assert/strict';
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, Gateway, MCPGW, PASSWORD, run, start, temporaryDirectory } from './lib/gateway.mjs';
import { demoHttp, demoStdio, httpTarget, scripted } from './lib/upstreams.mjs';

const NEW_PASSWORD = 'another password of the tests';
const config = 'upstream:\n  allow_private: true\n';

/** The program in one directory, or against one server, with everything that it printed. */
class Cli {
  constructor(directory, { server, token } = {}) {
    this.directory = directory;
    this.args = server ? ['--server', server] : [];
    this.env = { ...process.env };
    if (token) this.env.MCPGW_TOKEN = token;
    this.printed = '';
  }

  async run(args, input = '') {
    const result = await run([...args, ...this.args], { cwd: this.directory, input, env: this.env });
    this.printed += result.stdout + result.stderr;
    return result;
  }

  /** Must end with 0; what it printed on standard output. */
  async ok(args, input) {
    const result = await this.run(args, input);
    assert.equal(result.code, 0, `mcpgw ${args.join(' ')}: ${result.stderr}${result.stdout}`);
    return result.stdout;
  }

  async json(args, input) {
    return JSON.parse(await this.ok([...args, '--json'], input));
  }

  /** Must end with `code`; what it said about it. */
  async fails(code, args, input) {
    const result = await this.run(args, input);
    assert.equal(result.code, code, `mcpgw ${args.join(' ')}: ${result.stderr}${result.stdout}`);
    assert.notEqual(result.stderr + result.stdout, '', 'says nothing');
    return result.stderr;
  }
}

/** A command line of each kind, with an administrator admin@example.test. */
const modes = {
  'the storage': async () => {
    const directory = await temporaryDirectory();
    await writeFile(path.join(directory, 'mcpgw.yaml'), config);
    const cli = new Cli(directory);
    await cli.ok(['user', 'add', 'admin@example.test', '--admin'], `${PASSWORD}\n`);
    return cli;
  },
  'a running server': async (t) => {
    const gateway = await Gateway.start({ config });
    t.after(() => gateway.stop());
    await gateway.registerAdmin();
    const { token } = await gateway.ask('POST', '/api/auth/tokens', { name: 'cli', scopes: ['api'] });
    return new Cli(await temporaryDirectory(), { server: gateway.url, token });
  },
};

for (const [mode, make] of Object.entries(modes)) {
  describe(`the command line on ${mode}`, { timeout: 240000 }, () => {
    test('users', async (t) => {
      const cli = await make(t);
      assert.equal(await cli.ok(['user', 'add', 'Ann@Example.test', '--role', 'viewer', '--groups', 'staff,ops'], `${PASSWORD}\n`),
        'added ann@example.test (viewer)\n');
      const bob = await cli.json(['user', 'add', 'bob@example.test'], `${PASSWORD}\n`);
      assert.equal(bob.role, 'user');
      assert.deepEqual((await cli.json(['user', 'list'])).map((user) => user.email),
        ['admin@example.test', 'ann@example.test', 'bob@example.test']);
      assert.match(await cli.ok(['user', 'list']), /^EMAIL .*\n.*\nann@example\.test +viewer +yes +staff, ops/m);
      assert.match(await cli.ok(['user', 'set-role', 'bob@example.test', 'editor']), /bob@example\.test \(editor\)/);
      assert.deepEqual((await cli.json(['user', 'set-groups', 'bob@example.test', 'b', 'a'])).groups, ['b', 'a']);
      assert.deepEqual((await cli.json(['user', 'set-groups', 'bob@example.test'])).groups, []);
      assert.equal((await cli.json(['user', 'disable', 'bob@example.test'])).enabled, false);
      assert.match(await cli.ok(['user', 'list']), /bob@example\.test +editor +no/);
      assert.equal((await cli.json(['user', 'enable', bob.id])).enabled, true);
      await cli.ok(['user', 'set-password', 'bob@example.test', '--revoke-api-tokens'], `${NEW_PASSWORD}\n`);
      assert.match(await cli.ok(['user', 'delete', 'bob@example.test']), /^deleted bob@example\.test/);
      assert.equal((await cli.json(['user', 'list'])).length, 2);

      assert.match(await cli.fails(1, ['user', 'set-role', 'nobody@example.test', 'user']), /There is no user nobody@example\.test/);
      assert.match(await cli.fails(1, ['user', 'delete', 'nobody@example.test']), /There is no user/);
      assert.match(await cli.fails(1, ['user', 'add', 'ann@example.test'], `${PASSWORD}\n`), /email/i);
      assert.match(await cli.fails(1, ['user', 'add', 'no address'], `${PASSWORD}\n`), /email/i);
      assert.match(await cli.fails(1, ['user', 'add', 'weak@example.test'], 'short\n'), /8/);
      assert.match(await cli.fails(1, ['user', 'add', 'none@example.test'], ''), /Password of none@example\.test is expected/);
      assert.match(await cli.fails(1, ['user', 'disable', 'admin@example.test']), /admin/i);
      assert.match(await cli.fails(2, ['user', 'add']), /email/);
      await cli.fails(2, ['user', 'add', 'x@example.test', '--password', 'secret']);
      await cli.fails(2, ['user', 'add', 'x@example.test', '--admin', '--role', 'user'], `${PASSWORD}\n`);
      await cli.fails(2, ['user', 'rename']);
      await cli.fails(2, ['user']);
      for (const secret of [PASSWORD, NEW_PASSWORD]) assert.ok(!cli.printed.includes(secret), 'a password was printed');
    });

    test('targets', async (t) => {
      const cli = await make(t);
      const demo = await demoHttp();
      t.after(() => demo.stop());
      assert.match(await cli.ok(['target', 'add', 'web', '--url', demo.url]), /^added web: streamable-http http/);
      const local = await cli.json(['target', 'add', 'local', '--command', demoStdio.command, '--arg', '--stdio',
        '--isolation', 'per_user', '--timeout-ms', '5000', '--user-env-key', 'A', '--user-env-key', 'B']);
      assert.equal(local.transport_type, 'stdio');
      assert.deepEqual(local.args, ['--stdio']);
      assert.deepEqual(local.user_env_keys, ['A', 'B']);
      assert.deepEqual((await cli.json(['target', 'list'])).map((target) => target.name), ['local', 'web']);
      assert.match(await cli.ok(['target', 'list']), /^local +local +stdio +yes +\w+ +.*demo_upstream --stdio$/m);
      assert.equal((await cli.json(['target', 'show', 'WEB'])).url, demo.url);
      assert.match(await cli.ok(['target', 'show', 'local']), /^timeout_ms +5000$/m);

      // What is not given stays; what is cleared goes.
      const changed = await cli.json(['target', 'set', 'local', '--max-concurrency', '3', '--clear', 'user-env-key']);
      assert.equal(changed.max_concurrency, 3);
      assert.equal(changed.timeout_ms, 5000);
      assert.equal(changed.user_env_keys, undefined);
      assert.equal((await cli.json(['target', 'set', 'local', '--clear', 'max-concurrency'])).max_concurrency, null);
      assert.equal((await cli.json(['target', 'set', 'web', '--enabled', 'false'])).enabled, false);
      assert.match(await cli.ok(['target', 'set', 'web', '--enabled', 'true', '--name', 'net']), /^changed net:/);
      const key = path.join(cli.directory, 'key.pem');
      await writeFile(key, 'no key at all');
      assert.match(await cli.fails(1, ['target', 'set', 'net', '--tls-cert', key, '--tls-key', key]), /tls|client/i);

      for (const name of ['net', 'local']) {
        const tested = await cli.json(['target', 'test', name]);
        assert.equal(tested.ok, true, JSON.stringify(tested));
        assert.ok(tested.tools > 0);
        assert.match(await cli.ok(['target', 'test', name]), /^initialize +ok +\d+ ms +MCP /m);
      }
      assert.equal((await cli.json(['target', 'test', 'net', '--user', 'admin@example.test'])).ok, true);
      await cli.ok(['target', 'add', 'gone', '--url', 'http://127.0.0.1:1/mcp']);
      const dead = await cli.run(['target', 'test', 'gone']);
      assert.equal(dead.code, 1);
      assert.match(dead.stdout, /^initialize +failed/m);
      assert.equal(typeof (await cli.json(['target', 'restart', 'local'])).deleted, 'number');
      assert.match(await cli.ok(['target', 'restart', 'local']), /next call/);
      assert.match(await cli.fails(1, ['target', 'restart', 'net']), /stdio/);

      assert.match(await cli.fails(1, ['target', 'show', 'nothing']), /There is no target nothing/);
      assert.match(await cli.fails(1, ['target', 'add', 'net', '--url', demo.url]), /name/i);
      assert.match(await cli.fails(1, ['target', 'add', 'other', '--url', 'ftp://x']), /url/i);
      assert.match(await cli.fails(1, ['target', 'test', 'net', '--user', 'nobody@example.test']), /There is no user/);
      await cli.fails(2, ['target', 'set', 'net']);
      await cli.fails(2, ['target', 'set', 'net', '--timeout-ms', 'soon']);
      await cli.fails(2, ['target', 'set', 'net', '--isolation', 'none']);
      await cli.fails(2, ['target', 'set', 'net', '--tls-key', 'no-such-file']);
      await cli.fails(2, ['target', 'set', 'net', '--clear', 'url']);
      await cli.fails(2, ['target', 'set', 'local', '--clear', 'arg', '--arg', 'x']);
      assert.match(await cli.ok(['target', 'delete', 'net']), /^deleted net/);
      await cli.ok(['target', 'delete', 'gone']);
      assert.deepEqual((await cli.json(['target', 'list'])).map((target) => target.name), ['local']);
    });

    test('policies', async (t) => {
      const cli = await make(t);
      await cli.ok(['user', 'add', 'ann@example.test', '--groups', 'staff'], `${PASSWORD}\n`);
      await cli.ok(['target', 'add', 'files', '--url', 'http://127.0.0.1:1/mcp']);
      assert.equal(await cli.ok(['policy', 'add', 'staff reads', '--effect', 'allow', '--target', 'files', '--type', 'tool',
        '--pattern', '^read_', '--group', 'staff', '--priority', '5']), 'added staff reads\n');
      const made = await cli.json(['policy', 'add', 'nobody deletes', '--effect', 'deny', '--pattern', 'delete', '--everyone',
        '--user', 'ann@example.test', '--role', 'admin', '--disabled']);
      assert.equal(made.enabled, false);
      assert.deepEqual(made.subjects.map((subject) => subject.subject_type), ['everyone', 'role', 'user']);
      assert.match(await cli.ok(['policy', 'list']), /^5 +yes +allow +files +tool \/\^read_\/ +group:staff +staff reads$/m);
      assert.match(await cli.ok(['policy', 'list']), /user:ann@example\.test/);
      assert.ok((await cli.json(['policy', 'list'])).some((policy) => policy.name === 'Admin Full Access'));
      const explain = ['policy', 'explain', '--user', 'ann@example.test', '--target', 'files', '--type', 'tool', '--name'];
      const allowed = await cli.json([...explain, 'read_file']);
      assert.equal(allowed.effect, 'allow');
      assert.equal(allowed.policy_name, 'staff reads');
      assert.match(await cli.ok([...explain, 'write_file']), /^deny: no_matching_policy\nPRIORITY/);
      assert.match(await cli.ok([...explain, 'read_file']), /^5 +allow +yes +matched +staff reads$/m);
      assert.equal((await cli.json(['policy', 'explain', '--user', 'ann@example.test', '--target', 'files'])).effect, 'allow');

      assert.match(await cli.fails(1, [...explain.slice(0, 3), 'nobody@example.test', ...explain.slice(4), 'x']), /There is no user/);
      assert.match(await cli.fails(1, ['policy', 'add', 'p', '--effect', 'allow', '--target', 'none', '--everyone']), /There is no target none/);
      assert.match(await cli.fails(1, ['policy', 'add', 'p', '--effect', 'allow', '--pattern', '(', '--everyone']), /pattern/i);
      assert.match(await cli.fails(1, ['policy', 'delete', 'none']), /There is no policy none/);
      await cli.fails(2, ['policy', 'add', 'p', '--effect', 'allow']);
      await cli.fails(2, ['policy', 'add', 'p', '--effect', 'maybe', '--everyone']);
      await cli.fails(2, ['policy', 'explain', '--user', 'ann@example.test', '--target', 'files', '--type', 'tool']);
      assert.equal(await cli.ok(['policy', 'delete', 'staff reads']), 'deleted staff reads\n');
      assert.equal((await cli.json(['policy', 'delete', made.id])).id, made.id);
      await cli.json(['policy', 'add', 'twice', '--effect', 'deny', '--everyone']);
      await cli.json(['policy', 'add', 'twice', '--effect', 'deny', '--everyone']);
      assert.match(await cli.fails(1, ['policy', 'delete', 'twice']), /give the id/);
    });

    test('the audit log tells who did it, without secrets', async (t) => {
      const cli = await make(t);
      await cli.ok(['user', 'add', 'ann@example.test'], `${PASSWORD}\n`);
      await cli.ok(['target', 'add', 'first', '--url', 'http://127.0.0.1:1/mcp']);
      await cli.fails(1, ['target', 'add', 'first', '--url', 'http://127.0.0.1:1/mcp']);
      const rows = await eventually('the rows', async () => {
        const found = await cli.json(['logs', '--kind', 'admin']);
        return found.length >= 3 ? found : null;
      });
      const [refused, added] = rows;
      assert.equal(refused.response_status, 409);
      assert.equal(refused.error_code, 'name_taken');
      assert.equal(added.method, 'POST /api/targets');
      assert.match(added.user_email, mode === 'the storage' ? /^local:/ : /^admin@example\.test$/);
      assert.equal(rows.find((row) => row.method === 'POST /api/users').request_body.password, '[redacted]');
      const table = await cli.ok(['logs', '--kind', 'admin', '--status', 'error']);
      assert.match(table, /^TIME +USER +METHOD .*\n.*POST \/api\/targets +.*409 +name_taken/m);
      assert.equal(table.trimEnd().split('\n').length, 2);
      assert.deepEqual(await cli.json(['logs', '--kind', 'mcp']), []);
      assert.equal((await cli.json(['logs', '--limit', '1', '--kind', 'admin']))[0].id, refused.id);
      assert.equal((await cli.json(['logs', '--method', 'POST /api/users']))
        .every((row) => row.method === 'POST /api/users'), true);
      assert.deepEqual(await cli.json(['logs', '--until', '1h', '--kind', 'admin']), []);
      assert.equal((await cli.json(['logs', '--since', '1h', '--kind', 'admin'])).length >= 3, true);
      assert.equal((await cli.json(['logs', '--since', '2026-01-01T00:00:00Z', '--search', 'NAME_TAKEN'])).length, 1);
      assert.deepEqual(await cli.json(['logs', '--user', 'ann@example.test', '--kind', 'admin']), []);
      assert.match(await cli.fails(1, ['logs', '--user', 'nobody@example.test']), /There is no user/);
      await cli.fails(1, ['logs', '--status', 'fine']);
      await cli.fails(2, ['logs', '--since', 'yesterday']);
      await cli.fails(2, ['logs', '--kind', 'all']);
      await cli.fails(2, ['logs', '--limit', '0']);
      await cli.fails(2, ['logs', '-f', '--until', '1h']);
      assert.ok(!cli.printed.includes(PASSWORD));
    });

    test('the audit log is followed', async (t) => {
      const cli = await make(t);
      const following = ['logs', '-f', '--kind', 'admin', ...cli.args];
      const people = start(MCPGW, following, { cwd: cli.directory, env: cli.env });
      const programs = start(MCPGW, [...following, '--json'], { cwd: cli.directory, env: cli.env });
      for (const name of ['one', 'two']) {
        await cli.ok(['target', 'add', name, '--url', 'http://127.0.0.1:1/mcp']);
        const target = (row) => row.request_body?.name === name;
        const row = await programs.line(`row of ${name}`, (line) => [JSON.parse(line)].find(target));
        assert.equal(row.method, 'POST /api/targets');
      }
      await people.line('both rows', () =>
        people.lines.filter((line) => /201 {2}\S+ {2}POST \/api\/targets/.test(line)).length === 2);
      await Promise.all([people.stop(), programs.stop()]);
      // No row twice, none lost.
      assert.equal(programs.lines.filter((line) => line.includes('"POST /api/targets"')).length, 2);
    });

    test('version', async (t) => {
      const cli = await make(t);
      const version = await cli.json(['version']);
      assert.equal(version.name, 'mcpgw');
      assert.ok(version.protocol_versions.length > 0);
      assert.match(await cli.ok(['version']), /^mcpgw \d+\.\d+\.\d+ \(\w+\), MCP 20/);
    });
  });
}

describe('tokens and ways to a server', { timeout: 120000 }, () => {
  test('tokens of anybody, on the storage', async () => {
    const cli = await modes['the storage']();
    await cli.ok(['user', 'add', 'ann@example.test'], `${PASSWORD}\n`);
    const token = (await cli.ok(['token', 'create', 'ann@example.test', '--name', 'laptop'])).trim();
    assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/);
    const made = await cli.json(['token', 'create', 'ann@example.test', '--scopes', 'mcp,api', '--expires-in', '720h']);
    assert.deepEqual(made.api_token.scopes, ['mcp', 'api']);
    assert.ok(Date.parse(made.api_token.expires_at) > Date.now() + 719 * 3600e3);
    const table = await cli.ok(['token', 'list', 'ann@example.test']);
    assert.match(table, /laptop +api +mcp +valid/);
    assert.ok(!table.includes(token));
    const row = (await cli.json(['token', 'list', 'ann@example.test'])).find((one) => one.name === 'laptop');
    assert.equal(await cli.ok(['token', 'revoke', 'ann@example.test', row.id]), `revoked ${row.id}\n`);
    assert.match(await cli.ok(['token', 'list', 'ann@example.test']), /laptop +api +mcp +revoked/);
    // Whose token it is, and who made it.
    const audit = (await cli.json(['logs', '--kind', 'auth']))[0];
    assert.equal(audit.user_id, row.user_id);
    assert.match(audit.user_email, /^local:/);

    assert.match(await cli.fails(1, ['token', 'create', 'nobody@example.test']), /There is no user/);
    assert.match(await cli.fails(1, ['token', 'create', 'ann@example.test', '--name', 'Login']), /name/i);
    assert.match(await cli.fails(1, ['token', 'create', 'ann@example.test', '--scopes', 'all']), /scopes/);
    await cli.fails(1, ['token', 'revoke', 'ann@example.test', 'not-an-id']);
    await cli.fails(1, ['token', 'revoke', 'ann@example.test', '00000000-0000-4000-8000-000000000000']);
    await cli.fails(2, ['token', 'create']);
    await cli.fails(2, ['token', 'revoke', row.id]);
    await cli.fails(2, ['token', 'create', 'ann@example.test', '--expires-in', 'later']);

    // Both work on a server that starts on this storage; the revoked one does not.
    const gateway = await Gateway.start({ config: null, directory: cli.directory });
    assert.equal((await gateway.api('GET', '/api/auth/me', undefined, made.token)).status, 200);
    assert.equal((await gateway.api('GET', '/api/auth/me', undefined, token)).status, 401);
    await gateway.stop();
  });

  test('own tokens, and those of others, on a server', async (t) => {
    const gateway = await Gateway.start({ config });
    t.after(() => gateway.stop());
    await gateway.registerAdmin();
    const ann = await gateway.addUser('ann');
    const { token } = await gateway.ask('POST', '/api/auth/tokens', { scopes: ['api', 'mcp'] });
    const directory = await temporaryDirectory();
    const cli = new Cli(directory, { server: gateway.url, token });
    const mine = (await cli.ok(['token', 'create', '--name', 'mine'])).trim();
    assert.equal((await gateway.api('GET', '/api/auth/me', undefined, mine)).status, 403);  // scope mcp alone
    assert.ok((await cli.json(['token', 'create', 'admin@example.test', '--scopes', 'api'])).token);
    assert.match(await cli.fails(1, ['token', 'create', ann.email]), /alone: that is admin@example\.test/);
    const row = (await cli.json(['token', 'list'])).find((one) => one.name === 'mine');
    await cli.ok(['token', 'revoke', row.id]);
    assert.ok(!(await cli.json(['token', 'list'])).some((one) => one.id === row.id));
    const theirs = (await cli.json(['token', 'list', ann.email])).find((one) => one.name === 'e2e');
    await cli.ok(['token', 'revoke', ann.email, theirs.id]);
    assert.match(await cli.ok(['token', 'list', ann.email]), /e2e +api +mcp, api +revoked/);

    // The token from a file; and everything that is wrong with the way there.
    const file = path.join(directory, 'token');
    await writeFile(file, `${token}\n`);
    const by = (options, env = {}) => run(['user', 'list', ...options],
      { cwd: directory, env: { ...process.env, MCPGW_TOKEN: '', ...env } });
    assert.equal((await by(['--server', gateway.url, '--token-file', file])).code, 0);
    assert.equal((await by(['--server', `${gateway.url}/`, '--token-file', file])).code, 0);
    for (const [options, env, text] of [
      [['--server', gateway.url], {}, /MCPGW_TOKEN or a --token-file/],
      [['--server', gateway.url, '--token-file', 'no-such-file'], {}, /cannot be read/],
      [['--server', gateway.url], { MCPGW_TOKEN: 'two words' }, /given as a token is none/],
      [['--server', 'mcp.example.com'], { MCPGW_TOKEN: token }, /must be a URL/],
      [['--server', 'http://user@127.0.0.1'], { MCPGW_TOKEN: token }, /without user/],
      [['--server', 'http://mcp.example.com'], { MCPGW_TOKEN: token }, /unencrypted/],
      [['--server', gateway.url, '-c', 'x.yaml'], { MCPGW_TOKEN: token }, /excludes/],
      [['--token-file', file], {}, /requires/i],
    ]) {
      const result = await by(options, env);
      assert.equal(result.code, 2, `${options}: ${result.stderr}`);
      assert.match(result.stderr, text);
      assert.ok(!result.stderr.includes(token));
    }
    const stranger = await by(['--server', gateway.url], { MCPGW_TOKEN: 'stranger' });
    assert.equal(stranger.code, 1);
    assert.match(stranger.stderr, /refuses the token/);
    const plain = await by(['--server', gateway.url], { MCPGW_TOKEN: ann.token });
    assert.equal(plain.code, 1);
    const nobody = await by(['--server', 'http://127.0.0.1:1'], { MCPGW_TOKEN: token });
    assert.equal(nobody.code, 1);
    assert.match(nobody.stderr, /does not answer/);
    // What answers is no gateway.
    const other = await scripted(() => '{}');
    t.after(() => other.stop());
    assert.equal((await by(['--server', other.url], { MCPGW_TOKEN: token })).code, 1);
    for (const local of [['keys', 'status'], ['storage', 'backup', 'x'], ['doctor'], ['serve']]) {
      const result = await cli.run(local);
      assert.equal(result.code, 2, local.join(' '));
      assert.match(result.stderr, /--server does not go with it/);
    }
  });

  test('a server with a certificate', async (t) => {
    // The certificate of the fake server is vouched for by nobody but the file.
    const directory = await temporaryDirectory();
    const { execFile } = await import('node:child_process');
    const { promisify } = await import('node:util');
    const pem = path.join(directory, 'cert.pem'), key = path.join(directory, 'key.pem');
    await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
      '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2', '-keyout', key, '-out', pem]);
    const https = await import('node:https');
    const seen = [];
    const server = https.createServer({ key: await readFile(key), cert: await readFile(pem) }, (request, response) => {
      seen.push(request.headers.authorization);
      if (request.url.startsWith('/api/users')) {
        response.writeHead(200, { 'Content-Type': 'application/json' }).end('[]');
      } else {
        response.writeHead(302, { Location: 'https://localhost/elsewhere' }).end();
      }
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => server.close());
    const cli = new Cli(directory, { server: `https://localhost:${server.address().port}`, token: 'a-token' });
    assert.match(await cli.fails(1, ['user', 'list']), /does not answer/);
    assert.deepEqual(seen, []);
    assert.deepEqual(await cli.json(['user', 'list', '--ca', pem]), []);
    assert.deepEqual(seen, ['Bearer a-token']);
    assert.match(await cli.fails(1, ['target', 'list', '--ca', pem]), /status 302/);
  });

  test('a password is asked for without echo', async () => {
    const directory = await temporaryDirectory();
    const terminal = (args, answers) => new Promise((resolve, reject) => {
      const shell = start('script', ['-qec', `'${MCPGW}' ${args}`, '/dev/null'],
        { cwd: directory, stdio: ['pipe', 'pipe', 'pipe'] });
      let text = '', next = 0;
      shell.child.stdout.on('data', (data) => {
        text += data;
        const prompts = text.split(/(?:Password of [^:]*|Again): /).length - 1;
        while (next < prompts && next < answers.length) shell.child.stdin.write(`${answers[next++]}\n`);
      });
      shell.exit.then(({ code }) => resolve({ code, text }), reject);
    });
    const added = await terminal('user add ann@example.test --admin', [PASSWORD, PASSWORD]);
    assert.equal(added.code, 0, added.text);
    assert.match(added.text, /Password of ann@example\.test: [\s\S]*Again: [\s\S]*added ann@example\.test/);
    assert.ok(!added.text.includes(PASSWORD), added.text);
    const different = await terminal('user add bob@example.test', [PASSWORD, NEW_PASSWORD]);
    assert.equal(different.code, 1);
    assert.match(different.text, /not the same/);
    const interrupted = await terminal('user add eve@example.test', ['\x03']);
    assert.notEqual(interrupted.code, 0);
    assert.ok(!interrupted.text.includes('added'));
  });

  test('a password is asked for when the terminal is silent already', async () => {
    const child = start('python3', [fileURLToPath(new URL('lib/slow_terminal.py', import.meta.url)), MCPGW, 'user', 'add',
      'dan@example.test'], { cwd: await temporaryDirectory(), env: { ...process.env, SECRET: PASSWORD } });
    assert.deepEqual([await child.exit, child.lines.join('\n')], [{ code: 0, signal: null }, 'silent']);
  });
});

test('a restart on the storage replaces the processes of a running gateway', { timeout: 60000 }, async (t) => {
  const gateway = await Gateway.start({ config });
  t.after(() => gateway.stop());
  await gateway.registerAdmin();
  const user = await gateway.addUser('user');
  await gateway.allow(user, await gateway.addTarget('local', demoStdio));
  const { connect } = await import('./lib/clients.mjs');
  const client = await connect(gateway, user.token);
  t.after(() => client.close());
  const pid = async () => (await client.callTool({ name: 'whoami', arguments: {} })).structuredContent.pid;
  const before = await pid();
  assert.equal(await pid(), before);
  const cli = new Cli(gateway.directory);
  await cli.ok(['target', 'restart', 'local']);
  await eventually('another process', async () => await pid() !== before);
});

test('names in tables give no orders to the terminal', { timeout: 60000 }, async () => {
  const cli = await modes['the storage']();
  const name = 'red \u001b[31m and \u009b31m bell \u0007';
  const made = await cli.run(['policy', 'add', name, '--effect', 'deny', '--everyone']);
  // Either it is refused, or it is shown without the orders.
  const table = await cli.ok(['policy', 'list']);
  for (const text of [made.stdout, made.stderr, table]) assert.doesNotMatch(text, /[\u001b\u009b\u0007]/);
});

describe('completion', { timeout: 60000 }, () => {
  const complete = async (shell, words) => {
    const child = start(shell, ['--norc', '-c', `
      PATH=${path.dirname(MCPGW)}:$PATH
      source <(mcpgw completion bash)
      COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')})
      COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
      _mcpgw mcpgw
      printf '%s\\n' "\${COMPREPLY[@]}"`]);
    assert.deepEqual(await child.exit, { code: 0, signal: null });
    return child.lines.filter((line) => line !== '').sort();
  };
  const bash = (...words) => complete('bash', ['mcpgw', ...words]);

  test('bash completes commands, options and values', async () => {
    assert.deepEqual(await bash('us'), ['user']);
    assert.deepEqual(await bash('user', 'set-'), ['set-groups', 'set-password', 'set-role']);
    assert.deepEqual(await bash('policy', 'add', '--eff'), ['--effect']);
    assert.deepEqual(await bash('policy', 'add', 'name', '--effect', ''), ['allow', 'deny']);
    assert.deepEqual(await bash('keys', 'rotate', ''), ['--ca', '--config', '--help', '--json', '--plain-http', '--server',
      '--token-file', '-c', '-h', 'encryption', 'jwt']);
    assert.deepEqual(await bash('completion', 'f'), ['fish']);
    // An option's value is no command, wherever it stands.
    assert.deepEqual(await bash('--config', 'user', 'tar'), ['target']);
    assert.deepEqual(await bash('user', 'list', '--js'), ['--json']);
    assert.deepEqual(await bash('user', 'list', '--server', ''), []);
  });

  test('every command and option of --help is known', async () => {
    const help = async (args) => (await run([...args, '--help'])).stdout;
    const walk = async (args) => {
      const text = await help(args);
      const options = [...text.matchAll(/^ {2}(-[^ ]+)/gm)].flatMap((match) => match[1].split(','))
        .filter((word) => word !== '-h' && word !== '--help');
      const commands = [...text.split('Subcommands:')[1]?.matchAll(/^ {2}([a-z][\w-]*)/gm) ?? []].map((match) => match[1]);
      const offered = await bash(...args, '');
      for (const word of [...options, ...commands]) assert.ok(offered.includes(word), `${args.join(' ')}: ${word}`);
      for (const command of commands) await walk([...args, command]);
    };
    await walk([]);
  });

  test('zsh and fish get theirs; another shell is refused', async () => {
    for (const [shell, first] of [['zsh', '#compdef mcpgw'], ['fish', '# fish completion']]) {
      const result = await run(['completion', shell]);
      assert.equal(result.code, 0);
      assert.ok(result.stdout.startsWith(first));
      for (const word of ['set-password', '--effect', 'allow', 'doctor']) assert.ok(result.stdout.includes(word), word);
    }
    assert.equal((await run(['completion', 'tcsh'])).code, 2);
    assert.equal((await run(['completion'])).code, 2);
  });
});
