// Bytes that must not change, input that must not pass, upstreams that fail.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { connect, lastMessage, openSession, post } from './lib/clients.mjs';
import { alive, DEMO, descendants, eventually, Gateway } from './lib/gateway.mjs';
import { demoHttp, demoStdio, httpTarget, scripted, stdioTarget } from './lib/upstreams.mjs';

const ODD = '{ "big":9007199254740993 , "one":1.0,"minus":-0.0, "exp":1E+2,"sep":"\u2028","emoji":"😀","esc":"\\u00e9\\/",' +
  '"nest":' + '['.repeat(60) + ']'.repeat(60) + ',"":null,"unknown":{"z":1,"a":2}}';

describe('bytes and faults', { timeout: 180000 }, () => {
  let gateway, user, demo, script, behave, targets;

  before(async () => {
    gateway = await Gateway.start({ config: 'upstream:\n  allow_private: true\n  connect_timeout: 1s\n  list_timeout: 2s\n' });
    await gateway.registerAdmin();
    user = await gateway.addUser('user');
    demo = await demoHttp();
    script = await scripted((...args) => behave(...args));
    targets = {
      demo: await gateway.addTarget('demo', httpTarget(demo.url)),
      script: await gateway.addTarget('script', { ...httpTarget(script.url), timeout_ms: 1000 }),
    };
    for (const target of Object.values(targets)) await gateway.allow(user, target);
  });
  after(async () => {
    await gateway?.stop();
    await demo?.stop();
    await script?.stop();
  });

  /** A call by hand; gives status, message and the raw text. */
  async function call(session, name, args = '{}', id = '1') {
    const answer = await post(gateway, user.token,
      `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"${name}","arguments":${args}}}`, { session });
    const text = lastMessage(answer);
    return { status: answer.status, text, message: JSON.parse(text) };
  }

  test('arguments and results pass byte for byte, ids keep their text', async () => {
    const session = await openSession(gateway, user.token);
    behave = () => `{"content":[],"structuredContent":${ODD},"_meta":{"x/y":1.50}}`;
    for (const id of ['1', '"1"', '0', '-1', '9007199254740993', '"\\u00e9"']) {
      const answer = await call(session, 'script_run', ODD, id);
      assert.ok(script.received.at(-1).raw.includes(`"arguments":${ODD}`), 'arguments changed on their way');
      assert.ok(answer.text.includes(`"structuredContent":${ODD}`), 'the result changed on its way');
      assert.ok(answer.text.includes('"_meta":{"x/y":1.50}'));
      assert.ok(answer.text.includes(`"id":${id}`), `id ${id} changed: ${answer.text.slice(0, 80)}`);
    }
    const listed = await post(gateway, user.token, { jsonrpc: '2.0', id: 2, method: 'tools/list' }, { session });
    assert.ok(lastMessage(listed).includes('"x-unknown":{"n":1.0}'));
    assert.equal(script.received.at(-1).message.params.name, 'run');
  });

  test('bad input gets the stated status and code', async () => {
    const session = await openSession(gateway, user.token);
    const deep = (n) => '['.repeat(n) + ']'.repeat(n);
    const message = (params) => `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":${params}}`;
    const cases = [
      ['{', 400, -32700], ['{} x', 400, -32700], ['\ufeff{', 400, -32700],
      ['{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', 400, -32700],
      [message(`{"name":"demo_echo","name":"demo_add"}`), 400, -32700],
      [message(`{"name":"demo_echo","arguments":{"text":${deep(200)}}}`), 400, -32700],
      ['5', 400, -32600], ['[]', 400, -32600], ['{"id":1,"method":"ping"}', 400, -32600],
      ['{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, -32600], ['{"jsonrpc":"2.0","id":1}', 400, -32600],
      ['{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600], ['{"jsonrpc":"2.0","id":1.5,"method":"ping"}', 400, -32600],
      ['{"jsonrpc":"2.0","id":{},"method":"ping"}', 400, -32600], ['{"jsonrpc":"2.0","id":1,"method":7}', 400, -32600],
      ['{"jsonrpc":"2.0","id":1,"method":"ping","params":7}', 400, -32600],
      ['{"jsonrpc":"2.0","id":1,"method":"no/such"}', 200, -32601],
      [message('{}'), 200, -32602], [message('{"name":7}'), 200, -32602], [message('[]'), 200, -32602],
    ];
    for (const [body, status, code] of cases) {
      const answer = await post(gateway, user.token, body, { session });
      const shown = body.length > 100 ? body.slice(0, 100) : body;
      assert.equal(answer.status, status, shown);
      assert.equal(JSON.parse(lastMessage(answer)).error.code, code, shown);
    }
    assert.equal((await post(gateway, user.token, 'x'.repeat(9 * 1024 * 1024), { session })).status, 413);
    assert.equal((await post(gateway, user.token, '{}', { session, headers: { 'Content-Type': 'text/plain' } })).status, 415);
    assert.equal((await post(gateway, user.token, '{}', { session, headers: { Accept: 'text/html' } })).status, 406);
    assert.equal((await post(gateway, user.token, '{}', { session, headers: { Origin: 'https://evil.test' } })).status, 403);
    assert.equal((await post(gateway, null, '{}')).status, 401);
    assert.equal((await post(gateway, 'x.y.z', '{}')).status, 401);
    assert.equal((await post(gateway, user.token, { jsonrpc: '2.0', id: 1, method: 'ping' })).status, 400);
    assert.equal((await call(session, 'demo_add', '{"a":1,"b":2}')).message.result.content[0].text, '3');
  });

  test('an upstream that is down, hangs, hangs up or talks rubbish costs its own calls only', async () => {
    const session = await openSession(gateway, user.token);
    const fails = async (name, code) => {
      const started = Date.now();
      const answer = await call(session, name);
      assert.equal(answer.status, 200);
      assert.equal(answer.message.error?.code, -32603, answer.text);
      assert.equal(answer.message.error.data.code, code);
      assert.equal(answer.message.error.data.target, name.split('_')[0]);
      assert.ok(!/127\.0\.0\.1|http:/.test(answer.text), 'the error tells the address');
      assert.ok(Date.now() - started < 8000, `${code} took ${Date.now() - started} ms`);
      assert.equal((await call(session, 'demo_add', '{"a":1,"b":2}')).message.result.content[0].text, '3');
    };
    behave = () => undefined;  // never answers
    await fails('script_run', 'upstream_timeout');
    behave = (_, response) => { response.socket.destroy(); };
    await fails('script_run', 'upstream_closed');
    behave = (_, response) => {
      response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': '1000' });
      response.write('{"jsonrpc":"2.0",', () => response.socket.destroy());
    };
    await fails('script_run', 'upstream_closed');
    behave = (_, response) => { response.writeHead(200, { 'Content-Type': 'application/json' }).end('<html>'); };
    await fails('script_run', 'upstream_protocol_error');
    behave = (_, response) => { response.writeHead(302, { Location: demo.url }).end(); };
    await fails('script_run', 'upstream_redirect');
    behave = () => '{"content":[{"type":"text","text":"well again"}]}';
    assert.equal((await call(session, 'script_run')).message.result.content[0].text, 'well again');
  });

  test('a server that is killed fails its call and is started anew for the next', async () => {
    const target = await gateway.addTarget('local', demoStdio);
    await gateway.allow(user, target);
    const session = await openSession(gateway, user.token);
    const who = (await call(session, 'local_whoami')).message.result.structuredContent;
    const running = call(session, 'local_slow', '{"duration_ms":60000}');
    await eventually('the call to run', async () =>
      (await gateway.ask('GET', '/api/observability/snapshot')).in_flight > 0);
    process.kill(who.pid, 'SIGKILL');
    const failed = await running;
    assert.equal(failed.message.error.data.code, 'upstream_closed');
    const again = (await call(session, 'local_whoami')).message.result.structuredContent;
    assert.notEqual(again.pid, who.pid);
  });

  test('a command that is not there, or that is no MCP server, is a clear error', async () => {
    for (const [name, members] of [
      ['missing', stdioTarget('/no/such/program')],
      ['ends', stdioTarget('/bin/sh', '-c', 'echo oops >&2; exit 3')],
      ['closed', httpTarget('http://127.0.0.1:1/mcp')],
    ]) {
      const target = await gateway.addTarget(name, members);
      await gateway.allow(user, target);
      const client = await connect(gateway, user.token);
      const { tools } = await client.listTools();
      assert.ok(tools.some((tool) => tool.name === 'demo_echo'), 'healthy targets are listed');
      assert.ok(!tools.some((tool) => tool.name.startsWith(`${name}_`)));
      const status = await eventually(`the state of ${name}`, async () => {
        const seen = (await gateway.ask('GET', `/api/targets/${target.id}`)).status;
        return seen?.last_error ? seen : null;
      });
      assert.ok(['down', 'degraded'].includes(status.state), status.state);
      await client.end();
      await gateway.ask('DELETE', `/api/targets/${target.id}`);
    }
  });
});

test('what the programs of a killed gateway have started themselves is ended by the next start', { timeout: 90000 }, async () => {
  const first = await Gateway.start();
  await first.registerAdmin();
  const user = await first.addUser('user');
  // A program that starts another one, which outlives it.
  const target = await first.addTarget('nest', stdioTarget('/bin/sh', '-c', `sleep 600 >/dev/null 2>&1 & exec '${DEMO}' --stdio`));
  await first.allow(user, target);
  const client = await connect(first, user.token);
  assert.ok((await client.listTools()).tools.length > 0);
  const started = await descendants(first.process.child.pid);
  const commands = await Promise.all(started.map(async (pid) => [pid, await readFile(`/proc/${pid}/comm`, 'utf8')]));
  const orphan = commands.find(([, name]) => name.trim() === 'sleep')[0];
  const program = commands.find(([, name]) => name.startsWith('demo_upstream'))[0];
  await first.process.stop('SIGKILL');
  await client.end().catch(() => {});
  await eventually('the end of the program', async () => !alive(program));
  assert.ok(alive(orphan), 'nothing is left behind that could be ended');
  const second = await Gateway.start({ directory: first.directory, config: null });
  await eventually('the end of what it had started', async () => !alive(orphan), 5000);
  await second.stop();
});
