// Debian's Chromium, pages that keep what they asked for and what went wrong, and pictures of them.
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { inflateSync } from 'node:zlib';
import { chromium } from 'playwright-core';

const pictures = fileURLToPath(new URL('../../../build/web/', import.meta.url));

export const launch = () => chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking',
    ...(process.getuid() === 0 ? ['--no-sandbox'] : [])],
});

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
export async function picture(page, name) {
  await mkdir(pictures, { recursive: true });
  const file = `${pictures}${name}.png`;
  await page.screenshot({ path: file });
  const { width, height, counts } = colours(await readFile(file));
  const most = Math.max(...counts.values()) / (width * height);
  assert.ok(counts.size > 50, `${name}: only ${counts.size} colours`);
  assert.ok(most < 0.99, `${name}: ${(most * 100).toFixed(1)} % of it is of one colour`);
}

/**
 * A page at `url` with a context of its own. `requests` are the URLs it asked for, WebSockets too; `sound()` fails when
 * one of them is of another host, or anything went wrong that none of the patterns given expects.
 * `warning(message)` says which faults a warning on the console means; by default itself. `before` runs in the page before
 * anything of its own.
 */
export async function open(browser, url, { warning, before, ...options } = {}) {
  const origin = new URL(url).origin;
  const context = await browser.newContext({ viewport: { width: 1400, height: 1000 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  const requests = [];
  const faults = [];
  const reading = [];
  page.on('request', (request) => requests.push(request.url()));
  page.on('websocket', (socket) => requests.push(socket.url().replace(/^ws/, 'http')));
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('requestfailed', (request) => faults.push(`failed: ${request.url()}`));
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(message.text());
    if (message.type() !== 'warning') return;
    if (warning) reading.push(warning(message).then((what) => faults.push(...what)));
    else faults.push(message.text());
  });
  await context.exposeFunction('reportViolation', (what) => faults.push(`policy: ${what}`));
  await context.addInitScript(() => document.addEventListener('securitypolicyviolation',
    (event) => window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`)));
  if (before) await context.addInitScript(before);
  await page.goto(url);
  const sound = async (...expected) => {
    await Promise.all(reading);
    const elsewhere = requests.filter((one) => !one.startsWith(origin + '/') && !/^(data|blob):/.test(one));
    assert.deepEqual(elsewhere, []);
    assert.deepEqual(faults.filter((fault) => !expected.some((one) => one.test(fault))), []);
  };
  return { page, requests, sound, close: () => context.close() };
}
