// Writes docs/rest-api.md from docs/openapi.yaml: node tests/web/rest_api.mjs
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

const who = { public: 'Anyone', user: 'Any user', admin: 'Administrators' };
const codesSentence = /\s*Error codes of this route: ([^.]*)\.\s*/;

/** Text for a cell of a table. */
const cell = (text) => String(text).trim().replaceAll(/\s*\n\s*/g, ' ').replaceAll('|', '\\|');
const code = (text) => '`' + text + '`';
const anchor = (heading) => heading.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-');
const join = (lines) => lines.filter((line) => line !== null && line !== undefined).join('\n');

class Reference {
  constructor(document) {
    this.document = document;
  }

  resolve(value) {
    while (value?.$ref) {
      value = value.$ref.slice(2).split('/').reduce((at, key) => at[key.replaceAll('~1', '/')], this.document);
    }
    return value;
  }

  /** What a value looks like, in a few words. In a request `null` is as good as nothing, and is not told. */
  type(schema, asked = false) {
    if (schema.$ref) {
      const name = schema.$ref.split('/').pop();
      return `[${name}](#${anchor(name)})`;
    }
    const or = schema.nullable && !asked ? ' or null' : '';
    const forms = schema.anyOf ?? schema.oneOf;
    if (forms && !schema.type) return [...new Set(forms.map((form) => this.type(form, asked)))].join(' or ') + or;
    if (schema.enum) return schema.enum.filter((word) => word !== null).map((word) => code(word === '' ? '""' : word)).join(', ') + or;
    if (schema.type === 'array') return `list of ${this.type(schema.items, asked)}` + or;
    if (schema.type === 'object' && typeof schema.additionalProperties === 'object' && !schema.properties)
      return `object of ${this.type(schema.additionalProperties, asked)}` + or;
    if (schema.format === 'uuid') return 'UUID' + or;
    if (schema.format === 'date-time') return 'time' + or;
    return (schema.type ?? 'anything') + or;
  }

  /** Bounds and what the description says. */
  rule(schema) {
    const target = this.resolve(schema);
    const said = [];
    if (target.description && !schema.$ref) said.push(target.description.trim().replace(/([^.!?:])$/, '$1.'));
    if (schema.$ref) return said.join(' ');
    const range = (low, high, unit) => {
      if (low > 0 && high === undefined) return low === 1 && unit ? 'Not empty.' : `At least ${low}${unit}.`;
      if (low !== undefined && high !== undefined) return `${low} to ${high}${unit}.`;
      if (high !== undefined) return `At most ${high}${unit}.`;
      return null;
    };
    const told = target.description ?? '';
    const bounds = [range(target.minimum, target.maximum, ''), range(target.minLength, target.maxLength, ' characters'),
      range(target.minItems, target.maxItems, ' elements')];
    // What the description says in words is not said again.
    for (const bound of bounds) if (bound && !/\d/.test(told)) said.push(bound);
    if (target.default !== undefined) said.push(`Default: ${code(JSON.stringify(target.default))}.`);
    return said.join(' ');
  }

  /** Rows of the members of an object; those of inner objects as `outer.inner`. */
  members(schema, asked, prefix = '') {
    const target = this.resolve(schema);
    const required = new Set(target.required ?? []);
    return Object.entries(target.properties ?? {}).flatMap(([name, member]) => {
      const full = prefix + name;
      const row = `| ${code(full)} | ${cell(this.type(member, asked))} | ${required.has(name) ? 'yes' : ''} | ${cell(this.rule(member))} |`;
      const inner = member.$ref ? null : member.type === 'array' ? member.items : member;
      const more = inner && !inner.$ref && inner.properties ? this.members(inner, asked, full + (inner === member ? '.' : '[].')) : [];
      return [row, ...more];
    });
  }

  table(schema, third) {
    const rows = this.members(schema, third === 'Required');
    if (!rows.length) return null;
    return join([`| Member | Type | ${third} | |`, '|---|---|---|---|', ...rows]);
  }

  /** The forms an object may have, when there is a choice: each with what it needs. */
  forms(schema) {
    const target = this.resolve(schema);
    const choices = [target, ...(target.allOf ?? [])].map((one) => one.anyOf ?? one.oneOf).filter(Boolean);
    const lines = choices.map((forms) => forms.filter(({ title }) => title)
      .map(({ title, required }) => title + (required ? ` (needs ${required.map(code).join(', ')})` : ''))
      .join('; ')).filter(Boolean);
    return lines.length ? join(lines.map((line) => `One of: ${line}.`)) : null;
  }

  parameters(operation) {
    if (!operation.parameters?.length) return null;
    const rows = operation.parameters.map((given) => {
      const parameter = this.resolve(given);
      const where = parameter.in + (parameter.required ? '' : ', optional');
      const words = [parameter.description?.trim().replace(/([^.])$/, '$1.'), this.rule(parameter.schema)].filter(Boolean).join(' ');
      return `| ${code(parameter.name)} | ${where} | ${cell(this.type(parameter.schema))} | ${cell(words)} |`;
    });
    return join(['| Parameter | In | Type | |', '|---|---|---|---|', ...rows]);
  }

  body(operation) {
    if (!operation.requestBody) return null;
    const { required, content } = this.resolve(operation.requestBody);
    const { schema } = Object.values(content)[0];
    const optional = required ? '' : ' (may be left out)';
    if (schema.$ref) return `Body${optional}: ${this.type(schema)}`;
    return join([`Body${optional}:`, '', this.table(schema, 'Required'), this.forms(schema) && '\n' + this.forms(schema)]);
  }

  answers(operation) {
    const good = [];
    const bad = [];
    for (const [status, given] of Object.entries(operation.responses).sort()) {
      const response = this.resolve(given);
      if (Number(status) >= 400 && response.content && JSON.stringify(given).includes('#/components/responses/')) {
        bad.push(status);
        continue;
      }
      const media = Object.entries(response.content ?? {}).map(([type, { schema }]) => {
        const told = this.type(schema);
        const plain = schema.$ref || schema.type === 'array';
        return type === 'application/json' ? (plain ? told : null) : code(type);
      }).filter(Boolean);
      const headers = Object.keys(response.headers ?? {}).map(code);
      const also = [media.join(' or '), headers.length ? 'with ' + headers.join(', ') : ''].filter(Boolean).join(' ');
      good.push(`- **${status}** ${response.description.trim().replace(/\.$/, '')}${also ? ': ' + also : ''}`);
      const inline = response.content?.['application/json'];
      if (inline && !inline.schema.$ref && inline.example !== undefined)
        good.push(`  ${code(JSON.stringify(inline.example))}`);
    }
    const codes = codesSentence.exec(operation.description ?? '')?.[1];
    const errors = bad.length ? `Errors ([statuses](#statuses)): ${bad.join(', ')}${codes ? '; codes of its own: ' + codes : ''}.` : null;
    return join([...good, errors && '\n' + errors]);
  }

  example(method, route, operation) {
    const parameters = (operation.parameters ?? []).map((given) => this.resolve(given));
    const shown = route.replaceAll(/\{(\w+)\}/g, (_, name) =>
      encodeURIComponent(parameters.find((one) => one.in === 'path' && one.name === name).example));
    const query = parameters.filter((one) => one.in === 'query' && (one.required || ['limit', 'since'].includes(one.name)))
      .map((one) => `${one.name}=${encodeURIComponent(one.example)}`).join('&');
    const parts = [`curl ${method === 'get' ? '' : `-X ${method.toUpperCase()} `}"$base${shown}${query ? '?' + query : ''}"`];
    if (operation.security.length) parts.push('-H "Authorization: Bearer $token"');
    for (const one of parameters) if (one.in === 'header' && (one.required || one.name === 'If-Match'))
      parts.push(`-H '${one.name}: ${one.example}'`);
    if (operation.requestBody) {
      const media = this.resolve(operation.requestBody).content['application/json'];
      const value = media.example ?? this.resolve(media.schema).example;
      parts.push("-H 'Content-Type: application/json'");
      if (route === '/mcp') parts.push("-H 'Accept: application/json, text/event-stream'");
      parts.push(`-d '${JSON.stringify(value).replaceAll("'", "'\\''")}'`);
    }
    return join(['```sh', parts.reduce((lines, part) => {
      const last = lines.at(-1);
      if (last.length + part.length < 108) return [...lines.slice(0, -1), last ? `${last} ${part}` : part];
      return [...lines.slice(0, -1), last + ' \\', '  ' + part];
    }, ['']).join('\n'), '```']);
  }

  operation(method, route, operation) {
    const description = (operation.description ?? '').replace(codesSentence, '').trim();
    return [`### ${method.toUpperCase()} ${route}`,
      `${operation.summary.replace(/\.$/, '')}. *${who[operation['x-mcpgw-who']]}.*${description ? ' ' + description : ''}`,
      this.parameters(operation), this.body(operation), this.answers(operation), this.example(method, route, operation)];
  }

  /** [method, route, operation] of a group, in the order of the document. */
  of(tag) {
    return Object.entries(this.document.paths).flatMap(([route, item]) => Object.entries(item)
      .filter(([, operation]) => operation.tags?.includes(tag)).map(([method, operation]) => [method, route, operation]));
  }

  overview() {
    const rows = this.document.tags.flatMap(({ name }) => [`| **[${name}](#${anchor(name)})** | | |`,
      ...this.of(name).map(([method, route, operation]) => {
        const heading = `${method.toUpperCase()} ${route}`;
        return `| [${heading}](#${anchor(heading)}) | ${who[operation['x-mcpgw-who']]} | ${cell(operation.summary)} |`;
      })]);
    return join(['| Route | Who | |', '|---|---|---|', ...rows]);
  }

  errors() {
    const rows = Object.values(this.document.paths).flatMap((item) => Object.values(item))
      .flatMap(({ responses }) => Object.entries(responses)).filter(([status, given]) => status >= '400' && given.$ref);
    const seen = new Map();
    for (const [status, given] of rows.sort(([a], [b]) => a.localeCompare(b))) {
      const response = this.resolve(given);
      const example = Object.values(response.content)[0].example;
      if (example?.code && !seen.has(status)) seen.set(status, [response.description, example.code]);
    }
    return join(['| Status | When | For example |', '|---|---|---|',
      ...[...seen].map(([status, [when, word]]) => `| ${status} | ${cell(when)} | ${code(word)} |`)]);
  }

  objects() {
    return Object.entries(this.document.components.schemas).flatMap(([name, schema]) => [`### ${name}`,
      schema.description ?? null, this.table(schema, /^New|Change$|Writes?$/.test(name) ? 'Required' : 'Always'),
      this.forms(schema), schema.example === undefined ? null : '```json\n' + JSON.stringify(schema.example, null, 2) + '\n```']);
  }
}

export function render(document) {
  const reference = new Reference(document);
  const parts = ['# The REST API',
    '<!-- Generated from openapi.yaml by tests/web/rest_api.mjs; a test fails when it is stale. -->',
    document.info.description.trim(),
    '## Statuses', 'What every route may answer besides its own; the form is that of [Error](#error).', reference.errors(),
    '## Routes', reference.overview()];
  for (const { name, description } of document.tags) {
    parts.push(`## ${name}`, description);
    for (const [method, route, operation] of reference.of(name)) parts.push(...reference.operation(method, route, operation));
  }
  parts.push('## Objects', 'Times are RFC 3339 in UTC with six fractional digits.', ...reference.objects());
  return parts.filter(Boolean).join('\n\n') + '\n';
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const at = (relative) => fileURLToPath(new URL(relative, import.meta.url));
  writeFileSync(at('../../docs/rest-api.md'), render(parse(readFileSync(at('../../docs/openapi.yaml'), 'utf8'))));
}
