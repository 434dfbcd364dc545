// MCP servers for the gateway to stand in front of.
import { createHash } from 'node:crypto';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DEMO, start } from './gateway.mjs';

const modules = fileURLToPath(new URL('../node_modules/', import.meta.url));
const showPort = fileURLToPath(new URL('./show_port.mjs', import.meta.url));
export const EVERYTHING = path.join(modules, '@modelcontextprotocol/server-everything/dist/index.js');
/** The same of 2024, which speaks revision 2024-11-05 alone. */
const EVERYTHING_2024 = path.join(modules, 'server-everything-2024/dist');
export const FILESYSTEM = path.join(modules, '@modelcontextprotocol/server-filesystem/dist/index.js');
const MEMORY = path.join(modules, '@modelcontextprotocol/server-memory/dist/index.js');
const SEQUENTIAL_THINKING = path.join(modules, '@modelcontextprotocol/server-sequential-thinking/dist/index.js');
const FASTMCP = fileURLToPath(new URL('../python/fastmcp_server.py', import.meta.url));
/** Python with the MCP SDK of that major version (tests/run.sh makes them). */
export const PYTHON = Object.fromEntries(['1', '2'].map((version) => [version, process.env[`MCP${version}_PYTHON`] ??
  fileURLToPath(new URL(`../../../build/venv-mcp${version}/bin/python`, import.meta.url))]));

export const stdioTarget = (command, ...args) => ({ transport_type: 'stdio', command, args });
export const httpTarget = (url) => ({ transport_type: 'streamable-http', url });
export const sseTarget = (url) => ({ transport_type: 'sse', url });
export const everythingStdio = stdioTarget(process.execPath, EVERYTHING, 'stdio');
export const everything2024Stdio = stdioTarget(process.execPath, path.join(EVERYTHING_2024, 'index.js'));
export const filesystemStdio = (directory) => stdioTarget(process.execPath, FILESYSTEM, directory);
export const memoryStdio = stdioTarget(process.execPath, MEMORY);
export const sequentialThinkingStdio = stdioTarget(process.execPath, SEQUENTIAL_THINKING);
/** A program of these packages as people start it, without asking a registry. */
export const npxStdio = (program) => stdioTarget('npx', '--offline', '--prefix', path.dirname(modules), program);
export const fastmcpStdio = stdioTarget(PYTHON[1], FASTMCP, 'stdio');
export const demoStdio = stdioTarget(DEMO, '--stdio');

export const sha256 = (text) => createHash('sha256').update(text).digest('hex');

/** server-everything over Streamable HTTP, or over HTTP+SSE, on a port chosen by the system. */
export async function everythingHttp(mode = 'streamableHttp') {
  const server = start(process.execPath, ['--import', showPort, EVERYTHING, mode], { env: { ...process.env, PORT: '0' } });
  const port = await server.line('port of server-everything', (line) => /^listening (\d+)$/.exec(line)?.[1]);
  return { ...server, url: `http://127.0.0.1:${port}/${mode === 'sse' ? 'sse' : 'mcp'}` };
}

/** server-everything of 2024 over HTTP+SSE. It serves one client, and ends with it. */
export async function everything2024Sse() {
  const server = start(process.execPath, ['--import', showPort, path.join(EVERYTHING_2024, 'sse.js')], { env: { ...process.env, PORT: '0' } });
  const port = await server.line('port of server-everything', (line) => /^listening (\d+)$/.exec(line)?.[1]);
  return { ...server, url: `http://127.0.0.1:${port}/sse` };
}

/** A server of FastMCP over `transport`, streamable-http (to which "stateless" may be added) or sse. */
export async function fastmcpHttp(transport, ...more) {
  const server = start(PYTHON[1], [FASTMCP, transport, ...more]);
  const port = await server.line('port of FastMCP', (line) => /Uvicorn running on http:\/\/127\.0\.0\.1:(\d+)/.exec(line)?.[1]);
  return { ...server, url: `http://127.0.0.1:${port}/${transport === 'sse' ? 'sse' : 'mcp'}` };
}

/** demo_upstream over Streamable HTTP. */
export async function demoHttp() {
  const server = start(DEMO, ['--http', '--port', '0']);
  const port = await server.line('port of demo_upstream', (line) => /"port":(\d+)/.exec(line)?.[1]);
  return { ...server, url: `http://127.0.0.1:${port}/mcp` };
}

/**
 * A scripted server: it keeps the raw text of every message and answers tools/call as it is told.
 * `answer(message, response, raw)` may return raw JSON text of a result, or take the response over (undefined).
 */
export async function scripted(answer) {
  const received = [];
  const sockets = new Set();
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', async () => {
      if (request.method !== 'POST') {
        response.writeHead(request.method === 'DELETE' ? 204 : 405).end();
        return;
      }
      const raw = Buffer.concat(chunks).toString('utf8');
      const message = JSON.parse(raw);
      received.push({ raw, message, headers: request.headers });
      const reply = (result) => {
        response.writeHead(200, { 'Content-Type': 'application/json', 'Mcp-Session-Id': 'scripted' });
        response.end(`{"jsonrpc":"2.0","id":${JSON.stringify(message.id)},"result":${result}}`);
      };
      if (message.id === undefined) response.writeHead(202).end();
      else if (message.method === 'initialize')
        reply(JSON.stringify({ protocolVersion: message.params.protocolVersion, capabilities: { tools: {} },
          serverInfo: { name: 'scripted', version: '1' } }));
      else if (message.method === 'tools/list')
        reply('{"tools":[{"name":"run","inputSchema":{"type":"object"},"x-unknown":{"n":1.0}}]}');
      else if (message.method === 'tools/call') {
        const result = await answer(message, response, raw);
        if (result !== undefined) reply(result);
      } else if (message.method === 'ping') reply('{}');
      else {
        response.writeHead(200, { 'Content-Type': 'application/json' });
        response.end(JSON.stringify({ jsonrpc: '2.0', id: message.id, error: { code: -32601, message: 'Method not found' } }));
      }
    });
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    received,
    url: `http://127.0.0.1:${server.address().port}/mcp`,
    stop: () => new Promise((resolve) => {
      server.close(resolve);
      for (const socket of sockets) socket.destroy();
    }),
  };
}
