// The official SDK's client in both eras in front of three of its servers at once: of 2025 over Streamable HTTP, and of
// 2026-07-28 over Streamable HTTP and over stdio. To each client they are one server of its own era.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Gateway } from '../e2e/lib/gateway.mjs';
import { FIXTURE, fixture } from './lib/stand.mjs';
import { NODE } from './lib/suite.mjs';

const SERVERS = ['old', 'new', 'pipe'];
const SAMPLED = { role: 'assistant', model: 'test', content: { type: 'text', text: 'hello' } };
const ROOTS = { roots: [{ uri: 'file:///srv/project', name: 'project' }] };

describe('one client, servers of both eras', { timeout: 300000 }, () => {
  let gateway, token;
  const servers = [];
  before(async () => {
    gateway = await Gateway.start({ config: 'upstream:\n  allow_private: true\n' });
    await gateway.registerAdmin();
    const user = await gateway.addUser('user');
    token = user.token;
    for (const era of ['legacy', 'modern']) servers.push(await fixture('http', era));
    const [old, recent] = servers;
    for (const [name, members] of [
      ['old', { transport_type: 'streamable-http', url: old.url }],
      ['new', { transport_type: 'streamable-http', url: recent.url }],
      ['pipe', { transport_type: 'stdio', command: NODE, args: [FIXTURE, '--transport', 'stdio', '--era', 'modern'] }],
    ]) await gateway.allow(user, await gateway.addTarget(name, members));
  });
  after(async () => {
    await gateway?.stop();
    for (const server of servers) await server.stop();
  });

  for (const [era, mode, revision] of [['2025', 'legacy', '2025-11-25'], ['2026', { pin: '2026-07-28' }, '2026-07-28']]) {
    describe(`a client of ${era}`, () => {
      let client, transport;
      const asked = [];
      before(async () => {
        client = new Client({ name: 'mux', version: '1' },
          { capabilities: { sampling: {}, elicitation: { form: {} }, roots: {} }, versionNegotiation: { mode } });
        client.setRequestHandler('elicitation/create', (request) => {
          asked.push(request.params.message);
          return { action: 'accept', content: { name: 'Ada' } };
        });
        client.setRequestHandler('sampling/createMessage', () => SAMPLED);
        client.setRequestHandler('roots/list', () => ROOTS);
        transport = new StreamableHTTPClientTransport(new URL(`${gateway.url}/mcp`),
          { requestInit: { headers: { Authorization: `Bearer ${token}` } } });
        await client.connect(transport);
      });
      after(async () => {
        if (era === '2025') await transport.terminateSession().catch(() => {});
        await client?.close();
      });
      const textOf = async (name, args = {}, options) =>
        (await client.callTool({ name, arguments: args }, options)).content[0].text;

      test('speaks its own revision', () => assert.equal(client.getNegotiatedProtocolVersion(), revision));

      test('lists what all of them have, alike', async () => {
        const lists = { tools: (await client.listTools()).tools, prompts: (await client.listPrompts()).prompts };
        for (const [kind, items] of Object.entries(lists)) {
          const of = (server) => items.filter(({ name }) => name.startsWith(`${server}_`))
            .map((one) => ({ ...one, name: one.name.slice(server.length + 1) }));
          assert.ok(of('old').length > 2, `${kind}: ${items.map(({ name }) => name)}`);
          for (const server of SERVERS) assert.deepEqual(of(server).map(({ name }) => name), of('old').map(({ name }) => name));
          assert.deepEqual(of('pipe'), of('new'), kind);
        }
        const { resources } = await client.listResources();
        for (const server of SERVERS)
          assert.ok(resources.some(({ uri }) => uri === `mcpgw+${server}:test://static-text`), server);
      });

      for (const server of SERVERS) {
        test(`${server}: a call, a resource, a prompt`, async () => {
          assert.equal(await textOf(`${server}_test_simple_text`), 'This is a simple text response for testing.');
          const uri = `mcpgw+${server}:test://static-text`;
          const { contents } = await client.readResource({ uri });
          assert.equal(contents[0].uri, uri);
          const prompt = await client.getPrompt({ name: `${server}_test_prompt_with_arguments`, arguments: { arg1: 'eins', arg2: 'zwei' } });
          assert.match(JSON.stringify(prompt.messages), /eins.*zwei/);
        });

        test(`${server}: a tool that fails, a resource that is not there`, async () => {
          assert.equal((await client.callTool({ name: `${server}_test_error_handling`, arguments: {} })).isError, true);
          const uri = `mcpgw+${server}:test://nothing`;
          await assert.rejects(client.readResource({ uri }),
            (error) => [-32002, -32602].includes(error.code) && error.data.uri === uri);  // the SDK knows them as one
          await assert.rejects(client.callTool({ name: `${server}_nothing`, arguments: {} }), (error) => error.code === -32602);
        });

        test(`${server}: progress, in order`, async () => {
          const progress = [];
          await textOf(`${server}_test_tool_with_progress`, { steps: 4 }, { onprogress: (one) => progress.push(one.progress) });
          // What comes in one piece with the result may be lost in the client.
          assert.ok(progress.length >= 3, String(progress));
          assert.deepEqual(progress, [0, 25, 50, 75, 100].slice(0, progress.length));
        });

        test(`${server}: asks the user in the middle of a call`, async () => {
          asked.length = 0;
          assert.equal(await textOf(`${server}_test_input_required_result_elicitation`), 'Hello, Ada!');
          assert.deepEqual(asked, ['What is your name?']);
        });

        test(`${server}: asks for three things at once`, async () =>
          assert.equal(await textOf(`${server}_test_input_required_result_multiple_inputs`), 'All three were answered.'));
      }

      test('calls of all at once, some of them asking', async () => {
        const texts = await Promise.all(SERVERS.flatMap((server) => [
          textOf(`${server}_test_input_required_result_elicitation`), textOf(`${server}_test_simple_text`)]));
        assert.deepEqual(texts, SERVERS.flatMap(() => ['Hello, Ada!', 'This is a simple text response for testing.']));
      });
    });
  }
});
