// Gateway: one MCP endpoint in front of many servers, inside this process.
import { McpgwError, bytesAt, call, callback, drop, found, hold, json, keep, lib, release, replyError, run, sizeOf, store, text, textAt, wait } from './native.js';
import { Repository, callAdmin } from './policy.js';
import { handleOf } from './storage.js';

// --- callbacks: one set for all gateways ------------------------------------------------------------------------------------

class Connection {
  constructor(server, channel) {
    this.server = server;
    this.channel = channel;
  }
  // All of it runs on the main thread, so that no channel is used after it was freed.
  deliver(message) {
    if (this.channel !== null) lib.mcpgw_channel_deliver(this.channel, ...text(message));
  }
  close() {
    lib.mcpgw_channel_free(this.channel);
    this.channel = null;
  }
}

let tables;
function callbacks() {
  if (tables !== undefined) return tables;
  const [UPSTREAM, LOG, ANSWER] = ['mcpgw_upstream_callbacks', 'mcpgw_log_callbacks', 'mcpgw_answer_callbacks'];
  tables = {
    upstream: {
      struct_size: sizeOf(UPSTREAM),
      connect: callback(
        UPSTREAM,
        'connect',
        (id, parameters, size, channel, connection, to) => {
          try {
            const server = found(id).connect(JSON.parse(textAt(parameters, size)));
            if (!server) return 11; // MCPGW_UNSUPPORTED
            store(connection, keep(new Connection(server, channel)));
            return 0;
          } catch (error) {
            return replyError(to, error);
          }
        },
        13,
      ),
      send: callback(UPSTREAM, 'send', (id, message, size) => {
        const connection = found(id);
        // A server that fails is answered for by the gateway's own deadline.
        connection.server.receive(textAt(message, size), (answer) => connection.deliver(answer)).catch(() => {});
      }),
      close: callback(UPSTREAM, 'close', (id) => {
        found(id).close();
        drop(id);
      }),
      destroy: callback(UPSTREAM, 'destroy', (id) => void drop(id)),
    },
    log: {
      struct_size: sizeOf(LOG),
      log: callback(LOG, 'log', (id, level, event, size) => void found(id)(JSON.parse(textAt(event, size)))),
      destroy: callback(LOG, 'destroy', (id) => void drop(id)),
    },
    answer: {
      struct_size: sizeOf(ANSWER),
      on_head: callback(ANSWER, 'on_head', (id, status, headers, count) => found(id).onHead(status, readHeaders(headers, Number(count)))),
      on_data: callback(
        ANSWER,
        'on_data',
        (id, data, size) => {
          found(id).onData(bytesAt(data, size));
          return 0;
        },
        1,
      ),
      on_end: callback(ANSWER, 'on_end', (id, complete) => {
        const answer = found(id);
        drop(id);
        answer.onEnd(complete !== 0);
      }),
    },
  };
  return tables;
}

function readHeaders(pointer, count) {
  // Four machine words each: name, its size, value, its size.
  const words = new BigUint64Array(Uint8Array.from(bytesAt(pointer, count * 32)).buffer);
  const at = (i) => bytesAt(words[i], Number(words[i + 1])).toString('latin1');
  return Array.from({ length: count }, (_, i) => [at(4 * i), at(4 * i + 2)]);
}

// --- answers ----------------------------------------------------------------------------------------------------------------

/** An answer piece by piece: `head` is a promise of { status, headers, body: ReadableStream }. */
class Answer {
  #call = null;
  #controller;
  #ended = false;

  constructor() {
    this.body = new ReadableStream({
      start: (controller) => (this.#controller = controller),
      cancel: () => this.cancel(),
    });
    this.head = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }
  started(handle) {
    if (this.#ended) lib.mcpgw_call_free(handle);
    else this.#call = handle;
  }
  cancel() {
    if (this.#call !== null) lib.mcpgw_call_cancel(this.#call);
  }
  onHead(status, headers) {
    this.resolve({ status, headers, body: this.body });
  }
  onData(bytes) {
    try {
      this.#controller.enqueue(new Uint8Array(bytes));
    } catch {
      this.cancel(); // nobody reads any more
    }
  }
  onEnd(complete) {
    this.#ended = true;
    if (this.#call !== null) lib.mcpgw_call_free(this.#call);
    this.#call = null;
    const cut = new McpgwError('cancelled', 'cut_off', 'The answer was cut off');
    this.reject(cut); // no effect after a head
    try {
      if (complete) this.#controller.close();
      else this.#controller.error(cut);
    } catch {
      // cancelled by its reader
    }
  }
}

function bodyBytes(body) {
  if (body === undefined || body === null) return Buffer.alloc(0);
  return typeof body === 'string' ? Buffer.from(body, 'utf8') : Buffer.from(body);
}

// --- gateway ----------------------------------------------------------------------------------------------------------------

/** A gateway on a port. */
export class HttpServer {
  #handle;
  constructor(handle) {
    this.#handle = handle;
    this.port = lib.mcpgw_server_port(handle);
    this.url = lib.mcpgw_server_url(handle);
  }
  /** Ends all connections. */
  async close() {
    const handle = this.#handle;
    this.#handle = null;
    if (handle !== null) await run(lib.mcpgw_server_free, handle);
  }
  [Symbol.asyncDispose ?? Symbol.for('asyncDispose')]() {
    return this.close();
  }
}

export class Gateway {
  #handle = null;
  #servers;
  #http = new Set();
  #closing = null;
  #storage; // its callbacks are objects of this process: it lives as long as the gateway

  constructor(handle, servers, storage) {
    if (typeof handle !== 'bigint') throw new TypeError('Gateway.create() makes one');
    this.#handle = handle;
    this.#servers = servers;
    this.#storage = storage;
    this.repository = Repository.ofGateway(handle);
  }

  static async create(options, { storage, servers = {}, connect, log } = {}) {
    const own = new Map(Object.entries(servers));
    const { upstream, log: logging } = callbacks();
    const find = (parameters) => own.get(parameters.target.name) ?? connect?.(parameters);
    const parts = {
      struct_size: sizeOf('mcpgw_gateway_parts'),
      storage: handleOf(storage),
      upstream: { ...upstream, user_data: keep({ connect: find }) },
      log: log === undefined ? null : { ...logging, user_data: keep(log) },
    };
    const out = [null];
    await wait(lib.mcpgw_gateway_create, ...json(options), parts, out);
    hold();
    return new this(out[0], own, storage);
  }

  get #open() {
    if (this.#handle === null) throw new McpgwError('unavailable', 'closed', 'The gateway is closed');
    return this.#handle;
  }

  /** Answers one request piece by piece; gives { status, headers, body: ReadableStream } with the head. */
  async stream(method, target, { headers = {}, body, remoteAddress = '127.0.0.1', signal } = {}) {
    const bytes = bodyBytes(body);
    const pairs = Array.isArray(headers) ? headers : Object.entries(headers);
    const [to, at, from] = [Buffer.from(method), Buffer.from(target), Buffer.from(remoteAddress)];
    const request = {
      struct_size: sizeOf('mcpgw_request'),
      method: to, method_size: to.length,
      target: at, target_size: at.length,
      headers: pairs.map(([name, value]) => {
        const [n, v] = [Buffer.from(name, 'latin1'), Buffer.from(value, 'latin1')];
        return { name: n, name_size: n.length, value: v, value_size: v.length };
      }),
      header_count: pairs.length,
      body: bytes, body_size: bytes.length,
      remote_address: from, remote_address_size: from.length,
      over_tls: 0,
    };
    signal?.throwIfAborted();
    const answer = new Answer();
    const id = keep(answer);
    const out = [null];
    try {
      call(lib.mcpgw_gateway_handle_async, this.#open, request, { ...callbacks().answer, user_data: id }, out);
    } catch (error) {
      drop(id);
      throw error;
    }
    answer.started(out[0]);
    signal?.addEventListener('abort', () => answer.cancel(), { once: true });
    return answer.head;
  }

  /** Answers one request whole. */
  async handle(method, target, options) {
    const { status, headers, body } = await this.stream(method, target, options);
    const pieces = [];
    for await (const piece of body) pieces.push(piece);
    const bytes = Buffer.concat(pieces);
    const header = (name) => headers.find(([known]) => known.toLowerCase() === name.toLowerCase())?.[1];
    return { status, headers, body: bytes, header, text: () => bytes.toString('utf8'), json: () => JSON.parse(bytes.toString('utf8')) };
  }

  /** As the global fetch, but the request ends in this gateway, whatever its host: for clients that take a `fetch`. */
  fetch = async (input, init) => {
    const request = new Request(input, init);
    const url = new URL(request.url);
    const { status, headers, body } = await this.stream(request.method, url.pathname + url.search, {
      headers: [...request.headers],
      body: new Uint8Array(await request.arrayBuffer()),
      signal: request.signal,
    });
    const without = [101, 204, 205, 304].includes(status);
    if (without) await body.cancel();
    return new Response(without ? null : body, { status, headers });
  };

  /** The REST API (docs/rest-api.md) with an administrator's rights; gives the parsed answer, throws ApiError. */
  async admin(method, target, body, { userId } = {}) {
    return callAdmin(lib.mcpgw_gateway_admin, this.#open, method, target, body, userId);
  }

  /** Makes a target of a server of this process; gives the target. */
  async addServer(server, target = {}) {
    this.#servers.set(server.name, server);
    return this.admin('POST', '/api/targets', {
      name: server.name,
      transport_type: 'streamable-http',
      url: 'http://in-process.invalid/mcp',
      ...target,
    });
  }

  /** Listens: { server: { host, port } }; without options on a free port of 127.0.0.1. */
  async serve(options) {
    const out = [null];
    await wait(lib.mcpgw_server_start, this.#open, ...json(options), out);
    const server = new HttpServer(out[0]);
    this.#http.add(server);
    return server;
  }

  /** Lets running requests end for at most `graceMs`. An open gateway keeps the process alive, as an open port does;
   *  process.exit() with an open one is not supported. */
  close(graceMs = 5000) {
    this.#closing ??= (async () => {
      const handle = this.#open;
      this.#handle = null;
      await run(lib.mcpgw_gateway_close, handle, graceMs);
      for (const server of this.#http) await server.close();
      await run(lib.mcpgw_gateway_free, handle);
      this.#storage = undefined;
      release();
    })();
    return this.#closing;
  }
  [Symbol.asyncDispose ?? Symbol.for('asyncDispose')]() {
    return this.close();
  }
}
