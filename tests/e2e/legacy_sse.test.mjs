// Clients of the HTTP+SSE transport of 2024-11-05 (the SDK's SSEClientTransport), and a client of Streamable HTTP
// whose connection is cut in the middle of a call.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CreateMessageRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { eventually, Gateway } from './lib/gateway.mjs';
import { everythingStdio } from './lib/upstreams.mjs';

describe('clients of another time, and connections that break', { timeout: 180000 }, () => {
  let gateway, user;
  before(async () => {
    gateway = await Gateway.start();
    await gateway.registerAdmin();
    user = await gateway.addUser('user');
    await gateway.allow(user, await gateway.addTarget('only', everythingStdio));
  });
  after(async () => { await gateway?.stop(); });

  const headers = () => ({ Authorization: `Bearer ${user.token}` });

  test('R20: the SDK over HTTP+SSE: lists, calls, progress, what a server asks, and the end', async () => {
    const client = new Client({ name: 'old', version: '1.0.0' }, { capabilities: { sampling: {} } });
    client.setRequestHandler(CreateMessageRequestSchema, () =>
      ({ role: 'assistant', model: 'test', content: { type: 'text', text: 'a sampled answer' } }));
    const transport = new SSEClientTransport(new URL(gateway.url + '/sse'), { requestInit: { headers: headers() } });
    await client.connect(transport);
    const { tools } = await client.listTools();
    assert.ok(tools.some((tool) => tool.name === 'echo'));
    const echo = await client.callTool({ name: 'echo', arguments: { message: 'x 😀' } });
    assert.equal(echo.content[0].text, 'Echo: x 😀');
    const progress = [];
    await client.callTool({ name: 'trigger-long-running-operation', arguments: { duration: 1, steps: 4 } }, undefined,
      { onprogress: (one) => progress.push(one.progress) });
    // The SDK drops what comes together with the answer: the last one may.
    assert.deepEqual(progress.slice(0, 3), [1, 2, 3]);
    const sampled = await client.callTool({ name: 'trigger-sampling-request', arguments: { prompt: 'p', maxTokens: 5 } });
    assert.match(JSON.stringify(sampled), /a sampled answer/);
    assert.ok((await client.listResources()).resources.length > 0);
    assert.ok((await client.listPrompts()).prompts.length > 0);
    await assert.rejects(client.callTool({ name: 'no-such-tool', arguments: {} }), /Unknown tool/);
    await client.close();
    const sessions = async () => (await gateway.ask('GET', '/api/observability/snapshot')).active_sessions;
    await eventually('the session ends with its stream', async () => (await sessions()) === 0);
  });

  test('R21: a call survives the end of its connection: the SDK takes its stream up again', async () => {
    // A proxy that cuts the first event stream of a POST once it has carried an event.
    let cuts = 0, resumed = 0;
    const target = new URL(gateway.url);
    const proxy = http.createServer((request, response) => {
      if (request.headers['last-event-id']) resumed += 1;
      const onward = http.request({ host: target.hostname, port: target.port, path: request.url,
        method: request.method, headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.on('data', (chunk) => {
          response.write(chunk);
          const stream = (answer.headers['content-type'] ?? '').startsWith('text/event-stream');
          if (request.method === 'POST' && stream && cuts === 0 && String(chunk).includes('progress')) {
            cuts += 1;
            setTimeout(() => { response.destroy(); onward.destroy(); }, 20);
          }
        });
        answer.on('end', () => response.end());
        answer.on('error', () => {});
      });
      onward.on('error', () => {});
      response.on('close', () => onward.destroy());
      request.pipe(onward);
    });
    await new Promise((resolve) => { proxy.listen(0, '127.0.0.1', resolve); });
    try {
      const client = new Client({ name: 'cut', version: '1.0.0' });
      client.onerror = () => {};
      await client.connect(new StreamableHTTPClientTransport(
        new URL(`http://127.0.0.1:${proxy.address().port}/mcp`), { requestInit: { headers: headers() } }));
      const progress = [];
      const result = await client.callTool(
        { name: 'trigger-long-running-operation', arguments: { duration: 3, steps: 6 } }, undefined,
        { onprogress: (one) => progress.push(one.progress) });
      assert.match(result.content[0].text, /completed/);
      assert.equal(cuts, 1);
      assert.ok(resumed >= 1);
      assert.deepEqual(progress.slice(0, 5), [1, 2, 3, 4, 5]);
      await client.close();
    } finally {
      proxy.closeAllConnections();
      proxy.close();
    }
  });
});
