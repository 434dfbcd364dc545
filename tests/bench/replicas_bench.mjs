// What a tools/call costs with 1, 2 and 4 programs over one PostgreSQL: CPU of the programs and of the database, and
// statements about records. All run on this machine, together with the clients and the server behind; CPU is read from
// /proc, so others that run here make the run longer, and the figures only a little larger.
//
//   MCPGW=... DEMO_UPSTREAM=... node tests/bench/replicas_bench.mjs [--calls N] [--connections N]
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { test } from 'node:test';
import { ChaosClient } from '../replicas/chaos.mjs';
import { Postgres } from '../replicas/postgres.mjs';
import { Gateway, descendants, eventually } from '../e2e/lib/gateway.mjs';
import { demoHttp, httpTarget } from '../e2e/lib/upstreams.mjs';

const option = (name, preset) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? preset : Number(process.argv[at + 1]);
};
const CALLS = option('calls', 8000), CONNECTIONS = option('connections', 16);
const TICK_US = 1e6 / Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
const config = (url) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
upstream: {allow_private: true}
logging: {levels: [access=warn]}
`;

/** Microseconds of CPU that a process has used, its ended children included. */
function cpu(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) * TICK_US;
}
const cpuOf = (pids) => pids.reduce((sum, pid) => {
  try {
    return sum + cpu(pid);
  } catch {
    return sum;  // it has ended
  }
}, 0);

test('replicas', async (t) => {
  const postgres = await Postgres.start({ settings: { shared_preload_libraries: 'pg_stat_statements', shared_buffers: '128MB' } });
  const upstream = await demoHttp();
  const lines = ['| replicas | calls/s | us of CPU a call, programs | PostgreSQL | statements about records, a call |', '|---|---|---|---|---|'];
  for (const count of [1, 2, 4]) {
    const name = `bench${count}`;
    const url = postgres.database(name);
    postgres.psql(name, 'CREATE EXTENSION pg_stat_statements');
    const programs = [];
    for (let i = 0; i < count; ++i) programs.push(await Gateway.start({ config: config(url) }));
    const [first] = programs;
    await first.registerAdmin();
    const target = await first.addTarget('demo', { ...httpTarget(upstream.url), auth_type: 'bearer' });
    await first.ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: 'the-credential' });
    const ann = await first.addUser('ann');
    await first.allow(ann, target);
    const agents = programs.map(() => new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS }));
    const clients = Array.from({ length: CONNECTIONS }, (_, i) => new ChaosClient({ agent: agents[i % count],
      base: programs[i % count].url, token: ann.token, modern: i % 2 === 1, name: `bench${i}` }));
    await eventually('all programs know the user', async () =>
      (await Promise.all(clients.map((client) => client.open().then(() => true, () => false)))).every(Boolean));
    const run = async (calls) => {
      let left = calls;
      await Promise.all(clients.map(async (client) => {
        while (left-- > 0) {
          const done = await client.ask('tools/call', { name: 'echo', arguments: { text: 'hello' } });
          if (!done.result) throw new Error(JSON.stringify(done));
        }
      }));
    };
    await run(CALLS / 8);
    const pids = programs.map((gateway) => gateway.process.child.pid);
    const statements = () => Number(postgres.psql(name,
      "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE '%mcpgw_record%' AND query NOT LIKE '%pg_stat%'"));
    const database = async () => cpuOf([postgres.process.child.pid, ...await descendants(postgres.process.child.pid)]);
    const before = { programs: cpuOf(pids), database: await database(), statements: statements(), at: performance.now() };
    await run(CALLS);
    const seconds = (performance.now() - before.at) / 1000;
    const each = (now, then) => ((now - then) / CALLS).toFixed(0);
    lines.push(`| ${count} | ${(CALLS / seconds).toFixed(0)} | ${each(cpuOf(pids), before.programs)} | ` +
      `${each(await database(), before.database)} | ${((statements() - before.statements) / CALLS).toFixed(3)} |`);
    for (const agent of agents) agent.destroy();
    await Promise.all(programs.map((gateway) => gateway.stop()));
  }
  await upstream.stop();
  await postgres.stop();
  for (const line of lines) t.diagnostic(line);
});
