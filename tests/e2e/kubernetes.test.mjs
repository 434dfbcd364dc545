// Targets that run as pods, against the double of the API server or a real one (MCPGW_TEST_KUBE_APISERVER): every object
// is checked there, the rights are those of docs/kubernetes/rbac.yaml, and a pod is a real MCP server.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { alive, eventually } from './lib/gateway.mjs';
import { podTarget, session, textOf, whoami, World } from '../kubernetes/support.mjs';

const KEY = 'mcpgw.dev/key', RETIRED = 'mcpgw.dev/retired-at', WHY = 'mcpgw.dev/retired-because';
const live = async (world, target) => (await world.deployments(target)).filter((one) => !one.metadata.annotations[RETIRED] && !one.metadata.deletionTimestamp);
const none = async (world, target) => (await world.deployments(target)).length === 0;

describe('Kubernetes targets', { timeout: 240000 }, () => {
  let world, gateway, ann, bob;
  before(async () => {
    world = await World.start();
    gateway = await world.gateway();
    await gateway.registerAdmin();
    ann = await gateway.addUser('ann');
    bob = await gateway.addUser('bob');
  });
  after(() => world?.stop());
  afterEach(() => {
    world.front.faults = [];
    world.front.resumeWatches();
    world.cluster.release();
  });

  /** A target that both may use, and removed at the end. */
  async function target(name, image, members) {
    const made = await gateway.addTarget(name, podTarget(image, members));
    for (const user of [ann, bob]) await gateway.allow(user, made);
    return made;
  }
  const remove = async (made) => {
    await gateway.ask('DELETE', `/api/targets/${made.id}`);
  };
  const statusOf = async (made) => (await gateway.ask('GET', `/api/targets/${made.id}`)).status;

  test('R38: a call makes Deployment, Service and Secret; the next calls and users share the pod', async () => {
    const made = await target('Repo_Tools.v2 -', 'demo', { user_env_keys: [] });
    await gateway.ask('PUT', `/api/targets/${made.id}/env/default`, { configs: { MODE: 'blue value' } });
    const before = (await world.deployments()).length;
    const sessions = await Promise.all([ann, ann, bob].map((user) => session(gateway, user.token)));
    const answers = await Promise.all(sessions.map((one) => eventually('an answer of the pod', async () => {
      const answer = await one.call('whoami');
      return answer.result && answer;
    }, 30000)));
    const pids = new Set(answers.map((answer) => whoami(answer).pid));
    assert.equal(pids.size, 1, 'one process for all');
    assert.equal((await world.deployments()).length, before + 1);
    const [deployment] = await world.deployments(made);
    const { name, uid } = deployment.metadata;
    assert.match(name, /^mcp-repo-tools-v2-[0-9a-f]{32}$/);
    assert.equal(deployment.metadata.annotations['mcpgw.dev/target-name'], 'Repo_Tools.v2 -');
    const [service] = (await world.list('services')).filter((one) => one.metadata.name === name);
    const [secret] = (await world.list('secrets')).filter((one) => one.metadata.name.startsWith(name));
    for (const object of [service, secret])
      assert.deepEqual(object.metadata.ownerReferences, [{ apiVersion: 'apps/v1', kind: 'Deployment', name, uid }]);
    assert.equal(world.cluster.environment(name).MODE, 'blue value');
    assert.deepEqual(Object.keys(world.cluster.environment(name)), ['MODE'], 'nothing of the gateway\'s environment');
    assert.equal(world.cluster.forwarded.authorization, undefined, 'no credential travels to the pod');
    assert.equal((await statusOf(made)).instances, 1);
    assert.ok(!gateway.logText.includes('blue value'));
    for (const request of world.asked('patch', 'deployments').filter((one) => one.contentType.includes('apply')))
      assert.equal(request.query.get('fieldManager'), 'mcpgw');
    await remove(made);
    await eventually('all of it is gone', async () => (await none(world, made)) && !(await world.list('services')).some((one) => one.metadata.name === name) &&
      !(await world.list('secrets')).some((one) => one.metadata.name === secret.metadata.name), 30000);
  });

  test('per_user: each has a pod, with the values of its own', async () => {
    const made = await target('apart', 'demo', { isolation_boundary: 'per_user' });
    for (const [user, value] of [[ann, 'of ann'], [bob, 'of bob']])
      await gateway.ask('PUT', `/api/targets/${made.id}/env/user/${user.user.id}`, { configs: { WHO: value } });
    const pids = [];
    for (const user of [ann, bob, ann]) {
      const one = await session(gateway, user.token);
      pids.push(whoami(await one.call('whoami')).pid);
    }
    assert.equal(pids[0], pids[2]);
    assert.notEqual(pids[0], pids[1]);
    const mine = await world.deployments(made);
    assert.equal(new Set(mine.map((one) => one.metadata.annotations[KEY])).size, 2);
    assert.deepEqual(mine.map((one) => world.cluster.environment(one.metadata.name).WHO).sort(), ['of ann', 'of bob']);
    await remove(made);
  });

  test('R38: what does not start is told to administrators, and removed', async () => {
    const cases = { missing: /image cannot be pulled \(ImagePullBackOff\)/, crashing: /keeps ending \(exit code 7\)/,
      root: /runs as root/, forbidden: /exceeded quota/ };
    for (const [image, cause] of Object.entries(cases)) {
      const made = await target(`bad ${image}`, image);
      const one = await session(gateway, ann.token);
      await one.call('echo', { text: 'x' });
      const status = await eventually(`the cause of ${image}`, async () => {
        const seen = await statusOf(made);
        return seen.last_error && cause.test(seen.last_error) && seen;
      }, 30000);
      assert.equal(status.state === 'up', false);
      await eventually('its Deployment is removed', () => none(world, made), 30000);
      const answer = await one.call('echo', { text: 'x' });
      assert.ok(!JSON.stringify(answer).includes('registry.test'), 'clients are told no details');
      await remove(made);
    }
  });

  const on = (resource, verb, type = '') => (seen) => seen.resource === resource && seen.verb === verb && seen.contentType.includes(type);

  test('no room in the cluster: the error names it when the time to start is over', async () => {
    const impatient = await world.gateway({ start_timeout: '12s' });
    await impatient.registerAdmin();
    const made = await impatient.addTarget('large', podTarget('huge'));
    // The pod is there when its watch begins: what becomes of it is told by events alone.
    world.front.faults = [{ match: on('pods', 'list'), times: 2, status: 503 }];
    const tested = await impatient.ask('POST', `/api/targets/${made.id}/test`, {});
    assert.equal(world.front.faults[0].times, 0);
    assert.equal(tested.ok, false);
    assert.match(JSON.stringify(tested.steps), /not ready within 12 s: the cluster has no room for it: 0\/3 nodes/);
    await impatient.stop();
  });

  test('faults of the API are passed through: 409, 429 with Retry-After, 500, broken connections', async () => {
    world.front.faults = [
      { match: on('deployments', 'get'), times: 1, status: 500 },
      { match: on('deployments', 'patch', 'apply'), times: 1, status: 429, retryAfter: 2 },
      { match: on('deployments', 'patch', 'apply'), times: 2, status: 409 },
      { match: on('secrets', 'patch'), times: 1, status: 409 },
      { match: on('services', 'patch'), times: 2, status: 503 },
      { match: on('pods', 'list'), times: 1, drop: true },
    ];
    const made = await target('through faults', 'demo');
    await gateway.ask('PUT', `/api/targets/${made.id}/env/default`, { configs: { MODE: 'x' } });
    const began = Date.now();
    const one = await session(gateway, ann.token);
    assert.equal(textOf(await one.call('echo', { text: 'there' })), 'there');
    assert.deepEqual(world.front.faults.map((fault) => fault.times), [0, 0, 0, 0, 0, 0]);
    assert.ok(Date.now() - began >= 2000, 'not before Retry-After');
    world.front.faults = [];
    await remove(made);
  });

  test('an answer that the watch has overtaken does not undo what the watch told', async () => {
    world.front.faults = [{ match: on('deployments', 'patch', 'apply'), times: 1, late: 1500 }];
    const made = await target('overtaken', 'forbidden');
    await (await session(gateway, ann.token)).call('echo', { text: 'x' });
    const { last_error: cause } = await eventually('the cause', async () => {
      const seen = await statusOf(made);
      return seen.last_error && seen;
    }, 60000);
    assert.match(cause, /exceeded quota/);
    assert.doesNotMatch(cause, /not ready within/, 'at once, not at the end of the time to start');
    assert.equal(world.front.faults[0].times, 0);
    await remove(made);
  });

  test('409 for a mark that an instance is retired: the newest state is read, and marked', async () => {
    const made = await target('marked', 'demo');
    const one = await session(gateway, ann.token);
    const first = whoami(await one.call('whoami')).pid;
    world.front.faults = [{ match: on('deployments', 'patch', 'merge'), times: 2, status: 409 }];
    assert.equal((await gateway.ask('POST', `/api/targets/${made.id}/restart-instances`, {})).deleted, 1);
    assert.equal(world.front.faults[0].times, 0);
    world.front.faults = [];
    assert.notEqual(whoami(await one.call('whoami')).pid, first);
    await remove(made);
  });

  test('a watch that is refused with 429 is asked for again after Retry-After, not before', async () => {
    const made = await target('refused watch', 'demo');
    world.front.requests = [];
    world.front.faults = [{ match: on('pods', 'watch'), times: 1, status: 429, retryAfter: 2 }];
    const one = await session(gateway, ann.token);
    assert.equal(textOf(await one.call('echo', { text: 'after' })), 'after');
    const [refused, again] = world.asked('watch', 'pods').sort((x, y) => x.at - y.at);
    assert.equal(refused.status, 429);
    assert.ok(again.at - refused.at >= 1900, `again after ${again.at - refused.at} ms`);
    await remove(made);
  });

  test('watches that end, and a history that is gone, lose nothing', async () => {
    const made = await target('watched', 'slow');
    world.cluster.hold();
    const one = await session(gateway, ann.token);
    const answer = one.call('echo', { text: 'late' });
    await eventually('the pod runs', () => world.cluster.programs > 0 && world.asked('watch', 'pods').length > 0);
    for (let i = 0; i < 3; ++i) {
      const watched = world.asked('watch', 'pods').length;
      if (i % 2 === 0) world.front.dropWatches();
      else world.front.forget();
      await eventually('it watches again', () => world.asked('watch', 'pods').length > watched);
    }
    world.cluster.release();
    assert.equal(textOf(await answer), 'late');
    await remove(made);
  });

  // What was made while others told of what was before it must not be taken for gone: its calls would be cut.
  const goesOn = async (made, afterwards) => {
    const held = (await session(gateway, ann.token)).hold('slow');
    await eventually('it runs', () => held.running() && world.cluster.calls.size === 1);
    await afterwards();
    const patience = Date.now() + 3000;  // the gateway cuts after 1 s
    await eventually('a while has passed', () => held.running() && Date.now() > patience);
    await held.letGo();
    assert.equal((await statusOf(made)).instances, 1);
  };

  test('a list that was begun before an instance was made does not make it gone', async () => {
    const made = await target('made meanwhile', 'demo');
    const lists = world.asked('list', 'deployments').length;
    world.front.faults = [{ match: on('deployments', 'list'), times: 1, late: 3000 }];
    world.front.forget();
    await eventually('a list is on its way', () => world.front.faults[0].times === 0);
    await goesOn(made, () => eventually('it has come', () => world.asked('list', 'deployments').length > lists));
    await remove(made);
  });

  test('news of the end of a Deployment is no news of the next one of its name', async () => {
    const made = await target('next of a name', 'demo');
    const first = whoami(await (await session(gateway, ann.token)).call('whoami')).pid;
    const [{ metadata: { name, uid } }] = await live(world, made);
    world.front.holdWatches('deployments');
    await world.ask('DELETE', world.cluster.path('deployments', name));
    await eventually('the pod has ended', () => !alive(first), 30000);
    // Who comes to it anew looks at what there is.
    assert.notEqual(whoami(await (await session(gateway, bob.token)).call('whoami')).pid, first);
    const [next] = await live(world, made);
    assert.equal(next.metadata.name, name);
    assert.notEqual(next.metadata.uid, uid);
    await goesOn(made, async () => world.front.resumeWatches());
    assert.equal((await live(world, made))[0].metadata.uid, next.metadata.uid);
    await remove(made);
  });

  test('an expired token is replaced by the one in the file', async () => {
    const made = await target('token', 'demo');
    await world.newToken();
    const one = await session(gateway, ann.token);
    assert.equal(textOf(await one.call('echo', { text: 'new token' })), 'new token');
    assert.ok(world.front.requests.some((request) => request.status === 401));
    assert.ok(!gateway.logText.includes(world.token));
    await remove(made);
  });

  test('restart-instances, and a changed target: the next call has a new pod, running calls end', async () => {
    const made = await target('renewed', 'demo');
    const one = await session(gateway, ann.token);
    const first = whoami(await one.call('whoami')).pid;
    const running = one.call('slow', { duration_ms: 400, steps: 2 });
    await eventually('the call runs', () => gateway.ask('GET', '/api/observability/snapshot').then((all) => all.in_flight > 0).catch(() => true));
    const restarted = await gateway.ask('POST', `/api/targets/${made.id}/restart-instances`, {});
    assert.equal(restarted.deleted, 1);
    const second = whoami(await one.call('whoami')).pid;
    assert.notEqual(first, second);
    assert.ok((await running).result, 'the running call was answered');
    await gateway.ask('PUT', `/api/targets/${made.id}/env/default`, { configs: { NEW: 'v' } });
    const third = whoami(await one.call('whoami')).pid;
    assert.notEqual(second, third);
    await eventually('the old ones are removed', async () => (await world.deployments(made)).length === 1, 30000);
    await remove(made);
  });

  test('R64: pods that are restarted are counted: by an administrator, and when their container dies', async () => {
    const made = await target('counted', 'demo');
    const restarts = async () => /^mcpgw_instance_restarts_total\{target="counted"\} (\d+)$/m
      .exec(await (await fetch(`${gateway.url}/metrics`)).text())?.[1];
    const one = await session(gateway, ann.token);
    const pid = async () => whoami(await one.call('whoami')).pid;
    const first = await pid();
    assert.equal(await restarts(), undefined, 'a start is none');
    assert.equal((await gateway.ask('POST', `/api/targets/${made.id}/restart-instances`, {})).deleted, 1);
    const second = await pid();
    assert.notEqual(second, first);
    assert.equal(await restarts(), '1');
    await world.cluster.crash((await live(world, made))[0].metadata.name);
    const third = await eventually('it answers again', async () => (await one.call('whoami')).result && pid(), 30000);
    assert.ok(![first, second].includes(third));
    assert.equal(await restarts(), '2');
    await remove(made);
  });

  test('R12: an object of that name that belongs to another is neither used nor touched', async () => {
    const made = await target('squatted', 'demo');
    const one = await session(gateway, ann.token);
    assert.equal(textOf(await one.call('echo', { text: 'x' })), 'x');
    const mine = async () => (await world.deployments(made))[0];
    const { name } = (await mine()).metadata;
    await world.ask('PATCH', world.cluster.path('deployments', name),
      { metadata: { annotations: { [KEY]: 'f'.repeat(64) } } }, 'application/merge-patch+json');
    const foreign = await mine();
    const other = await session(gateway, bob.token);
    assert.equal((await other.call('echo', { text: 'x' })).result, undefined);
    assert.match((await statusOf(made)).last_error, /a Deployment of the name mcp-squatted-[0-9a-f]{32} belongs to something else/);
    assert.deepEqual(await mine(), foreign);
    await world.ask('DELETE', world.cluster.path('deployments', name));
    await remove(made);
  });

  test('R37: a port that was one pod\'s is another target\'s now: calls go to the pod of their own', async () => {
    const made = async (name, port) => {
      const one = await gateway.addTarget(name, podTarget('demo'));
      await gateway.ask('PUT', `/api/targets/${one.id}/env/default`, { configs: { WHOSE: one.id } });
      world.cluster.ports[one.id] = port;
      await gateway.allow(ann, one);
      return one;
    };
    const podOf = async (one) => world.cluster.pod((await live(world, one))[0].metadata.name);
    const one = await session(gateway, ann.token);
    const left = await made('left', 0);
    const first = whoami(await one.call('whoami')).pid;
    const before = await podOf(left);
    assert.deepEqual([before.program.child.pid, before.env.WHOSE], [first, left.id]);
    // The pod goes while the gateway has connections to it, and the one of another target gets its port.
    await world.ask('DELETE', world.cluster.path('deployments', before.instance));
    await before.program.exit;
    const right = await made('right', before.port);
    const pid = async (side) => whoami(await one.call(`${side}_whoami`)).pid;
    const other = await eventually('the other runs', async () => (await one.call('right_whoami')).result && pid('right'), 30000);
    const reused = await podOf(right);
    assert.deepEqual([reused.port, reused.program.child.pid, reused.env.WHOSE], [before.port, other, right.id]);
    await eventually('the first runs again', async () => (await one.call('left_whoami')).result, 30000);
    for (let i = 0; i < 5; ++i) {
      const now = await podOf(left);
      assert.deepEqual([await pid('left'), now.env.WHOSE], [now.program.child.pid, left.id]);
      assert.equal(await pid('right'), other);
    }
    for (const gone of [left, right]) await remove(gone);
  });

  test('a gateway that is started again finds its pods', async () => {
    const first = await world.gateway();
    await first.registerAdmin();
    const eve = await first.addUser('eve');
    const made = await first.addTarget('kept', podTarget('demo'));
    await first.allow(eve, made);
    const { pid } = whoami(await (await session(first, eve.token)).call('whoami'));
    await first.stop();
    const again = await world.gateway({}, { directory: first.directory });
    assert.equal(whoami(await (await session(again, eve.token)).call('whoami')).pid, pid);
    assert.equal((await world.deployments(made)).length, 1);
    again.adminToken = first.adminToken;
    await again.ask('DELETE', `/api/targets/${made.id}`);
    await eventually('it is removed', () => none(world, made), 30000);
    await again.stop();
  });

  test('R72: it did only what its Role permits', () => {
    assert.deepEqual(world.front.requests.filter((one) => one.status === 403).map((one) => `${one.verb} ${one.resource}`), []);
    assert.equal(world.cluster.fault, undefined);
  });
});

describe('the life of instances', { timeout: 240000 }, () => {
  let world, gateway, ann;
  before(async () => {
    world = await World.start();
    gateway = await world.gateway({ idle_ttl: '3s', max_instances: 1 });
    await gateway.registerAdmin();
    ann = await gateway.addUser('ann');
  });
  after(() => world?.stop());

  test('R36: a long call keeps its pod; an idle one is collected, and made again by the next call', async () => {
    const made = await gateway.addTarget('idle', podTarget('demo'));
    await gateway.allow(ann, made);
    const one = await session(gateway, ann.token);
    const first = whoami(await one.call('whoami')).pid;
    const answer = await one.call('slow', { duration_ms: 6000, steps: 2 });
    assert.ok(answer.result, 'a call longer than the idle time');
    assert.equal(whoami(await one.call('whoami')).pid, first);
    await eventually('it is collected', () => none(world), 30000);
    await eventually('the pod has ended', () => world.cluster.programs === 0, 30000);
    const second = whoami(await one.call('whoami')).pid;
    assert.notEqual(first, second);
    assert.equal((await live(world)).length, 1);
  });

  test('R36: a start that takes longer than the idle time is no idleness', async () => {
    await eventually('the last one is gone', () => none(world), 30000);
    const [idle] = await gateway.ask('GET', '/api/targets');
    await gateway.ask('DELETE', `/api/targets/${idle.id}`);
    const made = await gateway.addTarget('long start', podTarget('slow'));
    await gateway.allow(ann, made);
    world.cluster.hold();
    const one = await session(gateway, ann.token);
    const answer = one.call('echo', { text: 'started' });
    await eventually('the pod runs', () => world.cluster.programs === 1);
    const looked = world.asked('update', 'leases').length;
    await eventually('the collector has looked at it, also when it looked idle', () => world.asked('update', 'leases').length > looked + 5, 30000);
    world.cluster.release();
    assert.equal(textOf(await answer), 'started');
    await gateway.ask('DELETE', `/api/targets/${made.id}`);
    await eventually('it is removed', () => none(world), 30000);
  });

  test('what takes the place of an instance on its way out never meets the pod of that one', async () => {
    const made = await gateway.addTarget('takes its time', podTarget('demo'));
    await gateway.allow(ann, made);
    const one = await session(gateway, ann.token);
    const first = whoami(await one.call('whoami')).pid;
    const [{ metadata: { uid } }] = await live(world, made);
    world.cluster.lingering = true;
    try {
      await eventually('it is on its way out', async () => !(await world.deployments(made)).some((one) => one.metadata.uid === uid && !one.metadata.deletionTimestamp), 30000);
      assert.ok(alive(first));
      assert.notEqual(whoami(await one.call('whoami')).pid, first);
      const [next] = await live(world, made);
      assert.notEqual(next.metadata.uid, uid);
    } finally {
      world.cluster.lingering = false;
    }
    await gateway.ask('DELETE', `/api/targets/${made.id}`);
    await eventually('all of it is gone', async () => (await none(world)) && !alive(first), 30000);
  });

  test('at the limit an idle instance makes room, and what is in use does not', async () => {
    const first = await gateway.addTarget('one', podTarget('demo'));
    await gateway.allow(ann, first);
    const held = (await session(gateway, ann.token)).hold('slow');
    await eventually('it runs', () => held.running() && world.cluster.calls.size === 1);
    await gateway.allow(ann, await gateway.addTarget('two', podTarget('demo')));
    const own = await session(gateway, ann.token);
    const refused = await own.call('two_echo', { text: 'x' });
    assert.equal(refused.error?.data?.code, 'instance_limit', JSON.stringify(refused));
    assert.equal(textOf(await own.call('one_echo', { text: 'in use' })), 'in use');
    await held.letGo();
    const later = await eventually('there is room', async () => {
      const answer = await own.call('two_echo', { text: 'room' });
      return answer.result && answer;
    }, 30000);
    assert.equal(textOf(later), 'room');
  });

  test('of two replicas one collects; the other takes over when it ends', async () => {
    const other = await world.gateway({ idle_ttl: '3s' });
    const holder = async () => (await world.list('leases'))[0]?.spec.holderIdentity;
    const first = await eventually('somebody leads', holder);
    const writes = world.asked('update', 'leases').length;
    await eventually('the lease is renewed', () => world.asked('update', 'leases').length > writes + 2);
    assert.equal(await holder(), first);
    assert.equal((await world.list('leases')).length, 1);
    await gateway.stop();
    await eventually('the other leads', async () => ![undefined, '', first].includes(await holder()), 30000);
    // Orphans: what no target of this gateway stands behind.
    await eventually('the rest is collected', () => none(world), 30000);
    await other.stop();
    assert.equal(world.cluster.fault, undefined);
  });
});

describe('the share of a user', { timeout: 240000 }, () => {
  let world, gateway, eve, dan;
  const targets = {};
  before(async () => {
    world = await World.start();
    gateway = await world.gateway({ idle_ttl: '3s', max_per_user: 1 });
    await gateway.registerAdmin();
    [eve, dan] = [await gateway.addUser('eve'), await gateway.addUser('dan')];
    for (const name of ['left', 'right', 'common']) {
      targets[name] = await gateway.addTarget(name, podTarget('demo', { isolation_boundary: name === 'common' ? 'shared' : 'per_user' }));
      for (const user of [eve, dan]) await gateway.allow(user, targets[name]);
    }
  });
  after(() => world?.stop());
  const of = async (user) => (await live(world)).filter((one) => one.metadata.annotations['mcpgw.dev/user'] === user.user.id);

  test('their own instances count, others\' and shared ones do not; what is idle makes room', async () => {
    const [mine, theirs] = await Promise.all([eve, dan].map((user) => session(gateway, user.token)));
    // Each greeting has started one of left and right, whichever came first.
    await eventually('what the greetings have started is gone', () => none(world), 60000);
    const held = mine.hold('left_slow');
    await eventually('it runs', () => held.running() && world.cluster.calls.size === 1);
    assert.equal((await of(eve)).length, 1);
    assert.equal(textOf(await theirs.call('right_echo', { text: 'mine' })), 'mine');
    assert.equal(textOf(await mine.call('common_echo', { text: 'ours' })), 'ours');
    const refused = await mine.call('right_echo', { text: 'x' });
    assert.equal(refused.error?.data?.code, 'instance_limit', JSON.stringify(refused));
    assert.equal(textOf(await mine.call('left_echo', { text: 'in use' })), 'in use');
    await held.letGo();
    await eventually('there is room', async () => (await mine.call('right_echo', { text: 'room' })).result, 30000);
    const own = await of(eve);
    assert.deepEqual(own.map((one) => one.metadata.labels['mcpgw.dev/target']), [targets.right.id]);
    const [shared] = await live(world, targets.common);
    assert.equal(shared?.metadata.annotations['mcpgw.dev/user'], undefined);
  });

  test('calls of one moment do not pass together', async () => {
    await eventually('the last ones are gone', () => none(world), 30000);
    const mine = await session(gateway, eve.token);
    // Long ones: whichever comes second finds the first one running.
    const answers = await Promise.all(['left', 'right'].map((name) => mine.call(`${name}_slow`, { duration_ms: 1500, steps: 1 })));
    assert.equal(answers.filter((one) => one.result).length, 1, JSON.stringify(answers));
    assert.equal(answers.find((one) => one.error)?.error.data.code, 'instance_limit');
    assert.equal((await of(eve)).length, 1);
  });
});

test('without Kubernetes a target may be stored, and says why it cannot be used', async () => {
  const { Gateway } = await import('./lib/gateway.mjs');
  const gateway = await Gateway.start();
  await gateway.registerAdmin();
  const made = await gateway.addTarget('pod', podTarget('demo'));
  const ann = await gateway.addUser('ann');
  await gateway.allow(ann, made);
  const one = await session(gateway, ann.token);
  const restart = await gateway.api('POST', `/api/targets/${made.id}/restart-instances`, {});
  assert.equal(restart.body.code, 'kubernetes_disabled');
  const listed = await one.ask('tools/list');
  assert.deepEqual(listed.result.tools, []);
  await gateway.stop();
});
