// What the suite starts as the client under test: a gateway whose only target is the suite's server, and an official
// SDK's client in front of it: `client_driver.mjs [--era legacy|modern] URL`. Everything that reaches the suite's server comes
// from the gateway.
import { parseArgs } from 'node:util';
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from '@modelcontextprotocol/client';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { gatewayWith } from './lib/stand.mjs';

const { values: { era }, positionals: [server] } =
  parseArgs({ options: { era: { type: 'string', default: 'legacy' } }, allowPositionals: true });
/** What the suite wants to be sent, where it says so. */
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');

async function callEverything(client) {
  const { tools } = await client.listTools();
  for (const { name } of tools) await client.callTool({ name, arguments: {} });
}

const scenarios = {
  initialize: (client) => client.listTools(),
  tools_call: async (client) => {
    await client.listTools();
    const sum = await client.callTool({ name: 'add_numbers', arguments: { a: 5, b: 3 } });
    if (!/\b8\b/.test(sum.content[0].text)) throw new Error(`a wrong sum: ${sum.content[0].text}`);
  },
  'elicitation-sep1034-client-defaults': async (client) => {
    await client.listTools();
    const answer = await client.callTool({ name: 'test_client_elicitation_defaults', arguments: {} });
    if (answer.isError) throw new Error(JSON.stringify(answer.content));
  },
  'sse-retry': async (client) => {
    await client.listTools();
    await client.callTool({ name: 'test_reconnection', arguments: {} });
  },
  'request-metadata': (client) => client.listTools(),
  'sep-2322-client-request-state': async (client) => {
    await client.listTools();
    const ask = (name) => client.callTool({ name, arguments: {} });
    // The second call runs while the first one waits for input.
    await Promise.all([ask('test_mrtr_echo_state'), ask('test_mrtr_unrelated')]);
    await ask('test_mrtr_no_state');
    await ask('test_mrtr_no_result_type');
  },
  'http-standard-headers': async (client) => {
    await callEverything(client);
    const { resources } = await client.listResources();
    for (const { uri } of resources) await client.readResource({ uri });
    const { prompts } = await client.listPrompts();
    for (const { name } of prompts) await client.getPrompt({ name });
  },
  'http-custom-headers': async (client) => {
    await client.listTools();
    for (const call of context.toolCalls) await client.callTool(call);
  },
  'http-invalid-tool-headers': callEverything,
  'json-schema-ref-no-deref': (client) => client.listTools(),
};

const scenario = scenarios[process.env.MCP_CONFORMANCE_SCENARIO];
if (!scenario) throw new Error(`Unknown scenario: ${process.env.MCP_CONFORMANCE_SCENARIO}`);
const { gateway, token, stop } = await gatewayWith({ transport_type: 'streamable-http', url: server });
const who = { name: 'conformance-driver', version: '1.0.0' };
const endpoint = [new URL(`${gateway.url}/mcp`), { requestInit: { headers: { Authorization: `Bearer ${token}` } } }];
const accept = () => ({ action: 'accept', content: {} });
let client, transport;
if (era === 'modern') {
  client = new ModernClient(who, { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode: { pin: '2026-07-28' } } });
  client.setRequestHandler('elicitation/create', accept);
  transport = new ModernTransport(...endpoint);
} else {
  client = new Client(who, { capabilities: { elicitation: { form: { applyDefaults: true } } } });
  client.setRequestHandler(ElicitRequestSchema, accept);
  transport = new StreamableHTTPClientTransport(...endpoint);
}
try {
  await client.connect(transport);
  await scenario(client);
} catch (error) {
  console.error(error);
  console.error(gateway.logText);
  process.exitCode = 1;
} finally {
  if (era === 'legacy') await transport.terminateSession().catch(() => {});
  await client.close();
  await stop();
}
