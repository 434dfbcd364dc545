// The fixture, bare or behind the gateway.
import { fileURLToPath } from 'node:url';
import { Gateway, start } from '../../e2e/lib/gateway.mjs';
import { forwarder } from './forwarder.mjs';
import { NODE } from './suite.mjs';

export const FIXTURE = fileURLToPath(new URL('../fixture/main.mjs', import.meta.url));

/** The fixture on a socket: {url, stop}. */
export async function fixture(transport, era = 'legacy') {
  const child = start(NODE, [FIXTURE, '--transport', transport, '--era', era]);
  const port = await child.line('port of the fixture', (line) => /^listening (\d+)$/.exec(line)?.[1], 60000);
  return { url: `http://127.0.0.1:${port}/${transport === 'sse' ? 'sse' : 'mcp'}`, stop: () => child.stop() };
}

/** A gateway with one target, of which one user may use all: {gateway, token, stop}. `origins` may use /mcp besides its own. */
export async function gatewayWith(members, origins = []) {
  const gateway = await Gateway.start({
    config: `upstream:\n  allow_private: true\nmcp:\n  allowed_origins: ${JSON.stringify(origins)}\n` });
  await gateway.registerAdmin();
  const user = await gateway.addUser('suite');
  await gateway.allow(user, await gateway.addTarget('fixture', members));
  return { gateway, token: user.token, stop: () => gateway.stop() };
}

/** Sets of capabilities that the suite declares in revision 2026-07-28. */
const DECLARED = [{}, { elicitation: {} }, { sampling: {} }, { sampling: {}, elicitation: {}, roots: {} }];

/** Has the gateway connect to its target for each set of capabilities: the suite waits half a second for some answers. */
async function warm(url) {
  for (const capabilities of DECLARED) {
    const answer = await fetch(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream',
        'MCP-Protocol-Version': '2026-07-28', 'Mcp-Method': 'tools/list' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: { _meta: {
        'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': capabilities,
        'io.modelcontextprotocol/clientInfo': { name: 'warm', version: '1' } } } }),
    });
    if (!answer.ok) throw new Error(`tools/list: ${answer.status} ${await answer.text()}`);
    await answer.text();
  }
}

/**
 * The fixture behind the gateway, on this transport, for clients of this era, and a URL that needs no token:
 * {url, gateway, token, stop}.
 */
export async function fixtureBehindGateway(transport, era = 'legacy', clients = 'legacy') {
  const server = transport === 'stdio' ? null : await fixture(transport, era);
  const members = transport === 'stdio'
    ? { transport_type: 'stdio', command: NODE, args: [FIXTURE, '--transport', 'stdio', '--era', era] }
    : { transport_type: transport === 'sse' ? 'sse' : 'streamable-http', url: server.url };
  const front = await forwarder();
  const { gateway, token } = await gatewayWith(members, [front.url]);
  front.to(gateway.url, token);
  const url = `${front.url}/mcp`;
  if (clients === 'modern') await warm(url);
  return {
    gateway, token, url,
    stop: async () => {
      await front.stop();
      await gateway.stop();
      await server?.stop();
    },
  };
}
