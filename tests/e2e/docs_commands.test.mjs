// The commands of the task pages do what the pages say: each page is run from top to bottom, as a reader would copy it,
// beside a gateway in a fresh directory, and what it shows as output is what comes out.
//
// In a page: ```sh is run; a ```text or ```json right behind it is its output, where "…" stands for anything within a
// line, and alone on a line for any lines. <!-- not run: why --> before a block leaves it out; <!-- types: text --> is
// what its reader types; <!-- when: command --> is what a reader, who is slower, has no need to wait for. The only change
// made is the port.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DEMO, Gateway, MCPGW, temporaryDirectory, within } from './lib/gateway.mjs';

const docs = fileURLToPath(new URL('../../docs/', import.meta.url));

/** The sh blocks of a page: {line, code, expected, reason, typed, when}. */
function blocksOf(text) {
  const blocks = [];
  let fence = null, remark = null, last = null;
  text.split('\n').forEach((line, index) => {
    if (fence) {
      if (line !== '```') { fence.lines.push(line); return; }
      const content = fence.lines.join('\n');
      if (fence.language === 'sh') {
        last = { line: fence.line, code: content, expected: null, reason: remark?.reason, typed: remark?.typed, when: remark?.when };
        blocks.push(last);
      } else {
        if (last && (fence.language === 'text' || fence.language === 'json')) last.expected = content;
        last = null;
      }
      fence = remark = null;
      return;
    }
    const open = /^```(\w*)$/.exec(line);
    const note = /^<!-- (?:not run: (?<reason>.+)|types: (?<typed>.+)|when: (?<when>.+)) -->$/.exec(line);
    if (open) fence = { language: open[1], lines: [], line: index + 1 };
    else if (note) remark = note.groups;
    else if (line.trim()) last = remark = null;
  });
  assert.equal(fence, null, 'a fence is not closed');
  return blocks;
}

/** Whether `text` is what a page shows; how wide a table's columns are is nobody's promise. */
function shows(shown, printed) {
  const narrow = (part) => part.replaceAll(/ {2,}/g, '  ').replaceAll(/ +$/gm, '');
  const expected = narrow(shown), text = narrow(printed);
  const escape = (part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const pattern = expected.split('\n').map((line) => (line.trim() === '…' ? '(?:.*\\n)*' : `${line.split('…').map(escape).join('.*')}[ \\t]*\\n`)).join('');
  return new RegExp(`^${pattern}$`).test(text.endsWith('\n') || text === '' ? text : `${text}\n`);
}

/** Runs the blocks in one shell; gives their outputs as far as they came, and how it ended. */
async function runBlocks(blocks, directory, env) {
  const out = path.join(directory, '.outputs');
  await mkdir(out);
  let script = 'set -e -o pipefail\n';
  for (const [index, { code, typed, when }] of blocks.entries()) {
    await writeFile(path.join(out, `${index}.in`), typed ? `${typed}\n` : '');
    if (when) script += `exec >/dev/null 2>&1\nuntil ${when}; do sleep 0.05; done\n`;
    script += `exec >"${out}/${index}.out" 2>&1 <"${out}/${index}.in"\n${code}\n`;
  }
  await writeFile(path.join(out, 'script'), script);
  // A process group of its own: what a page starts in the background ends with it.
  const child = spawn('bash', [path.join(out, 'script')], { cwd: directory, env, detached: true, stdio: 'ignore' });
  try {
    const code = await within(120000, 'the commands of the page', new Promise((resolve, reject) => {
      child.on('close', resolve);
      child.on('error', reject);
    }));
    const outputs = [];
    for (const index of blocks.keys())
      outputs.push(await readFile(path.join(out, `${index}.out`), 'utf8').catch(() => null));
    return { code, outputs };
  } finally {
    try { process.kill(-child.pid, 'SIGTERM'); } catch { /* it has ended with all its children */ }
  }
}

test('the comparison of outputs is exact but for what is marked', () => {
  assert.ok(shows('a\nb', 'a\nb\n'));
  assert.ok(shows('', '\n') && shows('\na', '\na\n'));
  assert.ok(shows('id …, name x', 'id 17, name x\n'));
  assert.ok(shows('A     B\n1     2', 'A    B  \n1    2\n'));
  assert.ok(shows('a\n…\nz', 'a\nb\nc\nz\n') && shows('a\n…', 'a\n') && shows('…', ''));
  for (const [expected, text] of [['a', 'b\n'], ['a', 'a\nb\n'], ['a\nb', 'a\n'], ['id …, name x', 'id 17\nname x\n'], ['a.c', 'abc\n'], ['a  b', 'a b\n'], ['', 'x\n']])
    assert.ok(!shows(expected, text), `${expected} is not ${text}`);
});

test('blocks, outputs and remarks are told apart', () => {
  const blocks = blocksOf('x\n\n```sh\na\n```\n```text\nb\n```\n\n<!-- not run: slow -->\n```sh\nc\n```\ntext\n```json\n{}\n```\n<!-- types: secret -->\n```sh\nd\n```\n');
  assert.deepEqual(blocks.map(({ code, expected, reason, typed }) => [code, expected, reason, typed]),
    [['a', 'b', undefined, undefined], ['c', null, 'slow', undefined], ['d', null, undefined, 'secret']]);
});

describe('the pages', { timeout: 300000 }, () => {
  for (const [page, least] of [['policies.md', 10], ['credentials.md', 8], ['getting-started.md', 2]]) {
    test(page, async (t) => {
      const directory = await temporaryDirectory();
      const bin = path.join(directory, 'bin');
      await mkdir(bin);
      await symlink(MCPGW, path.join(bin, 'mcpgw'));
      await symlink(DEMO, path.join(bin, 'demo_upstream'));
      const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
      const gateway = await Gateway.start({ config: null, directory, env });
      t.after(() => gateway.stop());
      const port = new URL(gateway.url).port;
      const here = (text) => text?.replaceAll(/\b(127\.0\.0\.1|localhost):3000\b/g, `$1:${port}`) ?? null;
      const blocks = blocksOf(await readFile(path.join(docs, page), 'utf8')).filter((block) => !block.reason)
        .map((block) => ({ ...block, code: here(block.code), expected: here(block.expected), when: here(block.when) }));
      assert.ok(blocks.length >= least, `only ${blocks.length} blocks of ${page} are run`);
      const { code, outputs } = await runBlocks(blocks, directory, env);
      for (const [index, { line, expected }] of blocks.entries()) {
        const where = `${page}:${line}`;
        if (outputs[index] === null) break;  // told below
        if (expected !== null && !(code !== 0 && outputs[index + 1] === null))
          assert.ok(shows(expected, outputs[index]), `${where} shows\n${expected}\nand prints\n${outputs[index]}`);
      }
      const ended = outputs.findIndex((output) => output === null);
      const last = ended < 0 ? blocks.length - 1 : ended - 1;
      assert.equal(code, 0, `${page}:${blocks[last]?.line} fails: ${outputs[last]}`);
      assert.equal(ended, -1);
    });
  }
});
