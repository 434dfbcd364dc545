// A listening socket that outlives the program: one process follows another and no connection is lost.
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MCPGW, eventually, start, temporaryDirectory, within } from './lib/gateway.mjs';

const SUPERVISOR = fileURLToPath(new URL('./lib/supervisor.py', import.meta.url));

/** One request on a connection of its own. */
function ask(port) {
  return new Promise((resolve, reject) => {
    const request = http.get({ port, host: '127.0.0.1', path: '/health', agent: false }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
      response.on('error', reject);
    });
    request.on('error', reject);
  });
}

test('R40 restarts with an inherited socket lose no connection', async () => {
  const directory = await temporaryDirectory();
  await writeFile(path.join(directory, 'mcpgw.yaml'), 'upstream:\n  allow_private: true\n');
  const supervisor = start('python3', [SUPERVISOR, MCPGW, 'serve'],
    { cwd: directory, stdio: ['pipe', 'pipe', 'pipe'] });
  const port = Number(await supervisor.line('the port', (line) => /^port (\d+)$/.exec(line)?.[1]));
  const seen = new Set();
  const serve = async () => {
    supervisor.child.stdin.write('start\n');
    const event = await supervisor.line('listening', (line) => {
      const entry = line.startsWith('{') && JSON.parse(line);
      return entry && entry.message === 'listening' && !seen.has(entry.pid) ? entry : null;
    });
    seen.add(event.pid);
    assert.equal(event.url, `http://127.0.0.1:${port}`);
    return Number(event.pid);
  };

  let current = await serve();
  let answered = 0;
  const lost = [];
  let done = false;
  const client = async () => {
    while (!done) {
      try {
        const status = await ask(port);
        if (status === 200) ++answered;
        else lost.push(status);
      } catch (error) {
        lost.push(error.code ?? String(error));
      }
    }
  };
  const clients = Array.from({ length: 4 }, client);
  for (let generation = 0; generation < 3; ++generation) {
    const before = answered;
    await eventually('requests are answered', () => answered > before + 50 || lost.length > 0);
    const next = await serve();
    process.kill(current, 'SIGTERM');
    const code = await supervisor.line('the end', (line) => new RegExp(`^ended ${current} (-?\\d+)$`).exec(line)?.[1]);
    assert.equal(code, '0');
    current = next;
  }
  done = true;
  await within(20000, 'the clients', Promise.all(clients));
  assert.deepEqual(lost, []);
  assert.ok(answered > 150);
  process.kill(current, 'SIGTERM');
  await supervisor.line('the end', (line) => line === `ended ${current} 0`);
  supervisor.child.stdin.end();
  await supervisor.exit;
});

test('an inherited descriptor that is no listening socket is refused', async () => {
  const directory = await temporaryDirectory();
  const file = openSync('/dev/null', 'r');
  const child = start('/bin/sh', ['-c', 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" serve', MCPGW],
    { cwd: directory, stdio: ['ignore', 'pipe', 'pipe', file] });
  closeSync(file);
  const { code } = await within(20000, 'the end of mcpgw', child.exit);
  assert.equal(code, 1);
  assert.match(child.lines.join('\n'), /no listening stream socket/);
});
