// Log lines: which request they belong to, in both formats, and from which level on they are kept.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { describe, test } from 'node:test';
import { openSession, post } from '../e2e/lib/clients.mjs';
import { eventually, Gateway, MCPGW, start } from '../e2e/lib/gateway.mjs';
import { httpTarget } from '../e2e/lib/upstreams.mjs';

const TRACE = '0af7651916cd43dd8448eb211c80319c';

/** An MCP server over HTTP whose one tool is answered 500. */
async function failingServer() {
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (data) => { body += data; });
    request.on('end', () => {
      const message = body ? JSON.parse(body) : {};
      const answer = (result) => response.writeHead(200, { 'Content-Type': 'application/json' })
        .end(JSON.stringify({ jsonrpc: '2.0', id: message.id, result }));
      if (message.method === 'initialize')
        answer({ protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: 'f', version: '1' } });
      else if (message.method === 'tools/list')
        answer({ tools: [{ name: 'breaks', inputSchema: { type: 'object' } }] });
      else if (message.method === 'tools/call')
        response.writeHead(500).end();
      else
        response.writeHead(message.id === undefined ? 202 : 405).end();
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}/mcp`, stop: () => server.close() };
}

/** Whose circuit stays closed: each call goes to the server. */
async function scene(config) {
  const server = await failingServer();
  const gateway = await Gateway.start({ config: `upstream: {allow_private: true, circuit: {failures: 0}}\n${config}` });
  await gateway.registerAdmin();
  const alice = await gateway.addUser('alice');
  await gateway.allow(alice, await gateway.addTarget('f', httpTarget(server.url)));
  const session = await openSession(gateway, alice.token);
  let id = 0;
  const call = (requestId) => post(gateway, alice.token,
    { jsonrpc: '2.0', id: id += 1, method: 'tools/call', params: { name: 'breaks', arguments: {} } },
    { session, headers: { 'X-Request-Id': requestId, traceparent: `00-${TRACE}-b7ad6b7169203331-01` } });
  const stop = async () => {
    await gateway.stop();
    server.stop();
  };
  return { gateway, call, stop };
}

const events = (gateway) => gateway.process.lines.map((line) => {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}).filter(Boolean);

describe('logs', { timeout: 120000 }, () => {
  test('R65, R82: every line of a request has its id and its trace, those of others have not', async () => {
    const { gateway, call, stop } = await scene('logging: {level: debug}\n');
    await Promise.all(Array.from({ length: 20 }, (_, i) => call(`request-${i}`)));
    const of = (i) => events(gateway).filter((event) => event.request_id === `request-${i}`);
    await eventually('all access lines', () => Array.from({ length: 20 }).every((_, i) =>
      of(i).some((event) => event.module === 'access')));
    for (let i = 0; i < 20; i += 1) {
      const lines = of(i);
      for (const line of lines) assert.equal(line.trace_id, TRACE);
      // The server's answer, what became of the call, and the answer to the client.
      assert.deepEqual(lines.map((line) => line.module).sort(), ['access', 'gateway', 'upstream']);
      assert.match(lines.find((line) => line.module === 'upstream').message, /HTTP 500/);
      assert.equal(lines.find((line) => line.module === 'gateway').message, 'a call failed');
    }
    for (const event of events(gateway)) {
      assert.equal(typeof event.time, 'string');
      assert.equal(typeof event.level, 'string');
      assert.equal(typeof event.module, 'string');
      if (event.module === 'server') assert.equal(event.request_id, undefined);
    }
    assert.equal(gateway.process.lines.length, events(gateway).length, 'every line is one JSON object');
    await stop();
  });

  test('the console format says the same in one line each', async () => {
    const { gateway, stop } = await scene('');
    await stop();
    await writeFile(path.join(gateway.directory, 'mcpgw.yaml'), 'logging: {format: console}\n');
    const process = start(MCPGW, ['serve', '--port', '0'], { cwd: gateway.directory });
    const url = await process.line('its address', (line) => / info server: listening {2}url=(\S+)/.exec(line)?.[1]);
    await fetch(`${url}/api/users`, { headers: { 'X-Request-Id': 'console-1', traceparent: `00-${TRACE}-b7ad6b7169203331-01` } });
    const line = await process.line('the access line', (text) => (text.includes('console-1') ? text : null));
    assert.match(line, / info access: request {2}method=GET {2}route=\/api\/users {2}status=401 /);
    assert.ok(line.includes(`  request_id=console-1`) && line.includes(`  trace_id=${TRACE}`), line);
    await process.stop();
  });

  test('R88: levels of single modules, and SIGHUP reads them again', async () => {
    const { gateway, call, stop } = await scene('logging: {level: info, levels: [access=warn, upstream=off]}\n');
    const reload = async (logging) => {
      const before = events(gateway).filter((event) => event.message === 'log level read again').length;
      await writeFile(path.join(gateway.directory, 'mcpgw.yaml'), `upstream: {allow_private: true, circuit: {failures: 0}}\nlogging: ${logging}\n`);
      gateway.process.child.kill('SIGHUP');
      await eventually('the levels', () => events(gateway).filter((event) => event.message === 'log level read again').length > before);
    };
    const modules = async (requestId) => {
      await call(requestId);
      // Whatever there is to say of a call is said before its answer.
      return new Set(events(gateway).filter((event) => event.request_id === requestId).map((event) => event.module));
    };
    assert.deepEqual(await modules('a'), new Set(['gateway']));
    await reload('{level: error, levels: [access=info, server=info]}');
    await call('b');
    await gateway.log('request', { request_id: 'b' });
    assert.deepEqual(new Set(events(gateway).filter((event) => event.request_id === 'b').map((event) => event.module)), new Set(['access']));
    // A faulty file changes nothing.
    await writeFile(path.join(gateway.directory, 'mcpgw.yaml'), 'logging: {levels: [nonsense=info]}\n');
    gateway.process.child.kill('SIGHUP');
    await call('c');
    await gateway.log('request', { request_id: 'c' });
    await stop();
  });
});
