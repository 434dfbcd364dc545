// A rolling upgrade: programs of this version beside the next one on one database. There is no next version yet, so what it
// would leave there is written by hand: further tables and columns, and members of records that nobody here knows.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before, test } from 'node:test';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { Gateway, MCPGW, PASSWORD, start, temporaryDirectory } from '../e2e/lib/gateway.mjs';
import { demoHttp, httpTarget } from '../e2e/lib/upstreams.mjs';
import { Postgres } from './postgres.mjs';

const config = (url) => `database: "${url}"
jwt: {secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"}
encryption: {key: "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"}
upstream: {allow_private: true}
`;

let postgres;
before(async () => {
  postgres = await Postgres.start();
});

/** The compatible migration of a version to come, and a member in every record that only it knows. */
const NEXT = `
  BEGIN;
  UPDATE mcpgw_schema SET version = version + 1;
  ALTER TABLE mcpgw_record ADD COLUMN future text NOT NULL DEFAULT 'of the next version';
  ALTER TABLE mcpgw_audit ADD COLUMN future text;
  CREATE INDEX mcpgw_record_future ON mcpgw_record(future);
  CREATE TABLE mcpgw_future(id bigint PRIMARY KEY);
  UPDATE mcpgw_state SET seq = seq + 1;
  UPDATE mcpgw_record SET version = version + 1, seq = (SELECT seq FROM mcpgw_state),
    value = convert_to((convert_from(value, 'UTF8')::jsonb || '{"future": {"kept": [1, "two"]}}')::text, 'UTF8')
    WHERE value IS NOT NULL;
  COMMIT;`;

test('a program of this version works beside a newer compatible one, and what that wrote survives its writes', async (t) => {
  const upstream = await demoHttp();
  const url = postgres.database('mixed');
  const all = [];
  t.after(async () => {
    await Promise.all(all.map((gateway) => gateway.stop('SIGKILL')));
    await upstream.stop();
  });
  const [first, second] = [await Gateway.start({ config: config(url) }), await Gateway.start({ config: config(url) })];
  all.push(first, second);
  await first.registerAdmin();
  const target = await first.addTarget('demo', { ...httpTarget(upstream.url), auth_type: 'bearer' });
  await first.ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: 'one' });
  await first.ask('PUT', `/api/targets/${target.id}/env/default`, { configs: { LEVEL: 'one' } });
  const ann = await first.addUser('ann');
  const policy = await first.allow(ann, target);
  const session = await openSession(first, ann.token);
  const call = async (gateway) => {
    const answer = await post(gateway, ann.token,
      { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'echo', arguments: { text: 'hello' } } }, { session });
    return JSON.parse(lastMessage(answer)).result?.content[0].text;
  };
  assert.equal(await call(first), 'hello');

  postgres.psql('mixed', NEXT);
  // The first one runs already, the second is started anew beside the newer one.
  await second.stop();
  const restarted = await Gateway.start({ directory: second.directory, config: null });
  restarted.adminToken = first.adminToken;
  all.push(restarted);
  for (const gateway of [first, restarted]) assert.equal(await call(gateway), 'hello');

  const written = (collection, and = '') => postgres.psql('mixed', `SELECT convert_from(value, 'UTF8') FROM mcpgw_record
    WHERE collection = '${collection}' AND value IS NOT NULL ${and}`).split('\n').map((text) => JSON.parse(text));
  for (const [n, gateway] of [first, restarted].entries()) {
    await gateway.ask('PUT', `/api/users/${ann.user.id}`, { groups: [`group-${n}`] }, first.adminToken);
    await gateway.ask('PUT', `/api/targets/${target.id}`, { description: `changed ${n}`, enabled: true }, first.adminToken);
    await gateway.ask('PUT', `/api/targets/${target.id}/tokens/default`, { token: `two-${n}` }, first.adminToken);
    await gateway.ask('PUT', `/api/targets/${target.id}/env/default`, { configs: { LEVEL: `two-${n}` } }, first.adminToken);
    await gateway.ask('PUT', `/api/policies/${policy.id}`, { priority: 50 + n }, first.adminToken);
    await post(gateway, ann.token, { jsonrpc: '2.0', id: 2, method: 'logging/setLevel', params: { level: ['error', 'warning'][n] } }, { session });
    for (const [collection, and, changed] of [
      ['users', "AND position('ann@' in convert_from(value, 'UTF8')) > 0", (record) => record.groups[0] === `group-${n}`],
      ['targets', '', (record) => record.future !== undefined],
      ['target_tokens', '', (record) => record.sealed !== undefined],
      ['env', '', (record) => record.sealed !== undefined],
      ['policies', `AND position('${policy.id}' in encode(key, 'escape')) > 0`, (record) => record.priority === 50 + n],
      ['sessions', '', (record) => record.log_level === ['error', 'warning'][n]]]) {
      const records = written(collection, and);
      assert.ok(records.length > 0, collection);
      for (const record of records) {
        assert.deepEqual(record.future, { kept: [1, 'two'] }, `${collection}: ${JSON.stringify(record)}`);
        assert.ok(changed(record), `${collection}: ${JSON.stringify(record)}`);
      }
    }
    // A login, and what it writes on the user's record.
    assert.ok((await gateway.ask('POST', '/api/auth/login', { email: ann.email, password: PASSWORD }, null)).token);
    assert.deepEqual(written('users', "AND position('ann@' in convert_from(value, 'UTF8')) > 0")[0].future, { kept: [1, 'two'] });
    assert.equal(await call(gateway), 'hello');
  }
  assert.equal(postgres.psql('mixed', 'SELECT version - compatible FROM mcpgw_schema'), '1', 'the older one leaves the version alone');
});

test('a database that this version cannot work with is refused by a clear word, and stays as it is', async () => {
  const url = postgres.database('major');
  const gateway = await Gateway.start({ config: config(url) });
  await gateway.registerAdmin();
  await gateway.stop();
  const refused = async () => {
    const directory = await temporaryDirectory();
    await writeFile(path.join(directory, 'mcpgw.yaml'), config(url));
    const failed = start(MCPGW, ['serve', '--port', '0'], { cwd: directory });
    assert.equal((await failed.exit).code, 1);
    return failed.lines.join('\n');
  };
  const before = postgres.psql('major', 'SELECT count(*), max(seq) FROM mcpgw_record');
  postgres.psql('major', 'UPDATE mcpgw_schema SET version = 9, compatible = 9');
  assert.match(await refused(), /changed by a newer version of mcpgw/);
  postgres.psql('major', 'UPDATE mcpgw_schema SET version = 1, compatible = 1');
  // The records' own form: of a version that changed what is there already.
  postgres.psql('major', `UPDATE mcpgw_record SET value = convert_to('{"schema": 2, "id": "mcpgw"}', 'UTF8')
    WHERE collection = 'meta' AND key = 'schema'`);
  assert.match(await refused(), /written by a newer version of mcpgw/);
  assert.equal(postgres.psql('major', 'SELECT count(*), max(seq) FROM mcpgw_record'), before);
});
