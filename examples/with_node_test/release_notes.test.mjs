// A test of something that talks to MCP servers: the gateway is in the same process, and no port is opened.
//
//   npm pack ./bindings/node                                   in the source tree
//   npm install .../mcpgw-0.1.0.tgz                            in your project
//   node --test release_notes.test.mjs
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { gateway } from 'mcpgw/testing';

/** What is tested: a text from what the server named "git" says to this user. */
async function releaseNotes(user) {
  const log = await user.callTool('git_log', { path: '.' });
  return log.ok ? `New: ${log.text}` : 'Nothing to tell';
}

let gw, git;
beforeEach(async () => {
  gw = await gateway();
  git = await gw.server('git');
  git.tool('git_log', ({ path }) => `all commits in ${path}`);
  git.tool('git_push', () => 'done');
  await gw.allow('alice', 'git', '^git_log$');
});
afterEach(() => gw.close());

test('whoever may read the log gets notes', async () => {
  assert.equal(await releaseNotes(await gw.asUser('alice')), 'New: all commits in .');
  assert.deepEqual(git.receivedCalls('git_log').map((call) => call.arguments), [{ path: '.' }]);
});

test('others get none, and the server hears nothing of it', async () => {
  assert.equal(await releaseNotes(await gw.asUser('bob')), 'Nothing to tell');
  assert.equal((await (await gw.asUser('alice')).callTool('git_push')).ok, false);
  assert.deepEqual(git.receivedCalls(), []);
  const rows = (await gw.auditRows()).filter((row) => row.method === 'tools/call');
  assert.deepEqual(rows.map((row) => row.response_status < 400), [false, false]);
});
