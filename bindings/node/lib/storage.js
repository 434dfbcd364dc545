// Storage in JavaScript. Its methods answer at once, not by a promise: the library's thread waits for them.
import { McpgwError, call, callback, drop, found, json, keep, lib, reply, replyError, sizeOf, textAt, wait } from './native.js';

const KIND = 'mcpgw_storage_callbacks';

const answering = (run) => (...values) => {
  const to = values.at(-1);
  try {
    return run(...values);
  } catch (error) {
    return replyError(to, error);
  }
};

let callbacks;
function table() {
  callbacks ??= {
    struct_size: sizeOf(KIND),
    get: callback(KIND, 'get', answering((id, c, n, k, m, to) => reply(to, found(id).get(textAt(c, n), textAt(k, m)) ?? null)), 13),
    list: callback(
      KIND,
      'list',
      answering((id, c, n, p, m, a, k, limit, to) => reply(to, found(id).list(textAt(c, n), textAt(p, m), textAt(a, k), Number(limit)))),
      13,
    ),
    commit: callback(
      KIND,
      'commit',
      answering((id, text, size, to) => reply(to, found(id).commit(JSON.parse(textAt(text, size))))),
      13,
    ),
    ping: callback(
      KIND,
      'ping',
      answering((id, to) => {
        found(id).ping();
        return 0;
      }),
      13,
    ),
    destroy: callback(KIND, 'destroy', (id) => void drop(id)),
  };
  return callbacks;
}

const handles = new WeakMap();
const registry = new FinalizationRegistry((handle) => lib.mcpgw_storage_free.async(handle, () => {}));

export class Storage {
  ping() {}

  /** Tells that another process has written; without changes: something may have been missed. */
  changed(changes = []) {
    return wait(lib.mcpgw_storage_changed, handleOf(this), ...json(changes));
  }
}

export function handleOf(storage) {
  if (storage === undefined || storage === null) return null;
  if (!handles.has(storage)) {
    const out = [null];
    const id = keep(storage);
    try {
      call(lib.mcpgw_storage_create, { ...table(), user_data: id }, out);
    } catch (error) {
      drop(id);
      throw error;
    }
    handles.set(storage, out[0]);
    registry.register(storage, out[0]);
  }
  return handles.get(storage);
}

export const versionConflict = (operation) =>
  new McpgwError('conflict', 'version_conflict', 'The record has another version', `${operation.collection}/${operation.key}`);
