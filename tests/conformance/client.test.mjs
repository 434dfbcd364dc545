// The official suite's client scenarios, with the gateway as the client of the suite's server: servers of 2025 for a client
// of that era, servers of 2026-07-28 for clients of both. Those about OAuth are left out: the gateway sends an upstream the
// credential that was stored for it, and never gets one by itself.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { few, judges, NODE, passed, requirements, testClient } from './lib/suite.mjs';

const DRIVER = fileURLToPath(new URL('./client_driver.mjs', import.meta.url));
const legs = [];
for (const [revision, eras] of [['2025-11-25', ['legacy']], ['2026-07-28', ['legacy', 'modern']]]) {
  const wanted = (await requirements(revision)).client.filter((scenario) => !scenario.startsWith('auth/'));
  for (const era of eras) legs.push({ revision, era, runs: wanted.map((scenario) => ({ scenario })) });
}
await few(2, legs.flatMap(({ revision, era, runs }) => runs.map((run) => async () =>
  Object.assign(run, await testClient(`${NODE} ${DRIVER} --era ${era}`, run.scenario, revision)))));

console.log('| client | scored, without OAuth |');
console.log('|---|---|');
for (const { revision, era, runs } of legs) {
  const good = runs.filter((one) => one.code === 0 && passed(one.checks.get(one.scenario)));
  const checks = runs.flatMap((one) => [...one.checks.values()].flat()).filter((check) => check.status === 'SUCCESS');
  console.log(`| ${revision}, gateway for a ${era} client | ${good.length}/${runs.length} (${checks.length} checks) |`);
}

for (const { revision, era, runs } of legs) {
  for (const { scenario, checks, output, code } of runs) {
    describe(`client, ${revision}, for a ${era} client, ${scenario}`, () => {
      const found = (checks.get(scenario) ?? []).filter(judges);
      test('ran to its end', () => {
        assert.ok(found.length > 0, `No check was made.\n${output.slice(-6000)}`);
        assert.equal(code, 0, output.slice(-6000));
      });
      for (const check of found) test(check.id, () => assert.equal(check.status, 'SUCCESS', JSON.stringify(check, null, 1)));
    });
  }
}
