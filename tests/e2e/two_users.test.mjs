// Two users with different policies and credentials behind one gateway, and a third with no policy at all.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { connect, lastMessage, names, openSession, post } from './lib/clients.mjs';
import { eventually, Gateway, PASSWORD, temporaryDirectory } from './lib/gateway.mjs';
import { demoHttp, demoStdio, everythingHttp, everythingStdio, filesystemStdio, httpTarget, sha256 } from './lib/upstreams.mjs';

const SECRETS = { alice: 'alice-upstream-credential-1f6b', bob: 'bob-upstream-credential-93ac', group: 'group-credential-55d0' };

describe('two users', { timeout: 240000 }, () => {
  let gateway, demo, everything, targets, alice, bob, carol;

  before(async () => {
    gateway = await Gateway.start();
    await gateway.registerAdmin();
    demo = await demoHttp();
    everything = await everythingHttp();
    alice = await gateway.addUser('alice', { groups: ['staff'] });
    bob = await gateway.addUser('bob', { groups: ['staff'] });
    carol = await gateway.addUser('carol');
    targets = {
      web: await gateway.addTarget('web', { ...httpTarget(demo.url), auth_type: 'bearer' }),
      local: await gateway.addTarget('local', { ...demoStdio, isolation_boundary: 'per_user' }),
      everything: await gateway.addTarget('everything', everythingStdio),
      remote: await gateway.addTarget('remote', httpTarget(everything.url)),
      files: await gateway.addTarget('files', filesystemStdio(await temporaryDirectory())),
    };
    // Alice: all of web and local, sums of both everythings. Bob: web's echo and whoami, local's whoami, files.
    await gateway.allow(alice, targets.web);
    await gateway.allow(alice, targets.local);
    await gateway.allow(alice, targets.everything, { type: 'tool', pattern: '^get-sum$' });
    await gateway.allow(alice, targets.remote, { type: 'tool', pattern: '^get-sum$' });
    await gateway.allow(bob, targets.web, { type: 'tool', pattern: '^(echo|whoami)$' });
    await gateway.allow(bob, targets.local, { type: 'tool', pattern: '^whoami$' });
    await gateway.allow(bob, targets.files, { type: 'tool', pattern: '^(read_text_file|list_directory)$' });
    for (const [user, secret] of [[alice, SECRETS.alice], [bob, SECRETS.bob]]) {
      const login = await gateway.ask('POST', '/api/auth/login', { email: user.email, password: PASSWORD }, null);
      await gateway.ask('PUT', `/api/targets/${targets.web.id}/token`, { token: secret }, login.token);
      await gateway.ask('POST', `/api/targets/${targets.local.id}/env/user/${user.user.id}`,
        { key: 'AUTH_TOKEN', value: secret }, login.token);
    }
  });
  after(async () => {
    await gateway?.stop();
    await demo?.stop();
    await everything?.stop();
  });

  test('each sees exactly the tools that policy allows', async () => {
    const a = await connect(gateway, alice.token), b = await connect(gateway, bob.token);
    assert.deepEqual(names((await a.listTools()).tools), [
      'everything_get-sum', 'local_add', 'local_echo', 'local_slow', 'local_whoami', 'remote_get-sum',
      'web_add', 'web_echo', 'web_slow', 'web_whoami']);
    assert.deepEqual(names((await b.listTools()).tools), [
      'files_list_directory', 'files_read_text_file', 'local_whoami', 'web_echo', 'web_whoami']);
    assert.deepEqual((await b.listResources()).resources, []);
    assert.deepEqual((await b.listPrompts()).prompts, []);
    const sum = await a.callTool({ name: 'remote_get-sum', arguments: { a: 20, b: 22 } });
    assert.match(sum.content[0].text, /42/);
    await a.end();
    await b.end();
  });

  test('each calls with the own credential, over HTTP and in an own process', async () => {
    const a = await connect(gateway, alice.token), b = await connect(gateway, bob.token);
    const ask = async (client, name) => (await client.callTool({ name, arguments: {} })).structuredContent;
    for (const target of ['web', 'local']) {
      const [ofAlice, ofBob] = await Promise.all([ask(a, `${target}_whoami`), ask(b, `${target}_whoami`)]);
      assert.equal(ofAlice.credential_sha256, sha256(SECRETS.alice), target);
      assert.equal(ofBob.credential_sha256, sha256(SECRETS.bob), target);
      if (target === 'local') assert.notEqual(ofAlice.pid, ofBob.pid);
    }
    await a.end();
    await b.end();
  });

  test('nothing of the client reaches an upstream, and a process gets no variable of the gateway', async () => {
    const a = await connect(gateway, alice.token);
    const web = (await a.callTool({ name: 'web_whoami', arguments: {} })).structuredContent;
    const answer = await post(gateway, alice.token,
      { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'web_whoami', arguments: {} } },
      { session: a.sessionId, headers: { 'X-Private': 'of the client', Cookie: 'a=b' } });
    const withHeaders = JSON.parse(lastMessage(answer)).result.structuredContent;
    for (const seen of [web, withHeaders])
      for (const name of ['x-private', 'cookie', 'x-forwarded-for', 'forwarded', 'origin'])
        assert.ok(!seen.header_names.includes(name), name);
    const local = (await a.callTool({ name: 'local_whoami', arguments: {} })).structuredContent;
    const allowed = /^(PATH|HOME|LANG|LC_.*|TZ|TMPDIR|USER|AUTH_TOKEN)$/;
    assert.deepEqual(local.env_names.filter((name) => !allowed.test(name)), []);
    await a.end();
  });

  test('neither can use the session of the other, whose answer is that of an unknown one', async () => {
    const a = await connect(gateway, alice.token);
    const call = { jsonrpc: '2.0', id: 1, method: 'tools/list' };
    const foreign = await post(gateway, bob.token, call, { session: a.sessionId });
    const unknown = await post(gateway, bob.token, call, { session: '00000000-0000-4000-8000-000000000000' });
    assert.equal(foreign.status, 404);
    assert.equal(foreign.text, unknown.text);
    assert.equal(JSON.parse(foreign.text).error.code, -32001);
    const headers = { Authorization: `Bearer ${bob.token}`, 'Mcp-Session-Id': a.sessionId };
    const removed = await fetch(gateway.url + '/mcp', { method: 'DELETE', headers });
    assert.equal(removed.status, 404);
    const stream = await fetch(gateway.url + '/mcp', { headers: { ...headers, Accept: 'text/event-stream' } });
    assert.equal(stream.status, 404);
    assert.equal((await a.listTools()).tools.length, 10);
    await a.end();
  });

  test('a user without a policy sees nothing, and cannot tell denied from unknown', async () => {
    const c = await connect(gateway, carol.token);
    assert.deepEqual((await c.listTools()).tools, []);
    await c.end();
    const session = await openSession(gateway, carol.token);
    const call = async (method, params) => {
      const answer = await post(gateway, carol.token, { jsonrpc: '2.0', id: 7, method, params }, { session });
      return { status: answer.status, error: JSON.parse(lastMessage(answer)).error };
    };
    for (const list of ['tools', 'resources', 'prompts'])
      assert.equal((await call(`${list}/list`, {})).error, undefined);
    const cases = [
      ['tools/call', 'name', 'web_echo', 'no_such_tool', -32602, 'Unknown tool: '],
      ['tools/call', 'name', 'echo', 'no_such_tool', -32602, 'Unknown tool: '],
      ['prompts/get', 'name', 'web_greet', 'no_such_prompt', -32602, 'Unknown prompt: '],
      ['resources/read', 'uri', 'mcpgw+web:demo://note', 'mcpgw+nowhere:demo://note', -32002, 'Resource not found'],
    ];
    for (const [method, member, denied, unknown, code, text] of cases) {
      const first = await call(method, { [member]: denied }), second = await call(method, { [member]: unknown });
      assert.equal(first.status, 200);
      assert.equal(first.error.code, code);
      assert.ok(first.error.message.startsWith(text), first.error.message);
      const without = (answer, name) => JSON.stringify(answer).replaceAll(name, 'X');
      assert.equal(without(first, denied), without(second, unknown));
    }
    for (const route of ['/api/targets', '/api/policies'])
      assert.deepEqual((await gateway.ask('GET', route, undefined, carol.token)), []);
    const foreign = await gateway.api('GET', `/api/targets/${targets.web.id}`, undefined, carol.token);
    const missing = await gateway.api('GET', '/api/targets/00000000-0000-4000-8000-000000000000', undefined, carol.token);
    assert.equal(foreign.status, 404);
    assert.deepEqual({ ...foreign.body, request_id: 0 }, { ...missing.body, request_id: 0 });
  });

  test('policy, credential and token changes act on the next request of a live session', async () => {
    const b = await connect(gateway, bob.token);
    await assert.rejects(b.callTool({ name: 'web_add', arguments: { a: 1, b: 2 } }), /Unknown tool/);
    const policy = await gateway.allow(bob, targets.web, { type: 'tool', pattern: '^add$' });
    assert.equal((await b.callTool({ name: 'web_add', arguments: { a: 1, b: 2 } })).content[0].text, '3');
    await gateway.ask('DELETE', `/api/policies/${policy.id}`);
    await assert.rejects(b.callTool({ name: 'web_add', arguments: { a: 1, b: 2 } }), /Unknown tool/);

    // Bob's own credential is removed: that of his group is next, then none.
    const whoami = async () => (await b.callTool({ name: 'web_whoami', arguments: {} })).structuredContent.credential_sha256;
    await gateway.ask('PUT', `/api/targets/${targets.web.id}/tokens/group`, { group_name: 'staff', token: SECRETS.group });
    assert.equal(await whoami(), sha256(SECRETS.bob));
    const login = await gateway.ask('POST', '/api/auth/login', { email: bob.email, password: PASSWORD }, null);
    await gateway.ask('DELETE', `/api/targets/${targets.web.id}/token`, undefined, login.token);
    assert.equal(await whoami(), sha256(SECRETS.group));
    await gateway.ask('DELETE', `/api/targets/${targets.web.id}/tokens/group/staff`);
    assert.equal(await whoami(), null);
    await gateway.ask('PUT', `/api/targets/${targets.web.id}/token`, { token: SECRETS.bob }, login.token);
    assert.equal(await whoami(), sha256(SECRETS.bob));

    const tokens = await gateway.ask('GET', '/api/auth/tokens', undefined, login.token);
    await gateway.ask('DELETE', `/api/auth/tokens/${tokens.find((one) => one.kind === 'api').id}`, undefined, login.token);
    const refused = await post(gateway, bob.token, { jsonrpc: '2.0', id: 1, method: 'ping' }, { session: b.sessionId });
    assert.equal(refused.status, 401);
    await b.close();
    bob.token = (await gateway.ask('POST', '/api/auth/tokens', { name: 'again' }, login.token)).token;
  });

  test('audit rows tell who did what, and no secret is anywhere', async () => {
    const a = await connect(gateway, alice.token);
    await a.callTool({ name: 'web_echo', arguments: { text: 'for the audit' } });
    await assert.rejects(a.callTool({ name: 'everything_echo', arguments: { message: 'no' } }), /Unknown tool/);
    // A target out of reach is never asked, so nothing is known of its items.
    await assert.rejects(a.callTool({ name: 'files_read_text_file', arguments: { path: '/x' } }), /Unknown tool/);
    await assert.rejects(a.callTool({ name: 'web_nothing', arguments: {} }), /Unknown tool/);
    await a.end();
    const rows = (query) => gateway.ask('GET', `/api/logs?limit=200&kind=mcp&user_id=${alice.user.id}${query}`);
    const denied = await eventually('the audit row of a denied call', async () =>
      (await rows('&decision=deny')).find((row) => row.target_name === 'everything'));
    assert.equal(denied.response_status, 403);
    assert.equal(denied.error_code, 'denied');
    assert.equal(denied.tool, 'echo');
    assert.equal(denied.user_email, 'alice@example.test');
    const allowed = await eventually('the audit row of an allowed call', async () =>
      (await rows('&decision=allow&target=web')).find((row) => row.tool === 'echo'));
    assert.equal(allowed.response_status, 200);
    assert.equal(allowed.method, 'tools/call');
    assert.equal(allowed.request_body.params.arguments.text, 'for the audit');
    const unknown = await eventually('the audit row of an unknown tool', async () => (await rows('&status=404'))[0]);
    assert.equal(unknown.error_code, 'unknown_item');
    assert.equal(unknown.decision, null);

    const own = await gateway.ask('GET', '/api/logs?limit=1000', undefined, (await gateway.ask('POST',
      '/api/auth/login', { email: carol.email, password: PASSWORD }, null)).token);
    assert.ok(own.length > 0);
    assert.ok(own.every((row) => row.user_id === carol.user.id));

    const everything = JSON.stringify(await gateway.ask('GET', '/api/logs?limit=1000')) + gateway.logText;
    for (const secret of [...Object.values(SECRETS), alice.token, bob.token, gateway.adminToken, PASSWORD])
      assert.ok(!everything.includes(secret), 'a secret is in the log or in an audit row');
  });
});
