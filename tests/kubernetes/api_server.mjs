// A double of the Kubernetes API server, as far as the gateway needs one: it keeps objects of one namespace or more,
// checks them strictly, and serves list, watch, server-side apply, merge patches and deletion over HTTP on loopback. It makes nothing happen by itself: that is the simulated cluster's part (cluster.mjs), as it is the
// controllers' and the kubelet's in a real one.
import { randomBytes, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { DeleteOptions, faults, furtherFaults, KINDS } from './schemas.mjs';

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const clone = (value) => structuredClone(value);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const now = () => new Date().toISOString().replace(/\.\d+Z/, 'Z');
const REASONS = { 400: 'BadRequest', 401: 'Unauthorized', 403: 'Forbidden', 404: 'NotFound', 405: 'MethodNotAllowed', 409: 'Conflict',
  410: 'Expired', 415: 'UnsupportedMediaType', 422: 'Invalid', 429: 'TooManyRequests', 500: 'InternalError' };

class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}
const status = (code, message) => ({ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason: REASONS[code] ?? 'Unknown', code });

function merged(base, patch) {  // RFC 7386
  if (!isObject(patch)) return clone(patch);
  const out = isObject(base) ? { ...base } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete out[name];
    else out[name] = merged(out[name], value);
  }
  return out;
}

/** Paths of an applied object's leaves: lists are one leaf each. */
function leaves(value, path = []) {
  if (!isObject(value) || Object.keys(value).length === 0) return [path];
  return Object.entries(value).flatMap(([name, one]) => leaves(one, [...path, name]));
}
const valueAt = (value, path) => path.reduce((at, name) => (isObject(at) ? at[name] : undefined), value);
function put(value, path, leaf) {
  let at = value;
  for (const name of path.slice(0, -1)) at = at[name] = isObject(at[name]) ? at[name] : {};
  at[path.at(-1)] = clone(leaf);
}
function drop(value, path) {
  const holder = valueAt(value, path.slice(0, -1));
  if (isObject(holder)) delete holder[path.at(-1)];
}

export class ApiServer {
  adminToken = randomBytes(16).toString('hex');
  bookmarkEvery = 500;
  #tokens = new Map();  // token -> role: null may do everything, or Map "resource" -> Set of verbs
  #objects = new Map();
  #managers = new Map();  // object key -> Map manager -> [paths]
  #version = 1000;
  #history = [];
  #compacted = 1000;
  #watches = new Set();
  #sockets = new Set();

  static async start() {
    const api = new ApiServer();
    api.#tokens.set(api.adminToken, null);
    api.server = http.createServer((request, response) => api.#handle(request, response));
    api.server.on('connection', (socket) => {
      api.#sockets.add(socket);
      socket.on('close', () => api.#sockets.delete(socket));
      socket.on('error', () => {});
    });
    await new Promise((resolve) => api.server.listen(0, '127.0.0.1', resolve));
    api.url = `http://127.0.0.1:${api.server.address().port}`;
    return api;
  }
  async stop() {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Keeps the Role of docs/kubernetes. */
  async prepare(manifests) {
    this.role = rightsOf(await readFile(new URL('rbac.yaml', manifests), 'utf8'));
  }
  /** A token of the gateway's service account. */
  async mint() {
    return this.#token(this.role);
  }
  /** A token of an account that may do what the rules say. */
  async limited(name, rules) {
    return this.#token(new Map(rules.flatMap((rule) => rule.resources.map((resource) => [resource, new Set(rule.verbs)]))));
  }
  #token(role) {
    const token = randomBytes(16).toString('hex');
    this.#tokens.set(token, role);
    return token;
  }

  // --- requests ---------------------------------------------------------------------------------------------
  async #handle(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const url = new URL(request.url, 'http://api');
    const answer = (code, body) => {
      if (response.destroyed) return;
      response.writeHead(code, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
    };
    try {
      const role = this.#tokens.get((request.headers.authorization ?? '').replace(/^Bearer /, ''));
      if (role === undefined) throw new Refusal(401, 'Unauthorized');
      const match = /^\/(?:api\/v1|apis\/(apps|coordination\.k8s\.io)\/v1)\/namespaces\/([^/]+)\/([a-z]+)(?:\/([^/]+)(?:\/(status))?)?$/.exec(url.pathname);
      const kind = match && KINDS[match[3]];
      const group = kind?.apiVersion.includes('/') ? kind.apiVersion.split('/')[0] : undefined;
      if (!kind || match[1] !== group) throw new Refusal(404, 'the server could not find the requested resource');
      const [, , namespace, resource, name, sub] = match;
      const verb = { GET: name ? 'get' : url.searchParams.get('watch') === 'true' ? 'watch' : 'list', POST: 'create', PUT: 'update', PATCH: 'patch', DELETE: 'delete' }[request.method];
      const allow = (what) => {
        if (role !== null && !role.get(resource)?.has(what))
          throw new Refusal(403, `${resource} is forbidden: the service account cannot ${what} resource "${resource}"`);
      };
      allow(verb);
      if (verb === 'watch') return this.#watch(resource, namespace, url.searchParams, response);
      const text = Buffer.concat(chunks).toString('utf8');
      const [code, body] = this.#act({ verb, resource, namespace, name, sub, query: url.searchParams, type: request.headers['content-type'] ?? '', text, allow });
      answer(code, body);
    } catch (error) {
      if (!(error instanceof Refusal)) console.error(error);
      answer(error.code ?? 500, status(error.code ?? 500, error.message));
    }
  }

  #act({ verb, resource, namespace, name, sub, query, type, text, allow }) {
    const key = `${resource}/${namespace}/${name}`;
    const old = this.#objects.get(key);
    const missing = () => { throw new Refusal(404, `${resource} "${name}" not found`); };
    if (verb === 'list') {
      const limit = Number(query.get('limit') ?? 0) || Infinity;
      const all = this.#selected(resource, namespace, query.get('labelSelector'));
      const from = Number(query.get('continue') ?? 0);
      const items = all.slice(from, from + limit);
      return [200, { kind: `${KINDS[resource].kind}List`, apiVersion: KINDS[resource].apiVersion, items,
        metadata: { resourceVersion: String(this.#version), ...(from + limit < all.length ? { continue: String(from + limit) } : {}) } }];
    }
    if (verb === 'get') return old ? [200, clone(old)] : missing();
    if (verb === 'delete') {
      const options = text ? this.#json(text) : {};
      if (text && type !== 'application/json') throw new Refusal(415, 'the body of the request was in an unknown format');
      const wrong = faults(options, DeleteOptions);
      if (wrong.length) throw new Refusal(400, wrong.join('; '));
      if (!old) missing();
      for (const member of ['uid', 'resourceVersion'])
        if (options.preconditions?.[member] && options.preconditions[member] !== old.metadata[member])
          throw new Refusal(409, `the ${member} in the precondition does not match`);
      if (options.propagationPolicy === 'Foreground') {
        // It stays until the garbage collector has ended what it owns and takes the finalizer back.
        const ending = clone(old);
        Object.assign(ending.metadata, { deletionTimestamp: old.metadata.deletionTimestamp ?? now(), deletionGracePeriodSeconds: 0, finalizers: ['foregroundDeletion'] });
        return [200, this.#store(resource, namespace, name, ending, old)];
      }
      this.#remove(key, resource);
      return [200, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details: { name, uid: old.metadata.uid } }];
    }
    if (!['apply', 'create', 'update', 'patch'].includes(verb)) throw new Refusal(405, 'method not allowed');
    const manager = query.get('fieldManager');
    const given = this.#json(text);
    if (verb === 'create') {
      if (type !== 'application/json') throw new Refusal(415, 'unknown format');
      if (given.metadata?.resourceVersion) throw new Refusal(400, 'resourceVersion should not be set on objects to be created');
      if (this.#objects.has(`${resource}/${namespace}/${given.metadata?.name}`)) throw new Refusal(409, `${resource} "${given.metadata.name}" already exists`);
      return [201, this.#store(resource, namespace, given.metadata?.name, given, undefined, sub)];
    }
    if (verb === 'update') {
      if (type !== 'application/json') throw new Refusal(415, 'unknown format');
      if (!old) missing();
      return [200, this.#store(resource, namespace, name, given, old, sub)];
    }
    if (type === 'application/merge-patch+json') {
      if (!old) missing();
      return [200, this.#store(resource, namespace, name, merged(old, given), old, sub)];
    }
    if (type !== 'application/apply-patch+yaml') throw new Refusal(415, `the body of the request was in an unknown format - accepted media types include: application/merge-patch+json, application/apply-patch+yaml`);
    if (!manager) throw new Refusal(422, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch');
    if (given.metadata?.managedFields) throw new Refusal(400, 'metadata.managedFields must be nil');
    if (!old) allow('create');
    return [old ? 200 : 201, this.#apply(resource, namespace, name, given, old, manager, query.get('force') === 'true')];
  }

  #json(text) {
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      throw new Refusal(400, 'the object provided is unrecognized');
    }
    if (!isObject(value)) throw new Refusal(400, 'the object provided is unrecognized');
    return value;
  }

  #apply(resource, namespace, name, given, old, manager, force) {
    const key = `${resource}/${namespace}/${name}`;
    const managers = this.#managers.get(key) ?? new Map();
    const paths = leaves(given).filter(([first, second]) => first !== 'apiVersion' && first !== 'kind' && !(first === 'metadata' && ['name', 'namespace'].includes(second)));
    const result = clone(old ?? { apiVersion: given.apiVersion, kind: given.kind, metadata: {} });
    for (const member of ['apiVersion', 'kind'])
      if (given[member] !== KINDS[resource][member]) throw new Refusal(400, `${member} must be ${KINDS[resource][member]}`);
    for (const path of paths) {
      const id = JSON.stringify(path);
      if (isObject(valueAt(given, path)) && isObject(valueAt(result, path))) continue;  // {} takes nothing from others
      const rival = [...managers].find(([other, owned]) => other !== manager && owned.has(id));
      if (rival && !same(valueAt(old, path), valueAt(given, path))) {
        if (!force) throw new Refusal(409, `Apply failed with 1 conflict: conflict with "${rival[0]}": .${path.join('.')}`);
        rival[1].delete(id);
      }
      put(result, path, valueAt(given, path));
    }
    const wanted = new Set(paths.map((path) => JSON.stringify(path)));
    for (const id of managers.get(manager) ?? [])
      if (!wanted.has(id) && !isObject(valueAt(result, JSON.parse(id))) && ![...managers].some(([other, owned]) => other !== manager && owned.has(id))) drop(result, JSON.parse(id));
    result.metadata.name = given.metadata?.name;
    if (given.metadata?.namespace) result.metadata.namespace = given.metadata.namespace;
    const stored = this.#store(resource, namespace, name, result, old, undefined, true);
    managers.set(manager, wanted);
    this.#managers.set(key, managers);
    return stored;
  }

  /** Checks and keeps; gives what is stored. */
  #store(resource, namespace, name, given, old, sub, applied = false) {
    const { schema, kind, apiVersion, status: hasStatus } = KINDS[resource];
    const next = clone(given);
    if (old && next.metadata?.uid && next.metadata.uid !== old.metadata.uid) throw new Refusal(422, `metadata.uid: Invalid value: "${next.metadata.uid}": field is immutable`);
    if (old && next.metadata?.resourceVersion && next.metadata.resourceVersion !== old.metadata.resourceVersion)
      throw new Refusal(409, `Operation cannot be fulfilled on ${resource} "${name}": the object has been modified`);
    const wrong = faults(next, schema);
    if (next.kind !== kind || next.apiVersion !== apiVersion) wrong.push(`kind must be ${apiVersion} ${kind}`);
    // What cannot be read is an error of the request, or one of the server when it was to be applied: so a real one answers.
    const unreadable = wrong.some((one) => /^unknown field|must be (a list|an object|string|boolean|integer|time|microtime|quantity|intOrString|base64)$/.test(one));
    if (wrong.length) throw new Refusal(unreadable ? (applied ? 500 : 400) : 422, `${kind} "${name}" is invalid: ${wrong.join('; ')}`);
    if (next.metadata.name !== name) throw new Refusal(400, 'the name of the object does not match the name on the URL');
    if (next.metadata.namespace && next.metadata.namespace !== namespace) throw new Refusal(400, 'the namespace of the object does not match the namespace on the request');
    const further = furtherFaults(resource, next);
    if (old && resource === 'deployments' && !same(next.spec.selector, old.spec.selector)) further.push('spec.selector: Invalid value: field is immutable');
    if (old && resource === 'secrets' && old.immutable && (!same(next.data, old.data) || !next.immutable)) further.push('data: Forbidden: field is immutable when `immutable` is set');
    if (further.length) throw new Refusal(422, `${kind} "${name}" is invalid: ${further.join('; ')}`);
    if (hasStatus && !old) delete next.status;
    if (hasStatus && old) {
      if (sub === 'status') Object.assign(next, { spec: clone(old.spec) });
      else if (old.status) next.status = clone(old.status);
      else delete next.status;
    }
    next.metadata = { ...next.metadata, namespace, uid: old?.metadata.uid ?? randomUUID(),
      creationTimestamp: old?.metadata.creationTimestamp ?? now(), resourceVersion: old?.metadata.resourceVersion ?? '' };
    if (resource === 'deployments' || resource === 'pods')
      next.metadata.generation = (old?.metadata.generation ?? 0) + (old && same(next.spec, old.spec) ? 0 : 1);
    if (old && same(sorted(next), sorted(old))) return clone(old);
    if (old?.metadata.deletionTimestamp && !next.metadata.finalizers?.length) {
      this.#remove(`${resource}/${namespace}/${name}`, resource);
      return next;
    }
    next.metadata.resourceVersion = String(++this.#version);
    this.#objects.set(`${resource}/${namespace}/${name}`, next);
    this.#happened(old ? 'MODIFIED' : 'ADDED', resource, next);
    return clone(next);
  }

  #remove(key, resource) {
    const object = this.#objects.get(key);
    this.#objects.delete(key);
    this.#managers.delete(key);
    this.#happened('DELETED', resource, { ...object, metadata: { ...object.metadata, resourceVersion: String(++this.#version) } });
  }

  // --- watches ----------------------------------------------------------------------------------------------
  #matcher(selector) {
    const parts = (selector ?? '').split(',').filter(Boolean).map((part) => /^([^=!]+)==?([^=]*)$/.exec(part));
    if (parts.includes(null)) throw new Refusal(400, `unable to parse requirement: ${selector}`);
    return (object) => parts.every(([, name, value]) => object.metadata.labels?.[name] === value);
  }
  #selected(resource, namespace, selector) {
    const matches = this.#matcher(selector);
    return [...this.#objects].filter(([key, object]) => key.startsWith(`${resource}/${namespace}/`) && matches(object)).map(([, object]) => clone(object));
  }

  #happened(type, resource, object) {
    const event = { type, resource, object: clone(object), version: Number(object.metadata.resourceVersion) };
    this.#history.push(event);
    for (const watch of this.#watches) watch.offer(event);
  }

  #watch(resource, namespace, query, response) {
    const matches = this.#matcher(query.get('labelSelector'));
    const from = Number(query.get('resourceVersion') ?? 0);
    response.writeHead(200, { 'Content-Type': 'application/json', 'Transfer-Encoding': 'chunked' });
    const watch = {
      response,
      send: (type, object) => response.write(`${JSON.stringify({ type, object })}\n`),
      offer: (event) => {
        if (event.resource === resource && event.object.metadata.namespace === namespace && matches(event.object)) watch.send(event.type, event.object);
      },
    };
    if (from < this.#compacted) {
      watch.send('ERROR', status(410, `too old resource version: ${from} (${this.#compacted})`));
      return response.end();
    }
    for (const event of this.#history) if (event.version > from) watch.offer(event);
    this.#watches.add(watch);
    const bookmarks = query.get('allowWatchBookmarks') === 'true' && setInterval(() => watch.send('BOOKMARK',
      { kind: KINDS[resource].kind, apiVersion: KINDS[resource].apiVersion, metadata: { resourceVersion: String(this.#version) } }), this.bookmarkEvery);
    const end = setTimeout(() => response.end(), 1000 * Number(query.get('timeoutSeconds') ?? 1800));
    response.on('close', () => {
      this.#watches.delete(watch);
      clearInterval(bookmarks);
      clearTimeout(end);
    });
    response.flushHeaders();
  }
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, one]) => [name, sorted(one)]));
}

/** The rights of a Role as docs/kubernetes/rbac.yaml has it: "resource" -> Set of verbs. Its rules are one line a list. */
export function rightsOf(yaml) {
  const out = new Map();
  const rules = [...yaml.matchAll(/- apiGroups: \[(.*)\]\n\s+resources: \[(.*)\]\n\s+verbs: \[(.*)\]/g)];
  if (rules.length === 0) throw new Error('no rules in the Role');
  const words = (text) => text.split(',').map((word) => word.trim().replace(/^"|"$/g, ''));
  for (const [, , resources, verbs] of rules)
    for (const resource of words(resources)) out.set(resource, new Set(words(verbs)));
  return out;
}
