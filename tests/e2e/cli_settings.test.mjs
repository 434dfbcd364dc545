// Settings about time that the gateway's sweeps act on.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { lastMessage, openSession, post } from './lib/clients.mjs';
import { eventually, Gateway } from './lib/gateway.mjs';
import { demoStdio } from './lib/upstreams.mjs';

const alive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe('what is idle ends', { timeout: 120000 }, () => {
  async function idle(t, config) {
    const gateway = await Gateway.start({ config });
    t.after(() => gateway.stop());
    await gateway.registerAdmin();
    const user = await gateway.addUser('user');
    await gateway.allow(user, await gateway.addTarget('local', demoStdio));
    const session = await openSession(gateway, user.token);
    const ask = async (message) => post(gateway, user.token, { jsonrpc: '2.0', id: 1, ...message }, { session });
    const whoami = await ask({ method: 'tools/call', params: { name: 'whoami', arguments: {} } });
    return { gateway, ask, pid: JSON.parse(lastMessage(whoami)).result.structuredContent.pid };
  }

  test('a session, at session.timeout, cleared away at session.cleanup_interval', async (t) => {
    const { gateway, ask } = await idle(t, 'session:\n  timeout: 2s\n  cleanup_interval: 1s\n');
    assert.equal((await gateway.ask('GET', '/api/observability/snapshot')).active_sessions, 1);
    await eventually('the session to be cleared away', async () =>
      (await gateway.ask('GET', '/api/observability/snapshot')).active_sessions === 0);
    assert.equal((await ask({ method: 'ping' })).status, 404);
    await eventually('the row', async () => (await gateway.ask('GET', '/api/logs?kind=session&method=expired')).length === 1);
  });

  test('a process, at stdio.idle_ttl, looked at every stdio.gc_interval', async (t) => {
    const { ask, pid } = await idle(t, 'stdio:\n  idle_ttl: 1s\n  gc_interval: 1s\n');
    assert.ok(alive(pid), `pid ${pid}`);
    await eventually('the process to be stopped', async () => !alive(pid), 20000);
    // The next call has another one.
    const again = await ask({ method: 'tools/call', params: { name: 'whoami', arguments: {} } });
    assert.equal(again.status, 200);
  });
});
