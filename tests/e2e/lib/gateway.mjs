// Starts the mcpgw program in a directory of its own and talks to its REST API.
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
export const MCPGW = process.env.MCPGW ?? path.join(root, 'build/dev/apps/mcpgw/mcpgw');
export const DEMO = process.env.DEMO_UPSTREAM ?? path.join(root, 'build/dev/examples/demo_upstream/demo_upstream');
export const PASSWORD = 'a password of the tests';

/** Fails when `promise` is not settled in time: a hanging test should say what it waited for. */
export function within(ms, what, promise) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out after ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

/** Asks again until `probe` gives something truthy. */
export async function eventually(what, probe, ms = 45000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`timed out after ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Whether a process is there. */
export function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** The ids of all processes that `pid` has started, directly or not. */
export async function descendants(pid) {
  const parents = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const stat = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '');
    parents.push([Number(entry), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])]);
  }
  const found = [pid];
  for (const parent of found) found.push(...parents.filter(([, of]) => of === parent).map(([child]) => child));
  return found.slice(1);
}

/** Removed when the tests have ended. */
export async function temporaryDirectory() {
  const directory = await mkdtemp(path.join(tmpdir(), 'mcpgw-e2e-'));
  directories.push(directory);
  return directory;
}

// A test that fails half way must leave nothing behind, nor wait for its processes.
const children = new Set();
const directories = [];
after(async () => {
  for (const child of children) child.kill('SIGKILL');
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
  // Nor does the file for a server of its own that it left open: what it has to tell has been told by then.
  setTimeout(() => process.exit(), 5000).unref();
});

/** A child process whose lines are kept, with an `exit` promise of {code, signal}. */
export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  children.add(child);
  child.on('close', () => children.delete(child));
  const lines = [];
  const waiting = new Set();
  const see = (line) => {
    lines.push(line);
    for (const check of waiting) check(line);
  };
  createInterface({ input: child.stdout }).on('line', see);
  createInterface({ input: child.stderr }).on('line', see);
  const exit = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  exit.catch(() => {});
  /** The first line, past or to come, for which `match` returns something. */
  const line = (what, match, ms = 20000) => {
    for (const old of lines) {
      const value = match(old);
      if (value) return Promise.resolve(value);
    }
    return within(ms, what, new Promise((resolve, reject) => {
      const check = (text) => {
        const value = match(text);
        if (!value) return;
        waiting.delete(check);
        resolve(value);
      };
      waiting.add(check);
      exit.then(({ code, signal }) => reject(new Error(
        `${command} ended with ${code ?? signal} before: ${what}\n${lines.slice(-20).join('\n')}`)), reject);
    }));
  };
  const stop = async (signal = 'SIGTERM') => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    return within(30000, `end of ${command}`, exit);
  };
  return { child, lines, exit, line, stop };
}

/** Runs the program to its end; `input` goes to its standard input. */
export async function run(args, { cwd, input = '', env } = {}) {
  const child = spawn(MCPGW, args, { cwd, env: env ?? process.env });
  let stdout = '', stderr = '';
  child.stdout.on('data', (data) => { stdout += data; });
  child.stderr.on('data', (data) => { stderr += data; });
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const code = await within(30000, `mcpgw ${args.join(' ')}`,
    new Promise((resolve, reject) => { child.on('close', resolve); child.on('error', reject); }));
  return { code, stdout, stderr };
}

function jsonLine(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

export class Gateway {
  /** `config` is YAML; `directory` continues an earlier gateway's data. */
  static async start({ config = 'upstream:\n  allow_private: true\n', directory, args = ['--port', '0'], env } = {}) {
    const gateway = new Gateway();
    gateway.directory = directory ?? await temporaryDirectory();
    if (config !== null) await writeFile(path.join(gateway.directory, 'mcpgw.yaml'), config);
    gateway.process = start(MCPGW, ['serve', ...args], { cwd: gateway.directory, env: { ...process.env, ...env } });
    const listening = await gateway.log('listening');
    gateway.url = listening.url;
    return gateway;
  }

  /** The first log line with this message (and these members). */
  log(message, members = {}, ms) {
    return this.process.line(`log line "${message}"`, (line) => {
      const event = jsonLine(line);
      return event && event.message === message &&
        Object.entries(members).every(([name, value]) => event[name] === value) ? event : null;
    }, ms);
  }

  /** Everything it has logged so far. */
  get logText() {
    return this.process.lines.join('\n');
  }

  stop(signal) {
    return this.process.stop(signal);
  }

  /** A request to the REST API: {status, body, headers}. */
  async api(method, route, body, token = this.adminToken) {
    const headers = { 'Content-Type': 'application/json' };
    if (token) headers.Authorization = `Bearer ${token}`;
    const response = await fetch(this.url + route,
      { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text ? JSON.parse(text) : null };
  }

  /** The same, which must succeed; gives the body. */
  async ask(method, route, body, token) {
    const answer = await this.api(method, route, body, token);
    if (answer.status >= 300) throw new Error(`${method} ${route}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  /** The first user of a new gateway: the admin. */
  async registerAdmin() {
    const made = await this.ask('POST', '/api/auth/register', { email: 'admin@example.test', password: PASSWORD }, null);
    this.adminToken = made.token;
    this.admin = made.user;
    return made;
  }

  /** A user with an API token: {user, token}. */
  async addUser(name, { role = 'user', groups = [] } = {}) {
    const email = `${name}@example.test`;
    const user = await this.ask('POST', '/api/users', { email, password: PASSWORD, role, groups });
    const login = await this.ask('POST', '/api/auth/login', { email, password: PASSWORD }, null);
    const minted = await this.ask('POST', '/api/auth/tokens', { name: 'e2e' }, login.token);
    return { user, email, token: minted.token };
  }

  addTarget(name, members) {
    return this.ask('POST', '/api/targets', { name, ...members });
  }

  /** Allows one user a target's items; `pattern` and `type` narrow it. */
  allow(user, target, { type = 'all', pattern, effect = 'allow', priority = 0 } = {}) {
    return this.ask('POST', '/api/policies', {
      name: `${user.email} ${effect} ${target.name} ${pattern ?? ''}`,
      target_id: target.id, resource_type: type, resource_pattern: pattern, effect, priority,
      subjects: [{ subject_type: 'user', subject_value: user.user.id }],
    });
  }
}
