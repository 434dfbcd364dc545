// The official client SDK against well-known servers: what works without the gateway works with it.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema, LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { connect, names } from './lib/clients.mjs';
import { alive, descendants, eventually, Gateway, temporaryDirectory } from './lib/gateway.mjs';
import {
  demoHttp, demoStdio, everything2024Sse, everything2024Stdio, everythingHttp, everythingStdio, fastmcpHttp, fastmcpStdio, filesystemStdio, httpTarget, memoryStdio,
  npxStdio, sequentialThinkingStdio, sseTarget,
} from './lib/upstreams.mjs';

/** A gateway with one target that one user may use in full. */
async function stand(members) {
  const gateway = await Gateway.start();
  await gateway.registerAdmin();
  const user = await gateway.addUser('user');
  await gateway.allow(user, await gateway.addTarget('only', members));
  return { gateway, user };
}

for (const [transport, open] of [
  ['stdio', async () => ({ members: everythingStdio })],
  ['Streamable HTTP', async () => {
    const server = await everythingHttp();
    return { members: httpTarget(server.url), server };
  }],
  ['HTTP+SSE', async () => {
    const server = await everythingHttp('sse');
    return { members: sseTarget(server.url), server };
  }],
]) {
  describe(`server-everything over ${transport}`, { timeout: 180000 }, () => {
    let gateway, user, server, client;
    const asked = { sampling: [], elicitation: [], roots: 0 };
    before(async () => {
      const opened = await open();
      server = opened.server;
      ({ gateway, user } = await stand(opened.members));
      client = await connect(gateway, user.token, {
        capabilities: { sampling: {}, elicitation: {}, roots: { listChanged: true } },
        prepare(c) {
          c.setRequestHandler(CreateMessageRequestSchema, (request) => {
            asked.sampling.push(request.params);
            return { role: 'assistant', model: 'test', content: { type: 'text', text: 'a sampled answer' } };
          });
          c.setRequestHandler(ElicitRequestSchema, (request) => {
            asked.elicitation.push(request.params);
            return { action: 'decline' };
          });
          c.setRequestHandler(ListRootsRequestSchema, () => {
            asked.roots += 1;
            return { roots: [{ uri: 'file:///srv/project', name: 'project' }] };
          });
        },
      });
    });
    after(async () => {
      await client?.end();
      await gateway?.stop();
      await server?.stop();
    });

    test('tools keep names, schemas and annotations when there is one target', async () => {
      const { tools } = await client.listTools();
      for (const name of ['echo', 'get-sum', 'get-tiny-image', 'trigger-long-running-operation'])
        assert.ok(tools.some((tool) => tool.name === name), name);
      assert.deepEqual(Object.keys(tools.find((tool) => tool.name === 'get-sum').inputSchema.properties), ['a', 'b']);
      assert.ok(tools.find((tool) => tool.name === 'get-structured-content').outputSchema);
    });

    test('results of every kind come back', async () => {
      assert.equal((await client.callTool({ name: 'echo', arguments: { message: 'x 😀 \u2028' } })).content[0].text, 'Echo: x 😀 \u2028');
      const image = await client.callTool({ name: 'get-tiny-image', arguments: {} });
      assert.ok(image.content.some((part) => part.type === 'image' && part.mimeType === 'image/png'));
      const structured = await client.callTool({ name: 'get-structured-content', arguments: { location: 'Chicago' } });
      assert.equal(typeof structured.structuredContent.temperature, 'number');
      const annotated = await client.callTool({ name: 'get-annotated-message', arguments: { messageType: 'error' } });
      assert.equal(annotated.content[0].annotations.priority, 1);
      const links = await client.callTool({ name: 'get-resource-links', arguments: { count: 2 } });
      assert.equal(links.content.filter((part) => part.type === 'resource_link').length, 2);
      const wrong = await client.callTool({ name: 'get-sum', arguments: { a: 'x' } });
      assert.equal(wrong.isError, true);
    });

    test('progress arrives while the call runs', async () => {
      const progress = [];
      const result = await client.callTool(
        { name: 'trigger-long-running-operation', arguments: { duration: 1, steps: 4 } }, undefined,
        { onprogress: (one) => progress.push(one.progress), resetTimeoutOnProgress: true });
      assert.match(result.content[0].text, /completed/i);
      assert.deepEqual(progress, [1, 2, 3, 4]);
    });

    test('resources, templates, prompts and completions', async () => {
      const { resources } = await client.listResources();
      assert.ok(resources.length > 0);
      const read = await client.readResource({ uri: resources[0].uri });
      assert.equal(read.contents[0].uri, resources[0].uri);
      assert.ok(read.contents[0].text.length > 0);
      const { resourceTemplates } = await client.listResourceTemplates();
      assert.ok(resourceTemplates.some((one) => one.uriTemplate === 'demo://resource/dynamic/text/{resourceId}'));
      const dynamic = await client.readResource({ uri: 'demo://resource/dynamic/text/7' });
      assert.equal(dynamic.contents[0].uri, 'demo://resource/dynamic/text/7');
      const { prompts } = await client.listPrompts();
      assert.ok(names(prompts).includes('args-prompt'));
      const prompt = await client.getPrompt({ name: 'args-prompt', arguments: { city: 'Riga' } });
      assert.match(prompt.messages[0].content.text, /Riga/);
      const completion = await client.complete({
        ref: { type: 'ref/prompt', name: 'completable-prompt' }, argument: { name: 'department', value: 'E' } });
      assert.deepEqual(completion.completion.values, ['Engineering']);
      await assert.rejects(client.readResource({ uri: 'demo://nothing' }));
    });

    test('the server may ask the client: sampling, elicitation, roots', async () => {
      const sampled = await client.callTool({ name: 'trigger-sampling-request', arguments: { prompt: 'why', maxTokens: 5 } });
      assert.match(sampled.content[0].text, /a sampled answer/);
      assert.equal(asked.sampling[0].maxTokens, 5);
      const elicited = await client.callTool({ name: 'trigger-elicitation-request', arguments: {} });
      assert.match(JSON.stringify(elicited.content), /declin/i);
      assert.equal(asked.elicitation.length, 1);
      const roots = await client.callTool({ name: 'get-roots-list', arguments: {} });
      assert.match(JSON.stringify(roots.content), /file:\/\/\/srv\/project/);
      assert.ok(asked.roots > 0);
    });

    test('a tool runs as a task, and may ask in the middle of it', async () => {
      await client.listTools();
      const before = asked.elicitation.length;
      const seen = [];
      for await (const message of client.experimental.tasks.callToolStream(
        { name: 'simulate-research-query', arguments: { topic: 'python', ambiguous: true } }, undefined, { task: { ttl: 60000 } }))
        seen.push(message);
      assert.equal(seen[0].type, 'taskCreated', JSON.stringify(seen));
      assert.ok(seen.some((one) => one.type === 'taskStatus' && one.task.status === 'input_required'), JSON.stringify(seen));
      assert.equal(seen.at(-1).type, 'result', JSON.stringify(seen.at(-1)));
      assert.match(seen.at(-1).result.content[0].text, /python/);
      assert.equal(asked.elicitation.length, before + 1);
      const { taskId } = seen[0].task;
      assert.equal((await client.experimental.tasks.getTask(taskId)).status, 'completed');
      assert.ok((await client.experimental.tasks.listTasks()).tasks.some((one) => one.taskId === taskId));
      await assert.rejects(client.experimental.tasks.getTask('nobody-made-it'));
    });

    test('log messages arrive', async () => {
      const logged = [];
      client.setNotificationHandler(LoggingMessageNotificationSchema, (one) => logged.push(one.params));
      await client.setLoggingLevel('debug');
      await client.callTool({ name: 'toggle-simulated-logging', arguments: {} });
      await eventually('a log message', () => logged.length > 0);
      assert.match(logged[0].data, /message/);
      await client.callTool({ name: 'toggle-simulated-logging', arguments: {} });
    });

    test('a cancelled call ends at once and the next one works', async () => {
      const controller = new AbortController();
      const running = client.callTool({ name: 'trigger-long-running-operation', arguments: { duration: 60, steps: 60 } },
        undefined, { signal: controller.signal, onprogress: () => controller.abort('enough') });
      await assert.rejects(running, /enough/);
      assert.equal((await client.callTool({ name: 'echo', arguments: { message: 'still there' } })).content[0].text, 'Echo: still there');
    });
  });
}

for (const [transport, open] of [
  ['stdio', async () => ({ members: everything2024Stdio })],
  ['HTTP+SSE', async () => {
    const server = await everything2024Sse();
    return { members: sseTarget(server.url), server };
  }],
]) {
  test(`a server of revision 2024-11-05 over ${transport}`, { timeout: 120000 }, async (t) => {
    const { members, server } = await open();
    const { gateway, user } = await stand(members);
    t.after(async () => {
      await gateway.stop();
      await server?.stop();
    });
    const updated = [], sampled = [];
    const client = await connect(gateway, user.token, { capabilities: { sampling: {} }, prepare(c) {
      c.setRequestHandler(CreateMessageRequestSchema, (request) => {
        sampled.push(request.params.maxTokens);
        return { role: 'assistant', model: 'test', content: { type: 'text', text: 'a sampled answer' } };
      });
      c.setNotificationHandler(ResourceUpdatedNotificationSchema, (one) => updated.push(one.params.uri));
    } });
    assert.deepEqual(names((await client.listTools()).tools), ['add', 'echo', 'getTinyImage', 'longRunningOperation', 'sampleLLM']);
    const call = (name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
    assert.match((await call('add', { a: 40, b: 2 })).content[0].text, /42/);
    const progress = [];
    await call('longRunningOperation', { duration: 1, steps: 4 }, { onprogress: (one) => progress.push(one.progress) });
    assert.deepEqual(progress, [1, 2, 3, 4]);
    assert.match((await call('sampleLLM', { prompt: 'why', maxTokens: 5 })).content[0].text, /^LLM sampling result: /);
    assert.deepEqual(sampled, [5]);
    // A hundred resources in pages of ten.
    const uris = [];
    for (let cursor; ;) {
      const page = await client.listResources({ cursor });
      uris.push(...page.resources.map((one) => one.uri));
      cursor = page.nextCursor;
      if (cursor === undefined) break;
    }
    assert.equal(new Set(uris).size, 100);
    assert.equal((await client.readResource({ uri: 'test://static/resource/2' })).contents[0].mimeType, 'application/octet-stream');
    assert.match(JSON.stringify((await client.getPrompt({ name: 'complex_prompt', arguments: { temperature: '1' } })).messages), /temperature/);
    // It tells of its subscribed resources every five seconds.
    await client.subscribeResource({ uri: 'test://static/resource/7' });
    await eventually('an update', () => updated.includes('test://static/resource/7'), 30000);
    assert.deepEqual([...new Set(updated)], ['test://static/resource/7']);
    await client.end();
  });
}

describe('server-filesystem over stdio', { timeout: 120000 }, () => {
  test('reads and writes for one, reads only for the other', async (t) => {
    const directory = await temporaryDirectory();
    const gateway = await Gateway.start();
    t.after(() => gateway.stop());
    await gateway.registerAdmin();
    const [writer, reader] = [await gateway.addUser('writer'), await gateway.addUser('reader')];
    const files = await gateway.addTarget('files', filesystemStdio(directory));
    await gateway.allow(writer, files);
    await gateway.allow(reader, files, { type: 'tool', pattern: '^(read|list|get|search|directory)' });
    const w = await connect(gateway, writer.token), r = await connect(gateway, reader.token);
    const file = path.join(directory, 'größe 1.txt');
    await w.callTool({ name: 'write_file', arguments: { path: file, content: 'first line\nÄ 😀\n' } });
    assert.equal(await readFile(file, 'utf8'), 'first line\nÄ 😀\n');
    const read = await r.callTool({ name: 'read_text_file', arguments: { path: file } });
    assert.equal(read.content[0].text, 'first line\nÄ 😀\n');
    assert.ok(!names((await r.listTools()).tools).includes('write_file'));
    await assert.rejects(r.callTool({ name: 'write_file', arguments: { path: file, content: 'no' } }), /Unknown tool: write_file/);
    assert.equal(await readFile(file, 'utf8'), 'first line\nÄ 😀\n');
    // A large answer over the pipe.
    await writeFile(path.join(directory, 'large'), 'ä'.repeat(1024 * 1024));
    const large = await r.callTool({ name: 'read_text_file', arguments: { path: path.join(directory, 'large') } });
    assert.equal(large.content[0].text, 'ä'.repeat(1024 * 1024));
    const outside = await r.callTool({ name: 'read_text_file', arguments: { path: '/etc/passwd' } });
    assert.equal(outside.isError, true);
    await w.end();
    await r.end();
  });
});

test('server-memory and server-sequential-thinking over stdio', { timeout: 120000 }, async (t) => {
  const gateway = await Gateway.start();
  t.after(() => gateway.stop());
  await gateway.registerAdmin();
  const user = await gateway.addUser('user');
  const file = path.join(await temporaryDirectory(), 'memory.jsonl');
  const memory = await gateway.addTarget('memory', memoryStdio);
  await gateway.ask('POST', `/api/targets/${memory.id}/env/default`, { key: 'MEMORY_FILE_PATH', value: file });
  await gateway.allow(user, memory);
  await gateway.allow(user, await gateway.addTarget('thinking', sequentialThinkingStdio));
  const client = await connect(gateway, user.token);
  const entities = [{ name: 'Zoë', entityType: 'person', observations: ['likes 🍰', 'speaks Čeština'] }];
  await client.callTool({ name: 'memory_create_entities', arguments: { entities } });
  const graph = await client.callTool({ name: 'memory_read_graph', arguments: {} });
  assert.deepEqual(graph.structuredContent.entities, entities);
  assert.deepEqual(JSON.parse(graph.content[0].text).entities, entities);
  assert.match(await readFile(file, 'utf8'), /Čeština/);
  const thought = await client.callTool({ name: 'thinking_sequentialthinking',
    arguments: { thought: 'one', thoughtNumber: 1, totalThoughts: 2, nextThoughtNeeded: true } });
  assert.equal(JSON.parse(thought.content[0].text).thoughtNumber, 1);
  assert.equal(thought.isError ?? false, false);
  await client.end();
});

test('a server that npx starts ends with everything between', { timeout: 120000 }, async (t) => {
  const { gateway, user } = await stand(npxStdio('mcp-server-sequential-thinking'));
  t.after(() => gateway.stop());
  const client = await connect(gateway, user.token);
  assert.deepEqual(names((await client.listTools()).tools), ['sequentialthinking']);
  const processes = await descendants(gateway.process.child.pid);
  assert.ok(processes.length >= 2, `npx and the server: ${processes}`);
  await client.end();
  await gateway.stop();
  await eventually('the end of all of them', () => !processes.some(alive));
});

for (const [transport, open] of [
  ['stdio', async () => ({ members: fastmcpStdio })],
  ['Streamable HTTP', async () => {
    const server = await fastmcpHttp('streamable-http');
    return { members: httpTarget(server.url), server };
  }],
  ['HTTP+SSE', async () => {
    const server = await fastmcpHttp('sse');
    return { members: sseTarget(server.url), server };
  }],
]) {
  test(`FastMCP over ${transport}`, { timeout: 120000 }, async (t) => {
    const { members, server } = await open();
    const { gateway, user } = await stand(members);
    t.after(async () => {
      await gateway.stop();
      await server?.stop();
    });
    const logged = [];
    const client = await connect(gateway, user.token, {
      capabilities: { sampling: {}, elicitation: {} },
      prepare(c) {
        c.setRequestHandler(CreateMessageRequestSchema, (request) =>
          ({ role: 'assistant', model: 'test', content: { type: 'text', text: `thought about ${request.params.messages[0].content.text}` } }));
        c.setRequestHandler(ElicitRequestSchema, (request) => {
          assert.deepEqual(Object.keys(request.params.requestedSchema.properties), ['colour']);
          return { action: 'accept', content: { colour: 'blue' } };
        });
        c.setNotificationHandler(LoggingMessageNotificationSchema, (one) => logged.push(one.params.data));
      },
    });
    assert.equal(client.getInstructions(), 'A server for tests.');
    const { tools } = await client.listTools();
    assert.deepEqual(names(tools), ['add', 'colour', 'count', 'fail', 'think', 'wait']);
    assert.deepEqual(tools.find((tool) => tool.name === 'add').outputSchema.properties.total, { title: 'Total', type: 'integer' });
    const call = (name, args = {}, options) => client.callTool({ name, arguments: args }, undefined, options);
    assert.deepEqual((await call('add', { a: 40, b: 2 })).structuredContent, { total: 42 });
    const progress = [];
    assert.equal((await call('count', { steps: 3 }, { onprogress: (one) => progress.push(one) })).content[0].text, 'counted to 3');
    assert.deepEqual(progress.map((one) => [one.progress, one.total, one.message]), [[1, 3, 'step 1'], [2, 3, 'step 2'], [3, 3, 'step 3']]);
    await eventually('three log messages', () => logged.length === 3);
    assert.deepEqual(logged, ['step 1', 'step 2', 'step 3']);
    assert.equal((await call('colour')).content[0].text, 'accept blue');
    assert.equal((await call('think', { question: 'life' })).content[0].text, 'thought about life');
    const failed = await call('fail');
    assert.equal(failed.isError, true);
    assert.match(failed.content[0].text, /as it was told to/);
    assert.equal((await client.readResource({ uri: 'note://hello' })).contents[0].text, 'a note');
    assert.equal((await client.readResource({ uri: 'note://cats/text' })).contents[0].text, 'a note about cats');
    assert.match((await client.getPrompt({ name: 'greet', arguments: { name: 'Ada' } })).messages[0].content.text, /Ada/);
    // A cancelled call is cancelled at the server too.
    const controller = new AbortController();
    await assert.rejects(call('wait', {}, { signal: controller.signal, onprogress: () => controller.abort('enough') }), /enough/);
    if (server) await server.line('the end of wait', (line) => line === 'wait was cancelled');
    assert.deepEqual((await call('add', { a: 1, b: 1 })).structuredContent, { total: 2 });
    await client.end();
  });
}

test('FastMCP without sessions and streams', { timeout: 120000 }, async (t) => {
  const server = await fastmcpHttp('streamable-http', 'stateless');
  const { gateway, user } = await stand(httpTarget(server.url));
  t.after(async () => {
    await gateway.stop();
    await server.stop();
  });
  const client = await connect(gateway, user.token, { capabilities: { sampling: {} }, prepare(c) {
    c.setRequestHandler(CreateMessageRequestSchema, () => assert.fail('nobody can ask'));
  } });
  assert.deepEqual(names((await client.listTools()).tools), ['add', 'colour', 'count', 'fail', 'think', 'wait']);
  const sums = await Promise.all(Array.from({ length: 20 }, (_, i) => client.callTool({ name: 'add', arguments: { a: i, b: 1 } })));
  assert.deepEqual(sums.map((one) => one.structuredContent.total), Array.from({ length: 20 }, (_, i) => i + 1));
  assert.equal((await client.callTool({ name: 'count', arguments: { steps: 3 } })).content[0].text, 'counted to 3');
  assert.equal((await client.readResource({ uri: 'note://hello' })).contents[0].text, 'a note');
  assert.match((await client.getPrompt({ name: 'greet', arguments: { name: 'Ada' } })).messages[0].content.text, /Ada/);
  await client.end();
});

for (const transport of ['stdio', 'Streamable HTTP']) {
  test(`demo_upstream over ${transport}`, { timeout: 60000 }, async (t) => {
    const server = transport === 'stdio' ? null : await demoHttp();
    const { gateway, user } = await stand(server ? httpTarget(server.url) : demoStdio);
    t.after(async () => {
      await gateway.stop();
      await server?.stop();
    });
    const client = await connect(gateway, user.token);
    assert.deepEqual(names((await client.listTools()).tools), ['add', 'echo', 'slow', 'whoami']);
    const progress = [];
    const slow = await client.callTool({ name: 'slow', arguments: { duration_ms: 300, steps: 3 } }, undefined,
      { onprogress: (one) => progress.push(one.progress) });
    assert.equal(slow.content[0].text, 'waited 300 ms in 3 steps');
    assert.deepEqual(progress, [1, 2, 3]);
    const sums = await Promise.all(Array.from({ length: 50 }, (_, i) =>
      client.callTool({ name: 'add', arguments: { a: i, b: 1000 } })));
    sums.forEach((sum, i) => assert.equal(sum.content[0].text, String(i + 1000)));
    assert.equal((await client.readResource({ uri: 'demo://note' })).contents[0].text, 'This resource lives in the demo server.');
    assert.match((await client.getPrompt({ name: 'greet', arguments: { name: 'Ada' } })).messages[0].content.text, /Ada/);
    await client.end();
  });
}
