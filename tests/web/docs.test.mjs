// /docs in Debian's Chromium (R81): it renders, lists every group, nothing comes from another host, and "try it" of
// GET /api/auth/me with a token gives the user.
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { inflateSync } from 'node:zlib';
import { chromium } from 'playwright-core';
import { parse } from 'yaml';
import { Gateway } from '../e2e/lib/gateway.mjs';

const pictures = fileURLToPath(new URL('../../build/web/', import.meta.url));

/** The colours of a PNG of 8 bits a channel, and how many pixels each one has. */
function colours(png) {
  const width = png.readUInt32BE(16);
  const height = png.readUInt32BE(20);
  assert.equal(png[24], 8);
  const channels = { 2: 3, 6: 4 }[png[25]];
  assert.ok(channels, `a PNG of colour type ${png[25]}`);
  const parts = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at))
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT') parts.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  const data = inflateSync(Buffer.concat(parts));
  const stride = width * channels;
  const counts = new Map();
  let above = Buffer.alloc(stride);
  for (let y = 0; y < height; ++y) {
    const filter = data[y * (stride + 1)];
    const row = Buffer.from(data.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    for (let x = 0; x < stride; ++x) {
      const left = x < channels ? 0 : row[x - channels];
      const up = above[x];
      const corner = x < channels ? 0 : above[x - channels];
      const guess = left + up - corner;
      const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
      row[x] += [0, left, up, (left + up) >> 1, a <= b && a <= c ? left : b <= c ? up : corner][filter];
    }
    for (let x = 0; x < stride; x += channels) {
      const colour = row.readUIntBE(x, 3);
      counts.set(colour, (counts.get(colour) ?? 0) + 1);
    }
    above = row;
  }
  return { width, height, counts };
}

/** Saves what the page looks like and fails when there is next to nothing on it. */
async function picture(page, name) {
  await mkdir(pictures, { recursive: true });
  const file = `${pictures}${name}.png`;
  await page.screenshot({ path: file });
  const { width, height, counts } = colours(await readFile(file));
  const most = Math.max(...counts.values()) / (width * height);
  assert.ok(counts.size > 50, `${name}: only ${counts.size} colours`);
  assert.ok(most < 0.99, `${name}: ${(most * 100).toFixed(1)} % of it is of one colour`);
}

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking',
      ...(process.getuid() === 0 ? ['--no-sandbox'] : [])],
  });
});
after(() => browser?.close());

/** What a warning says. Scalar lists the schemas that it cannot read, and mistakes one: a member with a choice of types. */
async function warning(message) {
  if (message.text().startsWith('document validation errors')) return [];
  const values = await Promise.all(message.args().map((value) => value.jsonValue()));
  return values.flat().map((value) => value?.path ?? JSON.stringify(value))
    .filter((what) => what !== '/components/schemas/McpError');
}

/** A page that keeps what it asked for and what went wrong. */
async function open(gateway) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 1000 } });
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  const requests = [];
  const faults = [];
  page.on('request', (request) => requests.push(request.url()));
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('requestfailed', (request) => faults.push(`failed: ${request.url()}`));
  const reading = [];
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(message.text());
    if (message.type() === 'warning') reading.push(warning(message).then((what) => faults.push(...what)));
  });
  await context.exposeFunction('reportViolation', (what) => faults.push(`policy: ${what}`));
  await context.addInitScript(() => document.addEventListener('securitypolicyviolation',
    (event) => window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`)));
  await page.goto(gateway.url + '/docs');
  // Scalar tries whether it may make code of text, and does without; it may not.
  const tried = 'policy: script-src eval';
  const sound = async (...expected) => {
    await Promise.all(reading);
    const elsewhere = requests.filter((url) => !url.startsWith(gateway.url + '/') && !/^(data|blob):/.test(url));
    assert.deepEqual(elsewhere, []);
    assert.deepEqual(faults.filter((fault) => fault !== tried && !expected.some((one) => one.test(fault))), []);
  };
  return { page, requests, sound, close: () => context.close() };
}

describe('/docs', () => {
  let gateway, document;
  before(async () => {
    gateway = await Gateway.start();
    await gateway.registerAdmin();
    document = await (await fetch(gateway.url + '/docs/openapi.json')).json();
  });
  after(() => gateway?.stop());

  test('the page in a browser', async (t) => {
    const { page, requests, sound, close } = await open(gateway);
    t.after(close);

    await t.test('lists every group and operation', async () => {
      const sidebar = page.getByRole('navigation').first();
      await sidebar.getByText('Introduction').first().waitFor();
      for (const { name } of document.tags) await sidebar.getByText(name, { exact: true }).first().waitFor();
      const listed = await sidebar.innerText();
      for (const item of Object.values(document.paths))
        for (const { summary } of Object.values(item)) assert.ok(listed.includes(summary), `not listed: ${summary}`);
      await picture(page, 'docs');
    });

    await t.test('"try it" of GET /api/auth/me with the token gives the user', async () => {
      await page.getByRole('button', { name: /^Test Request\s*\(get \/api\/auth\/me\)$/ }).click();
      const dialog = page.getByRole('dialog');
      const send = dialog.getByRole('button', { name: 'Send' }).first();
      const token = dialog.getByPlaceholder('Token');

      const refused = page.waitForResponse((response) => response.url() === gateway.url + '/api/auth/me');
      await send.click();
      assert.equal((await refused).status(), 401);

      await token.fill(gateway.adminToken);
      const answered = page.waitForResponse((response) => response.url() === gateway.url + '/api/auth/me');
      await send.click();
      const response = await answered;
      assert.equal(response.status(), 200);
      assert.equal((await response.request().allHeaders()).authorization, `Bearer ${gateway.adminToken}`);
      assert.equal((await response.json()).id, gateway.admin.id);
      await dialog.getByText(gateway.admin.email).first().waitFor();
      await dialog.getByText(gateway.admin.id).first().waitFor();
      await picture(page, 'docs-try-it');
    });

    await t.test('asked nobody but the gateway, and kept no token', async () => {
      assert.ok(requests.length >= 6, requests.join('\n'));
      const kept = await page.evaluate(() => JSON.stringify({ ...localStorage }) + JSON.stringify({ ...sessionStorage }) +
        document.cookie);
      assert.ok(!kept.includes(gateway.adminToken));
      await sound(/status of 401/);  // the call without a token
    });
  });

  test('JSON and YAML say the same, to parsers that are not ours', async () => {
    const yaml = await fetch(gateway.url + '/docs/openapi.yaml');
    assert.equal(yaml.headers.get('content-type'), 'application/yaml');
    const text = await yaml.text();
    assert.equal(text, await readFile(new URL('../../docs/openapi.yaml', import.meta.url), 'utf8'));
    assert.deepEqual(parse(text), document);
  });

  test('over the wire: compressed, with a tag, sent once', async () => {
    for (const path of ['/docs', '/docs/openapi.json', '/docs/openapi.yaml', '/docs/scalar.js', '/docs/docs.js']) {
      const first = await fetch(gateway.url + path);  // fetch takes gzip
      assert.equal(first.status, 200, path);
      await first.arrayBuffer();
      if (path !== '/docs') assert.equal(first.headers.get('content-encoding'), 'gzip', path);
      const again = await fetch(gateway.url + path, { headers: { 'If-None-Match': first.headers.get('etag') } });
      assert.equal(again.status, 304, path);
      const head = await fetch(gateway.url + path, { method: 'HEAD' });
      assert.equal(head.status, 200, path);
      assert.equal(await head.text(), '');
      const other = await fetch(gateway.url + path, { method: 'POST', body: '{}' });
      assert.equal(other.status, 405, path);
      assert.equal(other.headers.get('allow'), 'GET, HEAD, OPTIONS');
    }
    const plain = await fetch(gateway.url + '/docs/scalar.js', { headers: { 'Accept-Encoding': 'identity' } });
    assert.equal(plain.headers.get('content-encoding'), null);
    const packed = await fetch(gateway.url + '/docs/scalar.js');
    assert.equal(await plain.text(), await packed.text());
    const allowed = await fetch(gateway.url + '/docs/openapi.json', { headers: { Origin: 'http://localhost:3001' } });
    assert.equal(allowed.headers.get('access-control-allow-origin'), 'http://localhost:3001');
  });
});

test('docs.enabled: false leaves nothing of it', async (t) => {
  const gateway = await Gateway.start({ config: 'docs:\n  enabled: false\n' });
  t.after(() => gateway.stop());
  for (const path of ['/docs', '/docs/openapi.yaml', '/docs/openapi.json', '/docs/scalar.js', '/docs/docs.js']) {
    const answer = await fetch(gateway.url + path);
    assert.equal(answer.status, 404, path);
    assert.equal((await answer.json()).code, 'not_found');
  }
});
