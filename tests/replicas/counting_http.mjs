// An MCP server over HTTP that keeps something for each of its sessions.
import { randomUUID } from 'node:crypto';
import http from 'node:http';

/** Counts the calls of each of its sessions. `sessions`: those that are open; `ended`, `made`: ids. */
export async function counting(t) {
  const server = { sessions: new Map(), made: [], ended: [], twice: [] };
  const handler = http.createServer((request, response) => {
    let text = '';
    request.on('data', (chunk) => { text += chunk; });
    request.on('end', () => {
      const id = request.headers['mcp-session-id'];
      const session = server.sessions.get(id);
      const reply = (body, headers = {}) => response.writeHead(200, { 'Content-Type': 'application/json', ...headers })
        .end(JSON.stringify({ jsonrpc: '2.0', ...body }));
      if (request.method === 'DELETE') {
        server.ended.push(id);
        response.writeHead(server.sessions.delete(id) ? 204 : 404).end();
        return;
      }
      if (id !== undefined && !session) return void response.writeHead(404).end();
      if (request.method !== 'POST') return void response.writeHead(405).end();
      const message = JSON.parse(text);
      if (message.id === undefined) return void response.writeHead(202).end();
      if (session?.ids.has(message.id)) server.twice.push(message.id);
      session?.ids.add(message.id);
      if (message.method === 'initialize') {
        const fresh = randomUUID();
        server.sessions.set(fresh, { count: 0, ids: new Set() });
        server.made.push(fresh);
        reply({ id: message.id, result: { protocolVersion: message.params.protocolVersion, capabilities: { tools: {} },
          serverInfo: { name: 'counting', version: '1' } } }, { 'Mcp-Session-Id': fresh });
      } else if (message.method === 'tools/list' && session) {
        reply({ id: message.id, result: { tools: [{ name: 'count', inputSchema: { type: 'object' } }] } });
      } else if (message.method === 'tools/call' && session) {
        reply({ id: message.id, result: { content: [{ type: 'text', text: JSON.stringify({ id, count: ++session.count }) }] } });
      } else if (message.method === 'ping' && session) {
        reply({ id: message.id, result: {} });
      } else {
        reply({ id: message.id, error: { code: -32601, message: 'Method not found' } });
      }
    });
  });
  await new Promise((resolve) => handler.listen(0, '127.0.0.1', resolve));
  t.after(() => { handler.close(); handler.closeAllConnections(); });
  server.url = `http://127.0.0.1:${handler.address().port}/mcp`;
  return server;
}
