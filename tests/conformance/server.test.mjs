// The official suite's server scenarios against the fixture, bare and through the gateway for each transport of a
// target. What the bare fixture passes, the gateway passes; scored scenarios pass everywhere.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { few, judges, passed, requirements, testServer } from './lib/suite.mjs';
import { fixture, fixtureBehindGateway } from './lib/stand.mjs';

const REVISION = '2025-11-25';
const TRANSPORTS = ['http', 'sse', 'stdio'];
const BARE = 'bare fixture';
// Only over Streamable HTTP can a tool close the stream of its call, which is what this is about.
const HTTP_ONLY = ['server-sse-polling'];

/** One run of the suite: {name, checks, problem}. */
async function run(name, open) {
  let stand;
  try {
    stand = await open();
    const { checks, output } = await testServer(stand.url, REVISION);
    const rebinding = stand.gateway ? await foreignHost(stand) : null;
    await stand.stop();
    return { name, checks, output, rebinding };
  } catch (error) {
    await stand?.stop().catch(() => {});
    return { name, checks: new Map(), output: String(error?.stack ?? error) };
  }
}

/** The statuses that a foreign Host and a foreign Origin get, with the token and without: the suite is content with a 401. */
async function foreignHost({ gateway, url }) {
  const ask = (target, headers) => fetch(target, {
    method: 'POST', headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream', ...headers },
    body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
  }).then(async (answer) => (await answer.text(), answer.status));
  const origin = { Origin: 'http://evil.example.com' };
  // The forwarder's origin is allowed, any other is not.
  return { withToken: await ask(url, origin), without: await ask(`${gateway.url}/mcp`, origin) };
}

const wanted = await requirements(REVISION);
const scenarios = [...wanted.server, ...wanted.notScored.server];
const runs = await few(2, [
  () => run(BARE, () => fixture('http')),
  ...TRANSPORTS.map((transport) => () => run(`gateway, ${transport}`, () => fixtureBehindGateway(transport))),
]);
const bare = runs[0];

/** "30/30 (70 checks)" */
function numbers({ checks }, names) {
  const good = names.filter((name) => passed(checks.get(name)));
  const yes = names.flatMap((name) => checks.get(name) ?? []).filter((check) => check.status === 'SUCCESS');
  return `${good.length}/${names.length} (${yes.length} checks)`;
}
console.log(`| server, ${REVISION} | scored | not scored |`);
console.log('|---|---|---|');
for (const one of runs)
  console.log(`| ${one.name} | ${numbers(one, wanted.server)} | ${numbers(one, wanted.notScored.server)} |`);

for (const one of runs) {
  describe(`${REVISION}, ${one.name}`, () => {
    for (const scenario of scenarios) {
      const checks = one.checks.get(scenario);
      const expected = bare.checks.get(scenario);
      if (!wanted.server.includes(scenario) && !passed(expected)) continue;
      if (HTTP_ONLY.includes(scenario) && !one.name.endsWith('http') && one !== bare) continue;
      if (!checks?.some(judges)) {
        test(`${scenario}: ran`, () => assert.fail(`No check was made.\n${one.output.slice(-4000)}`));
        continue;
      }
      for (const check of checks.filter(judges)) {
        test(`${scenario}: ${check.id}`, () => {
          assert.notEqual(check.status, 'FAILURE', JSON.stringify(check, null, 1));
        });
      }
      const missing = (expected ?? []).filter((other) => other.status === 'SUCCESS' && !checks.some((check) => check.id === other.id));
      if (missing.length)
        test(`${scenario}: as many checks as without the gateway`, () => assert.fail(JSON.stringify(missing, null, 1)));
    }
    if (one.rebinding) {
      test('a foreign origin is refused before anybody asks for a token', () =>
        assert.deepEqual(one.rebinding, { withToken: 403, without: 403 }));
    }
  });
}
