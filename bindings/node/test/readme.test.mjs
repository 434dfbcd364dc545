// The code of README.md, run as it stands there, each block as a program of its own.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';

const PACKAGE = fileURLToPath(new URL('..', import.meta.url));
const blocks = [...readFileSync(join(PACKAGE, 'README.md'), 'utf8').matchAll(/^```js\n(.*?)^```$/gms)].map((found) => found[1]);
const [inTests, withTheSdk, inAProgram] = blocks;

// In the package's directory its own name means itself.
const run = (code, env = {}) =>
  execFileSync(process.execPath, ['--input-type=module', '-e', code], { cwd: PACKAGE, env: { ...process.env, ...env }, encoding: 'utf8', timeout: 60000 });

test('there are three', () => assert.equal(blocks.length, 3));
test('in tests', () => run(inTests));
test('with the SDK', () => assert.match(run(withTheSdk), /^\d{4}-\d\d-\d\dT/));
test('in a program', () => {
  const directory = mkdtempSync(join(tmpdir(), 'mcpgw-readme-'));
  try {
    // Port and file may be somebody else's here.
    assert.match(inAProgram, /port: 3000/);
    assert.match(inAProgram, /sqlite:\/\/gateway\.db/);
    const code = inAProgram.replace('port: 3000', 'port: 0').replace('sqlite://gateway.db', `sqlite://${directory}/gateway.db`);
    const secrets = { GATEWAY_SECRET: '0123456789abcdef0123456789abcdef', GATEWAY_KEY: '0123456789abcdefghijklmnopqrstuv' };
    assert.match(run(code, secrets), /^http:\/\/127\.0\.0\.1:\d+ false\n$/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
