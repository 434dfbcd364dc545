// An MCP server on standard input and output that remembers: its tools tell its process and count, ask the client
// something, and say something to it.
import { createInterface } from 'node:readline';

let count = 0;
let asked = 0;
const waiting = new Map();
const send = (message) => process.stdout.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\n');
const text = (value) => ({ content: [{ type: 'text', text: JSON.stringify(value) }] });
const schema = { type: 'object' };

const tools = {
  count: async () => text({ pid: process.pid, count: ++count }),
  ask: async () => {
    const id = `ask-${++asked}`;
    const answer = await new Promise((resolve) => {
      waiting.set(id, resolve);
      send({ id, method: 'elicitation/create', params: { message: 'Who?',
        requestedSchema: { type: 'object', properties: { name: { type: 'string' } } } } });
    });
    return text(answer);
  },
  announce: async ({ word }) => {
    // After the answer: it belongs to no call then.
    setTimeout(() => send({ method: 'notifications/message', params: { level: 'error', data: word } }), 50);
    return text(word);
  },
  hang: () => new Promise(() => {}),
  sleep: async ({ ms }) => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    return text('slept');
  },
};

const methods = {
  initialize: async (params) => ({ protocolVersion: params.protocolVersion, capabilities: { tools: {}, logging: {} },
    serverInfo: { name: 'counting', version: '1' } }),
  ping: async () => ({}),
  'logging/setLevel': async () => ({}),
  'tools/list': async () => ({ tools: Object.keys(tools).map((name) => ({ name, inputSchema: schema })) }),
  'tools/call': async (params) => tools[params.name](params.arguments ?? {}),
};

createInterface({ input: process.stdin }).on('line', async (line) => {
  const message = JSON.parse(line);
  if (message.method === undefined) {
    waiting.get(message.id)?.(message.result ?? message.error);
    waiting.delete(message.id);
  } else if (message.id !== undefined) {
    const method = methods[message.method];
    if (method) send({ id: message.id, result: await method(message.params ?? {}) });
    else send({ id: message.id, error: { code: -32601, message: 'Method not found' } });
  }
});
