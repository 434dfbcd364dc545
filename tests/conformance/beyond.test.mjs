// What the official suite does not ask about, with the same fixture behind the gateway on each transport: who gets the
// notifications of a session, how a client's refusal arrives, and that a cancelled call ends where it runs.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CreateMessageRequestSchema, ElicitRequestSchema, PromptListChangedNotificationSchema, ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { connect } from '../e2e/lib/clients.mjs';
import { eventually } from '../e2e/lib/gateway.mjs';
import { forwarder } from './lib/forwarder.mjs';
import { fixture, fixtureBehindGateway, gatewayWith } from './lib/stand.mjs';

const WATCHED = 'test://watched-resource';

for (const transport of ['http', 'sse', 'stdio']) {
  describe(`2025-11-25 beyond the suite, ${transport}`, { timeout: 180000 }, () => {
    let stand;
    const clients = [];
    before(async () => {
      stand = await fixtureBehindGateway(transport);
    });
    after(async () => {
      for (const client of clients) await client.end();
      await stand?.stop();
    });

    /** A client that keeps what it is told. `answers` are those to the server's requests. */
    async function client(answers = {}) {
      const told = [];
      const one = await connect(stand.gateway, stand.token, {
        capabilities: { sampling: {}, elicitation: {} },
        prepare(c) {
          c.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => told.push(`updated ${params.uri}`));
          c.setNotificationHandler(ToolListChangedNotificationSchema, () => told.push('tools changed'));
          c.setNotificationHandler(PromptListChangedNotificationSchema, () => told.push('prompts changed'));
          if (answers.elicit) c.setRequestHandler(ElicitRequestSchema, answers.elicit);
          if (answers.sample) c.setRequestHandler(CreateMessageRequestSchema, answers.sample);
        },
      });
      clients.push(one);
      one.told = told;
      one.run = async (name, args = {}) => (await one.callTool({ name, arguments: args }));
      return one;
    }

    test('lists and results are those of the server itself', async () => {
      const bare = await fixture('http');
      const direct = new Client({ name: 'direct', version: '1' }, { capabilities: { sampling: {}, elicitation: {} } });
      await direct.connect(new StreamableHTTPClientTransport(new URL(bare.url)));
      const through = await client();
      const asIs = { parse: (value) => value, safeParse: (data) => ({ success: true, data }) };  // no schema
      const ask = async (method, params) => {
        const [expected, found] = await Promise.all([direct, through].map((one) => one.request({ method, params }, asIs)));
        assert.deepEqual(found, expected, `${method} ${JSON.stringify(params)}`);
        return expected;
      };
      assert.deepEqual(through.getServerCapabilities(), direct.getServerCapabilities());
      assert.equal(through.getInstructions(), direct.getInstructions());
      assert.ok((await ask('tools/list')).tools.length > 20);
      for (const name of ['test_simple_text', 'test_image_content', 'test_audio_content', 'test_embedded_resource',
        'test_multiple_content_types', 'test_error_handling']) await ask('tools/call', { name });
      for (const { uri } of (await ask('resources/list')).resources) await ask('resources/read', { uri });
      assert.equal((await ask('resources/templates/list')).resourceTemplates.length, 1);
      await ask('resources/read', { uri: 'test://template/a%20b/data' });
      assert.ok((await ask('prompts/list')).prompts.length >= 4);
      await ask('prompts/get', { name: 'test_prompt_with_image' });
      await ask('prompts/get', { name: 'test_prompt_with_embedded_resource', arguments: { resourceUri: 'test://größe' } });
      await ask('completion/complete', { ref: { type: 'ref/prompt', name: 'test_prompt_with_arguments' }, argument: { name: 'arg1', value: 'te' } });
      await direct.close();
      await bare.stop();
    });

    test('an update of a resource reaches the sessions that watch it, and no other', async () => {
      const [watching, other] = [await client(), await client()];
      await watching.subscribeResource({ uri: WATCHED });
      await watching.run('test_trigger_resource_update');
      await eventually('the update', () => watching.told.includes(`updated ${WATCHED}`));
      assert.ok(!other.told.some((one) => one.startsWith('updated')), String(other.told));
      await watching.unsubscribeResource({ uri: WATCHED });
      await other.subscribeResource({ uri: WATCHED });
      const before = watching.told.filter((one) => one.startsWith('updated')).length;
      await watching.run('test_trigger_resource_update');
      await other.run('test_trigger_resource_update');
      await eventually('the update', () => other.told.includes(`updated ${WATCHED}`));
      await watching.ping();
      assert.equal(watching.told.filter((one) => one.startsWith('updated')).length, before);
    });

    test('a change of lists in which nothing changed is not passed on', async () => {
      const one = await client();
      await one.listTools();
      await one.run('test_trigger_tool_change');
      await one.subscribeResource({ uri: WATCHED });
      await one.run('test_trigger_resource_update');
      await eventually('what was sent later', () => one.told.includes(`updated ${WATCHED}`));
      assert.ok(!one.told.includes('tools changed'), String(one.told));
    });

    test('a user who declines or cancels, and a client that cannot answer', async () => {
      const declining = await client({ elicit: () => ({ action: 'decline' }) });
      assert.match((await declining.run('test_elicitation', { message: 'hm?' })).content[0].text, /action=decline/);
      const cancelling = await client({ elicit: () => ({ action: 'cancel' }) });
      assert.match((await cancelling.run('test_elicitation', { message: 'hm?' })).content[0].text, /action=cancel/);
      const failing = await client({ sample: () => { throw new Error('no model here'); } });
      const failed = await failing.run('test_sampling', { prompt: 'hm?' });
      assert.equal(failed.isError, true);
      assert.match(failed.content[0].text, /no model here/);
    });

    test('a cancelled call ends at the server', async () => {
      const one = await client();
      const controller = new AbortController();
      await assert.rejects(one.callTool({ name: 'test_wait', arguments: {} }, undefined,
        { signal: controller.signal, onprogress: () => controller.abort('enough') }), /enough/);
      await eventually('the end of the call', async () => (await one.run('test_cancellations')).content[0].text === '1');
    });

    test('requests of a server during several calls at once are answered each by its own answer', async () => {
      const answers = {
        elicit: ({ params }) => ({ action: 'accept', content: { name: `to ${params.message}` } }),
        sample: ({ params }) => ({ role: 'assistant', model: 'test', content: params.messages[0].content }),
      };
      // Where all of a server's messages come by one way, those of several sessions' calls could be anybody's.
      const all = transport === 'http' ? await Promise.all([client(answers), client(answers)]) : [await client(answers)];
      const texts = await Promise.all(all.flatMap((one) => [
        one.run('test_input_required_result_elicitation'), one.run('test_sampling', { prompt: 'echo me' }),
        one.run('test_sampling', { prompt: 'and me' }),
      ]).map(async (call) => (await call).content[0].text));
      const echoed = (value) => `LLM response: ${JSON.stringify({ type: 'text', text: value })}`;
      assert.deepEqual(texts, all.flatMap(() => ['Hello, to What is your name?!', echoed('echo me'), echoed('and me')]));
    });
  });
}

describe('2025-11-25 beyond the suite, connections that break', { timeout: 120000 }, () => {
  const STEPS = 20;
  const all = Array.from({ length: STEPS + 1 }, (_, step) => 100 * step / STEPS);

  /** A call that reports its progress; `cut` is called once, when it is under way. Nothing may be lost nor come twice. */
  async function callThatIsCut(client, cut) {
    const progress = [];
    const answer = await client.callTool({ name: 'test_tool_with_progress', arguments: { steps: STEPS } }, undefined, {
      onprogress: (one) => {
        progress.push(one.progress);
        if (progress.length === 3) cut();
      },
    });
    assert.equal(answer.content[0].text, `Done with all ${STEPS + 1} steps.`);
    assert.deepEqual(progress, all);
  }

  test('between the gateway and the server: the gateway takes the stream up again', async (t) => {
    const server = await fixture('http');
    const between = await forwarder();
    between.to(server.url);
    const { gateway, token, stop } = await gatewayWith({ transport_type: 'streamable-http', url: `${between.url}/mcp` });
    t.after(async () => {
      await stop();
      await between.stop();
      await server.stop();
    });
    const client = await connect(gateway, token);
    await callThatIsCut(client, between.cut);
    await callThatIsCut(client, () => {});
    await client.end();
  });

  test('between the client and the gateway: the client takes the stream up again', async (t) => {
    const stand = await fixtureBehindGateway('stdio');
    const between = await forwarder();
    between.to(stand.gateway.url);
    t.after(async () => {
      await between.stop();
      await stand.stop();
    });
    const client = await connect(between, stand.token);
    await callThatIsCut(client, between.cut);
    await callThatIsCut(client, () => {});
    await client.end();
  });
});
