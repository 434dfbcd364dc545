// docs/openapi.yaml: the linter finds nothing, and docs/rest-api.md is what the document says.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { lint, loadConfig } from '@redocly/openapi-core';
import { parse } from 'yaml';
import { render } from './rest_api.mjs';

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const file = path('../../docs/openapi.yaml');

test('the linter has no error and no warning', async () => {
  const config = await loadConfig({ configPath: path('redocly.yaml') });
  const problems = await lint({ ref: file, config });
  assert.deepEqual(problems.map(({ ruleId, message, location }) =>
    `${ruleId}: ${message} (${location.map(({ pointer }) => pointer).join(', ')})`), []);
});

test('every operation says what success looks like', async () => {
  const document = parse(await readFile(file, 'utf8'));
  for (const [route, item] of Object.entries(document.paths))
    for (const [method, operation] of Object.entries(item))
      assert.ok(Object.keys(operation.responses).some((status) => /^(101|2..)$/.test(status)), `${method} ${route}`);
});

test('docs/rest-api.md is generated from the document', async () => {
  const wanted = render(parse(await readFile(file, 'utf8')));
  const found = await readFile(path('../../docs/rest-api.md'), 'utf8');
  assert.equal(found, wanted, 'docs/rest-api.md is stale: node tests/web/rest_api.mjs');
});
