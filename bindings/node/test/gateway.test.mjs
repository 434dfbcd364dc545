// Gateway, testing, storage and policies, as a Node.js program sees them.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { after, before, describe, test } from 'node:test';

import * as mcpgw from '../index.js';
import { gateway } from '../testing.js';

const SECRETS = { jwt: { secret: '0123456789abcdef0123456789abcdef' }, encryption: { key: '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f' } };

async function calculator(gw) {
  const server = await gw.server('calculator');
  server.tool('add', ({ a, b = 1 }) => a + b);
  server.tool('fail', () => {
    throw new mcpgw.ToolError('out of numbers');
  });
  server.tool('crash', async () => {
    throw new Error('a secret text');
  });
  await gw.allow('alice', 'calculator');
  return server;
}

describe('testing', () => {
  let gw, server;
  before(async () => {
    gw = await gateway();
    server = await calculator(gw);
  });
  after(() => gw.close());

  test('calls and refusals', async () => {
    const [alice, bob] = [await gw.asUser('alice'), await gw.asUser('bob')];
    assert.deepEqual(await alice.listTools(), ['add', 'fail', 'crash']);
    assert.equal((await alice.callTool('add', { a: 2, b: 3 })).text, '5');
    assert.deepEqual(await bob.listTools(), []);
    const refused = await bob.callTool('add', { a: 2 });
    assert.equal(refused.ok, false);
    assert.equal(refused.errorCode, -32602);
    assert.deepEqual(server.receivedCalls('add').map((call) => call.arguments), [{ a: 2, b: 3 }]);
  });

  test('tools that fail', async () => {
    const alice = await gw.asUser('alice');
    const failed = await alice.callTool('fail');
    assert.equal(failed.ok, false);
    assert.equal(failed.text, 'out of numbers');
    const crashed = await alice.callTool('crash');
    assert.equal(crashed.errorCode, -32603);
    assert.ok(!JSON.stringify(crashed.message).includes('secret'));
  });

  for (const era of ['legacy', 'modern'])
    for (const version of ['2025-06-18', '2026-07-28'])
      test(`a server of the ${era} era, a client of ${version}`, async () => {
        const modern = version === '2026-07-28';
        const own = await gateway();
        const made = await own.server('s', { protocol_era: era });
        made.tool('größe', ({ a }) => a);
        await own.allow('alice', 's');
        const alice = await own.asUser('alice');
        alice.speak(version);
        assert.deepEqual(await alice.listTools(), ['größe']);
        const reply = await alice.callTool('größe', { a: 'x' });
        assert.equal(reply.text, 'x', JSON.stringify(reply.message));
        assert.equal(reply.result.resultType, modern ? 'complete' : undefined);
        assert.equal(alice.sessionId === undefined, modern);
        assert.equal((await (await own.asUser('bob')).callTool('größe', { a: 'x' })).ok, false);
        const methods = made.received.map((message) => message.method);
        assert.ok(methods.includes(era === 'modern' ? 'server/discover' : 'initialize'));
        assert.ok(!methods.includes(era === 'modern' ? 'initialize' : 'server/discover'));
        await own.close();
      });

  test('deny comes first', async () => {
    await gw.allow('carol', 'calculator');
    await gw.deny('carol', 'calculator', '^fail$');
    assert.deepEqual(await (await gw.asUser('carol')).listTools(), ['add', 'crash']);
  });

  test('many at once, and a tool that uses the gateway', async () => {
    const outer = await gw.server('outer');
    outer.tool('twice', async ({ a }) => (await (await gw.asUser('alice')).callTool('add', { a, b: a })).text);
    await gw.allow('dave', 'outer');
    const dave = await gw.asUser('dave');
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => dave.callTool('twice', { a: n })));
    assert.deepEqual(answers.map((answer) => answer.text), Array.from({ length: 50 }, (_, n) => String(2 * n)));
  });

  test('big and foreign texts pass', async () => {
    const echo = await gw.server('echo');
    echo.tool('echo', ({ text }) => text);
    await gw.allow('eve', 'echo');
    for (const text of ['', 'ünï 🎈', 'x'.repeat(1_000_000)]) assert.equal((await (await gw.asUser('eve')).callTool('echo', { text })).text, text);
  });

  test('the audit log', async () => {
    const rows = (await gw.auditRows({ method: 'tools/call', limit: '1000' })).map((row) => row.user_email);
    assert.ok(rows.includes('alice@example.test') && rows.includes('bob@example.test'));
  });

  test("REST with one's own token", async () => {
    assert.equal((await (await gw.asUser('bob')).api('GET', '/api/users')).status, 403);
    assert.equal((await (await gw.asUser('admin')).api('GET', '/api/users')).status, 200);
    await assert.rejects(gw.admin('GET', '/api/targets/00000000-0000-4000-8000-000000000000'), (error) => error instanceof mcpgw.ApiError && error.status === 404);
    await assert.rejects(gw.admin('POST', '/mcp'), { reason: 'invalid_target' });
  });

  test('streams end when their client goes', async () => {
    const alice = await gw.asUser('alice');
    await alice.listTools();
    const gone = new AbortController();
    const headers = { Authorization: `Bearer ${alice.token}`, Accept: 'text/event-stream', 'Mcp-Session-Id': alice.sessionId };
    const stream = await gw.stream('GET', '/mcp', { headers, signal: gone.signal });
    assert.equal(stream.status, 200);
    const reader = stream.body.getReader();
    await gw.deny('alice', 'calculator', '^crash$'); // her list of tools changes
    let text = '';
    while (!text.includes('notifications/tools/list_changed')) text += Buffer.from((await reader.read()).value).toString();
    gone.abort();
    await assert.rejects(async () => {
      for (;;) if ((await reader.read()).done) return;
    }, { reason: 'cut_off' });
  });
});

describe('gateway', () => {
  test('options are checked', async () => {
    for (const [options, reason] of [
      [{ nothing: 1 }, 'unknown_option'],
      [{ jwt: { secret: 'hush' } }, 'invalid_option'],
      [{ session: { timeout: 'soon' } }, 'invalid_option'],
    ])
      await assert.rejects(mcpgw.Gateway.create(options), (error) => error.code === 'invalid_argument' && error.reason === reason && !error.message.includes('hush'));
  });

  test('it listens, and ends', async () => {
    const lines = [];
    const gw = await mcpgw.Gateway.create({ ...SECRETS, logging: { level: 'debug' } }, { log: (line) => lines.push(line) });
    const server = await gw.serve();
    assert.equal((await (await fetch(`${server.url}/version`)).json()).version, mcpgw.version);
    await assert.rejects(gw.serve({ server: { port: server.port } }), { reason: 'address_in_use' });
    await server.close();
    await assert.rejects(fetch(`${server.url}/version`));
    await gw.close();
    await gw.close();
    await assert.rejects(gw.handle('GET', '/version'), { reason: 'closed' });
    for (const line of lines) assert.ok(line.level && line.module);
  });

  test('connect decides, and may fail', async () => {
    const server = new mcpgw.Server('any').tool('t', () => 'x');
    const gw = await gateway({}, {
      connect: ({ target }) => {
        if (target.name === 'bad') throw new Error('a secret text');
        return target.name === 'mine' ? server : undefined;
      },
    });
    for (const name of ['mine', 'bad', 'other']) await gw.admin('POST', '/api/targets', { name, transport_type: 'streamable-http', url: 'http://127.0.0.1:1/mcp' });
    await gw.allow('alice');
    assert.deepEqual(await (await gw.asUser('alice')).listTools(), ['mine_t']);
    await gw.close();
  });

  test('a process ends in order when its gateways are closed', () => {
    const program = `
      import { gateway } from ${JSON.stringify(new URL('../testing.js', import.meta.url).href)};
      const gw = await gateway();
      (await gw.server('s')).tool('t', () => 'x');
      await gw.allow('alice');
      console.log((await (await gw.asUser('alice')).callTool('t')).text);
      await gw.close();`;
    assert.equal(execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', timeout: 120_000 }), 'x\n');
  });

  test('the package holds all that it needs', () => {
    const root = mkdtempSync(join(tmpdir(), 'mcpgw-pack-'));
    try {
      const from = fileURLToPath(new URL('..', import.meta.url));
      const [{ filename }] = JSON.parse(execFileSync('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', root], { cwd: from, encoding: 'utf8' }).replace(/^[^[]*/, ''));
      execFileSync('tar', ['xf', join(root, filename), '-C', root]);
      symlinkSync(join(from, 'node_modules'), join(root, 'node_modules'));
      const { MCPGW_C_LIBRARY, ...env } = process.env;
      const program = `import { version } from ${JSON.stringify(pathToFileURL(join(root, 'package/index.js')).href)}; import ${JSON.stringify(pathToFileURL(join(root, 'package/testing.js')).href)}; console.log(version)`;
      assert.equal(execFileSync(process.execPath, ['--input-type=module', '-e', program], { env, encoding: 'utf8' }).trim(), mcpgw.version);
    } finally {
      rmSync(root, { recursive: true });
    }
  });

  test('types hold, for the program of types.ts and for the example', () => {
    const at = (path) => fileURLToPath(new URL(path, import.meta.url));
    const root = mkdtempSync(join(tmpdir(), 'mcpgw-types-'));
    try {
      const compilerOptions = {
        noEmit: true, strict: true, noImplicitAny: false, checkJs: true, module: 'nodenext', target: 'es2022',
        types: ['node'], typeRoots: [at('../node_modules/@types')],
        paths: { mcpgw: [at('../index.d.ts')], 'mcpgw/testing': [at('../testing.d.ts')] },
      };
      const files = [at('types.ts'), at('../../../examples/with_node_test/release_notes.test.mjs')];
      writeFileSync(join(root, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }));
      const told = spawnSync(process.execPath, [at('../node_modules/typescript/bin/tsc'), '-p', root], { encoding: 'utf8' });
      assert.equal(told.stdout, '');
      assert.equal(told.status, 0);
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});

class MapStorage extends mcpgw.Storage {
  records = new Map();
  versions = new Map();
  down = false;
  #up() {
    if (this.down) throw new mcpgw.McpgwError('unavailable', 'storage_unavailable', 'The map is folded');
  }
  get(collection, key) {
    this.#up();
    return this.records.get(`${collection}\0${key}`);
  }
  list(collection, prefix, after, limit) {
    this.#up();
    const bytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));
    const found = [...this.records.values()]
      .filter((r) => r.collection === collection && r.key.startsWith(prefix) && bytes(r.key, after) > 0)
      .sort((a, b) => bytes(a.key, b.key));
    return limit === 0 ? found : found.slice(0, limit);
  }
  commit(operations) {
    this.#up();
    const name = ({ collection, key }) => `${collection}\0${key}`;
    for (const step of operations)
      if (step.expected_version !== undefined && (this.records.get(name(step))?.version ?? 0) !== step.expected_version) throw mcpgw.versionConflict(step);
    return operations.map((step) => {
      if (step.op === 'check') return 0;
      if (step.op === 'erase') return this.records.delete(name(step)) ? 0 : null;
      const version = (this.versions.get(name(step)) ?? 0) + 1;
      this.versions.set(name(step), version);
      this.records.set(name(step), { collection: step.collection, key: step.key, value: step.value, version });
      return version;
    });
  }
  ping() {
    this.#up();
  }
}

describe('storage', () => {
  test('a gateway lives in it', async () => {
    const storage = new MapStorage();
    const first = await mcpgw.Gateway.create(SECRETS, { storage });
    await first.admin('POST', '/api/users', { email: 'a@example.org', password: 'a long password' });
    await assert.rejects(first.admin('POST', '/api/users', { email: 'a@example.org', password: 'a long password' }), { status: 409 });
    await first.close();
    const second = await mcpgw.Gateway.create(SECRETS, { storage });
    assert.deepEqual((await second.admin('GET', '/api/users')).map((user) => user.email), ['a@example.org']);
    await second.close();
  });

  test('it needs a key that outlives the process', async () => {
    const storage = new MapStorage();
    const refused = { reason: 'invalid_option', field: 'encryption.key', message: /storage of the host/ };
    await assert.rejects(mcpgw.Gateway.create({}, { storage }), refused);
    await assert.rejects(mcpgw.Gateway.create({ jwt: SECRETS.jwt }, { storage }), refused);
    await assert.rejects(mcpgw.Repository.open(undefined, { storage }), refused);
    assert.equal(storage.records.size, 0); // nothing is written that would belong to a key which nobody has
  });

  test('what is sealed is opened after a restart', async () => {
    const storage = new MapStorage();
    const first = await mcpgw.Gateway.create(SECRETS, { storage });
    const { id } = await first.admin('POST', '/api/targets', { name: 'git', transport_type: 'streamable-http', url: 'https://git.invalid/mcp', auth_type: 'bearer' });
    await first.admin('POST', '/api/users', { email: 'bob@example.org', password: 'a long password' });
    await first.admin('PUT', `/api/targets/${id}/tokens/default`, { token: "everyone's" });
    await first.close();
    assert.ok(![...storage.records.values()].some((record) => record.value.includes("everyone's")));
    const again = await mcpgw.Repository.open(SECRETS, { storage });
    assert.equal(new mcpgw.TokenResolver(again).resolve({ user: 'bob@example.org', target: 'git' }).value, "everyone's");
  });

  test('a test needs no key', async () => {
    const storage = new MapStorage();
    const first = await gateway(undefined, { storage });
    const { id } = await first.asUser('alice');
    await first.close();
    const again = await gateway(undefined, { storage });
    assert.deepEqual((await again.admin('GET', '/api/users')).map((user) => user.id), [id]);
    await again.close();
  });

  test('one that is away denies', async () => {
    const storage = new MapStorage();
    const gw = await mcpgw.Gateway.create(SECRETS, { storage });
    storage.down = true;
    await assert.rejects(gw.admin('POST', '/api/users', { email: 'a@example.org', password: 'a long password' }), { status: 503 });
    assert.equal((await gw.handle('GET', '/ready')).status, 503);
    storage.down = false;
    assert.equal((await gw.handle('GET', '/ready')).status, 200);
    await gw.close();
    storage.list = () => {
      throw new Error('a secret text');
    };
    await assert.rejects(mcpgw.Gateway.create(SECRETS, { storage }), (error) => !error.message.includes('secret'));
  });

  test('others write too', async () => {
    const [storage, other] = [new MapStorage(), new MapStorage()];
    other.records = storage.records;
    other.versions = storage.versions;
    const [one, two] = [await mcpgw.Gateway.create(SECRETS, { storage }), await mcpgw.Gateway.create(SECRETS, { storage: other })];
    await two.admin('POST', '/api/users', { email: 'a@example.org', password: 'a long password' });
    assert.equal((await one.admin('GET', '/api/users')).length, 0);
    await storage.changed();
    const until = Date.now() + 30_000;
    while ((await one.admin('GET', '/api/users')).length === 0) assert.ok(Date.now() < until, 'what others wrote never shows');
    await Promise.all([one.close(), two.close()]);
  });
});

describe('policies and credentials', () => {
  test('without a gateway', async () => {
    const repository = await mcpgw.Repository.open(SECRETS);
    const bob = await repository.admin('POST', '/api/users', { email: 'bob@example.org', password: 'a long password', groups: ['dev'] });
    const git = await repository.admin('POST', '/api/targets', { name: 'git', transport_type: 'streamable-http', url: 'https://git.invalid/mcp', auth_type: 'bearer' });
    await repository.admin('POST', '/api/policies', {
      name: 'devs read',
      effect: 'allow',
      resource_type: 'tool',
      resource_pattern: '^git_log$',
      subjects: [{ subject_type: 'group', subject_value: 'dev' }],
    });
    const engine = new mcpgw.PolicyEngine(repository);
    const may = (question) => engine.evaluate({ target: 'git', name: 'git_log', ...question });
    assert.deepEqual([may({ user: 'bob@example.org' }).allowed, may({ user: 'bob@example.org' }).policyName], [true, 'devs read']);
    assert.equal(may({ user: bob.id, name: 'git_push' }).allowed, false);
    assert.equal(may({ user: 'nobody' }).reason, 'unknown_user');
    assert.equal(may({ principal: { groups: ['dev'] } }).allowed, true);
    assert.deepEqual(may({ user: bob.id, name: 'git_push', explain: true }).considered.filter((c) => c.policyName === 'devs read').map((c) => c.why), ['pattern']);
    assert.throws(() => may({ user: bob.id, type: 'all' }), { reason: 'invalid_question', field: 'type' });

    const tokens = new mcpgw.TokenResolver(repository);
    assert.equal(tokens.resolve({ user: bob.id, target: 'git' }), null);
    await repository.admin('PUT', `/api/targets/${git.id}/tokens/group`, { group: 'dev', token: "the devs' token" });
    assert.deepEqual(tokens.resolve({ user: bob.id, target: 'git' }), { value: "the devs' token", scope: 'group', scopeValue: 'dev', fromEnv: false });
    await repository.admin('PUT', `/api/targets/${git.id}/env/default`, { configs: { REGION: 'eu' } });
    assert.equal(new mcpgw.EnvResolver(repository).resolve({ user: bob.id, target: 'git' }).values.REGION, 'eu');
    assert.throws(() => tokens.resolve({ user: 'nobody', target: 'git' }), { code: 'not_found' });
  });

  test('of a gateway', async () => {
    const gw = await gateway();
    await calculator(gw);
    await gw.asUser('bob');
    const engine = new mcpgw.PolicyEngine(gw);
    assert.equal(engine.evaluate({ user: 'alice@example.test', target: 'calculator', name: 'add' }).allowed, true);
    assert.equal(engine.evaluate({ user: 'bob@example.test', target: 'calculator', name: 'add' }).allowed, false);
    await gw.close();
  });
});
