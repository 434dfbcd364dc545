// Three programs behind a proxy that sends each connection to the next one; two hundred clients of both eras. One program
// after another is killed with -9 and started again, and PostgreSQL is restarted once. MCPGW_CHAOS_SECONDS: how long.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { Gateway, eventually } from '../e2e/lib/gateway.mjs';
import { demoHttp, httpTarget } from '../e2e/lib/upstreams.mjs';
import { ChaosClient, Outages, RoundRobin, request } from './chaos.mjs';
import { Postgres } from './postgres.mjs';

const SECONDS = Number(process.env.MCPGW_CHAOS_SECONDS ?? 30);
const CLIENTS = 200, AT_ONCE = 12, USERS = 10;
const PAUSE_MS = 20;  // of each of those that are at work: the machine has other things to do
/** How long after a kill a call may still meet what it left: a connection that is made anew, a session that is found. */
const AFTERMATH_MS = 1500;
const config = (url) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
upstream: {allow_private: true}
logging: {levels: [access=warn]}
replicas: {host: 127.0.0.1, port: 0}
`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

test(`calls, lists, writes and subscriptions go on for ${SECONDS} s while programs are killed and PostgreSQL is restarted`,
  { timeout: (SECONDS + 240) * 1000 }, async (t) => {
    const postgres = await Postgres.start();
    const upstream = await demoHttp();
    const url = postgres.database('chaos');
    const programs = [];
    for (let i = 0; i < 3; ++i) programs.push(await Gateway.start({ config: config(url) }));
    const portOf = (gateway) => Number(new URL(gateway.url).port);
    const proxy = await RoundRobin.start(programs.map(portOf));
    const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
    t.after(async () => {
      agent.destroy();
      proxy.stop();
      await Promise.all(programs.map((gateway) => gateway.stop('SIGKILL')));
      await upstream.stop();
      await postgres.stop('SIGQUIT');
    });
    const first = programs[0];
    await first.registerAdmin();
    const target = await first.addTarget('demo', httpTarget(upstream.url));
    const users = [];
    for (let i = 0; i < USERS; ++i) {
      users.push(await first.addUser(`user${i}`));
      await first.allow(users[i], target);
    }
    const clients = Array.from({ length: CLIENTS }, (_, i) => new ChaosClient({ agent, base: proxy.url,
      token: users[i % USERS].token, modern: i % 2 === 1, name: `client${i}` }));
    for (let i = 0; i < CLIENTS; i += 10) await Promise.all(clients.slice(i, i + 10).map((client) => client.open()));
    const expected = (await clients[0].ask('tools/list')).result.tools.map((tool) => tool.name).sort();
    assert.ok(expected.length >= 4);

    // --- what must hold ---
    const outages = new Outages();
    const count = { calls: 0, lists: 0, writes: 0, subscriptions: 0, retried: 0, refused: 0 };
    const faults = [];
    const fault = (what) => { if (faults.length < 20) faults.push(what); };
    const acknowledged = new Map();  // name of a policy -> its priority

    /** A request that may fail only for what is happening, and then must succeed when it is repeated. */
    async function attempt(what, work) {
      for (let tries = 0; ; ++tries) {
        const from = performance.now();
        let failed;
        try {
          const done = await work();
          if (done.result !== undefined) return done;
          failed = `${done.status} ${done.code}`;
          if (done.code === 'unclear') fault(`${what}: an unclear answer: ${failed}`);
        } catch (error) {
          failed = error.outcome ? `${error.outcome.status} ${error.outcome.code}` : error.code ?? error.message;
        }
        const to = performance.now();
        const killed = outages.met('program', from - AFTERMATH_MS, to), away = outages.met('database', from - AFTERMATH_MS, to);
        if (!killed && !away) fault(`${what}: ${failed}, though nothing was killed`);
        // A program says so when it is the database that is away; a connection that ends without an answer was a killed one's.
        if (!away && /^\d\d\d /.test(failed) && !/upstream_closed|shutting_down|replica_lost/.test(failed))
          fault(`${what}: answered ${failed}, though the database was there`);
        if (!killed && !/^\d/.test(failed)) fault(`${what}: ${failed}, though no program was killed`);
        if (faults.length || tries > 200) return fault(`${what}: given up: ${failed}`);
        ++count[away ? 'refused' : 'retried'];
        await sleep(50);
      }
    }

    let on = true;
    const random = (n) => Math.floor(Math.random() * n);
    const idle = [...clients];
    async function traffic(worker) {
      for (let n = 0; on && !faults.length; ++n) {
        const client = idle.splice(random(idle.length), 1)[0];  // one request of a client at a time
        const kind = random(10);
        if (kind < 7) {
          const nonce = `${client.name} ${worker} ${n} ${Math.random()}`;
          const done = await attempt('call', () => client.ask('tools/call', { name: 'echo', arguments: { text: nonce } }));
          const text = done?.result?.content?.[0]?.text;
          if (done && text !== nonce) fault(`wrong delivery: asked ${nonce}, got ${JSON.stringify(done.result)}`);
          ++count.calls;
        } else if (kind < 9) {
          const done = await attempt('list', () => client.ask('tools/list'));
          const names = done?.result?.tools?.map((tool) => tool.name).sort();
          if (done && JSON.stringify(names) !== JSON.stringify(expected)) fault(`a list with 200: ${JSON.stringify(done.result)}`);
          ++count.lists;
        } else {
          await write(`w${worker}-${n}`, random(100000));
        }
        idle.push(client);
        await sleep(PAUSE_MS);
      }
    }
    const api = async (method, path, body) => {
      const answer = await request(agent, proxy.url, method, path, { token: first.adminToken,
        body: body === undefined ? undefined : JSON.stringify(body) });
      const value = answer.text ? JSON.parse(answer.text) : null;
      return answer.status < 300 ? { result: value } : { status: answer.status, code: value?.code ?? 'unclear' };
    };
    /** A policy that does nothing: what is acknowledged must be found later, as it was written. */
    async function write(name, priority) {
      let id;
      await attempt('write', async () => {
        const done = await api('POST', '/api/policies', { name, effect: 'deny', enabled: false, priority });
        if (!done.status) {
          acknowledged.set(name, priority);
          id = done.result.id;
        }
        return done;
      });
      ++count.writes;
      // And it is read by whoever is asked next.
      const read = id && await attempt('read', () => api('GET', `/api/policies/${id}`).then((done) =>
        done.status === 404 ? { status: 599, code: 'lost' } : done));
      if (read && read.result.priority !== priority) fault(`a write that was acknowledged reads otherwise: ${JSON.stringify(read)}`);
    }

    // --- streams that are opened again whenever they end ---
    const streams = clients.filter((client) => !client.modern).slice(0, 10).map((client) => ({ client, events: [], open: false }));
    function listen(stream) {
      const asked = http.request(`${proxy.url}/mcp`, { method: 'GET', headers: { Accept: 'text/event-stream',
        Authorization: `Bearer ${stream.client.token}`, 'Mcp-Session-Id': stream.client.session } }, (response) => {
        stream.open = response.statusCode === 200;
        response.setEncoding('utf8');
        response.on('data', (text) => stream.events.push(text));
        response.on('error', () => {});
        response.on('close', again);
      });
      let over = false;
      function again() {
        stream.open = false;
        if (over || !stream.on) return;
        over = true;
        setTimeout(() => stream.on && listen(stream), 200);
      }
      asked.on('error', again);
      asked.end();
      stream.request = asked;
    }
    for (const stream of streams) {
      stream.on = true;
      listen(stream);
    }

    // --- what is done to them ---
    async function chaos() {
      const end = performance.now() + SECONDS * 1000;
      for (let round = 0; performance.now() < end && !faults.length; ++round) {
        await sleep(1000);
        if (round === 2) {
          const back = outages.begin('database');
          await postgres.stop('SIGQUIT');
          await sleep(1000);
          await postgres.run();
          await eventually('all are ready', async () => (await Promise.all(programs.map((gateway) =>
            fetch(`${gateway.url}/ready`).then((answer) => answer.status, () => 0)))).every((status) => status === 200), 60000);
          back();
        }
        const which = round % programs.length;
        const old = programs[which];
        const restarted = outages.begin('program');
        await old.stop('SIGKILL');
        await sleep(500);
        programs[which] = await Gateway.start({ directory: old.directory, config: null });
        proxy.ports[which] = portOf(programs[which]);
        restarted();
      }
      on = false;
    }
    await Promise.all([chaos(), ...Array.from({ length: AT_ONCE }, (_, worker) => traffic(worker))]);
    assert.deepEqual(faults, []);

    // --- afterwards ---
    for (const gateway of programs) {
      const policies = await gateway.ask('GET', '/api/policies', undefined, first.adminToken);
      const found = new Map(policies.map((policy) => [policy.name, policy.priority]));
      const lost = [...acknowledged].filter(([name, priority]) => found.get(name) !== priority);
      assert.deepEqual(lost, [], 'acknowledged writes that are lost');
    }
    // Every subscriber hears of a change, whichever program it is made through.
    await eventually('all streams are open', () => streams.every((stream) => stream.open), 20000);
    const before = streams.map((stream) => stream.events.length);
    await programs[1].ask('PUT', `/api/targets/${target.id}`, { enabled: false }, first.adminToken);
    await eventually('all subscribers are told', () => streams.every((stream, i) =>
      stream.events.slice(before[i]).join('').includes('notifications/tools/list_changed')), 20000);
    for (const stream of streams) {
      stream.on = false;
      stream.request.destroy();
    }
    count.subscriptions = streams.length;
    t.diagnostic(`| chaos | ${JSON.stringify(count)}, ${outages.spans.filter((span) => span.what === 'program').length} kills |`);
    assert.ok(count.calls > 100, JSON.stringify(count));
    assert.ok(count.writes > 10);
  });
