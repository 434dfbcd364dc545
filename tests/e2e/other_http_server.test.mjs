// examples/other_http_server: the same gateway behind another HTTP server, by the same clients.
import assert from 'node:assert/strict';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect, lastMessage, names, openSession, post } from './lib/clients.mjs';
import { DEMO, eventually, Gateway, start, within } from './lib/gateway.mjs';
import { demoHttp, httpTarget } from './lib/upstreams.mjs';

const PROGRAM = path.join(path.dirname(DEMO), '../other_http_server/other_http_server');

describe('a gateway behind another HTTP server', { timeout: 120000 }, () => {
  let gateway, demo, alice;

  before(async () => {
    gateway = new Gateway();
    gateway.process = start(PROGRAM, ['0']);
    gateway.url = await gateway.process.line('its address', (line) => /^http:\S+$/.exec(line)?.[0]);
    await gateway.registerAdmin();
    demo = await demoHttp();
    alice = await gateway.addUser('alice');
    await gateway.allow(alice, await gateway.addTarget('demo', httpTarget(demo.url)));
  });
  after(async () => {
    await gateway?.stop();
    await demo?.stop();
  });

  test('an SDK client lists, calls, and sees progress as it comes', async () => {
    const client = await connect(gateway, alice.token);
    assert.deepEqual(names((await client.listTools()).tools), ['add', 'echo', 'slow', 'whoami']);
    const echoed = await client.callTool({ name: 'echo', arguments: { text: 'grüße 🙂' } });
    assert.equal(echoed.content[0].text, 'grüße 🙂');
    const seen = [];
    await client.callTool({ name: 'slow', arguments: { duration_ms: 200, steps: 4 } }, undefined,
      { onprogress: (progress) => seen.push(progress.progress) });
    assert.ok(seen.length >= 3, `progress: ${seen}`);
    await client.end();
  });

  test('errors, paths and bodies arrive as they are', async () => {
    assert.equal((await post(gateway, null, { jsonrpc: '2.0', id: 1, method: 'ping' })).status, 401);
    const session = await openSession(gateway, alice.token);
    const text = 'x'.repeat(300000);
    const answer = await post(gateway, alice.token, { jsonrpc: '2.0', id: 'big', method: 'tools/call',
      params: { name: 'echo', arguments: { text } } }, { session });
    assert.equal(JSON.parse(lastMessage(answer)).result.content[0].text, text);
    const health = await fetch(gateway.url + '/health');
    assert.equal(health.status, 200);
    // A scope value with an encoded slash stays encoded on the way to the route.
    const targets = await gateway.ask('GET', '/api/targets');
    const id = targets[0].id;
    await gateway.ask('POST', `/api/targets/${id}/env/group/a%2Fb`, { key: 'PLACE', value: 'x' });
    const rows = await gateway.ask('GET', `/api/targets/${id}/env/group/a%2Fb`);
    assert.deepEqual(rows.map((row) => row.scope_value), ['a/b']);
  });

  test('many waiting calls share its one thread', async () => {
    const session = await openSession(gateway, alice.token);
    const begun = Date.now();
    const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => post(gateway, alice.token, {
      jsonrpc: '2.0', id: i, method: 'tools/call', params: { name: 'slow', arguments: { duration_ms: 1000 } } }, { session })));
    for (const [i, answer] of answers.entries()) assert.equal(JSON.parse(lastMessage(answer)).id, i);
    assert.ok(Date.now() - begun < 50000, 'they waited one after the other');
  });

  test('a client that hangs up cancels its call', async () => {
    const session = await openSession(gateway, alice.token);
    const request = http.request(gateway.url + '/mcp', { method: 'POST', headers: {
      Accept: 'application/json, text/event-stream', 'Content-Type': 'application/json',
      Authorization: `Bearer ${alice.token}`, 'Mcp-Session-Id': session } });
    request.on('error', () => {});
    const runs = new Promise((resolve) => request.on('response', (response) => response.once('data', resolve)));
    request.end(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call',
      params: { name: 'slow', arguments: { duration_ms: 60000, steps: 300 }, _meta: { progressToken: 1 } } }));
    await within(20000, 'progress of the call', runs);
    request.destroy();
    const rows = await eventually('the row of the cancelled call', async () => {
      const found = await gateway.ask('GET', '/api/logs?status=499&limit=5');
      return found.length > 0 && found;
    }, 40000);
    assert.equal(rows[0].error_code, 'cancelled');
  });

  test('the session\'s stream is open until the gateway ends, and that ends the program', async () => {
    const session = await openSession(gateway, alice.token);
    const stream = await fetch(gateway.url + '/mcp', { headers: { Accept: 'text/event-stream',
      Authorization: `Bearer ${alice.token}`, 'Mcp-Session-Id': session } });
    assert.equal(stream.status, 200);
    const reading = stream.text();
    const { code } = await gateway.stop();
    assert.equal(code, 0);
    await within(10000, 'end of the stream', reading.catch(() => {}));
  });
});
