// Metrics as Prometheus reads them: naming, both formats, the alert rules, and every query of the dashboard.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { lastMessage, openSession, post } from '../e2e/lib/clients.mjs';
import { eventually, Gateway, start, temporaryDirectory, within } from '../e2e/lib/gateway.mjs';
import { demoStdio, httpTarget } from '../e2e/lib/upstreams.mjs';
import { freePort } from '../e2e/lib/free_port.mjs';

const operations = fileURLToPath(new URL('../../docs/operations/', import.meta.url));
const TOKEN = 'only-for-prometheus';
const CONFIG = `metrics: {token: ${TOKEN}}\nupstream: {allow_private: true}\naudit: {export: stdout}\n`;

async function promtool(args, input = '') {
  const child = spawn('promtool', args);
  let output = '';
  child.stdout.on('data', (data) => { output += data; });
  child.stderr.on('data', (data) => { output += data; });
  child.stdin.end(input);
  const code = await within(30000, 'promtool', new Promise((resolve, reject) => {
    child.on('close', resolve);
    child.on('error', reject);
  }));
  return { code, output };
}

const scrape = async (gateway, accept) => {
  const response = await fetch(`${gateway.url}/metrics`,
    { headers: { Authorization: `Bearer ${TOKEN}`, ...(accept && { Accept: accept }) } });
  assert.equal(response.status, 200);
  return { text: await response.text(), type: response.headers.get('content-type') };
};

/** Calls of every outcome: tools, a denied one, unknown ones, a target that is away, refused tokens. */
async function traffic(gateway, alice) {
  const session = await openSession(gateway, alice.token);
  let id = 0;
  const call = async (method, params) => JSON.parse(lastMessage(await post(gateway, alice.token,
    { jsonrpc: '2.0', id: id += 1, method, params }, { session })));
  const { result } = await call('tools/list', {});
  const echo = result.tools.find((tool) => tool.name.endsWith('echo')).name;
  for (let i = 0; i < 5; i += 1) assert.ok((await call('tools/call', { name: echo, arguments: { text: 'x' } })).result);
  await call('tools/call', { name: 'nothing', arguments: {} });
  await call('tools/call', { name: 'away_tool', arguments: {} });
  await call('no/such/method', {});
  await post(gateway, 'wrong', { jsonrpc: '2.0', id: 1, method: 'ping' });
  await gateway.ask('GET', '/api/users');
}

async function withTargets() {
  const gateway = await Gateway.start({ config: CONFIG });
  await gateway.registerAdmin();
  const alice = await gateway.addUser('alice');
  for (const [name, members] of [['demo', demoStdio], ['away', httpTarget('http://127.0.0.1:9/mcp')]])
    await gateway.allow(alice, await gateway.addTarget(name, members));
  await traffic(gateway, alice);
  return { gateway, alice };
}

describe('metrics', { timeout: 180000 }, () => {
  test('names and forms are what Prometheus recommends', async () => {
    const { gateway } = await withTargets();
    const { text, type } = await scrape(gateway);
    assert.equal(type, 'text/plain; version=0.0.4; charset=utf-8');
    const lines = text.split('\n');
    for (const line of ['mcpgw_tool_calls_total{target="demo",tool="echo",status="ok"} 5', 'mcpgw_upstream_up{target="demo"} 1',
      'mcpgw_upstream_up{target="away"} 0'])
      assert.ok(lines.includes(line), line);
    const checked = await promtool(['check', 'metrics'], text);
    assert.equal(checked.output, '');
    assert.equal(checked.code, 0);
    assert.deepEqual(await gateway.stop(), { code: 0, signal: null });
  });

  test('alert rules and the scrape configuration are valid', async () => {
    const rules = await promtool(['check', 'rules', path.join(operations, 'alerts.yml')]);
    assert.equal(rules.code, 0, rules.output);
    assert.match(rules.output, /1[0-9] rules found/);
    const config = await promtool(['check', 'config', path.join(operations, 'prometheus.yml')]);
    assert.equal(config.code, 0, config.output);
  });

  test('Prometheus scrapes the gateway, and every query of dashboard and alerts has an answer', async () => {
    const { gateway, alice } = await withTargets();
    const directory = await temporaryDirectory();
    const host = new URL(gateway.url).host;
    await writeFile(path.join(directory, 'alerts.yml'), await readFile(path.join(operations, 'alerts.yml')));
    const config = (await readFile(path.join(operations, 'prometheus.yml'), 'utf8'))
      .replace('scrape_interval: 15s', 'scrape_interval: 1s\n  evaluation_interval: 1s')
      .replace('# authorization: {credentials: "<metrics.token>"}', `authorization: {credentials: "${TOKEN}"}`)
      .replace('localhost:3000', host);
    await writeFile(path.join(directory, 'prometheus.yml'), config);
    const port = await freePort();
    const prometheus = start('prometheus', [`--config.file=${directory}/prometheus.yml`,
      `--storage.tsdb.path=${directory}/data`, `--web.listen-address=127.0.0.1:${port}`, '--log.level=warn']);
    const ask = async (route) => (await (await fetch(`http://127.0.0.1:${port}/api/v1/${route}`)).json());
    const query = (expression) => ask(`query?query=${encodeURIComponent(expression)}`);
    await eventually('Prometheus has scraped it', async () => {
      const answer = await ask('targets').catch(() => null);
      const target = answer?.data.activeTargets[0];
      if (target?.lastError) throw new Error(target.lastError);
      return target?.health === 'up';
    }, 30000);
    // A rate needs two points with something between them.
    await eventually('rates', async () => {
      await traffic(gateway, alice);
      const answer = await query('sum(rate(mcpgw_tool_calls_total[1m])) > 0');
      return answer.data?.result.length === 1;
    }, 30000);

    const dashboard = JSON.parse(await readFile(path.join(operations, 'grafana-dashboard.json'), 'utf8'));
    const targets = dashboard.panels.flatMap((panel) => panel.targets.map((one) => ({ panel: panel.title, ...one })));
    assert.ok(targets.length > 20);
    const empty = [];
    for (const { panel, expr } of targets) {
      const expression = expr.replaceAll('$__rate_interval', '1m').replaceAll('$instance', '.*').replaceAll('$target', '.*');
      const answer = await query(expression);
      assert.equal(answer.status, 'success', `${panel}: ${expression}: ${answer.error}`);
      if (answer.data.result.length === 0) empty.push(expression);
    }
    // Nothing was limited; everything else has been made to happen.
    assert.deepEqual(empty.filter((expression) => !expression.includes('rate_limited')), []);
    for (const variable of dashboard.templating.list.filter((one) => one.type === 'query')) {
      const [, series, label] = /label_values\((\w+), (\w+)\)/.exec(variable.definition);
      const answer = await ask(`label/${label}/values?match[]=${series}`);
      assert.ok(answer.data.length > 0, variable.name);
    }

    const rules = await eventually('rules are evaluated', async () => {
      const answer = await ask('rules');
      const all = answer.data.groups.flatMap((group) => group.rules);
      return all.length > 0 && all.every((rule) => rule.health !== 'unknown') ? all : null;
    }, 30000);
    assert.deepEqual(rules.filter((rule) => rule.health !== 'ok').map((rule) => `${rule.name}: ${rule.lastError}`), []);
    // The target that is away is pending; nothing else is wrong with this gateway.
    await eventually('an alert that ought to', async () => {
      await traffic(gateway, alice);
      const answer = await ask('alerts');
      return answer.data.alerts.some((alert) => alert.labels.alertname === 'McpgwTargetDown' && alert.labels.target === 'away');
    }, 30000);
    const names = new Set((await ask('alerts')).data.alerts.map((alert) => alert.labels.alertname));
    for (const critical of ['McpgwDown', 'McpgwAuditFailing', 'McpgwStorageErrors']) assert.ok(!names.has(critical), critical);
    await prometheus.stop();
    await gateway.stop();
  });

  test('Prometheus takes the form of OpenMetrics, as it asks for', async () => {
    const { gateway } = await withTargets();
    const { text, type } = await scrape(gateway, 'application/openmetrics-text;version=1.0.0');
    assert.equal(type, 'application/openmetrics-text; version=1.0.0; charset=utf-8');
    assert.ok(text.endsWith('# EOF\n'));
    const families = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
    assert.equal(new Set(families.map(([, name]) => name)).size, families.length, 'a family appears once');
    for (const [, name, kind] of families) assert.ok(kind !== 'counter' || !name.endsWith('_total'), name);
    await gateway.stop();
  });
});
