// /docs in Debian's Chromium (R81): it renders, lists every group, nothing comes from another host, and "try it" of
// GET /api/auth/me with a token gives the user.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { parse } from 'yaml';
import { Gateway } from '../e2e/lib/gateway.mjs';
import { launch, open as openPage, picture } from './lib/browser.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

/** What a warning says. Scalar lists the schemas that it cannot read, and mistakes one: a member with a choice of types. */
async function warning(message) {
  if (message.text().startsWith('document validation errors')) return [];
  const values = await Promise.all(message.args().map((value) => value.jsonValue()));
  return values.flat().map((value) => value?.path ?? JSON.stringify(value))
    .filter((what) => what !== '/components/schemas/McpError');
}

async function open(gateway) {
  const page = await openPage(browser, gateway.url + '/docs', { warning });
  // Scalar tries whether it may make code of text, and does without; it may not.
  return { ...page, sound: (...expected) => page.sound(/^policy: script-src eval$/, ...expected) };
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
