// Runs the official suite (npm @modelcontextprotocol/conformance) and reads what it found.
import { spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { temporaryDirectory } from '../../e2e/lib/gateway.mjs';

const modules = fileURLToPath(new URL('../node_modules/', import.meta.url));
const SUITE = path.join(modules, '@modelcontextprotocol/conformance');
/** Node.js of a version that the suite asks for. */
export const NODE = path.join(modules, '.bin/node');

/** The scenarios of a revision: {server: [...], client: [...], notScored: {server: [...], client: [...]}}. */
export async function requirements(revision) {
  const set = parse(await readFile(path.join(SUITE, 'requirements', `${revision}.yaml`), 'utf8'));
  const notScored = (leg) => set.not_scored.filter((one) => one.leg === leg).map((one) => one.scenario);
  return { server: set.server, client: set.client, notScored: { server: notScored('server'), client: notScored('client') } };
}

/** Runs the suite with `args`: {checks: scenario -> [check], output, code}. */
async function suite(args, { env = {}, ms }) {
  const directory = await temporaryDirectory();
  const child = spawn(NODE, [path.join(SUITE, 'dist/index.js'), ...args, '--output-dir', directory],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { output += data; });
  const limit = setTimeout(() => {
    output += `\nended after ${ms} ms\n`;
    child.kill('SIGKILL');
  }, ms);
  const code = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  }).finally(() => clearTimeout(limit));
  const checks = new Map();
  for (const name of await readdir(directory)) {
    const scenario = /^(?:server-)?(.*)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(name)?.[1];
    if (!scenario) continue;
    const text = await readFile(path.join(directory, name, 'checks.json'), 'utf8').catch(() => null);
    if (text) checks.set(scenario, JSON.parse(text));
  }
  return { checks, output, code };
}

/** All scenarios of a revision against a server. */
export function testServer(url, revision, ms = 120000) {
  return suite(['server', '--url', url, '--requirements', revision], { ms });
}

/** One scenario against a client, which `command` starts. */
export function testClient(command, scenario, revision, ms = 60000) {
  return suite(['client', '--command', command, '--scenario', scenario, '--spec-version', revision,
    '--timeout', String(ms - 10000)], { ms });
}

/** A check that says yes or no. */
export const judges = (check) => check.status === 'SUCCESS' || check.status === 'FAILURE' || check.status === 'WARNING';

/** Whether a scenario's checks, as the suite counts them, make it passed. */
export const passed = (checks) => checks !== undefined && checks.length > 0 && checks.every((check) => check.status !== 'FAILURE');

/** Runs `tasks`, at most `width` of them at a time; gives their values in order. */
export async function few(width, tasks) {
  const values = [];
  let next = 0;
  await Promise.all(Array.from({ length: width }, async () => {
    while (next < tasks.length) {
      const mine = next++;
      values[mine] = await tasks[mine]();
    }
  }));
  return values;
}
