// MCP clients: the official SDK's, and a bare one for what an SDK would not send.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

/** The SDK's client, connected to the gateway as the owner of `token`. */
export async function connect(gateway, token, { capabilities = {}, prepare } = {}) {
  const client = new Client({ name: 'e2e', version: '1.0.0' }, { capabilities });
  const transport = new StreamableHTTPClientTransport(new URL(gateway.url + '/mcp'),
    { requestInit: { headers: { Authorization: `Bearer ${token}` } } });
  client.onerror = () => {};  // streams that end with the gateway
  if (prepare) prepare(client);
  await client.connect(transport);
  client.sessionId = transport.sessionId;
  client.end = async () => {
    await transport.terminateSession().catch(() => {});
    await client.close();
  };
  return client;
}

/** Names of everything in a list, sorted. */
export function names(items) {
  return items.map((item) => item.name).sort();
}

/** One POST of `body` (text or value) to /mcp: {status, headers, text}. */
export async function post(gateway, token, body, { session, headers = {} } = {}) {
  const response = await fetch(gateway.url + '/mcp', {
    method: 'POST',
    headers: {
      Accept: 'application/json, text/event-stream',
      'Content-Type': 'application/json',
      ...(token ? { Authorization: `Bearer ${token}` } : {}),
      ...(session ? { 'Mcp-Session-Id': session } : {}),
      ...headers,
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** A legacy session by hand; gives its id. */
export async function openSession(gateway, token, protocolVersion = '2025-11-25') {
  const answer = await post(gateway, token, {
    jsonrpc: '2.0', id: 0, method: 'initialize',
    params: { protocolVersion, capabilities: {}, clientInfo: { name: 'bare', version: '1' } },
  });
  if (answer.status !== 200) throw new Error(`initialize: ${answer.status} ${answer.text}`);
  const session = answer.headers.get('mcp-session-id');
  await post(gateway, token, { jsonrpc: '2.0', method: 'notifications/initialized' }, { session });
  return session;
}

/** The JSON text of the last message of an answer, be it JSON or an event stream. */
export function lastMessage(answer) {
  if (!(answer.headers.get('content-type') ?? '').startsWith('text/event-stream')) return answer.text;
  const events = answer.text.split(/\r?\n\r?\n/).map((event) => event.split(/\r?\n/)
    .filter((line) => line.startsWith('data:')).map((line) => line.slice(5).replace(/^ /, '')).join('\n'));
  return events.filter((data) => data).at(-1);
}
