// The parts of the chaos run: a proxy in front of the programs, and clients that remember what they were told.
import http from 'node:http';
import net from 'node:net';

/** A TCP proxy: each connection goes to the next program that takes it. */
export class RoundRobin {
  static async start(ports) {
    const proxy = new RoundRobin();
    proxy.ports = [...ports];
    proxy.next = 0;
    proxy.open = new Set();
    proxy.server = net.createServer((client) => proxy.take(client));
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  take(client, tried = 0) {
    this.open.add(client);
    client.setNoDelay(true);
    client.once('close', () => this.open.delete(client));
    client.on('error', () => client.destroy());
    if (tried > 2 * this.ports.length) return client.destroy();
    const upstream = net.connect(this.ports[this.next++ % this.ports.length], '127.0.0.1');
    let connected = false;
    upstream.setNoDelay(true);
    upstream.on('connect', () => {
      connected = true;
      client.pipe(upstream).pipe(client);
      client.once('close', () => upstream.destroy());
    });
    upstream.on('error', () => {
      if (connected) client.destroy();
      else this.take(client, tried + 1);  // nothing was sent yet: another one may have it
    });
    upstream.on('close', () => connected && client.destroy());
  }

  stop() {
    for (const client of this.open) client.destroy();
    this.server.close();
  }
}

/** When something was killed or away: [from, to) in milliseconds, to Infinity while it lasts. */
export class Outages {
  constructor() {
    this.spans = [];
  }

  begin(what) {
    const span = { what, from: performance.now(), to: Infinity };
    this.spans.push(span);
    return () => { span.to = performance.now(); };
  }

  /** The outages of `what` that a call between these moments may have met. */
  met(what, from, to) {
    return this.spans.some((span) => span.what === what && span.from <= to && span.to >= from);
  }
}

/** One HTTP request over kept connections; rejects with the socket's error code as `code`. */
export function request(agent, base, method, path, { token, headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const asked = http.request(base + path, { method, agent, timeout: 30000, headers: {
      Accept: 'application/json, text/event-stream',
      ...(body === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }),
      ...(token ? { Authorization: `Bearer ${token}` } : {}), ...headers } }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('aborted', () => reject(Object.assign(new Error('cut off'), { code: 'ECONNRESET' })));
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers,
        text: Buffer.concat(chunks).toString('utf8') }));
    });
    asked.on('timeout', () => asked.destroy(Object.assign(new Error('no answer in 30 s'), { code: 'TIMEOUT' })));
    asked.on('error', reject);
    asked.end(body);
  });
}

const last = (answer) => (answer.headers['content-type'] ?? '').startsWith('text/event-stream')
  ? answer.text.split(/\r?\n\r?\n/).map((event) => event.split(/\r?\n/).filter((line) => line.startsWith('data:'))
    .map((line) => line.slice(5).trim()).join('\n')).filter(Boolean).at(-1)
  : answer.text;

/** The answer's JSON-RPC message, or {status, code} of what was said instead. */
export function outcome(answer) {
  let message = null;
  try {
    message = JSON.parse(last(answer));
  } catch {
    // said below
  }
  if (answer.status === 200 && message?.result) return { result: message.result };
  return { status: answer.status, code: message?.error?.data?.code ?? message?.code ?? message?.error?.message ?? 'unclear' };
}

/** A client of one era, whose session (legacy) is made by its first request. */
export class ChaosClient {
  constructor({ agent, base, token, modern, name }) {
    Object.assign(this, { agent, base, token, modern, name, id: 0, session: null });
  }

  async open() {
    if (this.modern || this.session) return;
    const answer = await request(this.agent, this.base, 'POST', '/mcp', { token: this.token, body: JSON.stringify({
      jsonrpc: '2.0', id: 0, method: 'initialize',
      params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: this.name, version: '1' } } }) });
    if (answer.status !== 200) throw Object.assign(new Error(answer.text), { outcome: outcome(answer) });
    this.session = answer.headers['mcp-session-id'];
  }

  /** One request of that method; what came of it. */
  async ask(method, params = {}) {
    const id = ++this.id;
    const headers = this.modern
      ? { 'MCP-Protocol-Version': '2026-07-28', 'Mcp-Method': method, ...(params.name ? { 'Mcp-Name': params.name } : {}) }
      : { 'MCP-Protocol-Version': '2025-11-25', 'Mcp-Session-Id': this.session };
    const meta = this.modern ? { _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {} } } : {};
    const answer = await request(this.agent, this.base, 'POST', '/mcp', { token: this.token, headers,
      body: JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, ...meta } }) });
    return outcome(answer);
  }
}
