// Keys, copies and the doctor: what the command line does to files and storage while a gateway runs on them.
import assert from 'node:assert/strict';
import { chmod, copyFile, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { lastMessage, openSession, post } from './lib/clients.mjs';
import { eventually, Gateway, MCPGW, PASSWORD, run, start, temporaryDirectory } from './lib/gateway.mjs';
import { demoHttp, scripted } from './lib/upstreams.mjs';

const config = 'upstream:\n  allow_private: true\n';
const CREDENTIAL = 'the-credential-of-the-target';

const mcpgw = async (directory, args, { code = 0, input = '', env } = {}) => {
  const result = await run(args, { cwd: directory, input, env: { ...process.env, ...env } });
  assert.equal(result.code, code, `mcpgw ${args.join(' ')}: ${result.stderr}${result.stdout}`);
  return result;
};
const json = async (directory, args, options) => JSON.parse((await mcpgw(directory, [...args, '--json'], options)).stdout);
const secretsOf = async (directory) => JSON.parse(await readFile(path.join(directory, 'mcpgw-data/secrets.json'), 'utf8'));

describe('keys', { timeout: 240000 }, () => {
  /** A gateway with one target, whose calls show the credential, and `count` further sealed values: with the credential and with
   * what the client's session keeps of the server's, two more. */
  async function sealed(t, count, extra = '') {
    const upstream = await scripted(() => JSON.stringify({ content: [{ type: 'text', text: 'done' }] }));
    const gateway = await Gateway.start({ config: config + extra });
    t.after(async () => {
      await gateway.stop();
      await upstream.stop();
    });
    await gateway.registerAdmin();
    const user = await gateway.addUser('user');
    const target = await gateway.addTarget('sealed', { transport_type: 'streamable-http', url: upstream.url, auth_type: 'bearer' });
    await gateway.allow(user, target);
    await gateway.ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: CREDENTIAL });
    for (let made = 0; made < count; made += 500) {
      const configs = Object.fromEntries(Array.from({ length: Math.min(500, count - made) },
        (_, i) => [`KEY_${made + i}`, `value ${made + i}`]));
      await gateway.ask('PUT', `/api/targets/${target.id}/env/role/r${made}`, { configs });
    }
    const session = await openSession(gateway, user.token);
    // What a session keeps is written beside its first answers.
    await eventually('all values are stored', async () => {
      const { current } = (await json(gateway.directory, ['keys', 'status'])).encryption.values;
      return current === count + 2;
    });
    /** One call; the credential that reached the upstream. */
    const call = async () => {
      const answer = await post(gateway, user.token,
        { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'run', arguments: {} } }, { session });
      assert.equal(JSON.parse(lastMessage(answer)).result?.content[0].text, 'done', answer.text);
      return upstream.received.findLast(({ message }) => message.method === 'tools/call').headers.authorization;
    };
    /** Calls until `stop`, of which every one must have the credential. */
    const keepCalling = () => {
      let on = true, calls = 0;
      const done = (async () => {
        while (on) {
          assert.equal(await call(), `Bearer ${CREDENTIAL}`);
          ++calls;
        }
        return calls;
      })();
      done.catch(() => {});
      return async () => {
        on = false;
        return done;
      };
    };
    return { gateway, directory: gateway.directory, target, call, keepCalling };
  }

  test('a rotation goes on beside calls, survives being killed, and is continued', async (t) => {
    const { gateway, directory, target, call, keepCalling } = await sealed(t, 1500);
    const before = await secretsOf(directory);
    const first = await json(directory, ['keys', 'status']);
    assert.deepEqual(first.encryption.values, { current: 1502, other: 0 });
    assert.equal(first.encryption.previous, 0);

    const stop = keepCalling();
    const rotation = start(MCPGW, ['keys', 'rotate', 'encryption'], { cwd: directory });
    await rotation.line('progress', (line) => /^re-sealed \d+ of 1502 values$/.test(line));
    rotation.child.kill('SIGKILL');
    await rotation.exit;
    const halfway = await json(directory, ['keys', 'status']);
    assert.ok(halfway.encryption.values.current > 0 && halfway.encryption.values.other > 0, JSON.stringify(halfway));
    assert.equal(halfway.encryption.unreadable, 0);
    assert.equal(halfway.encryption.rotation_pending, true);
    assert.notEqual(halfway.encryption.current_key, first.encryption.current_key);
    assert.match((await mcpgw(directory, ['keys', 'status'])).stdout, /a rotation was interrupted/);
    assert.match((await mcpgw(directory, ['doctor', '--skip-targets'])).stdout, /^warning .*keys rotate encryption to finish/m);
    const during = await secretsOf(directory);
    assert.deepEqual(during.previous_encryption_keys, [before.encryption_key]);
    assert.equal((await stat(path.join(directory, 'mcpgw-data/secrets.json'))).mode & 0o777, 0o600);

    // The gateway seals with the new key by now; what it writes and what it reads is one.
    await gateway.ask('PUT', `/api/targets/${target.id}/env/default`, { configs: { LATER: 'later' } });

    const resumed = await json(directory, ['keys', 'rotate', 'encryption']);
    assert.equal(resumed.resumed, true);
    assert.equal(resumed.unreadable, 0);
    assert.equal(resumed.current_key, halfway.encryption.current_key, 'no further key was made');
    assert.ok(await stop() > 0);
    const after = await json(directory, ['keys', 'status']);
    assert.deepEqual(after.encryption.values, { current: 1503, other: 0 });
    assert.equal(after.encryption.rotation_pending, false);
    assert.equal(await call(), `Bearer ${CREDENTIAL}`);

    // Again, whole; a gateway that starts later reads everything, with the new keys alone too.
    const again = await mcpgw(directory, ['keys', 'rotate', 'encryption']);
    assert.match(again.stdout, /^key [0-9a-f]{16} is in force; 1503 of 1503 values were sealed with it now$/m);
    assert.equal(await call(), `Bearer ${CREDENTIAL}`);
    const last = await secretsOf(directory);
    assert.equal(last.previous_encryption_keys.length, 2);
    for (const { stdout, stderr } of [again])
      for (const key of [last.encryption_key, ...last.previous_encryption_keys])
        assert.ok(!stdout.includes(key) && !stderr.includes(key), 'a key was printed');
    for (const key of [last.encryption_key, last.jwt_secret, CREDENTIAL]) assert.ok(!gateway.logText.includes(key));
    await gateway.stop();
    await writeFile(path.join(directory, 'mcpgw-data/secrets.json'),
      JSON.stringify({ jwt_secret: last.jwt_secret, encryption_key: last.encryption_key }), { mode: 0o600 });
    assert.equal((await json(directory, ['keys', 'status'])).encryption.unreadable, 0);
  });

  test('two rotations at once end with everything readable', async (t) => {
    const { directory, call, keepCalling } = await sealed(t, 300);
    const stop = keepCalling();
    await Promise.all([1, 2].map(() => mcpgw(directory, ['keys', 'rotate', 'encryption'])));
    assert.ok(await stop() > 0);
    assert.equal(await call(), `Bearer ${CREDENTIAL}`);
    const status = await json(directory, ['keys', 'status']);
    assert.deepEqual(status.encryption.values, { current: 302, other: 0 });
    assert.equal(status.encryption.rotation_pending, false);
  });

  test('tokens hold through a rotation of the signing secret, with and without a restart', async (t) => {
    const { gateway, directory } = await sealed(t, 0);
    const me = async (at, token) => (await at.api('GET', '/api/auth/me', undefined, token)).status;
    const rotated = await json(directory, ['keys', 'rotate', 'jwt']);
    assert.deepEqual(rotated, { rotated: 'jwt', previous: 1 });
    await gateway.log('keys read again');
    assert.equal(await me(gateway, gateway.adminToken), 200);
    // Made by the running gateway and by the command line with the new secret: good for both.
    const login = await gateway.ask('POST', '/api/auth/login', { email: 'admin@example.test', password: PASSWORD }, null);
    const kid = (token) => JSON.parse(Buffer.from(token.split('.')[0], 'base64url')).kid;
    assert.notEqual(kid(login.token), kid(gateway.adminToken));
    const minted = (await mcpgw(directory, ['token', 'create', 'admin@example.test', '--scopes', 'api'])).stdout.trim();
    assert.equal(kid(minted), kid(login.token));
    await eventually('the new token to work', async () => await me(gateway, minted) === 200);
    assert.equal((await json(directory, ['keys', 'status'])).jwt.previous, 1);
    await gateway.stop();
    const next = await Gateway.start({ config: null, directory });
    t.after(() => next.stop());
    for (const token of [gateway.adminToken, login.token, minted]) assert.equal(await me(next, token), 200);
    // An old secret that is taken out of the file ends its tokens.
    await next.stop();
    const secrets = await secretsOf(directory);
    delete secrets.previous_jwt_secrets;
    await writeFile(path.join(directory, 'mcpgw-data/secrets.json'), JSON.stringify(secrets));
    const last = await Gateway.start({ config: null, directory });
    t.after(() => last.stop());
    assert.equal(await me(last, gateway.adminToken), 401);
    assert.equal(await me(last, minted), 200);
  });

  test('configured keys are the configuration\'s to change; what they seal is sealed anew', async (t) => {
    const old = 'a1b2c3d4e5f60718'.repeat(4), fresh = '18f7e6d5c4b3a290'.repeat(4);
    const jwt = `jwt:\n  secret: ${'configured-secret-42-'.repeat(2)}\n`;
    const { gateway, directory } = await sealed(t, 20, `${jwt}encryption:\n  key: ${old}\n`);
    const advice = await mcpgw(directory, ['keys', 'rotate', 'encryption'], { code: 1 });
    assert.match(advice.stderr, /put a new key there and the old one into encryption\.previous_keys/);
    assert.match((await mcpgw(directory, ['keys', 'rotate', 'jwt'], { code: 1 })).stderr, /jwt\.previous_secrets/);
    await gateway.stop();
    await writeFile(path.join(directory, 'mcpgw.yaml'), `${config}${jwt}encryption:\n  key: ${fresh}\n  previous_keys: [${old}]\n`);
    const done = await json(directory, ['keys', 'rotate', 'encryption']);
    assert.equal(done.resealed, 22);
    assert.equal((await json(directory, ['keys', 'status'])).encryption.source, 'configuration');
    // A key that is lost: said, not passed over.
    await writeFile(path.join(directory, 'mcpgw.yaml'), `${config}${jwt}encryption:\n  key: ${old}\n`);
    assert.equal((await json(directory, ['keys', 'status'])).encryption.unreadable, 22);
    assert.match((await mcpgw(directory, ['keys', 'rotate', 'encryption'], { code: 1 })).stderr, /was replaced before/);
    await writeFile(path.join(directory, 'mcpgw.yaml'), `${config}${jwt}encryption:\n  key: ${'0718a1b2c3d4e5f6'.repeat(4)}\n`);
    const lost = await mcpgw(directory, ['keys', 'rotate', 'encryption'], { code: 1 });
    assert.match(lost.stderr, /22 stored values cannot be opened with any key/);
    assert.match((await mcpgw(directory, ['doctor', '--skip-targets'], { code: 1 })).stdout, /^problem +22 stored values cannot be decrypted/m);
  });

  test('without storage, with a damaged or an open file', async () => {
    const directory = await temporaryDirectory();
    for (const args of [['keys', 'status'], ['keys', 'rotate', 'jwt'], ['keys', 'rotate', 'encryption']])
      assert.match((await mcpgw(directory, args, { code: 1 })).stderr, /no database yet/);
    await assert.rejects(stat(path.join(directory, 'mcpgw-data')));
    await mcpgw(directory, ['user', 'add', 'a@example.test', '--admin'], { input: `${PASSWORD}\n` });
    const file = path.join(directory, 'mcpgw-data/secrets.json');
    const good = await readFile(file, 'utf8');
    for (const bad of ['{', '[]', JSON.stringify({ ...JSON.parse(good), previous_encryption_keys: 'x' }),
      JSON.stringify({ ...JSON.parse(good), previous_jwt_secrets: ['short'] }),
      JSON.stringify({ ...JSON.parse(good), reseal_pending: 'yes' })]) {
      await writeFile(file, bad);
      assert.match((await mcpgw(directory, ['keys', 'rotate', 'jwt'], { code: 1 })).stderr, /secrets\.json is damaged/);
      assert.equal(await readFile(file, 'utf8'), bad, 'what is damaged stays as it is');
    }
    await writeFile(file, good);
    await chmod(file, 0o644);
    assert.match((await mcpgw(directory, ['keys', 'rotate', 'jwt'], { code: 1 })).stderr, /chmod 600/);
    await chmod(file, 0o600);
    await mcpgw(directory, ['keys', 'rotate', 'jwt']);
    await mcpgw(directory, ['keys'], { code: 2 });
    await mcpgw(directory, ['keys', 'rotate'], { code: 2 });
    await mcpgw(directory, ['keys', 'rotate', 'both'], { code: 2 });
  });
});

describe('copies', { timeout: 120000 }, () => {
  test('a copy of a database in use is whole, and a gateway runs on it', async (t) => {
    const gateway = await Gateway.start({ config });
    t.after(() => gateway.stop());
    await gateway.registerAdmin();
    const target = await gateway.addTarget('kept', { transport_type: 'streamable-http', url: 'http://127.0.0.1:1/mcp' });
    await gateway.ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: CREDENTIAL });
    // Users come in pairs while the copy is made: of each pair the copy has the first when it has the second.
    let on = true;
    const writing = (async () => {
      for (let i = 0; on; ++i)
        for (const half of ['a', 'b'])
          await gateway.ask('POST', '/api/targets', { name: `${i}${half}`, url: 'http://127.0.0.1:1/mcp' });
    })();
    writing.catch(() => {});
    const file = path.join(gateway.directory, 'copy.db');
    const done = await json(gateway.directory, ['storage', 'backup', 'copy.db']);
    on = false;
    await writing;
    assert.equal(done.file, 'copy.db');
    assert.match(done.keys, /secrets\.json$/);
    assert.equal((await stat(file)).mode & 0o777, 0o600);

    const other = await temporaryDirectory();
    await mkdir(path.join(other, 'mcpgw-data'), { mode: 0o700 });
    await copyFile(file, path.join(other, 'mcpgw-data/mcpgw.db'));
    await copyFile(path.join(gateway.directory, 'mcpgw-data/secrets.json'), path.join(other, 'mcpgw-data/secrets.json'));
    const second = await Gateway.start({ config, directory: other });
    t.after(() => second.stop());
    const names = (await second.ask('GET', '/api/targets', undefined, gateway.adminToken)).map((one) => one.name);
    assert.ok(names.includes('kept'));
    for (const name of names.filter((one) => one.endsWith('b'))) assert.ok(names.includes(`${name.slice(0, -1)}a`), name);
    assert.equal((await json(other, ['keys', 'status'])).encryption.unreadable, 0);

    // Nothing is overwritten, nothing is left half-done.
    const bytes = await readFile(file);
    assert.match((await mcpgw(gateway.directory, ['storage', 'backup', 'copy.db'], { code: 1 })).stderr, /there already/);
    assert.deepEqual(await readFile(file), bytes);
    assert.match((await mcpgw(gateway.directory, ['storage', 'backup', 'no/such/place'], { code: 1 })).stderr, /cannot be written/);
    assert.match((await mcpgw(await temporaryDirectory(), ['storage', 'backup', 'x.db'], { code: 1 })).stderr, /no database yet/);
    await mcpgw(gateway.directory, ['storage', 'backup'], { code: 2 });
    assert.match((await mcpgw(gateway.directory, ['storage', 'backup', 'second.db'])).stdout, /keep a copy of those elsewhere/);
  });
});

describe('doctor', { timeout: 120000 }, () => {
  const examine = async (directory, { code = 0, args = [] } = {}) => {
    const findings = await json(directory, ['doctor', ...args], { code });
    const people = (await mcpgw(directory, ['doctor', ...args], { code })).stdout;
    for (const { result, text } of findings) assert.ok(people.includes(`${result.padEnd(8)} ${text}`), text);
    return (check, result) => findings.filter((one) => one.check === check && (!result || one.result === result))
      .map((one) => one.text).join('\n');
  };
  const fresh = async (yaml = '') => {
    const directory = await temporaryDirectory();
    await writeFile(path.join(directory, 'mcpgw.yaml'), config + yaml, { mode: 0o600 });
    await mcpgw(directory, ['user', 'add', 'admin@example.test', '--admin'], { input: `${PASSWORD}\n` });
    return directory;
  };

  test('nothing to say about a sound installation', async (t) => {
    const demo = await demoHttp();
    t.after(() => demo.stop());
    const directory = await fresh();
    await mcpgw(directory, ['target', 'add', 'demo', '--url', demo.url]);
    const findings = await json(directory, ['doctor']);
    assert.deepEqual(findings.filter((one) => one.result !== 'ok'), []);
    for (const check of ['config', 'listen', 'registration', 'cors', 'metrics', 'files', 'disk', 'storage', 'keys', 'users',
      'policies', 'targets'])
      assert.ok(findings.some((one) => one.check === check), check);
  });

  test('a faulty configuration', async () => {
    const directory = await temporaryDirectory();
    await writeFile(path.join(directory, 'mcpgw.yaml'), 'server:\n  prt: 1\n');
    assert.match((await examine(directory, { code: 2 }))('config', 'problem'), /mcpgw\.yaml:2: unknown key server\.prt/);
  });

  test('what is open to others', async () => {
    const directory = await fresh('server:\n  host: 0.0.0.0\ncors:\n  allowed_origins: ["*"]\n');
    const found = await examine(directory);
    assert.match(found('listen', 'warning'), /0\.0\.0\.0 without TLS/);
    assert.match(found('registration', 'warning'), /auth\.registration: closed/);
    assert.match(found('cors', 'warning'), /name the origins/);
    assert.match(found('metrics', 'warning'), /metrics\.token/);
    const closed = await fresh('server:\n  host: 0.0.0.0\nauth:\n  registration: closed\nmetrics:\n  token: only-for-prometheus\n');
    const again = await examine(closed);
    assert.equal(again('registration', 'ok'), 'registration is closed');
    assert.equal(again('metrics', 'ok'), 'metrics are not public');
    await writeFile(path.join(directory, 'mcpgw.yaml'), 'mcp:\n  allowed_origins: ["*"]\nupstream:\n  allow_metadata: true\n');
    const third = await examine(directory);
    assert.match(third('cors', 'warning'), /mcp\.allowed_origins/);
    assert.match(third('metadata', 'warning'), /allow_metadata/);
  });

  test('files that others can read', async () => {
    const directory = await fresh();
    const data = path.join(directory, 'mcpgw-data');
    await chmod(path.join(data, 'mcpgw.db'), 0o644);
    assert.match((await examine(directory, { code: 1 }))('files', 'problem'), /mcpgw\.db is open to others: run chmod 600/);
    await chmod(path.join(data, 'mcpgw.db'), 0o600);
    await chmod(path.join(data, 'secrets.json'), 0o640);
    const secrets = await examine(directory, { code: 1 });
    assert.match(secrets('files', 'problem'), /secrets\.json is open to others/);
    assert.match(secrets('storage', 'problem'), /mode 0600/);
    await chmod(path.join(data, 'secrets.json'), 0o600);
    await chmod(data, 0o755);
    assert.match((await examine(directory, { code: 1 }))('files', 'problem'), /run chmod 700/);
    await chmod(data, 0o700);
    await writeFile(path.join(directory, 'mcpgw.yaml'), `${config}metrics:\n  token: only-for-prometheus\n`);
    await chmod(path.join(directory, 'mcpgw.yaml'), 0o644);
    assert.match((await examine(directory))('files', 'warning'), /mcpgw\.yaml is open to others/);
    await rm(path.join(data, 'secrets.json'));
    assert.match((await examine(directory, { code: 1 }))('storage', 'problem'), /secrets\.json is missing/);
  });

  test('users, policies and targets', async (t) => {
    const directory = await temporaryDirectory();
    assert.match((await examine(directory))('storage', 'ok'), /no database yet/);
    await assert.rejects(stat(path.join(directory, 'mcpgw-data')), 'the doctor makes nothing');
    await writeFile(path.join(directory, 'mcpgw.yaml'), config);
    const gateway = await Gateway.start({ config, directory });
    assert.match((await examine(directory))('users', 'warning'), /first one to register/);
    await gateway.registerAdmin();
    t.after(() => gateway.stop());
    await mcpgw(directory, ['policy', 'add', 'all', '--effect', 'allow', '--everyone']);
    await mcpgw(directory, ['target', 'add', 'gone', '--url', 'http://127.0.0.1:1/mcp']);
    await mcpgw(directory, ['target', 'add', 'typo', '--command', 'no-such-program-at-all']);
    await mcpgw(directory, ['target', 'add', 'off', '--url', 'http://127.0.0.1:1/mcp', '--enabled', 'false']);
    const found = await examine(directory, { code: 1 });
    assert.match(found('users', 'ok'), /administrator/);
    assert.match(found('policies', 'warning'), /policy all allows everyone everything/);
    assert.match(found('targets', 'problem'), /target gone does not work .*\n.*target typo does not work/);
    assert.ok(!found('targets').includes('off'));
    assert.equal((await examine(directory, { args: ['--skip-targets'] }))('targets'), '');
  });
});
