// What stands between the gateways and the API server, be that the double or a real kube-apiserver: it keeps what has
// been asked, and does what an API server does on bad days. So both can be made to fail, and both can be watched.
import http from 'node:http';
import https from 'node:https';

const REASONS = { 401: 'Unauthorized', 409: 'Conflict', 410: 'Expired', 429: 'TooManyRequests', 500: 'InternalError', 503: 'ServiceUnavailable' };
const status = (code, message) => JSON.stringify({ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message,
  reason: REASONS[code] ?? 'Unknown', code });
const RESOURCE = /^\/(?:api\/v1|apis\/[^/]+\/v1)\/namespaces\/([^/]+)\/([a-z]+)(?:\/([^/]+))?/;

export class Front {
  requests = [];         // what has been asked: {verb, resource, name, status, contentType, query, at}
  faults = [];           // {match(request), times, status, retryAfter, drop, late}: the first that matches is met; `late`: ms until it is answered
  refused = new Set();   // tokens that are no longer good
  #backend;
  #watches = new Set();
  #late = { resource: '', pieces: [] };  // what watches of a resource tell meanwhile
  #sockets = new Set();

  /** `backend`: {url, ca}. */
  static async start(backend, tls) {
    const front = new Front();
    front.#backend = backend;
    front.server = https.createServer(tls, (request, response) => front.#handle(request, response).catch(() => response.destroy()));
    front.server.on('secureConnection', (socket) => {
      front.#sockets.add(socket);
      socket.on('close', () => front.#sockets.delete(socket));
      socket.on('error', () => {});
    });
    await new Promise((resolve) => front.server.listen(0, '127.0.0.1', resolve));
    front.url = `https://127.0.0.1:${front.server.address().port}`;
    return front;
  }
  async stop() {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Watches end now, as when a proxy between has a time limit. */
  dropWatches() {
    for (const watch of this.#watches) watch.destroy();
  }
  /** Watches of a resource lag: what they tell is held back until resumeWatches(). */
  holdWatches(resource) {
    this.#late.resource = resource;
  }
  resumeWatches() {
    const { pieces } = this.#late;
    this.#late = { resource: '', pieces: [] };
    for (const deliver of pieces) deliver();
  }
  /** Open watches are told that what they ask for is forgotten. */
  forget() {
    for (const watch of this.#watches) watch.end(`${JSON.stringify({ type: 'ERROR', object: JSON.parse(status(410, 'too old resource version')) })}\n`);
  }

  async #handle(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const url = new URL(request.url, 'https://front');
    const [, namespace, resource, name] = RESOURCE.exec(url.pathname) ?? [];
    const watch = url.searchParams.get('watch') === 'true';
    const verb = { GET: name ? 'get' : watch ? 'watch' : 'list', POST: 'create', PUT: 'update', PATCH: 'patch', DELETE: 'delete' }[request.method];
    const seen = { method: request.method, path: url.pathname, verb, namespace, resource, name, query: url.searchParams,
      contentType: request.headers['content-type'] ?? '', status: 0, at: Date.now() };
    const told = (code) => {
      seen.status = code;
      this.requests.push(seen);
    };
    const fault = this.faults.find((one) => one.times !== 0 && one.match(seen));
    if (fault) {
      if (fault.times > 0) --fault.times;
    }
    if (fault && !fault.late) {
      told(fault.drop ? 0 : fault.status);
      if (fault.drop) return response.destroy();
      const headers = { 'Content-Type': 'application/json', ...(fault.retryAfter === undefined ? {} : { 'Retry-After': String(fault.retryAfter) }) };
      return response.writeHead(fault.status, headers).end(status(fault.status, fault.message ?? 'injected'));
    }
    if (this.refused.has((request.headers.authorization ?? '').replace(/^Bearer /, ''))) {
      told(401);
      return response.writeHead(401, { 'Content-Type': 'application/json' }).end(status(401, 'Unauthorized'));
    }
    const to = new URL(url.pathname + url.search, this.#backend.url);
    const { host, connection, 'transfer-encoding': encoding, ...headers } = request.headers;
    const onward = (to.protocol === 'https:' ? https : http).request(to, { method: request.method, ca: this.#backend.ca, agent: false, headers });
    response.on('close', () => onward.destroy());
    onward.on('error', () => response.destroy());
    onward.on('response', async (answer) => {
      if (fault?.late) await new Promise((resolve) => setTimeout(resolve, fault.late));
      told(answer.statusCode);
      const { connection: kept, 'transfer-encoding': coding, ...members } = answer.headers;
      response.writeHead(answer.statusCode, members);
      response.flushHeaders();
      if (watch) {
        this.#watches.add(response);
        response.on('close', () => this.#watches.delete(response));
      }
      answer.on('error', () => response.destroy());
      const pass = (deliver) => (watch && resource === this.#late.resource ? this.#late.pieces.push(deliver) : deliver());
      answer.on('data', (data) => pass(() => { if (!response.writableEnded) response.write(data); }));
      answer.on('end', () => pass(() => response.end()));
    });
    onward.end(Buffer.concat(chunks));
  }
}
