// A secret of its own in every place that takes one; then everything the program ever said is searched for them,
// as they are and encoded.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openSession, post } from './lib/clients.mjs';
import { eventually, Gateway, run, temporaryDirectory } from './lib/gateway.mjs';
import { demoHttp, demoStdio, httpTarget, stdioTarget } from './lib/upstreams.mjs';

// --- canaries and the search for them ----------------------------------------------------------------

const MARK = 'canarysecret';
const canaries = new Map();  // text -> what it is
let made = 0;
/** A new secret; `length` characters in all. All begin alike, so that one search finds them all. */
function canary(what, length = 36) {
  const text = `${MARK}${made++}x${randomBytes(length).toString('hex')}`.slice(0, length);
  canaries.set(text, what);
  return text;
}

/** Every spelling under which `text` might hide. */
function spellings(text) {
  const bytes = Buffer.from(text, 'utf8');
  const out = [text, bytes.toString('hex'), bytes.toString('hex').toUpperCase(), [...text].reverse().join(''),
    [...bytes].map((byte) => `%${byte.toString(16)}`).join(''), [...bytes].map((byte) => `%${byte.toString(16).toUpperCase()}`).join(''),
    [...text].map((char) => `\\u00${char.charCodeAt(0).toString(16)}`).join(''), bytes.toString('utf16le')];
  // Base64 shows the same bytes in three ways, by where they stand.
  for (const offset of [0, 1, 2]) {
    const encoded = Buffer.concat([Buffer.alloc(offset), bytes]).toString('base64')
      .slice(Math.ceil(offset * 8 / 6), Math.floor((offset + bytes.length) * 8 / 6));
    out.push(encoded, encoded.replaceAll('+', '-').replaceAll('/', '_'));
  }
  return [...new Set(out)];
}

const marks = spellings(MARK);
/** Tokens that were handed out, and their signatures: made by the program, so they bear no mark. */
const handedOut = new Map();

/** What of the secrets is in `text`: their names, with what stands around them. */
function found(text) {
  const out = [];
  for (const word of [...marks, ...handedOut.keys()])
    for (let at = text.indexOf(word); at >= 0 && out.length < 30; at = text.indexOf(word, at + 1)) {
      const name = canaries.get(/^canarysecret\d+x[0-9a-f]*/.exec(text.slice(at, at + 60))?.[0]) ?? handedOut.get(word) ?? 'an encoded one';
      out.push(`${name} in: ...${text.slice(Math.max(0, at - 100), at + 80)}...`);
    }
  return out;
}

const said = [];  // {source, text}
const keep = (source, text) => { said.push({ source, text }); };

// --- upstreams that say what they were given ---------------------------------------------------------

/** Fails in a way that repeats every header it got, or sends its client to `elsewhere`. */
async function blabber(elsewhere) {
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const heard = JSON.stringify(request.headers) + Buffer.concat(chunks);
      const mode = request.url.slice(1);
      if (mode === 'status') response.writeHead(500, { 'Content-Type': 'text/plain', 'X-Heard': request.headers.authorization ?? '' }).end(heard);
      else if (mode === 'unauthorized') response.writeHead(401, { 'WWW-Authenticate': `Bearer error="${request.headers.authorization}"` }).end(heard);
      else if (mode === 'redirect') response.writeHead(302, { Location: `${elsewhere}/?heard=${encodeURIComponent(heard)}` }).end();
      else if (mode === 'rubbish') response.writeHead(200, { 'Content-Type': 'application/json' }).end(heard);
      else if (mode === 'cut') { response.writeHead(200, { 'Content-Type': 'text/event-stream' }); response.write(`data: ${heard}`, () => response.socket.destroy()); }
      else {
        const id = JSON.parse(Buffer.concat(chunks).toString() || '{}').id;
        response.writeHead(200, { 'Content-Type': 'application/json' })
          .end(JSON.stringify({ jsonrpc: '2.0', id, error: { code: -32000, message: heard, data: heard } }));
      }
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => { server.closeAllConnections(); server.close(); } };
}

/** Counts who comes. */
async function nobody() {
  const visits = [];
  const server = http.createServer((request, response) => {
    visits.push(request.headers);
    response.end('{}');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, visits, stop: () => { server.closeAllConnections(); server.close(); } };
}

/** Method and template of every operation of the REST API, from its description. */
async function operations() {
  const text = await readFile(fileURLToPath(new URL('../../docs/openapi.yaml', import.meta.url)), 'utf8');
  const out = [];
  let template = null;
  for (const line of text.split('\n')) {
    const at = /^ {2}(\/api\/[^:]*):$/.exec(line);
    if (at) template = at[1];
    else if (/^ {2}\S/.test(line) || /^\S/.test(line)) template = null;
    const method = /^ {4}(get|post|put|delete):$/.exec(line);
    if (template && method) out.push({ method: method[1].toUpperCase(), template });
  }
  return out;
}

// -----------------------------------------------------------------------------------------------------

test('the search finds a secret in every encoding, wherever it stands', () => {
  const secret = canary('the probe');
  for (const prefix of ['', 'a', 'ab', 'abc']) {
    const bytes = Buffer.from(prefix + secret + 'z');
    for (const text of [prefix + secret, bytes.toString('base64'), bytes.toString('base64url'), bytes.toString('hex'),
      `${prefix}${[...Buffer.from(secret)].map((b) => `%${b.toString(16)}`).join('')}`])
      assert.ok(found(`...${text}...`).length > 0, text);
  }
  assert.equal(found('nothing of that kind').length, 0);
});

describe('no secret is told', { timeout: 300000 }, () => {
  const passwords = {}, tokens = {};
  let gateway, directory, config, demo, blab, elsewhere, targets, users;

  /** One request; what comes back is kept, but for a token that is handed out. */
  async function call(method, route, { token, body, headers = {}, type = 'application/json' } = {}) {
    const response = await fetch(gateway.url + route, {
      method, redirect: 'manual',
      headers: { ...(body === undefined ? {} : { 'Content-Type': type }), ...(token ? { Authorization: `Bearer ${token}` } : {}), ...headers },
      body,
    });
    const text = await response.text();
    let json = null;
    try { json = JSON.parse(text); } catch { /* not every answer is JSON */ }
    const handed = response.status < 300 && method === 'POST' && /^\/api\/auth\/(register|login|tokens)/.test(route) ? json?.token : null;
    keep(`${method} ${route}`, JSON.stringify([...response.headers]) + (handed ? text.replaceAll(handed, '') : text));
    if (handed) {
      handedOut.set(handed, 'a token that was handed out');
      handedOut.set(handed.slice(handed.lastIndexOf('.') + 1), 'the signature of a token');
    }
    return { status: response.status, json };
  }
  const send = (method, route, value, token) => call(method, route, { token, body: value === undefined ? undefined : JSON.stringify(value) });
  async function done(method, route, value, token = tokens.admin) {
    const answer = await send(method, route, value, token);
    assert.ok(answer.status < 300, `${method} ${route}: ${answer.status} ${JSON.stringify(answer.json)}`);
    return answer.json;
  }
  const login = async (email, password) => (await send('POST', '/api/auth/login', { email, password })).json.token;

  before(async () => {
    directory = await temporaryDirectory();
    config = (level, format) => `
jwt: { secret: ${JWT} }
encryption: { key: ${KEY} }
auth: { setup_token: ${SETUP} }
metrics: { token: ${METRICS} }
logging: { level: ${level}, format: ${format} }
upstream: { allow_private: true, list_timeout: 3s }
`;
    const JWT = canary('jwt.secret', 52), KEY = canary('encryption.key', 32), SETUP = canary('auth.setup_token'), METRICS = canary('metrics.token');
    tokens.metrics = METRICS;
    gateway = await Gateway.start({ config: config('trace', 'json'), directory });
    demo = await demoHttp();
    elsewhere = await nobody();
    blab = await blabber(elsewhere.url);

    // The first user, by setup token in the body; wrong ones before.
    passwords.admin = canary('the password of the admin');
    const first = { email: 'admin@example.test', password: passwords.admin };
    assert.equal((await send('POST', '/api/auth/register', first)).status, 403);
    assert.equal((await send('POST', '/api/auth/register', { ...first, setup_token: canary('a wrong setup token') })).status, 403);
    assert.equal((await call('POST', '/api/auth/register', { body: JSON.stringify(first), headers: { 'X-Setup-Token': canary('a wrong setup header') } })).status, 403);
    const registered = await call('POST', '/api/auth/register', { body: JSON.stringify(first), headers: { 'X-Setup-Token': SETUP } });
    assert.equal(registered.status, 201);
    tokens.admin = registered.json.token;

    users = {};
    for (const name of ['bob', 'gone']) {
      passwords[name] = canary(`the password of ${name}`);
      users[name] = await done('POST', '/api/users', { email: `${name}@example.test`, password: passwords[name], groups: ['ops'] });
      tokens[name] = await login(`${name}@example.test`, passwords[name]);
    }
    tokens.program = (await done('POST', '/api/auth/tokens', { name: 'program', scopes: ['mcp'] }, tokens.bob)).token;

    targets = { demo: httpTarget(demo.url), local: { ...demoStdio, isolation_boundary: 'per_user', user_env_keys: ['*'] },
      talks: stdioTarget('/bin/sh', '-c', 'echo "I was given $AUTH_TOKEN and $DB_PASS" >&2; env >&2; exit 3') };
    for (const mode of ['status', 'unauthorized', 'redirect', 'rubbish', 'cut', 'error']) targets[mode] = httpTarget(`${blab.url}/${mode}`);
    const pem = Buffer.from(canary('a TLS client key')).toString('base64');
    for (const [name, members] of Object.entries(targets)) {
      targets[name] = await done('POST', '/api/targets', { name, auth_type: members.url ? 'bearer' : 'none', forward_headers: ['X-Api-Key'], ...members });
      const at = `/api/targets/${targets[name].id}`;
      await done('PUT', `${at}/tokens/default`, { token: canary(`the default token of ${name}`) });
      await done('PUT', `${at}/tokens/role`, { role: 'user', token: canary(`a role's token of ${name}`) });
      await done('PUT', `${at}/tokens/group`, { group_name: 'ops', token: canary(`a group's token of ${name}`) });
      await done('PUT', `${at}/token`, { token: canary(`the admin's own token of ${name}`) });
      for (const scope of ['default', 'role/user', 'group/ops', `user/${users.bob.id}`]) {
        await done('POST', `${at}/env/${scope}`, { key: 'DB_PASS', value: canary(`an env value of ${name}, ${scope}`) });
        await done('PUT', `${at}/env/${scope}`, { configs: { MORE: canary(`an env value in bulk of ${name}, ${scope}`) } });
      }
    }
    await done('PUT', `/api/targets/${targets.status.id}`, { tls: {
      client_cert: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
      client_key: `-----BEGIN PRIVATE KEY-----\n${pem}\n-----END PRIVATE KEY-----\n` } });
    await done('POST', '/api/policies', { name: 'all', effect: 'allow', subjects: [{ subject_type: 'everyone' }] });
    await done('PUT', `/api/targets/${targets.demo.id}/token`, { token: canary('bob\'s own token') }, tokens.bob);
  });

  after(async () => {
    await gateway?.stop();
    await demo?.stop();
    blab?.stop();
    elsewhere?.stop();
  });

  test('every route, for everyone, with input that is right, wrong and rubbish', async () => {
    const all = await operations();
    assert.ok(all.length > 50, `only ${all.length} operations are described`);
    const who = { nobody: undefined, admin: tokens.admin, bob: tokens.bob, program: tokens.program, junk: canary('a junk token') };
    const secret = (what) => canary(what);
    const bodies = () => [
      JSON.stringify({ email: 'x', password: secret('password'), old_password: secret('old_password'), new_password: 'short', setup_token: secret('setup_token'),
        token: `${secret('a token with a line break')}\n`, role: 'r r', group: 'a', group_name: 'b', key: '1', value: secret('value'), configs: { '1': secret('configs') },
        name: '', effect: 'maybe', tls: { client_key: secret('client_key') } }),
      JSON.stringify({ email: secret('a password typed as an address'), password: 7 }),
      JSON.stringify({ password: [secret('in an array')], token: { a: secret('in an object') }, value: [secret('value in an array')], configs: [secret('configs as an array')] }),
      JSON.stringify({ key: 'K', value: `${secret('with a control character')}\u0001`, configs: { K: `${secret('bulk with a control character')}\r` }, token: '' }),
      JSON.stringify({ client_secret: secret('an unknown member'), unknown: { deep: [secret('deep')] } }),
      `{"password":"${secret('broken JSON')}"`, `"${secret('a JSON text')}"`, `[${JSON.stringify(secret('a JSON array'))}]`,
      secret('no JSON'), `{"token":"${secret('twice')}","token":"x"}`, `{"tok\\u0065n":"${secret('escaped name')}","value":7}`,
    ];
    for (const { method, template } of all) {
      const gone = canary('a path value');
      const paths = new Set([
        template.replaceAll(/\{[^}]+\}/g, gone),
        template.replace('{id}', template.startsWith('/api/users') ? users.bob.id : targets.demo.id).replace('{scopeValue}', users.bob.id)
          .replaceAll(/\{[^}]+\}/g, 'X'),
      ]);
      for (const route of paths)
        for (const [name, token] of Object.entries(who)) {
          const query = `?token=${canary('a token in a query')}&api_key=${canary('a key in a query')}`;
          const headers = { Cookie: `session=${canary('a cookie')}`, 'X-Api-Key': canary('a header') };
          if (method === 'GET') { await call(method, route + query, { token, headers }); continue; }
          // What would end the identities or objects of this test is tried without its rights.
          const destructive = route.endsWith('/logout') || (method === 'DELETE' && !route.includes(gone)) || /password$/.test(route);
          if (destructive && (name === 'admin' || name === 'bob')) continue;
          for (const body of method === 'DELETE' ? [''] : bodies()) await call(method, route + query, { token, headers, body });
        }
    }
    await call('POST', '/api/auth/login', { body: JSON.stringify({ email: 'admin@example.test', password: canary('a wrong password') }) });
    await call('POST', '/api/auth/login', { type: 'text/plain', body: canary('a body of another type') });
    await call('POST', '/api/auth/login', { body: JSON.stringify({ password: canary('a huge body') + 'x'.repeat(2 << 20) }) });
    for (const url of [`https://user:${canary('userinfo')}@h.test/`, `https://${canary('user name')}@h.test/mcp`, `ftp://ann:${canary('userinfo of another scheme')}@h.test/`])
      assert.equal((await send('POST', '/api/targets', { name: 'bad', url }, tokens.admin)).status, 400);
    for (const authorization of [`Basic ${Buffer.from(`a:${canary('basic credentials')}`).toString('base64')}`, `Bearer ${canary('bearer')} x`, canary('no scheme')])
      for (const route of ['/api/auth/me', '/mcp', '/metrics'])
        await call('GET', route, { headers: { Authorization: authorization } });
  });

  test('what users do with their own: passwords, tokens, deletion', async () => {
    const next = canary('a new password');
    await done('POST', '/api/auth/password', { old_password: passwords.gone, new_password: next }, tokens.gone);
    await send('POST', '/api/auth/password', { old_password: canary('a wrong old password'), new_password: canary('refused password') }, tokens.gone);
    await done('PUT', `/api/users/${users.gone.id}`, { password: canary('a password set by an admin') });
    const again = await login('gone@example.test', next);
    assert.equal(again, undefined);
    await done('DELETE', `/api/users/${users.gone.id}`);
    await done('POST', '/api/auth/logout', undefined, await login('bob@example.test', passwords.bob));
  });

  test('calls: credentials in use, secrets in arguments, upstreams that tell what they were given', async () => {
    const session = await openSession(gateway, tokens.program);
    const own = canary('bob\'s own token');
    await done('PUT', `/api/targets/${targets.demo.id}/token`, { token: own }, tokens.bob);
    const ask = async (message) => keep('/mcp', (await post(gateway, tokens.program, message,
      { session, headers: { 'X-Api-Key': canary('a forwarded header'), Cookie: canary('a cookie of a client') } })).text);
    let id = 0;
    const tool = (name, args) => ask({ jsonrpc: '2.0', id: ++id, method: 'tools/call', params: { name, arguments: args } });
    await ask({ jsonrpc: '2.0', id: ++id, method: 'tools/list' });
    for (const name of ['demo_whoami', 'local_whoami']) await tool(name, {});
    // The tool gives back what it is given: to its caller, who has it, but to nobody else.
    const echoed = await post(gateway, tokens.program, { jsonrpc: '2.0', id: ++id, method: 'tools/call', params: { name: 'demo_echo', arguments: {
      text: own, password: canary('an argument'), nested: [{ api_key: canary('a nested argument') }], Authorization: canary('an argument like a header'), 'client-secret': canary('an argument with a dash') } } }, { session });
    assert.ok(echoed.text.includes(own));
    for (const name of Object.keys(targets)) await tool(`${name}_anything`, { token: canary(`an argument of ${name}`) });
    for (const target of Object.values(targets)) {
      await send('POST', `/api/targets/${target.id}/test`, {}, tokens.admin);
      await send('POST', `/api/targets/${target.id}/test`, { user_id: users.bob.id }, tokens.admin);
      await send('GET', `/api/targets/${target.id}`, undefined, tokens.admin);
    }
    const talks = (await send('GET', `/api/targets/${targets.talks.id}`, undefined, tokens.admin)).json.status;
    assert.match(talks.last_error ?? '', /code 3; stderr: .*redacted/, 'the end of stderr is shown, masked');
    for (const body of [`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"password":"${canary('a broken message')}"`, canary('no message'),
      JSON.stringify({ jsonrpc: '1.0', id: 1, method: 'x', params: { password: canary('a wrong version') } }),
      JSON.stringify({ jsonrpc: '2.0', id: { token: canary('an id that is none') }, method: 'ping' }),
      JSON.stringify({ jsonrpc: '2.0', id: 2, method: 'tools/call', params: { name: 'demo_echo', arguments: { password: canary('a call without session') } } })])
      keep('/mcp', (await post(gateway, tokens.program, body)).text);
    for (const route of ['/mcp', '/sse', '/mcp/x']) await call('GET', `${route}?token=${canary('a token in a query of /mcp')}&session_id=${canary('a session id')}`, { headers: { Accept: 'text/event-stream' } });
  });

  test('R13, R14: a credential goes nowhere else, and callers learn neither addresses nor what a server says of them', () => {
    assert.deepEqual(elsewhere.visits, [], 'a redirect was followed');
    const heard = said.filter(({ source }) => source === '/mcp').map(({ text }) => text).join('');
    assert.ok(heard.includes('"target":"redirect"') && heard.includes('"target":"status"'), 'the targets were called');
    for (const word of [new URL(blab.url).host, new URL(elsewhere.url).host, 'ECONNREFUSED', 'user-agent'])
      assert.ok(!heard.includes(word), word);
  });

  test('everything else that answers, and what is no HTTP', async () => {
    for (const route of ['/', '/health', '/ready', '/version', '/metrics', '/docs', '/docs/openapi.yaml', '/docs/openapi.json', '/nothing', '/%zz', '/api', '/api/', '/api/observability/ws'])
      for (const method of ['GET', 'POST', 'OPTIONS', 'PATCH'])
        await call(method, `${route}?token=${canary('a token in a query')}`, { headers: { 'X-Secret': canary('a header') } });
    assert.equal((await call('GET', '/metrics', { token: tokens.metrics })).status, 200);
    const port = Number(new URL(gateway.url).port);
    for (const text of [`GET /?token=${canary('in a request line')} HTTP/1.1\r\nBad Header ${canary('a malformed header')}\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${canary('a header that is too large')}${'x'.repeat(70000)}\r\n\r\n`,
      `${canary('no HTTP at all')}\r\n\r\n`, `POST /api/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${canary('no chunk')}\r\n`,
      `GET /${canary('a path with a space')} x HTTP/1.1\r\nHost: x\r\n\r\n`])
      keep('the socket', await new Promise((resolve) => {
        let heard = '';
        const socket = net.connect(port, '127.0.0.1', () => socket.end(text));
        socket.on('data', (data) => { heard += data; });
        socket.on('close', () => resolve(heard));
        socket.on('error', () => {});
      }));
  });

  test('what the command line prints', async () => {
    const say = async (args, input) => {
      const result = await run(args, { cwd: directory, input });
      keep(`mcpgw ${args.join(' ')}`, `${result.stdout}${result.stderr}`);
      return result;
    };
    const typed = canary('a typed password');
    for (const json of [[], ['--json']])
      for (const args of [['user', 'list'], ['token', 'list', 'bob@example.test'], ['target', 'list'], ['target', 'show', 'demo'], ['target', 'show', 'status'],
        ['policy', 'list'], ['policy', 'explain', '--user', 'bob@example.test', '--target', 'demo', '--type', 'tool', '--name', 'echo'], ['logs'], ['keys', 'status'], ['doctor'], ['version']])
        await say([...args, ...json]);
    await say(['user', 'add', 'typed@example.test'], `${typed}\n`);
    await say(['user', 'add', 'typed@example.test'], `${canary('typed twice')}\n`);
    await say(['user', 'set-password', 'nobody@example.test'], `${canary('typed for nobody')}\n`);
    await say(['user', 'set-password', 'typed@example.test'], `${canary('typed and different')}\n${canary('typed and other')}\n`);
    await say(['target', 'add', 'bad', '--url', `https://a:${canary('userinfo on the command line')}@h.test`]);
    await say(['serve', '--port', String(new URL(gateway.url).port)]);
    assert.equal((await say(['version'])).code, 0);
  });

  test('audit rows, log lines and answers hold none of all these', async () => {
    await eventually('the audit rows', async () => {
      const one = await fetch(`${gateway.url}/api/logs?limit=1`, { headers: { Authorization: `Bearer ${tokens.admin}` } });
      const total = one.headers.get('x-total-count');
      const unchanged = total === gateway.lastTotal;
      gateway.lastTotal = total;
      return unchanged;
    });
    let rows = 0;
    for (let offset = 0; ; offset += 1000) {
      const page = (await call('GET', `/api/logs?limit=1000&offset=${offset}`, { token: tokens.admin })).json;
      rows += page.length;
      if (page.length < 1000) break;
    }
    assert.ok(rows > 500, `only ${rows} audit rows`);
    await call('GET', '/api/observability/snapshot', { token: tokens.admin });

    // Once more with the other form of log lines.
    const first = gateway;
    keep('the log', first.logText);
    assert.ok(first.process.lines.length > 1000, `only ${first.process.lines.length} log lines`);
    // R82: each of them is one JSON object.
    for (const line of first.process.lines) {
      const event = JSON.parse(line);
      assert.ok(event.time && event.level && event.module && event.message, line);
    }
    assert.deepEqual(await first.stop(), { code: 0, signal: null });
    keep('the log', first.logText);

    assert.ok(said.length > 1000);
    assert.ok(canaries.size > 500, `only ${canaries.size} secrets`);
    const bySource = new Map();
    for (const { source, text } of said) bySource.set(source, (bySource.get(source) ?? '') + text);
    const leaks = [];
    for (const [source, text] of bySource) for (const leak of found(text)) leaks.push(`${source}: ${leak}`);
    assert.deepEqual(leaks, []);
  });

  test('at rest they are sealed: none is in the files', async () => {
    const data = path.join(directory, 'mcpgw-data');
    const files = await readdir(data);
    assert.ok(files.some((file) => file.endsWith('.db')), files.join());
    const leaks = [];
    for (const file of files) for (const leak of found((await readFile(path.join(data, file))).toString('latin1'))) leaks.push(`${file}: ${leak}`);
    assert.deepEqual(leaks, []);
  });

  test('the plain form of the log holds none either', async () => {
    const { writeFile } = await import('node:fs/promises');
    await writeFile(path.join(directory, 'mcpgw.yaml'), config('trace', 'console'));
    const { start, MCPGW } = await import('./lib/gateway.mjs');
    const process = start(MCPGW, ['serve', '--port', '0'], { cwd: directory });
    gateway = { url: await process.line('the address', (line) => / listening .*url=(\S+)/.exec(line)?.[1]), stop: () => process.stop() };
    tokens.bob = await login('bob@example.test', passwords.bob);
    await call('GET', `/api/auth/me?token=${canary('a token in a query')}`, { token: tokens.bob });
    await send('PUT', `/api/targets/${targets.talks.id}/tokens/default`, { token: canary('a token in plain days') }, tokens.admin);
    for (const target of Object.values(targets)) await send('POST', `/api/targets/${target.id}/test`, { user_id: users.bob.id }, tokens.admin);
    await process.stop();
    assert.ok(process.lines.length > 20);
    assert.deepEqual(found(process.lines.join('\n')), []);
  });
});
