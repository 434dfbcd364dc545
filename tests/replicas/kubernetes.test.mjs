// Two replicas over one database and one namespace of a cluster: they share instances, either's use keeps one alive,
// one of them collects.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../e2e/lib/gateway.mjs';
import { podTarget, session, textOf, whoami, World } from '../kubernetes/support.mjs';
import { Postgres } from './postgres.mjs';

const LAST_USED = 'mcpgw.dev/last-used';
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

describe('replicas that share a namespace', { timeout: 240000 }, () => {
  let world, replicas, ann, target;
  before(async () => {
    const postgres = await Postgres.start();
    postgres.database('pods');
    world = await World.start();
    const text = `database: "${postgres.url('pods', 'unused')}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
`;
    replicas = [await world.gateway({ idle_ttl: '3s' }, { text })];
    await eventually('the first one collects', holder);
    replicas.push(await world.gateway({ idle_ttl: '3s' }, { text }));
    await replicas[0].registerAdmin();
    replicas[1].adminToken = replicas[0].adminToken;
    ann = await replicas[0].addUser('ann');
    target = await replicas[0].addTarget('shared', podTarget('demo'));
    await replicas[0].allow(ann, target);
  });
  after(() => world?.stop());

  const holder = async () => (await world.list('leases'))[0]?.spec.holderIdentity;
  const through = async (replica) => {
    const one = await eventually('a session', () => session(replica, ann.token).catch(() => null));
    return async () => whoami(await one.call('whoami')).pid;
  };
  const lastUsed = async () => Date.parse((await world.deployments(target))[0]?.metadata.annotations[LAST_USED]);

  test('both call at once what does not run yet: one Deployment, one pod', async () => {
    const callers = await Promise.all(replicas.map(through));
    const pids = await Promise.all(callers.map((call) => call()));
    assert.equal(pids[0], pids[1]);
    assert.equal((await world.deployments(target)).length, 1);
    assert.deepEqual((await world.list('services')).filter((one) => one.metadata.name.startsWith('mcp-')).length, 1);
  });

  test('use by either alone is written down, and keeps the instance from whichever collects', async () => {
    for (const replica of replicas) {
      const call = await through(replica);
      const pid = await call();
      const from = await lastUsed();
      // More than twice the idle time, by this replica alone.
      await eventually('its use is written down', async () => {
        assert.equal(await call(), pid, 'the same pod');
        await pause(200);
        return await lastUsed() > from + 7000;
      }, 60000);
    }
  });

  test('a call that is longer than the idle time is not cut, whichever replica it runs through', async () => {
    for (const replica of replicas) {
      const one = await session(replica, ann.token);
      const pid = whoami(await one.call('whoami')).pid;
      assert.match(textOf(await one.call('slow', { duration_ms: 5000, steps: 2 })), /./);
      assert.equal(whoami(await one.call('whoami')).pid, pid);
    }
  });

  test('restart-instances through one: the other\'s next call has the new pod, and they share it', async () => {
    const [first, second] = await Promise.all(replicas.map(through));
    const old = await second();
    assert.equal((await replicas[0].ask('POST', `/api/targets/${target.id}/restart-instances`, {})).deleted, 1);
    const renewed = await eventually('the other has heard', async () => {
      const pid = await second();
      return pid !== old && pid;
    });
    assert.equal(await first(), renewed);
  });

  test('one collects: what nobody uses is marked once and deleted once', async () => {
    const holders = new Set();
    world.front.requests = [];
    await eventually('it is collected', async () => {
      holders.add(await holder());
      return (await world.deployments(target)).length === 0;
    }, 30000);
    assert.equal(holders.size, 1, 'the lease stays with one');
    for (const [what, requests] of Object.entries({
      marked: world.asked('patch', 'deployments').filter((one) => one.query.get('fieldManager') === 'mcpgw-retire'),
      deleted: world.asked('delete', 'deployments'),
    })) {
      const names = requests.filter((one) => one.status === 200).map((one) => one.name);
      assert.ok(names.length > 0, what);
      assert.equal(new Set(names).size, names.length, `none is ${what} twice`);
    }
    const pid = await (await through(replicas[1]))();
    assert.ok(pid > 0, 'and the next call starts another');
  });

  test('the one that collects is killed: the other takes over, and calls go on meanwhile', async () => {
    const call = await through(replicas[1]);
    assert.ok(await call() > 0);
    const first = await holder();
    await replicas[0].stop('SIGKILL');
    assert.ok(await call() > 0);
    await eventually('it is collected', async () => (await world.deployments(target)).length === 0, 60000);
    assert.ok(![undefined, '', first].includes(await holder()), 'the lease went over');
    assert.deepEqual(world.front.requests.filter((one) => one.status === 403), []);
    assert.equal(world.cluster.fault, undefined);
  });
});
