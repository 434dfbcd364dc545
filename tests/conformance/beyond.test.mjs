// What the official suite does not ask about, with the same fixture behind the gateway on each transport: who gets the
// notifications of a session, how a client's refusal arrives, and that a cancelled call ends where it runs.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  CreateMessageRequestSchema, ElicitRequestSchema, PromptListChangedNotificationSchema, ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { connect } from '../e2e/lib/clients.mjs';
import { eventually } from '../e2e/lib/gateway.mjs';
import { fixtureBehindGateway } from './lib/stand.mjs';

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

    test('an update of a resource reaches the sessions that watch it, and no other', async () => {
      const [watching, other] = [await client(), await client()];
      await watching.subscribeResource({ uri: WATCHED });
      await watching.run('test_trigger_resource_update');
      await eventually('the update', () => watching.told.includes(`updated ${WATCHED}`));
      await watching.unsubscribeResource({ uri: WATCHED });
      // Whatever was sent before this answer has arrived.
      await watching.run('test_trigger_tool_change');
      await eventually('the change', () => watching.told.includes('tools changed'));
      const before = watching.told.filter((one) => one.startsWith('updated')).length;
      await watching.run('test_trigger_resource_update');
      await watching.run('test_trigger_prompt_change');
      await eventually('the change', () => watching.told.includes('prompts changed'));
      assert.equal(watching.told.filter((one) => one.startsWith('updated')).length, before);
      assert.ok(!other.told.some((one) => one.startsWith('updated')), String(other.told));
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
