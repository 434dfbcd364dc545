// Limits hold for all programs over one PostgreSQL together: whoever goes from one to the next has no more than at one.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Gateway, PASSWORD } from '../e2e/lib/gateway.mjs';
import { Postgres } from './postgres.mjs';

const config = (url, more = '') => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
${more}`;

let postgres;
let databases = 0;
before(async () => {
  postgres = await Postgres.start();
});
after(() => postgres.stop());

/** Three programs over one database, the administrator of the first, and how to start one more. */
async function cluster(more) {
  const url = postgres.database(`limits${++databases}`);
  const one = () => Gateway.start({ config: config(url, more) });
  const all = await Promise.all([one(), one(), one()]);
  await all[0].registerAdmin();
  for (const gateway of all) gateway.adminToken = all[0].adminToken;
  return { all, one, database: `limits${databases}`, stop: () => Promise.all(all.map((gateway) => gateway.stop())) };
}

const login = async (gateway, password, email = 'admin@example.test') =>
  (await gateway.api('POST', '/api/auth/login', { email, password }, null)).status;

test('R44 a guesser who goes from program to program has ten guesses, not thirty, also when a program begins anew', async () => {
  const { all, one, database, stop } = await cluster();
  const answers = [];
  for (let i = 0; i < 15; ++i) answers.push(await login(all[i % 3], `guess ${i}`));
  assert.deepEqual(answers, [...Array(10).fill(401), ...Array(5).fill(429)]);
  for (const gateway of all) assert.equal(await login(gateway, PASSWORD), 429);
  await all[1].stop('SIGKILL');
  all[1] = await one();
  assert.equal(await login(all[1], PASSWORD), 429);
  // At all of them at once, for an account that nobody has.
  const many = await Promise.all([...Array(24).keys()].map((i) => login(all[i % 3], 'a guess', 'nobody@example.test')));
  assert.equal(many.filter((status) => status === 401).length, 10);
  assert.equal(many.filter((status) => status === 429).length, 14);
  // Who guessed what is not to be read in the database.
  const stored = postgres.psql(database, `SELECT string_agg(encode(key, 'escape') || encode(value, 'escape'), '') FROM mcpgw_record WHERE collection = 'rates'::bytea`);
  assert.ok(stored.length > 0);
  for (const name of ['admin@', 'nobody@', '127.0.0.1']) assert.ok(!stored.includes(name));
  await stop();
});

test('registrations of an address and tickets of a user are counted together', async () => {
  const { all, stop } = await cluster('auth: {rate: {register_per_address: 6}}');
  const register = async (i) =>
    (await all[i % 3].api('POST', '/api/auth/register', { email: `u${i}@example.test`, password: PASSWORD }, null)).status;
  const answers = await Promise.all([...Array(9).keys()].map(register));
  assert.equal(answers.filter((status) => status === 201).length, 5);  // the administrator was the first
  assert.equal(answers.filter((status) => status === 429).length, 4);
  const tickets = [];
  for (let i = 0; i < 126; i += 9)
    tickets.push(...await Promise.all([...Array(9).keys()].map(async (k) =>
      (await all[k % 3].api('POST', '/api/observability/ticket')).status)));
  assert.equal(tickets.filter((status) => status < 300).length, 120, tickets.join(' '));
  assert.equal(tickets.filter((status) => status === 429).length, 6);
  await stop();
});
