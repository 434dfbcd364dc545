// A gateway for tests: users by name, servers of functions, no port.
import { Gateway } from './lib/gateway.js';
import { Server } from './lib/server.js';

const VERSION = '2025-11-25';
const MODERN = '2026-07-28';
const META = 'io.modelcontextprotocol/';

/** A name as an HTTP header carries it in 2026-07-28. */
const headerValue = (text) =>
  /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !text.startsWith('=?base64?') ? text : `=?base64?${Buffer.from(text).toString('base64')}?=`;

function messagesOf(type, body) {
  if (!type.includes('text/event-stream')) return body === '' ? [] : [JSON.parse(body)];
  return body
    .replaceAll('\r\n', '\n')
    .split('\n\n')
    .map((event) => event.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join(''))
    .filter(Boolean)
    .map((data) => JSON.parse(data));
}

/** The answer to an MCP request. */
class Reply {
  constructor(status, message, notifications) {
    this.status = status;
    this.message = message;
    this.notifications = notifications;
  }
  get result() {
    return this.message.result ?? {};
  }
  /** A result, and not one that tells of a tool's failure. */
  get ok() {
    return this.message.result !== undefined && !this.result.isError;
  }
  get errorCode() {
    return this.message.error?.code;
  }
  get error() {
    const error = this.message.error ?? '';
    return typeof error === 'string' ? error : error.message;
  }
  get text() {
    return (this.result.content ?? []).filter((part) => part.type === 'text').map((part) => part.text).join('\n');
  }
}

/** Somebody who talks to the gateway: initializes with the first request, keeps the session. */
class User {
  #next = 0;
  #opening;
  #version = VERSION;
  constructor(gateway, id, email, token) {
    Object.assign(this, { gateway, id, email, token, sessionId: undefined });
  }

  /** Goes on in this revision: "2026-07-28" has no session, others begin with a handshake. */
  speak(version) {
    this.#version = version;
    this.sessionId = undefined;
  }

  /** One JSON-RPC message as it is. */
  async post(message, headers = {}) {
    const sent = {
      Authorization: `Bearer ${this.token}`,
      'Content-Type': 'application/json',
      Accept: 'application/json, text/event-stream',
      ...(this.sessionId === undefined ? {} : { 'Mcp-Session-Id': this.sessionId, 'MCP-Protocol-Version': this.#version }),
      ...headers,
    };
    const answer = await this.gateway.handle('POST', '/mcp', { headers: sent, body: JSON.stringify(message) });
    this.sessionId ??= answer.header('Mcp-Session-Id');
    const messages = messagesOf(answer.header('Content-Type') ?? '', answer.text());
    return new Reply(answer.status, messages.at(-1) ?? {}, messages.slice(0, -1));
  }

  async request(method, params = {}) {
    if (this.#version === MODERN) {
      const about = { [`${META}protocolVersion`]: MODERN, [`${META}clientCapabilities`]: {}, [`${META}clientInfo`]: { name: 'test', version: '1' } };
      const named = method === 'resources/read' ? params.uri : params.name;
      return this.post(
        { jsonrpc: '2.0', id: ++this.#next, method, params: { ...params, _meta: { ...about, ...params._meta } } },
        { 'MCP-Protocol-Version': MODERN, 'Mcp-Method': method, ...(named === undefined ? {} : { 'Mcp-Name': headerValue(named) }) },
      );
    }
    if (this.sessionId === undefined) {
      this.#opening ??= this.#initialize();
      const opened = await this.#opening;
      this.#opening = undefined;
      if (this.sessionId === undefined) return opened;
    }
    return this.post({ jsonrpc: '2.0', id: ++this.#next, method, params });
  }

  async #initialize() {
    const opened = await this.post({
      jsonrpc: '2.0',
      id: ++this.#next,
      method: 'initialize',
      params: { protocolVersion: this.#version, capabilities: {}, clientInfo: { name: 'test', version: '1' } },
    });
    if (this.sessionId !== undefined) await this.post({ jsonrpc: '2.0', method: 'notifications/initialized' });
    return opened;
  }

  callTool(name, args = {}) {
    return this.request('tools/call', { name, arguments: args });
  }
  async listTools() {
    return ((await this.request('tools/list')).result.tools ?? []).map((tool) => tool.name);
  }
  /** A REST call with this user's own token. */
  api(method, target, body) {
    const headers = { Authorization: `Bearer ${this.token}`, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) };
    return this.gateway.handle(method, target, { headers, body: body === undefined ? undefined : JSON.stringify(body) });
  }
}

/** A gateway in memory, with what a test author wants. */
export class TestGateway extends Gateway {
  #users = new Map();
  #targets = new Map();

  static create(options, parts) {
    // A storage asks for a key; the same each time, so that a test may begin again on it.
    const ours = parts?.storage ? { encryption: { key: 'a key of tests: it is no secret!' } } : {};
    return super.create({ audit: { sync: true }, ...ours, ...options }, parts);
  }

  /** A server of functions, and the target for it. */
  async server(name, target) {
    const made = new Server(name);
    this.#targets.set(name, (await this.addServer(made, target)).id);
    return made;
  }

  /** The user, made with the first mention; "admin" is an administrator. */
  asUser(name, { role, groups = [] } = {}) {
    if (!this.#users.has(name)) this.#users.set(name, this.#makeUser(name, role, groups));
    return this.#users.get(name);
  }

  async #makeUser(name, role, groups) {
    const email = name.includes('@') ? name : `${name}@example.test`;
    const user = await this.admin('POST', '/api/users', {
      email,
      password: 'a password of tests',
      role: role ?? (name === 'admin' ? 'admin' : 'user'),
      groups,
    });
    const { token } = await this.admin('POST', '/api/auth/tokens', { name: 'test' }, { userId: user.id });
    return new User(this, user.id, email, token);
  }

  /** Lets a user use what matches (nothing given: everything) of a server; gives the policy's id. */
  allow(user, target, pattern) {
    return this.#rule('allow', user, target, pattern);
  }
  /** As allow(), and it comes first. */
  deny(user, target, pattern) {
    return this.#rule('deny', user, target, pattern);
  }

  async #rule(effect, user, target, pattern = '') {
    const made = await this.admin('POST', '/api/policies', {
      name: `${user}: ${effect} ${target ?? 'everything'} ${pattern}`.slice(0, 200),
      effect,
      priority: effect === 'deny' ? 100 : 0,
      resource_pattern: pattern,
      subjects: [{ subject_type: 'user', subject_value: (await this.asUser(user)).id }],
      ...(target === undefined ? {} : { target_id: this.#targets.get(target) }),
    });
    return made.id;
  }

  /** The audit log, newest first. */
  auditRows(filters = {}) {
    return this.admin('GET', `/api/logs?${new URLSearchParams(filters)}`);
  }
}

/** A gateway for a test; close it at the end. */
export const gateway = (options, parts) => TestGateway.create(options, parts);
