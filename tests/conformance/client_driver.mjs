// What the suite starts as the client under test: a gateway whose only target is the suite's server, and the official
// SDK's client in front of it. Everything that reaches the suite's server comes from the gateway.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { gatewayWith } from './lib/stand.mjs';

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
};

const scenario = scenarios[process.env.MCP_CONFORMANCE_SCENARIO];
if (!scenario) throw new Error(`Unknown scenario: ${process.env.MCP_CONFORMANCE_SCENARIO}`);
const { gateway, token, stop } = await gatewayWith({ transport_type: 'streamable-http', url: process.argv[2] });
const client = new Client({ name: 'conformance-driver', version: '1.0.0' },
  { capabilities: { elicitation: { form: { applyDefaults: true } } } });
client.setRequestHandler(ElicitRequestSchema, () => ({ action: 'accept', content: {} }));
const transport = new StreamableHTTPClientTransport(new URL(`${gateway.url}/mcp`),
  { requestInit: { headers: { Authorization: `Bearer ${token}` } } });
try {
  await client.connect(transport);
  await scenario(client);
} catch (error) {
  console.error(error);
  console.error(gateway.logText);
  process.exitCode = 1;
} finally {
  await transport.terminateSession().catch(() => {});
  await client.close();
  await stop();
}
