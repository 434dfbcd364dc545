// The official suite's client scenarios, with the gateway as the client of the suite's server. Those about OAuth are left
// out: the gateway sends an upstream the credential that was stored for it, and never gets one by itself.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { few, judges, NODE, passed, requirements, testClient } from './lib/suite.mjs';

const REVISION = '2025-11-25';
const DRIVER = fileURLToPath(new URL('./client_driver.mjs', import.meta.url));

const wanted = (await requirements(REVISION)).client.filter((scenario) => !scenario.startsWith('auth/'));
const runs = await few(2, wanted.map((scenario) => () => testClient(`${NODE} ${DRIVER}`, scenario, REVISION)));

const good = runs.filter((one, i) => one.code === 0 && passed(one.checks.get(wanted[i])));
console.log(`| client, ${REVISION} | scored, without OAuth |`);
console.log('|---|---|');
console.log(`| gateway | ${good.length}/${wanted.length} (${runs.flatMap((one) => [...one.checks.values()].flat())
  .filter((check) => check.status === 'SUCCESS').length} checks) |`);

for (const [i, scenario] of wanted.entries()) {
  const { checks, output, code } = runs[i];
  describe(`client, ${REVISION}, ${scenario}`, () => {
    const found = (checks.get(scenario) ?? []).filter(judges);
    test('ran to its end', () => {
      assert.ok(found.length > 0, `No check was made.\n${output.slice(-6000)}`);
      assert.equal(code, 0, output.slice(-6000));
    });
    for (const check of found) test(check.id, () => assert.equal(check.status, 'SUCCESS', JSON.stringify(check, null, 1)));
  });
}
