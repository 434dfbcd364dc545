// The official suite's server scenarios against the fixture, bare and through the gateway: what the bare fixture passes,
// the gateway passes, whatever the transport and the era of its target; scored scenarios pass everywhere.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { few, judges, passed, requirements, testServer } from './lib/suite.mjs';
import { fixture, fixtureBehindGateway } from './lib/stand.mjs';

// `era` is that of the bare fixture; `targets` are [transport, era, scenarios or checks that cannot be asked of such a
// target]. Only over Streamable HTTP can a tool close the stream of its call, which is what server-sse-polling is about.
//
// A server of the 2025 era says within its answer that its client lacks a capability, and gives no names to what it asks for.
const IN_BAND = ['sep-2575-server-rejects-undeclared-capability', 'sep-2575-missing-capability-http-400',
  'input-required-result-basic-elicitation'];
const PLAN = [
  { revision: '2025-11-25', era: 'legacy', targets: [
    ['http', 'legacy', []],
    ['sse', 'legacy', ['server-sse-polling']],
    ['stdio', 'legacy', ['server-sse-polling']],
    ['http', 'modern', ['server-sse-polling']],
    ['stdio', 'modern', ['server-sse-polling']],
  ] },
  { revision: '2026-07-28', era: 'modern', targets: [
    ['http', 'legacy', IN_BAND],
    ['sse', 'legacy', IN_BAND],
    ['stdio', 'legacy', IN_BAND],
    ['http', 'modern', []],
    ['stdio', 'modern', []],
  ] },
];

/** One run of the suite: {checks, output, rebinding}. */
async function run(revision, open) {
  let stand;
  try {
    stand = await open();
    const { checks, output } = await testServer(stand.url, revision);
    const rebinding = stand.gateway ? await foreignOrigin(stand) : null;
    await stand.stop();
    return { checks, output, rebinding };
  } catch (error) {
    await stand?.stop().catch(() => {});
    return { checks: new Map(), output: String(error?.stack ?? error) };
  }
}

/** The statuses that a foreign origin gets, with the token and without: the suite is content with a 401. */
async function foreignOrigin({ gateway, url }) {
  const ask = async (target) => {
    const answer = await fetch(target, {
      method: 'POST', body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
      headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream', Origin: 'http://evil.example.com' },
    });
    await answer.text();
    return answer.status;
  };
  return { withToken: await ask(url), without: await ask(`${gateway.url}/mcp`) };
}

const legs = [];
for (const { revision, era, targets } of PLAN) {
  const wanted = await requirements(revision);
  const bare = { revision, wanted, name: 'bare fixture', except: [], open: () => fixture('http', era) };
  legs.push(bare, ...targets.map(([transport, of, except]) => ({
    revision, wanted, bare, except, name: `gateway, ${transport}${of === era ? '' : `, ${of}`}`,
    open: () => fixtureBehindGateway(transport, of, era),
  })));
}
await few(2, legs.map((leg) => async () => Object.assign(leg, await run(leg.revision, leg.open))));

/** "30/30 (70 checks)" */
function numbers(leg, names) {
  const good = names.filter((name) => passed(leg.checks.get(name)));
  const yes = names.flatMap((name) => leg.checks.get(name) ?? []).filter((check) => check.status === 'SUCCESS');
  return `${good.length}/${names.length} (${yes.length} checks)`;
}
for (const leg of legs) {
  if (!leg.bare) {
    console.log(`| server, ${leg.revision} | scored | not scored |`);
    console.log('|---|---|---|');
  }
  console.log(`| ${leg.name} | ${numbers(leg, leg.wanted.server)} | ${numbers(leg, leg.wanted.notScored.server)} |`);
}

for (const leg of legs) {
  describe(`${leg.revision}, ${leg.name}`, () => {
    for (const scenario of [...leg.wanted.server, ...leg.wanted.notScored.server]) {
      const checks = leg.checks.get(scenario);
      const expected = (leg.bare ?? leg).checks.get(scenario);
      if (!leg.wanted.server.includes(scenario) && !(passed(expected) && expected.some(judges))) continue;
      if (leg.except.includes(scenario)) continue;
      if (!checks?.some(judges)) {
        test(`${scenario}: ran`, () => assert.fail(`No check was made.\n${leg.output.slice(-4000)}`));
        continue;
      }
      for (const check of checks.filter((one) => judges(one) && !leg.except.includes(one.id)))
        test(`${scenario}: ${check.id}`, () => assert.notEqual(check.status, 'FAILURE', JSON.stringify(check, null, 1)));
      const missing = expected?.filter((other) => other.status === 'SUCCESS' && !checks.some((check) => check.id === other.id));
      if (missing?.length)
        test(`${scenario}: as many checks as without the gateway`, () => assert.fail(JSON.stringify(missing, null, 1)));
    }
    if (leg.rebinding) {
      test('a foreign origin is refused before anybody asks for a token', () =>
        assert.deepEqual(leg.rebinding, { withToken: 403, without: 403 }));
    }
  });
}
