// Audit rows where they go: the database, exported lines, the command line; and what becomes of them when the
// disk is full or the process is killed.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, readFile, rename, stat } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { eventually, Gateway, MCPGW, start } from '../e2e/lib/gateway.mjs';
import { demoStdio } from '../e2e/lib/upstreams.mjs';

async function withUser(config, directory) {
  const gateway = await Gateway.start({ config, directory });
  await gateway.registerAdmin();
  const alice = await gateway.addUser('alice');
  await gateway.allow(alice, await gateway.addTarget('demo', demoStdio));
  const session = await openSession(gateway, alice.token);
  let id = 0;
  const call = async (text) => JSON.parse(lastMessage(await post(gateway, alice.token,
    { jsonrpc: '2.0', id: id += 1, method: 'tools/call', params: { name: 'echo', arguments: { text } } }, { session })));
  return { gateway, alice, call };
}

const lines = (text) => text.split('\n').filter(Boolean).map((line) => JSON.parse(line));

async function total(gateway, query = '') {
  return Number((await gateway.api('GET', `/api/logs?limit=1${query}`)).headers.get('x-total-count'));
}

describe('audit', { timeout: 180000 }, () => {
  test('rows are exported as the API tells them, to a file that rotates and that others may move', async () => {
    const { gateway, call } = await withUser('audit: {export: rows.jsonl, export_max_bytes: 64KiB, export_keep: 2}\n');
    const file = path.join(gateway.directory, 'rows.jsonl');
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    await call('canary\nof several lines');
    const wanted = await eventually('the row is stored', async () =>
      (await gateway.ask('GET', '/api/logs?limit=1&method=tools/call'))[0]);
    const row = await eventually('the row is exported', async () =>
      lines(await readFile(file, 'utf8')).find((one) => one.id === wanted.id));
    assert.deepEqual(row, wanted);

    await rename(file, `${file}.moved`);
    await call('after the move');
    await eventually('a new file', async () =>
      lines(await readFile(file, 'utf8').catch(() => '')).some((one) => one.method === 'tools/call'));
    for (let i = 0; i < 60; i += 1) await call('x'.repeat(5000));
    await eventually('all rows are stored', async () => (await total(gateway, '&method=tools/call')) === 62);
    await gateway.stop();
    const names = (await readdir(gateway.directory)).filter((name) => name.startsWith('rows.jsonl')).sort();
    assert.deepEqual(names, ['rows.jsonl', 'rows.jsonl.1', 'rows.jsonl.2', 'rows.jsonl.moved']);
    const kept = [];
    for (const name of names) {
      const text = await readFile(path.join(gateway.directory, name), 'utf8');
      kept.push(...lines(text).map((one) => one.id));
    }
    assert.equal(new Set(kept).size, kept.length, 'no row twice');
  });

  test('rows are exported to standard output and to syslog', async () => {
    const { gateway, call } = await withUser('audit: {export: stdout}\n');
    await call('x');
    await eventually('a row on standard output', () => gateway.process.lines.some((line) => {
      const row = JSON.parse(line);
      return row.kind === 'mcp' && row.method === 'tools/call' && row.response_status === 200;
    }));
    await gateway.stop();

    const { Server } = await import('./syslog.mjs');
    const daemon = await Server.start();
    const second = await withUser(`audit: {export: 'syslog:${daemon.path}'}\n`);
    await second.call('x');
    const message = await daemon.first((text) => text.includes('"method":"tools/call"'));
    const [, json] = /^<86>mcpgw\[\d+\]: (\{.*\})$/s.exec(message);
    assert.equal(JSON.parse(json).target_name, 'demo');
    // A daemon that is away holds rows back, and loses none.
    await daemon.stop();
    await second.call('y');
    await eventually('the gateway says so', async () => (await second.gateway.api('GET', '/ready')).status === 503);
    await daemon.restart();
    await eventually('it is ready again', async () => (await second.gateway.api('GET', '/ready')).status === 200);
    const ids = daemon.messages.filter((text) => text.includes('"method":"tools/call"'))
      .map((text) => JSON.parse(text.slice(text.indexOf('{'))).id);
    assert.equal(ids.length, 2);
    assert.equal(new Set(ids).size, 2);
    await second.gateway.stop();
    await daemon.stop();
  });

  test('a full disk is told, and costs no row', async () => {
    const { gateway, call } = await withUser('audit: {export: /dev/full}\n');
    const ready = await eventually('the gateway says so', async () => {
      const answer = await gateway.api('GET', '/ready');
      return answer.status === 503 ? answer : null;
    });
    assert.equal(ready.body.checks.disk, 'audit rows cannot be stored');
    assert.equal((await gateway.api('GET', '/health')).status, 200);
    await gateway.log('audit rows cannot be stored; they are kept and tried again', { level: 'error' });
    assert.ok((await call('x')).result, 'calls go on while there is room');
    const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
    assert.match(metrics, /^mcpgw_audit_failing 1$/m);
    assert.ok(Number(/^mcpgw_audit_queue_depth (\d+)$/m.exec(metrics)[1]) > 0);
    assert.ok(Number(/^mcpgw_storage_errors_total\{op="audit_append"\} (\d+)$/m.exec(metrics)[1]) > 0);
    await gateway.stop();
    assert.ok(gateway.logText.includes('audit rows are lost'), 'what is lost at the end is told');
  });

  test('with audit.sync a killed gateway has lost nothing that it answered', async () => {
    const { gateway, alice, call } = await withUser('audit: {sync: true}\n');
    let answered = 0;
    const workers = Array.from({ length: 4 }, async () => {
      for (;;) {
        const answer = await call('x').catch(() => null);
        if (!answer?.result) return;
        answered += 1;
      }
    });
    await eventually('some answers', () => answered > 50);
    gateway.process.child.kill('SIGKILL');
    await Promise.all(workers);
    await gateway.process.exit;
    const again = await Gateway.start({ config: 'audit: {sync: true}\n', directory: gateway.directory });
    again.adminToken = gateway.adminToken;
    const stored = await total(again, `&method=tools/call&user_id=${alice.user.id}&status=ok`);
    assert.ok(stored >= answered, `${answered} answered, ${stored} stored`);
    await again.stop();
  });

  test('without it a killed gateway loses at most the last moment', async () => {
    const { gateway, alice, call } = await withUser('audit: {sync: false}\n');
    // Rows are stored 50 ms after they are made; a loaded machine may take longer, but no more than this.
    const WINDOW_MS = 2000;
    const answered = [];
    const end = Date.now() + 2 * WINDOW_MS;
    let killed = 0;
    const workers = Array.from({ length: 4 }, async () => {
      for (;;) {
        const answer = await call('x').catch(() => null);
        if (!answer?.result) return;
        answered.push(Date.now());
        if (Date.now() > end && !killed) {
          killed = Date.now();
          gateway.process.child.kill('SIGKILL');
        }
      }
    });
    await Promise.all(workers);
    await gateway.process.exit;
    const again = await Gateway.start({ config: '{}\n', directory: gateway.directory });
    again.adminToken = gateway.adminToken;
    const stored = await total(again, `&method=tools/call&user_id=${alice.user.id}&status=ok`);
    const old = answered.filter((time) => time < killed - WINDOW_MS).length;
    assert.ok(old > 50, `${old} calls were answered before the window`);
    assert.ok(stored >= old, `${answered.length} answered, ${old} of them before the window, ${stored} stored`);
    await again.stop();
  });

  test('R71: a database that cannot grow is told, and costs no row: what is full may be emptied', async () => {
    for (const sync of [false, true]) {
      const { gateway, alice, call } = await withUser(`audit: {sync: ${sync}}\n`);
      const limit = (bytes) => promisify(execFile)('prlimit', ['--pid', String(gateway.process.child.pid), `--fsize=${bytes}:`]);
      const stored = () => total(gateway, `&method=tools/call&user_id=${alice.user.id}&status=ok`);
      assert.ok((await call('before')).result);
      await eventually('a row', async () => (await stored()) === 1);
      // As a full disk: no file of this process may grow any more.
      await limit(1);
      let answered = 1;
      const ready = await eventually('the gateway says so', async () => {
        const answer = await call('meanwhile').catch(() => null);
        if (answer?.result) answered += 1;
        const state = await gateway.api('GET', '/ready');
        return state.status === 503 ? state : null;
      });
      assert.equal(ready.body.checks.disk, 'audit rows cannot be stored');
      assert.equal((await gateway.api('GET', '/health')).status, 200);
      if (sync) {
        assert.equal(answered, 1, 'nothing is answered that has no row');
        assert.equal((await gateway.api('POST', '/api/policies', { name: 'p', effect: 'deny', subjects: [{ type: 'everyone' }] })).status, 503);
      } else {
        assert.ok((await call('x')).result, 'calls go on while there is room');
        answered += 1;
      }
      await limit('unlimited');
      await eventually('it is ready again', async () => (await gateway.api('GET', '/ready')).status === 200, 30000);
      assert.ok((await call('after')).result);
      answered += 1;
      await eventually('every answered call has its row', async () => (await stored()) >= answered);
      await gateway.stop();
    }
  });

  test('mcpgw logs -f follows what happens, each row once', async () => {
    const { gateway, call } = await withUser('{}\n');
    const follow = start(MCPGW, ['logs', '-f', '--json'], { cwd: gateway.directory });
    await follow.line('what has been so far', (line) => line.includes('/api/auth/register'));
    for (let i = 0; i < 5; i += 1) await call(`followed ${i}`);
    const seen = () => follow.lines.filter((line) => line.includes('followed '));
    await eventually('all five', () => seen().length >= 5, 30000);
    assert.equal(seen().length, 5);
    await follow.stop('SIGINT');
    await gateway.stop();
  });
});
