// The official SDK's client, over a port and without one.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ToolListChangedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';

import { gateway } from '../testing.js';

let gw;
before(async () => {
  gw = await gateway();
  const server = await gw.server('calculator');
  server.tool('add', ({ a, b }) => a + b);
  await gw.allow('alice', 'calculator');
});
after(() => gw.close());

async function talk(url, how = {}) {
  const { token } = await gw.asUser('alice');
  const client = new Client({ name: 'test', version: '1' });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } }, ...how }));
  const tools = (await client.listTools()).tools.map((tool) => tool.name);
  const answers = await Promise.all([1, 2, 3].map((a) => client.callTool({ name: 'add', arguments: { a, b: 1 } })));
  await assert.rejects(client.callTool({ name: 'nothing', arguments: {} }), { code: -32602 });
  // What comes by itself arrives: the list changes while the client listens.
  const changed = new Promise((resolve) => client.setNotificationHandler(ToolListChangedNotificationSchema, resolve));
  const policy = await gw.deny('alice', 'calculator', '^add$');
  const { method } = await changed;
  const left = (await client.listTools()).tools.length;
  await gw.admin('DELETE', `/api/policies/${policy}`);
  await client.close();
  return { tools, answers: answers.map((answer) => answer.content[0].text), method, left };
}

const EXPECTED = { tools: ['add'], answers: ['2', '3', '4'], method: 'notifications/tools/list_changed', left: 0 };

test('without a port', async () => {
  assert.deepEqual(await talk('http://localhost/mcp', { fetch: gw.fetch }), EXPECTED);
});

test('over a port', async () => {
  const server = await gw.serve();
  assert.deepEqual(await talk(`${server.url}/mcp`), EXPECTED);
  await server.close();
});

test('one after the other, and none is left', async () => {
  for (let n = 0; n < 3; ++n) assert.deepEqual(await talk('http://localhost/mcp', { fetch: gw.fetch }), EXPECTED);
});
