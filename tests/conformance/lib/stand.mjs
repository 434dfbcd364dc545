// The fixture, bare or behind the gateway.
import { fileURLToPath } from 'node:url';
import { Gateway, start } from '../../e2e/lib/gateway.mjs';
import { forwarder } from './forwarder.mjs';
import { NODE } from './suite.mjs';

const FIXTURE = fileURLToPath(new URL('../fixture/main.mjs', import.meta.url));

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

/** The fixture behind the gateway, on this transport, and a URL that needs no token: {url, gateway, token, stop}. */
export async function fixtureBehindGateway(transport, era = 'legacy') {
  const server = transport === 'stdio' ? null : await fixture(transport, era);
  const members = transport === 'stdio'
    ? { transport_type: 'stdio', command: NODE, args: [FIXTURE, '--transport', 'stdio', '--era', era] }
    : { transport_type: transport === 'sse' ? 'sse' : 'streamable-http', url: server.url };
  const front = await forwarder();
  const { gateway, token } = await gatewayWith(members, [front.url]);
  front.to(gateway.url, token);
  return {
    gateway, token, url: `${front.url}/mcp`,
    stop: async () => {
      await front.stop();
      await gateway.stop();
      await server?.stop();
    },
  };
}
