// The shared library through koffi. Functions and structs are read from the header, so that both cannot differ.
//
// Callbacks run on the main thread: the library's thread waits meanwhile. A call that may wait for a callback must
// therefore be asynchronous (`wait`), else both would wait for each other.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import koffi from 'koffi';

const near = (path) => fileURLToPath(new URL(path, import.meta.url));

function header() {
  const packed = near('../native/mcpgw.h');
  const text = readFileSync(existsSync(packed) ? packed : near('../../c/include/mcpgw/mcpgw.h'), 'utf8');
  const start = text.indexOf('*/', text.indexOf('[declarations]')) + 2;
  return text.slice(start, text.indexOf('/* [declarations end]')).replace(/\/\*[^]*?\*\//g, '');
}

function library() {
  const packed = near('../native/libmcpgw_c.so');
  return process.env.MCPGW_C_LIBRARY ?? (existsSync(packed) ? packed : 'libmcpgw_c.so.0');
}

/** Bytes go in and come out as addresses; what a function hands out is an array of one. */
function parameters(text) {
  if (text.trim() === 'void') return 'void';
  return text
    .split(',')
    .map((one) => {
      const [, type, name] = /^\s*(.*?)\s*(\w+)\s*$/s.exec(one);
      if (/^(char|mcpgw_\w+) \*\*$/.test(type)) return `_Out_ void **${name}`;
      if (/^(int|size_t) \*$/.test(type)) return `_Out_ ${type}${name}`;
      if (structs.has(type.replace(/^const | \*$/g, ''))) return `${type}${name}`;
      return type.endsWith('*') ? `void *${name}` : `${type} ${name}`;
    })
    .join(', ');
}

const structs = new Map();
const declared = header();
const loaded = koffi.load(library());

koffi.alias('mcpgw_status', 'int');
koffi.alias('mcpgw_log_level', 'int');

/** A callback's parameters are addresses, all of them. */
function prototype(name, result, text) {
  const taken = text.split(',').map((one) => {
    const [, type, parameter] = /^\s*(.*?)\s*(\w+)\s*$/s.exec(one);
    return type.endsWith('*') ? `void *${parameter}` : `${type} ${parameter}`;
  });
  return koffi.pointer(koffi.proto(`${result.trim()} ${name}(${taken.join(', ')})`));
}

for (const [, body, name] of declared.matchAll(/typedef struct mcpgw_\w+ \{([^}]*)\} (mcpgw_\w+);/g)) {
  const members = {};
  for (const member of body.split(';').map((line) => line.trim()).filter(Boolean)) {
    const callback = /^(.*?)\(\*(\w+)\)\(([^]*)\)$/.exec(member);
    if (callback) {
      members[callback[2]] = prototype(`${name}_${callback[2]}`, callback[1], callback[3]);
      continue;
    }
    const [, type, field] = /^(.*?)\s*(\w+)$/s.exec(member);
    const target = type.replace(/^const | \*$/g, '');
    if (type.endsWith('*')) members[field] = structs.has(target) ? koffi.pointer(structs.get(target)) : 'void *';
    else members[field] = type;
  }
  structs.set(name, koffi.struct(name, members));
}

export const lib = {};
for (const [, result, name, text] of declared.matchAll(/^((?:const )?\w+ \*?)(mcpgw_\w+)\(([^)]*)\);/gm)) {
  if (name.startsWith('mcpgw_response') || name === 'mcpgw_gateway_handle') continue; // answers come by callbacks here
  lib[name] = loaded.func(`${result}${name}(${parameters(text)})`);
}

export const sizeOf = (name) => koffi.sizeof(structs.get(name));

/** A function that the library may call, for the life of the process. */
export function callback(struct, member, run, failed) {
  const type = structs.get(struct).members[member].type;
  return koffi.register((...values) => {
    try {
      return run(...values);
    } catch {
      return failed; // nothing may pass the border
    }
  }, type);
}

const STATUS = ['ok', 'invalid_argument', 'unauthenticated', 'permission_denied', 'not_found', 'conflict', 'precondition_failed', 'unavailable', 'deadline_exceeded', 'cancelled', 'resource_exhausted', 'unsupported', 'data_loss', 'internal'];

/** What the library answers with when it cannot do something. */
export class McpgwError extends Error {
  constructor(code, reason, message, field = '') {
    super(message);
    this.name = 'McpgwError';
    this.code = code;
    this.reason = reason;
    this.field = field;
  }
}

/** The bytes at an address, copied. */
export function bytesAt(pointer, size) {
  return pointer === null || size === 0 ? Buffer.alloc(0) : Buffer.from(Buffer.from(koffi.view(pointer, Number(size))));
}

export const textAt = (pointer, size) => bytesAt(pointer, size).toString('utf8');

/** A text that the library gave out, which is freed. */
export function takeText(pointer) {
  try {
    return koffi.decode.string(pointer);
  } finally {
    lib.mcpgw_free(pointer);
  }
}

export const store = (pointer, value) => koffi.encode(pointer, 'void *', value);

export function fail(status, error) {
  if (status === 0) {
    if (error !== null) lib.mcpgw_free(error);
    return;
  }
  const told = error === null ? {} : JSON.parse(takeText(error));
  throw new McpgwError(told.code ?? STATUS[status] ?? 'internal', told.reason ?? 'internal', told.message ?? 'The call failed', told.field);
}

/** Calls a function whose last parameter is out_error. */
export function call(f, ...values) {
  const error = [null];
  fail(f(...values, error), error[0]);
}

/** The same on another thread. */
export function wait(f, ...values) {
  const error = [null];
  return new Promise((resolve, reject) => {
    f.async(...values, error, (failed, status) => {
      try {
        if (failed) throw failed;
        resolve(fail(status, error[0]));
      } catch (caught) {
        reject(caught);
      }
    });
  });
}

/** A function without result, on another thread. */
export function run(f, ...values) {
  return new Promise((resolve, reject) => f.async(...values, (failed) => (failed ? reject(failed) : resolve())));
}

export const text = (value) => {
  const bytes = Buffer.from(value, 'utf8');
  return [bytes, bytes.length];
};

export const json = (value) => (value === undefined || value === null ? [null, 0] : text(JSON.stringify(value)));

export function reply(to, value) {
  lib.mcpgw_reply_set(to, ...text(JSON.stringify(value)));
  return 0;
}

/** The status and reply that tell of an exception. One that is not ours may hold anything: its text is not told. */
export function replyError(to, error) {
  const told = error instanceof McpgwError ? error : new McpgwError('internal', 'callback_failed', 'The callback threw');
  reply(to, { reason: told.reason, message: told.message, field: told.field });
  const status = STATUS.indexOf(told.code);
  return status > 0 ? status : STATUS.indexOf('internal');
}

let last = 0n;
const kept = new Map();
/** An object for user_data; what callbacks get back finds it. */
export function keep(object) {
  kept.set(++last, object);
  return last;
}
export const found = (id) => kept.get(BigInt(id));
export const drop = (id) => kept.delete(BigInt(id));

let holders = 0;
let timer;
/** While somebody holds it the process goes on: a callback must not come to an interpreter that has gone. */
export function hold() {
  if (holders++ === 0) timer = setInterval(() => {}, 2 ** 30);
}
export function release() {
  if (--holders === 0) clearInterval(timer);
}
