// The dashboard at / in Debian's Chromium: the first account, traffic as it happens, filters, what a plain user sees, the
// end of a session, a gateway that comes back, the keyboard, axe-core's rules, and a page that asks nobody but the gateway.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { eventually, Gateway, PASSWORD } from '../e2e/lib/gateway.mjs';
import { demoStdio } from '../e2e/lib/upstreams.mjs';
import { launch, open, picture } from './lib/browser.mjs';
import { McpSession } from './lib/console.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PHONE = { viewport: { width: 360, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

/** The rules of WCAG 2.2 A and AA and axe's best practices, on what the page shows now. */
async function accessible(page) {
  // Evaluated by the browser's own console, which no policy of the page concerns.
  if (!await page.evaluate(() => 'axe' in window)) await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  assert.deepEqual(found.violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html.slice(0, 200) + ' ' + node.failureSummary)]), []);
}

const live = (page) => page.locator('[data-connection=live]').waitFor();
const rows = (page) => page.locator('table.calls tbody tr');
const rowOf = (page, text) => rows(page).filter({ hasText: text }).first();

async function signIn(page, email) {
  await page.getByLabel('Email').fill(email);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await live(page);
}

/** Another address of the gateway at `url`, where a request to open a WebSocket reaches it `late` ms after it came. */
async function lateWebSockets(url, late) {
  const sockets = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(Number(new URL(url).port), '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.on('error', () => other.destroy()).on('close', () => sockets.delete(one) && other.destroy());
    }
    far.pipe(near);
    let ahead = Promise.resolve();
    near.on('data', (data) => {
      const opening = /^GET \S+ HTTP\/1\.1\r\n[^]*^upgrade: *websocket\r$/mi.test(data.toString('latin1'));
      ahead = ahead.then(() => opening && new Promise((resolve) => setTimeout(resolve, late))).then(() => far.write(data));
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close: () => new Promise((resolve) => {
      server.close(resolve);
      for (const socket of sockets) socket.destroy();
    }),
  };
}

/** No element reaches beyond the right edge, save inside regions that scroll by themselves. */
async function fitsTheWidth(page) {
  const wide = await page.evaluate(() => {
    const most = document.documentElement.clientWidth;
    return document.documentElement.scrollWidth > most ? [document.documentElement.scrollWidth, most] : [];
  });
  assert.deepEqual(wide, []);
}

describe('the first account and what it sees', () => {
  let gateway, at, token, mcp;
  before(async () => {
    gateway = await Gateway.start();
    at = await open(browser, gateway.url + '/', { colorScheme: 'light' });
  });
  after(async () => {
    await at?.close();
    await gateway?.stop();
  });

  test('is made at the entrance and is the administrator', async () => {
    const { page } = at;
    await accessible(page);
    await picture(page, 'console-entrance');
    await page.getByRole('button', { name: 'Create an account' }).click();
    await page.getByText('becomes its administrator').waitFor();
    await page.getByLabel('Email').fill('admin@example.test');
    await page.getByLabel('Password').fill('short');
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByRole('alert').filter({ hasText: '8' }).waitFor();  // the shortest that is taken
    await page.getByLabel('Password').fill(PASSWORD);
    await page.getByRole('button', { name: 'Create account' }).click();
    await live(page);
    await page.locator('.who-role', { hasText: 'admin' }).waitFor();
    gateway.adminToken = await page.evaluate(() => sessionStorage.getItem('mcpgw.token'));
    assert.equal((await gateway.ask('GET', '/api/auth/me')).role, 'admin');
  });

  test('an empty gateway says what to do, and its dialog gives what a client needs', async () => {
    const { page } = at;
    await page.getByText('No target yet').waitFor();
    await page.getByText('No calls in the last 15 minutes').waitFor();
    await accessible(page);
    await picture(page, 'console-empty');
    const opener = page.locator('.page-head').getByRole('button', { name: 'Connect a client' });
    await opener.click();
    const dialog = page.getByRole('dialog');
    const url = await dialog.locator('[data-mcp-url]').innerText();
    assert.equal(url, gateway.url + '/mcp');
    await dialog.getByLabel('Name of the token').fill('laptop');
    await dialog.getByRole('button', { name: 'Create token' }).click();
    token = await dialog.locator('[data-new-token]').innerText();
    const [, name] = (await gateway.ask('GET', '/api/auth/tokens')).map((one) => one.name).sort();
    assert.equal(name, 'laptop');
    for (const client of ['Claude Code', 'Cursor', 'VS Code']) {
      await dialog.getByText(client, { exact: true }).click();
      const text = await dialog.locator('pre').innerText();
      assert.ok(text.includes(url) && text.includes(`Bearer ${token}`), text);
    }
    await accessible(page);
    await picture(page, 'console-connect');
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    assert.ok(await opener.evaluate((element) => element === document.activeElement));
    // The token that was shown works, for MCP only.
    assert.equal((await gateway.api('GET', '/api/auth/me', undefined, token)).status, 403);
  });

  test('calls appear as they happen', async () => {
    const { page } = at;
    await gateway.addTarget('demo', demoStdio);
    await page.locator('table.targets tr[data-target=demo]').waitFor();
    mcp = await McpSession.open(gateway.url + '/mcp', token);
    assert.match(await mcp.call('add', { a: 19, b: 23 }), /42/);
    const call = rowOf(page, 'add');
    await call.waitFor();
    const text = await call.innerText();
    for (const part of ['OK', 'demo', 'tools/call', 'admin@example.test', 'ms']) assert.ok(text.includes(part), text);
    await mcp.call('no_such_tool');
    const failed = rowOf(page, 'no_such_tool');
    await failed.getByText('unknown_item').waitFor();
    assert.equal(await failed.getAttribute('data-outcome'), 'error');
    await rowOf(page, 'session created').waitFor();
    // The figures follow with the next snapshot.
    await page.locator('[data-number=Errors]', { hasText: '1 of' }).waitFor();
    await page.locator('[data-number=Sessions] .figure', { hasText: '1' }).waitFor();
    await page.locator('[data-number=p95] .unit', { hasText: /ms|s/ }).waitFor();
    await page.locator('tr[data-target=demo] td .state', { hasText: 'Up' }).waitFor();
    await eventually('a line of the plot', async () => (await page.locator('.plot path.line.p50').getAttribute('d'))?.length > 5);
  });

  test('what servers and clients say is text', async () => {
    const { page } = at;
    const name = '<img src=x onerror="document.title=1"><b>bold</b>';
    await mcp.call(name);
    await rowOf(page, name).waitFor();
    assert.equal(await page.locator('table img, table b').count(), 0);
    assert.equal(await page.title(), 'mcpgw');
  });

  test('filters by tool, target, status and user', async () => {
    const { page } = at;
    const filters = page.getByRole('group', { name: 'Filter the activity' });
    const shown = async () => (await rows(page).locator('.call-cell .mono').allInnerTexts());
    const tool = filters.getByLabel('Tool or method');
    await tool.fill('ADD');
    await eventually('calls of add only', async () => {
      const names = await shown();
      return names.length === 1 && names[0] === 'add';
    });
    await page.locator('[data-feed-count]', { hasText: '1 of' }).waitFor();
    await page.getByText('1 of the latest calls match the filter').waitFor({ state: 'attached' });
    await tool.fill('');
    await filters.getByLabel('Status').selectOption('error');
    await eventually('failed calls only', async () => {
      const names = await shown();
      return names.length === 2 && !names.includes('add');
    });
    await filters.getByLabel('Status').selectOption('');
    await filters.getByLabel('Target').selectOption('demo');
    await eventually('calls of demo only', async () => (await shown()).join() === 'add');
    await filters.getByLabel('Target').selectOption('');
    await filters.getByLabel('User').fill('nobody');
    await page.getByText('Nothing matches').waitFor();
    await page.getByRole('button', { name: 'Clear the filter' }).click();
    await rowOf(page, 'add').waitFor();
  });

  test('pause holds the feed still, and says how much it holds back', async () => {
    const { page } = at;
    const pause = page.getByRole('button', { name: 'Pause' });
    await pause.click();
    const before = await rows(page).count();
    await mcp.call('echo', { text: 'while paused' });
    await page.locator('[data-feed-count]', { hasText: 'Paused · 1 new' }).waitFor();
    assert.equal(await rows(page).count(), before);
    const resume = page.getByRole('button', { name: 'Resume' });
    assert.equal(await resume.getAttribute('aria-pressed'), 'true');
    await resume.click();
    await rowOf(page, 'echo').waitFor();
  });

  test('a page that is loaded again shows what was before', async () => {
    const { page } = at;
    await page.reload();
    await live(page);
    for (const text of ['add', 'no_such_tool', 'echo']) await rowOf(page, text).waitFor();
    assert.equal((await rows(page).locator('.call-cell .mono').allInnerTexts()).filter((name) => name === 'add').length, 1);
  });

  test('light, dark and on a phone: legible, and within the width', async (t) => {
    const { page } = at;
    for (let i = 0; i < 40; ++i) await mcp.call(i % 3 ? 'echo' : 'add', i % 3 ? { text: 'x' } : { a: i, b: 1 });
    await accessible(page);
    await picture(page, 'console-light');
    await page.getByText('Dark', { exact: true }).locator('xpath=ancestor::label').click();
    assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(14, 15, 18)');
    await accessible(page);
    await picture(page, 'console-dark');
    await page.reload();
    await live(page);
    assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(14, 15, 18)');
    await page.getByText('As the system').locator('xpath=ancestor::label').click();
    assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(247, 247, 248)');

    const phone = await open(browser, gateway.url + '/', { ...PHONE, colorScheme: 'dark' });
    t.after(phone.close);
    await fitsTheWidth(phone.page);
    await signIn(phone.page, 'admin@example.test');
    await rowOf(phone.page, 'echo').waitFor();
    await fitsTheWidth(phone.page);
    await accessible(phone.page);
    await picture(phone.page, 'console-phone');
    await phone.page.getByRole('heading', { name: 'Activity' }).scrollIntoViewIfNeeded();
    await picture(phone.page, 'console-phone-activity');
    await phone.page.locator('.page-head').getByRole('button', { name: 'Connect a client' }).click();
    await phone.page.getByRole('dialog').waitFor();
    await fitsTheWidth(phone.page);
    await phone.sound();
  });

  test('asked nobody but the gateway; the token was in no URL and is kept for this tab alone', async () => {
    const { page, requests, sound } = at;
    const sockets = requests.filter((url) => url.includes('/api/observability/ws'));
    assert.ok(sockets.length >= 2, requests.join('\n'));
    for (const url of sockets) assert.match(url, /\/api\/observability\/ws\?ticket=[^&]+$/);
    assert.equal(new Set(sockets).size, sockets.length);
    assert.ok(!requests.some((url) => url.includes(gateway.adminToken)));
    const kept = await page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie);
    assert.ok(!kept.includes(gateway.adminToken));
    await sound(/status of 400/);  // the password that was too short
  });

  test('signing out revokes the token', async () => {
    const { page, sound } = at;
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await eventually('the token is revoked', async () => (await gateway.api('GET', '/api/auth/me')).status === 401);
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await mcp.close();
    await sound(/status of 400/);
  });
});

describe('others', () => {
  let gateway, ann, demo;
  before(async () => {
    gateway = await Gateway.start({ config: 'upstream:\n  allow_private: true\nmcp:\n  allowed_origins: ["http://127.0.0.1:*"]\n' });
    await gateway.registerAdmin();
    ann = await gateway.addUser('ann');
    demo = await gateway.addTarget('demo', demoStdio);
    await gateway.addTarget('secret', demoStdio);
    await gateway.allow(ann, demo, { type: 'tool', pattern: '^echo$' });
  });
  after(() => gateway?.stop());

  test('a plain user sees their own calls and targets', async (t) => {
    const { page, sound, close } = await open(browser, gateway.url + '/');
    t.after(close);
    await signIn(page, ann.email);
    await page.locator('tr[data-target=demo]').waitFor();
    assert.equal(await page.locator('tr[data-target=secret]').count(), 0);
    await page.getByText('Your calls').waitFor();
    assert.equal(await page.getByRole('group', { name: 'Filter the activity' }).getByLabel('User').count(), 0);
    const loginToken = (await gateway.ask('POST', '/api/auth/login', { email: 'admin@example.test', password: PASSWORD }, null)).token;
    const others = await gateway.ask('POST', '/api/auth/tokens', { name: 'admin mcp' }, loginToken);
    const theirs = await McpSession.open(gateway.url + '/mcp', others.token);
    await theirs.call('demo_add', { a: 1, b: 1 });
    const own = await McpSession.open(gateway.url + '/mcp', ann.token);
    await own.call('echo', { text: 'hello' });
    await own.call('add', { a: 1, b: 2 });
    await rowOf(page, 'echo').waitFor();
    const refused = rowOf(page, 'add');
    await refused.waitFor();
    assert.ok(!(await page.locator('table.calls').innerText()).includes('admin@example.test'));
    assert.equal(await rows(page).filter({ hasText: 'demo_add' }).count(), 0);
    await page.locator('[data-number=Sessions] .figure', { hasText: /^1$/ }).waitFor();
    await accessible(page);
    await own.close();
    await theirs.close();
    await sound();
  });

  test('a wrong password is told; the keyboard alone is enough', async (t) => {
    const { page, sound, close } = await open(browser, gateway.url + '/');
    t.after(close);
    const focused = () => page.evaluate(() => {
      const { activeElement: e } = document;
      return e?.getAttribute('aria-label') ?? e?.labels?.[0]?.textContent ?? e?.textContent ?? '';
    });
    await page.getByLabel('Email').waitFor();
    await page.keyboard.type('admin@example.test');  // the first field has the focus
    await page.keyboard.press('Tab');
    await page.keyboard.type('not the password');
    await page.keyboard.press('Enter');
    await page.getByRole('alert').waitFor();
    await page.getByLabel('Password').focus();
    await page.keyboard.press('Control+A');
    await page.keyboard.type(PASSWORD);
    await page.keyboard.press('Enter');
    await live(page);

    await page.keyboard.press('Tab');
    assert.equal(await focused(), 'Skip to content');
    await page.keyboard.press('Enter');
    assert.ok(await page.evaluate(() => document.activeElement?.id === 'main'));
    // From there every control is reached, with a ring around it.
    const reached = [];
    for (let i = 0; i < 30; ++i) {
      await page.keyboard.press('Tab');
      if (await page.evaluate(() => document.activeElement === document.body)) break;  // round the last one
      reached.push((await focused()).trim());
      const outline = await page.evaluate(() => {
        const element = document.activeElement;
        const at = element?.matches('.unseen') ? element.nextElementSibling : element;
        return at ? getComputedStyle(at).outlineStyle : '';
      });
      assert.notEqual(outline, 'none', `no focus ring on ${reached.at(-1)}`);
    }
    for (const name of ['Connect a client', 'Linear', 'Latency over the last 15 minutes', 'Tool or method', 'Target', 'User', 'Status', 'Pause'])
      assert.ok(reached.some((one) => one.startsWith(name)), `${name} is not among ${reached.join(', ')}`);

    const plot = page.getByRole('slider');
    await plot.focus();
    await page.keyboard.press('ArrowLeft');
    assert.match(await plot.getAttribute('aria-valuenow'), /^8[78]$/);  // what is chosen moves on with the time
    assert.match(await plot.getAttribute('aria-valuetext'), /^\d\d:\d\d:\d\d: (no requests|p50 )/);
    await page.keyboard.press('Home');
    assert.equal(await plot.getAttribute('aria-valuenow'), '0');
    await page.keyboard.press('Escape');
    assert.equal(await plot.getAttribute('aria-valuenow'), '89');
    await sound(/status of 401/);
  });

  test('a token that is revoked leads to the entrance, with the reason', async (t) => {
    const { page, sound, close } = await open(browser, gateway.url + '/');
    t.after(close);
    await signIn(page, ann.email);
    const [login] = (await gateway.ask('GET', `/api/users/${ann.user.id}/tokens`)).filter((one) => one.kind === 'login');
    assert.ok(login);
    for (const one of (await gateway.ask('GET', `/api/users/${ann.user.id}/tokens`)).filter((each) => each.kind === 'login'))
      await gateway.ask('DELETE', `/api/users/${ann.user.id}/tokens/${one.id}`);
    await page.getByRole('alert').filter({ hasText: 'revoked' }).waitFor();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await accessible(page);
    await sound(/status of 401/);
  });

  test('a user who becomes an administrator sees everything without signing in again', async (t) => {
    const bob = await gateway.addUser('bob');
    // Who the user is now is known when the next WebSocket has been asked for and is not open yet.
    const way = await lateWebSockets(gateway.url, 1000);
    t.after(way.close);
    const { page, sound, close } = await open(browser, way.url + '/');
    t.after(close);
    await page.route('**/api/auth/me', async (route) => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      await route.continue();
    });
    await signIn(page, bob.email);
    await page.getByText('No MCP server is open to you').waitFor();
    await gateway.ask('PUT', `/api/users/${bob.user.id}`, { role: 'admin' });
    await page.locator('tr[data-target=secret]').waitFor();
    await page.locator('.who-role', { hasText: 'admin' }).waitFor();
    await live(page);
    await sound();
  });
});

test('a machine whose clock is wrong, and a gateway without /docs', async (t) => {
  const gateway = await Gateway.start({ config: 'upstream:\n  allow_private: true\ndocs:\n  enabled: false\n' });
  t.after(() => gateway.stop());
  await gateway.registerAdmin();
  await gateway.addTarget('demo', demoStdio);
  const { page, sound, close } = await open(browser, gateway.url + '/', {
    before: () => {
      const real = Date.now;
      Date.now = () => real() - 30 * 60 * 1000;
    },
  });
  t.after(close);
  await signIn(page, 'admin@example.test');
  const minted = await gateway.ask('POST', '/api/auth/tokens', { name: 'mcp', scopes: ['mcp'] });
  const mcp = await McpSession.open(gateway.url + '/mcp', minted.token);
  await mcp.call('add', { a: 1, b: 1 });
  await rowOf(page, 'add').waitFor();
  await eventually('a line of the plot', async () => (await page.locator('.plot path.line.p50').getAttribute('d'))?.length > 5);
  await mcp.close();
  assert.equal(await page.getByText('API reference').count(), 0);
  await sound(/status of 404/);  // it has asked whether there is /docs
});

test('a gateway that is away for a while', async (t) => {
  let gateway = await Gateway.start();
  t.after(() => gateway.stop());
  await gateway.registerAdmin();
  const { page, sound, close } = await open(browser, gateway.url + '/');
  t.after(close);
  await signIn(page, 'admin@example.test');
  await gateway.stop();
  await page.locator('[data-connection=waiting]').waitFor();
  await page.getByRole('button', { name: 'Retry now' }).waitFor();
  await accessible(page);
  await picture(page, 'console-reconnecting');
  const { directory } = gateway;
  gateway = await Gateway.start({ directory, config: null, args: ['--port', new URL(gateway.url).port] });
  await live(page);
  await sound(/ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|ERR_SOCKET|status of 503|^failed: |WebSocket connection to/);
});

describe('over the wire', () => {
  let gateway;
  before(async () => {
    gateway = await Gateway.start();
  });
  after(() => gateway?.stop());

  test('a small bundle with a strict policy, kept for as long as it is good', async () => {
    const page = await fetch(gateway.url + '/');
    assert.equal(page.status, 200);
    assert.equal(page.headers.get('content-type'), 'text/html; charset=utf-8');
    assert.equal(page.headers.get('cache-control'), 'no-cache');
    const policy = page.headers.get('content-security-policy');
    for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'",
      "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"])
      assert.ok(policy.split('; ').includes(part), `${part} is not in ${policy}`);
    assert.doesNotMatch(policy, /unsafe|https?:|\*/);
    assert.equal(page.headers.get('x-content-type-options'), 'nosniff');
    assert.equal(page.headers.get('referrer-policy'), 'no-referrer');
    const html = await page.text();
    assert.doesNotMatch(html, /<style|style=|<script(?![^>]*\bsrc=)|\bon\w+=/);
    const again = await fetch(gateway.url + '/', { headers: { 'If-None-Match': page.headers.get('etag') } });
    assert.equal(again.status, 304);

    const files = [...html.matchAll(/(?:src|href)="\.\/([^"]+)"/g)].map(([, path]) => path);
    assert.ok(files.length >= 3, html);
    let bytes = 0;
    for (const path of ['', ...files]) {
      const raw = await fetch(`${gateway.url}/${path}`);
      assert.equal(raw.status, 200, path);
      assert.equal(raw.headers.get('content-encoding'), 'gzip', path);
      bytes += Number(raw.headers.get('content-length'));
      await raw.arrayBuffer();
      if (path) assert.equal(raw.headers.get('cache-control'), 'public, max-age=31536000, immutable', path);
      if (path) assert.match(path, /^assets\/[\w-]+-[\w-]{8}\.\w+$/);
    }
    assert.ok(bytes > 10_000 && bytes <= 200 * 1024, `${bytes} bytes`);
  });

  test('GET and HEAD only, and nothing beside it', async () => {
    const head = await fetch(gateway.url + '/', { method: 'HEAD' });
    assert.equal(head.status, 200);
    assert.equal(await head.text(), '');
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
      const refused = await fetch(gateway.url + '/', { method });
      assert.equal(refused.status, 405, method);
      assert.equal(refused.headers.get('allow'), 'GET, HEAD, OPTIONS');
    }
    for (const path of ['/index.html', '/assets', '/assets/', '/assets/x.js', '/assets/..%2findex.html', '/dashboard'])
      assert.equal((await fetch(gateway.url + path)).status, 404, path);
  });

  test('as it is and as gzip it is the same', async () => {
    const plain = await (await fetch(gateway.url + '/', { headers: { 'Accept-Encoding': 'identity' } })).text();
    assert.equal(plain, await (await fetch(gateway.url + '/')).text());
    assert.ok(plain.startsWith('<!doctype html>'));
  });
});

test('console.enabled: false leaves nothing of it', async (t) => {
  const gateway = await Gateway.start({ config: 'console:\n  enabled: false\n' });
  t.after(() => gateway.stop());
  const answer = await fetch(gateway.url + '/');
  assert.equal(answer.status, 404);
  assert.equal((await answer.json()).code, 'not_found');
});
