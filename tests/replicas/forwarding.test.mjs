// Several programs over one PostgreSQL behind a balancer that sends each request elsewhere: a client of the official SDK
// notices nothing of it, and of the end of one as little as can be.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ElicitRequestSchema, LoggingMessageNotificationSchema, connectBalanced } from '../e2e/lib/balanced.mjs';
import { Gateway, descendants, eventually } from '../e2e/lib/gateway.mjs';
import { stdioTarget } from '../e2e/lib/upstreams.mjs';
import { Postgres } from './postgres.mjs';

const SERVER = fileURLToPath(new URL('counting_server.mjs', import.meta.url));
const config = (url) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
stdio: {allowed_commands: ["${process.execPath}"]}
replicas: {host: 127.0.0.1, port: 0, lease: 3s}
`;

let postgres;
let databases = 0;
before(async () => {
  postgres = await Postgres.start();
});

async function cluster() {
  const name = `forwarding${++databases}`;
  const url = postgres.database(name);
  const all = await Promise.all([1, 2, 3].map(() => Gateway.start({ config: config(url) })));
  await all[0].registerAdmin();
  for (const gateway of all) gateway.adminToken = all[0].adminToken;
  const target = await all[0].addTarget('counting', stdioTarget(process.execPath, SERVER));
  const ann = await all[0].addUser('ann');
  await all[0].allow(ann, target);
  return { all, ann };
}

const say = async (client, name, args = {}) => {
  const result = await client.callTool({ name, arguments: args });
  return JSON.parse(result.content[0].text);
};

test('R30 a client whose requests go to all programs in turn has one session, one process, one stream', async () => {
  const { all, ann } = await cluster();
  const heard = [];
  const client = await connectBalanced(all, ann.token, (made) => {
    made.setRequestHandler(ElicitRequestSchema, async () => ({ action: 'accept', content: { name: 'octocat' } }));
    made.setNotificationHandler(LoggingMessageNotificationSchema, (note) => { heard.push(note.params.data); });
  });
  const counts = [];
  for (let i = 0; i < 12; ++i) counts.push(await say(client, 'count'));
  assert.deepEqual(counts.map((one) => one.count), [...Array(12).keys()].map((i) => i + 1));
  assert.equal(new Set(counts.map((one) => one.pid)).size, 1);
  for (let i = 0; i < 4; ++i) assert.deepEqual(await say(client, 'ask'), { action: 'accept', content: { name: 'octocat' } });
  const words = ['one', 'two', 'three', 'four', 'five'];
  for (const word of words) {
    await say(client, 'announce', { word });
    await eventually(`the client hears ${word}`, () => heard.includes(word));
  }
  assert.deepEqual(heard, words);
  await client.close();
  await Promise.all(all.map((gateway) => gateway.stop()));
});

test('a program that is killed loses the call it was at, which is told, and nothing else', async () => {
  const { all, ann } = await cluster();
  const heard = [];
  const client = await connectBalanced(all, ann.token, (made) => {
    made.setNotificationHandler(LoggingMessageNotificationSchema, (note) => { heard.push(note.params.data); });
  });
  const before = await say(client, 'count');
  let owner;
  for (const gateway of all)
    if ((await descendants(gateway.process.child.pid)).includes(before.pid)) owner = gateway;
  assert.ok(owner);
  // Two of three reach it by another.
  const hanging = await Promise.all([1, 2, 3].map(() => {
    const call = client.callTool({ name: 'hang', arguments: {} }, undefined, { timeout: 20000 }).then(
      () => 'answered', (error) => String(error.message));
    return { call };
  }));
  await new Promise((resolve) => setTimeout(resolve, 300));
  await owner.stop('SIGKILL');
  const rest = all.filter((gateway) => gateway !== owner);
  const outcomes = await Promise.all(hanging.slice(0, 3).map((one) => Promise.race([one.call,
    new Promise((resolve) => setTimeout(() => resolve('still waiting'), 5000))])));
  // The one that was sent to the killed program itself has lost its connection.
  assert.equal(outcomes.filter((text) => /has gone: what it has done of it is unknown/.test(text)).length, 2, outcomes.join('; '));
  const after = await say(client, 'count');
  assert.equal(after.count, 1);
  assert.notEqual(after.pid, before.pid);
  assert.equal((await say(client, 'count')).count, 2);
  // Its stream is open again.
  await eventually('the client hears', async () => {
    await say(client, 'announce', { word: 'again' });
    return heard.includes('again');
  });
  await client.close();
  await Promise.all(rest.map((gateway) => gateway.stop()));
});

test('a program that stops hands its sessions over, and strangers are told nothing where programs meet', async () => {
  const { all, ann } = await cluster();
  const client = await connectBalanced(all, ann.token);
  const before = await say(client, 'count');
  let owner;
  for (const gateway of all)
    if ((await descendants(gateway.process.child.pid)).includes(before.pid)) owner = gateway;
  const door = (await owner.log('answers for the other replicas')).address;
  for (const [route, body, status] of [['/mcp', '{}', 404], ['/api/users', '', 404], ['/forward', '{}', 403], ['/forward', '', 403]])
    assert.equal((await fetch(door + route, { method: 'POST', body, headers: { Authorization: `Bearer ${ann.token}` } })).status, status);
  await owner.stop();
  assert.equal((await say(client, 'count')).count, 1);
  assert.equal((await say(client, 'count')).count, 2);
  await client.close();
  await Promise.all(all.filter((gateway) => gateway !== owner).map((gateway) => gateway.stop()));
});
