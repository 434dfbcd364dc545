// The console's own modules, for tests without a browser, and MCP calls to look at with it.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

export const consoleDirectory = fileURLToPath(new URL('../../../apps/console/', import.meta.url));
const require = createRequire(consoleDirectory + 'package.json');

/** Modules of apps/console/src, compiled together. */
export async function load(...paths) {
  const { build } = createRequire(require.resolve('vite'))('esbuild');
  const { outputFiles } = await build({
    stdin: { contents: paths.map((path) => `export * from './src/${path}';`).join('\n'), resolveDir: consoleDirectory },
    bundle: true, write: false, format: 'esm', platform: 'node', logLevel: 'silent',
  });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString('base64')}`);
}

/** An MCP client of one session. */
export class McpSession {
  static async open(url, token) {
    const session = new McpSession();
    session.url = url;
    session.headers = {
      Authorization: `Bearer ${token}`, 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream',
    };
    const answer = await session.post({ id: 0, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {},
      clientInfo: { name: 'tests', version: '1' } } });
    if (answer.status !== 200) throw new Error(`initialize: ${answer.status} ${await answer.text()}`);
    session.headers['Mcp-Session-Id'] = answer.headers.get('mcp-session-id');
    await answer.text();
    await (await session.post({ method: 'notifications/initialized' })).text();
    return session;
  }

  post(message) {
    return fetch(this.url, { method: 'POST', headers: this.headers, body: JSON.stringify({ jsonrpc: '2.0', ...message }) });
  }

  /** The text of the answer, an error too. */
  async call(name, args = {}) {
    this.id = (this.id ?? 0) + 1;
    return (await this.post({ id: this.id, method: 'tools/call', params: { name, arguments: args } })).text();
  }

  async close() {
    await fetch(this.url, { method: 'DELETE', headers: this.headers });
  }
}
