// What a call costs the database: nothing.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { Gateway, eventually } from '../e2e/lib/gateway.mjs';
import { demoHttp, httpTarget } from '../e2e/lib/upstreams.mjs';
import { ChaosClient } from './chaos.mjs';
import { Postgres } from './postgres.mjs';

const CALLS = 400;
const config = (url) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
upstream: {allow_private: true}
`;

test('a tools/call makes no round trip to the database on its way, in either era, also with a credential', async (t) => {
  const postgres = await Postgres.start({ settings: { shared_preload_libraries: 'pg_stat_statements' } });
  const upstream = await demoHttp();
  const url = postgres.database('counted');
  postgres.psql('counted', 'CREATE EXTENSION pg_stat_statements');
  const gateway = await Gateway.start({ config: config(url) });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  t.after(async () => {
    agent.destroy();
    await gateway.stop();
    await upstream.stop();
    await postgres.stop();
  });
  await gateway.registerAdmin();
  const target = await gateway.addTarget('demo', { ...httpTarget(upstream.url), auth_type: 'bearer' });
  await gateway.ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: 'the-credential' });
  const ann = await gateway.addUser('ann');
  await gateway.allow(ann, target);
  /** Statements about records so far: get, list, commit, whoever makes them. Audit rows go in batches, after the answer. */
  const statements = () => Number(postgres.psql('counted',
    "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE '%mcpgw_record%' AND query NOT LIKE '%pg_stat%'"));
  const rows = () => Number(postgres.psql('counted', `SELECT count(*) FROM mcpgw_audit WHERE method = 'tools/call'`));
  for (const modern of [false, true]) {
    const client = new ChaosClient({ agent, base: gateway.url, token: ann.token, modern, name: 'counted' });
    await client.open();
    const echo = async (text) => assert.equal((await client.ask('tools/call', { name: 'echo', arguments: { text } })).result.content[0].text, text);
    for (let i = 0; i < 20; ++i) await echo(`warm ${i}`);
    await eventually('rows of the first calls are written', () => rows() % (CALLS + 20) === 20);
    const before = statements();
    for (let i = 0; i < CALLS; i += 4) await Promise.all([0, 1, 2, 3].map((k) => echo(`text ${i + k}`)));
    const records = statements() - before;
    // What goes on beside (heartbeats, a token's last use) does so however many calls there are.
    assert.ok(records < CALLS / 10, `${records} statements about records in ${CALLS} calls`);
    await eventually('all rows are written', () => rows() % (CALLS + 20) === 0);
    t.diagnostic(`| ${modern ? 'modern' : 'legacy'} | ${records} statements about records in ${CALLS} calls |`);
  }
});
